"""The catalogue's ops with inputs to run them on: what every suite that walks the catalogue starts from.

An op that declares no samples is fed its family's: whatever an elementwise op is, it takes any shape.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

import chainrule as cr
from chainrule import dtypes
from chainrule.core.aval import Aval
from chainrule.core.family import Elementwise, Op
from chainrule.core.node import apply
from chainrule.core.sample import Arg, Sample, floats
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
