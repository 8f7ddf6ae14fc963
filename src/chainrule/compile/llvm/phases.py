"""Which task runs in which phase, by which thread: phases are what threads do between one barrier and the next.

A large task is shared by all threads, unit by unit; a small one is done by one. A task is of the present phase if what
it touches is written in no other task of it; or only by the same thread: both are done by one, or both are shared row
by row, and each row is read only where it was written. So a product, an activation and the next product of a batch are
one phase. A task that has to wait does not hold up those behind it that need nothing of it.

What keeps each thread busy for long is no thread's alone: who is through does what others left (see `stealing.py`).
A barrier before and after it then costs less than waiting for the slowest.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from chainrule.compile.kernels.buffer import Buffer
from chainrule.compile.kernels.points import Batch, by_point
from chainrule.compile.kernels.tasks import Task
from chainrule.compile.llvm.planning import NestPlan, Plan
from chainrule.compile.llvm.shares import Split

_SHARED = 2500.0  # cycles of work from which a task is shared among threads, where that takes a barrier of some hundred
_SHARED_ROWS = 500.0  # and where it takes none
_STOLEN = 100_000.0  # cycles of work of each thread from which others may help
_GRAIN = 10_000.0  # cycles of work that are worth to be taken
_BLOCKS = 4  # of rows at least, if they are made larger so that tiles of two heights are whole in them
_AHEAD = 8  # tasks that may wait while others are done before them


@dataclass(frozen=True, eq=False, kw_only=True)
class Placed:
    """A task of a phase: shared by all threads, or done by the one that has this slot.

    split: how it is shared, if so that the rows of a thread are those of its other tasks; else unit by unit.
    grain: how many units at least are taken at a time from a share, by its thread or another; None: shares are fixed.
    """

    task: Task
    number: int
    plan: Plan | NestPlan
    slot: int | None
    split: Split | None = None
    grain: int | None = None


def phases(
    tasks: Sequence[Task], plans: Sequence[Plan | NestPlan], threads: int, offsets: Mapping[int, int]
) -> tuple[tuple[Placed, ...], ...]:
    """The tasks in phases.

    offsets: the first byte in the arena of each temporary, by id.
    """
    if threads == 1:  # which waits for nobody
        alone = [Placed(task=task, number=n, plan=plans[n], slot=0) for n, task in enumerate(tasks)]
        return (tuple(alone),) if alone else ()
    planner = _Phases(tasks, plans, threads, offsets)
    waiting = list(range(len(tasks)))
    found = []
    while waiting:
        phase, waiting = planner.phase(waiting)
        found.append(tuple(phase))
    return tuple(found)


class _Phases:
    def __init__(
        self,
        tasks: Sequence[Task],
        plans: Sequence[Plan | NestPlan],
        threads: int,
        offsets: Mapping[int, int],
    ) -> None:
        self.tasks, self.plans, self.threads = tasks, plans, threads
        self.heights = _heights(plans)
        self._pieces = _pieces(tasks, offsets)
        self._last = {id(buffer): n for n, task in enumerate(tasks) for buffer in (*task.reads, *task.writes)}

    def phase(self, waiting: Sequence[int]) -> tuple[list[Placed], list[int]]:
        """The next phase, and the tasks that are left."""
        phase: list[Placed] = []
        left: list[int] = []
        load = [0.0] * self.threads
        readers, writers = _Touching(self._pieces), _Touching(self._pieces)
        for at, number in enumerate(waiting):
            if len(left) == _AHEAD:
                return phase, [*left, *waiting[at:]]
            task = self.tasks[number]
            if any(self._clash(self.tasks[other], task) for other in left):
                left.append(number)
                continue
            against = {**writers.of(task.reads), **writers.of(task.writes), **readers.of(task.writes)}
            placed = self._placed(number, list(against.values()), load)
            if placed is None:
                left.append(number)
            else:
                phase.append(placed)
                readers.add(placed, task.reads)
                writers.add(placed, task.writes)
        return phase, left

    def _placed(self, number: int, against: Sequence[Placed], load: list[float]) -> Placed | None:
        """A task in a phase beside those that it touches something in common with; None if it has to wait for them."""
        task, plan = self.tasks[number], self.plans[number]
        work, split = plan.work, self._split(plan)
        several = plan.units > 1 and self.threads > 1
        grain = self._grain(plan, work) if several and work >= _STOLEN * self.threads else None
        if against and (grain is not None or any(other.grain is not None for other in against)):
            return None
        by_rows = split is not None and all(self._row_by_row(other, task) for other in against)
        free = by_rows and (against or self._followed(number, split) >= _SHARED)  # takes no barrier
        free = free or (not against and self._is_last(number))
        if several and work >= (_SHARED_ROWS if free else _SHARED):
            if against and not by_rows:
                return None
            shared = split or Split.of_units(plan.units)
            firsts = [shared.first(thread, self.threads) for thread in range(self.threads + 1)]
            for thread, (lo, hi) in enumerate(pairwise(firsts)):
                load[thread] += work * (hi - lo) / shared.blocks
            return Placed(task=task, number=number, plan=plan, slot=None, split=split, grain=grain)
        slots = {other.slot for other in against}
        if None in slots or len(slots) > 1:
            return None
        slot = slots.pop() if slots else load.index(min(load))
        assert slot is not None
        load[slot] += work
        return Placed(task=task, number=number, plan=plan, slot=slot)

    def _grain(self, plan: Plan | NestPlan, work: float) -> int | None:
        """The least units to be taken at a time; None if there are too few for that."""
        grain = max(plan.grain, math.ceil(plan.units * _GRAIN / work))
        return grain if plan.units > grain * self.threads else None

    def _is_last(self, number: int) -> bool:
        """Does no task behind this one touch what it writes, so that nobody waits for it but the end of the step?"""
        return all(self._last[id(buffer)] == number for buffer in self.tasks[number].writes)

    # --- rows

    def _followed(self, number: int, split: Split | None) -> float:
        """The work of a task and of those soon behind it that are shared by the same rows."""
        near = self.plans[number : number + _AHEAD]
        return sum(plan.work for plan in near if split is not None and split.same_rows(self._split(plan)))

    def _split(self, plan: Plan | NestPlan) -> Split | None:
        """How a kernel's units are shared so that the same rows fall to the same threads in all kernels."""
        rows = plan.rows
        height = self.heights.get(rows.number, 0) if rows is not None else 0
        if rows is None or height % rows.height or height * self.threads > rows.number:
            return None
        return Split(rows=rows.number, height=height, each=height // rows.height)

    def _row_by_row(self, first: Placed, second: Task) -> bool:
        """Do two tasks touch what they have in common only at the same rows?"""
        rows = first.plan.rows
        if rows is None or first.split is None or second.kernel.extents.get(0) != rows.number:
            return False
        batch = Batch((rows.number,))
        common = first.task.writes & (second.reads | second.writes) | first.task.reads & second.writes
        if not all(by_point(b, task, batch) for b in common for task in (first.task, second)):
            return False
        return not self._clash(first.task, second, common)

    # --- what tasks have in common

    def _clash(self, first: Task, second: Task, but: frozenset[Buffer] = frozenset()) -> bool:
        """Does one write what the other touches? Buffers that are the same memory at different times count too."""
        pairs = [(w, x) for w in first.writes for x in (*second.reads, *second.writes)]
        pairs += [(r, w) for r in first.reads for w in second.writes]
        return any(self._overlap(x, y) for x, y in pairs if not (x is y and x in but))

    def _overlap(self, x: Buffer, y: Buffer) -> bool:
        mine, other = self._pieces[id(x)], self._pieces[id(y)]
        return x is y or (mine.start < other.stop and other.start < mine.stop)


class _Touching:
    """Which tasks of a phase touch which pieces of memory, by reading or by writing."""

    def __init__(self, pieces: Mapping[int, range]) -> None:
        self._pieces = pieces
        self._known: dict[int, dict[int, Placed]] = {}

    def add(self, placed: Placed, buffers: Iterable[Buffer]) -> None:
        for buffer in buffers:
            for piece in self._pieces[id(buffer)]:
                self._known.setdefault(piece, {})[placed.number] = placed

    def of(self, buffers: Iterable[Buffer]) -> dict[int, Placed]:
        """Those that touch memory of these, by number."""
        found: dict[int, Placed] = {}
        for buffer in buffers:
            for piece in self._pieces[id(buffer)]:
                found.update(self._known.get(piece, ()))
        return found


def _pieces(tasks: Iterable[Task], offsets: Mapping[int, int]) -> dict[int, range]:
    """What memory a buffer is, by its id: two have a piece in common where they are the same bytes, be it in turn."""
    buffers = {id(b): b for task in tasks for b in (*task.reads, *task.writes)}
    spans = {key: (offsets[key], offsets[key] + b.bytes) for key, b in buffers.items() if b.place == "arena"}
    cuts = sorted({at for span in spans.values() for at in span})
    number = {at: n for n, at in enumerate(cuts)}
    found = {key: range(number[lo], number[hi]) for key, (lo, hi) in spans.items()}
    others = (key for key in buffers if key not in spans)
    return found | {key: range(n, n + 1) for n, key in enumerate(others, len(cuts))}


def _heights(plans: Sequence[Plan | NestPlan]) -> dict[int, int]:
    """For each number of rows, how many belong together: whole tiles in the kernels that do most of the work."""
    known: dict[int, list[tuple[int, float]]] = {}
    for plan in plans:
        if plan.rows is not None:
            known.setdefault(plan.rows.number, []).append((plan.rows.height, plan.work))

    def served(height: int, found: Sequence[tuple[int, float]]) -> tuple[float, int]:
        return sum(work for each, work in found if height % each == 0), -height

    chosen = {}
    for count, found in known.items():
        heights = {height for height, _ in found}
        both = {math.lcm(x, y) for x in heights for y in heights}
        candidates = heights | {height for height in both if height * _BLOCKS <= count}
        chosen[count] = max(candidates, key=lambda height: served(height, found))
    return chosen
