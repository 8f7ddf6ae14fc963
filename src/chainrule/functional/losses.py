"""Losses, under PyTorch's names, composed of library ops: how far predictions are from targets, as one number.

Prediction and target must have one shape. Where PyTorch warns and broadcasts (n,1) against (n,) to (n,n), these raise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from chainrule import dtypes
from chainrule.array import elementwise, indexing, statistical
from chainrule.array.align import as_node, floating, to_dtype
from chainrule.core.aval import Aval
from chainrule.core.node import Node, at_user_line
from chainrule.core.tracing import known
from chainrule.errors import ArgumentError, DTypeError, OutOfRangeError, ShapeError

if TYPE_CHECKING:
    from chainrule.tensor import Tensor

Reduction = Literal["mean", "sum", "none"]

__all__ = [
    "binary_cross_entropy", "binary_cross_entropy_with_logits", "cross_entropy", "huber_loss", "kl_div", "l1_loss",
    "mse_loss", "nll_loss", "smooth_l1_loss",
]  # fmt: skip

# --- regression


def mse_loss(input: Tensor, target: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Mean squared error.

    L = (1/n) Σᵢ (inputᵢ − targetᵢ)²

    Args:
        input: predictions, any shape.
        target: the same shape.
        reduction: "mean", "sum", or "none" for one loss an entry.
    Returns: (), or the shape of `input` without a reduction.
    Raises: ShapeError: the shapes differ. ArgumentError: there is no such reduction.

    >>> import chainrule as cr
    >>> cr.nn.functional.mse_loss(cr.tensor([1.0, 2.0]), cr.tensor([0.0, 4.0]))
    tensor(2.5)
    """
    out, wanted = _pair("mse_loss", input, target, reduction)
    return _reduced((out - wanted).pow(2), reduction)


