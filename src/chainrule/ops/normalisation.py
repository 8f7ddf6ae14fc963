"""Softmax, its logarithm, and standardising: composites with a rule of their own, shorter and steadier than theirs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.core.aval import Aval
from chainrule.core.family import Fused, Rule
from chainrule.core.notation import POWER, Notation
from chainrule.core.sample import Arg, Misuse, floats
from chainrule.errors import DTypeError, ShapeError
from chainrule.ops.elementwise import reciprocal, rsqrt
from chainrule.ops.reduction import amax, over, sum_
from chainrule.ops.transcendental import exp, log


def _along_dim(name: str) -> Rule:
    def shape_rule(x: Aval, *, dim: int) -> Aval:
        if not 0 <= dim < x.ndim:
            raise ShapeError(f"{name}: dim {dim} is not a dimension of {x}")
        if not dtypes.is_float(x.dtype):
            raise DTypeError(f"{name}: needs a float dtype; got {x}; cast it with .to(cr.float32)")
        return x

    return shape_rule


def _shifted(x: np.ndarray, dim: int) -> np.ndarray:
    """x less its largest entry along `dim`, so that no exponential overflows; in float32 at least."""
    wide = x.astype(dtypes.work_dtype(x.dtype), copy=False)
    return wide - np.maximum.reduce(wide, axis=dim, keepdims=True, initial=-np.inf)


def _log_softmax_kernel(x: np.ndarray, *, dim: int) -> np.ndarray:
    shifted = _shifted(x, dim)
    out: np.ndarray = shifted - np.log(np.add.reduce(np.exp(shifted), axis=dim, keepdims=True))
    return out.astype(x.dtype, copy=False)


def _softmax_kernel(x: np.ndarray, *, dim: int) -> np.ndarray:
    grown = np.exp(_shifted(x, dim))
    out: np.ndarray = grown / np.add.reduce(grown, axis=dim, keepdims=True)
    return out.astype(x.dtype, copy=False)


def _softmax(x: Any, *, dim: int) -> Any:
    if not x.aval.shape[dim]:
        return x
    grown = exp(x - amax(x, dim=(dim,), keepdim=True))
    return grown * reciprocal(sum_(grown, dim=(dim,), keepdim=True))  # the sum is 1 at least: its inverse is harmless


def _log_softmax(x: Any, *, dim: int) -> Any:
    if not x.aval.shape[dim]:
        return x
    shifted = x - amax(x, dim=(dim,), keepdim=True)
    return shifted - log(sum_(exp(shifted), dim=(dim,), keepdim=True))


def _written(name: str, latex: str, numpy: str) -> Notation:
    return Notation(
        text=f"{name}({{0}})",
        latex=rf"{latex}\left({{0}}\right)",
        code=f"{{0}}.{name}({{dim}})",
        numpy=numpy,
        inside_code=POWER,
    )


_SAMPLES = (floats((2, 3), dim=1), floats((3, 2, 2), dim=0), floats((4,), dim=0))
_MISUSES = (
    Misuse((Arg((2, 3)),), {"dim": 2}, ShapeError, "not a dimension"),
    Misuse((Arg((2, 3), "int"),), {"dim": 1}, DTypeError, "needs a float dtype"),
)

softmax = Fused(
    name="softmax",
    reference=_softmax_kernel,
    notation=_written(
        "softmax",
        r"\operatorname{{softmax}}",
        "np.exp({0} - np.logaddexp.reduce({0}, axis={dim}, keepdims=True))",
    ),
    shape_rule=_along_dim("softmax"),
    expansion=_softmax,
    # Each row's outputs share one sum, so what g asks of the row as a whole is taken off every entry.
    pullback=lambda g, out, x, *, dim: (out * (g - (g * out).sum(dim, keepdim=True)),),
    samples=_SAMPLES,
    misuses=_MISUSES,
    source="Goodfellow, Bengio, Courville (2016), Deep Learning, section 6.2.2.3",
)
log_softmax = Fused(
    name="log_softmax",
    reference=_log_softmax_kernel,
    notation=_written(
        "log_softmax",
        r"\log\operatorname{{softmax}}",
        "({0} - np.logaddexp.reduce({0}, axis={dim}, keepdims=True))",
    ),
    shape_rule=_along_dim("log_softmax"),
    expansion=_log_softmax,
    pullback=lambda g, out, x, *, dim: (g - exp(out) * g.sum(dim, keepdim=True),),
    samples=_SAMPLES,
    misuses=_MISUSES,
    source="Goodfellow, Bengio, Courville (2016), Deep Learning, section 6.2.2.3",
)


# --- standardising: mean 0 and variance 1 along dimensions


def _normalize_shape(x: Aval, *, dim: tuple[int, ...], eps: float) -> Aval:
    if not dim or any(not 0 <= d < x.ndim for d in dim) or len(set(dim)) != len(dim):
        raise ShapeError(f"normalize: dim {dim} does not name distinct dimensions of {x}, one at least")
    if not dtypes.is_float(x.dtype):
        raise DTypeError(f"normalize: needs a float dtype; got {x}; cast it with .to(cr.float32)")
    return x


def _normalize_kernel(x: np.ndarray, *, dim: tuple[int, ...], eps: float) -> np.ndarray:
    wide = x.astype(dtypes.work_dtype(x.dtype), copy=False)
    if wide.dtype.kind != "f":
        raise TypeError("normalize")  # the shape rule words it
    count = wide.dtype.type(max(math.prod(x.shape[d] for d in dim), 1))
    out: np.ndarray = wide - np.add.reduce(wide, axis=dim, keepdims=True) / count
    spread = np.add.reduce(np.square(out), axis=dim, keepdims=True) / count
    out /= np.sqrt(spread + wide.dtype.type(eps))
    return out.astype(x.dtype, copy=False)


def _gain(x: Any, dim: tuple[int, ...], eps: float) -> Any:
    """1 / σ, what the entries less their mean are multiplied by."""
    return rsqrt(x.var(dim, correction=0, keepdim=True) + eps)


def _normalize_pullback(g: Any, out: Any, x: Any, *, dim: tuple[int, ...], eps: float) -> tuple[Any, ...]:
    """The part of g that mean and variance would undo is taken off: along 1, and along out.

    With y = (x − μ) / σ, σ² = var(x) + ε and n entries: ∂yᵢ/∂xⱼ = (δᵢⱼ − 1/n − yᵢ yⱼ / n) / σ, which is symmetric.
    """
    return ((g - g.mean(dim, keepdim=True) - out * (g * out).mean(dim, keepdim=True)) * _gain(x, dim, eps),)


def _last_dims(avals: Sequence[Aval], params: Mapping[str, Any]) -> bool:
    ndim, dim = avals[0].ndim, params["dim"]
    return tuple(dim) == tuple(range(ndim - len(dim), ndim))


def _all_but_channels(avals: Sequence[Aval], params: Mapping[str, Any]) -> bool:
    """Over the batch and all places, of which there is more than one."""
    shape, dim = avals[0].shape, tuple(params["dim"])
    return dim == (0, *range(2, len(shape))) and math.prod(shape[d] for d in dim) != 1


def _normalize_text(avals: Sequence[Aval], params: Mapping[str, Any]) -> str:
    return "normalize({0})" if _last_dims(avals, params) else f"normalize({{0}}, {over(avals, params)})"


def _normalize_code(avals: Sequence[Aval], params: Mapping[str, Any]) -> str:
    if _last_dims(avals, params):
        return f"cr.nn.functional.layer_norm({{0}}, {tuple(avals[0].shape[params['dim'][0] :])}, eps={{eps}})"
    if _all_but_channels(avals, params):
        return "cr.nn.functional.batch_norm({0}, None, None, training=True, eps={eps})"
    return "(({0}) - ({0}).mean({dim}, keepdim=True)) * (({0}).var({dim}, correction=0, keepdim=True) + {eps}).rsqrt()"


normalize = Fused(
    name="normalize",
    reference=_normalize_kernel,
    notation=Notation(
        text=_normalize_text,
        latex=r"\operatorname{{normalize}}\left({0}\right)",
        code=_normalize_code,
        numpy=(
            "(({0} - np.mean({0}, axis={dim}, keepdims=True))"
            " / np.sqrt(np.var({0}, axis={dim}, keepdims=True) + {eps}))"
        ),
        inside_code=POWER,
    ),
    shape_rule=_normalize_shape,
    expansion=lambda x, *, dim, eps: (x - x.mean(dim, keepdim=True)) * _gain(x, dim, eps),
    pullback=_normalize_pullback,
    samples=(
        floats((3, 4), dim=(1,), eps=1e-5),
        floats((2, 3, 4), dim=(1, 2), eps=0.1),
        floats((3, 2, 4), dim=(0, 2), eps=1e-5),
        floats((3, 2, 4), dim=(0,), eps=1e-5),
    ),
    misuses=(
        Misuse((Arg((2, 3)),), {"dim": (2,), "eps": 1e-5}, ShapeError, "distinct dimensions"),
        Misuse((Arg((2, 3)),), {"dim": (), "eps": 1e-5}, ShapeError, "one at least"),
        Misuse((Arg((2, 3), "int"),), {"dim": (1,), "eps": 1e-5}, DTypeError, "needs a float dtype"),
    ),
    source="Ba, Kiros, Hinton (2016), Layer normalization, arXiv:1607.06450; the derivative is derived beside the rule",
)

ALL = (softmax, log_softmax, normalize)
