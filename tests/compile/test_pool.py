"""Steps run by several threads: every share once, phases in order, whatever else happens to the process.

Run as a script with the name of a scenario, it plays that in a process of its own.
"""

import _thread
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from chainrule.compile.llvm import engine, pool, runtime
from chainrule.compile.llvm.blocks import CONTROL, JOB, JOB_WORDS, PATIENCE_AT_FIRST, TRIAL
from chainrule.compile.llvm.builder import Builder, Value
from chainrule.compile.llvm.runtime import emit_barrier
from chainrule.compile.llvm.target import aarch64, host
from chainrule.dtypes import float64, int64
from chainrule.errors import ArgumentError

SIGNATURE = "ptr %table, ptr %scratch, ptr %control, i64 %thread, i64 %threads"
PHASES, ROW = 6, 256


def chain(b: Builder) -> None:
    """Row p + 1, at each thread's place: 1 + the sum of row p over the threads. Wrong if one is early or absent."""
    thread, threads = Value("%thread", int64), Value("%threads", int64)
    rows = b.table_entry("%table", 0)
    b.store(threads, rows, b.index_add(thread, (PHASES + 1) * ROW), int64)
    for phase in range(PHASES):
        if phase:
            b.emit("call void @cr_barrier(ptr %control, i64 %threads)")

        def add(i, carry, phase=phase):
            return [b.add(carry[0], b.load(rows, b.index_add(i, phase * ROW), int64))]

        total = b.loop(0, threads, 1, add, [b.constant(1, int64)])[0]
        b.store(total, rows, b.index_add(thread, (phase + 1) * ROW), int64)
    b.ret()


def long_work(b: Builder) -> None:
    """Some milliseconds of multiply-adds, shared."""
    count = b.int_div(b.constant(6_000_000, int64), Value("%threads", int64))
    half = b.constant(0.5, float64)
    found = b.loop(0, count, 1, lambda _, c: [b.fma(c[0], half, c[0])], [half])
    where = b.let(f"getelementptr i8, ptr %scratch, i64 {b.let('mul i64 %thread, 128')}")
    b.store(found[0], where, 0, float64)
    b.ret()


def module(target) -> str:
    b = Builder(target.vector_bytes, fma=target.has_fma)
    emit_barrier(b, target)
    b.function("chain", SIGNATURE, lambda: chain(b))
    b.function("long_work", SIGNATURE, lambda: long_work(b))
    return b.text()


class Chain:
    """The chain and its memory; `check` says whether every row is right."""

    def __init__(self, threads: int, *, adapts: bool, is_long: bool = False) -> None:
        self.code = engine.load(engine.compile_text(module(host()), host()))
        self.rows = np.zeros((PHASES + 2, ROW), np.int64)
        self.table = np.array([self.rows.ctypes.data], np.int64)
        self.launcher = pool.pool().launcher(
            self.code.address("chain"), self.table.ctypes.data, 0, threads, adapts=adapts, is_long=is_long
        )
        self.threads = threads

    def run(self) -> int:
        """Run it; returns how many threads did."""
        self.rows[1:] = 0
        self.launcher()
        return self.check()

    def check(self) -> int:
        ran = int(self.rows[-1, 0])
        assert 1 <= ran <= self.threads, ran
        assert (self.rows[-1, :ran] == ran).all()
        assert not self.rows[1:, ran:].any()
        expected = 1
        for row in self.rows[1:-1]:
            assert (row[:ran] == expected).all(), (row[:ran], expected)
            expected = 1 + ran * expected
        return ran


