"""NumPy kernels for functions that NumPy itself does not have, or has only with a loss of accuracy."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

from chainrule import dtypes

Kernel = Callable[..., np.ndarray]

_libm_erf = np.frompyfunc(math.erf, 1, 1)


def with_float32(kernel: Kernel) -> Kernel:
    """The kernel, computing 16-bit floats in float32, for functions that have no 16-bit loop of their own."""

    @wraps(kernel)
    def widened(*arrays: np.ndarray, **params: object) -> np.ndarray:
        dtype = arrays[0].dtype
        work = dtypes.work_dtype(dtype)
        if work == dtype:
            return kernel(*arrays, **params)
        return np.asarray(kernel(*(a.astype(work) for a in arrays), **params)).astype(dtype)

    return widened


def sigmoid_kernel(x: np.ndarray) -> np.ndarray:
    """1 / (1 + e⁻ˣ). Large |x| reaches 0 or 1 through e⁻ˣ = inf or 0, without a branch."""
    one = x.dtype.type(1)
    return np.asarray(one / (one + np.exp(-x)))


@with_float32
def softplus_kernel(x: np.ndarray) -> np.ndarray:
    """log(1 + eˣ) without overflow."""
    out: np.ndarray = np.logaddexp(x.dtype.type(0), x)
    return out


@with_float32
def log_sigmoid_kernel(x: np.ndarray) -> np.ndarray:
    """log σ(x) = −log(1 + e⁻ˣ) without overflow."""
    out: np.ndarray = np.logaddexp(x.dtype.type(0), -x)
    return -out


def erf_kernel(x: np.ndarray) -> np.ndarray:
    """The error function: the C library's, an entry at a time in float64, within an ulp of the true value."""
    return np.asarray(_libm_erf(x.astype(np.float64))).astype(np.float64).astype(x.dtype)


_BITS = {1: np.dtype(np.int8), 2: np.dtype(np.int16), 4: np.dtype(np.int32), 8: np.dtype(np.int64)}


def gate_kernel(c: np.ndarray, x: np.ndarray) -> np.ndarray:
    """x where c, else 0.

    The bits of x are masked with all ones or all zeros: half the time of `np.where`, and unlike x · c it makes 0 of a
    closed inf or nan.
    """
    if x.ndim == 0:
        return np.where(c, x, x.dtype.type(0))
    bits: Any = _BITS[x.dtype.itemsize]
    masked: np.ndarray = np.bitwise_and(x.view(bits), np.negative(c.view(np.int8)), dtype=bits)
    return masked.view(x.dtype)
