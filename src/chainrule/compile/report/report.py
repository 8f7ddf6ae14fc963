"""`step.report()`: what a compiled step does, kernel by kernel, and what of the machine's limit it reaches."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, final

from chainrule.compile import writing
from chainrule.compile.caches import SECOND
from chainrule.compile.llvm.phases import Placed
from chainrule.compile.machine import Limit, Machine, last_cache, machine
from chainrule.compile.native import Native
from chainrule.compile.patience import sign_of_life
from chainrule.compile.pipeline import PASSES, optimised
from chainrule.compile.program import Program
from chainrule.compile.report import counting, page, text
from chainrule.compile.report.kernels import KernelReport, LimitedBy, kind_of, words_for
from chainrule.compile.report.meaning import Meaning
from chainrule.compile.report.measuring import Times, measured
from chainrule.compile.report.memory_map import Stretch
from chainrule.compile.tracing.bound import Bound
from chainrule.compile.tracing.places import Argument
from chainrule.compile.writing import Written
from chainrule.core.node import at_user_line
from chainrule.core.provenance import is_ours
from chainrule.errors import ArgumentError, TraceError

_IMPOSSIBLE = 1.02  # of a limit


@final
@dataclass(frozen=True, kw_only=True)
class PassReport:
    """One pass that changed the program: how many nodes there were before it and after it, and the programs' text."""

    name: str
    about: str
    before: int
    after: int
    program_before: str
    program_after: str


@final
class Passes(tuple[PassReport, ...]):
    """The passes that a program went through, in order; prints as a table."""

    __slots__ = ()

    def __repr__(self) -> str:
        return text.passes(self)

    __str__ = __repr__


