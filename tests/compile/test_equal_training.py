"""A hundred steps of training, compiled, are those of the eager run: every loss, and the state at the end.

Training amplifies rounding, and the more so the less smooth a model is: a relu that opens a rounding earlier sends its
gradient a step earlier. What is allowed at the end says how much.
"""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from equality import compiled

import chainrule as cr

nn, F = cr.nn, cr.nn.functional
STEPS = 100
SMOOTH = 1e-9  # of float64 after 100 steps
KINKED = 1e-7  # of float64, with relu and max pooling
SINGLE = 2e-3  # of float32


class Block(nn.Module):
    """A transformer block, its norms first."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: cr.Tensor) -> cr.Tensor:
        h = self.norms[0](x)
        x = x + self.attention(h, h, h, need_weights=False)[0]
        return x + self.narrow(F.gelu(self.wide(self.norms[1](x))))


def perceptron(*sizes: int, dropout: float = 0.0) -> nn.Module:
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b), nn.ReLU(), *([nn.Dropout(dropout)] if dropout else [])]
    return nn.Sequential(*layers[: -2 if dropout else -1])


def lenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip


class Tabular(nn.Module):
    """Columns of categories as vectors, columns of numbers normalised, and layers with a batch norm each."""

    def __init__(self, momentum: float | None = 0.1) -> None:
        super().__init__()
        self.tables = nn.ModuleList([nn.Embedding(n, (n + 1) // 2) for n in (5, 9)])
        self.norm = nn.BatchNorm1d(4, momentum=momentum)
        layers = [nn.Linear(12, 24, bias=False), nn.BatchNorm1d(24, momentum=momentum), nn.ReLU(), nn.Linear(24, 10)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: cr.Tensor) -> cr.Tensor:
        found = [table(x[:, n].abs().mul(3).long() % 5) for n, table in enumerate(self.tables)]
        return self.layers(cr.cat([*found, self.norm(x[:, 2:])], 1))


def images_normed() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3), nn.GroupNorm(4, 8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.InstanceNorm2d(8, affine=True),
        nn.Flatten(), nn.Linear(8 * 4, 10),
    )  # fmt: skip


def regression(x, out):
    return F.mse_loss(out, (x.reshape(len(x), -1).sum(1, keepdim=True) * 0.1).sin().expand(*out.shape))


def sequence(x, out):
    return F.mse_loss(out, x.flip(1))


def labels(x, out):
    return F.cross_entropy(out, ((x.reshape(len(x), -1).sum(1) * 3.7).int().to(cr.int64) % 10 + 10) % 10)


def sgd(p):
    return cr.optim.SGD(p, lr=0.05)


MODELS = {
    "regression": (lambda: perceptron(100, 50, 1), (200, 100), regression, sgd),
    "784-50-10": (lambda: perceptron(784, 50, 10), (64, 784), labels, sgd),
    "784-128-128-10": (lambda: perceptron(784, 128, 128, 10), (96, 784), labels, sgd),
    "lenet": (lenet, (16, 1, 28, 28), labels, sgd),
    "tabular": (Tabular, (64, 6), labels, lambda p: cr.optim.AdamW(p, lr=1e-2)),
    "cumulative": (lambda: Tabular(momentum=None), (64, 6), labels, sgd),
    "images, normed": (images_normed, (20, 3, 12, 12), labels, sgd),
    "transformer": (lambda: Block(32, 4), (2, 16, 32), sequence, sgd),
    "momentum": (
        lambda: perceptron(100, 50, 1, dropout=0.2), (200, 100), regression,
        lambda p: cr.optim.SGD(p, lr=0.02, momentum=0.9, nesterov=True, weight_decay=1e-3),
    ),
    "adam": (lambda: perceptron(100, 50, 1, dropout=0.2), (200, 100), regression, lambda p: cr.optim.Adam(p, lr=1e-3)),
    "adamw": (lambda: perceptron(100, 50, 1, dropout=0.2), (200, 100), regression, lambda p: cr.optim.AdamW(p)),
    "rmsprop": (lambda: perceptron(100, 50, 1), (200, 100), regression, lambda p: cr.optim.RMSprop(p, lr=1e-3)),
    "adagrad": (lambda: perceptron(100, 50, 1), (200, 100), regression, lambda p: cr.optim.Adagrad(p, lr=1e-2)),
}  # fmt: skip


def trained(name: str, dtype: np.dtype, wrap: Callable) -> tuple[np.ndarray, list[np.ndarray]]:
    """The losses of each step, and the weights and running statistics at the end."""
    make, shape, loss_of, optimizer_of = MODELS[name]
    cr.manual_seed(1)
    model = make().to(dtype)
    optimizer = optimizer_of(model.parameters())
    data = [cr.randn(*shape, dtype=dtype) for _ in range(4)]

    @wrap
    def step(x):
        optimizer.zero_grad()
        loss = loss_of(x, model(x))
        loss.backward()
        optimizer.step()
        return loss

    cr.manual_seed(2)  # of dropout
    losses = [step(data[n % len(data)]).item() for n in range(STEPS)]
    return np.array(losses), [p.numpy().astype(np.float64) for p in model.state_dict().values()]


# In float32 not "tabular": a shift before a batch norm has the gradient 0, and AdamW steps by the sign of its rounding.
@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *((name, cr.float64) for name in MODELS),
        *((name, cr.float32) for name in ("regression", "cumulative", "transformer", "adam")),
    ],
)
def test_a_hundred_steps(name, dtype):
    eager_losses, eager = trained(name, dtype, lambda f: f)
    losses, state = trained(name, dtype, compiled)
    assert eager_losses[-1] < eager_losses[0]
    allowed = SINGLE if dtype == cr.float32 else SMOOTH if name == "transformer" else KINKED
    np.testing.assert_allclose(losses, eager_losses, rtol=allowed, atol=allowed)
    for w, e in zip(state, eager, strict=True):
        np.testing.assert_allclose(w, e, rtol=allowed, atol=allowed * max(1.0, np.abs(e).max()))


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("layer", [nn.BatchNorm1d, nn.BatchNorm2d])
def test_training_and_evaluation_take_turns(layer, momentum):
    cr.manual_seed(0)
    models = [nn.Sequential(layer(3, momentum=momentum), nn.ReLU()).double() for _ in range(2)]
    eager, step = models[0], compiled(lambda x: models[1](x))
    shape = (8, 3) if layer is nn.BatchNorm1d else (4, 3, 5, 5)
    for number, training in enumerate([True, True, False, True, False, False, True]):
        x = cr.randn(*shape, dtype=cr.float64) + number
        for model in models:
            model.train(training)
        np.testing.assert_allclose(step(x).numpy(), eager(x).detach().numpy(), rtol=1e-11, atol=1e-12)
        for a, b in zip(*(model.state_dict().values() for model in models), strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-12)
    assert step.traces == 2  # one for each mode


def test_a_step_that_is_explained_moves_no_statistic():
    norm = nn.BatchNorm1d(3)

    @cr.compile
    def step(x):
        out = norm(x)
        loss = out.square().sum() + out.sin().sum()
        loss.backward()
        return loss

    loss = step(cr.randn(8, 3))
    before = [b.numpy().copy() for b in norm.buffers()]
    assert "DIFFERS" not in str(cr.explain(loss, wrt=norm.weight))
    for found, kept in zip(norm.buffers(), before, strict=True):
        np.testing.assert_array_equal(found.numpy(), kept)
