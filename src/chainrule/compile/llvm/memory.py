"""Loads and stores of elements, and what moves values between lanes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from chainrule import dtypes
from chainrule.compile.llvm.conversions import Conversions
from chainrule.compile.llvm.values import (
    LLVM,
    NARROW,
    SCALAR,
    Index,
    Value,
    mask_text,
    stored_suffix,
    stored_type,
)


class Memory(Conversions):
    """Vectors as they are filled, emptied and folded."""

    # --- across lanes

    def halves(self, x: Value) -> tuple[Value, Value]:
        """The lower and the upper half of the lanes."""
        half = x.lanes // 2
        kind = self.type(x)
        parts = []
        for start in (0, half):
            mask = ", ".join(f"i32 {start + i}" for i in range(half))
            parts.append(
                Value(self.let(f"shufflevector {kind} {x.text}, {kind} poison, <{half} x i32> <{mask}>"), x.dtype, half)
            )
        return parts[0], parts[1]

    def shuffle(self, x: Value, y: Value, order: Sequence[int]) -> Value:
        """Lanes of two vectors in a new order: lane i is lane order[i] of x and y put together."""
        kind, mask = self.type(x), ", ".join(f"i32 {n}" for n in order)
        found = self.let(f"shufflevector {kind} {x.text}, {kind} {y.text}, <{len(order)} x i32> <{mask}>")
        return Value(found, x.dtype, len(order))

    def lane(self, x: Value, number: int) -> Value:
        """One lane, as a scalar."""
        return Value(self.let(f"extractelement {self.type(x)} {x.text}, i32 {number}"), x.dtype)

    def insert(self, x: Value, element: Value, number: int) -> Value:
        """x with one lane replaced."""
        kind = LLVM[x.dtype]
        return Value(
            self.let(f"insertelement {self.type(x)} {x.text}, {kind} {element.text}, i32 {number}"), x.dtype, x.lanes
        )

    def undefined(self, dtype: np.dtype, lanes: int) -> Value:
        """Anything: lanes that are filled one by one start from it."""
        return Value("poison", dtype, lanes)

    def fold(self, x: Value, combine: Callable[[Value, Value], Value]) -> Value:
        """All lanes combined into a scalar, halves with halves: the order is fixed."""
        while x.lanes > 2:
            low, high = self.halves(x)
            x = combine(low, high)
        return x if x.lanes == SCALAR else combine(self.lane(x, 0), self.lane(x, 1))

    # --- memory

    def pointer(self, base: str, offset: Index, dtype: np.dtype) -> str:
        """The address of element `offset` behind a pointer."""
        if offset == 0:
            return base
        where = str(offset) if isinstance(offset, int) else offset.text
        return self.let(f"getelementptr inbounds {stored_type(dtype)}, ptr {base}, i64 {where}")

    def load(self, base: str, offset: Index, dtype: np.dtype, lanes: int = SCALAR, active: int | None = None) -> Value:
        """Elements from `offset` on, at any alignment; lanes from `active` on are 0 and not read."""
        where = self.pointer(base, offset, dtype)
        kind = stored_type(dtype) if lanes == SCALAR else f"<{lanes} x {stored_type(dtype)}>"
        if active is None or active == lanes:
            raw = self.let(f"load {kind}, ptr {where}, align {dtype.itemsize}")
        else:
            name = f"llvm.masked.load.v{lanes}{stored_suffix(dtype)}.p0"
            self.declare(f"{kind} @{name}(ptr, <{lanes} x i1>, {kind})")
            source = f"ptr align {dtype.itemsize} {where}"
            raw = self.let(f"call {kind} @{name}({source}, {mask_text(lanes, active)}, {kind} zeroinitializer)")
        return self._from_memory(raw, dtype, lanes)

    def load_masked(self, base: str, offset: Index, dtype: np.dtype, mask: Value) -> Value:
        """Elements from `offset` on where the mask (bool, a lane each) holds; the others are 0 and not read."""
        where = self.pointer(base, offset, dtype)
        lanes = mask.lanes
        kind = f"<{lanes} x {stored_type(dtype)}>"
        name = f"llvm.masked.load.v{lanes}{stored_suffix(dtype)}.p0"
        self.declare(f"{kind} @{name}(ptr, <{lanes} x i1>, {kind})")
        source = f"ptr align {dtype.itemsize} {where}"
        raw = self.let(f"call {kind} @{name}({source}, {self.type(mask)} {mask.text}, {kind} zeroinitializer)")
        return self._from_memory(raw, dtype, lanes)

    def _from_memory(self, raw: str, dtype: np.dtype, lanes: int) -> Value:
        if dtype in NARROW:
            return self._widened(Value(raw, dtypes.uint16, lanes), dtype)
        if dtype == dtypes.bool_:
            return self.ne(Value(raw, dtypes.uint8, lanes), self.constant(0, dtypes.uint8, lanes))
        return Value(raw, dtype, lanes)

    def store(self, value: Value, base: str, offset: Index, dtype: np.dtype, active: int | None = None) -> None:
        """Write elements from `offset` on, at any alignment; lanes from `active` on are not written."""
        if dtype in NARROW:
            value = self._narrowed(value, dtype)
        elif dtype == dtypes.bool_:
            value = self.cast(value, dtypes.uint8)
        where = self.pointer(base, offset, dtype)
        if active == 1 and value.lanes:
            # LLVM 22 writes a single lane of a vector that was just made narrower as wide as it was, to another place.
            value = self.lane(value, 0)
        kind = self.type(value)
        if active is None or active == value.lanes or value.lanes == SCALAR:
            self.emit(f"store {kind} {value.text}, ptr {where}, align {dtype.itemsize}")
            return
        name = f"llvm.masked.store.v{value.lanes}{stored_suffix(dtype)}.p0"
        self.declare(f"void @{name}({kind}, ptr, <{value.lanes} x i1>)")
        mask = mask_text(value.lanes, active)
        self.emit(f"call void @{name}({kind} {value.text}, ptr align {dtype.itemsize} {where}, {mask})")

    def prefetch(self, address: str, *, for_writing: bool = False) -> None:
        """Have the cache line of an address brought near: it is read soon, and then written to or not."""
        self.declare("void @llvm.prefetch.p0(ptr, i32, i32, i32)")
        self.emit(f"call void @llvm.prefetch.p0(ptr {address}, i32 {int(for_writing)}, i32 3, i32 1)")

    def table_entry(self, table: str, number: int) -> str:
        """The pointer at a position of a table of pointers."""
        at = table if number == 0 else self.let(f"getelementptr inbounds ptr, ptr {table}, i64 {number}")
        return self.let(f"load ptr, ptr {at}, align 8")
