"""Optimisers against PyTorch's: 50 steps in float64, every option; state, groups and errors."""

from typing import Any

import numpy as np
import pytest
import torch

import chainrule as cr
from chainrule import nn, optim
from chainrule.errors import ArgumentError, DTypeError, GradientError, InPlaceError, ShapeError, StaleValueError

CASES: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"lr": 0.02}),
    ("SGD", {"lr": 0.02, "momentum": 0.9}),
    ("SGD", {"lr": 0.02, "momentum": 0.9, "dampening": 0.3}),
    ("SGD", {"lr": 0.02, "momentum": 0.9, "nesterov": True}),
    ("SGD", {"lr": 0.02, "momentum": 0.5, "weight_decay": 0.1, "nesterov": True}),
    ("SGD", {"lr": 0.02, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.002, "maximize": True}),
    ("SGD", {"lr": 0.002, "momentum": 0.5, "dampening": 0.1, "weight_decay": 0.1, "maximize": True}),
    ("Adam", {"lr": 0.01}),
    ("Adam", {"lr": 0.01, "betas": (0.5, 0.8), "eps": 1e-3}),
    ("Adam", {"lr": 0.01, "weight_decay": 0.1}),
    ("Adam", {"lr": 0.01, "amsgrad": True}),
    ("Adam", {"lr": 0.01, "amsgrad": True, "weight_decay": 0.1, "maximize": True}),
    ("AdamW", {"lr": 0.01}),
    ("AdamW", {"lr": 0.01, "weight_decay": 0.3, "betas": (0.5, 0.8)}),
    ("AdamW", {"lr": 0.01, "amsgrad": True, "maximize": True}),
    ("RMSprop", {"lr": 0.01}),
    ("RMSprop", {"lr": 0.01, "alpha": 0.5, "eps": 1e-3, "weight_decay": 0.1, "maximize": True}),
    ("RMSprop", {"lr": 0.01, "momentum": 0.9}),
    ("RMSprop", {"lr": 0.01, "momentum": 0.5, "centered": True, "weight_decay": 0.1}),
    ("Adagrad", {"lr": 0.1}),
    ("Adagrad", {"lr": 0.1, "lr_decay": 0.1, "initial_accumulator_value": 0.5, "eps": 1e-3}),
    ("Adagrad", {"lr": 0.1, "weight_decay": 0.1, "maximize": True}),
]


def start() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=(4, 3)), rng.normal(size=3), rng.normal(size=())]


def objective(w: Any, b: Any, s: Any, step: int) -> Any:
    """Not quadratic, and another one in each step; of our tensors and of PyTorch's."""
    return ((w * (1 + step % 3)).tanh().sum() - 0.3) ** 2 + (b * b).sum() * (s * s) + (s - 2) ** 2


def trained(library: Any, tensors: list[Any], optimizer: Any, steps: int, first: int = 0) -> None:
    for step in range(first, first + steps):
        optimizer.zero_grad()
        objective(*tensors, step).backward()
        optimizer.step()


@pytest.mark.parametrize(("name", "options"), CASES)
def test_50_steps_are_pytorchs(name: str, options: dict[str, Any]) -> None:
    ours = [cr.tensor(a, requires_grad=True) for a in start()]
    theirs = [torch.tensor(a, requires_grad=True) for a in start()]
    trained(cr, ours, getattr(optim, name)(ours, **options), 50)
    trained(torch, theirs, getattr(torch.optim, name)(theirs, **options), 50)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_the_gradient_is_left_as_it_is(name: str, options: dict[str, Any]) -> None:
    w = cr.tensor([1.0, -2.0], requires_grad=True)
    (w**2).sum().backward()
    assert w.grad is not None
    before = w.grad.numpy().copy()
    getattr(optim, name)([w], **options).step()
    np.testing.assert_array_equal(w.grad.numpy(), before)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_saved_optimizer_goes_on_as_if_never_stopped(name: str, options: dict[str, Any]) -> None:
    whole = [cr.tensor(a, requires_grad=True) for a in start()]
    trained(cr, whole, getattr(optim, name)(whole, **options), 20)
    first = [cr.tensor(a, requires_grad=True) for a in start()]
    optimizer = getattr(optim, name)(first, **options)
    trained(cr, first, optimizer, 10)
    second = [cr.tensor(t.detach().numpy(), requires_grad=True) for t in first]
    resumed = getattr(optim, name)(second, lr=123.0)
    resumed.load_state_dict(optimizer.state_dict())
    trained(cr, second, resumed, 10, first=10)
    for a, b in zip(whole, second, strict=True):
        np.testing.assert_array_equal(a.detach().numpy(), b.detach().numpy())


