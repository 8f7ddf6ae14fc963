"""Functions of tensors that are composed of several ops, or choose among them: against NumPy and PyTorch."""

import numpy as np
import pytest
import torch

import chainrule as cr

X = np.random.default_rng(3).standard_normal((3, 4, 2))

# One line runs in both libraries: `x` is a tensor of either, `lib` the library.
LINES = [
    lambda x, lib: x.reshape(4, -1),
    lambda x, lib: x.reshape((2, 12)),
    lambda x, lib: x.view(-1),
    lambda x, lib: x.flatten(1),
    lambda x, lib: x.flatten(0, 1),
    lambda x, lib: x.unsqueeze(-1).squeeze(),
    lambda x, lib: x.unsqueeze(1).squeeze(1),
    lambda x, lib: x.squeeze(0),
    lambda x, lib: x.permute(2, 0, 1),
    lambda x, lib: x.transpose(0, -1),
    lambda x, lib: x.mT,
    lambda x, lib: x[0].t(),
    lambda x, lib: x[:, :1].expand(3, 5, 2),
    lambda x, lib: x[:1].expand(2, 3, -1, -1),
    lambda x, lib: x.flip(0, 2),
    lambda x, lib: lib.cat([x, x * 2], 1),
    lambda x, lib: lib.stack([x, x * 2], -1),
    lambda x, lib: x.split(3, 1)[1],
    lambda x, lib: x.split([1, 3], 1)[0],
    lambda x, lib: x.chunk(3, 1)[-1],
    lambda x, lib: x.narrow(1, 1, 2),
    lambda x, lib: x.cumsum(1),
    lambda x, lib: x.tril(),
    lambda x, lib: x.triu(1),
    lambda x, lib: x.sum(),
    lambda x, lib: x.sum(1),
    lambda x, lib: x.sum((0, 2), keepdim=True),
    lambda x, lib: x.mean(-1),
    lambda x, lib: x.mean((0, 1)),
    lambda x, lib: x.var(),
    lambda x, lib: x.var(1),
    lambda x, lib: x.var(1, correction=0),
    lambda x, lib: x.std(0, keepdim=True),
    lambda x, lib: x.norm(),
    lambda x, lib: x.prod(),
    lambda x, lib: x.prod(1),
    lambda x, lib: x.prod(0, keepdim=True),
    lambda x, lib: x.amax(1),
    lambda x, lib: x.amin((0, 2)),
    lambda x, lib: x.max(),
    lambda x, lib: x.min(),
    lambda x, lib: x.max(1).values,
    lambda x, lib: x.min(2, keepdim=True).values,
    lambda x, lib: lib.maximum(x, x * x),
    lambda x, lib: x.logsumexp(1),
    lambda x, lib: x.softmax(-1),
    lambda x, lib: x.log_softmax(0),
    lambda x, lib: x.sort(1).values,
    lambda x, lib: x.sort(0, descending=True).values,
    lambda x, lib: x.topk(2, 1).values,
    lambda x, lib: x.clamp(-0.5, 0.5),
    lambda x, lib: x.clamp(min=-0.5),
    lambda x, lib: x.clamp(max=0.5),
    lambda x, lib: x.clamp(x * 0, x * x),
    lambda x, lib: x.masked_fill(x > 0, 3.0),
    lambda x, lib: x.where(x > 0, x * x),
    lambda x, lib: lib.where(x > 0, x, 0.0),
    lambda x, lib: x.pow(3),
    lambda x, lib: x.abs() ** 0.5,
    lambda x, lib: 2.0**x,
    lambda x, lib: x.abs().pow(x),
    lambda x, lib: 1 - x,
    lambda x, lib: 1 / x,
    lambda x, lib: x @ x.mT,
    lambda x, lib: x % 0.7,
    lambda x, lib: x.exp().log1p(),
    lambda x, lib: x.sigmoid() * x.tanh(),
    lambda x, lib: x.relu(),
    lambda x, lib: x.square().rsqrt(),
    lambda x, lib: -x,
    lambda x, lib: lib.outer(x[0, 0], x[1, :, 0]),
    lambda x, lib: lib.dot(x[0, :, 0], x[1, :, 0]),
    lambda x, lib: lib.bmm(x, x.mT),
    lambda x, lib: x.to(x.dtype),
    lambda x, lib: x.clone() * 2,
    lambda x, lib: x.expand_as(x),
    lambda x, lib: x.contiguous(),
]


