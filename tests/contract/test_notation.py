"""What is printed is what is computed: LaTeX read back through SymPy, Python forms run.

The rule printed for an op is the rule `backward` runs: it is run on symbols, written down, read back by a program that
knows nothing of this library, evaluated, and compared with the rule run on numbers.
"""

import math
import re

import numpy as np
import pytest
import sympy
from sympy.core.function import AppliedUndef
from sympy.parsing.latex import parse_latex

import chainrule as cr
from chainrule import dtypes
from chainrule.core.aval import Aval
from chainrule.core.family import Elementwise
from chainrule.ops.catalogue import CATALOGUE
from chainrule.ops.printing import write

DIGITS = 40
LETTERS = "xyz"

# --- reading LaTeX: SymPy reads sums, products, fractions, powers, functions; what it cannot is put as a function call

INFIX = {
    "=": "iseq", r"\ne": "isne", "<": "islt", r"\le": "isle", ">": "isgt", r"\ge": "isge",
    r"\wedge": "andof", r"\vee": "orof", r"\oplus": "xorof", r"\bmod": "modof",
}  # fmt: skip
INNERMOST = re.compile(r"\\left(?:\(|\[)((?:(?!\\left|\\right).)*)\\right(?:\)|\])")
NEGATED = re.compile(r"\\neg\s*((?:\\[a-z]+)?⟨[^⟨⟩]*(?:⟨[^⟨⟩]*⟩[^⟨⟩]*)*⟩|[a-z])")


def readable(latex: str) -> str:
    """LaTeX as SymPy's grammar has it; ⟨ ⟩ stand for brackets that are done with."""
    text = latex.replace(r"\odot", r"\cdot").replace(r"\mathbf{1}\left[", r"\left[")
    text = re.sub(r"\\operatorname\{(\w+)\}", r"\\\1 ", text)
    text = re.sub(r"\\(relu|where|round|trunc|clamp|sign|erf|a\w+) *", r"\\\1", text)
    text = text.replace(r"\left|", r"\abs\left(").replace(r"\right|", r"\right)")
    text = text.replace(r"\left\lfloor", r"\lfloor").replace(r"\right\rfloor", r"\rfloor")
    text = text.replace(r"\log\sigma", r"\logsigma").replace("atan2", "atantwo")
    while found := INNERMOST.search(text):
        text = text[: found.start()] + _bracketed(found[1]) + text[found.end() :]
    while found := NEGATED.search(text):
        text = text[: found.start()] + rf"\notof⟨{found[1]}⟩" + text[found.end() :]
    return text.replace("⟨", "(").replace("⟩", ")")


def _bracketed(inside: str) -> str:
    for sign, name in INFIX.items():
        pattern = re.escape(sign) + (r"(?![a-z])" if sign[0] == "\\" else "")
        parts = re.split(pattern, inside)
        if len(parts) == 2:
            return rf"\{name}⟨{parts[0]}, {parts[1]}⟩"
    return f"⟨{inside}⟩"


def _whole(function):
    return lambda *values: sympy.Integer(function(*(round(float(v)) for v in values)))


def _logical(function):
    return lambda a, b: sympy.Integer(bool(function(a, b)))


MEANING = {
    "iseq": _logical(lambda a, b: a == b), "isne": _logical(lambda a, b: a != b),
    "islt": _logical(lambda a, b: a < b), "isle": _logical(lambda a, b: a <= b),
    "isgt": _logical(lambda a, b: a > b), "isge": _logical(lambda a, b: a >= b),
    "andof": _whole(lambda a, b: a & b), "orof": _whole(lambda a, b: a | b), "xorof": _whole(lambda a, b: a ^ b),
    "notof": lambda a: 1 - a, "modof": lambda a, b: a - b * sympy.floor(a / b),
    "abs": sympy.Abs, "sign": sympy.sign, "erf": sympy.erf, "sigma": lambda a: 1 / (1 + sympy.exp(-a)),
    "logsigma": lambda a: -sympy.log(1 + sympy.exp(-a)), "relu": lambda a: sympy.Max(a, 0),
    "max": sympy.Max, "min": sympy.Min, "clamp": lambda a, low, high: sympy.Min(sympy.Max(a, low), high),
    "where": lambda c, a, b: a if c else b, "atantwo": sympy.atan2,
    "asinh": sympy.asinh, "acosh": sympy.acosh, "atanh": sympy.atanh,
    "round": lambda a: sympy.Integer(round(float(a))), "trunc": lambda a: sympy.Integer(math.trunc(float(a))),
    "isnan": lambda a: 0, "isinf": lambda a: 0, "isfinite": lambda a: 1,
}  # fmt: skip


