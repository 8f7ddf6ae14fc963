"""Activations against PyTorch: values, gradients, and what they do at kinks and far out."""

from typing import Any

import numpy as np
import pytest
import torch

import chainrule as cr
from chainrule.errors import ArgumentError, OutOfRangeError

F, T = cr.nn.functional, torch.nn.functional

CASES: list[tuple[str, dict[str, Any]]] = [
    ("relu", {}),
    ("relu6", {}),
    ("leaky_relu", {}),
    ("leaky_relu", {"negative_slope": 0.3}),
    ("elu", {}),
    ("elu", {"alpha": 0.5}),
    ("selu", {}),
    ("gelu", {}),
    ("gelu", {"approximate": "tanh"}),
    ("silu", {}),
    ("mish", {}),
    ("sigmoid", {}),
    ("hardsigmoid", {}),
    ("hardswish", {}),
    ("logsigmoid", {}),
    ("tanh", {}),
    ("tanhshrink", {}),
    ("softplus", {"threshold": 5.0}),
    ("softplus", {"beta": 2.0, "threshold": 3.0}),
    ("softsign", {}),
    ("hardtanh", {}),
    ("hardtanh", {"min_val": -3.0, "max_val": 0.5}),
    ("softmax", {"dim": -1}),
    ("softmin", {"dim": 0}),
    ("log_softmax", {"dim": 0}),
]

# Kinks of every function above are among them: 0, ±1, ±3, 6, 0.5.
POINTS = np.array([[-40.0, -6.0, -3.0, -1.0, -0.3, 0.0], [0.4, 0.5, 1.0, 3.0, 6.0, 40.0]])


@pytest.mark.parametrize(("name", "options"), CASES)
def test_value_and_gradient_are_pytorchs(name: str, options: dict[str, Any]) -> None:
    x, tx = cr.tensor(POINTS, requires_grad=True), torch.tensor(POINTS, requires_grad=True)
    out, expected = getattr(F, name)(x, **options), getattr(T, name)(tx, **options)
    np.testing.assert_allclose(out.detach().numpy(), expected.detach().numpy(), rtol=1e-12, atol=1e-15)
    g = np.linspace(0.5, 2.0, POINTS.size).reshape(POINTS.shape)
    out.backward(cr.tensor(g))
    expected.backward(torch.tensor(g))
    np.testing.assert_allclose(
        x.grad.numpy(), tx.grad.numpy(), rtol=1e-7 if name == "hardsigmoid" else 1e-9, atol=1e-14
    )  # PyTorch rounds 1/6 to float32


@pytest.mark.parametrize(
    "name", ["elu", "selu", "silu", "mish", "softplus", "logsigmoid", "gelu", "softsign", "hardtanh"]
)
def test_nothing_overflows_far_out(name: str) -> None:
    x = cr.tensor([-1e4, 1e4], requires_grad=True)
    out = getattr(F, name)(x)
    out.sum().backward()
    assert np.isfinite(out.detach().numpy()).all()
    assert np.isfinite(x.grad.numpy()).all()


def test_softplus_at_pytorchs_default_threshold() -> None:
    x = cr.tensor([19.9, 20.1, 1000.0], dtype=cr.float64)
    expected = T.softplus(torch.tensor([19.9, 20.1, 1000.0], dtype=torch.float64))
    np.testing.assert_allclose(F.softplus(x).numpy(), expected.numpy(), rtol=2e-10)


@pytest.mark.parametrize("shape", [(5,), (4, 3), (2, 3, 4)])
def test_prelu(shape: tuple[int, ...]) -> None:
    values = np.linspace(-2, 2, int(np.prod(shape))).reshape(shape)
    slopes = np.array([0.1]) if len(shape) < 2 else np.array([0.1, 0.2, 0.3])
    x, w = cr.tensor(values, requires_grad=True), cr.tensor(slopes, requires_grad=True)
    tx, tw = torch.tensor(values, requires_grad=True), torch.tensor(slopes, requires_grad=True)
    F.prelu(x, w).square().sum().backward()
    T.prelu(tx, tw).square().sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), tx.grad.numpy(), rtol=1e-12)
    np.testing.assert_allclose(w.grad.numpy(), tw.grad.numpy(), rtol=1e-12)


def test_integers_become_floats() -> None:
    assert F.silu(cr.tensor([1, 2])).dtype == cr.float32


def test_bad_options_are_refused() -> None:
    x = cr.ones(2)
    with pytest.raises(ArgumentError, match="approximate must be 'none' or 'tanh'; got 'exact'"):
        F.gelu(x, "exact")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="beta must not be 0"):
        F.softplus(x, beta=0)
    with pytest.raises(ArgumentError, match="min_val ≤ max_val"):
        F.hardtanh(x, 1.0, -1.0)
    with pytest.raises(OutOfRangeError, match="dim 1 is out of range"):
        F.softmax(x, dim=1)
