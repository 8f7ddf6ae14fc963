"""Recipe: all that is needed to run a program that was compiled before, and how it is kept on disk.

A program's key says what it computes, without where it stands in a user's files: two processes that trace the same step
for the same machine find the same recipe, and the second one emits nothing.
"""

from __future__ import annotations

import hashlib
from ast import literal_eval
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from chainrule import dtypes
from chainrule.compile import cache
from chainrule.compile.llvm import engine
from chainrule.compile.llvm.target import Target
from chainrule.compile.program import Program


class Recipe(NamedTuple):
    """A compiled program, without the program.

    code: the object code; its `step` runs the program.
    constants: the arrays whose addresses follow the inputs' in the table.
    arena, scratch: bytes of memory: for the temporaries, and for each thread.
    parallel: does more than one thread pay? is_long: does it in the very first call too, when others have to be woken?
    faults: what the numbers of faults mean.
    """

    code: bytes
    constants: tuple[np.ndarray, ...]
    arena: int
    scratch: int
    parallel: bool
    is_long: bool
    faults: tuple[str, ...]

    def packed(self) -> bytes:
        """As bytes: a line that Python reads as a dict, then the constants, then the code."""
        head = self._asdict() | {"constants": [(str(c.dtype), c.shape) for c in self.constants]}
        del head["code"]
        parts = [repr(head).encode(), b"\n", *(np.ascontiguousarray(c).tobytes() for c in self.constants)]
        return b"".join([*parts, self.code])

    @classmethod
    def unpacked(cls, data: bytes) -> Recipe:
        """What `packed` made."""
        line, _, rest = data.partition(b"\n")
        head = literal_eval(line.decode())
        constants, at = [], 0
        for name, shape in head["constants"]:
            dtype = dtypes.as_dtype(name)
            count = int(np.prod(shape, dtype=np.int64))
            constants.append(np.frombuffer(rest, dtype, count, at).reshape(shape))
            at += count * dtype.itemsize
        return cls(**{**head, "constants": tuple(constants), "code": rest[at:]})


def key_of(program: Program, target: Target, threads: int) -> str:
    """A text that is the same for programs that compute the same in the same way, on the same kind of machine."""
    digest = hashlib.sha256()
    for line in _lines(program):
        digest.update(line.encode())
        digest.update(b"\n")
    machine = " ".join(map(str, target))
    return f"program\n{cache.release()}\n{engine.version()}\n{machine}\n{threads} threads\n{digest.hexdigest()}"


def _lines(program: Program) -> Iterator[str]:
    numbers: dict[int, int] = {}
    for x in program.inputs:
        numbers[id(x)] = len(numbers)
        yield f"input {x.aval}"
    for node in program.nodes:
        if id(node) in numbers:
            continue
        if node.op is not None:
            params = ",".join(f"{k}={_spelled(v)}" for k, v in sorted(node.params.items()))
            what = f"{node.op.name}({params}) {[numbers[id(x)] for x in node.inputs]}"
        elif node.constant is not None:
            what = f"fill {node.constant!r}"
        else:
            assert node.array is not None
            what = f"constant {hashlib.sha256(np.ascontiguousarray(node.array).tobytes()).hexdigest()}"
        numbers[id(node)] = len(numbers)
        yield f"{what} {node.aval}"
    yield f"outputs {[numbers[id(x)] for x in program.outputs]}"
    yield f"updates {[(numbers[id(x)], numbers[id(v)]) for x, v in program.updates]}"


def _spelled(value: Any) -> str:
    return str(value) if isinstance(value, np.dtype) else repr(value)
