"""Checking derivatives against numbers: central differences in float64, of a whole loss or of each rule that ran.

Names no op. A rule is checked on its own recorded inputs, so that what is wrong is found where it is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from chainrule import dtypes
from chainrule.autodiff.evaluate import evaluate, leaf_value, params_in
from chainrule.autodiff.reverse import gradients, needs_gradient
from chainrule.core.family import Opaque
from chainrule.core.node import ENGINE_OFF, RECORD, Node, ancestors, apply, compute, recording
from chainrule.core.provenance import Place, user_place
from chainrule.errors import DerivativeRuleError

# Half the width of a central difference, relative to the size of what is moved. Rounding in float64 costs 1e-16 / STEP,
# the third derivative STEP²: 1e-6 leaves ten digits, and crosses few kinks.
STEP = 1e-6
# A rule of the library is written for any precision; a user's own backward kept values in the precision of the run.
RULE_TOLERANCE = 1e-6
OWN_TOLERANCE = 1e-3
_BESIDE = 1e-3  # of the largest input, or of 1: how far beside a kink a rule is checked
_SEED = 20_260_101


def directional_derivative(loss: Node, wrt: Node, direction: np.ndarray, step: float = STEP) -> float:
    """(loss(x + h d) - loss(x - h d)) / 2h in float64, every op between `wrt` and `loss` evaluated again."""
    assert wrt.array is not None
    at = wrt.array.astype(np.float64)
    h = step * max(1.0, float(np.max(np.abs(at), initial=0.0)))
    ends = [evaluate(loss, {id(wrt): at + sign * h * direction}, dtypes.float64) for sign in (1.0, -1.0)]
    return float((ends[0].sum() - ends[1].sum()) / (2 * h))


def gradient_in_double(loss: Node, wrt: Node) -> np.ndarray | None:
    """The gradient of a loss with respect to one leaf as the same rules give it in float64; None if one cannot.

    A user's own backward reads what its forward kept, in the precision of the run.
    """
    order = ancestors([loss])
    if any(isinstance(node.op, Opaque) for node in order):
        return None
    again = recording(RECORD, _in_double, order, wrt)
    ones = type(loss).makes.leaf(np.ones(loss.aval.shape))
    found = {id(x): g for x, g in recording(ENGINE_OFF, gradients, again[id(loss)], ones)}
    return None if id(again[id(wrt)]) not in found else np.asarray(found[id(again[id(wrt)])].array)


def _in_double(order: Iterable[Node], wrt: Node) -> dict[int, Any]:
    """Nodes computed again in float64, by the id of each; the leaf `wrt` needs a gradient."""
    again: dict[int, Any] = {}
    for node in order:
        if node.op is None:
            again[id(node)] = type(node).makes.leaf(leaf_value(node, dtypes.float64), requires_grad=node is wrt)
        else:
            inputs = tuple(again[id(x)] for x in node.inputs)
            again[id(node)] = apply(node.op, inputs, params_in(node, dtypes.float64))
    return again


@dataclass(frozen=True)
class RuleCheck:
    """One rule that ran, held against a central difference of its own kernel.

    error: |rule - numbers| relative to the larger; None where it could not be compared, with the reason.
    ratio: rule / numbers, which often says what is wrong: 1/32 is a mean where a sum was meant.
    hidden: why they differ by more than rules are held to, and the rule may be right: "rounding" of large values, or a
        "kink" between the two ends of a difference.
    """

    op: str
    place: Place | None
    error: float | None
    ratio: float | None
    passed: bool
    reason: str = ""
    hidden: Literal["", "rounding", "kink"] = ""

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
        worst = max((rule.error or 0.0 for rule in checked if not rule.hidden), default=0.0)
        verdict = "all agree" if self.passed else f"{len(self.wrong)} WRONG"
        how = "rules checked against central differences in float64"
        head = f"{len(checked)} {how}: {verdict}; largest relative error {worst:.1e}"
        words = {"rounding": "whose values are so large that their rounding hides more", "kink": "across a kink"}
        for hidden, why in words.items():
            count = sum(rule.hidden == hidden for rule in checked)
            head += f", without {count} {why}" if count else ""
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
    """A rule on its own inputs; or, where these lie on a kink and the rule is one choice of several, beside them."""
    arrays = [x.array.astype(np.float64) if dtypes.is_float(x.array.dtype) else x.array for x in node.inputs]
    found, on_kink = _checked_at(node, arrays, rng)
    if found.passed or not on_kink:
        return found
    if isinstance(node.op, Opaque):  # its backward reads what its forward saved, and cannot be asked elsewhere
        reason = "its inputs lie on a kink, where the derivative is a choice"
        return RuleCheck(found.op, found.place, None, None, False, reason)
    beside = [
        a + _BESIDE * max(_size(a), 1.0) * rng.standard_normal(a.shape) if dtypes.is_float(a.dtype) else a
        for a in arrays
    ]
    return _checked_at(node, beside, rng)[0]


def _checked_at(node: Any, arrays: list[np.ndarray], rng: np.random.Generator) -> tuple[RuleCheck, bool]:
    """A rule at these inputs; and do they lie on a kink?"""
    op, place = node.op, user_place(node.trail)
    own = isinstance(op, Opaque)
    needed = tuple(x.requires_grad for x in node.inputs)
    params = params_in(node, dtypes.float64)
    weights = rng.standard_normal(node.aval.shape)
    rule = _rule_cotangents(node, arrays, params, weights, needed, own)
    if any(c is not None and not np.isfinite(c).all() for c in rule):
        return RuleCheck(op.name, place, None, None, False, "its gradient is not finite"), False
    directions = [
        rng.standard_normal(a.shape) if want and c is not None else np.zeros(a.shape)
        for a, want, c in zip(arrays, needed, rule, strict=True)
    ]
    stated = sum(float(np.sum(c * d)) for c, d in zip(rule, directions, strict=True) if c is not None)
    measured = _measured(op, arrays, params, weights, directions)
    if not np.isfinite(measured.slope):
        return RuleCheck(op.name, place, None, None, False, "its value is not finite near the recorded inputs"), False
    size = max(abs(stated), abs(measured.slope), 1e-12)
    error = abs(stated - measured.slope) / size
    tolerance = OWN_TOLERANCE if own else RULE_TOLERANCE
    # Two widths that disagree mean that a kink lies between them: the numbers, not the rule, are then uncertain. And a
    # slope below the rounding of the values shows in no difference.
    hidden: Literal["", "rounding", "kink"] = ""
    if tolerance < error <= 10 * measured.resolution / size:
        hidden = "rounding"
    elif tolerance < error <= 10 * measured.wobble / size:
        hidden = "kink"
    passed = error <= tolerance or bool(hidden)
    ratio = stated / measured.slope if measured.slope else None
    on_kink = measured.bend > max(1e3 * STEP * size, 10 * measured.resolution)
    return RuleCheck(op.name, place, error, ratio, passed, hidden=hidden), on_kink


def _rule_cotangents(
    node: Any, arrays: list[np.ndarray], params: Any, weights: np.ndarray, needed: tuple[bool, ...], own: bool
) -> list[Any]:
    cls, out = type(node), node
    if own:  # its backward reads what its forward saved
        weights = weights.astype(node.array.dtype)
    else:
        out = cls.applied(node.op, tuple(cls.leaf(a) for a in arrays), params, node.aval)
        out.array = compute(node.op, arrays, params)
    sent = recording(ENGINE_OFF, node.op.vjp, cls.leaf(weights), out, needed)
    return [None if c is None else np.asarray(c.array, np.float64) for c in sent]


class _Slope(NamedTuple):
    """What differences say of a derivative.

    wobble: how far it moves with the width. bend: how far the slopes on both sides are apart. resolution: the least
    that the differences can show.
    """

    slope: float
    wobble: float
    bend: float
    resolution: float


def _measured(
    op: Any, arrays: list[np.ndarray], params: Any, weights: np.ndarray, directions: Sequence[np.ndarray]
) -> _Slope:
    """The derivative of Σ weights · op along `directions`."""

    def value(h: float) -> float:
        moved = [a + h * d if dtypes.is_float(a.dtype) else a for a, d in zip(arrays, directions, strict=True)]
        return float(np.sum(weights * compute(op, moved, params)))

    h = STEP * min(max([1.0, *map(_size, arrays)]), 10.0)
    at = value(0.0)
    ends = [(value(w), value(-w), w) for w in (h, h / 4)]
    wide, narrow = ((above - below) / (2 * w) for above, below, w in ends)
    above, below, least = ends[1]
    bend = abs(above - 2 * at + below) / least
    summed = float(np.sum(np.abs(weights * compute(op, arrays, params))))
    return _Slope(narrow, abs(wide - narrow), bend, summed * float(np.finfo(np.float64).eps) / h)


def _size(array: np.ndarray) -> float:
    """The largest entry of a float array, if all are finite."""
    if not dtypes.is_float(array.dtype) or not np.isfinite(array).all():
        return 0.0
    return float(np.max(np.abs(array), initial=0.0))


def _as_fraction(ratio: float | None) -> str:
    """0.03125 as 1/32: a wrong factor is usually a count."""
    if ratio is None:
        return "?"
    if ratio and abs(1 / ratio) >= 2 and abs(1 / ratio - round(1 / ratio)) < 1e-3 * abs(1 / ratio):
        return f"1/{round(1 / ratio)}"
    return f"{ratio:.4g}"
