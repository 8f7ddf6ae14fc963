"""Making tensors: dtypes, shapes, and the streams of random numbers."""

import numpy as np
import pytest
import torch

import chainrule as cr


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        (1.0, cr.float32),
        (1, cr.int64),
        (True, cr.bool_),
        ([1, 2.5], cr.float32),
        ([[True]], cr.bool_),
        (np.float64(1), cr.float64),
        (np.ones(2), cr.float64),
        (np.ones(2, np.float16), cr.float16),
        (np.arange(2, dtype=np.int8), cr.int8),
        ([], cr.float32),
    ],
)
def test_the_dtype_of_data(data, dtype):
    assert cr.tensor(data).dtype == dtype
    assert cr.tensor(data, dtype=cr.bfloat16).dtype == cr.bfloat16


def test_tensor_copies_and_asarray_shares():
    data = np.ones(3)
    cr.tensor(data)[0] = 5
    assert data[0] == 1
    cr.asarray(data)[0] = 5
    assert data[0] == 5


def test_a_big_endian_or_odd_array_is_taken_in():
    assert (cr.tensor(np.arange(3, dtype=">f4")) + 1).tolist() == [1, 2, 3]
    assert cr.tensor(np.ones((2, 3)).T).shape == (3, 2)


LINES = [
    lambda lib: lib.zeros(2, 3),
    lambda lib: lib.zeros((2, 3)),
    lambda lib: lib.ones(2, dtype=lib.float64),
    lambda lib: lib.zeros(()),
    lambda lib: lib.full((2, 2), 0.5),
    lambda lib: lib.full((2,), 3),
    lambda lib: lib.full((2,), True),
    lambda lib: lib.eye(3),
    lambda lib: lib.eye(2, 3),
    lambda lib: lib.arange(5),
    lambda lib: lib.arange(1, 6, 2),
    lambda lib: lib.arange(0.0, 1.0, 0.25),
    lambda lib: lib.arange(5, 0, -2),
    lambda lib: lib.arange(3, dtype=lib.float32),
    lambda lib: lib.arange(3, 3),
    lambda lib: lib.linspace(0, 1, 5),
    lambda lib: lib.linspace(1, 1, 1),
    lambda lib: lib.zeros_like(lib.ones(2, dtype=lib.int32)),
    lambda lib: lib.ones_like(lib.zeros(2), dtype=lib.int64),
    lambda lib: lib.full_like(lib.zeros(2), 7),
    lambda lib: lib.zeros(0, 3),
]


@pytest.mark.parametrize("line", LINES)
def test_a_line_makes_what_pytorch_makes(line):
    ours, theirs = line(cr), line(torch)
    assert ours.shape == tuple(theirs.shape)
    assert str(ours.dtype) == str(theirs.dtype).removeprefix("torch.")
    np.testing.assert_allclose(ours.numpy(), theirs.numpy())


def test_leaves_that_ask_for_a_gradient():
    for made in (
        cr.zeros(2, requires_grad=True),
        cr.randn(2, requires_grad=True),
        cr.tensor([1.0], requires_grad=True),
    ):
        assert made.requires_grad
        assert made.is_leaf


def test_random_shapes_and_dtypes():
    assert cr.rand(2, 3).shape == cr.randn((2, 3)).shape == (2, 3)
    assert cr.randn(()).shape == ()
    assert cr.rand(0, 3).shape == (0, 3)
    assert cr.randn(2, dtype=cr.float64).dtype == cr.float64
    assert cr.randint(0, 5, (2,)).dtype == cr.int64
    like = cr.ones(2, dtype=cr.float16)
    assert cr.rand_like(like).dtype == cr.randn_like(like).dtype == cr.float16


def test_a_generator_of_ones_own_leaves_the_default_alone():
    first = cr.rand(3).tolist()
    cr.manual_seed(0)
    cr.rand(100, generator=cr.Generator(9))
    assert cr.rand(3).tolist() == first


def test_generators_without_a_seed_differ():
    assert cr.rand(4, generator=cr.Generator()).tolist() != cr.rand(4, generator=cr.Generator()).tolist()


GOLDEN_RAND = [0.3990464, 0.8805202, 0.7357128]
GOLDEN_RANDN = [0.125425, -0.119505, 0.153462]
GOLDEN_RANDINT = [93, 94, 45, 67]


def test_the_numbers_of_a_seed_never_change():
    # Written down once: these bits are part of the library's promise.
    drawn = cr.Generator(0)
    np.testing.assert_allclose(cr.rand(3, generator=drawn).numpy(), GOLDEN_RAND, rtol=1e-6)
    np.testing.assert_allclose(cr.randn(3, generator=drawn).numpy(), GOLDEN_RANDN, rtol=1e-5)
    assert cr.randint(0, 100, (4,), generator=drawn).tolist() == GOLDEN_RANDINT
