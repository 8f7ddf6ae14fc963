"""Adding windows back up, where no two of them share an entry: nothing is added, entries only move."""

from __future__ import annotations

from typing import Any

from chainrule.compile.passes.rewriting import rewritten, stored
from chainrule.compile.program import Program
from chainrule.ops import movement, windows


def disjoint_windows(program: Program) -> Program:
    """Windows that share no entry are put side by side, where they would be added up."""
    return rewritten(program, (_side_by_side, stored))


def _side_by_side(node: Any) -> Any:
    """Windows side by side are a permuted and reshaped array, with zeros where none of them reaches."""
    if node.op is not windows.overlap_add:
        return None
    (x,) = node.inputs
    shape, size, stride = node.params["shape"], node.params["size"], node.params["stride"]
    touching = (
        n == 1 or (n == step and spread == 1)
        for n, step, spread in zip(size, stride, node.params["dilation"], strict=True)
    )
    if not all(touching):
        return None
    rank = len(size)
    batch = x.aval.ndim - 2 * rank
    counts = x.aval.shape[batch : batch + rank]
    dims = [*range(batch)] + [d for k in range(rank) for d in (batch + k, batch + rank + k)]
    flat = tuple(count * n for count, n in zip(counts, size, strict=True))
    moved = movement.reshape(movement.permute(x, dims=tuple(dims)), shape=(*shape[:batch], *flat))
    window = [(0, n, 1) for n in shape[:batch]]
    for count, n, step in zip(counts, size, stride, strict=True):
        window.append((0, (count - 1) * step + 1, step) if n == 1 else (0, count * n, 1))
    return movement.embed(moved, shape=tuple(shape), window=tuple(window))
