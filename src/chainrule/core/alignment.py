"""Memory that begins at a cache line, for arrays that a compiled step will update.

NumPy's large arrays begin 16 bytes behind one. The threads of a compiled step share the columns of a weight; where its
rows begin in the middle of a line, two cores write to the same line in each row, and wait for each other each time.

Knows arrays; knows no tensor.
"""

from __future__ import annotations

import ctypes
import math

import numpy as np

ALIGNMENT = 64  # bytes: a cache line, and the widest vector
LEAST = 1 << 14  # bytes: smaller arrays are of no consequence, and NumPy makes them in less time


def aligned(size: int) -> int:
    """A number of bytes, up to the next multiple of `ALIGNMENT`."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def aligned_bytes(size: int, alignment: int = ALIGNMENT) -> np.ndarray:
    """Zeros: so many bytes, that begin at a multiple of the alignment; by default at a cache line."""
    return _first_aligned(np.zeros(size + alignment, np.uint8), size, alignment)


def _first_aligned(room: np.ndarray, size: int, alignment: int) -> np.ndarray:
    start = -room.ctypes.data % alignment
    return room[start : start + size]


def aligned_empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array whose entries are to be written over; a large one begins at a cache line.

    It is the first array of its memory, no view of another array: its `base` is no array.
    """
    size = math.prod(shape) * dtype.itemsize
    return np.empty(shape, dtype) if size < LEAST else array_in(aligned_room(size), shape, dtype)


def aligned_room(size: int) -> ctypes.Array[ctypes.c_char]:
    """Memory of so many bytes that begins at a cache line, for an array; what was there before is there still."""
    found = _first_aligned(np.empty(size + ALIGNMENT, np.uint8), size, ALIGNMENT)
    return (ctypes.c_char * size).from_buffer(found.data)


def array_in(room: ctypes.Array[ctypes.c_char], shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array in this memory, which it holds; so does, through it, each view of it."""
    return np.ndarray(shape, dtype, room)  # type: ignore[arg-type]  # any buffer will do; these types list a few


def is_writable(array: np.ndarray) -> bool:
    """Can each entry be written to by itself? Not in read-only memory, nor where several lie in one place."""
    apart = all(s or n == 1 for s, n in zip(array.strides, array.shape, strict=True))
    return array.flags.writeable and (apart or array.size == 0)


def aligned_copy(array: np.ndarray, dtype: np.dtype | None = None) -> np.ndarray:
    """A copy, in C order, of this dtype or the array's own; a large one begins at a cache line."""
    copy = aligned_empty(array.shape, array.dtype if dtype is None else dtype)
    np.copyto(copy, array, casting="unsafe")
    return copy
