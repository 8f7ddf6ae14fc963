"""JAX: the whole step jitted, the weights donated, so that they are updated in place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from workloads.problems import FILTERS, HEADS, RATE, Job, Problem, Running


def training(job: Job) -> Running:
    channels_last = job.problem.net == "lenet"
    weights = [jnp.asarray(w) for w in (images_last(job.weights) if channels_last else job.weights)]
    inputs = [(x.transpose(0, 2, 3, 1) if channels_last else x, y) for x, y in job.batches]
    loss_function = loss_of(job.problem)

    @partial(jax.jit, donate_argnums=0)
    def update(weights: list[Any], x: Any, y: Any) -> tuple[list[Any], Any]:
        loss, gradients = jax.value_and_grad(loss_function)(weights, x, y)
        return [w - RATE * g for w, g in zip(weights, gradients, strict=True)], loss

    def step(x: Any, y: Any) -> Any:
        nonlocal weights
        weights, loss = update(weights, x, y)
        return loss

    def finish(loss: Any) -> np.ndarray:
        jax.block_until_ready(weights)
        return np.asarray(loss)

    # Labels of 32 bits, as JAX has them unless it is told otherwise.
    integers = {np.dtype(np.int64): np.int32}
    return Running(
        step, [tuple(jnp.asarray(a, integers.get(a.dtype, a.dtype)) for a in pair) for pair in inputs], finish
    )


def images_last(weights: Sequence[np.ndarray]) -> list[np.ndarray]:
    """LeNet's weights where channels come last, in which XLA's convolutions are fastest on a CPU."""
    w1, b1, w2, b2, dense, *rest = weights
    rows = dense.reshape(FILTERS[1], 5, 5, -1).transpose(1, 2, 0, 3).reshape(dense.shape)
    return [w1.transpose(2, 3, 1, 0), b1, w2.transpose(2, 3, 1, 0), b2, rows, *rest]


def loss_of(problem: Problem) -> Callable[..., Any]:
    net = {"dense": dense, "lenet": lenet, "block": block}[problem.net]

    def loss(weights: list[Any], x: Any, y: Any) -> Any:
        out = net(weights, x)
        if problem.has_labels:
            return -jax.nn.log_softmax(out)[jnp.arange(len(y)), y].mean()
        return ((out - y.reshape(out.shape)) ** 2).mean()

    return loss


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


def block(weights: Sequence[Any], x: Any) -> Any:
    g1, b1, w_in, b_in, w_out, b_out, g2, b2, w_up, b_up, w_down, b_down = weights
    batch, length, d = x.shape

    def norm(h: Any, g: Any, b: Any) -> Any:
        centred = h - h.mean(-1, keepdims=True)
        return centred * jax.lax.rsqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * g + b

    q, k, v = jnp.moveaxis((norm(x, g1, b1) @ w_in + b_in).reshape(batch, length, 3, HEADS, d // HEADS), 2, 0)
    scores = jnp.einsum("bshd,bthd->bhst", q, k) * (d // HEADS) ** -0.5
    h = jnp.einsum("bhst,bthd->bshd", jax.nn.softmax(scores), v).reshape(batch, length, d)
    x = x + (h @ w_out + b_out)
    return x + jax.nn.gelu(norm(x, g2, b2) @ w_up + b_up) @ w_down + b_down
