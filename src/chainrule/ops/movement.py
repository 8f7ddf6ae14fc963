"""Ops that move, copy, select or cast entries without computing with them: linear, so each states its transpose.

Broadcasting is an op of its own (`expand`). No other rule un-broadcasts; where a bias meets a batch there is a node to
point at, and its transpose is the sum over the batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.core.affine import Affine
from chainrule.core.aval import Aval
from chainrule.core.family import Linear
from chainrule.core.notation import ATOM, POWER, Notation
from chainrule.core.origin import ROW_BY_ROW, Copy
from chainrule.core.sample import Arg, Misuse, Sample, floats
from chainrule.errors import DTypeError, ShapeError
from chainrule.ops.reduction import sum_

Shape = tuple[int, ...]
# One (start, stop, step) a dimension; step > 0.
Window = tuple[tuple[int, int, int], ...]

# --- expand


def expanded_dims(shape: Shape, target: Shape) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(dimensions new in `target`, dimensions stretched from size 1), both as positions in `target`."""
    new = len(target) - len(shape)
    stretched = tuple(new + d for d, n in enumerate(shape) if n == 1 and target[new + d] != 1)
    return tuple(range(new)), stretched


def _expand_kernel(x: np.ndarray, *, shape: Shape) -> np.ndarray:
    # np.broadcast_to takes ten times as long as making the view by hand, and small nets broadcast all the time.
    if not x.flags.c_contiguous or x.size == 0 or len(shape) < x.ndim:
        return np.broadcast_to(x, shape)
    offset = len(shape) - x.ndim
    strides = [0] * len(shape)
    for d, n in enumerate(x.shape):
        if n == shape[offset + d]:
            strides[offset + d] = x.strides[d]
        elif n != 1:
            raise ValueError("expand")  # the shape rule words it
    return np.ndarray(shape, x.dtype, x, 0, strides)


def _expand_shape(x: Aval, *, shape: Shape) -> Aval:
    new = len(shape) - x.ndim
    if new < 0 or any(n not in (1, m) for n, m in zip(x.shape, shape[new:], strict=True)):
        raise ShapeError(f"expand: {x} does not stretch to {list(shape)}: from the right, each size must be equal or 1")
    return Aval(tuple(shape), x.dtype)


def _expand_transpose(g: Any, x: Any, *, shape: Shape) -> Any:
    new, stretched = expanded_dims(x.aval.shape, shape)
    if stretched:
        g = sum_(g, dim=stretched, keepdim=True)
    return sum_(g, dim=new, keepdim=False) if new else g


def _expand_origin(x: Aval, *, shape: Shape) -> tuple[Copy, ...]:
    new = len(shape) - x.ndim
    return (Copy(tuple(Affine() if n == 1 else Affine.variable(new + d) for d, n in enumerate(x.shape))),)


expand = Linear(
    name="expand",
    reference=_expand_kernel,
    notation=Notation(
        text=lambda avals, params: "expand({0}, {shape})" if avals[0].shape else "{0}",
        latex=lambda avals, params: r"\operatorname{{expand}}_{{{shape}}}\left({0}\right)" if avals[0].shape else "{0}",
        code="{0}.expand({shape})",
        numpy="np.broadcast_to({0}, {shape})",
        inside_code=POWER,
    ),
    shape_rule=_expand_shape,
    transpose=_expand_transpose,
    origin=_expand_origin,
    samples=(
        floats((1, 3), shape=(2, 3)),
        floats((2, 1), shape=(2, 3)),
        floats((), shape=(2, 3)),
        floats((3,), shape=(4, 2, 3)),
        floats((2, 1, 3, 1), shape=(5, 2, 4, 3, 1)),
    ),
    misuses=(Misuse((Arg((2, 3)),), {"shape": (4, 3)}, ShapeError, "does not stretch"),),
)

# --- reshape and permute


def _reshape_shape(x: Aval, *, shape: Shape) -> Aval:
    target = Aval(tuple(shape), x.dtype)
    if target.size != x.size or any(n < 0 for n in shape):
        raise ShapeError(
            f"reshape: {x} holds {x.size} entries, {list(shape)} holds {target.size}; they must hold as many"
        )
    return target


