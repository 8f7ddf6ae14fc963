"""Kernels: loop nests over memory, the form between a program of ops and machine code.

Knows the kinds of loop nest there are, and what each promises to who writes it as code; neither how kernels are made of
a program nor how code is made of them. What is computed at one point of the loops is an `Expr`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from chainrule.compile.kernels.buffer import Buffer
from chainrule.compile.kernels.expression import Expr, Reduction
from chainrule.core.affine import Affine


@dataclass(frozen=True, eq=False, kw_only=True)
class Store:
    """buffer[offset] = value."""

    buffer: Buffer
    offset: Affine
    value: Expr


@dataclass(frozen=True, eq=False, kw_only=True)
class Stage:
    """Loops over `inner` variables, inside the outer ones of the kernel: reductions and stores at each point.

    With no inner variables the stores happen once for each point of the outer ones.
    """

    inner: tuple[int, ...]
    reductions: tuple[Reduction, ...] = ()
    stores: tuple[Store, ...] = ()

    @property
    def values(self) -> list[Expr]:
        """What is computed: what is reduced, then what is stored."""
        return [r.value for r in self.reductions] + [s.value for s in self.stores]


@dataclass(frozen=True, eq=False, kw_only=True)
class Loops:
    """Stages one after the other at each point of the outer variables; a stage may read what earlier ones reduced.

    extents: the number of rounds of each variable, by number.
    outer: variables whose points do not depend on each other; threads share one of them.
    """

    name: str
    extents: Mapping[int, int]
    outer: tuple[int, ...]
    stages: tuple[Stage, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class Contract:
    """out[batch, rows, columns] = Σ over `summed` of left · right; then the epilogue at each point of out.

    left mentions batch, row and summed variables only, right batch, column and summed variables only; both are loads,
    or a load within an image and 0 beyond its edge (see `limits.py`). Other expressions are worked out while packing.
    accumulate: the dtype of the sum: float32 for the 16-bit floats, else that of the operands.
    epilogue: stores whose values mention `Accumulated` and loads at batch, row and column variables.
    claims: buffers of as many rows, lines of which are written to before the sums of their rows: see `claiming.py`.
    """

    name: str
    extents: Mapping[int, int]
    batch: tuple[int, ...]
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    summed: tuple[int, ...]
    left: Expr
    right: Expr
    accumulate: np.dtype
    epilogue: tuple[Store, ...]
    claims: tuple[Buffer, ...] = ()


@dataclass(frozen=True, eq=False, kw_only=True)
class Scatter:
    """buffer = 0; then, in order, buffer[offset + Σ index · stride] += value at each point of the variables."""

    name: str
    extents: Mapping[int, int]
    loops: tuple[int, ...]
    buffer: Buffer
    offset: Affine
    indices: tuple[tuple[Expr, int, int], ...]
    value: Expr


@dataclass(frozen=True, eq=False, kw_only=True)
class Scan:
    """Running sums along one variable, at each point of the others: target[offset] = Σ of value up to here."""

    name: str
    extents: Mapping[int, int]
    outer: tuple[int, ...]
    along: int
    value: Expr
    target: Store


@dataclass(frozen=True, eq=False, kw_only=True)
class Sort:
    """Positions that sort `value` along one variable, stably, at each point of the others; nan last."""

    name: str
    extents: Mapping[int, int]
    outer: tuple[int, ...]
    along: int
    value: Expr
    descending: bool
    target: Store  # of the position that belongs at this place
    scratch: tuple[Buffer, ...] = field(default=())


@dataclass(frozen=True, eq=False, kw_only=True)
class Nest:
    """Kernels one after the other at each point of shared variables, what they hand on kept in memory of the thread.

    The scores of attention, of one head of one example, are made, normalised and used up before the next one's: the
    full matrix of scores is never stored.

    variables: the shared ones, which the kernels mention and do not loop over; extents: their rounds.
    private: what is handed on and needed nowhere else.
    """

    name: str
    extents: Mapping[int, int]
    variables: tuple[int, ...]
    kernels: tuple[Loops | Contract, ...]
    private: tuple[Buffer, ...]


Kernel = Loops | Contract | Scatter | Scan | Sort | Nest
