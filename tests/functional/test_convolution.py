"""Convolutions against PyTorch, in every combination of options, and what they refuse."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from agreement import assert_agrees

import chainrule as cr
from chainrule.errors import ArgumentError, DTypeError, ShapeError

F, T = cr.nn.functional, torch.nn.functional


@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("padding", [0, 1, (1, 2), "same", "valid"])
@pytest.mark.parametrize("stride", [1, 2, (2, 1)])
def test_conv2d(stride: Any, padding: Any, groups: int) -> None:
    if padding == "same" and stride != 1:
        return
    rng = np.random.default_rng(0)
    options = {"stride": stride, "padding": padding, "groups": groups}
    for dilation, biased, batch in itertools.product((1, 2, (1, 2)), (True, False), ((3,), ())):
        arrays = [rng.normal(size=(*batch, 4, 7, 8)), rng.normal(size=(8, 4 // groups, 3, 2)), rng.normal(size=8)]
        assert_agrees(
            lambda *xs, d=dilation: F.conv2d(*xs, dilation=d, **options),
            lambda *ts, d=dilation: T.conv2d(*ts, dilation=d, **options),
            arrays[: 3 if biased else 2],
        )


@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("padding", [0, (2,), "same", "valid"])
@pytest.mark.parametrize("stride", [1, 3])
def test_conv1d(stride: int, padding: Any, groups: int) -> None:
    if padding == "same" and stride != 1:
        return
    rng = np.random.default_rng(0)
    options = {"stride": stride, "padding": padding, "groups": groups}
    for dilation, biased, batch in itertools.product((1, 3), (True, False), ((3,), ())):
        arrays = [rng.normal(size=(*batch, 4, 11)), rng.normal(size=(6, 4 // groups, 4)), rng.normal(size=6)]
        assert_agrees(
            lambda *xs, d=dilation: F.conv1d(*xs, dilation=d, **options),
            lambda *ts, d=dilation: T.conv1d(*ts, dilation=d, **options),
            arrays[: 3 if biased else 2],
        )


def test_convolution_twice_differentiated() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(2, 2, 5, 5)), rng.normal(size=(3, 2, 2, 2))

    def ours(x: cr.Tensor, w: cr.Tensor) -> cr.Tensor:
        return F.conv2d(x, w, padding=1).sin().sum()

    gx, gw = cr.grad(lambda x, w: cr.grad(ours, 0)(x, w).square().sum(), (0, 1))(cr.tensor(x), cr.tensor(w))
    tx, tw = (torch.tensor(a, requires_grad=True) for a in (x, w))
    (first,) = torch.autograd.grad(T.conv2d(tx, tw, padding=1).sin().sum(), tx, create_graph=True)
    first.square().sum().backward()
    assert tx.grad is not None
    assert tw.grad is not None
    np.testing.assert_allclose(gx.numpy(), tx.grad.numpy(), rtol=1e-10)
    np.testing.assert_allclose(gw.numpy(), tw.grad.numpy(), rtol=1e-10)


def test_a_batch_of_nothing() -> None:
    out = F.conv2d(cr.zeros(0, 2, 5, 5), cr.ones(3, 2, 2, 2), cr.ones(3))
    assert out.shape == (0, 3, 4, 4)


X, W = cr.zeros(2, 4, 8, 8), cr.zeros(6, 4, 3, 3)
WRONG = [
    (
        lambda: F.conv2d(cr.zeros(8, 8), W),
        ShapeError,
        r"conv2d: the input must be \(n, channels, height, width\), or w",
    ),
    (lambda: F.conv1d(X, W), ShapeError, r"conv1d: the input must be \(n, channels, length\).*float32\[2,4,8,8\]"),
    (lambda: F.conv2d(X, cr.zeros(6, 4, 3)), ShapeError, r"the weight must be \(filters, channels / groups, rows, col"),
    (lambda: F.conv2d(X, cr.zeros(6, 3, 3, 3)), ShapeError, r"takes 3 channels; got float32\[2,4,8,8\], which has 4"),
    (lambda: F.conv2d(X, W, groups=2), ShapeError, "takes 8 channels in 2 groups"),
    (lambda: F.conv2d(X, W, groups=4), ArgumentError, "divides the 4 channels and the 6 filters; got 4"),
    (lambda: F.conv2d(X, W, cr.zeros(4)), ShapeError, r"the bias float32\[4\] does not fit .* one entry a filter"),
    (lambda: F.conv2d(X, W.double()), DTypeError, r"cast the input with x.to\(cr.float64\), or the layer with"),
    (lambda: F.conv2d(X, W, dilation=4), ShapeError, r"the padded input is float32\[2,4,8,8\].* spans \[9, 9\]"),
    (lambda: F.conv2d(X, W, padding="same", stride=2), ArgumentError, r"padding='same' needs stride 1; got stride"),
    (lambda: F.conv2d(X, W, padding="full"), ArgumentError, "padding must be 'same', 'valid', an int .*; got 'full'"),
    (lambda: F.conv2d(X, W, padding=-1), ArgumentError, "padding must be an int ≥ 0, or 2 of them; got -1"),
    (lambda: F.conv2d(X, W, stride=0), ArgumentError, "stride must be an int ≥ 1, or 2 of them; got 0"),
    (lambda: F.conv2d([[1.0]], W), DTypeError, "conv2d: expected a tensor; got list"),
]


@pytest.mark.parametrize(("call", "error", "says"), WRONG, ids=[says for *_, says in WRONG])
def test_what_does_not_fit_is_named(call: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        call()
