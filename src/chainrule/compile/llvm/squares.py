"""Squares of numbers in registers, turned: what lies along a row in memory comes to lie across vectors.

Knows which places make a square, and vectors of as many lanes as there are of them; not what they hold.
"""

from __future__ import annotations

from collections.abc import Sequence

from chainrule.compile.llvm.builder import Builder, Value
from chainrule.core.affine import Affine


def transposed(b: Builder, rows: Sequence[Value]) -> list[Value]:
    """A square of as many vectors as they have lanes, rows as columns."""
    n = len(rows)
    held, width = list(rows), 1
    while width < n:
        low = [i if not i & width else n + (i ^ width) for i in range(n)]
        high = [i | width if not i & width else n + i for i in range(n)]
        after = list(held)
        for i in range(n):
            if not i & width:
                after[i] = b.shuffle(held[i], held[i | width], low)
                after[i | width] = b.shuffle(held[i], held[i | width], high)
        held, width = after, width * 2
    return held


def is_across(offset: Affine, vector: int, other: int) -> bool:
    """Are places far apart along one variable, and neighbours along the other?"""
    return offset.coefficient(vector) not in (0, 1) and offset.coefficient(other) == 1
