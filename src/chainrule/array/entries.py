"""x[key] = value as a new value instead of a write: what an assignment to entries is while a function is traced."""

from __future__ import annotations

from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.array import elementwise
from chainrule.array.align import as_node, expand, is_scalar, to_dtype
from chainrule.core.aval import Aval
from chainrule.core.node import Node, at_user_line
from chainrule.core.tracing import known
from chainrule.errors import OutOfRangeError, ShapeError, TraceError
from chainrule.ops import indexing, movement


def with_entries(x: Any, key: Any, value: Any) -> Any:
    """`x` with `value` at x[key]: a node of the shape and dtype of `x`.

    Raises: TraceError: which entries are meant depends on values. OutOfRangeError, ShapeError: as in NumPy.
    """
    cls, aval = x.makes, x.aval
    if isinstance(key, Node) and key.aval == Aval(aval.shape, dtypes.bool_) and known(key) is None:
        mask: Any = key
        return elementwise.where(mask, _given(cls, value, aval, ()), x)
    plain = tuple(_plain(k) for k in key) if isinstance(key, tuple) else _plain(key)
    number = np.arange(aval.size).reshape(aval.shape)
    try:
        places = np.asarray(number[plain])
    except IndexError as error:
        raise at_user_line(OutOfRangeError(f"setitem: {error}")) from None
    given = _given(cls, value, aval, places.shape)
    if places.size == aval.size and np.array_equal(places.reshape(-1), np.arange(aval.size)):
        return movement.reshape(given, shape=aval.shape)
    window = _window(plain, aval.shape)
    if window is not None:
        sizes = tuple(len(range(*w)) for w in window)
        filled = movement.embed(movement.reshape(given, shape=sizes), shape=aval.shape, window=window)
    else:
        flat = places.reshape(-1)
        if len(np.unique(flat)) != flat.size:
            raise at_user_line(TraceError(
                "setitem: an index that names an entry twice cannot be compiled: which value stays is a matter of "
                "order; add with index_add, or name each entry once"
            ))  # fmt: skip
        entries = movement.reshape(given, shape=(flat.size,))
        filled = movement.reshape(indexing.index_add(entries, cls.leaf(flat), shape=(aval.size,)), shape=aval.shape)
    chosen = np.zeros(aval.size, bool)
    chosen[places.reshape(-1)] = True
    return elementwise.where(cls.leaf(chosen.reshape(aval.shape)), filled, x)


def _plain(key: Any) -> Any:
    if not isinstance(key, Node):
        return key
    value = known(key)
    if value is None:
        raise at_user_line(TraceError(
            f"setitem: the entries to set depend on values, {key.aval}, while cr.compile traces the function; use "
            f"cr.where(mask, value, x), or index_add"
        ))  # fmt: skip
    return value


def _given(cls: Any, value: Any, aval: Aval, shape: tuple[int, ...]) -> Any:
    """What is assigned, in the dtype of the tensor and this shape."""
    if is_scalar(value):
        return cls.filled(Aval(shape, aval.dtype), value)
    node = to_dtype(as_node(value, cls.filled(Aval((), aval.dtype), 0), "setitem"), aval.dtype)
    sizes = zip(node.aval.shape[::-1], shape[::-1], strict=False)
    if node.aval.ndim > len(shape) or any(n not in (1, m) for n, m in sizes):
        raise at_user_line(ShapeError(f"setitem: {node.aval} does not fit into {list(shape)} entries"))
    return expand(node, shape)


def _window(key: Any, shape: tuple[int, ...]) -> tuple[tuple[int, int, int], ...] | None:
    """The window that ints and forward slices name, or None for any other key."""
    parts = list(key) if isinstance(key, tuple) else [key]
    if any(isinstance(p, bool) or not isinstance(p, int | np.integer | slice | type(...)) for p in parts):
        return None
    fill = [slice(None)] * (len(shape) - len(parts) + (... in parts))
    if ... in parts:
        at = parts.index(...)
        parts[at : at + 1] = fill
    else:
        parts += fill
    window = []
    for part, n in zip(parts, shape, strict=True):
        start, stop, step = part.indices(n) if isinstance(part, slice) else (int(part) % n, int(part) % n + 1, 1)
        if step < 0 or stop <= start:
            return None
        window.append((start, range(start, stop, step)[-1] + 1, step))
    return tuple(window)
