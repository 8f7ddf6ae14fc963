"""Elementwise ops on numbers: arithmetic, powers, exponentials, trigonometry, gates.

Source of every derivative, unless a line says otherwise: NIST Digital Library of Mathematical Functions, chapter 4,
https://dlmf.nist.gov/4. Where a derivative is not unique, the choice is PyTorch's for the function of that name.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.core.family import Elementwise, choice, same_dtype, same_float, same_number
from chainrule.core.node import Ratio
from chainrule.core.notation import ATOM, POWER, PRODUCT, SIGN, SUM, Notation, function, infix
from chainrule.core.sample import Arg, Sample, bools, floats
from chainrule.errors import DTypeError
from chainrule.ops.kernels import (
    gate_kernel,
)

# --- arithmetic

add = Elementwise(
    name="add",
    reference=np.add,
    notation=infix("+", "+", SUM, associative=True),
    result=same_dtype,
    scalar=lambda b, x, y: b.add(x, y),
    partials=(1.0, 1.0),
)
sub = Elementwise(
    name="sub",
    reference=np.subtract,
    notation=infix("-", "-", SUM),
    result=same_number,
    scalar=lambda b, x, y: b.sub(x, y),
    partials=(1.0, -1.0),
)
mul = Elementwise(
    name="mul",
    reference=np.multiply,
    notation=infix("*", r"\odot", PRODUCT, associative=True),
    result=same_dtype,
    scalar=lambda b, x, y: b.mul(x, y),
    partials=(lambda out, x, y: y, lambda out, x, y: x),
)


def one_over(y: Any) -> Any:
    """1 / y; of a number written in the program the exact fraction, so that x / 3 has the derivative g / 3."""
    if y.constant is not None and y.constant.numerator != 0:
        return Ratio(y.constant.denominator, y.constant.numerator)
    return 1.0 / y


div = Elementwise(
    name="div",
    reference=np.true_divide,
    notation=Notation(
        text="{0} / {1}", latex=r"\frac{{{0}}}{{{1}}}", code="{0} / {1}", numpy="{0} / {1}",
        binds=PRODUCT, inside=PRODUCT, left=True, inside_latex=-1,
    ),
    result=same_float,
    scalar=lambda b, x, y: b.div(x, y),
    domain=(0.5, 2.0),
    partials=(lambda out, x, y: one_over(y), lambda out, x, y: -out / y),
)  # fmt: skip
neg = Elementwise(
    name="neg",
    reference=np.negative,
    notation=Notation(text="-{0}", latex="-{0}", code="-{0}", numpy="-{0}", binds=SIGN, inside=SIGN),
    result=same_number,
    scalar=lambda b, x: b.neg(x),
    partials=(-1.0,),
)
reciprocal = Elementwise(
    name="reciprocal",
    reference=lambda x: np.true_divide(x.dtype.type(1), x),
    notation=Notation(
        text="1 / {0}", latex=r"\frac{{1}}{{{0}}}", code="1 / {0}", numpy="1 / {0}",
        binds=PRODUCT, inside=PRODUCT, inside_latex=-1,
    ),
    result=same_float,
    scalar=lambda b, x: b.div(b.like(1, x), x),
    domain=(0.5, 2.0),
    partials=(lambda out, x: -(out * out),),
)  # fmt: skip
abs_ = Elementwise(
    name="abs",
    reference=np.abs,
    notation=Notation(
        text="|{0}|", latex=r"\left|{0}\right|", code="{0}.abs()", numpy="np.abs({0})", inside_code=POWER
    ),
    result=same_dtype,
    scalar=lambda b, x: b.abs(x),
    kinks=((0.0, "0, the middle of -1 and 1"),),
    partials=(lambda out, x: sign(x),),
)
sign: Elementwise = Elementwise(
    name="sign",
    reference=np.sign,
    notation=function("sign", latex=r"\operatorname{{sign}}"),
    result=same_number,
    scalar=lambda b, x: b.sign(x),
    jumps=True,
    kinks=((0.0, "0"),),
    partials=(0.0,),
)
square = Elementwise(
    name="square",
    reference=lambda x: np.multiply(x, x),  # np.square makes int8 of bool
    notation=Notation(
        text="{0}^2", latex="{0}^{{2}}", code="{0}.square()", numpy="np.square({0})",
        binds=POWER, inside=POWER, binds_code=ATOM,
    ),
    result=same_dtype,
    scalar=lambda b, x: b.mul(x, x),
    partials=(lambda out, x: 2.0 * x,),
)  # fmt: skip


# --- powers and roots


def power(x: Any, exponent: float) -> Any:
    """x ** exponent for a number known when it is written; x⁰ is 1 and x¹ is x, so that no rule meets 0 · 0⁻¹."""
    if exponent == 0:
        return type(x).filled(x.aval, 1.0)
    if exponent == 1:
        return x
    return pow_scalar(x, exponent=exponent)


def _is_refused(dtype: np.dtype, exponent: float) -> bool:
    return not dtypes.is_float(dtype) and (exponent < 0 or exponent != int(exponent))


def _refusal(got: str, exponent: float) -> DTypeError:
    return DTypeError(f"pow: integers have no power {exponent}; got {got}; cast with .to(cr.float32)")


def _power_scalar(b: Any, x: Any, *, exponent: float) -> Any:
    if _is_refused(x.dtype, exponent):
        raise _refusal(str(x.dtype), exponent)
    return b.power(x, exponent)


def _power_kernel(x: np.ndarray, *, exponent: float) -> np.ndarray:
    if _is_refused(x.dtype, exponent):
        raise _refusal(f"{x.dtype}{list(x.shape)}", exponent)
    out: np.ndarray = np.square(x) if exponent == 2 else np.power(x, x.dtype.type(exponent))
    return out


def _power_source(avals: Any, params: Any) -> str:
    return "{0} ** " + (f"{params['exponent']:g}" if params["exponent"] >= 0 else f"({params['exponent']:g})")


pow_scalar = Elementwise(
    name="pow",
    reference=_power_kernel,
    notation=Notation(
        text=lambda avals, params: (
            "{0}^" + (f"{params['exponent']:g}" if params["exponent"] >= 0 else f"({params['exponent']:g})")
        ),
        latex="{0}^{{{exponent:g}}}",
        code=_power_source,
        numpy=_power_source,
        binds=POWER,
        inside=POWER,
    ),
    result=same_number,
    scalar=_power_scalar,
    domain=(0.5, 2.0),
    samples=tuple(floats((2, 3), exponent=e) for e in (2, 3, 0.5, -1.5, 0.0, 1.0)),
    # Exponents 0 and 1 have constant slopes: 0, not 0 · 0⁻¹, and 1.
    partials=(
        lambda out, x, exponent: Ratio(exponent) if exponent in (0, 1) else power(x, exponent - 1) * float(exponent),
    ),
)
sqrt = Elementwise(
    name="sqrt",
    reference=np.sqrt,
    notation=function("sqrt", latex=r"\sqrt").__class__(
        text="sqrt({0})", latex=r"\sqrt{{{0}}}", code="{0}.sqrt()", numpy="np.sqrt({0})", inside_code=POWER,
    ),
    result=same_float,
    scalar=lambda b, x: b.sqrt(x),
    domain=(0.5, 2.0),
    partials=(lambda out, x: 0.5 / out,),
)  # fmt: skip
rsqrt = Elementwise(
    name="rsqrt",
    reference=lambda x: np.true_divide(x.dtype.type(1), np.sqrt(x)),
    notation=Notation(
        text="1 / sqrt({0})", latex=r"\frac{{1}}{{\sqrt{{{0}}}}}", code="{0}.rsqrt()", numpy="1 / np.sqrt({0})",
        binds=PRODUCT, binds_code=PRODUCT, inside_code=POWER,
    ),
    result=same_float,
    scalar=lambda b, x: b.rsqrt(x),
    domain=(0.5, 2.0),
    partials=(lambda out, x: -0.5 * power(out, 3),),
)  # fmt: skip

# --- gates: where the derivative is 1 on one side and 0 on the other, or a choice between inputs


def _clamp_kernel(x: np.ndarray, *, low: float, high: float) -> np.ndarray:
    out: np.ndarray = np.minimum(np.maximum(x, x.dtype.type(low)), x.dtype.type(high))
    return out


relu = Elementwise(
    name="relu",
    reference=lambda x: np.maximum(x, x.dtype.type(0)),
    notation=function("relu", latex=r"\operatorname{{relu}}", numpy="np.maximum({0}, 0)"),
    result=same_dtype,
    scalar=lambda b, x: b.maximum(x, b.like(0, x)),
    kinks=((0.0, "0: relu closes its gate at 0 (>)"),),
    partials=(lambda out, x: x > 0.0,),
)
clamp_min = Elementwise(
    name="clamp_min",
    reference=lambda x, *, low: np.maximum(x, x.dtype.type(low)),
    notation=Notation(
        text="max({0}, {low:g})", latex=r"\max\left({0}, {low:g}\right)", code="{0}.clamp_min({low!r})",
        numpy="np.maximum({0}, {low!r})", inside_code=POWER,
    ),
    result=same_number,
    scalar=lambda b, x, low: b.maximum(x, b.like(low, x)),
    samples=(floats((2, 3), low=0.0), floats((3,), low=-0.5)),
    kinks=(("low", "1: clamp_min passes the gradient at its bound (>=)"),),
    partials=(lambda out, x, low: x >= low,),
)  # fmt: skip
clamp_max = Elementwise(
    name="clamp_max",
    reference=lambda x, *, high: np.minimum(x, x.dtype.type(high)),
    notation=Notation(
        text="min({0}, {high:g})", latex=r"\min\left({0}, {high:g}\right)", code="{0}.clamp_max({high!r})",
        numpy="np.minimum({0}, {high!r})", inside_code=POWER,
    ),
    result=same_number,
    scalar=lambda b, x, high: b.minimum(x, b.like(high, x)),
    samples=(floats((2, 3), high=0.0), floats((3,), high=0.5)),
    kinks=(("high", "1: clamp_max passes the gradient at its bound (<=)"),),
    partials=(lambda out, x, high: x <= high,),
)  # fmt: skip
clamp = Elementwise(
    name="clamp",
    reference=_clamp_kernel,
    notation=Notation(
        text="clamp({0}, {low:g}, {high:g})",
        latex=r"\operatorname{{clamp}}\left({0}, {low:g}, {high:g}\right)",
        code="{0}.clamp({low!r}, {high!r})",
        numpy="np.clip({0}, {low!r}, {high!r})",
        inside_code=POWER,
    ),
    result=same_number,
    scalar=lambda b, x, low, high: b.minimum(b.maximum(x, b.like(low, x)), b.like(high, x)),
    samples=(floats((2, 3), low=-1.0, high=1.0),),
    kinks=(
        ("low", "1: clamp passes the gradient at its bounds"),
        ("high", "1: clamp passes the gradient at its bounds"),
    ),
    partials=(lambda out, x, low, high: (x >= low) & (x <= high),),
)


def _wins(x: Any, y: Any) -> Any:
    """1 where x > y, a half where they tie, 0 else."""
    half = type(x).filled(x.aval, 0.5).where(x == y, 0.0)
    return type(x).filled(x.aval, 1.0).where(x > y, half)


def _pairwise(name: str) -> Notation:
    return Notation(
        text=f"{name[:3]}({{0}}, {{1}})",
        latex=rf"\{name[:3]}\left({{0}}, {{1}}\right)",
        code=f"cr.{name}({{0}}, {{1}})",
        numpy=f"np.{name}({{0}}, {{1}})",
    )


maximum = Elementwise(
    name="maximum",
    reference=np.maximum,
    notation=_pairwise("maximum"),
    result=same_dtype,
    scalar=lambda b, x, y: b.maximum(x, y),
    kinks=((0.0, "0.5 to each where the inputs are equal"),),
    partials=(lambda out, x, y: _wins(x, y), lambda out, x, y: _wins(y, x)),
)
minimum = Elementwise(
    name="minimum",
    reference=np.minimum,
    notation=_pairwise("minimum"),
    result=same_dtype,
    scalar=lambda b, x, y: b.minimum(x, y),
    kinks=((0.0, "0.5 to each where the inputs are equal"),),
    partials=(lambda out, x, y: _wins(y, x), lambda out, x, y: _wins(x, y)),
)


def _where_text(avals: Any, params: Any) -> str:
    return "where({0}, {1}, {2})"


where = Elementwise(
    name="where",
    reference=np.where,
    notation=Notation(
        text=_where_text, latex=r"\operatorname{{where}}\left({0}, {1}, {2}\right)", code="cr.where({0}, {1}, {2})",
        numpy="np.where({0}, {1}, {2})",
    ),
    result=choice,
    scalar=lambda b, c, x, y: b.where(c, x, y),
    samples=(Sample((bools(2, 3), Arg((2, 3)), Arg((2, 3)))), Sample((bools(4), Arg((4,)), Arg((4,))))),
    partials=(None, lambda out, c, x, y: c, lambda out, c, x, y: ~c),
)  # fmt: skip

gate = Elementwise(
    name="gate",
    reference=gate_kernel,
    notation=Notation(
        text="{0} * {1}", latex=r"{0} \odot {1}", code="cr.where({0}, {1}, 0)", numpy="np.where({0}, {1}, 0)",
        binds=PRODUCT, inside=PRODUCT, binds_code=ATOM, inside_code=-1,
    ),
    result=choice,
    scalar=lambda b, c, x: b.where(c, x, b.like(0, x)),
    samples=(Sample((bools(2, 3), Arg((2, 3)))),),
    partials=(None, lambda out, c, x: c),
)  # fmt: skip

# --- steps: piecewise constant, slope 0 wherever they have one


def _step(name: str, kernel: Any, latex: str, scalar: Any, numpy: str = "") -> Elementwise:
    return Elementwise(
        name=name,
        reference=lambda x: kernel(x) if dtypes.is_float(x.dtype) else x,  # NumPy 2.0 made floats of integers here
        notation=Notation(
            text=f"{name}({{0}})",
            latex=latex,
            code=f"{{0}}.{name}()",
            numpy=numpy or f"np.{name}({{0}})",
            inside_code=POWER,
        ),
        result=same_number,
        scalar=lambda b, x: scalar(b, x) if dtypes.is_float(x.dtype) else x,
        jumps=True,
        partials=(0.0,),
    )


floor = _step("floor", np.floor, r"\lfloor {0} \rfloor", lambda b, x: b.floor(x))
ceil = _step("ceil", np.ceil, r"\lceil {0} \rceil", lambda b, x: b.ceil(x))
round_ = _step("round", np.round, r"\operatorname{{round}}\left({0}\right)", lambda b, x: b.round(x))
trunc = _step("trunc", np.trunc, r"\operatorname{{trunc}}\left({0}\right)", lambda b, x: b.trunc(x))
floor_divide = Elementwise(
    name="floor_divide",
    reference=np.floor_divide,
    notation=Notation(
        text="({0} // {1})",
        latex=r"\left\lfloor \frac{{{0}}}{{{1}}} \right\rfloor",
        code="({0} // {1})",
        numpy="({0} // {1})",
        inside=PRODUCT,
        inside_latex=-1,
    ),
    result=same_number,
    scalar=lambda b, x, y: b.floor_divide(x, y),
    jumps=True,
    domain=(0.5, 2.0),
    partials=(0.0, 0.0),
)
remainder = Elementwise(
    name="remainder",
    reference=np.remainder,
    notation=Notation(
        text="({0} mod {1})",
        latex=r"\left({0} \bmod {1}\right)",
        code="({0} % {1})",
        numpy="({0} % {1})",
        inside=PRODUCT,
    ),
    result=same_number,
    scalar=lambda b, x, y: b.remainder(x, y),
    jumps=True,
    domain=(0.5, 2.0),
    partials=(1.0, lambda out, x, y: -floor_divide(x, y)),
)

ALL = (
    add, sub, mul, div, neg, reciprocal, abs_, sign, square, pow_scalar, sqrt, rsqrt, relu, clamp_min,
    clamp_max, clamp, maximum, minimum, where, gate, floor, ceil, round_, trunc, floor_divide, remainder,
)  # fmt: skip
