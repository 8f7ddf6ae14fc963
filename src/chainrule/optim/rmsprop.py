"""RMSprop: steps scaled by a running mean of squared gradients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, final

import numpy as np

from chainrule.core.group import Group
from chainrule.optim.base import Optimizer, check_range
from chainrule.tensor import Tensor


@final
class RMSprop(Optimizer):
    """Steps scaled by a running mean of squared gradients.

    g = ∂L/∂w + λ w;  v ← α v + (1 − α) g²;  d = g / (√v + ε), centered g / (√(v − m²) + ε), m ← α m + (1 − α) g;
    w ← w − η d, or with momentum b ← μ b + d;  w ← w − η b

    Args:
        params: tensors, or dicts with "params" and options of their own.
        lr: η, the learning rate, ≥ 0.
        alpha: α, the share of the running mean that is kept, 0 ≤ α < 1.
        eps: ε, ≥ 0, keeps the divisor from 0.
        weight_decay: λ, the pull towards 0, ≥ 0.
        momentum: μ, the share of the last direction that is kept, ≥ 0.
        centered: divide by the standard deviation instead.
        maximize: climb instead.
    Raises: ArgumentError, DTypeError, GradientError: see `Optimizer`.
    Source: Tieleman, Hinton (2012), lecture 6.5 of Neural networks for machine learning; Graves (2013) for the
        centred one, arXiv:1308.0850.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Mapping[str, Any]],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, {
            "lr": lr, "alpha": alpha, "eps": eps, "weight_decay": weight_decay, "momentum": momentum,
            "centered": centered, "maximize": maximize,
        })  # fmt: skip

    def _check_options(self, group: Group) -> None:
        for option in ("lr", "eps", "weight_decay", "momentum"):
            check_range("RMSprop", option, group[option], 0.0)
        check_range("RMSprop", "alpha", group["alpha"], 0.0, 1.0)

    def _update(self, param: np.ndarray, grad: np.ndarray, state: dict[str, Any], group: Group) -> None:
        alpha, scratch = group["alpha"], self._temporary(param, 1)
        if group["maximize"]:
            grad = np.negative(grad, out=self._temporary(param))
        if group["weight_decay"]:
            grad = np.add(grad, np.multiply(param, group["weight_decay"], out=scratch), out=self._temporary(param))
        squares = state.setdefault("square_avg", np.zeros_like(param))
        squares *= alpha
        np.multiply(grad, grad, out=scratch)
        squares += np.multiply(scratch, 1 - alpha, out=scratch)
        divisor = self._temporary(param, 2)
        np.copyto(divisor, squares)
        if group["centered"]:
            mean = state.setdefault("grad_avg", np.zeros_like(param))
            mean *= alpha
            mean += np.multiply(grad, 1 - alpha, out=scratch)
            divisor -= np.multiply(mean, mean, out=scratch)
        np.sqrt(divisor, out=divisor)
        divisor += group["eps"]
        direction = np.divide(grad, divisor, out=scratch)
        if group["momentum"]:
            buffer = state.setdefault("momentum_buffer", np.zeros_like(param))
            buffer *= group["momentum"]
            buffer += direction
            direction = buffer
        param -= np.multiply(direction, group["lr"], out=scratch)
