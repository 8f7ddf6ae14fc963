"""Every op of the catalogue, compiled, is what it is eagerly: for each dtype that it takes, value and gradient.

Names no op. All versions of an op, by dtype and shape, are results of one function, so that it is compiled once.
"""

import itertools
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from cases import Case, cases_of
from equality import assert_equal, compiled, quietly

import chainrule as cr
from chainrule import dtypes
from chainrule.core.aval import Aval
from chainrule.core.family import Elementwise, Op, Reduction, Source
from chainrule.core.sample import Arg, Sample
from chainrule.errors import ChainruleError
from chainrule.ops.catalogue import CATALOGUE

# Below, at and beyond the lanes of a vector, and none.
SHAPES = ((), (1,), (0,), (17,), (33,), (3, 5, 7), (2, 0, 3), (129,))
FEW = ((17,), (0,))
WIDE = (dtypes.float32, dtypes.float64)


@dataclass(frozen=True)
class Version:
    """A case with one dtype for each input.

    Entries are drawn as the contract suite draws them; integers, where it draws floats, with the extremes among them.
    """

    case: Case
    dtypes: tuple[np.dtype, ...]

    def __str__(self) -> str:
        args = zip(self.case.sample.args, self.dtypes, strict=True)
        return f"{self.case} of {', '.join(str(Aval(a.shape, d)) for a, d in args)} {dict(self.case.sample.params)}"

    def is_taken(self) -> bool:
        """Does the op take such inputs?"""
        args = zip(self.case.sample.args, self.dtypes, strict=True)
        try:
            self.case.op.infer(*(Aval(a.shape, d) for a, d in args), **self.case.sample.params)
        except ChainruleError:
            return False
        return True

    def arrays(self) -> list[np.ndarray]:
        """What a call is given."""
        rng = np.random.default_rng(zlib.crc32(str(self).encode()))
        drawn = zip(self.case.arrays(), self.dtypes, self.case.sample.args, strict=True)
        return [self._converted(rng, array, dtype, arg) for array, dtype, arg in drawn]

    def _converted(self, rng: np.random.Generator, array: np.ndarray, dtype: np.dtype, arg: Arg) -> np.ndarray:
        if arg.kind != "float" or dtypes.is_float(dtype):
            return array.astype(dtype)
        if dtype == dtypes.bool_:
            return rng.integers(0, 2, arg.shape).astype(bool)
        small = rng.integers(0 if dtype.kind == "u" or self.case.op.domain[0] >= 0 else -5, 6, arg.shape)
        large = rng.choice(np.array([np.iinfo(dtype).min, np.iinfo(dtype).max], dtype), arg.shape)
        return np.asarray(np.where(rng.random(arg.shape) < 0.1, large, small.astype(dtype)))

    def value(self, *inputs: cr.Tensor) -> cr.Tensor:
        """The op on inputs; where the case has a number in the program, that."""
        inputs = tuple(
            cr.Tensor.filled(Aval((), dtype), 3 if dtypes.is_integer(dtype) else 0.75) if i == self.case.constant else x
            for i, (x, dtype) in enumerate(zip(inputs, self.dtypes, strict=True))
        )
        return self.case(*inputs)

    @property
    def directions(self) -> list[int]:
        """The inputs that carry a gradient."""
        if self.case.op.no_gradient:
            return []
        return [i for i, d in enumerate(self.dtypes) if dtypes.is_float(d) and i != self.case.constant]

    def value_and_gradients(self, *inputs: cr.Tensor) -> tuple[cr.Tensor, ...]:
        """What the op gives, and what it sends back of a random cotangent."""
        if not self.directions:
            return (self.value(*inputs),)

        def along(*chosen: cr.Tensor) -> cr.Tensor:
            given = list(inputs)
            for i, x in zip(self.directions, chosen, strict=True):
                given[i] = x
            return self.value(*given)

        out, pullback = cr.vjp(along, *(inputs[i] for i in self.directions))
        rng = np.random.default_rng(zlib.crc32(str(self).encode()) + 1)
        weights = cr.tensor(rng.uniform(-1, 1, out.shape), dtype=out.dtype)
        sent = pullback(weights)
        return (out, *(sent if isinstance(sent, tuple) else (sent,)))


