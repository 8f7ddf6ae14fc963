"""Layers in which positions of a sequence look at each other."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from chainrule import creation, dtypes
from chainrule.array import elementwise, manipulation, statistical
from chainrule.core.node import at_user_line
from chainrule.errors import ArgumentError, DTypeError, ShapeError
from chainrule.functional import activations, linear
from chainrule.functional.attention import scaled_dot_product_attention
from chainrule.nn import init
from chainrule.nn.linear import Dropout, Linear, check_sizes
from chainrule.nn.module import Module
from chainrule.nn.normalisation import LayerNorm
from chainrule.nn.parameter import Parameter, blank
from chainrule.ops.attention import attention_weights
from chainrule.tensor import Tensor


class MultiheadAttention(Module):
    """Attention in several parts of the width at once, each with projections of its own, joined by a last projection.

    headₕ = softmax(qₕ kₕᵀ / √width + mask) vₕ, and the result is concat(head₁, …) Wᵀ + b.

    Args:
        embed_dim: the width of the queries and of the result.
        num_heads: into how many parts it is cut.
        dropout: the probability with which, in training, a weight is dropped.
        bias: whether the projections add a bias.
        kdim: the width of the keys; None: `embed_dim`.
        vdim: the width of the values; None: `embed_dim`.
        batch_first: whether inputs are (n, length, width); else (length, n, width).
        dtype: of the parameters; float32 if None.
    Raises: ArgumentError: a size that is no positive int, or heads that do not divide the width. ShapeError: inputs or
        masks of other sizes.
    Source: Vaswani et al. (2017), Attention is all you need, arXiv:1706.03762, section 3.2.2.

    >>> import chainrule as cr
    >>> layer, x = cr.nn.MultiheadAttention(8, 2, batch_first=True), cr.zeros(3, 5, 8)
    >>> out, weights = layer(x, x, x)
    >>> out.shape, weights.shape
    ((3, 5, 8), (3, 5, 5))
    """

    in_proj_weight: Parameter | None
    in_proj_bias: Parameter | None

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        *,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        dtype: object = None,
    ) -> None:
        super().__init__()
        self.kdim, self.vdim = embed_dim if kdim is None else kdim, embed_dim if vdim is None else vdim
        check_sizes("MultiheadAttention", embed_dim=embed_dim, num_heads=num_heads, kdim=self.kdim, vdim=self.vdim)
        if embed_dim % num_heads:
            raise at_user_line(
                ArgumentError(f"MultiheadAttention: {num_heads} heads do not divide the width embed_dim = {embed_dim}")
            )
        self.embed_dim, self.num_heads, self.dropout, self.batch_first = embed_dim, num_heads, dropout, batch_first
        self.head_dim = embed_dim // num_heads
        if self.kdim == self.vdim == embed_dim:
            self.in_proj_weight = blank(3 * embed_dim, embed_dim, dtype=dtype)
        else:
            self.in_proj_weight = None
            self.q_proj_weight = blank(embed_dim, embed_dim, dtype=dtype)
            self.k_proj_weight = blank(embed_dim, self.kdim, dtype=dtype)
            self.v_proj_weight = blank(embed_dim, self.vdim, dtype=dtype)
        self.in_proj_bias = blank(3 * embed_dim, dtype=dtype) if bias else None
        self.out_proj = Linear(embed_dim, embed_dim, bias=bias, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the initial weights again; the biases start at 0."""
        for weight in self._in_weights() if self.in_proj_weight is None else [self.in_proj_weight]:
            init.xavier_uniform_(weight)
        self.out_proj.reset_parameters()
        for bias in (self.in_proj_bias, self.out_proj.bias):
            if bias is not None:
                init.zeros_(bias)

    def _in_weights(self) -> tuple[Tensor, ...]:
        if self.in_proj_weight is None:
            return self.q_proj_weight, self.k_proj_weight, self.v_proj_weight
        return manipulation.chunk(self.in_proj_weight, 3)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """(result, weights): for each query what it took from the values, and how much of each.

        Args:
            query: (n, length, embed_dim), or (length, n, embed_dim) unless `batch_first`; or without n.
            key: (n, keys, kdim), likewise.
            value: (n, keys, vdim), likewise.
            key_padding_mask: (n, keys), or without n. bool: True where a key is NOT seen; float: added to the scores.
            need_weights: whether the weights are given back; without them less is computed.
            attn_mask: (length, keys) or (n · num_heads, length, keys), bool or float like `key_padding_mask`.
            average_attn_weights: whether the weights are the mean over the heads.
            is_causal: without `attn_mask`: query i sees the keys 0 … i. Beside one, no more than a remark.
        Returns: the shape of `query`; (n, length, keys), or (n, num_heads, length, keys), or None.
        """
        batched = self._check(query, key, value)
        q, k, v = (self._batch_first(x, batched) for x in (query, key, value))
        same = query is key is value  # as objects: one product makes all three
        q, k, v = self._projected(q, k, v, same)
        n, _, length, _ = q.shape
        causal = is_causal and attn_mask is None
        masks = [self._padding(key_padding_mask, n, k.shape[2], q), self._order(attn_mask, (n, length, k.shape[2]), q)]
        if causal and key_padding_mask is not None:
            after = creation.ones(length, k.shape[2], dtype=dtypes.bool_).tril().logical_not()
            masks[1], causal = _added(after, q), False
        given = [mask for mask in masks if mask is not None]
        mask = None if not given else given[0] if len(given) == 1 else given[0] + given[1]
        drop = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            weights = linear.dropout(self._weights(q, k, mask, causal), drop)
            out = weights @ v
        else:
            out = scaled_dot_product_attention(q, k, v, mask, drop, causal)
        out = self.out_proj(out.permute(0, 2, 1, 3).reshape(n, length, self.embed_dim))
        if weights is not None:
            weights = statistical.mean(weights, 1) if average_attn_weights else weights
            weights = weights if batched else weights.squeeze(0)
        return (out.squeeze(0) if not batched else out if self.batch_first else out.transpose(0, 1)), weights

    def _check(self, query: Tensor, key: Tensor, value: Tensor) -> bool:
        """Is there a batch dimension?

        Raises: ShapeError: the inputs do not fit the layer, or each other.
        """
        widths = (self.embed_dim, self.kdim, self.vdim)
        inputs = (query, key, value)
        if (
            len({x.ndim for x in inputs}) > 1
            or query.ndim not in (2, 3)
            or any(x.shape[-1] != width for x, width in zip(inputs, widths, strict=True))
        ):
            raise at_user_line(ShapeError(
                f"MultiheadAttention: query, key and value must all have 3 dimensions, or 2 without a batch, and the "
                f"widths {widths[0]}, {widths[1]}, {widths[2]}; got {query.aval}, {key.aval} and {value.aval}"
            ))  # fmt: skip
        batch = 0 if self.batch_first else 1
        if key.shape[:-1] != value.shape[:-1] or (query.ndim == 3 and query.shape[batch] != key.shape[batch]):
            raise at_user_line(ShapeError(
                f"MultiheadAttention: there must be a value for each key, and as many sequences of keys as of queries; "
                f"got {query.aval}, {key.aval} and {value.aval} with batch_first={self.batch_first}"
            ))  # fmt: skip
        return query.ndim == 3

    def _batch_first(self, x: Tensor, batched: bool) -> Tensor:
        if not batched:
            return x.unsqueeze(0)
        return x if self.batch_first else x.transpose(0, 1)

    def _projected(self, q: Tensor, k: Tensor, v: Tensor, same: bool) -> tuple[Tensor, ...]:
        """Queries, keys and values of each head: (n, num_heads, length, head_dim)."""
        if same and self.in_proj_weight is not None:
            parts = manipulation.chunk(linear.linear(q, self.in_proj_weight, self.in_proj_bias), 3, -1)
        else:
            bias = self.in_proj_bias
            biases = (None,) * 3 if bias is None else manipulation.chunk(bias, 3)
            parts = tuple(map(linear.linear, (q, k, v), self._in_weights(), biases))
        return tuple(
            x.reshape(x.shape[0], x.shape[1], self.num_heads, self.head_dim).permute(0, 2, 1, 3) for x in parts
        )

    def _weights(self, q: Tensor, k: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        pairs = (*q.shape[:-1], k.shape[2])
        more = () if mask is None else (manipulation.expand(mask, pairs),)
        found: Tensor = attention_weights(q, k, *more, scale=1 / math.sqrt(self.head_dim), causal=causal)
        return found

    def _padding(self, mask: Tensor | None, n: int, keys: int, like: Tensor) -> Tensor | None:
        if mask is None:
            return None
        if mask.shape not in ((n, keys), (keys,) if n == 1 else ()):
            raise at_user_line(
                ShapeError(f"MultiheadAttention: key_padding_mask must be {[n, keys]}, one a key; got {mask.aval}")
            )
        return _added(mask, like).reshape(n, 1, 1, keys)

    def _order(self, mask: Tensor | None, sizes: tuple[int, int, int], like: Tensor) -> Tensor | None:
        if mask is None:
            return None
        n, length, keys = sizes
        if mask.shape == (length, keys):
            return _added(mask, like)
        if mask.shape != (n * self.num_heads, length, keys):
            raise at_user_line(ShapeError(
                f"MultiheadAttention: attn_mask must be {[length, keys]} or {[n * self.num_heads, length, keys]}; "
                f"got {mask.aval}"
            ))  # fmt: skip
        return _added(mask, like).reshape(n, self.num_heads, length, keys)


def _added(mask: Tensor, like: Tensor) -> Tensor:
    """What a mask adds to the scores: of bool, −∞ where it holds.

    Raises: DTypeError: neither bool nor the dtype of the queries.
    """
    if mask.dtype == dtypes.bool_:
        return elementwise.where(mask, -math.inf, 0.0).to(like.dtype)
    if mask.dtype != like.dtype:
        raise at_user_line(DTypeError(
            f"MultiheadAttention: a mask is bool, or of the dtype of the layer, {like.dtype}; got {mask.aval}"
        ))  # fmt: skip
    return mask


Activation = Callable[[Tensor], Tensor]
_ACTIVATIONS: dict[str, Activation] = {"relu": activations.relu, "gelu": activations.gelu}


class TransformerEncoderLayer(Module):
    """A block of a transformer: self-attention, then two affine maps with an activation between.

    Each half is added to its input: x + attention(norm(x)), then x + maps(norm(x)) with `norm_first`; else
    norm(x + attention(x)), then norm(x + maps(x)).

    Args:
        d_model: the width of the input and of the result.
        nhead: the number of heads.
        dim_feedforward: the width between the two affine maps.
        dropout: the probability of all four dropouts.
        activation: "relu", "gelu", or a function.
        layer_norm_eps: what the normalisations add to the variance.
        batch_first: whether inputs are (n, length, width); else (length, n, width).
        norm_first: whether the input of each half is normalised ("pre-norm"); else its result.
        bias: whether affine maps and normalisations add a bias.
        dtype: of the parameters; float32 if None.
    Shape: (n, length, d_model), or (length, n, d_model) unless `batch_first`, or without n; kept.
    Raises: ArgumentError: a size that is no positive int, or another activation.
    Source: Vaswani et al. (2017), Attention is all you need, arXiv:1706.03762; norm_first: Xiong et al. (2020), On
        layer normalization in the transformer architecture, arXiv:2002.04745.

    >>> import chainrule as cr
    >>> block = cr.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True)
    >>> block(cr.zeros(3, 5, 8), is_causal=True).shape
    (3, 5, 8)
    """

    def __init__(  # noqa: PLR0913 - PyTorch's signature
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str | Activation = "relu",
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        dtype: object = None,
    ) -> None:
        super().__init__()
        check_sizes("TransformerEncoderLayer", d_model=d_model, nhead=nhead, dim_feedforward=dim_feedforward)
        if activation not in _ACTIVATIONS and not callable(activation):
            raise at_user_line(ArgumentError(
                f"TransformerEncoderLayer: activation must be 'relu', 'gelu' or a function; got {activation!r}"
            ))  # fmt: skip
        self.norm_first = norm_first
        self.activation = _ACTIVATIONS[activation] if isinstance(activation, str) else activation
        self.self_attn = MultiheadAttention(d_model, nhead, dropout, bias, batch_first=batch_first, dtype=dtype)
        self.linear1 = Linear(d_model, dim_feedforward, bias=bias, dtype=dtype)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias=bias, dtype=dtype)
        self.norm1 = LayerNorm(d_model, layer_norm_eps, bias=bias, dtype=dtype)
        self.norm2 = LayerNorm(d_model, layer_norm_eps, bias=bias, dtype=dtype)
        self.dropout1 = Dropout(dropout)
        self.dropout2 = Dropout(dropout)

    def forward(
        self,
        src: Tensor,
        src_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """The shape of `src`; masks as those of `MultiheadAttention`."""

        def attended(x: Tensor) -> Tensor:
            out, _ = self.self_attn(x, x, x, src_key_padding_mask, False, src_mask, is_causal=is_causal)
            return self.dropout1(out)  # type: ignore[no-any-return]

        def transformed(x: Tensor) -> Tensor:
            return self.dropout2(self.linear2(self.dropout(self.activation(self.linear1(x)))))  # type: ignore[no-any-return]

        x: Any = src
        if self.norm_first:
            x = x + attended(self.norm1(x))
            return x + transformed(self.norm2(x))  # type: ignore[no-any-return]
        x = self.norm1(x + attended(x))
        return self.norm2(x + transformed(x))  # type: ignore[no-any-return]
