"""Training steps and functions that the tests of the compiler look into."""

from collections.abc import Callable
from typing import Any

import numpy as np

import chainrule as cr
from chainrule.compile.jit import Compiled
from chainrule.compile.llvm.target import Target
from chainrule.compile.pipeline import optimised
from chainrule.compile.writing import Written, write

F = cr.nn.functional


class Taken(Exception):
    """Carries what was written of a program."""

    def __init__(self, written: Written) -> None:
        super().__init__()
        self.written = written


def written(function: Callable[..., Any], *args: Any, threads: int = 2, target: Target | None = None) -> Written:
    """What becomes of a function that is called with these arguments, without running it.

    target: for which machine; this one if none is given.
    """

    def take(program: Any) -> Any:
        raise Taken(write(optimised(program), target, threads=threads))

    try:
        Compiled(function, build=take)(*args)
    except Taken as taken:
        return taken.written
    raise AssertionError("nothing was built")


def drawn(*shape: int, seed: int = 0, dtype: str = "float32") -> cr.Tensor:
    """Standard normal numbers."""
    return cr.tensor(np.random.default_rng((seed, *shape)).standard_normal(shape).astype(dtype))


def page_step(batch: int = 200) -> tuple[Callable[..., Any], cr.Tensor, cr.Tensor]:
    """A net of two layers with a mean squared error, trained by SGD."""
    params = [drawn(100, 50), drawn(50), drawn(50, 1), drawn(1)]
    for p in params:
        p.requires_grad_()
    w1, b1, w2, b2 = params
    optimizer = cr.optim.SGD(params, lr=0.01)

    def step(x: cr.Tensor, y: cr.Tensor) -> cr.Tensor:
        out = F.relu(x @ w1 + b1) @ w2 + b2
        loss = F.mse_loss(out.squeeze(-1), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return step, drawn(batch, 100, seed=1), drawn(batch, seed=1)


def attention_gradients(q: cr.Tensor, k: cr.Tensor, v: cr.Tensor) -> Any:
    """The gradients of a loss of attention."""
    return cr.grad(lambda q, k, v: F.scaled_dot_product_attention(q, k, v).square().sum(), argnums=(0, 1, 2))(q, k, v)


def two_layers(
    batch: int, widths: tuple[int, int, int], loss_function: Callable[..., Any], wanted: cr.Tensor
) -> tuple[Callable[..., Any], cr.Tensor, cr.Tensor]:
    """A net of two layers, trained by SGD."""
    first, hidden, last = widths
    params = [p.requires_grad_() for p in (drawn(first, hidden), drawn(hidden), drawn(hidden, last), drawn(last))]
    optimizer = cr.optim.SGD(params, lr=0.1)

    def step(x: cr.Tensor, y: cr.Tensor) -> cr.Tensor:
        w1, b1, w2, b2 = params
        optimizer.zero_grad()
        loss = loss_function(F.relu(x @ w1 + b1) @ w2 + b2, y)
        loss.backward()
        optimizer.step()
        return loss

    return step, drawn(batch, first), wanted
