"""PyTorch: eager with its fused optimiser; compiled, the whole step as one graph; and that with autotuning."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from workloads.nets import batch_norm, loss_of, model_of, trained
from workloads.problems import BETAS, EPS, GATES, MEMORY, MOMENTUM, RATE, Job, Running, statistics

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
    running = [list(map(torch.tensor, pair)) for pair in statistics(job.problem)]
    prepare = eager_step if job.variant == "eager" else one_graph
    step = prepare(weights, running, job)
    return Running(step, job.inputs(torch.from_numpy), as_array)


def eager_step(weights: list[Any], running: list[Any], job: Job) -> Any:
    weights, recurrent = trained(job.problem, torch.nn, weights)
    loss_function, norm = loss_of(job.problem, torch, linear, recurrent), batch_norm(torch, running)
    for w in weights:
        w.requires_grad_()
    optimizer = getattr(torch.optim, job.problem.optimizer)(weights, lr=RATE, fused=True)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = loss_function(weights, x, y, *norm)
        loss.backward()
        optimizer.step()
        return loss

    return step


def one_graph(weights: list[Any], running: list[Any], job: Job) -> Any:
    loss_function = loss_of(job.problem, torch, linear, unrolled)

    def loss_and_statistics(weights: list[Any], x: Any, y: Any) -> tuple[Any, list[Any]]:
        # What is differentiated may update nothing in place: what the batch has is given out. It is asked for as
        # `batch_norm` itself asks, so that the compiler finds both to be one.
        seen = []

        def norm(h: Any, _: int, g: Any, b: Any) -> Any:
            var, mean = torch.var_mean(h.detach(), (0,), correction=0, keepdim=True)
            seen.append((mean[0], var[0] * (len(h) / (len(h) - 1))))
            return torch.nn.functional.batch_norm(h, None, None, g, b, training=True)

        return loss_function(weights, x, y, *((norm,) if running else ())), seen

    derivative = torch.func.grad_and_value(loss_and_statistics, has_aux=True)
    update, state = sgd(weights) if job.problem.optimizer == "SGD" else adam(weights, job.problem.decay)
    torch.set_grad_enabled(False)  # what is differentiated is so inside; one less check at each call

    @torch.compile(fullgraph=True, options=OPTIONS[job.variant])
    def graph(weights: list[Any], state: Any, running: list[Any], x: Any, y: Any) -> Any:
        gradients, (loss, seen) = derivative(weights, x, y)
        update(weights, state, gradients)
        for pair, pair_seen in zip(running, seen, strict=True):
            for kept, new in zip(pair, pair_seen, strict=True):
                kept.lerp_(new, MOMENTUM)
        return loss

    return lambda x, y: graph(weights, state, running, x, y)


def unrolled(weights: list[Any], x: Any) -> Any:
    """LSTM layers step by step: `torch.compile` takes no `nn.LSTM`."""
    for i in range(0, len(weights), MEMORY):
        w_input, w_state, b_input, b_state = weights[i : i + MEMORY]
        h = c = x.new_zeros(x.shape[1:])
        out = []
        for driven in torch.nn.functional.linear(x, w_input, b_input + b_state).unbind(0):
            taken, kept, new, shown = (driven + h @ w_state.T).chunk(GATES, 1)
            c = kept.sigmoid() * c + taken.sigmoid() * new.tanh()
            h = shown.sigmoid() * c.tanh()
            out.append(h)
        x = torch.stack(out)
    return x


def sgd(_: list[Any]) -> tuple[Any, None]:
    """The update, written out for the compiler, and its state."""

    def update(weights: list[Any], _: None, gradients: list[Any]) -> None:
        for w, g in zip(weights, gradients, strict=True):
            w.sub_(g, alpha=RATE)

    return update, None


def adam(weights: list[Any], decay: float) -> tuple[Any, Any]:
    """The update, written out for the compiler, and its state: the steps so far, means and mean squares."""

    def update(weights: list[Any], state: Any, gradients: list[Any]) -> None:
        (steps, means, squares), (beta1, beta2) = state, BETAS
        steps += 1
        rate, root = RATE / (1 - beta1**steps), (1 - beta2**steps).sqrt()
        for w, g, mean, square in zip(weights, gradients, means, squares, strict=True):
            mean.lerp_(g, 1 - beta1)
            square.mul_(beta2).addcmul_(g, g, value=1 - beta2)
            w.mul_(1 - RATE * decay).sub_(rate * mean / (square.sqrt() / root + EPS))

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
