"""Trees: dicts, lists and tuples (named ones too) of leaves, as optree flattens them. Knows no tensor."""

from __future__ import annotations

from typing import Any

import optree

Spec = optree.PyTreeSpec


def flatten(tree: Any) -> tuple[list[Any], Spec]:
    """(leaves, structure) of a tree; None is a structure without leaves."""
    leaves, spec = optree.tree_flatten(tree)
    return leaves, spec


def rebuild(spec: Spec, leaves: list[Any]) -> Any:
    """The tree of this structure with these leaves."""
    return optree.tree_unflatten(spec, leaves)
