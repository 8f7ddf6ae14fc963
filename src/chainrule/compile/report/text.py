"""A step's report in the terminal: lines of pieces, each with a style that colours it where there are colours."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from chainrule.compile.report.memory_map import chart

if TYPE_CHECKING:
    from chainrule.compile.report.kernels import KernelReport
    from chainrule.compile.report.report import Passes, Report

Piece = tuple[str, str]  # text, and a style in rich's words
Row = list[Piece]

_QUANTITY = re.compile(r"(?<=\d) (?=[KMGT]?(?:B|FLOP|threads?|parts|entries|terms)\b)")

WIDE = 100  # columns, where nothing says how many there are
NARROWEST = 60
_WAITING, _WORTH_SAYING = 1.5, 1e-4  # times the kernels' own time; seconds
_BESIDE = 90  # columns from which the numbers always stand beside the formula
_BAR = 10
SHORTEST, TOO_SHORT = 2e-8, "under 20 ns: too short to time"
GOOD, FAIR = 0.7, 0.3  # shares of the limit from which a bar is green, yellow
_INDENT = 5
_LISTED = 12  # names; of more, the first are said
_LABEL = 11


def terminal_width() -> int:
    """The columns there are to print in; many where the output is no terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDE


def report(r: Report, room: int = WIDE) -> str:
    """The whole report in `room` columns."""
    return "\n".join("".join(text for text, _ in row).rstrip() for row in rows(r, room))


def coloured(r: Report) -> Any:
    """The report for rich's console, as wide as that is."""
    from rich.console import Group  # half the time of an import of the library, and seldom needed
    from rich.text import Text

    class _Fitted:
        def __rich_console__(self, console: Any, options: Any) -> Any:
            yield Group(*(Text.assemble(*row) for row in rows(r, options.max_width)))

    return _Fitted()


def rows(r: Report, room: int) -> list[Row]:
    """The lines of a report."""
    room = max(room, NARROWEST)
    return [*_head(r, room), [], *_legend(r, room), *_kernels(r, room), *_gradients(r, room), [], *_memory(r, room),
            [], *_method(r, room)]  # fmt: skip


# --- the head


def _head(r: Report, room: int) -> list[Row]:
    found: list[Row] = []
    for label, fact in facts(r):
        style = "bold" if label in ("step", "reached") else ""
        for i, line in enumerate(textwrap.wrap(fact, room - _LABEL)):
            found.append([(f"{label if not i else '':<{_LABEL}}", "dim"), (line, style)])
    return found


def facts(r: Report) -> list[tuple[str, str]]:
    """What there is to say of the whole step, each with its label."""
    t, flops, moved = r.times, number(r.operations, "FLOP"), number(r.bytes, "B")
    threads = f"{r.threads} thread{'s' * (r.threads != 1)}"
    found = [
        ("step", f"{r.name}  {r.place}".rstrip()),
        ("machine", f"{r.machine.cpu or r.machine.target}, code for {r.target}, {threads}"),
        ("time", f"{duration(t.best)} a step at best, {duration(t.usual)} usually; kernels alone {duration(t.summed)}"),
        ("limit", f"{duration(r.limit)}: {limit_sentence(r)}"),
        ("reached", f"{bar(r.share)} {percent(r.share)} of the limit"),
        ("work", f"{flops} in {len(r.kernels)} kernel{'s' * (len(r.kernels) != 1)}, {moved} read and written"),
        ("threads", waiting(r)),
        ("memory", memory_sentence(r)),
    ]
    if r.threads > 1 and t.best > _WAITING * t.summed > _WORTH_SAYING:
        says = "most of the step's time is not in its kernels: threads wait, as when something else runs on the cores"
        found.insert(3, ("note", says))
    if not r.is_native:
        says = "this step runs op by op; the report shows it as machine code, which is what was timed"
        found.insert(1, ("note", says))
    return found


def limit_sentence(r: Report) -> str:
    """Why a step cannot be faster on this machine."""
    arithmetic, memory = r.limits
    if not arithmetic and not memory:
        return "nothing is computed or moved"
    if arithmetic >= memory:
        speed = number(r.operations / arithmetic, "FLOP/s")
        work = f"{number(r.operations, 'FLOP')} at {speed}, the most that {_all(r)} compute here"
        return f"{work} (memory alone: {duration(memory)})"
    speed = number(r.bytes / memory, "B/s")
    where = "within the caches" if r.is_cached else "to and from memory"
    moved = f"{number(r.bytes, 'B')} at {speed}, the most that {_all(r)} move {where}"
    return f"{moved} (arithmetic alone: {duration(arithmetic)})"


