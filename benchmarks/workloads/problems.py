"""The workloads: their nets, sizes, first values and operations; and what a contender is given and gives back.

Knows NumPy alone, so that each contender's process loads its own library and no other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from math import sqrt
from typing import Any, Literal, NamedTuple

import numpy as np

RATE = 1e-3  # of SGD, of Adam and of AdamW, whose other numbers are PyTorch's defaults, which are these:
BETAS, EPS, DECAY = (0.9, 0.999), 1e-8, 0.01
MOMENTUM, NORM_EPS = 0.1, 1e-5  # of norms
CLASSES = 10
HEADS = 4  # of a transformer's block
BLOCKS, CHARACTERS, WIDTH = 4, 65, 128  # the character transformer's
BLOCK = 12  # parameters of a block
FILTERS = (6, 16)  # LeNet's; all of 5×5, the first padded by 2, each followed by a maximum over 2×2
HIDDEN = (400, 120, 84, CLASSES)  # LeNet's dense layers
# The tabular net: how many values each column of categories has, and what a layer makes of all columns.
CATEGORIES, LAYERS, OUTCOMES = (9, 16, 16, 7, 15, 6, 5, 42), (200, 100), 2
MEMORIES, GATES, MEMORY = 2, 4, 4  # LSTM layers over each other, as wide as their input; gates and parameters of each

Task = Literal["training", "inference"]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A net and the shape of its input.

    name: as on the command line. title: what a table calls it.
    net: "dense" layers with ReLU between them; "lenet"; "block", one of a pre-norm transformer; "transformer", of
    characters with their positions, causal; "recurrent": LSTM layers; or "tabular": numbers, normalised over the batch,
    beside categories, as vectors; then layers without a bias, each normalised over the batch, with ReLU, and a dense
    one.
    shape: of the input, the batch first, but of the recurrent net the steps; of the table's numbers. widths: of dense
    layers, from input to output.
    dropout: its probability, in the transformer: where the blocks begin, at the attention's weights and at what each
    block's halves add. optimizer: its name in `optim`.
    """

    name: str
    title: str
    net: Literal["dense", "lenet", "block", "transformer", "recurrent", "tabular"]
    shape: tuple[int, ...]
    widths: tuple[int, ...] = ()
    dropout: float = 0.0
    optimizer: Literal["SGD", "Adam", "AdamW"] = "SGD"

    @property
    def has_labels(self) -> bool:
        """Whether the loss is the cross-entropy; else it is the mean squared error."""
        return self.net not in ("block", "recurrent") and self.widths[-1:] != (1,)

    @property
    def decay(self) -> float:
        """Of the weights, in each step of Adam or AdamW."""
        return DECAY if self.optimizer == "AdamW" else 0.0

    @property
    def without_dropout(self) -> Problem:
        """The same, but that all compute the same numbers."""
        return replace(self, name=f"{self.name}-without-dropout", dropout=0.0) if self.dropout else self


