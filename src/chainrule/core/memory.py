"""When memory was last changed in place, for everyone who shares it: views, detached tensors, NumPy's own arrays of it.

Knows arrays and the clock's ticks; knows no node. A pending backward pass asks here whether a value it needs is stale.
"""

from __future__ import annotations

import weakref

import numpy as np
from numpy.lib.array_utils import byte_bounds


class Record:
    """The changes of one piece of memory: when of all of it, and of parts of it (bytes from, to); while that lives."""

    __slots__ = ("owner", "parts", "whole")

    def __init__(self, owner: weakref.ref[np.ndarray]) -> None:
        self.owner = owner  # kept so that its callback runs
        self.whole = 0
        self.parts: dict[tuple[int, int], int] = {}


_WORK = 10_000  # of NumPy, to find out whether two arrays share memory

_records: dict[int, Record] = {}
latest_change = [0]  # when anything was last changed; nothing made later can be stale


def note_change(data: np.ndarray, when: int) -> None:
    """The entries of `data` were changed at tick `when`."""
    owner = owner_of(data)
    record = record_of(owner)
    if owner is data:
        record.whole = when
    else:
        record.parts[byte_bounds(data)] = when
    latest_change[0] = when


def record_of(owner: np.ndarray) -> Record:
    """The changes of a piece of memory. Who changes all of it often may write `whole` and `latest_change` itself."""
    key = id(owner)
    record = _records.get(key)
    if record is None:
        record = _records[key] = Record(weakref.ref(owner, lambda _: _records.pop(key, None)))
    return record


def note_moment(when: int) -> None:
    """Something was changed at tick `when` that has no memory yet: a symbol of a function being traced."""
    latest_change[0] = when


def changed_at(data: np.ndarray) -> int:
    """When an entry of `data` was last changed; 0 if never."""
    record = _records.get(id(owner_of(data)))
    if record is None:
        return 0
    when = record.whole
    if record.parts:
        low, high = byte_bounds(data)
        when = max([when, *(tick for (start, end), tick in record.parts.items() if start < high and low < end)])
    return when


def forget_changes(data: np.ndarray) -> None:
    """The entries of `data` are again what they were before any change: its memory counts as never changed."""
    record = _records.get(id(owner_of(data)))
    if record is not None:
        record.whole = 0
        record.parts.clear()


def share_memory(x: np.ndarray, y: np.ndarray) -> bool:
    """Is an entry of one an entry of the other? True where that would take long to find out."""
    return np.may_share_memory(x, y, max_work=_WORK)  # type: ignore[arg-type] # NumPy takes any number


def owner_of(data: np.ndarray) -> np.ndarray:
    """The first array of its memory, of which it is a view, or which it is itself."""
    while isinstance(data.base, np.ndarray):
        data = data.base
    return data
