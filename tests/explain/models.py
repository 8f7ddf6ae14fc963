"""Programs whose explanations are tested: each returns a loss. Written as a user would, one style each."""

from math import sqrt

import chainrule as cr
from chainrule import nn


def lin(x, w, b):
    return x @ w + b


def relu(x):
    return x.clamp_min(0.0)


def mse(output, targ):
    return (output.squeeze(-1) - targ).pow(2).mean()


def weight(*shape):
    return (cr.randn(*shape) * sqrt(2 / shape[0])).requires_grad_()


def page():
    x, y = cr.randn(200, 100), cr.randn(200)
    w1, b1 = weight(100, 50), cr.zeros(50, requires_grad=True)
    w2, b2 = weight(50, 1), cr.zeros(1, requires_grad=True)
    l1 = lin(x, w1, b1)
    l2 = relu(l1)
    out = lin(l2, w2, b2)
    loss = mse(out, y)
    return loss


def tanh_three_layers():
    x, y = cr.randn(20, 6), cr.randn(20)
    w1, w2, w3 = weight(6, 5), weight(5, 4), weight(4, 1)
    h1 = (x @ w1).tanh()
    h2 = (h1 @ w2).tanh()
    out = h2 @ w3
    loss = mse(out, y)
    return loss


def softmax_cross_entropy():
    x, y = cr.randn(16, 8), cr.randint(0, 5, (16,))
    w, b = weight(8, 5), cr.zeros(5, requires_grad=True)

    def cross_entropy(z, y):
        return -z.log_softmax(-1).gather(1, y.reshape(-1, 1)).mean()

    z = lin(x, w, b)
    loss = cross_entropy(z, y)
    return loss


def weight_used_twice():
    x = cr.randn(9, 4)
    w = weight(4, 4)
    h = relu(x @ w)
    out = h @ w
    loss = out.square().sum()
    return loss


def modules():
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    x, y = cr.randn(12, 6), cr.randint(0, 3, (12,))
    pred = model(x)
    loss = nn.functional.cross_entropy(pred, y)
    return loss


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.inner = nn.Linear(width, width)

    def forward(self, x):
        return x + self.inner(x).tanh()


class Residual(nn.Module):
    def __init__(self, width, depth):
        super().__init__()
        self.blocks = nn.ModuleList([Block(width) for _ in range(depth)])
        self.head = nn.Linear(width, 1)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def residual():
    model = Residual(4, 3)
    x, y = cr.randn(10, 4), cr.randn(10)
    out = model(x)
    loss = mse(out, y)
    return loss


def attention():
    x = cr.randn(2, 5, 4)
    wq, wk, wv = weight(4, 4), weight(4, 4), weight(4, 4)
    q, k, v = x @ wq, x @ wk, x @ wv
    scores = q @ k.mT / 2.0
    p = scores.softmax(-1)
    out = p @ v
    loss = out.square().mean()
    return loss


def layer_norm_by_hand():
    x = cr.randn(6, 8)
    gain, bias, w = cr.ones(8, requires_grad=True), cr.zeros(8, requires_grad=True), weight(8, 8)

    def norm(x, gain, bias):
        centred = x - x.mean(-1, keepdim=True)
        return centred / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt() * gain + bias

    h = norm(x @ w, gain, bias)
    loss = h.sigmoid().log().mean()
    return loss


def embedding_and_pieces():
    table = weight(7, 3)
    ids = cr.tensor([0, 3, 3, 6])
    e = table[ids]
    left, right = e[:, :2], e[:, 1:]
    joined = cr.cat([left, right.flip(1)], 1)
    loss = (joined.cumsum(0).abs().amax(1) + e.norm()).sum()
    return loss


class Cube(cr.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 3 * x**2 * g


def own_function():
    a = cr.randn(5, requires_grad=True)
    b = a * 2
    c = Cube.apply(b)
    loss = c.sum()
    return loss


def loop_and_scalars():
    scale, x = cr.tensor(0.7, requires_grad=True), cr.randn(4, 4)
    h = x
    for _ in range(3):
        h = cr.sin(h @ x) * scale
    loss = cr.logsumexp(h, (0, 1)) / 3 - h.maximum(cr.zeros(4, 4)).prod()
    return loss


def largest_of_what_is_computed():
    w = weight(5, 4)

    def scores(x):
        return (x * x.tanh()).amax(-1)

    loss = scores(w).sum()
    return loss


ALL = (
    page, tanh_three_layers, softmax_cross_entropy, weight_used_twice, modules, residual, attention, layer_norm_by_hand,
    embedding_and_pieces, own_function, loop_and_scalars, largest_of_what_is_computed,
)  # fmt: skip
