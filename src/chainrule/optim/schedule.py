"""Learning-rate schedules: each is a function of the step, written into the optimiser's groups by `step()`.

The rate is computed from the step alone, never from the last rate, so that no rounding adds up. PyTorch's names.
"""

from __future__ import annotations

import bisect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, final

from chainrule.core.node import at_user_line
from chainrule.core.tracing import tracer
from chainrule.errors import ArgumentError, DTypeError, TraceError
from chainrule.optim.base import Optimizer


class Scheduler(ABC):
    """A learning rate for each group and step. Making one sets the rate of step 0; `step()` goes on to the next.

    last_epoch: the step that the rates now in the optimiser belong to.
    base_lrs: the rates that the groups had when the schedule was made.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        if not isinstance(optimizer, Optimizer):
            raise at_user_line(
                DTypeError(f"{type(self).__name__}: expected an optimiser; got {type(optimizer).__name__}")
            )
        self.optimizer = optimizer
        self.base_lrs: list[float] = [float(group["lr"]) for group in optimizer.param_groups]
        self.last_epoch = 0
        self._write()

    @abstractmethod
    def _rate(self, step: int, base: float, group: int) -> float:
        """The learning rate of a group, whose rate was `base`, at a step."""

    def step(self) -> None:
        """Go on to the next step: call it after the optimiser's.

        Raises: TraceError: inside a compiled function, where it would run only once.
        """
        if tracer() is not None:
            raise at_user_line(TraceError(
                f"{type(self).__name__}.step: inside a compiled function this would run only while it is traced; call "
                f"it after the compiled step, which reads the rate anew at each call"
            ))  # fmt: skip
        self.last_epoch += 1
        self._write()

    def _write(self) -> None:
        for i, (group, base) in enumerate(zip(self.optimizer.param_groups, self.base_lrs, strict=True)):
            group["lr"] = self._rate(self.last_epoch, base, i)

    def get_last_lr(self) -> list[float]:
        """The rates now in the optimiser, one a group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Where the schedule stands."""
        return {"last_epoch": self.last_epoch, "base_lrs": list(self.base_lrs)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from where a schedule of the same options stood."""
        self.last_epoch, self.base_lrs = int(state_dict["last_epoch"]), list(state_dict["base_lrs"])
        self._write()


