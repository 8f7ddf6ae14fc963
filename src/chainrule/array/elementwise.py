"""Elementwise functions as a user calls them: PyTorch's names, broadcasting, promotion, Python numbers."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Union

import numpy as np

from chainrule import dtypes
from chainrule.array.align import (
    as_node,
    broadcast_shapes,
    expand,
    floating,
    is_scalar,
    to_dtype,
    together,
)
from chainrule.core.aval import Aval
from chainrule.core.family import Elementwise
from chainrule.core.node import Node, apply, at_user_line, scalar
from chainrule.core.tracing import known
from chainrule.errors import ArgumentError, DTypeError
from chainrule.ops import comparison, movement, transcendental
from chainrule.ops import elementwise as ops

if TYPE_CHECKING:
    from chainrule.tensor import Tensor

Operand = Union["Tensor", np.ndarray, bool, int, float]


def _unary(op: Elementwise, text: str, *, floats_only: bool = True) -> Callable[[Tensor], Tensor]:
    if floats_only:

        def function(x: Tensor) -> Any:
            return apply(op, (floating(x),))
    else:

        def function(x: Tensor) -> Any:
            return apply(op, (x,))

    return _named(function, op, text)


def _step(op: Elementwise, text: str) -> Callable[[Tensor], Tensor]:
    # Asks the op's rule first: NumPy makes float16 of a rounded bool.
    def function(x: Tensor) -> Any:
        return op(x)

    return _named(function, op, text)


def _named(function: Callable[..., Any], op: Elementwise, text: str) -> Callable[..., Any]:

    function.__name__ = function.__qualname__ = op.name
    function.__doc__ = text
    return function


def _binary(op: Elementwise, text: str, *, floats_only: bool = False) -> Callable[[Tensor, Operand], Tensor]:
    def function(x: Any, other: Any) -> Any:
        # The common cases, checked first because they are on the path of every small step: floats with nothing to
        # align, a number, or a bias that the last dimensions repeat.
        a = x.array if isinstance(x, Node) else None
        if a is not None and dtypes.is_float(a.dtype):
            if type(other) is float or type(other) is int:
                return apply(op, (x, scalar(x.makes, other, a.dtype)))
            b = other.array if isinstance(other, Node) else None
            if b is not None and a.dtype is b.dtype:
                if a.shape == b.shape:
                    return apply(op, (x, other))
                if 0 < b.ndim < a.ndim and a.shape[-b.ndim :] == b.shape:
                    return apply(op, (x, apply(movement.expand, (other,), {"shape": a.shape})))
        return apply(op, together(op.name, x, other, floating=floats_only))

    return _named(function, op, text)


def _division(op: Elementwise, text: str) -> Callable[[Tensor, Operand], Tensor]:
    # Asks the op's rule first: NumPy makes int8 of two bools.
    return _named(lambda x, other: op(*together(op.name, x, other)), op, text)


# --- arithmetic

plus = _binary(ops.add, "x + y.")
minus = _binary(ops.sub, "x - y.")


def add(x: Tensor, other: Operand, *, alpha: float = 1) -> Tensor:
    """x + alpha · other. Of bools: x or other."""
    return plus(x, other if alpha == 1 else mul(other, alpha))  # type: ignore[arg-type]


def sub(x: Tensor, other: Operand, *, alpha: float = 1) -> Tensor:
    """x − alpha · other."""
    return minus(x, other if alpha == 1 else mul(other, alpha))  # type: ignore[arg-type]


mul = _binary(ops.mul, "x · y, entry by entry.")
true_divide = _binary(ops.div, "x / y, entry by entry; integers give floats.", floats_only=True)


def div(x: Tensor, other: Operand, *, rounding_mode: str | None = None) -> Tensor:
    """x / other, entry by entry; integers give floats.

    Args:
        x: a tensor or a number.
        other: a tensor or a number.
        rounding_mode: None for the exact quotient; "floor" or "trunc" for a whole one, rounded down or towards 0, of
            the dtype of the inputs and with gradient 0.
    """
    if rounding_mode is None:
        return true_divide(x, other)
    if rounding_mode == "floor":
        return floor_divide(x, other)
    if rounding_mode != "trunc":
        raise at_user_line(ArgumentError(f'div: rounding_mode must be None, "floor" or "trunc"; got {rounding_mode!r}'))
    x, other = together("div", x, other)
    if dtypes.is_float(x.dtype):
        return trunc(true_divide(x, other))
    return mul(floor_divide(abs(x), abs(other)), mul(sign(x), sign(other)))  # type: ignore[arg-type]


floor_divide = _division(ops.floor_divide, "⌊x / y⌋. Gradient 0.")
remainder = _division(ops.remainder, "x mod y, with the sign of y.")
maximum = _binary(ops.maximum, "The larger of x and y; where they tie, each receives half the gradient.")
minimum = _binary(ops.minimum, "The smaller of x and y; where they tie, each receives half the gradient.")
atan2 = _binary(transcendental.atan2, "The angle of the point (y, x), in radians: atan2(y, x).", floats_only=True)
neg = _unary(ops.neg, "-x.", floats_only=False)
abs = _unary(ops.abs_, "|x|. Gradient at 0: 0.", floats_only=False)
reciprocal = _unary(ops.reciprocal, "1 / x.")


def sign(x: Tensor) -> Tensor:
    """-1, 0 or 1; a bool as it is. Gradient 0."""
    return x if x.dtype == dtypes.bool_ else ops.sign(x)


def square(x: Tensor) -> Tensor:
    """x²; of bools as int64."""
    return ops.square(to_dtype(x, dtypes.DEFAULT_INT) if x.dtype == dtypes.bool_ else x)


def pow(x: Tensor, exponent: Operand) -> Tensor:
    """x to a power, entry by entry.

    Args:
        x: any shape.
        exponent: a number, or a tensor that broadcasts with `x`.
    Returns: the broadcast shape. Integers to a negative power are an error: cast to a float first.
    """
    if is_scalar(exponent):
        number = exponent.item() if isinstance(exponent, np.generic) else exponent
        if not dtypes.is_float(x.dtype):
            if isinstance(number, float):
                x = floating(x)
            elif number < 0:
                raise _no_integer_value(x, number)
            elif x.dtype == dtypes.bool_:
                x = to_dtype(x, dtypes.DEFAULT_INT)
        return apply(ops.pow_scalar, (x,), {"exponent": number})
    base, power = together("pow", x, exponent)
    value = None if dtypes.is_float(power.dtype) else known(power)
    if value is not None and value.size and value.min() < 0:
        raise _no_integer_value(base, value.min())
    return transcendental.pow_tensor(base, power)  # type: ignore[no-any-return]


def _no_integer_value(x: Any, exponent: Any) -> Exception:
    return at_user_line(
        ArgumentError(
            f"pow: {x.aval} to the negative power {exponent} has no integer value; cast it with .to(cr.float32)"
        )
    )


def rpow(x: Tensor, base: Operand) -> Tensor:
    """base ** x."""
    return pow(base, x)  # type: ignore[arg-type]


# --- functions

sqrt = _unary(ops.sqrt, "√x.")
rsqrt = _unary(ops.rsqrt, "1 / √x.")
exp = _unary(transcendental.exp, "eˣ.")
exp2 = _unary(transcendental.exp2, "2ˣ.")
expm1 = _unary(transcendental.expm1, "eˣ − 1, accurate near 0.")
log = _unary(transcendental.log, "Natural logarithm.")
log2 = _unary(transcendental.log2, "Logarithm to base 2.")
log10 = _unary(transcendental.log10, "Logarithm to base 10.")
log1p = _unary(transcendental.log1p, "log(1 + x), accurate near 0.")
sin = _unary(transcendental.sin, "Sine of x radians.")
cos = _unary(transcendental.cos, "Cosine of x radians.")
tan = _unary(transcendental.tan, "Tangent of x radians.")
asin = _unary(transcendental.asin, "Inverse sine, in radians.")
acos = _unary(transcendental.acos, "Inverse cosine, in radians.")
atan = _unary(transcendental.atan, "Inverse tangent, in radians.")
sinh = _unary(transcendental.sinh, "Hyperbolic sine.")
cosh = _unary(transcendental.cosh, "Hyperbolic cosine.")
tanh = _unary(transcendental.tanh, "Hyperbolic tangent.")
asinh = _unary(transcendental.asinh, "Inverse hyperbolic sine.")
acosh = _unary(transcendental.acosh, "Inverse hyperbolic cosine.")
atanh = _unary(transcendental.atanh, "Inverse hyperbolic tangent.")
erf = _unary(transcendental.erf, "The error function, 2/√π ∫₀ˣ exp(−t²) dt.")
sigmoid = _unary(transcendental.sigmoid, "1 / (1 + e⁻ˣ).")
logsigmoid = _unary(transcendental.log_sigmoid, "log σ(x), without overflow.")
relu = _unary(ops.relu, "max(x, 0). Gradient at 0: 0.", floats_only=False)
floor = _step(ops.floor, "The largest integer ≤ x. Gradient 0.")
ceil = _step(ops.ceil, "The smallest integer ≥ x. Gradient 0.")
trunc = _step(ops.trunc, "The integer part. Gradient 0.")


def round(x: Tensor, *, decimals: int = 0) -> Tensor:
    """The nearest number with `decimals` digits after the point (negative: before it), halves to even. Gradient 0."""
    if decimals == 0:
        return ops.round_(x)
    scale = 10.0 ** builtins.abs(decimals)
    return ops.round_(x * scale) / scale if decimals > 0 else ops.round_(x / scale) * scale


# --- gates


def clamp_min(x: Tensor, min: Operand) -> Tensor:
    """max(x, min). The gradient passes where x ≥ min, at the bound included; `relu` closes there."""
    if (type(min) is float or type(min) is int) and dtypes.is_float(x.dtype):
        return apply(ops.clamp_min, (x,), {"low": min})
    return ops.clamp_min(x, low=_bound(min)) if is_scalar(min) else _within(x, min, ge)


def clamp_max(x: Tensor, max: Operand) -> Tensor:
    """min(x, max). The gradient passes where x ≤ max, at the bound included."""
    return ops.clamp_max(x, high=_bound(max)) if is_scalar(max) else _within(x, max, le)


def _within(x: Any, bound: Any, holds: Any) -> Any:
    """`x` where it keeps to the bound, at the bound included, or is nan; the bound elsewhere."""
    x, bound = together("clamp", x, bound)
    return where(bitwise_or(holds(x, bound), isnan(x)), x, bound)


def clamp(x: Tensor, min: Operand | None = None, max: Operand | None = None) -> Tensor:
    """`x` limited to [min, max]; either may be left out. The gradient passes inside, at the bounds included."""
    if min is None and max is None:
        raise at_user_line(ArgumentError("clamp: give min, max or both"))
    if max is None:
        return clamp_min(x, min)  # type: ignore[arg-type]
    if min is None:
        return clamp_max(x, max)
    if is_scalar(min) and is_scalar(max) and min <= max:
        return ops.clamp(x, low=_bound(min), high=_bound(max))
    return clamp_max(clamp_min(x, min), max)


clip = clamp


def _bound(value: Any) -> float | int:
    number: float | int = value.item() if isinstance(value, np.generic) else value
    return number


def where(condition: Tensor, x: Operand, y: Operand) -> Tensor:
    """`x` where the condition holds, `y` elsewhere. Each receives its gradient only where it was chosen.

    Args:
        condition: bool, broadcasts with `x` and `y`.
        x: a tensor or a number, taken where the condition holds.
        y: a tensor or a number, taken elsewhere.
    """
    like = next((v for v in (condition, x, y) if isinstance(v, Node)), None)
    if like is None:
        raise at_user_line(DTypeError("where: expected a tensor among its inputs"))
    chosen: tuple[Any, ...]
    if is_scalar(x) and is_scalar(y):
        dtype = dtypes.promote_scalar(dtypes.promote_scalar(dtypes.bool_, x), y)
        chosen = tuple(type(like).filled(Aval((), dtype), v) for v in (x, y))
    else:
        chosen = together("where", x, y)
    inputs: tuple[Any, ...] = (as_node(condition, like, "where"), *chosen)
    if inputs[0].aval.dtype != dtypes.bool_:  # NumPy would take any number for a condition
        raise at_user_line(
            DTypeError(
                f"where: the condition must be bool; got {inputs[0].aval}; compare it with something, e.g. x > 0"
            )
        )
    shape = broadcast_shapes("where", [v.aval for v in inputs])
    inputs = tuple(v if v.constant and v.aval.shape == () and shape else expand(v, shape) for v in inputs)
    made: Tensor = apply(ops.where, inputs)
    return made


def gate(x: Tensor, condition: Tensor) -> Tensor:
    """`x` where the condition holds, 0 elsewhere: where(condition, x, 0) for a condition of the shape of `x`."""
    a, c = x.array, condition.array
    if a is not None and c is not None and a.shape == c.shape and c.dtype == dtypes.bool_:
        return apply(ops.gate, (condition, x))
    return where(condition, x, 0)


# --- comparisons and logic

eq = _binary(comparison.eq, "x == y, entry by entry.")
ne = _binary(comparison.ne, "x != y, entry by entry.")
lt = _binary(comparison.lt, "x < y, entry by entry.")
le = _binary(comparison.le, "x <= y, entry by entry.")
gt = _binary(comparison.gt, "x > y, entry by entry.")
ge = _binary(comparison.ge, "x >= y, entry by entry.")
bitwise_and = _binary(comparison.bitwise_and, "x & y, of bools or integers.")
bitwise_or = _binary(comparison.bitwise_or, "x | y, of bools or integers.")
bitwise_xor = _binary(comparison.bitwise_xor, "x ^ y, of bools or integers.")
bitwise_not = _unary(comparison.bitwise_not, "~x, of bools or integers.", floats_only=False)
isnan = _unary(comparison.isnan, "Where x is not a number.", floats_only=False)
isinf = _unary(comparison.isinf, "Where x is infinite.", floats_only=False)
isfinite = _unary(comparison.isfinite, "Where x is finite.", floats_only=False)


def _boolean(x: Tensor) -> Tensor:
    return x if x.dtype == dtypes.bool_ else ne(x, 0)


def logical_and(x: Tensor, other: Tensor) -> Tensor:
    """x and other; numbers count as true unless 0."""
    return bitwise_and(_boolean(x), _boolean(other))


def logical_or(x: Tensor, other: Tensor) -> Tensor:
    """x or other; numbers count as true unless 0."""
    return bitwise_or(_boolean(x), _boolean(other))


def logical_xor(x: Tensor, other: Tensor) -> Tensor:
    """Exactly one of x and other; numbers count as true unless 0."""
    return bitwise_xor(_boolean(x), _boolean(other))


def logical_not(x: Tensor) -> Tensor:
    """not x; numbers count as true unless 0."""
    return bitwise_not(_boolean(x))


def masked_fill(x: Tensor, mask: Tensor, value: Tensor | float) -> Tensor:
    """`x` with `value`, a number or a scalar tensor, where the mask holds; in the dtype of `x`."""
    filling: Any = to_dtype(value, x.dtype) if isinstance(value, Node) else type(x).filled(Aval((), x.dtype), value)
    return where(mask, filling, x)
