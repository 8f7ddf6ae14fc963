"""Updates in place: of leaves, under `no_grad()`, noted on the clock so that no backward reads a changed value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule import dtypes
from chainrule.array import elementwise
from chainrule.array.align import as_node, is_scalar, value_of
from chainrule.array.elementwise import Operand
from chainrule.array.entries import with_entries
from chainrule.core.alignment import aligned_copy, is_writable
from chainrule.core.memory import note_moment
from chainrule.core.node import ENGINE_OFF, RECORD, Node, at_user_line, recording, recording_mode, tick
from chainrule.core.tracing import tracer
from chainrule.errors import DTypeError, InPlaceError, OutOfRangeError, ShapeError

if TYPE_CHECKING:
    from chainrule.tensor import Tensor


def no_leaf(x: Any, name: str) -> Exception:
    """The error for an update in place of a tensor that was computed from others."""
    return at_user_line(InPlaceError(
        f"{name}: this tensor was computed by {x.op.name}; only leaves change in place; write y = y … instead"
    ))  # fmt: skip


def _memory(x: Any, name: str) -> np.ndarray:
    """The leaf's own memory, about to be written to; the update is noted on the clock.

    Raises: InPlaceError: the tensor was computed from others, or shares memory with one that cannot be written to.
    """
    value_of(x, name)
    if x.op is not None:
        raise no_leaf(x, name)
    data = own_memory(x, name)
    x.constant = None
    x.changed()
    return data


def own_memory(x: Any, name: str) -> np.ndarray:
    """The array of a leaf, each entry of which can be written to; of its own, if it was none of these.

    Raises: InPlaceError: it shares memory with another tensor that cannot be written to, and would lose it.
    """
    if not is_writable(x.array):
        if x.origin is not None and x.array.size:
            raise at_user_line(InPlaceError(
                f"{name}: the memory that this tensor shares with another is read-only, or holds several entries in "
                f"one place, as after expand; call .clone() on it first"
            ))  # fmt: skip
        x.array = aligned_copy(x.array)
    array: np.ndarray = x.array
    return array


def writable(x: Tensor, name: str = "writable") -> np.ndarray:
    """The leaf's own memory, for a caller that writes to it at once: the update is noted on the clock here.

    What optimisers write through, at NumPy's speed. Unlike `copy_`, it does not ask whether recording is on.

    Raises: InPlaceError: the tensor was computed from others.
    """
    tracing = tracer()
    return _memory(x, name) if tracing is None else tracing.array(x)


def _refuse_loss(x: Any, name: str, *values: Any) -> None:
    """An update that a gradient would be lost by, or that a graph would not know of, is an error.

    Raises: InPlaceError: recording is on, and `x` or what it becomes requires a gradient.
    """
    if not x.is_leaf or recording_mode() is not RECORD:
        return
    if x.requires_grad:
        raise at_user_line(
            InPlaceError(f"{name}: a leaf that requires a gradient changes in place only under `with cr.no_grad():`")
        )
    if any(getattr(value, "requires_grad", False) for value in values):
        raise at_user_line(InPlaceError(
            f"{name}: the new value requires a gradient, which an in-place update would lose; "
            f"write y = y … instead{_INSTEAD.get(name, '')}"
        ))  # fmt: skip


# What to write, where an operator will not do.
_INSTEAD = {"setitem": ", with cr.where(…), or collect the parts and join them with cr.stack(…) or cr.cat(…)"}


def _updated(x: Any, name: str, value: Any) -> Any:
    """`x` with `value` written into its memory.

    Raises: InPlaceError: not a leaf, or recording is on. ShapeError: the value does not fit.
    """
    _refuse_loss(x, name, value)
    tracing = tracer()
    array: Any = value
    if not is_scalar(value):
        fresh = as_node(value, x, name)
        array = fresh.array
        sizes = zip(fresh.aval.shape[::-1], x.aval.shape[::-1], strict=False)
        if fresh.aval.ndim > x.aval.ndim or any(n not in (1, m) for n, m in sizes):
            raise at_user_line(ShapeError(f"{name}: {fresh.aval} does not fit into {x.aval}"))
    if tracing is not None:
        tracing.array(x).assign(value if is_scalar(value) else fresh, name)
        return x
    np.copyto(_memory(x, name), array, casting="unsafe")
    return x


def _in_place(x: Any, name: str, function: Any, *operands: Any) -> Any:
    """x = function(x, …), in place.

    Raises: DTypeError: the result does not fit into the dtype of `x`.
    """
    _refuse_loss(x, name, *operands)
    value = recording(ENGINE_OFF, function, x, *operands)
    if dtypes.promote(value.dtype, x.dtype) != x.dtype:
        raise at_user_line(DTypeError(f"{name}: the result is {value.dtype} and does not fit in place into {x.aval}"))
    return _updated(x, name, value)


def _moved(x: Any, name: str, kernel: Any, function: Any, other: Any) -> Any:
    """x = function(x, other), in place: at NumPy's speed where the shapes and dtypes already agree."""
    data, b = x.array, other.array if isinstance(other, Node) else None
    if (
        data is not None and b is not None and x.op is None and data.dtype is b.dtype and data.shape == b.shape
        and not isinstance(data.base, np.ndarray) and data.flags.writeable and dtypes.is_float(data.dtype)
        and recording_mode() is not RECORD and tracer() is None
    ):  # fmt: skip
        kernel(data, b, out=data)
        x.constant = None
        x.changed()
        return x
    return _in_place(x, name, function, other)


