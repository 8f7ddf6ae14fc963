"""Where the entries of a moved array come from: what an op that copies entries states of itself, as data.

Knows positions and bounds, no op. Who reads it decides what a position is used for: a compiler reads the input there,
an explanation names it. A position is an `Affine` of the output's: its variable d is the position along dimension d.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import Final, Literal, NamedTuple

from chainrule.core.affine import Affine

Shape = tuple[int, ...]
Bound = tuple[Affine, int, int]  # start ≤ position < stop


class Copy(NamedTuple):
    """An entry of the output is an entry of an input, where positions lie within bounds.

    at: a position along each dimension of the input. within: all must hold. input: which.
    """

    at: tuple[Affine, ...]
    within: tuple[Bound, ...] = ()
    input: int = 0


class Counting(Enum):
    """Counted so, an entry of the output stands where it stands in the one input."""

    ROW_BY_ROW = auto()


ROW_BY_ROW: Final = Counting.ROW_BY_ROW

# An entry is what the first copy says whose bounds hold, and 0 where none does.
Copies = tuple[Copy, ...] | Literal[Counting.ROW_BY_ROW]

# (*avals, **params) -> copies; None where it takes more than sums of positions to say.
Origin = Callable[..., Copies | None]


def rearranged(copies: Copies | None, before: Shape, after: Shape) -> tuple[int | None, ...] | None:
    """For each dimension of the input the one of the output that is the same, where copying does no more than that.

    None in place of a dimension: it has one entry. Expanding is of that kind, and permuting, and a reshape that adds or
    drops dimensions of size 1.
    """
    if copies is ROW_BY_ROW:
        kept = [d for d, n in enumerate(after) if n != 1]
        if [after[d] for d in kept] != [n for n in before if n != 1]:
            return None
        rest = iter(kept)
        return tuple(None if n == 1 else next(rest) for n in before)
    if copies is None or len(copies) != 1 or copies[0].within:
        return None
    found: list[int | None] = []
    for n, position in zip(before, copies[0].at, strict=True):
        same = next((v for v, _ in position.terms if position == Affine.variable(v) and after[v] == n), None)
        if same is None and n != 1:
            return None
        found.append(same)
    return tuple(found)
