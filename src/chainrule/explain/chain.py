"""The chain rule of one gradient, as the page writes it: a product of fractions where the program is a chain.

Where paths branch and meet, no single product is true: what is printed then is the sum over the values that the
gradient comes back through, each with its own factor.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from chainrule.core.node import Node
from chainrule.explain.derivation import Derivation, Link, Step

if TYPE_CHECKING:
    from chainrule.explain.explanation import Explanation

_LONGEST = 7  # fractions in a row
_MOST_TERMS = 3  # products in a sum


def successors(link: Link) -> list[Node]:
    """The values whose gradients a link's gradient is made from: what the steps that used it gave."""
    return list({id(x): x for part in link.parts for x in part.through}.values())


def is_chain(derivation: Derivation, links: Sequence[Link]) -> bool:
    """Does each link follow from the one before alone, so that the gradient is one product?"""
    above = [derivation.run.loss, *(link.node for link in links)]
    return all([id(x)] == [id(y) for y in successors(link)] for x, link in zip(above, links, strict=False))


def gain(derivation: Derivation, link: Link) -> float | None:
    """How much longer the gradient became over this link; None where it came back over several."""
    sources = successors(link)
    if len(sources) != 1 or sources[0] is derivation.run.loss:
        return None
    before = derivation.link(sources[0]).norm
    return link.norm / before if before else None


def step_name(step: Step) -> str:
    """What a step is called in a row: its function or module, or the variable that its statement assigns."""
    fold = step.fold
    if fold.kind != "statement":
        return fold.name
    assigned = re.match(r"(return|[\w.]+)\s*(=[^=]|\b(?<=return))", fold.name)
    return assigned.group(1) if assigned else fold.name[:24]


MEETING = "paths meet on the way: what comes back over each is added, link by link, below"


def chain(e: Explanation) -> list[str]:
    """The chain rule in the explanation's notation, as lines of text."""
    if not is_chain(e.derivation, e.links):
        return _sum_of_products(e)
    return [_composition(e)] if e.notation == "composition" else _product(e)


def _product(e: Explanation) -> list[str]:
    names = [e.loss_name, *(link.name for link in e.links)]
    cells = [_fraction(names[0], names[-1]), *(_fraction(a, b) for a, b in pairwise(names))]
    if len(cells) > _LONGEST:
        cells = [*cells[: _LONGEST - 2], ("   ", "...", "   "), *cells[-2:]]
    return _side_by_side(cells, ["  =  ", *["  .  "] * (len(cells) - 2)])


def _sum_of_products(e: Explanation) -> list[str]:
    """dloss/dw = dloss/da . da/dw + dloss/db . db/dw."""
    d, last = e.derivation, e.links[-1]
    cells, joints = [_fraction(e.loss_name, e.name)], ["  =  "]
    through = successors(last)
    for node in through[:_MOST_TERMS]:
        if node is d.run.loss:
            cells.append(_fraction(e.loss_name, e.name, direct=True))
        else:
            cells += [_fraction(e.loss_name, d.name(node)), _fraction(d.name(node), e.name)]
            joints.append("  .  ")
        joints.append("  +  ")
    joints.pop()
    rows = _side_by_side(cells, joints)
    if len(through) > _MOST_TERMS:
        rows[1] += f"  +  {len(through) - _MOST_TERMS} more"
    return rows


def _composition(e: Explanation) -> str:
    """(mse o lin o relu o lin)'(w1) = mse'(out) . lin'(l2) . relu'(l1) . lin'(w1)."""
    steps = [step_name(link.parts[0].step) if link.parts else "?" for link in e.links]
    factors = [f"{step}'({link.name})" for step, link in zip(steps, e.links, strict=True)]
    return f"({' o '.join(steps)})'({e.name})  =  {' . '.join(factors)}"


def _fraction(above: str, below: str, *, direct: bool = False) -> tuple[str, str, str]:
    top, bottom = f"d{above}", f"d{below}" + (" directly" if direct else "")
    width = max(len(top), len(bottom))
    return top.center(width), "-" * width, bottom.center(width)


def _side_by_side(cells: Sequence[tuple[str, str, str]], joints: Sequence[str]) -> list[str]:
    rows = []
    for line in range(3):
        text = cells[0][line]
        for joint, cell in zip(joints, cells[1:], strict=True):
            text += (joint if line == 1 else " " * len(joint)) + cell[line]
        rows.append(text)
    return rows
