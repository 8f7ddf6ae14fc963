"""A program as machine code, ready to run: its memory, its table of addresses, and the call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chainrule.compile import cache
from chainrule.compile.llvm import engine, pool
from chainrule.compile.llvm.step import Module, written
from chainrule.compile.llvm.target import Target, host
from chainrule.compile.memory import ALIGNMENT, Arena, planned
from chainrule.compile.program import Program
from chainrule.compile.schedule import Schedule, scheduled
from chainrule.errors import OutOfRangeError


@dataclass(eq=False)
class Native:
    """A program compiled for this machine.

    Call it with the arrays of its inputs: contiguous, of their avals; those that are updated are written to. One call
    at a time: its temporaries are its own.
    """

    program: Program
    schedule: Schedule
    arena: Arena
    module: Module
    target: Target

    def __post_init__(self) -> None:
        self._code = engine.load(cache.object_code(self.module.text, self.target))
        self._pool = pool.pool()
        threads = pool.get_num_threads() if self.module.parallel else 1
        self._constants = [aligned(b.array) for b in self.module.table if b.array is not None]
        self._memory = _aligned_bytes(self.arena.size)
        self._scratch = _aligned_bytes(self.module.scratch * threads)
        self._faults = np.zeros(2, np.int64)
        addresses = np.zeros(len(self.module.table) + 2, np.int64)
        first = len(self.schedule.inputs)
        for i, array in enumerate(self._constants):
            addresses[first + i] = array.ctypes.data
        self._first_output = first + len(self._constants)
        addresses[-2], addresses[-1] = self._memory.ctypes.data, self._faults.ctypes.data
        self.table = addresses
        self.launcher = self._pool.launcher(
            self._code.address("step"), addresses.ctypes.data, self._scratch.ctypes.data, threads
        )

    def __call__(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        outputs = [np.empty(x.aval.shape, x.aval.dtype) for x in self.program.outputs]
        for i, array in enumerate(arrays):
            self.table[i] = array.ctypes.data
        for i, array in enumerate(outputs):
            self.table[self._first_output + i] = array.ctypes.data
        self.launcher()
        if self._faults[0]:
            self._raise_fault()
        return outputs

    def _raise_fault(self) -> None:
        name = self.module.faults[int(self._faults[0]) - 1]
        self._faults[:] = 0
        raise OutOfRangeError(f"{name}: an index is out of range; run the function without compile to see which")

    def assembly(self) -> str:
        """The machine code, to be read."""
        return engine.assembly(self.module.text, self.target)


def compiled(program: Program, target: Target | None = None) -> Native:
    """Machine code for a program that has gone through its passes."""
    target = target or host()
    schedule = scheduled(program)
    arena = planned(schedule)
    module = written(schedule, arena, target, min(pool.get_num_threads(), 8))
    return Native(program, schedule, arena, module, target)


def _aligned_bytes(size: int) -> np.ndarray:
    room = np.zeros(size + ALIGNMENT, np.uint8)
    start = -room.ctypes.data % ALIGNMENT
    return room[start : start + size]


def aligned(array: np.ndarray) -> np.ndarray:
    """A copy that begins at a cache line."""
    memory = _aligned_bytes(max(array.nbytes, 1))[: array.nbytes]
    copy = memory.view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy
