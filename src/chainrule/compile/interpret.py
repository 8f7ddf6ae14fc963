"""Running a program op by op, with the ops' own kernels: the oracle that every other executable is held against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import numpy as np

from chainrule.compile.executable import PlainBinding
from chainrule.compile.program import Program
from chainrule.core.node import compute


@final
class Interpreter:
    """A program as a list of kernels to call. See `Executable`."""

    def __init__(self, program: Program) -> None:
        slots = {id(x): i for i, x in enumerate(program.inputs)}
        self._constants: list[tuple[int, np.ndarray]] = []
        self._steps: list[tuple[Any, list[int], Any, int]] = []
        for node in program.nodes:
            if id(node) in slots:
                continue
            slots[id(node)] = slot = len(slots)
            if node.op is not None:
                self._steps.append((node.op, [slots[id(x)] for x in node.inputs], node.params, slot))
            else:
                assert node.array is not None, f"the program reads {node.symbol}, which is no input of it"
                self._constants.append((slot, node.array))
        self._size = len(slots)
        self._outputs = [slots[id(x)] for x in program.outputs]
        self._updates = [(slots[id(x)], slots[id(value)]) for x, value in program.updates]

    def __call__(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        values: list[Any] = [None] * self._size
        values[: len(arrays)] = arrays
        for slot, data in self._constants:
            values[slot] = data
        with np.errstate(all="ignore"):
            for op, inputs, params, slot in self._steps:
                values[slot] = compute(op, [values[i] for i in inputs], params)
        # Copies: a kernel may give a view of an input, or of a constant, and updates wait until all is computed.
        outputs = [np.array(values[slot]) for slot in self._outputs]
        for slot, value in [(slot, np.array(values[source])) for slot, source in self._updates]:
            np.copyto(values[slot], value)
        return outputs

    def bind(self, arrays: list[np.ndarray]) -> PlainBinding:
        return PlainBinding(self, list(arrays))


def interpret(program: Program) -> Interpreter:
    """The program, to be run op by op."""
    return Interpreter(program)
