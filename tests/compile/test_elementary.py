"""The compiled elementary functions against the true ones: the error, in units of the last place, is the stated one."""

import functools
import itertools
import math
import re

import mpmath
import numpy as np
import pytest

from chainrule import dtypes
from chainrule.compile.llvm import elementary, engine
from chainrule.compile.llvm.builder import Builder

FLOATS = (dtypes.float32, dtypes.float64)

# function -> largest error for float32 and for float64, as the module's docstring states them
STATED = {
    name: (float(single), float(double))
    for name, single, double in re.findall(r"^    (\w+) +(\d\.\d) +(\d\.\d)$", elementary.__doc__ or "", re.MULTILINE)
}


def _sigmoid(x):
    return 1 / (1 + mpmath.exp(-x))


def _softplus(x):
    return mpmath.log1p(mpmath.exp(x))


# function -> (the true one; the same in NumPy, whose float64 is true enough for float32; where it is sampled evenly;
# the least and greatest input)
TRUTH = {
    "exp": (mpmath.exp, np.exp, (-3, 3), (-760, 720)),
    "exp2": (lambda x: mpmath.mpf(2) ** x, np.exp2, (-3, 3), (-1080, 1030)),
    "expm1": (mpmath.expm1, np.expm1, (-2, 2), (-60, 720)),
    "sinh": (mpmath.sinh, np.sinh, (-3, 3), (-712, 712)),
    "cosh": (mpmath.cosh, np.cosh, (-3, 3), (-712, 712)),
    "tanh": (mpmath.tanh, np.tanh, (-3, 3), (-30, 30)),
    "sigmoid": (_sigmoid, lambda x: 1 / (1 + np.exp(-x)), (-10, 10), (-700, 60)),
    "softplus": (_softplus, None, (-10, 10), (-700, 700)),
    "log_sigmoid": (lambda x: -_softplus(-x), None, (-10, 10), (-700, 700)),
    "erf": (mpmath.erf, None, (-4, 4), (-7, 7)),
    "log": (mpmath.log, np.log, (0.5, 2), (0, math.inf)),
    "log2": (lambda x: mpmath.log(x, 2), np.log2, (0.5, 2), (0, math.inf)),
    "log10": (mpmath.log10, np.log10, (0.5, 2), (0, math.inf)),
    "log1p": (mpmath.log1p, np.log1p, (-0.9, 2), (-1, math.inf)),
    "asinh": (mpmath.asinh, np.arcsinh, (-3, 3), (-math.inf, math.inf)),
    "acosh": (mpmath.acosh, np.arccosh, (1, 3), (1, math.inf)),
    "atanh": (mpmath.atanh, np.arctanh, (-1, 1), (-1, 1)),
    "sin": (mpmath.sin, np.sin, (-10, 10), (-(2**49), 2**49)),
    "cos": (mpmath.cos, np.cos, (-10, 10), (-(2**49), 2**49)),
    "tan": (mpmath.tan, np.tan, (-10, 10), (-(2**49), 2**49)),
    "asin": (mpmath.asin, np.arcsin, (-1, 1), (-1, 1)),
    "acos": (mpmath.acos, np.arccos, (-1, 1), (-1, 1)),
    "atan": (mpmath.atan, np.arctan, (-3, 3), (-math.inf, math.inf)),
    "rsqrt": (lambda x: 1 / mpmath.sqrt(x), lambda x: 1 / np.sqrt(x), (0.5, 2), (0, math.inf)),
}
ANGLES = ("sin", "cos", "tan")
TWO = {"pow": lambda x, y: x**y, "atan2": mpmath.atan2}


def errors(got, want, dtype):
    """|got - want| in units of the last place that `want` has in `dtype`."""
    info, size = np.finfo(dtype), np.abs(want)
    exponent = np.floor(np.log2(np.where(size > 0, size, 1)))
    unit = np.exp2(np.maximum(exponent, info.minexp) - info.nmant)
    with np.errstate(all="ignore"):
        rounded = want.astype(dtype)  # inf beyond the greatest number
        apart = np.abs(got.astype(np.longdouble) - want) / unit
    return np.where(np.isinf(rounded) & (got == rounded), 0, apart)


def drawn(even, bounds, dtype, count):
    """Numbers evenly where most is to be seen, over a larger range, and of every size, down to subnormal ones."""
    rng, info = np.random.default_rng(0), np.finfo(dtype)
    low, high = max(bounds[0], float(info.min)), min(bounds[1], float(info.max))
    sizes = np.exp2(rng.uniform(info.minexp - info.nmant, info.maxexp, count)) * rng.choice([-1.0, 1.0], count)
    middle = rng.uniform(max(low, -1e3), min(high, 1e3), count)
    ends = [info.max, info.max / 2, info.tiny, info.smallest_subnormal]
    x = np.concatenate([rng.uniform(*even, count), middle, sizes, ends, np.negative(ends)])
    return x[(x > low) & (x < high)].astype(dtype).clip(bounds[0], bounds[1])


def exactly(function, *arrays):
    with mpmath.workprec(120):
        rows = zip(*(x.tolist() for x in arrays), strict=True)
        return np.array([np.longdouble(mpmath.nstr(function(*map(mpmath.mpf, row)), 25)) for row in rows])


@functools.cache
def case(name, dtype):
    """Inputs, and the true values."""
    truth, numpys, even, bounds = TRUTH[name]
    if dtype == dtypes.float64 or numpys is None:
        x = drawn(even, bounds, dtype, 600)
        return (x,), exactly(truth, x)
    x = drawn(even, (-(2**20), 2**20) if name in ANGLES else bounds, dtype, 20_000)
    with np.errstate(all="ignore"):
        return (x,), numpys(x.astype(np.float64)).astype(np.longdouble)


