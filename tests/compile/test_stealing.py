"""Work stealing: each unit is done once, whoever does it, and what one held up has left is done by others."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from steps import F, drawn, two_layers, written

from chainrule.compile.llvm import engine, pool
from chainrule.compile.llvm.blocks import CONTROL
from chainrule.compile.llvm.builder import Builder, Value
from chainrule.compile.llvm.runtime import emit_barrier
from chainrule.compile.llvm.stealing import deal, emit_sharing
from chainrule.compile.llvm.target import host
from chainrule.dtypes import int64

STRIDE = 256
LONG = 4_000_000_000  # rounds of waiting: seconds, and more than the others ever need


def counting(b: Builder) -> None:
    """Each unit: how often it is done, and by whom (the number in the thread's scratch memory).

    Who has unit 0 waits, if not alone, until so many units are done as is wanted, or very long.
    """
    lo, hi = Value("%lo", int64), Value("%hi", int64)
    counts, who, done, wanted_at, threads_at = (b.table_entry("%table", n) for n in range(5))
    me = b.load("%scratch", 0, int64)
    wanted, threads = b.load(wanted_at, 0, int64), b.load(threads_at, 0, int64)

    def held_up(_) -> None:
        entry, rounds = b.register("wait"), b.register("n")
        before, over = b.register("before"), b.register("over")
        b.emit(f"br label %{before}")
        b.start(before)
        b.emit(f"br label %{entry}")
        b.start(entry)
        more = b.register("more")
        b.emit(f"%{rounds} = phi i64 [ 0, %{before} ], [ %{more}, %{entry} ]")
        b.emit(f"%{more} = add i64 %{rounds}, 1")
        now = b.let(f"load atomic i64, ptr {done} acquire, align 8")
        short = b.let(f"icmp slt i64 {now}, {wanted.text}")
        patient = b.let(f"icmp slt i64 %{more}, {LONG}")
        b.emit(f"br i1 {b.let(f'and i1 {short}, {patient}')}, label %{entry}, label %{over}")
        b.start(over)

    b.when(b.and_(b.eq(lo, b.constant(0, int64)), b.gt(threads, b.constant(1, int64))), held_up)

    def unit(i, _) -> None:
        at = b.pointer(counts, i, int64)
        b.let(f"atomicrmw add ptr {at}, i64 1 monotonic")
        b.store(me, who, i, int64)
        b.let(f"atomicrmw add ptr {done}, i64 1 release")

    b.loop(lo, hi, 1, unit)
    b.ret()


def step(b: Builder, units: int, grain: int) -> None:
    """All threads deal, meet, and share one task; the scratch memory of each begins with the word, then its number."""
    b.store(Value("%threads", int64), b.table_entry("%table", 4), 0, int64)
    distance = b.let(f"mul i64 %thread, {STRIDE}")
    mine = b.let(f"getelementptr i8, ptr %scratch, i64 {distance}")
    scratch = b.let(f"getelementptr i8, ptr {mine}, i64 128")
    b.store(Value("%thread", int64), scratch, 0, int64)
    start = b.let(f"mul i64 %thread, {units}")
    stop = b.let(f"add i64 {start}, {units}")
    deal(b, mine, b.let(f"udiv i64 {start}, %threads"), b.let(f"udiv i64 {stop}, %threads"))
    b.emit("call void @cr_barrier(ptr %control, i64 %threads)")
    numbers = f"i64 {STRIDE}, i64 {grain}, i64 %thread, i64 %threads"
    b.emit(f"call void @cr_share(ptr @counting, ptr %table, ptr {scratch}, ptr %scratch, {numbers})")
    b.ret()


class Shared:
    """A task of so many units, its memory, and what came of the last time it was run."""

    def __init__(self, units: int, grain: int, threads: int) -> None:
        b = Builder(host().vector_bytes, fma=host().has_fma)
        emit_barrier(b, host())
        emit_sharing(b, host())
        kernel = "ptr %table, ptr %scratch, i64 %lo, i64 %hi, i1 %continues"
        b.function("counting", kernel, lambda: counting(b), "internal void")
        arguments = "ptr %table, ptr %scratch, ptr %control, i64 %thread, i64 %threads"
        b.function("step", arguments, lambda: step(b, units, grain))
        self.code = engine.load(engine.compile_text(b.text(), host()))
        self.counts, self.who = np.zeros(units, np.int64), np.zeros(units, np.int64)
        self.done, self.wanted, self.threads = (np.zeros(1, np.int64) for _ in range(3))
        memory = self.counts, self.who, self.done, self.wanted, self.threads
        self.table = np.array([a.ctypes.data for a in memory], np.int64)
        self.scratch = np.zeros(threads * STRIDE // 8, np.int64)
        self.launcher = pool.pool().launcher(
            self.code.address("step"), self.table.ctypes.data, self.scratch.ctypes.data, threads, adapts=False
        )

    def run(self) -> int:
        """Returns how many threads took part: fewer than asked for where they did not come in time."""
        self.counts[:] = self.done[:] = 0
        self.launcher()
        assert (self.counts == 1).all()
        return int(self.threads[0])


@pytest.fixture(autouse=True)
def threads(monkeypatch, tmp_path_factory):
    """More threads than there may be cores, and time for them to come."""
    monkeypatch.setenv("CHAINRULE_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "pool"))
    monkeypatch.setattr(pool, "LONGEST_ANSWER", 0.02)
    control, place = pool.pool().control, CONTROL["wake_patience"] // 8
    before, control[place] = int(control[place]), pool.pool().pauses(10_000)
    number = pool.get_num_threads()
    pool.set_num_threads(4)
    yield
    pool.set_num_threads(number)
    control[place] = before


@settings(max_examples=40)
@given(st.integers(1, 300), st.integers(1, 40), st.integers(1, 4))
def test_each_unit_is_done_once(units, grain, threads):
    task = Shared(units, grain, threads)
    for _ in range(3):
        ran = task.run()
        assert (task.who < ran).all()


@pytest.mark.skipif(pool.usable_cores() == 1, reason="needs two threads that run at the same time")
def test_who_is_held_up_is_helped():
    """The first thread's first bit ends when all else is done: so the other does what was its share."""
    task, first = Shared(240, 1, 2), 240 // 2 // 8
    task.wanted[0] = 240 - first
    assert any(task.run() == 2 for _ in range(500))  # until both are awake
    assert (task.who[:first] == 0).all()
    assert (task.who[first:] == 1).all()


def test_large_tasks_are_helped_with_and_small_ones_not():
    found = written(*two_layers(500, (300, 200, 90), F.mse_loss, drawn(500, 90)), threads=2)
    tasks = [p for phase in found.module.phases for p in phase]
    by_name = {p.task.kernel.name: p for p in tasks}
    assert by_name["matmul_relu"].grain is not None
    assert all(p.slot is None for p in tasks if p.grain is not None)
    assert {p.grain for p in tasks if p.plan.work < 10_000} == {None}
