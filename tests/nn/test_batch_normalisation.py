"""Batch and instance normalisation against PyTorch's layers: one state, in training, then in evaluation."""

from typing import Any

import numpy as np
import pytest
import torch

import chainrule as cr
from chainrule import nn
from chainrule.errors import ArgumentError, ShapeError

SHAPES = {1: (6, 3, 5), 2: (4, 3, 2, 5), 3: (2, 3, 2, 2, 4)}
LAYERS = [
    ("BatchNorm1d", (6, 3), {}),
    *((f"BatchNorm{rank}d", SHAPES[rank], {}) for rank in SHAPES),
    ("BatchNorm1d", (6, 3), {"eps": 0.1, "momentum": 0.7}),
    ("BatchNorm1d", (6, 3), {"momentum": None}),
    ("BatchNorm2d", SHAPES[2], {"momentum": None, "affine": False}),
    ("BatchNorm1d", (6, 3), {"bias": False}),
    ("BatchNorm2d", SHAPES[2], {"track_running_stats": False}),
    ("InstanceNorm1d", SHAPES[1], {}),
    ("InstanceNorm1d", (3, 5), {"affine": True}),
    ("InstanceNorm2d", SHAPES[2], {"affine": True, "track_running_stats": True}),
    ("InstanceNorm2d", (3, 4, 5), {"affine": True, "bias": False, "track_running_stats": True}),
    ("InstanceNorm2d", SHAPES[2], {"track_running_stats": True, "momentum": None}),
]


@pytest.mark.parametrize(("name", "shape", "options"), LAYERS)
def test_a_layer_is_pytorchs(name: str, shape: tuple[int, ...], options: dict[str, Any]) -> None:
    ours, theirs = getattr(nn, name)(3, **options).double(), getattr(torch.nn, name)(3, **options).double()
    assert repr(ours) == repr(theirs)
    assert_same_state(ours, theirs)  # 1 and 0
    rng = np.random.default_rng(0)
    for p, t in zip(ours.parameters(), theirs.parameters(), strict=True):
        values = rng.normal(size=3)
        with cr.no_grad(), torch.no_grad():
            p.copy_(values)
            t.copy_(torch.tensor(values))
    for number in range(5):
        if number == 3:
            ours.eval()
            theirs.eval()
        x = rng.normal(size=shape) * 2 + number
        a, b = cr.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
        out, expected = ours(a), theirs(b)
        np.testing.assert_allclose(out.detach().numpy(), expected.detach().numpy(), rtol=1e-10, atol=1e-12)
        ours.zero_grad()
        theirs.zero_grad()
        out.sin().sum().backward()
        expected.sin().sum().backward()
        for p, t in ((a, b), *zip(ours.parameters(), theirs.parameters(), strict=True)):
            np.testing.assert_allclose(p.grad.numpy(), t.grad.numpy(), rtol=1e-9, atol=1e-11)
        assert_same_state(ours, theirs)


def assert_same_state(ours: nn.Module, theirs: torch.nn.Module) -> None:
    state = theirs.state_dict()
    assert list(ours.state_dict()) == list(state)
    for key, value in ours.state_dict().items():
        assert str(value.dtype) == str(state[key].dtype).removeprefix("torch.")
        np.testing.assert_allclose(value.numpy(), state[key].numpy(), rtol=1e-12)


def test_a_state_of_pytorchs_is_taken_and_given_back() -> None:
    theirs = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    theirs(torch.randn(4, 1, 5, 5))
    ours = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    assert_same_state(ours, theirs)
    ours(cr.randn(4, 1, 5, 5))
    theirs.load_state_dict({k: torch.tensor(v.numpy()) for k, v in ours.state_dict().items()})
    assert_same_state(ours, theirs)


def test_statistics_are_no_parameters_and_stay_of_their_dtype() -> None:
    norm = nn.BatchNorm1d(3)
    assert [name for name, _ in norm.named_parameters()] == ["weight", "bias"]
    assert [name for name, _ in norm.named_buffers()] == ["running_mean", "running_var", "num_batches_tracked"]
    norm.double()
    assert [str(b.dtype) for b in norm.buffers()] == ["float64", "float64", "int64"]
    assert str(nn.BatchNorm1d(3, dtype=cr.float16).running_var.dtype) == "float16"


