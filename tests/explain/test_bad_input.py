"""What explain says when it cannot explain: each its own error, each telling what to do."""

import numpy as np
import pytest

import chainrule as cr
from chainrule import errors


@pytest.fixture
def net():
    x = cr.randn(8, 3)
    w = cr.randn(3, 2, requires_grad=True)
    unused = cr.randn(2, requires_grad=True)
    out = x @ w
    loss = out.square().mean()
    return x, w, unused, out, loss


def refused(error, *parts):
    return pytest.raises(error, match="(?s)" + ".*".join(parts))


def test_a_loss_without_gradient(net):
    x, *_ = net
    with refused(errors.NoGradientError, "explain", "requires a gradient", "requires_grad"):
        cr.explain(x.sum(), wrt=x)


def test_a_loss_that_is_no_scalar(net):
    _, w, _, out, _ = net
    with refused(errors.NotScalarError, "a loss is a scalar", r"float32\[8,2\]", r"\.sum\(\)"):
        cr.explain(out, wrt=w)


def test_something_that_is_no_tensor(net):
    _, w, _, _, _ = net
    with refused(errors.ArgumentError, "expected a loss tensor", "float"):
        cr.explain(3.0, wrt=w)


def test_a_leaf_the_loss_does_not_use(net):
    *_, unused, _, loss = net
    with refused(errors.DisconnectedError, "does not depend on unused", "was not used"):
        cr.explain(loss, wrt=unused)


def test_a_constant(net):
    x, *_, loss = net
    with refused(errors.DisconnectedError, "does not depend on x", "does not require a gradient"):
        cr.explain(loss, wrt=x)


def test_a_link_broken_by_detach():
    w = cr.randn(3, requires_grad=True)
    other = cr.randn(3, requires_grad=True)
    h = w * 2
    loss = (h.detach() * other).sum()
    with refused(errors.DisconnectedError, "does not depend on w", "detach", "test_bad_input.py"):
        cr.explain(loss, wrt=w)


def test_a_link_broken_by_no_grad():
    w = cr.randn(3, requires_grad=True)
    other = cr.randn(3, requires_grad=True)
    with cr.no_grad():
        h = w * 2
    loss = (h * other).sum()
    with refused(errors.DisconnectedError, "no_grad", "h = w \\* 2"):
        cr.explain(loss, wrt=w)


def test_a_link_broken_by_argmax():
    w = cr.randn(3, requires_grad=True)
    other = cr.randn(3, requires_grad=True)
    best = w.argmax()
    loss = (other * best.to(cr.float32)).sum()
    with refused(errors.DisconnectedError, "argmax", "position"):
        cr.explain(loss, wrt=w)


def test_a_name_nobody_has(net):
    *_, loss = net
    with refused(errors.ArgumentError, "no value is called 'nope'", "w"):
        cr.explain(loss, wrt="nope")


def test_wrt_that_is_no_tensor(net):
    *_, loss = net
    with refused(errors.ArgumentError, "wrt must be a tensor or its name", "int"):
        cr.explain(loss, wrt=3)


@pytest.mark.parametrize(
    ("at", "says"),
    [((3, 0), "dimension 0 of w has size 3"), ((0,), "needs 2"), ((0, 0, 0), "needs 2"), ((0, -3), "size 2")],
)
def test_an_entry_out_of_range(net, at, says):
    _, w, _, _, loss = net
    with refused(errors.OutOfRangeError, "explain", says):
        cr.explain(loss, wrt=w, at=at)


def test_depth_and_notation(net):
    _, w, _, _, loss = net
    with refused(errors.ArgumentError, "depth must be 1 or more", "0"):
        cr.explain(loss, wrt=w, depth=0)
    with refused(errors.ArgumentError, "'leibniz' or 'composition'", "newton"):
        cr.explain(loss, wrt=w, notation="newton")


def test_after_an_update_in_place(net):
    _, w, _, _, loss = net
    loss.backward()
    with cr.no_grad():
        w -= 0.1 * w.grad
    # d loss/d w reads x and out, not w: the explanation would still be right for the gradient, but out of date for w.
    assert cr.explain(loss, wrt=w).value.shape == (3, 2)
    h = (w * w).sum()
    with cr.no_grad():
        w += 1.0
    with refused(errors.StaleValueError, "changed in place", "forward pass again"):
        cr.explain(h, wrt=w)


def test_save_needs_a_page(net, tmp_path):
    _, w, _, _, loss = net
    with refused(errors.ArgumentError, "ends in .html", "grad.txt"):
        cr.explain(loss, wrt=w).save(tmp_path / "grad.txt")
    assert list(tmp_path.iterdir()) == []


def test_backward_source_without_examples():
    def nowhere_called(a, b):
        return a * b

    with refused(errors.ArgumentError, "give example tensors", "nowhere_called"):
        cr.backward_source(nowhere_called)
    with refused(errors.ArgumentError, "style must be", "jax"):
        cr.backward_source(nowhere_called, cr.ones(2), cr.ones(2), style="jax")
    with refused(errors.ArgumentError, "expected a function or a loss", "int"):
        cr.backward_source(3)


def test_a_function_of_integers_only():
    with refused(errors.NoGradientError, "nothing that depends on a float argument"):
        cr.backward_source(lambda a: a * 2, cr.tensor([1, 2]))


class NumpyCube(cr.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.x = x.detach().numpy()
        return cr.tensor(ctx.x**3)

    @staticmethod
    def backward(ctx, g):
        return 3 * ctx.x**2 * np.asarray(g)


def test_a_backward_in_numpy_is_called_unchecked():
    a = cr.randn(4, requires_grad=True)
    loss = NumpyCube.apply(a).sum()
    explanation = cr.explain(loss, wrt=a)
    assert explanation.links[-1].formula is None
    assert "unchecked" in str(explanation)
    assert cr.check(loss).passed


class WrongCube(NumpyCube):
    @staticmethod
    def backward(ctx, g):
        return 3 * ctx.x**2 * np.asarray(g) / np.float32(32)


def test_a_wrong_backward_is_found_with_its_ratio():
    a = cr.randn(4, requires_grad=True)
    loss = (WrongCube.apply(a) * 2).sum()
    report = cr.check(loss)
    assert not report.passed
    assert [rule.op for rule in report.wrong] == ["WrongCube"]
    assert "1/32" in str(report)
    with pytest.raises(errors.DerivativeRuleError, match="WrongCube"):
        report.raise_for_errors()