@final
class StepLR(Scheduler):
    """η · γ^⌊t / step_size⌋: a drop every `step_size` steps.

    Args:
        optimizer: whose rates to set.
        step_size: steps between drops, ≥ 1.
        gamma: γ, the factor of a drop.
    Raises: ArgumentError: `step_size` < 1.
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1) -> None:
        if step_size < 1:
            raise at_user_line(ArgumentError(f"StepLR: step_size must be ≥ 1; got {step_size}"))
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer)

    def _rate(self, step: int, base: float, group: int) -> float:
        return base * self.gamma ** (step // self.step_size)


@final
class MultiStepLR(Scheduler):
    """η · γⁿ, where n counts the milestones that are past: a drop at each.

    Args:
        optimizer: whose rates to set.
        milestones: the steps from which on a drop counts; one that comes twice counts twice.
        gamma: γ, the factor of a drop.
    """

    def __init__(self, optimizer: Optimizer, milestones: Sequence[int], gamma: float = 0.1) -> None:
        self.milestones, self.gamma = sorted(milestones), gamma
        super().__init__(optimizer)

    def _rate(self, step: int, base: float, group: int) -> float:
        return float(base * self.gamma ** bisect.bisect_right(self.milestones, step))


@final
class LinearLR(Scheduler):
    """η times a factor that goes in a straight line from `start_factor` to `end_factor`: a warm-up.

    Args:
        optimizer: whose rates to set.
        start_factor: the factor of the first step, 0 < factor ≤ 1.
        end_factor: the factor of the last and of all that follow, 0 ≤ factor ≤ 1.
        total_iters: steps from one to the other, ≥ 1.
    Raises: ArgumentError: a number outside its range.

    >>> import chainrule as cr
    >>> optimizer = cr.optim.SGD([cr.zeros(1, requires_grad=True)], lr=0.5)
    >>> schedule = cr.optim.LinearLR(optimizer, start_factor=0.5, total_iters=2)
    >>> schedule.step()
    >>> schedule.get_last_lr()
    [0.375]
    """

    def __init__(
        self, optimizer: Optimizer, start_factor: float = 1 / 3, end_factor: float = 1.0, total_iters: int = 5
    ) -> None:
        if not 0 < start_factor <= 1:
            raise at_user_line(ArgumentError(f"LinearLR: start_factor: 0 < factor ≤ 1; got {start_factor}"))
        if not 0 <= end_factor <= 1:
            raise at_user_line(ArgumentError(f"LinearLR: end_factor: 0 ≤ factor ≤ 1; got {end_factor}"))
        if total_iters < 1:
            raise at_user_line(ArgumentError(f"LinearLR: total_iters must be ≥ 1; got {total_iters}"))
        self.start_factor, self.end_factor, self.total_iters = start_factor, end_factor, total_iters
        super().__init__(optimizer)

    def _rate(self, step: int, base: float, group: int) -> float:
        share = min(step, self.total_iters) / self.total_iters
        return base * (self.start_factor + (self.end_factor - self.start_factor) * share)


@final
class ExponentialLR(Scheduler):
    """η · γᵗ.

    Args:
        optimizer: whose rates to set.
        gamma: γ, the factor of a step.
    """

    def __init__(self, optimizer: Optimizer, gamma: float) -> None:
        self.gamma = gamma
        super().__init__(optimizer)

    def _rate(self, step: int, base: float, group: int) -> float:
        return float(base * self.gamma**step)


@final
class LambdaLR(Scheduler):
    """η · f(t), with a function of one's own.

    Args:
        optimizer: whose rates to set.
        lr_lambda: step number to factor; or a list with one function a group.
    Raises: ArgumentError: a list of another length than the groups.

    >>> import chainrule as cr
    >>> optimizer = cr.optim.SGD([cr.zeros(1, requires_grad=True)], lr=0.5)
    >>> schedule = cr.optim.LambdaLR(optimizer, lambda t: 1 / (1 + t))
    >>> schedule.step()
    >>> schedule.get_last_lr()
    [0.25]
    """

    def __init__(
        self, optimizer: Optimizer, lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]]
    ) -> None:
        groups = len(optimizer.param_groups)
        self.lr_lambdas = [lr_lambda] * groups if callable(lr_lambda) else list(lr_lambda)
        if len(self.lr_lambdas) != groups:
            raise at_user_line(
                ArgumentError(f"LambdaLR: {len(self.lr_lambdas)} functions for {groups} groups; give one each")
            )
        super().__init__(optimizer)

    def _rate(self, step: int, base: float, group: int) -> float:
        return base * self.lr_lambdas[group](step)


@final
class CosineAnnealingLR(Scheduler):
    """η_min + (η − η_min) (1 + cos(π t / T_max)) / 2: half a cosine down, and up again after T_max.

    Args:
        optimizer: whose rates to set.
        T_max: steps until the lowest rate, ≥ 1.
        eta_min: η_min, the lowest rate.
    Raises: ArgumentError: `T_max` < 1.
    Source: Loshchilov, Hutter (2016), SGDR, arXiv:1608.03983.
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0) -> None:
        if T_max < 1:
            raise at_user_line(ArgumentError(f"CosineAnnealingLR: T_max must be ≥ 1; got {T_max}"))
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer)

    def _rate(self, step: int, base: float, group: int) -> float:
        return self.eta_min + (base - self.eta_min) * (1 + math.cos(math.pi * step / self.T_max)) / 2


