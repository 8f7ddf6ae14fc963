"""The page the library grew from: two linear layers, a ReLU, a mean squared error, in the four styles it leads to.

All give PyTorch's gradients, in float64 to 1e-12 and in float32 to rounding.
"""

from math import sqrt

import numpy as np
import pytest
import torch

import chainrule as cr

DTYPES = [(cr.float64, 1e-12), (cr.float32, 2e-6)]


def arrays(dtype):
    rng = np.random.default_rng(0)
    shapes = {"x": (200, 100), "y": (200,), "w1": (100, 50), "b1": (50,), "w2": (50, 1), "b2": (1,)}
    drawn = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    drawn["w1"] *= sqrt(2 / 100)
    drawn["w2"] *= sqrt(2 / 50)
    drawn["b1"] *= 0
    drawn["b2"] *= 0
    return {name: array.astype(dtype) for name, array in drawn.items()}


WEIGHTS = ("w1", "b1", "w2", "b2")


def tensors(dtype):
    """The program's tensors; weights ask for a gradient."""
    made = {name: cr.tensor(array) for name, array in arrays(dtype).items()}
    return made | {name: made[name].requires_grad_() for name in WEIGHTS}


def pytorch(dtype):
    made = {name: torch.tensor(array, requires_grad=name in WEIGHTS) for name, array in arrays(dtype).items()}
    hidden = (made["x"] @ made["w1"] + made["b1"]).clamp_min(0.0)
    loss = ((hidden @ made["w2"] + made["b2"]).squeeze(-1) - made["y"]).pow(2).mean()
    loss.backward()
    return loss.item(), {name: made[name].grad.numpy() for name in WEIGHTS}


def lin(x, w, b):
    return x @ w + b


def relu(x):
    return x.clamp_min(0.0)


def mse(output, targ):
    return (output.squeeze(-1) - targ).pow(2).mean()


def in_functions(t):
    l1 = lin(t["x"], t["w1"], t["b1"])
    l2 = relu(l1)
    out = lin(l2, t["w2"], t["b2"])
    loss = mse(out, t["y"])
    loss.backward()
    return loss.item(), {name: t[name].grad.numpy() for name in WEIGHTS}


class Lin(cr.Function):
    @staticmethod
    def forward(ctx, x, w, b):
        ctx.save_for_backward(x, w)
        return x @ w + b

    @staticmethod
    def backward(ctx, g):
        x, w = ctx.saved_tensors
        return g @ w.t(), x.t() @ g, g.sum(0)


