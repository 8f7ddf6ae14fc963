"""Program: what a step computes, as a value. SSA over the library's own ops: its nodes, without their values."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

from chainrule.core.node import Node, ancestors
from chainrule.core.provenance import user_place


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Program:
    """What a step computes from arrays: values, and new contents for some of the arrays it was given.

    inputs: symbolic leaves (op None, data None), in the order in which a call passes its arrays.
    outputs: the values that a call gives back; an input or a constant among them is given back as a copy.
    updates: (input, its new value) pairs. Each value is computed from what the inputs held before the step, and is
        written into the input's own memory at the end of it.

    Every other leaf is a constant: `data` holds it, and `constant` its one number where it is a fill.
    """

    inputs: tuple[Node, ...]
    outputs: tuple[Node, ...]
    updates: tuple[tuple[Node, Node], ...] = ()

    @property
    def roots(self) -> tuple[Node, ...]:
        """What is to be computed: the outputs, then the new values."""
        return (*self.outputs, *(value for _, value in self.updates))

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """Every node that the roots depend on, inputs and constants included, each after what it is computed from."""
        return tuple(ancestors(self.roots))

    def __str__(self) -> str:
        return "\n".join(_lines(self))


_COMMENT_AT = 60


def _lines(program: Program) -> Iterator[str]:
    names: dict[int, str] = {}
    numbers = itertools.count()
    for x in program.inputs:
        names[id(x)] = name = f"%{next(numbers)}"
        yield _with_comment(f"{name} = input : {x.aval}", x.symbol or "")
    for node in program.nodes:
        if id(node) in names:
            continue
        if node.op is None and node.constant is not None and not node.aval.shape:
            names[id(node)] = _number(node)
            continue
        name = f"%{next(numbers)}"
        yield _with_comment(f"{name} = {_said(node, names)} : {node.aval}", _place(node))
        names[id(node)] = name
    for x, value in program.updates:
        yield _with_comment(f"update {names[id(x)]} <- {names[id(value)]}", x.symbol or "")
    yield f"return {', '.join(names[id(x)] for x in program.outputs)}".rstrip()


def _said(node: Node, names: Mapping[int, str]) -> str:
    if node.op is not None:
        params = [f"{key}={_param(value)}" for key, value in node.params.items()]
        return f"{node.op.name}({', '.join([names[id(x)] for x in node.inputs] + params)})"
    return f"fill({_number(node)})" if node.constant is not None else "constant"


def _number(node: Node) -> str:
    assert node.constant is not None
    numerator, denominator = node.constant
    return f"{numerator}" if denominator == 1 else f"{numerator}/{denominator}"


def _param(value: Any) -> str:
    return str(value).replace(" ", "")


def _place(node: Node) -> str:
    where = user_place(node.trail)
    return "" if where is None else f"{where} {where.text}".rstrip()


def _with_comment(line: str, comment: str) -> str:
    return f"{line:{_COMMENT_AT}}  # {comment}" if comment else line
