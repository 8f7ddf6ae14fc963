"""Where each temporary lies in one stretch of memory, the arena: those that are never needed at once share a place.

Threads share temporaries by their rows, as a rule each the same part of each: a core writes again what it wrote before.
So with several threads a place is shared only by temporaries of the same size, whose parts then are the same lines of
memory; else each core would fill lines that the other has used last, which in a transformer's step between distant
cores took a tenth of the time.

And large ones lie apart. A core fetches some lines beyond those it was told to work on. Where the end of one temporary,
which one core fills, is followed by the beginning of another, which another core fills, each takes lines from the other
that it has no use for. With 4 KB between them the page's net still lost a microsecond of 24 to it, with 16 KB nothing.
"""

from __future__ import annotations

import bisect
import heapq
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from chainrule.compile.kernels.buffer import Buffer
from chainrule.compile.kernels.schedule import Schedule
from chainrule.core.alignment import aligned

_SMALL = 1 << 15  # bytes
_LONGER = 8  # tasks
_SHARED = 1 << 13  # bytes from which on threads share a temporary, as a rule
_BETWEEN = 1 << 14  # bytes between two of those
_MOST = 1 << 26  # bytes: beyond, no more than twice what is needed is spent on it

Life = tuple[Buffer, int, int]  # a temporary, and the first and the last task that touches it


@dataclass(frozen=True, eq=False, kw_only=True)
class Stay:
    """A buffer's place in the arena, and the tasks (first, last) from its first write to its last use."""

    buffer: Buffer
    start: int
    first: int
    last: int

    @cached_property
    def stop(self) -> int:
        """The byte just behind it."""
        return self.start + self.buffer.bytes

    @cached_property
    def until(self) -> int:
        """The last task in which its place is not free."""
        return _free_after(self.buffer, self.last)


@dataclass(frozen=True, eq=False, kw_only=True)
class Arena:
    """The plan: `size` bytes in all; `apart` is what the temporaries would take without sharing.

    between: bytes between large temporaries.
    """

    stays: tuple[Stay, ...]
    size: int
    between: int

    @property
    def apart(self) -> int:
        """Bytes if no two temporaries shared a place."""
        gaps = (self.between if s.buffer.bytes >= _SHARED else 0 for s in self.stays)
        return sum(aligned(s.buffer.bytes + gap) for s, gap in zip(self.stays, gaps, strict=True))

    def offsets(self) -> dict[int, int]:
        """The first byte of each buffer, by id."""
        return {id(s.buffer): s.start for s in self.stays}


def planned(schedule: Schedule, threads: int = 1) -> Arena:
    """A place for each temporary: the largest first, each at the lowest place free as long as it lives.

    Small ones count as alive for some tasks more: what takes their place sooner would have to wait for their readers.
    """
    lives: dict[int, Life] = {}
    for number, task in enumerate(schedule.tasks):
        for buffer in (*task.writes, *task.reads):
            if buffer.place == "arena":
                _, first, _ = lives.get(id(buffer), (buffer, number, number))
                lives[id(buffer)] = buffer, first, number
    wanted = sorted(lives.values(), key=lambda life: (-life[0].bytes, life[1], life[0].name))
    if threads == 1:
        return _compact(wanted)
    apart = _apart(wanted)
    if apart.size > _MOST:
        compact = _compact(wanted)
        if apart.size > 2 * compact.size:
            return compact
    return apart


def _compact(wanted: Sequence[Life]) -> Arena:
    """Each at the lowest place that is free as long as it lives."""
    taken = _Taken(0)
    for buffer, first, last in wanted:
        taken.add(buffer, first, last, taken.lowest(buffer, taken.alive(first, _free_after(buffer, last))))
    return taken.arena()


def _apart(wanted: Sequence[Life]) -> Arena:
    """Each where one of the same size lay, the lowest such place that is free; else at a place that nothing lay at.

    Of one size, those come first that begin to live first: a place is free once the last that lay there is done.
    """
    taken, size = _Taken(_BETWEEN), -1
    free, busy = list[int](), list[tuple[int, int]]()  # heaps, of places of this size; busy: (until, start)
    for buffer, first, last in wanted:
        if buffer.bytes != size:
            size, free, busy = buffer.bytes, [], []
        while busy and busy[0][0] < first:
            heapq.heappush(free, heapq.heappop(busy)[1])
        start = heapq.heappop(free) if free else taken.lowest(buffer, slice(None))
        heapq.heappush(busy, (taken.add(buffer, first, last, start).until, start))
    return taken.arena()


class _Taken:
    """What has its place already.

    between: bytes between large ones.
    """

    def __init__(self, between: int) -> None:
        self._between = between
        self._stays: list[Stay] = []  # by where they begin
        # Of each, in the same order: where it begins, where it ends, is it large, the tasks in which it is not free.
        self._columns = np.empty((5, 0), np.int64)

    def alive(self, first: int, until: int) -> np.ndarray:
        """Which are not free at some time between two tasks."""
        found: np.ndarray = (self._columns[3] <= until) & (self._columns[4] >= first)
        return found

    def lowest(self, buffer: Buffer, among: np.ndarray | slice) -> int:
        """The lowest place that is free of some."""
        starts, stops, large = self._columns[:3, among]
        gaps = large * (self._between if buffer.bytes >= _SHARED else 0)
        behind = np.maximum.accumulate(np.append(0, aligned(stops + gaps)))
        (fits,) = np.nonzero(behind[:-1] + buffer.bytes + gaps <= starts)
        return int(behind[fits[0] if len(fits) else -1])

    def add(self, buffer: Buffer, first: int, last: int, start: int) -> Stay:
        """Note what lies there from now on."""
        stay = Stay(buffer=buffer, start=start, first=first, last=last)
        at = bisect.bisect_right(self._stays, start, key=operator.attrgetter("start"))
        self._stays.insert(at, stay)
        column = start, stay.stop, buffer.bytes >= _SHARED, first, stay.until
        self._columns = np.insert(self._columns, at, column, axis=1)
        return stay

    def arena(self) -> Arena:
        """The plan."""
        size = max((aligned(s.stop) for s in self._stays), default=0)
        return Arena(stays=tuple(self._stays), size=size, between=self._between)


def _free_after(buffer: Buffer, last: int) -> int:
    return last + _LONGER if buffer.bytes <= _SMALL else last
