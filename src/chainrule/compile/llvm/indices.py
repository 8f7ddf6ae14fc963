"""Arithmetic of indices, folded where they are known: what `Builder` has no method for.

Knows nothing of what an index counts.
"""

from __future__ import annotations

from chainrule.compile.llvm.builder import Builder, Index, Value


def opaque(b: Builder, x: Index) -> Index:
    """The same index, of which LLVM knows nothing.

    What it sees through, it tries to compute together with all else that the loops count; with dozens of addresses to
    a loop that took up to four fifths of the time to compile, and gained nothing.
    """
    return x if isinstance(x, int) else Value(b.let(f"freeze i64 {x.text}"), x.dtype)


def index_sub(b: Builder, x: Index, y: Index) -> Index:
    """x - y."""
    if isinstance(x, int) and isinstance(y, int):
        return x - y
    return x if y == 0 else b.sub(b.index_value(x), b.index_value(y))


def index_divmod(b: Builder, x: Index, y: int) -> tuple[Index, Index]:
    """The quotient and the remainder by a known number; x ≥ 0."""
    if isinstance(x, int):
        return divmod(x, y)
    if y == 1:
        return x, 0
    quotient = b.int_div(x, b.index_value(y))
    return quotient, b.sub(x, b.mul(quotient, b.index_value(y)))


def index_min(b: Builder, x: Index, y: Index) -> Index:
    """The smaller."""
    if isinstance(x, int) and isinstance(y, int):
        return min(x, y)
    return b.minimum(b.index_value(x), b.index_value(y))


def index_max(b: Builder, x: Index, y: Index) -> Index:
    """The larger."""
    if isinstance(x, int) and isinstance(y, int):
        return max(x, y)
    return b.maximum(b.index_value(x), b.index_value(y))
