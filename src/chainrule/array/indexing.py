"""Indexing as a user writes it: x[2, 1:, None], x[rows], x[mask], gather, and their like."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule import dtypes
from chainrule.array import elementwise
from chainrule.array.align import as_node, expand, one_dim, to_dtype
from chainrule.core.aval import Aval
from chainrule.core.node import AnyNode, apply, at_user_line
from chainrule.core.tracing import known
from chainrule.errors import ArgumentError, DTypeError, OutOfRangeError, ShapeError, SymbolicValueError
from chainrule.ops import indexing, movement

if TYPE_CHECKING:
    from chainrule.tensor import Tensor


def getitem(x: Tensor, key: Any) -> Tensor:
    """x[key]: ints, slices, None, `...`, integer tensors or lists, bool masks, in any mix.

    The result is NumPy's, but for an int among arrays: x[0, :, rows] is x[0][:, rows], as in PyTorch.

    Raises: OutOfRangeError: an int or an entry of an index that does not exist.
    """
    if type(key) is int and x.aval.shape:  # x[i], the commonest by far, needs no rewriting of the key
        first, *rest = x.aval.shape
        i = _position(key, first, 0)
        window = ((i, i + 1, 1), *[(0, n, 1) for n in rest])
        return apply(movement.reshape, (apply(movement.slice_, (x,), {"window": window}),), {"shape": tuple(rest)})
    parts = _spelled_out(key, x.ndim)
    basic: list[tuple[Any, int | None]] = []
    arrays: list[tuple[int, Any]] = []
    source = 0  # the dimension of x that the next part speaks of
    for part in parts:
        if part is None:
            basic.append((None, None))
            continue
        if isinstance(part, slice):
            basic.append((part, source))
        elif isinstance(part, int):
            basic.append((_position(part, x.shape[source], source), source))
        else:
            for array in _as_indices(part, x, source):
                arrays.append((len(basic), array))
                basic.append((slice(None), source))
                source += 1
            continue
        source += 1
    picked, places = _basic(x, basic)
    if arrays:
        picked = _by_arrays(picked, [(places[where], array) for where, array in arrays])
    return picked


def none_below_zero(index: Tensor, size: int) -> Tensor:
    """An index of classes or rows; entries below 0 are beyond the end, where they are not known and nobody can check.

    Where they are looked up one beyond the end is reported; one below 0 would count from the end.
    """
    if known(index) is not None or index.dtype.kind == "u":
        return index
    index = to_dtype(index, dtypes.int64)
    return elementwise.where(index < 0, size, index)


def _spelled_out(key: Any, ndim: int) -> list[Any]:
    """The key as a list with one part a dimension (None adds one; a mask takes as many as it has)."""
    parts = list(key) if isinstance(key, tuple) else [key]
    used = sum(0 if p is None or p is Ellipsis else getattr(p, "ndim", 1) if _is_mask(p) else 1 for p in parts)
    if used > ndim:
        raise at_user_line(OutOfRangeError(f"index: {used} dimensions indexed, the tensor has {ndim}"))
    fill = [slice(None)] * (ndim - used)
    places = [i for i, p in enumerate(parts) if p is Ellipsis]
    if len(places) > 1:
        raise at_user_line(ArgumentError("index: `...` may stand once"))
    if places:
        parts[places[0] : places[0] + 1] = fill
    else:
        parts += fill
    return [operator.index(p) if isinstance(p, int | np.integer) and not isinstance(p, bool) else p for p in parts]


def _is_mask(part: Any) -> bool:
    return getattr(part, "dtype", None) == dtypes.bool_ and getattr(part, "ndim", 0) > 0


def _position(i: int, size: int, dim: int) -> int:
    if not -size <= i < size:
        raise at_user_line(OutOfRangeError(f"index: {i} is out of range for dimension {dim} of size {size}"))
    return i % size


def _as_indices(part: Any, x: Tensor, dim: int) -> list[Any]:
    """Integer index nodes for one advanced part: itself, or the positions where a mask is true."""
    node = as_node(np.asarray(part) if isinstance(part, list | tuple | range) else part, x, "index")
    value = known(node)
    if node.dtype == dtypes.bool_:
        if value is None:
            raise at_user_line(
                SymbolicValueError("index: the shape of x[mask] depends on values; use where(mask, x, 0)")
            )
        if node.shape != x.shape[dim : dim + node.ndim]:
            raise at_user_line(ShapeError(f"index: the mask {node.aval} does not match dimensions {dim}… of {x.aval}"))
        return [type(x).leaf(positions) for positions in np.nonzero(value)]
    if not dtypes.is_integer(node.dtype):
        raise at_user_line(
            DTypeError(f"index: expected ints, slices, None, `...`, integer or bool tensors; got {node.aval}")
        )
    if value is not None:
        size = x.shape[dim]
        try:
            indexing.check_range("index", value, size)
        except OutOfRangeError as error:
            raise at_user_line(error) from None
        if value.size and value.min() < 0:
            node = type(x).leaf(np.where(value < 0, value + size, value))
    return [node]


def _basic(x: AnyNode, parts: Sequence[tuple[Any, int | None]]) -> tuple[AnyNode, list[int]]:
    """Slices, ints and None: a window, a flip where a step is negative, a reshape. Also where each part ends up."""
    sizes = x.aval.shape
    window: list[tuple[int, int, int]] = []
    flipped: list[int] = []
    shape: list[int] = []
    places: list[int] = []
    for part, source in parts:
        places.append(len(shape))
        if source is None:
            shape.append(1)
        elif isinstance(part, int):
            window.append((part, part + 1, 1))
        else:
            span = range(*part.indices(sizes[source]))
            if span.step < 0 and span:
                flipped.append(len(window))
                span = span[::-1]
            window.append(_span(span))
            shape.append(len(span))
    if window != [(0, n, 1) for n in sizes]:
        x = movement.slice_(x, window=tuple(window))
    if flipped:
        x = movement.flip(x, dims=tuple(flipped))
    return (x if x.aval.shape == tuple(shape) else movement.reshape(x, shape=tuple(shape))), places


def _span(span: range) -> tuple[int, int, int]:
    """A range as one triple of a window; of no entries, always the same one."""
    if not span:
        return (0, 0, 1)
    return (span.start, span.stop if span.step == 1 else span[-1] + 1, span.step)


def _by_arrays(x: Any, picks: list[tuple[int, Any]]) -> Any:
    """NumPy's rule: indices broadcast together; side by side, their dimensions replace those, else they lead."""
    dims = [d for d, _ in picks]
    shape = np.broadcast_shapes(*(array.shape for _, array in picks))
    indices = [expand(array, shape) for _, array in picks]
    others = [d for d in range(x.ndim) if d not in dims]
    if dims != list(range(len(dims))):
        x = movement.permute(x, dims=(*dims, *others))
    picked = indexing.index(x, *indices)
    side_by_side = dims == list(range(dims[0], dims[0] + len(dims)))
    if side_by_side and dims[0] > 0:
        rank, lead = len(shape), dims[0]
        picked = movement.permute(
            picked, dims=(*range(rank, rank + lead), *range(rank), *range(rank + lead, picked.ndim))
        )
    return picked


