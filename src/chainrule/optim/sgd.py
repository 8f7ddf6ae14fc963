"""Stochastic gradient descent, with momentum."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, final

import numpy as np

from chainrule.core.group import Group
from chainrule.core.node import at_user_line
from chainrule.errors import ArgumentError
from chainrule.optim.base import Optimizer, check_range
from chainrule.tensor import Tensor


@final
class SGD(Optimizer):
    """Stochastic gradient descent, with momentum.

    g = ∂L/∂w + λ w;  b ← μ b + (1 − τ) g, starting as b = g;  w ← w − η b, or with Nesterov w − η (g + μ b)

    Args:
        params: tensors, or dicts with "params" and options of their own.
        lr: η, the learning rate, ≥ 0.
        momentum: μ, the share of the last direction that is kept, ≥ 0.
        dampening: τ, how much less the gradient counts in the direction.
        weight_decay: λ, the pull towards 0, ≥ 0.
        nesterov: look ahead along the direction; needs momentum, and no dampening.
        maximize: climb instead.
    Raises: ArgumentError, DTypeError, GradientError: see `Optimizer`.
    Source: Sutskever et al. (2013), On the importance of initialization and momentum in deep learning, as PyTorch
        states it: η multiplies the direction, not the gradient.

    >>> import chainrule as cr
    >>> w = cr.tensor([1.0], requires_grad=True)
    >>> optimizer = cr.optim.SGD([w], lr=0.1)
    >>> (w**2).sum().backward()
    >>> optimizer.step()
    >>> w
    tensor([0.8], requires_grad=True)
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Mapping[str, Any]],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, {
            "lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay, "nesterov": nesterov,
            "maximize": maximize,
        })  # fmt: skip

    def _check_options(self, group: Group) -> None:
        for option in ("lr", "momentum", "weight_decay"):
            check_range("SGD", option, group[option], 0.0)
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise at_user_line(ArgumentError("SGD: nesterov needs momentum > 0 and dampening = 0"))

    def _update(self, param: np.ndarray, grad: np.ndarray, state: dict[str, Any], group: Group) -> None:
        lr, momentum, decay = group["lr"], group["momentum"], group["weight_decay"]
        direction = grad
        if group["maximize"]:
            direction = np.negative(grad, out=self._temporary(param))
        if decay:
            scaled = np.multiply(param, decay, out=self._temporary(param, 1))
            direction = np.add(direction, scaled, out=self._temporary(param))
        if momentum:
            buffer, dampening = state.get("momentum_buffer"), group["dampening"]
            if buffer is None and not dampening:  # 0 · μ + g is g: the first step is like every other
                buffer = state["momentum_buffer"] = np.zeros_like(param)
            if buffer is None:
                buffer = state["momentum_buffer"] = direction.copy()
            else:
                buffer *= momentum
                part = np.multiply(direction, 1 - dampening, out=self._temporary(param, 1)) if dampening else direction
                buffer += part
            if group["nesterov"]:
                ahead = np.multiply(buffer, momentum, out=self._temporary(param, 1))
                direction = np.add(direction, ahead, out=self._temporary(param))
            else:
                direction = buffer
        param -= np.multiply(direction, lr, out=self._temporary(param, 1))