@final
class Report:
    """What a compiled step does. Prints; in a notebook it is a table; `.save("step.html")` writes a page.

    kernels: a `KernelReport` for each. stretches: the memory plan. machine: the limits. times: what was measured.
    """

    def __init__(self, name: str, function: Any, bound: Bound) -> None:
        self.name, self.place = name, _place_of(function)
        self._bound = bound
        self._changes: list[tuple[str, Program, Program]] = []
        program = optimised(bound.outcome.program, lambda *change: self._changes.append(change))
        executable = bound.executable
        threads = executable.threads if isinstance(executable, Native) else None
        self.is_native = isinstance(executable, Native)
        self._written = writing.write(program, threads=threads, timed=True)
        self.target = str(self._written.target)
        timed = self._written.native()
        step = executable if isinstance(executable, Native) else self._plain.native()
        self.threads = timed.threads
        self.times: Times = measured(step, timed, bound.table.given, self._written.target)
        self.meaning = Meaning(bound.outcome, self._written.schedule)
        self.machine: Machine = machine()
        self.kernels: tuple[KernelReport, ...] = tuple(self._kernels())
        if any(k.limited_by == "arithmetic" and k.share > _IMPOSSIBLE for k in self.kernels):
            self.machine = machine(refresh=True)  # something else ran while its limits were measured
            self.kernels = tuple(self._limited(k) for k in self.kernels)
        self.stretches = self._stretches()
        self.arena, self.apart = self._written.arena.size, self._written.arena.apart
        self.phases = len(self._written.module.phases)

    # --- kernels

    def _kernels(self) -> list[KernelReport]:
        found: list[KernelReport] = []
        for number, phase in enumerate(self._written.module.phases):
            for i, placed in enumerate(phase):
                found.append(self._kernel(placed, len(found) + 1, waits=number > 0 and i == 0))
        return found

    def _kernel(self, placed: Placed, number: int, *, waits: bool) -> KernelReport:
        task, meaning = placed.task, self.meaning
        count = counting.counted(task.kernel)
        threads = self.threads if placed.slot is None else 1
        by_id = {id(b): b for b in (*task.reads, *task.writes)}
        read, written = (
            tuple(sorted((meaning.name(by_id[b]), n) for b, n in found(task).items()))
            for found in (counting.read, counting.written)
        )
        total = sum(n for _, n in (*read, *written))
        limit, limited_by = self._limit(count.total, count.doubles, total, threads)
        return KernelReport(
            number=number,
            function=self._written.module.functions[placed.number],
            kind=kind_of(task.kernel),
            formulas=tuple(meaning.formulas(task)),
            words=words_for(task.kernel, meaning.ops(task), updates=bool(meaning.updated(task))),
            ops=tuple(dict.fromkeys(meaning.ops(task))),
            lines=tuple(meaning.lines(task)),
            updated=tuple(meaning.updated(task)),
            unstored=tuple(meaning.unstored(task)),
            claimed=tuple(meaning.claimed(task)),
            units=placed.plan.units,
            threads=threads,
            waits=waits,
            products=count.products,
            operations=count.total,
            doubles=count.doubles,
            dear=counting.is_dear(task),
            read=read,
            written=written,
            seconds=self.times.kernels[placed.number],
            limit=limit,
            limited_by=limited_by,
        )

    def _arithmetic(self, operations: int, doubles: int, threads: int) -> float:
        """The least seconds for so many operations, of which some are done in float64."""
        single, double = (_of(self.machine[name], threads) * 1e9 for name in ("float32", "float64"))
        return (operations - doubles) / single + doubles / double

    def _limited(self, k: KernelReport) -> KernelReport:
        """The same with the machine's limits as they are known now."""
        limit, limited_by = self._limit(k.operations, k.doubles, k.bytes, k.threads)
        return replace(k, limit=limit, limited_by=limited_by)

    def _limit(self, operations: int, doubles: int, size: int, threads: int) -> tuple[float, LimitedBy]:
        """The least seconds that the machine's limits allow, and which of them says so."""
        arithmetic = self._arithmetic(operations, doubles, threads)
        near = size <= SECOND * threads or self.is_cached
        memory = size / (_of(self.machine["copy L2" if near else "copy memory"], threads) * 1e9)
        return (arithmetic, "arithmetic") if arithmetic >= memory else (memory, "memory")

    def _stretches(self) -> tuple[Stretch, ...]:
        used: dict[int, list[int]] = {}  # of each buffer, the kernels that touch it
        for number, placed in enumerate(self._placed, 1):
            for buffer in placed.task.reads | placed.task.writes:
                used.setdefault(id(buffer), []).append(number)
        return tuple(
            Stretch(
                name=self.meaning.name(s.buffer), start=s.start, size=s.buffer.bytes,
                first=used[id(s.buffer)][0], last=used[id(s.buffer)][-1],
            )
            for s in sorted(self._written.arena.stays, key=lambda s: (used[id(s.buffer)][0], s.start))
        )  # fmt: skip

    @property
    def _placed(self) -> list[Placed]:
        return [placed for phase in self._written.module.phases for placed in phase]

    # --- of the whole step

    @property
    def could_keep_grads(self) -> bool:
        """Are there gradients that are not kept only since the step has used them up?"""
        return any(g.used_up for g in self._bound.outcome.gradients)

    @property
    def given(self) -> list[str]:
        """The arguments that the report is about, with their types and shapes."""
        places = self._bound.outcome.places
        inputs = zip(self._bound.outcome.program.inputs, places, strict=True)
        return [f"{x.symbol} {x.aval}" for x, place in inputs if isinstance(place, Argument)]

    @cached_property
    def is_cached(self) -> bool:
        """Does all that the step touches fit into the caches, so that it may stay there from step to step?"""
        buffers = self._written.schedule.buffers()
        touched = sum(b.bytes for b in buffers if b.place != "arena") + self._written.arena.size
        return touched <= last_cache()

    @property
    def operations(self) -> int:
        """Floating-point operations of one step."""
        return sum(k.operations for k in self.kernels)

    @property
    def bytes(self) -> int:
        """Bytes that its kernels have to read and to write."""
        return sum(k.bytes for k in self.kernels)

    @property
    def limit(self) -> float:
        """The least seconds that the machine's limits allow for the whole step."""
        return max(self.limits)

    @property
    def limited_by(self) -> LimitedBy:
        """Which of them says so."""
        arithmetic, memory = self.limits
        return "arithmetic" if arithmetic >= memory else "memory"

    @property
    def limits(self) -> tuple[float, float]:
        """The least seconds that arithmetic takes, and that memory takes."""
        arithmetic = self._arithmetic(self.operations, sum(k.doubles for k in self.kernels), self.threads)
        memory = self.bytes / (_of(self.machine["copy L2" if self.is_cached else "copy memory"], self.threads) * 1e9)
        return arithmetic, memory

    @property
    def share(self) -> float:
        """Of the machine's limit: 1 is as fast as it can be."""
        return self.limit / self.times.best

    # --- on demand

    def passes(self) -> Passes:
        """What each pass did to the program: node counts; each entry holds the program's text before and after."""
        about = {p.__name__: (p.__doc__ or "").strip().split("\n")[0].rstrip(".") for p in PASSES}
        return Passes(
            PassReport(
                name=name, about=about.get(name, ""), before=len(before.nodes), after=len(after.nodes),
                program_before=str(before), program_after=str(after),
            )
            for name, before, after in self._changes
        )  # fmt: skip

    @cached_property
    def program(self) -> str:
        """The program's text, after all passes: what the kernels compute."""
        return str(self._written.program)

    def ir(self, kernel: int) -> str:
        """The LLVM IR of one kernel's functions, by its number."""
        found = _functions(self._plain.module.text, self._chosen(kernel), r"^define [^@]*@{}\(.*?^\}}")
        return "\n\n".join([self._heading(kernel, ";"), *found])

    def assembly(self, kernel: int) -> str:
        """The machine code of one kernel's functions, by its number, to be read."""
        name = self._chosen(kernel)
        found = "\n".join(_functions(self._assembly, name, r"^{}:.*?^\.?L?func_end\d*:|^{}:.*?(?=^\s*\.size|\Z)"))
        lines = [x for x in found.splitlines() if not re.match(r"\s*(\.cfi_|\.Lfunc_end|\.p2align)", x)]
        return "\n".join([self._heading(kernel, "#"), *lines])

    def _heading(self, kernel: int, comment: str) -> str:
        chosen = self.kernels[kernel - 1]
        others = [k.number for k in self.kernels if k.function == chosen.function and k is not chosen]
        shared = [f"the same code, on other memory: kernel {', '.join(map(str, others))}"] if others else []
        return "\n".join(f"{comment} {line}" for line in (f"kernel {kernel}", *chosen.formulas, *shared))

    @cached_property
    def _assembly(self) -> str:
        return self._plain.assembly()

    @cached_property
    def _plain(self) -> Written:
        """The code as it runs when nobody measures it."""
        return self._written.untimed()

    def _chosen(self, kernel: int) -> str:
        if kernel not in range(1, len(self.kernels) + 1):
            has = f"kernels 1 to {len(self.kernels)}" if self.kernels else "none"
            raise at_user_line(ArgumentError(f"report: kernel {kernel!r} was asked for; the step has {has}"))
        return self.kernels[kernel - 1].function

    # --- forms

    def __str__(self) -> str:
        return text.report(self, text.terminal_width())

    __repr__ = __str__

    def __rich__(self) -> Any:
        return text.coloured(self)

    def _repr_html_(self) -> str:
        return page.fragment(self)

    def html(self) -> str:
        """One self-contained page."""
        return page.page(self)

    def save(self, path: str | Path) -> Path:
        """Write the report as one self-contained HTML page, and say where it is.

        Raises: ArgumentError: the path does not end in .html.
        """
        target = Path(path)
        if target.suffix.lower() not in (".html", ".htm"):
            raise at_user_line(ArgumentError(f"save: expected a path that ends in .html; got {str(path)!r}"))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(self.html(), encoding="utf-8")
        return target

    def as_dict(self) -> dict[str, Any]:
        """The whole report as plain Python values."""
        return {
            "name": self.name,
            "place": self.place,
            "target": self.target,
            "threads": self.threads,
            "operations": self.operations,
            "bytes": self.bytes,
            "arena": self.arena,
            "arena_without_sharing": self.apart,
            "seconds": self.times.best,
            "seconds_median": self.times.usual,
            "runs": self.times.runs,
            "limit": self.limit,
            "limited_by": self.limited_by,
            "kernels": [_kernel_dict(k) for k in self.kernels],
            "memory": [asdict(s) for s in self.stretches],
            "passes": [{"name": p.name, "before": p.before, "after": p.after} for p in self.passes()],
        }

    def json(self) -> str:
        """The whole report as JSON."""
        return json.dumps(self.as_dict(), indent=2)


