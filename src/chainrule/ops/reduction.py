"""Ops that reduce many entries to one along dimensions: `dim` is a tuple of non-negative ints, `keepdim` a bool."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.core.aval import Aval
from chainrule.core.family import Reduction, Rule, same_dtype, same_float, same_number
from chainrule.core.node import Ratio
from chainrule.core.notation import POWER, PRODUCT, Notation
from chainrule.core.sample import Arg, Misuse, Sample, floats
from chainrule.errors import ShapeError
from chainrule.ops import comparison, elementwise, transcendental


def over(avals: Sequence[Aval], params: Mapping[str, Any]) -> str:
    """The dimensions reduced along, in words: '' for all, 'rows' or 'columns' of a matrix, else their numbers."""
    dim, ndim = tuple(params["dim"]), avals[0].ndim
    if len(dim) == ndim:
        return ""
    if ndim == 2:
        return "rows" if dim == (0,) else "columns"
    return "dim " + ",".join(map(str, dim))


def _text(name: str) -> Any:
    def template(avals: Sequence[Aval], params: Mapping[str, Any]) -> str:
        where = over(avals, params)
        return f"{name}({{0}}, {where})" if where else f"{name}({{0}})"

    return template


def _latex(name: str) -> Any:
    def template(avals: Sequence[Aval], params: Mapping[str, Any]) -> str:
        where = over(avals, params)
        return (
            rf"\operatorname{{{{{name}}}}}" + (rf"_{{{{\text{{{{{where}}}}}}}}}" if where else "") + r"\left({0}\right)"
        )

    return template


def _sum_latex(avals: Sequence[Aval], params: Mapping[str, Any]) -> str:
    where = over(avals, params)
    return r"\sum" + (rf"_{{{{\text{{{{{where}}}}}}}}}" if where else "") + " {0}"


def _code(name: str, *, dim_word: str = "", always: bool = False) -> Any:
    """The method call. `dim_word`: "dim=" where `dim` is not the first argument; `always`: `dim` has no default."""

    def template(avals: Sequence[Aval], params: Mapping[str, Any]) -> str:
        dim = tuple(params["dim"])
        extra = "".join(f", {k}={v!r}" for k, v in params.items() if k not in ("dim", "keepdim"))
        if len(dim) == avals[0].ndim and not params["keepdim"] and not always:
            return f"{{0}}.{name}({extra[2:]})"
        axis = dim[0] if len(dim) == 1 else dim
        return f"{{0}}.{name}({dim_word}{axis}{extra}{', keepdim=True' if params['keepdim'] else ''})"

    return template


def _numpy(name: str, *, always: bool = False) -> Any:
    def template(avals: Sequence[Aval], params: Mapping[str, Any]) -> str:
        dim = tuple(params["dim"])
        extra = "".join(
            f", {'ddof' if k == 'correction' else k}={v!r}" for k, v in params.items() if k not in ("dim", "keepdim")
        )
        if len(dim) == avals[0].ndim and not params["keepdim"] and not always:
            return f"np.{name}({{0}}{extra})"
        axis = dim[0] if len(dim) == 1 else dim
        return f"np.{name}({{0}}, axis={axis}{extra}{', keepdims=True' if params['keepdim'] else ''})"

    return template


def _reduces(name: str, numpy: Any = None, *, latex: Any = None) -> Notation:
    return Notation(
        text=_text(name), latex=latex or _latex(name), code=_code(name), numpy=numpy or _numpy(name), inside_code=POWER,
    )  # fmt: skip


_SAMPLES = tuple(
    floats((2, 3, 4), dim=dim, keepdim=keepdim)
    for dim, keepdim in (((0,), False), ((0, 2), False), ((1,), True), ((0, 1, 2), False))
)
_MISUSES = (Misuse((Arg((2, 3)),), {"dim": (2,), "keepdim": False}, ShapeError, "distinct dimensions"),)


def _wide(kernel: Any) -> Rule:
    """A NumPy reduction with its accumulator in the input's dtype, or in float32 for 16-bit floats."""

    def reduce(x: np.ndarray, *, dim: tuple[int, ...], keepdim: bool) -> np.ndarray:
        if x.dtype.char in "fd":  # float32 and float64 add up in their own width
            out: np.ndarray = kernel(x, axis=dim, keepdims=keepdim)
            return out
        work = dtypes.work_dtype(x.dtype)
        return np.asarray(kernel(x, axis=dim, keepdims=keepdim, dtype=work)).astype(x.dtype, copy=False)

    return reduce


def _plain(kernel: Any) -> Rule:
    return lambda x, *, dim, keepdim: kernel(x, axis=dim, keepdims=keepdim)


