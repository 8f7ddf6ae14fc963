"""Rules and gradients held against differences: what is wrong is found, what is not wrong is not called so."""

from dataclasses import replace

import numpy as np
import pytest

import chainrule as cr
from chainrule.autodiff.check import check_rules, gradient_in_double
from chainrule.core.node import apply
from chainrule.ops import elementwise


def ties(seed=0):
    """Of values that are nearly all 0, as those behind a ReLU: the largest of each row is one of several."""
    x = np.maximum(np.random.default_rng(seed).standard_normal((20, 5)) - 1.5, 0)
    return cr.tensor(x, requires_grad=True)


KINKS = {
    "the largest of equals": lambda x: x.amax(1),
    "the larger of equals": lambda x: cr.maximum(x, x.detach()),
    "0 of a ReLU": lambda x: x.relu(),
    "0 of a magnitude": lambda x: x.abs(),
    "a sorted row of equals": lambda x: x.sort(1)[0],
}


@pytest.mark.parametrize("kink", KINKS)
def test_a_choice_at_a_kink_is_not_wrong(kink):
    report = check_rules(KINKS[kink](ties()).sum())
    assert report.passed, report
    assert len(report.rules) >= 2


def test_zeros_alone_are_a_kink_too():
    x = cr.zeros(4, 5, requires_grad=True)
    assert check_rules(x.relu().amax(1).sum()).passed


def test_a_wrong_rule_is_found_at_a_kink_too():
    (slope,) = elementwise.relu.partials
    wrong = replace(elementwise.relu, name="doubled", partials=(lambda *given, **params: slope(*given, **params) * 2,))
    x = cr.tensor(np.array([0.0, 0.0, 1.0, -1.0, 0.0]), requires_grad=True)
    report = check_rules(apply(wrong, (x,)).sum())
    assert [rule.op for rule in report.wrong] == ["doubled"]


def test_rounding_is_told_apart_from_errors():
    x = cr.randn(6, 6, requires_grad=True)
    far = (x @ x.mT).masked_fill(cr.eye(6).bool(), -1e9) / 0.1
    report = check_rules(far.logsumexp(1).sum())
    assert report.passed
    assert "rounding" in [rule.hidden for rule in report.rules]
    head = str(report).splitlines()[0]
    assert "rounding hides more" in head
    assert float(head.split("largest relative error ")[1].split(",")[0]) < 1e-6


def test_steps_that_nearly_meet_a_value_are_kinks():
    x = cr.tensor([1.0, 2.0, 0.0, -1.5], requires_grad=True)
    report = check_rules((x.floor() * x).sum())
    assert report.passed
    assert [rule.hidden for rule in report.rules if rule.op == "floor"] == ["kink"]
    assert str(report).endswith("without 1 across a kink")


def test_the_gradient_in_float64_is_that_of_a_run_in_float64():
    x, w = cr.randn(5, 3), cr.randn(3, 2, requires_grad=True)
    found = gradient_in_double((x @ w).tanh().to(cr.float32).square().mean(), w)
    wide = w.detach().double().requires_grad_()
    (x.double() @ wide).tanh().square().mean().backward()
    np.testing.assert_allclose(found, wide.grad.numpy(), rtol=1e-14)


def test_kinks_nearly_everywhere_are_not_called_an_error():
    """A difference of 1e-6 moves many of these across 0."""
    cr.manual_seed(0)
    x, v = cr.randn(30, 4), cr.randn(50)
    w = (cr.randn(4, 50) * 1e-6).requires_grad_()
    explanation = cr.explain(((x @ w).relu() * v).sum(), wrt=w)
    assert explanation.checked.error < 1e-2
    assert "DIFFERS" not in str(explanation)


def test_rounding_of_the_run_is_told_as_such():
    """Of numbers near 1 a float32 keeps seven digits, and of their differences none."""
    cr.manual_seed(0)
    x, w = cr.randn(400, 3), cr.randn(3, requires_grad=True)
    z = (x @ w) * 1e-7 + 1.0
    explanation = cr.explain(((z - 1.0) * 1e7).square().mean(), wrt=w)
    assert explanation.checked.agrees
    assert "rounding of float32: in float64 the same rules give" in " ".join(str(explanation).split())
