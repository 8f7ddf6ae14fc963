"""Each identity that saves work holds for every value: inf, nan, zeros of both signs, integers that wrap around."""

import itertools

import numpy as np
import pytest

import chainrule as cr
from chainrule import dtypes
from chainrule.autodiff.evaluate import evaluate
from chainrule.core.aval import Aval
from chainrule.core.node import Ratio, apply
from chainrule.core.rewrite import rewrite
from chainrule.ops import elementwise, identities, indexing, movement, reduction, shortcuts, source
from chainrule.ops.algebra import known_leaf

FLOATS = np.array([[0.3, -1.2, np.inf, 2.0], [-0.0, 0.0, -np.inf, np.nan], [1e200, -3.0, 7.0, 1e-200]])
INTS = np.array([[3, -1, 2**40, 7], [0, -(2**63), 2**63 - 1, 5], [1, 1, 4, -9]])
WHOLE = ((0, 3, 1), (0, 4, 1))


def number(like, value, shape=None):
    aval = like.aval if shape is None else Aval(shape, like.aval.dtype)
    return cr.Tensor.number(aval, Ratio(value))


def sliced(x, *window):
    return movement.slice_(x, window=window)


def embedded(x, shape, *window):
    return movement.embed(x, shape=shape, window=window)


def full(**params):
    return cr.Tensor.applied(source.full, (), params, source.full.infer(**params))


BY_ITSELF = [
    (shortcuts.fill, lambda x: x + full(shape=(3, 4), dtype=x.dtype, value=2)),
    (shortcuts.negations, lambda x: elementwise.neg(-x)),
    (shortcuts.negations, lambda x: x + (-x.abs())),
    (shortcuts.negations, lambda x: (-x.abs()) + x),
    (shortcuts.negations, lambda x: x - (-x.abs())),
    (shortcuts.negations, lambda x: (-x) * (-x.abs())),
    (shortcuts.negations, lambda x: (-x).square()),
    (shortcuts.negations, lambda x: (-x).abs()),
    (shortcuts.whole_power, lambda x: x * x),
    (shortcuts.whole_power, lambda x: elementwise.pow_scalar(x, exponent=1)),
    (shortcuts.whole_power, lambda x: elementwise.pow_scalar(x, exponent=2)),
    (shortcuts.whole_power, lambda x: elementwise.pow_scalar(x, exponent=3)),
    (shortcuts.whole_power, lambda x: elementwise.pow_scalar(x, exponent=4.0)),
    (shortcuts.scalar_choice, lambda x: elementwise.where(x > 1, number(x, 3), x)),
    (shortcuts.gates, lambda x: x.where(x > 1, 0)),
    (shortcuts.gates, lambda x: elementwise.gate(c := x > 1, elementwise.gate(c, x))),
    (shortcuts.not_not, lambda x: x.where(~~(x > 1), 2)),
    (shortcuts.casts, lambda x: (x > 1).to(cr.float32).to(x.dtype)),
    (shortcuts.permute_is_reshape, lambda x: x.reshape(3, 1, 4).permute(1, 0, 2)),
    (shortcuts.expand_of_reshape, lambda x: x.reshape(1, 1, 3, 4).expand(2, 5, 3, 4)),
    (shortcuts.expand_of_reshape, lambda x: x[:1].reshape(4).expand(2, 4)),
    (shortcuts.expand_last, lambda x: x[:1].expand(5, 4) * x[:1].abs().expand(5, 4)),
    (shortcuts.expand_last, lambda x: -(x[:, :1].expand(3, 7))),
    (shortcuts.slices, lambda x: sliced(x, *WHOLE)),
    (shortcuts.slices, lambda x: sliced(sliced(x, (1, 3, 1), (1, 4, 2)), (0, 2, 1), (1, 2, 1))),
    (shortcuts.slices, lambda x: sliced(sliced(x, (0, 3, 2), (0, 4, 1)), (1, 2, 1), (0, 4, 3))),
    (shortcuts.slices, lambda x: sliced(embedded(x, (9, 9), (1, 7, 2), (3, 7, 1)), (1, 6, 2), (3, 7, 1))),
    (shortcuts.slices, lambda x: sliced(movement.cat(x, x.abs(), dim=0), (4, 6, 1), (0, 4, 2))),
    (shortcuts.embeds, lambda x: embedded(x, (3, 4), *WHOLE)),
    (shortcuts.embeds, lambda x: embedded(embedded(x, (5, 8), (1, 4, 1), (0, 8, 2)), (9, 20), (0, 9, 2), (3, 19, 2))),
    (
        shortcuts.neighbours_join,
        lambda x: embedded(x, (9, 4), (4, 7, 1), (0, 4, 1)) + embedded(x.abs(), (9, 4), (1, 4, 1), (0, 4, 1)),
    ),
    (shortcuts.cats, lambda x: movement.cat(x, dim=0)),
    (shortcuts.cats, lambda x: movement.cat(movement.cat(x, x.abs(), dim=1), sliced(x, WHOLE[0], (2, 2, 1)), dim=1)),
    (shortcuts.reduction_of_one, lambda x: reduction.sum_(x[:, :1], dim=(1,), keepdim=False)),
    (shortcuts.reduction_of_one, lambda x: reduction.sum_(x, dim=(), keepdim=False)),
    (shortcuts.reduction_of_one, lambda x: reduction.amax(x[:, :1], dim=(1,), keepdim=True)),
    (shortcuts.reduction_of_one, lambda x: reduction.argmin(x[:, :1], dim=(1,), keepdim=True)),
    (shortcuts.reduction_of_copies, lambda x: reduction.sum_(x.expand(5, 3, 4), dim=(0,), keepdim=False)),
    (shortcuts.reduction_of_copies, lambda x: reduction.sum_(x[:, :1].expand(5, 3, 4), dim=(0, 1), keepdim=True)),
    (shortcuts.reduction_of_copies, lambda x: reduction.amin(x[:1].expand(3, 4), dim=(0, 1), keepdim=False)),
    (shortcuts.sum_of_scattered, lambda x: _scattered(x).sum(1)),
    (shortcuts.extreme_at_its_place, lambda x: x.gather(1, reduction.argmax(x, dim=(1,), keepdim=True))),
    (shortcuts.extreme_at_its_place, lambda x: x.gather(0, reduction.argmin(x, dim=(0,), keepdim=True))),
]  # fmt: skip
FLOATING = [
    (shortcuts.negations, lambda x: (-x) / (-x.abs())),
    (shortcuts.whole_power, lambda x: elementwise.pow_scalar(x, exponent=-1)),
    (shortcuts.quotient_by_number, lambda x: x / 3),
    (shortcuts.quotient_by_number, lambda x: x / number(x, -200.0)),
    (shortcuts.quotient_by_number, lambda x: 1.0 / x),
]


