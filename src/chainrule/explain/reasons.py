"""Why a gradient has the form it has: why the sum, why the transpose, what a gate did.

Told from the family of the op and its index structure, so the same few functions speak of any product, any broadcast,
any gate.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from chainrule.core.aval import Aval
from chainrule.core.family import Contraction, Elementwise, Linear
from chainrule.core.node import Node, ancestors
from chainrule.explain.derivation import Derivation, Link, Part, Step
from chainrule.explain.entries import ELLIPSIS, Entry, indexed, sized
from chainrule.ops import elementwise, movement

_LONGEST = 100  # characters of a line
_MOST = 8  # uses of a value in one step that are looked at; the rest, in a loop, are like them


@dataclass(frozen=True)
class Reason:
    """A title, "why x^T", and the lines that answer it."""

    title: str
    lines: tuple[str, ...]


def reasons(derivation: Derivation, link: Link) -> list[Reason]:
    """The reasons for the form of one link."""
    found: list[Reason] = []
    for part in link.parts:
        for op, position in itertools.islice(_meetings(part.step, link.node), _MOST):
            if isinstance(op.op, Contraction):
                reason = _why_product(derivation, link, part, op, position)
            elif op.op is movement.expand:
                reason = _why_sum(derivation, link, part, op)
            else:
                continue
            if reason is not None and reason not in found:
                found.append(reason)
    return found


def _meetings(step: Step, node: Node) -> Iterator[tuple[Any, int]]:
    """The ops of a step that use a value, perhaps reshaped or transposed, with the position it takes in them."""
    same = {id(node)}
    for op in step.fold.nodes:
        for position, x in enumerate(op.inputs):
            if id(x) in same:
                yield op, position
        if (
            isinstance(op.op, Linear)
            and op.op is not movement.expand
            and len(op.inputs) == 1
            and id(op.inputs[0]) in same
        ):
            same.add(id(op))


def _why_product(derivation: Derivation, link: Link, part: Part, op: Any, position: int) -> Reason | None:
    """Why the other factor appears, transposed, and what is summed over."""
    step, formula = part.step, part.formula
    if formula is None:
        return None
    contraction: Contraction = op.op
    subscripts = contraction.subscripts(op.inputs[0].aval, op.inputs[1].aval, **op.params)
    own, other, out = subscripts[position], subscripts[1 - position], subscripts[2]
    used = op.inputs[position]
    if used is not link.node:
        if used.op is not movement.permute or used.inputs[0] is not link.node:
            return None
        own = "".join(own[used.params["dims"].index(d)] for d in range(len(own)))  # the letters before the transpose
    twin = step.twins[id(op)]
    other_expression = derivation.simplified(twin.inputs[1 - position])
    index = dict(zip(out, sized(tuple(out), op.aval.shape), strict=True))
    own_index = sized(tuple(own), link.node.aval.shape)
    other_index = sized(tuple(other), op.inputs[1 - position].aval.shape)
    forward = _forward_entry(derivation, step, op, tuple(index[c] for c in out))
    factor = Entry(indexed).write(other_expression, other_index)
    summed = [c for c in dict.fromkeys(out) if c not in own and index[c] != "0"]
    me = indexed(derivation.symbol(link.node), own_index)
    lines = [forward]
    backward = Entry(indexed).write(formula, own_index)
    if len(backward) > _LONGEST or backward == ELLIPSIS:
        return None
    loss = derivation.name(derivation.run.loss)
    share = f"d{loss}/d{me}" if len(link.parts) == 1 else f"its part of d{loss}/d{me}"
    if summed:
        place = ("first" if other.index(summed[0]) == len(other) - 2 else "last") if len(other) > 1 else "only"
        short, written = _short(derivation, other_expression), derivation.written(formula)
        lines += [
            f"{me} meets {' and '.join(f'every {c}' for c in summed)}, each time with the factor {factor}:",
            f"    {share} = {backward}",
            f"summing over {', '.join(summed)}, the {place} index of {short}, IS the product {written}",
        ]
    else:
        lines.append(f"so {me} gets {backward}")
    turned, plain = (
        _transposed_name(derivation, other_expression),
        derivation.written(derivation.simplified(other_expression)),
    )
    return Reason(f"why {turned if turned in derivation.written(formula) else plain}", tuple(lines))


def _transposed_name(derivation: Derivation, other: Any) -> str:
    n = other.aval.ndim
    turned = movement.permute(other, dims=(*range(n - 2), n - 1, n - 2)) if n >= 2 else other
    return derivation.written(derivation.simplified(turned))


def _short(derivation: Derivation, expression: Any) -> str:
    text = derivation.written(expression)
    return text if len(text) <= 30 else "that factor"


def _forward_entry(derivation: Derivation, step: Step, op: Any, index: tuple[str, ...]) -> str:
    """l1[i,j] = sum_k x[i,k] w1[k,j] + b1[j]: of the step's result where it is short, else of the product alone."""
    if len(step.outputs) == 1 and len(step.fold.nodes) <= _LONGEST and step.outputs[0].aval.shape == op.aval.shape:
        out = step.outputs[0]
        text = Entry(indexed).write(derivation.simplified(step.twins[id(out)]), index)
        if len(text) <= _LONGEST and text != ELLIPSIS:
            return f"{indexed(derivation.symbol(out), index)} = {text}"
    text = Entry(indexed).write(step.twins[id(op)], index)
    return f"({derivation.written(step.twins[id(op)])})[{','.join(index)}] = {text}"


