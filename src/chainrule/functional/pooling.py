"""Pooling, under PyTorch's names: a reduction over windows. No derivative is stated here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from chainrule import dtypes
from chainrule.array import indexing, manipulation, statistical
from chainrule.core.node import at_user_line
from chainrule.errors import ArgumentError, DTypeError, ShapeError
from chainrule.functional.convolution import Sizes, channels_first, spread
from chainrule.ops import windows as ops

if TYPE_CHECKING:
    from chainrule.tensor import Tensor

__all__ = ["adaptive_avg_pool2d", "avg_pool1d", "avg_pool2d", "max_pool1d", "max_pool2d"]

_ROUNDING = "the last windows would hang over the edge; pad the input instead"


def max_pool1d(
    input: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:
    """The largest entry of each window; of those that tie, the first one receives the gradient.

    Args:
        input: (n, channels, length), or without n.
        kernel_size: of a window.
        stride: from one window to the next; None: `kernel_size`, so that they do not overlap.
        padding: how far a window may hang over; what is missing counts as −∞.
        dilation: from one place within a window to the next.
        ceil_mode: only False.
        return_indices: only False.
    Returns: (n, channels, positions), or without n.
    Raises: ShapeError: a window does not fit. ArgumentError: another option.

    >>> import chainrule as cr
    >>> cr.nn.functional.max_pool1d(cr.tensor([[1.0, 3.0, 2.0, 0.0]]), 2)
    tensor([[3., 2.]])
    """
    found = _pooled("max_pool1d", 1, input, (kernel_size, stride, padding, dilation), lowest=True, ceil_mode=ceil_mode)
    return _largest("max_pool1d", found, return_indices, 1)


def max_pool2d(
    input: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Tensor:
    """The largest entry of each window; of those that tie, the first one receives the gradient.

    Args:
        input: (n, channels, height, width), or without n.
        kernel_size: of a window; an int, or one for each dimension.
        stride: from one window to the next; None: `kernel_size`, so that they do not overlap.
        padding: how far a window may hang over; what is missing counts as −∞.
        dilation: from one place within a window to the next.
        ceil_mode: only False.
        return_indices: only False.
    Returns: (n, channels, positions down, positions across), or without n.
    Raises: ShapeError: a window does not fit. ArgumentError: another option.

    >>> import chainrule as cr
    >>> cr.nn.functional.max_pool2d(cr.arange(16.0).reshape(1, 4, 4), 2)
    tensor([[[ 5.,  7.],
             [13., 15.]]])
    """
    found = _pooled("max_pool2d", 2, input, (kernel_size, stride, padding, dilation), lowest=True, ceil_mode=ceil_mode)
    return _largest("max_pool2d", found, return_indices, 2)


def avg_pool1d(
    input: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """The mean of each window.

    Args:
        input: (n, channels, length), or without n.
        kernel_size: of a window.
        stride: from one window to the next; None: `kernel_size`, so that they do not overlap.
        padding: how far a window may hang over; what is missing counts as 0.
        ceil_mode: only False.
        count_include_pad: whether what is missing counts as an entry.
    Returns: (n, channels, positions), or without n.
    Raises: ShapeError: a window does not fit. ArgumentError: another option.

    >>> import chainrule as cr
    >>> cr.nn.functional.avg_pool1d(cr.tensor([[1.0, 3.0, 2.0, 0.0]]), 2)
    tensor([[2., 1.]])
    """
    _need_float("avg_pool1d", input)
    found = _pooled("avg_pool1d", 1, input, (kernel_size, stride, padding, 1), ceil_mode=ceil_mode)
    return _mean(found, 1) if count_include_pad else _mean_of_present(found, input, 1, (kernel_size, stride, padding))


def avg_pool2d(
    input: Tensor,
    kernel_size: Sizes,
    stride: Sizes | None = None,
    padding: Sizes = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The mean of each window.

    Args:
        input: (n, channels, height, width), or without n.
        kernel_size: of a window; an int, or one for each dimension.
        stride: from one window to the next; None: `kernel_size`, so that they do not overlap.
        padding: how far a window may hang over; what is missing counts as 0.
        ceil_mode: only False.
        count_include_pad: whether what is missing counts as an entry.
        divisor_override: what the sum of a window is divided by, in place of the count.
    Returns: (n, channels, positions down, positions across), or without n.
    Raises: ShapeError: a window does not fit. ArgumentError: another option.

    >>> import chainrule as cr
    >>> cr.nn.functional.avg_pool2d(cr.arange(16.0).reshape(1, 4, 4), 2)
    tensor([[[ 2.5000,  4.5000],
             [10.5000, 12.5000]]])
    """
    _need_float("avg_pool2d", input)
    found = _pooled("avg_pool2d", 2, input, (kernel_size, stride, padding, 1), ceil_mode=ceil_mode)
    if divisor_override is not None:
        if divisor_override == 0:
            raise at_user_line(ArgumentError("avg_pool2d: divisor_override must not be 0"))
        return statistical.sum(found, (-2, -1)) / divisor_override
    return _mean(found, 2) if count_include_pad else _mean_of_present(found, input, 2, (kernel_size, stride, padding))


