"""PyTorch: eager with its fused optimiser; compiled, the whole step as one graph; and that with autotuning."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional

from workloads.nets import loss_of, model_of
from workloads.problems import BETAS, DECAY, EPS, RATE, Job, Running

OPTIONS: dict[str, dict[str, Any]] = {
    "compiled": {"cpp_wrapper": True},
    "autotuned": {"cpp_wrapper": True, "max_autotune": True},
}


def linear(x: Any, w: Any, b: Any) -> Any:
    if x.ndim == 2:
        return torch.addmm(b, x, w)
    return torch.addmm(b, x.reshape(-1, x.shape[-1]), w).reshape(*x.shape[:-1], w.shape[1])


def training(job: Job) -> Running:
    weights = list(map(torch.tensor, job.weights))
    loss_function = loss_of(job.problem, functional, linear)
    prepare = eager_step if job.variant == "eager" else one_graph
    step = prepare(weights, loss_function, job)
    return Running(step, [tuple(map(torch.from_numpy, pair)) for pair in job.batches], as_array)


def eager_step(weights: list[Any], loss_function: Any, job: Job) -> Any:
    for w in weights:
        w.requires_grad_()
    optimizer = getattr(torch.optim, job.problem.optimizer)(weights, lr=RATE, fused=True)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = loss_function(weights, x, y)
        loss.backward()
        optimizer.step()
        return loss

    return step


def one_graph(weights: list[Any], loss_function: Any, job: Job) -> Any:
    derivative = torch.func.grad_and_value(loss_function)
    update, state = {"SGD": sgd, "AdamW": adamw}[job.problem.optimizer](weights)
    torch.set_grad_enabled(False)  # what is differentiated is so inside; one less check at each call

    @torch.compile(fullgraph=True, options=OPTIONS[job.variant])
    def graph(weights: list[Any], state: Any, x: Any, y: Any) -> Any:
        gradients, loss = derivative(weights, x, y)
        update(weights, state, gradients)
        return loss

    return lambda x, y: graph(weights, state, x, y)


def sgd(_: list[Any]) -> tuple[Any, None]:
    """The update, written out for the compiler, and its state."""

    def update(weights: list[Any], _: None, gradients: list[Any]) -> None:
        for w, g in zip(weights, gradients, strict=True):
            w.sub_(g, alpha=RATE)

    return update, None


def adamw(weights: list[Any]) -> tuple[Any, Any]:
    """The update, written out for the compiler, and its state: the steps so far, means and mean squares."""

    def update(weights: list[Any], state: Any, gradients: list[Any]) -> None:
        (steps, means, squares), (beta1, beta2) = state, BETAS
        steps += 1
        rate, root = RATE / (1 - beta1**steps), (1 - beta2**steps).sqrt()
        for w, g, mean, square in zip(weights, gradients, means, squares, strict=True):
            mean.lerp_(g, 1 - beta1)
            square.mul_(beta2).addcmul_(g, g, value=1 - beta2)
            w.mul_(1 - RATE * DECAY).sub_(rate * mean / (square.sqrt() / root + EPS))

    zeros = [[torch.zeros_like(w) for w in weights] for _ in range(2)]
    return update, (torch.zeros(()), *zeros)


def inference(job: Job) -> Running:
    torch.set_grad_enabled(False)
    model = model_of(job.problem, torch.nn, list(map(torch.tensor, job.weights)))
    if job.variant != "eager":
        # Frozen: the weights are constants, which it may arrange as its products like them.
        model = torch.compile(model, fullgraph=True, options=OPTIONS[job.variant] | {"freezing": True})
    return Running(model, [(torch.from_numpy(x),) for x, _ in job.batches], as_array)


def as_array(result: Any) -> np.ndarray:
    return result.detach().numpy()
