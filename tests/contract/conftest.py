"""The contract suite walks the catalogue and names no op: a test that asks for `op`, `case`, `differentiable` or
`misuse` runs once for each of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from cases import CASES, cases_of, scalar_cases_of

import chainrule as cr
from chainrule import dtypes
from chainrule.core.aval import Aval
from chainrule.core.family import (
    Contraction,
    Elementwise,
    Op,
    Reduction,
    Source,
    choice,
    integer_or_bool,
    same_float,
)
from chainrule.core.sample import Misuse, Sample
from chainrule.errors import DTypeError, ShapeError
from chainrule.ops.catalogue import CATALOGUE


@dataclass(frozen=True)
class BadCall:
    """One op with one set of inputs that it must refuse; `args` may hold a dtype in place of a kind."""

    op: Op
    misuse: Misuse
    float_dtypes: tuple[np.dtype, ...] = field(default=())

    def __str__(self) -> str:
        return f"{self.op.name}-{self.misuse.error.__name__}-{self.misuse.says.replace(' ', '_')}"

    def avals(self) -> list[Aval]:
        plain = {"float": dtypes.float32, "int": dtypes.int64, "bool": dtypes.bool_}
        given = self.float_dtypes or tuple(plain[arg.kind] for arg in self.misuse.args)
        return [Aval(arg.shape, dtype) for arg, dtype in zip(self.misuse.args, given, strict=True)]

    def tensors(self) -> list[cr.Tensor]:
        return [cr.Tensor.leaf(np.ones(aval.shape, aval.dtype)) for aval in self.avals()]

    def symbols(self) -> list[cr.Tensor]:
        return [cr.Tensor.symbolic(f"x{i}", aval) for i, aval in enumerate(self.avals())]

    def __call__(self, *inputs: cr.Tensor) -> object:
        if not inputs:
            return self.op.infer(**self.misuse.params)
        return self.op(*inputs, **self.misuse.params)


def bad_calls_of(op: Op) -> Iterator[BadCall]:
    """The declared misuses, and those that every op of the family must refuse."""
    yield from (BadCall(op, misuse) for misuse in op.misuses)
    good = next(cases_of(op)).sample
    if isinstance(op, Elementwise):
        yield from _bad_elementwise(op, good)
    if isinstance(op, Reduction):
        twice = {**good.params, "dim": (0, 0)}
        yield BadCall(op, Misuse(good.args, twice, ShapeError, "distinct dimensions"))
        yield BadCall(op, Misuse((*good.args, *good.args), good.params, ShapeError, "takes 1 input, got 2"))
        if op.result is same_float:
            whole = tuple(replace(arg, kind="int") for arg in good.args)
            yield BadCall(op, Misuse(whole, good.params, DTypeError, "needs a float dtype"))
    if isinstance(op, Contraction):
        yield BadCall(op, Misuse(good.args, good.params, DTypeError, "share one"), (dtypes.float32, dtypes.float64))


def _bad_elementwise(op: Elementwise, good: Sample) -> Iterator[BadCall]:
    params, args = good.params, tuple(replace(arg, shape=(2, 3)) for arg in good.args)
    yield BadCall(op, Misuse((*args, args[0]), params, ShapeError, "takes"))
    if len(args) > 1:
        uneven = (*args[:-1], replace(args[-1], shape=(3,)))
        yield BadCall(op, Misuse(uneven, params, ShapeError, "must share one shape"))
        if op.result is not integer_or_bool and sum(arg.kind == "float" for arg in args) > 1:
            mixed = tuple(
                dtypes.bool_ if a.kind == "bool" else d
                for a, d in zip(args, (dtypes.float32,) * (len(args) - 1) + (dtypes.float64,), strict=True)
            )
            yield BadCall(op, Misuse(args, params, DTypeError, "must share one dtype"), mixed)
    if op.result is same_float:
        whole = tuple(replace(arg, kind="int") for arg in args)
        yield BadCall(op, Misuse(whole, params, DTypeError, "needs a float dtype"))
    if op.result is integer_or_bool:
        fractions = tuple(replace(arg, kind="float") for arg in args)
        yield BadCall(op, Misuse(fractions, params, DTypeError, "needs integers or bool"))
    if op.result is choice:
        numbers = tuple(replace(arg, kind="float") for arg in args)
        yield BadCall(op, Misuse(numbers, params, DTypeError, "the condition must be bool"))


BAD_CALLS = tuple(call for op in CATALOGUE for call in bad_calls_of(op))

ELEMENTWISE = tuple(op for op in CATALOGUE if isinstance(op, Elementwise))
DIFFERENTIABLE = tuple(case for case in CASES if not case.op.no_gradient and case.directions)

# What a test may ask for, by the name of its argument.
FIXTURES = {
    "op": CATALOGUE,
    "elementwise": ELEMENTWISE,
    "smooth": tuple(op for op in ELEMENTWISE if not op.no_gradient),
    "function": tuple(op for op in ELEMENTWISE if not op.samples and hasattr(cr, op.name)),
    "case": CASES,
    "applied": tuple(case for case in CASES if not isinstance(case.op, Source)),
    "made": tuple(case for case in CASES if isinstance(case.op, Source)),
    "floating": tuple(case for case in CASES if case.directions),
    "closed": tuple(case for case in CASES if case.op.no_gradient),
    "differentiable": DIFFERENTIABLE,
    "composite": tuple(case for case in DIFFERENTIABLE if getattr(case.op, "expansion", None) is not None),
    "scalars": tuple(case for op in ELEMENTWISE for case in scalar_cases_of(op)),
    "misuse": BAD_CALLS,
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for name, values in FIXTURES.items():
        if name in metafunc.fixturenames:
            ids = [value.name if isinstance(value, Op) else str(value) for value in values]
            metafunc.parametrize(name, values, ids=ids)
