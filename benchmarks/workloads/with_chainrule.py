"""chainrule, compiled and eager."""

from __future__ import annotations

from typing import Any

import numpy as np

import chainrule as cr
from workloads.nets import batch_norm, loss_of, model_of, trained
from workloads.problems import RATE, Job, Running, statistics


def training(job: Job) -> Running:
    weights, recurrent = trained(job.problem, cr.nn, [cr.tensor(w, requires_grad=True) for w in job.weights])
    optimizer = getattr(cr.optim, job.problem.optimizer)(weights, lr=RATE)
    loss_function = loss_of(job.problem, cr, lambda x, w, b: x @ w + b, recurrent)
    norm = batch_norm(cr, [list(map(cr.tensor, pair)) for pair in statistics(job.problem)])

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = loss_function(weights, x, y, *norm)
        loss.backward()
        optimizer.step()
        return loss

    return Running(cr.compile(step) if job.variant == "compiled" else step, job.inputs(cr.from_numpy), as_array)


def inference(job: Job) -> Running:
    model = model_of(job.problem, cr.nn, list(map(cr.tensor, job.weights)))
    cr.set_grad_enabled(False)
    inputs = [(cr.from_numpy(x),) for x, _ in job.batches]
    return Running(cr.compile(model) if job.variant == "compiled" else model, inputs, as_array)


def as_array(result: Any) -> np.ndarray:
    return result.detach().numpy()
