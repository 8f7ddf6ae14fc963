"""Learning-rate schedules against PyTorch's, step for step."""

from typing import Any

import pytest
import torch

import chainrule as cr
from chainrule import optim
from chainrule.errors import ArgumentError, DTypeError


def pair(name: str = "SGD", **options: Any) -> tuple[Any, Any]:
    ours, theirs = cr.ones(1, requires_grad=True), torch.ones(1, requires_grad=True)
    others, their_others = cr.ones(1, requires_grad=True), torch.ones(1, requires_grad=True)
    a = getattr(optim, name)([{"params": [ours]}, {"params": [others], "lr": 0.3}], lr=0.1, **options)
    b = getattr(torch.optim, name)([{"params": [theirs]}, {"params": [their_others], "lr": 0.3}], lr=0.1, **options)
    return a, b


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("StepLR", {"step_size": 3}),
        ("StepLR", {"step_size": 4, "gamma": 0.5}),
        ("ExponentialLR", {"gamma": 0.9}),
        ("MultiStepLR", {"milestones": [8, 3, 20, 8]}),
        ("MultiStepLR", {"milestones": [0, 5], "gamma": 0.5}),
        ("LinearLR", {}),
        ("LinearLR", {"start_factor": 1.0, "end_factor": 0.0, "total_iters": 12}),
        ("CosineAnnealingLR", {"T_max": 10}),
        ("CosineAnnealingLR", {"T_max": 7, "eta_min": 0.01}),  # and up again, and down
        ("LambdaLR", {"lr_lambda": lambda t: 0.9**t}),
        ("LambdaLR", {"lr_lambda": [lambda t: 1 / (1 + t), lambda t: 2.0]}),
        ("OneCycleLR", {"max_lr": 1.0, "total_steps": 30, "cycle_momentum": False}),
        ("OneCycleLR", {"max_lr": [1.0, 2.0], "epochs": 5, "steps_per_epoch": 6, "cycle_momentum": False}),
        (
            "OneCycleLR",
            {"max_lr": 1.0, "total_steps": 30, "pct_start": 0.5, "anneal_strategy": "linear", "cycle_momentum": False},
        ),
        (
            "OneCycleLR",
            {"max_lr": 1.0, "total_steps": 31, "div_factor": 10, "final_div_factor": 50, "cycle_momentum": False},
        ),
    ],
)
def test_rates_are_pytorchs(name: str, options: dict[str, Any]) -> None:
    ours, theirs = pair()
    a, b = getattr(optim, name)(ours, **options), getattr(torch.optim.lr_scheduler, name)(theirs, **options)
    for _ in range(29):
        assert a.get_last_lr() == pytest.approx(b.get_last_lr(), rel=1e-9)
        assert [g["lr"] for g in ours.param_groups] == a.get_last_lr()
        theirs.step()
        a.step()
        b.step()


def test_pytorchs_namespace_holds_the_same_classes() -> None:
    for name in optim.lr_scheduler.__all__:
        assert getattr(optim.lr_scheduler, name) is getattr(optim, name)


@pytest.mark.parametrize(("name", "options"), [("SGD", {"momentum": 0.9}), ("Adam", {})])
def test_one_cycle_moves_the_momentum(name: str, options: dict[str, Any]) -> None:
    ours, theirs = pair(name, **options)
    a = optim.OneCycleLR(ours, max_lr=1.0, total_steps=20)
    b = torch.optim.lr_scheduler.OneCycleLR(theirs, max_lr=1.0, total_steps=20)
    for _ in range(19):
        for mine, other in zip(ours.param_groups, theirs.param_groups, strict=True):
            if name == "SGD":
                assert mine["momentum"] == pytest.approx(other["momentum"])
            else:
                assert mine["betas"] == pytest.approx(other["betas"])
        theirs.step()
        a.step()
        b.step()


def test_a_saved_schedule_goes_on() -> None:
    first, _ = pair()
    a = optim.StepLR(first, step_size=2)
    for _ in range(5):
        a.step()
    second, _ = pair()
    b = optim.StepLR(second, step_size=2)
    b.load_state_dict(a.state_dict())
    assert b.get_last_lr() == a.get_last_lr()
    assert second.param_groups[0]["lr"] == first.param_groups[0]["lr"]


def test_what_does_not_fit_is_refused() -> None:
    optimizer, _ = pair()
    with pytest.raises(DTypeError, match="StepLR: expected an optimiser; got float"):
        optim.StepLR(0.1, 3)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="step_size must be ≥ 1"):
        optim.StepLR(optimizer, 0)
    for options, says in (({"start_factor": 0.0}, "start_factor"), ({"end_factor": 2.0}, "end_factor")):
        with pytest.raises(ArgumentError, match=f"{says}: 0"):
            optim.LinearLR(optimizer, **options)
    with pytest.raises(ArgumentError, match="total_iters must be ≥ 1; got 0"):
        optim.LinearLR(optimizer, total_iters=0)
    with pytest.raises(ArgumentError, match="T_max must be ≥ 1"):
        optim.CosineAnnealingLR(optimizer, 0)
    with pytest.raises(ArgumentError, match="1 functions for 2 groups"):
        optim.LambdaLR(optimizer, [lambda t: 1.0])
    with pytest.raises(ArgumentError, match="give total_steps"):
        optim.OneCycleLR(optimizer, 1.0)
    with pytest.raises(ArgumentError, match="pct_start is a share"):
        optim.OneCycleLR(optimizer, 1.0, 10, pct_start=2)
    with pytest.raises(ArgumentError, match="anneal_strategy must be"):
        optim.OneCycleLR(optimizer, 1.0, 10, anneal_strategy="poly")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="3 values of max_lr for 2 groups"):
        optim.OneCycleLR(optimizer, [1.0, 1.0, 1.0], 10)
    cycle = optim.OneCycleLR(optimizer, 1.0, 2)
    cycle.step()
    cycle.step()  # after the last batch: loops end with it
    with pytest.raises(ArgumentError, match="step 3 lies beyond the cycle of 2 steps"):
        cycle.step()
