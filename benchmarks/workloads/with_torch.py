"""PyTorch: eager with its fused optimiser; compiled, the whole step as one graph; and that with autotuning."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional

from workloads.nets import loss_of, model_of
from workloads.problems import RATE, Job, Running

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
    step = eager_step(weights, loss_function) if job.variant == "eager" else one_graph(weights, loss_function, job)
    return Running(step, [tuple(map(torch.from_numpy, pair)) for pair in job.batches], as_array)


def eager_step(weights: list[Any], loss_function: Any) -> Any:
    for w in weights:
        w.requires_grad_()
    optimizer = torch.optim.SGD(weights, lr=RATE, fused=True)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = loss_function(weights, x, y)
        loss.backward()
        optimizer.step()
        return loss

    return step


def one_graph(weights: list[Any], loss_function: Any, job: Job) -> Any:
    derivative = torch.func.grad_and_value(loss_function)
    torch.set_grad_enabled(False)  # what is differentiated is so inside; one less check at each call

    @torch.compile(fullgraph=True, options=OPTIONS[job.variant])
    def graph(weights: list[Any], x: Any, y: Any) -> Any:
        gradients, loss = derivative(weights, x, y)
        for w, g in zip(weights, gradients, strict=True):
            w.sub_(g, alpha=RATE)
        return loss

    return lambda x, y: graph(weights, x, y)


def inference(job: Job) -> Running:
    torch.set_grad_enabled(False)
    model = model_of(job.problem, torch.nn, list(map(torch.tensor, job.weights)))
    if job.variant != "eager":
        # Frozen: the weights are constants, which it may arrange as its products like them.
        model = torch.compile(model, fullgraph=True, options=OPTIONS[job.variant] | {"freezing": True})
    return Running(model, [(torch.from_numpy(x),) for x, _ in job.batches], as_array)


def as_array(result: Any) -> np.ndarray:
    return result.detach().numpy()
