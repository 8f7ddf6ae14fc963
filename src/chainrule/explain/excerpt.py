"""One link of the backward pass as Python that runs beside the user's own variables, and asserts what it computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from chainrule.core.node import ancestors
from chainrule.explain.derivation import Derivation, Link
from chainrule.explain.spelling import python_name

# Links further up are asked for instead of written out: code that is copied is code that is read.
_LONGEST = 12


class Excerpt:
    """Writes the code of links of one derivation, everything above them that they need included."""

    def __init__(self, derivation: Derivation, links: Sequence[Link]) -> None:
        self.derivation = derivation
        self._links: Mapping[int, Link] = {id(link.node): link for link in links}
        self._order = {id(link.node): place for place, link in enumerate(links)}
        self._known = set(derivation.run.held)

    def of(self, link: Link) -> str | None:
        """The code of a link; None where its rule has no form as code."""
        try:
            lines = self._backward(link)
        except LookupError:
            return None
        result = python_name(f"{link.name}.g")
        head = ["import numpy as np", "import chainrule as cr", "", "with cr.no_grad():"]
        return "\n".join([*head, *(f"    {line}" for line in lines), *self._assertion(link, result)])

    def _assertion(self, link: Link, result: str) -> list[str]:
        if self.derivation.run.name(link.node) is None:
            return [f"# {link.name} has no name in the program: the next links are asserted on what follows from it"]
        return [
            f"expected = cr.explain({self._loss()}, wrt={self.wrt(link)}).value",
            f"assert np.allclose({result}, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())",
        ]

    def wrt(self, link: Link) -> str:
        """A link's value as `cr.explain` is given it: the variable, or its name as a string."""
        return link.name if id(link.node) in self._known else repr(link.name)

    def _loss(self) -> str:
        name = self.derivation.name(self.derivation.run.loss)
        return name if name.isidentifier() else "loss"

    def _backward(self, last: Link) -> list[str]:
        """The links that `last` needs, from the loss down, each as one assignment."""
        needed: dict[int, Link] = {}
        pending = [last]
        while pending:
            link = pending.pop()
            if id(link.node) in needed:
                continue
            needed[id(link.node)] = link
            pending += [self._links[id(x)] for x in self.derivation.upstream(link.node) if id(x) in self._links]
        chosen = sorted(needed.values(), key=lambda x: self._order[id(x.node)])
        asked, written = chosen[:-_LONGEST], chosen[-_LONGEST:]
        lines: list[str] = []
        defined: set[int] = set()
        above = {id(x) for link in written for x in self.derivation.upstream(link.node)}
        lines += [self._asked_for(link) for link in asked if id(link.node) in above]
        for link in written:
            self._forward(link.formula, lines, defined)
            lines.append(f"{python_name(f'{link.name}.g')} = {self._code(link.formula)}")
        return lines

    def _asked_for(self, link: Link) -> str:
        return f"{python_name(f'{link.name}.g')} = cr.tensor(cr.explain({self._loss()}, wrt={link.name!r}).value)"

    def _code(self, expression: Any | None) -> str:
        if expression is None:
            raise LookupError("a rule without a formula")
        return self.derivation.written(expression, "code")

    def _forward(self, expression: Any, lines: list[str], defined: set[int]) -> None:
        """Define the values that an expression reads and that no variable of the user holds."""
        d = self.derivation
        if expression is None:
            return
        for symbol in ancestors([expression]):
            node = d.meaning(symbol)
            if symbol.op is not None or node is None or d.is_cotangent(symbol) or symbol.constant is not None:
                continue
            if id(node) in self._known or id(node) in defined:
                continue
            defined.add(id(node))
            name, step = python_name(d.name(node)), d.producer(node)
            if step is None:
                lines.append(f"# {name} is {d.name(node)}, {node.aval}: put your own tensor here")
                continue
            value = d.simplified(step.twins[id(node)])
            self._forward(value, lines, defined)
            lines.append(f"{name} = {self._code(value)}")
