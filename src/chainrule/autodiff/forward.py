"""Forward mode: tangents from inputs to an output, by the same partials and transposes that reverse mode uses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chainrule.autodiff.reverse import needs_gradient
from chainrule.core.family import Fused
from chainrule.core.node import RECORD, Node, ancestors, recording
from chainrule.core.tracing import tracer


def push(root: Node, tangents: Sequence[tuple[Node, Any]]) -> Any:
    """The tangent of `root`, given the tangents of nodes it depends on; None if it depends on none of them."""
    known: dict[int, Any] = {id(x): t for x, t in tangents}
    for node in ancestors([root], needs_gradient):
        if id(node) in known or node.op is None:
            continue
        arriving = tuple(known.get(id(x)) for x in node.inputs)
        if any(t is not None for t in arriving):
            known[id(node)] = _through(node, arriving)
    return known.get(id(root))


def _through(node: Node, arriving: tuple[Any, ...]) -> Any:
    assert node.op is not None
    if not isinstance(node.op, Fused):
        return node.op.jvp(arriving, node)
    # A fused op states one rule, for reverse mode; forward mode goes through its expansion, made afresh on new leaves
    # so that only the tangents that arrive here enter it.
    fresh, expanded = recording(RECORD, _expanded, node.op, node)
    return push(expanded, [(x, t) for x, t in zip(fresh, arriving, strict=True) if t is not None])


def _expanded(op: Fused, node: Node) -> tuple[tuple[Any, ...], Any]:
    """New leaves, and what a fused op makes of them, op by op."""
    fresh = tuple(_alias(x) for x in node.inputs)
    return fresh, op.expansion(*fresh, **node.params)


def _alias(x: Node) -> Any:
    """A node of the same value that leads back to `x`, and that can be told from it."""
    tracing = tracer()
    if tracing is not None and not x.requires_grad:
        return tracing.as_variable(x)
    if not x.requires_grad:
        return (
            type(x).leaf(x.array, requires_grad=True)
            if x.array is not None
            else type(x).symbolic(x.symbol or "x", x.aval, requires_grad=True)
        )
    return x + 0.0  # type: ignore[operator]
