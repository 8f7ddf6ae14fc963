"""Attention: each query's mean of the values, weighted by how well the query meets each key.

The backward keeps the queries, the keys, the values and the result, and no weight: the weights, one for each pair of a
query and a key, are computed again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.core.aval import Aval
from chainrule.core.family import Fused, listed
from chainrule.core.node import apply
from chainrule.core.notation import Notation
from chainrule.core.sample import Arg, Misuse, floats
from chainrule.errors import DTypeError, ShapeError
from chainrule.ops import normalisation, source


def _attention_shape(q: Aval, k: Aval, v: Aval, *bias: Aval, scale: float, causal: bool) -> Aval:
    inputs = (q, k, v, *bias)
    if len(bias) > 1 or any(x.ndim < 2 for x in inputs):
        raise ShapeError(
            f"attention: takes queries (…, length, width), keys, values and at most one bias; got {listed(inputs)}"
        )
    if len({x.shape[:-2] for x in inputs}) > 1:
        raise ShapeError(f"attention: inputs must have equal batch dimensions; got {listed(inputs)}")
    if q.shape[-1] != k.shape[-1]:
        raise ShapeError(f"attention: queries and keys must have one width; got {listed(inputs)}")
    if k.shape[-2] != v.shape[-2]:
        raise ShapeError(f"attention: there must be as many keys as values; got {listed(inputs)}")
    if bias and bias[0].shape[-2:] != (q.shape[-2], k.shape[-2]):
        raise ShapeError(f"attention: the bias must have an entry for each query and key; got {listed(inputs)}")
    if bias and causal:
        raise ShapeError(f"attention: give a bias or causal, not both; got {listed(inputs)}")
    if len({x.dtype for x in inputs}) > 1 or not dtypes.is_float(q.dtype):
        raise DTypeError(f"attention: inputs must share one float dtype; got {listed(inputs)}; cast with .to()")
    return Aval((*q.shape[:-1], v.shape[-1]), q.dtype)


def _attention_kernel(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, *bias: np.ndarray, scale: float, causal: bool
) -> np.ndarray:
    inputs = (q, k, v, *bias)
    out = _attention_shape(*(Aval(x.shape, x.dtype) for x in inputs), scale=scale, causal=causal)
    work = dtypes.work_dtype(q.dtype)
    q, k, v = (x.astype(work, copy=False) for x in (q, k, v))
    scores = np.matmul(q * work.type(scale), np.swapaxes(k, -1, -2))
    if bias:
        scores += bias[0]
    if causal:
        scores[..., np.tri(*scores.shape[-2:]) == 0] = -np.inf
    # The weights are not divided by their sum, the result is: it is the narrower of the two.
    scores -= np.maximum.reduce(scores, axis=-1, keepdims=True, initial=-np.inf)
    weights = np.exp(scores, out=scores)
    found: np.ndarray = np.matmul(weights, v)
    if v.shape[-2]:
        found /= np.add.reduce(weights, axis=-1, keepdims=True)
    return found.astype(out.dtype, copy=False)


def _count(n: int, like: Any) -> Any:
    """0, 1, … n − 1: numbers where `like` is, a symbol where that is one."""
    params = {"start": 0, "stop": n, "step": 1, "dtype": dtypes.int64}
    if like.array is not None:
        return apply(source.arange, (), params, type(like))
    return type(like).applied(source.arange, (), params, source.arange.infer(**params))


def attention_weights(q: Any, k: Any, *bias: Any, scale: float, causal: bool) -> Any:
    """How much of each value a query takes: positive numbers that add to 1 along the keys."""
    scores = (q @ k.mT) * scale
    if bias:
        scores = scores + bias[0]
    if causal:  # a query sees the keys up to its own place
        rows, columns = (_count(n, q) for n in scores.aval.shape[-2:])
        scores = scores.where(rows.reshape(-1, 1) >= columns, -np.inf)
    return normalisation.softmax(scores, dim=scores.aval.ndim - 1)


def _attention_pullback(
    g: Any, out: Any, q: Any, k: Any, v: Any, *bias: Any, scale: float, causal: bool
) -> tuple[Any, ...]:
    """Softmax between two products. What it takes off each row, Σ weights · (g @ vᵀ), is Σ g · out."""
    weights = attention_weights(q, k, *bias, scale=scale, causal=causal)
    to_scores = weights * (g @ v.mT - (g * out).sum(-1, keepdim=True))
    return (to_scores @ k) * scale, (to_scores.mT @ q) * scale, weights.mT @ g, *(to_scores for _ in bias)


def _inputs(count: int, opening: str, bias: str, closing: str) -> str:
    return opening + "{0}, {1}, {2}" + (bias if count > 3 else "") + closing


def _attention_text(avals: Sequence[Aval], params: Mapping[str, Any]) -> str:
    return _inputs(len(avals), "attention(", ", {3}", ", causal)" if params["causal"] else ")")


def _attention_latex(avals: Sequence[Aval], params: Mapping[str, Any]) -> str:
    causal = r"_{{\text{{causal}}}}" if params["causal"] else ""
    return _inputs(len(avals), rf"\operatorname{{{{attention}}}}{causal}\left(", ", {3}", r"\right)")


def _attention_code(avals: Sequence[Aval], params: Mapping[str, Any]) -> str:
    causal = ", is_causal=True" if params["causal"] else ""
    call = "cr.nn.functional.scaled_dot_product_attention("
    return _inputs(len(avals), call, ", attn_mask={3}", causal + ", scale={scale})")


def _attention_numpy(avals: Sequence[Aval], params: Mapping[str, Any]) -> str:
    scores = "({0}) @ np.swapaxes({1}, -1, -2) * {scale}" + (" + ({3})" if len(avals) > 3 else "")
    if params["causal"]:
        scores = f"np.where(np.tri({avals[0].shape[-2]}, {avals[1].shape[-2]}, dtype=bool), {scores}, -np.inf)"
    return f"(np.exp({scores} - np.logaddexp.reduce({scores}, axis=-1, keepdims=True)) @ ({{2}}))"


attention = Fused(
    name="attention",
    reference=_attention_kernel,
    notation=Notation(
        text=_attention_text,
        latex=_attention_latex,
        code=_attention_code,
        numpy=_attention_numpy,
    ),
    shape_rule=_attention_shape,
    expansion=lambda q, k, v, *bias, scale, causal: attention_weights(q, k, *bias, scale=scale, causal=causal) @ v,
    pullback=_attention_pullback,
    samples=(
        floats((3, 2), (4, 2), (4, 3), scale=0.5, causal=False),
        floats((2, 4, 3), (2, 4, 3), (2, 4, 3), scale=1.0, causal=True),
        floats((3, 2), (2, 2), (2, 1), scale=0.7, causal=True),
        floats((2, 1, 3, 2), (2, 1, 4, 2), (2, 1, 4, 2), (2, 1, 3, 4), scale=0.5, causal=False),
    ),
    misuses=(
        Misuse(
            (Arg((3, 2)), Arg((4, 3)), Arg((4, 2))), {"scale": 1.0, "causal": False}, ShapeError, "must have one width"
        ),
        Misuse(
            (Arg((3, 2)), Arg((4, 2)), Arg((3, 2))), {"scale": 1.0, "causal": False}, ShapeError, "as many keys as"
        ),
        Misuse(
            (Arg((5, 3, 2)), Arg((4, 2)), Arg((4, 2))), {"scale": 1.0, "causal": False}, ShapeError, "equal batch"
        ),
        Misuse((Arg((3,)), Arg((4, 3)), Arg((4, 3))), {"scale": 1.0, "causal": False}, ShapeError, "takes queries"),
        Misuse(
            (Arg((3, 2)), Arg((4, 2)), Arg((4, 2)), Arg((4, 3))), {"scale": 1.0, "causal": False}, ShapeError,
            "an entry for each query and key",
        ),
        Misuse(
            (Arg((3, 2)), Arg((4, 2)), Arg((4, 2)), Arg((3, 4))), {"scale": 1.0, "causal": True}, ShapeError,
            "not both",
        ),
        Misuse(
            (Arg((3, 2)), Arg((4, 2)), Arg((4, 2), "int")), {"scale": 1.0, "causal": False}, DTypeError,
            "share one float dtype",
        ),
    ),
    source="Vaswani et al. (2017), Attention is all you need, arXiv:1706.03762, section 3.2.1; "
    "Dao et al. (2022), FlashAttention, arXiv:2205.14135, appendix B.4, for the sum of g · out along a row",
)  # fmt: skip

ALL = (attention,)
