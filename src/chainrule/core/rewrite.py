"""Rewriting expressions: apply identities from the inputs up until none fits. Names no op."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from chainrule.core.node import Node, ancestors, tick

# An identity: a node in, an equal one out, or None where it does not fit.
Identity = Callable[[Any], Any]

_LIMIT = 200  # rewrites at one place; identities shrink expressions, so reaching it means two undo each other


def rewrite(root: Any, identities: Sequence[Identity], replace: Mapping[int, Any] | None = None) -> Any:
    """An expression equal to `root`, with every identity applied wherever it fits.

    replace: nodes to put in place of others, by id; what stands behind a replaced node is not looked at.
    """
    return _Rewriting(identities, replace or {}).of(root)


def rewrite_all(roots: Sequence[Any], identities: Sequence[Identity]) -> list[Any]:
    """`rewrite` of each, as one expression: what they share stays shared."""
    rewriting = _Rewriting(identities, {})
    return [rewriting.of(root) for root in roots]


class _Rewriting:
    """One rewriting: what each node came to, by id, and the nodes themselves, since ids are unique among the living."""

    def __init__(self, identities: Sequence[Identity], replace: Mapping[int, Any]) -> None:
        self.identities = identities
        self.done: dict[int, Any] = dict(replace)
        self.alive: list[Any] = []

    def of(self, root: Any) -> Any:
        # In the order they were made, inputs first: an expression may be deeper than Python's stack.
        for node in ancestors([root], lambda x: id(x) not in self.done):
            self._settle(node)
        return self.done[id(root)]

    def _settle(self, node: Node) -> None:
        began = tick()
        inputs = tuple(self.done[id(x)] for x in node.inputs)
        settled = (
            again(node, inputs) if any(new is not old for new, old in zip(inputs, node.inputs, strict=True)) else node
        )
        for _ in range(_LIMIT):
            found = next((f for identity in self.identities if (f := identity(settled)) is not None), None)
            if found is None:
                break
            # What an identity built may hold places, below its top, where others fit.
            for inner in found.inputs:
                if id(inner) not in self.done:
                    self.of(inner)
            inputs = tuple(self.done[id(x)] for x in found.inputs)
            changed = any(new is not old for new, old in zip(inputs, found.inputs, strict=True))
            self.alive.append(found)
            settled = again(found, inputs) if changed else found
        else:
            raise RuntimeError(f"rewrite: identities undo each other at {settled.op.name if settled.op else settled}")
        if node.trail is not None or node.scope is not None:
            carry(node, settled, began)
        self.alive += [node, settled]
        self.done[id(node)] = self.done[id(settled)] = settled


def carry(old: Node, new: Node, began: int) -> None:
    """What was made for `old`, since `began`, comes from where `old` came from in the user's program."""
    pending = [new]
    while pending:
        node = pending.pop()
        if node.made > began and node.trail is None and node.scope is None:
            node.trail, node.scope = old.trail, old.scope
            pending += node.inputs


def again(node: Any, inputs: tuple[Any, ...]) -> Any:
    """The same op over other inputs, as an expression: never evaluated, so that numbers stay as they are written."""
    op, params = node.op, node.params
    new = type(node).applied(op, inputs, params, op.infer(*[x.aval for x in inputs], **params))
    new.trail, new.scope = node.trail, node.scope
    return new
