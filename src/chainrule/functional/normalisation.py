"""Normalisation, under PyTorch's names: over the last dimensions, the batch, or places. No derivative is stated here.

What is normalised over which dimensions is all that these functions differ in; the op `normalize` does it for each.
Running statistics are kept beside: updated in place, without a gradient, and read in evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from chainrule import dtypes
from chainrule.array import elementwise, statistical
from chainrule.core.node import ENGINE_OFF, at_user_line, recording
from chainrule.errors import ArgumentError, DTypeError, ShapeError
from chainrule.functional.linear import as_tensor
from chainrule.ops import normalisation

if TYPE_CHECKING:
    from chainrule.tensor import Tensor

__all__ = ["batch_norm", "group_norm", "instance_norm", "layer_norm", "rms_norm"]


def layer_norm(
    input: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """(x − mean) / √(var + ε) over the last dimensions, times the weight, plus the bias.

    Args:
        input: (…, *normalized_shape), float.
        normalized_shape: the last sizes of the input, over which mean and variance are taken.
        weight: normalized_shape, or None.
        bias: normalized_shape, or None.
        eps: what is added to the variance, so that it is not 0.
    Returns: the shape of `input`.
    Raises: ShapeError: the sizes do not fit. DTypeError: `input` is not float, or the dtypes differ.
    Source: Ba, Kiros, Hinton (2016), Layer normalization, arXiv:1607.06450.

    >>> import chainrule as cr
    >>> cr.nn.functional.layer_norm(cr.tensor([[1.0, 2.0, 3.0]]), 3)
    tensor([[-1.2247,  0.    ,  1.2247]])
    """
    x, dims = _checked("layer_norm", input, normalized_shape, weight, bias)
    out: Tensor = normalisation.normalize(x, dim=dims, eps=float(eps))
    if weight is not None:
        out = out * weight
    return out if bias is None else out + bias


def rms_norm(
    input: Tensor, normalized_shape: int | Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """x / √(mean of x² + ε) over the last dimensions, times the weight.

    Args:
        input: (…, *normalized_shape), float.
        normalized_shape: the last sizes of the input, over which the mean is taken.
        weight: normalized_shape, or None.
        eps: what is added to the mean, so that it is not 0; None: the distance from 1 to the next float of the dtype.
    Returns: the shape of `input`.
    Raises: ShapeError: the sizes do not fit. DTypeError: `input` is not float, or the dtypes differ.
    Source: Zhang, Sennrich (2019), Root mean square layer normalization, arXiv:1910.07467.

    >>> import chainrule as cr
    >>> cr.nn.functional.rms_norm(cr.tensor([[3.0, 4.0]]), 2)
    tensor([[0.8485, 1.1314]])
    """
    x, dims = _checked("rms_norm", input, normalized_shape, weight, None)
    least = dtypes.epsilon(x.dtype) if eps is None else float(eps)
    out: Tensor = x * elementwise.rsqrt(statistical.mean(elementwise.square(x), dims, True) + least)
    return out if weight is None else out * weight


def _checked(
    name: str, input: Any, normalized_shape: int | Sequence[int], weight: Any, bias: Any
) -> tuple[Any, tuple[int, ...]]:
    """The input as a tensor, and the dimensions that `normalized_shape` names."""
    x = as_tensor(name, input, input if weight is None else weight)
    last = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if not last or x.shape[max(x.ndim - len(last), 0) :] != last:
        raise at_user_line(ShapeError(
            f"{name}: the last sizes of the input must be {list(last)}, one at least; got {x.aval}"
        ))  # fmt: skip
    _check_beside(name, x, last, "", weight=weight, bias=bias)
    return x, tuple(range(x.ndim - len(last), x.ndim))


def _check_beside(name: str, x: Tensor, shape: tuple[int, ...], why: str, **beside: Tensor | None) -> None:
    """Raises: DTypeError: `x` is not float, or a tensor beside it of another dtype. ShapeError: one has another shape.

    why: what the shape is, for the message.
    """
    if not dtypes.is_float(x.dtype):
        raise at_user_line(DTypeError(f"{name}: needs a float dtype; got {x.aval}; cast it with .to(cr.float32)"))
    for what, given in beside.items():
        if given is None:
            continue
        if given.shape != shape:
            raise at_user_line(ShapeError(f"{name}: the {what} must be {list(shape)}{why}; got {given.aval}"))
        if given.dtype != x.dtype:
            raise at_user_line(DTypeError(
                f"{name}: the input is {x.aval}, the {what} {given.aval}; cast one of them with .to()"
            ))  # fmt: skip


# --- over the batch, over places, over groups of channels: the channels are dimension 1


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float | Tensor = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """(x − mean) / √(var + ε) for each channel over the batch and all places, times the weight, plus the bias.

    In training mean and variance are those of this batch, and the running ones go towards them, in place and without a
    gradient: running ← (1 − momentum) · running + momentum · batch's, the variance with n − 1 below. In evaluation the
    running ones are taken, so that no entry depends on another.

    Args:
        input: (n, channels, …), float.
        running_mean: (channels,). None: not kept, which only training does without.
        running_var: as `running_mean`.
        weight: (channels,), or None.
        bias: (channels,), or None.
        training: whether the statistics are the batch's.
        momentum: how far the running statistics go towards the batch's; a number, or a tensor without dimensions.
        eps: what is added to the variance, so that it is not 0.
    Returns: the shape of `input`.
    Raises: ShapeError: the sizes do not fit, or in training a channel has one value only, which is its own mean.
        DTypeError: `input` is not float, or the dtypes differ. ArgumentError: evaluation without running statistics.
    Source: Ioffe, Szegedy (2015), Batch normalization: accelerating deep network training by reducing internal
        covariate shift, arXiv:1502.03167.

    >>> import chainrule as cr
    >>> x, mean, var = cr.tensor([[1.0, 10.0], [3.0, 30.0]]), cr.zeros(2), cr.ones(2)
    >>> cr.nn.functional.batch_norm(x, mean, var, training=True)
    tensor([[-1., -1.],
            [ 1.,  1.]])
    >>> mean, var
    (tensor([0.2, 2. ]), tensor([ 1.1, 20.9]))
    """
    x = _with_channels("batch_norm", input, weight, bias, running_mean, running_var)
    if not training:
        return _affine(_standardized("batch_norm", x, running_mean, running_var, eps), weight, bias)
    dims = (0, *range(2, x.ndim))
    if math.prod(x.shape[d] for d in dims) == 1:
        raise at_user_line(ShapeError(
            f"batch_norm: expected more than 1 value per channel when training; got {x.aval}; take a larger batch "
            f"(drop_last=True leaves out a short last one), or evaluate with .eval()"
        ))  # fmt: skip
    if x.aval.size:
        _follow(running_mean, lambda: statistical.mean(x, dims), momentum)
        _follow(running_var, lambda: statistical.var(x, dims, correction=1), momentum)
    return _affine(normalisation.normalize(x, dim=dims, eps=float(eps)), weight, bias)


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float | Tensor = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """(x − mean) / √(var + ε) for each channel of each sample over its places, times the weight, plus the bias.

    Args:
        input: (n, channels, places, …), float.
        running_mean: (channels,), or None. It goes towards the mean over the batch of what each sample has.
        running_var: as `running_mean`.
        weight: (channels,), or None.
        bias: (channels,), or None.
        use_input_stats: whether the statistics are the sample's; else the running ones are taken.
        momentum: how far the running statistics go towards the batch's; a number, or a tensor without dimensions.
        eps: what is added to the variance, so that it is not 0.
    Returns: the shape of `input`.
    Raises: ShapeError: the sizes do not fit, or a channel has one place only. DTypeError: `input` is not float, or the
        dtypes differ. ArgumentError: neither the sample's statistics nor running ones.
    Source: Ulyanov, Vedaldi, Lempitsky (2016), Instance normalization: the missing ingredient for fast stylization,
        arXiv:1607.08022.

    >>> import chainrule as cr
    >>> cr.nn.functional.instance_norm(cr.tensor([[[1.0, 3.0], [10.0, 30.0]]]))
    tensor([[[-1.,  1.],
             [-1.,  1.]]])
    """
    x = _with_channels("instance_norm", input, weight, bias, running_mean, running_var)
    if not use_input_stats:
        return _affine(_standardized("instance_norm", x, running_mean, running_var, eps), weight, bias)
    dims = tuple(range(2, x.ndim))
    if not dims or math.prod(x.shape[2:]) == 1:
        raise at_user_line(ShapeError(
            f"instance_norm: expected more than 1 place in each channel; got {x.aval}, (n, channels, places, …)"
        ))  # fmt: skip
    if x.aval.size:
        _follow(running_mean, lambda: statistical.mean(x, (0, *dims)), momentum)
        _follow(running_var, lambda: statistical.mean(statistical.var(x, dims, correction=1), 0), momentum)
    return _affine(normalisation.normalize(x, dim=dims, eps=float(eps)), weight, bias)


def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """(x − mean) / √(var + ε) over each group of channels of each sample, times the weight, plus the bias.

    Args:
        input: (n, channels, …), float.
        num_groups: how many groups of equal size the channels are cut into, in their order.
        weight: (channels,), or None.
        bias: (channels,), or None.
        eps: what is added to the variance, so that it is not 0.
    Returns: the shape of `input`.
    Raises: ArgumentError: the groups do not divide the channels. ShapeError: the sizes do not fit. DTypeError: `input`
        is not float, or the dtypes differ.
    Source: Wu, He (2018), Group normalization, arXiv:1803.08494.

    >>> import chainrule as cr
    >>> cr.nn.functional.group_norm(cr.tensor([[1.0, 3.0, 10.0, 30.0]]), 2)
    tensor([[-1.,  1., -1.,  1.]])
    """
    x = _with_channels("group_norm", input, weight, bias)
    n, channels = x.shape[:2]
    if type(num_groups) is not int or num_groups < 1 or channels % num_groups:
        raise at_user_line(ArgumentError(
            f"group_norm: num_groups must be a positive int that divides the {channels} channels; got {num_groups!r}"
        ))  # fmt: skip
    grouped = x.reshape(n, num_groups, channels // num_groups, *x.shape[2:])
    out = normalisation.normalize(grouped, dim=tuple(range(2, grouped.ndim)), eps=float(eps))
    return _affine(out.reshape(x.shape), weight, bias)


def _with_channels(
    name: str,
    input: Any,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
) -> Any:
    """The input as a tensor that the others fit to."""
    like = next((t for t in (weight, bias, running_mean, running_var) if t is not None), input)
    x = as_tensor(name, input, like)
    if x.ndim < 2:
        raise at_user_line(ShapeError(f"{name}: the input must be (n, channels, …); got {x.aval}"))
    beside = {"weight": weight, "bias": bias, "running_mean": running_mean, "running_var": running_var}
    _check_beside(name, x, x.shape[1:2], ", an entry a channel", **beside)
    return x


def _by_channel(x: Tensor, values: Tensor) -> Tensor:
    """An entry a channel, as it meets the dimensions of `x`."""
    return values if x.ndim == 2 else values.reshape(-1, *(1,) * (x.ndim - 2))


def _affine(out: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    if weight is not None:
        out = out * _by_channel(out, weight)
    return out if bias is None else out + _by_channel(out, bias)


def _standardized(name: str, x: Tensor, mean: Tensor | None, var: Tensor | None, eps: float) -> Tensor:
    """`x` by statistics that are given.

    Raises: ArgumentError: one is not.
    """
    if mean is None or var is None:
        raise at_user_line(ArgumentError(
            f"{name}: running_mean and running_var must be given where the input's own statistics are not taken; "
            f"got None"
        ))  # fmt: skip
    return (x - _by_channel(x, mean)) * _by_channel(x, elementwise.rsqrt(var + float(eps)))


def _follow(running: Tensor | None, seen: Callable[[], Tensor], momentum: float | Tensor) -> None:
    """Bring a running statistic nearer to what this batch has, in place."""
    if running is not None:
        recording(ENGINE_OFF, lambda: running.copy_((1 - momentum) * running + momentum * seen()))
