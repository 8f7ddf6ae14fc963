"""Layers that normalise each channel, and may keep running statistics of what they saw, for evaluation."""

from __future__ import annotations

from typing import ClassVar

from chainrule import creation, dtypes
from chainrule.core.node import at_user_line
from chainrule.errors import ShapeError
from chainrule.functional import normalisation as functional
from chainrule.functional.linear import as_tensor
from chainrule.nn.linear import check_sizes
from chainrule.nn.module import Module
from chainrule.nn.normalisation import start_again
from chainrule.nn.parameter import Parameter
from chainrule.tensor import Tensor


class _ChannelNorm(Module):
    """What these layers share: a weight and a bias for each channel, and the running statistics.

    shapes: of an input, in words; ndims: how many dimensions that are.
    """

    shapes: ClassVar[str]
    ndims: ClassVar[tuple[int, ...]]
    weight: Parameter | None
    bias: Parameter | None
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(
        self,
        num_features: int,
        eps: float,
        momentum: float | None,
        affine: bool,
        track_running_stats: bool,
        dtype: object,
        bias: bool,
    ) -> None:
        super().__init__()
        check_sizes(type(self).__name__, num_features=num_features)
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        dtype = dtype or dtypes.DEFAULT_FLOAT
        self.weight = Parameter(creation.ones(num_features, dtype=dtype)) if affine else None
        self.bias = Parameter(creation.zeros(num_features, dtype=dtype)) if affine and bias else None
        kept = track_running_stats
        self.register_buffer("running_mean", creation.zeros(num_features, dtype=dtype) if kept else None)
        self.register_buffer("running_var", creation.ones(num_features, dtype=dtype) if kept else None)
        self.register_buffer("num_batches_tracked", creation.tensor(0) if kept else None)

    def reset_running_stats(self) -> None:
        """The running mean 0, the running variance 1, and no batch seen."""
        for buffer, value in ((self.running_mean, 0), (self.running_var, 1), (self.num_batches_tracked, 0)):
            if buffer is not None:
                buffer.fill_(value)

    def reset_parameters(self) -> None:
        """The running statistics as at first, the weight 1 and the bias 0."""
        self.reset_running_stats()
        start_again(self.weight, self.bias)

    def _fitting(self, input: Tensor, channels: int) -> Tensor:
        """The input as a tensor; channels: which of its dimensions those are.

        Raises: ShapeError: another number of dimensions, or of channels.
        """
        x: Tensor = as_tensor(type(self).__name__, input, input if self.weight is None else self.weight)
        if x.ndim not in self.ndims or x.shape[channels] != self.num_features:
            shapes = self.shapes.format(self.num_features)
            raise at_user_line(ShapeError(f"{type(self).__name__}: the input must be {shapes}; got {x.aval}"))
        return x

    def extra_repr(self) -> str:
        """The sizes and options."""
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"bias={self.bias is not None}, track_running_stats={self.track_running_stats}"
        )


# --- over the batch and all places


class _BatchNorm(_ChannelNorm):
    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        dtype: object = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, dtype, bias)

    def forward(self, input: Tensor) -> Tensor:
        """The shape of `input`."""
        x = self._fitting(input, 1)
        own = self.training or self.running_mean is None or self.running_var is None
        follows = self.training and self.track_running_stats
        kept = follows or not self.training
        return functional.batch_norm(
            x,
            self.running_mean if kept else None,
            self.running_var if kept else None,
            self.weight,
            self.bias,
            own,
            self._counted() if follows else 0.0,
            self.eps,
        )

    def _counted(self) -> float | Tensor:
        """One batch more, and what it counts for: without a momentum as much as each before it."""
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None and self.running_mean is not None:
                return self.num_batches_tracked.to(self.running_mean.dtype).reciprocal()
        return 0.0 if self.momentum is None else self.momentum


class BatchNorm1d(_BatchNorm):
    """(x − mean) / √(var + ε) for each feature over the batch, times a weight, plus a bias; 1 and 0 at first.

    In training by the mean and variance of the batch, which the running ones follow; in evaluation (`eval()`) by the
    running ones.

    Args:
        num_features: of the input; features, or channels of a length.
        eps: what is added to the variance.
        momentum: how far the running statistics go towards the batch's. None: they are the mean over all batches.
        affine: whether there is a weight and a bias.
        track_running_stats: whether there are running statistics; else evaluation takes the batch's too.
        dtype: of parameters and statistics; float32 if None.
        bias: whether there is a bias beside the weight.
    Shape: (n, num_features) or (n, num_features, length), kept.
    Raises: ArgumentError: a size that is no positive int. ShapeError: an input of another size, or in training one
        with a single value a feature.
    Source: Ioffe, Szegedy (2015), Batch normalization: accelerating deep network training by reducing internal
        covariate shift, arXiv:1502.03167.

    >>> import chainrule as cr
    >>> norm = cr.nn.BatchNorm1d(2)
    >>> norm(cr.tensor([[1.0, 10.0], [3.0, 30.0]])).detach()
    tensor([[-1., -1.],
            [ 1.,  1.]])
    >>> norm.running_mean
    tensor([0.2, 2. ])
    """

    shapes = "(n, {0}) or (n, {0}, length)"
    ndims = (2, 3)