def l1_loss(input: Tensor, target: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Mean absolute error. Gradient where a prediction is exact: 0.

    L = (1/n) Σᵢ |inputᵢ − targetᵢ|

    Args:
        input: predictions, any shape.
        target: the same shape.
        reduction: "mean", "sum", or "none" for one loss an entry.
    Returns: (), or the shape of `input` without a reduction.
    Raises: ShapeError: the shapes differ. ArgumentError: there is no such reduction.

    >>> import chainrule as cr
    >>> cr.nn.functional.l1_loss(cr.tensor([1.0, 2.0]), cr.tensor([0.0, 4.0]))
    tensor(1.5)
    """
    out, wanted = _pair("l1_loss", input, target, reduction)
    return _reduced((out - wanted).abs(), reduction)


def huber_loss(input: Tensor, target: Tensor, *, reduction: Reduction = "mean", delta: float = 1.0) -> Tensor:
    """d²/2 for errors |d| < δ, and δ (|d| − δ/2) beyond: outliers pull with a bounded force.

    Args:
        input: predictions, any shape.
        target: the same shape.
        reduction: "mean", "sum", or "none" for one loss an entry.
        delta: where the parabola becomes a line, > 0.
    Returns: (), or the shape of `input` without a reduction.
    Raises: ShapeError: the shapes differ. ArgumentError: there is no such reduction, or `delta` ≤ 0.
    Source: Huber (1964), Robust estimation of a location parameter.
    """
    if delta <= 0:
        raise at_user_line(ArgumentError(f"huber_loss: delta must be > 0; got {delta}"))
    out, wanted = _pair("huber_loss", input, target, reduction)
    d = out - wanted
    size = d.abs()
    return _reduced(elementwise.where(size < delta, d * d * 0.5, (size - 0.5 * delta) * delta), reduction)


def smooth_l1_loss(input: Tensor, target: Tensor, *, reduction: Reduction = "mean", beta: float = 1.0) -> Tensor:
    """d²/(2β) for errors |d| < β, and |d| − β/2 beyond: `huber_loss` divided by β.

    Args:
        input: predictions, any shape.
        target: the same shape.
        reduction: "mean", "sum", or "none" for one loss an entry.
        beta: where the parabola becomes a line, ≥ 0; 0 is `l1_loss`.
    Returns: (), or the shape of `input` without a reduction.
    Raises: ShapeError: the shapes differ. ArgumentError: there is no such reduction, or `beta` < 0.
    Source: Girshick (2015), Fast R-CNN, arXiv:1504.08083.
    """
    if beta < 0:
        raise at_user_line(ArgumentError(f"smooth_l1_loss: beta must be ≥ 0; got {beta}"))
    out, wanted = _pair("smooth_l1_loss", input, target, reduction)
    d = out - wanted
    size = d.abs()
    if beta == 0:
        return _reduced(size, reduction)
    return _reduced(elementwise.where(size < beta, d * d * (0.5 / beta), size - 0.5 * beta), reduction)


# --- classification


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Mean negative log-likelihood of the target under softmax, in nats.

    L = −(1/n) Σᵢ log softmax(inputᵢ)[targetᵢ], and for probabilities −(1/n) Σᵢ Σ꜀ targetᵢ꜀ log softmax(inputᵢ)꜀

    Args:
        input: (n, classes) or (n, classes, …) or (classes,), float; unnormalised log-probabilities.
        target: integer labels, shaped like `input` without its classes; or probabilities, shaped like `input`.
        weight: (classes,), how much each class counts; the mean divides by the weights of the labels that were met.
        ignore_index: a label that counts for nothing.
        reduction: "mean", "sum", or "none" for one loss a sample.
        label_smoothing: the share ε of each target that is spread evenly over the classes, 0 ≤ ε ≤ 1.
    Returns: (), or the shape of the labels without a reduction; dtype of `input`.
    Raises: ShapeError: the shapes do not fit. DTypeError: labels are not integer. OutOfRangeError: a label without a
        class. ArgumentError: there is no such reduction or smoothing.
    Source: Goodfellow, Bengio, Courville (2016), Deep Learning, section 6.2.2.3; Szegedy et al. (2015) for smoothing,
        arXiv:1512.00567.

    >>> import chainrule as cr
    >>> cr.nn.functional.cross_entropy(cr.tensor([[2.0, 0.0], [0.0, 0.0]]), cr.tensor([0, 1]))
    tensor(0.41)
    """
    if not 0 <= label_smoothing <= 1:
        raise at_user_line(
            ArgumentError(f"cross_entropy: label_smoothing is a share, 0 ≤ ε ≤ 1; got {label_smoothing}")
        )
    _check_reduction("cross_entropy", reduction)
    logits, wanted, dim = _logits("cross_entropy", input, target)
    log_p = statistical.log_softmax(logits, dim)
    if wanted.shape == logits.shape and dtypes.is_float(wanted.dtype):
        return _against_probabilities(log_p, wanted, dim, weight, reduction, label_smoothing)
    return _against_labels("cross_entropy", log_p, wanted, dim, weight, ignore_index, reduction, label_smoothing)


def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
) -> Tensor:
    """Mean negative log-likelihood of integer labels: `cross_entropy` for inputs that are log-probabilities already.

    L = −(1/n) Σᵢ inputᵢ[targetᵢ]

    Args:
        input: (n, classes) or (n, classes, …) or (classes,), float; log-probabilities, as `log_softmax` gives them.
        target: integer labels, shaped like `input` without its classes.
        weight: (classes,), how much each class counts.
        ignore_index: a label that counts for nothing.
        reduction: "mean", "sum", or "none" for one loss a sample.
    Returns: (), or the shape of the labels without a reduction; dtype of `input`.
    Raises: ShapeError: the shapes do not fit. DTypeError: labels are not integer. OutOfRangeError: a label without a
        class. ArgumentError: there is no such reduction.
    """
    _check_reduction("nll_loss", reduction)
    log_p, wanted, dim = _logits("nll_loss", input, target)
    return _against_labels("nll_loss", log_p, wanted, dim, weight, ignore_index, reduction, 0.0)


