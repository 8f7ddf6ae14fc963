"""From one element type to another; 16-bit floats, which exist in memory only.

Loading widens them to float32, storing rounds to nearest, ties to even.
"""

from __future__ import annotations

import numpy as np

from chainrule import dtypes
from chainrule.compile.llvm.arithmetic import Arithmetic
from chainrule.compile.llvm.values import NARROW, Value, is_signed, llvm_type, suffix


class Conversions(Arithmetic):
    """Casts, and 16-bit floats as their bits."""

    def multiply_high(self, x: Value, y: Value) -> tuple[Value, Value]:
        """(high, low) 32 bits of the 64-bit products of uint32."""
        x, y = self._alike(x, y)
        product = self.mul(self.cast(x, dtypes.uint64), self.cast(y, dtypes.uint64))
        return self.cast(self.shift_right(product, 32), dtypes.uint32), self.cast(product, dtypes.uint32)

    def cast(self, x: Value, dtype: np.dtype) -> Value:
        """x in another element type, as NumPy's astype: floats to integers towards zero, anything to bool by ≠ 0.

        A 16-bit float dtype rounds to it and gives the float32 of that value.
        """
        if dtype in NARROW:
            wide = self.cast(x, dtypes.float32)
            return self._widened(self._narrowed(wide, dtype), dtype)
        source = x.dtype
        if source == dtype:
            return x
        if dtype == dtypes.bool_:
            return self.ne(x, self.like(0, x))
        to_float, from_float = dtypes.is_float(dtype), dtypes.is_float(source)
        if to_float and from_float:
            name = "fpext" if dtype.itemsize > source.itemsize else "fptrunc"
        elif to_float:
            name = "sitofp" if is_signed(source) else "uitofp"
        elif from_float:
            return self._float_to_int(x, dtype)
        elif dtype.itemsize == source.itemsize and source != dtypes.bool_:
            return self.reinterpret(x, dtype)
        elif source == dtypes.bool_ or dtype.itemsize > source.itemsize:
            name = "sext" if is_signed(source) else "zext"
        else:
            name = "trunc"
        return Value(self.let(f"{name} {self.type(x)} {x.text} to {llvm_type(dtype, x.lanes)}"), dtype, x.lanes)

    def _float_to_int(self, x: Value, dtype: np.dtype) -> Value:
        # Out of range, LLVM's conversion gives poison. As NumPy on x86: through the signed 64-bit integer (32-bit for
        # int32), which makes the smallest number of whatever does not fit.
        through = dtypes.int32 if dtype == dtypes.int32 else dtypes.int64
        kind, wide = self.type(x), llvm_type(through, x.lanes)
        bound = float(2 ** (8 * through.itemsize - 1))
        inside = self.and_(self.ge(x, self.like(-bound, x)), self.lt(x, self.like(bound, x)))
        name = f"llvm.fptosi.sat.{suffix(through, x.lanes)}.{suffix(x.dtype, x.lanes)}"
        self.declare(f"{wide} @{name}({kind})")
        found = Value(self.let(f"call {wide} @{name}({kind} {x.text})"), through, x.lanes)
        lowest = self.constant(-int(bound), through, x.lanes)
        return self.cast(self.where(inside, found, lowest), dtype)

    # --- 16-bit floats

    def _narrowed(self, x: Value, dtype: np.dtype) -> Value:
        """The bits of a float32 rounded to a 16-bit float, nearest, ties to even, as uint16."""
        raw = self.reinterpret(self.bits(x), dtypes.uint32)
        if dtype == dtypes.bfloat16:
            odd = self.and_(self.shift_right(raw, 16), self.like(1, raw))
            rounded = self.shift_right(self.add(self.add(raw, self.like(0x7FFF, raw)), odd), 16)
            quiet = self.or_(self.shift_right(raw, 16), self.like(0x40, raw))
            return self.cast(self.where(self.isnan(x), quiet, rounded), dtypes.uint16)
        # float16: below 2⁻¹⁴ the spacing is 2⁻²⁴, which adding and taking off 0.5 · 2⁻⁰ … in float32 rounds to.
        sign = self.and_(raw, self.like(0x80000000, raw))
        size = self.xor(raw, sign)
        magic = self.from_bits(self.constant(0x3F000000, dtypes.uint32, x.lanes), dtypes.float32)  # 0.5: ulp 2⁻²⁴
        small = self.reinterpret(self.bits(self.add(self.from_bits(size, dtypes.float32), magic)), dtypes.uint32)
        small = self.sub(small, self.like(0x3F000000, raw))
        odd = self.and_(self.shift_right(size, 13), self.like(1, raw))
        normal = self.add(self.add(size, self.like((0xC8000FFF) & 0xFFFFFFFF, raw)), odd)  # exponent 127 → 15, rounded
        normal = self.shift_right(normal, 13)
        big = self.where(self.gt(size, self.like(0x7F800000, raw)), self.like(0x7E00, raw), self.like(0x7C00, raw))
        found = self.where(self.lt(size, self.like(0x38800000, raw)), small, normal)
        found = self.where(self.ge(size, self.like(0x477FF000, raw)), big, found)
        return self.cast(self.or_(found, self.shift_right(sign, 16)), dtypes.uint16)

    def _widened(self, raw: Value, dtype: np.dtype) -> Value:
        """The float32 that a 16-bit float's bits (uint16) stand for."""
        wide = self.cast(raw, dtypes.uint32)
        if dtype == dtypes.bfloat16:
            return self.from_bits(self.shift_left(wide, 16), dtypes.float32)
        sign = self.shift_left(self.and_(wide, self.like(0x8000, wide)), 16)
        size = self.shift_left(self.and_(wide, self.like(0x7FFF, wide)), 13)
        # Read as a float32 the number is 2⁻¹¹² of itself, subnormal or not; inf and nan need their exponent back.
        scaled = self.mul(self.from_bits(size, dtypes.float32), self.constant(2.0**112, dtypes.float32, raw.lanes))
        special = self.from_bits(self.or_(size, self.like(0x7F800000, wide)), dtypes.float32)
        found = self.where(self.ge(size, self.like(0x0F800000, wide)), special, scaled)
        return self.from_bits(self.or_(self.reinterpret(self.bits(found), dtypes.uint32), sign), dtypes.float32)
