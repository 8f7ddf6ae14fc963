"""Updates under a condition: a step whose loss is not a finite number changes nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from chainrule import dtypes
from chainrule.compile.program import Program
from chainrule.core.node import ENGINE_OFF, Node, apply, recording
from chainrule.ops import comparison, elementwise, movement


def updated_only_if_finite(program: Program) -> Program:
    """The program with every update undone by itself where the last output is inf or nan.

    A program whose last output is no float scalar is left as it is.
    """
    loss = program.outputs[-1]
    if loss.aval.size != 1 or not dtypes.is_float(loss.aval.dtype):
        return program
    return replace(program, updates=recording(ENGINE_OFF, _updates_if_finite, loss, program.updates))


def _updates_if_finite(loss: Node, updates: Iterable[tuple[Node, Node]]) -> tuple[tuple[Node, Node], ...]:
    flat = loss if not loss.aval.shape else _applied(movement.reshape, loss, shape=())
    finite = _applied(comparison.isfinite, flat)
    return tuple((x, _chosen(finite, value, x)) for x, value in updates)


def _chosen(finite: Node, value: Node, old: Node) -> Node:
    shape = value.aval.shape
    condition = _applied(movement.expand, finite, shape=shape) if shape else finite
    return _applied(elementwise.where, condition, value, old)


def _applied(op: object, *inputs: Node, **params: object) -> Node:
    return apply(op, inputs, params)  # type: ignore[arg-type]
