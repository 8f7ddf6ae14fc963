"""Softmax and its logarithm: composites with a rule of their own, shorter and steadier than the composite's."""

from __future__ import annotations

from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.core.aval import Aval
from chainrule.core.family import Fused, Rule
from chainrule.core.notation import POWER, Notation
from chainrule.core.sample import Arg, Misuse, floats
from chainrule.errors import DTypeError, ShapeError
from chainrule.ops.reduction import logsumexp
from chainrule.ops.transcendental import exp


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


def _log_softmax(x: Any, *, dim: int) -> Any:
    return x - logsumexp(x, dim=(dim,), keepdim=True)


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
    expansion=lambda x, *, dim: exp(_log_softmax(x, dim=dim)),
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

ALL = (softmax, log_softmax)
