"""Reads a formula the way a person does, from the printed text alone, and says what number it is.

Knows the grammar of the text (sums, products, powers, `x^T`, `[c]` gates, `|x|`, `2 x` for a product) and nothing of
the library's printing. What text leaves out, such as whether a reduced dimension is kept, may be read in every way that
the formula's own ops allow; one reading has to give the value.
"""

import itertools
import re
from functools import partial

import numpy as np

from chainrule.core.node import ancestors, compute
from chainrule.ops import catalogue

OPS = {op.name: op for op in catalogue.CATALOGUE}
TOKEN = re.compile(r"\s*(?:(?P<number>\d+\.?\d*(?:e[-+]?\d+)?)|(?P<word>[A-Za-z_]\w*)|(?P<sign>>=|<=|==|!=|//|…|.))")
MOST = 24  # readings of one expression kept


class Unreadable(Exception):
    """The text is not a formula."""


class Reader:
    """Reads one text: `names` are the values that it may mention."""

    def __init__(self, text, names):
        self.tokens = list(_tokens(text, names))
        self.at = 0

    def whole(self):
        tree = self.sum()
        if self.at != len(self.tokens):
            raise Unreadable(f"left over: {self.tokens[self.at :]}")
        return tree

    def peek(self, offset=0):
        return self.tokens[self.at + offset] if self.at + offset < len(self.tokens) else ("end", "", False)

    def take(self, wanted=None):
        text = self.peek()[1]
        if wanted is not None and text != wanted:
            raise Unreadable(f"expected {wanted!r}, found {text!r} at {self.at} of {self.tokens}")
        self.at += 1
        return text

    def sum(self):
        left = self.product()
        while self.peek()[1] in ("+", "-") and self.peek()[0] == "sign":
            sign = self.take()
            left = (sign, left, self.product())
        return left

    def product(self):
        left = self.unary()
        while True:
            kind, text, _ = self.peek()
            if kind == "sign" and text in ("*", "/", "@", "//"):
                self.take()
                left = (text, left, self.unary())
            elif kind == "word" and text == "mod":
                self.take()
                left = ("mod", left, self.unary())
            elif (left[0] in ("number", "*", "/") or (left[0] == "neg" and left[1][0] == "number")) and (
                (kind in ("name", "word") and text not in ("at", "of")) or text in ("(", "[")
            ):
                left = ("*", left, self.unary())  # 2 x
            else:
                return left

    def unary(self):
        if self.peek()[1] == "-":
            self.take()
            return ("neg", self.unary())
        if self.peek()[1] == "not":
            self.take()
            return ("not", self.unary())
        return self.power()

    def power(self):
        base = self.postfix()
        while self.peek()[1] == "^":
            self.take()
            if self.peek()[1] == "T":
                self.take()
                base = ("T", base)
            else:
                base = ("^", base, self.postfix())
        return base

    def postfix(self):
        x = self.atom()
        while self.peek()[1] == "[" and not self.peek()[2]:  # an index stands close: x[0], a gate apart: 2 [x > 0]
            self.take()
            x = ("index", x, self.index())
        return x

    def index(self):
        parts, part = [], []
        depth = 0
        while True:
            kind, text, _ = self.peek()
            if kind == "end":
                raise Unreadable("an index without an end")
            if text == "]" and depth == 0:
                parts.append(tuple(part))
                self.take()
                return tuple(parts)
            if text == "," and depth == 0:
                parts.append(tuple(part))
                part = []
            else:
                depth += (text in "[(") - (text in "])")
                part.append((kind, text))
            self.at += 1

    def atom(self):
        kind, text, _ = self.peek()
        if kind == "number":
            self.take()
            return ("number", float(text))
        if kind == "name":
            self.take()
            return ("name", text)
        return self._call() if kind == "word" else self._bracketed(text)

    def _call(self):
        text = self.take()
        if text in ("True", "False", "inf", "nan"):
            return ("number", float(eval(text, {"inf": np.inf, "nan": np.nan})))
        self.take("(")
        return ("call", text, self.arguments())

    def _bracketed(self, text):
        if text == "(":
            self.take()
            if self._tuple_ahead():
                return ("tuple", self._tuple(")"))
            return self.conditions(")")
        if text == "[":
            self.take()
            if self.peek()[1] in ("nan", "inf", "finite"):
                return self._classified()
            inner = self.conditions("]")
            return ("gate", inner)
        if text == "|":
            self.take()
            inner = self.sum()
            self.take("|")
            return ("call", "abs", [inner])
        raise Unreadable(f"did not expect {text!r} at {self.at} of {self.tokens}")

    def _classified(self):
        word = self.take()
        inner = self.sum()
        self.take("]")
        return ("call", f"is{word}", [inner])

    def _tuple_ahead(self):
        at = self.at
        while self.tokens[at][0] == "number" and self.tokens[at + 1][1] == ",":
            if self.tokens[at + 2][1] == ")":
                return True
            at += 2
        return at > self.at and self.tokens[at][0] == "number" and self.tokens[at + 1][1] == ")"

    def _tuple(self, closing):
        numbers = []
        while self.peek()[1] != closing:
            numbers.append(int(self.take()))
            if self.peek()[1] == ",":
                self.take()
        self.take(closing)
        return tuple(numbers)

    def conditions(self, closing):
        left = self.sum()
        while self.peek()[1] in (">=", "<=", ">", "<", "==", "!=", "&", "|"):
            sign = self.take()
            left = (sign, left, self.sum())
        self.take(closing)
        return left

    def arguments(self):
        found = []
        while self.peek()[1] != ")":
            kind, text, _ = self.peek()
            if kind == "word" and text in ("rows", "columns"):
                self.take()
                found.append(("dims", (0,) if text == "rows" else (1,)))
            elif kind == "word" and text == "dim":
                self.take()
                if self.peek()[1] == "=":
                    self.take()
                dims = [int(self.take())]
                while self.peek()[1] == "," and self.peek(1)[0] == "number" and not self.peek(1)[2]:
                    self.take()
                    dims.append(int(self.take()))
                found.append(("dims", tuple(dims)))
            else:
                found.append(self.sum())
            if self.peek()[1] == "at":
                self.take()
                self.take("[")
                place = self.index()
                self.take("of")
                self.take("(")
                found.append(("place", place, self._tuple(")")))
            if self.peek()[1] == ",":
                self.take()
        self.take(")")
        return found


