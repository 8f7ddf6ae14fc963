"""Losses against PyTorch: every option, and what it silently does wrong and we refuse."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

import chainrule as cr
from chainrule.errors import ArgumentError, DTypeError, OutOfRangeError, ShapeError

F, T = cr.nn.functional, torch.nn.functional
REDUCTIONS = ("mean", "sum", "none")


def agree(ours: Any, theirs: Any, arrays: list[np.ndarray]) -> None:
    """Value and gradients of a loss as a function of these float64 arrays."""
    xs = [cr.tensor(a, requires_grad=True) for a in arrays]
    ts = [torch.tensor(a, requires_grad=True) for a in arrays]
    out, expected = ours(*xs), theirs(*ts)
    np.testing.assert_allclose(out.detach().numpy(), expected.detach().numpy(), rtol=1e-12, atol=1e-14)
    (out * cr.tensor(np.asarray(1.5))).sum().backward()
    (expected * 1.5).sum().backward()
    for x, t in zip(xs, ts, strict=True):
        np.testing.assert_allclose(x.grad.numpy(), t.grad.numpy(), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mse_loss", {}), ("l1_loss", {}), ("huber_loss", {}), ("huber_loss", {"delta": 0.4}), ("smooth_l1_loss", {}),
        ("smooth_l1_loss", {"beta": 0.4}), ("smooth_l1_loss", {"beta": 0.0}),
    ],
)  # fmt: skip
def test_regression(name: str, options: dict[str, Any], reduction: str) -> None:
    out = np.array([[0.0, 1.0, -2.0], [0.4, 3.0, 0.5]])
    target = np.array([[0.0, 0.5, 2.0], [0.0, 2.0, 0.1]])  # exact hits and errors at the bend among them
    agree(
        lambda a, b: getattr(F, name)(a, b, reduction=reduction, **options),
        lambda a, b: getattr(T, name)(a, b, reduction=reduction, **options),
        [out, target],
    )


def some_scores(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).normal(size=shape) * 3


@pytest.mark.parametrize(("reduction", "smoothing", "weighted"), list(product(REDUCTIONS, (0.0, 0.2), (False, True))))
@pytest.mark.parametrize("shape", [(5, 4), (4,), (2, 4, 3), (2, 4, 2, 2)])
def test_cross_entropy_of_labels(shape: tuple[int, ...], reduction: str, smoothing: float, weighted: bool) -> None:
    places = shape[:0] if len(shape) == 1 else (shape[0], *shape[2:])
    labels = np.random.default_rng(4).integers(0, 4, places)
    weight = np.array([0.5, 1.0, 2.0, 0.1]) if weighted else None
    options = {"reduction": reduction, "label_smoothing": smoothing}
    agree(
        lambda x: F.cross_entropy(x, cr.tensor(labels), None if weight is None else cr.tensor(weight), **options),
        lambda x: T.cross_entropy(x, torch.tensor(labels), None if weight is None else torch.tensor(weight), **options),
        [some_scores(*shape)],
    )


@pytest.mark.parametrize(("reduction", "smoothing", "weighted"), list(product(REDUCTIONS, (0.0, 0.2), (False, True))))
def test_cross_entropy_ignores_a_label(reduction: str, smoothing: float, weighted: bool) -> None:
    labels = np.array([0, -100, 3, 1, -100])
    weight = np.array([0.5, 1.0, 2.0, 0.1]) if weighted else None
    options = {"reduction": reduction, "label_smoothing": smoothing}
    agree(
        lambda x: F.cross_entropy(x, cr.tensor(labels), None if weight is None else cr.tensor(weight), **options),
        lambda x: T.cross_entropy(x, torch.tensor(labels), None if weight is None else torch.tensor(weight), **options),
        [some_scores(5, 4)],
    )


def test_cross_entropy_ignores_another_index_and_all_of_them() -> None:
    labels, x = np.array([2, 1, 2]), some_scores(3, 4)
    agree(
        lambda x: F.cross_entropy(x, cr.tensor(labels), ignore_index=2),
        lambda x: T.cross_entropy(x, torch.tensor(labels), ignore_index=2),
        [x],
    )
    assert np.isnan(F.cross_entropy(cr.tensor(x), cr.tensor([2, 2, 2]), ignore_index=2).item())


@pytest.mark.parametrize(("reduction", "smoothing", "weighted"), list(product(REDUCTIONS, (0.0, 0.2), (False, True))))
@pytest.mark.parametrize("shape", [(5, 4), (4,), (2, 4, 3)])
def test_cross_entropy_of_probabilities(
    shape: tuple[int, ...], reduction: str, smoothing: float, weighted: bool
) -> None:
    axis = 0 if len(shape) == 1 else 1
    wanted = np.exp(some_scores(*shape) / 3)
    wanted /= wanted.sum(axis, keepdims=True)
    weight = np.array([0.5, 1.0, 2.0, 0.1]) if weighted else None
    options = {"reduction": reduction, "label_smoothing": smoothing}
    agree(
        lambda x, y: F.cross_entropy(x, y, None if weight is None else cr.tensor(weight), **options),
        lambda x, y: T.cross_entropy(x, y, None if weight is None else torch.tensor(weight), **options),
        [some_scores(*shape), wanted],
    )


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_nll_loss(reduction: str) -> None:
    labels, weight = np.array([0, 3, -100]), np.array([0.5, 1.0, 2.0, 0.1])
    agree(
        lambda x: F.nll_loss(F.log_softmax(x, 1), cr.tensor(labels), cr.tensor(weight), reduction=reduction),
        lambda x: T.nll_loss(T.log_softmax(x, 1), torch.tensor(labels), torch.tensor(weight), reduction=reduction),
        [some_scores(3, 4)],
    )


@pytest.mark.parametrize(("reduction", "weighted"), list(product(REDUCTIONS, (False, True))))
def test_binary_cross_entropy(reduction: str, weighted: bool) -> None:
    p, wanted = np.array([[0.1, 0.9, 1e-9], [0.5, 0.999999, 0.3]]), np.array([[0.0, 1.0, 0.2], [0.5, 1.0, 0.0]])
    weight = np.array([0.5, 1.0, 2.0]) if weighted else None
    agree(
        lambda x, y: F.binary_cross_entropy(x, y, None if weight is None else cr.tensor(weight), reduction=reduction),
        lambda x, y: T.binary_cross_entropy(
            x, y, None if weight is None else torch.tensor(weight), reduction=reduction
        ),
        [p, wanted],
    )


def test_binary_cross_entropy_at_0_and_1() -> None:
    p, wanted = np.array([0.0, 1.0, 0.0, 1.0]), np.array([0.0, 1.0, 1.0, 0.0])
    for dtype, tdtype in ((cr.float32, torch.float32), (cr.float64, torch.float64)):
        x = cr.tensor(p, dtype=dtype, requires_grad=True)
        loss = F.binary_cross_entropy(x, cr.tensor(wanted, dtype=dtype), reduction="none")
        expected = T.binary_cross_entropy(
            torch.tensor(p, dtype=tdtype), torch.tensor(wanted, dtype=tdtype), reduction="none"
        )
        np.testing.assert_array_equal(loss.detach().numpy(), expected.numpy())
        loss.sum().backward()
        assert np.isfinite(x.grad.numpy()).all()


@pytest.mark.parametrize(("reduction", "weighted", "positive"), list(product(REDUCTIONS, (False, True), (False, True))))
def test_binary_cross_entropy_with_logits(reduction: str, weighted: bool, positive: bool) -> None:
    x, wanted = np.array([[-100.0, -1.0, 0.0], [2.0, 50.0, 700.0]]), np.array([[0.0, 1.0, 0.2], [0.5, 1.0, 1.0]])
    weight, pos = np.array([0.5, 1.0, 2.0]), np.array([3.0, 1.0, 0.2])

    def options(make: Any) -> dict[str, Any]:
        given = {"reduction": reduction}
        return given | ({"weight": make(weight)} if weighted else {}) | ({"pos_weight": make(pos)} if positive else {})

    agree(
        lambda a, b: F.binary_cross_entropy_with_logits(a, b, **options(cr.tensor)),
        lambda a, b: T.binary_cross_entropy_with_logits(a, b, **options(torch.tensor)),
        [x, wanted],
    )


LOSSES = [
    "mse_loss",
    "l1_loss",
    "huber_loss",
    "smooth_l1_loss",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
]


@pytest.mark.parametrize("name", LOSSES)
def test_the_silent_broadcast_is_refused(name: str) -> None:
    out, target = cr.rand(200, 1), cr.rand(200)
    with pytest.raises(ShapeError, match=rf"{name}: .*float32\[200,1\] and float32\[200\].*use out.squeeze\(-1\)"):
        getattr(F, name)(out, target)
    with pytest.raises(ShapeError, match=r"use target.squeeze\(-1\)"):
        getattr(F, name)(target, out)
    with pytest.raises(ShapeError, match="reshape one of them"):
        getattr(F, name)(cr.rand(3), cr.rand(4))


@pytest.mark.parametrize("name", LOSSES)
def test_an_unknown_reduction_is_refused(name: str) -> None:
    with pytest.raises(ArgumentError, match=f"{name}: reduction must be 'mean', 'sum' or 'none'; got 'avg'"):
        getattr(F, name)(cr.rand(2), cr.rand(2), reduction="avg")


def test_cross_entropy_names_what_does_not_fit() -> None:
    x = cr.rand(3, 4)
    with pytest.raises(OutOfRangeError, match="labels must lie in 0 … 3, one a class; got 4"):
        F.cross_entropy(x, cr.tensor([0, 1, 4]))
    with pytest.raises(OutOfRangeError, match="got -1"):
        F.cross_entropy(x, cr.tensor([0, 1, -1]))
    with pytest.raises(DTypeError, match=r"labels must be integer; got float32\[3\]; cast them with .long\(\)"):
        F.cross_entropy(x, cr.rand(3))
    with pytest.raises(ShapeError, match=r"use labels.squeeze\(-1\)"):
        F.cross_entropy(x, cr.tensor([[0], [1], [2]]))
    with pytest.raises(ShapeError, match="one label a row"):
        F.nll_loss(x, cr.tensor([0, 1]))
    with pytest.raises(ShapeError, match="one weight for each of 4 classes"):
        F.cross_entropy(x, cr.tensor([0, 1, 2]), cr.rand(3))
    with pytest.raises(DTypeError, match="scores must be a float tensor"):
        F.cross_entropy(cr.tensor([[1, 2]]), cr.tensor([0]))
    with pytest.raises(ShapeError, match="need a dimension of classes"):
        F.cross_entropy(cr.tensor(1.0), cr.tensor(0))
    with pytest.raises(ArgumentError, match="label_smoothing is a share"):
        F.cross_entropy(x, cr.tensor([0, 1, 2]), label_smoothing=1.5)
    with pytest.raises(ArgumentError, match="nll_loss: reduction"):
        F.nll_loss(x, cr.tensor([0, 1, 2]), reduction="avg")  # type: ignore[arg-type]


def test_other_arguments_outside_their_range() -> None:
    x = cr.rand(3)
    with pytest.raises(ArgumentError, match="delta must be > 0"):
        F.huber_loss(x, x, delta=0)
    with pytest.raises(ArgumentError, match="beta must be ≥ 0"):
        F.smooth_l1_loss(x, x, beta=-1)
    with pytest.raises(ArgumentError, match="expected probabilities, 0 ≤ p ≤ 1; got"):
        F.binary_cross_entropy(x + 1, x)
    with pytest.raises(DTypeError, match="the prediction must be a tensor; got list"):
        F.mse_loss([1.0], x)  # type: ignore[arg-type]


def test_labels_of_another_integer_dtype_and_arrays() -> None:
    x = cr.rand(3, 4)
    as_int32 = F.cross_entropy(x, cr.tensor([0, 1, 2], dtype=cr.int32))
    as_array = F.cross_entropy(x, np.array([0, 1, 2]))  # type: ignore[arg-type]
    assert as_int32.item() == as_array.item() == F.cross_entropy(x, cr.tensor([0, 1, 2])).item()