class BatchNorm2d(_BatchNorm):
    """(x − mean) / √(var + ε) for each channel over the images of the batch, times a weight, plus a bias.

    Weight and bias are 1 and 0 at first. In training by the mean and variance of the batch, which the running ones
    follow; in evaluation (`eval()`) by the running ones.

    Args:
        num_features: the channels of the input.
        eps: what is added to the variance.
        momentum: how far the running statistics go towards the batch's. None: they are the mean over all batches.
        affine: whether there is a weight and a bias.
        track_running_stats: whether there are running statistics; else evaluation takes the batch's too.
        dtype: of parameters and statistics; float32 if None.
        bias: whether there is a bias beside the weight.
    Shape: (n, num_features, height, width), kept.
    Raises: ArgumentError: a size that is no positive int. ShapeError: an input of another size, or in training one
        with a single value a channel.
    Source: Ioffe, Szegedy (2015), Batch normalization: accelerating deep network training by reducing internal
        covariate shift, arXiv:1502.03167.

    >>> import chainrule as cr
    >>> cr.nn.BatchNorm2d(3)(cr.randn(5, 3, 8, 8)).shape
    (5, 3, 8, 8)
    """

    shapes = "(n, {0}, height, width)"
    ndims = (4,)


class BatchNorm3d(_BatchNorm):
    """(x − mean) / √(var + ε) for each channel over the volumes of the batch; as `BatchNorm2d`, with its arguments.

    Shape: (n, num_features, depth, height, width), kept.
    Raises: ArgumentError: a size that is no positive int. ShapeError: an input of another size, or in training one
        with a single value a channel.

    >>> import chainrule as cr
    >>> cr.nn.BatchNorm3d(3)(cr.randn(2, 3, 4, 4, 4)).shape
    (2, 3, 4, 4, 4)
    """

    shapes = "(n, {0}, depth, height, width)"
    ndims = (5,)


# --- over the places of each sample


class _InstanceNorm(_ChannelNorm):
    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        dtype: object = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, dtype, bias)

    def forward(self, input: Tensor) -> Tensor:
        """The shape of `input`."""
        batched = input.ndim == self.ndims[-1]
        x = self._fitting(input, 1 if batched else 0)
        own = self.training or not self.track_running_stats
        momentum = 0.0 if self.momentum is None else self.momentum
        out = functional.instance_norm(
            x if batched else x.unsqueeze(0),
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            own,
            momentum,
            self.eps,
        )
        return out if batched else out.squeeze(0)


class InstanceNorm1d(_InstanceNorm):
    """(x − mean) / √(var + ε) for each channel of each sample over its length.

    Args:
        num_features: the channels of the input.
        eps: what is added to the variance.
        momentum: how far running statistics go towards the batch's.
        affine: whether there is a weight, 1 at first, and a bias, 0 at first.
        track_running_stats: whether there are running statistics, which evaluation then takes.
        dtype: of parameters and statistics; float32 if None.
        bias: whether there is a bias beside the weight.
    Shape: (n, num_features, length), or without n; kept.
    Raises: ArgumentError: a size that is no positive int. ShapeError: an input of another size, or of one place.
    Source: Ulyanov, Vedaldi, Lempitsky (2016), Instance normalization: the missing ingredient for fast stylization,
        arXiv:1607.08022.

    >>> import chainrule as cr
    >>> cr.nn.InstanceNorm1d(2)(cr.tensor([[1.0, 3.0], [10.0, 30.0]]))
    tensor([[-1.,  1.],
            [-1.,  1.]])
    """

    shapes = "(n, {0}, length), or without n"
    ndims = (2, 3)


class InstanceNorm2d(_InstanceNorm):
    """(x − mean) / √(var + ε) for each channel of each image over its places; arguments as of `InstanceNorm1d`.

    Shape: (n, num_features, height, width), or without n; kept.
    Raises: ArgumentError: a size that is no positive int. ShapeError: an input of another size, or of one place.

    >>> import chainrule as cr
    >>> cr.nn.InstanceNorm2d(3)(cr.randn(5, 3, 8, 8)).shape
    (5, 3, 8, 8)
    """

    shapes = "(n, {0}, height, width), or without n"
    ndims = (3, 4)
