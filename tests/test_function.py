"""cr.Function: a user's own forward and backward, as PyTorch's autograd.Function."""

import numpy as np
import pytest
import torch

import chainrule as cr


class Exp(cr.Function):
    """Saves its output."""

    @staticmethod
    def forward(ctx, x):
        out = x.exp()
        ctx.save_for_backward(out)
        return out

    @staticmethod
    def backward(ctx, g):
        (out,) = ctx.saved_tensors
        return g * out


class Linear(cr.Function):
    """Three tensors, one of them without a gradient, and a number."""

    @staticmethod
    def forward(ctx, x, w, b, scale):
        ctx.save_for_backward(x, w)
        ctx.scale = scale
        return (x @ w) * scale + b

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        to_x = g @ w.T * ctx.scale if ctx.needs_input_grad[0] else None
        return to_x, x.T @ g * ctx.scale, g.sum(0), None


class InNumPy(cr.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.value = x.detach().numpy()
        return cr.from_numpy(np.sin(ctx.value))

    @staticmethod
    def backward(ctx, g):
        return g.numpy() * np.cos(ctx.value)


def test_gradients_of_several_inputs_against_torch():
    x = cr.randn(4, 3, dtype=cr.float64)
    w, b = cr.randn(3, 2, dtype=cr.float64, requires_grad=True), cr.zeros(2, dtype=cr.float64, requires_grad=True)
    Linear.apply(x, w, b, 3.0).sin().sum().backward()
    tw, tb = (torch.tensor(t.detach().numpy(), requires_grad=True) for t in (w, b))
    ((torch.tensor(x.numpy()) @ tw) * 3 + tb).sin().sum().backward()
    np.testing.assert_allclose(w.grad.numpy(), tw.grad.numpy(), rtol=1e-12)
    np.testing.assert_allclose(b.grad.numpy(), tb.grad.numpy(), rtol=1e-12)
    assert x.grad is None


def test_a_saved_output_is_differentiated_again():
    x = cr.tensor(0.5, dtype=cr.float64)
    assert cr.grad(Exp.apply)(x).item() == pytest.approx(np.exp(0.5), rel=1e-15)
    assert cr.grad(cr.grad(Exp.apply))(x).item() == pytest.approx(np.exp(0.5), rel=1e-15)
    assert cr.grad(cr.grad(cr.grad(Exp.apply)))(x).item() == pytest.approx(np.exp(0.5), rel=1e-15)


def test_a_backward_in_numpy():
    x = cr.tensor([0.1, 2.0], dtype=cr.float64, requires_grad=True)
    InNumPy.apply(x).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), np.cos([0.1, 2.0]))


def test_the_forward_is_not_recorded():
    x = cr.ones(3, requires_grad=True)
    out = Exp.apply(x)
    assert out.op.name == "Exp"
    assert out.inputs == (x,) or out.inputs[0] is x


def test_under_no_grad_and_without_gradients_nothing_is_recorded():
    with cr.no_grad():
        assert not Exp.apply(cr.ones(3, requires_grad=True)).requires_grad
    assert not Exp.apply(cr.ones(3)).requires_grad


def test_none_stops_the_gradient():
    class Stop(cr.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, g):
            return None

    x = cr.ones(3, requires_grad=True)
    (Stop.apply(x) + x).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [1, 1, 1])


def test_an_output_that_is_the_input_itself():
    class Same(cr.Function):
        @staticmethod
        def forward(ctx, x):
            return x

        @staticmethod
        def backward(ctx, g):
            return g * 3

    x = cr.ones(3, requires_grad=True)
    Same.apply(x).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [3, 3, 3])


@pytest.mark.parametrize("function", [Exp, InNumPy])
def test_the_stale_check_knows_what_was_saved(function):
    x = cr.ones(3, dtype=cr.float64, requires_grad=True)
    loss = function.apply(x).sum()
    with cr.no_grad():
        x.zero_()
    loss.backward()  # neither saved its input as a tensor


def test_a_changed_saved_input_is_stale():
    x, w = cr.ones(2, 3), cr.ones(3, 2, requires_grad=True)
    loss = Linear.apply(x, w, cr.zeros(2), 1.0).sum()
    x.zero_()
    with pytest.raises(cr.errors.StaleValueError, match="Linear"):
        loss.backward()


def test_options_by_name():
    class Scale(cr.Function):
        @staticmethod
        def forward(ctx, x, by=1.0):
            ctx.by = by
            return x * by

        @staticmethod
        def backward(ctx, g):
            return g * ctx.by

    x = cr.ones(2, requires_grad=True)
    Scale.apply(x, by=4.0).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [4, 4])
