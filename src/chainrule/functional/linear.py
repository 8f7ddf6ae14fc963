"""What layers without a state of their own compute: affine maps, lookups, padding, dropout. Under PyTorch's names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule import creation, dtypes
from chainrule.array import indexing, manipulation
from chainrule.array.align import as_node, floating, not_a_tensor
from chainrule.core.node import Node, at_user_line
from chainrule.core.tracing import known
from chainrule.errors import ArgumentError, DTypeError, OutOfRangeError, ShapeError
from chainrule.ops import movement

if TYPE_CHECKING:
    from chainrule.creation import Generator
    from chainrule.tensor import Tensor

__all__ = ["dropout", "embed", "embedding", "linear", "one_hot", "pad"]


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x Wᵀ + b.

    Args:
        input: (…, in_features).
        weight: (out_features, in_features), or (in_features,) for one output without its dimension.
        bias: (out_features,), or None.
    Returns: (…, out_features).
    Raises: ShapeError: the sizes do not fit. DTypeError: the dtypes differ.

    >>> import chainrule as cr
    >>> cr.nn.functional.linear(cr.tensor([[1.0, 2.0]]), cr.tensor([[1.0, 1.0], [0.0, 3.0]]), cr.tensor([10.0, 0.0]))
    tensor([[13.,  6.]])
    """
    input = as_tensor("linear", input, weight)
    shape, wanted = input.shape, weight.shape
    if not shape or len(wanted) not in (1, 2) or shape[-1] != wanted[-1]:
        raise at_user_line(ShapeError(
            f"linear: the weight {weight.aval} takes inputs (…, {wanted[-1] if wanted else '?'}); got {input.aval}; "
            f"make in_features the last size of the input"
        ))  # fmt: skip
    if input.dtype != weight.dtype:
        raise at_user_line(DTypeError(
            f"linear: the input is {input.aval}, the weight {weight.aval}; cast the input with "
            f"x.to(cr.{weight.dtype}){or_model(input)}"
        ))  # fmt: skip
    out = input @ (weight.t() if len(wanted) == 2 else weight)
    if bias is None:
        return out
    if bias.shape not in (out.shape[-1:], ()):
        raise at_user_line(ShapeError(
            f"linear: the bias {bias.aval} does not fit the weight {weight.aval}; it needs one entry an output feature"
        ))  # fmt: skip
    return out + bias


def as_tensor(name: str, given: Any, like: Tensor) -> Any:
    """A tensor or an array, as a tensor; a list is what somebody forgot to convert."""
    if not isinstance(given, Node) and not (isinstance(given, np.ndarray) and isinstance(like, Node)):
        raise not_a_tensor(name, given)
    return as_node(given, like, name)


def or_model(input: Tensor) -> str:
    casts = {dtypes.float64: "double", dtypes.float32: "float", dtypes.float16: "half", dtypes.bfloat16: "bfloat16"}
    return f", or the layer with model.{casts[input.dtype]}()" if input.dtype in casts else ""


