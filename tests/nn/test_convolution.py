"""Convolution and pooling layers against PyTorch's, with one state, and a net of them that learns digits."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

import chainrule as cr
from chainrule import nn
from chainrule.errors import ArgumentError

F = nn.functional


def held_against_pytorchs(name: str, args: tuple[Any, ...], options: dict[str, Any], shape: tuple[int, ...]) -> None:
    """One state in both layers: they compute alike, differentiate alike and are written alike."""
    theirs = getattr(torch.nn, name)(*args, **options).double()
    ours = getattr(nn, name)(*args, **options).double()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    x = np.random.default_rng(0).normal(size=shape)
    out, expected = ours(cr.tensor(x)), theirs(torch.tensor(x))
    np.testing.assert_allclose(out.detach().numpy(), expected.detach().numpy(), rtol=1e-11, atol=1e-12)
    if out.requires_grad:
        out.sin().sum().backward()
        expected.sin().sum().backward()
        for p, t in zip(ours.parameters(), theirs.parameters(), strict=True):
            np.testing.assert_allclose(p.grad.numpy(), t.grad.numpy(), rtol=1e-10, atol=1e-12)
    theirs.load_state_dict({k: torch.tensor(v.numpy()) for k, v in ours.state_dict().items()})
    if name != "AvgPool1d":  # PyTorch writes its numbers as tuples there
        assert repr(ours) == repr(theirs)


@pytest.mark.parametrize(
    ("name", "args", "options", "shape"),
    [
        ("Conv2d", (2, 6, 3), {}, (3, 2, 7, 8)),
        ("Conv2d", (2, 6, (3, 2), 2, 1), {"bias": False}, (3, 2, 7, 8)),
        ("Conv2d", (4, 6, 3), {"groups": 2, "dilation": 2, "padding": "same"}, (4, 7, 8)),
        ("Conv1d", (2, 6, 3), {"padding": "valid"}, (3, 2, 9)),
        ("Conv1d", (4, 4, 4), {"groups": 4, "stride": 3, "padding": 2}, (4, 9)),
        ("MaxPool2d", (2,), {}, (3, 2, 7, 8)),
        ("MaxPool2d", ((3, 2), 1), {"padding": (1, 0), "dilation": 2}, (2, 7, 8)),
        ("MaxPool1d", (3, 2, 1), {}, (3, 2, 9)),
        ("AvgPool2d", (2,), {}, (3, 2, 7, 8)),
        ("AvgPool2d", (3, 2, 1), {"count_include_pad": False}, (3, 2, 7, 8)),
        ("AvgPool1d", (3,), {"padding": 1}, (3, 2, 9)),
        ("AdaptiveAvgPool2d", ((1, None),), {}, (3, 2, 7, 8)),
        ("Unflatten", (1, (2, 3)), {}, (4, 6)),
    ],
)
def test_a_layer_is_pytorchs(name: str, args: tuple[Any, ...], options: dict[str, Any], shape: tuple[int, ...]) -> None:
    held_against_pytorchs(name, args, options, shape)


@pytest.mark.parametrize(("name", "field"), [("Conv1d", 5), ("Conv2d", 25)])
def test_filters_start_where_pytorchs_do(name: str, field: int) -> None:
    layer = getattr(nn, name)(8, 60, 5, groups=2)
    for p in layer.parameters():
        values, bound = p.detach().numpy(), 1 / np.sqrt(4 * field)
        assert np.abs(values).max() <= bound
        assert abs(values.std() - bound / np.sqrt(3)) < 0.2 * bound


def test_options_that_do_not_fit_are_named() -> None:
    with pytest.raises(ArgumentError, match="Conv2d: in_channels must be a positive int; got 0"):
        nn.Conv2d(0, 1, 3)
    with pytest.raises(ArgumentError, match="groups must divide in_channels and out_channels; got 2 groups of 4 and 5"):
        nn.Conv1d(4, 5, 3, groups=2)
    with pytest.raises(ArgumentError, match="Conv2d: kernel_size must be an int ≥ 1, or 2 of them"):
        nn.Conv2d(1, 1, (3, 3, 3))
    with pytest.raises(ArgumentError, match="Conv2d: padding must be 'same', 'valid', an int or several; got 'full'"):
        nn.Conv2d(1, 1, 3, padding="full")
    with pytest.raises(ArgumentError, match="max_pool2d: ceil_mode is not there"):
        nn.MaxPool2d(2, ceil_mode=True)(cr.zeros(1, 4, 4))
    with pytest.raises(ArgumentError, match="avg_pool2d: ceil_mode is not there"):
        nn.AvgPool2d(2, ceil_mode=True)(cr.zeros(1, 4, 4))


class LeNet(nn.Module):
    """LeNet-5, for images of 8 × 8."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        )  # fmt: skip
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))

    def forward(self, x: cr.Tensor) -> cr.Tensor:
        out: cr.Tensor = self.classifier(self.features(x))
        return out


def test_lenet_learns_digits() -> None:
    digits = load_digits()
    images = cr.tensor(digits.images[:, None] / 16.0, dtype=cr.float32)
    labels = cr.tensor(digits.target)
    train, rest = slice(0, 1200), slice(1200, None)
    model = LeNet()
    optimizer = cr.optim.Adam(model.parameters(), lr=0.005)
    for _ in range(8):
        for batch in cr.randperm(1200).split(60):
            optimizer.zero_grad()
            F.cross_entropy(model(images[train][batch]), labels[train][batch]).backward()
            optimizer.step()
    with cr.no_grad():
        right = (model(images[rest]).argmax(1) == labels[rest]).to(cr.float32).mean().item()
    assert right > 0.85
