"""Powers, of floats and of integers."""

from __future__ import annotations

import math

from chainrule import dtypes
from chainrule.compile.llvm import coefficients
from chainrule.compile.llvm.exponentials import Exponentials
from chainrule.compile.llvm.logarithms import Logarithms
from chainrule.compile.llvm.values import Value

# Up to this exponent a power is made of products; it loses half an ulp by each.
_LARGEST_PRODUCT = 4


class Powers(Exponentials, Logarithms):
    """x to the power y."""

    def rsqrt(self, x: Value) -> Value:
        """1 / √x, as NumPy computes it: rounded twice."""
        return self.div(self.like(1, x), self.sqrt(x))

    def power(self, x: Value, exponent: float) -> Value:
        """x to a power known when the code is written: products and roots where that is as exact."""
        if not dtypes.is_float(x.dtype):
            return self._whole_power(x, int(exponent))
        size = abs(exponent)
        if size > _LARGEST_PRODUCT or 2 * size != int(2 * size):
            return self.pow(x, self.like(exponent, x))
        if exponent == 0.5:
            return self.sqrt(x)  # as NumPy and PyTorch, of -inf too
        found = self._whole_power(x, int(size))
        if size != int(size):
            # √-0 is -0 and √-inf is nan, but as powers they are 0 and inf.
            root = self.add(self.sqrt(x), self.like(0, x))
            root = self.where(self.eq(x, self.like(-math.inf, x)), self.like(math.inf, x), root)
            found = root if size == 0.5 else self.mul(self.abs(found), root)
        return self.div(self.like(1, x), found) if exponent < 0 else found

    def _whole_power(self, x: Value, exponent: int) -> Value:
        """xⁿ, n ≥ 0, by repeated squaring; integers wrap."""
        found: Value | None = None
        while exponent:
            if exponent % 2:
                found = x if found is None else self.mul(found, x)
            exponent //= 2
            if exponent:
                x = self.mul(x, x)
        return self.like(1, x) if found is None else found

    def pow(self, x: Value, y: Value) -> Value:
        """x to the power y: exp(y log |x|), with the sign and the special cases of C's pow.

        Of integers y ≥ 0, and the result wraps.
        """
        x, y = self._alike(x, y)
        if not dtypes.is_float(x.dtype):
            return self._integer_pow(x, y)
        size = self.abs(x)
        return self._signed_power(x, size, y, self._pow_of_size(size, y))

    def _signed_power(self, x: Value, size: Value, y: Value, found: Value) -> Value:
        zero, one = self.like(0, x), self.like(1, x)
        whole = self.eq(self.trunc(y), y)
        half = self.mul(y, self.like(0.5, y))
        odd = self.and_(whole, self.ne(self.trunc(half), half))
        found = self.where(odd, self.copysign(found, x), found)
        imaginary = self.and_(self.lt(x, zero), self.and_(self.not_(whole), self.isfinite(x)))
        found = self.where(imaginary, self.like(math.nan, x), found)
        unknown = self.or_(self.isnan(x), self.isnan(y))
        found = self.where(unknown, self.like(math.nan, x), found)
        # (-1)^±inf, x⁰ and 1^y are 1, even if the other is nan.
        unit = self.and_(self.eq(size, one), self.eq(self.abs(y), self.like(math.inf, y)))
        unit = self.or_(unit, self.or_(self.eq(y, zero), self.eq(x, one)))
        return self.where(unit, one, found)

    def _pow_of_size(self, size: Value, y: Value) -> Value:
        """size^y for size ≥ 0, the logarithm in two parts: its error is multiplied by y log size."""
        log, log_rest = self._log_in_two(size)
        product, rest = self._product(y, log)
        rest = self.fma(y, log_rest, rest)
        # Where the logarithm or the product is infinite, the rest is nan.
        finite = self.lt(self.abs(product), self.like(1e4, y))
        p, s, t = self._exponential(product, self.where(finite, rest, self.like(0, y)))
        return self.mul(self.mul(p, s), t)

    def _log_in_two(self, x: Value) -> tuple[Value, Value]:
        """log x as a sum of two, with some 11 bits more than one has: log m = 2 s + ⅔ s³ + …, s = (m − 1) / (m + 1)."""
        one, two = self.like(1, x), self.like(2, x)
        e, m, _ = self._exponent_and_rest(x)
        f = self.sub(m, one)
        below, below_rest = self._sum(two, f)
        s = self.div(f, below)
        product, product_rest = self._product(s, below)
        left = self.sub(self.sub(self.sub(f, product), product_rest), self.mul(s, below_rest))
        s_rest = self.div(left, below)
        # z = s², in two parts, then c = ⅔ + z P(z).
        z, z_rest = self._product(s, s)
        z_rest = self.fma(self.add(s, s), s_rest, z_rest)
        third, third_rest = coefficients.TWO_THIRDS[x.dtype]
        c, c_rest = self._sum(self.like(third, x), self.mul(z, self._polynomial(coefficients.LOG_TAIL, x, z)))
        c_rest = self.add(c_rest, self.like(third_rest, x))
        # ⅔ s³ + … = s z c
        w, w_rest = self._product(z, c)
        w_rest = self.fma(z, c_rest, self.fma(z_rest, c, w_rest))
        v, v_rest = self._product(s, w)
        v_rest = self.fma(s, w_rest, self.fma(s_rest, w, v_rest))
        # e log 2 + 2 s + s z c, largest first.
        ln2, ln2_rest = coefficients.LN2_SHORT[x.dtype]
        total, rest = self._any_sum(self.mul(e, self.like(ln2, x)), self.mul(s, two))
        total, more = self._any_sum(total, v)
        rest = self.add(self.add(rest, more), self.fma(s_rest, two, v_rest))
        rest = self.add(rest, self.mul(e, self.like(ln2_rest, x)))
        total, rest = self._sum(total, rest)
        infinite = self.where(self.eq(x, self.like(0, x)), self.like(-math.inf, x), x)
        special = self.or_(self.eq(x, self.like(0, x)), self.eq(x, self.like(math.inf, x)))
        return self.where(special, infinite, total), rest

    def _any_sum(self, x: Value, y: Value) -> tuple[Value, Value]:
        """x + y and what rounding took from it. Source: Knuth, The Art of Computer Programming 2, section 4.2.2."""
        high = self.add(x, y)
        back = self.sub(high, x)
        return high, self.add(self.sub(x, self.sub(high, back)), self.sub(y, back))

    def _integer_pow(self, x: Value, y: Value) -> Value:
        """A product of the x^(2^k) for the bits k that are set in y."""
        one = self.like(1, x)
        found = one
        for k in range(8 * y.dtype.itemsize):
            bit = self.and_(self.shift_right(y, k), self.like(1, y))
            found = self.where(self.ne(bit, self.like(0, y)), self.mul(found, x), found)
            x = self.mul(x, x)
        return found
