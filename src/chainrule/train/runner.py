"""How a Learner's steps are run: as machine code where they can be traced, else eagerly, and then it says why."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from chainrule.compile.jit import Compiled
from chainrule.compile.native import build
from chainrule.compile.tracing.only_if import updated_only_if_finite
from chainrule.core.node import at_user_line
from chainrule.errors import DTypeError, NotCompiledWarning, NotScalarError, SymbolicValueError, TraceError
from chainrule.optim.base import Optimizer
from chainrule.tensor import Tensor, backward_watchers

# What a function that cannot be traced raises.
_UNTRACEABLE = (TraceError, SymbolicValueError)


Parts = tuple[Any, Callable[[Any, Any], Tensor], Optimizer]


def scalar_loss(loss: Any) -> Tensor:
    """The loss, if it is a tensor of one entry."""
    if not isinstance(loss, Tensor):
        raise at_user_line(DTypeError(f"fit: loss_func must return a tensor; got {type(loss).__name__}"))
    if loss.numel() != 1:
        raise at_user_line(NotScalarError(
            f"fit: loss_func must return a scalar; got {loss.aval}; reduce it with .mean(), or reduction='mean'"
        ))  # fmt: skip
    return loss


class Runner:
    """One step, and one answer of the model.

    wanted: compile: None: if it can be done; True: or raise; False: never.
    """

    def __init__(self, wanted: bool | None) -> None:
        self._wanted = wanted
        self._usable = {"step": wanted is not False, "answer": wanted is not False}
        self._step_of: tuple[Parts, Compiled] | None = None
        self._answer_of: tuple[Any, Compiled] | None = None

    def step(self, parts: Parts, inputs: tuple[Tensor, ...], target: Tensor) -> tuple[Any, Tensor] | None:
        """(output, loss) of a step that has been taken; None if it has to be taken eagerly.

        parts: the model, the loss function, the optimiser: any of them may be another one than last time.
        """
        if not self._usable["step"] or backward_watchers.get():  # who watches backward passes wants to see one
            return None
        if self._step_of is None or any(a is not b for a, b in zip(self._step_of[0], parts, strict=True)):
            self._step_of = parts, _compiled_step(*parts)
        run = self._step_of[1]
        done: tuple[Any, Tensor] | None = self._tried("step", lambda: run(inputs, target), lambda: None)
        return done

    @property
    def compiled(self) -> Compiled | None:
        """The compiled step, once one has been taken."""
        return None if self._step_of is None or not self._usable["step"] else self._step_of[1]

    def answer(self, model: Any, inputs: tuple[Tensor, ...]) -> Any:
        """What the model says."""
        if not self._usable["answer"]:
            return model(*inputs)
        if self._answer_of is None or self._answer_of[0] is not model:
            self._answer_of = model, Compiled(lambda *inputs: model(*inputs))
        run = self._answer_of[1]
        return self._tried("answer", lambda: run(*inputs), lambda: model(*inputs))

    def _tried(self, what: str, compiled: Callable[[], Any], otherwise: Callable[[], Any]) -> Any:
        try:
            return compiled()
        except _UNTRACEABLE as error:
            if self._wanted:
                raise
            self._usable[what] = False
            warnings.warn(
                f"Learner: this runs eagerly, not as machine code: {error}; pass compile=False to have it so",
                NotCompiledWarning,
                stacklevel=4,
            )
        return otherwise()


def _compiled_step(model: Any, loss_func: Callable[[Any, Any], Tensor], optimizer: Optimizer) -> Compiled:
    def step(inputs: tuple[Tensor, ...], target: Tensor) -> tuple[Any, Tensor]:
        output = model(*inputs)
        loss = scalar_loss(loss_func(output, target))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return output, loss

    # A loss that is not finite changes nothing: whoever reads the error finds the weights from before the batch.
    return Compiled(step, build=lambda program: build(updated_only_if_finite(program)))
