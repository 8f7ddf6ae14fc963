"""Memory for a compiled function's large results: that of earlier ones which nobody holds any more.

The system hands out fresh memory page by page, each of which is cleared at its first touch: for half a megabyte that
takes longer than to compute what is written there. An array holds its memory, and each view holds its array; so whether
anybody still has a result, or a part of it, is known by the count of references to the memory. CPython keeps one;
without it (or without its lock) every result gets fresh memory. The array itself is a new one each time.
"""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Callable
from typing import Any, final

import numpy as np

from chainrule.core.alignment import LEAST, aligned_empty, aligned_room, array_in

_KEPT = 2  # memories: while one is held, as `y` in `y = f(x)`, the other is written
_MOST = 1 << 25  # bytes: a larger one is not kept from the system when nobody uses it


def _counter() -> Callable[[Any], int] | None:
    """What counts references, where a count says that there are no others."""
    is_locked: Callable[[], bool] = getattr(sys, "_is_gil_enabled", lambda: True)
    return getattr(sys, "getrefcount", None) if sys.implementation.name == "cpython" and is_locked() else None


_count = _counter()
_probe = [ctypes.create_string_buffer(1)]
_UNUSED = 0 if _count is None else _count(_probe[0])  # what memory counts that only a list holds


@final
class Results:
    """The memory that one result of a function is written to, call by call."""

    __slots__ = ("_addresses", "_dtype", "_kept", "_rooms", "_shape", "_size")

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self._shape, self._dtype = shape, dtype
        self._size = dtype.itemsize * math.prod(shape)
        self._kept = _KEPT if _count is not None and LEAST <= self._size <= _MOST else 0
        self._rooms: list[Any] = []
        self._addresses: list[int] = []

    def free(self) -> tuple[np.ndarray, int]:
        """An array in memory that nobody else holds, to be written over, and its address."""
        rooms, addresses = self._rooms, self._addresses
        for i in range(len(rooms)):
            if _count is not None and _count(rooms[i]) == _UNUSED:
                return array_in(rooms[i], self._shape, self._dtype), addresses[i]
        if not self._kept:
            array = aligned_empty(self._shape, self._dtype)
            return array, array.ctypes.data
        if len(rooms) == self._kept:  # the oldest is held elsewhere: it is not ours any more
            del rooms[0], addresses[0]
        rooms.append(aligned_room(self._size))
        addresses.append(ctypes.addressof(rooms[-1]))
        return array_in(rooms[-1], self._shape, self._dtype), addresses[-1]