def _scattered(x):
    index = cr.tensor([[1], [5], [-1]])
    return cr.zeros(3, 6, dtype=x.dtype).scatter_add(1, index, x[:, :1])


CASES = [(case, FLOATS) for case in (*BY_ITSELF, *FLOATING)] + [(case, INTS) for case in BY_ITSELF]


@pytest.mark.parametrize(
    ("case", "values"), CASES, ids=[f"{c[0].__name__}-{number}" for number, (c, _) in enumerate(CASES)]
)
def test_values_are_kept(case, values):
    identity, expression = case
    x = cr.Tensor.symbolic("x", Aval(values.shape, values.dtype))
    before = expression(x)
    fired = []

    def watched(node):
        found = identity(node)
        fired.append(found is not None)
        return found

    after = rewrite(before, (watched, *identities.ALWAYS, *identities.FOR_RUNNING))
    assert any(fired)
    assert after.aval == before.aval
    known = {id(x): values}
    np.testing.assert_allclose(evaluate(after, known), evaluate(before, known), rtol=1e-14, atol=0)


def test_every_shortcut_is_tested():
    assert {case[0] for case, _ in CASES} == set(identities.FOR_RUNNING)


# --- where they must not fire


def left_alone(expression, *identities_tried):
    return all(
        rewrite(expression, (identity,)) is expression for identity in identities_tried or identities.FOR_RUNNING
    )


def test_a_quotient_stays_where_the_inverse_is_no_ordinary_number():
    x = cr.Tensor.symbolic("x", Aval((3,), dtypes.float64))
    for value in (0.0, np.inf, np.nan, 5e-324, 1e308):
        assert left_alone(x / number(x, value, ()), shortcuts.quotient_by_number)
    narrow = cr.Tensor.symbolic("x", Aval((3,), dtypes.float16))
    assert left_alone(narrow / number(narrow, 3.0, ()), shortcuts.quotient_by_number)


