"""What the contract suite feeds an op: good inputs, and bad inputs with the error they must raise.

Declared beside the op, read by tests and by the rule pages; evaluation never looks at them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["float", "int", "bool"]


@dataclass(frozen=True)
class Arg:
    """One input to draw. Integers are drawn from 0 ≤ n < high, floats from the op's domain."""

    shape: tuple[int, ...]
    kind: Kind = "float"
    high: int = 2


@dataclass(frozen=True)
class Sample:
    """Inputs and params that the op accepts."""

    args: tuple[Arg, ...]
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Misuse:
    """Inputs or params that the op refuses, with the error class and a part of its message."""

    args: tuple[Arg, ...]
    params: Mapping[str, Any]
    error: type[Exception]
    says: str


def floats(*shapes: tuple[int, ...], **params: Any) -> Sample:
    """A sample whose inputs are all float."""
    return Sample(tuple(Arg(shape) for shape in shapes), params)


def ints(*shape: int, high: int = 2) -> Arg:
    """An integer input."""
    return Arg(shape, "int", high)


def bools(*shape: int) -> Arg:
    """A boolean input."""
    return Arg(shape, "bool")