def evaluated(expression, values):
    """An expression at these values, to 40 digits."""
    if isinstance(expression, sympy.Symbol):
        return sympy.E if expression.name == "e" else values[expression.name]
    if isinstance(expression, AppliedUndef):
        return sympy.sympify(MEANING[expression.func.__name__](*(evaluated(a, values) for a in expression.args)))
    if not expression.args:
        return expression
    return sympy.N(expression.func(*(evaluated(a, values) for a in expression.args)), DIGITS)


def no_names(node):
    return None


def test_printed_latex_is_the_value_and_the_rule(scalars):
    case = scalars
    inputs = case.tensors(requires_grad=True)
    symbols = [
        cr.Tensor.symbolic(letter, x.aval, requires_grad=x.requires_grad)
        for letter, x in zip(LETTERS, inputs, strict=False)
    ]
    values = {s.symbol: sympy.Float(repr(float(x.item())), DIGITS) for s, x in zip(symbols, inputs, strict=True)}
    values["g"] = sympy.Float("0.8", DIGITS)
    out, symbol = case(*inputs), case(*symbols)
    if all(dtypes.is_integer(x.dtype) for x in inputs) and write(symbol, "latex", no_names).startswith(r"\neg"):
        return  # of integers, "not" is said bit by bit, and mathematics has no sign for it
    assert float(evaluated(parse_latex(readable(write(symbol, "latex", no_names))), values)) == pytest.approx(
        float(out.item()), rel=1e-12, abs=1e-12
    )
    if case.op.no_gradient:
        return
    needed = tuple(x.requires_grad for x in inputs)
    ran = case.op.vjp(cr.tensor(0.8, dtype=cr.float64), out, needed)
    for printed, cotangent in zip(case.op.vjp(cr.Tensor.symbolic("g", out.aval), symbol, needed), ran, strict=True):
        if cotangent is not None:
            latex = write(printed, "latex", no_names)
            assert float(evaluated(parse_latex(readable(latex)), values)) == pytest.approx(
                cotangent.item(), rel=1e-12, abs=1e-12
            ), latex


# --- running Python forms


def run(text, style, values):
    """The value of a printed Python expression."""
    if style == "numpy":
        return np.asarray(eval(text, {"np": np, "math": math}, {k: v.numpy() for k, v in values.items()}))
    out = eval(text, {"cr": cr}, dict(values))
    return out.numpy() if isinstance(out, cr.Tensor) else np.asarray(out)


@pytest.mark.parametrize("style", ["code", "numpy"])
def test_printed_python_is_the_value(applied, style):
    case = applied
    inputs, symbols = case.tensors(), case.symbols()
    text = written(case(*symbols), style)
    if text is None:
        return
    out = case(*inputs)
    ran = run(text, style, {s.symbol: x for s, x in zip(symbols, inputs, strict=True) if s.symbol})
    tolerance = 1e-12 if ran.dtype != dtypes.float32 else 1e-6  # of numbers alone, code makes float32
    np.testing.assert_allclose(ran, out.numpy(), rtol=tolerance, atol=tolerance, err_msg=text)


def test_printed_python_of_what_comes_from_nothing_runs(made):
    case = made
    params = case.sample.params
    ran = run(case.op.notation.template("code", (), params).format(**params), "code", {})
    out = case(*case.tensors())
    assert ran.shape == out.shape
    if not case.sample.args:  # what is random comes from another place in the stream
        np.testing.assert_array_equal(ran, out.numpy())