def unit_dims_only(before: Shape, after: Shape) -> bool:
    """Do two shapes differ only in dimensions of size 1?"""
    return [n for n in before if n != 1] == [n for n in after if n != 1]


def _index_with_none(avals: Sequence[Aval], params: Mapping[str, Any]) -> str:
    """y[:, None] where a reshape only adds dimensions of size 1; None where it does anything else."""
    before, after = list(avals[0].shape), list(params["shape"])
    index = []
    for n in after:
        if before and before[0] == n:
            index.append(":")
            before.pop(0)
        elif n == 1:
            index.append("None")
        else:
            return ""
    return "" if before or len(index) == len(avals[0].shape) else "{0}[" + ", ".join(index) + "]"


def _reshape_text(avals: Sequence[Aval], params: Mapping[str, Any]) -> str:
    return _index_with_none(avals, params) or (
        "squeeze({0})" if unit_dims_only(avals[0].shape, params["shape"]) else "reshape({0}, {shape})"
    )


def _reshape_latex(avals: Sequence[Aval], params: Mapping[str, Any]) -> str:
    return (
        "{0}"
        if unit_dims_only(avals[0].shape, params["shape"])
        else r"\operatorname{{reshape}}_{{{shape}}}\left({0}\right)"
    )


def _reshape_code(avals: Sequence[Aval], params: Mapping[str, Any]) -> str:
    before, after = avals[0].shape, tuple(params["shape"])
    if before[:-1] == after and before[-1:] == (1,):
        return "{0}.squeeze(-1)"
    return _index_with_none(avals, params) or "{0}.reshape({shape})"


reshape: Linear = Linear(
    name="reshape",
    reference=lambda x, *, shape: x.reshape(shape),
    notation=Notation(
        text=_reshape_text,
        latex=_reshape_latex,
        code=_reshape_code,
        numpy=lambda avals, params: _reshape_code(avals, params),
        inside=POWER,
        inside_latex=POWER,
    ),
    shape_rule=_reshape_shape,
    transpose=lambda g, x, *, shape: reshape(g, shape=x.aval.shape),
    origin=lambda x, *, shape: ROW_BY_ROW,
    samples=(
        floats((2, 3), shape=(3, 2)),
        floats((2, 1), shape=(2,)),
        floats((6,), shape=(1, 2, 3)),
        floats((1,), shape=()),
        floats((2, 3, 4), shape=(4, 1, 6)),
        floats((0, 3), shape=(3, 0, 2)),
    ),
    misuses=(Misuse((Arg((2, 3)),), {"shape": (4,)}, ShapeError, "holds 6 entries"),),
)


def _permute_shape(x: Aval, *, dims: Shape) -> Aval:
    if sorted(dims) != list(range(x.ndim)):
        raise ShapeError(f"permute: dims {list(dims)} must name each of the {x.ndim} dimensions of {x} once")
    return Aval(tuple(x.shape[d] for d in dims), x.dtype)


def swaps_last_two(dims: Shape) -> bool:
    """Is the permutation a matrix transpose, batched or not?"""
    n = len(dims)
    return n >= 2 and tuple(dims) == (*range(n - 2), n - 1, n - 2)


def _permute_form(transposed: str, general: str) -> Any:
    return lambda avals, params: transposed if swaps_last_two(params["dims"]) else general


permute: Linear = Linear(
    name="permute",
    reference=lambda x, *, dims: x.transpose(dims),
    notation=Notation(
        text=_permute_form("{0}^T", "permute({0}, {dims})"),
        latex=_permute_form(r"{0}^{{\top}}", r"\operatorname{{permute}}_{{{dims}}}\left({0}\right)"),
        code=_permute_form("{0}.mT", "{0}.permute({dims})"),
        numpy=lambda avals, params: (
            "{0}.T"
            if tuple(params["dims"]) == (1, 0)
            else _permute_form("np.swapaxes({0}, -1, -2)", "{0}.transpose({dims})")(avals, params)
        ),
        binds=POWER,
        inside=POWER,
        binds_code=ATOM,
    ),
    shape_rule=_permute_shape,
    transpose=lambda g, x, *, dims: permute(g, dims=tuple(np.argsort(dims).tolist())),
    origin=lambda x, *, dims: (Copy(tuple(map(Affine.variable, np.argsort(dims).tolist()))),),
    samples=(
        floats((2, 3), dims=(1, 0)),
        floats((2, 3, 4), dims=(2, 0, 1)),
        floats((2, 3, 4), dims=(0, 2, 1)),
        floats((2, 1, 4, 3), dims=(3, 1, 0, 2)),
    ),
    misuses=(Misuse((Arg((2, 3)),), {"dims": (0, 0)}, ShapeError, "must name each"),),
)

