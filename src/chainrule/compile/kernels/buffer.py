"""Memory that kernels read and write, as arrays with strides; counted in elements, never in bytes.

Knows what a buffer is, not where it lies: `arena.py` gives those of the arena their places.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np


@dataclass(frozen=True, eq=False, kw_only=True)
class Buffer:
    """Memory that kernels read or write: an array with strides, counted in elements.

    place: an input of the program (also what is updated in place), a constant of it, a stretch of the arena, an output
        that the caller allocates, or memory private to one thread inside one kernel.
    array: for a constant, its value.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    strides: tuple[int, ...]
    place: Literal["input", "constant", "arena", "output", "private"]
    array: np.ndarray | None = None

    @cached_property
    def span(self) -> int:
        """Elements from the first to just behind the last."""
        if 0 in self.shape:
            return 0
        return 1 + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))

    @cached_property
    def bytes(self) -> int:
        """Memory it takes."""
        return self.span * self.dtype.itemsize

    @property
    def used(self) -> int:
        """Bytes of its entries, without what lies between them."""
        return math.prod(self.shape) * self.dtype.itemsize


def row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides of a contiguous array."""
    strides, step = [], 1
    for n in reversed(shape):
        strides.append(step)
        step *= max(n, 1)
    return tuple(reversed(strides))
