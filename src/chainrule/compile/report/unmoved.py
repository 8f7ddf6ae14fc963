"""Formulas without the reshapes and reorderings that stand between ops, the compiler's and the user's own.

`h2 @ w3` for `permute(reshape(h2, (256, 2, 256)), (1, 0, 2)) @ reshape(w3, (2, 256, 10))`, a product that is taken in
two parts; a reduction is said along the dimensions of the value that the user knows.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection
from typing import Any, final

from chainrule.core.aval import Aval
from chainrule.core.family import Elementwise, Reduction
from chainrule.core.origin import Shape
from chainrule.ops import contraction, movement
from chainrule.ops.printing import Written, written

REORDERINGS = (movement.reshape, movement.permute)

# What a dimension runs over: (dimension of another value, size) for each part of one, the outermost first.
Atoms = list[tuple[int, int]]


def formula(root: Any, parts: Collection[str] = ()) -> str | None:
    """An expression as text, where reordering goes unwritten; None where that would not say what is computed.

    parts: names of values that are parts of others, made by an earlier kernel: sums of those put them together.
    """
    base, reordered = root, False
    while is_move(base):
        reordered = reordered or base.op is movement.permute
        base = base.inputs[0]
    if base.op is None:
        return f"{base.symbol}, in another order" if reordered else None
    try:
        names = _Unmoved(base, parts)
        text = names.text(base).text
    except _Unsayable:
        return None
    return text if names.parts == 1 else f"{text}, in {names.parts} parts"


def unordered(x: Any) -> Any:
    """What a value is only another order of."""
    while x.op in REORDERINGS:
        x = x.inputs[0]
    return x


def is_move(x: Any) -> bool:
    """Does this only say in which order or shape entries lie? A transposed matrix and a new dimension are written."""
    if x.op is movement.reshape:
        return not movement.unit_dims_only(x.inputs[0].aval.shape, x.aval.shape) or _has_moved(x.inputs[0])
    return x.op is movement.permute and not movement.swaps_last_two(x.params["dims"])


class _Unsayable(Exception):
    """Without reordering, this would say something else."""


@final
class _Unmoved:
    """How the nodes of an expression are written.

    parts: how many parts the root's sums are taken in, each an entry of its own of the result.
    """

    def __init__(self, root: Any, in_parts: Collection[str]) -> None:
        self.root, self.in_parts = root, in_parts
        self.parts = 1
        self._found: dict[int, Written | None] = {}
        if root.op is contraction.matmul:
            self.parts = _parts_of_product(*root.inputs)

    def __call__(self, x: Any) -> Written | None:
        if id(x) not in self._found:
            self._found[id(x)] = self._written(x)
        return self._found[id(x)]

    def text(self, x: Any) -> Written:
        """An expression, written."""
        return self(x) or written(x, "text", self)

    def _written(self, x: Any) -> Written | None:
        if is_move(x):
            return self.text(x.inputs[0])
        if isinstance(x.op, Reduction):
            return self._reduction(x)
        if x.op is movement.reshape:
            return self._with_units(x)
        if not any(map(_has_moved, x.inputs)):
            return None
        if x.op is contraction.matmul and x is not self.root and _parts_of_product(*x.inputs) > 1:
            raise _Unsayable
        if not isinstance(x.op, Elementwise) and x.op not in _SAYABLE:
            raise _Unsayable
        return None

    def _with_units(self, x: Any) -> Written | None:
        """Dimensions of size 1, new or gone, beside those of the value that the user knows."""
        (y,) = x.inputs
        shape, dims = dims_of(y)
        if dims == _own(y.aval.shape):
            return None
        after: list[int] = []
        last = -1  # the user's dimension that stands last: a part of it that follows is joined with it
        for atoms in _reshaped(_flat(dims), x.aval.shape):
            if not atoms:
                after, last = [*after, 1], -1
            for dim, size in atoms:
                after, last = [*after[:-1], after[-1] * size] if dim == last else [*after, size], dim
        if not movement.unit_dims_only(shape, tuple(after)):
            raise _Unsayable
        template = x.op.notation.template("text", (Aval(shape, x.aval.dtype),), {"shape": tuple(after)})
        return Written(template.format(self.text(y).text), x.op.notation.strength("text"))

    def _reduction(self, x: Any) -> Written | None:
        """Along dimensions of the value behind the reordering: all of each, or of some a part."""
        inner = unordered(x.inputs[0])
        if inner.op is None and inner.symbol in self.in_parts:
            return Written(f"sum(the parts of {inner.symbol})")
        shape, dims = dims_of(x.inputs[0])
        if dims == _own(x.inputs[0].aval.shape):
            return None
        reduced: Counter[int] = Counter()
        for d in x.params["dim"]:
            for dim, size in dims[d]:
                reduced[dim] = size * (reduced[dim] or 1)
        parts = math.prod(shape[dim] // size for dim, size in reduced.items())
        if parts > 1 and x is not self.root:
            raise _Unsayable
        self.parts *= parts
        params = {**x.params, "dim": tuple(sorted(reduced))}
        template = x.op.notation.template("text", (Aval(shape, x.aval.dtype),), params)
        return Written(template.format(self.text(x.inputs[0]).text, **params), x.op.notation.strength("text"))


_SAYABLE = frozenset({contraction.matmul, movement.expand, movement.reshape, movement.permute, movement.cast})


def _has_moved(x: Any) -> bool:
    while x.op in REORDERINGS:
        if is_move(x):
            return True
        x = x.inputs[0]
    return False


def _parts_of_product(left: Any, right: Any) -> int:
    """How many parts the sums of a product of matrices are taken in: a batch that runs over the summed dimension."""
    if not (_has_moved(left) or _has_moved(right)):
        return 1
    found = 1
    _, dims = dims_of(left)
    summed = {dim for dim, _ in dims[-1]}
    for dim, size in (atom for batch in dims[:-2] for atom in batch):
        found *= size if dim in summed else 1
    return found


def dims_of(x: Any) -> tuple[Shape, list[Atoms]]:
    """The shape of what `x` only reorders, and what of its dimensions each dimension of `x` runs over.

    Entry by entry, an op reorders as its operands do: as the one with most dimensions, where they differ.
    """
    moves = []
    while x.op in REORDERINGS:
        moves.append(x)
        x = x.inputs[0]
    shape, dims = x.aval.shape, _own(x.aval.shape)
    if isinstance(x.op, Elementwise):
        found = [dims_of(y) for y in x.inputs if y.constant is None and y.op is not movement.expand]
        shape, dims = max(found, key=lambda each: len(each[0]), default=(shape, dims))
    elif isinstance(x.op, Reduction):
        shape, dims = _reduced(x, shape, dims)
    for move in reversed(moves):
        if move.op is movement.permute:
            dims = [dims[d] for d in move.params["dims"]]
        else:
            dims = _reshaped(_flat(dims), move.aval.shape)
    return shape, dims


def _reduced(x: Any, shape: Shape, dims: list[Atoms]) -> tuple[Shape, list[Atoms]]:
    """`dims_of` a reduction: those of its input that it leaves, if it takes others whole; its own else."""
    inner, found = dims_of(x.inputs[0])
    gone = {dim for d in x.params["dim"] for dim, _ in found[d]}
    left = [atoms for d, atoms in enumerate(found) if d not in x.params["dim"]]
    if x.params["keepdim"] or found == _own(x.inputs[0].aval.shape) or any(dim in gone for dim, _ in _flat(left)):
        return shape, dims
    kept = [dim for dim in range(len(inner)) if dim not in gone]
    return tuple(inner[dim] for dim in kept), [[(kept.index(dim), n) for dim, n in atoms] for atoms in left]


def _flat(dims: list[Atoms]) -> Atoms:
    return [atom for atoms in dims for atom in atoms]


def _own(shape: Shape) -> list[Atoms]:
    return [[(d, n)] if n != 1 else [] for d, n in enumerate(shape)]


def is_split(shape: Shape, parts: Shape) -> bool:
    """Can dimensions of these sizes be those of a shape, some of them taken apart or joined with the next?"""
    try:
        _reshaped(_flat(_own(shape)), parts)
    except _Unsayable:
        return False
    return True


def _reshaped(atoms: Atoms, shape: Shape) -> list[Atoms]:
    """What the dimensions of a shape run over, where all of them together run over these."""
    rest = atoms[::-1]
    found: list[Atoms] = []
    for n in shape:
        mine: Atoms = []
        left = n
        while left != 1:
            if not rest:
                raise _Unsayable
            dim, size = rest.pop()
            taken = math.gcd(left, size)
            if taken == 1 or (taken != size and taken != left):
                raise _Unsayable
            mine.append((dim, taken))
            left //= taken
            if size > taken:
                rest.append((dim, size // taken))
        found.append(mine)
    return found
