"""Why no gradient arrives: the link between an output and a tensor that is broken, and where it broke."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from chainrule.core.node import Node
from chainrule.core.provenance import user_place


def _behind(node: Node) -> Iterator[Node]:
    """What a value was made from, across broken links as far as those values still exist."""
    yield from node.inputs
    if node.cut is not None:
        for source in node.cut.sources:
            found = source()
            if found is not None:
                yield found


def _reachable(root: Node) -> list[Node]:
    seen: dict[int, Node] = {}
    pending = [root]
    while pending:
        node = pending.pop()
        if id(node) not in seen:
            seen[id(node)] = node
            pending.extend(_behind(node))
    return list(seen.values())


def _said(node: Node) -> str:
    assert node.cut is not None
    where = user_place(node.trail)
    return f"{node.cut.reason}" + (f", at {where}: {where.text}" if where is not None else "")


def no_gradient_reason(root: Node) -> str:
    """What to tell someone who called backward() on a tensor that does not require a gradient."""
    cuts = [x for x in _reachable(root) if x.cut is not None]
    opening = f"backward: {root.aval} does not depend on any tensor that requires a gradient"
    if not cuts:
        return (
            f"{opening}; create the weights with requires_grad=True, "
            f"or call .requires_grad_() on them before the forward pass"
        )
    return f"{opening}; the link is broken here: {_said(cuts[0])}"


def broken_link(root: Node, wrt: Any, name: str) -> str:
    """Why `root` has no gradient with respect to `wrt`."""
    opening = f"the loss does not depend on {name}, so its gradient is None"
    if not wrt.requires_grad and wrt.op is None:
        return f"{opening}: {name} does not require a gradient; call .requires_grad_() on it before the forward pass"
    for node in _reachable(root):
        if node.cut is not None and any(
            wrt in _Identity(_reachable(found)) for s in node.cut.sources if (found := s()) is not None
        ):
            return f"{opening}: the link is broken here: {_said(node)}"
    # A link to a value that is gone may have led to `wrt`, or not: nobody can say any more.
    lost = [x for x in _reachable(root) if x.cut is not None and any(s() is None for s in x.cut.sources)]
    unless = f", unless through the link that is broken here: {_said(lost[0])}" if lost else ""
    return f"{opening}: {name} was not used to compute it{unless}"


class _Identity:
    """Membership by identity: tensors compare entry by entry."""

    def __init__(self, nodes: list[Node]) -> None:
        self._ids = {id(x) for x in nodes}

    def __contains__(self, node: object) -> bool:
        return id(node) in self._ids