def _tokens(text, names):
    at = 0
    longest_first = sorted(names, key=len, reverse=True)
    while at < len(text):
        spaced = text[at] == " "
        rest = text[at:].lstrip()
        if not rest:
            return
        at = len(text) - len(rest)
        name = next(
            (n for n in longest_first if rest.startswith(n) and not re.match(r"\w", rest[len(n) :][:1] or " ")), None
        )
        called = name is not None and rest[len(name) :][:1] == "("
        transposed = text[max(at - 1, 0)] == "^" and name == "T"
        if name is not None and not called and not transposed:
            yield "name", name, spaced
            at += len(name)
            continue
        found = TOKEN.match(text, at)
        kind = found.lastgroup
        yield kind, found[kind], spaced
        at = found.end()


# --- values


def readings(text, formula, values):
    """Every value that the text may be read as; `values` by name."""
    tree = Reader(text, values).whole()
    params = {}
    for node in ancestors([formula]):
        if node.op is not None:
            options = params.setdefault(node.op.name, [])
            if dict(node.params) not in options:
                options.append(dict(node.params))
    return _values(tree, values, params)


class _Misread(Exception):
    """This choice of what the text leaves out contradicts what it says."""


def _distinct(candidates):
    """The candidates that do not raise, each once."""
    found = {}
    for candidate in candidates:
        try:
            value = candidate()
        except (ValueError, IndexError, TypeError, KeyError, np.exceptions.AxisError, _Misread):
            continue
        key = (value.shape, np.round(value.astype(np.float64), 9).tobytes()) if isinstance(value, np.ndarray) else value
        found.setdefault(key, value)
        if len(found) > MOST:
            break
    return list(found.values())