# --- windows: slicing, its transpose, and padding


def _window_sizes(window: Window) -> Shape:
    return tuple(len(range(*w)) for w in window)


def _slices(window: Window) -> tuple[slice, ...]:
    return tuple(slice(*w) for w in window)


def _slice_shape(x: Aval, *, window: Window) -> Aval:
    fits = len(window) == x.ndim and all(
        step > 0 and 0 <= start <= n and stop <= n for (start, stop, step), n in zip(window, x.shape, strict=True)
    )
    if not fits:
        raise ShapeError(
            f"slice: window {window} must give (start, stop, step) inside {x}, step > 0, a triple a dimension"
        )
    return Aval(_window_sizes(window), x.dtype)


def _slice_index(avals: Sequence[Aval], params: Mapping[str, Any]) -> str:
    parts = []
    for (start, stop, step), n in zip(params["window"], avals[0].shape, strict=True):
        low, high = "" if start == 0 else str(start), "" if stop >= n else str(stop)
        parts.append(f"{low}:{high}" + (f":{step}" if step != 1 else ""))
    return "{0}[" + ", ".join(parts) + "]"


slice_ = Linear(
    name="slice",
    reference=lambda x, *, window: x[_slices(window)],
    notation=Notation(
        text=_slice_index, latex=_slice_index, code=_slice_index, numpy=_slice_index, inside=POWER, inside_latex=POWER
    ),
    shape_rule=_slice_shape,
    transpose=lambda g, x, *, window: embed(g, shape=x.aval.shape, window=window),
    origin=lambda x, *, window: (
        Copy(tuple(Affine.variable(d) * step + start for d, (start, _, step) in enumerate(window))),
    ),
    samples=(
        floats((5, 3), window=((1, 4, 1), (0, 3, 2))),
        floats((4,), window=((2, 2, 1),)),
        floats((3, 4), window=((0, 3, 1), (0, 2, 1))),
        floats((3, 4, 5), window=((0, 3, 1), (1, 4, 2), (0, 5, 3))),
    ),
    misuses=(Misuse((Arg((4,)),), {"window": ((0, 9, 1),)}, ShapeError, "inside"),),
)


def _embed_kernel(x: np.ndarray, *, shape: Shape, window: Window) -> np.ndarray:
    # In memory as the input is: what works along rows of entries side by side still finds them.
    out = np.zeros(shape, x.dtype) if x.flags.c_contiguous else np.zeros_like(x, shape=tuple(shape))
    out[_slices(window)] = x
    return out


def _embed_shape(x: Aval, *, shape: Shape, window: Window) -> Aval:
    inside = _slice_shape(Aval(tuple(shape), x.dtype), window=window)
    if inside.shape != x.shape:
        raise ShapeError(f"embed: the window {window} holds {list(inside.shape)}, the input is {x}")
    return Aval(tuple(shape), x.dtype)


def _embed_origin(x: Aval, *, shape: Shape, window: Window) -> tuple[Copy, ...] | None:
    if any(step != 1 for _, _, step in window):
        return None  # holes between entries: which of them a position is takes a division to say
    bounds = tuple((Affine.variable(d), start, stop) for d, (start, stop, _) in enumerate(window))
    return (Copy(tuple(at + -start for at, start, _ in bounds), within=bounds),)


def _as_pad(avals: Sequence[Aval], params: Mapping[str, Any]) -> list[tuple[int, int]] | None:
    if any(step != 1 for _, _, step in params["window"]):
        return None
    return [(start, n - stop) for (start, stop, _), n in zip(params["window"], params["shape"], strict=True)]


