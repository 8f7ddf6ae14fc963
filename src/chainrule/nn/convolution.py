"""Layers over height and width, or over length: convolution and pooling."""

from __future__ import annotations

import math
from collections.abc import Sequence

from chainrule.core.node import at_user_line
from chainrule.errors import ArgumentError
from chainrule.functional import convolution as functional
from chainrule.functional import pooling
from chainrule.functional.convolution import Sizes, spread
from chainrule.nn import init
from chainrule.nn.linear import check_sizes
from chainrule.nn.module import Module
from chainrule.nn.parameter import Parameter, blank
from chainrule.tensor import Tensor

# --- convolution


class _Convolution(Module):
    """What Conv1d and Conv2d share: filters, a bias, and how the windows lie."""

    rank: int
    bias: Parameter | None

    def __init__(  # noqa: PLR0913 - PyTorch's signature
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Sizes | str = 0,
        dilation: Sizes = 1,
        groups: int = 1,
        bias: bool = True,
        dtype: object = None,
    ) -> None:
        super().__init__()
        name, rank = type(self).__name__, self.rank
        check_sizes(name, in_channels=in_channels, out_channels=out_channels, groups=groups)
        if in_channels % groups or out_channels % groups:
            raise at_user_line(ArgumentError(
                f"{name}: groups must divide in_channels and out_channels; got {groups} groups of {in_channels} and "
                f"{out_channels}"
            ))  # fmt: skip
        if isinstance(padding, str) and padding not in ("same", "valid"):
            raise at_user_line(
                ArgumentError(f"{name}: padding must be 'same', 'valid', an int or several; got {padding!r}")
            )
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = spread(name, "kernel_size", kernel_size, rank)
        self.stride = spread(name, "stride", stride, rank)
        self.padding = padding if isinstance(padding, str) else spread(name, "padding", padding, rank, 0)
        self.dilation = spread(name, "dilation", dilation, rank)
        shape = (out_channels, in_channels // groups, *self.kernel_size)
        self.weight = blank(*shape, dtype=dtype)
        self.bias = blank(out_channels, dtype=dtype) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the initial weight and bias again."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))  # which is ±1/√(entries of a filter)
        if self.bias is not None:
            bound = 1 / math.sqrt(math.prod(self.weight.shape[1:]))
            init.uniform_(self.bias, -bound, bound)

    def extra_repr(self) -> str:
        """The sizes, and what differs from the usual."""
        said = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        if isinstance(self.padding, str) or any(self.padding):
            said += f", padding={self.padding}"
        if set(self.dilation) != {1}:
            said += f", dilation={self.dilation}"
        return said + f", groups={self.groups}" * (self.groups != 1) + ", bias=False" * (self.bias is None)


class Conv1d(_Convolution):
    """Σ over channels and places of window · filter, for every window along the length, plus the filter's bias.

    The weight and the bias start uniform on ±1/√(entries of a filter), as in PyTorch.

    Args:
        in_channels: of the input.
        out_channels: the number of filters.
        kernel_size: how many places a filter has.
        stride: from one window to the next.
        padding: zeros put before and after; or "same", "valid".
        dilation: from one place within a window to the next.
        groups: parts that the channels are cut into; each filter sees one of them.
        bias: whether to add one number a filter.
        dtype: of the parameters; float32 if None.
    Shape: (n, in_channels, length) to (n, out_channels, positions), or without n.
    Raises: ArgumentError: a size that is no positive int. ShapeError: an input of another size.

    >>> import chainrule as cr
    >>> cr.nn.Conv1d(4, 8, 3, padding=1)(cr.zeros(5, 4, 20)).shape
    (5, 8, 20)
    """

    rank = 1

    def forward(self, input: Tensor) -> Tensor:
        """(n, in_channels, length) to (n, out_channels, positions)."""
        return functional.conv1d(input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class Conv2d(_Convolution):
    """Σ over channels and places of window · filter, for every window of the image, plus the filter's bias.

    The weight and the bias start uniform on ±1/√(entries of a filter), as in PyTorch.

    Args:
        in_channels: of the input.
        out_channels: the number of filters.
        kernel_size: rows and columns of a filter; an int for both.
        stride: from one window to the next.
        padding: zeros put on each side; or "same", "valid".
        dilation: from one place within a window to the next.
        groups: parts that the channels are cut into; each filter sees one of them.
        bias: whether to add one number a filter.
        dtype: of the parameters; float32 if None.
    Shape: (n, in_channels, height, width) to (n, out_channels, positions down, positions across), or without n.
    Raises: ArgumentError: a size that is no positive int. ShapeError: an input of another size.

    >>> import chainrule as cr
    >>> layer = cr.nn.Conv2d(1, 6, 5, padding=2)
    >>> layer.weight.shape, layer(cr.zeros(3, 1, 28, 28)).shape
    ((6, 1, 5, 5), (3, 6, 28, 28))
    """

    rank = 2

    def forward(self, input: Tensor) -> Tensor:
        """(n, in_channels, height, width) to (n, out_channels, positions down, positions across)."""
        return functional.conv2d(input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


# --- pooling


class _MaxPool(Module):
    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        dilation: Sizes = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.dilation = padding, dilation
        self.return_indices, self.ceil_mode = return_indices, ceil_mode

    @property
    def _options(self) -> tuple[Sizes, Sizes, Sizes, Sizes, bool, bool]:
        return self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, self.return_indices

    def extra_repr(self) -> str:
        """How the windows lie."""
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )


class MaxPool1d(_MaxPool):
    """The largest entry of each window; of those that tie, the first one receives the gradient.

    Args:
        kernel_size: of a window.
        stride: from one window to the next; None: `kernel_size`.
        padding: how far a window may hang over; what is missing counts as −∞.
        dilation: from one place within a window to the next.
        return_indices: only False.
        ceil_mode: only False.
    Shape: (n, channels, length) to (n, channels, positions), or without n.
    Raises: ShapeError, ArgumentError: when called, where the windows do not fit the input.

    >>> import chainrule as cr
    >>> cr.nn.MaxPool1d(2)(cr.tensor([[1.0, 3.0, 2.0, 0.0]]))
    tensor([[3., 2.]])
    """

    def forward(self, input: Tensor) -> Tensor:
        """(n, channels, length) to (n, channels, positions)."""
        return pooling.max_pool1d(input, *self._options)


class MaxPool2d(_MaxPool):
    """The largest entry of each window; of those that tie, the first one receives the gradient.

    Args:
        kernel_size: of a window; an int, or one for each dimension.
        stride: from one window to the next; None: `kernel_size`.
        padding: how far a window may hang over; what is missing counts as −∞.
        dilation: from one place within a window to the next.
        return_indices: only False.
        ceil_mode: only False.
    Shape: (n, channels, height, width) to (n, channels, positions down, positions across), or without n.
    Raises: ShapeError, ArgumentError: when called, where the windows do not fit the input.

    >>> import chainrule as cr
    >>> cr.nn.MaxPool2d(2)(cr.zeros(3, 6, 28, 28)).shape
    (3, 6, 14, 14)
    """

    def forward(self, input: Tensor) -> Tensor:
        """(n, channels, height, width) to (n, channels, positions down, positions across)."""
        return pooling.max_pool2d(input, *self._options)


class _AvgPool(Module):
    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.ceil_mode, self.count_include_pad = padding, ceil_mode, count_include_pad

    @property
    def _options(self) -> tuple[Sizes, Sizes, Sizes, bool, bool]:
        return self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad

    def extra_repr(self) -> str:
        """How the windows lie."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool1d(_AvgPool):
    """The mean of each window.

    Args:
        kernel_size: of a window.
        stride: from one window to the next; None: `kernel_size`.
        padding: how far a window may hang over; what is missing counts as 0.
        ceil_mode: only False.
        count_include_pad: whether what is missing counts as an entry.
    Shape: (n, channels, length) to (n, channels, positions), or without n.
    Raises: ShapeError, ArgumentError: when called, where the windows do not fit the input.

    >>> import chainrule as cr
    >>> cr.nn.AvgPool1d(2)(cr.tensor([[1.0, 3.0, 2.0, 0.0]]))
    tensor([[2., 1.]])
    """

    def forward(self, input: Tensor) -> Tensor:
        """(n, channels, length) to (n, channels, positions)."""
        return pooling.avg_pool1d(input, *self._options)


class AvgPool2d(_AvgPool):
    """The mean of each window.

    Args:
        kernel_size: of a window; an int, or one for each dimension.
        stride: from one window to the next; None: `kernel_size`.
        padding: how far a window may hang over; what is missing counts as 0.
        ceil_mode: only False.
        count_include_pad: whether what is missing counts as an entry.
    Shape: (n, channels, height, width) to (n, channels, positions down, positions across), or without n.
    Raises: ShapeError, ArgumentError: when called, where the windows do not fit the input.

    >>> import chainrule as cr
    >>> cr.nn.AvgPool2d(2)(cr.zeros(3, 6, 28, 28)).shape
    (3, 6, 14, 14)
    """

    def forward(self, input: Tensor) -> Tensor:
        """(n, channels, height, width) to (n, channels, positions down, positions across)."""
        return pooling.avg_pool2d(input, *self._options)


class AdaptiveAvgPool2d(Module):
    """Means over windows that are chosen so that `output_size` of them cover the image.

    Args:
        output_size: (down, across), or one int for both; None keeps a size.
    Shape: (n, channels, height, width) to (n, channels, down, across), or without n.
    Raises: ShapeError, ArgumentError: when called, where the sizes do not fit.

    >>> import chainrule as cr
    >>> cr.nn.AdaptiveAvgPool2d(1)(cr.zeros(3, 6, 28, 28)).shape
    (3, 6, 1, 1)
    """

    def __init__(self, output_size: int | Sequence[int | None] | None) -> None:
        super().__init__()
        self.output_size = output_size

    def forward(self, input: Tensor) -> Tensor:
        """(n, channels, height, width) to (n, channels, down, across)."""
        return pooling.adaptive_avg_pool2d(input, self.output_size)

    def extra_repr(self) -> str:
        """The size."""
        return f"output_size={self.output_size}"
