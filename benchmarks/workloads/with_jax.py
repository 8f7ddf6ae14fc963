"""JAX: the whole step jitted, the weights donated, so that they are updated in place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from workloads.problems import (
    BETAS,
    BLOCK,
    CATEGORIES,
    EPS,
    FILTERS,
    GATES,
    HEADS,
    LAYERS,
    MEMORY,
    MOMENTUM,
    NORM_EPS,
    RATE,
    Job,
    Problem,
    Running,
    statistics,
)


def training(job: Job) -> Running:
    channels_last = job.problem.net == "lenet"
    arrange = {"lenet": images_last, "recurrent": transposed}.get(job.problem.net, list)
    weights = list(map(jnp.asarray, arrange(job.weights)))
    running = [[jnp.asarray(a) for a in pair] for pair in statistics(job.problem)]
    loss_function = loss_of(job.problem)
    updated, state = sgd(weights) if job.problem.optimizer == "SGD" else adam(weights, job.problem.decay)
    key = jax.random.key(0, impl="rbg") if job.problem.dropout else None  # on a CPU faster than the default

    @partial(jax.jit, donate_argnums=(0, 1, 2, 3))
    def update(weights: list[Any], state: Any, running: list[Any], key: Any, x: Any, y: Any) -> tuple[Any, ...]:
        key, used = (None, None) if key is None else jax.random.split(key)
        differentiated = jax.value_and_grad(loss_function, has_aux=True)
        (loss, running), gradients = differentiated(weights, running, x, y, used)
        return *updated(weights, state, gradients), running, key, loss

    def step(x: Any, y: Any) -> Any:
        nonlocal weights, state, running, key
        weights, state, running, key, loss = update(weights, state, running, key, x, y)
        return loss

    def finish(loss: Any) -> np.ndarray:
        jax.block_until_ready(weights)
        return np.asarray(loss)

    def given(array: np.ndarray) -> Any:
        if channels_last and array.ndim == 4:
            array = array.transpose(0, 2, 3, 1)
        # Labels of 32 bits, as JAX has them unless it is told otherwise.
        return jnp.asarray(array, np.int32 if array.dtype == np.int64 else array.dtype)

    return Running(step, job.inputs(given), finish)


def sgd(_: list[Any]) -> tuple[Any, None]:
    """The update and its state."""

    def updated(weights: list[Any], _: None, gradients: list[Any]) -> tuple[list[Any], None]:
        return [w - RATE * g for w, g in zip(weights, gradients, strict=True)], None

    return updated, None


def adam(weights: list[Any], decay: float) -> tuple[Any, Any]:
    """The update and its state: the steps so far, means and mean squares."""

    def updated(weights: list[Any], state: Any, gradients: list[Any]) -> tuple[list[Any], Any]:
        (steps, means, squares), (beta1, beta2) = state, BETAS
        steps += 1
        mean = [beta1 * m + (1 - beta1) * g for m, g in zip(means, gradients, strict=True)]
        square = [beta2 * s + (1 - beta2) * g * g for s, g in zip(squares, gradients, strict=True)]
        rate, root = RATE / (1 - beta1**steps), jnp.sqrt(1 - beta2**steps)
        new = [
            w * (1 - RATE * decay) - rate * m / (jnp.sqrt(s) / root + EPS)
            for w, m, s in zip(weights, mean, square, strict=True)
        ]
        return new, (steps, mean, square)

    zeros = [[jnp.zeros_like(w) for w in weights] for _ in range(2)]
    return updated, (jnp.zeros(()), *zeros)


def images_last(weights: Sequence[np.ndarray]) -> list[np.ndarray]:
    """LeNet's weights where channels come last, in which XLA's convolutions are fastest on a CPU."""
    w1, b1, w2, b2, dense, *rest = weights
    rows = dense.reshape(FILTERS[1], 5, 5, -1).transpose(1, 2, 0, 3).reshape(dense.shape)
    return [w1.transpose(2, 3, 1, 0), b1, w2.transpose(2, 3, 1, 0), b2, rows, *rest]


def transposed(weights: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Weights as (inputs, outputs), in which XLA's products are faster."""
    return [np.ascontiguousarray(w.T) for w in weights]


def loss_of(problem: Problem) -> Callable[..., Any]:
    nets = {"dense": dense, "lenet": lenet, "block": block, "recurrent": recurrent}

    def loss(weights: list[Any], running: list[Any], x: Any, y: Any, key: Any) -> tuple[Any, list[Any]]:
        if problem.net == "transformer":
            out = transformer(weights, x, Dropout(problem.dropout, key))
            out, y = out.reshape(-1, out.shape[-1]), y.reshape(-1)
        elif problem.net == "tabular":
            out, running = tabular(weights, running, x)
        else:
            out = nets[problem.net](weights, x)
        if problem.has_labels:
            return -jax.nn.log_softmax(out)[jnp.arange(len(y)), y].mean(), running
        return ((out - y.reshape(out.shape)) ** 2).mean(), running

    return loss


