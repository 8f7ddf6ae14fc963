"""An explanation in LaTeX: the book's line, completed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chainrule.explain.spelling import latex_gradient

if TYPE_CHECKING:
    from chainrule.explain.explanation import Explanation


def explanation(e: Explanation) -> str:
    r"""The line \frac{∂loss}{∂w_1} = … \in \mathbb{R}^{100 \times 50}."""
    formula = e.combined if e.combined is not None else e.links[-1].formula
    gradient, lives_in = latex_gradient(e.name, e.loss_name), space(e.value.shape)
    if formula is None:
        return rf"{gradient} \in {lives_in}"
    return rf"{gradient} = {e.derivation.written(formula, 'latex')} \in {lives_in}"


def space(shape: tuple[int, ...]) -> str:
    """The space an array lives in."""
    sizes = r" \times ".join(map(str, shape))
    return rf"\mathbb{{R}}^{{{sizes}}}" if shape else r"\mathbb{R}"


def chain(e: Explanation) -> str:
    """The chain rule of this explanation, link by link."""
    names = [link.name for link in e.links]
    links = zip([e.loss_name, *names], names, strict=False)
    return latex_gradient(e.name, e.loss_name) + " = " + r" \cdot ".join(latex_gradient(b, a) for a, b in links)
