"""The derivative an op states is the derivative of what it computes, in every direction, order and mode."""

import numpy as np
import pytest

import chainrule as cr

STEP = 2e-4


def inner(xs, ys):
    return sum(float(np.sum(np.asarray(x.array) * np.asarray(y.array))) for x, y in zip(xs, ys, strict=True))


def moved(points, directions, t):
    return [cr.Tensor.leaf(np.asarray(x.array + t * d.array)) for x, d in zip(points, directions, strict=True)]


def quotient(function, points, directions):
    """The derivative of a scalar function along a direction: five points, error O(h⁴)."""
    f = [function(*moved(points, directions, k * STEP)) for k in (-2, -1, 1, 2)]
    return (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * STEP)


def test_reverse_mode_against_difference_quotients(differentiable):
    case = differentiable
    points = case.points()
    out = case.along(*points)
    if out.dtype != points[0].dtype:
        return  # rounded to fewer digits: a difference quotient says nothing; the adjoint test below does
    (w,) = case.random_like("w", out)
    directions = case.random_like("d", *points)
    _, pullback = cr.vjp(case.along, *points)
    expected = quotient(lambda *xs: inner([w], [case.along(*xs)]), points, directions)
    assert inner(pullback(w), directions) == pytest.approx(expected, rel=1e-8, abs=1e-8)


def test_second_order_against_difference_quotients_of_the_first(differentiable):
    case = differentiable
    points = case.points()
    (w,) = case.random_like("w", case.along(*points))
    v, u = case.random_like("v", *points), case.random_like("u", *points)
    everything = tuple(range(len(points)))
    first = cr.grad(lambda *xs: (case.along(*xs) * w).sum(), everything)

    def along_v(*xs):
        return sum(((g * d).sum() for g, d in zip(first(*xs), v, strict=True)), cr.tensor(0.0, dtype=cr.float64))

    second = cr.grad(along_v, everything)(*points)
    expected = quotient(lambda *xs: inner(first(*xs), v), points, u)
    assert inner(second, u) == pytest.approx(expected, rel=1e-7, abs=1e-8)


def test_forward_and_reverse_mode_agree(differentiable):
    case = differentiable
    points = case.points()
    directions = case.random_like("d", *points)
    out, tangent = cr.jvp(case.along, points, directions)
    (w,) = case.random_like("w", out)
    w = w.to(out.dtype)
    _, pullback = cr.vjp(case.along, *points)
    assert tangent.aval == out.aval
    tolerance = 1e-12 if out.dtype == cr.float64 else 1e-6
    assert inner([w], [tangent]) == pytest.approx(inner(pullback(w), directions), rel=tolerance, abs=tolerance)


def test_a_rule_of_its_own_is_the_derivative_of_the_expansion(composite):
    case = composite
    points = case.points()

    def expanded(*xs):
        inputs = case.tensors()
        for position, x in zip(case.directions, xs, strict=True):
            inputs[position] = x
        return case.op.expansion(*inputs, **case.sample.params)

    out, pullback = cr.vjp(case.along, *points)
    long_out, long_pullback = cr.vjp(expanded, *points)
    np.testing.assert_allclose(out.array, long_out.array, rtol=1e-12, atol=1e-12)
    (w,) = case.random_like("w", out)
    for short, long in zip(pullback(w), long_pullback(w), strict=True):
        np.testing.assert_allclose(short.array, long.array, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("special", [np.inf, -np.inf, np.nan, 1e300, 0.0], ids=str)
@pytest.mark.parametrize("everywhere", [False, True], ids=["once", "everywhere"])
def test_an_expansion_is_the_kernel_at_special_values_too(composite, special, everywhere):
    case = composite
    for position in case.directions:
        arrays = case.arrays()
        if everywhere:
            arrays[position][...] = special
        else:
            arrays[position].flat[:1] = special
        expected = case.op(*map(cr.Tensor.leaf, arrays), **case.sample.params)
        expanded = case.op.expansion(*map(cr.Tensor.leaf, arrays), **case.sample.params)
        assert expanded.aval == expected.aval
        np.testing.assert_allclose(expanded.array, expected.array, rtol=1e-12, atol=1e-300)


def test_only_needed_cotangents_are_made(differentiable):
    case = differentiable
    inputs = case.tensors()
    for wanted in case.directions:
        inputs[wanted].requires_grad = True
        out = case(*inputs)
        g = cr.Tensor.leaf(np.ones(out.shape, out.dtype))
        needed = tuple(x.requires_grad for x in inputs)
        sent = case.op.vjp(g, out, needed)
        assert [c is not None for c in sent] == list(needed)
        assert sent[wanted].aval == inputs[wanted].aval
        inputs[wanted].requires_grad = False


def test_the_rule_works_on_symbols(differentiable):
    case = differentiable
    symbols = case.symbols()
    out = case(*symbols)
    needed = tuple(x.requires_grad for x in symbols)
    for x, cotangent in zip(symbols, case.op.vjp(cr.Tensor.symbolic("g", out.aval), out, needed), strict=True):
        assert cotangent is None or cotangent.aval == x.aval


@pytest.mark.parametrize("dtype", [cr.float16, cr.bfloat16, cr.float32], ids=str)
def test_gradients_have_the_dtype_of_their_input(differentiable, dtype):
    case = differentiable
    inputs = case.tensors(dtype, requires_grad=True)
    out = case(*inputs)
    out.backward(np.ones(out.shape, out.dtype))
    for position in case.directions:
        assert inputs[position].grad.aval == inputs[position].aval
