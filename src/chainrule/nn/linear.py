"""Layers that are an affine map or a lookup, and those that only pass on what they get."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from chainrule.core.node import at_user_line
from chainrule.creation import Generator
from chainrule.errors import ArgumentError, OutOfRangeError
from chainrule.functional import linear as functional
from chainrule.nn import init
from chainrule.nn.activations import Pointwise
from chainrule.nn.module import Module
from chainrule.nn.parameter import Parameter, blank
from chainrule.tensor import Tensor


class Linear(Module):
    """x Wᵀ + b.

    The weight and the bias start uniform on ±1/√in_features, as in PyTorch.

    Args:
        in_features: the last size of the input.
        out_features: the last size of the output.
        bias: whether to add b.
        dtype: of the parameters; float32 if None.
    Shape: (…, in_features) to (…, out_features).
    Raises: ArgumentError: a size that is no positive int. ShapeError: an input of another size.

    >>> import chainrule as cr
    >>> layer = cr.nn.Linear(3, 2)
    >>> layer.weight.shape, layer.bias.shape, layer(cr.zeros(5, 3)).shape
    ((2, 3), (2,), (5, 2))
    """

    bias: Parameter | None

    def __init__(self, in_features: int, out_features: int, bias: bool = True, dtype: object = None) -> None:
        super().__init__()
        check_sizes("Linear", in_features=in_features, out_features=out_features)
        self.in_features, self.out_features = in_features, out_features
        self.weight = blank(out_features, in_features, dtype=dtype)
        self.bias = blank(out_features, dtype=dtype) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the initial weight and bias again."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))  # which is ±1/√in_features
        if self.bias is not None:
            bound = 1 / math.sqrt(self.in_features)
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Tensor) -> Tensor:
        """(…, in_features) to (…, out_features)."""
        return functional.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        """The sizes."""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Embedding(Module):
    """A table of vectors, looked up by index.

    The vectors start standard normal.

    Args:
        num_embeddings: the number of rows.
        embedding_dim: the size of a vector.
        padding_idx: a row that starts at 0 and receives no gradient.
        dtype: of the table; float32 if None.
    Shape: (…), integer, to (…, embedding_dim).
    Raises: ArgumentError: a size that is no positive int. OutOfRangeError: `padding_idx`, or an index of the input, is
        no row.

    >>> import chainrule as cr
    >>> cr.nn.Embedding(10, 3)(cr.tensor([[1, 2], [4, 5]])).shape
    (2, 2, 3)
    """

    def __init__(
        self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None, dtype: object = None
    ) -> None:
        super().__init__()
        check_sizes("Embedding", num_embeddings=num_embeddings, embedding_dim=embedding_dim)
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            raise at_user_line(
                OutOfRangeError(f"Embedding: padding_idx {padding_idx} is none of the {num_embeddings} rows")
            )
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.padding_idx = None if padding_idx is None else padding_idx % num_embeddings
        self.weight = blank(num_embeddings, embedding_dim, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the initial table again."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            self.weight.writable("Embedding")[self.padding_idx] = 0

    def forward(self, input: Tensor) -> Tensor:
        """(…) to (…, embedding_dim)."""
        return functional.embedding(input, self.weight, self.padding_idx)

    def extra_repr(self) -> str:
        """The sizes."""
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"


class Dropout(Pointwise):
    """In training, each entry 0 with probability `p` and the others divided by 1 − p; in evaluation, the input itself.

    Args:
        p: the probability, 0 ≤ p ≤ 1.
        inplace: accepted, and of no effect.
        generator: where the random numbers come from; None: the one that `cr.manual_seed` seeds.
    Shape: any, kept.
    Raises: ArgumentError: `p` is no probability.
    Source: Srivastava et al. (2014), Dropout, Journal of Machine Learning Research 15.

    >>> import chainrule as cr
    >>> cr.nn.Dropout(0.5).eval()(cr.ones(3))
    tensor([1., 1., 1.])
    """

    def __init__(self, p: float = 0.5, inplace: bool = False, *, generator: Generator | None = None) -> None:
        super().__init__(inplace)
        if not 0 <= p <= 1:
            raise at_user_line(ArgumentError(f"Dropout: p is a probability, 0 ≤ p ≤ 1; got {p}"))
        self.p, self.generator = p, generator

    def forward(self, input: Tensor) -> Tensor:
        """The shape of `input`."""
        return functional.dropout(input, self.p, self.training, generator=self.generator)

    def options(self) -> str:
        """The probability."""
        return f"p={self.p}"


class Flatten(Module):
    """The dimensions from `start_dim` to `end_dim` joined to one.

    Args:
        start_dim, end_dim: the first and the last dimension joined; the batch dimension 0 is left alone.
    Raises: OutOfRangeError: there is no such dimension.

    >>> import chainrule as cr
    >>> cr.nn.Flatten()(cr.zeros(5, 8, 8)).shape
    (5, 64)
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, input: Tensor) -> Tensor:
        """(n, a, b, …) to (n, a · b · …)."""
        return input.flatten(self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        """The dimensions."""
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """One dimension split into several.

    Args:
        dim: the dimension that is split.
        unflattened_size: what it is split into; one size may be -1.
    Raises: ShapeError: when called, where the dimension does not split.

    >>> import chainrule as cr
    >>> cr.nn.Unflatten(1, (8, 8))(cr.zeros(5, 64)).shape
    (5, 8, 8)
    """

    def __init__(self, dim: int, unflattened_size: Sequence[int]) -> None:
        super().__init__()
        self.dim, self.unflattened_size = dim, tuple(unflattened_size)

    def forward(self, input: Tensor) -> Tensor:
        """(…, a · b, …) to (…, a, b, …)."""
        return input.unflatten(self.dim, self.unflattened_size)

    def extra_repr(self) -> str:
        """The dimension and the sizes."""
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"


class Identity(Module):
    """The input itself; any argument is taken, so that it may stand for any layer.

    >>> import chainrule as cr
    >>> cr.nn.Identity(54, unused=True)(cr.ones(2))
    tensor([1., 1.])
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, input: Tensor) -> Tensor:
        """`input`."""
        return input


def check_sizes(name: str, **sizes: int) -> None:
    """Raises: ArgumentError: a size that is no positive int."""
    for what, n in sizes.items():
        if type(n) is not int or n < 1:
            raise at_user_line(ArgumentError(f"{name}: {what} must be a positive int; got {n!r}"))