def _embed_code(avals: Sequence[Aval], params: Mapping[str, Any]) -> str:
    pad = _as_pad(avals, params)
    if pad is None:
        return "cr.nn.functional.embed({0}, {shape}, {window})"
    flat = tuple(n for pair in reversed(pad) for n in pair)
    return f"cr.nn.functional.pad({{0}}, {flat})"


def _embed_text(avals: Sequence[Aval], params: Mapping[str, Any]) -> str:
    whole = Aval(tuple(params["shape"]), avals[0].dtype)
    return "embed({0} at " + _slice_index((whole,), params)[3:] + " of {shape})"


embed: Linear = Linear(
    name="embed",
    reference=_embed_kernel,
    notation=Notation(
        text=_embed_text,
        latex=r"\operatorname{{embed}}_{{{shape}}}\left({0}\right)",
        code=_embed_code,
        numpy=lambda avals, params: f"np.pad({{0}}, {pad})" if (pad := _as_pad(avals, params)) is not None else "",
    ),
    shape_rule=_embed_shape,
    transpose=lambda g, x, *, shape, window: slice_(g, window=window),
    origin=_embed_origin,
    samples=(
        floats((3, 2), shape=(5, 3), window=((1, 4, 1), (0, 3, 2))),
        floats((2,), shape=(5,), window=((2, 4, 1),)),
        floats((2, 1, 3), shape=(4, 1, 5), window=((1, 3, 1), (0, 1, 1), (2, 5, 1))),
    ),
    misuses=(Misuse((Arg((3,)),), {"shape": (5,), "window": ((0, 2, 1),)}, ShapeError, "holds"),),
)


def _flip_shape(x: Aval, *, dims: Shape) -> Aval:
    if any(not 0 <= d < x.ndim for d in dims) or len(set(dims)) != len(dims):
        raise ShapeError(f"flip: dims {list(dims)} must name distinct dimensions of {x}")
    return x


def _flip_origin(x: Aval, *, dims: Shape) -> tuple[Copy, ...]:
    at = [Affine.variable(d) for d in range(x.ndim)]
    return (Copy(tuple(at[d] * -1 + (n - 1) if d in dims else at[d] for d, n in enumerate(x.shape))),)


flip: Linear = Linear(
    name="flip",
    reference=lambda x, *, dims: np.flip(x, dims).copy(),
    notation=Notation(
        text="flip({0}, {dims})", latex=r"\operatorname{{flip}}_{{{dims}}}\left({0}\right)", code="{0}.flip({dims})",
        numpy="np.flip({0}, {dims})", inside_code=POWER,
    ),
    shape_rule=_flip_shape,
    transpose=lambda g, x, *, dims: flip(g, dims=dims),
    origin=_flip_origin,
    samples=(floats((2, 3), dims=(1,)), floats((2, 3), dims=(0, 1)), floats((2, 3, 4), dims=(0, 2))),
    misuses=(Misuse((Arg((2,)),), {"dims": (1,)}, ShapeError, "distinct dimensions"),),
)  # fmt: skip

# --- joining


def _cat_shape(*avals: Aval, dim: int) -> Aval:
    first = avals[0]
    same = all(
        a.ndim == first.ndim and a.shape[:dim] == first.shape[:dim] and a.shape[dim + 1 :] == first.shape[dim + 1 :]
        for a in avals
    )
    if not 0 <= dim < first.ndim or not same:
        raise ShapeError(f"cat: inputs must be equal but for dimension {dim}; got {', '.join(map(str, avals))}")
    if len({a.dtype for a in avals}) > 1:
        raise DTypeError(f"cat: inputs must share one dtype; got {', '.join(map(str, avals))}")
    size = sum(a.shape[dim] for a in avals)
    return Aval((*first.shape[:dim], size, *first.shape[dim + 1 :]), first.dtype)


def _cat_transpose(g: Any, *inputs: Any, dim: int) -> tuple[Any, ...]:
    parts, start = [], 0
    whole = [(0, n, 1) for n in g.aval.shape]
    for x in inputs:
        stop = start + x.aval.shape[dim]
        parts.append(slice_(g, window=(*whole[:dim], (start, stop, 1), *whole[dim + 1 :])))
        start = stop
    return tuple(parts)


