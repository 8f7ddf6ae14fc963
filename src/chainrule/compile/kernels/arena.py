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
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from chainrule.compile.kernels.buffer import Buffer
from chainrule.compile.kernels.schedule import Schedule
from chainrule.core.alignment import aligned

_SMALL = 1 << 15  # bytes
_LONGER = 8  # tasks
_SHARED = 1 << 13  # bytes from which on threads share a temporary, as a rule
_BETWEEN = 1 << 14  # bytes between two of those
_MOST = 1 << 26  # bytes: beyond, no more than twice what is needed is spent on it


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
    lives: dict[int, tuple[Buffer, int, int]] = {}
    for number, task in enumerate(schedule.tasks):
        for buffer in (*task.writes, *task.reads):
            if buffer.place == "arena":
                _, first, _ = lives.get(id(buffer), (buffer, number, number))
                lives[id(buffer)] = buffer, first, number
    compact = _placed(lives, apart=False)
    if threads == 1:
        return compact
    apart = _placed(lives, apart=True)
    return apart if apart.size <= max(_MOST, 2 * compact.size) else compact


def _placed(lives: Mapping[int, tuple[Buffer, int, int]], *, apart: bool) -> Arena:
    """A plan. lives: each temporary, by id, with its first and last task; apart: as is better for several threads."""
    between = _BETWEEN if apart else 0
    stays: list[Stay] = []  # by where they begin
    for buffer, first, last in sorted(lives.values(), key=lambda life: (-life[0].bytes, life[1], life[0].name)):
        until = _free_after(buffer, last)
        alive = [s for s in stays if s.first <= until and first <= s.until]
        start = None
        if apart:
            again = sorted({s.start for s in stays if s.buffer.bytes == buffer.bytes} - {s.start for s in alive})
            start = next(
                (at for at in again if not any(at < s.stop and s.start < at + buffer.bytes for s in alive)), None
            )
        if start is None:
            start = _lowest(buffer, stays if apart else alive, between)
        stay = Stay(buffer=buffer, start=start, first=first, last=last)
        bisect.insort_right(stays, stay, key=lambda s: s.start)
    size = max((aligned(s.stop) for s in stays), default=0)
    return Arena(stays=tuple(stays), size=size, between=between)


def _lowest(buffer: Buffer, taken: Iterable[Stay], between: int) -> int:
    """The lowest place that is free, among some by where they begin."""
    start = 0
    for other in taken:
        gap = between if min(buffer.bytes, other.buffer.bytes) >= _SHARED else 0
        if start + buffer.bytes + gap <= other.start:
            break
        start = max(start, aligned(other.stop + gap))
    return start


def _free_after(buffer: Buffer, last: int) -> int:
    return last + _LONGER if buffer.bytes <= _SMALL else last