FROM_TEXT = {"squeeze": "reshape", "onehot": "one_hot", "max": "max", "min": "min"}
INFIX = {
    "+": np.add, "-": np.subtract, "*": np.multiply, "/": np.true_divide, "@": np.matmul, "^": np.power,
    "mod": np.remainder, "//": np.floor_divide, ">=": np.greater_equal, "<=": np.less_equal, ">": np.greater,
    "<": np.less, "==": np.equal, "!=": np.not_equal, "&": np.logical_and, "|": np.logical_or,
}  # fmt: skip
PLAIN = {
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)), "relu": lambda x: np.maximum(x, 0), "max": np.maximum,
    "min": np.minimum, "clamp": np.clip, "where": np.where, "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan,
    "atan2": np.arctan2, "asinh": np.arcsinh, "acosh": np.arccosh, "atanh": np.arctanh, "full": np.full,
    "erf": lambda x: OPS["erf"].reference(np.asarray(x)), "Cube": lambda x: x**3,
}  # fmt: skip
NUMPY = {
    "sin", "cos", "tan", "sinh", "cosh", "tanh", "exp", "log", "sqrt", "sign", "abs", "log2", "log10", "floor", "ceil",
    "round", "trunc",
}  # fmt: skip
REDUCTIONS = ("sum", "mean", "amax", "amin", "var", "logsumexp", "norm")


def _values(tree, values, params):
    """The values that a tree may have."""
    kind = tree[0]
    if kind == "number":
        return [np.float64(tree[1])]
    if kind == "name":
        return [values[tree[1]]]
    if kind == "tuple":
        return [tree[1]]
    if kind in ("dims", "place"):
        return [tree]
    if kind == "call":
        arguments = list(itertools.product(*(_values(x, values, params) for x in tree[2])))
        options = params.get(FROM_TEXT.get(tree[1], tree[1]), [{}])
        return _distinct(partial(_called, tree[1], list(a), o) for a in arguments for o in options)
    inner = _values(tree[1], values, params)
    if kind in ONE:
        return _distinct(partial(ONE[kind], x) for x in inner)
    if kind == "index":
        return _distinct(partial(lambda x, i: np.asarray(x[i]), x, _index(tree[2], values)) for x in inner)
    return _distinct(
        partial(_joined, kind, x, y) for x, y in itertools.product(inner, _values(tree[2], values, params))
    )


ONE = {
    "neg": np.negative, "not": np.logical_not, "gate": np.asarray, "T": lambda x: np.swapaxes(x, -1, -2),
}  # fmt: skip


def _joined(kind, left, right):
    left, right = (x.astype(np.float64) if kind in "*/+-" and x.dtype == bool else x for x in (left, right))
    return np.asarray(INFIX[kind](left, right))


def _index(parts, values):
    found = []
    for part in parts:
        text = "".join(t for _, t in part)
        if len(part) == 1 and part[0][0] == "name":
            found.append(values[text])
        elif ":" in text:
            found.append(slice(*(int(p) if p else None for p in text.split(":"))))
        else:
            found.append({"None": None, "...": ...}[text] if not re.fullmatch(r"-?\d+", text) else int(text))
    return tuple(found)


def _called(name, arguments, params):
    if name in PLAIN or name in NUMPY:
        return np.asarray((PLAIN.get(name) or getattr(np, name))(*arguments))
    if name == "embed":
        _, place, shape = arguments[1]
        whole = np.zeros(shape)
        whole[_index(place, {})] = arguments[0]
        return whole
    op = OPS.get(FROM_TEXT.get(name, name))
    if op is None:
        raise Unreadable(f"no function {name}")
    arrays, said = _sorted(name, arguments)
    if not all(_fits(word, params) for word in said):
        raise _Misread
    if name in REDUCTIONS and not said and len(params["dim"]) != arrays[0].ndim:
        raise _Misread
    if name == "squeeze" and arrays[0].size != int(np.prod(params["shape"])):
        raise _Misread
    arrays = [x.astype(np.float64) if x.dtype == bool else x for x in arrays]
    return np.asarray(compute(op, arrays, {k: v if k != "dtype" else np.dtype("float64") for k, v in params.items()}))


def _sorted(name, arguments):
    """(the arrays, what else is said) of the arguments of a call."""
    if name in ("gather", "scatter_add"):
        x, dim, index = arguments
        return [np.asarray(x), index if isinstance(index, np.ndarray) else np.asarray(int(index))], [dim]
    count = next((i for i, x in enumerate(arguments) if not isinstance(x, np.ndarray)), len(arguments))
    return arguments[:count], arguments[count:]


def _fits(word, params):
    """Do an op's parameters hold what the text says of them?"""
    if isinstance(word, tuple) and word and word[0] == "dims":
        stated = params.get("dim")
        return (stated if isinstance(stated, tuple) else (stated,)) == word[1]
    if isinstance(word, tuple):
        return word in [tuple(v) for v in params.values() if isinstance(v, tuple)]
    return int(word) in [v for p in params.values() for v in (p if isinstance(p, tuple) else (p,))]
