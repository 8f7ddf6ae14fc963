"""Attention, under PyTorch's name: masks, broadcasting and dropout around the op. No derivative is stated here."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from chainrule import dtypes
from chainrule.array import elementwise, manipulation, statistical
from chainrule.array.align import broadcast_shapes, expand
from chainrule.core.aval import Aval
from chainrule.core.family import listed
from chainrule.core.node import at_user_line
from chainrule.errors import ArgumentError, DTypeError, ShapeError
from chainrule.functional.linear import as_tensor, dropout
from chainrule.ops import attention as ops

if TYPE_CHECKING:
    from chainrule.tensor import Tensor

__all__ = ["scaled_dot_product_attention"]

_NAME = "scaled_dot_product_attention"


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """softmax(scale · q kᵀ + mask) v: for each query the mean of the values, weighted by how well it meets the keys.

    Args:
        query: (…, length, width), float.
        key: (…, keys, width). Batch dimensions broadcast.
        value: (…, keys, features).
        attn_mask: broadcasts to (…, length, keys). bool: True where a query may see a key. Float: added to the scores.
            A query that may see no key gets 0.
        dropout_p: the probability with which a weight is dropped; 0 in evaluation.
        is_causal: query i sees the keys 0 … i; instead of a mask.
        scale: the factor of the scores; None: 1/√width.
    Returns: (…, length, features).
    Raises: ShapeError: the sizes do not fit. DTypeError: the dtypes differ, or are not float. ArgumentError: a mask and
        `is_causal`.
    Source: Vaswani et al. (2017), Attention is all you need, arXiv:1706.03762, section 3.2.1.

    >>> import chainrule as cr
    >>> q, k = cr.tensor([[0.0, 9.0]]), cr.tensor([[9.0, 0.0], [0.0, 9.0]])
    >>> cr.nn.functional.scaled_dot_product_attention(q, k, cr.tensor([[1.0], [2.0]]))
    tensor([[2.]])
    """
    q, k, v = (as_tensor(_NAME, x, query) for x in (query, key, value))
    _check(q, k, v)
    mask = None if attn_mask is None else as_tensor(_NAME, attn_mask, q)
    if mask is not None and is_causal:
        raise at_user_line(
            ArgumentError(f"{_NAME}: give attn_mask or is_causal, not both; put the order into the mask")
        )
    factor = 1 / math.sqrt(q.shape[-1]) if scale is None and q.shape[-1] else 1.0 if scale is None else float(scale)
    pairs = (q.shape[-2], k.shape[-2])
    bias, seen = (None, None) if mask is None else _as_bias(mask, q, pairs)
    batches = [x.aval for x in (q, k, v) if x is not None] + ([bias.aval] if bias is not None else [])
    batch = broadcast_shapes(_NAME, [Aval(a.shape[:-2], a.dtype) for a in batches])
    q, k, v = (expand(x, (*batch, *x.shape[-2:])) for x in (q, k, v))
    more = () if bias is None else (expand(bias, (*batch, *pairs)),)
    if dropout_p:
        weights = ops.attention_weights(q, k, *more, scale=factor, causal=is_causal)
        out = dropout(weights, dropout_p) @ v
    else:
        out = ops.attention(q, k, v, *more, scale=factor, causal=is_causal)
    return out if seen is None else elementwise.gate(out, seen)


def _check(q: Any, k: Any, v: Any) -> None:
    """Raises: ShapeError, DTypeError: queries, keys and values do not fit each other."""
    avals = [x.aval for x in (q, k, v)]
    if any(a.ndim < 2 for a in avals) or q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]:
        raise at_user_line(ShapeError(
            f"{_NAME}: expected query (…, length, width), key (…, keys, width), value (…, keys, features); "
            f"got {listed(avals)}"
        ))  # fmt: skip
    if len({a.dtype for a in avals}) > 1 or not dtypes.is_float(q.dtype):
        raise at_user_line(
            DTypeError(f"{_NAME}: inputs must share one float dtype; got {listed(avals)}; cast with .to()")
        )


def _as_bias(mask: Any, q: Any, pairs: tuple[int, int]) -> tuple[Any, Any]:
    """What a mask adds to the scores, and (…, length, 1): which queries see a key at all.

    Softmax of a row without any key would be 0/0; such a query's result is closed off, and no gradient comes from it.
    """
    if mask.ndim < 2:
        mask = manipulation.reshape(mask, (1,) * (2 - mask.ndim) + mask.shape)
    if any(n not in (1, m) for n, m in zip(mask.shape[-2:], pairs, strict=True)):
        raise at_user_line(
            ShapeError(f"{_NAME}: the mask must broadcast to (…, {pairs[0]}, {pairs[1]}); got {mask.aval}")
        )
    if mask.dtype == dtypes.bool_:
        bias, allowed = elementwise.where(mask, 0.0, -math.inf).to(q.dtype), mask
    elif mask.dtype == q.dtype:
        bias, allowed = mask, mask > -math.inf
    else:
        raise at_user_line(DTypeError(
            f"{_NAME}: a mask is bool, or of the dtype of the query, {q.dtype}; got {mask.aval}; cast it with .to()"
        ))  # fmt: skip
    seen = statistical.any(allowed, -1, True)
    return elementwise.where(seen, bias, 0.0), seen