def binary_cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None = None, *, reduction: Reduction = "mean"
) -> Tensor:
    """Mean negative log-likelihood of two classes, for probabilities.

    L = −(1/n) Σᵢ targetᵢ log inputᵢ + (1 − targetᵢ) log(1 − inputᵢ)

    A logarithm below −100 counts as −100, as in PyTorch, and passes no gradient (PyTorch's own there: ±1e12). Prefer
    `binary_cross_entropy_with_logits`, which never gets there.

    Args:
        input: probabilities, 0 ≤ p ≤ 1, any shape.
        target: probabilities, the same shape.
        weight: how much each entry counts; broadcasts.
        reduction: "mean", "sum", or "none" for one loss an entry.
    Returns: (), or the shape of `input` without a reduction.
    Raises: ShapeError: the shapes differ. ArgumentError: there is no such reduction, or an input is no probability.
    """
    p, wanted = _pair("binary_cross_entropy", input, target, reduction)
    value = known(p)
    if value is not None and value.size and not (value.min() >= 0 and value.max() <= 1):
        raise at_user_line(ArgumentError(
            f"binary_cross_entropy: expected probabilities, 0 ≤ p ≤ 1; got {value.min():g} … {value.max():g}; "
            f"use sigmoid first, or binary_cross_entropy_with_logits"
        ))  # fmt: skip
    # Each logarithm is taken of a number that has one; what stands behind a closed gate stays finite too. Both are
    # accurate where their argument is near 1: log1p for the second.
    tiny = float(np.finfo(p.dtype).tiny) if p.dtype in (dtypes.float32, dtypes.float64) else 1e-7
    above, below = p > tiny, p < 1.0
    log_p = elementwise.where(above, elementwise.where(above, p, 1.0).log().clamp_min(-100.0), -100.0)
    log_not = elementwise.where(below, elementwise.where(below, -p, 0.0).log1p().clamp_min(-100.0), -100.0)
    return _reduced(_weighted(-(wanted * log_p + (1.0 - wanted) * log_not), weight), reduction)


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    reduction: Reduction = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """Mean negative log-likelihood of two classes, for logits: no overflow, and no logarithm of 0.

    L = −(1/n) Σᵢ targetᵢ log σ(inputᵢ) + (1 − targetᵢ) log(1 − σ(inputᵢ)),
    computed as (1 − target) input − log σ(input)

    Args:
        input: logits, any shape.
        target: probabilities, the same shape.
        weight: how much each entry counts; broadcasts.
        reduction: "mean", "sum", or "none" for one loss an entry.
        pos_weight: how much the positive part counts; broadcasts.
    Returns: (), or the shape of `input` without a reduction.
    Raises: ShapeError: the shapes differ. ArgumentError: there is no such reduction.

    >>> import chainrule as cr
    >>> cr.nn.functional.binary_cross_entropy_with_logits(cr.tensor([0.0, 1000.0]), cr.tensor([1.0, 1.0]))
    tensor(0.3466)
    """
    x, wanted = _pair("binary_cross_entropy_with_logits", input, target, reduction)
    log_sigma = elementwise.logsigmoid(x)
    if pos_weight is not None:
        log_sigma = log_sigma * ((pos_weight - 1.0) * wanted + 1.0)
    return _reduced(_weighted((1.0 - wanted) * x - log_sigma, weight), reduction)


def kl_div(
    input: Tensor,
    target: Tensor,
    *,
    reduction: Literal["mean", "sum", "none", "batchmean"] = "mean",
    log_target: bool = False,
) -> Tensor:
    """The Kullback–Leibler divergence of a distribution from another, given by its logarithms.

    L = (1/n) Σᵢ targetᵢ (log targetᵢ − inputᵢ), where a target of 0 adds 0

    Args:
        input: log-probabilities, any shape.
        target: probabilities, the same shape; their logarithms with `log_target`.
        reduction: "mean" over all entries, "batchmean" over the first dimension alone (which is the divergence),
            "sum", or "none" for one term an entry.
        log_target: whether `target` holds logarithms.
    Returns: (), or the shape of `input` without a reduction.
    Raises: ShapeError: the shapes differ. ArgumentError: there is no such reduction.
    """
    log_q, p = _pair("kl_div", input, target, "sum" if reduction == "batchmean" else reduction)
    if log_target:
        terms = p.exp() * (p - log_q)
    else:
        there = p > 0.0
        terms = elementwise.where(there, p * elementwise.where(there, p, 1.0).log(), 0.0) - p * log_q
    if reduction == "batchmean":
        return terms.sum() / max(log_q.shape[0] if log_q.ndim else 1, 1)  # type: ignore[no-any-return]
    return _reduced(terms, reduction)


# --- shared


def _check_reduction(name: str, reduction: str) -> None:
    if reduction not in ("mean", "sum", "none"):
        raise at_user_line(ArgumentError(f"{name}: reduction must be 'mean', 'sum' or 'none'; got {reduction!r}"))


def _reduced(loss: Tensor, reduction: str) -> Tensor:
    if reduction == "mean":
        return loss.mean()
    return loss.sum() if reduction == "sum" else loss


def _weighted(loss: Tensor, weight: Any) -> Tensor:
    return loss if weight is None else loss * weight


def _pair(name: str, input: Any, target: Any, reduction: str) -> tuple[Any, Any]:
    """Prediction and target as float tensors of one shape."""
    _check_reduction(name, reduction)
    if not isinstance(input, Node):
        raise at_user_line(DTypeError(f"{name}: the prediction must be a tensor; got {type(input).__name__}"))
    wanted = as_node(target, input, name)
    if input.aval.shape != wanted.aval.shape:
        raise at_user_line(ShapeError(_mismatch(name, input.aval, wanted.aval)))
    return floating(input), floating(wanted)


def _mismatch(name: str, out: Aval, wanted: Aval) -> str:
    """The classic silent bug, said aloud: what broadcasting would have compared, and what to write instead."""
    said = f"{name}: prediction and target must have one shape; got {out} and {wanted}"
    if out.shape == (*wanted.shape, 1):
        return f"{said}, which broadcast to every prediction against every target; use out.squeeze(-1){_or_layer(out)}"
    if wanted.shape == (*out.shape, 1):
        return f"{said}, which broadcast to every prediction against every target; use target.squeeze(-1)"
    return f"{said}; reshape one of them"


