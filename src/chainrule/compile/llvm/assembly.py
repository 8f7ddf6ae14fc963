"""One LLVM module in the making: its functions, lines and constants. Knows no instruction by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.compile.llvm.values import LLVM, SCALAR, Value, literal, llvm_type, one_literal


class Module:
    """One LLVM module in the making.

    vector_bytes: the width of the target's vector registers, 16, 32 or 64.
    fma: the target has an instruction for x · y + z. Without one it is two, rounded twice: LLVM would call the C
        library.
    """

    def __init__(self, vector_bytes: int, fma: bool = True) -> None:
        self.vector_bytes = vector_bytes
        self._has_fma = fma
        self._functions: list[str] = []
        self._declared: dict[str, None] = {}
        self._lines: list[Any] = []  # lines, and lists of lines: places kept open for code that is found later
        self._count = 0
        self._block = "entry"

    # --- the module

    def text(self) -> str:
        """The module as LLVM assembly."""
        attributes = f'attributes #0 = {{ nounwind "prefer-vector-width"="{8 * self.vector_bytes}" }}'
        return "\n".join([*self._functions, *self._declared, attributes, ""])

    def function(self, name: str, arguments: str, body: Callable[[], None], result: str = "void") -> None:
        """Define a function; `arguments` in LLVM's words ("ptr %table, i64 %lo"); `body` emits it, and its `ret`."""
        outer = self._lines, self._block
        self._lines, self._block = [f"define {result} @{name}({arguments}) #0 {{", "entry:"], "entry"
        body()
        self._lines.append("}")
        self._functions.append("\n".join(_flat(self._lines)))
        self._lines, self._block = outer

    def numbers(self, name: str, values: Sequence[int]) -> None:
        """Define a constant array of 64-bit integers."""
        listed = ", ".join(f"i64 {x}" for x in values)
        self._functions.append(f"@{name} = internal constant [{len(values)} x i64] [{listed}], align 8")

    def declare(self, declaration: str) -> None:
        """Declare a function of LLVM or of the C library, once."""
        self._declared[f"declare {declaration}"] = None

    # --- lines

    def emit(self, line: str) -> None:
        """One instruction without a result."""
        self._lines.append("  " + line)

    def register(self, prefix: str = "t") -> str:
        """A fresh register or label name, without its %."""
        self._count += 1
        return f"{prefix}{self._count}"

    def let(self, instruction: str) -> str:
        """One instruction; returns the register that holds its result."""
        self._count += 1
        name = f"%t{self._count}"
        self._lines.append(f"  {name} = {instruction}")
        return name

    def start(self, label: str) -> None:
        """Begin a basic block."""
        self._lines.append(f"{label}:")
        self._block = label

    def ret(self, value: str = "void") -> None:
        """Return from the function."""
        self.emit(f"ret {value}")

    # --- types

    def lanes(self, dtype: np.dtype) -> int:
        """How many elements of what `dtype` is computed in fill one vector register of the target."""
        return self.vector_bytes // dtypes.work_dtype(dtype).itemsize

    @staticmethod
    def type(value: Value) -> str:
        """The LLVM type of a value."""
        return llvm_type(value.dtype, value.lanes)

    # --- constants

    def constant(self, number: float | bool, dtype: np.dtype, lanes: int = SCALAR) -> Value:
        """A number, in every lane. 16-bit float dtypes give a float32."""
        return Value(literal(number, dtypes.work_dtype(dtype), lanes), dtypes.work_dtype(dtype), lanes)

    def like(self, number: float | bool, value: Value) -> Value:
        """A number of the type and lanes of a value."""
        return self.constant(number, value.dtype, value.lanes)

    def iota(self, dtype: np.dtype, lanes: int, step: int = 1) -> Value:
        """0, step, 2·step, … one a lane; a scalar is 0."""
        if lanes == SCALAR:
            return self.constant(0, dtype)
        kind = LLVM[dtype]
        numbers = ", ".join(f"{kind} {one_literal(step * i, dtype)}" for i in range(lanes))
        return Value(f"<{numbers}>", dtype, lanes)

    def spread(self, value: Value, lanes: int) -> Value:
        """A scalar in every lane. A vector of these lanes is returned as it is."""
        if value.lanes == lanes or lanes == SCALAR:
            return value
        assert value.lanes == SCALAR, (value, lanes)
        kind = llvm_type(value.dtype, lanes)
        if value.text[0] != "%":
            return Value(f"splat ({LLVM[value.dtype]} {value.text})", value.dtype, lanes)
        one = self.let(f"insertelement {kind} poison, {LLVM[value.dtype]} {value.text}, i32 0")
        return Value(
            self.let(f"shufflevector {kind} {one}, {kind} poison, <{lanes} x i32> zeroinitializer"), value.dtype, lanes
        )

    def _alike(self, *values: Value) -> tuple[Value, ...]:
        lanes = max(v.lanes for v in values)
        return tuple(self.spread(v, lanes) for v in values)


def _flat(lines: list[Any]) -> Iterator[str]:
    for line in lines:
        if isinstance(line, list):
            yield from _flat(line)
        else:
            yield line
