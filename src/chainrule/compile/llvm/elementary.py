"""Elementary functions as polynomials over the builder's arithmetic: without a branch, without the C library.

One description serves float32 and float64, scalars and vectors. The polynomials are minimax, computed by
tools/minimax.py; they are evaluated with the fewest operations, since neighbouring vectors keep the machine busy.
Subnormal numbers are computed like all others.

The largest error, in units of the last place, on any target; about half a unit less where x · y + z is rounded once.

    function     float32  float64
    exp          1.2      1.2
    exp2         1.1      1.1
    expm1        1.8      2.0
    sinh         1.7      1.7
    cosh         1.6      1.6
    tanh         2.4      2.7
    sigmoid      2.4      2.4
    softplus     2.1      2.2
    log_sigmoid  2.1      2.2
    erf          1.7      3.9
    log          1.0      1.0
    log2         2.0      2.1
    log10        2.1      2.0
    log1p        1.5      1.3
    asinh        1.7      1.7
    acosh        2.2      2.2
    atanh        2.2      2.2
    sin          1.9      1.9
    cos          2.0      2.0
    tan          3.4      3.2
    asin         2.1      2.1
    acos         1.3      1.3
    atan         1.4      1.4
    atan2        1.9      1.8
    pow          1.5      1.4
    rsqrt        1.5      1.5

sin, cos and tan keep to this for |x| ≤ 2²⁰ in float32 and |x| ≤ 2⁴⁹ in float64; of larger x they are some number in
their range.
"""

from __future__ import annotations

import math

from chainrule import dtypes
from chainrule.compile.llvm.powers import Powers
from chainrule.compile.llvm.trigonometry import Trigonometry
from chainrule.compile.llvm.values import Value, is_signed


class Elementary(Trigonometry, Powers):
    """All elementary functions, and quotients with their remainder."""

    # --- quotients rounded down

    def floor_divide(self, x: Value, y: Value) -> Value:
        """⌊x / y⌋; of integers 0 where y is 0."""
        x, y = self._alike(x, y)
        zero, one = self.like(0, x), self.like(1, x)
        if not dtypes.is_float(x.dtype):
            divisor = self._safe_divisor(x, y)
            quotient = self.int_div(x, divisor)
            if is_signed(x.dtype):
                quotient = self.where(self._is_above(self.int_rem(x, divisor), y), self.sub(quotient, one), quotient)
            return self.where(self.eq(y, zero), zero, quotient)
        # As NumPy: the quotient without its remainder is nearly whole, and then made whole.
        rest = self._float_rem(x, y)
        quotient = self.div(self.sub(x, rest), y)
        quotient = self.where(self._is_above(rest, y), self.sub(quotient, one), quotient)
        whole = self.floor(quotient)
        whole = self.where(self.gt(self.sub(quotient, whole), self.like(0.5, x)), self.add(whole, one), whole)
        plain = self.div(x, y)
        whole = self.where(self.eq(quotient, zero), self.copysign(zero, plain), whole)
        return self.where(self.eq(y, zero), plain, whole)

    def remainder(self, x: Value, y: Value) -> Value:
        """x - ⌊x / y⌋ · y, with the sign of y; of integers 0 where y is 0."""
        x, y = self._alike(x, y)
        if not dtypes.is_float(x.dtype):
            rest = self.int_rem(x, self._safe_divisor(x, y))
            # The safe divisor leaves no rest where it stands in for 0.
            return self.where(self._is_above(rest, y), self.add(rest, y), rest) if is_signed(x.dtype) else rest
        rest = self._float_rem(x, y)
        found = self.where(self._is_above(rest, y), self.add(rest, y), rest)
        return self.where(self.eq(rest, self.like(0, x)), self.copysign(rest, y), found)

    def _is_above(self, rest: Value, y: Value) -> Value:
        """Does the rest, which is not 0, point away from y, so that the quotient was rounded up?"""
        zero = self.like(0, y)
        return self.and_(self.ne(rest, zero), self.xor(self.lt(rest, zero), self.lt(y, zero)))

    def _safe_divisor(self, x: Value, y: Value) -> Value:
        """y, or 1 where the machine would trap: at 0, and at -1 below the least number."""
        bad = self.eq(y, self.like(0, y))
        if is_signed(x.dtype):
            least = self.eq(x, self.like(-(2 ** (8 * x.dtype.itemsize - 1)), x))
            bad = self.or_(bad, self.and_(least, self.eq(y, self.like(-1, y))))
        return self.where(bad, self.like(1, y), y)

    def _float_rem(self, x: Value, y: Value) -> Value:
        """x - trunc(x / y) · y as C's fmod, for |x / y| < 2⁴⁰ (float32) or 2⁹⁰; beyond, 0 or a number below |y|."""
        size, divisor = self.abs(x), self.abs(y)
        rest = size
        for _ in range(2):  # each takes off as many bits of the quotient as a float has
            quotient = self.trunc(self.div(rest, divisor))
            rest = self._minus_product(rest, quotient, divisor)
            rest = self.where(self.lt(rest, self.like(0, x)), self.add(rest, divisor), rest)
        rest = self.where(self.ge(rest, divisor), self.sub(rest, divisor), rest)
        unbounded = self.and_(self.eq(divisor, self.like(math.inf, y)), self.isfinite(x))
        rest = self.where(unbounded, size, rest)
        zero = self.like(0, x)
        too_many = self.and_(self.isinf(self.div(size, divisor)), self.and_(self.isfinite(x), self.gt(divisor, zero)))
        return self.copysign(self.where(too_many, zero, rest), x)
