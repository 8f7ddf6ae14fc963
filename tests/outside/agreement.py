"""Holding a function of chainrule's against PyTorch's: values, and gradients for a random cotangent, in float64."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

import chainrule as cr


def assert_agrees(
    ours: Callable[..., Any], theirs: Callable[..., Any], arrays: Sequence[np.ndarray], tolerance: float = 1e-11
) -> None:
    """Both functions of the same arrays; the float ones are differentiated."""
    xs = [cr.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    ts = [torch.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    out, expected = ours(*xs), theirs(*ts)
    assert out.dtype == cr.float64
    np.testing.assert_allclose(out.detach().numpy(), expected.detach().numpy(), rtol=tolerance, atol=tolerance)
    g = np.random.default_rng(9).normal(size=out.shape)
    out.backward(g)
    expected.backward(torch.tensor(g))
    for x, t in zip(xs, ts, strict=True):
        if x.requires_grad:
            assert x.grad is not None
            assert t.grad is not None
            np.testing.assert_allclose(x.grad.numpy(), t.grad.numpy(), rtol=tolerance, atol=tolerance)
