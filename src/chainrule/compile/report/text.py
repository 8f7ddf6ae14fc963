"""A step's report in the terminal: lines of pieces, each with a style that colours it where there are colours."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from chainrule.compile.report.facts import facts
from chainrule.compile.report.memory_map import chart
from chainrule.compile.report.quantities import bar, duration, listed, number, percent, three_digits, unbroken

if TYPE_CHECKING:
    from chainrule.compile.report.kernels import KernelReport
    from chainrule.compile.report.report import Passes, Report

Piece = tuple[str, str]  # text, and a style in rich's words
Row = list[Piece]

WIDE = 100  # columns, where nothing says how many there are
NARROWEST = 60
_BESIDE = 90  # columns from which the numbers always stand beside the formula
SHORTEST, TOO_SHORT = 2e-8, "under 20 ns: too short to time"
RATED, UNRATED = 2e-7, "too short to rate"  # the counter moves in steps of ten nanoseconds or so
GOOD, FAIR = 0.7, 0.3  # shares of the limit from which a bar is green, yellow
_INDENT = 5
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
    if not r.kernels:
        return [*_head(r, room), [], *_method(r, room)]
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


# --- kernels


def _legend(r: Report, room: int) -> list[Row]:
    return [[(line, "dim")] for line in textwrap.wrap(legend(r), room)]


def legend(r: Report, gap: str = "an empty line") -> str:
    """How the rows are read."""
    formulas = [f for k in r.kernels for f in k.formulas]
    says = "The kernels, pieces of machine code, in the order they run."
    signs = []
    if any(re.search(r"\bt\d+\b", f) for f in formulas):
        signs.append("t1, t2, … are values without a name of yours")
    numbered = next((m for f in formulas if (m := re.match(r"(\w+)\.\d+ = ", f))), None)
    if numbered is not None:
        signs.append(f"{numbered[1]}.1, {numbered[1]}.2, … what {numbered[1]} was, one after the other")
    if any(".g" in f for f in formulas):
        signs.append("X.g is the gradient of the loss with respect to X")
    if any(re.search(r"\[[^\]]* [<>=!]=? [^\]]*\]", f) for f in formulas):
        signs.append("[a > b] is 1 where that holds, else 0")
    if any("^T" in f for f in formulas):
        signs.append("X^T is X transposed")
    says += f" {'; '.join(signs)}." if signs else ""
    says += " Reshapes and reorderings go unwritten." if r.meaning.leaves_out_moves else ""
    if any(" parts" in f for f in formulas):
        says += " In parts: of sums of many terms, parts are made, which a later kernel adds."
    if any(k.waits for k in r.kernels):
        says += f" At {gap} all threads wait for each other."
    near = "the second cache" if r.is_cached else "memory"
    says += " On the right: the time, the speed, and its share of the machine's limit, in FLOP/s (additions and "
    says += f"multiplications a second) where computing sets it, else in B/s, to and from {near}."
    if any(k.dear for k in r.kernels):
        says += " An exponential or the like counts as one operation, though it takes ten or more: kernels of them stay"
        says += " below the limit."
    if any(k.share > 1 for k in r.kernels if k.seconds >= RATED):
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
    width = 8 + 1 + 13 + 2 + len(bar(0)) + 6
    if k.seconds < SHORTEST:
        return [(f"{TOO_SHORT:>{width}}", "dim")]
    if k.seconds < RATED:
        return [(f"{duration(k.seconds):>8} ", "bold"), (f"{UNRATED:>{width - 9}}", "dim")]
    return [
        (f"{duration(k.seconds):>8} ", "bold"),
        (f"{speed(k):>13}  ", ""),
        (bar(k.share), "green" if k.share >= GOOD else "yellow" if k.share >= FAIR else "red"),
        (f"{percent(k.share):>6}", ""),
    ]


def speed(k: KernelReport) -> str:
    """In what limits a kernel."""
    if k.limited_by == "arithmetic":
        return f"{three_digits(k.gflops)} GFLOP/s"
    return f"{three_digits(k.gbytes)} GB/s"


def how(k: KernelReport) -> str:
    """The loops, who does them, and what they move: in one line."""
    who = f"{k.threads} threads, {k.units:,} pieces" if k.threads > 1 else "1 thread"
    work = f"{number(k.operations, 'FLOP')}, " if k.operations else ""
    read, written = (sum(n for _, n in found) for found in (k.read, k.written))
    says = f"{k.words}; {who}; {work}reads {number(read, 'B')}, writes {number(written, 'B')}"
    ahead = f"; touches the memory of {listed(k.claimed)}, which a later kernel fills" if k.claimed else ""
    return says + ahead


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
        said.append(f"Updated in place: {_updated(updated)}.")
    if unstored:
        several = len(unstored) > 1
        which = f"the gradient{'s' * several} of {listed(unstored)}"
        which = "their gradients" if several and unstored == updated else which
        says = f"the kernel that makes {'one' if several else 'it'} uses each entry up at once, for the update"
        keep = f" compile(..., keep_grads=True) stores {'them' if several else 'it'}." if r.could_keep_grads else ""
        said.append(f"Never stored: {which}; {says}.{keep}")
    return said


def _updated(names: Sequence[str]) -> str:
    """w1, w2, and the momentum_buffer of each; what is kept for all alike is said once."""
    of: dict[str, list[str]] = {}  # by what is kept, for whom
    for name in names:
        owner, _, kept = name.rpartition(".")
        if owner in names:
            of.setdefault(kept, []).append(owner)
    owners = next(iter(of.values()), [])
    if not owners or any(each != owners for each in of.values()):
        return listed(names)
    rest = [name for name in names if name.rpartition(".")[0] not in names]
    each = "each" if rest == owners else listed(owners)
    return f"{listed(rest)}; and the {listed(list(of))} of {each}"


# --- memory


def _memory(r: Report, room: int) -> list[Row]:
    if not r.stretches:
        return []
    says = (
        "Memory plan: temporaries lie in one piece of memory, from its first byte (top) to its last, while kernels run "
        "(left to right); a dot is free. Rows may be padded."
    )
    found: list[Row] = [[(line, "dim")] for line in textwrap.wrap(says, room)]
    return [*found, *([(line, "")] for line in chart(r.stretches, r.arena, len(r.kernels), room))]


def _method(r: Report, room: int) -> list[Row]:
    return [[(line, "dim")] for line in textwrap.wrap(method(r), room)]


def method(r: Report) -> str:
    """How the numbers came about."""
    runs = f"{r.times.runs:,} runs of the step"
    if not r.kernels:
        return f"Measured now, on copies of the arrays of the last call, so that nothing of yours changes: {runs}."
    return (
        f"Measured now, on copies of the arrays of the last call, so that nothing of yours changes: {runs}; then as "
        f"many with a clock around each kernel, of which the shortest time counts. The limits are those of "
        f"cr.machine(). Also: .passes(), .ir(1), .assembly(1), .kernels, .save('step.html')."
    )


# --- passes


def passes(found: Passes) -> str:
    """The passes as a table."""
    if not found:
        return "no pass changed the program"
    room = max(terminal_width(), NARROWEST)
    width = max(len(p.name) for p in found)
    lines = textwrap.wrap(
        "What each pass did to the program, and how many values and operations there were before and after it. More is "
        "not worse: what is taken apart here is fused into kernels afterwards.", room,
    )  # fmt: skip
    for p in found:
        about = textwrap.wrap(p.about, room - width - 17) or [""]
        lines.append(f"{p.name:<{width}}  {p.before:>5} -> {p.after:>4}  {about[0]}".rstrip())
        lines += [f"{'':<{width + 17}}{line}" for line in about[1:]]
    lines.append("passes()[0].program_before and .program_after are the program's text")
    return "\n".join(lines)


def _wrapped(says: str, width: int) -> Iterable[str]:
    """Lines; a number and its unit stay together."""
    joined = unbroken(says)
    return [line.replace("\u00a0", " ") for line in textwrap.wrap(joined, width, subsequent_indent="  ")] or [""]
