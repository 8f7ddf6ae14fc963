"""The workloads: their nets, sizes, first values and operations; and what a contender is given and gives back.

Knows NumPy alone, so that each contender's process loads its own library and no other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from math import prod, sqrt
from typing import Any, Literal, NamedTuple

import numpy as np

RATE = 1e-3  # of SGD
CLASSES = 10
HEADS = 4  # of the transformer block
FILTERS = (6, 16)  # LeNet's; all of 5×5, the first padded by 2, each followed by a maximum over 2×2
HIDDEN = (400, 120, 84, CLASSES)  # LeNet's dense layers

Task = Literal["training", "inference"]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A net and the shape of its input.

    name: as on the command line. title: what a table calls it.
    net: "dense" layers with ReLU between them; "lenet"; or "block", one of a pre-norm transformer.
    shape: of the input, the batch first. widths: of dense layers, from input to output.
    """

    name: str
    title: str
    net: Literal["dense", "lenet", "block"]
    shape: tuple[int, ...]
    widths: tuple[int, ...] = ()

    @property
    def has_labels(self) -> bool:
        """Whether the loss is the cross-entropy; else it is the mean squared error."""
        return self.net != "block" and self.widths[-1:] != (1,)


TRAINING = (
    Problem(name="a", title="batch 200, 100-50-1", net="dense", shape=(200, 100), widths=(100, 50, 1)),
    Problem(name="b", title="batch 64, 784-50-10", net="dense", shape=(64, 784), widths=(784, 50, CLASSES)),
    Problem(
        name="c", title="batch 256, 784-512-512-10", net="dense", shape=(256, 784), widths=(784, 512, 512, CLASSES)
    ),
    Problem(name="d", title="LeNet, batch 64", net="lenet", shape=(64, 1, 28, 28)),
    Problem(name="e", title="transformer block, batch 8", net="block", shape=(8, 128, 128)),
)
INFERENCE = tuple(
    problem
    for batch in (1, 64)
    for problem in (
        Problem(
            name=f"mlp-{batch}",
            title=f"784-512-512-10, batch {batch}",
            net="dense",
            shape=(batch, 784),
            widths=(784, 512, 512, CLASSES),
        ),
        Problem(name=f"lenet-{batch}", title=f"LeNet, batch {batch}", net="lenet", shape=(batch, 1, 28, 28)),
    )
)
ALL = {problem.name: problem for problem in (*TRAINING, *INFERENCE)}


# --- first values


def weights(problem: Problem) -> list[np.ndarray]:
    """The parameters, layer by layer, weight before bias; a dense weight is (inputs, outputs). float32.

    The block: norm, queries with keys and values, projection, norm, expansion, contraction.
    """
    rng = np.random.default_rng(0)

    def draw(*shape: int, scale: float) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32) * np.float32(scale)

    def dense(inputs: int, outputs: int) -> list[np.ndarray]:
        return [draw(inputs, outputs, scale=sqrt(2 / inputs)), np.zeros(outputs, np.float32)]

    def layers(widths: tuple[int, ...]) -> list[np.ndarray]:
        return [w for inputs, outputs in pairwise(widths) for w in dense(inputs, outputs)]

    def convolution(inputs: int, outputs: int) -> list[np.ndarray]:
        return [draw(outputs, inputs, 5, 5, scale=1 / (5 * sqrt(inputs))), np.zeros(outputs, np.float32)]

    match problem.net:
        case "dense":
            return layers(problem.widths)
        case "lenet":
            first, second = FILTERS
            return [*convolution(1, first), *convolution(first, second), *layers(HIDDEN)]
        case "block":
            d = problem.shape[-1]
            norm = [np.ones(d, np.float32), np.zeros(d, np.float32)]
            attention, expansion = [*dense(d, 3 * d), *dense(d, d)], [*dense(d, 4 * d), *dense(4 * d, d)]
            return [*norm, *attention, *(a.copy() for a in norm), *expansion]


def batches(problem: Problem, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Inputs with their targets: numbers, or labels as int64."""
    rng = np.random.default_rng(1)
    drawn = []
    for _ in range(count):
        x = rng.standard_normal(problem.shape).astype(np.float32)
        if problem.has_labels:
            y = rng.integers(0, CLASSES, len(x))
        else:
            y = rng.standard_normal(problem.shape if problem.net == "block" else len(x)).astype(np.float32)
        drawn.append((x, y))
    return drawn


# --- operations


def operations(problem: Problem) -> int:
    """Floating-point operations of the products in a training step, a multiply-add counted as two.

    Each product comes three times, in the forward pass and once for each factor's gradient, but for the first layer's,
    whose input needs none.
    """

    def dense(rows: int, widths: tuple[int, ...]) -> list[int]:
        return [2 * rows * m * n for m, n in pairwise(widths)]

    batch = problem.shape[0]
    match problem.net:
        case "dense":
            products = dense(batch, problem.widths)
        case "lenet":
            first, second = FILTERS
            convolutions = [2 * batch * 28 * 28 * first * 25, 2 * batch * 10 * 10 * second * first * 25]
            products = [*convolutions, *dense(batch, HIDDEN)]
        case "block":
            _, length, d = problem.shape
            rows = prod(problem.shape[:-1])
            products = [2 * rows * d * n for n in (3 * d, d, 4 * d, 4 * d)]
            products += [2 * batch * length * length * d] * 2  # queries with keys, weights with values; all heads
            return 3 * sum(products)  # the norm comes first, so that all inputs need gradients
    return 3 * sum(products) - products[0]


# --- contenders


class Job(NamedTuple):
    """What a contender's `training(job)` or `inference(job)` is given; variant: which of its ways to do it."""

    problem: Problem
    weights: list[np.ndarray]
    batches: list[tuple[np.ndarray, np.ndarray]]
    variant: str
    threads: int


class Running(NamedTuple):
    """A contender at work.

    call: `step(x, y)`, which returns the loss, or `model(x)`, as a user would call it.
    inputs: what it is called with, in turn.
    finish: waits until all that was called is done, and gives the last result as an array.
    """

    call: Callable[..., Any]
    inputs: list[tuple[Any, ...]]
    finish: Callable[[Any], np.ndarray]
