"""The loops of a product of matrices: over what its rows, columns and sums were joined from, and are taken apart into.

A convolution is a product of windows that were joined into a matrix. Its loops run over images, places and offsets, so
that no position is found by a division. Knows products and the reshapes around them; refuses to know what else may be
computed in those loops (`homes.py`).
"""

from __future__ import annotations

import math
from collections.abc import Collection
from itertools import pairwise

from chainrule.compile.kernels.access import is_move, segments
from chainrule.compile.kernels.group import Group
from chainrule.core.node import Node
from chainrule.ops import movement


def product_group(number: int, node: Node, readers: Collection[Node]) -> Group:
    """A group, of this number, for a product. readers: who reads it."""
    x, y = node.inputs
    lead = len(node.aval.shape) - 2
    rows = _refined(_origins(x, lead), _destinations(node, lead, readers))
    columns = _refined(_origins(y, lead + 1), _destinations(node, lead + 1, readers))
    return Group(
        "contract", number, (*node.aval.shape[:-2], *rows, *columns),
        rows=tuple(range(lead, lead + len(rows))),
        columns=tuple(range(lead + len(rows), lead + len(rows) + len(columns))),
        summed=_refined(_origins(x, lead + 1), _origins(y, lead)),
    )  # fmt: skip


def _destinations(node: Node, dim: int, readers: Collection[Node]) -> tuple[int, ...]:
    """The sizes that a dimension of a product is taken apart into by those who read it."""
    shape = node.aval.shape
    found: tuple[int, ...] = (shape[dim],)
    for reader in readers:
        if reader.op is movement.reshape:
            for held, made in segments(shape, reader.aval.shape):
                if held == [dim]:
                    found = _refined(found, tuple(reader.aval.shape[d] for d in made))
    return found


def _origins(node: Node, dim: int) -> tuple[int, ...]:
    """The sizes that a dimension was joined from by reshapes, as far as nothing is computed between."""
    while node.op is not None and is_move(node) and node.op is not movement.cat:
        if node.op is movement.permute:
            dim = node.params["dims"][dim]
        elif node.op is movement.reshape:
            (x,), after = node.inputs, node.aval.shape
            held = next((held for held, made in segments(x.aval.shape, after) if made[-1] == dim), None)
            if held is None:
                break
            return _last_of(tuple(size for d in held for size in _origins(x, d)), after[dim])
        else:
            break
        node = node.inputs[0]
    return (node.aval.shape[dim],)


def _last_of(sizes: tuple[int, ...], count: int) -> tuple[int, ...]:
    """Of the entries that are counted along these sizes, the sizes of a run of so many: the last, and a part of one."""
    found: tuple[int, ...] = ()
    for size in reversed(sizes):
        if count % size:
            return (count, *found) if size % count == 0 else (math.prod(found) * count,)
        found, count = (size, *found), count // size
        if count == 1:
            break
    return found


def _refined(first: tuple[int, ...], second: tuple[int, ...]) -> tuple[int, ...]:
    """Sizes that both ways of joining one dimension can be joined from; the dimension itself if there are none."""
    cuts = {math.prod(sizes[i:]) for sizes in (first, second) for i in range(len(sizes) + 1)}
    ordered = sorted(cuts, reverse=True)
    if any(big % small for big, small in pairwise(ordered)):
        return (math.prod(first),)
    return tuple(big // small for big, small in pairwise(ordered)) or (1,)
