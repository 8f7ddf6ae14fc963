"""A program as machine code, ready to run: its memory, its tables of addresses, and the call."""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable, Sequence
from typing import final

import numpy as np

from chainrule.compile import cache
from chainrule.compile.executable import Binding
from chainrule.compile.llvm import engine, pool
from chainrule.compile.llvm.target import host
from chainrule.compile.patience import sign_of_life
from chainrule.compile.program import Program
from chainrule.compile.recipe import Recipe, key_of
from chainrule.compile.results import Results
from chainrule.core.alignment import aligned_bytes, aligned_copy
from chainrule.core.node import at_user_line
from chainrule.errors import OutOfMemoryError, OutOfRangeError

_SMALL = 4096  # bytes: a result up to this size is copied out of memory of its own, which costs less than an address


@final
class Native:
    """A program compiled for this machine: an `Executable`. One call at a time, since its temporaries are its own.

    program: as it was traced. recipe: what runs.
    ticks: of a program that is timed, what each task has taken so far, by thread, in ticks of the processor's counter.
    """

    def __init__(self, program: Program, recipe: Recipe, threads: int, tasks: int = 0) -> None:
        self.program, self.recipe = program, recipe
        self.code = engine.load(recipe.code)
        self.pool = pool.pool()
        self.threads = threads if recipe.parallel else 1
        self.constants = [aligned_copy(array) for array in recipe.constants]
        self.memory = _memory(recipe.arena, program)
        self.scratch = aligned_bytes(recipe.scratch * self.threads)
        self.faults = np.zeros(2, np.int64)
        self.ticks = np.zeros((self.threads, tasks), np.int64)

    def __call__(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        return self.bind(list(arrays)).run()

    def bind(self, arrays: list[np.ndarray]) -> Binding:
        """The program on these arrays."""
        return NativeBinding(self, arrays)


@final
class NativeBinding:
    """A program on arrays: a table with their addresses, and the pool's job that is given it."""

    __slots__ = (
        "_fault", "_job", "_large", "_launch", "_launcher", "_native", "_results", "_small", "_table", "addresses",
    )  # fmt: skip

    def __init__(self, native: Native, arrays: list[np.ndarray]) -> None:
        self._native = native
        addresses = [array.ctypes.data for array in (*arrays, *native.constants)]
        first = len(addresses)
        # A large result gets memory that nobody holds; a small one is written to the same place each time, and copied.
        self._results: list[np.ndarray | None] = []
        self._large: list[tuple[int, int, Results]] = []
        for number, x in enumerate(native.program.outputs):
            size = x.aval.size * x.aval.dtype.itemsize
            if size <= _SMALL:
                self._results.append(np.zeros(x.aval.shape, x.aval.dtype))
                addresses.append(self._results[-1].ctypes.data)  # type: ignore[union-attr]
            else:
                self._results.append(None)
                self._large.append((number, first + number, Results(*x.aval)))
                addresses.append(0)
        addresses += [native.memory.ctypes.data, native.faults.ctypes.data, native.ticks.ctypes.data]
        self._table = np.array(addresses, np.int64)
        self.addresses = memoryview(self._table.data)  # the same, written to in half the time
        self._small: Callable[[], np.ndarray] | None = None
        if len(self._results) == 1 and self._results[0] is not None:
            self._small = self._results[0].copy
        self._launcher = native.pool.launcher(
            native.code.address("step"), self._table.ctypes.data, native.scratch.ctypes.data, native.threads,
            is_long=native.recipe.is_long,
        )  # fmt: skip
        self._launch, self._job = self._launcher.launch, self._launcher.job_pointer
        self._fault = memoryview(native.faults.data) if native.recipe.faults else None

    def replace(self, position: int, array: np.ndarray) -> int:
        try:
            address = _addressof(_char_at(array))  # type: ignore[arg-type]
        except (TypeError, ValueError, BufferError):  # read-only, empty, or of a dtype that buffers do not know
            address = array.ctypes.data  # which takes four times as long
        self.addresses[position] = address
        return address

    def run(self) -> list[np.ndarray]:
        """The outputs, in new arrays."""
        outputs: list[np.ndarray] = []
        if self._small is None:
            outputs = self._allocated()
        if self._launch(self._job):
            self._launcher.wake_and_launch()
        if self._fault is not None and self._fault[0]:
            self._raise_fault()
        if self._small is not None:
            return [self._small()]
        return [o if kept is None else kept.copy() for o, kept in zip(outputs, self._results, strict=True)]

    def _allocated(self) -> list[np.ndarray]:
        outputs: list[np.ndarray] = [self._table] * len(self._results)
        for number, entry, results in self._large:
            outputs[number], self.addresses[entry] = results.free()
        return outputs

    def _raise_fault(self) -> None:
        faults = self._native.faults
        name = self._native.recipe.faults[int(faults[0]) - 1]
        faults[:] = 0
        raise OutOfRangeError(f"{name}: an index is out of range in compiled code, which has run to its end")


def build(program: Program) -> Native:
    """A traced program as machine code: from the disk if it was compiled before, else through all passes."""
    target, threads = host(), pool.get_num_threads()
    key = key_of(program, target, threads)
    kept = cache.lookup(key)
    if kept is not None:
        return Native(program, Recipe.unpacked(kept), threads)
    with sign_of_life(f"compile: {len(program.nodes):,} operations become machine code; loops are unrolled"):
        recipe = importlib.import_module("chainrule.compile.writing").recipe_of(program, target, threads)
    native = Native(program, recipe, threads)
    cache.store(key, recipe.packed())
    return native


def _memory(size: int, program: Program) -> np.ndarray:
    try:
        return aligned_bytes(size)
    except MemoryError:
        largest = max(program.nodes, key=lambda n: n.aval.size * n.aval.dtype.itemsize)
        raise at_user_line(OutOfMemoryError(
            f"compile: the step needs {size / 2**20:,.0f} MiB for its temporaries, more than there is; the largest "
            f"value is {largest.aval}; use a smaller batch"
        )) from None  # fmt: skip


_char_at, _addressof = ctypes.c_char.from_buffer, ctypes.addressof
