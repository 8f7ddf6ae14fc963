"""Metrics: what a person judges a model by, measured over a whole data set.

A metric is a function (output, target) -> number, averaged over batches by their number of samples. One that is no
average of its batches, as R², accumulates what it needs: a `Metric`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, final

import numpy as np

from chainrule.core.node import Node, at_user_line
from chainrule.errors import DTypeError, NotScalarError, ShapeError

MetricFunction = Callable[[Any, Any], Any]


class Metric(ABC):
    """A number measured over many batches.

    name: what its column is called.
    """

    name: str

    @abstractmethod
    def reset(self) -> None:
        """Forget all batches."""

    @abstractmethod
    def update(self, output: Any, target: Any) -> None:
        """Take in one batch."""

    @abstractmethod
    def value(self) -> float:
        """The metric over all batches since `reset`; nan if there were none."""


@final
class Averaged(Metric):
    """A function's mean over batches, weighted by their number of samples.

    Args:
        function: (output, target) -> a number or a tensor with one entry.
    Raises: DTypeError: `function` is none, or returned no number. NotScalarError: it returned more than one.
    """

    def __init__(self, function: MetricFunction, name: str = "") -> None:
        if not callable(function):
            raise at_user_line(DTypeError(f"metrics: expected functions (output, target) -> number; got {function!r}"))
        self.function = function
        self.name = name or getattr(function, "__name__", type(function).__name__)
        self.reset()

    def reset(self) -> None:
        self._total, self._count = 0.0, 0

    def update(self, output: Any, target: Any) -> None:
        n = samples(target)
        self._total += as_number(self.name, self.function(output, target)) * n
        self._count += n

    def value(self) -> float:
        return self._total / self._count if self._count else float("nan")


@final
class R2Score(Metric):
    """1 − Σ (y − ŷ)² / Σ (y − ȳ)²: 1 is perfect, 0 is no better than the mean. Over all batches at once.

    Raises: ShapeError: output and target have different shapes.
    """

    def __init__(self) -> None:
        self.name = "r2_score"
        self.reset()

    def reset(self) -> None:
        self._targets: list[np.ndarray] = []
        self._missed = 0.0

    def update(self, output: Any, target: Any) -> None:
        out, wanted = _same_shape("r2_score", output, target)
        self._missed += float(np.square(wanted - out).sum())
        self._targets.append(wanted.reshape(-1))

    def value(self) -> float:
        if not self._targets:
            return float("nan")
        all_targets = np.concatenate(self._targets)
        spread = float(np.square(all_targets - all_targets.mean()).sum())
        return 1.0 - self._missed / spread if spread else float("nan")


def accuracy(output: Any, target: Any) -> float:
    """The share of samples whose label is right.

    Args:
        output: (n, classes), scores, of which the largest is the answer; or the shape of `target`, labels already.
        target: (n,), labels.
    Returns: 0 … 1.
    Raises: ShapeError: the shapes do not fit.

    >>> import chainrule as cr
    >>> accuracy(cr.tensor([[0.1, 0.9], [0.8, 0.2]]), cr.tensor([1, 1]))
    0.5
    """
    out, wanted = _array(output), _array(target)
    if out.ndim == wanted.ndim + 1:
        out = out.argmax(axis=1)
    if out.shape != wanted.shape:
        raise at_user_line(ShapeError(
            f"accuracy: expected scores (n, classes) and labels (n,); got {list(_array(output).shape)} and "
            f"{list(wanted.shape)}"
        ))  # fmt: skip
    return float((out == wanted).mean())


def mean_squared_error(output: Any, target: Any) -> float:
    """(1/n) Σ (output − target)².

    Args:
        output: any shape.
        target: the same shape.
    Raises: ShapeError: the shapes differ.

    >>> import chainrule as cr
    >>> mean_squared_error(cr.tensor([1.0, 2.0]), cr.tensor([0.0, 4.0]))
    2.5
    """
    out, wanted = _same_shape("mean_squared_error", output, target)
    return float(np.square(out - wanted).mean())


def mean_absolute_error(output: Any, target: Any) -> float:
    """(1/n) Σ |output − target|, in the unit of the target.

    Args:
        output: any shape.
        target: the same shape.
    Raises: ShapeError: the shapes differ.

    >>> import chainrule as cr
    >>> mean_absolute_error(cr.tensor([1.0, 2.0]), cr.tensor([0.0, 4.0]))
    1.5
    """
    out, wanted = _same_shape("mean_absolute_error", output, target)
    return float(np.abs(out - wanted).mean())


def r2_score(output: Any, target: Any) -> float:
    """1 − Σ (y − ŷ)² / Σ (y − ȳ)²: 1 is perfect, 0 is no better than the mean.

    Args:
        output: ŷ, any shape.
        target: y, the same shape.
    Returns: ≤ 1; nan where the targets are all equal.
    Raises: ShapeError: the shapes differ.

    >>> import chainrule as cr
    >>> r2_score(cr.tensor([1.0, 2.0, 3.0]), cr.tensor([1.0, 2.0, 4.0]))
    0.786
    """
    metric = R2Score()
    metric.update(output, target)
    return metric.value()


# Functions that are no average of their batches, and what measures them over many.
_ACCUMULATED: tuple[tuple[MetricFunction, type[Metric]], ...] = ((r2_score, R2Score),)


def as_metric(metric: Metric | MetricFunction) -> Metric:
    """A metric as the Learner uses it: a Metric itself, or a function averaged over batches."""
    if isinstance(metric, Metric):
        return metric
    accumulated = next((measure for function, measure in _ACCUMULATED if function is metric), None)
    return accumulated() if accumulated is not None else Averaged(metric)


def as_number(name: str, value: Any) -> float:
    """What a metric or a loss returned, as a Python number."""
    if isinstance(value, Node):
        data = value.array
        if data is None or data.size != 1:
            raise at_user_line(NotScalarError(f"{name}: expected one number; got {value.aval}; reduce it with .mean()"))
        return float(data.item())
    if isinstance(value, np.ndarray) and value.size != 1:
        raise at_user_line(NotScalarError(f"{name}: expected one number; got shape {list(value.shape)}; use .mean()"))
    try:
        return float(value)
    except (TypeError, ValueError):
        raise at_user_line(DTypeError(f"{name}: expected a number; got {type(value).__name__}")) from None


def samples(target: Any) -> int:
    """How many samples a batch holds."""
    shape = getattr(target, "shape", ())
    return int(shape[0]) if shape else 1


def _array(value: Any) -> np.ndarray:
    data = value.array if isinstance(value, Node) else value
    return np.asarray(data)


def _same_shape(name: str, output: Any, target: Any) -> tuple[np.ndarray, np.ndarray]:
    out, wanted = _array(output), _array(target)
    if out.shape != wanted.shape:
        hint = "; use out.squeeze(-1)" if out.shape == (*wanted.shape, 1) else ""
        raise at_user_line(ShapeError(
            f"{name}: output and target must have one shape; got {list(out.shape)} and {list(wanted.shape)}{hint}"
        ))  # fmt: skip
    return out.astype(np.float64), wanted.astype(np.float64)
