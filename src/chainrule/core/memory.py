"""When memory was last changed in place, for everyone who shares it: views, detached tensors, NumPy's own arrays of it.

Knows arrays and the clock's ticks; knows no node. A pending backward pass asks here whether a value it needs is stale.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence

import numpy as np
from numpy.lib.array_utils import byte_bounds


class _Record:
    """The changes of one piece of memory: of all of it, and of parts of it (bytes from, to)."""

    __slots__ = ("owner", "parts", "whole")

    def __init__(self, owner: weakref.ref[np.ndarray]) -> None:
        self.owner = owner  # kept so that its callback runs
        self.whole = 0
        self.parts: dict[tuple[int, int], int] = {}


_records: dict[int, _Record] = {}
_latest = [0]


def latest_change() -> int:
    """When anything was last changed; nothing made later can be stale."""
    return _latest[0]


def note_change(data: np.ndarray, when: int) -> None:
    """The entries of `data` were changed at tick `when`."""
    owner = owner_of(data)
    key = id(owner)
    record = _records.get(key)
    if record is None:
        record = _records[key] = _Record(weakref.ref(owner, lambda _: _records.pop(key, None)))
    if owner is data:
        record.whole = when
    else:
        record.parts[byte_bounds(data)] = when
    _latest[0] = when


def note_moment(when: int) -> None:
    """Something was changed at tick `when` that has no memory yet: a symbol of a function being traced."""
    _latest[0] = when


def note_owned(owners: Sequence[int], when: int) -> bool:
    """As `note_change`, of whole pieces of memory that are known by id already; False if one is not."""
    for key in owners:
        record = _records.get(key)
        if record is None:
            return False
        record.whole = when
    _latest[0] = when
    return True


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
    _records.pop(id(owner_of(data)), None)


def owner_of(data: np.ndarray) -> np.ndarray:
    """The first array of its memory, of which it is a view, or which it is itself."""
    while isinstance(data.base, np.ndarray):
        data = data.base
    return data
