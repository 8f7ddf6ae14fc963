"""How a value's name is spelled where it cannot stand as the user wrote it: in LaTeX and in Python code."""

from __future__ import annotations


def latex_name(name: str) -> str:
    r"""w1 as w_{1}, out as \mathit{out}, encoder.0.weight with its dots."""
    stem = name.rstrip("0123456789")
    index = name[len(stem) :]
    if not stem or not stem.isalpha():
        return rf"\mathit{{{name.replace('_', chr(92) + '_')}}}"
    body = stem if len(stem) == 1 else rf"\mathit{{{stem}}}"
    return f"{body}_{{{index}}}" if index else body


def latex_gradient(name: str, loss: str = "loss") -> str:
    """The gradient of the loss with respect to a value, as the book writes it."""
    return rf"\frac{{\partial {latex_name(loss)}}}{{\partial {latex_name(name)}}}"


def python_name(name: str) -> str:
    """A name that Python takes: out.g as out_g, 0.weight as p0_weight."""
    plain = "".join(c if c.isalnum() or c == "_" else "_" for c in name)
    return f"p{plain}" if plain[:1].isdigit() else plain
