"""Elementwise functions as a user calls them: PyTorch's names, broadcasting, promotion, Python numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Union

import numpy as np

from chainrule import dtypes
from chainrule.array.align import as_node, broadcast_shapes, expand, floating, is_scalar, to_dtype, together
from chainrule.core.aval import Aval
from chainrule.core.family import Elementwise
from chainrule.core.node import Node, apply, at_user_line
from chainrule.errors import ArgumentError, DTypeError
from chainrule.ops import comparison
from chainrule.ops import elementwise as ops

if TYPE_CHECKING:
    from chainrule.tensor import Tensor

Operand = Union["Tensor", np.ndarray, bool, int, float]


def _unary(op: Elementwise, text: str, *, floats_only: bool = True) -> Callable[[Tensor], Tensor]:
    if floats_only:

        def function(x: Any) -> Any:
            return apply(op, (floating(x),))
    else:

        def function(x: Any) -> Any:
            return apply(op, (x,))

    function.__name__ = function.__qualname__ = op.name
    function.__doc__ = text
    return function


def _binary(op: Elementwise, text: str, *, floats_only: bool = False) -> Callable[[Tensor, Operand], Tensor]:
    def function(x: Any, y: Any) -> Any:
        # The common case, checked first because it is on the path of every small step: nothing to align.
        if isinstance(x, Node) and isinstance(y, Node):
            a, b = x.data, y.data
            if a is not None and b is not None and a.shape == b.shape and a.dtype is b.dtype:
                if not floats_only or dtypes.is_float(a.dtype):
                    return apply(op, (x, y))
        return apply(op, together(op.name, x, y, floating=floats_only))

    function.__name__ = function.__qualname__ = op.name
    function.__doc__ = text
    return function


# --- arithmetic

add = _binary(ops.add, "x + y.")
sub = _binary(ops.sub, "x - y.")
mul = _binary(ops.mul, "x · y, entry by entry.")
div = _binary(ops.div, "x / y, entry by entry; integers give floats.", floats_only=True)
floor_divide = _binary(ops.floor_divide, "⌊x / y⌋. Gradient 0.")
remainder = _binary(ops.remainder, "x mod y, with the sign of y.")
maximum = _binary(ops.maximum, "The larger of x and y; where they tie, each receives half the gradient.")
minimum = _binary(ops.minimum, "The smaller of x and y; where they tie, each receives half the gradient.")
atan2 = _binary(ops.atan2, "The angle of the point (y, x), in radians: atan2(y, x).", floats_only=True)
neg = _unary(ops.neg, "-x.", floats_only=False)
abs = _unary(ops.abs_, "|x|. Gradient at 0: 0.", floats_only=False)
sign = _unary(ops.sign, "-1, 0 or 1. Gradient 0.", floats_only=False)
square = _unary(ops.square, "x².", floats_only=False)
reciprocal = _unary(ops.reciprocal, "1 / x.")


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
                raise at_user_line(
                    ArgumentError(
                        f"pow: {x.aval} to the negative power {number} has no integer value; cast it with .to(cr.float32)"
                    )
                )
            elif x.dtype == dtypes.bool_:
                x = to_dtype(x, dtypes.DEFAULT_INT)
        return ops.pow_scalar(x, exponent=number)  # type: ignore[no-any-return]
    return ops.pow_tensor(*together("pow", x, exponent, floating=True))  # type: ignore[no-any-return]


def rpow(x: Tensor, base: Operand) -> Tensor:
    """base ** x."""
    return ops.pow_tensor(*together("pow", base, x, floating=True))  # type: ignore[no-any-return]


# --- functions

sqrt = _unary(ops.sqrt, "√x.")
rsqrt = _unary(ops.rsqrt, "1 / √x.")
exp = _unary(ops.exp, "eˣ.")
exp2 = _unary(ops.exp2, "2ˣ.")
expm1 = _unary(ops.expm1, "eˣ − 1, accurate near 0.")
log = _unary(ops.log, "Natural logarithm.")
log2 = _unary(ops.log2, "Logarithm to base 2.")
log10 = _unary(ops.log10, "Logarithm to base 10.")
log1p = _unary(ops.log1p, "log(1 + x), accurate near 0.")
sin = _unary(ops.sin, "Sine of x radians.")
cos = _unary(ops.cos, "Cosine of x radians.")
tan = _unary(ops.tan, "Tangent of x radians.")
asin = _unary(ops.asin, "Inverse sine, in radians.")
acos = _unary(ops.acos, "Inverse cosine, in radians.")
atan = _unary(ops.atan, "Inverse tangent, in radians.")
sinh = _unary(ops.sinh, "Hyperbolic sine.")
cosh = _unary(ops.cosh, "Hyperbolic cosine.")
tanh = _unary(ops.tanh, "Hyperbolic tangent.")
asinh = _unary(ops.asinh, "Inverse hyperbolic sine.")
acosh = _unary(ops.acosh, "Inverse hyperbolic cosine.")
atanh = _unary(ops.atanh, "Inverse hyperbolic tangent.")
erf = _unary(ops.erf, "The error function, 2/√π ∫₀ˣ exp(−t²) dt.")
sigmoid = _unary(ops.sigmoid, "1 / (1 + e⁻ˣ).")
logsigmoid = _unary(ops.log_sigmoid, "log σ(x), without overflow.")
relu = _unary(ops.relu, "max(x, 0). Gradient at 0: 0.", floats_only=False)
floor = _unary(ops.floor, "The largest integer ≤ x. Gradient 0.", floats_only=False)
ceil = _unary(ops.ceil, "The smallest integer ≥ x. Gradient 0.", floats_only=False)
round = _unary(ops.round_, "The nearest integer, halves to even. Gradient 0.", floats_only=False)
trunc = _unary(ops.trunc, "The integer part. Gradient 0.", floats_only=False)

# --- gates


def clamp_min(x: Tensor, min: Operand) -> Tensor:
    """max(x, min). The gradient passes where x ≥ min, at the bound included; `relu` closes there."""
    return ops.clamp_min(x, low=_bound(min)) if is_scalar(min) else maximum(x, min)  # type: ignore[no-any-return]


def clamp_max(x: Tensor, max: Operand) -> Tensor:
    """min(x, max). The gradient passes where x ≤ max, at the bound included."""
    return ops.clamp_max(x, high=_bound(max)) if is_scalar(max) else minimum(x, max)  # type: ignore[no-any-return]


def clamp(x: Tensor, min: Operand | None = None, max: Operand | None = None) -> Tensor:
    """`x` limited to [min, max]; either may be left out. The gradient passes inside, at the bounds included."""
    if min is None and max is None:
        raise at_user_line(ArgumentError("clamp: give min, max or both"))
    if max is None:
        return clamp_min(x, min)  # type: ignore[arg-type]
    if min is None:
        return clamp_max(x, max)
    if is_scalar(min) and is_scalar(max) and min <= max:
        return ops.clamp(x, low=_bound(min), high=_bound(max))  # type: ignore[no-any-return]
    return clamp_max(clamp_min(x, min), max)


def _bound(value: Any) -> float | int:
    number: float | int = value.item() if isinstance(value, np.generic) else value
    return number


def where(condition: Tensor, x: Operand, y: Operand) -> Tensor:
    """`x` where the condition holds, `y` elsewhere. Each receives its gradient only where it was chosen.

    Args:
        condition: bool, broadcasts with `x` and `y`.
        x, y: tensors or numbers.
    """
    like = next((v for v in (condition, x, y) if isinstance(v, Node)), None)
    if like is None:
        raise at_user_line(DTypeError("where: expected a tensor among its inputs"))
    chosen: tuple[Any, ...]
    if is_scalar(x) and is_scalar(y):
        dtype = dtypes.promote_scalar(dtypes.promote_scalar(dtypes.bool_, x), y)  # type: ignore[arg-type]
        chosen = tuple(type(like).filled(Aval((), dtype), v) for v in (x, y))
    else:
        chosen = together("where", x, y)
    inputs = (as_node(condition, like), *chosen)
    shape = broadcast_shapes("where", [v.aval for v in inputs])
    return apply(
        ops.where, tuple(v if v.constant and v.aval.shape == () and shape else expand(v, shape) for v in inputs)
    )


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


def logical_and(x: Tensor, y: Tensor) -> Tensor:
    """x and y; numbers count as true unless 0."""
    return bitwise_and(_boolean(x), _boolean(y))


def logical_or(x: Tensor, y: Tensor) -> Tensor:
    """x or y; numbers count as true unless 0."""
    return bitwise_or(_boolean(x), _boolean(y))


def logical_xor(x: Tensor, y: Tensor) -> Tensor:
    """Exactly one of x and y; numbers count as true unless 0."""
    return bitwise_xor(_boolean(x), _boolean(y))


def logical_not(x: Tensor) -> Tensor:
    """not x; numbers count as true unless 0."""
    return bitwise_not(_boolean(x))


def masked_fill(x: Tensor, mask: Tensor, value: float) -> Tensor:
    """`x` with `value` where the mask holds."""
    return where(mask, value, x)
