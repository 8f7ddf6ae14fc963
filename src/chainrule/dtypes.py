"""Which element types exist and how they combine. Knows NumPy's dtypes; knows no op and no tensor."""

from __future__ import annotations

import contextlib
from typing import Any

import ml_dtypes
import numpy as np

from chainrule.errors import DTypeError

float16 = np.dtype(np.float16)
float32 = np.dtype(np.float32)
float64 = np.dtype(np.float64)
bfloat16 = np.dtype(ml_dtypes.bfloat16)
int8 = np.dtype(np.int8)
int16 = np.dtype(np.int16)
int32 = np.dtype(np.int32)
int64 = np.dtype(np.int64)
uint8 = np.dtype(np.uint8)
uint16 = np.dtype(np.uint16)
uint32 = np.dtype(np.uint32)
uint64 = np.dtype(np.uint64)
bool_ = np.dtype(np.bool_)

FLOATS = (float16, bfloat16, float32, float64)
INTEGERS = (int8, int16, int32, int64, uint8, uint16, uint32, uint64)
ALL = (bool_, *INTEGERS, *FLOATS)

DEFAULT_FLOAT = float32
DEFAULT_INT = int64

_BOOL, _INTEGER, _FLOAT = range(3)
_KIND = {**dict.fromkeys(FLOATS, _FLOAT), **dict.fromkeys(INTEGERS, _INTEGER), bool_: _BOOL}
_PYTHON_TYPES: dict[type, np.dtype] = {float: DEFAULT_FLOAT, int: DEFAULT_INT, bool: bool_}
_NOT_OURS = np.dtype(object)
_ALIASES: dict[str, np.dtype] = {
    "bfloat16": bfloat16,
    "float": float32,
    "double": float64,
    "half": float16,
    "int": int32,
    "long": int64,
    "bool": bool_,
}


def as_dtype(dtype: Any) -> np.dtype:
    """The dtype meant by a dtype, a NumPy type, a Python type or a name.

    >>> as_dtype(float), as_dtype("bfloat16")
    (dtype('float32'), dtype(bfloat16))

    Raises: DTypeError: the library has no such dtype (complex numbers, strings, objects).
    """
    if isinstance(dtype, np.dtype) and dtype in _KIND:
        return dtype
    if isinstance(dtype, type) and dtype in _PYTHON_TYPES:
        return _PYTHON_TYPES[dtype]
    if isinstance(dtype, str) and dtype in _ALIASES:
        return _ALIASES[dtype]
    found: np.dtype = _NOT_OURS
    with contextlib.suppress(TypeError):
        found = np.dtype(dtype)
    if found not in _KIND:
        raise DTypeError(f"dtype: expected one of {', '.join(str(d) for d in ALL)}; got {dtype!r}")
    return found


def finfo(dtype: Any) -> Any:
    """NumPy's `finfo`, the limits of a float dtype; bfloat16's too."""
    return ml_dtypes.finfo(as_dtype(dtype))  # type: ignore[no-untyped-call]


def is_float(dtype: np.dtype) -> bool:
    """Can values of this dtype carry a derivative?"""
    return _KIND[dtype] == _FLOAT


def is_integer(dtype: np.dtype) -> bool:
    """Integer, signed or not; bool is not."""
    return _KIND[dtype] == _INTEGER


def promote(first: np.dtype, second: np.dtype) -> np.dtype:
    """The dtype of `first + second`, as PyTorch defines it: the higher kind wins (bool < integer < float), then width.

    >>> promote(int64, float32), promote(float32, float64), promote(float16, bfloat16)
    (dtype('float32'), dtype('float64'), dtype('float32'))

    Raises: DTypeError: uint64 with a signed integer, which no integer dtype holds.
    """
    if first == second:
        return first
    first_kind, second_kind = _KIND[first], _KIND[second]
    if first_kind != second_kind:
        return first if first_kind > second_kind else second
    if {first, second} == {float16, bfloat16}:
        return float32
    joint = np.promote_types(first, second)
    if joint not in _KIND or _KIND[joint] != first_kind:
        raise DTypeError(f"dtype: {first} and {second} have no common integer dtype; cast one of them")
    return joint


def promote_scalar(dtype: np.dtype, scalar: bool | int | float) -> np.dtype:
    """The dtype of `tensor + scalar`: the tensor's own, unless the scalar is of a higher kind.

    >>> promote_scalar(float64, 2), promote_scalar(int32, 0.5), promote_scalar(bool_, 3)
    (dtype('float64'), dtype('float32'), dtype('int64'))
    """
    if isinstance(scalar, bool):
        return dtype
    if isinstance(scalar, int):
        return DEFAULT_INT if _KIND[dtype] == _BOOL else dtype
    return dtype if _KIND[dtype] == _FLOAT else DEFAULT_FLOAT


_WORK = {float16: float32, bfloat16: float32}


def work_dtype(dtype: np.dtype) -> np.dtype:
    """The dtype that arithmetic on `dtype` accumulates in: float32 for the 16-bit floats, else itself."""
    return _WORK.get(dtype, dtype)


def epsilon(dtype: np.dtype) -> float:
    """The distance from 1 to the next number of a float dtype."""
    return float(ml_dtypes.finfo(dtype).eps)  # type: ignore[no-untyped-call]