def test_a_slice_across_the_parts_of_a_cat_stays():
    x = cr.Tensor.symbolic("x", Aval((3, 4), dtypes.float64))
    across = sliced(movement.cat(x, x.abs(), dim=0), (2, 5, 1), (0, 4, 1))
    assert left_alone(across, shortcuts.slices)


def test_a_sum_of_what_may_meet_stays():
    x = cr.Tensor.symbolic("x", Aval((3, 2), dtypes.float64))
    places = cr.tensor([[1, 1], [5, 0], [-1, 2]])
    met = reduction.sum_(indexing.scatter_add(x, places, dim=1, shape=(3, 6)), dim=(1,), keepdim=False)
    assert left_alone(met, shortcuts.sum_of_scattered)


def test_the_entry_at_the_place_of_anothers_extreme_stays():
    x = cr.Tensor.symbolic("x", Aval((3, 2), dtypes.float64))
    other = x.gather(1, reduction.argmax(x.sin(), dim=(1,), keepdim=True))
    assert left_alone(other, shortcuts.extreme_at_its_place)


def test_gates_of_two_conditions_stay_two():
    x = cr.Tensor.symbolic("x", Aval((3,), dtypes.float64))
    both = elementwise.gate(x > 1, elementwise.gate(x < 2, x))
    assert left_alone(both, shortcuts.gates)


def test_what_is_embedded_apart_or_at_steps_is_not_joined():
    x = cr.Tensor.symbolic("x", Aval((3, 4), dtypes.float64))
    for first, second in ((0, 4), (0, 2), (3, 3)):
        windows = [((start, start + 3, 1), (0, 4, 1)) for start in (first, second)]
        apart = embedded(x, (9, 4), *windows[0]) + embedded(x.abs(), (9, 4), *windows[1])
        assert left_alone(apart, shortcuts.neighbours_join)
    steps = embedded(x, (12, 4), (0, 5, 2), (0, 4, 1)) + embedded(x, (12, 4), (5, 10, 2), (0, 4, 1))
    assert left_alone(steps, shortcuts.neighbours_join)


@pytest.mark.parametrize(("dtype", "between"), list(itertools.product(dtypes.ALL, dtypes.ALL)), ids=str)
def test_a_cast_is_skipped_only_where_it_loses_nothing(dtype, between):
    x = cr.Tensor.symbolic("x", Aval((4,), dtype))
    there = movement.cast(movement.cast(x, dtype=between), dtype=dtypes.float64)
    after = shortcuts.casts(there)
    if after is None:
        return
    if dtypes.is_float(dtype):
        info = dtypes.finfo(dtype)
        values = np.array([1 / 3, float(info.max), float(info.smallest_subnormal), -1.0]).astype(dtype)
    elif dtype == dtypes.bool_:
        values = np.array([True, False, True, False])
    else:
        limits = np.iinfo(dtype)
        values = np.array([limits.min, limits.max, limits.max - 1, 3], dtype)
    known = {id(x): values}
    np.testing.assert_array_equal(evaluate(after, known), evaluate(there, known))


def test_integers_that_a_float_does_not_hold_are_no_constants():
    big = cr.tensor(np.full((2,), 2**60 + 1))
    assert known_leaf(big) is None
    one = cr.tensor([1], dtype=cr.uint8)
    for wraps in (number(one, 200) + number(one, 100), number(one, 100) - number(one, 200)):
        assert rewrite(wraps, identities.ALWAYS).constant is None
    minus = cr.Tensor.leaf(np.array([0.0, -0.0]))
    assert known_leaf(minus) is None


def test_the_sum_of_nothing_is_zero_whatever_it_is_the_sum_of():
    nothing = cr.Tensor.number(Aval((3, 0), dtypes.float64), Ratio(np.inf))
    for total in (nothing.sum(1), nothing.mean(1)):
        after = rewrite(total, (*identities.ALWAYS, *identities.FOR_RUNNING))
        np.testing.assert_array_equal(evaluate(after, {}), evaluate(total, {}))


def test_a_fill_is_held_as_its_dtype_holds_it():
    for dtype, value in ((dtypes.int64, 2.7), (dtypes.bool_, 3), (dtypes.float32, 0.1), (dtypes.int64, 2**62 + 1)):
        made = full(shape=(2,), dtype=dtype, value=value)
        expected = apply(source.full, (), made.params, cr.Tensor).numpy()
        np.testing.assert_array_equal(evaluate(rewrite(made, (shortcuts.fill,)), {}), expected)
