"""Losses as modules. Each names its function; what that computes, and refuses, is said there (`nn.functional`)."""

from __future__ import annotations

from typing import Literal

from chainrule.functional import losses as functional
from chainrule.functional.losses import Reduction
from chainrule.nn.module import Module
from chainrule.tensor import Tensor


class _Loss(Module):
    def __init__(self, reduction: Reduction = "mean") -> None:
        super().__init__()
        self.reduction = reduction


class _WeightedLoss(_Loss):
    """A loss with weights that are moved and saved with the module, and not trained."""

    weight: Tensor | None

    def __init__(self, weight: Tensor | None = None, *, reduction: Reduction = "mean") -> None:
        super().__init__(reduction)
        self.register_buffer("weight", weight)


class MSELoss(_Loss):
    """Mean squared error.

    Args:
        reduction: "mean", "sum" or "none".

    >>> import chainrule as cr
    >>> cr.nn.MSELoss()(cr.tensor([1.0, 2.0]), cr.tensor([0.0, 4.0]))
    tensor(2.5)
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Two of one shape to ()."""
        return functional.mse_loss(input, target, reduction=self.reduction)


class L1Loss(_Loss):
    """Mean absolute error.

    Args:
        reduction: "mean", "sum" or "none".
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Two of one shape to ()."""
        return functional.l1_loss(input, target, reduction=self.reduction)


class HuberLoss(_Loss):
    """d²/2 for errors below δ, δ (|d| − δ/2) beyond.

    Args:
        reduction: "mean", "sum" or "none".
        delta: where the parabola becomes a line, > 0.
    """

    def __init__(self, reduction: Reduction = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction)
        self.delta = delta

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Two of one shape to ()."""
        return functional.huber_loss(input, target, reduction=self.reduction, delta=self.delta)


class SmoothL1Loss(_Loss):
    """d²/(2β) for errors below β, |d| − β/2 beyond.

    Args:
        reduction: "mean", "sum" or "none".
        beta: where the parabola becomes a line, ≥ 0.
    """

    def __init__(self, reduction: Reduction = "mean", beta: float = 1.0) -> None:
        super().__init__(reduction)
        self.beta = beta

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Two of one shape to ()."""
        return functional.smooth_l1_loss(input, target, reduction=self.reduction, beta=self.beta)


class CrossEntropyLoss(_WeightedLoss):
    """Mean negative log-likelihood under softmax, of integer labels or of class probabilities.

    Args:
        weight: (classes,), how much each class counts.
        ignore_index: a label that counts for nothing.
        reduction: "mean", "sum" or "none".
        label_smoothing: the share of each target that is spread evenly over the classes.

    >>> import chainrule as cr
    >>> cr.nn.CrossEntropyLoss()(cr.zeros(3, 10), cr.tensor([0, 4, 9]))
    tensor(2.3026)
    """

    def __init__(
        self,
        weight: Tensor | None = None,
        *,
        ignore_index: int = -100,
        reduction: Reduction = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(weight, reduction=reduction)
        self.ignore_index, self.label_smoothing = ignore_index, label_smoothing

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """(n, classes) and (n,) to ()."""
        return functional.cross_entropy(
            input, target, self.weight,
            ignore_index=self.ignore_index, reduction=self.reduction, label_smoothing=self.label_smoothing,
        )  # fmt: skip


class NLLLoss(_WeightedLoss):
    """Mean negative log-likelihood of integer labels, for log-probabilities.

    Args:
        weight: (classes,), how much each class counts.
        ignore_index: a label that counts for nothing.
        reduction: "mean", "sum" or "none".
    """

    def __init__(
        self, weight: Tensor | None = None, *, ignore_index: int = -100, reduction: Reduction = "mean"
    ) -> None:
        super().__init__(weight, reduction=reduction)
        self.ignore_index = ignore_index

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """(n, classes) and (n,) to ()."""
        return functional.nll_loss(input, target, self.weight, ignore_index=self.ignore_index, reduction=self.reduction)


class KLDivLoss(Module):
    """The Kullback–Leibler divergence of a distribution from another, given by its logarithms.

    Args:
        reduction: "mean" over all entries, "batchmean" over the first dimension, "sum" or "none".
        log_target: whether targets are logarithms.
    """

    def __init__(self, reduction: Reduction | Literal["batchmean"] = "mean", log_target: bool = False) -> None:
        super().__init__()
        self.reduction, self.log_target = reduction, log_target

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Log-probabilities and probabilities, of one shape, to ()."""
        return functional.kl_div(input, target, reduction=self.reduction, log_target=self.log_target)


class BCELoss(_WeightedLoss):
    """Mean negative log-likelihood of two classes, for probabilities.

    Args:
        weight: how much each entry counts; broadcasts.
        reduction: "mean", "sum" or "none".
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Two of one shape to ()."""
        return functional.binary_cross_entropy(input, target, self.weight, reduction=self.reduction)


class BCEWithLogitsLoss(_WeightedLoss):
    """Mean negative log-likelihood of two classes, for logits.

    Args:
        weight: how much each entry counts; broadcasts.
        reduction: "mean", "sum" or "none".
        pos_weight: how much the positive part counts; broadcasts.
    """

    pos_weight: Tensor | None

    def __init__(
        self, weight: Tensor | None = None, *, reduction: Reduction = "mean", pos_weight: Tensor | None = None
    ) -> None:
        super().__init__(weight, reduction=reduction)
        self.register_buffer("pos_weight", pos_weight)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Two of one shape to ()."""
        return functional.binary_cross_entropy_with_logits(
            input, target, self.weight, reduction=self.reduction, pos_weight=self.pos_weight
        )
