"""Comparisons and logic: their output is bool, so no gradient passes, and each says so."""

from __future__ import annotations

from typing import Any

import numpy as np

from chainrule.core.family import Elementwise, boolean, integer_or_bool
from chainrule.core.notation import CHOICE, POWER, SIGN, Notation
from chainrule.core.notation import comparison as written
from chainrule.core.sample import Arg, Sample, bools, floats

_BOOLEAN = "its output is true or false, which has no slope"


def _compare(name: str, kernel: Any, symbol: str, latex: str, scalar: Any) -> Elementwise:
    return Elementwise(
        name=name,
        reference=kernel,
        notation=written(symbol, latex),
        result=boolean,
        scalar=scalar,
        partials=(None, None),
        no_gradient=_BOOLEAN,
    )


eq = _compare("eq", np.equal, "==", "=", lambda b, x, y: b.eq(x, y))
ne = _compare("ne", np.not_equal, "!=", r"\ne", lambda b, x, y: b.ne(x, y))
lt = _compare("lt", np.less, "<", "<", lambda b, x, y: b.lt(x, y))
le = _compare("le", np.less_equal, "<=", r"\le", lambda b, x, y: b.le(x, y))
gt = _compare("gt", np.greater, ">", ">", lambda b, x, y: b.gt(x, y))
ge = _compare("ge", np.greater_equal, ">=", r"\ge", lambda b, x, y: b.ge(x, y))


def _logic(name: str, kernel: Any, symbol: str, latex: str, scalar: Any) -> Elementwise:
    return Elementwise(
        name=name,
        reference=kernel,
        notation=Notation(
            text=f"({{0}} {symbol} {{1}})", latex=rf"\left({{0}} {latex} {{1}}\right)", code=f"({{0}} {symbol} {{1}})",
            numpy=f"({{0}} {symbol} {{1}})", inside=SIGN,
        ),
        result=integer_or_bool,
        scalar=scalar,
        partials=(None, None),
        no_gradient=_BOOLEAN,
        samples=(Sample((bools(2, 3), bools(2, 3))), Sample((Arg((3,), "int", 9), Arg((3,), "int", 9)))),
    )  # fmt: skip


bitwise_and = _logic("bitwise_and", np.bitwise_and, "&", r"\wedge", lambda b, x, y: b.and_(x, y))
bitwise_or = _logic("bitwise_or", np.bitwise_or, "|", r"\vee", lambda b, x, y: b.or_(x, y))
bitwise_xor = _logic("bitwise_xor", np.bitwise_xor, "^", r"\oplus", lambda b, x, y: b.xor(x, y))
bitwise_not = Elementwise(
    name="bitwise_not",
    reference=np.invert,
    notation=Notation(text="not {0}", latex=r"\neg {0}", code="~{0}", numpy="~{0}", binds=SIGN, inside=SIGN),
    result=integer_or_bool,
    scalar=lambda b, x: b.not_(x),
    partials=(None,),
    no_gradient=_BOOLEAN,
    samples=(Sample((bools(2, 3),)), Sample((Arg((3,), "int", 9),))),
)


def _classify(name: str, kernel: Any, scalar: Any) -> Elementwise:
    return Elementwise(
        name=name,
        reference=kernel,
        notation=Notation(
            text=f"[{name[2:]} {{0}}]", latex=rf"\operatorname{{{{{name}}}}}\left({{0}}\right)", code=f"{{0}}.{name}()",
            numpy=f"np.{name}({{0}})", inside_code=POWER, inside=CHOICE,
        ),
        result=boolean,
        scalar=scalar,
        partials=(None,),
        no_gradient=_BOOLEAN,
        samples=(floats((2, 3)),),
    )  # fmt: skip


isnan = _classify("isnan", np.isnan, lambda b, x: b.isnan(x))
isinf = _classify("isinf", np.isinf, lambda b, x: b.isinf(x))
isfinite = _classify("isfinite", np.isfinite, lambda b, x: b.isfinite(x))

ALL = (eq, ne, lt, le, gt, ge, bitwise_and, bitwise_or, bitwise_xor, bitwise_not, isnan, isinf, isfinite)
