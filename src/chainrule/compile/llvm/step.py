"""One module of machine code for a whole schedule: a function for each kernel, and the step that calls them in phases.

Threads run the tasks of a phase side by side; between phases (see `phases.py`) stands a barrier. Kernels that are the
same but for their memory, as those of the layers of a net, share one function, which is given a list of what is each
one's own: `%own`, where its buffers lie and where its random numbers begin.

`%table` holds addresses: of the inputs, the constants, the outputs, then the arena, two words for faults, and
counters of ticks. `%scratch` is memory that a thread has to itself while a kernel runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chainrule import dtypes
from chainrule.compile.kernels.arena import Arena
from chainrule.compile.kernels.buffer import Buffer
from chainrule.compile.kernels.expression import Random, walk
from chainrule.compile.kernels.likeness import Likeness, alike
from chainrule.compile.kernels.schedule import Schedule
from chainrule.compile.kernels.tasks import values
from chainrule.compile.llvm.builder import Builder, Index, Value
from chainrule.compile.llvm.expressions import Emitter
from chainrule.compile.llvm.phases import Placed, phases
from chainrule.compile.llvm.planning import NestPlan, Plan, plan
from chainrule.compile.llvm.runtime import emit_barrier
from chainrule.compile.llvm.shares import Share, Split
from chainrule.compile.llvm.stealing import deal, emit_sharing
from chainrule.compile.llvm.target import Target
from chainrule.core.alignment import aligned

# Of the code of a kernel: see `Share`.
_ARGUMENTS = "ptr noalias %table, ptr noalias %scratch, i64 %lo, i64 %hi, i1 %continues"


@dataclass(frozen=True, eq=False, kw_only=True)
class Module:
    """What was written, and what it expects at run time.

    table: the buffers whose addresses stand in the table, in order; the arena, the fault words and the ticks follow.
    scratch: bytes a thread needs. faults: what fault number 1, 2, … means: the name of the op.
    functions: by number of the task, the name of the function that does the work.
    """

    text: str
    phases: tuple[tuple[Placed, ...], ...]
    table: tuple[Buffer, ...]
    scratch: int
    faults: tuple[str, ...]
    functions: tuple[str, ...]

    @property
    def parallel(self) -> bool:
        """Does any task pay for more than one thread?"""
        return any(placed.slot is None or placed.slot > 0 for phase in self.phases for placed in phase)

    @property
    def work(self) -> float:
        """Roughly the cycles that one thread takes for it all."""
        return sum(placed.plan.work for phase in self.phases for placed in phase)


def written(schedule: Schedule, arena: Arena, target: Target, threads: int, *, timed: bool = False) -> Module:
    """The module of a schedule.

    timed: add up, for each task and thread, the ticks of the processor's counter it takes: see `Native.ticks`.
    """
    return _Writing(schedule, arena, target, threads, timed).module()


class _Writing:
    def __init__(self, schedule: Schedule, arena: Arena, target: Target, threads: int, timed: bool) -> None:
        self.schedule, self.target, self.threads, self.timed = schedule, target, threads, timed
        self.builder = Builder(target.vector_bytes, fma=target.has_fma)
        self.offsets = arena.offsets()
        everything = schedule.buffers()
        constants = tuple(b for b in everything if b.place == "constant")
        self.table = (*schedule.inputs, *constants, *schedule.outputs)
        self.entry = {id(b): i for i, b in enumerate(self.table)}
        self.faults: list[str] = []
        self.own: Likeness | None = None  # of the kernel whose function others share, while it is written
        self.bounds: dict[tuple[int, int], tuple[str, ...]] = {}  # of a thread's rows, where threads share so many

    def module(self) -> Module:
        """All kernels, then the step."""
        kernels = [task.kernel for task in self.schedule.tasks]
        functions, planned, scratch = [f"k{number}" for number in range(len(kernels))], {}, 0
        for same in alike(kernels):
            (number, self.own), *_ = same
            shared = plan(self.own.kernel, self.target)
            scratch = max(scratch, self._function(f"s{number}", shared))
            self.own = None
            for member, likeness in same:
                planned[member], functions[member] = shared, f"s{number}"
                self._sharing(member, f"s{number}", likeness)
        for number, kernel in enumerate(kernels):
            if number not in planned:
                planned[number] = plan(kernel, self.target)
                scratch = max(scratch, self._function(f"k{number}", planned[number]))
        plans = [planned[number] for number in range(len(kernels))]
        order = phases(self.schedule.tasks, plans, self.threads, self.offsets)
        stolen = [placed.number for phase in order for placed in phase if placed.grain is not None]
        self.words = {number: 8 * i for i, number in enumerate(stolen)}  # of what is left, before a thread's scratch
        self.room = _lines(8 * len(stolen))
        self.stride = self.room + _lines(scratch) + 128
        emit_barrier(self.builder, self.target)
        if stolen:
            emit_sharing(self.builder, self.target)
        self._step(order)
        return Module(
            text=self.builder.text(), phases=order, table=self.table, scratch=self.stride, faults=tuple(self.faults),
            functions=tuple(functions),
        )  # fmt: skip

    # --- a kernel

    def _function(self, name: str, p: Plan | NestPlan) -> int:
        """Write a kernel's function; returns the scratch memory it needs."""
        return self._nest(name, p) if isinstance(p, NestPlan) else self._kernel(name, p, (), {}, 0)

    def _sharing(self, number: int, function: str, likeness: Likeness) -> None:
        """The function of a kernel that hands on to a shared one, with what is its own."""
        b, own = self.builder, list[int]()
        for x in likeness.memory:
            entry, begins = self._place(x.memory)
            own += [entry, begins + x.start * x.memory.dtype.itemsize]
        b.numbers(f"own{number}", [*own, *(x.offset for x in likeness.draws)])

        def body() -> None:
            given = "ptr %table, ptr %scratch, i64 %lo, i64 %hi, i1 %continues"
            b.emit(f"tail call void @{function}({given}, ptr @own{number})")
            b.ret()

        b.function(f"k{number}", _ARGUMENTS, body, "internal void")

    @property
    def _more(self) -> str:
        """The last argument of a function that kernels share."""
        return "" if self.own is None else ", ptr noalias %own"

    @property
    def _passed_on(self) -> str:
        """That argument, where one such function calls another."""
        return "" if self.own is None else ", ptr %own"

    def _nest(self, name: str, p: NestPlan) -> int:
        """Write a nest's function and those of its kernels; returns the scratch memory it needs."""
        b, nest = self.builder, p.kernel
        handed: dict[int, int] = {}
        room = 0
        for buffer in nest.private:
            handed[id(buffer)] = room
            room = aligned(room + buffer.bytes)
        most = 0
        for i, part in enumerate(p.parts):
            most = max(most, self._kernel(f"{name}_{i}", part, nest.variables, handed, room))

        def body() -> None:
            def point(unit: Index, _: object) -> None:
                left, values = b.index_value(unit).text, []
                for v in reversed(nest.variables):
                    values.append(b.let(f"urem i64 {left}, {nest.extents[v]}"))
                    left = b.let(f"udiv i64 {left}, {nest.extents[v]}")
                here = "".join(f", i64 {value}" for value in reversed(values)) + self._passed_on
                for i, part in enumerate(p.parts):
                    b.emit(f"call void @{name}_{i}(ptr %table, ptr %scratch, i64 0, i64 {part.units}, i1 false{here})")

            b.loop(Value("%lo", dtypes.int64), Value("%hi", dtypes.int64), 1, point)
            b.ret()

        b.function(name, _ARGUMENTS + self._more, body, "internal void")
        return most

    def _kernel(self, name: str, p: Plan, given: tuple[int, ...], handed: dict[int, int], room: int) -> int:
        """Write one kernel's function; returns the scratch memory it needs.

        given: variables whose values are arguments. handed: private buffers that outlive the kernel, with their places.
        room: bytes of scratch memory that those take.
        """
        b = self.builder
        private = dict(handed)
        for buffer in (b for e in walk(*values(p.kernel)) for b in e.reads()):
            if buffer.place == "private" and id(buffer) not in private:
                private[id(buffer)] = room
                room = aligned(room + buffer.bytes)

        def body() -> None:
            pointers: dict[int, str] = {}
            entry: list[object] = []
            b.keep(entry)

            def pointer(buffer: Buffer) -> str:
                if id(buffer) not in pointers:
                    with b.emitting_into(entry):
                        pointers[id(buffer)] = self._address(buffer, private)
                return pointers[id(buffer)]

            emitter = Emitter(b, pointer, self._fault, None if self.own is None else self._start)
            share = Share(
                lo=Value("%lo", dtypes.int64),
                hi=Value("%hi", dtypes.int64),
                scratch="%scratch" if not room else b.let(f"getelementptr i8, ptr %scratch, i64 {room}"),
                continues=Value("%continues", dtypes.bool_),
            )
            with emitter.at({v: Value(f"%v{v}", dtypes.int64) for v in given}):
                p.emit(emitter, share)
            b.ret()

        b.function(name, _ARGUMENTS + "".join(f", i64 %v{v}" for v in given) + self._more, body, "internal void")
        return room + p.scratch

    def _address(self, buffer: Buffer, private: dict[int, int]) -> str:
        b = self.builder
        if buffer.place == "private":
            return b.let(f"getelementptr i8, ptr %scratch, i64 {private[id(buffer)]}")
        if self.own is not None:
            number = 2 * self._number(buffer)
            at = b.let(f"getelementptr i8, ptr %table, i64 {self._owned(number).text}")
            base = b.let(f"load ptr, ptr {at}, align 8")
            return b.let(f"getelementptr i8, ptr {base}, i64 {self._owned(number + 1).text}")
        entry, start = self._place(buffer)
        base = b.table_entry("%table", entry // 8)
        return b.let(f"getelementptr i8, ptr {base}, i64 {start}") if buffer.place == "arena" else base

    def _place(self, buffer: Buffer) -> tuple[int, int]:
        """Where a buffer lies: bytes into the table to an address, and bytes from there on."""
        if buffer.place == "arena":
            return 8 * len(self.table), self.offsets[id(buffer)]
        return 8 * self.entry[id(buffer)], 0

    def _start(self, expr: Random) -> Value:
        """Where in the stream, behind its counter, random numbers of a kernel whose function is shared begin."""
        assert self.own is not None
        return self._owned(2 * len(self.own.memory) + next(i for i, x in enumerate(self.own.draws) if x is expr))

    def _number(self, buffer: Buffer) -> int:
        """Of a buffer of a kernel whose function is shared."""
        assert self.own is not None
        return next(i for i, x in enumerate(self.own.memory) if x.buffer is buffer)

    def _owned(self, number: int) -> Value:
        """One of the numbers that are a kernel's own."""
        at = self.builder.let(f"getelementptr i64, ptr %own, i64 {number}")
        return Value(self.builder.let(f"load i64, ptr {at}, align 8"), dtypes.int64)

    def _fault(self, bad: Value, name: str) -> None:
        """Note a fault without a branch: what is fine is noted in a word that nobody reads."""
        b = self.builder
        if name not in self.faults:
            self.faults.append(name)
        words = b.table_entry("%table", len(self.table) + 1)
        unread = b.let(f"getelementptr i64, ptr {words}, i64 1")
        where = b.let(f"select i1 {bad.text}, ptr {words}, ptr {unread}")
        b.emit(f"store i64 {self.faults.index(name) + 1}, ptr {where}, align 8")

    # --- the step

    def _step(self, order: Sequence[Sequence[Placed]]) -> None:
        b = self.builder

        def body() -> None:
            distance = b.let(f"mul i64 %thread, {self.stride}")
            mine = b.let(f"getelementptr i8, ptr %scratch, i64 {distance}")
            scratch = b.let(f"getelementptr i8, ptr {mine}, i64 {self.room}") if self.room else mine
            for placed in (placed for phase in order for placed in phase if placed.grain is not None):
                word = b.let(f"getelementptr i8, ptr {mine}, i64 {self.words[placed.number]}")
                deal(b, word, *self._bounds(placed))
            slots = sorted({p.slot for phase in order for p in phase if p.slot})
            has: dict[int, Value] = {}
            for slot in (0, *slots):
                turn = b.let(f"urem i64 {slot}, %threads") if slot else "0"
                has[slot] = Value(b.let(f"icmp eq i64 {turn}, %thread"), dtypes.bool_)
            for i, phase in enumerate(order):
                if i:
                    b.emit("call void @cr_barrier(ptr %control, i64 %threads)")
                for placed in phase:
                    self._call(placed, scratch, has)
            b.ret()

        b.function("step", "ptr noalias %table, ptr noalias %scratch, ptr %control, i64 %thread, i64 %threads", body)

    def _call(self, placed: Placed, scratch: str, has: dict[int, Value]) -> None:
        b, name = self.builder, f"@k{placed.number}"
        if placed.grain is not None:
            words = b.let(f"getelementptr i8, ptr %scratch, i64 {self.words[placed.number]}")
            numbers = f"i64 {self.stride}, i64 {placed.grain}, i64 %thread, i64 %threads"
            self._run(placed, f"call void @cr_share(ptr {name}, ptr %table, ptr {scratch}, ptr {words}, {numbers})")
        elif placed.slot is not None:
            call = f"call void {name}(ptr %table, ptr {scratch}, i64 0, i64 {placed.plan.units}, i1 false)"
            b.when(has[placed.slot], lambda _: self._run(placed, call))
        else:
            lo, hi = self._bounds(placed)
            self._run(placed, f"call void {name}(ptr %table, ptr {scratch}, i64 {lo}, i64 {hi}, i1 false)")

    def _bounds(self, placed: Placed) -> tuple[str, str]:
        """The units of a task that are a thread's share."""
        b, units = self.builder, placed.plan.units
        split = placed.split or Split.of_units(units)
        following = b.let("add i64 %thread, 1")
        known = self.bounds.get((split.rows, split.height))  # several tasks share rows alike; a division takes a while
        if known is None:
            known = tuple(split.write_first(b, thread, "%threads") for thread in ("%thread", following))
            self.bounds[split.rows, split.height] = known
        lo, hi = known
        if split.each > 1:
            lo, hi = (b.let(f"mul i64 {x}, {split.each}") for x in (lo, hi))
        last = b.let(f"icmp eq i64 {following}, %threads")
        return lo, b.let(f"select i1 {last}, i64 {units}, i64 {hi}")

    def _run(self, placed: Placed, call: str) -> None:
        b = self.builder
        if not self.timed:
            b.emit(call)
            return
        b.declare("i64 @llvm.readcyclecounter()")
        before = b.let("call i64 @llvm.readcyclecounter()")
        b.emit(call)
        after = b.let("call i64 @llvm.readcyclecounter()")
        spent = b.let(f"sub i64 {after}, {before}")
        ticks = b.table_entry("%table", len(self.table) + 2)
        row = b.let(f"mul i64 %thread, {len(self.schedule.tasks)}")
        at = b.let(f"add i64 {row}, {placed.number}")
        where = b.let(f"getelementptr i64, ptr {ticks}, i64 {at}")
        old = b.let(f"load i64, ptr {where}, align 8")
        b.emit(f"store i64 {b.let(f'add i64 {old}, {spent}')}, ptr {where}, align 8")


def _lines(size: int) -> int:
    """Bytes, as so many that what follows is on lines of its own."""
    return -(-size // 128) * 128
