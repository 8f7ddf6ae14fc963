"""The process's workers: threads that run their share of a step in machine code, and sleep in Python between steps.

Knows addresses of machine code and blocks of memory; knows no tensor and no program. `runtime.py` is the other half.

A worker stays on duty, spinning, for a bounded time after each job, so that steps that follow each other need no
waking; then it sleeps on a lock. The caller finds a worker asleep before it publishes anything: `Launcher` wakes it and
calls again. So an interrupt between two calls leaves nothing half done.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import importlib
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from chainrule.compile import cache
from chainrule.compile.llvm import engine, target
from chainrule.compile.llvm.blocks import (
    CONTROL,
    CONTROL_BYTES,
    JOB,
    JOB_WORDS,
    MOST_THREADS,
    PATIENCE_AT_FIRST,
    TRIAL,
)
from chainrule.core.alignment import aligned_bytes
from chainrule.errors import ArgumentError

# In microseconds. A loop in Python rarely takes longer than the first between two steps; waking a worker takes 50.
DUTY, SHORTEST_DUTY = 200.0, 25.0
PATIENCE = 20.0  # at a barrier, before the core is offered to others
WAKE_PATIENCE = 100.0  # for a worker that answered, or was started, until it is on duty
LONGEST_ANSWER = 0.0003  # seconds, until a worker answers
STALL = 50_000.0  # a core that others use too is not taken away for longer at a time

_launch_type = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p)
_work_type = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
_spin_type = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)


def usable_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _wanted() -> int:
    """The number of threads that CHAINRULE_NUM_THREADS asks for, or all cores."""
    text = os.environ.get("CHAINRULE_NUM_THREADS", "")
    if not text:
        return min(usable_cores(), MOST_THREADS)
    try:
        number = int(text)
    except ValueError:
        number = 0
    return _checked("CHAINRULE_NUM_THREADS", number, text)


def _checked(what: str, number: int, arrived: object) -> int:
    if not 1 <= number <= MOST_THREADS:
        raise ArgumentError(f"{what}: expected 1 to {MOST_THREADS} threads, got {arrived!r}; the default is one a core")
    return number


def aligned_words(count: int) -> np.ndarray:
    """Zeros, int64, that begin at a multiple of 128 bytes."""
    return aligned_bytes(8 * count, 128).view(np.int64)


def _release(lock: threading.Lock) -> None:
    """Release a lock, unless it is free."""
    with contextlib.suppress(RuntimeError):
        lock.release()


class Worker:
    """One thread: on duty in machine code, or asleep on its lock."""

    def __init__(self, pool: Pool, number: int) -> None:
        self.number = number
        self._leaves = threading.Event()
        self.awake = pool.control.view(np.uint8)[CONTROL["awake"] :][number : number + 1]
        self.core = -1  # where it went on duty
        self._pool = pool
        self._bell, self._answer = threading.Lock(), threading.Lock()  # held: taking one again sleeps until it is rung
        self._bell.acquire()
        self._answer.acquire()
        self._thread = threading.Thread(target=self._run, name=f"chainrule-{number}", daemon=True)

    def start(self) -> None:
        """Let it run; once."""
        self._thread.start()

    def ring(self) -> bool:
        """Wake it, if it sleeps or is about to, and say whether it has to be waited for."""
        if self.awake[0]:
            return False
        self._answer.acquire(blocking=False)  # of a call that was not waited for
        _release(self._bell)
        return True

    def wait(self) -> None:
        """Sleep until it answers: a caller who spins may hold the very core on which the system would let it run."""
        self._answer.acquire(timeout=LONGEST_ANSWER)

    def leave(self) -> None:
        """Send it away, and wait until it is gone."""
        self._leaves.set()
        _release(self._bell)
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        pool, duty = self._pool, DUTY
        _step_aside({pool.caller_core})  # a new thread begins where it was made
        self.core = _core()
        while True:
            served = pool.work(pool.control_address, self.number, pool.pauses(duty))
            if served < 0:  # another of this number, from a start that was interrupted
                return
            duty = DUTY if served else max(SHORTEST_DUTY, duty / 2)
            if self._leaves.is_set():
                return
            self._bell.acquire()
            _step_aside({pool.caller_core})
            self.core = _core()
            _release(self._answer)


def _runtime_code(here: target.Target) -> bytes:
    """The object code of `runtime.py`. Its text is not needed to find it on the disk, nor is what writes text."""

    def made() -> bytes:
        runtime = importlib.import_module("chainrule.compile.llvm.runtime")
        return engine.compile_text(runtime.runtime_text(here), here)

    return cache.found_or_made(f"runtime\n{cache.release()}\n{engine.version()}\n{here.machine}", made)


class Pool:
    """The workers of a process, and the block of memory through which they are given jobs.

    It serves one job at a time. Whoever calls while it is busy runs his job on his own thread alone.
    """

    def __init__(self, threads: int) -> None:
        here = target.host()
        self._code = engine.load(_runtime_code(here))
        self.launch = _launch_type(self._code.address("cr_launch"))
        self.launch_woken = _launch_type(self._code.address("cr_launch_woken"))
        self.work = _work_type(self._code.address("cr_work"))
        self.adapts = here.has_counter
        self._pauses_a_microsecond, ticks = _speeds(_spin_type(self._code.address("cr_spin")))
        self.stall = int(STALL * ticks)
        self.control = aligned_words(CONTROL_BYTES // 8)
        self.control_address = self.control.ctypes.data
        self.begin(threads)

    def begin(self, threads: int) -> None:
        """As new, without a worker: at first, and in a process that was forked off, where no worker is."""
        self.control[:] = 0
        self.caller_core = -1
        self._workers: list[Worker] = []
        self._lock = threading.Lock()
        settings = {
            "limit": threads,
            "yield": _yield_address(),
            "patience": self.pauses(PATIENCE),
            "wake_patience": self.pauses(WAKE_PATIENCE),
        }
        for name, value in settings.items():
            self.control[CONTROL[name] // 8] = value

    @property
    def threads(self) -> int:
        """How many threads a step may use at most."""
        return int(self.control[CONTROL["limit"] // 8])

    def pauses(self, microseconds: float) -> int:
        """How many pauses fill a time."""
        return max(1, int(microseconds * self._pauses_a_microsecond))

    def resize(self, threads: int) -> None:
        """Allow more or fewer threads; workers that are too many leave. Steps that run meanwhile are finished."""
        with self._lock:
            self.control[CONTROL["limit"] // 8] = threads
            while len(self._workers) >= threads:
                self._workers[-1].leave()
                self._workers.pop()

    def wake(self, threads: int) -> None:
        """Have the workers 1 … threads - 1 come on duty, as far as allowed; those that are not there, start."""
        with self._lock:
            self.caller_core = _core()
            for number in range(1, min(threads, self.threads)):
                if number > len(self._workers):
                    self._workers.append(Worker(self, number))
                    try:
                        self._workers[-1].start()
                    except RuntimeError:  # no more threads to be had, or the interpreter is about to end
                        self._workers.pop()
                        self.control[CONTROL["limit"] // 8] = number
                        return
            called = [worker for worker in self._workers[: threads - 1] if worker.ring()]
            for worker in called:
                worker.wait()
            _step_aside({worker.core for worker in called})

    def launcher(
        self, step: int, table: int, scratch: int, threads: int, *, adapts: bool = True, is_long: bool = False
    ) -> Launcher:
        """A step ready to be called, with these addresses.

        Args:
            step: of `void @step(ptr %table, ptr %scratch, ptr %control, i64 %thread, i64 %threads)`.
            table: the addresses it is given.
            scratch: memory, its own part for each thread.
            threads: the most it may be run by; `scratch` has room for so many.
            adapts: measure one thread against several and use the faster; else always several.
            is_long: does it take so long that the very first call gains by waking others?
        """
        return Launcher(self, step, table, scratch, threads, adapts=adapts and self.adapts, is_long=is_long)

    def run(self, step: int, table: int, scratch: int, threads: int) -> None:
        """Run a step once, by `threads` threads if the pool has them to give."""
        self.launcher(step, table, scratch, threads, adapts=False)()


class Launcher:
    """A step and what it is given: `launcher()` runs it and returns when it is done.

    job: the block of memory it stands in, 64-bit words at the positions `blocks.JOB`; "table" and "scratch" may be
    changed between calls. For the shortest way in, call `launch(job_pointer)` and, if that is not 0, `wake_and_launch`.
    Two Python threads may call the same launcher at once if the step may run twice at once.
    """

    __slots__ = ("_pool", "job", "job_pointer", "launch")

    def __init__(
        self, pool: Pool, step: int, table: int, scratch: int, threads: int, *, adapts: bool, is_long: bool
    ) -> None:
        self._pool = pool
        self.launch: Callable[[Any], int] = pool.launch
        self.job = aligned_words(JOB_WORDS)
        self.job_pointer = ctypes.c_void_p(self.job.ctypes.data)
        words = {"control": pool.control_address, "step": step, "table": table, "scratch": scratch, "threads": threads}
        # The first trial is of one thread, then of several, or the other way round: whichever is better is kept.
        words |= {"adapts": adapts, "stall": pool.stall, "patience": PATIENCE_AT_FIRST}
        words |= {"many": not (adapts and is_long), "trial": TRIAL if adapts else 0}
        for name, word in words.items():
            self.job[JOB[name]] = word

    def __call__(self) -> None:
        if self.launch(self.job_pointer):
            self.wake_and_launch()

    def wake_and_launch(self) -> None:
        """Run the step after waking the workers it needs; those that do not come in time are done without."""
        self._pool.wake(int(self.job[JOB["threads"]]))
        self._pool.launch_woken(self.job_pointer)

    def figures(self) -> dict[str, int]:
        """What was measured: the words of the job, by their names."""
        return {name: int(self.job[position]) for name, position in JOB.items()}


def _speeds(spin: Callable[[int], int]) -> tuple[float, float]:
    """Pauses in a microsecond, 3 to 30 on today's processors; and ticks of the processor's counter."""
    best = ticks = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        counted = spin(1000)
        spent = (time.perf_counter() - start) * 1e6
        if spent < best:
            best, ticks = spent, counted
    return 1000 / best, ticks / best


def _yield_address() -> int:
    """The system's function that offers the core to others: `int f(void)`; 0 if there is none."""
    try:
        library = ctypes.CDLL("kernel32" if os.name == "nt" else None)
        function = library.SwitchToThread if os.name == "nt" else library.sched_yield
    except (OSError, AttributeError):
        return 0
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def _core() -> int:
    """The number of the core this thread runs on; -1 where the system does not say."""
    return -1 if _getcpu is None else int(_getcpu())


