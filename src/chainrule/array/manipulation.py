"""Functions that move entries without computing with them, as a user calls them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule import dtypes
from chainrule.array.align import (
    as_dtype,
    broadcast_shapes,
    check_device,
    is_device,
    not_a_tensor,
    one_dim,
    sizes,
    some_dims,
    to_dtype,
)  # fmt: skip
from chainrule.array.align import expand as stretched
from chainrule.core.node import AnyNode, Node, apply, at_user_line
from chainrule.errors import ArgumentError, OutOfRangeError, ShapeError
from chainrule.ops import movement

if TYPE_CHECKING:
    from chainrule.tensor import Tensor


def reshape(x: Tensor, *shape: Any) -> Tensor:
    """The same entries, in order, in another shape; one size may be -1."""
    target = shape if len(shape) == 1 and type(shape[0]) is int else sizes(shape)
    aval = x.aval
    if aval.shape == target:
        return x
    if -1 in target:
        known, size = -math.prod(target), aval.size
        if target.count(-1) > 1 or known == 0 or size % known:
            raise at_user_line(ShapeError(f"reshape: {aval} with {size} entries does not fit {list(target)}"))
        return _reshaped(x, tuple([size // known if n == -1 else n for n in target]))
    return movement.reshape(x, shape=target)


def _reshaped(x: AnyNode, shape: tuple[int, ...]) -> AnyNode:
    """`x` in a shape that is known to hold its entries."""
    return x if x.aval.shape == shape else apply(movement.reshape, (x,), {"shape": shape})


def flatten(x: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """The dimensions from `start_dim` to `end_dim` joined to one."""
    first, last = one_dim("flatten", start_dim, x.ndim), one_dim("flatten", end_dim, x.ndim)
    if first > last:
        raise at_user_line(ArgumentError(f"flatten: start_dim {start_dim} comes after end_dim {end_dim}"))
    return _reshaped(x, (*x.shape[:first], math.prod(x.shape[first : last + 1]), *x.shape[last + 1 :]))


def squeeze(x: Tensor, dim: int | Sequence[int] | None = None) -> Tensor:
    """Without the dimensions of size 1; with `dim`, without that one if its size is 1."""
    if type(dim) is int and x.aval.shape:
        shape, d = x.aval.shape, one_dim("squeeze", dim, len(x.aval.shape))
        return x if shape[d] != 1 else _reshaped(x, shape[:d] + shape[d + 1 :])
    dims = () if dim is not None and dim == () else some_dims("squeeze", dim, x.ndim)
    return _reshaped(x, tuple(n for d, n in enumerate(x.shape) if d not in dims or n != 1))


def unsqueeze(x: Tensor, dim: int) -> Tensor:
    """With a new dimension of size 1 at position `dim`."""
    where = one_dim("unsqueeze", dim, x.ndim + 1)
    return movement.reshape(x, shape=(*x.shape[:where], 1, *x.shape[where:]))


def permute(x: Tensor, *dims: Any) -> Tensor:
    """The dimensions in another order: dimension i of the result is dimension dims[i] of `x`."""
    order = tuple(one_dim("permute", d, x.ndim) for d in sizes(dims))
    return movement.permute(x, dims=order)


def transpose(x: Tensor, dim0: int, dim1: int) -> Tensor:
    """Two dimensions exchanged."""
    order = list(range(x.ndim))
    first, second = one_dim("transpose", dim0, x.ndim), one_dim("transpose", dim1, x.ndim)
    if x.ndim == 0:
        return x
    order[first], order[second] = order[second], order[first]
    return movement.permute(x, dims=tuple(order))


def swapaxes(x: Tensor, axis0: int, axis1: int) -> Tensor:
    """Two dimensions exchanged: NumPy's name for `transpose`."""
    return transpose(x, axis0, axis1)


def t(x: Tensor) -> Tensor:
    """The transpose of a matrix; a vector or a scalar as it is."""
    if x.ndim > 2:
        raise at_user_line(ShapeError(f"t: expected a matrix; got {x.aval}; use .mT for the last two dimensions"))
    return x if x.ndim < 2 else movement.permute(x, dims=(1, 0))


