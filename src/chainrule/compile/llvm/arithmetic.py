"""Straight-line arithmetic on values, lane by lane: sums, comparisons, choices, bits."""

from __future__ import annotations

import math

import numpy as np

from chainrule import dtypes
from chainrule.compile.llvm.assembly import Module
from chainrule.compile.llvm.values import INT_OF, Value, is_signed, llvm_type, suffix

# What begins the bits of a nan: the rest of its exponent, and the first bit behind.
_NANS = ("0x7FF8", "0xFFF8")


class Arithmetic(Module):
    """What emits one instruction, or a few."""

    # --- arithmetic, lane by lane

    def _two(self, instruction: str, x: Value, y: Value) -> Value:
        x, y = self._alike(x, y)
        return Value(self.let(f"{instruction} {self.type(x)} {x.text}, {y.text}"), x.dtype, x.lanes)

    def _call(self, name: str, *values: Value) -> Value:
        values = self._alike(*values)
        dtype, lanes, kind = values[0].dtype, values[0].lanes, self.type(values[0])
        function = f"{kind} @llvm.{name}.{suffix(dtype, lanes)}"
        self.declare(f"{function}({', '.join([kind] * len(values))})")
        operands = ", ".join(f"{kind} {v.text}" for v in values)
        return Value(self.let(f"call {function}({operands})"), dtype, lanes)

    def add(self, x: Value, y: Value) -> Value:
        """x + y; of bools, or."""
        if x.dtype == dtypes.bool_:
            return self.or_(x, y)
        return self._two("fadd" if dtypes.is_float(x.dtype) else "add", x, y)

    def sub(self, x: Value, y: Value) -> Value:
        """x - y."""
        return self._two("fsub" if dtypes.is_float(x.dtype) else "sub", x, y)

    def mul(self, x: Value, y: Value) -> Value:
        """x · y; of bools, and."""
        if x.dtype == dtypes.bool_:
            return self.and_(x, y)
        return self._two("fmul" if dtypes.is_float(x.dtype) else "mul", x, y)

    def div(self, x: Value, y: Value) -> Value:
        """x / y, of floats."""
        return self._two("fdiv", x, y)

    def int_div(self, x: Value, y: Value) -> Value:
        """x / y of integers, towards zero; y must not be 0, nor the quotient overflow."""
        return self._two("sdiv" if is_signed(x.dtype) else "udiv", x, y)

    def int_rem(self, x: Value, y: Value) -> Value:
        """The remainder of `int_div`: its sign is that of x."""
        return self._two("srem" if is_signed(x.dtype) else "urem", x, y)

    def fma(self, x: Value, y: Value, z: Value) -> Value:
        """x · y + z, rounded once if the target has an instruction for it (of integers: as written)."""
        if not (dtypes.is_float(x.dtype) and self._has_fma):
            return self.add(self.mul(x, y), z)
        return self._call("fma", x, y, z)

    def neg(self, x: Value) -> Value:
        """-x."""
        if not dtypes.is_float(x.dtype):
            return self.sub(self.like(0, x), x)
        return Value(self.let(f"fneg {self.type(x)} {x.text}"), x.dtype, x.lanes)

    def abs(self, x: Value) -> Value:
        """|x|."""
        if dtypes.is_float(x.dtype):
            return self._call("fabs", x)
        if not is_signed(x.dtype):
            return x
        return self.where(self.lt(x, self.like(0, x)), self.neg(x), x)

    def sign(self, x: Value) -> Value:
        """-1, 0 or 1; nan of nan."""
        zero = self.like(0, x)
        found = self.where(self.lt(x, zero), self.like(-1, x), zero)
        found = self.where(self.gt(x, zero), self.like(1, x), found)
        return self.where(self.isnan(x), x, found) if dtypes.is_float(x.dtype) else found

    def maximum(self, x: Value, y: Value) -> Value:
        """The larger; of floats nan where one is nan."""
        if x.dtype == dtypes.bool_:
            return self.or_(x, y)
        if not dtypes.is_float(x.dtype):
            return self._call("smax" if is_signed(x.dtype) else "umax", x, y)
        x, y = self._alike(x, y)
        if _is_number(y):  # y where y > x, else x, nan too: one instruction
            return self.where(self.gt(y, x), y, x)
        larger = self.where(self.gt(x, y), x, y)
        return self.where(self.isnan(x), x, larger)

    def minimum(self, x: Value, y: Value) -> Value:
        """The smaller; of floats nan where one is nan."""
        if x.dtype == dtypes.bool_:
            return self.and_(x, y)
        if not dtypes.is_float(x.dtype):
            return self._call("smin" if is_signed(x.dtype) else "umin", x, y)
        x, y = self._alike(x, y)
        if _is_number(y):
            return self.where(self.lt(y, x), y, x)
        smaller = self.where(self.lt(x, y), x, y)
        return self.where(self.isnan(x), x, smaller)

    def sqrt(self, x: Value) -> Value:
        """The square root, correctly rounded."""
        return self._call("sqrt", x)

    def floor(self, x: Value) -> Value:
        """⌊x⌋, a float."""
        return self._call("floor", x)

    def ceil(self, x: Value) -> Value:
        """⌈x⌉, a float."""
        return self._call("ceil", x)

    def round(self, x: Value) -> Value:
        """The nearest whole number, ties to even, a float."""
        return self._call("roundeven", x)

    def trunc(self, x: Value) -> Value:
        """x without its fraction, a float."""
        return self._call("trunc", x)

    def copysign(self, size: Value, sign: Value) -> Value:
        """|size| with the sign of `sign`."""
        return self._call("copysign", size, sign)

    # --- comparisons: bool, one a lane

    def _compare(self, of_floats: str, signed: str, unsigned: str, x: Value, y: Value) -> Value:
        x, y = self._alike(x, y)
        if dtypes.is_float(x.dtype):
            test = f"fcmp {of_floats}"
        else:
            test = f"icmp {signed if is_signed(x.dtype) else unsigned}"
        return Value(self.let(f"{test} {self.type(x)} {x.text}, {y.text}"), dtypes.bool_, x.lanes)

    def eq(self, x: Value, y: Value) -> Value:
        """Is x = y?"""
        return self._compare("oeq", "eq", "eq", x, y)

    def ne(self, x: Value, y: Value) -> Value:
        """Is x ≠ y? True of nan."""
        return self._compare("une", "ne", "ne", x, y)

    def lt(self, x: Value, y: Value) -> Value:
        """Is x < y?"""
        return self._compare("olt", "slt", "ult", x, y)

    def le(self, x: Value, y: Value) -> Value:
        """Is x ≤ y?"""
        return self._compare("ole", "sle", "ule", x, y)

    def gt(self, x: Value, y: Value) -> Value:
        """Is x > y?"""
        return self._compare("ogt", "sgt", "ugt", x, y)

    def ge(self, x: Value, y: Value) -> Value:
        """Is x ≥ y?"""
        return self._compare("oge", "sge", "uge", x, y)

    def isnan(self, x: Value) -> Value:
        """Is x not a number? Of integers, no."""
        if not dtypes.is_float(x.dtype):
            return self.constant(False, dtypes.bool_, x.lanes)
        return Value(self.let(f"fcmp uno {self.type(x)} {x.text}, {x.text}"), dtypes.bool_, x.lanes)

    def isinf(self, x: Value) -> Value:
        """Is x infinite? Of integers, no."""
        if not dtypes.is_float(x.dtype):
            return self.constant(False, dtypes.bool_, x.lanes)
        return self.eq(self.abs(x), self.like(math.inf, x))

    def isfinite(self, x: Value) -> Value:
        """Is x neither infinite nor nan? Of integers, yes."""
        if not dtypes.is_float(x.dtype):
            return self.constant(True, dtypes.bool_, x.lanes)
        return self.lt(self.abs(x), self.like(math.inf, x))

    def where(self, condition: Value, x: Value, y: Value) -> Value:
        """x where the condition holds, else y."""
        condition, x, y = self._alike(condition, x, y)
        return Value(
            self.let(
                f"select {self.type(condition)} {condition.text}, {self.type(x)} {x.text}, {self.type(y)} {y.text}"
            ),
            x.dtype,
            x.lanes,
        )

    # --- bits

    def and_(self, x: Value, y: Value) -> Value:
        """x & y, of integers or bools."""
        return self._two("and", x, y)

    def or_(self, x: Value, y: Value) -> Value:
        """x | y, of integers or bools."""
        return self._two("or", x, y)

    def xor(self, x: Value, y: Value) -> Value:
        """x ^ y, of integers or bools."""
        return self._two("xor", x, y)

    def not_(self, x: Value) -> Value:
        """~x, of integers or bools."""
        return self.xor(x, self.like(True if x.dtype == dtypes.bool_ else -1, x))

    def shift_left(self, x: Value, by: int | Value) -> Value:
        """x << by, of integers; 0 ≤ by < bits."""
        return self._two("shl", x, self.like(by, x) if isinstance(by, int) else by)

    def shift_right(self, x: Value, by: int | Value) -> Value:
        """x >> by, of integers: filled with the sign if signed, with 0 if unsigned."""
        return self._two("ashr" if is_signed(x.dtype) else "lshr", x, self.like(by, x) if isinstance(by, int) else by)

    def bits(self, x: Value) -> Value:
        """The bits of a float, as a signed integer of its width."""
        dtype = INT_OF[x.dtype.itemsize]
        return Value(self.let(f"bitcast {self.type(x)} {x.text} to {llvm_type(dtype, x.lanes)}"), dtype, x.lanes)

    def from_bits(self, x: Value, dtype: np.dtype) -> Value:
        """The float that has these bits."""
        return Value(self.let(f"bitcast {self.type(x)} {x.text} to {llvm_type(dtype, x.lanes)}"), dtype, x.lanes)

    def reinterpret(self, x: Value, dtype: np.dtype) -> Value:
        """The same bits, read as signed or as unsigned."""
        return Value(x.text, dtype, x.lanes)


def _is_number(x: Value) -> bool:
    """Is x a float constant that is not nan?"""
    return "%" not in x.text and "poison" not in x.text and not any(nan in x.text for nan in _NANS)
