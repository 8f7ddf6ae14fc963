"""AdamW: Adam with the weight decay taken off the weight itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, final

import numpy as np

from chainrule.core.group import Group
from chainrule.optim.adam import adam_update, check_adam_options
from chainrule.optim.base import Optimizer
from chainrule.tensor import Tensor


@final
class AdamW(Optimizer):
    """Adam with the weight decay taken off the weight itself, so that it is not divided by the gradient's size.

    w ← w − η λ w, then the step of Adam

    Args:
        params: tensors, or dicts with "params" and options of their own.
        lr: η, the learning rate, ≥ 0.
        betas: β₁ and β₂, how slowly the two means forget, each 0 ≤ β < 1.
        eps: ε, added to the divisor, ≥ 0.
        weight_decay: λ, the share of each weight, times η, that a step takes off, ≥ 0.
        amsgrad: divide by the largest v so far.
        maximize: climb instead.
    Raises: ArgumentError, DTypeError, GradientError: see `Optimizer`.
    Source: Loshchilov, Hutter (2017), Decoupled weight decay regularization, arXiv:1711.05101.

    >>> import chainrule as cr
    >>> w = cr.tensor([1.0], requires_grad=True)
    >>> optimizer = cr.optim.AdamW([w], lr=0.1, weight_decay=0.5)
    >>> (w**2).sum().backward()
    >>> optimizer.step()
    >>> w
    tensor([0.85], requires_grad=True)
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Mapping[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad,
            "maximize": maximize,
        })  # fmt: skip

    def _check_options(self, group: Group) -> None:
        check_adam_options("AdamW", group)

    def _update(self, param: np.ndarray, grad: np.ndarray, state: dict[str, Any], group: Group) -> None:
        if group["maximize"]:
            grad = np.negative(grad, out=self._temporary(param))
        if group["weight_decay"]:
            param *= 1 - group["lr"] * group["weight_decay"]
        adam_update(param, grad, state, group, self._temporary)