def adaptive_avg_pool2d(input: Tensor, output_size: int | Sequence[int | None] | None) -> Tensor:
    """Means over windows that are chosen so that `output_size` of them cover the input.

    Where the sizes divide, the windows are equal and lie side by side; else window i reaches from ⌊i n / m⌋ to
    ⌈(i + 1) n / m⌉, and the two passes, down and across, are products with the matrix of these means.

    Args:
        input: (n, channels, height, width), or without n.
        output_size: (down, across), or one int for both; None keeps a size.
    Returns: (n, channels, down, across), or without n.
    Raises: ShapeError: the input has other dimensions. ArgumentError: a size that is no positive int.

    >>> import chainrule as cr
    >>> cr.nn.functional.adaptive_avg_pool2d(cr.arange(16.0).reshape(1, 4, 4), 1)
    tensor([[[7.5000]]])
    """
    name = "adaptive_avg_pool2d"
    _need_float(name, input)
    channels_first(name, input, 2)
    asked = tuple(output_size) if isinstance(output_size, Sequence) else (output_size, output_size)
    sizes = input.shape[-2:]
    wanted = spread(name, "output_size", [n if m is None else m for n, m in zip(sizes, asked, strict=False)], 2)
    if wanted == (1, 1):
        return statistical.mean(input, (-2, -1), True)
    if all(n and n % m == 0 for n, m in zip(sizes, wanted, strict=True)):
        step = tuple(n // m for n, m in zip(sizes, wanted, strict=True))
        return _mean(ops.windows(input, size=step, stride=step, dilation=(1, 1)), 2)
    down, across = _means(input, sizes[0], wanted[0]), _means(input, sizes[1], wanted[1])
    return down @ input @ across.t()


def _need_float(name: str, x: Tensor) -> None:
    if not dtypes.is_float(x.dtype):
        raise at_user_line(DTypeError(f"{name}: needs a float dtype; got {x.aval}; cast it with .to(cr.float32)"))


def _means(like: Tensor, n: int, m: int) -> Tensor:
    """(m, n): row i averages the entries of window i."""
    start, stop = np.arange(m) * n // m, -(-(np.arange(m) + 1) * n // m)
    place = np.arange(n)
    inside = (place >= start[:, None]) & (place < stop[:, None])
    return type(like).leaf((inside / inside.sum(axis=1, keepdims=True)).astype(like.dtype))


def _mean(found: Tensor, rank: int) -> Tensor:
    return statistical.mean(found, tuple(range(-rank, 0)))


def _mean_of_present(found: Tensor, input: Tensor, rank: int, options: tuple[Sizes, Sizes | None, Sizes]) -> Tensor:
    """The sum of each window, divided by how many of its entries are not padding."""
    places = tuple(range(-rank, 0))
    present = type(input).filled(input.aval._replace(shape=(1, *input.shape[-rank:])), 1.0)
    counts = statistical.sum(_pooled("", rank, present, (*options, 1)), places)
    return statistical.sum(found, places) / counts.reshape(counts.shape[1:])


def _largest(name: str, found: Tensor, return_indices: bool, rank: int) -> Tensor:
    if return_indices:
        raise at_user_line(
            ArgumentError(f"{name}: return_indices is not there; take cr.max over cr.nn.functional.windows")
        )
    entries = found.reshape(*found.shape[:-rank], math.prod(found.shape[-rank:]))
    where = statistical.argmax(entries, -1, True)
    return manipulation.squeeze(indexing.gather(entries, entries.ndim - 1, where), -1)


def _pooled(
    name: str,
    rank: int,
    x: Tensor,
    options: tuple[Sizes, Sizes | None, Sizes, Sizes],
    *,
    lowest: bool = False,
    ceil_mode: bool = False,
) -> Tensor:
    """The windows that a pooling reduces; with `lowest`, what hangs over is the lowest number there is, else 0."""
    channels_first(name, x, rank)
    if ceil_mode:
        raise at_user_line(ArgumentError(f"{name}: ceil_mode is not there: {_ROUNDING}"))
    size = spread(name, "kernel_size", options[0], rank)
    given = options[1]
    stride = size if given is None or given == () or given == [] else spread(name, "stride", given, rank)
    padding, dilation = spread(name, "padding", options[2], rank, 0), spread(name, "dilation", options[3], rank)
    spans = ops.reach(size, dilation)
    if any(2 * p > span for p, span in zip(padding, spans, strict=True)):
        raise at_user_line(ArgumentError(
            f"{name}: padding must be at most half of what a window spans, {list(spans)}; got {options[2]!r}"
        ))  # fmt: skip
    if any(padding):
        around = [n for p in reversed(padding) for n in (p, p)]
        x = manipulation.pad(x, around, _lowest(x.dtype) if lowest else 0)
    if any(n < span for n, span in zip(x.shape[-rank:], spans, strict=True)):
        raise at_user_line(ShapeError(f"{name}: the padded input is {x.aval}, a window spans {list(spans)}; pad it"))
    return ops.windows(x, size=size, stride=stride, dilation=dilation)


def _lowest(dtype: np.dtype) -> float:
    return -math.inf if dtypes.is_float(dtype) else int(np.iinfo(dtype).min)
