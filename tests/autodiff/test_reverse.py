"""The walk back: who receives what, once, in memory of its own, at a cost linear in the graph."""

import gc
import sys
import weakref

import numpy as np
import pytest
import torch

import chainrule as cr
from chainrule.autodiff.reverse import gradients, pull, residuals
from chainrule.core.family import Op


def leaf(*shape):
    return cr.randn(*shape, dtype=cr.float64, requires_grad=True)


def counted(monkeypatch):
    """The names of the ops whose rule ran."""
    names = []
    rule = Op.vjp
    monkeypatch.setattr(Op, "vjp", lambda op, g, out, needed: names.append(op.name) or rule(op, g, out, needed))
    return names


def test_a_shared_input_receives_the_sum_of_its_uses():
    x = leaf(3)
    (x * x + x.sin() * 3 + x).sum().backward()
    expected = 2 * x.detach().numpy() + 3 * np.cos(x.detach().numpy()) + 1
    np.testing.assert_allclose(x.grad.numpy(), expected, rtol=1e-14)


def test_one_input_in_both_places_of_an_op():
    x = leaf(3, 3)
    (x @ x).sum().backward()
    theirs = torch.tensor(x.detach().numpy(), requires_grad=True)
    (theirs @ theirs).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), theirs.grad.numpy(), rtol=1e-13)


def test_an_unused_input_receives_nothing():
    used, unused = leaf(2), leaf(2)
    used.sum().backward()
    assert unused.grad is None


def test_a_branch_that_the_loss_does_not_use_is_not_walked(monkeypatch):
    x = leaf(3)
    x.exp().log().sin()
    names = counted(monkeypatch)
    (x * 2).sum().backward()
    assert names == ["sum", "mul"]


def test_only_the_side_that_needs_a_gradient_is_computed(monkeypatch):
    x, data = leaf(3), cr.ones(3, dtype=cr.float64)
    heavy = data.exp()
    names = counted(monkeypatch)
    (x * heavy).sum().backward()
    assert names == ["sum", "mul"]


def test_gradients_accumulate_over_backward_passes():
    x = leaf(4)
    loss = (x * x).sum()
    loss.backward()
    once = x.grad.numpy().copy()
    loss.backward()
    np.testing.assert_array_equal(x.grad.numpy(), 2 * once)
    x.grad.zero_()
    loss.backward()
    np.testing.assert_array_equal(x.grad.numpy(), once)
    x.grad = None
    loss.backward()
    np.testing.assert_array_equal(x.grad.numpy(), once)


def test_backward_from_a_leaf_and_from_a_cotangent():
    x = leaf()
    x.backward()
    assert x.grad.item() == 1
    y = leaf(2, 2)
    (y * 3).backward(np.array([[1.0, 0.0], [0.0, 2.0]]))
    np.testing.assert_array_equal(y.grad.numpy(), [[3, 0], [0, 6]])


def test_backward_keeps_the_graph_for_who_reads_it_later():
    x = leaf(3)
    loss = x.tanh().sum()
    loss.backward()
    assert loss.op.name == "sum"
    assert loss.inputs[0].op.name == "tanh"


def test_no_graph_hangs_on_a_gradient():
    x = leaf(3)
    x.exp().sum().backward()
    assert x.grad.op is None
    assert not x.grad.requires_grad


def test_two_gradients_never_share_memory():
    a, b, c = leaf(3), leaf(3), leaf(3, 1)
    (a + b + c.squeeze(-1)).sum().backward()
    grads = [t.grad.numpy() for t in (a, b, c)]
    for i, one in enumerate(grads):
        assert one.flags.writeable
        assert one.flags.owndata
        assert not any(np.shares_memory(one, other) for other in grads[i + 1 :])
    a.grad.zero_()
    np.testing.assert_array_equal(b.grad.numpy(), np.ones(3))


def test_a_gradient_never_shares_memory_with_the_cotangent_given():
    x = leaf(3)
    g = np.ones(3)
    (x + 0).backward(g)
    x.grad.add_(1)
    np.testing.assert_array_equal(g, np.ones(3))


# --- depth


def chain(depth):
    x = cr.tensor(1.0, requires_grad=True)
    y = x
    for _ in range(depth):
        y = y * 1.0
    return x, y


def work(depth):
    """Python calls made by one backward pass of a chain."""
    _, y = chain(depth)
    calls = 0

    def count(frame, event, argument):
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        y.backward()
    finally:
        sys.setprofile(None)
    return calls


def test_a_chain_ten_thousand_deep_runs_each_rule_once(monkeypatch):
    x, y = chain(10_000)
    names = counted(monkeypatch)
    y.backward()
    assert x.grad.item() == 1
    assert len(names) == 10_000


def test_the_work_of_a_backward_pass_is_linear_in_its_depth():
    assert work(10_000) < 10.1 * work(1_000)


