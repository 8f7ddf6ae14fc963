"""What this machine can do at most: multiply-adds and bytes a second, measured with machine code of our own.

Knows the pool and the target; knows no program. A report that says "80 % of the limit" means these numbers.
"""

from __future__ import annotations

import json
import platform
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.compile import cache
from chainrule.compile.caches import FIRST, SECOND
from chainrule.compile.llvm import engine, pool, target
from chainrule.compile.llvm.builder import Builder, Index, Value

_MB = 1 << 20
_L1, _L2 = FIRST // 2, SECOND  # bytes a thread: half of a small L1, half of a small L2
_MOST_MEMORY = 256 * _MB
_ATTEMPTS = 5  # the best counts: whatever else ran made the others slower
_ROUNDS = 1 << 17  # of the multiply-adds' loop: a few milliseconds
_STREAMED = 48 * _MB  # bytes a thread reads in one attempt at L1 and L2
_LIMITS = 9
_PATIENCE = 2.0  # seconds before a progress bar appears
_SIGNATURE = "ptr %table, ptr %scratch, ptr %control, i64 %thread, i64 %threads"
_TABLE = ("buffer", "bytes", "stride", "repeats", "target")


@dataclass(frozen=True, kw_only=True)
class Limit:
    """One limit: what was measured, its unit, and the numbers for one thread and for all."""

    name: str
    unit: str
    one: float
    all: float


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a machine can do. `float32` and `float64` in GFLOP/s, `read`, `write` and `copy` in GB/s; copy counts both.

    cpu: its maker's name; target: what code is written for; threads: how many "all" are.
    memory: bytes of the arrays that stand for memory, larger than the last cache where it is at most 64 MB.
    """

    cpu: str
    target: str
    threads: int
    memory: int
    limits: tuple[Limit, ...]

    def __getitem__(self, name: str) -> Limit:
        """A limit by its name, "float32" or "read memory" for example.

        Raises: KeyError: there is none of this name.
        """
        for limit in self.limits:
            if limit.name == name:
                return limit
        raise KeyError(f"{name}: expected one of {', '.join(limit.name for limit in self.limits)}")

    def __repr__(self) -> str:
        return f"{self.cpu}, {self.target}\n{self._table()}"

    def _table(self) -> str:
        width = max(len(limit.name) for limit in self.limits)
        last = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        lines = [f"{'':{width}}  {'1 thread':>10}  {last:>10}"]
        lines += [f"{x.name:{width}}  {x.one:>10.1f}  {x.all:>10.1f}  {x.unit}" for x in self.limits]
        return "\n".join(lines)


_known: dict[tuple[target.Target, int], Machine] = {}


def machine(*, refresh: bool = False) -> Machine:
    """What this machine can do at most, with one thread and with `get_num_threads()`.

    Measured once, in less than a second, and kept in the cache's directory.

    Args:
        refresh: measure anew: something else ran the last time, or the machine was changed.
    Example:
        >>> cr.machine()  # doctest: +SKIP
        AMD EPYC, AVX-512 (znver4)
                        1 thread   2 threads
        float32            115.2       229.8  GFLOP/s
        float64             57.6       114.9  GFLOP/s
        read memory         21.3        33.6  GB/s
        …
    """
    here, threads = target.host(), pool.get_num_threads()
    cpu = _cpu_name() or here.cpu
    key = f"machine 1\n{cpu}\n{here}\n{threads} threads"
    found = None if refresh else _known.get((here, threads)) or _read(cache.lookup(key))
    if found is None:
        found = _measured(cpu, here, threads)
        cache.store(key, json.dumps(asdict(found)).encode())
    _known[here, threads] = found
    return found


def _read(payload: bytes | None) -> Machine | None:
    if payload is None:
        return None
    fields = json.loads(payload)
    return Machine(**fields | {"limits": tuple(Limit(**limit) for limit in fields["limits"])})


def _cpu_name() -> str:
    """What its maker calls the CPU."""
    with suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        if found := re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE):
            return found[1].strip()
    return platform.processor()


def last_cache() -> int:
    """Bytes of the largest cache that the system tells of; 32 MB where it tells of none."""
    sizes = [32 * _MB]
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        with suppress(OSError, ValueError):
            sizes.append(int(path.read_text(encoding="ascii").strip().removesuffix("K")) << 10)
    return max(sizes)


# --- measuring


def _measured(cpu: str, here: target.Target, threads: int) -> Machine:
    """Run every kernel with one thread and with all."""
    kernels = _Kernels(here)
    memory = min(4 * last_cache(), _MOST_MEMORY)
    bench = _Bench(kernels, threads, memory)
    limits = tuple(_with_progress(bench.limits(), _LIMITS))
    return Machine(cpu=cpu, target=str(here), threads=threads, memory=memory, limits=limits)


def _with_progress(steps: Iterator[Limit], total: int) -> Iterator[Limit]:
    """The steps, with a bar of how many are done once they have taken a while."""
    start, bar, done = time.perf_counter(), None, 0
    try:
        for step in steps:
            done += 1
            yield step
            if bar is None and time.perf_counter() - start > _PATIENCE:
                bar = _bar(total)
            if bar is not None:
                bar.update(bar.task_ids[0], completed=done)
    finally:
        if bar is not None:
            bar.stop()


def _bar(total: int) -> Any:
    from rich.progress import Progress  # half the time of an import of the library, and seldom needed

    bar = Progress(transient=True)
    bar.add_task("measuring the machine", total=total)
    bar.start()
    return bar


class _Bench:
    """Buffers, and the kernels run on them."""

    def __init__(self, kernels: _Kernels, threads: int, memory: int) -> None:
        self.kernels, self.threads, self.memory = kernels, threads, memory
        self.pool = pool.pool()
        room = max(memory, 2 * _L2 * threads) + 4096
        data = np.ones(room, np.uint8)  # written, or the system would give one page of zeros for all
        self.buffer = data[-data.ctypes.data % 4096 :]
        self.scratch = pool.aligned_words(128 * threads)
        self.table = pool.aligned_words(len(_TABLE))

    def limits(self) -> Iterator[Limit]:
        """The limits, one after the other."""
        for name in ("float32", "float64"):
            operations = 2 * self.kernels.operations[name] * _ROUNDS
            one, every = (threads * operations / self.time(name, threads, 0, 1) for threads in (1, self.threads))
            yield Limit(name=name, unit="GFLOP/s", one=one / 1e9, all=every / 1e9)
        for where, size in (("L1", _L1), ("L2", _L2), ("memory", 0)):
            for name in ("read", "copy") if size else ("read", "write", "copy"):
                one, every = (self.bandwidth(name, size, threads) for threads in (1, self.threads))
                yield Limit(name=f"{name} {where}", unit="GB/s", one=one / 1e9, all=every / 1e9)

    def bandwidth(self, name: str, size: int, threads: int) -> float:
        """Bytes a second; size: bytes a thread goes through, 0 for its part of the memory."""
        repeats = max(1, _STREAMED // size) if size else 1
        part = size or self.memory // threads
        used = part // 2 if name == "copy" else part
        used -= used % self.kernels.block
        moved = 2 * used if name == "copy" else used
        return threads * repeats * moved / self.time(name, threads, used, repeats, part)

    def time(self, name: str, threads: int, used: int, repeats: int, stride: int = 0) -> float:
        """Seconds of the best attempt."""
        self.table[:] = [self.buffer.ctypes.data, used, stride, repeats, self.buffer.ctypes.data + used]
        run = self.pool.launcher(
            self.kernels.address(name), self.table.ctypes.data, self.scratch.ctypes.data, threads, adapts=False
        )
        best = float("inf")
        for _ in range(_ATTEMPTS):
            start = time.perf_counter()
            run()
            best = min(best, time.perf_counter() - start)
        return best


class _Kernels:
    """The machine code: multiply-adds in registers, and three ways through memory.

    operations: multiply-adds in one round of a kernel. block: bytes of one round through memory.
    """

    def __init__(self, here: target.Target) -> None:
        self.builder = Builder(here.vector_bytes, fma=here.has_fma)
        self.operations: dict[str, int] = {}
        self.block = 8 * here.vector_bytes
        # As many sums as registers, less those for the factors: enough for any latency.
        self._sums = here.registers - 4
        for dtype in (dtypes.float32, dtypes.float64):
            self.operations[dtype.name] = self._sums * self.builder.lanes(dtype)
            self.builder.function(dtype.name, _SIGNATURE, lambda dtype=dtype: self._multiply_add(dtype))  # type: ignore[misc]
        for name in ("read", "write", "copy"):
            self.builder.function(name, _SIGNATURE, lambda name=name: self._through_memory(name))  # type: ignore[misc]
        self._code = engine.load(cache.object_code(self.builder.text(), here))

    def address(self, name: str) -> int:
        return self._code.address(name)

    def _keep(self, sums: list[Value]) -> None:
        """Write what was computed, or the code generator would see that nobody wants it."""
        b = self.builder
        total = sums[0]
        for value in sums[1:]:
            total = b.add(total, value)
        b.store(total, b.let(f"getelementptr i8, ptr %scratch, i64 {b.let('mul i64 %thread, 1024')}"), 0, total.dtype)

    def _multiply_add(self, dtype: np.dtype) -> None:
        b, lanes = self.builder, self.builder.lanes(dtype)
        factor, term = b.constant(0.5, dtype, lanes), b.constant(0.25, dtype, lanes)
        sums = [b.constant(i, dtype, lanes) for i in range(self._sums)]
        self._keep(b.loop(0, _ROUNDS, 1, lambda _, carry: [b.fma(value, factor, term) for value in carry], sums))
        b.ret()

    def _through_memory(self, name: str) -> None:
        b, dtype = self.builder, dtypes.float32
        lanes = b.lanes(dtype)
        numbers = {field: b.load("%table", _TABLE.index(field), dtypes.int64) for field in _TABLE[1:4]}
        skipped = b.mul(Value("%thread", dtypes.int64), numbers["stride"])
        source, goal = (
            b.let(f"getelementptr i8, ptr {b.table_entry('%table', _TABLE.index(field))}, i64 {skipped.text}")
            for field in ("buffer", "target")
        )
        places = [i * lanes for i in range(8)]
        constant = b.constant(1.0, dtype, lanes)

        def block(i: Index, sums: Any) -> list[Value]:
            after = []
            for place, value in zip(places, sums, strict=True):
                at = b.index_add(i, place)
                found = constant if name == "write" else b.load(source, at, dtype, lanes)
                if name == "read":
                    value = b.add(value, found)
                else:
                    b.store(found, source if name == "write" else goal, at, dtype)
                after.append(value)
            return after

        count = b.int_div(numbers["bytes"], b.constant(dtype.itemsize, dtypes.int64))
        zeros = [b.constant(0.0, dtype, lanes)] * len(places)
        rounds = lambda _, sums: b.loop(0, count, 8 * lanes, block, sums)  # noqa: E731
        self._keep(b.loop(0, numbers["repeats"], 1, rounds, zeros))
        b.ret()
