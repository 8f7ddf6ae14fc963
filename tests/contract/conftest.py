"""The contract suite walks the catalogue and names no op: a test that asks for `op`, `case`, `differentiable` or
`misuse` runs once for each of them.

An op that declares no samples is fed its family's: whatever an elementwise op is, it takes any shape.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pytest

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
from chainrule.core.node import apply
from chainrule.core.sample import Arg, Misuse, Sample, floats
from chainrule.errors import DTypeError, ShapeError
from chainrule.ops.catalogue import CATALOGUE

# A constant operand, as a Python number becomes one.
SCALAR = 0.7


@dataclass(frozen=True)
class Case:
    """One op with one sample; draws its inputs, the same ones in every run.

    constant: the position of an input that is a number written in the program, or None.
    """

    op: Op
    sample: Sample
    number: int
    constant: int | None = None

    def __str__(self) -> str:
        shapes = ",".join("x".join(map(str, arg.shape)) or "0d" for arg in self.sample.args)
        return f"{self.op.name}-{self.number}-{shapes}" + ("-constant" if self.constant is not None else "")

    def arrays(self, dtype: np.dtype = dtypes.float64) -> list[np.ndarray]:
        """One array an input, floats of `dtype`."""
        rng = np.random.default_rng(zlib.crc32(f"{self.op.name} {self.number}".encode()))
        return [self._draw(rng, arg, dtype) for arg in self.sample.args]

    def _draw(self, rng: np.random.Generator, arg: Arg, dtype: np.dtype) -> np.ndarray:
        if arg.kind == "int":
            return rng.integers(0, arg.high, arg.shape)
        if arg.kind == "bool":
            return rng.integers(0, 2, arg.shape).astype(bool)
        low, high = self.op.domain
        drawn = rng.uniform(low, high, arg.shape)
        # Kinks stand at whole and half numbers; a difference quotient must not straddle one.
        off = drawn - np.round(drawn * 2) / 2
        return np.asarray(drawn + np.where(np.abs(off) < 0.02, np.copysign(0.05, off), 0)).astype(dtype)

    def tensors(self, dtype: np.dtype = dtypes.float64, requires_grad: bool = False) -> list[cr.Tensor]:
        """The inputs, those that can carry a gradient asking for one if wanted."""
        made = []
        for position, array in enumerate(self.arrays(dtype)):
            if position == self.constant:
                made.append(cr.Tensor.filled(Aval((), array.dtype), SCALAR))
            else:
                made.append(cr.Tensor.leaf(array, requires_grad=requires_grad and dtypes.is_float(array.dtype)))
        return made

    def symbols(self, dtype: np.dtype = dtypes.float64) -> list[cr.Tensor]:
        """The inputs as symbols x0, x1, …; constants stay numbers."""
        return [
            x if i == self.constant else cr.Tensor.symbolic(f"x{i}", x.aval, requires_grad=dtypes.is_float(x.dtype))
            for i, x in enumerate(self.tensors(dtype))
        ]

    def __call__(self, *inputs: cr.Tensor) -> cr.Tensor:
        if not inputs:
            return apply(self.op, (), self.sample.params, cr.Tensor)
        return self.op(*inputs, **self.sample.params)

    @cached_property
    def directions(self) -> tuple[int, ...]:
        """The positions of the inputs that carry a derivative."""
        return tuple(i for i, arg in enumerate(self.sample.args) if arg.kind == "float" and i != self.constant)

    def along(self, *chosen: cr.Tensor) -> cr.Tensor:
        """The op as a function of the inputs that carry a derivative, the others fixed."""
        inputs = self.tensors()
        for position, x in zip(self.directions, chosen, strict=True):
            inputs[position] = x
        return self(*inputs)

    def points(self) -> list[cr.Tensor]:
        """What `along` takes."""
        inputs = self.tensors()
        return [inputs[i] for i in self.directions]

    def random_like(self, what: str, *tensors: cr.Tensor) -> list[cr.Tensor]:
        """Random directions shaped like these tensors; `what` tells draws apart."""
        rng = np.random.default_rng(zlib.crc32(f"{self} {what}".encode()))
        return [cr.Tensor.leaf(np.asarray(rng.standard_normal(x.shape))) for x in tensors]


def cases_of(op: Op) -> Iterator[Case]:
    """The declared samples, and for an elementwise op those of its family."""
    samples = list(op.samples)
    if isinstance(op, Elementwise):
        kinds = [arg.kind for arg in samples[0].args] if samples else ["float"] * len(op.partials)
        params = samples[0].params if samples else {}
        samples += [Sample(tuple(Arg(shape, kind) for kind in kinds), params) for shape in ((2, 3), (), (0, 3))]
    yield from (Case(op, sample, number) for number, sample in enumerate(samples))
    if isinstance(op, Elementwise) and len(op.partials) > 1:
        for position in range(len(op.partials)):
            if samples[-3].args[position].kind == "float":
                yield Case(op, samples[-3], len(samples), constant=position)


def scalar_cases_of(op: Elementwise) -> Iterator[Case]:
    """The op on scalars, once for each set of params."""
    for number, sample in enumerate(op.samples or (floats(*[()] * len(op.partials)),)):
        yield Case(op, Sample(tuple(Arg((), arg.kind, arg.high) for arg in sample.args), sample.params), number)


CASES = tuple(case for op in CATALOGUE for case in cases_of(op))


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