def _or_layer(out: Aval) -> str:
    """Where the loss is called by a Learner, the model or the loss function has to do it."""
    return ", in the model or the loss function, or end the model with nn.Flatten(0)" if out.ndim == 2 else ""


def _logits(name: str, input: Any, target: Any) -> tuple[Any, Any, int]:
    """Scores, targets and the dimension of the classes, once the shapes and dtypes fit each other."""
    if not isinstance(input, Node) or not dtypes.is_float(input.aval.dtype):
        got = input.aval if isinstance(input, Node) else type(input).__name__
        raise at_user_line(DTypeError(f"{name}: scores must be a float tensor; got {got}"))
    scores, wanted = input.aval, as_node(target, input, name).aval
    if not scores.ndim:
        raise at_user_line(ShapeError(f"{name}: scores need a dimension of classes, (n, classes); got {scores}"))
    dim = 0 if scores.ndim == 1 else 1
    labels = scores.shape[:dim] + scores.shape[dim + 1 :]
    if wanted.shape == labels and not dtypes.is_integer(wanted.dtype):
        raise at_user_line(DTypeError(f"{name}: labels must be integer; got {wanted}; cast them with .long()"))
    if wanted.shape != labels and not (
        wanted.shape == scores.shape and dtypes.is_float(wanted.dtype) and name == "cross_entropy"
    ):
        hint = "use labels.squeeze(-1)" if wanted.shape == (*labels, 1) else "one label a row of scores"
        raise at_user_line(ShapeError(f"{name}: scores {scores} take labels {list(labels)}; got {wanted}; {hint}"))
    return input, as_node(target, input, name), dim


def _class_weights(name: str, weight: Any, log_p: Any, dim: int) -> Any:
    """The weight of each class in the dtype of the scores, or None."""
    if weight is None:
        return None
    given, classes = as_node(weight, log_p, name), log_p.aval.shape[dim]
    if given.aval.shape != (classes,):
        raise at_user_line(ShapeError(f"{name}: expected one weight for each of {classes} classes; got {given.aval}"))
    return to_dtype(given, log_p.aval.dtype)


def _over_classes(weight: Any, log_p: Any, dim: int) -> Any:
    return weight.reshape(-1, *(1 for _ in range(log_p.ndim - dim - 1)))


def _against_probabilities(log_p: Any, wanted: Any, dim: int, weight: Any, reduction: str, smoothing: float) -> Tensor:
    classes = log_p.shape[dim]
    if smoothing:
        wanted = wanted * (1.0 - smoothing) + smoothing / classes
    weights = _class_weights("cross_entropy", weight, log_p, dim)
    terms = wanted * log_p
    loss: Tensor = -(terms if weights is None else terms * _over_classes(weights, log_p, dim)).sum(dim)
    if reduction == "mean":  # over the samples, not over the weights they met
        return loss.mean()
    return _reduced(loss, reduction)


def _against_labels(
    name: str, log_p: Any, labels: Any, dim: int, weight: Any, ignore_index: int, reduction: str, smoothing: float
) -> Tensor:
    counted = None  # where a label counts; None: everywhere, which is decided by a look at the values
    value = known(labels)
    if value is None or (value == ignore_index).any():
        counted = labels != ignore_index
        labels = elementwise.where(counted, labels, 0)
    _check_labels(name, labels, log_p.shape[dim])
    labels = indexing.none_below_zero(labels, log_p.shape[dim])
    weights = _class_weights(name, weight, log_p, dim)
    column = to_dtype(labels, dtypes.int64).unsqueeze(dim)
    loss = -indexing.gather(log_p, dim, column).squeeze(dim)
    share = None if weights is None else weights[labels]  # what each sample counts
    if share is not None:
        loss = loss * share
    if smoothing:
        spread = -(log_p if weights is None else log_p * _over_classes(weights, log_p, dim)).sum(dim)
        loss = loss * (1.0 - smoothing) + spread * (smoothing / log_p.shape[dim])
    if counted is not None:
        loss = loss.where(counted, 0.0)
        share = counted.to(loss.dtype) if share is None else share.where(counted, 0.0)
    if reduction == "mean" and share is not None:
        total: Tensor = loss.sum() / share.sum()
        return total
    return _reduced(loss, reduction)


def _check_labels(name: str, labels: Any, classes: int) -> None:
    data = known(labels)
    if data is not None and data.size and not 0 <= data.min() <= data.max() < classes:
        wrong = data.min() if data.min() < 0 else data.max()
        raise at_user_line(OutOfRangeError(
            f"{name}: labels must lie in 0 … {classes - 1}, one a class; got {wrong}; count classes from 0, "
            f"and give the last layer one output a class"
        ))  # fmt: skip
