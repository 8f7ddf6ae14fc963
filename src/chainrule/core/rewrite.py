"""Rewriting expressions: apply identities from the inputs up until none fits. Names no op."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from chainrule.core.node import Node, ancestors

# An identity: a node in, an equal one out, or None where it does not fit.
Identity = Callable[[Any], Any]

_LIMIT = 100  # rewrites at one node; identities shrink expressions, so reaching it means two undo each other


def rewrite(root: Any, identities: Sequence[Identity], replace: Mapping[int, Any] | None = None) -> Any:
    """An expression equal to `root`, with every identity applied wherever it fits.

    replace: nodes to put in place of others, by id; what stands behind a replaced node is not looked at.
    """
    done: dict[int, Any] = dict(replace or {})
    kept: list[Any] = []  # ids are only unique among the living
    for node in ancestors([root], lambda x: id(x) not in done):
        rebuilt = node
        if node.op is not None:
            inputs = tuple(done.get(id(x), x) for x in node.inputs)
            if any(new is not old for new, old in zip(inputs, node.inputs, strict=True)):
                rebuilt = _again(node, inputs)
        done[id(node)] = _settled(rebuilt, identities)
        kept.append(done[id(node)])
    return done.get(id(root), root)


def _settled(node: Node, identities: Sequence[Identity]) -> Any:
    for _ in range(_LIMIT):
        for identity in identities:
            found = identity(node)
            if found is not None:
                # What an identity built may hold places where others fit.
                node = _rebuilt(found, identities) if found.op is not None else found
                break
        else:
            return node
    raise RuntimeError(f"rewrite: identities undo each other at {node.op.name if node.op else node}")


def _rebuilt(node: Any, identities: Sequence[Identity]) -> Any:
    inputs = tuple(_settled(x, identities) if x.op is not None else x for x in node.inputs)
    if all(new is old for new, old in zip(inputs, node.inputs, strict=True)):
        return node
    return _again(node, inputs)


def _again(node: Any, inputs: tuple[Any, ...]) -> Any:
    """The same op over other inputs, as an expression: never evaluated, so that numbers stay what they are written as."""
    return type(node).applied(node.op, inputs, node.params, node.op.infer(*(x.aval for x in inputs), **node.params))
