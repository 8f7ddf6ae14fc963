"""How threads share the units of a kernel, and what one call of its code is asked to do."""

from __future__ import annotations

from typing import NamedTuple

from chainrule.compile.llvm.values import Index, Value


class Rows(NamedTuple):
    """What the units of a kernel stand for: unit u for the rows from u · height on, of `number` in all."""

    number: int
    height: int


class Split(NamedTuple):
    """How threads share a kernel's units: `blocks` of so many units each, as evenly as blocks allow.

    With rows alike in all kernels, each thread finds what it made itself in the kernel before.
    """

    blocks: int
    each: int


class Share(NamedTuple):
    """The units from `lo` to `hi`.

    scratch: a pointer to memory that the thread has to itself.
    continues: a bool; if it holds, the units just before `lo` were the last that used this memory.
    """

    lo: Index
    hi: Index
    scratch: str
    continues: Value
