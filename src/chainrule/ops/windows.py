"""Sliding windows over the last dimensions, and the transpose of sliding, which adds the windows back up.

What convolution and pooling are made of: a convolution is a matrix product of windows, a pooling a reduction over them.
An entry that stands in several windows receives the gradients of all of them: that sum is `overlap_add`.

Source: Dumoulin, Visin (2016), A guide to convolution arithmetic for deep learning, arXiv:1603.07285.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.core.affine import Affine
from chainrule.core.aval import Aval
from chainrule.core.family import Linear
from chainrule.core.notation import Notation
from chainrule.core.origin import Copy
from chainrule.core.sample import Arg, Misuse, floats
from chainrule.errors import DTypeError, ShapeError

Shape = tuple[int, ...]


def reach(size: Shape, dilation: Shape) -> Shape:
    """How many entries a window spans along each of its dimensions, from its first place to its last."""
    return tuple((n - 1) * step + 1 for n, step in zip(size, dilation, strict=True))


def positions(shape: Shape, size: Shape, stride: Shape, dilation: Shape) -> Shape:
    """How many windows fit along each of the last dimensions of `shape`."""
    spans = zip(shape[len(shape) - len(size) :], reach(size, dilation), stride, strict=True)
    return tuple((n - span) // step + 1 for n, span, step in spans)


def _windowed_shape(name: str, shape: Shape, dtype: np.dtype, size: Shape, stride: Shape, dilation: Shape) -> Aval:
    x = Aval(tuple(shape), dtype)
    if not 1 <= len(size) == len(stride) == len(dilation) or any(n < 1 for n in (*size, *stride, *dilation)):
        raise ShapeError(
            f"{name}: size {size}, stride {stride} and dilation {dilation} must give a positive int for each of the "
            f"last dimensions of {x}"
        )
    spans = reach(size, dilation)
    if len(size) > x.ndim or any(n < span for n, span in zip(x.shape[-len(size) :], spans, strict=True)):
        raise ShapeError(f"{name}: {x} is smaller than a window, which spans {list(spans)}; pad it")
    return Aval((*x.shape[: -len(size)], *positions(x.shape, size, stride, dilation), *size), dtype)


def _strided(x: np.ndarray, shape: Shape, strides: Shape) -> np.ndarray:
    """A view of `x` with these strides, whose base is an array: so that a change of `x` in place is seen in it."""
    whole = x.transpose(sorted(range(x.ndim), key=lambda d: -x.strides[d]))
    assert whole.flags.c_contiguous
    view: np.ndarray = np.ndarray(shape, x.dtype, whole, 0, strides)
    view.flags.writeable = False  # its entries overlap
    return view


def _windows_kernel(x: np.ndarray, *, size: Shape, stride: Shape, dilation: Shape) -> np.ndarray:
    out = _windowed_shape("windows", x.shape, x.dtype, size, stride, dilation)
    if not x.size:
        return np.zeros(out.shape, x.dtype)
    if not x.transpose(sorted(range(x.ndim), key=lambda d: -x.strides[d])).flags.c_contiguous:
        x = np.ascontiguousarray(x)
    last = x.strides[x.ndim - len(size) :]
    steps = tuple(n * s for n, s in zip(last, stride, strict=True))
    places = tuple(n * d for n, d in zip(last, dilation, strict=True))
    return _strided(x, out.shape, (*x.strides[: x.ndim - len(size)], *steps, *places))


def _windows_origin(x: Aval, *, size: Shape, stride: Shape, dilation: Shape) -> tuple[Copy, ...]:
    count = len(size)
    at = list(map(Affine.variable, range(x.ndim + count)))
    lead, window, place = at[: x.ndim - count], at[x.ndim - count : x.ndim], at[x.ndim :]
    moved = (w * s + p * d for w, p, s, d in zip(window, place, stride, dilation, strict=True))
    return (Copy((*lead, *moved)),)


def _spelled(params: Mapping[str, Any]) -> str:
    """What is said of stride and dilation, where they are not 1: stride (2, 2)."""
    return "".join(f", {what} {{{what}}}" for what in ("stride", "dilation") if set(params[what]) != {1})


def _windows_text(avals: Sequence[Aval], params: Mapping[str, Any]) -> str:
    return "windows({0}, {size}" + _spelled(params) + ")"


def _windows_latex(avals: Sequence[Aval], params: Mapping[str, Any]) -> str:
    said = r" \times ".join(map(str, params["size"]))
    for what in ("stride", "dilation"):
        if set(params[what]) != {1}:
            said += rf",\,\text{{{{{what} }}}}" + r" \times ".join(map(str, params[what]))
    return rf"\operatorname{{{{windows}}}}_{{{{{said}}}}}\left({{0}}\right)"


def _windows_numpy(avals: Sequence[Aval], params: Mapping[str, Any]) -> str:
    size, stride, dilation = params["size"], params["stride"], params["dilation"]
    axes = tuple(range(-len(size), 0))
    view = f"np.lib.stride_tricks.sliding_window_view({{0}}, {reach(size, dilation)}, axis={axes})"
    steps = (*stride, *dilation)
    return view if set(steps) == {1} else view + "[..., " + ", ".join(f"::{n}" if n > 1 else ":" for n in steps) + "]"


windows: Linear = Linear(
    name="windows",
    reference=_windows_kernel,
    notation=Notation(
        text=_windows_text,
        latex=_windows_latex,
        code="cr.nn.functional.windows({0}, {size}, {stride}, {dilation})",
        numpy=_windows_numpy,
    ),
    shape_rule=lambda x, *, size, stride, dilation: _windowed_shape(
        "windows", x.shape, x.dtype, size, stride, dilation
    ),
    transpose=lambda g, x, *, size, stride, dilation: overlap_add(
        g, shape=x.aval.shape, size=size, stride=stride, dilation=dilation
    ),
    origin=_windows_origin,
    source="Dumoulin, Visin (2016), A guide to convolution arithmetic for deep learning, arXiv:1603.07285",
    samples=(
        floats((2, 5, 6), size=(3, 2), stride=(1, 1), dilation=(1, 1)),
        floats((6,), size=(3,), stride=(1,), dilation=(1,)),
        floats((2, 7), size=(2,), stride=(2,), dilation=(3,)),
        floats((6, 5), size=(2, 3), stride=(3, 1), dilation=(2, 2)),
        floats((0, 4), size=(2,), stride=(1,), dilation=(1,)),
    ),
    misuses=(
        Misuse((Arg((2, 3)),), {"size": (4,), "stride": (1,), "dilation": (1,)}, ShapeError, "smaller than a window"),
        Misuse((Arg((3,)),), {"size": (2, 2), "stride": (1, 1), "dilation": (1, 1)}, ShapeError, "smaller than"),
        Misuse((Arg((3,)),), {"size": (2,), "stride": (0,), "dilation": (1,)}, ShapeError, "a positive int"),
        Misuse((Arg((3,)),), {"size": (2,), "stride": (1, 1), "dilation": (1,)}, ShapeError, "a positive int"),
    ),
)


def _overlap_add_shape(x: Aval, *, shape: Shape, size: Shape, stride: Shape, dilation: Shape) -> Aval:
    if x.dtype == dtypes.bool_:
        raise DTypeError(f"overlap_add: needs numbers; got {x}; cast with .to()")
    try:
        expected = _windowed_shape("overlap_add", shape, x.dtype, size, stride, dilation)
    except ShapeError as error:
        raise ShapeError(f"{error}; the windows are {x}") from None
    if expected.shape != x.shape:
        raise ShapeError(f"overlap_add: the windows of {list(shape)} are {list(expected.shape)}, the input is {x}")
    return Aval(tuple(shape), x.dtype)


def _overlap_add_kernel(x: np.ndarray, *, shape: Shape, size: Shape, stride: Shape, dilation: Shape) -> np.ndarray:
    _overlap_add_shape(Aval(x.shape, x.dtype), shape=shape, size=size, stride=stride, dilation=dilation)
    # Laid out in memory as the windows are, so that sums run along what lies side by side in both.
    first: tuple[Any, ...] = (0,) * len(size)
    out = np.zeros_like(x[(..., *first)], dtypes.work_dtype(x.dtype), shape=tuple(shape))
    counts = positions(shape, size, stride, dilation)
    for place in itertools.product(*map(range, size)):
        starts = [p * step for p, step in zip(place, dilation, strict=True)]
        steps = zip(starts, counts, stride, strict=True)
        there: tuple[Any, ...] = tuple(slice(start, start + (n - 1) * step + 1, step) for start, n, step in steps)
        here: tuple[Any, ...] = place
        out[(..., *there)] += x[(..., *here)]
    return out.astype(x.dtype, copy=False)


def _overlap_add_text(avals: Sequence[Aval], params: Mapping[str, Any]) -> str:
    return "overlap_add({0}" + _spelled(params) + ")"


overlap_add: Linear = Linear(
    name="overlap_add",
    reference=_overlap_add_kernel,
    notation=Notation(
        text=_overlap_add_text,
        latex=r"\operatorname{{overlap\_add}}_{{{shape}}}\left({0}\right)",
        code="cr.nn.functional.overlap_add({0}, {shape}, {size}, {stride}, {dilation})",
        numpy="",
    ),
    shape_rule=_overlap_add_shape,
    transpose=lambda g, x, *, shape, size, stride, dilation: windows(g, size=size, stride=stride, dilation=dilation),
    source="Dumoulin, Visin (2016), A guide to convolution arithmetic for deep learning, arXiv:1603.07285",
    samples=(
        floats((2, 3, 5, 3, 2), shape=(2, 5, 6), size=(3, 2), stride=(1, 1), dilation=(1, 1)),
        floats((2, 2, 2), shape=(2, 7), size=(2,), stride=(2,), dilation=(3,)),
        floats((2, 1, 2, 3), shape=(6, 5), size=(2, 3), stride=(3, 1), dilation=(2, 2)),
    ),
    misuses=(
        Misuse(
            (Arg((2, 3)),), {"shape": (5,), "size": (3,), "stride": (1,), "dilation": (1,)}, ShapeError, "the input is"
        ),
        Misuse(
            (Arg((3, 3)),), {"shape": (2,), "size": (3,), "stride": (1,), "dilation": (1,)}, ShapeError, "smaller than"
        ),
        Misuse(
            (Arg((3, 3), "bool"),), {"shape": (5,), "size": (3,), "stride": (1,), "dilation": (1,)}, DTypeError,
            "needs numbers",
        ),
    ),
)  # fmt: skip

ALL = (windows, overlap_add)
