"""How temporaries lie in memory: around convolutions with the batch innermost, else row by row; for products, spread.

A convolution's windows overlap, and its images are narrow and of odd widths; its batch is long, and the same for every
loop around it. With the batch innermost, every load and store along it is a whole vector: in the products, and in the
activations, poolings and sums between them.

A product that sums over rows reads a short piece of each. Rows a multiple of `SPREAD` apart meet in few sets of the
caches, and push each other out; a line further apart, they do not.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from chainrule.compile.caches import LINE, PAGE
from chainrule.compile.kernels.access import Flat, Lowering, Where, is_free
from chainrule.compile.kernels.buffer import Buffer, row_major
from chainrule.compile.kernels.expression import Expr, Number
from chainrule.compile.kernels.group import Group, Places
from chainrule.core.affine import Affine
from chainrule.core.node import Node
from chainrule.ops import windows

SPREAD = PAGE // 4  # bytes: of rows a multiple of it apart, each piece is in one of four sets of a first cache
BATCH = 16  # examples in a batch from which on it is innermost: fewer do not fill a vector


def batch_innermost(groups: Sequence[Group], memory: Mapping[int, Buffer], flat: Collection[int]) -> dict[int, Buffer]:
    """Other buffers, by id of the node, for what is better kept with its first dimension innermost.

    flat: ids of nodes that are read as if they lay row by row: those stay.
    """
    convolutions = [g for g in groups if g.kind == "contract" and any(_slides(x, g) for x in g.seeds[0].inputs)]
    sizes = {n.aval.shape[0] for g in convolutions for n in g.loads.values() if n.aval.ndim > 2}
    sizes = {n for n in sizes if n >= BATCH}
    chosen: dict[int, Node] = {}

    def choose(group: Group) -> bool:
        new = [
            n for n in (*group.loads.values(), *group.placed)
            if n.aval.ndim > 2 and n.aval.shape[0] in sizes and id(n) not in chosen and id(n) not in flat
            and memory[id(n)].place == "arena"
        ]  # fmt: skip
        chosen.update((id(n), n) for n in new)
        return bool(new)

    for group in convolutions:
        choose(group)
    growing = True
    while growing:  # on to what reads or writes them entry by entry
        growing = False
        for group in groups:
            near = any(id(n) in chosen for n in (*group.loads.values(), *group.placed))
            if near and group.kind == "loops":
                growing = choose(group) or growing
    return {key: _turned(memory[key]) for key in chosen}


def better_turned(groups: Sequence[Group], places: Places) -> set[int]:
    """The ids of what convolutions store that is better kept with the batch innermost and copied to where it is wanted.

    That is so where the batch lies innermost in what they read, for which it has to be computed.
    """
    found: set[int] = set()
    for group in groups:
        if group.kind == "contract" and any(_slides(x, group) for x in group.seeds[0].inputs):
            batches = _batches(group)
            for node in group.placed:
                first = places[id(node)][0] if node.aval.ndim > 2 else None
                found |= {id(node)} if first in batches else set()
    return found


def _batches(group: Group) -> list[Affine]:
    """The loops over batches of a convolution: where it reads the first dimension of what is computed."""
    found: list[Affine] = []

    def leaf(x: Node, where: Where) -> Expr | None:
        if id(x) not in group.loads:
            return None
        is_long = x.op is not None and x.aval.ndim > 2 and x.aval.shape[0] >= BATCH
        if is_long and not isinstance(where, Flat) and isinstance(where[0], Affine):
            found.append(where[0])
        return Number(0, x.aval.dtype)

    lowering = Lowering(leaf, group.extents)
    for x, place in zip(group.seeds[0].inputs, group.operands(), strict=True):
        lowering.lowered(x, place)
    return [first for first in found if len(first.terms) == 1 and first.terms[0][0] < len(group.frame)]


def rows_spread(groups: Sequence[Group], memory: Mapping[int, Buffer], flat: Collection[int]) -> dict[int, Buffer]:
    """Other buffers, by id of the node, for what products read and whose rows lie a multiple of `SPREAD` apart.

    What is scattered stays as it is: threads share it by stretches that follow each other without a gap.
    """
    found: dict[int, Buffer] = {}
    kept = {id(n) for g in groups if g.kind == "scatter" for n in g.placed}.union(flat)
    for n in (n for g in groups if g.kind == "contract" for n in g.loads.values()):
        buffer, shape = memory[id(n)], n.aval.shape
        if buffer.place != "arena" or id(n) in kept or len(shape) < 2 or buffer.strides != row_major(shape):
            continue
        size = buffer.dtype.itemsize
        if shape[-1] * size % SPREAD == 0:
            wide = row_major((*shape[:-1], shape[-1] + LINE // size))
            found[id(n)] = replace(buffer, strides=wide)
    return found


def _slides(node: Node, group: Group) -> bool:
    """Are the entries of an operand windows that slide over something?"""
    while id(node) not in group.loads and is_free(node) and node.inputs:
        if node.op is windows.windows:
            return True
        node = node.inputs[0]
    return False


def _turned(buffer: Buffer) -> Buffer:
    batch, *rest = buffer.shape
    return replace(buffer, strides=(1, *(s * batch for s in row_major(tuple(rest)))))
