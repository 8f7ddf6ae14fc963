"""Writing an expression down: plain text, LaTeX, or Python code, from the ops' own notation.

Names no op but the few whose written form depends on what surrounds them: a coefficient, a broadcast that mathematics
leaves unwritten.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from chainrule.core.family import Elementwise
from chainrule.core.node import Node, Ratio, ancestors, compute
from chainrule.core.notation import ATOM, POWER, PRODUCT, SIGN, Style
from chainrule.ops import elementwise, identities, movement


@dataclass(frozen=True)
class Written:
    """An expression as text, and how tightly it holds together."""

    text: str
    binds: int = ATOM


# What a node is called, or how it is written; None where its op and inputs say it.
Names = Callable[[Node], str | Written | None]


def write(root: Any, style: Style, names: Names) -> str:
    """The expression `root` in a style; `names` says what each leaf (or any node that has a name) is called."""
    return written(root, style, names).text


def size(root: Any, names: Names) -> int:
    """How many ops and values stand in the written expression; one used twice is written twice."""
    count: dict[int, int] = {}
    for node in ancestors([root], lambda x: names(x) is None or x is root):
        count[id(node)] = 1 + sum(count.get(id(x), 1) for x in node.inputs)
    return count[id(root)]


def written(root: Any, style: Style, names: Names) -> Written:
    """As `write`, with the binding strength of the result."""
    done: dict[int, Written] = {}
    for node in ancestors([root], lambda x: names(x) is None or x is root):
        name = names(node)
        if name is not None and (node is not root or node.op is None):
            done[id(node)] = _named(name, style)
        elif node.constant is not None:
            done[id(node)] = constant(node.constant, style)
        elif node.op is None:
            done[id(node)] = Written(node.symbol or _literal(node, style))
        else:
            done[id(node)] = _applied(node, style, names, done)
    return done[id(root)]


def _named(name: str | Written, style: Style) -> Written:
    """A name; a gradient in LaTeX is a fraction, which a power or a transpose puts in brackets."""
    if isinstance(name, Written):
        return name
    return Written(name, POWER if style == "latex" and name.startswith(r"\frac") else ATOM)


def _lookup(node: Node, style: Style, names: Names, done: dict[int, Written]) -> Written:
    if id(node) not in done:
        name = names(node)
        assert name is not None
        return _named(name, style)
    return done[id(node)]


def _applied(node: Any, style: Style, names: Names, done: dict[int, Written]) -> Written:
    if isinstance(node.op, Elementwise):
        known = number_in(node) if style in ("code", "numpy") else None
        if known is not None:  # numbers have no methods: code says the number that comes out
            return constant(known, style) if node.aval.dtype.kind != "b" else Written(str(bool(known.value)))
        inputs = [_without_expand(x, node, names) for x in node.inputs]
        parts = [_operand(x, node, style, names, done) for x in node.inputs]
    else:
        inputs = list(node.inputs)
        parts = [array(x, style) if _unnamed_number(x, names) else _lookup(x, style, names, done) for x in inputs]
    if node.op is elementwise.mul:
        ratio = identities.constant_of(inputs[0])
        if ratio is not None and identities.constant_of(inputs[1]) is None:
            return _scaled(ratio, parts[1], style)
    notation = node.op.notation
    template = notation.template(style, tuple(x.aval for x in inputs), node.params)
    if not template:
        raise LookupError(f"{node.op.name} has no {style} form")
    if template == "{0}":  # a form that leaves the op unwritten: what it holds binds as it did
        return parts[0]
    threshold = notation.threshold(style)
    arguments = []
    for position, (x, part) in enumerate(zip(inputs, parts, strict=True)):
        tight = part.binds > threshold
        tight = tight or (notation.associative and x.op is node.op and names(x) is None)
        tight = tight or (notation.left and position == 0 and part.binds == threshold)
        tight = tight or _stands_alone(template, position)
        arguments.append(part.text if tight else brackets(part.text, style))
    params = {k: _param(v, style) for k, v in node.params.items()}
    return Written(template.format(*arguments, **params), notation.strength(style))


@lru_cache(maxsize=1024)
def _stands_alone(template: str, position: int) -> bool:
    """Is an input a whole argument in this template, `reshape({0}, {shape})`? It then needs no brackets."""
    places = [m.span() for m in re.finditer(rf"\{{{position}\}}", template)]
    return all(
        template[:start].endswith(("(", ", ")) and template[end:].startswith((", ", ")", r"\right)"))
        for start, end in places
    )


def number_in(x: Any, levels: int = 4) -> Ratio | None:
    """The number that every entry of an expression is, where it is made of numbers alone, in few steps."""
    if x.constant is not None or not isinstance(x.op, Elementwise) or not levels:
        found: Ratio | None = x.constant
        return found
    arrays = []
    for i in x.inputs:
        ratio = number_in(i, levels - 1)
        if ratio is None:
            return None
        arrays.append(np.asarray(ratio.value, i.aval.dtype))
    return Ratio(float(compute(x.op, arrays, x.params)))


def _unnamed_number(x: Any, names: Names) -> bool:
    """Is this a number, known or recorded, where an op wants an array?"""
    if names(x) is not None or x.symbol:
        return False
    return _one_number(x.array) if x.op is None and x.constant is None else number_in(x) is not None


def _one_number(data: np.ndarray | None) -> bool:
    return data is not None and data.size > 0 and (data.size == 1 or not any(data.strides))


def array(x: Any, style: Style) -> Written:
    """An array of one number, said with its shape: an op that is not elementwise needs it."""
    ratio = number_in(x) or Ratio(float(x.array.flat[0]))
    shape, dtype = tuple(x.aval.shape), x.aval.dtype
    value = constant(ratio, style).text
    if style == "latex":
        sizes = r" \times ".join(map(str, shape))
        ones = rf"\mathbf{{1}}_{{{sizes}}}" if shape else ""
        return Written(rf"{value}\,{ones}" if ones and ratio.value != 1 else ones or value, PRODUCT)
    if style == "text":
        return Written(f"full({shape}, {value})") if shape else constant(ratio, style)
    module = "np" if style == "numpy" else "cr"
    if dtype.kind == "b":
        value = str(bool(ratio.value))
    elif dtype.kind == "f" and value.lstrip("-").isdigit():
        value += ".0"
    return Written(f"{module}.full({shape}, {value}{'' if dtype == np.float32 else f', dtype={module}.{dtype}'})")


def _operand(x: Any, user: Any, style: Style, names: Names, done: dict[int, Written]) -> Written:
    """An input of an elementwise op, its stretch unwritten, be it behind a sign or a number."""
    ratio, inner = (Ratio(1), x) if names(x) is not None else identities.coefficient(x)
    if inner is not x:
        bare = _without_expand(inner, user, names, x)
        if bare is not inner:
            return _scaled(ratio, _lookup(bare, style, names, done), style)
    return _lookup(_without_expand(x, user, names), style, names, done)


def _without_expand(x: Any, user: Any, names: Names, operand: Any = None) -> Any:
    """The operand as broadcasting would take it: mathematics and NumPy leave the stretch unwritten."""
    if x.op is not movement.expand or names(x) is not None:
        return x
    others = [o for o in user.inputs if o is not (x if operand is None else operand)]
    full = any(o.aval.shape == user.aval.shape and _fills(o) for o in others)
    inner = x.inputs[0]
    while full and inner.op is movement.reshape and inner.aval.size == 1 and names(inner) is None:
        inner = inner.inputs[0]  # a single number needs no dimensions to be broadcast
    full = full or _fill_together(user, names)
    return inner if full and inner.aval.ndim <= x.inputs[0].aval.ndim else x


def _fill_together(user: Any, names: Names) -> bool:
    """Do the operands, none of them stretched, still give the whole shape: a column beside a row?"""
    bare = [o.inputs[0] if o.op is movement.expand and names(o) is None else o for o in user.inputs]
    shapes = [o.aval.shape for o in bare if o.constant is None]
    return len(shapes) > 1 and np.broadcast_shapes(*shapes) == user.aval.shape


def _fills(x: Any) -> bool:
    """Is this operand written in its whole shape, not stretched to it?"""
    inner = identities.coefficient(x)[1]
    return inner.op is not movement.expand and inner.constant is None


def _scaled(ratio: Ratio, part: Written, style: Style) -> Written:
    """2 x, x / 200, 2 x / 200, in the style."""
    top, bottom = (number(n, style) for n in (ratio.numerator, ratio.denominator))
    if style == "latex":
        inner = part.text if part.binds > SIGN else brackets(part.text, style)
        if bottom == "1":
            return Written(rf"{top}\,{inner}", PRODUCT)
        return Written(rf"\tfrac{{{top}}}{{{bottom}}}\,{inner}", PRODUCT)
    tight = part.binds >= PRODUCT if style == "text" and "@" not in part.text else part.binds > PRODUCT
    inner = part.text if tight else brackets(part.text, style)
    times = " " if style == "text" and not inner[:1].isdigit() else " * "
    front = "" if top == "1" else f"{top}{times}"
    back = "" if bottom == "1" else f" / {bottom}"
    return Written(f"{front}{inner}{back}", PRODUCT)


def constant(ratio: Ratio, style: Style) -> Written:
    """A number: 0.5, -1, 2/200."""
    top, bottom = (number(n, style) for n in (ratio.numerator, ratio.denominator))
    binds = SIGN if ratio.numerator < 0 else PRODUCT if r"\cdot" in top else ATOM
    if bottom == "1":
        return Written(top, binds)
    if style == "latex":
        return Written(rf"\tfrac{{{top}}}{{{bottom}}}", ATOM)
    return Written(f"{top} / {bottom}", PRODUCT) if style != "text" else Written(f"{top}/{bottom}", PRODUCT)


_UNENDING: dict[Style, dict[str, str]] = {
    "text": {"inf": "inf", "nan": "nan"},
    "latex": {"inf": r"\infty", "nan": r"\mathrm{nan}"},
    "code": {"inf": "cr.inf", "nan": "cr.nan"},
    "numpy": {"inf": "np.inf", "nan": "np.nan"},
}


def number(value: float, style: Style = "text") -> str:
    """A number as a person writes it: 200, 0.5, 1.12838."""
    if not math.isfinite(value):
        return ("-" if value < 0 else "") + _UNENDING[style]["nan" if math.isnan(value) else "inf"]
    if value == int(value) and abs(value) < 1e15:
        return str(int(value))
    short, exact = f"{value:.15g}", repr(float(value))
    found = short if len(short) < len(exact) - 2 else exact  # 0.04, not 0.04000000000000001
    digits, _, power = found.partition("e")
    return rf"{digits} \cdot 10^{{{int(power)}}}" if power and style == "latex" else found


def brackets(text: str, style: Style) -> str:
    """The text in parentheses."""
    return rf"\left({text}\right)" if style == "latex" else f"({text})"


def _param(value: Any, style: Style) -> Any:
    return list(value) if style == "latex" and isinstance(value, tuple) else value


def _literal(node: Node, style: Style) -> str:
    data = node.array
    if data is not None and _one_number(data):
        one = data.flat[0].item()
        return repr(one) if isinstance(one, bool) and style in ("code", "numpy") else number(float(one), style)
    return str(node.aval)
