"""Elementwise ops on numbers: arithmetic, powers, exponentials, trigonometry, gates.

Source of every derivative, unless a line says otherwise: NIST Digital Library of Mathematical Functions, chapter 4,
https://dlmf.nist.gov/4. Where a derivative is not unique, the choice is PyTorch's for the function of that name.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.core.family import Elementwise, choice, same_dtype, same_float, same_number
from chainrule.core.node import Ratio
from chainrule.core.notation import ATOM, POWER, PRODUCT, SIGN, SUM, Notation, function, infix
from chainrule.core.sample import Arg, Sample, bools, floats
from chainrule.errors import DTypeError
from chainrule.ops.kernels import (
    erf_kernel,
    gate_kernel,
    log_sigmoid_kernel,
    sigmoid_kernel,
    softplus_kernel,
    with_float32,
)

# --- arithmetic

add = Elementwise(
    name="add",
    reference=np.add,
    notation=infix("+", "+", SUM, associative=True),
    result=same_dtype,
    partials=(1.0, 1.0),
)
sub = Elementwise(
    name="sub",
    reference=np.subtract,
    notation=infix("-", "-", SUM),
    result=same_number,
    partials=(1.0, -1.0),
)
mul = Elementwise(
    name="mul",
    reference=np.multiply,
    notation=infix("*", r"\odot", PRODUCT, associative=True),
    result=same_dtype,
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
    domain=(0.5, 2.0),
    partials=(lambda out, x, y: one_over(y), lambda out, x, y: -out / y),
)  # fmt: skip
neg = Elementwise(
    name="neg",
    reference=np.negative,
    notation=Notation(text="-{0}", latex="-{0}", code="-{0}", numpy="-{0}", binds=SIGN, inside=SIGN),
    result=same_number,
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
    kinks=((0.0, "0, the middle of -1 and 1"),),
    partials=(lambda out, x: sign(x),),
)
sign: Elementwise = Elementwise(
    name="sign",
    reference=np.sign,
    notation=function("sign", latex=r"\operatorname{{sign}}"),
    result=same_number,
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


def _power_kernel(x: np.ndarray, *, exponent: float) -> np.ndarray:
    if not dtypes.is_float(x.dtype) and (exponent < 0 or exponent != int(exponent)):
        raise DTypeError(
            f"pow: integers have no power {exponent}; got {x.dtype}{list(x.shape)}; cast with .to(cr.float32)"
        )
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
    domain=(0.5, 2.0),
    samples=tuple(floats((2, 3), exponent=e) for e in (2, 3, 0.5, -1.5, 0.0, 1.0)),
    # Exponents 0 and 1 have constant slopes: 0, not 0 · 0⁻¹, and 1.
    partials=(
        lambda out, x, exponent: Ratio(exponent) if exponent in (0, 1) else power(x, exponent - 1) * float(exponent),
    ),
)
pow_tensor: Elementwise = Elementwise(
    name="pow_tensor",
    reference=np.power,
    notation=Notation(
        text="{0}^{1}", latex="{0}^{{{1}}}", code="{0} ** {1}", numpy="{0} ** {1}", binds=POWER, inside=POWER,
    ),
    result=same_number,
    domain=(0.5, 2.0),
    partials=(
        # At exponent 0 the power is the constant 1, so its slope is 0, not 0 · 0⁻¹.
        lambda out, x, y: (y * pow_tensor(x, y - 1.0)).where(y != 0.0, 0.0),
        # At base 0 and exponent ≥ 0 the power is the constant 0 (or 1), whose logarithm must not be asked for.
        lambda out, x, y: (out * log(x)).where(~((x == 0.0) & (y >= 0.0)), 0.0),
    ),
)  # fmt: skip
sqrt = Elementwise(
    name="sqrt",
    reference=np.sqrt,
    notation=function("sqrt", latex=r"\sqrt").__class__(
        text="sqrt({0})", latex=r"\sqrt{{{0}}}", code="{0}.sqrt()", numpy="np.sqrt({0})", inside_code=POWER,
    ),
    result=same_float,
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
    domain=(0.5, 2.0),
    partials=(lambda out, x: -0.5 * power(out, 3),),
)  # fmt: skip

# --- exponentials and logarithms

exp = Elementwise(
    name="exp",
    reference=np.exp,
    notation=Notation(
        text="exp({0})", latex="e^{{{0}}}", code="{0}.exp()", numpy="np.exp({0})", binds_latex=POWER, inside_code=POWER
    ),
    result=same_float,
    partials=(lambda out, x: out,),
)
exp2 = Elementwise(
    name="exp2",
    reference=with_float32(np.exp2),
    notation=Notation(
        text="2^{0}",
        latex="2^{{{0}}}",
        code="{0}.exp2()",
        numpy="np.exp2({0})",
        binds=POWER,
        inside=POWER,
        inside_latex=-1,
        binds_code=ATOM,
    ),
    result=same_float,
    partials=(lambda out, x: out * math.log(2.0),),
)
expm1 = Elementwise(
    name="expm1",
    reference=np.expm1,
    notation=Notation(
        text="(exp({0}) - 1)",
        latex=r"\left(e^{{{0}}} - 1\right)",
        code="{0}.expm1()",
        numpy="np.expm1({0})",
        inside_code=POWER,
    ),
    result=same_float,
    partials=(lambda out, x: out + 1.0,),
)
log: Elementwise = Elementwise(
    name="log",
    reference=np.log,
    notation=function("log", latex=r"\log"),
    result=same_float,
    domain=(0.5, 2.0),
    partials=(lambda out, x: 1.0 / x,),
)
log2 = Elementwise(
    name="log2",
    reference=np.log2,
    notation=Notation(
        text="log2({0})",
        latex=r"\log_{{2}}\left({0}\right)",
        code="{0}.log2()",
        numpy="np.log2({0})",
        inside_code=POWER,
    ),
    result=same_float,
    domain=(0.5, 2.0),
    partials=(lambda out, x: 1.0 / (x * math.log(2.0)),),
)
log10 = Elementwise(
    name="log10",
    reference=np.log10,
    notation=Notation(
        text="log10({0})",
        latex=r"\log_{{10}}\left({0}\right)",
        code="{0}.log10()",
        numpy="np.log10({0})",
        inside_code=POWER,
    ),
    result=same_float,
    domain=(0.5, 2.0),
    partials=(lambda out, x: 1.0 / (x * math.log(10.0)),),
)
log1p = Elementwise(
    name="log1p",
    reference=np.log1p,
    notation=Notation(
        text="log(1 + {0})",
        latex=r"\log\left(1 + {0}\right)",
        code="{0}.log1p()",
        numpy="np.log1p({0})",
        inside=SUM,
        inside_code=POWER,
    ),
    result=same_float,
    domain=(-0.5, 2.0),
    partials=(lambda out, x: 1.0 / (x + 1.0),),
)

# --- trigonometric and hyperbolic functions

sin = Elementwise(
    name="sin",
    reference=np.sin,
    notation=function("sin", latex=r"\sin"),
    result=same_float,
    partials=(lambda out, x: cos(x),),
)
cos: Elementwise = Elementwise(
    name="cos",
    reference=np.cos,
    notation=function("cos", latex=r"\cos"),
    result=same_float,
    partials=(lambda out, x: -sin(x),),
)
tan = Elementwise(
    name="tan",
    reference=np.tan,
    notation=function("tan", latex=r"\tan"),
    result=same_float,
    domain=(-1.2, 1.2),
    partials=(lambda out, x: 1.0 + out * out,),
)
asin = Elementwise(
    name="asin",
    reference=np.arcsin,
    notation=function("asin", latex=r"\arcsin", numpy="np.arcsin({0})"),
    result=same_float,
    domain=(-0.9, 0.9),
    partials=(lambda out, x: rsqrt(1.0 - x * x),),
)
acos = Elementwise(
    name="acos",
    reference=np.arccos,
    notation=function("acos", latex=r"\arccos", numpy="np.arccos({0})"),
    result=same_float,
    domain=(-0.9, 0.9),
    partials=(lambda out, x: -rsqrt(1.0 - x * x),),
)
atan = Elementwise(
    name="atan",
    reference=np.arctan,
    notation=function("atan", latex=r"\arctan", numpy="np.arctan({0})"),
    result=same_float,
    partials=(lambda out, x: 1.0 / (1.0 + x * x),),
)


def _angular(top: Any, squared_radius: Any) -> Any:
    return (top / squared_radius).where(squared_radius != 0.0, 0.0)


atan2 = Elementwise(
    name="atan2",
    reference=np.arctan2,
    notation=Notation(
        text="atan2({0}, {1})", latex=r"\operatorname{{atan2}}\left({0}, {1}\right)", code="cr.atan2({0}, {1})",
        numpy="np.arctan2({0}, {1})",
    ),
    result=same_float,
    domain=(0.5, 2.0),
    kinks=((0.0, "0 at the origin, which has no angle"),),
    partials=(lambda out, y, x: _angular(x, x * x + y * y), lambda out, y, x: _angular(-y, x * x + y * y)),
)  # fmt: skip
sinh = Elementwise(
    name="sinh",
    reference=np.sinh,
    notation=function("sinh", latex=r"\sinh"),
    result=same_float,
    partials=(lambda out, x: cosh(x),),
)
cosh: Elementwise = Elementwise(
    name="cosh",
    reference=np.cosh,
    notation=function("cosh", latex=r"\cosh"),
    result=same_float,
    partials=(lambda out, x: sinh(x),),
)
tanh = Elementwise(
    name="tanh",
    reference=np.tanh,
    notation=function("tanh", latex=r"\tanh"),
    result=same_float,
    partials=(lambda out, x: 1.0 - out * out,),
)
asinh = Elementwise(
    name="asinh",
    reference=np.arcsinh,
    notation=function("asinh", latex=r"\operatorname{{asinh}}", numpy="np.arcsinh({0})"),
    result=same_float,
    partials=(lambda out, x: rsqrt(x * x + 1.0),),
)
acosh = Elementwise(
    name="acosh",
    reference=np.arccosh,
    notation=function("acosh", latex=r"\operatorname{{acosh}}", numpy="np.arccosh({0})"),
    result=same_float,
    domain=(1.5, 3.0),
    partials=(lambda out, x: rsqrt(x * x - 1.0),),
)
atanh = Elementwise(
    name="atanh",
    reference=np.arctanh,
    notation=function("atanh", latex=r"\operatorname{{atanh}}", numpy="np.arctanh({0})"),
    result=same_float,
    domain=(-0.9, 0.9),
    partials=(lambda out, x: 1.0 / (1.0 - x * x),),
)

# --- error function and the sigmoid family

erf = Elementwise(
    name="erf",
    reference=erf_kernel,
    notation=function("erf", latex=r"\operatorname{{erf}}", numpy="np.vectorize(math.erf, otypes=[float])({0})"),
    result=same_float,
    source="https://dlmf.nist.gov/7.2#E1",
    partials=(lambda out, x: exp(-(x * x)) * (2.0 / math.sqrt(math.pi)),),
)
sigmoid = Elementwise(
    name="sigmoid",
    reference=sigmoid_kernel,
    notation=function("sigmoid", latex=r"\sigma", numpy="(1 / (1 + np.exp(-{0})))"),
    result=same_float,
    partials=(lambda out, x: out * (1.0 - out),),
)
log_sigmoid = Elementwise(
    name="logsigmoid",
    reference=log_sigmoid_kernel,
    notation=Notation(
        text="log(sigmoid({0}))", latex=r"\log\sigma\left({0}\right)", code="cr.nn.functional.logsigmoid({0})",
        numpy="(-np.logaddexp(0, -({0})))",
    ),
    result=same_float,
    partials=(lambda out, x: sigmoid(-x),),
)  # fmt: skip
softplus = Elementwise(
    name="softplus",
    reference=softplus_kernel,
    notation=Notation(
        text="log(1 + exp({0}))", latex=r"\log\left(1 + e^{{{0}}}\right)", code="cr.nn.functional.softplus({0})",
        numpy="np.logaddexp(0, {0})",
    ),
    result=same_float,
    partials=(lambda out, x: sigmoid(x),),
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
    kinks=((0.0, "0.5 to each where the inputs are equal"),),
    partials=(lambda out, x, y: _wins(x, y), lambda out, x, y: _wins(y, x)),
)
minimum = Elementwise(
    name="minimum",
    reference=np.minimum,
    notation=_pairwise("minimum"),
    result=same_dtype,
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
    samples=(Sample((bools(2, 3), Arg((2, 3)))),),
    partials=(None, lambda out, c, x: c),
)  # fmt: skip

# --- steps: piecewise constant, slope 0 wherever they have one


def _step(name: str, kernel: Any, latex: str, numpy: str = "") -> Elementwise:
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
        partials=(0.0,),
    )


floor = _step("floor", np.floor, r"\lfloor {0} \rfloor")
ceil = _step("ceil", np.ceil, r"\lceil {0} \rceil")
round_ = _step("round", np.round, r"\operatorname{{round}}\left({0}\right)")
trunc = _step("trunc", np.trunc, r"\operatorname{{trunc}}\left({0}\right)")
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
    domain=(0.5, 2.0),
    partials=(1.0, lambda out, x, y: -floor_divide(x, y)),
)

ALL = (
    add, sub, mul, div, neg, reciprocal, abs_, sign, square,
    pow_scalar, pow_tensor, sqrt, rsqrt,
    exp, exp2, expm1, log, log2, log10, log1p,
    sin, cos, tan, asin, acos, atan, atan2, sinh, cosh, tanh, asinh, acosh, atanh,
    erf, sigmoid, log_sigmoid, softplus,
    relu, clamp_min, clamp_max, clamp, maximum, minimum, where, gate,
    floor, ceil, round_, trunc, floor_divide, remainder,
)  # fmt: skip