def test_groups_have_options_of_their_own() -> None:
    ours = [cr.tensor(a, requires_grad=True) for a in start()]
    theirs = [torch.tensor(a, requires_grad=True) for a in start()]

    def groups(t: list[Any]) -> list[dict[str, Any]]:
        return [{"params": t[:1], "lr": 0.05}, {"params": t[1:2]}]

    a = optim.SGD(groups(ours), lr=0.01, momentum=0.9)
    b = torch.optim.SGD(groups(theirs), lr=0.01, momentum=0.9)
    a.add_param_group({"params": ours[2], "momentum": 0.0})
    b.add_param_group({"params": theirs[2], "momentum": 0.0})
    trained(cr, ours, a, 20)
    trained(torch, theirs, b, 20)
    for x, y in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(x.detach().numpy(), y.detach().numpy(), rtol=1e-12)
    assert repr(a).count("group") == 3


def test_inf_and_nan_are_values_here_too() -> None:
    w = cr.tensor([1.0, 2.0], requires_grad=True)
    w.grad = cr.tensor([float("inf"), float("nan")])
    optim.SGD([w], lr=0.1, momentum=0.9, weight_decay=0.1).step()
    optim.Adam([w], lr=0.1, weight_decay=0.1).step()
    assert not w.isfinite().any()


def test_a_parameter_without_a_gradient_stays() -> None:
    used, unused = cr.ones(2, requires_grad=True), cr.ones(2, requires_grad=True)
    optimizer = optim.AdamW([used, unused], lr=0.1)
    used.sum().backward()
    optimizer.step()
    assert unused.tolist() == [1, 1]
    assert unused not in optimizer.state


def test_zero_grad_and_closure() -> None:
    w = cr.ones(2, requires_grad=True)
    optimizer = optim.SGD([w], lr=0.1)

    def closure() -> cr.Tensor:
        optimizer.zero_grad()
        loss = (w**2).sum()
        loss.backward()
        return loss

    with cr.no_grad():
        loss = optimizer.step(closure)
    assert loss.item() == 2
    assert w.tolist() == pytest.approx([0.8, 0.8])
    optimizer.zero_grad(set_to_none=False)
    assert w.grad is not None
    assert w.grad.tolist() == [0, 0]
    optimizer.zero_grad()
    assert w.grad is None


def test_a_step_makes_an_older_graph_stale() -> None:
    w = cr.ones(2, requires_grad=True)
    optimizer = optim.SGD([w], lr=0.1)
    loss = (w**2).sum()
    loss.backward()
    optimizer.step()
    with pytest.raises(StaleValueError):
        loss.backward()


def test_weights_stored_once_or_read_only_get_memory_of_their_own() -> None:
    array = np.ones(3, np.float32)
    array.flags.writeable = False
    w = cr.from_numpy(array).requires_grad_()
    w.sum().backward()
    optim.SGD([w], lr=1.0).step()
    assert w.tolist() == [0, 0, 0]
    assert array.tolist() == [1, 1, 1]
    with pytest.raises(InPlaceError, match="writable: this tensor was computed by mul"):
        (w * 2).writable()