@functools.cache
def case_of_two(name, dtype):
    rng, info, count = np.random.default_rng(0), np.finfo(dtype), 600
    if name == "pow":
        x = np.concatenate([rng.uniform(0.5, 2, count), np.exp(rng.uniform(-50, 50, count))]).astype(dtype)
        y = (rng.uniform(math.log(info.tiny), math.log(info.max), 2 * count) / np.log(x.astype(float))).astype(dtype)
    else:
        x, y = (rng.standard_normal((2, 2 * count)) * 10 ** rng.uniform(-3, 3, (2, 2 * count))).astype(dtype)
    return (x, y), exactly(TWO[name], x, y)


def element(name, dtype, count, lanes):
    return (lambda b, *values: getattr(b, name)(*values), [dtype] * count, dtype, lanes)


def test_every_stated_function_is_measured():
    assert set(STATED) == set(TRUTH) | set(TWO)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", [*TRUTH, *TWO])
def test_the_error_is_the_stated_one(name, dtype, target, compiled):
    arrays, want = case_of_two(name, dtype) if name in TWO else case(name, dtype)
    lanes = target.vector_bytes // dtype.itemsize
    vector, single = compiled([element(name, dtype, len(arrays), n) for n in (lanes, 0)], target)
    got = vector(*arrays)
    np.testing.assert_array_equal(single(*(x[:500] for x in arrays)), got[:500])
    apart = errors(got, want, dtype)
    worst = np.argmax(apart)
    stated = STATED[name][FLOATS.index(dtype)]
    assert apart[worst] <= stated, f"{apart[worst]:.2f} at {[x[worst] for x in arrays]}: {got[worst]!r}"


INF, NAN = math.inf, math.nan
# function -> its values at: nan, inf, -inf, 0, -0
SPECIAL = {
    "exp": (NAN, INF, 0.0, 1.0, 1.0),
    "exp2": (NAN, INF, 0.0, 1.0, 1.0),
    "expm1": (NAN, INF, -1.0, 0.0, -0.0),
    "sinh": (NAN, INF, -INF, 0.0, -0.0),
    "cosh": (NAN, INF, INF, 1.0, 1.0),
    "tanh": (NAN, 1.0, -1.0, 0.0, -0.0),
    "sigmoid": (NAN, 1.0, 0.0, 0.5, 0.5),
    "softplus": (NAN, INF, 0.0, math.log(2), math.log(2)),
    "log_sigmoid": (NAN, -0.0, -INF, -math.log(2), -math.log(2)),
    "erf": (NAN, 1.0, -1.0, 0.0, -0.0),
    "log": (NAN, INF, NAN, -INF, -INF),
    "log2": (NAN, INF, NAN, -INF, -INF),
    "log10": (NAN, INF, NAN, -INF, -INF),
    "log1p": (NAN, INF, NAN, 0.0, -0.0),
    "asinh": (NAN, INF, -INF, 0.0, -0.0),
    "acosh": (NAN, INF, NAN, NAN, NAN),
    "atanh": (NAN, NAN, NAN, 0.0, -0.0),
    "sin": (NAN, NAN, NAN, 0.0, -0.0),
    "cos": (NAN, NAN, NAN, 1.0, 1.0),
    "tan": (NAN, NAN, NAN, 0.0, -0.0),
    "asin": (NAN, NAN, NAN, 0.0, -0.0),
    "acos": (NAN, NAN, NAN, math.pi / 2, math.pi / 2),
    "atan": (NAN, math.pi / 2, -math.pi / 2, 0.0, -0.0),
    "rsqrt": (NAN, 0.0, NAN, INF, -INF),
}


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", TRUTH)
def test_special_values(name, dtype, target, compiled):
    (function,) = compiled([element(name, dtype, 1, target.vector_bytes // dtype.itemsize)], target)
    got = function(np.array([NAN, INF, -INF, 0.0, -0.0], dtype))
    want = np.array(SPECIAL[name]).astype(dtype)
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(np.signbit(got)[~np.isnan(want)], np.signbit(want)[~np.isnan(want)])


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_whole_powers_of_two_are_exact(dtype, target, compiled):
    lanes = target.vector_bytes // dtype.itemsize
    exp2, log2 = compiled([element(name, dtype, 1, lanes) for name in ("exp2", "log2")], target)
    info = np.finfo(dtype)
    n = np.arange(info.minexp - info.nmant, info.maxexp).astype(dtype)
    powers = np.ldexp(dtype.type(1), n.astype(int))
    np.testing.assert_array_equal(exp2(n), powers)
    np.testing.assert_array_equal(log2(powers), n)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_huge_angles_stay_in_range(dtype, target, compiled):
    lanes = target.vector_bytes // dtype.itemsize
    x = np.exp2(np.linspace(10, np.finfo(dtype).maxexp - 1, 1000)).astype(dtype)
    for got in (f(x) for f in compiled([element(name, dtype, 1, lanes) for name in ("sin", "cos")], target)):
        assert np.abs(got).max() <= 1


def test_no_function_calls_the_c_library(target, compiled):
    b = Builder(target.vector_bytes, target.has_fma)

    def body():
        for name, dtype in itertools.product([*TRUTH, *TWO, "floor_divide", "remainder"], FLOATS):
            values = [b.load("%x", i, dtype, b.lanes(dtype)) for i in range(1 if name in TRUTH else 2)]
            b.store(getattr(b, name)(*values), "%x", 0, dtype)
        b.ret()

    b.function("f", "ptr %x", body)
    assert "call" not in engine.assembly(b.text(), target)