def _cat_origin(*avals: Aval, dim: int) -> tuple[Copy, ...]:
    copies, start = [], 0
    whole = tuple(map(Affine.variable, range(avals[0].ndim)))
    for number, x in enumerate(avals):
        stop = start + x.shape[dim]
        if start < stop:
            at = (*whole[:dim], whole[dim] + -start, *whole[dim + 1 :])
            copies.append(Copy(at, within=((whole[dim], start, stop),), input=number))
        start = stop
    # What is in none of the others is in the last.
    return (*copies[:-1], *(last._replace(within=()) for last in copies[-1:]))


def _cat_form(opening: str, closing: str) -> Any:
    return lambda avals, params: opening + ", ".join(f"{{{i}}}" for i in range(len(avals))) + closing


cat = Linear(
    name="cat",
    reference=lambda *arrays, dim: np.concatenate(arrays, axis=dim),
    notation=Notation(
        text=_cat_form("cat(", ", dim={dim})"), latex=_cat_form(r"\operatorname{{cat}}_{{{dim}}}\left(", r"\right)"),
        code=_cat_form("cr.cat([", "], dim={dim})"), numpy=_cat_form("np.concatenate([", "], axis={dim})"),
    ),
    shape_rule=_cat_shape,
    transpose=_cat_transpose,
    origin=_cat_origin,
    samples=(
        floats((2, 3), (1, 3), dim=0), floats((2, 1), (2, 2), (2, 3), dim=1), floats((2, 0), (2, 3), (2, 1), dim=1),
    ),
    misuses=(Misuse((Arg((2, 3)), Arg((2, 4))), {"dim": 0}, ShapeError, "equal but for"),),
)  # fmt: skip

# --- casting


def _cast_shape(x: Aval, *, dtype: np.dtype) -> Aval:
    return Aval(x.shape, dtypes.as_dtype(dtype))


def _cast_code(avals: Sequence[Aval], params: Mapping[str, Any]) -> str:
    return f"{{0}}.to(cr.{params['dtype']})"


cast: Linear = Linear(
    name="cast",
    reference=lambda x, *, dtype: x.astype(dtype),
    notation=Notation(
        text="{0}",
        latex="{0}",
        code=_cast_code,
        numpy=lambda avals, params: f"{{0}}.astype(np.{params['dtype']})",
        inside=POWER,
        inside_code=POWER,
    ),
    shape_rule=_cast_shape,
    transpose=lambda g, x, *, dtype: cast(g, dtype=x.aval.dtype),
    samples=(
        floats((2, 3), dtype=dtypes.float64),
        floats((2,), dtype=dtypes.float32),
        Sample((Arg((3,), "bool"),), {"dtype": dtypes.float64}),
    ),
)

# --- running sums


def _cumsum_shape(x: Aval, *, dim: int) -> Aval:
    if not 0 <= dim < x.ndim:
        raise ShapeError(f"cumsum: dim {dim} is not a dimension of {x}")
    return x


cumsum: Linear = Linear(
    name="cumsum",
    reference=lambda x, *, dim: np.cumsum(x, axis=dim, dtype=x.dtype),
    notation=Notation(
        text="cumsum({0}, {dim})", latex=r"\operatorname{{cumsum}}_{{{dim}}}\left({0}\right)", code="{0}.cumsum({dim})",
        numpy="np.cumsum({0}, axis={dim})", inside_code=POWER,
    ),
    shape_rule=_cumsum_shape,
    # Entry i of the output holds x[0..i], so x[i] is in every entry from i on: the running sum from the other end.
    transpose=lambda g, x, *, dim: flip(cumsum(flip(g, dims=(dim,)), dim=dim), dims=(dim,)),
    samples=(floats((4, 3), dim=0), floats((4,), dim=0)),
    misuses=(Misuse((Arg((2,)),), {"dim": 1}, ShapeError, "not a dimension"),),
)  # fmt: skip

VIEWS = frozenset({expand, reshape, permute, slice_})  # whose results may lie in their input's memory
PLACING = VIEWS | {flip}  # each entry of whose results is one of the input, at another place

ALL = (expand, reshape, permute, slice_, embed, flip, cat, cast, cumsum)