sum_: Reduction = Reduction(
    name="sum",
    reference=_wide(np.add.reduce),
    combine="add",
    notation=Notation(
        text=_text("sum"),
        latex=_sum_latex,
        code=_code("sum"),
        numpy=_numpy("sum"),
        inside_code=POWER,
        binds_latex=PRODUCT,
        inside_latex=PRODUCT,
    ),
    result=same_number,
    weight=lambda count: Ratio(1),
    samples=_SAMPLES,
    misuses=_MISUSES,
)


def _mean_kernel(x: np.ndarray, **kwargs: Any) -> np.ndarray:
    # Not np.mean, which prints a warning where there is nothing to average; the mean is nan then, and a value as any.
    total = np.add.reduce(x, **kwargs)
    out: np.ndarray = total / (x.size / max(total.size, 1))
    return out


def _entries(x: Any, dim: tuple[int, ...]) -> int:
    """How many entries become one."""
    return math.prod(x.aval.shape[d] for d in dim)


def _mean(x: Any, *, dim: tuple[int, ...], keepdim: bool) -> Any:
    return sum_(x, dim=dim, keepdim=keepdim) / float(_entries(x, dim))


mean: Reduction = Reduction(
    name="mean",
    reference=_wide(_mean_kernel),
    expansion=_mean,
    notation=_reduces("mean"),
    result=same_float,
    weight=lambda count: Ratio(1, max(count, 1)),
    samples=_SAMPLES,
    misuses=_MISUSES,
)


def _extreme_partial(out: Any, x: Any, dim: tuple[int, ...]) -> Any:
    """Entries that reach the extreme share its gradient equally."""
    reached = (x == out).to(x.aval.dtype)
    return reached / reached.sum(dim, keepdim=True)


amax = Reduction(
    name="amax",
    reference=_plain(np.max),
    combine="max",
    notation=_reduces("amax"),
    result=same_dtype,
    partial=_extreme_partial,
    samples=_SAMPLES,
    misuses=_MISUSES,
)
amin = Reduction(
    name="amin",
    reference=_plain(np.min),
    combine="min",
    notation=_reduces("amin"),
    result=same_dtype,
    partial=_extreme_partial,
    samples=_SAMPLES,
    misuses=_MISUSES,
)


def _var_kernel(x: np.ndarray, *, dim: tuple[int, ...], keepdim: bool, correction: float) -> np.ndarray:
    wide = x.astype(dtypes.work_dtype(x.dtype), copy=False)
    spread = np.square(wide - _mean_kernel(wide, axis=dim, keepdims=True))
    total = np.asarray(spread.sum(axis=dim, keepdims=keepdim))
    count = x.size / max(total.size, 1)
    return np.asarray(np.true_divide(total, total.dtype.type(max(count - correction, 0)))).astype(x.dtype, copy=False)


def _var(x: Any, *, dim: tuple[int, ...], keepdim: bool, correction: float) -> Any:
    spread = elementwise.square(x - mean(x, dim=dim, keepdim=True))
    return sum_(spread, dim=dim, keepdim=keepdim) / float(max(_entries(x, dim) - correction, 0))


def _var_partial(out: Any, x: Any, dim: tuple[int, ...], correction: float) -> Any:
    count = _entries(x, dim)
    # With no more entries than the correction takes off there is no variance: 0 / 0, and its slope is nan like it.
    factor = Ratio(2, count - correction) if count > correction else Ratio(math.inf)
    return (x - x.mean(dim, keepdim=True)) * factor


var = Reduction(
    name="var",
    reference=_var_kernel,
    expansion=_var,
    notation=_reduces("var"),
    result=same_float,
    partial=_var_partial,
    samples=tuple(
        floats((2, 3, 4), dim=dim, keepdim=k, correction=c) for dim, k, c in (((0, 2), False, 1), ((1,), True, 0))
    ),
    misuses=(
        Misuse((Arg((2, 3)),), {"dim": (2,), "keepdim": False, "correction": 1}, ShapeError, "distinct dimensions"),
    ),
)


def _logsumexp_kernel(x: np.ndarray, *, dim: tuple[int, ...], keepdim: bool) -> np.ndarray:
    work = dtypes.work_dtype(x.dtype)
    wide = x.astype(work, copy=False)
    top = np.max(wide, axis=dim, keepdims=True, initial=-np.inf)
    top = np.where(np.isfinite(top), top, work.type(0))
    total = np.log(np.sum(np.exp(wide - top), axis=dim, keepdims=True)) + top
    return np.asarray(total if keepdim else np.squeeze(total, dim)).astype(x.dtype, copy=False)


