"""Why no gradient arrives, in words, with the line that broke the link."""

import chainrule as cr
from chainrule.autodiff.broken import broken_link, no_gradient_reason


def leaf(*shape):
    return cr.ones(*shape, requires_grad=True)


def test_a_detached_value_is_named_with_its_line():
    w, v = leaf(3), leaf(3)
    hidden = (w * 2).detach()
    loss = (hidden * v).sum()
    said = broken_link(loss, w, "w")
    assert said.startswith("the loss does not depend on w, so its gradient is None")
    assert "detach" in said


def test_a_comparison_is_named_with_its_reason():
    w, v = leaf(3), leaf(3)
    gate = w > 0
    loss = (v * gate.float()).sum()
    said = broken_link(loss, w, "w")
    assert "gt: its output is true or false, which has no slope" in said
    assert "gate = w > 0" in said


def test_no_grad_is_named_through_later_steps():
    w, v = leaf(3), leaf(3)
    with cr.no_grad():
        hidden = w * 2
    loss = ((hidden + 1).exp() * v).sum()
    said = broken_link(loss, w, "w")
    assert "no_grad()" in said
    assert "hidden = w * 2" in said


def test_a_tensor_that_was_not_used_or_does_not_ask():
    w, v = leaf(3), leaf(3)
    assert "was not used to compute it" in broken_link(v.sum(), w, "w")
    data = cr.ones(3)
    assert "does not require a gradient; call .requires_grad_()" in broken_link((data * v).sum(), data, "data")


def test_a_constant_says_what_to_do():
    assert "requires_grad=True" in no_gradient_reason(cr.ones(3).sum())
    assert "the link is broken here: argmax" in no_gradient_reason(leaf(3).argmax())