@pytest.mark.parametrize("line", LINES)
def test_a_line_gives_pytorchs_values_and_gradients(line):
    x, t = cr.tensor(X, requires_grad=True), torch.tensor(X, requires_grad=True)
    ours, theirs = line(x, cr), line(t, torch)
    assert ours.shape == tuple(theirs.shape)
    np.testing.assert_allclose(ours.detach().numpy(), theirs.detach().numpy(), rtol=1e-12, atol=1e-13)
    weights = np.cos(np.arange(theirs.numel())).reshape(theirs.shape)
    (ours * cr.tensor(weights)).sum().backward()
    (theirs * torch.tensor(weights)).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), t.grad.numpy(), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(
    "line",
    [
        lambda x, lib: x.argmax(),
        lambda x, lib: x.argmax(1),
        lambda x, lib: x.argmin(2, keepdim=True),
        lambda x, lib: x.max(1).indices,
        lambda x, lib: x.argsort(1),
        lambda x, lib: x.argsort(0, descending=True),
        lambda x, lib: x.topk(3, 1).indices,
        lambda x, lib: (x > 0).any(1),
        lambda x, lib: (x > -3).all(),
        lambda x, lib: x > x * x,
        lambda x, lib: x == x,
        lambda x, lib: (x > 0) & (x < 1),
        lambda x, lib: ~(x > 0),
        lambda x, lib: lib.logical_xor(x > 0, x < 1),
        lambda x, lib: x.isnan(),
        lambda x, lib: lib.logical_not(x),
        lambda x, lib: (x * 10).to(lib.int64),
        lambda x, lib: x.floor(),
        lambda x, lib: (x * 4).round(),
        lambda x, lib: (x * 10).to(lib.int64) // 3,
        lambda x, lib: (x * 10).to(lib.int64) % 3,
        lambda x, lib: 7 // x,
        lambda x, lib: x.sign(),
    ],
)
def test_a_line_without_gradient_gives_pytorchs_values(line):
    ours, theirs = line(cr.tensor(X), cr), line(torch.tensor(X), torch)
    np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    assert str(ours.dtype) == str(theirs.dtype).removeprefix("torch.")


def test_prod_at_zeros_has_the_right_gradient_of_every_order():
    data = np.array([2.0, 0.0, 3.0, 0.0])
    t = torch.tensor(data)
    np.testing.assert_array_equal(cr.grad(lambda x: x.prod())(cr.tensor(data)).numpy(), [0, 0, 0, 0])
    np.testing.assert_allclose(
        cr.hessian(lambda x: x.prod())(cr.tensor(data)).numpy(),
        torch.func.jacrev(torch.func.jacrev(lambda x: x.prod()))(t).numpy(),
    )


def test_pow_zero_at_zero_has_slope_zero():
    x = cr.zeros(2, requires_grad=True)
    x.pow(0).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [0, 0])


def test_scalars_have_every_function():
    x = cr.tensor(0.5)
    for function in (
        lambda t: t.sum(), lambda t: t.mean(), lambda t: t.prod(), lambda t: t.max(), lambda t: t.softmax(0),
        lambda t: t.cumsum(0),
        lambda t: t.squeeze(), lambda t: t.sort().values, lambda t: t.logsumexp(0), lambda t: t.flatten().squeeze(0),
        lambda t: t.amax(0),
    ):  # fmt: skip
        assert function(x).shape == ()


def test_empty_reductions_have_their_neutral_element():
    empty = cr.zeros(0, 3)
    np.testing.assert_array_equal(empty.sum(0).numpy(), [0, 0, 0])
    np.testing.assert_array_equal(empty.prod(0).numpy(), [1, 1, 1])
    assert np.isnan(empty.mean(0).numpy()).all()
    assert (empty.logsumexp(0).numpy() == -np.inf).all()
    assert not empty.any().item()
    assert empty.all().item()
