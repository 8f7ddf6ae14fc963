"""What there is to say of a whole step: the head of its report, in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from chainrule.compile.report.quantities import bar, duration, listed, number, percent

if TYPE_CHECKING:
    from chainrule.compile.report.kernels import KernelReport
    from chainrule.compile.report.memory_map import Stretch
    from chainrule.compile.report.report import Report

_WAITING, _WORTH_SAYING = 1.25, 1e-4  # times the kernels' own time; seconds
_CALL = 2e-5  # seconds; a step that takes less is mostly its call, where its kernels take less than half of it
_MOST, _FEW = 0.7, 5  # of the kernels' time, and as many kernels at most that are named for it


def facts(r: Report) -> list[tuple[str, str]]:
    """What there is to say of the whole step, each with its label."""
    t, flops, moved = r.times, number(r.operations, "FLOP"), number(r.bytes, "B")
    threads = f"{r.threads} thread{'s' * (r.threads != 1)}"
    found = [("step", f"{r.name}  {r.place}".rstrip())]
    if not r.is_native:
        found.append(("note", "this step runs op by op; the report shows it as machine code, which is what was timed"))
    if r.given:
        found.append(("given", listed(r.given)))
    found.append(("machine", f"{r.machine.cpu or r.machine.target}, code for {r.target}, {threads}"))
    found.append(("time", f"{duration(t.best)} a step at best, {duration(t.usual)} usually"))
    if not r.kernels:
        return [*found, ("work", "nothing is computed")]
    found.append(("kernels", f"{duration(t.summed)}, each at its best{_elsewhere(r)}"))
    if (most := _most_time(r)) is not None:
        found.append(("most of it", most))
    return [
        *found,
        ("limit", f"{duration(r.limit)}: {limit_sentence(r)}"),
        ("reached", f"{bar(r.share)} {percent(r.share)} of the limit"),
        ("work", f"{flops} in {len(r.kernels)} kernel{'s' * (len(r.kernels) != 1)}, {moved} read and written"),
        ("threads", waiting(r)),
        ("memory", memory_sentence(r)),
    ]


def _elsewhere(r: Report) -> str:
    """Where the time of a step goes that its kernels do not take, if that is worth saying."""
    t = r.times
    rest = t.best - t.summed
    if t.best < _CALL and rest > t.summed:
        return f"; the other {duration(rest)} are the call from Python into machine code and back"
    if r.threads > 1 and t.best > _WAITING * t.summed > _WORTH_SAYING:
        waits = "threads wait, for each other or for a core that something else uses"
        return f"; in the other {duration(rest)}, {percent(rest / t.best)} of the step, {waits}"
    return ""


def _most_time(r: Report) -> str | None:
    """The kernels that most of the time goes to, where there are many."""
    longest = sorted(r.kernels, key=lambda k: -k.seconds)[:_FEW]
    if len(r.kernels) <= len(longest) or not r.times.summed:
        return None
    named: list[KernelReport] = []
    while sum(k.seconds for k in named) < _MOST * r.times.summed and len(named) < len(longest):
        named.append(longest[len(named)])
    share = percent(sum(k.seconds for k in named) / r.times.summed)
    return f"kernel{'s' * (len(named) != 1)} {listed([str(k.number) for k in named])}: {share} of the kernels' time"


def limit_sentence(r: Report) -> str:
    """Why a step cannot be faster on this machine."""
    arithmetic, memory = r.limits
    if not arithmetic and not memory:
        return "nothing is computed or moved"
    if arithmetic >= memory:
        speed = number(r.operations / arithmetic, "FLOP/s")
        work = f"{number(r.operations, 'FLOP')} at {speed}, the most that {_all(r)} compute here"
        return f"{work} (moving the numbers alone: {duration(memory)})"
    speed = number(r.bytes / memory, "B/s")
    where = "within the caches" if r.is_cached else "to and from memory"
    moved = f"{number(r.bytes, 'B')} at {speed}, the most that {_all(r)} move {where}"
    return f"{moved} (computing alone: {duration(arithmetic)})"


def _all(r: Report) -> str:
    return f"{r.threads} threads" if r.threads > 1 else "one thread can"


def waiting(r: Report) -> str:
    """How threads share a step."""
    if r.threads == 1:
        return "one thread does it all"
    shared = sum(k.threads > 1 for k in r.kernels)
    waits = sum(k.waits for k in r.kernels)
    times = f"{waits} time{'s' * (waits != 1)}"
    shares = f"{r.threads} share {shared} of the kernels, and wait for each other {times}"
    return f"{shares}; a call uses one where more would not help"


def memory_sentence(r: Report) -> str:
    """What temporaries take."""
    if not r.stretches:
        return "no temporaries"
    kept = f"{number(r.arena, 'B')} for {len(r.stretches)} temporar{'ies' if len(r.stretches) > 1 else 'y'}"
    return f"{kept}; {number(r.apart, 'B')} if none shared a place" if _share_places(r.stretches) else kept


def _share_places(stretches: Sequence[Stretch]) -> bool:
    """Does one lie where another one was, or will be?"""
    placed = sorted(stretches, key=lambda s: s.start)
    return any(s.start < before.start + before.size for before, s in pairwise(placed))
