"""The gradient of what a convolution reads: a product of windows, as the convolution itself is.

A rule states it as windows that are added up, each of them the product of a gradient and the filters. That array of
windows is many times as large as the result. Seen from the result, each entry is a sum over the windows it stands in.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from chainrule.compile.passes.arrangement import Arrangement, Part, Parts, arrangement
from chainrule.compile.passes.rewriting import walked
from chainrule.compile.program import Program
from chainrule.core.node import Node
from chainrule.ops import contraction, movement, windows

# How many times the work the product may be: around a few windows there is a wide border, where zeros are multiplied.
_MOST = 4


def overlap_of_product(program: Program) -> Program:
    """Σ over windows of (g W), added where they overlap, = windows(g with zeros around) · W turned around.

    For windows that stand side by side at every position. What is cut off the result is not computed. Where an entry of
    W is inf or nan, zeros that are multiplied (`kernels/limits.py` leaves out some) make nan of it, as those around a
    padded input do in the convolution.
    """
    if not any(node.op is windows.overlap_add for node in program.nodes):
        return program
    readers = Counter(id(x) for node in program.nodes for x in node.inputs)
    readers.update(map(id, program.roots))
    cut = {
        id(node.inputs[0])
        for node in program.nodes
        if node.op is movement.slice_
        and node.inputs[0].op is windows.overlap_add
        and readers[id(node.inputs[0])] == 1
        and all(step == 1 for _, _, step in node.params["window"])
    }

    def read_once(node: Node) -> bool:
        """Is the product read nowhere else?"""
        while readers[id(node)] == 1 and node.op in (movement.reshape, movement.permute):
            (node,) = node.inputs
        return readers[id(node)] == 1

    def product(node: Node, inputs: tuple[Node, ...]) -> Any:
        if node.op is windows.overlap_add and id(node) not in cut:
            window = tuple((0, n, 1) for n in node.aval.shape)
            return _added(inputs[0], node.params, window) if read_once(node.inputs[0]) else None
        if node.op is movement.slice_ and id(node.inputs[0]) in cut and node.aval.size:
            added = node.inputs[0]
            if inputs[0].op is added.op and read_once(added.inputs[0]):
                return _added(inputs[0].inputs[0], added.params, node.params["window"])
        return None

    return walked(program, product)


def _added(x: Any, params: Mapping[str, Any], window: tuple[tuple[int, int, int], ...]) -> Any:
    """A window of the sum of what overlaps in `x`; None if that is no product, or better added up as it is."""
    size, dilation = params["size"], params["dilation"]
    rank = len(size)
    lead = x.aval.ndim - 2 * rank
    counts = x.aval.shape[lead : lead + rank]
    if math.prod(counts) == 1:
        return _alone(x, params, window)
    within = window[lead:]
    positions = tuple(stop - start for start, stop, _ in within)
    if set(params["stride"]) != {1} or math.prod(positions) > _MOST * math.prod(counts):
        return None
    found = arrangement(x)
    if found.source.op is not contraction.matmul or not x.aval.size:
        return None
    kinds = _kinds(found, lead, rank)
    if kinds is None:
        return None
    batch, rows, columns = ([d for d in range(lead) if kinds[d] == kind] for kind in _KINDS)
    matrices = found.source.inputs
    inner = matrices[0].aval.shape[-1]

    # Gradients: (batch, rows, inner, where windows stand), with zeros where none does.
    last = found.source.aval.ndim - 1
    dims = [found.dims[d] for d in (*batch, *rows)]
    kept = tuple([x.aval.shape[d] for d in (*batch, *rows)])
    gradient = Arrangement(matrices[0], (*dims, _one(last, inner), *found.dims[lead : lead + rank])).built()
    gradient = _surrounded(gradient, counts, within, [(n - 1) * step for n, step in zip(size, dilation, strict=True)])
    seen = windows.windows(gradient, size=size, stride=(1,) * rank, dilation=dilation)
    first = len(kept)
    order = (*range(first), *range(first + 1, first + 1 + rank), first, *range(first + 1 + rank, first + 1 + 2 * rank))
    seen = movement.permute(seen, dims=order)

    # Filters: (batch, inner, size, columns), turned around.
    dims = [found.dims[d] for d in batch]
    filters = Arrangement(
        matrices[1], (*dims, _one(last - 1, inner), *found.dims[lead + rank :], *[found.dims[d] for d in columns])
    ).built()
    filters = movement.flip(filters, dims=tuple(range(len(batch) + 1, len(batch) + 1 + rank)))

    width, height = math.prod([x.aval.shape[d] for d in columns]), inner * math.prod(size)
    stacked = (math.prod(kept[: len(batch)]),) if batch else ()
    made = contraction.matmul(
        movement.reshape(seen, shape=(*stacked, math.prod((*kept[len(batch) :], *positions)), height)),
        movement.reshape(filters, shape=(*stacked, height, width)),
    )
    made = movement.reshape(made, shape=(*kept, *positions, *[x.aval.shape[d] for d in columns]))
    standing = {d: place for place, d in enumerate((*batch, *rows, *range(lead, lead + rank), *columns))}
    made = movement.permute(made, dims=tuple([standing[d] for d in range(lead + rank)]))
    return movement.slice_(made, window=(*window[:lead], *[(0, n, 1) for n in positions]))


_KINDS = ("batch", "rows", "columns")


def _one(dim: int, size: int) -> Parts:
    return (Part(dim, 1, size),) if size != 1 else ()


def _kinds(found: Arrangement, lead: int, rank: int) -> dict[int, str] | None:
    """Which dimensions before the windows belong to the batch, the rows and the columns of the product.

    None if one belongs to several, or if windows stand anywhere but along rows, and reach anywhere but along columns.
    """
    last = found.source.aval.ndim - 1
    kinds: dict[int, str] = {}
    for d, parts in enumerate(found.dims):
        kind = {_KINDS[max(part.dim - last + 2, 0)] for part in parts}
        wanted = {_KINDS[1 if d < lead + rank else 2]} if d >= lead else kind
        if len(kind) > 1 or not kind <= wanted:
            return None
        kinds[d] = next(iter(kind), "rows")
    return kinds


def _surrounded(
    gradient: Any, counts: tuple[int, ...], within: tuple[tuple[int, int, int], ...], reach: list[int]
) -> Any:
    """Gradients where the windows that reach into `within` stand, and zeros where there is none."""
    shape = list(gradient.aval.shape)
    first = len(shape) - len(counts)
    taken = [(0, n, 1) for n in shape]
    put = list(taken)
    for d, (count, (start, stop, _), far) in enumerate(zip(counts, within, reach, strict=True), first):
        shape[d] = stop - start + far
        low, high = max(start - far, 0), min(stop, count)
        taken[d] = (low, high, 1)
        put[d] = (low + far - start, high + far - start, 1)
    return movement.embed(movement.slice_(gradient, window=tuple(taken)), shape=tuple(shape), window=tuple(put))


def _alone(x: Any, params: Mapping[str, Any], window: tuple[tuple[int, int, int], ...]) -> Any:
    """Of a single window: its entries, moved."""
    rank = len(params["size"])
    shape = params["shape"]
    lead = len(shape) - rank
    places = [(0, n, 1) for n in shape[:lead]]
    places += [(0, (n - 1) * step + 1, step) for n, step in zip(params["size"], params["dilation"], strict=True)]
    x = movement.reshape(x, shape=(*shape[:lead], *params["size"]))
    return movement.slice_(movement.embed(x, shape=tuple(shape), window=tuple(places)), window=window)