def _step_aside(cores: set[int]) -> None:
    """Move this thread to another core than these, if it is on one of them and may use another.

    Linux likes to run who was woken where his waker ran, who was about to sleep. Here the waker goes on working, the
    caller when he has rung, the worker when he has answered: both would share a core for some milliseconds, until the
    system balances its load.
    """
    if _core() not in cores - {-1}:
        return
    with contextlib.suppress(OSError):
        usable = os.sched_getaffinity(0)
        if others := usable - cores:
            os.sched_setaffinity(0, others)
            os.sched_setaffinity(0, usable)


def _find_getcpu() -> Callable[[], int] | None:
    if not hasattr(os, "sched_setaffinity"):
        return None
    with contextlib.suppress(OSError, AttributeError):
        found: Callable[[], int] = ctypes.CDLL(None).sched_getcpu
        return found
    return None


_getcpu = _find_getcpu()


class _Process:
    """What this process has: at most one pool, and the number of threads that was set."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.pool: Pool | None = None
        self.threads = 0  # 0: not set

    def stop(self) -> None:
        """At the interpreter's end: send the workers away. A step that is called later runs on its own thread."""
        if self.pool is not None:
            self.pool.resize(1)

    def forked(self) -> None:
        """In a child: it has the parent's memory, but none of its threads; a lock may be held by one of those."""
        self.lock = threading.Lock()
        if self.pool is not None:
            self.pool.begin(self.threads or _wanted())