def _all(r: Report) -> str:
    return f"{r.threads} threads" if r.threads > 1 else "one thread can"


def waiting(r: Report) -> str:
    """How threads share a step."""
    if r.threads == 1:
        return "one thread does it all"
    shared = sum(k.threads > 1 for k in r.kernels)
    waits = sum(k.waits for k in r.kernels)
    times = f"{waits} time{'s' * (waits != 1)}"
    return f"{r.threads} share {shared} of the kernels, and wait for each other {times}; each call uses as many as pay"


def memory_sentence(r: Report) -> str:
    """What temporaries take."""
    if not r.stretches:
        return "no temporaries"
    kept = f"{number(r.arena, 'B')} for {len(r.stretches)} temporaries"
    return f"{kept}; {number(r.apart, 'B')} if none shared a place" if r.apart > r.arena else kept


# --- kernels


def _legend(r: Report, room: int) -> list[Row]:
    return [[(line, "dim")] for line in textwrap.wrap(legend(r), room)]


def legend(r: Report, gap: str = "an empty line") -> str:
    """How the rows are read."""
    says = "The kernels in the order they run; X.g is the gradient of the loss with respect to X."
    if any(k.waits for k in r.kernels):
        says += f" At {gap} all threads wait for each other."
    says += " The bar is the share of the machine's limit: in FLOP/s where arithmetic sets it, in B/s where "
    says += f"{'the second cache' if r.is_cached else 'memory'} does."
    if any(k.share > 1 for k in r.kernels if k.seconds >= SHORTEST):
        says += " Above 100 %: faster than what was measured as the limit, as when data is still in a nearer cache."
    return says


def _kernels(r: Report, room: int) -> list[Row]:
    found: list[Row] = []
    for k in r.kernels:
        if k.waits or not found:
            found.append([])
        found += _kernel(k, room)
    return found


def _kernel(k: KernelReport, room: int) -> list[Row]:
    """Number and formulas on the left, the measured numbers on the right, in the first line with room for them."""
    left: list[tuple[str, str]] = []
    width = room - _INDENT
    right = numbers(k)
    size = sum(len(text) for text, _ in right)
    beside = width - size - 2
    first, *others = k.formulas
    narrow = room >= _BESIDE or len(first) <= beside
    left += [(line, "bold") for line in _wrapped(first, beside if narrow else width)]
    left += [(line, "bold") for formula in others for line in _wrapped(formula, width)]
    at = 0 if narrow else len(left)
    if not narrow:
        left.append(("", ""))
    left += [(line, "dim") for says in (how(k), *sources(k)) for line in _wrapped(says, width)]
    found: list[Row] = []
    for i, (line, style) in enumerate(left):
        row: Row = [
            (f"{k.number:>{_INDENT - 2}}  " if not i else " " * _INDENT, "cyan" if not i else ""),
            (line, style),
        ]
        if i == at:
            row += [(" " * (width - len(line) - size), ""), *right]
        found.append(row)
    return found


def numbers(k: KernelReport) -> Row:
    """Time, speed and share of the limit."""
    if k.seconds < SHORTEST:
        return [(f"{TOO_SHORT:>{8 + 1 + 13 + 2 + _BAR + 2 + 6}}", "dim")]
    speed = f"{k.gflops:,.3g} GFLOP/s" if k.limited_by == "arithmetic" else f"{k.gbytes:,.3g} GB/s"
    return [
        (f"{duration(k.seconds):>8} ", "bold"),
        (f"{speed:>13}  ", ""),
        (bar(k.share), "green" if k.share >= GOOD else "yellow" if k.share >= FAIR else "red"),
        (f"{percent(k.share):>6}", ""),
    ]


def how(k: KernelReport) -> str:
    """The loops, who does them, and what they move: in one line."""
    who = f"{k.threads} threads, {k.units:,} parts" if k.threads > 1 else "1 thread"
    work = f"{number(k.operations, 'FLOP')}, " if k.operations else ""
    read, written = (sum(n for _, n in found) for found in (k.read, k.written))
    return f"{k.words}; {who}; {work}reads {number(read, 'B')}, writes {number(written, 'B')}"


def sources(k: KernelReport) -> list[str]:
    """The user's lines: those it computes, those it goes backward through, and those of the update."""
    found: list[str] = []
    shown: dict[str, list[str]] = {"forward": [], "backward": [], "update": []}
    for line in k.lines:
        if line.role == "backward":
            shown["backward"].append(str(line.place))
        else:
            shown[line.role].append(f"{line.place} {line.place.text}".rstrip())
    if shown["forward"]:
        found.append("  ".join(shown["forward"]))
    rest = [f"backward of {short_places(shown['backward'])}"] if shown["backward"] else []
    rest += shown["update"]
    return [*found, *(["; ".join(rest)] if rest else [])]


