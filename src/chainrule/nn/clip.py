"""Gradients kept small: between backward() and the optimiser's step."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.array.align import to_dtype
from chainrule.autodiff.reverse import checked_grad
from chainrule.core.node import at_user_line
from chainrule.core.tracing import square_root, tracer
from chainrule.errors import ArgumentError, TrainingError
from chainrule.tensor import Tensor


def _with_grad(name: str, parameters: Iterable[Tensor] | Tensor) -> list[Tensor]:
    """The gradients there are."""
    found = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    return [checked_grad(p, name) for p in found if p.grad is not None]


def clip_grad_norm_(
    parameters: Iterable[Tensor] | Tensor, max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> Tensor:
    """Scale all gradients by one factor, so that their norm together is at most `max_norm`. In place.

    Args:
        parameters: tensors whose `.grad` is scaled; those without one are passed over.
        max_norm: the largest norm, ≥ 0.
        norm_type: which norm; inf for the largest entry.
        error_if_nonfinite: raise where the norm is inf or nan, instead of scaling by it.
    Returns: the norm before, a scalar.
    Raises: ArgumentError: `max_norm` < 0. TrainingError: see `error_if_nonfinite`.
    Source: Pascanu, Mikolov, Bengio (2013), On the difficulty of training recurrent neural networks, arXiv:1211.5063.

    >>> import chainrule as cr
    >>> w = cr.tensor([3.0, 4.0], requires_grad=True)
    >>> (w * w).sum().backward()
    >>> cr.nn.utils.clip_grad_norm_([w], 1.0), w.grad
    (tensor(10.), tensor([0.6, 0.8]))
    """
    if not max_norm >= 0:
        raise at_user_line(ArgumentError(f"clip_grad_norm_: expected max_norm ≥ 0; got {max_norm!r}"))
    grads = _with_grad("clip_grad_norm_", parameters)
    order, tracing = float(norm_type), tracer()
    if tracing is not None and error_if_nonfinite:
        raise tracing.refuse("clip_grad_norm_(error_if_nonfinite=True)", "look at the norm that it returns, outside")
    with np.errstate(all="ignore"):  # inf and nan are values here
        norms = [np.linalg.norm(_flat(g), order) for g in grads]
        total: Any = _joint(norms, order) if norms else 0.0
        if error_if_nonfinite and not math.isfinite(total):
            raise at_user_line(TrainingError(f"clip_grad_norm_: the norm of the gradients is {total}"))
        factor: Any = np.minimum(1.0, max_norm / (total + 1e-6))  # nan stays nan
        if tracing is not None or factor != 1.0:
            for g in grads:
                memory = g.writable("clip_grad_norm_")
                memory *= factor if tracing is not None else g.dtype.type(factor)
    dtype = grads[0].dtype if grads else dtypes.float32
    if tracing is not None and norms:
        scaled: Tensor = to_dtype(total.node, dtype)
        return scaled
    return Tensor.leaf(np.asarray(total, dtype))


def clip_grad_value_(parameters: Iterable[Tensor] | Tensor, clip_value: float) -> None:
    """Limit every entry of the gradients to [−clip_value, clip_value]. In place.

    Args:
        parameters: tensors whose `.grad` is limited; those without one are passed over.
        clip_value: the largest size, ≥ 0.
    Raises: ArgumentError: `clip_value` < 0.
    """
    if not clip_value >= 0:
        raise at_user_line(ArgumentError(f"clip_grad_value_: expected clip_value ≥ 0; got {clip_value!r}"))
    for g in _with_grad("clip_grad_value_", parameters):
        memory = g.writable("clip_grad_value_")
        np.clip(memory, -clip_value, clip_value, out=memory)


def _flat(g: Tensor) -> Any:
    """All entries in float64: an array, or what stands for one while a function is traced."""
    tracing = tracer()
    if tracing is not None:
        return tracing.array(g).astype(np.float64).reshape(-1)
    return np.asarray(g.numpy(), np.float64).reshape(-1)


def _joint(norms: list[Any], order: float) -> Any:
    """The norm of everything, given those of its parts."""
    if tracer() is None:
        return np.linalg.norm(np.asarray(norms), order)
    if math.isinf(order):
        return functools.reduce(np.maximum, norms)
    total = functools.reduce(np.add, [n * n if order == 2 else n**order for n in norms])
    return square_root(total) if order == 2 else total ** (1 / order)