_VERBS = {id(elementwise.add): "added", id(elementwise.mul): "multiplied", id(elementwise.sub): "subtracted"}


def _why_sum(derivation: Derivation, link: Link, part: Part, op: Any) -> Reason | None:
    """Why gradients are added up where the forward repeated a value."""
    formula = part.formula
    source, target = op.inputs[0].aval, op.aval
    times = target.size // max(source.size, 1)
    if times <= 1:
        return None
    users = derivation.run.users(op)
    verb = _VERBS.get(id(users[0].op), "used") if len(users) == 1 else "used"
    new, stretched = movement.expanded_dims(source.shape, target.shape)
    dims = (*new, *stretched)
    where = _places(target, dims)
    lines = [
        f"the forward {verb} the one {link.name} in {times:,} {where} (broadcast {_shape(source)} -> {_shape(target)})",
        f"each sends its own gradient back; one number receives {times:,}: they add",
    ]
    if formula is not None and len(link.parts) == 1:
        lines.append(f"in code: {link.name}.grad = {derivation.written(formula, 'spoken')}")
    return Reason("why the sum", tuple(lines))


def _places(aval: Aval, dims: tuple[int, ...]) -> str:
    if dims == (0,):
        return "rows"
    if aval.ndim == 2 and dims == (1,):
        return "columns"
    return "places"


def _shape(aval: Aval) -> str:
    return f"({','.join(map(str, aval.shape))}{',' if aval.ndim == 1 else ''})"


# --- gates and kinks


def gate_notes(derivation: Derivation, link: Link) -> list[str]:
    """What each gate in a link let through, and what the rule chose where the slope is a choice."""
    notes: list[str] = []
    if link.formula is not None:
        gates = [
            x for x in ancestors([link.formula]) if x.op is elementwise.gate and x.inputs[0].aval.shape == x.aval.shape
        ]
        notes += [_gate_note(derivation, x.inputs[0]) for x in gates if not _one_number(x.inputs[0])]
    for part in link.parts:
        for op, position in _meetings(part.step, link.node):
            if isinstance(op.op, Elementwise) and op.op.kinks and op.inputs[position] is link.node:
                notes += _kink_notes(op)
    return notes


def _one_number(condition: Any) -> bool:
    return condition.op is movement.expand and condition.inputs[0].aval.size == 1


def _gate_note(derivation: Derivation, condition: Any) -> str:
    open_ = derivation.value(condition)
    share = 100.0 * float(open_.mean()) if open_.size else 0.0
    note = f"gate open for {share:.1f} % of {open_.size:,} entries"
    if open_.ndim >= 2:
        units = open_.reshape(-1, open_.shape[-1]).any(axis=0)
        note += f"; dead units {int((~units).sum())} of {units.size}"
    return note


def _kink_notes(op: Any) -> list[str]:
    notes = []
    for position, choice in op.op.kinks:
        at = op.params.get(position, 0.0) if isinstance(position, str) else position
        data = op.inputs[0].array
        if data is None:
            continue
        other = op.inputs[1].array if len(op.inputs) > 1 else at
        hits = int(np.count_nonzero(data == other))
        where = f"at {at:g}" if len(op.inputs) == 1 else "where its inputs are equal"
        slope, _, why = choice.partition(": ")
        notes.append(
            f"slope {where} is a choice, {slope}"
            + (f": {why}" if why else "")
            + f"; {hits:,} of {data.size:,} are there"
        )
    return notes