class Relu(cr.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp_min(0.0)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return (x > 0).to(g.dtype) * g


class Mse(cr.Function):
    @staticmethod
    def forward(ctx, output, targ):
        ctx.save_for_backward(output, targ)
        return (output.squeeze(-1) - targ).pow(2).mean()

    @staticmethod
    def backward(ctx, g):
        output, targ = ctx.saved_tensors
        return g * 2 * (output.squeeze(-1) - targ).unsqueeze(-1) / output.shape[0], None


def in_own_functions(t):
    hidden = Relu.apply(Lin.apply(t["x"], t["w1"], t["b1"]))
    loss = Mse.apply(Lin.apply(hidden, t["w2"], t["b2"]), t["y"])
    loss.backward()
    return loss.item(), {name: t[name].grad.numpy() for name in WEIGHTS}


class Net(cr.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = cr.nn.Sequential(cr.nn.Linear(100, 50), cr.nn.ReLU(), cr.nn.Linear(50, 1))

    def forward(self, x):
        return self.layers(x).squeeze(-1)


def in_modules(t):
    model = Net().to(t["x"].dtype)
    first, _, second = model.layers
    with cr.no_grad():
        for parameter, name in ((first.weight, "w1"), (second.weight, "w2")):
            parameter.copy_(t[name].t())
        for parameter, name in ((first.bias, "b1"), (second.bias, "b2")):
            parameter.copy_(t[name])
    assert len(list(model.parameters())) == 4
    loss = cr.nn.functional.mse_loss(model(t["x"]), t["y"])
    loss.backward()
    found = {"w1": first.weight.grad.T, "b1": first.bias.grad, "w2": second.weight.grad.T, "b2": second.bias.grad}
    return loss.item(), {name: g.numpy() for name, g in found.items()}


def by_hand(t):
    with cr.no_grad():
        x, y, w1, b1, w2, b2 = (t[name] for name in ("x", "y", *WEIGHTS))
        l1 = lin(x, w1, b1)
        l2 = relu(l1)
        out = lin(l2, w2, b2)
        loss = mse(out, y)
        out_g = 2 * (out.squeeze(-1) - y).unsqueeze(-1) / y.shape[0]
        l2_g = out_g @ w2.t()
        l1_g = l2_g * (l1 > 0).to(l1.dtype)
        found = {"w1": x.t() @ l1_g, "b1": l1_g.sum(0), "w2": l2.t() @ out_g, "b2": out_g.sum(0)}
    return loss.item(), {name: g.numpy() for name, g in found.items()}


@pytest.mark.parametrize("style", [in_functions, in_own_functions, in_modules, by_hand])
@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES, ids=["float64", "float32"])
def test_four_styles_give_pytorchs_gradients(style, dtype, tolerance):
    loss, found = style(tensors(dtype))
    expected_loss, expected = pytorch(dtype)
    assert loss == pytest.approx(expected_loss, rel=tolerance)
    for name in WEIGHTS:
        assert found[name].dtype == dtype
        np.testing.assert_allclose(found[name], expected[name], rtol=tolerance, atol=tolerance, err_msg=name)


# --- the training loop, by hand


def steps(count, lr, forget):
    """Losses of gradient descent, each step written out."""
    t = tensors(cr.float64)
    losses = []
    for _ in range(count):
        loss = mse(lin(relu(lin(t["x"], t["w1"], t["b1"])), t["w2"], t["b2"]), t["y"])
        loss.backward()
        with cr.no_grad():
            for name in WEIGHTS:
                w = t[name]
                w -= lr * w.grad
                forget(w)
        losses.append(loss.item())
    return losses


def pytorch_steps(count, lr):
    t = {name: torch.tensor(array, requires_grad=name in WEIGHTS) for name, array in arrays(np.float64).items()}
    optimiser = torch.optim.SGD([t[name] for name in WEIGHTS], lr)
    losses = []
    for _ in range(count):
        loss = mse(lin(relu(lin(t["x"], t["w1"], t["b1"])), t["w2"], t["b2"]), t["y"])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def zeroed(w):
    w.grad.zero_()


def forgotten(w):
    w.grad = None


@pytest.mark.parametrize("forget", [zeroed, forgotten])
def test_a_training_loop_by_hand_follows_pytorchs(forget):
    losses = steps(20, 0.05, forget)
    assert losses[-1] < 0.5 * losses[0]
    np.testing.assert_allclose(losses, pytorch_steps(20, 0.05), rtol=1e-11)


def test_the_program_as_a_newcomer_types_it():
    x, y = cr.randn(200, 100), cr.randn(200)
    w1 = (cr.randn(100, 50) * sqrt(2 / 100)).requires_grad_()
    b1 = cr.zeros(50, requires_grad=True)
    w2 = (cr.randn(50, 1) * sqrt(2 / 50)).requires_grad_()
    b2 = cr.zeros(1, requires_grad=True)
    loss = mse(lin(relu(lin(x, w1, b1)), w2, b2), y)
    loss.backward()
    assert [w.grad.shape for w in (w1, b1, w2, b2)] == [(100, 50), (50,), (50, 1), (1,)]
    before = loss.item()
    with cr.no_grad():
        for w in (w1, b1, w2, b2):
            w -= 0.05 * w.grad
            w.grad.zero_()
    assert mse(lin(relu(lin(x, w1, b1)), w2, b2), y).item() < before
