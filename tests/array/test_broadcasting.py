"""Broadcasting against NumPy, its gradient against the sum over what was copied; promotion against PyTorch."""

import itertools
import operator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, mutually_broadcastable_shapes

import chainrule as cr
from chainrule import dtypes

OPERATORS = [operator.add, operator.sub, operator.mul, operator.truediv]


def drawn(shape, start):
    return np.linspace(start, start + 1.3, int(np.prod(shape))).reshape(shape)


@given(mutually_broadcastable_shapes(num_shapes=2, max_dims=4, max_side=3), st.sampled_from(OPERATORS))
def test_two_shapes(shapes, op):
    (first, second), result = shapes.input_shapes, shapes.result_shape
    a, b = drawn(first, 1.0), drawn(second, -2.5)
    x, y = cr.tensor(a, requires_grad=True), cr.tensor(b, requires_grad=True)
    out = op(x, y)
    assert out.shape == result
    np.testing.assert_array_equal(out.detach().numpy(), op(a, b))
    weights = drawn(result, 0.2)
    (out * cr.tensor(weights)).sum().backward()
    ta, tb = torch.tensor(a, requires_grad=True), torch.tensor(b, requires_grad=True)
    (op(ta, tb) * torch.tensor(weights)).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), ta.grad.numpy(), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(y.grad.numpy(), tb.grad.numpy(), rtol=1e-12, atol=1e-12)


@given(mutually_broadcastable_shapes(num_shapes=3, max_dims=3, max_side=3))
def test_three_shapes(shapes):
    condition, first, second = shapes.input_shapes
    holds = drawn(condition, -0.5) > 0
    a, b = drawn(first, 1.0), drawn(second, -2.5)
    ours = cr.where(cr.tensor(holds), cr.tensor(a), cr.tensor(b))
    np.testing.assert_array_equal(ours.numpy(), np.where(holds, a, b))


@given(mutually_broadcastable_shapes(signature="(n,k),(k,m)->(n,m)", max_dims=2, max_side=3))
def test_batches_of_products(shapes):
    (first, second), result = shapes.input_shapes, shapes.result_shape
    a, b = drawn(first, 1.0), drawn(second, -2.5)
    x, y = cr.tensor(a, requires_grad=True), cr.tensor(b, requires_grad=True)
    out = x @ y
    assert out.shape == result
    np.testing.assert_allclose(out.detach().numpy(), a @ b, rtol=1e-13)
    (out * out).sum().backward()
    ta, tb = torch.tensor(a, requires_grad=True), torch.tensor(b, requires_grad=True)
    (ta @ tb).square().sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), ta.grad.numpy(), rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(y.grad.numpy(), tb.grad.numpy(), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    "shapes",
    [
        ((3,), (3,)),
        ((2, 3), (3,)),
        ((3,), (3, 2)),
        ((4, 2, 3), (3,)),
        ((3,), (4, 3, 2)),
        ((0,), (0,)),
        ((2, 0), (0, 3)),
        ((0, 2, 3), (3, 4)),
    ],
)
def test_products_with_vectors_and_with_nothing(shapes):
    a, b = (drawn(s, 0.5) for s in shapes)
    x, y = cr.tensor(a, requires_grad=True), cr.tensor(b, requires_grad=True)
    out = x @ y
    np.testing.assert_allclose(out.detach().numpy(), a @ b, rtol=1e-14)
    out.sum().backward()
    ta, tb = torch.tensor(a, requires_grad=True), torch.tensor(b, requires_grad=True)
    (ta @ tb).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), ta.grad.numpy(), rtol=1e-13)
    np.testing.assert_allclose(y.grad.numpy(), tb.grad.numpy(), rtol=1e-13)


@given(array_shapes(min_dims=0, max_dims=3, max_side=3), st.data())
def test_reductions_over_any_dimensions(shape, data):
    dims = data.draw(st.sets(st.sampled_from(range(len(shape)))) if shape else st.just(set()))
    keepdim = data.draw(st.booleans())
    a = drawn(shape, -0.7)
    x = cr.tensor(a, requires_grad=True)
    dim = tuple(dims) or None
    out = x.sum(dim, keepdim=keepdim)
    np.testing.assert_allclose(out.detach().numpy(), a.sum(axis=dim, keepdims=keepdim), rtol=1e-12, atol=1e-12)
    (out * out).sum().backward()
    expected = np.broadcast_to(2 * a.sum(axis=dim, keepdims=True), shape)
    np.testing.assert_allclose(x.grad.numpy(), expected, rtol=1e-12, atol=1e-12)


# --- promotion


def theirs(dtype):
    return getattr(torch, str(dtype))


WIDE = {dtypes.uint16, dtypes.uint32, dtypes.uint64}  # PyTorch promotes these with no other integer; NumPy does
PAIRS = list(itertools.product(dtypes.ALL, repeat=2))
ASK_NUMPY = [pair for pair in PAIRS if set(pair) & WIDE and len(set(pair)) > 1 and all(d.kind in "iub" for d in pair)]
ASK_PYTORCH = [pair for pair in PAIRS if pair not in ASK_NUMPY]


@pytest.mark.parametrize(("first", "second"), ASK_NUMPY, ids=str)
def test_promotion_of_wide_unsigned_integers_is_numpys(first, second):
    expected = np.promote_types(first, second)
    if expected.kind == "f":  # no integer holds both
        with pytest.raises(cr.errors.DTypeError, match="no common"):
            cr.ones(2, dtype=first) * cr.ones(2, dtype=second)
    else:
        assert (cr.ones(2, dtype=first) * cr.ones(2, dtype=second)).dtype == expected


@pytest.mark.parametrize(("first", "second"), ASK_PYTORCH, ids=str)
def test_promotion_is_pytorchs(first, second):
    expected = torch.promote_types(theirs(first), theirs(second))
    assert str(dtypes.promote(first, second)) == str(expected).removeprefix("torch.")
    x, y = cr.ones(2, dtype=first), cr.ones(2, dtype=second)
    assert (x * y).dtype == dtypes.promote(first, second)


@pytest.mark.parametrize("dtype", dtypes.ALL, ids=str)
@pytest.mark.parametrize("number", [True, 2, 0.5, np.float64(0.5), np.int8(2)], ids=repr)
def test_a_number_takes_the_tensors_dtype_unless_of_a_higher_kind(dtype, number):
    out = cr.ones(2, dtype=dtype) * number
    expected = dtypes.promote_scalar(dtype, number.item() if isinstance(number, np.generic) else number)
    assert out.dtype == expected
    assert (number * cr.ones(2, dtype=dtype)).dtype == expected
    if dtype not in (dtypes.uint16, dtypes.uint32, dtypes.uint64) and not isinstance(number, np.generic):
        assert str(out.dtype) == str((torch.ones(2, dtype=theirs(dtype)) * number).dtype).removeprefix("torch.")


@pytest.mark.parametrize("dtype", [cr.bool_, cr.int32, cr.int64, cr.uint8], ids=str)
def test_functions_of_floats_make_floats_of_integers(dtype):
    x = cr.ones(2, dtype=dtype)
    for function in (cr.exp, cr.sqrt, cr.sigmoid, cr.tanh, cr.sin):
        assert function(x).dtype == cr.float32
    assert (x / x).dtype == cr.float32
    assert x.sum().dtype == cr.int64


def test_a_number_is_one_constant_and_no_copies():
    x = cr.ones(100, 100, requires_grad=True)
    out = x * 3.0
    assert out.inputs[1].constant.value == 3.0
    assert out.inputs[1].shape == ()
