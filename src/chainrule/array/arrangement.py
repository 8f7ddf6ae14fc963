"""Further ways to arrange entries, each composed of the movement and indexing functions. No op of their own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule import dtypes
from chainrule.array import elementwise, indexing, manipulation
from chainrule.array.align import broadcast_shapes, expand, one_dim, sizes
from chainrule.core.node import at_user_line
from chainrule.core.tracing import known, tracer
from chainrule.errors import ArgumentError, ShapeError, SymbolicValueError
from chainrule.ops import movement

if TYPE_CHECKING:
    from chainrule.tensor import Tensor

_MANY = 64  # slices: fewer are cut from the whole one by one

# --- dimensions


def movedim(x: Tensor, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
    """The dimensions `source` at the positions `destination`; the others keep their order."""
    origins = [one_dim("movedim", d, x.ndim) for d in ((source,) if isinstance(source, int) else source)]
    targets = [one_dim("movedim", d, x.ndim) for d in ((destination,) if isinstance(destination, int) else destination)]
    if len(origins) != len(targets) or len(set(origins)) != len(origins) or len(set(targets)) != len(targets):
        raise at_user_line(ArgumentError(f"movedim: expected as many distinct targets; got {source} to {destination}"))
    if x.ndim == 0:
        return x
    rest = iter(d for d in range(x.ndim) if d not in origins)
    moved = dict(zip(targets, origins, strict=True))
    return manipulation.permute(x, *(moved[d] if d in moved else next(rest) for d in range(x.ndim)))


def ravel(x: Tensor) -> Tensor:
    """All entries in one dimension."""
    return manipulation.reshape(x, (x.aval.size,))


def unflatten(x: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    """One dimension split into several of the given sizes, one of which may be -1."""
    where = one_dim("unflatten", dim, x.ndim)
    n, known = x.shape[where], math.prod(s for s in sizes if s != -1)
    filled = tuple(n // known if s == -1 and known else s for s in sizes)
    if math.prod(filled) != n or not filled:
        raise at_user_line(ShapeError(f"unflatten: dimension {dim} of {x.aval} does not split into {list(sizes)}"))
    return manipulation.reshape(x, (*x.shape[:where], *filled, *x.shape[where + 1 :]))


def broadcast_to(x: Tensor, size: Sequence[int]) -> Tensor:
    """`x` stretched to the shape `size`."""
    return manipulation.expand(x, tuple(size))


def reshape_as(x: Tensor, other: Tensor) -> Tensor:
    """The same entries in the shape of `other`."""
    return manipulation.reshape(x, other.shape)


# --- repeating and rolling


def repeat(x: Tensor, *args: Any) -> Tensor:
    """`x` laid side by side, so many times along each dimension; more numbers than dimensions add some in front."""
    times = sizes(args)
    if len(times) < x.ndim or any(n < 0 for n in times):
        raise at_user_line(
            ShapeError(f"repeat: expected at least {x.ndim} numbers ≥ 0 for {x.aval}; got {list(times)}")
        )
    shape = (1,) * (len(times) - x.ndim) + x.shape
    apart = [n for size in shape for n in (1, size)]
    copied = [n for pair in zip(times, shape, strict=True) for n in pair]
    stretched = expand(manipulation.reshape(x, apart), tuple(copied))
    return _apart(manipulation.reshape(stretched, tuple(n * size for n, size in zip(times, shape, strict=True))), x)


def lies_in_rows(x: Any) -> bool:
    """Do the entries lie row by row in memory, or would they, if a traced function ran op by op?"""

    def laid_out(x: Any) -> Any:
        return x.op.reference(laid_out(x.inputs[0]), **x.params) if x.op in movement.VIEWS else np.empty(x.shape, bool)

    array = laid_out(x) if x.array is None else x.array
    return bool(array.flags.c_contiguous)


def _apart(result: Tensor, x: Tensor) -> Tensor:
    """The result, in memory of its own: what is written to it is not written to `x`."""
    if result.array is None or x.array is None:
        return result.clone() if result is x or result.op in movement.VIEWS else result
    return result.clone() if result is x or np.may_share_memory(result.array, x.array) else result


def tile(x: Tensor, *args: Any, dims: Sequence[int] | None = None) -> Tensor:
    """As `repeat`, but fewer numbers than dimensions repeat the last ones only."""
    times = sizes(args if dims is None else (dims,))
    return repeat(x, (1,) * (x.ndim - len(times)) + times)


def repeat_interleave(x: Tensor, repeats: Any, dim: int | None = None, *, output_size: int | None = None) -> Tensor:
    """Each slice along `dim` so many times in a row; None: of all entries in one dimension.

    Args:
        x: any shape.
        repeats: a number ≥ 0, or a vector with one for each slice.
        dim: the dimension.
        output_size: accepted, and not needed: the sum of the repeats.
    Raises: ArgumentError: another number of repeats than slices, or one below 0.
    """
    if dim is None:
        return repeat_interleave(ravel(x), repeats, 0)
    where = one_dim("repeat_interleave", dim, x.ndim)
    times = np.asarray(getattr(repeats, "array", repeats))
    if times.dtype.kind not in "iu" or times.size not in (1, x.shape[where]) or (times.size and times.min() < 0):
        raise at_user_line(ArgumentError(
            f"repeat_interleave: expected one int ≥ 0, or one for each of the {x.shape[where]} slices; got {repeats!r}"
        ))  # fmt: skip
    places = np.repeat(np.arange(x.shape[where]), times.reshape(-1))
    return indexing.index_select(x, where, type(x).leaf(places))


def roll(x: Tensor, shifts: int | Sequence[int], dims: int | Sequence[int] | None = None) -> Tensor:
    """Entries moved on by `shifts` along `dims` (None: all); what falls off the end comes in at the start."""
    steps = (shifts,) if isinstance(shifts, int) else tuple(shifts)
    if dims is None or dims == ():
        return manipulation.reshape(roll(ravel(x), sum(steps), 0), x.shape)
    along = (dims,) if isinstance(dims, int) else tuple(dims)
    if len(steps) != len(along):
        raise at_user_line(ArgumentError(f"roll: expected a shift for each of the dims; got {shifts} and {dims}"))
    rolled = x
    for step, dim in zip(steps, along, strict=True):
        n = x.shape[one_dim("roll", dim, x.ndim)] if x.ndim else 1
        k = step % n if n else 0
        if k:
            parts = [manipulation.narrow(rolled, dim, n - k, k), manipulation.narrow(rolled, dim, 0, n - k)]
            rolled = manipulation.cat(parts, dim)
    return _apart(rolled, x)


# --- taking apart and putting together


def unbind(x: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """The slices along `dim`, without it."""
    where = one_dim("unbind", dim, x.ndim)
    if x.ndim == 0:
        raise at_user_line(ShapeError(f"unbind: {x.aval} has no dimension to take apart"))
    return _slices(x, where)


def _slices(x: Tensor, dim: int) -> tuple[Tensor, ...]:
    """By halves, as a slice's gradient is as large as what it was cut from: those of n slices of one would cost n².

    What is compiled joins them anyway.
    """
    n = x.shape[dim]
    if n > _MANY and x.requires_grad and tracer() is None:
        halves = manipulation.narrow(x, dim, 0, n // 2), manipulation.narrow(x, dim, n // 2, n - n // 2)
        return tuple(part for half in halves for part in _slices(half, dim))
    return tuple(select(x, dim, i) for i in range(n))


def select(x: Tensor, dim: int, index: int) -> Tensor:
    """The slice at position `index` of `dim`, without that dimension."""
    where = one_dim("select", dim, x.ndim)
    return indexing.getitem(x, (*(slice(None) for _ in range(where)), int(index)))


def _at_least(x: Tensor, rank: int) -> Tensor:
    shape = x.shape
    if len(shape) < rank:
        shape = {0: (1, 1, 1)[:rank], 1: (1, *shape, 1)[:rank], 2: (*shape, 1)}[len(shape)]
        if rank == 1:
            shape = (1,)
    return x if shape == x.shape else manipulation.reshape(x, shape)


def hstack(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors joined along the second dimension; vectors and scalars along the first."""
    parts = [_at_least(x, 1) for x in tensors]
    return manipulation.cat(parts, 0 if not parts or parts[0].ndim == 1 else 1)


