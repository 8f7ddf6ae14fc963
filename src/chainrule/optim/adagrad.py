"""Adagrad: steps scaled by the sum of all squared gradients so far."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, final

import numpy as np

from chainrule.core.group import Group
from chainrule.optim.base import Optimizer, check_range
from chainrule.tensor import Tensor


@final
class Adagrad(Optimizer):
    """Steps scaled by the sum of all squared gradients so far.

    g = ∂L/∂w + λ w;  s ← s + g²;  w ← w − η / (1 + (t − 1) δ) · g / (√s + ε)

    Args:
        params: tensors, or dicts with "params" and options of their own.
        lr: η, the learning rate, ≥ 0.
        lr_decay: δ, how fast the rate falls, ≥ 0.
        weight_decay: λ, the pull towards 0, ≥ 0.
        initial_accumulator_value: what s starts from, ≥ 0.
        eps: ε, ≥ 0, keeps the divisor from 0.
        maximize: climb instead.
    Raises: ArgumentError, DTypeError, GradientError: see `Optimizer`.
    Source: Duchi, Hazan, Singer (2011), Adaptive subgradient methods, Journal of Machine Learning Research 12.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Mapping[str, Any]],
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, {
            "lr": lr, "lr_decay": lr_decay, "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value, "eps": eps, "maximize": maximize,
        })  # fmt: skip

    def _check_options(self, group: Group) -> None:
        for option in ("lr", "lr_decay", "weight_decay", "initial_accumulator_value", "eps"):
            check_range("Adagrad", option, group[option], 0.0)

    def _update(self, param: np.ndarray, grad: np.ndarray, state: dict[str, Any], group: Group) -> None:
        scratch = self._temporary(param, 1)
        if not state:
            state["step"], state["sum"] = 0, np.full_like(param, group["initial_accumulator_value"])
        if group["maximize"]:
            grad = np.negative(grad, out=self._temporary(param))
        if group["weight_decay"]:
            grad = np.add(grad, np.multiply(param, group["weight_decay"], out=scratch), out=self._temporary(param))
        rate = group["lr"] / (1 + state["step"] * group["lr_decay"])
        state["step"] += 1
        state["sum"] += np.multiply(grad, grad, out=scratch)
        np.sqrt(state["sum"], out=scratch)
        scratch += group["eps"]
        np.divide(grad, scratch, out=scratch)
        param -= np.multiply(scratch, rate, out=scratch)
