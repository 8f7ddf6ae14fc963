"""Values of LLVM IR: an element type and a number of lanes, and how LLVM spells them.

Knows machine types; emits nothing.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np

from chainrule import dtypes

SCALAR = 0  # the `lanes` of a value that is no vector

LLVM: dict[np.dtype, str] = {
    dtypes.float32: "float",
    dtypes.float64: "double",
    dtypes.bool_: "i1",
    **{d: f"i{8 * d.itemsize}" for d in dtypes.INTEGERS},
}
NARROW = (dtypes.float16, dtypes.bfloat16)
SUFFIX = {**LLVM, dtypes.float32: "f32", dtypes.float64: "f64"}
INT_OF: dict[int, np.dtype] = {4: dtypes.int32, 8: dtypes.int64}


class Value(NamedTuple):
    """A register, or a constant written out: its text, element type, and number of lanes (0: a scalar)."""

    text: str
    dtype: np.dtype
    lanes: int = SCALAR


# An index or size: known when the kernel is written, or an int64 register.
Index = int | Value


def llvm_type(dtype: np.dtype, lanes: int = SCALAR) -> str:
    """What LLVM calls a value in a register."""
    kind = LLVM[dtype]
    return kind if lanes == SCALAR else f"<{lanes} x {kind}>"


def suffix(dtype: np.dtype, lanes: int = SCALAR) -> str:
    """What LLVM calls a value within the name of an intrinsic."""
    return SUFFIX[dtype] if lanes == SCALAR else f"v{lanes}{SUFFIX[dtype]}"


def stored_type(dtype: np.dtype) -> str:
    """What LLVM calls an element in memory."""
    if dtype == dtypes.bool_:
        return "i8"
    return "i16" if dtype in NARROW else LLVM[dtype]


def stored_suffix(dtype: np.dtype) -> str:
    """What LLVM calls an element in memory, within the name of an intrinsic."""
    if dtype == dtypes.bool_:
        return "i8"
    return "i16" if dtype in NARROW else SUFFIX[dtype]


def is_signed(dtype: np.dtype) -> bool:
    """Is it an integer that may be negative?"""
    return dtype.kind == "i"


def index_text(x: Index) -> str:
    """An index as an operand."""
    return str(x) if isinstance(x, int) else x.text


def mask_text(lanes: int, active: int) -> str:
    """A mask that holds in the first `active` lanes."""
    return f"<{lanes} x i1> <" + ", ".join("i1 1" if i < active else "i1 0" for i in range(lanes)) + ">"


def one_literal(number: float | bool, dtype: np.dtype) -> str:
    """A number as an operand."""
    if dtypes.is_float(dtype):
        # As a double in hexadecimal, the only spelling that is exact for every value; a float must be one exactly.
        exact = float(dtype.type(number))
        return f"0x{struct.unpack('<Q', struct.pack('<d', exact))[0]:016X}"
    if dtype == dtypes.bool_:
        return "1" if number else "0"
    return str(int(number))


def literal(number: float | bool, dtype: np.dtype, lanes: int) -> str:
    """A number in every lane, as an operand."""
    text = one_literal(number, dtype)
    if lanes == SCALAR:
        return text
    return f"splat ({LLVM[dtype]} {text})"