@final
class OneCycleLR(Scheduler):
    """Up from max_lr / div_factor to max_lr, then down to initial / final_div_factor; momentum goes the other way.

    Args:
        optimizer: whose rates to set; step it after each batch.
        max_lr: the highest rate, or one a group.
        total_steps: the length of the cycle; or
        epochs, steps_per_epoch: its two factors.
        pct_start: the share of the cycle that goes up, 0 ≤ share ≤ 1.
        anneal_strategy: "cos" or "linear".
        cycle_momentum: whether to move the momentum (SGD), or β₁ (Adam), between the two bounds.
        base_momentum, max_momentum: the bounds.
        div_factor: max_lr / the first rate.
        final_div_factor: the first rate / the last.
    Raises: ArgumentError: no length, an option outside its range, or a step beyond the end.
    Source: Smith, Topin (2017), Super-convergence, arXiv:1708.07120.
    """

    def __init__(  # noqa: PLR0913 - PyTorch's signature
        self,
        optimizer: Optimizer,
        max_lr: float | Sequence[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: Literal["cos", "linear"] = "cos",
        cycle_momentum: bool = True,
        base_momentum: float = 0.85,
        max_momentum: float = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
    ) -> None:
        steps = total_steps if total_steps is not None else (epochs or 0) * (steps_per_epoch or 0)
        if steps < 1:
            raise at_user_line(ArgumentError("OneCycleLR: give total_steps ≥ 1, or epochs and steps_per_epoch"))
        if not 0 <= pct_start <= 1:
            raise at_user_line(ArgumentError(f"OneCycleLR: pct_start is a share, 0 ≤ share ≤ 1; got {pct_start}"))
        if anneal_strategy not in ("cos", "linear"):
            raise at_user_line(
                ArgumentError(f"OneCycleLR: anneal_strategy must be 'cos' or 'linear'; got {anneal_strategy!r}")
            )
        groups = len(optimizer.param_groups)
        self.max_lrs = [float(max_lr)] * groups if isinstance(max_lr, int | float) else [float(rate) for rate in max_lr]
        if len(self.max_lrs) != groups:
            raise at_user_line(ArgumentError(f"OneCycleLR: {len(self.max_lrs)} values of max_lr for {groups} groups"))
        self.total_steps, self.anneal_strategy = steps, anneal_strategy
        self.div_factor, self.final_div_factor = div_factor, final_div_factor
        self.up = pct_start * steps - 1  # the step of the highest rate; not rounded, as in PyTorch
        self.momenta = (max_momentum, base_momentum) if cycle_momentum else None
        if cycle_momentum and any("momentum" not in g and "betas" not in g for g in optimizer.param_groups):
            raise at_user_line(ArgumentError("OneCycleLR: the optimiser has no momentum; pass cycle_momentum=False"))
        super().__init__(optimizer)

    def _between(self, step: int, start: float, top: float, end: float) -> float:
        """From `start` to `top` on the way up, and to `end` on the way down."""
        if step <= self.up or self.up >= self.total_steps - 1:
            first, last, share = start, top, step / self.up if self.up > 0 else 1.0
        else:
            first, last, share = top, end, min(1.0, (step - self.up) / (self.total_steps - 1 - self.up))
        if self.anneal_strategy == "linear":
            return first + (last - first) * share
        return last + (first - last) * (1 + math.cos(math.pi * share)) / 2

    def _rate(self, step: int, base: float, group: int) -> float:
        if step > self.total_steps:  # the call after the last batch is allowed: loops end with it
            raise at_user_line(ArgumentError(
                f"OneCycleLR: step {step} lies beyond the cycle of {self.total_steps} steps; count one a batch"
            ))  # fmt: skip
        top = self.max_lrs[group]
        start = top / self.div_factor
        return self._between(step, start, top, start / self.final_div_factor)

    def _write(self) -> None:
        super()._write()
        if self.momenta is None:
            return
        high, low = self.momenta
        momentum = self._between(self.last_epoch, high, low, high)
        for group in self.optimizer.param_groups:
            if "betas" in group:
                group["betas"] = (momentum, *group["betas"][1:])
            else:
                group["momentum"] = momentum