def vstack(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors joined along the first dimension; vectors and scalars as rows."""
    return manipulation.cat([_at_least(x, 2) for x in tensors], 0)


def dstack(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors joined along the third dimension."""
    return manipulation.cat([_at_least(x, 3) for x in tensors], 2)


def meshgrid(*tensors: Any, indexing: str | None = None) -> tuple[Tensor, ...]:
    """The coordinates of a grid: tensor i varies along dimension i and is copied along the others.

    Args:
        tensors: vectors or scalars, as arguments or as one sequence.
        indexing: "ij" (the default), or "xy", which exchanges the first two dimensions.
    """
    parts = list(tensors[0]) if len(tensors) == 1 and isinstance(tensors[0], list | tuple) else list(tensors)
    if indexing not in (None, "ij", "xy"):
        raise at_user_line(ArgumentError(f'meshgrid: indexing must be "ij" or "xy"; got {indexing!r}'))
    if any(x.ndim > 1 for x in parts):
        raise at_user_line(ShapeError(f"meshgrid: needs vectors; got {', '.join(str(x.aval) for x in parts)}"))
    swapped = indexing == "xy" and len(parts) > 1
    if swapped:
        parts[:2] = parts[1::-1]
    shape = tuple(x.aval.size for x in parts)
    grids = [
        expand(manipulation.reshape(x, tuple(n if d == i else 1 for d, n in enumerate(shape))), shape)
        for i, x in enumerate(parts)
    ]
    if swapped:
        grids[:2] = grids[1::-1]
    return tuple(grids)


# --- diagonals


def diagonal(x: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """The diagonal of the matrices in the dimensions `dim1`, `dim2`, as a new last dimension.

    Args:
        x: two or more dimensions.
        offset: how many columns right (or, negative, rows below) of the main diagonal.
        dim1: the dimension of the rows.
        dim2: the dimension of the columns.
    Returns: a view, if these are the last two dimensions, in this order.
    """
    row, column = one_dim("diagonal", dim1, x.ndim), one_dim("diagonal", dim2, x.ndim)
    if row == column:
        raise at_user_line(ArgumentError(f"diagonal: dim1 and dim2 must differ; got {dim1} and {dim2}"))
    n, m = x.shape[row], x.shape[column]
    count = max(0, min(n + min(offset, 0), m - max(offset, 0)))
    first = max(offset, 0) - min(offset, 0) * m
    rest = [d for d in range(x.ndim) if d not in (row, column)]
    flat = manipulation.reshape(manipulation.permute(x, *rest, row, column), (*(x.shape[d] for d in rest), n * m))
    return flat[..., first : first + count * (m + 1) : m + 1]


def diag(x: Tensor, diagonal: int = 0) -> Tensor:
    """The diagonal of a matrix; or, of a vector, the matrix that has it as its diagonal and 0 elsewhere."""
    if x.ndim == 2:
        return _apart(_diagonal_of(x, diagonal), x)
    if x.ndim != 1:
        raise at_user_line(ShapeError(f"diag: needs a vector or a matrix; got {x.aval}; use diagonal for batches"))
    n = x.shape[0] + abs(diagonal)
    steps = np.arange(x.shape[0])
    rows, columns = (type(x).leaf(steps + max(shift, 0)) for shift in (-diagonal, diagonal))
    zeros: Any = type(x).filled(x.aval._replace(shape=(n, n)), 0)
    return indexing.index_put(zeros, (rows, columns), x, accumulate=True)


_diagonal_of = diagonal  # within `diag`, the name is PyTorch's for the offset


def trace(x: Tensor) -> Tensor:
    """The sum of a matrix's main diagonal."""
    if x.ndim != 2:
        raise at_user_line(ShapeError(f"trace: needs a matrix; got {x.aval}"))
    return diagonal(x).sum()


# --- picking by value and by index


def take_along_dim(x: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """The entries of `x` at `indices` along `dim`, the other dimensions broadcast; None: of all entries in one row."""
    if dim is None:
        return indexing.gather(ravel(x), 0, ravel(indices))
    where = one_dim("take_along_dim", dim, x.ndim)
    if x.ndim != indices.ndim:
        raise at_user_line(ShapeError(f"take_along_dim: needs as many dimensions; got {x.aval} and {indices.aval}"))
    others = [a._replace(shape=(*a.shape[:where], 1, *a.shape[where + 1 :])) for a in (x.aval, indices.aval)]
    shape = broadcast_shapes("take_along_dim", others)
    wide = [(*shape[:where], a.shape[where], *shape[where + 1 :]) for a in (x.aval, indices.aval)]
    return indexing.gather(expand(x, wide[0]), where, expand(indices, wide[1]))


def masked_select(x: Tensor, mask: Tensor) -> Tensor:
    """The entries where the mask holds, in one dimension; `x` and the mask broadcast."""
    shape = broadcast_shapes("masked_select", [x.aval, mask.aval])
    return indexing.getitem(ravel(expand(x, shape)), ravel(expand(mask, shape)))


def nonzero(x: Tensor, *, as_tuple: bool = False) -> Any:
    """The positions of the entries that are not 0, a row each; or a vector for each dimension. Carries no gradient.

    Raises: SymbolicValueError: of a symbol; how many there are depends on its values.
    """
    value = known(x)
    if value is None:
        raise at_user_line(SymbolicValueError("nonzero: how many entries are not 0 depends on values; use where"))
    found = np.nonzero(np.atleast_1d(value)) if as_tuple else np.argwhere(value)
    if as_tuple:
        return tuple(type(x).leaf(places) for places in found)
    return type(x).leaf(np.asarray(found))


def diff(x: Tensor, n: int = 1, dim: int = -1, prepend: Tensor | None = None, append: Tensor | None = None) -> Tensor:
    """x[i + 1] − x[i] along `dim`, n times over; of bools, whether they differ. `prepend`, `append`: joined first."""
    where = one_dim("diff", dim, x.ndim)
    if x.ndim == 0 or n < 0:
        raise at_user_line(ArgumentError(f"diff: needs at least one dimension and n ≥ 0; got {x.aval} and n = {n}"))
    if n == 0:
        return x.clone()
    ends = [part for part in (prepend, x, append) if part is not None]
    if len(ends) > 1:
        x = manipulation.cat(ends, where)
    for _ in range(min(n, x.shape[where])):
        left = max(x.shape[where] - 1, 0)
        after, before = (
            manipulation.narrow(x, where, x.shape[where] - left, left),
            manipulation.narrow(x, where, 0, left),
        )
        x = elementwise.ne(after, before) if x.dtype == dtypes.bool_ else after - before
    return x
