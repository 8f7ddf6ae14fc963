"""Writes LLVM IR: typed values, straight-line arithmetic, loops and branches, one function at a time.

Knows machine types and control flow; knows no op, no tensor and no kernel. A value is a scalar or a vector of `lanes`
equal elements, and every arithmetic method works on both, so that one description of a computation gives the vector
loop and its scalar twin.

The text is emitted as it stands in the machine code to be: without the passes of LLVM's optimiser, whose work
(hoisting, vectorising, unrolling) is done where the loops are written. So it compiles in milliseconds.

Builder
├── Elementary    exp, log, sin, …; floor_divide, integer powers
├── Memory        loads, stores, lanes
│   └── Conversions   casts, 16-bit floats
│       └── Arithmetic    sums, comparisons, choices, bits
└── ControlFlow   loops, branches, indices
    └── Module        functions, lines, constants
"""

from __future__ import annotations

from typing import final

from chainrule.compile.llvm.control import ControlFlow
from chainrule.compile.llvm.elementary import Elementary
from chainrule.compile.llvm.memory import Memory
from chainrule.compile.llvm.values import SCALAR, Index, Value, llvm_type
from chainrule.core.scalar import ScalarBuilder

__all__ = ["SCALAR", "Builder", "Index", "Value", "llvm_type"]


@final
class Builder(Elementary, Memory, ControlFlow, ScalarBuilder[Value]):
    """All that a kernel is written with. See `Module` for its arguments."""
