"""LayerNorm, RMSNorm and GroupNorm against PyTorch's, with one state."""

from typing import Any

import numpy as np
import pytest
import torch

import chainrule as cr
from chainrule import nn
from chainrule.errors import ArgumentError


@pytest.mark.parametrize(
    ("name", "args", "options"),
    [
        ("LayerNorm", (5,), {}),
        ("LayerNorm", ((4, 5), 1e-3), {}),
        ("LayerNorm", (5,), {"bias": False}),
        ("LayerNorm", (5,), {"elementwise_affine": False}),
        ("RMSNorm", (5,), {}),
        ("RMSNorm", ([4, 5], 0.1), {}),
        ("RMSNorm", (5,), {"elementwise_affine": False}),
        ("GroupNorm", (2, 4), {}),
        ("GroupNorm", (4, 4, 0.1), {"bias": False}),
        ("GroupNorm", (1, 4), {"affine": False}),
    ],
)
def test_a_layer_is_pytorchs(name: str, args: tuple[Any, ...], options: dict[str, Any]) -> None:
    theirs = getattr(torch.nn, name)(*args, **options).double()
    ours = getattr(nn, name)(*args, **options).double()
    for p, t in zip(ours.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_array_equal(p.detach().numpy(), t.detach().numpy())  # 1 and 0
    rng = np.random.default_rng(0)
    state = {k: rng.normal(size=tuple(v.shape)) for k, v in theirs.state_dict().items()}
    assert list(ours.state_dict()) == list(state)
    ours.load_state_dict(state)
    theirs.load_state_dict({k: torch.tensor(v) for k, v in state.items()})
    x = rng.normal(size=(3, 4, 5))
    a, b = cr.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    out, expected = ours(a), theirs(b)
    np.testing.assert_allclose(out.detach().numpy(), expected.detach().numpy(), rtol=1e-11, atol=1e-12)
    out.sin().sum().backward()
    expected.sin().sum().backward()
    for p, t in ((a, b), *zip(ours.parameters(), theirs.parameters(), strict=True)):
        np.testing.assert_allclose(p.grad.numpy(), t.grad.numpy(), rtol=1e-10, atol=1e-12)
    assert repr(ours) == repr(theirs)


def test_parameters_start_over() -> None:
    for layer in (nn.LayerNorm(3), nn.RMSNorm(3), nn.GroupNorm(1, 3)):
        layer.load_state_dict({k: np.full(3, 5.0) for k in layer.state_dict()})
        layer.reset_parameters()
        assert [p.tolist() for p in layer.parameters()] == [[1, 1, 1], [0, 0, 0]][: len(list(layer.parameters()))]
    nn.LayerNorm(3, elementwise_affine=False).reset_parameters()
    nn.RMSNorm(3, elementwise_affine=False).reset_parameters()
    nn.GroupNorm(1, 3, affine=False).reset_parameters()


@pytest.mark.parametrize("size", [0, (3, -1), 2.0])
def test_sizes_are_positive_ints(size: Any) -> None:
    for layer in (nn.LayerNorm, nn.RMSNorm):
        with pytest.raises(ArgumentError, match=f"{layer.__name__}: normalized_shape must be a positive int"):
            layer(size)
