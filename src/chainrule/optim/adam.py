"""Adam: steps scaled by running moments of the gradient. Its rule, shared with AdamW, stands here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, final

import numpy as np

from chainrule.core.group import Group
from chainrule.core.node import at_user_line
from chainrule.core.tracing import square_root
from chainrule.errors import ArgumentError
from chainrule.optim.base import Optimizer, check_range
from chainrule.tensor import Tensor

Temporary = Callable[[np.ndarray, int], np.ndarray]


def check_adam_options(name: str, group: Group) -> None:
    """Raise ArgumentError for options outside their range."""
    for option in ("lr", "eps", "weight_decay"):
        check_range(name, option, group[option], 0.0)
    if not isinstance(group["betas"], tuple | list) or len(group["betas"]) != 2:
        raise at_user_line(ArgumentError(f"{name}: betas are two numbers; got {group['betas']!r}"))
    for i, beta in enumerate(group["betas"]):
        check_range(name, f"betas[{i}]", beta, 0.0, 1.0)


def adam_update(param: np.ndarray, grad: np.ndarray, state: dict[str, Any], group: Group, temporary: Temporary) -> None:
    """The step of Adam from a gradient that weight decay has been added to already, or not.

    m ← β₁ m + (1 − β₁) g;  v ← β₂ v + (1 − β₂) g²;  w ← w − η (m / (1 − β₁ᵗ)) / (√(v / (1 − β₂ᵗ)) + ε)

    temporary: gives scratch memory by number; `grad` may be number 0, so 1 is used here.
    """
    first_beta, second_beta = group["betas"]
    if not state:
        state["step"] = 0
        state["exp_avg"] = np.zeros_like(param)
        state["exp_avg_sq"] = np.zeros_like(param)
        if group["amsgrad"]:
            state["max_exp_avg_sq"] = np.zeros_like(param)
    state["step"] += 1
    mean, spread = state["exp_avg"], state["exp_avg_sq"]
    scratch = temporary(param, 1)
    np.multiply(grad, grad, out=scratch)
    scratch *= 1 - second_beta
    spread *= second_beta
    spread += scratch
    mean *= first_beta
    mean += np.multiply(grad, 1 - first_beta, out=scratch)
    if group["amsgrad"]:
        spread = np.maximum(state["max_exp_avg_sq"], spread, out=state["max_exp_avg_sq"])
    np.sqrt(spread, out=scratch)
    scratch /= square_root(1 - second_beta ** state["step"])
    scratch += group["eps"]
    np.divide(mean, scratch, out=scratch)
    scratch *= group["lr"] / (1 - first_beta ** state["step"])
    param -= scratch


@final
class Adam(Optimizer):
    """Adam: each entry's step is its mean gradient divided by the root of its mean squared gradient.

    m ← β₁ m + (1 − β₁) g;  v ← β₂ v + (1 − β₂) g²;  w ← w − η (m / (1 − β₁ᵗ)) / (√(v / (1 − β₂ᵗ)) + ε)

    Args:
        params: tensors, or dicts with "params" and options of their own.
        lr: η, the learning rate, ≥ 0.
        betas: β₁ and β₂, how slowly the two means forget, each 0 ≤ β < 1.
        eps: ε, added to the divisor, ≥ 0.
        weight_decay: λ, added to the gradient as λ w, ≥ 0; AdamW takes it off the weight instead.
        amsgrad: divide by the largest v so far.
        maximize: climb instead.
    Raises: ArgumentError, DTypeError, GradientError: see `Optimizer`.
    Source: Kingma, Ba (2014), Adam, arXiv:1412.6980; Reddi et al. (2018) for amsgrad, arXiv:1904.09237.

    >>> import chainrule as cr
    >>> w = cr.tensor([1.0], requires_grad=True)
    >>> optimizer = cr.optim.Adam([w], lr=0.1)
    >>> (w**2).sum().backward()
    >>> optimizer.step()
    >>> w
    tensor([0.9], requires_grad=True)
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Mapping[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad,
            "maximize": maximize,
        })  # fmt: skip

    def _check_options(self, group: Group) -> None:
        check_adam_options("Adam", group)

    def _update(self, param: np.ndarray, grad: np.ndarray, state: dict[str, Any], group: Group) -> None:
        if group["maximize"]:
            grad = np.negative(grad, out=self._temporary(param))
        if group["weight_decay"]:
            scaled = np.multiply(param, group["weight_decay"], out=self._temporary(param, 1))
            grad = np.add(grad, scaled, out=self._temporary(param))
        adam_update(param, grad, state, group, self._temporary)
