"""x[...] against NumPy: any mix of ints, slices, None, `...`, integer arrays and masks, values and gradients."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays, basic_indices, integer_array_indices

import chainrule as cr

SHAPES = array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


def agrees(shape, key):
    """Values as NumPy's; the gradient is how often each entry was picked, weighted."""
    data = np.arange(1.0, np.prod(shape, dtype=int) + 1).reshape(shape)
    x = cr.tensor(data, requires_grad=True)
    ours = x[key]
    expected = data[key]
    np.testing.assert_array_equal(ours.detach().numpy(), expected)
    weights = np.linspace(1, 2, expected.size).reshape(expected.shape)
    (ours * cr.tensor(weights)).sum().backward()
    gradient = np.zeros(shape)
    np.add.at(gradient, key, weights)
    np.testing.assert_allclose(x.grad.numpy() if x.grad is not None else np.zeros(shape), gradient, rtol=1e-13)


@given(st.data())
def test_basic_indices(data):
    shape = data.draw(SHAPES)
    agrees(shape, data.draw(basic_indices(shape, allow_newaxis=True, max_dims=6)))


@given(st.data())
def test_integer_arrays(data):
    shape = data.draw(array_shapes(max_dims=4, max_side=4))
    agrees(shape, data.draw(integer_array_indices(shape)))


@given(st.data())
def test_masks(data):
    shape = data.draw(array_shapes(max_dims=3, max_side=4))
    rank = data.draw(st.integers(1, len(shape)))
    agrees(shape, data.draw(arrays(bool, shape[:rank])))


ROWS, COLUMNS = np.array([0, 2, 2, -1]), np.array([1, 0, -2, 1])
MIXED = [
    (slice(None), ROWS),
    (ROWS, slice(1, None)),
    (ROWS, COLUMNS),
    (slice(None), ROWS, COLUMNS),
    (ROWS, slice(None), COLUMNS),
    (None, ROWS),
    (ROWS, None, COLUMNS),
    (1, ROWS),
    (ROWS, 1),
    (slice(None), 1, COLUMNS),
    (slice(None, None, -1), ROWS),
    (..., COLUMNS),
    (ROWS, ...),
    (ROWS[:, None], COLUMNS[None, :]),
    (ROWS[:, None], slice(None), COLUMNS[:3]),
    ([0, 1], [1, 1]),
    (slice(None), [0, 1, 1]),
    (np.int64(1), ROWS),
    (np.array([True, False, True, True]), 1),
    (slice(None), np.array([True, False, True, True])),
    (np.array([True, False, True, False]), slice(None), np.array([0, 1])),
]


@pytest.mark.parametrize("key", MIXED, ids=str)
def test_mixes(key):
    agrees((4, 4, 3), key)


def test_an_int_among_arrays_selects_first_as_in_pytorch_and_unlike_numpy():
    data = np.arange(48.0).reshape(4, 4, 3)
    expected = torch.tensor(data)[0, :, torch.tensor(COLUMNS)]
    np.testing.assert_array_equal(cr.tensor(data)[0, :, COLUMNS].numpy(), expected.numpy())


def test_tensors_as_indices():
    x = cr.arange(12).reshape(3, 4)
    rows = cr.tensor([2, 0])
    np.testing.assert_array_equal(x[rows].numpy(), x.numpy()[[2, 0]])
    np.testing.assert_array_equal(x[x > 5].numpy(), [6, 7, 8, 9, 10, 11])
    np.testing.assert_array_equal(x[:, rows].numpy(), x.numpy()[:, [2, 0]])
    assert x[cr.tensor(1), cr.tensor(2)].item() == 6
    assert x[cr.tensor(1)].shape == (4,)


def test_range_and_list_of_bools():
    x = cr.arange(6).reshape(3, 2)
    np.testing.assert_array_equal(x[range(2)].numpy(), x.numpy()[[0, 1]])
    np.testing.assert_array_equal(x[[True, False, True]].numpy(), x.numpy()[[0, 2]])


def test_gather_and_scatter_add_against_torch():
    x, index = cr.randn(4, 3, dtype=cr.float64, requires_grad=True), np.array([[0, 1, 2], [3, 3, 0]])
    theirs = torch.tensor(x.detach().numpy(), requires_grad=True)
    ours = x.gather(0, cr.tensor(index))
    expected = theirs.gather(0, torch.tensor(index))
    np.testing.assert_array_equal(ours.detach().numpy(), expected.detach().numpy())
    (ours * ours).sum().backward()
    (expected * expected).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), theirs.grad.numpy(), rtol=1e-14)

    source = cr.randn(2, 3, dtype=cr.float64, requires_grad=True)
    base = cr.zeros(4, 3, dtype=cr.float64)
    ours = base.scatter_add(0, cr.tensor(index), source)
    expected = torch.zeros(4, 3, dtype=torch.float64).scatter_add(
        0, torch.tensor(index), torch.tensor(source.detach().numpy())
    )
    np.testing.assert_allclose(ours.detach().numpy(), expected.numpy(), rtol=1e-15)


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_index_select_and_index_add_against_torch(dim):
    x, index = cr.randn(4, 4, dtype=cr.float64), [0, 2, 2]
    theirs = torch.tensor(x.numpy())
    picked = x.index_select(dim, cr.tensor(index))
    np.testing.assert_array_equal(picked.numpy(), theirs.index_select(dim, torch.tensor(index)).numpy())
    added = x.index_add(dim, cr.tensor(index), picked)
    np.testing.assert_allclose(
        added.numpy(), theirs.index_add(dim, torch.tensor(index), torch.tensor(picked.numpy())).numpy(), rtol=1e-15
    )


def test_index_put_adds():
    x = cr.zeros(3, 3, dtype=cr.float64)
    where = (cr.tensor([0, 0, 2]), cr.tensor([1, 1, 2]))
    added = x.index_put(where, cr.tensor([1.0, 2.0, 3.0], dtype=cr.float64), accumulate=True)
    np.testing.assert_array_equal(added.numpy(), [[0, 3, 0], [0, 0, 0], [0, 0, 3]])