def _logsumexp(x: Any, *, dim: tuple[int, ...], keepdim: bool) -> Any:
    if not _entries(x, dim):  # log 0
        shape = tuple(1 if d in dim else n for d, n in enumerate(x.aval.shape) if keepdim or d not in dim)
        return type(x).filled(Aval(shape, x.aval.dtype), -math.inf)
    top = amax(x, dim=dim, keepdim=True)
    top = top.where(comparison.isfinite(top), 0.0)
    total = transcendental.log(sum_(transcendental.exp(x - top), dim=dim, keepdim=True)) + top
    return total if keepdim else total.squeeze(dim)


logsumexp = Reduction(
    name="logsumexp",
    reference=_logsumexp_kernel,
    expansion=_logsumexp,
    notation=Notation(
        text=_text("logsumexp"),
        latex=_latex("logsumexp"),
        code=_code("logsumexp", always=True),
        numpy=_numpy("logaddexp.reduce", always=True),
        inside_code=POWER,
    ),
    result=same_float,
    partial=lambda out, x, dim: transcendental.exp(x - out),
    samples=_SAMPLES,
    misuses=_MISUSES,
)
norm = Reduction(
    name="norm",
    reference=lambda x, *, dim, keepdim: np.sqrt(np.sum(np.square(x), axis=dim, keepdims=keepdim)),
    expansion=lambda x, **params: elementwise.sqrt(sum_(elementwise.square(x), **params)),
    notation=Notation(
        text=_text("norm"),
        latex=_latex("norm"),
        code=_code("norm", dim_word="dim="),
        numpy=lambda avals, params: "np.sqrt(" + _numpy("sum")(avals, params).replace("{0}", "np.square({0})") + ")",
        inside_code=POWER,
    ),
    result=same_float,
    domain=(0.5, 2.0),
    # At the origin the norm has a corner; 0 is the middle of its slopes, and PyTorch's choice.
    partial=lambda out, x, dim: (x / out).where(out != 0.0, 0.0),
    samples=_SAMPLES,
    misuses=_MISUSES,
)

_POSITION = "its output is a position, which has no slope"
_BOOLEAN = "its output is true or false, which has no slope"


def _int_result(name: str, avals: tuple[Aval, ...]) -> np.dtype:
    return dtypes.int64


def _bool_result(name: str, avals: tuple[Aval, ...]) -> np.dtype:
    return dtypes.bool_


def _arg_kernel(kernel: Any) -> Rule:
    def reduce(x: np.ndarray, *, dim: tuple[int, ...], keepdim: bool) -> np.ndarray:
        if len(dim) == 1:
            return np.asarray(kernel(x, axis=dim[0], keepdims=keepdim))
        # Several dimensions: the position in what they hold, row by row.
        kept = [d for d in range(x.ndim) if d not in dim]
        rows = x.transpose(*kept, *dim).reshape(*(x.shape[d] for d in kept), math.prod(x.shape[d] for d in dim))
        found = np.asarray(kernel(rows, axis=-1))
        return found.reshape([1 if d in dim else n for d, n in enumerate(x.shape)]) if keepdim else found

    return reduce


argmax = Reduction(
    name="argmax",
    reference=_arg_kernel(np.argmax),
    combine="argmax",
    notation=_reduces("argmax"),
    result=_int_result,
    no_gradient=_POSITION,
    samples=(
        floats((2, 3, 4), dim=(1,), keepdim=False),
        floats((2, 3), dim=(0, 1), keepdim=False),
        floats((2, 3), dim=(0,), keepdim=True),
    ),
    misuses=_MISUSES,
)
argmin = Reduction(
    name="argmin",
    reference=_arg_kernel(np.argmin),
    combine="argmin",
    notation=_reduces("argmin"),
    result=_int_result,
    no_gradient=_POSITION,
    samples=(floats((2, 3, 4), dim=(1,), keepdim=False), floats((2, 3), dim=(0, 1), keepdim=False)),
    misuses=_MISUSES,
)
any_ = Reduction(
    name="any",
    reference=_plain(np.any),
    combine="or",
    notation=_reduces("any"),
    result=_bool_result,
    no_gradient=_BOOLEAN,
    samples=(Sample((Arg((2, 3), "bool"),), {"dim": (1,), "keepdim": False}),),
    misuses=_MISUSES,
)
all_ = Reduction(
    name="all",
    reference=_plain(np.all),
    combine="and",
    notation=_reduces("all"),
    result=_bool_result,
    no_gradient=_BOOLEAN,
    samples=(Sample((Arg((2, 3), "bool"),), {"dim": (0, 1), "keepdim": True}),),
    misuses=_MISUSES,
)

ALL = (sum_, mean, amax, amin, var, logsumexp, norm, argmax, argmin, any_, all_)