def matrix_transpose(x: Tensor) -> Tensor:
    """The last two dimensions exchanged: x.mT."""
    n = x.aval.ndim
    if n == 2:
        return apply(movement.permute, (x,), {"dims": (1, 0)})
    if n < 2:
        raise at_user_line(ShapeError(f"mT: expected a matrix or a batch of them; got {x.aval}"))
    return movement.permute(x, dims=(*range(n - 2), n - 1, n - 2))


def expand(x: Tensor, *shape: Any) -> Tensor:
    """`x` with dimensions of size 1 stretched, and new ones in front; -1 keeps a size. No entry is copied."""
    target = list(sizes(shape))
    new = len(target) - x.aval.ndim
    for d, n in enumerate(target):
        if n == -1 and d >= new >= 0:
            target[d] = x.aval.shape[d - new]
    return stretched(x, tuple(target))


def expand_as(x: Tensor, other: Tensor) -> Tensor:
    """`x` stretched to the shape of `other`."""
    return stretched(x, other.shape)


def broadcast_tensors(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors stretched to their common shape."""
    shape = broadcast_shapes("broadcast_tensors", [x.aval for x in tensors])
    return tuple(stretched(x, shape) for x in tensors)


def flip(x: Tensor, *args: Any, dims: Sequence[int] | None = None) -> Tensor:
    """The entries in reverse order along each of `dims`, given as ints or as one tuple."""
    along = sizes(args if dims is None else (dims,))
    return movement.flip(x, dims=some_dims("flip", along, x.ndim)) if along and x.ndim else x.clone()


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors joined along an existing dimension. They are equal in all others."""
    parts = list(tensors)
    _all_tensors("cat", parts)
    dtype = parts[0].dtype
    for part in parts[1:]:
        dtype = dtypes.promote(dtype, part.dtype)
    # An empty vector once stood for nothing at all, whatever the others' dimensions; programs rely on it.
    parts = [p for p in parts if p.shape != (0,)] or parts
    return movement.cat(*(to_dtype(p, dtype) for p in parts), dim=one_dim("cat", dim, parts[0].ndim))


concat = cat


def _all_tensors(name: str, parts: Sequence[object]) -> None:
    if not parts:
        raise at_user_line(ArgumentError(f"{name}: expected at least one tensor; got none"))
    for part in parts:
        if not isinstance(part, Node):
            raise not_a_tensor(name, part)


def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors of one shape joined along a new dimension."""
    parts = list(tensors)
    _all_tensors("stack", parts)
    if len({p.shape for p in parts}) > 1:
        raise at_user_line(
            ShapeError(f"stack: tensors must share one shape; got {', '.join(str(p.aval) for p in parts)}")
        )
    return cat([unsqueeze(p, dim) for p in parts], dim)


def split(x: Tensor, size: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """`x` in parts along `dim`: of one size, the last one smaller if need be, or of the sizes given."""
    where = one_dim("split", dim, x.ndim)
    n = x.shape[where]
    if isinstance(size, int) and size < 1:
        raise at_user_line(ArgumentError(f"split: the size of a part must be at least 1; got {size}"))
    lengths = [min(size, n - start) for start in range(0, n, size)] if isinstance(size, int) else list(size)
    if sum(lengths) != n:
        raise at_user_line(
            ArgumentError(f"split: sizes {lengths} add to {sum(lengths)}, dimension {dim} of {x.aval} has {n}")
        )
    parts, start = [], 0
    for length in lengths:
        parts.append(narrow(x, where, start, length))
        start += length
    return tuple(parts)


def chunk(x: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """`x` in at most `chunks` equal parts along `dim`, the last one smaller if need be."""
    n = x.shape[one_dim("chunk", dim, x.ndim)]
    if chunks < 1:
        raise at_user_line(ArgumentError(f"chunk: the number of parts must be at least 1; got {chunks}"))
    return split(x, max(1, -(-n // chunks)), dim)


def narrow(x: Tensor, dim: int, start: int, length: int) -> Tensor:
    """`length` entries of `x` along `dim`, from `start` on; a negative `start` counts from the end."""
    where = one_dim("narrow", dim, x.ndim)
    if x.ndim == 0:
        raise at_user_line(ShapeError(f"narrow: {x.aval} has no dimension to narrow"))
    first = int(start) + (x.shape[where] if start < 0 else 0)
    if not 0 <= first <= first + length <= x.shape[where]:
        raise at_user_line(
            OutOfRangeError(f"narrow: {length} entries from {int(start)} on are not in dimension {dim} of {x.aval}")
        )
    window = tuple((first, first + length, 1) if d == where else (0, n, 1) for d, n in enumerate(x.shape))
    return movement.slice_(x, window=window)


def pad(x: Tensor, pad: Sequence[int], value: float = 0.0) -> Tensor:
    """`x` with `value` around it.

    Args:
        x: any shape.
        pad: (before, after) for the last dimension, then for the one before it, and so on, as in PyTorch.
        value: what to fill with.
    """
    if len(pad) % 2 or len(pad) > 2 * x.ndim or any(n < 0 for n in pad):
        raise at_user_line(
            ArgumentError(f"pad: expected (before, after) ≥ 0 for at most {x.ndim} dimensions; got {tuple(pad)}")
        )
    pairs = [(0, 0)] * (x.ndim - len(pad) // 2) + [(pad[i], pad[i + 1]) for i in range(len(pad) - 2, -1, -2)]
    shape = tuple(n + before + after for n, (before, after) in zip(x.shape, pairs, strict=True))
    window = tuple((before, before + n, 1) for n, (before, _) in zip(x.shape, pairs, strict=True))
    padded: Any = movement.embed(x, shape=shape, window=window)
    if value == 0:
        return padded  # type: ignore[no-any-return]
    inside = movement.embed(type(x).filled(x.aval._replace(dtype=dtypes.bool_), True), shape=shape, window=window)
    return padded.where(inside, type(x).filled(x.aval._replace(shape=()), value))  # type: ignore[no-any-return]


def cumsum(x: Tensor, dim: int, *, dtype: object = None) -> Tensor:
    """Running sum along `dim`; integers and bools are counted as int64. `dtype`: what to cast `x` to first."""
    if dtype is not None:
        x = to_dtype(x, as_dtype(dtype))
    elif not dtypes.is_float(x.dtype):
        x = to_dtype(x, dtypes.DEFAULT_INT)
    if x.ndim == 0:
        return x
    return movement.cumsum(x, dim=one_dim("cumsum", dim, x.ndim))


def to(x: Tensor, *args: Any, dtype: object = None, device: object = None) -> Tensor:
    """`x` cast to another dtype. A float gradient is cast back on the way; an integer carries none.

    Args:
        x: any shape.
        args: a dtype, "cpu", both, or a tensor whose dtype is meant.
        dtype: the same by name.
        device: "cpu" is the only one there is.
    Raises: DTypeError: there is no such dtype. ArgumentError: another device.
    """
    for arg in args:
        if isinstance(arg, Node):
            dtype = arg.aval.dtype
        elif is_device(arg):
            device = arg
        else:
            dtype = arg
    check_device("to", device)
    return x if dtype is None else to_dtype(x, as_dtype(dtype))


def tril(x: Tensor, diagonal: int = 0) -> Tensor:
    """The lower triangle of each matrix, up to `diagonal`; 0 above."""
    return _triangle(x, lambda row, column: column - row <= diagonal)


def triu(x: Tensor, diagonal: int = 0) -> Tensor:
    """The upper triangle of each matrix, from `diagonal` on; 0 below."""
    return _triangle(x, lambda row, column: column - row >= diagonal)


def _triangle(x: Tensor, keeps: Any) -> Tensor:
    if x.ndim < 2:
        raise at_user_line(ShapeError(f"tril, triu: expected a matrix or a batch of them; got {x.aval}"))
    row, column = np.ogrid[: x.shape[-2], : x.shape[-1]]
    return x.where(type(x).leaf(keeps(row, column)), False if x.dtype == dtypes.bool_ else 0)
