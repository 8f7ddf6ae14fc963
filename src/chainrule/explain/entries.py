"""One entry of a formula: w1.g[k,j] = sum_i x[i,k] l1.g[i,j], in index letters or in the run's numbers.

Reads the index structure off the families: what a contraction sums over, what a broadcast repeats, what a transpose
swaps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from chainrule.core.family import Contraction, Elementwise, Linear, Reduction
from chainrule.core.node import Node
from chainrule.core.notation import PRODUCT, SUM
from chainrule.core.origin import rearranged
from chainrule.ops import elementwise, identities, movement, reduction
from chainrule.ops.printing import Written, brackets, constant, number, size, write

Index = tuple[str, ...]
Leaf = Callable[[Node, Index], str]

_LETTERS = "ijklmnpqrstuv"
_LONGEST = 200  # ops and values
ELLIPSIS = "…"


def sized(index: Index, shape: tuple[int, ...]) -> Index:
    """The index with 0 for each dimension of size 1."""
    return tuple("0" if n == 1 else i for i, n in zip(index, shape, strict=True))


class Entry:
    """Writes one entry of an expression.

    leaf: writes an entry of a symbol.
    close: says of a sum whether to write its value instead of its terms.
    """

    def __init__(self, leaf: Leaf, total: Callable[[Any, Index], str] | None = None) -> None:
        self.leaf, self.total = leaf, total
        self._used: set[str] = set()

    def write(self, expression: Any, index: Index) -> str:
        """The entry of `expression` at `index`, as text; ELLIPSIS for one too long to be read."""
        if size(expression, lambda x: None) > _LONGEST:
            return ELLIPSIS
        self._used = set(index)
        return self._entry(expression, index).text

    def _entry(self, x: Any, index: Index) -> Written:
        if x.constant is not None:
            return constant(x.constant, "text")
        index = sized(index, x.aval.shape)
        if x.op is None:
            return _spoken(self.leaf(x, index))
        if self.total is not None and isinstance(x.op, Contraction | Reduction) and self._sums(x):
            return _spoken(self.total(x, index))
        moved = index if x.op is movement.cast else source_index(x, index)
        if moved is not None:
            return self._entry(x.inputs[0], moved)
        match x.op:
            case Elementwise():
                return self._elementwise(x, index)
            case Contraction():
                return self._contraction(x, index)
            case Reduction() if x.op.weight is not None:
                return self._sum(x, index)
            case _:
                return Written(self.total(x, index) if self.total is not None else _whole(x, index))

    def _sums(self, x: Any) -> bool:
        """Does this op add more than one term?"""
        if isinstance(x.op, Reduction):
            return True
        a, _, out = x.op.subscripts(x.inputs[0].aval, x.inputs[1].aval, **x.params)
        return any(n != 1 for letter, n in zip(a, x.inputs[0].aval.shape, strict=True) if letter not in out)

    def _elementwise(self, x: Any, index: Index) -> Written:
        parts = [self._entry(i, index if i.aval.shape else ()) for i in x.inputs]
        if x.op is elementwise.mul:
            ratio = identities.constant_of(x.inputs[0])
            if ratio is not None:
                inner = parts[1].text if parts[1].binds >= PRODUCT else brackets(parts[1].text, "text")
                times = " * " if inner[:1].isdigit() else " "  # numbers do not stand side by side
                front = "" if ratio.numerator == 1 else f"{number(ratio.numerator)}{times}"
                back = "" if ratio.denominator == 1 else f" / {number(ratio.denominator)}"
                return Written(f"{front}{inner}{back}", PRODUCT)
        notation = x.op.notation
        template = notation.template("text", tuple(i.aval for i in x.inputs), x.params)
        arguments = []
        for position, part in enumerate(parts):
            tight = part.binds > notation.inside or (notation.left and position == 0 and part.binds == notation.inside)
            tight = tight or (notation.associative and part.binds == notation.inside)
            arguments.append(part.text if tight else brackets(part.text, "text"))
        return Written(template.format(*arguments, **x.params), notation.binds)

    def _contraction(self, x: Any, index: Index) -> Written:
        a, b = x.inputs
        a_letters, b_letters, out_letters = x.op.subscripts(a.aval, b.aval, **x.params)
        bound = dict(zip(out_letters, index, strict=True))
        sizes = dict(zip(a_letters, a.aval.shape, strict=True))
        summed = []
        for letter in dict.fromkeys(a_letters + b_letters):
            if letter not in bound:
                bound[letter] = "0" if sizes.get(letter) == 1 else self._letter(letter, index)
                if bound[letter] != "0":
                    summed.append(bound[letter])
        factors = [self._entry(o, tuple(bound[c] for c in ls)) for o, ls in ((a, a_letters), (b, b_letters))]
        times = " " if self.total is None else " x "  # letters stand side by side, numbers do not
        text = times.join(f.text if f.binds >= PRODUCT else brackets(f.text, "text") for f in factors)
        return Written(f"sum_{','.join(summed)} {text}" if summed else text, PRODUCT)

    def _letter(self, wanted: str, taken: Index) -> str:
        """A letter for a sum: the one the op itself uses, if it is free here."""
        if wanted in taken or wanted in self._used:
            wanted = next((c for c in _LETTERS if c not in taken and c not in self._used), "z")
        self._used.add(wanted)
        return wanted

    def _sum(self, x: Any, index: Index) -> Written:
        inner, name = source_letters(x, index, self._letter)
        part = self._entry(x.inputs[0], inner)
        text = part.text if part.binds >= PRODUCT else brackets(part.text, "text")
        word = "sum" if x.op is reduction.sum_ else x.op.name
        return Written(f"{word}_{','.join(name)} {text}" if name else text, PRODUCT)


def _spoken(text: str) -> Written:
    """A name or a number; a negative number wears brackets where another number stands before it."""
    bare = text.startswith("-") and " " not in text
    return Written(text, SUM) if bare else Written(text)


def _whole(x: Any, index: Index) -> str:
    """An entry of something that has no formula by entries: softmax(z)[0,1]."""
    whole = write(x, "text", lambda n: n.symbol if n.op is None and n.constant is None else None)
    return f"{whole}[{','.join(index)}]" if index else whole


def source_index(x: Any, index: Index) -> Index | None:
    """Where an entry of a moved array comes from; None where that takes arithmetic to say."""
    if not isinstance(x.op, Linear):
        return None
    order = rearranged(x.op.copies(x), x.inputs[0].aval.shape, x.aval.shape)
    return None if order is None else tuple("0" if d is None else index[d] for d in order)


def source_letters(x: Any, index: Index, letter: Callable[[str, Index], str]) -> tuple[Index, list[str]]:
    """(index into what is reduced, the letters summed over) for an entry of a reduction."""
    dims, shape = x.params["dim"], x.inputs[0].aval.shape
    rest = iter(index if not x.params["keepdim"] else [i for d, i in enumerate(index) if d not in dims])
    found, names = [], []
    for d, n in enumerate(shape):
        if d not in dims:
            found.append(next(rest))
        elif n == 1:
            found.append("0")
        else:
            found.append(letter("i", index))
            names.append(found[-1])
    return tuple(found), names


def indexed(symbol: Node, index: Index) -> str:
    """x[i,k]; a scalar by its name alone."""
    return f"{symbol.symbol}[{','.join(index)}]" if index else str(symbol.symbol)
