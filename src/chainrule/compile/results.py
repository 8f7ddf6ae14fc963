"""Memory for a compiled function's large results: that of earlier ones which nobody holds any more.

The system hands out fresh memory page by page, each of which is cleared at its first touch: for half a megabyte that
takes longer than to compute what is written there. Who holds a result, or a view of it, is known by the count of
references to its array; CPython keeps one, and without it (or without its lock) every result gets fresh memory.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, final

import numpy as np

from chainrule.core.alignment import aligned_empty

_KEPT = 2  # arrays: while one is held, as `y` in `y = f(x)`, the other is written
_MOST = 1 << 25  # bytes: a larger one is not kept from the system when nobody uses it


def _counter() -> Callable[[Any], int] | None:
    """What counts references, where a count says that there are no others."""
    is_locked: Callable[[], bool] = getattr(sys, "_is_gil_enabled", lambda: True)
    return getattr(sys, "getrefcount", None) if sys.implementation.name == "cpython" and is_locked() else None


_count = _counter()
_probe = [np.empty(0)]
_UNUSED = 0 if _count is None else _count(_probe[0])  # what an array counts that only a list holds


@final
class Results:
    """The arrays that one result of a function is written to, call by call."""

    __slots__ = ("_addresses", "_arrays", "_dtype", "_kept", "_shape")

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self._shape, self._dtype = shape, dtype
        size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        self._kept = _KEPT if _count is not None and size <= _MOST else 0
        self._arrays: list[np.ndarray] = []
        self._addresses: list[int] = []

    def free(self) -> tuple[np.ndarray, int]:
        """An array that nobody else holds, to be written over, and its address."""
        arrays, addresses = self._arrays, self._addresses
        for i in range(len(arrays)):
            if _count is not None and _count(arrays[i]) == _UNUSED:
                return arrays[i], addresses[i]
        array = aligned_empty(self._shape, self._dtype)
        address = array.ctypes.data
        if self._kept:
            if len(arrays) == self._kept:  # the oldest is held elsewhere: it is not ours any more
                del arrays[0], addresses[0]
            arrays.append(array)
            addresses.append(address)
        return array, address