def embedding(input: Tensor, weight: Tensor, padding_idx: int | None = None) -> Tensor:
    """Row `input` of `weight`, for each index: a table looked up, and the same as one_hot(input) @ weight.

    Args:
        input: (…), integer, 0 ≤ index < num_embeddings.
        weight: (num_embeddings, embedding_dim).
        padding_idx: a row that receives no gradient.
    Returns: (…, embedding_dim).
    Raises: DTypeError: the indices are not integer. OutOfRangeError: an index without a row. ShapeError: `weight` is no
        matrix.

    >>> import chainrule as cr
    >>> cr.nn.functional.embedding(cr.tensor([2, 0]), cr.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))
    tensor([[5., 6.],
            [1., 2.]])
    """
    input = as_tensor("embedding", input, weight)
    if not dtypes.is_integer(input.dtype):
        raise at_user_line(DTypeError(f"embedding: indices must be integer; got {input.aval}; cast them with .long()"))
    if weight.ndim != 2:
        raise at_user_line(
            ShapeError(f"embedding: the weight must be (num_embeddings, embedding_dim); got {weight.aval}")
        )
    rows = weight.shape[0]
    value = known(input)
    if value is not None and value.size and not 0 <= value.min() <= value.max() < rows:
        low, high = int(value.min()), int(value.max())
        raise at_user_line(OutOfRangeError(
            f"embedding: indices must lie in 0 … {rows - 1}, one a row of {weight.aval}; got {low if low < 0 else high}"
        ))  # fmt: skip
    input = indexing.none_below_zero(input, rows)
    if padding_idx is None:
        return weight[input]
    if not -rows <= padding_idx < rows:
        raise at_user_line(OutOfRangeError(f"embedding: padding_idx {padding_idx} is no row of {weight.aval}"))
    found = weight[input]
    return found.detach().where((input == padding_idx % rows).unsqueeze(-1), found)


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """1 at the label's position, 0 elsewhere, as int64.

    Args:
        tensor: (…), integer labels ≥ 0.
        num_classes: the size of the new last dimension; −1: one more than the largest label.
    Returns: (…, num_classes), int64.
    Raises: DTypeError: the labels are not integer. OutOfRangeError: a label without a class.

    >>> import chainrule as cr
    >>> cr.nn.functional.one_hot(cr.tensor([2, 0]))
    tensor([[0, 0, 1],
            [1, 0, 0]])
    """
    if not dtypes.is_integer(tensor.dtype):
        raise at_user_line(DTypeError(f"one_hot: labels must be integer; got {tensor.aval}; cast them with .long()"))
    data = known(tensor)
    if data is not None and data.size and (data.min() < 0 or (num_classes >= 0 and data.max() >= num_classes)):
        wrong = data.min() if data.min() < 0 else data.max()
        upper = f" < {num_classes}" if num_classes >= 0 else ""
        raise at_user_line(OutOfRangeError(f"one_hot: expected labels 0 ≤ label{upper}; got {wrong}"))
    if num_classes < 0 and data is not None and not data.size:
        raise at_user_line(
            ArgumentError("one_hot: there is no label to read the number of classes off; give num_classes")
        )
    return indexing.one_hot(indexing.none_below_zero(tensor, num_classes), num_classes)


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """`input` with `value` around it.

    Args:
        input: any shape.
        pad: (before, after) for the last dimension, then for the one before it, and so on. Negative sizes cut off.
        mode: "constant" is the only one there is.
        value: what to fill with; None is 0.
    Returns: the padded shape.
    Raises: ArgumentError: an odd number of sizes, more than the dimensions have, or another mode.

    >>> import chainrule as cr
    >>> cr.nn.functional.pad(cr.tensor([[1.0, 2.0]]), (1, 0, 0, 1), value=9.0)
    tensor([[9., 1., 2.],
            [9., 9., 9.]])
    """
    if mode != "constant":
        raise at_user_line(
            ArgumentError(f"pad: mode must be 'constant'; got {mode!r}; build other modes with cat and flip")
        )
    sizes = tuple(pad)
    if len(sizes) % 2 or len(sizes) > 2 * input.ndim:
        raise at_user_line(
            ArgumentError(f"pad: expected (before, after) for at most {input.ndim} dimensions; got {sizes}")
        )
    for place in range(0, len(sizes), 2):
        dim = input.ndim - 1 - place // 2
        before, after = max(0, -sizes[place]), max(0, -sizes[place + 1])
        if before or after:
            left = input.shape[dim] - before - after
            if left < 0:
                raise at_user_line(
                    ArgumentError(f"pad: {sizes} cuts off more of dimension {dim} than {input.aval} has")
                )
            input = manipulation.narrow(input, dim, before, left)
    return manipulation.pad(input, tuple(max(0, n) for n in sizes), value=value or 0.0)


def embed(input: Tensor, shape: Sequence[int], window: Sequence[tuple[int, int, int]]) -> Tensor:
    """Zeros of `shape`, with `input` written into `window`: the transpose of slicing, as explanations print it.

    Args:
        input: the shape of the window.
        shape: the shape of the result.
        window: (start, stop, step) for each dimension, step > 0.
    Returns: `shape`.
    Raises: ShapeError: the window does not hold `input`.

    >>> import chainrule as cr
    >>> cr.nn.functional.embed(cr.tensor([1.0, 2.0]), (5,), ((0, 5, 3),))
    tensor([1., 0., 0., 2., 0.])
    """
    embedded: Tensor = movement.embed(input, shape=tuple(shape), window=tuple(window))
    return embedded


def dropout(input: Tensor, p: float = 0.5, training: bool = True, *, generator: Generator | None = None) -> Tensor:
    """Each entry 0 with probability `p`, the others divided by 1 − p, so that the expected value stays.

    Args:
        input: any shape, float.
        p: the probability, 0 ≤ p ≤ 1.
        training: False returns `input` itself.
        generator: where the random numbers come from; None: the one that `cr.manual_seed` seeds.
    Returns: the shape of `input`.
    Raises: ArgumentError: `p` is no probability.
    Source: Srivastava et al. (2014), Dropout, Journal of Machine Learning Research 15.

    >>> import chainrule as cr
    >>> cr.nn.functional.dropout(cr.ones(6), 0.5, generator=cr.Generator(1)).sum() % 2
    tensor(0.)
    """
    if not 0 <= p <= 1:
        raise at_user_line(ArgumentError(f"dropout: p is a probability, 0 ≤ p ≤ 1; got {p}"))
    if not training or p == 0:
        return input
    x: Tensor = floating(input)
    if p == 1:
        return x * 0.0
    kept = creation.rand(x.shape, generator=generator) >= p
    return x * (kept.to(x.dtype) / (1.0 - p))
