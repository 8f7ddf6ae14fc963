"""Aval, the abstract value: what is known about an array before it is computed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Aval(NamedTuple):
    """Shape and dtype.

    >>> str(Aval((2, 3), np.dtype("float32")))
    'float32[2,3]'
    """

    shape: tuple[int, ...]
    dtype: np.dtype

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        size = 1
        for n in self.shape:
            size *= n
        return size
