"""tinygrad: the whole step in its TinyJit, on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from tinygrad import Device, Tensor, TinyJit
from tinygrad.helpers import Context
from tinygrad.nn import optim

from workloads.problems import (
    BLOCK,
    CATEGORIES,
    HEADS,
    LAYERS,
    MOMENTUM,
    NORM_EPS,
    RATE,
    Job,
    Problem,
    Running,
    statistics,
)


def training(job: Job) -> Running:
    weights = [Tensor(w).contiguous().realize() for w in job.weights]
    for w in weights:
        w.is_param_()
    optimizer = getattr(optim, job.problem.optimizer)(weights, lr=RATE)
    running = [[Tensor(a).contiguous().realize() for a in pair] for pair in statistics(job.problem)]
    loss_function = loss_of(job.problem, running)

    @TinyJit
    def step(x: Tensor, y: Tensor) -> Tensor:
        with Context(TRAINING=1):
            optimizer.zero_grad()
            loss = loss_function(weights, x, y)
            loss.backward()
            return loss.realize(*optimizer.schedule_step(), *(a for pair in running for a in pair))

    def finish(loss: Tensor) -> np.ndarray:
        Device[Device.DEFAULT].synchronize()
        return loss.numpy()

    def given(array: np.ndarray) -> Tensor:
        return Tensor(array.astype(np.int32) if array.dtype == np.int64 else array).contiguous().realize()

    return Running(step, job.inputs(given), finish)


def loss_of(problem: Problem, running: list[list[Tensor]]) -> Callable[..., Tensor]:
    nets = {
        "dense": dense,
        "lenet": lenet,
        "block": block,
        "transformer": partial(transformer, dropout=problem.dropout),
        "tabular": partial(tabular, running=running),
    }
    net = nets[problem.net]

    def loss(weights: Sequence[Tensor], x: Any, y: Tensor) -> Tensor:
        out = net(weights, x)
        if problem.has_labels:
            return out.sparse_categorical_crossentropy(y)
        return (out - y.reshape(out.shape)).square().mean()

    return loss


def dense(weights: Sequence[Tensor], h: Tensor) -> Tensor:
    for i in range(0, len(weights), 2):
        h = h @ weights[i] + weights[i + 1]
        if i < len(weights) - 2:
            h = h.relu()
    return h


def lenet(weights: Sequence[Tensor], x: Tensor) -> Tensor:
    w1, b1, w2, b2, *rest = weights
    h = x.conv2d(w1, b1, padding=2).relu().max_pool2d((2, 2))
    h = h.conv2d(w2, b2).relu().max_pool2d((2, 2))
    return dense(rest, h.flatten(1))


def block(weights: Sequence[Any], x: Any, *, causal: bool = False, dropout: float = 0.0) -> Any:
    g1, b1, w_in, b_in, w_out, b_out, g2, b2, w_up, b_up, w_down, b_down = weights
    batch, length, d = x.shape
    h = (x.layernorm() * g1 + b1) @ w_in + b_in
    q, k, v = h.reshape(batch, length, 3, HEADS, d // HEADS).permute(2, 0, 3, 1, 4)
    h = q.scaled_dot_product_attention(k, v, dropout_p=dropout, is_causal=causal)
    x = x + (h.transpose(1, 2).reshape(batch, length, d) @ w_out + b_out).dropout(dropout)
    h = (x.layernorm() * g2 + b2) @ w_up + b_up
    return x + (h.gelu() @ w_down + b_down).dropout(dropout)


def transformer(weights: Sequence[Any], x: Any, *, dropout: float) -> Any:
    characters, positions, *blocks, g, b, w_out, b_out = weights
    h = (characters[x] + positions).dropout(dropout)
    for i in range(0, len(blocks), BLOCK):
        h = block(blocks[i : i + BLOCK], h, causal=True, dropout=dropout)
    return (h.layernorm() * g + b) @ w_out + b_out


def tabular(weights: Sequence[Any], x: Any, *, running: list[list[Tensor]]) -> Any:
    numbers, categories = x
    vectors, (g, b, *layers, w_out, b_out) = weights[: len(CATEGORIES)], weights[len(CATEGORIES) :]

    def batch_norm(h: Any, place: int, g: Any, b: Any) -> Any:
        mean = h.mean(0)
        centred = h - mean
        var = centred.square().mean(0)
        for old, new in zip(running[place], (mean, var * (len(h) / (len(h) - 1))), strict=True):
            old.assign((1 - MOMENTUM) * old + MOMENTUM * new.detach())
        return centred * (var + NORM_EPS).rsqrt() * g + b

    found = [rows[categories[:, n]] for n, rows in enumerate(vectors)]
    h = found[0].cat(*found[1:], batch_norm(numbers, 0, g, b), dim=1)
    for place in range(len(LAYERS)):
        w, g, b = layers[3 * place : 3 * place + 3]
        h = batch_norm(h @ w, place + 1, g, b).relu()
    return h @ w_out + b_out