def short_places(places: Sequence[str]) -> str:
    """net.py:3, 5 and 8: the file said once."""
    found: dict[str, list[str]] = {}
    for place in places:
        file, _, line = place.rpartition(":")
        found.setdefault(file, []).append(line)
    return ", ".join(f"{file}:{', '.join(lines)}" for file, lines in found.items())


# --- what is said in words


def _gradients(r: Report, room: int) -> list[Row]:
    found: list[Row] = []
    for says in remarks(r):
        found += [[], *([(line, "")] for line in textwrap.wrap(says, room))]
    return found


def remarks(r: Report) -> list[str]:
    """Updates in place, and gradients that are never stored."""
    order = [x.symbol for x in r.meaning.program.inputs]
    updated = sorted({name for k in r.kernels for name in k.updated}, key=order.index)
    unstored = sorted({name for k in r.kernels for name in k.unstored}, key=order.index)
    said = []
    if updated:
        said.append(f"Updated in place: {listed(updated)}.")
    if unstored:
        several = len(unstored) > 1
        which = f"the gradient{'s' * several} of {listed(unstored)}"
        which = "their gradients" if several and unstored == updated else which
        says = f"the kernel that makes {'one' if several else 'it'} uses each entry up at once, for the update"
        said.append(
            f"Never stored: {which}; {says}. compile(..., keep_grads=True) stores {'them' if several else 'it'}."
        )
    return said


# --- memory


def _memory(r: Report, room: int) -> list[Row]:
    if not r.stretches:
        return []
    says = "Memory plan: the arena from its first byte (top) to its last, over the kernels (left to right)."
    found: list[Row] = [[(line, "dim")] for line in textwrap.wrap(says, room)]
    return [*found, *([(line, "")] for line in chart(r.stretches, r.arena, len(r.kernels), room))]


def _method(r: Report, room: int) -> list[Row]:
    return [[(line, "dim")] for line in textwrap.wrap(method(r), room)]


def method(r: Report) -> str:
    """How the numbers came about."""
    return (
        f"Measured now, on copies of the arrays of the last call, so that nothing of yours changes: {r.times.runs:,} "
        f"runs of the step; then as many with a counter read before and after each kernel, of which the shortest "
        f"counts ({number(r.times.frequency, 'ticks/s')}). The limits are those of cr.machine(). Also: .passes(), "
        f".ir(1), .assembly(1), .kernels, .save('step.html')."
    )


# --- passes


def passes(found: Passes) -> str:
    """The passes as a table."""
    if not found:
        return "no pass changed the program"
    width = max(len(p.name) for p in found)
    lines = [f"{'pass':<{width}}  {'nodes':>13}"]
    lines += [f"{p.name:<{width}}  {p.before:>5} -> {p.after:>4}  {p.about}".rstrip() for p in found]
    lines.append("passes()[0].program_before and .program_after are the program's text")
    return "\n".join(lines)


# --- words for numbers


def duration(seconds: float) -> str:
    """1.84 ms, 12.3 us."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}" if seconds / size < 1000 else f"{seconds / size:,.0f} {unit}"
    return f"{seconds * 1e9:.0f} ns"


def number(value: float, unit: str) -> str:
    """827 MFLOP, 3.2 MB, 115 GFLOP/s."""
    for prefix, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("K", 1e3)):
        if value >= size:
            shown = f"{value / size:.3g}" if value / size < 1000 else f"{value / size:,.0f}"
            return f"{shown} {prefix}{unit}"
    return f"{value:.0f} {unit}"


def percent(share: float) -> str:
    """83 %, 0.4 %."""
    return f"{100 * share:.0f} %" if share >= 0.01 else f"{100 * share:.1f} %"


def bar(share: float) -> str:
    """A bar of ten characters between two lines."""
    filled = min(round(share * _BAR), _BAR)
    return f"|{'#' * filled}{' ' * (_BAR - filled)}|"


def listed(names: Sequence[str]) -> str:
    """a, b and c; of many, the first."""
    if len(names) > _LISTED:
        return f"{', '.join(names[:_LISTED])} and {len(names) - _LISTED} more"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _wrapped(says: str, width: int) -> Iterable[str]:
    """Lines; a number and its unit stay together."""
    joined = _QUANTITY.sub("\u00a0", says)
    return [line.replace("\u00a0", " ") for line in textwrap.wrap(joined, width, subsequent_indent="  ")] or [""]