@pytest.fixture(autouse=True)
def settings(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("CHAINRULE_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "pool"))
    before = pool.get_num_threads()
    yield
    pool.set_num_threads(before)


@pytest.fixture
def patience(monkeypatch):
    """Wait for workers longer than pays: there may be more threads than cores, and more processes too."""
    monkeypatch.setattr(pool, "LONGEST_ANSWER", 0.02)
    control, place = pool.pool().control, CONTROL["wake_patience"] // 8
    before, control[place] = int(control[place]), pool.pool().pauses(10_000)
    yield
    control[place] = before


def scenario(name: str, **environment: str) -> str:
    """Play a scenario in a process of its own."""
    finished = subprocess.run(
        [sys.executable, "-W", "ignore", __file__, name],
        check=False, capture_output=True, text=True, timeout=60, env=os.environ | environment,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert not finished.stderr
    return finished.stdout


# --- jobs


@pytest.mark.parametrize(("threads", "jobs"), [(1, 200), (2, 1500), (3, 20), (5, 8)])
def test_every_phase_sees_the_one_before(threads, jobs, patience):
    pool.set_num_threads(threads)
    step = Chain(threads, adapts=False)
    ran = {step.run() for _ in range(jobs)}
    if threads <= pool.usable_cores():  # of more than that, some come too late, now and then
        assert threads in ran


def test_one_thread_against_several_is_measured():
    pool.set_num_threads(2)
    step = Chain(2, adapts=True)
    for _ in range(2000):
        step.run()
    figures = step.launcher.figures()
    assert figures["calls_one"] > 0
    assert figures["calls_many"] > 0
    assert figures["time_one"] > 0
    assert figures["time_many"] > 0


@pytest.mark.parametrize("is_long", [False, True])
def test_a_long_step_wakes_others_in_its_first_call(is_long, patience):
    pool.set_num_threads(2)
    step = Chain(2, adapts=True, is_long=is_long)
    step.run()
    figures = step.launcher.figures()
    assert (figures["calls_one"], figures["calls_many"]) == ((0, 1) if is_long else (1, 0))


def test_without_measuring_nothing_is_learnt():
    step = Chain(2, adapts=False)
    for _ in range(100):
        step.run()
    assert step.launcher.figures()["calls_one"] == step.launcher.figures()["calls_many"] == 0


def test_workers_that_sleep_are_woken(patience):
    pool.set_num_threads(2)
    step = Chain(2, adapts=False)
    ran = []
    for _ in range(20):
        ran.append(step.run())
        time.sleep(0.003)
    assert 2 in ran[1:]


def test_the_table_may_change_between_calls():
    step, other = Chain(2, adapts=False), Chain(2, adapts=False)
    step.launcher.job[JOB["table"]] = other.table.ctypes.data
    step.launcher()
    other.check()
    assert not step.rows.any()


def test_a_step_is_run_once_by_its_address():
    step = Chain(2, adapts=False)
    pool.pool().run(step.code.address("chain"), step.table.ctypes.data, 0, 2)
    step.check()


def test_callers_at_the_same_time_do_not_disturb_each_other():
    pool.set_num_threads(2)
    faults, ran = [], []

    def caller(number: int) -> None:
        step = Chain(2, adapts=number % 2 == 0)
        try:
            ran.extend(step.run() for _ in range(800))
        except AssertionError as error:
            faults.append(error)

    callers = [threading.Thread(target=caller, args=(n,)) for n in range(4)]
    for c in callers:
        c.start()
    for c in callers:
        c.join()
    assert not faults
    assert len(ran) == 3200
    assert 1 in ran


def test_a_step_goes_on_while_the_number_of_threads_changes():
    pool.set_num_threads(3)
    step, stop, faults = Chain(3, adapts=False), threading.Event(), []

    def caller() -> None:
        try:
            while not stop.is_set():
                step.run()
        except AssertionError as error:
            faults.append(error)

    running = threading.Thread(target=caller)
    running.start()
    for n in (1, 2, 3, 2, 1, 3, 1, 2):
        pool.set_num_threads(n)
        time.sleep(0.01)
    stop.set()
    running.join()
    assert not faults


def test_fewer_threads_end_workers():
    pool.set_num_threads(4)
    step = Chain(4, adapts=False)
    for _ in range(10):
        step.run()
    pool.set_num_threads(1)
    assert not [t for t in threading.enumerate() if t.name.startswith("chainrule-")]
    assert step.run() == 1


# --- figures: what is chosen, given times that are made up


STALL = 1_000_000


def play(times_one, times_many, calls: int, *, is_long: bool = False) -> np.ndarray:
    """The ways that a job's figures choose, call by call, if its calls took these times."""
    note = runtime_note()
    job = pool.aligned_words(JOB_WORDS)
    job[JOB["many"]], job[JOB["trial"]], job[JOB["patience"]] = not is_long, TRIAL, PATIENCE_AT_FIRST
    job[JOB["stall"]] = STALL
    ways = np.empty(calls, np.int64)
    for call in range(calls):
        ways[call] = job[JOB["many"]] ^ int(job[JOB["trial"]] > 0)
        note(job.ctypes.data, int(ways[call]), int((times_one, times_many)[ways[call]](call)))
    return ways


def runtime_note():
    text = runtime.runtime_text(host()).replace("define internal void @cr_note", "define void @cr_note")
    code = engine.load(engine.compile_text(text, host()))
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(code.address("cr_note"))
    function.code = code
    return function


@pytest.mark.parametrize("is_long", [False, True])
def test_the_faster_way_is_used(is_long):
    assert play(lambda _: 1000, lambda _: 600, 3000, is_long=is_long)[100:].mean() > 0.95
    assert play(lambda _: 1000, lambda _: 5000, 3000, is_long=is_long)[100:].mean() < 0.05


def test_one_thread_is_hardly_ever_tried_where_several_are_far_better():
    assert play(lambda _: 1000, lambda _: 500, 20_000)[2000:].mean() > 0.997


def test_a_gain_too_small_to_tell_keeps_one_thread():
    assert play(lambda _: 1000, lambda _: 990, 3000)[100:].mean() < 0.2


def test_several_threads_are_given_up_soon_and_tried_again():
    ways = play(lambda _: 1000, lambda call: 600 if not 1000 <= call < 2000 else 100_000, 25_000)
    assert ways[500:1000].mean() > 0.9
    assert ways[1000:2000].sum() <= 8
    assert ways[-500:].mean() > 0.9


def test_one_slow_call_is_forgiven():
    ways = play(lambda _: 1000, lambda call: 1_000_000 if call % 200 == 150 else 600, 3000)
    assert ways[160:].mean() > 0.9


def test_what_failed_trials_cost_is_bounded():
    ways = play(lambda _: 1000, lambda _: 8_000, 20_000)
    cost = np.where(ways == 1, 8_000, 1000).sum()
    assert cost < 1.05 * 20_000 * 1000


@pytest.mark.parametrize("call", range(30))
def test_a_process_that_was_stopped_goes_on_as_before(call):
    ways = play(lambda c: 10**12 if c == call else 1000, lambda c: 10**12 if c == call else 600, 200)
    assert ways[60:].mean() > 0.85  # but for a trial of one thread


@pytest.mark.parametrize("call", range(8, 12))
def test_a_slow_call_in_a_trial_does_not_decide_it(call):
    ways = play(lambda _: 1000, lambda c: 100_000 if c == call else 600, 200)
    assert ways[12:60].all()


def test_what_disturbed_for_a_while_is_soon_forgotten():
    ways = play(lambda _: 1000, lambda c: 600 if not 1000 <= c < 1020 else 20_000, 3000)
    assert ways[1500:].mean() > 0.9


# --- numbers of threads


def test_the_number_of_threads(monkeypatch):
    pool.set_num_threads(3)
    assert pool.get_num_threads() == 3
    assert pool.pool().threads == 3
    monkeypatch.setattr(pool._process, "threads", 0)
    monkeypatch.delenv("CHAINRULE_NUM_THREADS", raising=False)
    assert pool.get_num_threads() == pool.usable_cores()
    monkeypatch.setenv("CHAINRULE_NUM_THREADS", "5")
    assert pool.get_num_threads() == 5
    for wrong in ("0", "many", "-2", "1.5"):
        monkeypatch.setenv("CHAINRULE_NUM_THREADS", wrong)
        with pytest.raises(ArgumentError, match="CHAINRULE_NUM_THREADS: expected 1 to 256 threads, got"):
            pool.get_num_threads()


@pytest.mark.parametrize("wrong", [0, -1, 257])
def test_too_few_or_too_many_threads(wrong):
    with pytest.raises(ArgumentError, match=f"set_num_threads: expected 1 to 256 threads, got {wrong}"):
        pool.set_num_threads(wrong)


@pytest.mark.parametrize("wrong", [True, 1.5, "2", None])
def test_what_is_no_number_of_threads(wrong):
    with pytest.raises(ArgumentError, match="set_num_threads: expected a whole number of threads, got"):
        pool.set_num_threads(wrong)


def test_no_more_threads_to_be_had(monkeypatch):
    pool.set_num_threads(1)
    pool.set_num_threads(2)
    step = Chain(2, adapts=False)

    def refuse(self: pool.Worker) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(pool.Worker, "start", refuse)
    assert step.run() == 1
    assert pool.pool().threads == 1


def test_the_runtime_is_compiled_for_arm_too():
    assert engine.compile_text(module(aarch64()), aarch64())
    assert engine.compile_text(runtime.runtime_text(aarch64()), aarch64())


# --- in a process of its own


def play_fork() -> None:
    """A child, forked while steps run, has a pool of its own."""
    pool.set_num_threads(2)
    step, stop = Chain(2, adapts=False), threading.Event()
    mine = Chain(2, adapts=False)

    def caller() -> None:
        while not stop.is_set():
            step.run()

    running = threading.Thread(target=caller)
    running.start()
    children = []
    for _ in range(10):
        child = os.fork()
        if child == 0:
            end = time.monotonic() + 10
            while mine.run() < 2 and time.monotonic() < end:
                continue
            os._exit(0 if time.monotonic() < end else 3)
        children.append(child)
        mine.run()
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    stop.set()
    running.join()
    assert codes == [0] * 10, codes


def play_exit() -> None:
    """The interpreter ends while a worker is on duty."""
    pool.set_num_threads(2)
    step = Chain(2, adapts=False)
    while step.run() < 2:
        continue
    print("done", flush=True)


def play_exit_in_a_thread() -> None:
    """A daemon thread runs steps while the interpreter ends."""
    pool.set_num_threads(2)
    step = Chain(2, adapts=False)

    def caller() -> None:
        while True:
            step.run()

    threading.Thread(target=caller, daemon=True).start()
    time.sleep(0.05)
    print("done", flush=True)


def play_interrupt() -> None:
    """Ctrl-C at any moment leaves the pool usable."""
    pool.set_num_threads(2)
    step = Chain(2, adapts=False)
    scratch = np.zeros(64)
    long = pool.pool().launcher(step.code.address("long_work"), 0, scratch.ctypes.data, 2, adapts=False)
    for round_ in range(15):
        timer = threading.Timer(0.002 + 0.0007 * round_, _thread.interrupt_main)
        try:
            timer.start()
            for _ in range(10_000):
                long()
                time.sleep(0.0004)
        except KeyboardInterrupt:
            pass
        timer.join()
        for _ in range(20):
            try:
                step.run()
            except KeyboardInterrupt:
                step.run()
    assert 2 in [step.run() for _ in range(100)]
    print("interrupted", flush=True)


def play_yield_missing() -> None:
    """Without the C library's sched_yield, waiting goes on."""
    pool._yield_address = lambda: 0
    pool.set_num_threads(3)
    step = Chain(3, adapts=False)
    for _ in range(10):
        step.run()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_fork_while_a_step_runs():
    scenario("fork")


def test_the_interpreter_ends_with_workers_on_duty():
    assert scenario("exit") == "done\n"


def test_the_interpreter_ends_while_a_step_runs():
    assert scenario("exit_in_a_thread") == "done\n"


def test_an_interrupt_leaves_the_pool_usable():
    assert scenario("interrupt") == "interrupted\n"


def test_a_system_without_yield():
    scenario("yield_missing")


def test_a_narrow_target_has_the_same_pool():
    if host().arch != "x86_64":
        pytest.skip("restrictions are of x86-64")
    assert scenario("exit", CHAINRULE_TARGET="baseline", CHAINRULE_NUM_THREADS="2") == "done\n"


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    globals()[f"play_{sys.argv[1]}"]()
