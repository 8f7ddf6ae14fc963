"""What compiled functions are held against: the same functions, run eagerly. How close is close is said here, once."""

import os
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.compile import writing
from chainrule.compile.jit import Compiled
from chainrule.compile.llvm.target import Target
from chainrule.compile.pipeline import optimised
from chainrule.tree import flatten

# Relative to a value, and to the size of what it is made of. Eager and compiled differ in the order of sums, in
# products that are added without a rounding between, and in elementary functions, right to an ulp or two in both.
# The 16-bit floats: eager rounds after each op to 11 or 8 bits, compiled keeps float32 between fused ops; so their
# error is eager's, a few of its roundings.
TOLERANCE = {
    dtypes.float64: 1e-12,
    dtypes.float32: 2e-6,
    dtypes.float16: 6 * dtypes.epsilon(dtypes.float16),
    dtypes.bfloat16: 6 * dtypes.epsilon(dtypes.bfloat16),
}

# How many more examples than usual are drawn: for a long search by hand.
EFFORT = int(os.environ.get("CHAINRULE_TEST_EFFORT", "1"))


def compiled(function: Callable[..., Any], target: Target | None = None, threads: int | None = None) -> Compiled:
    """The function as machine code."""
    return Compiled(function, build=lambda program: writing.compiled(optimised(program), target, threads=threads))


def arrays(results: Any) -> list[np.ndarray]:
    """The arrays of a tree of tensors."""
    return [np.array(leaf.detach().numpy()) for leaf in flatten(results)[0]]


def quietly(function: Callable[..., Any], *args: Any) -> list[np.ndarray]:
    """What a function gives, run eagerly; NumPy warns of inf and nan, which is no fault here."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)
        return arrays(function(*args))


def differences(found: np.ndarray, wanted: np.ndarray, size: float = 1.0, tolerance: float | None = None) -> np.ndarray:
    """Where two arrays differ by more than they may; integers and bool must be the same, and so must inf and nan.

    size: of what was added up to make them.
    """
    assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
    if not dtypes.is_float(wanted.dtype):
        return np.asarray(found != wanted)
    tolerance = TOLERANCE[wanted.dtype] if tolerance is None else tolerance
    smallest = float(dtypes.finfo(wanted.dtype).smallest_normal)
    found, wanted = found.astype(np.float64), wanted.astype(np.float64)
    with np.errstate(all="ignore"):
        near = np.abs(found - wanted) <= tolerance * (np.abs(wanted) + size) + smallest
    same = (found == wanted) | (np.isnan(found) & np.isnan(wanted))
    return np.asarray(~np.where(np.isfinite(found) & np.isfinite(wanted), near, same))


def assert_equal(
    found: np.ndarray, wanted: np.ndarray, what: object = "", size: float = 1.0, tolerance: float | None = None
) -> None:
    """Equal as far as that dtype can be."""
    wrong = differences(found, wanted, size, tolerance)
    if wrong.any():
        at = tuple(int(i) for i in np.argwhere(wrong)[0]) if wrong.ndim else ()
        raise AssertionError(
            f"{what}: {wrong.sum()} of {wrong.size} differ, first at {list(at)}: "
            f"compiled {found[at]!r}, eager {wanted[at]!r}"
        )
