"""Elementwise ops that are functions of analysis: exponentials, logarithms, trigonometry, the sigmoid family.

Source of every derivative, unless a line says otherwise: NIST Digital Library of Mathematical Functions, chapter 4,
https://dlmf.nist.gov/4.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from chainrule.core.family import Elementwise, same_float, same_number
from chainrule.core.notation import ATOM, POWER, SUM, Notation, function
from chainrule.ops.elementwise import rsqrt
from chainrule.ops.kernels import (
    erf_kernel,
    log_sigmoid_kernel,
    sigmoid_kernel,
    softplus_kernel,
    with_float32,
)

# --- exponentials and logarithms

exp = Elementwise(
    name="exp",
    reference=np.exp,
    notation=Notation(
        text="exp({0})", latex="e^{{{0}}}", code="{0}.exp()", numpy="np.exp({0})", binds_latex=POWER, inside_code=POWER
    ),
    result=same_float,
    scalar=lambda b, x: b.exp(x),
    dear=True,
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
    scalar=lambda b, x: b.exp2(x),
    dear=True,
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
    scalar=lambda b, x: b.expm1(x),
    dear=True,
    partials=(lambda out, x: out + 1.0,),
)
log: Elementwise = Elementwise(
    name="log",
    reference=np.log,
    notation=function("log", latex=r"\log"),
    result=same_float,
    scalar=lambda b, x: b.log(x),
    dear=True,
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
    scalar=lambda b, x: b.log2(x),
    dear=True,
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
    scalar=lambda b, x: b.log10(x),
    dear=True,
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
    scalar=lambda b, x: b.log1p(x),
    dear=True,
    domain=(-0.5, 2.0),
    partials=(lambda out, x: 1.0 / (x + 1.0),),
)

# --- trigonometric and hyperbolic functions

sin = Elementwise(
    name="sin",
    reference=np.sin,
    notation=function("sin", latex=r"\sin"),
    result=same_float,
    scalar=lambda b, x: b.sin(x),
    dear=True,
    partials=(lambda out, x: cos(x),),
)
cos: Elementwise = Elementwise(
    name="cos",
    reference=np.cos,
    notation=function("cos", latex=r"\cos"),
    result=same_float,
    scalar=lambda b, x: b.cos(x),
    dear=True,
    partials=(lambda out, x: -sin(x),),
)
tan = Elementwise(
    name="tan",
    reference=np.tan,
    notation=function("tan", latex=r"\tan"),
    result=same_float,
    scalar=lambda b, x: b.tan(x),
    dear=True,
    domain=(-1.2, 1.2),
    partials=(lambda out, x: 1.0 + out * out,),
)
asin = Elementwise(
    name="asin",
    reference=np.arcsin,
    notation=function("asin", latex=r"\arcsin", numpy="np.arcsin({0})"),
    result=same_float,
    scalar=lambda b, x: b.asin(x),
    dear=True,
    domain=(-0.9, 0.9),
    partials=(lambda out, x: rsqrt(1.0 - x * x),),
)
acos = Elementwise(
    name="acos",
    reference=np.arccos,
    notation=function("acos", latex=r"\arccos", numpy="np.arccos({0})"),
    result=same_float,
    scalar=lambda b, x: b.acos(x),
    dear=True,
    domain=(-0.9, 0.9),
    partials=(lambda out, x: -rsqrt(1.0 - x * x),),
)
atan = Elementwise(
    name="atan",
    reference=np.arctan,
    notation=function("atan", latex=r"\arctan", numpy="np.arctan({0})"),
    result=same_float,
    scalar=lambda b, x: b.atan(x),
    dear=True,
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
    scalar=lambda b, y, x: b.atan2(y, x),
    dear=True,
    domain=(0.5, 2.0),
    kinks=((0.0, "0 at the origin, which has no angle"),),
    partials=(lambda out, y, x: _angular(x, x * x + y * y), lambda out, y, x: _angular(-y, x * x + y * y)),
)  # fmt: skip
sinh = Elementwise(
    name="sinh",
    reference=np.sinh,
    notation=function("sinh", latex=r"\sinh"),
    result=same_float,
    scalar=lambda b, x: b.sinh(x),
    dear=True,
    partials=(lambda out, x: cosh(x),),
)
cosh: Elementwise = Elementwise(
    name="cosh",
    reference=np.cosh,
    notation=function("cosh", latex=r"\cosh"),
    result=same_float,
    scalar=lambda b, x: b.cosh(x),
    dear=True,
    partials=(lambda out, x: sinh(x),),
)
tanh = Elementwise(
    name="tanh",
    reference=np.tanh,
    notation=function("tanh", latex=r"\tanh"),
    result=same_float,
    scalar=lambda b, x: b.tanh(x),
    dear=True,
    partials=(lambda out, x: 1.0 - out * out,),
)
asinh = Elementwise(
    name="asinh",
    reference=np.arcsinh,
    notation=function("asinh", latex=r"\operatorname{{asinh}}", numpy="np.arcsinh({0})"),
    result=same_float,
    scalar=lambda b, x: b.asinh(x),
    dear=True,
    partials=(lambda out, x: rsqrt(x * x + 1.0),),
)
acosh = Elementwise(
    name="acosh",
    reference=np.arccosh,
    notation=function("acosh", latex=r"\operatorname{{acosh}}", numpy="np.arccosh({0})"),
    result=same_float,
    scalar=lambda b, x: b.acosh(x),
    dear=True,
    domain=(1.5, 3.0),
    partials=(lambda out, x: rsqrt(x * x - 1.0),),
)
atanh = Elementwise(
    name="atanh",
    reference=np.arctanh,
    notation=function("atanh", latex=r"\operatorname{{atanh}}", numpy="np.arctanh({0})"),
    result=same_float,
    scalar=lambda b, x: b.atanh(x),
    dear=True,
    domain=(-0.9, 0.9),
    partials=(lambda out, x: 1.0 / (1.0 - x * x),),
)

# --- error function and the sigmoid family

erf = Elementwise(
    name="erf",
    reference=erf_kernel,
    notation=function("erf", latex=r"\operatorname{{erf}}", numpy="np.vectorize(math.erf, otypes=[float])({0})"),
    result=same_float,
    scalar=lambda b, x: b.erf(x),
    dear=True,
    source="https://dlmf.nist.gov/7.2#E1",
    partials=(lambda out, x: exp(-(x * x)) * (2.0 / math.sqrt(math.pi)),),
)
sigmoid = Elementwise(
    name="sigmoid",
    reference=sigmoid_kernel,
    notation=function("sigmoid", latex=r"\sigma", numpy="(1 / (1 + np.exp(-{0})))"),
    result=same_float,
    scalar=lambda b, x: b.sigmoid(x),
    dear=True,
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
    scalar=lambda b, x: b.log_sigmoid(x),
    dear=True,
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
    scalar=lambda b, x: b.softplus(x),
    dear=True,
    partials=(lambda out, x: sigmoid(x),),
)  # fmt: skip

# --- a tensor to the power of a tensor: its slope by the exponent is a logarithm

pow_tensor: Elementwise = Elementwise(
    name="pow_tensor",
    reference=np.power,
    notation=Notation(
        text="{0}^{1}", latex="{0}^{{{1}}}", code="{0} ** {1}", numpy="{0} ** {1}", binds=POWER, inside=POWER,
    ),
    result=same_number,
    scalar=lambda b, x, y: b.pow(x, y),
    dear=True,
    domain=(0.5, 2.0),
    partials=(
        # At exponent 0 the power is the constant 1, so its slope is 0, not 0 · 0⁻¹.
        lambda out, x, y: (y * pow_tensor(x, y - 1.0)).where(y != 0.0, 0.0),
        # At base 0 and exponent ≥ 0 the power is the constant 0 (or 1), whose logarithm must not be asked for.
        lambda out, x, y: (out * log(x)).where(~((x == 0.0) & (y >= 0.0)), 0.0),
    ),
)  # fmt: skip

ALL = (
    pow_tensor, exp, exp2, expm1, log, log2, log10, log1p, sin, cos, tan, asin, acos, atan, atan2, sinh, cosh,
    tanh, asinh, acosh, atanh, erf, sigmoid, log_sigmoid, softplus,
)  # fmt: skip
