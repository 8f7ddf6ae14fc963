"""Where each temporary lies in one stretch of memory, the arena: those that are never needed at once share a place."""

from __future__ import annotations

from dataclasses import dataclass

from chainrule.compile.kernels.buffer import Buffer
from chainrule.compile.kernels.schedule import Schedule
from chainrule.core.alignment import ALIGNMENT

_SMALL = 1 << 15  # bytes
_LONGER = 8  # tasks


@dataclass(frozen=True, eq=False, kw_only=True)
class Stay:
    """A buffer's place in the arena, and the tasks (first, last) from its first write to its last use."""

    buffer: Buffer
    start: int
    first: int
    last: int

    @property
    def stop(self) -> int:
        """The byte just behind it."""
        return self.start + self.buffer.bytes


@dataclass(frozen=True, eq=False, kw_only=True)
class Arena:
    """The plan: `size` bytes in all; `apart` is what the temporaries would take without sharing."""

    stays: tuple[Stay, ...]
    size: int

    @property
    def apart(self) -> int:
        """Bytes if no two temporaries shared a place."""
        return sum(_rounded(s.buffer.bytes) for s in self.stays)

    def offsets(self) -> dict[int, int]:
        """The first byte of each buffer, by id."""
        return {id(s.buffer): s.start for s in self.stays}


def planned(schedule: Schedule) -> Arena:
    """A place for each temporary: the largest first, each at the lowest place free as long as it lives.

    Small ones count as alive for some tasks more: what takes their place sooner would have to wait for their readers.
    """
    lives: dict[int, tuple[Buffer, int, int]] = {}
    for number, task in enumerate(schedule.tasks):
        for buffer in (*task.writes, *task.reads):
            if buffer.place == "arena":
                _, first, _ = lives.get(id(buffer), (buffer, number, number))
                lives[id(buffer)] = buffer, first, number
    stays: list[Stay] = []
    for buffer, first, last in sorted(lives.values(), key=lambda life: (-life[0].bytes, life[1], life[0].name)):
        until = _free_after(buffer, last)
        meanwhile = (s for s in stays if s.first <= until and first <= _free_after(s.buffer, s.last))
        start = 0
        for other in sorted(meanwhile, key=lambda s: s.start):
            if start + buffer.bytes <= other.start:
                break
            start = max(start, _rounded(other.stop))
        stays.append(Stay(buffer=buffer, start=start, first=first, last=last))
    return Arena(stays=tuple(stays), size=max((_rounded(s.stop) for s in stays), default=0))


def _free_after(buffer: Buffer, last: int) -> int:
    return last + _LONGER if buffer.bytes <= _SMALL else last


def _rounded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