def gather(x: Tensor, dim: int, index: Tensor) -> Tensor:
    """out[i, j] = x[index[i, j], j] for dim 0, and so on.

    Args:
        x: any shape.
        dim: the dimension indexed.
        index: integer, with the dimensions of `x`, no larger but along `dim`.
    """
    where = one_dim("gather", dim, x.ndim)
    if not index.aval.size:
        return type(x).filled(Aval(index.shape, x.dtype), 0)
    if x.ndim + index.ndim == 1:  # a scalar counts as a vector of one entry
        picked = indexing.gather(movement.reshape(x, shape=(x.aval.size,)), index.reshape(index.aval.size), dim=0)
        return movement.reshape(picked, shape=index.shape)
    return indexing.gather(x, index, dim=where)


def scatter_add(x: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """`x` with src[i, j] added at x[index[i, j], j] for dim 0, and so on. Indices that repeat add."""
    where = one_dim("scatter_add", dim, x.ndim)
    if not index.aval.size:
        return x
    window = tuple((0, n, 1) for n in index.shape)
    if src.shape != index.shape:
        src = movement.slice_(src, window=window)
    return x + indexing.scatter_add(src, index, dim=where, shape=x.shape)


def index_select(x: Tensor, dim: int, index: Tensor) -> Tensor:
    """The entries of `x` along `dim` at the positions `index`, an integer vector."""
    where = one_dim("index_select", dim, x.ndim)
    if x.ndim == 0:
        return movement.reshape(index_select(movement.reshape(x, shape=(1,)), 0, index), shape=())
    return getitem(x, (*(slice(None) for _ in range(where)), index))


def index_add(x: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: float = 1) -> Tensor:
    """`x` with alpha · source added along `dim` at the positions `index`. Positions that repeat add."""
    where = one_dim("index_add", dim, x.ndim)
    if alpha != 1:
        source = source * alpha
    if x.ndim == 0:
        one = movement.reshape(source, shape=(1,))
        return movement.reshape(index_add(movement.reshape(x, shape=(1,)), 0, index, one), shape=())
    index = index.reshape(-1)
    order = (where, *(d for d in range(x.ndim) if d != where))
    moved = movement.permute(source, dims=order)
    added = indexing.index_add(moved, index, shape=tuple(x.shape[d] for d in order))
    return x + movement.permute(added, dims=tuple(np.argsort(order).tolist()))


def index_put(x: Tensor, indices: Sequence[Tensor], values: Tensor, accumulate: bool = False) -> Tensor:
    """`x` with values added at x[indices[0], indices[1], …]. Positions that repeat add.

    Raises: ArgumentError: accumulate is false; which of two writes to one position wins would be a matter of chance.
    """
    if not accumulate:
        raise at_user_line(ArgumentError("index_put: only accumulate=True is defined; use where to overwrite"))
    places: list[Any] = []
    for index in indices:  # a mask has as many dimensions as places
        places += _as_indices(index, x, len(places)) if known(index) is not None else [index]
    shape = np.broadcast_shapes(*(place.aval.shape for place in places))
    filled = expand(values, (*shape, *x.shape[len(places) :]))
    return x + indexing.index_add(filled, *(expand(place, shape) for place in places), shape=x.shape)  # type: ignore[no-any-return]


def one_hot(labels: Tensor, num_classes: int = -1) -> Tensor:
    """1 at the label's position, 0 elsewhere, as int64: (…,) to (…, num_classes)."""
    if num_classes < 0:
        value = known(labels)
        if value is None:
            raise at_user_line(SymbolicValueError("one_hot: give num_classes: it cannot be read off symbols"))
        num_classes = int(value.max()) + 1 if value.size else 0
    return indexing.one_hot(labels, classes=num_classes)
