"""How threads share the units of a kernel, and what one call of its code is asked to do."""

from __future__ import annotations

from typing import NamedTuple

from chainrule.compile.llvm.builder import Builder, Index, Value


class Rows(NamedTuple):
    """What the units of a kernel stand for: unit u for the rows from u · height on, of `number` in all."""

    number: int
    height: int


class Split(NamedTuple):
    """How threads share a kernel's units: rows in blocks of so many, of which the last may be shorter; each some units.

    Blocks go to threads so that all have as many rows as can be; the first, which has no need to be woken, rather one
    more. With rows alike in all kernels, each thread finds what it made itself in the kernel before.
    """

    rows: int
    height: int
    each: int

    @classmethod
    def of_units(cls, units: int) -> Split:
        """Unit by unit. The last is taken for half a one, since it often is what was left over."""
        return cls(rows=2 * units - 1, height=2, each=1)

    @property
    def blocks(self) -> int:
        """How many there are."""
        return -(-self.rows // self.height)

    def same_rows(self, other: Split | None) -> bool:
        """Do the same rows fall to the same threads?"""
        return other is not None and (self.rows, self.height) == (other.rows, other.height)

    def first(self, thread: int, threads: int) -> int:
        """The first block of a thread; of the one behind the last, the number of blocks."""
        if thread == threads:
            return self.blocks
        return (2 * thread * self.rows + threads * self.height) // (2 * threads * self.height)

    def write_first(self, b: Builder, thread: str, threads: str) -> str:
        """Code for `first`, of a thread that is not the one behind the last."""
        twice = b.let(f"mul i64 {thread}, {2 * self.rows}")
        half = b.let(f"mul i64 {threads}, {self.height}")
        parts = b.let(f"mul i64 {threads}, {2 * self.height}")
        return b.let(f"udiv i64 {b.let(f'add i64 {twice}, {half}')}, {parts}")


class Share(NamedTuple):
    """The units from `lo` to `hi`.

    scratch: a pointer to memory that the thread has to itself.
    continues: a bool; if it holds, the units just before `lo` were the last that used this memory.
    """

    lo: Index
    hi: Index
    scratch: str
    continues: Value
