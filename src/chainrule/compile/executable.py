"""What runs a program: the protocol between `jit` and what was built from a program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, final

import numpy as np

from chainrule.compile.program import Program


class Executable(Protocol):
    """A program that can be run.

    Arrays are one an input of the program, C-contiguous, aligned, of the input's shape and dtype; those that the
    program updates are writable, and share no memory with any other. The results are arrays of their own.
    """

    def __call__(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The outputs; new values are written into the arrays that the program updates."""

    def bind(self, arrays: list[np.ndarray]) -> Binding:
        """The program on these arrays, for many runs; whoever asks goes on holding the arrays."""


class Binding(Protocol):
    """A program together with the arrays it runs on: the addresses are looked up once, not at each run.

    addresses: where it finds them, one an input; None if it has no use for addresses.
    """

    @property
    def addresses(self) -> memoryview | None: ...

    def replace(self, position: int, array: np.ndarray) -> int | None:
        """Another array at an input, from now on. What is in an array is read at each run, and needs no replacing.

        Returns the array's address: while the array lives, that may be written to `addresses` instead.
        """

    def run(self) -> list[np.ndarray]:
        """The outputs, in new arrays."""


# From a program to what runs it.
Build = Callable[[Program], Executable]


@final
class PlainBinding:
    """A binding for an executable that has no use for addresses."""

    __slots__ = ("_arrays", "_run")
    addresses = None

    def __init__(self, run: Callable[[Sequence[np.ndarray]], list[np.ndarray]], arrays: list[np.ndarray]) -> None:
        self._run, self._arrays = run, arrays

    def replace(self, position: int, array: np.ndarray) -> None:
        self._arrays[position] = array

    def run(self) -> list[np.ndarray]:
        return self._run(self._arrays)
