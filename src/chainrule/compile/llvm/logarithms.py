"""Logarithms, and the inverse hyperbolic functions, which are logarithms."""

from __future__ import annotations

import math

from chainrule import dtypes
from chainrule.compile.llvm import coefficients
from chainrule.compile.llvm.polynomials import LAYOUT, Polynomials
from chainrule.compile.llvm.values import Value

_ROOT_HALF_BITS = {dtypes.float32: 0x3F3504F3, dtypes.float64: 0x3FE6A09E667F3BCD}
# Beyond these 1 is nothing beside x².
_LARGE = {dtypes.float32: 2.0**13, dtypes.float64: 2.0**28}


class Logarithms(Polynomials):
    """Functions of log x."""

    def _exponent_and_rest(self, x: Value, tiny: bool = True) -> tuple[Value, Value, Value]:
        """(e, m, bits) with x = 2ᵉ · m, √½ ≤ m < √2; bits holds e + bias as an exponent field. x is positive.

        tiny: x may be subnormal.
        """
        dtype, layout = x.dtype, LAYOUT[x.dtype]
        shift = self.like(2.0**layout.places + layout.bias, x)
        if tiny:
            small = self.lt(x, self.like(layout.smallest, x))
            x = self.where(small, self.mul(x, self.like(2.0**layout.places, x)), x)
            shift = self.where(small, self.like(2.0**layout.places + layout.bias + layout.places, x), shift)
        raw = self.bits(x)
        root_half = self.like(_ROOT_HALF_BITS[dtype], raw)
        raw = self.add(raw, self.like((layout.bias << layout.places) - _ROOT_HALF_BITS[dtype], raw))
        unsigned = self.reinterpret(raw, dtypes.uint32 if dtype == dtypes.float32 else dtypes.uint64)
        # The field behind the point of 2²³ reads 2²³ + e + bias.
        field = self.reinterpret(self.shift_right(unsigned, layout.places), raw.dtype)
        field = self.or_(field, self.like((layout.bias + layout.places) << layout.places, raw))
        exponent = self.sub(self.from_bits(field, dtype), shift)
        rest = self.add(self.and_(raw, self.like((1 << layout.places) - 1, raw)), root_half)
        return exponent, self.from_bits(rest, dtype), raw

    def _log_tail(self, x: Value, f: Value) -> Value:
        """log(1 + f) - f."""
        p = self.fma(self._polynomial(coefficients.LOG, x, f), f, self.like(-0.5, f))
        return self.mul(p, self.mul(f, f))

    def _log_sum(self, e: Value, f: Value) -> Value:
        """e · log 2 + log(1 + f)."""
        ln2, ln2_rest = coefficients.LN2_SHORT[e.dtype]
        rest = self.fma(e, self.like(ln2_rest, e), self._log_tail(e, f))
        return self.fma(e, self.like(ln2, e), self.add(f, rest))

    def _at_the_edges(self, x: Value, zero: float, found: Value) -> Value:
        """A logarithm that is -inf at `zero`, nan below and of nan, inf at inf, and what was found elsewhere."""
        bound = self.like(zero, x)
        below = self.where(self.eq(x, bound), self.like(-math.inf, x), self.like(math.nan, x))
        found = self.where(self.gt(x, bound), found, below)
        return self.where(self.eq(x, self.like(math.inf, x)), x, found)

    def log(self, x: Value) -> Value:
        """The natural logarithm."""
        e, m, _ = self._exponent_and_rest(x)
        return self._at_the_edges(x, 0.0, self._log_sum(e, self.sub(m, self.like(1, x))))

    def log2(self, x: Value) -> Value:
        """The logarithm to base 2; of powers of 2 exact."""
        e, m, _ = self._exponent_and_rest(x)
        f = self.sub(m, self.like(1, x))
        scale, scale_rest = coefficients.LOG2_E[x.dtype]
        rest = self.fma(f, self.like(scale_rest, x), self.mul(self._log_tail(x, f), self.like(scale, x)))
        return self._at_the_edges(x, 0.0, self.add(e, self.fma(f, self.like(scale, x), rest)))

    def log10(self, x: Value) -> Value:
        """The logarithm to base 10."""
        e, m, _ = self._exponent_and_rest(x)
        f = self.sub(m, self.like(1, x))
        scale, scale_rest = coefficients.LOG10_E[x.dtype]
        two, two_rest = coefficients.LOG10_2_SHORT[x.dtype]
        rest = self.fma(f, self.like(scale_rest, x), self.mul(self._log_tail(x, f), self.like(scale, x)))
        rest = self.fma(e, self.like(two_rest, x), rest)
        rest = self.fma(f, self.like(scale, x), rest)
        return self._at_the_edges(x, 0.0, self.fma(e, self.like(two, x), rest))

    def _log1p_inside(self, x: Value) -> Value:
        """log(1 + x) where 1 + x is positive and finite; what rounding 1 + x took is added to its fraction."""
        layout, one = LAYOUT[x.dtype], self.like(1, x)
        u = self.add(x, one)
        back = self.sub(u, one)
        lost = self.mul(self.add(self.sub(one, self.sub(u, back)), self.sub(x, back)), self.like(0.5, x))
        e, m, raw = self._exponent_and_rest(u, tiny=False)
        field = self.and_(raw, self.like(-(1 << layout.places), raw))
        # 2¹⁻ᵉ: for the greatest numbers 2⁻ᵉ would be beyond the exponents.
        scale = self.from_bits(self.sub(self.like((2 * layout.bias + 1) << layout.places, raw), field), x.dtype)
        return self._log_sum(e, self.fma(lost, scale, self.sub(m, one)))

    def log1p(self, x: Value) -> Value:
        """log(1 + x)."""
        return self._at_the_edges(x, -1.0, self.copysign(self._log1p_inside(x), x))

    # --- inverse hyperbolic functions

    def _log_of_large(self, x: Value, size: Value, near: Value) -> Value:
        """log(1 + near), or log(2 · size) where the size is so large that near would overflow."""
        large = self.gt(size, self.like(_LARGE[x.dtype], x))
        found = self._log1p_inside(self.where(large, self.sub(size, self.like(1, x)), near))
        found = self.where(large, self.add(found, self.like(math.log(2.0), x)), found)
        return self.where(self.lt(size, self.like(math.inf, x)), found, size)

    def asinh(self, x: Value) -> Value:
        """The inverse hyperbolic sine: log(|x| + √(x² + 1)), with the sign of x."""
        one, size = self.like(1, x), self.abs(x)
        square = self.mul(x, x)
        root = self.add(one, self.sqrt(self.add(square, one)))
        near = self.add(size, self.div(square, root))
        return self.copysign(self._log_of_large(x, size, near), x)

    def acosh(self, x: Value) -> Value:
        """The inverse hyperbolic cosine: log(x + √(x² − 1))."""
        one = self.like(1, x)
        t = self.sub(x, one)
        near = self.add(t, self.sqrt(self.mul(t, self.add(t, self.like(2, x)))))
        return self.where(self.ge(x, one), self._log_of_large(x, x, near), self.like(math.nan, x))

    def atanh(self, x: Value) -> Value:
        """The inverse hyperbolic tangent: ½ log(1 + 2 |x| / (1 − |x|)), with the sign of x."""
        one, size = self.like(1, x), self.abs(x)
        ratio = self.div(self.add(size, size), self.sub(one, size))
        inside = self.mul(self.like(0.5, x), self._log1p_inside(ratio))
        found = self.where(self.lt(size, one), inside, self.like(math.nan, x))
        return self.copysign(self.where(self.eq(size, one), self.like(math.inf, x), found), x)