class Dropout:
    """Dropout, each time with a key of its own; none without a key."""

    def __init__(self, p: float = 0.0, key: Any = None) -> None:
        self._p, self._key, self._times = p, key, 0

    def __call__(self, h: Any) -> Any:
        if self._key is None:
            return h
        self._times += 1
        kept = jax.random.bernoulli(jax.random.fold_in(self._key, self._times), 1 - self._p, h.shape)
        return jnp.where(kept, h / (1 - self._p), 0)


NO_DROPOUT = Dropout()


def dense(weights: Sequence[Any], h: Any) -> Any:
    for i in range(0, len(weights), 2):
        h = h @ weights[i] + weights[i + 1]
        if i < len(weights) - 2:
            h = jax.nn.relu(h)
    return h


def lenet(weights: Sequence[Any], x: Any) -> Any:
    w1, b1, w2, b2, *rest = weights

    def convolution(h: Any, w: Any, b: Any, padding: Any) -> Any:
        order = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(h, w, (1, 1), padding, dimension_numbers=order) + b

    def pooled(h: Any) -> Any:
        # As a maximum over dimensions: `reduce_window`'s derivative is several times as slow.
        batch, height, width, channels = h.shape
        return h.reshape(batch, height // 2, 2, width // 2, 2, channels).max((2, 4))

    h = pooled(jax.nn.relu(convolution(x, w1, b1, [(2, 2), (2, 2)])))
    h = pooled(jax.nn.relu(convolution(h, w2, b2, "VALID")))
    return dense(rest, h.reshape(len(h), -1))


def block(weights: Sequence[Any], x: Any, *, causal: bool = False, dropout: Dropout = NO_DROPOUT) -> Any:
    g1, b1, w_in, b_in, w_out, b_out, g2, b2, w_up, b_up, w_down, b_down = weights
    batch, length, d = x.shape
    q, k, v = jnp.moveaxis((norm(x, g1, b1) @ w_in + b_in).reshape(batch, length, 3, HEADS, d // HEADS), 2, 0)
    scores = jnp.einsum("bshd,bthd->bhst", q, k) * (d // HEADS) ** -0.5
    if causal:
        scores = jnp.where(jnp.tril(jnp.ones((length, length), bool)), scores, -jnp.inf)
    h = jnp.einsum("bhst,bthd->bshd", dropout(jax.nn.softmax(scores)), v).reshape(batch, length, d)
    x = x + dropout(h @ w_out + b_out)
    return x + dropout(jax.nn.gelu(norm(x, g2, b2) @ w_up + b_up) @ w_down + b_down)


def norm(h: Any, g: Any, b: Any) -> Any:
    centred = h - h.mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + NORM_EPS) * g + b


def transformer(weights: Sequence[Any], x: Any, dropout: Dropout) -> Any:
    characters, positions, *blocks, g, b, w_out, b_out = weights
    h = dropout(characters[x] + positions)
    for i in range(0, len(blocks), BLOCK):
        h = block(blocks[i : i + BLOCK], h, causal=True, dropout=dropout)
    return norm(h, g, b) @ w_out + b_out


def recurrent(weights: Sequence[Any], x: Any) -> Any:
    """LSTM layers, each a scan over the steps: unrolled by 4 or 8 steps it is slower."""
    for i in range(0, len(weights), MEMORY):
        w_input, w_state, b_input, b_state = weights[i : i + MEMORY]

        def step(state: Any, driven: Any, w_state: Any = w_state) -> tuple[Any, Any]:
            h, c = state
            taken, kept, new, shown = jnp.split(driven + h @ w_state, GATES, -1)
            c = jax.nn.sigmoid(kept) * c + jax.nn.sigmoid(taken) * jnp.tanh(new)
            h = jax.nn.sigmoid(shown) * jnp.tanh(c)
            return (h, c), h

        zeros = jnp.zeros(x.shape[1:])
        _, x = jax.lax.scan(step, (zeros, zeros), x @ w_input + (b_input + b_state))
    return x


def tabular(weights: Sequence[Any], running: list[Any], x: Any) -> tuple[Any, list[Any]]:
    numbers, categories = x
    vectors, (g, b, *layers, w_out, b_out) = weights[: len(CATEGORIES)], weights[len(CATEGORIES) :]
    followed = []

    def batch_norm(h: Any, place: int, g: Any, b: Any) -> Any:
        mean = h.mean(0)
        centred = h - mean
        var = (centred**2).mean(0)
        seen = mean, var * (len(h) / (len(h) - 1))
        followed.append([(1 - MOMENTUM) * old + MOMENTUM * new for old, new in zip(running[place], seen, strict=True)])
        return centred * jax.lax.rsqrt(var + NORM_EPS) * g + b

    found = [rows[categories[:, n]] for n, rows in enumerate(vectors)]
    h = jnp.concatenate([*found, batch_norm(numbers, 0, g, b)], 1)
    for place in range(len(LAYERS)):
        w, g, b = layers[3 * place : 3 * place + 3]
        h = jax.nn.relu(batch_norm(h @ w, place + 1, g, b))
    return h @ w_out + b_out, followed