def add_(x: Tensor, other: Operand, *, alpha: float = 1) -> Tensor:
    """x += alpha · other."""
    return _moved(x, "add_", np.add, elementwise.add, other if alpha == 1 else other * alpha)  # type: ignore[no-any-return]


def sub_(x: Tensor, other: Operand, *, alpha: float = 1) -> Tensor:
    """x -= alpha · other."""
    return _moved(x, "sub_", np.subtract, elementwise.sub, other if alpha == 1 else other * alpha)  # type: ignore[no-any-return]


def mul_(x: Tensor, other: Operand) -> Tensor:
    """x *= other."""
    return _moved(x, "mul_", np.multiply, elementwise.mul, other)  # type: ignore[no-any-return]


def div_(x: Tensor, other: Operand) -> Tensor:
    """x /= other."""
    return _moved(x, "div_", np.true_divide, elementwise.div, other)  # type: ignore[no-any-return]


def clamp_(x: Tensor, min: Any = None, max: Any = None) -> Tensor:
    """x = x.clamp(min, max), in place."""
    return _in_place(x, "clamp_", elementwise.clamp, min, max)  # type: ignore[no-any-return]


def zero_(x: Tensor) -> Tensor:
    """Every entry 0, in place."""
    return _updated(x, "zero_", 0)  # type: ignore[no-any-return]


def fill_(x: Tensor, value: float) -> Tensor:
    """Every entry `value`, in place."""
    return _updated(x, "fill_", value)  # type: ignore[no-any-return]


def copy_(x: Tensor, source: Any) -> Tensor:
    """The entries of `source`, which broadcasts, in place."""
    return _updated(x, "copy_", source)  # type: ignore[no-any-return]


def replace(x: Any, value: Any) -> None:
    """`x.data = value`: the leaf takes the memory of another tensor, without its graph.

    Raises: DTypeError: not a tensor, or one of another dtype. InPlaceError: `x` was computed from others. ShapeError:
        another shape.
    """
    if not isinstance(value, Node):
        raise at_user_line(DTypeError(
            f"data: expected a tensor; got {type(value).__name__}; use cr.tensor(…), or update the entries under "
            f"`with cr.no_grad():`"
        ))  # fmt: skip
    if value.aval != x.aval:
        error = DTypeError if value.aval.dtype != x.aval.dtype else ShapeError
        raise at_user_line(error(f"data: expected {x.aval}, as it was; got {value.aval}; make a new tensor instead"))
    tracing = tracer()
    if tracing is not None:
        tracing.replace(x, value)
        return
    array = value_of(value, "data")
    if array is x.array:
        return
    if x.op is not None:
        raise no_leaf(x, "data")
    x.array, x.constant, x.origin = array, None, value.origin
    x.mutated = when = tick()  # this tensor, for whoever read it before; none that shares its memory, old or new
    note_moment(when)


def setitem(x: Tensor, key: Any, value: Any) -> None:
    """x[key] = value, in place.

    Raises: InPlaceError: not a leaf, or a gradient would be lost. OutOfRangeError: an index that does not exist.
        ShapeError: the value does not fit there.
    """
    _refuse_loss(x, "setitem", value)
    if tracer() is not None:
        _updated(x, "setitem", recording(ENGINE_OFF, with_entries, x, key, value))
        return
    changed = value_of(x, "setitem").copy()
    array = value.array if isinstance(value, Node) else value
    plain = tuple(_plain(k) for k in key) if isinstance(key, tuple) else _plain(key)
    try:
        changed[plain] = array
    except IndexError as error:
        raise at_user_line(OutOfRangeError(f"setitem: {error}")) from None
    except ValueError as error:
        raise at_user_line(ShapeError(f"setitem: {error}")) from None
    _updated(x, "setitem", changed)


def _plain(key: Any) -> Any:
    return key.array if isinstance(key, Node) else key


# --- x += y: an update in place, or a new value where y needs a gradient that an update would lose


def _changes_with(x: Any, other: Any) -> bool:
    return x.is_leaf and not (
        recording_mode() is RECORD and not x.requires_grad and getattr(other, "requires_grad", False)
    )


def iadd(x: Tensor, other: Operand) -> Tensor:
    """x += other."""
    return add_(x, other) if _changes_with(x, other) else elementwise.add(x, other)


def isub(x: Tensor, other: Operand) -> Tensor:
    """x -= other."""
    return sub_(x, other) if _changes_with(x, other) else elementwise.sub(x, other)


def imul(x: Tensor, other: Operand) -> Tensor:
    """x *= other."""
    return mul_(x, other) if _changes_with(x, other) else elementwise.mul(x, other)


def itruediv(x: Tensor, other: Operand) -> Tensor:
    """x /= other."""
    return div_(x, other) if _changes_with(x, other) else elementwise.div(x, other)
