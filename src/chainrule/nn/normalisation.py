"""Layers that bring what flows through a net to one scale."""

from __future__ import annotations

from collections.abc import Sequence

from chainrule import creation, dtypes
from chainrule.core.node import at_user_line
from chainrule.errors import ArgumentError
from chainrule.functional import normalisation as functional
from chainrule.nn import init
from chainrule.nn.linear import check_sizes
from chainrule.nn.module import Module
from chainrule.nn.parameter import Parameter
from chainrule.tensor import Tensor


def _sizes(name: str, normalized_shape: int | Sequence[int]) -> tuple[int, ...]:
    found = tuple(normalized_shape) if isinstance(normalized_shape, Sequence) else (normalized_shape,)
    for n in found:
        check_sizes(name, normalized_shape=n)
    return found


def _filled(shape: tuple[int, ...], value: float, dtype: object) -> Parameter:
    return Parameter(creation.full(shape, value, dtype=dtype or dtypes.DEFAULT_FLOAT))


def start_again(weight: Parameter | None, bias: Parameter | None) -> None:
    """What follows a norm as it is at first: the weight 1 and the bias 0, where there are any."""
    if weight is not None:
        init.ones_(weight)
    if bias is not None:
        init.zeros_(bias)


class LayerNorm(Module):
    """(x − mean) / √(var + ε) over the last dimensions, times a weight that starts at 1, plus a bias that starts at 0.

    Args:
        normalized_shape: the last sizes of the input, over which mean and variance are taken.
        eps: what is added to the variance.
        elementwise_affine: whether there is a weight and a bias.
        bias: whether there is a bias beside the weight.
        dtype: of the parameters; float32 if None.
    Shape: (…, *normalized_shape), kept.
    Raises: ArgumentError: a size that is no positive int. ShapeError: an input of another size.
    Source: Ba, Kiros, Hinton (2016), Layer normalization, arXiv:1607.06450.

    >>> import chainrule as cr
    >>> cr.nn.LayerNorm(3)(cr.tensor([1.0, 2.0, 3.0])).detach()
    tensor([-1.2247,  0.    ,  1.2247])
    """

    weight: Parameter | None
    bias: Parameter | None

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        dtype: object = None,
    ) -> None:
        super().__init__()
        self.normalized_shape = _sizes("LayerNorm", normalized_shape)
        self.eps, self.elementwise_affine = eps, elementwise_affine
        self.weight = _filled(self.normalized_shape, 1.0, dtype) if elementwise_affine else None
        self.bias = _filled(self.normalized_shape, 0.0, dtype) if elementwise_affine and bias else None

    def reset_parameters(self) -> None:
        """The weight 1 and the bias 0 again."""
        start_again(self.weight, self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """The shape of `input`."""
        return functional.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """The sizes."""
        affine = f"elementwise_affine={self.elementwise_affine}"
        return f"{self.normalized_shape}, eps={self.eps}, {affine}, bias={self.bias is not None}"


class RMSNorm(Module):
    """x / √(mean of x² + ε) over the last dimensions, times a weight that starts at 1.

    Args:
        normalized_shape: the last sizes of the input, over which the mean is taken.
        eps: what is added to the mean; None: the distance from 1 to the next float of the dtype.
        elementwise_affine: whether there is a weight.
        dtype: of the parameters; float32 if None.
    Shape: (…, *normalized_shape), kept.
    Raises: ArgumentError: a size that is no positive int. ShapeError: an input of another size.
    Source: Zhang, Sennrich (2019), Root mean square layer normalization, arXiv:1910.07467.

    >>> import chainrule as cr
    >>> cr.nn.RMSNorm(2)(cr.tensor([3.0, 4.0])).detach()
    tensor([0.8485, 1.1314])
    """

    weight: Parameter | None

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        dtype: object = None,
    ) -> None:
        super().__init__()
        self.normalized_shape = _sizes("RMSNorm", normalized_shape)
        self.eps, self.elementwise_affine = eps, elementwise_affine
        self.weight = _filled(self.normalized_shape, 1.0, dtype) if elementwise_affine else None

    def reset_parameters(self) -> None:
        """The weight 1 again."""
        start_again(self.weight, None)

    def forward(self, input: Tensor) -> Tensor:
        """The shape of `input`."""
        return functional.rms_norm(input, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        """The sizes."""
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class GroupNorm(Module):
    """(x − mean) / √(var + ε) over groups of channels of each sample, times a weight, plus a bias; 1 and 0 at first.

    Args:
        num_groups: how many groups of equal size the channels are cut into, in their order.
        num_channels: of the input.
        eps: what is added to the variance.
        affine: whether there is a weight and a bias, each with an entry a channel.
        dtype: of the parameters; float32 if None.
        bias: whether there is a bias beside the weight.
    Shape: (n, num_channels, …), kept.
    Raises: ArgumentError: a size that is no positive int, or groups that do not divide the channels. ShapeError: an
        input of another size.
    Source: Wu, He (2018), Group normalization, arXiv:1803.08494.

    >>> import chainrule as cr
    >>> cr.nn.GroupNorm(2, 4)(cr.tensor([[1.0, 3.0, 10.0, 30.0]])).detach()
    tensor([[-1.,  1., -1.,  1.]])
    """

    weight: Parameter | None
    bias: Parameter | None

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        dtype: object = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        check_sizes("GroupNorm", num_groups=num_groups, num_channels=num_channels)
        if num_channels % num_groups:
            raise at_user_line(ArgumentError(
                f"GroupNorm: num_groups must divide num_channels; got {num_groups} groups of {num_channels}"
            ))  # fmt: skip
        self.num_groups, self.num_channels, self.eps, self.affine = num_groups, num_channels, eps, affine
        self.weight = _filled((num_channels,), 1.0, dtype) if affine else None
        self.bias = _filled((num_channels,), 0.0, dtype) if affine and bias else None

    def reset_parameters(self) -> None:
        """The weight 1 and the bias 0 again."""
        start_again(self.weight, self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """The shape of `input`."""
        return functional.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """The sizes and options."""
        affine = f"affine={self.affine}, bias={self.bias is not None}"
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, {affine}"
