"""Checking derivatives against numbers: central differences in float64, of a whole loss or of each rule that ran.

Names no op. A rule is checked on its own recorded inputs, so that what is wrong is found where it is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.autodiff.evaluate import evaluate
from chainrule.autodiff.reverse import needs_gradient
from chainrule.core.family import Opaque
from chainrule.core.node import ENGINE_OFF, Node, ancestors, compute, recording
from chainrule.core.provenance import Place, user_place
from chainrule.errors import DerivativeRuleError

# Half the width of a central difference, relative to the size of what is moved. Rounding in float64 costs 1e-16 / STEP,
# the third derivative STEP²: 1e-6 leaves ten digits, and crosses few kinks.
STEP = 1e-6
# A rule of the library is written for any precision; a user's own backward kept values in the precision of the run.
RULE_TOLERANCE = 1e-6
OWN_TOLERANCE = 1e-3
_SEED = 20_260_101


def directional_derivative(loss: Node, wrt: Node, direction: np.ndarray, step: float = STEP) -> float:
    """(loss(x + h d) - loss(x - h d)) / 2h in float64, every op between `wrt` and `loss` evaluated again."""
    assert wrt.array is not None
    at = wrt.array.astype(np.float64)
    h = step * max(1.0, float(np.max(np.abs(at), initial=0.0)))
    ends = [evaluate(loss, {id(wrt): at + sign * h * direction}, dtypes.float64) for sign in (1.0, -1.0)]
    return float((ends[0].sum() - ends[1].sum()) / (2 * h))


@dataclass(frozen=True)
class RuleCheck:
    """One rule that ran, held against a central difference of its own kernel.

    error: |rule - numbers| relative to the larger; None where it could not be compared, with the reason.
    ratio: rule / numbers, which often says what is wrong: 1/32 is a mean where a sum was meant.
    """

    op: str
    place: Place | None
    error: float | None
    ratio: float | None
    passed: bool
    reason: str = ""

    def __str__(self) -> str:
        where = f"  at {self.place}: {self.place.text}" if self.place is not None else ""
        if self.error is None:
            return f"unchecked  {self.op}: {self.reason}{where}"
        hint = "" if self.passed else f"  rule / numbers = {_as_fraction(self.ratio)}"
        return f"{'ok' if self.passed else 'WRONG':9}  {self.op}: relative error {self.error:.1e}{hint}{where}"


@dataclass(frozen=True)
class CheckReport:
    """Every rule behind a loss, checked."""

    rules: tuple[RuleCheck, ...]

    @property
    def passed(self) -> bool:
        return all(rule.passed for rule in self.rules if rule.error is not None)

    @property
    def wrong(self) -> tuple[RuleCheck, ...]:
        return tuple(rule for rule in self.rules if rule.error is not None and not rule.passed)

    @property
    def unchecked(self) -> tuple[RuleCheck, ...]:
        return tuple(rule for rule in self.rules if rule.error is None)

    def __str__(self) -> str:
        checked = [rule for rule in self.rules if rule.error is not None]
        worst = max((rule.error or 0.0 for rule in checked), default=0.0)
        verdict = "all agree" if self.passed else f"{len(self.wrong)} WRONG"
        how = "rules checked against central differences in float64"
        head = f"{len(checked)} {how}: {verdict}; largest relative error {worst:.1e}"
        return "\n".join([head, *(f"  {rule}" for rule in (*self.wrong, *self.unchecked))])

    def raise_for_errors(self) -> None:
        """Raises: DerivativeRuleError: a rule is wrong."""
        if not self.passed:
            raise DerivativeRuleError(str(self))


def check_rules(loss: Node) -> CheckReport:
    """Check every rule that leads from `loss` to its leaves, on the values it ran on."""
    rng = np.random.default_rng(_SEED)
    nodes = [x for x in ancestors([loss], needs_gradient) if x.op is not None]
    return CheckReport(tuple(_check_rule(node, rng) for node in nodes))


def _check_rule(node: Any, rng: np.random.Generator) -> RuleCheck:
    op, place = node.op, user_place(node.trail)
    own = isinstance(op, Opaque)
    arrays = [x.array.astype(np.float64) if dtypes.is_float(x.array.dtype) else x.array for x in node.inputs]
    needed = tuple(x.requires_grad for x in node.inputs)
    params = {k: dtypes.float64 if k == "dtype" and dtypes.is_float(v) else v for k, v in node.params.items()}
    weights = rng.standard_normal(node.aval.shape)
    rule = _rule_cotangents(node, arrays, params, weights, needed, own)
    if any(c is not None and not np.isfinite(c).all() for c in rule):
        return RuleCheck(op.name, place, None, None, False, "its gradient is not finite")
    directions = [
        rng.standard_normal(a.shape) if want and c is not None else np.zeros(a.shape)
        for a, want, c in zip(arrays, needed, rule, strict=True)
    ]
    stated = sum(float(np.sum(c * d)) for c, d in zip(rule, directions, strict=True) if c is not None)
    measured, wobble, resolution = _measured(op, arrays, params, weights, directions)
    if not np.isfinite(measured):
        return RuleCheck(op.name, place, None, None, False, "its value is not finite near the recorded inputs")
    size = max(abs(stated), abs(measured), 1e-12)
    error = abs(stated - measured) / size
    tolerance = OWN_TOLERANCE if own else RULE_TOLERANCE
    # Two widths that disagree mean that a kink lies between them: the numbers, not the rule, are then uncertain. And a
    # slope below the rounding of the values shows in no difference.
    passed = error <= max(tolerance, 10 * max(wobble, resolution) / size)
    return RuleCheck(op.name, place, error, stated / measured if measured else None, passed)


def _rule_cotangents(
    node: Any, arrays: list[np.ndarray], params: Any, weights: np.ndarray, needed: tuple[bool, ...], own: bool
) -> list[Any]:
    cls = type(node)
    with recording(ENGINE_OFF):
        if own:  # its backward reads what its forward saved
            g = cls.leaf(weights.astype(node.array.dtype))
            sent = node.op.vjp(g, node, needed)
        else:
            inputs = tuple(cls.leaf(a) for a in arrays)
            out = cls.applied(node.op, inputs, params, node.aval)
            out.array = compute(node.op, arrays, params)
            sent = node.op.vjp(cls.leaf(weights), out, needed)
    return [None if c is None else np.asarray(c.array, np.float64) for c in sent]


def _measured(
    op: Any, arrays: list[np.ndarray], params: Any, weights: np.ndarray, directions: Sequence[np.ndarray]
) -> tuple[float, float, float]:
    """The derivative of Σ weights · op along `directions`, how far it moves with the width, the least it can show."""

    def value(h: float) -> float:
        moved = [a + h * d if dtypes.is_float(a.dtype) else a for a, d in zip(arrays, directions, strict=True)]
        return float(np.sum(weights * compute(op, moved, params)))

    largest = max(
        [
            1.0,
            *(
                float(np.max(np.abs(a), initial=0.0))
                for a in arrays
                if dtypes.is_float(a.dtype) and np.isfinite(a).all()
            ),
        ]
    )
    h = STEP * min(largest, 10.0)
    wide, narrow = ((value(w) - value(-w)) / (2 * w) for w in (h, h / 4))
    summed = float(np.sum(np.abs(weights * compute(op, arrays, params))))
    return narrow, abs(wide - narrow), summed * float(np.finfo(np.float64).eps) / h


def _as_fraction(ratio: float | None) -> str:
    """0.03125 as 1/32: a wrong factor is usually a count."""
    if ratio is None:
        return "?"
    if ratio and abs(1 / ratio) >= 2 and abs(1 / ratio - round(1 / ratio)) < 1e-3 * abs(1 / ratio):
        return f"1/{round(1 / ratio)}"
    return f"{ratio:.4g}"
