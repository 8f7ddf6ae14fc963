"""Callbacks: what else happens during training, at named moments; each method is given the Learner.

on_fit_begin, then for each epoch: on_epoch_begin, for each batch on_batch_begin, on_after_backward (gradients are
there, weights not yet updated) and on_batch_end, after the validation on_epoch_end; at last, whatever happened,
on_fit_end. Steps are compiled as a rule, and use gradients up: then `.grad` is None in on_batch_end.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from chainrule.core.node import at_user_line
from chainrule.errors import ArgumentError
from chainrule.optim.base import Optimizer
from chainrule.optim.schedule import Scheduler

if TYPE_CHECKING:
    from chainrule.train.learner import Learner


class Callback:
    """Does nothing at every moment; a subclass says what to do at some."""

    def on_fit_begin(self, learner: Learner) -> None:
        """Training starts."""

    def on_epoch_begin(self, learner: Learner) -> None:
        """An epoch starts: `learner.epoch`, counted from 1."""

    def on_batch_begin(self, learner: Learner) -> None:
        """A batch starts: `learner.batch`, counted from 1."""

    def on_after_backward(self, learner: Learner) -> None:
        """Gradients are there, weights not updated yet: the place to clip, to look, to explain `learner.last_batch`."""

    def on_batch_end(self, learner: Learner) -> None:
        """The weights are updated."""

    def on_epoch_end(self, learner: Learner) -> None:
        """The epoch's row is in `learner.history`."""

    def on_fit_end(self, learner: Learner) -> None:
        """Training is over, however it ended."""


class EarlyStopping(Callback):
    """Stops when a column of the table has not improved for a while, and takes the best weights back.

    Args:
        monitor: the column.
        patience: epochs without improvement after which to stop, ≥ 1.
        min_delta: by how much it must improve to count, ≥ 0.
        mode: "min" if lower is better, else "max"; None: "min" for a loss or an error, "max" otherwise.
        restore_best: whether the weights of the best epoch are taken back at the end.
    Raises: ArgumentError: an option outside its range, or, when training starts, a column that is not measured.
    """

    def __init__(
        self,
        monitor: str = "valid_loss",
        patience: int = 5,
        *,
        min_delta: float = 0.0,
        mode: Literal["min", "max"] | None = None,
        restore_best: bool = True,
    ) -> None:
        if patience < 1 or min_delta < 0:
            raise at_user_line(ArgumentError(
                f"EarlyStopping: expected patience ≥ 1 and min_delta ≥ 0; got {patience} and {min_delta}"
            ))  # fmt: skip
        lower = mode == "min" if mode is not None else "loss" in monitor or "error" in monitor
        self.monitor, self.patience, self.min_delta, self.restore_best = monitor, patience, min_delta, restore_best
        self.sign = 1.0 if lower else -1.0
        self.best, self.best_epoch = math.inf, 0
        self._weights: dict[str, Any] | None = None

    def on_fit_begin(self, learner: Learner) -> None:
        if self.monitor not in learner.history.columns:
            raise at_user_line(ArgumentError(
                f"EarlyStopping: {self.monitor!r} is not measured; there are {', '.join(learner.history.columns)}; "
                f"give the Learner validation data, or watch train_loss"
            ))  # fmt: skip
        self.best, self.best_epoch, self._weights = math.inf, 0, None

    def on_epoch_end(self, learner: Learner) -> None:
        value = self.sign * learner.history.rows[-1][self.monitor]
        if value < self.best - self.min_delta:
            self.best, self.best_epoch = value, learner.epoch
            if self.restore_best:
                self._weights = learner.weights()
        elif learner.epoch - self.best_epoch >= self.patience:
            learner.stop(f"{self.monitor} has not improved since epoch {self.best_epoch}")

    def on_fit_end(self, learner: Learner) -> None:
        if self._weights is not None:
            learner.load_weights(self._weights)


class Schedule(Callback):
    """Steps a learning-rate schedule.

    Args:
        scheduler: a schedule, or a function that makes one from the optimiser when training starts.
        every: "batch" or "epoch".
    Raises: ArgumentError: `every` is neither.

    >>> import chainrule as cr
    >>> warm_restart = cr.train.Schedule(lambda optimizer: cr.optim.CosineAnnealingLR(optimizer, 100), every="batch")
    """

    def __init__(
        self, scheduler: Scheduler | Callable[[Optimizer], Scheduler], every: Literal["batch", "epoch"] = "epoch"
    ) -> None:
        if every not in ("batch", "epoch"):
            raise at_user_line(ArgumentError(f"Schedule: every must be 'batch' or 'epoch'; got {every!r}"))
        self.make, self.every = scheduler, every
        self.scheduler: Scheduler | None = scheduler if isinstance(scheduler, Scheduler) else None

    def on_fit_begin(self, learner: Learner) -> None:
        if not isinstance(self.make, Scheduler):
            self.scheduler = self.make(learner.optimizer)

    def on_batch_end(self, learner: Learner) -> None:
        if self.every == "batch" and self.scheduler is not None:
            self.scheduler.step()

    def on_epoch_end(self, learner: Learner) -> None:
        if self.every == "epoch" and self.scheduler is not None:
            self.scheduler.step()


class CSVLogger(Callback):
    """Writes each epoch's row to a CSV file as soon as it is there; the file starts anew with each `fit`.

    Args:
        path: the file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def on_fit_begin(self, learner: Learner) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._append(list(learner.history.columns), "w")

    def on_epoch_end(self, learner: Learner) -> None:
        row = learner.history.rows[-1]
        self._append([row[column] for column in learner.history.columns], "a")

    def _append(self, values: list[Any], mode: str) -> None:
        with self.path.open(mode, newline="", encoding="utf-8") as file:
            csv.writer(file).writerow(values)


class SaveBest(Callback):
    """Saves a checkpoint whenever a column of the table is better than ever in this `fit`.

    Args:
        path: the file, replaced atomically.
        monitor: the column.
        mode: "min" if lower is better, else "max"; None: "min" for a loss or an error, "max" otherwise.
    """

    def __init__(
        self, path: str | Path, monitor: str = "valid_loss", mode: Literal["min", "max"] | None = None
    ) -> None:
        lower = mode == "min" if mode is not None else "loss" in monitor or "error" in monitor
        self.path, self.monitor, self.sign = Path(path), monitor, 1.0 if lower else -1.0

    def on_fit_begin(self, learner: Learner) -> None:
        self.best = math.inf
        if self.monitor not in learner.history.columns:
            raise at_user_line(ArgumentError(
                f"SaveBest: {self.monitor!r} is not measured; there are {', '.join(learner.history.columns)}"
            ))  # fmt: skip

    def on_epoch_end(self, learner: Learner) -> None:
        value = self.sign * learner.history.rows[-1][self.monitor]
        if value < self.best:
            self.best = value
            learner.save(self.path)
