"""Runs many programs on memory with pages around it that must not be touched: a script, for `test_faults`.

PYTHONPATH=tests/contract python tests/compile/guarded.py [avx2 | baseline | ""] [end | start] [on purpose]

Inputs, outputs, constants, temporaries and scratch memory each end (or begin) right beside such a page. A program that
leaves its memory ends the process; the last line printed says which it was.
"""

import ctypes
import itertools
import mmap
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from cases import Case, cases_of
from drawn import programs
from equality import EFFORT
from hypothesis import HealthCheck, given, settings
from targets import runnable

import chainrule as cr
from chainrule.compile.jit import Compiled
from chainrule.compile.llvm import engine
from chainrule.compile.llvm.target import Target, host
from chainrule.compile.pipeline import optimised
from chainrule.compile.program import Program
from chainrule.compile.writing import write
from chainrule.core.family import Elementwise
from chainrule.core.sample import Arg, Sample
from chainrule.ops.catalogue import CATALOGUE

PAGE = mmap.PAGESIZE
LIBC = ctypes.CDLL(None)
LIBC.mprotect.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
STEP = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)


class Guards:
    """Memory with a page before and one behind that must not be touched; it stays as long as this object does."""

    def __init__(self, at_end: bool) -> None:
        self.at_end = at_end
        self.maps: list[mmap.mmap] = []

    def room(self, size: int) -> np.ndarray:
        """Bytes right beside a guard."""
        inside = max(-(-size // PAGE), 1) * PAGE
        memory = mmap.mmap(-1, inside + 2 * PAGE)
        self.maps.append(memory)
        start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        for page in (start, start + PAGE + inside):
            assert LIBC.mprotect(page, PAGE, 0) == 0
        return np.frombuffer(memory, np.uint8, size, PAGE + (inside - size if self.at_end else 0))

    def copy(self, array: np.ndarray) -> np.ndarray:
        """The array, right beside a guard."""
        there = self.room(array.nbytes).view(array.dtype).reshape(array.shape)
        there[...] = array
        return there


class Guarded:
    """An executable that runs on guarded copies of what it is given, by one thread."""

    def __init__(self, program: Program, target: Target, at_end: bool) -> None:
        self.program, self.at_end = program, at_end
        self.written = write(optimised(program), target, threads=1)
        self.code = engine.load(self.written.recipe.code)

    def __call__(self, given: list[np.ndarray]) -> list[np.ndarray]:
        guards, recipe = Guards(self.at_end), self.written.recipe
        inputs = [guards.copy(a) for a in given]
        constants = [guards.copy(a) for a in recipe.constants]
        outputs = [guards.copy(np.zeros(x.aval.shape, x.aval.dtype)) for x in self.program.outputs]
        rest = [guards.room(recipe.arena), guards.room(16), guards.room(0)]
        table = np.array([a.ctypes.data for a in (*inputs, *constants, *outputs, *rest)], np.int64)
        scratch, control = guards.room(recipe.scratch), np.zeros(4096, np.int64)
        step = STEP(self.code.address("step"))
        step(table.ctypes.data, scratch.ctypes.data, control.ctypes.data, 0, 1)
        for array, changed in zip(given, inputs, strict=True):
            if not np.array_equal(array, changed, equal_nan=array.dtype.kind == "f"):
                array[...] = changed
        return [a.copy() for a in outputs]

    def bind(self, given: list[np.ndarray]) -> "Binding":
        return Binding(self, given)


class Binding:
    """Guarded, on arrays."""

    addresses = None

    def __init__(self, run: Guarded, arrays: list[np.ndarray]) -> None:
        self.run_on, self.arrays = run, arrays

    def replace(self, position: int, array: np.ndarray) -> None:
        self.arrays[position] = array

    def run(self) -> list[np.ndarray]:
        return self.run_on(self.arrays)


def catalogue(build: Callable) -> None:
    """Every op, value and gradient, on odd sizes."""
    for op in CATALOGUE:
        cases = list(cases_of(op))
        if isinstance(op, Elementwise):
            for number, shape in enumerate(((1,), (17,), (5, 33)), len(cases)):
                args = tuple(Arg(shape, a.kind, a.high) for a in cases[0].sample.args)
                cases.append(Case(op, Sample(args, cases[0].sample.params), number))
        print(op.name, flush=True)
        pairs = list(itertools.product(cases, (cr.float64, cr.bfloat16)))

        def everything(*inputs, pairs=pairs):
            return [value_and_sent(case, *x) for (case, _), x in zip(pairs, inputs, strict=True)]

        Compiled(everything, build=build)(*(case.tensors(dtype) for case, dtype in pairs))


def value_and_sent(case: Case, *inputs: cr.Tensor) -> Any:
    """What an op gives, and what it sends back of it."""
    moving = () if case.op.no_gradient else case.directions
    if not moving:
        return case(*inputs)

    def along(*chosen):
        return case(*(chosen[moving.index(i)] if i in moving else x for i, x in enumerate(inputs)))

    out, pullback = cr.vjp(along, *(inputs[i] for i in moving))
    return out, pullback(out)


def recurrence(w: cr.Tensor) -> cr.Tensor:
    """Its steps share their functions; each has a column of its own."""
    h = w
    for step in range(5):
        h = (h @ w).tanh() * w[:, step : step + 1]
    return h.sum()


F = cr.nn.functional
INDEX = np.array([10, 14, 2, 11])
KNOWN = {
    "picked and joined": lambda x: (lambda v: cr.cat([(v * 2).mT, v.mT], -1)[..., ::2])(x.index_select(1, INDEX)),
    "picked and padded": lambda x: F.pad(x.index_select(1, INDEX).mT, (5, 4))[..., ::2],
    "picked, padded, in windows": lambda x: F.windows(
        F.pad(x.index_select(1, INDEX), (3, 3, 9, 9)), (3, 3), (1, 1), (1, 1)
    ).sum((-1, -2)),
    "joined along columns": lambda x: cr.cat([x[:, :13], x * 2, x[:, 5:6]], 1),
    "rows of tables joined": lambda x: (lambda i: cr.cat([x[:, :5][i], x * 2, x[:, 9:][i], x[:, :2][i]], 1))(
        x[:, 0].argsort()
    ),
    "joined along rows": lambda x: cr.cat([x[:3], x.exp()], 0),
    "dear within bounds": lambda x: cr.cat([x[:, :9].mT.exp(), x[:, :9].mT.tanh()], -1).log_softmax(-1),
    "padded and kept": lambda x: F.layer_norm(F.pad(x.sigmoid(), (5, 4)), (26,)),
    "rolled": lambda x: cr.roll(x, (5, 7), (0, 1)),
    "padded": lambda x: F.pad(x, (3, 1, 0, 2)),
    "transposed": lambda x: x.T * 2 + cr.roll(x.T, 1, 0),
    "a recurrence": lambda x: cr.grad(recurrence)(x @ x),
}


def known_programs(build: Callable) -> None:
    """What has once left its memory, or might, whose positions are at edges."""
    x = cr.tensor(np.random.default_rng(0).standard_normal((17, 17)) * 0.1)
    for name, function in KNOWN.items():
        for dtype in (cr.float64, cr.float32):
            print(name, flush=True)
            given = x.to(dtype)
            found, wanted = Compiled(function, build=build)(given), function(given)
            np.testing.assert_allclose(found.numpy(), wanted.numpy(), rtol=1e-4, atol=1e-5)


def random_programs(build: Callable) -> None:
    """Random programs, with their gradients."""

    @given(programs())
    @settings(
        max_examples=10 * EFFORT,
        derandomize=EFFORT == 1,
        suppress_health_check=list(HealthCheck),
        database=None,
        deadline=None,
    )
    def run(program):
        print(repr(program), flush=True)
        Compiled(program.value_and_gradients, build=build)(*program.tensors())

    run()


def main(kind: str, side: str, *on_purpose: str) -> None:
    target = runnable(kind) if kind else host()
    if on_purpose:
        guards = Guards(side == "end")
        ctypes.memset(guards.room(10).ctypes.data, 0, 11 if side == "end" else 2 * PAGE)
    for run in (catalogue, known_programs, random_programs):
        run(lambda program: Guarded(program, target, side == "end"))


if __name__ == "__main__":
    main(*sys.argv[1:])
