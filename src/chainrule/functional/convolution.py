"""Convolution, under PyTorch's names: a matrix product of windows. No derivative is stated here.

Every window of the input is laid out as a row, every filter as a row of the weight, and `linear` meets the two; so the
gradient of the weight is a product of gradients and windows, and that of the input is added up from windows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule.array import manipulation
from chainrule.core.node import at_user_line
from chainrule.errors import ArgumentError, DTypeError, ShapeError
from chainrule.functional.linear import as_tensor, linear, or_model
from chainrule.ops import windows as ops

if TYPE_CHECKING:
    from chainrule.tensor import Tensor

__all__ = ["conv1d", "conv2d", "overlap_add", "windows"]

Sizes = int | Sequence[int]


def windows(input: Tensor, size: Sizes, stride: Sizes = 1, dilation: Sizes = 1) -> Tensor:
    """Every window of the last dimensions, as a view: no entry is copied.

    Args:
        input: (…, n, m) for a `size` of two ints; as many last dimensions as it has.
        size: of a window; an int for one dimension.
        stride: from one window to the next.
        dilation: from one place within a window to the next.
    Returns: (…, positions, size): where the windows stand, then the places within one.
    Raises: ShapeError: a window does not fit into `input`.

    >>> import chainrule as cr
    >>> cr.nn.functional.windows(cr.tensor([1.0, 2.0, 3.0, 4.0]), 2)
    tensor([[1., 2.],
            [2., 3.],
            [3., 4.]])
    """
    rank = len(size) if isinstance(size, Sequence) else 1
    parts = {"size": size, "stride": stride, "dilation": dilation}
    return ops.windows(input, **{what: spread("windows", what, n, rank) for what, n in parts.items()})


def overlap_add(input: Tensor, shape: Sequence[int], size: Sizes, stride: Sizes = 1, dilation: Sizes = 1) -> Tensor:
    """The windows added back to where they were taken from: the transpose of `windows`, as explanations print it.

    Args:
        input: (…, positions, size), as `windows` gives it.
        shape: of what the windows were taken from.
        size: of a window; an int for one dimension.
        stride: from one window to the next.
        dilation: from one place within a window to the next.
    Returns: `shape`.
    Raises: ShapeError: the windows of that shape are others.

    >>> import chainrule as cr
    >>> cr.nn.functional.overlap_add(cr.ones(3, 2), (4,), 2)
    tensor([1., 2., 2., 1.])
    """
    rank = len(size) if isinstance(size, Sequence) else 1
    parts = {"size": size, "stride": stride, "dilation": dilation}
    given = {what: spread("overlap_add", what, n, rank) for what, n in parts.items()}
    return ops.overlap_add(input, shape=tuple(shape), **given)


def spread(name: str, what: str, given: Sizes, rank: int, least: int = 1) -> tuple[int, ...]:
    """An int for every dimension, or one for each.

    Raises: ArgumentError: neither, or one of them is less than `least`.
    """
    found: tuple[Any, ...] = tuple(given) if isinstance(given, Sequence) else (given,) * rank
    if len(found) == 1:
        found *= rank
    whole = all(isinstance(n, int | np.integer) and n >= least for n in found)
    if not whole or len(found) != rank:
        raise at_user_line(
            ArgumentError(
                f"{name}: {what} must be an int ≥ {least}{f', or {rank} of them' * (rank > 1)}; got {given!r}"
            )
        )
    return tuple(int(n) for n in found)


def conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Sizes | str = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """Σ over channels and places of window · filter, for every window of the input, plus the filter's bias.

    Args:
        input: (n, channels, length), or without n.
        weight: (filters, channels / groups, places).
        bias: (filters,), or None.
        stride: from one window to the next.
        padding: zeros put before and after; "same" keeps the length (stride 1), "valid" puts none.
        dilation: from one place within a window to the next.
        groups: parts that the channels are cut into; each filter sees one of them.
    Returns: (n, filters, positions), or without n.
    Raises: ShapeError: the sizes do not fit. DTypeError: the dtypes differ. ArgumentError: another option.

    >>> import chainrule as cr
    >>> cr.nn.functional.conv1d(cr.tensor([[1.0, 2.0, 4.0, 7.0]]), cr.tensor([[[-1.0, 1.0]]]))
    tensor([[1., 2., 3.]])
    """
    return _convolved("conv1d", 1, input, weight, bias, (stride, padding, dilation, groups))


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Sizes = 1,
    padding: Sizes | str = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """Σ over channels and places of window · filter, for every window of the input, plus the filter's bias.

    Args:
        input: (n, channels, height, width), or without n.
        weight: (filters, channels / groups, rows, columns).
        bias: (filters,), or None.
        stride: from one window to the next; an int, or one for each dimension.
        padding: zeros put on each side; "same" keeps height and width (stride 1), "valid" puts none.
        dilation: from one place within a window to the next.
        groups: parts that the channels are cut into; each filter sees one of them.
    Returns: (n, filters, positions down, positions across), or without n.
    Raises: ShapeError: the sizes do not fit. DTypeError: the dtypes differ. ArgumentError: another option.
    Source: Dumoulin, Visin (2016), A guide to convolution arithmetic for deep learning, arXiv:1603.07285; as a product
        of matrices: Chellapilla, Puri, Simard (2006), High performance convolutional neural networks for document
        processing.

    >>> import chainrule as cr
    >>> x, w = cr.arange(9.0).reshape(1, 1, 3, 3), cr.ones(1, 1, 2, 2)
    >>> cr.nn.functional.conv2d(x, w, cr.tensor([100.0]))
    tensor([[[[108., 112.],
              [120., 124.]]]])
    """
    return _convolved("conv2d", 2, input, weight, bias, (stride, padding, dilation, groups))


_SPATIAL = {1: "length", 2: "height, width"}


def channels_first(name: str, input: Tensor, rank: int) -> bool:
    """Is there a batch dimension?

    Raises: ShapeError: neither with one nor without.
    """
    if input.ndim not in (rank + 1, rank + 2):
        raise at_user_line(ShapeError(
            f"{name}: the input must be (n, channels, {_SPATIAL[rank]}), or without n; got {input.aval}"
        ))  # fmt: skip
    return input.ndim == rank + 2


def _convolved(
    name: str,
    rank: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    options: tuple[Sizes, Sizes | str, Sizes, int],
) -> Tensor:
    x: Tensor = as_tensor(name, input, weight)
    stride, dilation = spread(name, "stride", options[0], rank), spread(name, "dilation", options[2], rank)
    groups = options[3]
    batched = channels_first(name, x, rank)
    _check_filters(name, rank, x, weight, bias, groups)
    if not batched:
        x = x.reshape(1, *x.shape)
    size = weight.shape[2:]
    x = _padded(name, x, options[1], size, stride, dilation)
    spans = ops.reach(size, dilation)
    if any(n < span for n, span in zip(x.shape[2:], spans, strict=True)):
        raise at_user_line(ShapeError(
            f"{name}: the padded input is {x.aval}, a filter of {weight.aval} spans {list(spans)}; pad it with more, "
            f"or use smaller filters"
        ))  # fmt: skip
    out = _product(x, weight, bias, stride, dilation, groups)
    return out if batched else out.reshape(out.shape[1:])


def _check_filters(name: str, rank: int, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> None:
    """Raises: ShapeError, DTypeError, ArgumentError: the weight or the bias does not fit the input."""
    if weight.ndim != rank + 2 or 0 in weight.shape[2:]:
        places = "places" if rank == 1 else "rows, columns"
        raise at_user_line(
            ShapeError(f"{name}: the weight must be (filters, channels / groups, {places}); got {weight.aval}")
        )
    channels, filters = x.shape[-rank - 1], weight.shape[0]
    if type(groups) is not int or groups < 1 or channels % groups or filters % groups:
        raise at_user_line(ArgumentError(
            f"{name}: groups must be a positive int that divides the {channels} channels and the {filters} filters; "
            f"got {groups!r}"
        ))  # fmt: skip
    if weight.shape[1] * groups != channels:
        raise at_user_line(ShapeError(
            f"{name}: the weight {weight.aval} takes {weight.shape[1] * groups} channels"
            f"{f' in {groups} groups' * (groups > 1)}; got {x.aval}, which has {channels}"
        ))  # fmt: skip
    if x.dtype != weight.dtype:
        raise at_user_line(DTypeError(
            f"{name}: the input is {x.aval}, the weight {weight.aval}; cast the input with "
            f"x.to(cr.{weight.dtype}){or_model(x)}"
        ))  # fmt: skip
    if bias is not None and bias.shape != (filters,):
        raise at_user_line(ShapeError(
            f"{name}: the bias {bias.aval} does not fit the weight {weight.aval}; it needs one entry a filter"
        ))  # fmt: skip


def _padded(
    name: str, x: Tensor, padding: Sizes | str, size: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> Tensor:
    if padding == "valid":
        return x
    if padding == "same":
        if set(stride) != {1}:
            raise at_user_line(ArgumentError(f"{name}: padding='same' needs stride 1; got stride {tuple(stride)}"))
        missing = [span - 1 for span in ops.reach(tuple(size), tuple(dilation))]
        pairs = [(n // 2, n - n // 2) for n in missing]
    elif isinstance(padding, str):
        raise at_user_line(
            ArgumentError(f"{name}: padding must be 'same', 'valid', an int or one for each dimension; got {padding!r}")
        )
    else:
        pairs = [(n, n) for n in spread(name, "padding", padding, len(size), 0)]
    if not any(n for pair in pairs for n in pair):
        return x
    return manipulation.pad(x, [n for pair in reversed(pairs) for n in pair])


def _product(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, ...], dilation: tuple[int, ...], groups: int
) -> Tensor:
    """Windows as rows, filters as rows, and their product put back into (n, filters, positions)."""
    (n, channels, *_), (filters, _, *size) = x.shape, weight.shape
    rank = len(size)
    steps = {"size": tuple(size), "stride": stride, "dilation": dilation}
    if groups > 1:
        return _grouped(x.reshape(n, groups, channels // groups, *x.shape[2:]), weight, bias, steps)
    found = ops.windows(x, **steps)
    where = found.shape[2 : 2 + rank]
    # (n, channels, positions, places) -> (n, positions, places, channels): a row for each position. Channels come last
    # because NumPy then copies long runs; the filters are laid out alike.
    rows = found.permute(0, *range(2, 2 + 2 * rank), 1)
    width = channels * math.prod(size)
    rows = rows.reshape(n * math.prod(where), width)
    filter_rows = weight.permute(0, *range(2, 2 + rank), 1).reshape(filters, width)
    out = linear(rows, filter_rows, bias)
    return out.reshape(n, *where, filters).permute(0, rank + 1, *range(1, rank + 1))


def _grouped(x: Tensor, weight: Tensor, bias: Tensor | None, steps: dict[str, tuple[int, ...]]) -> Tensor:
    """The same for each group of channels: one batch of products."""
    n, groups, channels = x.shape[:3]
    filters, rank = weight.shape[0], len(steps["size"])
    found = ops.windows(x, **steps)
    where = found.shape[3 : 3 + rank]
    rows = found.permute(1, 0, *range(3, 3 + 2 * rank), 2)
    width = channels * math.prod(steps["size"])
    rows = rows.reshape(groups, n * math.prod(where), width)
    filter_rows = weight.permute(0, *range(2, 2 + rank), 1).reshape(groups, filters // groups, width)
    out: Tensor = rows @ filter_rows.mT
    if bias is not None:
        out = out + bias.reshape(groups, 1, filters // groups)
    out = out.reshape(groups, n, *where, filters // groups)
    return out.permute(1, 0, rank + 2, *range(2, rank + 2)).reshape(n, filters, *where)
