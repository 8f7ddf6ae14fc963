"""One gradient held against central differences of the whole loss, and the reasons why sometimes it cannot be."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from chainrule import dtypes
from chainrule.autodiff.check import STEP, directional_derivative, gradient_in_double
from chainrule.core.node import Node
from chainrule.explain.record import Run

_SEED = 20_260_101
# Differences and gradient agree within this relative error: rounding of a float32 gradient stays a thousand times below
# it. A kink between the two ends of a difference can exceed it, and so the words say.
AGREES = 1e-2
# How many widths are tried, each a tenth of the last, where the gradient does not agree: a net of many ReLUs has a kink
# nearly everywhere, and a narrow difference is seldom across one. But the narrower, the more of it is rounding.
_WIDTHS = 6


@dataclass(frozen=True)
class NumberCheck:
    """A gradient held against central differences of the whole loss, in float64.

    what: what was moved. stated: the gradient's own value for it. measured: the difference quotient.
    resolution: the smallest slope that differences of this loss can show.
    noise: how far rounding in the run's own precision can move the gradient, from the sizes of what it was made from.
    exact: what the same rules give in float64, if that was asked.
    """

    what: str
    stated: float
    measured: float
    resolution: float = 0.0
    noise: float = 0.0
    exact: float | None = None

    @property
    def finite(self) -> bool:
        """Are both numbers, so that they can be compared?"""
        return math.isfinite(self.stated) and math.isfinite(self.measured)

    @property
    def too_small(self) -> bool:
        """Is the gradient lost in the rounding of the loss, so that differences say nothing about it?"""
        return max(abs(self.stated), abs(self.measured)) < 10 * self.resolution

    @property
    def error(self) -> float:
        """The difference, relative to the larger of the two."""
        size = max(abs(self.stated), abs(self.measured))
        return abs(self.stated - self.measured) / size if size else 0.0

    @property
    def agrees(self) -> bool:
        """Do they say the same, as far as differences can tell?"""
        return not self.finite or self.too_small or self.rounded or self.error <= AGREES

    @property
    def rounded(self) -> bool:
        """Do they differ by no more than what the run's own precision rounds away?"""
        exact = self.exact is not None and abs(self.exact - self.measured) <= AGREES * abs(self.measured)
        return exact or abs(self.stated - self.measured) <= self.noise


def measure(
    run: Run, wrt: Node, name: str, at: tuple[int, ...] | None, gradient: np.ndarray, largest: float
) -> NumberCheck | str:
    """The gradient of a leaf along one entry or a random direction, against differences; or why it is not measured.

    largest: the norm of the largest gradient on the way, which rounding errors are relative to.
    """
    if wrt.op is not None or wrt.array is None:
        return f"{name} was computed, not given: re-evaluated above; finite differences move leaves only"
    changed = _changed(run)
    if changed is not None:
        return f"not measured: {changed} was changed in place since the forward pass; run it again to measure"
    direction, entry = np.zeros(wrt.aval.shape), None
    if at is not None or wrt.aval.size == 1:
        index = at if at is not None else (0,) * wrt.aval.ndim
        direction[index] = 1.0
        entry = f"{name}[{','.join(map(str, index))}]" if at else name
    else:
        direction = np.random.default_rng(_SEED).standard_normal(wrt.aval.shape)
    stated = float(np.sum(gradient.astype(np.float64) * direction))
    size = max(float(np.abs(np.asarray(run.loss.array, np.float64)).max()), 1e-6)
    noise = 16 * float(dtypes.epsilon(gradient.dtype)) * largest

    def check(step: float, exact: float | None = None) -> NumberCheck:
        what = "a random direction" if entry is None else f"{entry} +- {step:.0e}".replace("e-0", "e-")
        measured = directional_derivative(run.loss, wrt, direction, step)
        return NumberCheck(what, stated, measured, size * float(np.finfo(np.float64).eps) / step, noise, exact)

    first = check(STEP)
    if first.error <= AGREES or first.too_small or not first.finite:
        return first
    in_double = gradient_in_double(run.loss, wrt)
    exact = None if in_double is None else float(np.sum(in_double * direction))
    first = replace(first, exact=exact)
    for found in (first, *(check(STEP / 10**k, exact) for k in range(1, _WIDTHS))):
        if 100 * found.resolution > AGREES * abs(stated):
            break
        if found.agrees:
            return found
    return first


def _changed(run: Run) -> str | None:
    """A leaf that an op read before it was changed in place, by name."""
    for node in run.nodes:
        for x in node.inputs:
            if x.op is None and x.last_change > node.made:
                return run.name(x) or "a value"
    return None