@pytest.mark.parametrize("style", ["code", "numpy"])
def test_printed_python_is_the_rule(differentiable, style):
    case = differentiable
    inputs, symbols = case.tensors(requires_grad=True), case.symbols()
    out, symbol = case(*inputs), case(*symbols)
    (g,) = case.random_like("g", out)
    g = g.to(out.dtype)
    values = {s.symbol: x.detach() for s, x in zip(symbols, inputs, strict=True) if s.symbol} | {"g": g}
    needed = tuple(x.requires_grad for x in inputs)
    with cr.no_grad():
        ran = case.op.vjp(g, out, needed)
    for printed, cotangent in zip(case.op.vjp(cr.Tensor.symbolic("g", out.aval), symbol, needed), ran, strict=True):
        text = written(printed, style) if cotangent is not None else None
        if text is not None:
            tolerance = 1e-12 if cotangent.dtype == dtypes.float64 else 1e-6
            np.testing.assert_allclose(
                np.broadcast_to(run(text, style, values), cotangent.shape),
                cotangent.numpy(), rtol=tolerance, atol=tolerance, err_msg=text,
            )  # fmt: skip


def written(expression, style):
    """The expression in a style, or None where an op in it states no form."""
    try:
        return write(expression, style, no_names)
    except LookupError:
        return None


# Ops that NumPy has no one expression for; the list is here so that it is seen, and so that it does not grow unseen.
NO_NUMPY = {
    "embed",
    "overlap_add",
    "scatter_add",
    "index_add",
    "rand",
    "randn",
    "randint",
    "full",
}


def test_every_op_has_every_form():
    for op in CATALOGUE:
        avals = tuple(Aval(a.shape, dtypes.float32) for a in (op.samples[0].args if op.samples else ()))
        params = op.samples[0].params if op.samples else {}
        if not op.samples:
            avals = (Aval((2, 3), dtypes.float32),) * len(op.partials)
        for style in ("text", "latex", "code"):
            assert op.notation.template(style, avals, params), f"{op.name} has no {style} form"
        if op.name not in NO_NUMPY:
            assert op.notation.template("numpy", avals, params), f"{op.name} has no NumPy form"


# --- parentheses: every op around every kind of op


def binding(op):
    """What decides on parentheses: ops that agree in this are written alike inside others."""
    n = op.notation
    styles = ("text", "latex", "code", "numpy")
    return (
        *(n.strength(s) for s in styles),
        *(n.threshold(s) for s in styles),
        n.associative,
        n.left,
        len(op.partials),
    )


NUMBERS = [op for op in CATALOGUE if isinstance(op, Elementwise) and not op.no_gradient and None not in op.partials]
KINDS = list({binding(op): op for op in reversed(NUMBERS)}.values())


def params_of(op):
    return op.samples[0].params if op.samples else {}


def nests(outer, inner, *makes):
    """outer(…, inner(…), …), in each place, for each way of making the letters x, y, z."""
    for place in range(len(outer.partials)):
        for letters in makes:
            inside = inner(*letters[: len(inner.partials)], **params_of(inner))
            operands = [letters[2]] * len(outer.partials)
            operands[place] = inside
            yield outer(*operands, **params_of(outer))


VALUES = {"x": 0.3, "y": 0.7, "z": 0.47, "g": 0.8}


@pytest.mark.parametrize("style", ["latex", "code", "numpy"])
def test_an_expression_inside_an_op_keeps_its_parentheses(smooth, style):
    op = smooth
    if None in op.partials:  # a condition stands inside; conditions have brackets of their own
        return
    numbers = [cr.tensor(VALUES[c], dtype=cr.float64) for c in LETTERS]
    symbols = [cr.Tensor.symbolic(c, x.aval) for c, x in zip(LETTERS, numbers, strict=True)]
    around = KINDS if style != "latex" or op in KINDS else [op]
    for inner in {id(o): o for o in (*around, op)}.values():
        for expected, symbol in zip(nests(op, inner, numbers), nests(op, inner, symbols), strict=True):
            text = written(symbol, style)
            if not np.isfinite(expected.item()) or text is None:
                continue
            if style == "latex":
                found = float(
                    evaluated(parse_latex(readable(text)), {k: sympy.Float(repr(v), DIGITS) for k, v in VALUES.items()})
                )
            else:
                found = run(text, style, dict(zip(LETTERS, numbers, strict=True)))
            np.testing.assert_allclose(found, expected.item(), rtol=1e-12, atol=1e-12, err_msg=text)