def report_of(compiled: Any) -> Report:
    """The report of a compiled function's last call. See `Compiled.report`."""
    name = getattr(compiled.eager, "__name__", type(compiled.eager).__name__)
    last = compiled.last_call
    if last is None:
        raise at_user_line(
            TraceError(f"report: {name} has not been called yet, so nothing is compiled; call it once, then ask again")
        )
    with sign_of_life(f"report: the kernels of {name} are written with clocks around them, and measured"):
        return Report(name, compiled.eager, last[0])


def _kernel_dict(k: KernelReport) -> dict[str, Any]:
    found = {name: getattr(k, name) for name in k.__dataclass_fields__}
    found["lines"] = [str(line) for line in k.lines]
    found["read"], found["written"] = dict(k.read), dict(k.written)
    return found


def _of(limit: Limit, threads: int) -> float:
    """A limit for so many threads; what else ran while it was measured may have made the one for all the smaller."""
    return limit.one if threads == 1 else max(limit.one, limit.all)


def _place_of(function: Any) -> str:
    code = getattr(getattr(function, "forward", function), "__code__", None)
    return "" if code is None or is_ours(code) else f"{Path(code.co_filename).name}:{code.co_firstlineno}"


def _functions(module: str, name: str, pattern: str) -> list[str]:
    """The texts of a kernel's functions in a module: its own, and of a nest those of its parts."""
    names = rf"{re.escape(name)}(?:_\d+)?"
    found = re.findall(pattern.format(names, names), module, re.MULTILINE | re.DOTALL)
    return [match if isinstance(match, str) else match[0] for match in found]