@pytest.mark.parametrize("name", ["BatchNorm1d", "InstanceNorm1d"])
def test_layers_start_over(name: str) -> None:
    norm = getattr(nn, name)(2, affine=True, track_running_stats=True)
    first = {key: value.numpy().copy() for key, value in norm.state_dict().items()}
    norm(cr.randn(4, 2, 3))
    norm.load_state_dict({"weight": [3.0, 4.0], "bias": [5.0, 6.0]}, strict=False)
    norm.reset_running_stats()
    for key in ("running_mean", "running_var", "num_batches_tracked"):
        np.testing.assert_array_equal(norm.state_dict()[key].numpy(), first[key])
    assert norm.weight.tolist() == [3, 4]
    norm.reset_parameters()
    for key, value in norm.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), first[key])
    bare = getattr(nn, name)(2, affine=False, track_running_stats=False)
    bare.reset_parameters()
    assert not bare.state_dict()


def test_statistics_follow_without_a_gradient_too() -> None:
    norm, x = nn.BatchNorm1d(2), cr.randn(5, 2)
    with cr.no_grad():
        norm(x)
    np.testing.assert_allclose(norm.running_mean.numpy(), 0.1 * x.mean(0).numpy(), rtol=1e-5)


def test_a_gradient_is_of_the_statistics_that_the_forward_pass_took() -> None:
    norm, x = nn.BatchNorm1d(2).eval(), cr.randn(5, 2)
    norm.load_state_dict({"running_var": [3.0, 4.0]}, strict=False)
    out = norm(x)
    norm.train()(x)  # moves the statistics
    out.sum().backward()
    np.testing.assert_allclose(norm.weight.grad.numpy(), (x.sum(0) / cr.tensor([3.0, 4.0]).sqrt()).numpy(), rtol=1e-4)


def test_a_backward_pass_may_follow_several_forward_passes_in_training() -> None:
    norm, x = nn.BatchNorm1d(2), cr.randn(5, 2)
    total = norm(x).square().sum() + norm(x * 2).sin().sum()
    total.backward()
    assert norm.weight.grad is not None


def test_no_entry_depends_on_another_in_evaluation() -> None:
    norm, x = nn.BatchNorm1d(3).eval(), cr.randn(5, 3)
    np.testing.assert_array_equal(norm(x)[:1].detach().numpy(), norm(x[:1]).detach().numpy())


WRONG = [
    (lambda: nn.BatchNorm1d(0), ArgumentError, "BatchNorm1d: num_features must be a positive int; got 0"),
    (lambda: nn.InstanceNorm2d(2.5), ArgumentError, "InstanceNorm2d: num_features must be a positive int; got 2.5"),
    (lambda: nn.BatchNorm1d(3)(cr.ones(3)), ShapeError, r"must be \(n, 3\) or \(n, 3, length\); got float32\[3\]"),
    (lambda: nn.BatchNorm1d(3)(cr.ones(2, 4)), ShapeError, r"BatchNorm1d: the input must be \(n, 3\) or .*\[2,4\]"),
    (lambda: nn.BatchNorm2d(3)(cr.ones(2, 3)), ShapeError, r"BatchNorm2d: the input must be \(n, 3, height, width\)"),
    (lambda: nn.BatchNorm3d(3)(cr.ones(2, 3)), ShapeError, r"must be \(n, 3, depth, height, width\)"),
    (lambda: nn.BatchNorm1d(3)(cr.ones(1, 3)), ShapeError, "expected more than 1 value per channel when training"),
    (lambda: nn.InstanceNorm1d(3)(cr.ones(5, 2)), ShapeError, r"must be \(n, 3, length\), or without n; got"),
    (lambda: nn.InstanceNorm2d(3)(cr.ones(1, 3)), ShapeError, r"must be \(n, 3, height, width\), or without n; got"),
    (lambda: nn.GroupNorm(0, 4), ArgumentError, "GroupNorm: num_groups must be a positive int; got 0"),
    (lambda: nn.GroupNorm(3, 4), ArgumentError, "GroupNorm: num_groups must divide num_channels; got 3 groups of 4"),
    (lambda: nn.GroupNorm(2, 4)(cr.ones(2, 6)), ShapeError, r"group_norm: the weight must be \[6\]"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "says"), WRONG, ids=[says for *_, says in WRONG])
def test_what_does_not_fit_is_named(call: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says) as caught:
        call()
    assert "at test_batch_normalisation.py:" in str(caught.value)
