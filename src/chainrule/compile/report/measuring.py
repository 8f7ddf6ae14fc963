"""How long a step takes, and each of its kernels: the step is run, many times, on copies of the arrays it runs on.

A kernel's time is the processor's counter after it less the counter before it, on the thread that took longest; the
smallest of all runs counts, since whatever else ran made the others longer.
"""

from __future__ import annotations

import ctypes
import functools
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chainrule.compile import cache
from chainrule.compile.executable import Binding, Executable
from chainrule.compile.llvm import engine
from chainrule.compile.llvm.target import Target
from chainrule.compile.native import Native
from chainrule.core.alignment import aligned_copy

_TIME = 0.3  # seconds to spend on one measurement
_FEWEST, _MOST = 5, 2000
_WARM = 2  # runs before those that count
_CALIBRATED = 0.05  # seconds over which the counter is held against the clock

_COUNTER = """
declare i64 @llvm.readcyclecounter()
define i64 @counter() {
  %now = call i64 @llvm.readcyclecounter()
  ret i64 %now
}
"""


@dataclass(frozen=True, kw_only=True)
class Times:
    """Measured seconds.

    best, usual: of the whole step, the smallest and the median. kernels: of each task, the smallest.
    runs: how many runs of the whole step there were. frequency: of the processor's counter, in ticks a second.
    """

    best: float
    usual: float
    kernels: tuple[float, ...]
    runs: int
    frequency: float

    @property
    def summed(self) -> float:
        """The kernels' times one after the other."""
        return sum(self.kernels)


def measured(step: Executable, timed: Native, arrays: Sequence[np.ndarray], target: Target) -> Times:
    """Run a step, and the same step with counters in it, on copies of arrays.

    Raises: OutOfRangeError: an index among the arrays is out of range.
    """
    copies = _copied(arrays)  # by name: a binding knows addresses, and holds nothing
    whole = _durations(step.bind(copies))
    frequency = counter_frequency(target)
    copies = _copied(arrays)
    binding = timed.bind(copies)
    spent = []
    for _ in range(_runs(binding) + _WARM):
        timed.ticks[:] = 0
        binding.run()
        spent.append(timed.ticks.max(axis=0))
    least = np.min(spent[_WARM:], axis=0) if spent[0].size else np.zeros(0)
    return Times(
        best=min(whole),
        usual=statistics.median(whole),
        kernels=tuple((least / frequency).tolist()),
        runs=len(whole),
        frequency=frequency,
    )


def _copied(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [aligned_copy(array) for array in arrays]


def _runs(binding: Binding) -> int:
    start = time.perf_counter()
    binding.run()
    once = time.perf_counter() - start
    return int(min(max(_TIME / max(once, 1e-9), _FEWEST), _MOST))


def _durations(binding: Binding) -> list[float]:
    found = []
    for _ in range(_runs(binding) + _WARM):
        start = time.perf_counter()
        binding.run()
        found.append(time.perf_counter() - start)
    return found[_WARM:]


@functools.cache
def counter_frequency(target: Target) -> float:
    """Ticks a second of the counter that `timed` code reads, held against the system's clock."""
    code = engine.load(cache.object_code(_COUNTER, target))
    counter = ctypes.CFUNCTYPE(ctypes.c_int64)(code.address("counter"))
    first, start = counter(), time.perf_counter()
    while time.perf_counter() - start < _CALIBRATED:
        time.sleep(0.001)
    last, stop = counter(), time.perf_counter()
    return float(last - first) / (stop - start)
