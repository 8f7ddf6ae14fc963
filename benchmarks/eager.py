"""The eager path against PyTorch eager and NumPy by hand, one thread, one run: `python benchmarks/eager.py`.

The page's step (x (200,100), 50 hidden units, ReLU, mean squared error; forward, backward, SGD) and the cost of single
small ops. Contenders alternate in blocks of steps and each block begins warm; medians over all steps. Needs the `test`
extra. A ratio below 1 means that chainrule is faster.
"""

from __future__ import annotations

import platform
import statistics
import sys
import time
from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

import chainrule as cr
from chainrule.core import node

BLOCKS, STEPS, WARM = 60, 30, 5
RATE = 1e-3

Step = Callable[[], Any]


# --- the page's step, three ways: the same arrays, the same arithmetic


def lin(x: Any, w: Any, b: Any) -> Any:
    return x @ w + b


def relu(x: Any) -> Any:
    return x.clamp_min(0.0)


def mse(output: Any, targ: Any) -> Any:
    return (output.squeeze(-1) - targ).pow(2).mean()


def arrays() -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.standard_normal(shape).astype(np.float32)  # noqa: E731
    w1, w2 = draw(100, 50) * np.float32(sqrt(2 / 100)), draw(50, 1) * np.float32(sqrt(2 / 50))
    return draw(200, 100), draw(200), w1, np.zeros(50, np.float32), w2, np.zeros(1, np.float32)


def tensor_step(library: Any, make: Callable[[np.ndarray], Any]) -> Step:
    """The step in a library with tensors: chainrule and PyTorch run the very same code."""
    x, y, *weights = [make(a.copy()) for a in arrays()]
    for w in weights:
        w.requires_grad_()
    w1, b1, w2, b2 = weights

    def step() -> None:
        loss = mse(lin(relu(lin(x, w1, b1)), w2, b2), y)
        loss.backward()
        with library.no_grad():
            for w in weights:
                w -= RATE * w.grad
                w.grad = None

    return step


def numpy_step() -> Step:
    """The same step as one would write it by hand in NumPy."""
    x, y, w1, b1, w2, b2 = (a.copy() for a in arrays())
    zero, rate = np.float32(0), np.float32(RATE)
    scale = np.float32(2 / len(y))

    def step() -> None:
        l1 = x @ w1 + b1
        l2 = np.maximum(l1, zero)
        out = l2 @ w2 + b2
        diff = out[:, 0] - y
        np.square(diff).mean()
        out_g = (scale * diff)[:, None]
        l1_g = np.where(l1 >= zero, out_g * w2.T, zero)
        for w, g in ((w1, x.T @ l1_g), (b1, l1_g.sum(0)), (w2, l2.T @ out_g), (b2, out_g.sum(0))):
            np.subtract(w, rate * g, out=w)

    return step


def without_provenance(step: Step) -> Step:
    """The step with the recording of frames replaced by nothing, to see what it costs."""

    def bare() -> None:
        capture = node.capture
        node.capture = lambda *args, **kwargs: ()  # type: ignore[assignment]
        try:
            step()
        finally:
            node.capture = capture

    return bare


# --- single ops

OPS: dict[str, Callable[[Any, Any], Any]] = {
    "a + b": lambda a, b: a + b,
    "a * 2.0": lambda a, b: a * 2.0,
    "a @ b": lambda a, b: a @ b,
    "a.tanh()": lambda a, b: a.tanh(),
    "a.clamp_min(0.)": lambda a, b: a.clamp_min(0.0),
    "a.sum()": lambda a, b: a.sum(),
    "a.mean(0)": lambda a, b: a.mean(0),
    "a.reshape(-1)": lambda a, b: a.reshape(-1),
    "a[1]": lambda a, b: a[1],
    "a.softmax(-1)": lambda a, b: a.softmax(-1),
}


def repeated(function: Callable[[Any, Any], Any], a: Any, b: Any, times: int = 50) -> Step:
    def step() -> None:
        for _ in range(times):
            function(a, b)

    return step


def backward_chain(library: Any, length: int = 50) -> Step:
    """Forward and backward through a chain of small ops: what a link costs."""
    x = library.ones(4, 4, requires_grad=True)

    def step() -> None:
        y = x
        for _ in range(length):
            y = y * x
        y.sum().backward()
        x.grad = None

    return step


# --- measuring


def measure(contenders: dict[str, Step], blocks: int = BLOCKS) -> dict[str, float]:
    """Median seconds a step of each contender, in alternating blocks."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(blocks):
        for name, step in contenders.items():
            for _ in range(WARM):
                step()
            for _ in range(STEPS):
                start = time.perf_counter()
                step()
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    console = Console()
    torch.set_num_threads(1)
    page = tensor_step(cr, cr.from_numpy)
    contenders = {
        "chainrule": page,
        "chainrule, no provenance": without_provenance(page),
        "PyTorch eager": tensor_step(torch, torch.from_numpy),
        "NumPy by hand": numpy_step(),
    }
    with threadpool_limits(1), console.status("measuring the page's step and single ops …"):
        step = measure(contenders)
        a, b = np.random.default_rng(1).standard_normal((2, 4, 4)).astype(np.float32)
        rows = []
        for label, function in OPS.items():
            pair = {}
            for name, library, make in (("chainrule", cr, cr.from_numpy), ("torch", torch, torch.from_numpy)):
                for recorded in (False, True):
                    tensors = [make(v.copy()) for v in (a, b)]
                    if recorded:
                        tensors = [t.requires_grad_() for t in tensors]
                    pair[name, recorded] = repeated(function, *tensors)
                del library
            found = measure({f"{n} {r}": s for (n, r), s in pair.items()}, blocks=6)
            rows.append((label, *(found[f"{n} {r}"] / 50 for r in (False, True) for n in ("chainrule", "torch"))))
        chain = measure({"chainrule": backward_chain(cr), "torch": backward_chain(torch)}, blocks=10)

    console.print(f"Python {platform.python_version()}, NumPy {np.__version__}, torch {torch.__version__}, 1 thread\n")
    table = Table("the page's step", "µs", "chainrule / this", title="forward, backward, SGD")
    for name, seconds in step.items():
        table.add_row(name, f"{seconds * 1e6:.1f}", f"{step['chainrule'] / seconds:.2f}")
    console.print(table)
    cost = step["chainrule"] / step["chainrule, no provenance"] - 1
    console.print(f"provenance costs {100 * cost:.1f} % of the step\n")

    table = Table("4×4 op", "chainrule", "torch", "ratio", "recorded: chainrule", "torch", "ratio", title="µs a call")
    for label, ours, theirs, ours_recorded, theirs_recorded in rows:
        values = (ours, theirs, None, ours_recorded, theirs_recorded, None)
        ratios = (ours / theirs, ours_recorded / theirs_recorded)
        cells = [f"{v * 1e6:.2f}" if v is not None else f"{ratios[i // 3]:.2f}" for i, v in enumerate(values)]
        table.add_row(label, *cells)
    per = {name: seconds / 51 * 1e6 for name, seconds in chain.items()}
    table.add_row(
        "y = y * x, backward",
        "",
        "",
        "",
        f"{per['chainrule']:.2f}",
        f"{per['torch']:.2f}",
        f"{per['chainrule'] / per['torch']:.2f}",
    )
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
