"""NumPy kernels for functions that NumPy itself does not have, or has only with a loss of accuracy."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

from chainrule import dtypes

Kernel = Callable[..., np.ndarray]


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


# Cody (1969), Rational Chebyshev approximations for the error function, Mathematics of Computation 23, 631-637:
# numerators and denominators, highest power first, of erf on |x| ≤ 0.46875, of erfc on 0.46875 ≤ |x| ≤ 4 and beyond.
_ERF_NEAR = (
    (
        1.85777706184603153e-1, 3.16112374387056560e0, 1.13864154151050156e2, 3.77485237685302021e2,
        3.20937758913846947e3,
    ),
    (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3, 2.84423683343917062e3),
)  # fmt: skip
_ERFC_MIDDLE = (
    (
        2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594e0, 6.61191906371416295e1,
        2.98635138197400131e2, 8.81952221241769090e2, 1.71204761263407058e3, 2.05107837782607147e3,
        1.23033935479799725e3,
    ),
    (
        1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2, 1.62138957456669019e3,
        3.29079923573345963e3, 4.36261909014324716e3, 3.43936767414372164e3, 1.23033935480374942e3,
    ),
)  # fmt: skip
_ERFC_FAR = (
    (
        1.63153871373020978e-2, 3.05326634961232344e-1, 3.60344899949804439e-1, 1.25781726111229246e-1,
        1.60837851487422766e-2, 6.58749161529837803e-4,
    ),
    (
        1.0, 2.56852019228982242e0, 1.87295284992346047e0, 5.27905102951428412e-1, 6.05183413124413191e-2,
        2.33520497626869185e-3,
    ),
)  # fmt: skip


def _ratio(coefficients: tuple[tuple[float, ...], tuple[float, ...]], x: np.ndarray) -> np.ndarray:
    above, below = coefficients
    return np.asarray(np.polyval(above, x) / np.polyval(below, x))


def erf_kernel(x: np.ndarray) -> np.ndarray:
    """The error function, computed in float64 and within four ulp of the true value there."""
    wide = np.atleast_1d(x).astype(np.float64)
    size = np.abs(wide)
    found = np.where(np.isnan(wide), np.nan, 1.0)  # beyond 6 it is 1 to the last digit
    near, middle, far = size <= 0.46875, (size > 0.46875) & (size <= 4.0), (size > 4.0) & (size < 6.0)
    square = np.square(size[near])
    found[near] = size[near] * _ratio(_ERF_NEAR, square)
    found[middle] = 1.0 - np.exp(-np.square(size[middle])) * _ratio(_ERFC_MIDDLE, size[middle])
    below = np.reciprocal(np.square(size[far]))
    tail = (1.0 / math.sqrt(math.pi) - below * _ratio(_ERFC_FAR, below)) / size[far]
    found[far] = 1.0 - np.exp(-np.square(size[far])) * tail
    return np.copysign(found, wide).astype(x.dtype).reshape(x.shape)


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