@pytest.mark.parametrize("dtype", [cr.float16, cr.bfloat16, cr.float32])
@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_every_float_dtype_trains(name: str, dtype: Any) -> None:
    w = cr.ones(3, dtype=dtype, requires_grad=True)
    options = {"momentum": 0.9, "weight_decay": 0.1} if name == "SGD" else {"eps": 1e-3}
    optimizer = getattr(optim, name)([w], lr=0.1, **options)
    for _ in range(5):
        optimizer.zero_grad()
        (w * w).sum().backward()
        optimizer.step()
    assert w.dtype == dtype
    assert (w.float() < 1).all()


def test_what_cannot_be_trained_is_refused() -> None:
    w = cr.ones(2, requires_grad=True)
    with pytest.raises(ArgumentError, match="SGD: got no parameters; a generator is used up"):
        optim.SGD([])
    with pytest.raises(ArgumentError, match="got no parameters"):
        optim.SGD(nn.ReLU().parameters())
    with pytest.raises(DTypeError, match="got one tensor"):
        optim.Adam(w)  # type: ignore[arg-type]
    with pytest.raises(DTypeError, match=r"call it: model.parameters\(\)"):
        optim.Adam(nn.Linear(1, 1).parameters)  # type: ignore[arg-type]
    with pytest.raises(DTypeError, match="parameter 1 is no tensor: got NoneType"):
        optim.Adam([w, None])  # type: ignore[list-item]
    with pytest.raises(DTypeError, match=r"got tuple; pass model.parameters\(\)"):
        optim.Adam(nn.Linear(1, 1).named_parameters())  # type: ignore[arg-type]
    with pytest.raises(GradientError, match=r"parameter 0, float32\[2\], was computed by mul; only leaves"):
        optim.SGD([w * 2])
    with pytest.raises(ArgumentError, match=r"parameter 1, .* is given twice"):
        optim.SGD([w, w])
    with pytest.raises(ArgumentError, match="no option 'rate'; there are lr"):
        optim.SGD([{"params": [w], "rate": 1}])
    with pytest.raises(ArgumentError, match='a group is a dict with "params"'):
        optim.SGD([{"lr": 1}])
    with pytest.raises(ArgumentError, match="a group without parameters"):
        optim.SGD([{"params": []}])


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("SGD", {"lr": -1}, "expected 0 ≤ lr; got -1"),
        ("SGD", {"lr": float("nan")}, "expected 0 ≤ lr; got nan"),
        ("SGD", {"momentum": -1}, "0 ≤ momentum"),
        ("SGD", {"nesterov": True}, "nesterov needs momentum > 0"),
        ("Adam", {"betas": (0.9, 1.0)}, r"0 ≤ betas\[1\] < 1; got 1.0"),
        ("Adam", {"betas": 0.9}, "betas are two numbers"),
        ("AdamW", {"eps": -1}, "0 ≤ eps"),
        ("AdamW", {"weight_decay": -1}, "0 ≤ weight_decay"),
    ],
)
def test_options_outside_their_range(name: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ArgumentError, match=f"{name}: .*{says}" if "expected" not in says else says):
        getattr(optim, name)([cr.ones(1, requires_grad=True)], **options)


def test_a_state_that_does_not_fit_changes_nothing() -> None:
    w, v = cr.ones(2, requires_grad=True), cr.ones(3, requires_grad=True)
    saved = optim.Adam([w], lr=0.5)
    w.sum().backward()
    saved.step()
    other = optim.Adam([v], lr=0.1)
    with pytest.raises(ShapeError, match=r"Adam.load_state_dict: exp_avg is \[2\], its parameter float32\[3\]"):
        other.load_state_dict(saved.state_dict())
    assert other.param_groups[0]["lr"] == 0.1
    with pytest.raises(ArgumentError, match=r"groups of \[1\] parameters, this optimiser of \[2\]"):
        optim.Adam([w, v]).load_state_dict(saved.state_dict())
