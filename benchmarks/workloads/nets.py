"""The nets in PyTorch's names, which are chainrule's too: both libraries run this very code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

from workloads.problems import BLOCK, CATEGORIES, FILTERS, HEADS, HIDDEN, LAYERS, MEMORIES, Problem


def loss_of(
    problem: Problem,
    library: Any,
    linear: Callable[[Any, Any, Any], Any],
    recurrent: Callable[[Any, Any], Any] | None = None,
) -> Callable[..., Any]:
    """`loss(weights, x, y)`; for a net with norms over the batch `loss(weights, x, y, norm)`.

    library: `torch`, or what has its names. linear: its best x @ w + b. recurrent: what its LSTM layers with these
    weights make of x. norm: `norm(h, place, weight, bias)`, where place is the norm's among all; see `batch_norm`.
    """
    functional = library.nn.functional

    def dense(weights: Sequence[Any], h: Any) -> Any:
        for i in range(0, len(weights), 2):
            h = linear(h, weights[i], weights[i + 1])
            if i < len(weights) - 2:
                h = functional.relu(h)
        return h

    def lenet(weights: Sequence[Any], x: Any) -> Any:
        w1, b1, w2, b2, *rest = weights
        h = functional.max_pool2d(functional.relu(functional.conv2d(x, w1, b1, padding=2)), 2)
        h = functional.max_pool2d(functional.relu(functional.conv2d(h, w2, b2)), 2)
        return dense(rest, h.flatten(1))

    def drop(h: Any) -> Any:
        return functional.dropout(h, problem.dropout) if problem.dropout else h

    def block(weights: Sequence[Any], x: Any, *, causal: bool = False) -> Any:
        g1, b1, w_in, b_in, w_out, b_out, g2, b2, w_up, b_up, w_down, b_down = weights
        batch, length, d = x.shape
        h = linear(functional.layer_norm(x, (d,), g1, b1), w_in, b_in)
        q, k, v = h.reshape(batch, length, 3, HEADS, d // HEADS).permute(2, 0, 3, 1, 4).unbind(0)
        h = functional.scaled_dot_product_attention(q, k, v, dropout_p=problem.dropout, is_causal=causal)
        x = x + drop(linear(h.transpose(1, 2).reshape(batch, length, d), w_out, b_out))
        h = linear(functional.layer_norm(x, (d,), g2, b2), w_up, b_up)
        return x + drop(linear(functional.gelu(h, approximate="tanh"), w_down, b_down))

    def transformer(weights: Sequence[Any], x: Any) -> Any:
        characters, positions, *blocks, g, b, w_out, b_out = weights
        h = drop(functional.embedding(x, characters) + positions)
        for i in range(0, len(blocks), BLOCK):
            h = block(blocks[i : i + BLOCK], h, causal=True)
        return linear(functional.layer_norm(h, (h.shape[-1],), g, b), w_out, b_out)

    nets = {"dense": dense, "lenet": lenet, "block": block, "transformer": transformer, "recurrent": recurrent}
    nets["tabular"] = partial(tabular, library, linear)

    def loss(weights: Sequence[Any], x: Any, y: Any, *norm: Callable[..., Any]) -> Any:
        out = nets[problem.net](weights, x, *norm)
        if problem.has_labels:
            if y.ndim > 1:
                out, y = out.flatten(0, 1), y.flatten()
            return functional.cross_entropy(out, y)
        return functional.mse_loss(out.squeeze(1) if problem.net == "dense" else out, y)

    return loss


def tabular(library: Any, linear: Any, weights: Sequence[Any], x: Any, norm: Callable[..., Any]) -> Any:
    """The outcome of numbers and categories."""
    functional, (numbers, categories) = library.nn.functional, x
    vectors, (g, b, *layers, w_out, b_out) = weights[: len(CATEGORIES)], weights[len(CATEGORIES) :]
    found = [functional.embedding(categories[:, n], rows) for n, rows in enumerate(vectors)]
    h = library.cat([*found, norm(numbers, 0, g, b)], 1)
    for place in range(len(LAYERS)):
        w, g, b = layers[3 * place : 3 * place + 3]
        h = functional.relu(norm(h @ w, place + 1, g, b))
    return linear(h, w_out, b_out)


def batch_norm(library: Any, statistics: Sequence[Any]) -> tuple[Callable[..., Any], ...]:
    """What `loss` is given for a norm, where there are any: one that updates these running statistics in place."""

    def norm(h: Any, place: int, g: Any, b: Any) -> Any:
        mean, var = statistics[place]
        return library.nn.functional.batch_norm(h, mean, var, g, b, training=True)

    return (norm,) if statistics else ()


def lstm(problem: Problem, nn: Any, weights: Sequence[Any]) -> Any:
    """The LSTM layers as a module of the library's `nn`, with these tensors as its parameters' values."""
    model = nn.LSTM(problem.shape[-1], problem.shape[-1], MEMORIES)
    model.load_state_dict(dict(zip(model.state_dict(), weights, strict=True)))
    return model


def trained(problem: Problem, nn: Any, weights: Sequence[Any]) -> tuple[list[Any], Callable[[Any, Any], Any] | None]:
    """The tensors that a step updates, and what `loss_of` takes for LSTM layers: of other nets these, and None."""
    if problem.net != "recurrent":
        return list(weights), None
    layers = lstm(problem, nn, weights)
    return list(layers.parameters()), lambda _, x: layers(x)[0]


def model_of(problem: Problem, nn: Any, weights: Sequence[Any]) -> Any:
    """The net as a module of the library's `nn`, with these tensors as its parameters' values."""

    def dense(widths: Sequence[int]) -> list[Any]:
        layers = []
        for inputs, outputs in pairwise(widths):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        return layers[:-1]

    layers = dense(problem.widths)
    if problem.net == "lenet":
        first, second = FILTERS
        layers = [nn.Conv2d(1, first, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)]
        layers += [nn.Conv2d(first, second, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), *dense(HIDDEN)]
    model = nn.Sequential(*layers)
    model.load_state_dict(dict(zip(model.state_dict(), (w.T if w.ndim == 2 else w for w in weights), strict=True)))
    return model.eval()
