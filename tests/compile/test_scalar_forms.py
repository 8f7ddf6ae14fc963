"""What an elementwise op computes per element, compiled, is what its NumPy reference computes, in each dtype."""

import itertools
import math

import numpy as np
import pytest

from chainrule import dtypes
from chainrule.core.aval import Aval
from chainrule.core.family import Elementwise, choice
from chainrule.errors import DTypeError
from chainrule.ops.catalogue import CATALOGUE

OPS = [op for op in CATALOGUE if isinstance(op, Elementwise)]

# Rounded as the reference rounds: each operation once.
EXACT = {
    *("add", "sub", "mul", "div", "neg", "reciprocal", "abs", "sign", "square", "sqrt", "rsqrt", "relu", "clamp_min"),
    *("clamp_max", "clamp", "maximum", "minimum", "where", "gate", "floor", "ceil", "round", "trunc", "floor_divide"),
    "remainder",
}
# NumPy's functions are themselves up to four units of the last place off.
UNITS = 6
# 16-bit floats are computed in float32 and rounded once; the reference may round after each of its steps.
NARROW_UNITS = 2
# Of larger angles sine, cosine and tangent are not computed.
ANGLES = ("sin", "cos", "tan")
# Which of two equal zeros is the larger, NumPy leaves open; and bfloat16 has signs of -0.
NO_SIGN_OF_ZERO = ("sign", "relu", "clamp", "clamp_min", "clamp_max", "maximum", "minimum")

EXPONENTS = (0, 1, 2, 3, 4, 7)
PARAMS = {
    "clamp_min": [{"low": low} for low in (0.0, 1.0, 2.5)],
    "clamp_max": [{"high": high} for high in (0.0, 1.0, 2.5)],
    "clamp": [{"low": 0.0, "high": 2.0}, {"low": 1.0, "high": 100.0}, {"low": 3.0, "high": 1.0}],
}
FLOAT_PARAMS = {
    "clamp_min": [{"low": -math.inf}, {"low": math.nan}, {"low": -0.5}],
    "clamp_max": [{"high": math.inf}, {"high": math.nan}, {"high": 0.5}],
    "pow": [{"exponent": e} for e in (0.5, -0.5, 1.5, -1.5, 2.5, -1, -2, -3, 0.25, -7)],
}


def values(dtype, count=40):
    """Some of every size, and the special ones."""
    rng = np.random.default_rng(0)
    if dtype == dtypes.bool_:
        return np.array([False, True])
    if dtypes.is_integer(dtype):
        info = np.iinfo(dtype)
        ends = [info.min, info.min + 1, info.max, info.max - 1, 0, 1, 2, 3, 5, 7]
        some = rng.integers(info.min, info.max, count, dtype=dtype, endpoint=True)
        small = rng.integers(0, 12, count).astype(dtype)
        signs = np.array([-1, -2, -3, -5, -7], dtype) if info.min else np.array([], dtype)
        return np.concatenate([np.array(ends, dtype), signs, some, small])
    info = dtypes.finfo(dtype)
    special = [math.nan, math.inf, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 7.0]
    special += [float(info.max), float(info.tiny), float(info.smallest_subnormal), float(info.eps)]
    some = rng.standard_normal(count) * 10 ** rng.uniform(-3, 2, count)
    return np.concatenate([special, np.negative(special), some]).astype(dtype)


def inputs(op, dtype):
    """All pairs of values for two inputs; the condition comes first."""
    kinds = [dtype] * len(op.partials)
    if op.result is choice:
        kinds[0] = dtypes.bool_
    columns = [values(kind, 40 if len(kinds) == 1 else 12) for kind in kinds]
    rows = list(itertools.product(*columns))
    return [np.array([row[i] for row in rows], kind) for i, kind in enumerate(kinds)]


def admitted(op, dtype):
    kinds = [x.dtype for x in inputs(op, dtype)]
    try:
        return op.infer(*[Aval((1,), kind) for kind in kinds], **params_of(op, dtype)[0]).dtype
    except DTypeError:
        return None


def params_of(op, dtype):
    if op.name == "pow":
        whole = [{"exponent": e} for e in EXPONENTS]
        return whole + (FLOAT_PARAMS["pow"] if dtypes.is_float(dtype) else [])
    return PARAMS.get(op.name, [{}]) + (FLOAT_PARAMS.get(op.name, []) if dtypes.is_float(dtype) else [])


def kept(op, dtype, arrays, params):
    """The rows that the op is defined for."""
    keep = np.ones(arrays[0].shape, bool)
    with np.errstate(all="ignore"):
        if op.name in ANGLES:
            keep = ~(np.abs(arrays[0].astype(float)) > 2**20) | np.isinf(arrays[0].astype(float))
        if op.name in ("floor_divide", "remainder") and dtypes.is_float(dtype):
            x, y = (a.astype(dtypes.work_dtype(dtype)) for a in arrays)
            keep = ~(np.abs(x / y) > 2.0**40) | np.isinf(x) | (y == 0)
        if op.name == "pow_tensor" and dtypes.is_integer(dtype):
            keep = arrays[1] >= 0
        if params == {
            "exponent": 0.5
        }:  # NumPy's is √x, or C's power, which differ at -inf and -0; as dtype and release are
            keep = ~np.isinf(arrays[0]) & (arrays[0] != 0)
    return [a[keep] for a in arrays]


def units(x):
    """The distance from each number to the next."""
    info, size = dtypes.finfo(x.dtype), np.abs(x.astype(np.longdouble))
    exponent = np.floor(np.log2(np.where((size > 0) & np.isfinite(size), size, 1)))
    return np.exp2(np.maximum(exponent, info.minexp) - info.nmant)


def agree(op, dtype, got, want):
    if not dtypes.is_float(want.dtype):
        return got == want
    both_nan = np.isnan(got.astype(float)) & np.isnan(want.astype(float))
    same = both_nan | ((got == want) & ((np.signbit(got) == np.signbit(want)) | (op.name in NO_SIGN_OF_ZERO)))
    narrow = dtype.itemsize == 2
    allowed = NARROW_UNITS if narrow else UNITS
    if op.name in EXACT and not (narrow and op.name == "rsqrt"):
        allowed = 0
    with np.errstate(all="ignore"):
        apart = np.abs(got.astype(np.longdouble) - want.astype(np.longdouble)) / units(want)
    return same | ((got != want) & (apart <= allowed))


def element(op, params, kinds, output, lanes):
    return (lambda b, *xs: op.scalar(b, *xs, **params), kinds, output, lanes)


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_compiled_is_the_reference(op, compiled):
    cases = []
    for dtype in dtypes.ALL:
        output = admitted(op, dtype)
        if output is None:
            continue
        cases += [(dtype, output, kept(op, dtype, inputs(op, dtype), p), p) for p in params_of(op, dtype)]
    assert cases
    kinds = [[a.dtype for a in arrays] for _, _, arrays, _ in cases]
    functions = [
        element(op, params, kind, output, lanes)
        for (dtype, output, _, params), kind in zip(cases, kinds, strict=True)
        for lanes in (64 // dtypes.work_dtype(dtype).itemsize, 0)
    ]
    run = iter(compiled(functions))
    for dtype, output, arrays, params in cases:
        with np.errstate(all="ignore"):
            want = np.asarray(op.reference(*arrays, **params))
        assert want.dtype == output
        for got in (next(run)(*arrays), next(run)(*arrays)):
            good = agree(op, dtype, got, want)
            worst = int(np.argmin(good))
            assert good.all(), (str(dtype), params, [a[worst] for a in arrays], got[worst], want[worst], (~good).sum())
