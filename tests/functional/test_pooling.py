"""Pooling against PyTorch, ties and padding included, and what it refuses."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from agreement import assert_agrees

import chainrule as cr
from chainrule.errors import ArgumentError, DTypeError, ShapeError

F, T = cr.nn.functional, torch.nn.functional


def rounded(*shape: int) -> np.ndarray:
    """Few different values, so that many tie."""
    return np.round(np.random.default_rng(0).normal(size=shape), 0)


@pytest.mark.parametrize("size", [2, 3, (3, 2)])
@pytest.mark.parametrize("stride", [None, 1, (2, 1)])
def test_pooling_of_images(size: Any, stride: Any) -> None:
    for padding, batch in itertools.product((0, 1, (1, 0)), ((2,), ())):
        x = rounded(*batch, 3, 8, 9)
        for dilation in (1, 2):
            options = (size, stride, padding, dilation)
            assert_agrees(lambda x, o=options: F.max_pool2d(x, *o), lambda t, o=options: T.max_pool2d(t, *o), [x])
        for counted, divisor in itertools.product((True, False), (None, 5)):
            options = (size, stride, padding, False, counted, divisor)
            assert_agrees(lambda x, o=options: F.avg_pool2d(x, *o), lambda t, o=options: T.avg_pool2d(t, *o), [x])


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("stride", [None, 1, 2])
def test_pooling_along_a_length(size: int, stride: int | None) -> None:
    for padding, batch in itertools.product((0, 1), ((2,), ())):
        x = rounded(*batch, 3, 9)
        for dilation in (1, 2):
            options = (size, stride, padding, dilation)
            assert_agrees(lambda x, o=options: F.max_pool1d(x, *o), lambda t, o=options: T.max_pool1d(t, *o), [x])
        for counted in (True, False):
            options = (size, stride, padding, False, counted)
            assert_agrees(lambda x, o=options: F.avg_pool1d(x, *o), lambda t, o=options: T.avg_pool1d(t, *o), [x])


@pytest.mark.parametrize("size", [1, (1, 1), 3, (3, 4), (None, 2), 5, (7, 8), (2, 12)])
def test_adaptive_means(size: Any) -> None:
    for batch in ((2,), ()):
        x = np.random.default_rng(0).normal(size=(*batch, 3, 9, 8))
        assert_agrees(lambda x: F.adaptive_avg_pool2d(x, size), lambda t: T.adaptive_avg_pool2d(t, size), [x])


def test_the_first_of_those_that_tie_receives_the_gradient() -> None:
    x = cr.tensor([[1.0, 2.0, 2.0, 2.0]], requires_grad=True)
    F.max_pool1d(x, 4).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[0, 1, 0, 0]]


def test_what_hangs_over_never_wins() -> None:
    out = F.max_pool2d(cr.full((1, 3, 3), -5.0), 3, padding=1)
    assert out.tolist() == [[[-5.0]]]
    assert F.max_pool1d(cr.tensor([[-5, -7]]), 2, 1, 1).tolist() == [[-5, -5, -7]]


X = cr.zeros(2, 3, 8, 8)
WRONG = [
    (
        lambda: F.max_pool2d(cr.zeros(8, 8), 2),
        ShapeError,
        r"max_pool2d: the input must be \(n, channels, height, width",
    ),
    (lambda: F.max_pool2d(X, 9), ShapeError, r"the padded input is float32\[2,3,8,8\], a window spans \[9, 9\]"),
    (lambda: F.max_pool2d(X, 2, padding=2), ArgumentError, r"padding must be at most half of .* \[2, 2\]; got 2"),
    (lambda: F.max_pool2d(X, 2, ceil_mode=True), ArgumentError, "max_pool2d: ceil_mode is not there"),
    (lambda: F.max_pool2d(X, 2, return_indices=True), ArgumentError, "return_indices is not there"),
    (lambda: F.avg_pool1d(X[0], 2, ceil_mode=True), ArgumentError, "avg_pool1d: ceil_mode is not there"),
    (lambda: F.avg_pool2d(X, 2, divisor_override=0), ArgumentError, "divisor_override must not be 0"),
    (lambda: F.avg_pool2d(X, (2, 2, 2)), ArgumentError, "kernel_size must be an int ≥ 1, or 2 of them"),
    (lambda: F.avg_pool2d(X, 2, 0), ArgumentError, "avg_pool2d: stride must be an int ≥ 1"),
    (lambda: F.avg_pool2d(X.long(), 2), DTypeError, r"avg_pool2d: needs a float dtype; got int64\[2,3,8,8\]"),
    (lambda: F.adaptive_avg_pool2d(X, 0), ArgumentError, "output_size must be an int ≥ 1"),
]


@pytest.mark.parametrize(("call", "error", "says"), WRONG, ids=[says for *_, says in WRONG])
def test_what_does_not_fit_is_named(call: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        call()
