"""Every op of the catalogue, compiled, is what it is eagerly: for each dtype that it takes, value and gradient.

Names no op. All versions of an op, by dtype and shape, are results of one function, so that it is compiled once.
"""

import itertools
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from cases import Case, cases_of
from equality import arrays, assert_equal, compiled, differences, quietly

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


def check(versions: list[Version], layout: Callable[[np.ndarray], np.ndarray] = lambda array: array) -> None:
    given = [[cr.Tensor.leaf(layout(a)) for a in v.arrays()] for v in versions]

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


# --- inputs that do not lie row by row


def transposed(array: np.ndarray) -> np.ndarray:
    return array.T.copy().T


def backwards(array: np.ndarray) -> np.ndarray:
    everything = (slice(None, None, -1),) * array.ndim
    return np.asarray(array[everything]).copy()[everything] if array.ndim else array


def apart(array: np.ndarray) -> np.ndarray:
    wide = np.zeros(tuple(2 * n + 1 for n in array.shape), array.dtype)
    every_second = (slice(1, None, 2),) * array.ndim
    wide[every_second] = array
    return wide[every_second] if array.ndim else array


def behind_an_odd_byte(array: np.ndarray) -> np.ndarray:
    memory = np.zeros(array.nbytes + 1, np.uint8)[1:]
    odd = memory.view(array.dtype).reshape(array.shape)
    odd[...] = array
    return odd


@pytest.mark.parametrize("layout", [transposed, backwards, apart, behind_an_odd_byte], ids=lambda f: f.__name__)
def test_inputs_may_lie_in_memory_in_any_way(layout):
    versions = [Version(case, kinds_of(case)) for op in CATALOGUE for case in cases_of(op) if case.sample.args]
    check([v for v in versions if not refuses(v)], layout)


def kinds_of(case: Case) -> tuple[np.dtype, ...]:
    usual = {"float": dtypes.float64, "int": dtypes.int64, "bool": dtypes.bool_}
    return tuple(usual[a.kind] for a in case.sample.args)


def test_inputs_may_be_views_of_each_other():
    def rows_and_all(x, row, turned, all_alike):
        return (x + row).sum(0), x.mT @ turned.mT, all_alike * x, cr.grad(lambda x: (x * turned.mT).exp().sum())(x)

    x = cr.randn(5, 7, dtype=cr.float64)
    given = x, x[2], x.mT, x[1:2].expand(5, 7)
    for found, wanted in zip(arrays(compiled(rows_and_all)(*given)), quietly(rows_and_all, *given), strict=True):
        assert_equal(found, wanted)


# --- nan, infinities, zeros of both signs, the largest and the smallest numbers


def special(dtype: np.dtype) -> np.ndarray:
    info = dtypes.finfo(dtype)
    some = [0.0, float(info.smallest_subnormal), float(info.smallest_normal)]
    some += [0.5, 1.0, 1.5, 2.0, 3.0, 10.0, 88.0, 1000.0, np.inf]  # sines are right up to 2²⁰
    return np.array([*some, *(-x for x in some), np.nan]).astype(dtype)


@pytest.mark.parametrize("dtype", dtypes.FLOATS, ids=str)
def test_special_values_of_elementwise_ops(dtype):
    """To a few ulps: nothing is added up here. A value below the smallest normal number may come out as 0."""
    versions, given = [], []
    for op in CATALOGUE:
        if not isinstance(op, Elementwise):
            continue
        case = next(cases_of(op))
        version = Version(
            case, tuple({"float": dtype, "int": dtypes.int64}.get(a.kind, dtypes.bool_) for a in case.sample.args)
        )
        if not version.is_taken():
            continue
        grids = [special(dtype) if d == dtype else np.array([False, True]) for d in version.dtypes]
        versions.append(version)
        given.append([cr.Tensor.leaf(x.reshape(-1).copy()) for x in np.meshgrid(*grids, indexing="ij")])

    def everything(*inputs):
        return [v.value(*x) for v, x in zip(versions, inputs, strict=True)]

    found = arrays(compiled(everything)(*given))
    with np.errstate(all="ignore"):
        wanted = quietly(everything, *given)
    wrong = []
    for version, inputs, f, w in zip(versions, given, found, wanted, strict=True):
        bad = differences(f, w, size=0.0)
        if dtypes.is_float(w.dtype) and not version.case.op.kinks:  # where a choice is made, it may be either zero
            bad |= (f == 0) & (w == 0) & (np.signbit(f) != np.signbit(w))
        for (at,) in np.argwhere(bad):
            wrong.append(
                f"{version.case.op.name}({', '.join(str(x.numpy()[at]) for x in inputs)}): {f[at]}, eager {w[at]}"
            )
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("dtype", dtypes.FLOATS, ids=str)
def test_special_values_in_reductions(dtype):
    rng = np.random.default_rng(3)
    rows = []
    for special_ones in ([np.nan], [np.inf], [-np.inf], [np.inf, -np.inf], [np.nan, np.inf], [0.0, -0.0], [np.nan] * 3):
        for length in (1, 17, 70):
            row = rng.uniform(-1, 1, (3, length))
            row[:, rng.integers(0, length, len(special_ones))] = special_ones
            rows.append(cr.Tensor.leaf(row.astype(dtype)))
    ops = [op for op in CATALOGUE if isinstance(op, Reduction)]

    def everything(*rows):
        found = []
        for op in ops:
            params = {**next(cases_of(op)).sample.params, "keepdim": False}
            found += [op(x, **{**params, "dim": dim}) for x in rows for dim in ((0,), (1,), (0, 1))]
        return found

    found, wanted = arrays(compiled(everything)(*rows)), quietly(everything, *rows)
    for n, (f, w) in enumerate(zip(found, wanted, strict=True)):
        x = rows[n // 3 % len(rows)]
        assert_equal(f, w, f"{ops[n // (3 * len(rows))].name} along {n % 3} of {x}")
