"""How an op is written: in plain text, in LaTeX, as chainrule or PyTorch code, and as NumPy code.

A `Notation` carries a template for each and how tightly the result holds together; parentheses follow from that alone.
This module knows strings; which op wears which notation is said in the op's declaration.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Style = Literal["text", "latex", "code", "numpy"]

# How tightly an expression holds together, loosest first.
CHOICE, SUM, SIGN, PRODUCT, POWER, ATOM = range(6)

Template = str | Callable[..., str]


@dataclass(frozen=True, kw_only=True)
class Notation:
    """The written forms of one op.

    text, latex, code, numpy: templates; {0}, {1}, … are the inputs and {name} the op's params. A template may be a
        function of (input avals, params) that returns the template, where the form depends on them. `code` reads as
        chainrule and as PyTorch, whose names are the same. An empty template: the op has no such form.
    binds: how tightly the written result holds together.
    inside: an input that binds no tighter than this is put in parentheses.
    associative: an input made by the same op needs none: a + b + c.
    left: the first input may bind exactly as tightly: a - b - c reads from the left.
    """

    text: Template
    latex: Template
    code: Template
    numpy: Template = ""
    binds: int = ATOM
    inside: int = -1
    associative: bool = False
    left: bool = False
    # Code has fewer implicit brackets than mathematics: a fraction bar or a gate [..] groups in LaTeX, `/` in code
    # does not.
    binds_latex: int | None = None
    inside_latex: int | None = None
    binds_code: int | None = None
    inside_code: int | None = None

    def template(self, style: Style, avals: tuple[Any, ...], params: Mapping[str, Any]) -> str:
        """The template for this style, with inputs of these avals and these params."""
        template = getattr(self, style)
        return template if isinstance(template, str) else template(avals, params)

    def strength(self, style: Style) -> int:
        """How tightly the result holds together when written in this style."""
        override = {"latex": self.binds_latex, "code": self.binds_code, "numpy": self.binds_code}.get(style)
        return self.binds if override is None else override

    def threshold(self, style: Style) -> int:
        """An input that binds no tighter than this is put in parentheses."""
        override = {"latex": self.inside_latex, "code": self.inside_code, "numpy": self.inside_code}.get(style)
        return self.inside if override is None else override


def infix(symbol: str, latex: str, binds: int, *, code: str = "", associative: bool = False) -> Notation:
    """Written between its inputs: a + b."""
    python = code or symbol
    return Notation(
        text=f"{{0}} {symbol} {{1}}",
        latex=f"{{0}} {latex} {{1}}",
        code=f"{{0}} {python} {{1}}",
        numpy=f"{{0}} {python} {{1}}",
        binds=binds,
        inside=binds,
        associative=associative,
        left=True,
    )


def comparison(symbol: str, latex: str) -> Notation:
    """A condition: 1 where it holds, 0 where not. In mathematics it wears brackets: [x >= 0]."""
    return Notation(
        text=f"[{{0}} {symbol} {{1}}]",
        latex=rf"\mathbf{{{{1}}}}\left[{{0}} {latex} {{1}}\right]",
        code=f"({{0}} {symbol} {{1}})",
        numpy=f"({{0}} {symbol} {{1}})",
        inside_code=CHOICE,
    )


def function(name: str, *, latex: str = "", code: str = "", numpy: str = "") -> Notation:
    """Written as a call of one input: tanh(x). `numpy` is the NumPy template where it is not `np.name(x)`."""
    command = latex or rf"\operatorname{{{{{name}}}}}"
    return Notation(
        text=f"{name}({{0}})",
        latex=rf"{command}\left({{0}}\right)",
        code=code or f"{{0}}.{name}()",
        numpy=numpy or f"np.{name}({{0}})",
        inside_code=SIGN if code else POWER,
    )


def call(name: str, arguments: str, *, code: str, numpy: str = "") -> Notation:
    """Written as a call with parameters: sum(x, dim=0). `code` is the method call, `numpy` the NumPy call."""
    return Notation(
        text=f"{name}({{0}}{arguments})",
        latex=rf"\operatorname{{{{{name.replace('_', chr(92) + '_')}}}}}\left({{0}}{arguments}\right)",
        code=code,
        numpy=numpy,
        inside_code=POWER,
    )
