"""What the processor says of itself: what LLVM found out about it is kept under that, and LLVM need not be loaded.

Knows the instruction `cpuid` of x86-64; knows no names of processors. The processor is asked, not the system: to a
program that runs under an emulator the system may tell of a processor that has more.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import TYPE_CHECKING

import numpy as np

from chainrule.compile import cache
from chainrule.compile.llvm import engine

if TYPE_CHECKING:
    from chainrule.compile.llvm.target import Target

_EXTENDED = 0x80000000
# Questions, each a leaf and a subleaf: all from which LLVM reads the name and the features of a processor. The first of
# each half is answered with the largest leaf there is. Source: AMD64 Architecture Programmer's Manual, volume 3,
# appendix E; Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, CPUID.
_QUESTIONS = (
    (0, 0), (1, 0), (7, 0), (7, 1), (0xD, 0), (0xD, 1), (0x14, 0), (0x19, 0), (0x1E, 1), (0x24, 0),
    (_EXTENDED, 0), (_EXTENDED + 1, 0), (_EXTENDED + 8, 0),
)  # fmt: skip
_CORE = (1, 1)  # in the answer to this leaf, this register has the number of the core that answers


def description(target: Target) -> str | None:
    """A text that is another one for a processor that has other features; the same on each of its cores.

    target: any machine of the kind. None if no text is known: it is no x86-64, or its system is not Linux.
    """
    if sys.platform != "linux" or os.uname().machine != target.arch or sys.maxsize < 2**32:
        return None
    code = engine.load(cache.object_code(_text(), target))
    answers = np.zeros((len(_QUESTIONS), 4), np.uint32)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(code.address("cr_processor"))(answers.ctypes.data)
    said = dict(zip(_QUESTIONS, answers.tolist(), strict=True))
    largest = {half: said[half, 0][0] for half in (0, _EXTENDED)}
    said[_CORE[0], 0][_CORE[1]] = 0
    return "\n".join(f"{leaf:x} {words}" for (leaf, _), words in said.items() if leaf <= largest[leaf & _EXTENDED])


def _text() -> str:
    """`void cr_processor(ptr %answers)` writes the four registers after each question."""
    lines = []
    four = "{ i32, i32, i32, i32 }"
    for n, (leaf, subleaf) in enumerate(_QUESTIONS):
        asked = f'call {four} asm sideeffect "cpuid", "={{ax}},={{bx}},={{cx}},={{dx}},{{ax}},{{cx}}"'
        lines.append(f"%a{n} = {asked}(i32 u0x{leaf:X}, i32 {subleaf})")
        for k in range(4):
            lines.append(f"%w{n}.{k} = extractvalue {four} %a{n}, {k}")
            lines.append(f"%p{n}.{k} = getelementptr i32, ptr %answers, i64 {4 * n + k}")
            lines.append(f"store i32 %w{n}.{k}, ptr %p{n}.{k}")
    return "\n".join(["define void @cr_processor(ptr %answers) nounwind {", *lines, "ret void", "}"])