_process = _Process()
atexit.register(_process.stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_process.forked)


def pool() -> Pool:
    """The pool of this process, made when it is first asked for."""
    if _process.pool is None:
        with _process.lock:
            if _process.pool is None:
                _process.pool = Pool(get_num_threads())
    return _process.pool


def set_num_threads(n: int) -> None:
    """Let compiled functions run on at most `n` threads from now on.

    Args:
        n: 1 to 256. More than the machine has cores is slower, not faster.
    Raises: ArgumentError: any other number.
    Example:
        >>> before = get_num_threads()
        >>> set_num_threads(1)
        >>> get_num_threads()
        1
        >>> set_num_threads(before)
    """
    if isinstance(n, bool) or not isinstance(n, int | np.integer):
        raise ArgumentError(f"set_num_threads: expected a whole number of threads, got {n!r}; give 1 or more")
    number = _checked("set_num_threads", int(n), n)
    with _process.lock:
        _process.threads = number
        if _process.pool is not None:
            _process.pool.resize(number)


def get_num_threads() -> int:
    """How many threads compiled functions may use: as set, or CHAINRULE_NUM_THREADS, or one for each usable core.

    Raises: ArgumentError: CHAINRULE_NUM_THREADS is no such number.
    """
    return _process.threads or _wanted()