TRAINING = (
    Problem(name="a", title="batch 200, 100-50-1", net="dense", shape=(200, 100), widths=(100, 50, 1)),
    Problem(name="b", title="batch 64, 784-50-10", net="dense", shape=(64, 784), widths=(784, 50, CLASSES)),
    Problem(
        name="c", title="batch 256, 784-512-512-10", net="dense", shape=(256, 784), widths=(784, 512, 512, CLASSES)
    ),
    Problem(name="d", title="LeNet, batch 64", net="lenet", shape=(64, 1, 28, 28)),
    Problem(name="e", title="transformer block, batch 8", net="block", shape=(8, 128, WIDTH)),
    Problem(
        name="f",
        title="character transformer, batch 16",
        net="transformer",
        shape=(16, 128),
        dropout=0.1,
        optimizer="AdamW",
    ),
    Problem(name="g", title="LSTM, batch 32, 64 steps", net="recurrent", shape=(64, 32, WIDTH), optimizer="Adam"),
    Problem(name="h", title="tabular, batch 1024", net="tabular", shape=(1024, 6), optimizer="AdamW"),
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
ALL = {problem.name: problem for problem in (*TRAINING, *INFERENCE, *(x.without_dropout for x in TRAINING))}


def vector_width(categories: int) -> int:
    """Of the vectors that stand for so many categories: half as many numbers, 50 at most."""
    return min(50, (categories + 1) // 2)


def tabular_widths(problem: Problem) -> tuple[int, ...]:
    """Of the tabular net's layers, from all columns side by side to the outcome."""
    return (sum(map(vector_width, CATEGORIES)) + problem.shape[1], *LAYERS, OUTCOMES)


# --- first values


class _First:
    """First values, drawn one after the other; float32."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(0)

    def draw(self, *shape: int, scale: float) -> np.ndarray:
        return self._rng.standard_normal(shape).astype(np.float32) * np.float32(scale)

    def dense(self, inputs: int, outputs: int) -> list[np.ndarray]:
        return [self.draw(inputs, outputs, scale=sqrt(2 / inputs)), np.zeros(outputs, np.float32)]

    def layers(self, widths: tuple[int, ...]) -> list[np.ndarray]:
        return [w for inputs, outputs in pairwise(widths) for w in self.dense(inputs, outputs)]

    def convolution(self, inputs: int, outputs: int) -> list[np.ndarray]:
        return [self.draw(outputs, inputs, 5, 5, scale=1 / (5 * sqrt(inputs))), np.zeros(outputs, np.float32)]

    def norm(self, d: int) -> list[np.ndarray]:
        return [np.ones(d, np.float32), np.zeros(d, np.float32)]

    def block(self, d: int) -> list[np.ndarray]:
        attention = [*self.dense(d, 3 * d), *self.dense(d, d)]
        expansion = [*self.dense(d, 4 * d), *self.dense(4 * d, d)]
        return [*self.norm(d), *attention, *self.norm(d), *expansion]

    def memory(self, d: int) -> list[np.ndarray]:
        shapes = (GATES * d, d), (GATES * d, d), (GATES * d,), (GATES * d,)
        return [self.draw(*shape, scale=1 / sqrt(3 * d)) for shape in shapes]


def weights(problem: Problem) -> list[np.ndarray]:
    """The parameters, layer by layer, weight before bias; a dense weight is (inputs, outputs). float32.

    A block: norm, queries with keys and values, projection, norm, expansion, contraction. The transformer: characters,
    positions, its blocks, norm, and a dense layer. An LSTM layer, as PyTorch has it: of the input (gates · width,
    width), of the state, and both biases. The tabular net: vectors, norm of the numbers, each layer's weight and norm,
    and a dense layer.
    """
    first = _First()
    match problem.net:
        case "dense":
            return first.layers(problem.widths)
        case "lenet":
            few, many = FILTERS
            return [*first.convolution(1, few), *first.convolution(few, many), *first.layers(HIDDEN)]
        case "block":
            return first.block(problem.shape[-1])
        case "transformer":
            tables = [first.draw(rows, WIDTH, scale=0.02) for rows in (CHARACTERS, problem.shape[1])]
            blocks = [w for _ in range(BLOCKS) for w in first.block(WIDTH)]
            return [*tables, *blocks, *first.norm(WIDTH), *first.dense(WIDTH, CHARACTERS)]
        case "recurrent":
            return [w for _ in range(MEMORIES) for w in first.memory(problem.shape[-1])]
        case "tabular":
            vectors = [first.draw(n, vector_width(n), scale=1.0) for n in CATEGORIES]
            *hidden, last = pairwise(tabular_widths(problem))
            normed = [w for m, n in hidden for w in (first.dense(m, n)[0], *first.norm(n))]
            return [*vectors, *first.norm(problem.shape[1]), *normed, *first.dense(*last)]


def statistics(problem: Problem) -> list[list[np.ndarray]]:
    """The running mean and variance of each norm over the batch; of other nets none."""
    if problem.net != "tabular":
        return []
    return [[np.zeros(n, np.float32), np.ones(n, np.float32)] for n in (problem.shape[1], *LAYERS)]


def batches(problem: Problem, count: int) -> list[tuple[Any, np.ndarray]]:
    """Inputs with their targets: numbers, or labels as int64.

    The transformer's are both characters; a tabular net's input is its numbers, and its categories as int64.
    """
    rng = np.random.default_rng(1)
    drawn = []
    for _ in range(count):
        if problem.net == "transformer":
            text = rng.integers(0, CHARACTERS, (problem.shape[0], problem.shape[1] + 1))
            drawn.append((text[:, :-1].copy(), text[:, 1:].copy()))
            continue
        x = rng.standard_normal(problem.shape).astype(np.float32)
        if problem.net == "tabular":
            columns = [rng.integers(0, n, len(x)) for n in CATEGORIES]
            drawn.append(((x, np.stack(columns, 1)), rng.integers(0, OUTCOMES, len(x))))
            continue
        if problem.has_labels:
            y = rng.integers(0, CLASSES, len(x))
        else:
            y = rng.standard_normal(len(x) if problem.net == "dense" else problem.shape).astype(np.float32)
        drawn.append((x, y))
    return drawn


# --- operations


def operations(problem: Problem) -> int:
    """Floating-point operations of the products in a training step, a multiply-add counted as two.

    Each product comes three times, in the forward pass and once for each factor's gradient, but for the first layer's,
    whose input needs none. Of causal attention, the half that counts. To look up a vector is no operation.
    """

    def dense(rows: int, widths: tuple[int, ...]) -> list[int]:
        return [2 * rows * m * n for m, n in pairwise(widths)]

    batch = problem.shape[0]

    def block(d: int, pairs: int) -> int:  # pairs: of positions, one of which attends to the other
        layers = [2 * batch * length * d * n for n in (3 * d, d, 4 * d, 4 * d)]
        return sum(layers) + 2 * (2 * batch * pairs * d)  # queries with keys, weights with values; all heads

    match problem.net:
        case "dense":
            products = dense(batch, problem.widths)
        case "lenet":
            first, second = FILTERS
            convolutions = [2 * batch * 28 * 28 * first * 25, 2 * batch * 10 * 10 * second * first * 25]
            products = [*convolutions, *dense(batch, HIDDEN)]
        case "block":
            _, length, d = problem.shape
            return 3 * block(d, length * length)  # the norm comes first, so that all inputs need gradients
        case "transformer":
            _, length = problem.shape
            head = dense(batch * length, (WIDTH, CHARACTERS))
            return 3 * (BLOCKS * block(WIDTH, length * (length + 1) // 2) + sum(head))
        case "recurrent":
            steps, batch, d = problem.shape
            of_input, of_state = (2 * n * batch * d * GATES * d for n in (steps, steps - 1))  # the first state is 0
            return 3 * MEMORIES * (of_input + of_state) - of_input
        case "tabular":
            return 3 * sum(dense(batch, tabular_widths(problem)))  # before the first layer there are vectors to learn
    return 3 * sum(products) - products[0]


# --- contenders


class Job(NamedTuple):
    """What a contender's `training(job)` or `inference(job)` is given; variant: which of its ways to do it."""

    problem: Problem
    weights: list[np.ndarray]
    batches: list[tuple[Any, np.ndarray]]
    variant: str
    threads: int

    def inputs(self, given: Callable[[np.ndarray], Any]) -> list[tuple[Any, Any]]:
        """The batches, each array as `given` makes it of the library's."""
        made = lambda part: tuple(map(given, part)) if isinstance(part, tuple) else given(part)  # noqa: E731
        return [(made(x), made(y)) for x, y in self.batches]


class Running(NamedTuple):
    """A contender at work.

    call: `step(x, y)`, which returns the loss, or `model(x)`, as a user would call it.
    inputs: what it is called with, in turn.
    finish: waits until all that was called is done, and gives the last result as an array.
    """

    call: Callable[..., Any]
    inputs: list[tuple[Any, ...]]
    finish: Callable[[Any], np.ndarray]
