"""Picking entries by integer index, and the transpose of picking, which adds entries back where they came from.

An index picked twice receives both gradients: that sum is `scatter_add` and `index_add`, and there is no other place
where repeated indices are handled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.core.aval import Aval
from chainrule.core.family import Linear
from chainrule.core.notation import POWER, Notation
from chainrule.core.sample import Arg, Misuse, Sample, ints
from chainrule.errors import DTypeError, OutOfRangeError, ShapeError

Shape = tuple[int, ...]


def _need_integers(name: str, x: Aval, *indices: Aval) -> None:
    if not all(dtypes.is_integer(index.dtype) for index in indices):
        raise DTypeError(f"{name}: an index must be integer; got {x} with index {' and '.join(map(str, indices))}")


def check_range(name: str, index: np.ndarray, size: int) -> None:
    """Raises: OutOfRangeError: an entry of `index` lies outside -size ≤ i < size."""
    if index.size and (index.max() >= size or index.min() < -size):
        worst = index.max() if index.max() >= size else index.min()
        raise OutOfRangeError(
            f"{name}: {worst} is out of range for a dimension of size {size}; use {-size} to {size - 1}"
        )


# --- along one dimension: out[i, j] = x[index[i, j], j]


def _gather_shape(x: Aval, index: Aval, *, dim: int) -> Aval:
    _need_integers("gather", x, index)
    fits = x.ndim == index.ndim and all(
        m <= n for d, (n, m) in enumerate(zip(x.shape, index.shape, strict=False)) if d != dim
    )
    if not fits:
        raise ShapeError(f"gather: the index {index} must have the dimensions of {x}, none larger but dimension {dim}")
    return Aval(index.shape, x.dtype)


def _grid(index: np.ndarray, dim: int) -> tuple[np.ndarray, ...]:
    """The index of every entry, with `index` in place of dimension `dim`."""
    grid = list(np.ogrid[tuple(slice(n) for n in index.shape)]) if index.ndim else []
    if grid:
        grid[dim] = index
    return tuple(grid)


def _gather_kernel(x: np.ndarray, index: np.ndarray, *, dim: int) -> np.ndarray:
    check_range("gather", index, x.shape[dim] if x.ndim else 1)
    return np.asarray(x[_grid(index, dim)])


gather = Linear(
    name="gather",
    reference=_gather_kernel,
    notation=Notation(
        text="gather({0}, {dim}, {1})",
        latex=r"\operatorname{{gather}}_{{{dim}}}\left({0}, {1}\right)",
        code="{0}.gather({dim}, {1})",
        numpy="np.take_along_axis({0}, {1}, {dim})",
        inside_code=POWER,
    ),
    shape_rule=_gather_shape,
    transpose=lambda g, x, index, *, dim: scatter_add(g, index, dim=dim, shape=x.aval.shape),
    samples=(
        Sample((Arg((3, 4)), ints(3, 2, high=4)), {"dim": 1}),
        Sample((Arg((3, 4)), ints(5, 4, high=3)), {"dim": 0}),
        Sample((Arg((3,)), ints(4, high=3)), {"dim": 0}),
    ),
    misuses=(
        Misuse((Arg((3, 4)), Arg((3, 2))), {"dim": 1}, DTypeError, "must be integer"),
        Misuse((Arg((3, 4)), ints(3)), {"dim": 1}, ShapeError, "must have the dimensions"),
    ),
)


def _scatter_shape(x: Aval, index: Aval, *, dim: int, shape: Shape) -> Aval:
    _need_integers("scatter_add", x, index)
    if x.shape != index.shape or len(shape) != x.ndim:
        raise ShapeError(
            f"scatter_add: source {x} and index {index} must have one shape, and the dimensions of {list(shape)}"
        )
    return Aval(tuple(shape), x.dtype)


def _scatter_kernel(x: np.ndarray, index: np.ndarray, *, dim: int, shape: Shape) -> np.ndarray:
    check_range("scatter_add", index, shape[dim] if shape else 1)
    out = np.zeros(shape, x.dtype)
    if index.ndim and index.shape[dim] == 1:  # one entry a row: none meets another, and there is nothing to add
        out[_grid(index, dim)] = x
    else:
        np.add.at(out, _grid(index, dim), x)
    return out


scatter_add: Linear = Linear(
    name="scatter_add",
    reference=_scatter_kernel,
    notation=Notation(
        text="scatter_add({0}, {dim}, {1})", latex=r"\operatorname{{scatter\_add}}_{{{dim}}}\left({0}, {1}\right)",
        code="cr.zeros({shape}).scatter_add({dim}, {1}, {0})", numpy="",
    ),
    shape_rule=_scatter_shape,
    transpose=lambda g, x, index, *, dim, shape: gather(g, index, dim=dim),
    samples=(
        Sample((Arg((3, 2)), ints(3, 2, high=4)), {"dim": 1, "shape": (3, 4)}),
        Sample((Arg((4,)), ints(4, high=3)), {"dim": 0, "shape": (3,)}),
    ),
    misuses=(Misuse((Arg((3,)), ints(2)), {"dim": 0, "shape": (3,)}, ShapeError, "must have one shape"),),
)  # fmt: skip

# --- along the leading dimensions: out[i] = x[rows[i], columns[i]]


def _index_shape(x: Aval, *indices: Aval) -> Aval:
    _need_integers("index", x, *indices)
    if len({i.shape for i in indices}) != 1 or len(indices) > x.ndim:
        raise ShapeError(
            f"index: indices must share one shape, at most one a dimension of {x}; got {', '.join(map(str, indices))}"
        )
    return Aval((*indices[0].shape, *x.shape[len(indices) :]), x.dtype)


def _index_kernel(x: np.ndarray, *indices: np.ndarray) -> np.ndarray:
    for index, size in zip(indices, x.shape, strict=False):
        check_range("index", index, size)
    return np.asarray(x[indices])


def _index_form(avals: Sequence[Aval], params: Any) -> str:
    return "{0}[" + ", ".join(f"{{{i}}}" for i in range(1, len(avals))) + "]"


index = Linear(
    name="index",
    reference=_index_kernel,
    notation=Notation(
        text=_index_form, latex=_index_form, code=_index_form, numpy=_index_form, inside=POWER, inside_latex=POWER
    ),
    shape_rule=_index_shape,
    transpose=lambda g, x, *indices: (index_add(g, *indices, shape=x.aval.shape), *(None for _ in indices)),
    samples=(
        Sample((Arg((5, 3)), ints(4, high=5))),
        Sample((Arg((5, 3)), ints(2, 2, high=5), ints(2, 2, high=3))),
    ),
    misuses=(
        Misuse((Arg((5,)), Arg((2,))), {}, DTypeError, "must be integer"),
        Misuse((Arg((5, 3)), ints(2), ints(3)), {}, ShapeError, "share one shape"),
    ),
)


def _index_add_shape(x: Aval, *indices: Aval, shape: Shape) -> Aval:
    _need_integers("index_add", x, *indices)
    if len({i.shape for i in indices}) != 1 or x.shape != (*indices[0].shape, *shape[len(indices) :]):
        raise ShapeError(
            f"index_add: source {x} does not fit indices {', '.join(map(str, indices))} into {list(shape)}"
        )
    return Aval(tuple(shape), x.dtype)


def _index_add_kernel(x: np.ndarray, *indices: np.ndarray, shape: Shape) -> np.ndarray:
    out = np.zeros(shape, x.dtype)
    for i, size in zip(indices, shape, strict=False):
        check_range("index_add", i, size)
    np.add.at(out, indices, x)
    return out


def _index_add_text(avals: Sequence[Aval], params: Any) -> str:
    return "index_add({0}, " + ", ".join(f"{{{i}}}" for i in range(1, len(avals))) + ")"


index_add: Linear = Linear(
    name="index_add",
    reference=_index_add_kernel,
    notation=Notation(
        text=_index_add_text,
        latex=lambda avals, params: (
            r"\operatorname{{index\_add}}\left({0}, " + ", ".join(f"{{{i}}}" for i in range(1, len(avals))) + r"\right)"
        ),
        code=lambda avals, params: (
            "cr.zeros({shape}).index_put(("
            + ", ".join(f"{{{i}}}" for i in range(1, len(avals)))
            + ",), {0}, accumulate=True)"
        ),
        numpy="",
    ),
    shape_rule=_index_add_shape,
    transpose=lambda g, x, *indices, shape: (index(g, *indices), *(None for _ in indices)),
    samples=(
        Sample((Arg((4, 3)), ints(4, high=5)), {"shape": (5, 3)}),
        Sample((Arg((4,)), ints(4, high=3), ints(4, high=2)), {"shape": (3, 2)}),
    ),
    misuses=(Misuse((Arg((3,)), ints(2)), {"shape": (5,)}, ShapeError, "does not fit"),),
)

# --- orders


def _argsort_shape(x: Aval, *, dim: int, descending: bool) -> Aval:
    if not 0 <= dim < x.ndim:
        raise ShapeError(f"argsort: dim {dim} is not a dimension of {x}")
    return Aval(x.shape, dtypes.int64)


def _argsort_numpy(avals: Sequence[Aval], params: Any) -> str:
    return f"np.argsort({'-' if params['descending'] else ''}{{0}}, axis={{dim}}, kind='stable')"


def _argsort_kernel(x: np.ndarray, *, dim: int, descending: bool) -> np.ndarray:
    if not descending:
        return np.argsort(x, axis=dim, kind="stable")
    backwards = np.argsort(np.flip(x, dim), axis=dim, kind="stable")
    return np.flip(x.shape[dim] - 1 - backwards, dim)


argsort = Linear(
    name="argsort",
    reference=_argsort_kernel,
    notation=Notation(
        text="argsort({0}, {dim})",
        latex=r"\operatorname{{argsort}}_{{{dim}}}\left({0}\right)",
        code="{0}.argsort({dim}, descending={descending})",
        numpy=_argsort_numpy,
        inside_code=POWER,
    ),
    shape_rule=_argsort_shape,
    transpose=lambda g, x, **params: None,
    no_gradient="its output is a position, which has no slope",
    samples=(
        Sample((Arg((3, 4)),), {"dim": 1, "descending": False}),
        Sample((Arg((5,)),), {"dim": 0, "descending": True}),
    ),
    misuses=(Misuse((Arg((2,)),), {"dim": 1, "descending": False}, ShapeError, "not a dimension"),),
)


def _one_hot_shape(labels: Aval, *, classes: int) -> Aval:
    if not dtypes.is_integer(labels.dtype):
        raise DTypeError(f"one_hot: labels must be integer; got {labels}; cast them with .to(cr.int64)")
    return Aval((*labels.shape, classes), dtypes.int64)


def _one_hot_kernel(labels: np.ndarray, *, classes: int) -> np.ndarray:
    check_range("one_hot", labels, classes)
    return np.asarray(labels[..., None] == np.arange(classes)).astype(np.int64)


one_hot = Linear(
    name="one_hot",
    reference=_one_hot_kernel,
    notation=Notation(
        text="onehot({0})",
        latex=r"\operatorname{{onehot}}\left({0}\right)",
        code="cr.nn.functional.one_hot({0}, {classes})",
        numpy="np.eye({classes})[{0}]",
    ),
    shape_rule=_one_hot_shape,
    transpose=lambda g, x, **params: None,
    no_gradient="its input is an integer label, which has no slope",
    samples=(Sample((ints(4, high=3),), {"classes": 3}),),
    misuses=(Misuse((Arg((2,)),), {"classes": 3}, DTypeError, "must be integer"),),
)

ALL = (gather, scatter_add, index, index_add, argsort, one_hot)
