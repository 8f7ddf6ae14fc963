"""Each pass keeps what a program computes, leaves a program that `verify` accepts, and does what its name says."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import chainrule as cr
from chainrule import dtypes
from chainrule.autodiff.evaluate import evaluate_all
from chainrule.autodiff.reverse import pull
from chainrule.compile.interpret import interpret
from chainrule.compile.passes.common_subexpressions import common_subexpressions
from chainrule.compile.passes.decompose import decompose
from chainrule.compile.passes.disjoint_windows import disjoint_windows
from chainrule.compile.passes.fold_constants import LARGEST, fold_constants
from chainrule.compile.passes.known_places import known_places
from chainrule.compile.passes.masks import masks
from chainrule.compile.passes.rows_first import rows_first
from chainrule.compile.passes.simplify import simplify
from chainrule.compile.passes.slopes import slopes
from chainrule.compile.passes.sums_in_parts import sums_in_parts
from chainrule.compile.passes.thin_products import thin_products
from chainrule.compile.passes.turned_products import turned_products
from chainrule.compile.pipeline import PASSES, optimised
from chainrule.compile.program import Program
from chainrule.compile.verify import verify
from chainrule.core.aval import Aval
from chainrule.core.family import Fused, Reduction
from chainrule.core.provenance import user_place
from chainrule.errors import ChainruleError, OutOfRangeError
from chainrule.nn import functional as F
from chainrule.ops import contraction, elementwise, indexing, movement, reduction, source, windows
from chainrule.ops.catalogue import CATALOGUE

F64 = np.dtype(np.float64)
EACH = tuple(dict.fromkeys(PASSES))


def symbol(name, *shape, dtype=F64):
    return cr.Tensor.symbolic(name, Aval(shape, np.dtype(dtype)), requires_grad=dtypes.is_float(np.dtype(dtype)))


def program(function, *symbols):
    found = function(*symbols)
    return Program(inputs=symbols, outputs=found if isinstance(found, tuple) else (found,))


def values_of(a_program, seed=0):
    rng = np.random.default_rng(seed)
    return [drawn(x.aval, rng) for x in a_program.inputs]


def drawn(aval, rng):
    if aval.dtype.kind in "iu":
        return rng.integers(0, 3, aval.shape).astype(aval.dtype)
    if aval.dtype.kind == "b":
        return rng.integers(0, 2, aval.shape).astype(bool)
    return rng.standard_normal(aval.shape).astype(aval.dtype)


def same(before, after, arrays, tolerance=1e-12):
    """Both programs compute the same from these: up to rounding of the largest number in between; inf and nan alike."""
    ran = [
        evaluate_all(list(p.roots), {id(x): a for x, a in zip(p.inputs, arrays, strict=True)}) for p in (before, after)
    ]
    scale = max((np.abs(v[np.isfinite(v)]).max(initial=0.0) for v in ran[0].values() if v.dtype.kind == "f"), default=0)
    for x, y in zip(before.roots, after.roots, strict=True):
        assert x.aval == y.aval
        expected, found = ran[0][id(x)], ran[1][id(y)]
        assert expected.dtype == found.dtype
        if expected.dtype.kind in "iub":
            np.testing.assert_array_equal(found, expected)
        else:
            np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * scale)


def ops(a_program):
    return Counter(node.op.name for node in a_program.nodes if node.op is not None)


def changed(change, function, *symbols, tolerance=1e-12, seed=0):
    """What a pass makes of a function, after a check that it keeps its values."""
    before = program(function, *symbols)
    verify(before)
    after = change(before)
    verify(after, change.__name__)
    same(before, after, values_of(before, seed), tolerance)
    return after


# --- random programs

MOVES = (
    lambda x, y: x + y, lambda x, y: x - y, lambda x, y: x * y, lambda x, y: x @ y.mT, lambda x, y: x.mT @ y,
    lambda x, y: cr.maximum(x, y), lambda x, y: cr.where(x > 0.5, x, y), lambda x, y: cr.cat([x, y], 0),
    lambda x, y: -x, lambda x, y: x * 2 - 1, lambda x, y: x / 3, lambda x, y: x * 1 + 0, lambda x, y: 2 - x,
    lambda x, y: x.clamp(-3, 3).exp(), lambda x, y: x.tanh(), lambda x, y: x.relu(), lambda x, y: x.clamp_min(0.0),
    lambda x, y: x.sigmoid(), lambda x, y: x**2, lambda x, y: x**3, lambda x, y: F.gelu(x),
    lambda x, y: 1 / (x * x + 1),
    lambda x, y: x.softmax(-1), lambda x, y: x.log_softmax(0), lambda x, y: x.log_softmax(-1).exp(),
    lambda x, y: x.logsumexp(0), lambda x, y: x.mean(-1, keepdim=True), lambda x, y: x.var(0), lambda x, y: x.mean(),
    lambda x, y: x.sum(0), lambda x, y: x.sum((0, -1), keepdim=True), lambda x, y: x.amax(-1), lambda x, y: x.amin(0),
    lambda x, y: x.norm(dim=-1), lambda x, y: F.layer_norm(x, x.shape[-1:]), lambda x, y: x.max(0)[0],
    lambda x, y: x.mT, lambda x, y: x.reshape(-1), lambda x, y: x[None], lambda x, y: x.expand(2, *x.shape),
    lambda x, y: x[..., :1], lambda x, y: x[1:], lambda x, y: x[::2], lambda x, y: x[0], lambda x, y: x.unbind(0)[-1],
    lambda x, y: x.flip(0), lambda x, y: x.squeeze(), lambda x, y: F.pad(x, (1, 2)), lambda x, y: x.cumsum(0),
    lambda x, y: F.windows(x, (2,), (2,), (1,)), lambda x, y: F.windows(x, (2,), (1,), (1,)),
    lambda x, y: x[[0, 0, 1]], lambda x, y: x[[0, 1]],
    lambda x, y: x.gather(-1, cr.argmax(y, -1, keepdim=True) % x.shape[-1]),
    lambda x, y: x.gather(-1, cr.argmax(x, -1, keepdim=True)),
    lambda x, y: F.cross_entropy(x, cr.tensor([1, 0, 2])), lambda x, y: x.tril(),
    lambda x, y: F.scaled_dot_product_attention(x, y, y),
    lambda x, y: F.scaled_dot_product_attention(x, x, x, is_causal=True),
)  # fmt: skip
STEPS = st.lists(
    st.tuples(st.integers(0, len(MOVES) - 1), st.integers(0, 99), st.integers(0, 99)), min_size=1, max_size=20
)
SPECIAL = st.lists(
    st.tuples(st.integers(0, 40), st.sampled_from([np.inf, -np.inf, np.nan, 0.0, -0.0, 1.0])), max_size=2
)


def random_program(steps):
    """A program of these moves, with the gradients of its inputs; a move that does not fit is left out."""
    inputs = (symbol("x", 3, 4), symbol("y", 4), symbol("z", 2, 3, 4))
    pool = list(inputs)
    for which, a, b in steps:
        # Operands from the later ones more often than not: programs should be deep.
        x, y = (pool[-1 - k % len(pool)] for k in (a % 7, b))
        try:
            made = MOVES[which](x, y)
        except (ChainruleError, IndexError):
            continue
        if made.aval.size <= 2000:
            pool.append(made)
    loss = pool[-1]
    sent = pull([(loss, cr.Tensor.filled(loss.aval, 1.0))], inputs)
    updates = tuple((x, x - 0.1 * sent[id(x)]) for x in inputs if id(x) in sent and x is not loss)
    return Program(inputs=inputs, outputs=(*pool[3:6], loss), updates=updates)


@given(STEPS, SPECIAL, st.integers(0, 99))
def test_the_passes_keep_what_random_programs_compute(steps, special, seed):
    first = random_program(steps)
    verify(first)
    arrays = values_of(first, seed)
    for place, value in special:
        arrays[place % 3].flat[place // 3 % 4] = value
    current = first
    for change in PASSES:
        after = change(current)
        verify(after, change.__name__)
        same(current, after, arrays)
        current = after
    assert optimised(first).nodes


@given(STEPS, st.integers(0, 99))
def test_each_pass_by_itself_keeps_what_random_programs_compute(steps, seed):
    first = random_program(steps)
    for change in EACH:
        after = change(first)
        verify(after, change.__name__)
        same(first, after, values_of(first, seed))


# --- decompose


def cases():
    for op in CATALOGUE:
        if isinstance(op, Fused | Reduction):
            for number, sample in enumerate(op.samples):
                yield pytest.param(op, sample, id=f"{op.name}-{number}")


@pytest.mark.parametrize(("op", "sample"), list(cases()))
@pytest.mark.parametrize("dtype", [dtypes.float64, dtypes.float32, dtypes.float16, dtypes.bfloat16], ids=str)
def test_composites_become_folds(op, sample, dtype):
    kinds = {"float": dtype, "int": dtypes.int64, "bool": dtypes.bool_}
    given_ = [symbol(f"x{i}", *arg.shape, dtype=kinds[arg.kind]) for i, arg in enumerate(sample.args)]
    tolerance = 0 if dtype in (dtypes.float16, dtypes.bfloat16) else 4 * dtypes.epsilon(dtype)
    before = program(lambda *xs: op(*xs, **sample.params), *given_)
    after = decompose(before)
    verify(after, "decompose")
    if op.name != "norm":  # its own kernel rounds the squares of 16-bit floats one by one
        same(before, after, values_of(before), tolerance)
    assert not any(isinstance(n.op, Fused) or getattr(n.op, "expansion", None) for n in after.nodes)


@pytest.mark.parametrize("correction", [0, 1, 2, 3, 5])
def test_a_variance_of_too_few_is_none(correction):
    changed(decompose, lambda x: x.var(1, correction=correction), symbol("x", 3, 2))


@pytest.mark.parametrize("values", [[0.0, 0.0], [np.nan, 0.0], [1.0, 2.0], [0.0, -3.0]], ids=str)
@pytest.mark.parametrize("dtype", [dtypes.float32, dtypes.int64, dtypes.bool_], ids=str)
def test_numbers_are_true_where_they_are_not_0(values, dtype):
    x = symbol("x", 2, dtype=dtype)
    before = program(lambda x: (x.any(), x.all()), x)
    with np.errstate(invalid="ignore"):
        same(before, decompose(before), [np.array(values).astype(dtype)])


# --- common subexpressions


def test_one_value_is_computed_once():
    def twice(x, y):
        return x * y + (y * x) + (x * y).exp() + (y * x).exp()

    assert ops(changed(common_subexpressions, twice, symbol("x", 3), symbol("y", 3))) == {"mul": 1, "exp": 1, "add": 3}


def test_what_does_not_commute_stays_two():
    assert (
        ops(changed(common_subexpressions, lambda x, y: (x - y) * (y - x), symbol("x", 3), symbol("y", 3)))["sub"] == 2
    )


def test_constants_of_one_content_are_one():
    found = changed(
        common_subexpressions,
        lambda x: x * cr.tensor([1.0, 2.0], dtype=F64) + cr.tensor([1.0, 2.0], dtype=F64) + cr.zeros(2, dtype=F64),
        symbol("x", 2),
    )
    assert sum(n.array is not None for n in found.nodes) == 2
    zero, minus = (cr.Tensor.filled(Aval((), F64), v) for v in (0.0, -0.0))
    assert (
        sum(
            n.array is not None
            for n in changed(common_subexpressions, lambda x: (x + zero, x + minus), symbol("x")).nodes
        )
        == 2
    )


def test_large_constants_are_one_where_their_memory_is():
    data = np.arange(20_000.0)
    found = changed(
        common_subexpressions, lambda x: x * cr.Tensor.leaf(data) + cr.Tensor.leaf(data), symbol("x", 20_000)
    )
    assert sum(n.array is not None for n in found.nodes) == 1


def test_random_numbers_are_one_where_key_and_params_are():
    def noise(x, key):
        def made(offset):
            params = {"shape": (3,), "dtype": F64, "offset": offset}
            return cr.Tensor.applied(source.rand, (key,), params, source.rand.infer(key.aval, **params))

        return made(0) + made(0) + x, made(9)

    assert ops(changed(common_subexpressions, noise, symbol("x", 3), symbol("key", 2, dtype=dtypes.int64)))["rand"] == 2


@pytest.mark.parametrize(("a", "b"), [(0.0, -0.0), (1.0, 2.0), (1, 2)])
def test_params_that_differ_are_two(a, b):
    x = symbol("x", 3)
    found = changed(
        common_subexpressions,
        lambda x: (elementwise.clamp_min(x, low=a), elementwise.clamp_min(x, low=b), elementwise.clamp_min(x, low=a)),
        x,
    )
    assert ops(found) == {"clamp_min": 2}


# --- constants


def test_what_is_known_is_computed():
    x = symbol("x", 3)
    table = cr.tensor([1.0, 2.0, 3.0], dtype=F64)

    def function(x):
        angle = movement.cast(_range(3), dtype=F64) * 0.5
        return x * angle.sin() + cr.Tensor.applied(elementwise.neg, (table,), {}, table.aval)

    assert ops(changed(fold_constants, function, x)) == {"mul": 1, "add": 1}


def _range(n, dtype=dtypes.int64):
    params = {"start": 0, "stop": n, "step": 1, "dtype": dtype}
    return cr.Tensor.applied(source.arange, (), params, source.arange.infer(**params))


def test_ranges_and_copies_stay():
    x = symbol("x", 3, 4, dtype=dtypes.int64)
    found = changed(fold_constants, lambda x: x + _range(4).flip(0).expand(3, 4), x)
    assert ops(found) == {"arange": 1, "flip": 1, "expand": 1, "add": 1}
    table = cr.tensor([1, 2, 3, 4])
    copied = cr.Tensor.applied(movement.expand, (table,), {"shape": (3, 4)}, Aval((3, 4), dtypes.int64))
    assert ops(changed(fold_constants, lambda x: x + copied, x)) == {"expand": 1, "add": 1}
    assert ops(changed(fold_constants, lambda x: x + -copied, x)) == {"add": 1}


def test_what_is_large_stays():
    n = LARGEST + 1
    x = symbol("x", n)
    found = changed(fold_constants, lambda x: x + movement.cast(_range(n), dtype=F64).sin(), x)
    assert ops(found)["sin"] == 1
    fill = cr.Tensor.filled(Aval((n,), F64), 2.0)
    found = changed(fold_constants, lambda x: x + cr.Tensor.applied(elementwise.sqrt, (fill,), {}, fill.aval), x)
    assert ops(found) == {"add": 1}


def test_a_constant_index_out_of_range_is_left_to_the_run():
    x = cr.tensor([1.0, 2.0])
    bad = Program(inputs=(), outputs=(cr.Tensor.applied(indexing.index, (x, cr.tensor([5])), {}, Aval((1,), x.dtype)),))
    assert fold_constants(bad) is bad
    assert known_places(bad) is bad
    with pytest.raises(OutOfRangeError):
        interpret(bad)([])


# --- products

SIZES = [(r, k, c) for r, k, c in itertools.product((0, 1, 2, 5), repeat=3) if 1 in (r, k, c) or k == 0]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("batch", [(), (3,)], ids=str)
@pytest.mark.parametrize("transposed", [False, True])
def test_a_thin_product_is_none(sizes, batch, transposed):
    rows, inner, columns = sizes
    x = symbol("x", *batch, *((inner, rows) if transposed else (rows, inner)))
    y = symbol("y", *batch, *((columns, inner) if transposed else (inner, columns)))
    found = changed(thin_products, lambda x, y: x.mT @ y.mT if transposed else x @ y, x, y)
    assert "matmul" not in ops(found)


@pytest.mark.parametrize("dtype", [dtypes.float16, dtypes.bfloat16, dtypes.float32, dtypes.int8, dtypes.int64], ids=str)
@pytest.mark.parametrize("sizes", [(1, 40, 3), (3, 40, 1), (3, 1, 4)], ids=str)
def test_a_thin_product_adds_up_as_a_product_does(dtype, sizes):
    rows, inner, columns = sizes
    x, y = symbol("x", rows, inner, dtype=dtype), symbol("y", inner, columns, dtype=dtype)
    changed(thin_products, lambda x, y: x @ y, x, y, tolerance=0.0 if dtype.itemsize < 4 else 1e-6)


def test_other_products_stay():
    assert ops(changed(thin_products, lambda x, y: x @ y, symbol("x", 2, 2), symbol("y", 2, 2))) == {"matmul": 1}


@pytest.mark.parametrize("dtype", [dtypes.float32, dtypes.float64], ids=str)
@pytest.mark.parametrize("turned", [False, True])
def test_a_long_sum_is_one_of_two_parts(dtype, turned):
    x = symbol("x", *((1400, 40) if turned else (40, 1400)), dtype=dtype)
    y = symbol("y", 1400, 30, dtype=dtype)
    found = changed(
        sums_in_parts, lambda x, y: (x.mT if turned else x) @ y, x, y, tolerance=1e-4 if dtype.itemsize == 4 else 1e-12
    )
    assert {"matmul": 1, "sum": 1}.items() <= ops(found).items()
    (product,) = (n for n in found.nodes if n.op is contraction.matmul)
    assert product.aval.shape == (2, 40, 30)


@pytest.mark.parametrize(
    ("sizes", "dtype"),
    [
        ((40, 1401, 30), dtypes.float32),  # odd
        ((40, 1400, 720), dtypes.float32),  # more columns than half of the terms
        ((8, 1400, 8), dtypes.float32),  # soon done
        ((40, 1400, 30), dtypes.bfloat16),  # rounded once
    ],
    ids=str,
)
def test_other_sums_stay_whole(sizes, dtype):
    rows, terms, columns = sizes
    x, y = symbol("x", rows, terms, dtype=dtype), symbol("y", terms, columns, dtype=dtype)
    assert ops(changed(sums_in_parts, lambda x, y: x @ y, x, y, tolerance=0.0)) == {"matmul": 1}


def test_a_convolutions_products_stay_whole():
    x, w = symbol("x", 16, 3, 40, 40), symbol("w", 8, 3, 5, 5)
    before = program(lambda x, w: cr.grad(lambda w: F.conv2d(x, w).square().sum())(w), x, w)
    assert sums_in_parts(before) is before


@pytest.mark.parametrize(
    ("shape", "dims"),
    [
        ((1024, 96), (0,)),
        ((4, 256, 80), (0, 1)),
        ((1, 4, 256, 80), (0, 1, 2)),
        ((3, 8, 128, 40), (1, 2)),
        ((700, 100), (0, 1)),
    ],
    ids=str,
)
@pytest.mark.parametrize("keepdim", [False, True])
def test_a_sum_over_a_batch_is_one_of_two_parts(shape, dims, keepdim):
    x = symbol("x", *shape)
    found = changed(sums_in_parts, lambda x: (x * x).sum(dims, keepdim=keepdim), x)
    assert ops(found)["sum"] == 2
    assert sums_in_parts(found) is found
    (first, _) = (n for n in found.nodes if n.op is reduction.sum_)
    assert first.aval.shape[0] == 2
    assert first.aval.size == 2 * found.outputs[0].aval.size


@pytest.mark.parametrize(
    ("shape", "dims", "dtype"),
    [
        ((1024, 96), (1,), F64),  # each row's own
        ((101, 1000), (0,), F64),  # odd
        ((100, 1000), (0,), F64),  # more columns than rows
        ((64, 64), (0,), F64),  # soon done
        ((1024, 96), (0,), dtypes.bfloat16),  # rounded once
        ((1024, 96), (0,), dtypes.int32),
    ],
    ids=str,
)
def test_other_sums_are_made_at_once(shape, dims, dtype):
    x = symbol("x", *shape, dtype=dtype)
    before = program(lambda x: x.sum(dims), x)
    assert sums_in_parts(before) is before


@pytest.mark.parametrize(
    ("function", "shape", "sums"),
    [
        (lambda x: (x - x.amax(1, keepdim=True)).sum(), (8, 9), [(1,), (0, 1)]),
        (lambda x: (x / x.sum(1, keepdim=True).log()).square().sum(), (8, 9), [(1,), (0, 1)]),
        (lambda x: (x - x.sum((1, 2), keepdim=True)).sum((0, 1, 2), keepdim=True), (4, 5, 6), [(1, 2), (0, 1, 2)]),
        (lambda x: (x - x.amax(1, keepdim=True)).sum(1), (8, 9), [(1,)]),
        (lambda x: (x - x.amax(1, keepdim=True)).sum(0), (8, 9), [(0,)]),
        (lambda x: (x - x.amax((0, 1), keepdim=True)).sum(), (8, 9), [(0, 1)]),
        (lambda x: (x * 2).sum(), (8, 9), [(0, 1)]),
        (lambda x: (x @ x.mT - x.amax(1)).sum(), (9, 9), [(0, 1)]),
    ],
)
def test_what_is_made_of_reduced_rows_is_summed_by_rows(function, shape, sums):
    x = symbol("x", *shape)
    before = program(function, x)
    found = rows_first(before) if len(sums) == 1 else changed(rows_first, function, x)
    assert [n.params["dim"] for n in found.nodes if n.op is reduction.sum_ and n.inputs[0].op is not None] == sums


def test_a_product_that_is_only_read_transposed_is_turned():
    x, y = symbol("x", 5, 2, 3), symbol("y", 5, 3, 4)
    found = simplify(changed(turned_products, lambda x, y: (x.mT.mT @ y).mT, x, y))
    assert found.outputs[0].op is contraction.matmul
    both = program(lambda x, y: ((p := x @ y), p.mT), x, y)
    assert turned_products(both) is both
    root = program(lambda x, y: (p := x @ y, p.mT)[1:], x, y)
    assert turned_products(root).outputs[0].op is contraction.matmul


# --- places


@pytest.mark.parametrize("dtype", [dtypes.int64, dtypes.int32, dtypes.int8, dtypes.uint8], ids=str)
@pytest.mark.parametrize("dim", [0, 1, 2])
@pytest.mark.parametrize("size", [1, 4, 300])
def test_adding_to_one_place_a_row_is_a_comparison(dtype, dim, size):
    shape = [2, 3, 4]
    shape[dim] = 1
    g, index = symbol("g", *shape), symbol("i", *shape, dtype=dtype)
    whole = (*shape[:dim], size, *shape[dim + 1 :])
    before = program(lambda g, i: indexing.scatter_add(g, i, dim=dim, shape=whole), g, index)
    after = known_places(before)
    verify(after)
    assert not ops(after)["scatter_add"]
    rng = np.random.default_rng(0)
    limits = np.iinfo(dtype)
    places = rng.integers(max(-size, limits.min), min(size, limits.max + 1), shape).astype(dtype)
    arrays = [rng.standard_normal(shape), places]
    arrays[0].flat[0] = np.inf
    same(before, after, arrays)


def test_adding_where_places_may_meet_stays():
    g, index = symbol("g", 2, 3), symbol("i", 2, 3, dtype=dtypes.int64)
    assert ops(changed(known_places, lambda g, i: indexing.scatter_add(g, i, dim=1, shape=(2, 5)), g, index)) == {
        "scatter_add": 1
    }
    # Fewer rows than there are: the others are zeros.
    g, index = symbol("g", 2, 1), symbol("i", 2, 1, dtype=dtypes.int64)
    assert ops(changed(known_places, lambda g, i: indexing.scatter_add(g, i, dim=1, shape=(3, 5)), g, index)) == {
        "scatter_add": 1
    }


def test_a_place_that_is_known_to_be_inside_is_not_looked_up():
    g, x = symbol("g", 2, 1), symbol("x", 2, 5)

    def added(size):
        where = reduction.argmax(x, dim=(1,), keepdim=True)
        return known_places(program(lambda g, x: indexing.scatter_add(g, where, dim=1, shape=(2, size)), g, x))

    assert "index" not in ops(added(5))
    assert ops(added(4))["index"] == 1  # the largest may be at 4, which nobody has said yet


@pytest.mark.parametrize("dtype", [dtypes.int64, dtypes.uint8], ids=str)
def test_one_hot_is_a_comparison(dtype):
    labels = symbol("t", 2, 3, dtype=dtype)
    assert "one_hot" not in ops(changed(known_places, lambda t: indexing.one_hot(t, classes=3), labels))


@pytest.mark.parametrize(
    ("index", "is_slice"),
    [([1, 2], True), ([0, 2], True), ([2], True), ([-1], True), ([-3, -1], True), ([1, 0], False), ([0, 0], False),
     ([0, 1, 0], False)],
    ids=str,
)  # fmt: skip
def test_picking_in_known_steps_is_a_slice(index, is_slice):
    x = symbol("x", 3, 4)
    found = changed(known_places, lambda x: indexing.index(x, cr.tensor(index)), x)
    assert ("index" not in ops(found)) is is_slice
    places = cr.tensor(np.repeat(np.array(index)[:, None], 2, 1))
    found = changed(known_places, lambda x: indexing.gather(x, places, dim=0), x)
    assert ("gather" not in ops(found)) is is_slice


def test_picking_that_differs_by_row_stays():
    x = symbol("x", 2, 4)
    found = changed(known_places, lambda x: indexing.gather(x, cr.tensor([[0, 1], [1, 2]]), dim=1), x)
    assert ops(found) == {"gather": 1}


# --- windows

WINDOWS = [
    ((7,), (2,), (2,), (1,)), ((2, 6, 4), (3, 2), (3, 2), (1, 1)), ((2, 7, 5), (3, 2), (3, 2), (1, 1)),
    ((5, 9), (1,), (2,), (1,)), ((5, 9), (1,), (4,), (3,)),
    ((2, 7, 9), (1, 2), (3, 2), (1, 1)), ((4,), (4,), (4,), (1,)),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "size", "stride", "dilation"), WINDOWS, ids=str)
def test_windows_side_by_side_only_move(shape, size, stride, dilation):
    params = {"size": size, "stride": stride, "dilation": dilation}
    x = symbol("x", *windows.windows.infer(Aval(shape, F64), **params).shape)
    found = changed(disjoint_windows, lambda x: windows.overlap_add(x, shape=shape, **params), x)
    assert set(ops(found)) == {"permute", "reshape", "embed"}


@pytest.mark.parametrize(("size", "stride", "dilation"), [(2, 1, 1), (2, 3, 1), (2, 2, 2), (3, 2, 1)])
def test_other_windows_stay(size, stride, dilation):
    params = {"size": (size,), "stride": (stride,), "dilation": (dilation,)}
    x = symbol("x", *windows.windows.infer(Aval((9,), F64), **params).shape)
    assert ops(changed(disjoint_windows, lambda x: windows.overlap_add(x, shape=(9,), **params), x)) == {
        "overlap_add": 1
    }


# --- masks


def test_a_mask_is_asked_of_the_output():
    def function(x):
        y = x * 2
        return cr.where(y > 0, 3.0, 4.0) + y.relu(), y > 1

    before = program(function, symbol("x", 7))
    after = common_subexpressions(masks(before))
    verify(after)
    same(before, after, [np.array([-1.0, 0.0, -0.0, 1.0, np.nan, np.inf, -np.inf])])
    assert ops(after) == ops(common_subexpressions(before))
    compared = [n.inputs[0].op.name for n in after.nodes if n.op is not None and n.op.name == "gt"]
    assert sorted(compared) == ["mul", "relu"]


def test_no_output_is_made_for_a_mask():
    before = program(lambda x: x > 0, symbol("x", 7))
    assert masks(before) is before


# --- slopes


def through(activation, dtype=F64):
    """The gradient of what comes before an activation between two products."""
    x, w, v = symbol("x", 6, 4, dtype=dtype), symbol("w", 4, 5, dtype=dtype), symbol("v", 5, 3, dtype=dtype)
    return program(lambda x, w, v: cr.grad(lambda x: (activation(x @ w) @ v).square().sum())(x), x, w, v)


def multiplied(a_program):
    """How often the gradient of what the activation gives is multiplied by something: as read through moves."""
    first, *_ = (n for n in reversed(a_program.nodes) if n.op is contraction.matmul and n.aval.shape == (6, 5))
    return sum(any(x is first for x in n.inputs) for n in a_program.nodes)


@pytest.mark.parametrize(
    "activation", [F.gelu, lambda x: F.gelu(x, approximate="tanh"), F.silu, F.mish, lambda x: x * x.tanh()]
)
def test_a_gradient_is_multiplied_by_the_slope_once(activation):
    before = decompose(simplify(through(activation)))
    after = slopes(before)
    assert multiplied(before) > multiplied(after) == 1
    verify(after, "slopes")
    same(before, after, values_of(before), 1e-12)
    assert slopes(after) is after


def test_slopes_of_long_chains_take_no_time():
    """A slope may stand in the next one twice: it is made once."""
    x, w, v = symbol("x", 6, 4), symbol("w", 4, 5), symbol("v", 5, 5)

    def grown(h):
        for _ in range(400):
            h = h * (h * 0.5).cos()
        return h

    before = program(lambda x, w, v: cr.grad(lambda w: (grown(x @ w) @ v).sum())(w), x, w, v)
    after = slopes(before)
    verify(after, "slopes")
    assert len(after.nodes) < 2 * len(before.nodes)
    chain = program(lambda x, w, v: grown(x @ w) @ v, x, w, v)
    assert slopes(chain) is chain


@pytest.mark.parametrize(
    ("activation", "dtype"),
    [
        (F.relu, F64),  # nothing dear
        (F.tanh, F64),  # one factor as it is
        (lambda x: F.softmax(x, dim=1), F64),  # not entry by entry
        (lambda x: x * (x + 1) + x, F64),
        (F.silu, dtypes.bfloat16),  # rounded after each op
    ],
)
def test_other_gradients_stay(activation, dtype):
    before = decompose(simplify(through(activation, dtype)))
    assert slopes(before) is before


# --- the whole


def step(loss, inputs, params):
    sent = pull([(loss, cr.Tensor.filled(loss.aval, 1.0))], params)
    return Program(
        inputs=(*inputs, *params), outputs=(loss,), updates=tuple((p, p - 0.1 * sent[id(p)]) for p in params)
    )


def mlp():
    x, labels = symbol("x", 6, 8), symbol("t", 6, dtype=dtypes.int64)
    params = [symbol(f"p{i}", *shape) for i, shape in enumerate(((5, 8), (5,), (3, 5), (3,)))]
    w1, b1, w2, b2 = params
    logits = F.linear(F.relu(F.linear(x, w1, b1)), w2, b2)
    return step(-logits.log_softmax(1).gather(1, labels.reshape(6, 1)).mean(), [x, labels], params)


def test_a_step_of_a_network():
    before = mlp()
    seen = []
    after = optimised(before, lambda name, old, new: seen.append((name, old, new)))
    same(before, after, values_of(before))
    assert seen[0][1] is before
    assert seen[-1][2] is after
    assert all(old is not new for _, old, new in seen)
    assert all(new is old for (_, _, new), (_, old, _) in itertools.pairwise(seen))
    kept = ops(after)
    # Two products forward, three backward; softmax and its logarithm share the exponentials and their sum.
    assert [kept[name] for name in ("matmul", "exp", "log", "amax", "relu", "scatter_add")] == [5, 1, 1, 1, 1, 0]
    assert kept["sum"] == 4  # of the exponentials, the loss, and two gradients of a bias: none over the one-hot rows
    assert kept["permute"] == 4  # each weight forward, and what its gradient is a product of
    # Nothing reads what went into the relu but the relu.
    (rectified,) = [n for n in after.nodes if n.op is elementwise.relu]
    assert [n.op.name for n in after.nodes if any(x is rectified.inputs[0] for x in n.inputs)] == ["relu"]


def test_a_step_runs_as_it_did():
    before = mlp()
    after = optimised(before)
    arrays, again = values_of(before), values_of(before)
    first, second = interpret(before), interpret(after)
    for _ in range(3):
        np.testing.assert_allclose(second(again), first(arrays), rtol=1e-12)
    for x, y in zip(arrays, again, strict=True):
        np.testing.assert_allclose(y, x, rtol=1e-11, atol=1e-13)


def attention_block():
    x, y = symbol("x", 2, 4, 6), symbol("y", 2, 4, 6)
    params = []

    def param(*shape):
        params.append(symbol(f"p{len(params)}", *shape))
        return params[-1]

    normed = F.layer_norm(x, (6,), param(6), param(6))
    q, k, v = F.linear(normed, param(18, 6), param(18)).reshape(2, 4, 3, 2, 3).permute(2, 0, 3, 1, 4).unbind(0)
    mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True).permute(0, 2, 1, 3).reshape(2, 4, 6)
    h = x + F.linear(mixed, param(6, 6), param(6))
    h = h + F.linear(F.gelu(F.linear(F.layer_norm(h, (6,), param(6), param(6)), param(24, 6))), param(6, 24))
    return step(F.mse_loss(h, y), [x, y], params)


def test_a_step_of_an_attention_block():
    before = attention_block()
    after = optimised(before)
    same(before, after, values_of(before))
    kept = ops(after)
    assert kept["exp"] == 2  # of the scores, and in the slope of gelu: none is computed again for the backward pass
    assert kept["rsqrt"] == 2
    assert kept["matmul"] == 18  # six forward, two for each of them backward
    assert kept["cat"] == 1  # the gradients of q, k and v, side by side
    assert not kept["embed"]
    assert not kept["div"]  # by a number: times its inverse; by the sums of softmax: times theirs, one a row
    assert len(after.nodes) < len(before.nodes)


def test_passing_again_changes_nothing_any_more():
    for made in (mlp, attention_block):
        once = optimised(made())
        twice = optimised(once)
        assert ops(twice) == ops(once)
        assert len(twice.nodes) == len(once.nodes)


def test_what_nothing_asks_for_is_gone():
    x = symbol("x", 3)
    x.exp()
    after = optimised(program(lambda x: x * 1, x))
    assert after.outputs == (x,)
    assert after.nodes == (x,)


def test_a_constant_program():
    x = symbol("x", 3)
    after = optimised(program(lambda x: x.sum() * 0 + 1, x))
    assert ops(after) == {"sum": 1, "mul": 1, "add": 1}  # 0 · inf is not 0
    after = optimised(program(lambda x: cr.zeros(3, dtype=F64) + 1, x))
    assert not ops(after)


def test_a_user_finds_the_line_of_what_a_pass_made():
    before = mlp()
    trail = (cr.tensor([1.0], requires_grad=True) * 2).trail  # this line
    for node in before.nodes:
        if node.op is not None:
            node.trail = trail
    after = optimised(before)
    made = [n for n in after.nodes if n.op is not None]
    assert {user_place(n.trail).text for n in made} == {user_place(trail).text}


def test_the_names_of_passes_are_told_once_each():
    names = [change.__name__ for change in EACH]
    assert len(set(names)) == len(names)


def test_long_chains_take_no_stack():
    x = symbol("x", 2)
    y = x
    for _ in range(3000):
        y = -(y * 1.5 + 0.0)
    after = optimised(Program(inputs=(x,), outputs=(y,)))
    assert ops(after) == {"mul": 3000, "neg": 3000}