def by_shape(op: Op) -> Iterator[Case]:
    """The cases of an op; what takes any shape in several."""
    cases = list(cases_of(op))
    yield from cases
    first = cases[0]
    number = itertools.count(len(cases))
    if isinstance(op, Elementwise):
        for shape in SHAPES:
            args = tuple(replace(arg, shape=shape) for arg in first.sample.args)
            yield Case(op, Sample(args, first.sample.params), next(number))
    if isinstance(op, Reduction):
        (arg,) = first.sample.args
        for shape in ((17,), (3, 33), (5, 1, 19), (4, 2, 3, 2), (2, 0, 3), (70, 130)):
            for dim in {(0,), (len(shape) - 1,), tuple(range(len(shape))), tuple(range(0, len(shape), 2))}:
                if len(dim) < 2 or op.partial or op.weight or len(dim) == len(shape):
                    params = {**first.sample.params, "dim": dim, "keepdim": len(dim) % 2 == 0}
                    yield Case(op, Sample((replace(arg, shape=shape),), params), next(number))


def versions_of(op: Op) -> Iterator[Version]:
    for case in by_shape(op):
        args, params = case.sample.args, case.sample.params
        declared = case.number < len(list(cases_of(op)))
        for dtype in dtypes.ALL:
            if not declared and dtype not in WIDE and args and args[0].shape not in FEW:
                continue
            usual = {"float": dtype, "int": dtypes.int64, "bool": dtypes.bool_}
            found = [Version(case, tuple(usual[a.kind] for a in args))]
            if any(a.kind == "int" for a in args) and dtypes.is_integer(dtype):
                other = {"float": dtypes.float32, "int": dtype, "bool": dtypes.bool_}
                found.append(Version(case, tuple(other[a.kind] for a in args)))
            kinds = [dtypes.is_float(d) for d in (dtype, params.get("dtype", dtype))]
            if "dtype" in params and (not isinstance(op, Source) or (kinds[0] == kinds[1] and dtype != dtypes.bool_)):
                changed = replace(case, sample=replace(case.sample, params={**params, "dtype": dtype}))
                found += [replace(v, case=changed) for v in found]
            yield from (v for v in found if v.is_taken())


def refuses(version: Version) -> bool:
    """Does the op refuse these entries, whatever their dtypes, when it runs eagerly?"""
    try:
        quietly(version.value_and_gradients, *map(cr.Tensor.leaf, version.arrays()))
    except (ChainruleError, ValueError, OverflowError):
        return True
    return False


@pytest.mark.parametrize("op", CATALOGUE, ids=lambda op: op.name)
def test_an_op_is_what_it_is_eagerly(op):
    versions = list({str(v): v for v in versions_of(op) if not refuses(v)}.values())
    assert versions
    check(versions)


def check(versions: list[Version]) -> None:
    given = [[cr.Tensor.leaf(a) for a in v.arrays()] for v in versions]

    def everything(*inputs: list[cr.Tensor]) -> list[Any]:
        return [v.value_and_gradients(*x) for v, x in zip(versions, inputs, strict=True)]

    wanted = [quietly(v.value_and_gradients, *x) for v, x in zip(versions, given, strict=True)]
    found = compiled(everything)(*given)
    for version, all_found, all_wanted in zip(versions, found, wanted, strict=True):
        for number, (f, w) in enumerate(zip(all_found, all_wanted, strict=True)):
            what = f"{version}, {'value' if not number else f'gradient {number}'}"
            assert_equal(f.numpy(), w, what, size=size_of(w))


def size_of(wanted: np.ndarray) -> float:
    """The size of the entries: sums are as exact as their terms are large."""
    if not dtypes.is_float(wanted.dtype):
        return 1.0
    finite = wanted.astype(np.float64)[np.isfinite(wanted.astype(np.float64))]
    return max(1.0, float(np.abs(finite).max(initial=0.0)))
