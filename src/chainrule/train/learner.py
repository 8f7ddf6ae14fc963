"""Learner: a model, data, a loss and an optimiser, and the training loop over them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from chainrule import creation
from chainrule.array.align import value_of
from chainrule.autodiff.mode import no_grad
from chainrule.compile.jit import Compiled
from chainrule.core.node import at_user_line
from chainrule.data.datasets import Split
from chainrule.errors import ArgumentError, DataError, DTypeError, TrainingError
from chainrule.nn.module import Module
from chainrule.optim.base import Optimizer
from chainrule.tensor import Tensor
from chainrule.train.callbacks import Callback
from chainrule.train.checkpoint import load_checkpoint, save_checkpoint
from chainrule.train.history import History, Row
from chainrule.train.metrics import Metric, MetricFunction, as_metric, as_number, samples
from chainrule.train.plot import loss_curve_svg, loss_figure
from chainrule.train.progress import Progress, chosen
from chainrule.train.runner import Runner, scalar_loss


class Batch(NamedTuple):
    """One step's tensors: what went in, what was wanted, what came out, and how far off it was."""

    inputs: tuple[Tensor, ...]
    target: Tensor
    output: Any
    loss: Tensor


class Learner:
    """A model, data, a loss and an optimiser; `fit` trains, `validate` measures, `predict` answers.

    Args:
        model: an nn.Module, or any function of the batch's inputs; a function needs an optimiser made of its tensors.
        data: (training batches, validation batches), or the training batches alone, or a `cr.data` Split; batches are
            tuples (input, …, target). Batches is what `cr.data.DataLoader` is, or any iterable that can be run anew.
        loss_func: (output, target) -> a scalar tensor.
        optimizer: an optimiser, or what makes one from parameters: `cr.optim.Adam`.
        lr: the learning rate, where `optimizer` makes one.
        metrics: functions (output, target) -> number, or `Metric`s; measured on the validation data.
        callbacks: see `Callback`.
        progress: how to show it: None suits the place, False shows nothing, or a `Progress`.
        compile: run each step, and each answer of the model, as machine code (see `cr.compile`). None: where that can
            be done; what cannot be traced runs eagerly, and a warning says why. True: raise instead. False: never. A
            callback that wants the gradients before the update (`on_after_backward`) also makes the steps eager.
    Raises: ArgumentError: a model without parameters, or an optimiser that has none of the model's. DTypeError: a part
        is not what it must be. DataError: no batches.

    After training: `history`, `last_batch`, and `loss()`, which runs the last batch again for an explanation.

    >>> import chainrule as cr
    >>> _ = cr.manual_seed(0)
    >>> x = cr.linspace(-1, 1, 64).reshape(64, 1)
    >>> loaders = cr.data.DataLoader((x, 3 * x), batch_size=16, shuffle=True, seed=0)
    >>> learner = cr.Learner(cr.nn.Linear(1, 1), loaders, cr.nn.MSELoss(), cr.optim.SGD, lr=0.5, progress=False)
    >>> learner.fit(20)["train_loss"][-1] < 1e-6
    True
    """

    def __init__(  # noqa: PLR0913 - what a training is made of
        self,
        model: Any,
        data: Any,
        loss_func: Callable[[Any, Any], Tensor],
        optimizer: Optimizer | Callable[..., Optimizer],
        *,
        lr: float | None = None,
        metrics: Sequence[Metric | MetricFunction] = (),
        callbacks: Sequence[Callback] = (),
        progress: Progress | bool | None = None,
        compile: bool | None = None,
    ) -> None:
        given_loss: Any = loss_func
        given_callbacks: Sequence[Any] = callbacks
        if isinstance(model, type) or not callable(model):
            raise at_user_line(DTypeError(f"Learner: the model must be a module or a function; got {model!r}"))
        if not callable(given_loss) or isinstance(given_loss, type):
            raise at_user_line(DTypeError(
                f"Learner: loss_func must be a function (output, target) -> scalar; got {loss_func!r}; a class needs ()"
            ))  # fmt: skip
        wrong = [c for c in given_callbacks if not isinstance(c, Callback)]
        if wrong:
            raise at_user_line(DTypeError(f"Learner: callbacks are instances of Callback; got {wrong[0]!r}"))
        self.model: Any = model
        self.loss_func = loss_func
        self.train_data, self.valid_data = _two_parts(data)
        self.optimizer = _optimizer_for(model, optimizer, lr)
        self.metrics = [as_metric(metric) for metric in metrics]
        self.callbacks, self.progress = list(callbacks), progress
        measured = () if self.valid_data is None else ("valid_loss", *(m.name for m in self.metrics))
        self.history = History(("epoch", "train_loss", *measured, "time"))
        self.epoch = self.batch = 0
        self.last_batch: Batch | None = None
        self._stopping: list[str] = []  # the reasons to stop after this epoch
        self._runner = Runner(compile)

    # --- training

    def fit(self, epochs: int) -> History:
        """Train for so many epochs; called again, it goes on.

        Ctrl-C ends the training after the step it meets, not the program: the history says `interrupted`.

        Returns: the history of all epochs so far.
        Raises: ArgumentError: `epochs` < 1. NotScalarError: the loss is no scalar. TrainingError: it is not finite.
            DataError: the training data gave no batch.
        """
        if epochs < 1:
            raise at_user_line(ArgumentError(f"fit: expected epochs ≥ 1; got {epochs}"))
        self.history.interrupted, self.history.stopped = False, None
        self._stopping.clear()
        shown, note = chosen(self.progress), ""
        first = self.epoch
        self._tell("on_fit_begin")
        shown.begin(self.history.columns, epochs, _length(self.train_data))
        try:
            while self.epoch < first + epochs and not self._stopping:
                self.epoch += 1
                self._epoch(shown, first)
            if self._stopping:
                self.history.stopped = "; ".join(self._stopping)
                note = f"stopped after epoch {self.epoch}: {self.history.stopped}"
        except KeyboardInterrupt:
            self.history.interrupted = True
            note = f"interrupted in epoch {self.epoch}; the model keeps what it has learnt"
        finally:
            shown.end(note)
            self._tell("on_fit_end")
        return self.history

    def _epoch(self, shown: Progress, first: int) -> None:
        started = time.perf_counter()
        self._tell("on_epoch_begin")
        total, count, self.batch = 0.0, 0, 0
        with self._mode(True):
            for parts in self.train_data:
                self.batch += 1
                inputs, target = _named(parts)
                loss = self._step(inputs, target)
                n = samples(target)
                total, count = total + loss * n, count + n
                self.history.losses.append(loss)
                shown.batch(self.epoch - first, self.batch, loss)
        if not count:
            raise at_user_line(DataError(
                "fit: the training data gave no batch; an iterator is used up after one epoch, a DataLoader is not"
            ))  # fmt: skip
        row: Row = {"epoch": float(self.epoch), "train_loss": total / count}
        if self.valid_data is not None:
            row |= self.validate()
        row["time"] = time.perf_counter() - started
        self.history.rows.append(row)
        self.history.ends.append(len(self.history.losses))
        shown.row(row)
        self._tell("on_epoch_end")

    def _step(self, inputs: tuple[Tensor, ...], target: Tensor) -> float:
        self._tell("on_batch_begin")
        wants_gradients = any(type(c).on_after_backward is not Callback.on_after_backward for c in self.callbacks)
        parts = self.model, self.loss_func, self.optimizer
        done = None if wants_gradients else self._runner.step(parts, inputs, target)
        if done is not None:
            self.last_batch = Batch(inputs, target, *done)
            value = self._checked(self.last_batch)
        else:
            with self._buffers_kept():
                output = self.model(*inputs)
                loss = scalar_loss(self.loss_func(output, target))
                self.last_batch = Batch(inputs, target, output, loss)
                value = self._checked(self.last_batch)
            self.optimizer.zero_grad()
            loss.backward()
            self._tell("on_after_backward")
            self.optimizer.step()
        self._tell("on_batch_end")
        return value

    def _checked(self, batch: Batch) -> float:
        """The loss as a number, if it is finite."""
        value = float(batch.loss.item())
        if not math.isfinite(value):
            rates = ", ".join(f"{group['lr']:g}" for group in self.optimizer.param_groups)
            raise at_user_line(TrainingError(
                f"fit: the loss is {value} in epoch {self.epoch}, batch {self.batch}: {_first_nonfinite(batch)}; try a "
                f"lower learning rate (now {rates}), standardised inputs, or a loss that takes logits; the weights are "
                f"those before this batch"
            ))  # fmt: skip
        return value

    @contextmanager
    def _buffers_kept(self) -> Iterator[None]:
        """After an error, or a loss that is not finite, buffers are as before: by then they have followed the batch."""
        before = [(b, b.clone()) for b in self.model.buffers()] if isinstance(self.model, Module) else []
        try:
            yield
        except BaseException:
            for buffer, value in before:
                buffer.copy_(value)
            raise

    def stop(self, reason: str) -> None:
        """End the training after this epoch; for callbacks."""
        self._stopping.append(reason)

    def _tell(self, moment: str) -> None:
        for callback in self.callbacks:
            getattr(callback, moment)(self)

    @contextmanager
    def _mode(self, training: bool) -> Iterator[None]:
        """The model in training or in evaluation, and back."""
        if not isinstance(self.model, Module):
            yield
            return
        before = [(module, module.training) for module in self.model.modules()]
        self.model.train(training)
        try:
            yield
        finally:
            for module, mode in before:
                module.training = mode

    # --- measuring and answering

    def validate(self, data: Iterable[Any] | None = None) -> dict[str, float]:
        """The loss and the metrics over a data set, each sample counting once; nothing is recorded or trained.

        Args:
            data: batches; None: the validation data.
        Returns: {"valid_loss": …, metric name: …}.
        Raises: ArgumentError: there is no validation data. DataError: there is no batch.
        """
        data = self.valid_data if data is None else data
        if data is None:
            raise at_user_line(
                ArgumentError("validate: the Learner has no validation data; pass some: validate(loader)")
            )
        for metric in self.metrics:
            metric.reset()
        total, count = 0.0, 0
        with self._mode(False), no_grad():
            for parts in data:
                inputs, target = _named(parts)
                output = self._runner.answer(self.model, inputs)
                n = samples(target)
                total += as_number("loss_func", self.loss_func(output, target)) * n
                count += n
                for metric in self.metrics:
                    metric.update(output, target)
        if not count:
            raise at_user_line(DataError("validate: the data gave no batch"))
        return {"valid_loss": total / count, **{metric.name: metric.value() for metric in self.metrics}}

    def predict(self, data: Any) -> Tensor:
        """The model's outputs, in evaluation and without a graph.

        Args:
            data: a tensor or array of inputs (n, …); or batches, whose targets are left out.
        Returns: (n, …).
        Raises: DataError: there is no batch.
        """
        with self._mode(False), no_grad():
            if isinstance(data, Tensor | np.ndarray):
                output: Tensor = self._runner.answer(self.model, (creation.asarray(data),))
                return output.detach()
            outputs = []
            for parts in data:
                batch = parts if isinstance(parts, tuple | list) else (parts,)
                inputs = tuple(creation.asarray(part) for part in (batch[:-1] if len(batch) > 1 else batch))
                outputs.append(self._runner.answer(self.model, inputs).detach())
            if not outputs:
                raise at_user_line(DataError("predict: the data gave no batch"))
            return Tensor.leaf(np.concatenate([value_of(out, "predict") for out in outputs]))

    def loss(self, batch: Batch | Sequence[Tensor] | None = None) -> Tensor:
        """The loss of a batch with the weights as they are now, with its graph: what `cr.explain` explains.

        Args:
            batch: (input, …, target); None: the last batch of the training. Its own graph is out of date, since the
                step that followed it changed the weights.
        Raises: ArgumentError: nothing was trained yet.
        """
        if batch is None:
            batch = self.last_batch
        if batch is None:
            raise at_user_line(ArgumentError("loss: there is no last batch yet; call fit first, or pass a batch"))
        inputs, target = (batch.inputs, batch.target) if isinstance(batch, Batch) else _named(batch)
        return self.loss_func(self.model(*inputs), target)

    @property
    def compiled_step(self) -> Compiled | None:
        """The step as machine code: its `.report()` says what became of it. None before the first, or if eager."""
        return self._runner.compiled

    def plot_losses(self) -> Any:
        """The loss curve as a matplotlib figure; `chainrule[demo]` brings matplotlib."""
        return loss_figure(self.history)

    def loss_curve_svg(self, width: int = 640, height: int = 320) -> str:
        """The loss curve as an SVG element, without a plotting library."""
        return loss_curve_svg(self.history, width, height)

    # --- state

    def weights(self) -> dict[str, np.ndarray]:
        """A copy of everything that is trained, by name (of a plain function: by number)."""
        return {name: np.array(value_of(tensor, "weights")) for name, tensor in self._trained().items()}

    def load_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Take back what `weights` gave."""
        for name, tensor in self._trained().items():
            np.copyto(tensor.writable("load_weights"), weights[name])

    def _trained(self) -> dict[str, Tensor]:
        if isinstance(self.model, Module):
            return self.model.state_dict()
        tensors = [p for group in self.optimizer.param_groups for p in group["params"]]
        return {str(i): tensor for i, tensor in enumerate(tensors)}

    def save(self, path: str | Path) -> Path:
        """Write the model, the optimiser, the epoch and where the random streams stand; whole or not at all, as .npz.

        The streams are those of the loaders, of layers with a generator of their own, and that of `cr.manual_seed`.
        """
        streams = {name: generator.get_state() for name, generator in self._streams().items()}
        return save_checkpoint(path, self._module("save"), self.optimizer, {"epoch": self.epoch, "streams": streams})

    def load(self, path: str | Path) -> None:
        """Go on from what `save` wrote, as if training had never stopped: with the same batches in the same order.

        The history, and what callbacks remember, begin anew. The stream of `cr.manual_seed` is set too.

        Raises: as `load_checkpoint`.
        """
        extra = load_checkpoint(path, self._module("load"), self.optimizer)
        self.epoch = int(extra.get("epoch", 0))
        saved = extra.get("streams", {})
        for name, generator in self._streams().items():
            if name in saved:
                generator.set_state(saved[name])

    def _streams(self) -> dict[str, creation.Generator]:
        """The random streams that training draws from, by where they are."""
        found: dict[str, Any] = {"manual_seed": creation.default_generator}
        for name, data in (("training", self.train_data), ("validation", self.valid_data)):
            found[name] = getattr(data, "generator", None)
        if isinstance(self.model, Module):
            found |= {f"model.{path}": getattr(m, "generator", None) for path, m in self.model.named_modules()}
        return {name: generator for name, generator in found.items() if isinstance(generator, creation.Generator)}

    def _module(self, name: str) -> Module:
        if not isinstance(self.model, Module):
            raise at_user_line(
                ArgumentError(f"{name}: only an nn.Module has a state to {name}; the model is a function")
            )
        return self.model


def _two_parts(data: Any) -> tuple[Iterable[Any], Iterable[Any] | None]:
    if isinstance(data, Split):
        return data.loaders()
    train, valid = data if isinstance(data, tuple | list) and len(data) == 2 else (data, None)
    for name, part in (("training", train), ("validation", valid)):
        if part is not None and (isinstance(part, Tensor | np.ndarray) or not isinstance(part, Iterable)):
            raise at_user_line(DTypeError(
                f"Learner: the {name} data must give batches; got {type(part).__name__}; wrap arrays: "
                f"cr.data.DataLoader((x, y), batch_size=64)"
            ))  # fmt: skip
    return train, valid


def _optimizer_for(model: Any, optimizer: Any, lr: float | None) -> Optimizer:
    params = list(model.parameters()) if hasattr(model, "parameters") else None
    if params is not None and not params:
        raise at_user_line(ArgumentError(
            f"Learner: {type(model).__name__} has no parameters; set layers as attributes (a plain list is not found: "
            f"use nn.ModuleList), and weights as nn.Parameter"
        ))  # fmt: skip
    if isinstance(optimizer, Optimizer):
        if lr is not None:
            raise at_user_line(ArgumentError("Learner: lr is for an optimiser still to be made; this one has its own"))
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        if params is not None and not any(id(p) in held for p in params):
            raise at_user_line(ArgumentError(
                "Learner: the optimiser holds none of the model's parameters; build it with this model's parameters()"
            ))  # fmt: skip
        return optimizer
    if not callable(optimizer):
        raise at_user_line(DTypeError(f"Learner: expected an optimiser, or what makes one; got {optimizer!r}"))
    if params is None:
        raise at_user_line(ArgumentError(
            "Learner: a plain function has no parameters(); pass an optimiser made of its tensors: SGD([w, b], lr=0.1)"
        ))  # fmt: skip
    made = optimizer(params) if lr is None else optimizer(params, lr=lr)
    if not isinstance(made, Optimizer):
        raise at_user_line(DTypeError(f"Learner: the optimiser factory returned {type(made).__name__}"))
    return made


def _length(data: Iterable[Any]) -> int | None:
    return len(data) if isinstance(data, Sized) else None


def _named(parts: Any) -> tuple[tuple[Tensor, ...], Tensor]:
    """A batch as (inputs, target), as tensors that explanations print as x (or x1, x2, …) and y."""
    if not isinstance(parts, tuple | list) or len(parts) < 2:
        raise at_user_line(DataError(
            f"Learner: a batch is (input, …, target); got {type(parts).__name__}; give the loader inputs and targets"
        ))  # fmt: skip
    *inputs, target = (creation.asarray(part) for part in parts)
    for i, x in enumerate(inputs):
        x.symbol = "x" if len(inputs) == 1 else f"x{i + 1}"
    target.symbol = "y"
    return tuple(inputs), target


def _first_nonfinite(batch: Batch) -> str:
    """Where it began, as far as one step shows."""
    for name, value in (("an input", batch.inputs), ("the target", (batch.target,)), ("the output", (batch.output,))):
        for tensor in value:
            data = getattr(tensor, "array", None)
            if data is not None and data.dtype.kind == "f" and not np.isfinite(data).all():
                return f"{name} holds inf or nan already"
    return "output and target are finite, so the loss itself overflowed"
