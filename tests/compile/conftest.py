"""Compiles functions of single elements, to run them over arrays."""

import ctypes
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pytest
from targets import KINDS, runnable

from chainrule import dtypes
from chainrule.compile.llvm import engine
from chainrule.compile.llvm.builder import Builder, Value
from chainrule.compile.llvm.target import Target, host


class ElementFunction(NamedTuple):
    """What to compute for each element: form(builder, *values), of arrays of these dtypes, `lanes` at a time."""

    form: Callable[..., Value]
    inputs: Sequence[np.dtype]
    output: np.dtype
    lanes: int


def compile_elements(functions: Sequence[ElementFunction], target: Target) -> list[Callable[..., np.ndarray]]:
    """One callable on arrays for each; all in one module."""
    b = Builder(target.vector_bytes, target.has_fma)
    for number, f in enumerate(functions):
        b.function(f"f{number}", "ptr %table, i64 %n", lambda f=f: _emit_loop(b, f))
    text = b.text()
    code = engine.load(engine.compile_text(text, target))

    def call(number: int, f: ElementFunction, *arrays: np.ndarray) -> np.ndarray:
        size, step = arrays[0].size, max(f.lanes, 1)
        whole = -(-size // step) * step
        padded = [np.concatenate([x, np.zeros(whole - size, x.dtype)]) for x in arrays]
        out = np.empty(whole, f.output)
        table = (ctypes.c_void_p * (len(padded) + 1))(*(x.ctypes.data for x in (*padded, out)))
        function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(code.address(f"f{number}"))
        function(ctypes.addressof(table), whole)
        return out[:size]

    return [lambda *arrays, n=n, f=f: call(n, f, *arrays) for n, f in enumerate(functions)]


def _emit_loop(b: Builder, f: ElementFunction) -> None:
    pointers = [b.table_entry("%table", i) for i in range(len(f.inputs) + 1)]

    def body(i, _):
        loaded = [b.load(p, i, d, f.lanes) for p, d in zip(pointers, f.inputs, strict=False)]
        b.store(f.form(b, *loaded), pointers[-1], i, f.output)

    b.loop(0, Value("%n", dtypes.int64), max(f.lanes, 1), body)
    b.ret()


@pytest.fixture(params=KINDS)
def target(request) -> Target:
    return runnable(request.param)


@pytest.fixture
def compiled() -> Callable[..., list[Callable[..., np.ndarray]]]:
    """Compiles (form, input dtypes, output dtype, lanes) tuples into functions of arrays."""
    return lambda functions, target=None: compile_elements([ElementFunction(*f) for f in functions], target or host())