def test_a_deep_graph_is_freed_without_overflow():
    x, y = chain(10_000)
    alive = weakref.ref(y)
    del x, y
    gc.collect()
    assert alive() is None


def test_doubling_a_value_many_times_is_not_walked_path_by_path(monkeypatch):
    x = cr.tensor(1.0, dtype=cr.float64, requires_grad=True)
    y = x
    for _ in range(60):
        y = y + y  # 2⁶⁰ paths, 60 nodes
    names = counted(monkeypatch)
    y.backward()
    assert len(names) == 60
    assert x.grad.item() == 2.0**60


# --- values changed in place


def test_a_stale_value_is_an_error_and_never_a_wrong_gradient():
    x = leaf(3)
    loss = (x * x).sum()
    with cr.no_grad():
        x += 1
    with pytest.raises(cr.errors.StaleValueError, match="mul"):
        loss.backward()
    assert x.grad is None


VIEWS = [
    lambda t: t.reshape(3, 1), lambda t: t[1:], lambda t: t.expand(2, 3), lambda t: t.detach(),
    lambda t: cr.from_numpy(t.detach().numpy()), lambda t: t.detach()[::2].detach(),
]  # fmt: skip


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_of_a_changed_leaf_is_stale_too(view):
    x, w = leaf(3), leaf(1)
    loss = (view(x) * w).sum()
    with cr.no_grad():
        x.zero_()
    with pytest.raises(cr.errors.StaleValueError):
        loss.backward()
    assert w.grad is None


@pytest.mark.parametrize("view", VIEWS[3:])
def test_a_leaf_changed_through_a_view_is_stale_too(view):
    x, w = leaf(3), leaf(1)
    loss = (x * w).sum()
    view(x).zero_()
    with pytest.raises(cr.errors.StaleValueError):
        loss.backward()


def test_a_change_beside_a_value_in_the_same_memory_is_fine():
    flat = np.arange(6.0)
    one, other = cr.from_numpy(flat[:3]).requires_grad_(), cr.from_numpy(flat[3:])
    loss = (one * one).sum()
    other.zero_()
    loss.backward()
    np.testing.assert_array_equal(one.grad.numpy(), [0, 2, 4])


def test_buffers_updated_during_the_forward_pass_are_fine():
    x, running = leaf(3), cr.zeros(3, dtype=cr.float64)
    centred = x - x.mean()
    with cr.no_grad():
        running.mul_(0.9).add_(centred)
    (centred * centred).sum().backward()
    assert x.grad is not None


def test_a_change_that_no_rule_reads_is_fine():
    x, bias = cr.ones(2, 3, dtype=cr.float64), leaf(3)
    loss = ((x + bias) * 2).sum()
    with cr.no_grad():
        bias += 1
    loss.backward()
    np.testing.assert_array_equal(bias.grad.numpy(), [4, 4, 4])


def test_a_rule_that_reads_its_output_is_not_stale_when_its_input_changed():
    x = leaf(3)
    y = x.exp()
    value = y.detach().numpy().copy()
    with cr.no_grad():
        x.zero_()
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), value)


def test_a_change_before_the_forward_pass_is_no_change():
    x = leaf(3)
    with cr.no_grad():
        x.fill_(2.0)
    (x * x).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [4, 4, 4])


def test_a_change_through_numpy_memory_is_the_users_to_answer_for():
    data = np.ones(3)
    x = cr.from_numpy(data)
    data[0] = 5
    assert x[0].item() == 5


def test_residuals_are_what_the_rule_mentions():
    x, y = leaf(3), leaf(3)
    assert list(residuals(x * y)) == [x, y] or {id(v) for v in residuals(x * y)} == {id(x), id(y)}
    assert list(residuals(x + y)) == []
    out = x.tanh()
    assert [v is out for v in residuals(out)] == [True]
    assert [v is x for v in residuals(x.sin())] == [True]


# --- the engine's own interface


def test_pull_gives_what_was_asked_for_and_nothing_else():
    x, y = leaf(3), leaf(3)
    middle = x * y
    out = middle.sum()
    found = pull([(out, cr.Tensor.filled(out.aval, 1.0))], [middle, x])
    np.testing.assert_array_equal(found[id(middle)].numpy(), np.ones(3))
    np.testing.assert_array_equal(found[id(x)].detach().numpy(), y.detach().numpy())
    assert id(y) not in found


def test_a_reader_sees_every_link():
    x = leaf(3)
    out = x.exp().sum()
    seen = []
    pull([(out, cr.Tensor.filled(out.aval, 1.0))], [x], lambda node, g, sent: seen.append((node.op.name, len(sent))))
    assert seen == [("sum", 1), ("exp", 1)]


def test_gradients_names_leaves_once():
    x = leaf(3)
    found = gradients((x * x + x).sum(), cr.tensor(1.0, dtype=cr.float64))
    assert [t is x for t, _ in found] == [True]
