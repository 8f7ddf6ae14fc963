"""Sines and their inverses."""

from __future__ import annotations

import math

from chainrule.compile.llvm import coefficients
from chainrule.compile.llvm.polynomials import LAYOUT, Polynomials
from chainrule.compile.llvm.values import Value


class Trigonometry(Polynomials):
    """Angles. Sine, cosine and tangent are right for |x| ≤ 2²⁰ (float32) or 2⁴⁹; beyond, some number in their range."""

    def _turned_back(self, x: Value, n: Value, period: float) -> Value:
        """x - n · period · π, to the last bit of the difference: π in three parts."""
        first, second, third = (period * part for part in coefficients.PI[x.dtype])
        f = self._minus_product(x, n, self.like(first, x))
        f = self._minus_product(f, n, self.like(second, x))
        return self.fma(n, self.like(-third, x), f)

    def _within(self, x: Value, bound: float) -> Value:
        """x kept between -bound and bound. nan passes."""
        return self.maximum(self.minimum(x, self.like(bound, x)), self.like(-bound, x))

    def _odd(self, biased: Value, f: Value) -> Value:
        """f, negated where the whole number in the lowest bits is odd."""
        bits = self.bits(biased)
        sign = self.shift_left(bits, 8 * biased.dtype.itemsize - 1)
        return self.from_bits(self.xor(self.bits(f), sign), f.dtype)

    def _sine(self, f: Value) -> Value:
        square = self.mul(f, f)
        found = self.fma(self.mul(f, square), self._polynomial(coefficients.SIN, f, square), f)
        return self._within(found, 1.0)  # rounding may lead beyond; and huge x have left no angle

    def sin(self, x: Value) -> Value:
        """The sine: x = n π + f, and sin x = ± sin f."""
        whole = self.like(LAYOUT[x.dtype].whole, x)
        biased = self.fma(x, self.like(1 / math.pi, x), whole)
        f = self._turned_back(x, self.sub(biased, whole), 1.0)
        # Of -0 the sum above makes 0.
        return self.where(self.eq(x, self.like(0, x)), x, self._odd(biased, self._sine(f)))

    def cos(self, x: Value) -> Value:
        """The cosine: x = (n + ½) π + f, and cos x = ∓ sin f."""
        whole = self.like(LAYOUT[x.dtype].whole + 1, x)  # odd, since n = 0 has the sign -
        biased = self.add(self.fma(self.abs(x), self.like(1 / math.pi, x), self.like(-0.5, x)), whole)
        n = self.add(self.sub(biased, whole), self.like(0.5, x))
        return self._odd(biased, self._sine(self._turned_back(self.abs(x), n, 1.0)))

    def tan(self, x: Value) -> Value:
        """The tangent: x = n ½ π + f, and tan x is sin f / cos f or -cos f / sin f."""
        whole = self.like(LAYOUT[x.dtype].whole, x)
        biased = self.fma(x, self.like(2 / math.pi, x), whole)
        f = self._within(self._turned_back(x, self.sub(biased, whole), 0.5), 0.9)
        square = self.mul(f, f)
        sine = self.fma(self.mul(f, square), self._polynomial(coefficients.SIN_QUARTER, x, square), f)
        cosine = self.fma(self._polynomial(coefficients.COS_QUARTER, x, square), square, self.like(-0.5, x))
        cosine = self.fma(cosine, square, self.like(1, x))
        raw = self.bits(biased)
        odd = self.ne(self.and_(raw, self.like(1, raw)), self.like(0, raw))
        found = self.div(self.where(odd, self.neg(cosine), sine), self.where(odd, sine, cosine))
        return self.where(self.eq(x, self.like(0, x)), x, found)

    # --- inverses

    def _arc_parts(self, x: Value) -> tuple[Value, Value, Value]:
        """(far, s, rest): asin s = s + rest, where s is |x| up to ½ and √(½ (1 − |x|)) beyond, which is far."""
        size = self.abs(x)
        far = self.gt(size, self.like(0.5, x))
        below = self.fma(size, self.like(-0.5, x), self.like(0.5, x))
        square = self.where(far, below, self.mul(x, x))
        s = self.where(far, self.sqrt(below), size)
        return far, s, self.mul(self.mul(s, square), self._polynomial(coefficients.ASIN, x, square))

    def asin(self, x: Value) -> Value:
        """The arc sine; beyond ½ it is ½ π − 2 asin √(½ (1 − x))."""
        far, s, rest = self._arc_parts(x)
        half_pi, half_pi_rest = (0.5 * part for part in coefficients.PI[x.dtype][:2])
        beyond = self.fma(s, self.like(-2, x), self.like(half_pi, x))
        beyond = self.add(beyond, self.fma(rest, self.like(-2, x), self.like(half_pi_rest, x)))
        return self.copysign(self.where(far, beyond, self.add(s, rest)), x)

    def acos(self, x: Value) -> Value:
        """The arc cosine: ½ π − asin x, 2 asin √(½ (1 − x)), or π less that."""
        far, s, rest = self._arc_parts(x)
        pi, pi_rest = coefficients.PI[x.dtype][:2]
        negative = self.lt(x, self.like(0, x))
        # base ± scale · (s + rest)
        zero = self.like(0, x)
        base = self.where(far, self.where(negative, self.like(pi, x), zero), self.like(0.5 * pi, x))
        base_rest = self.where(far, self.where(negative, self.like(pi_rest, x), zero), self.like(0.5 * pi_rest, x))
        scale = self.where(far, self.copysign(self.like(2, x), x), self.neg(self.copysign(self.like(1, x), x)))
        found, lost = self._sum(base, self.mul(scale, s))
        return self.add(found, self.add(lost, self.fma(scale, rest, base_rest)))

    def _angle(self, small: Value, large: Value) -> tuple[Value, Value]:
        """An angle up to ¼ π whose tangent is small / large: t, and what is to be added to it."""
        t = self.div(small, large)
        square = self.mul(t, t)
        return t, self.mul(self.mul(t, square), self._polynomial(coefficients.ATAN, t, square))

    def atan(self, x: Value) -> Value:
        """The arc tangent; beyond 1 it is ½ π less that of 1 / x."""
        one, size = self.like(1, x), self.abs(x)
        t, rest = self._angle(self.minimum(size, one), self.maximum(size, one))
        half_pi, half_pi_rest = (0.5 * part for part in coefficients.PI[x.dtype][:2])
        beyond, lost = self._sum(self.like(half_pi, x), self.neg(t))
        beyond = self.add(beyond, self.add(lost, self.sub(self.like(half_pi_rest, x), rest)))
        return self.copysign(self.where(self.gt(size, one), beyond, self.add(t, rest)), x)

    def atan2(self, y: Value, x: Value) -> Value:
        """The angle of the point (x, y): of the first half quadrant, mirrored."""
        wide, high = self.abs(x), self.abs(y)
        small, large = self.minimum(wide, high), self.maximum(wide, high)
        zero, one = self.like(0, x), self.like(1, x)
        # 0 / 0 is 0 here, and inf / inf is 1.
        alike = self.eq(small, self.like(math.inf, x))
        small, large = self.where(alike, one, small), self.where(alike, one, large)
        t, rest = self._angle(small, self.where(self.eq(large, zero), one, large))
        steep = self.gt(high, wide)
        pi, pi_rest = coefficients.PI[x.dtype][:2]
        raw = self.bits(x)
        behind = self.lt(raw, self.like(0, raw))
        turn = self.where(steep, self.like(0.5 * pi, x), self.where(behind, self.like(pi, x), zero))
        turn_rest = self.where(steep, self.like(0.5 * pi_rest, x), self.where(behind, self.like(pi_rest, x), zero))
        # steep: ½ π ∓ angle; behind: π - angle; else the angle.
        sign = self.where(steep, self.neg(self.copysign(one, x)), self.copysign(one, x))
        found, lost = self._sum(turn, self.mul(sign, t))
        flat = self.add(found, self.add(lost, self.fma(sign, rest, turn_rest)))
        found = self.where(self.eq(turn, zero), self.add(t, rest), flat)
        unknown = self.or_(self.isnan(x), self.isnan(y))
        return self.copysign(self.where(unknown, self.like(math.nan, x), found), y)
