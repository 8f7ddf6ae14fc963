"""An explanation in LaTeX: the book's line, completed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chainrule.explain.derivation import latex_gradient

if TYPE_CHECKING:
    from chainrule.explain.explanation import Explanation


def explanation(e: Explanation) -> str:
    r"""The line \frac{∂loss}{∂w_1} = … \in \mathbb{R}^{100 \times 50}."""
    formula = e.combined if e.combined is not None else e.links[-1].formula
    if formula is None:
        return rf"{latex_gradient(e.name)} \in {space(e.value.shape)}"
    return rf"{latex_gradient(e.name)} = {e.derivation.written(formula, 'latex')} \in {space(e.value.shape)}"


def space(shape: tuple[int, ...]) -> str:
    """The space an array lives in."""
    sizes = r" \times ".join(map(str, shape))
    return rf"\mathbb{{R}}^{{{sizes}}}" if shape else r"\mathbb{R}"


def chain(e: Explanation) -> str:
    """The chain rule of this explanation, link by link."""
    names = [link.name for link in e.links]
    pairs = zip(["loss", *names], names, strict=False)
    return latex_gradient(e.name) + " = " + r" \cdot ".join(_ratio(a, b) for a, b in pairs)


def _ratio(above: str, below: str) -> str:
    if above == "loss":
        return latex_gradient(below)
    return latex_gradient(below).replace(r"\mathit{loss}", latex_gradient(above).split(r"{\partial ", 2)[2][:-1])
