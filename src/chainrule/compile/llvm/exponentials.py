"""The exponential function and what is made of it: hyperbolic functions, the sigmoid family, the error function."""

from __future__ import annotations

from chainrule import dtypes
from chainrule.compile.llvm import coefficients
from chainrule.compile.llvm.polynomials import LAYOUT, Polynomials
from chainrule.compile.llvm.values import Value

# Beyond these eˣ is 0 or inf; below the next ones eˣ − 1 is −1.
_UNDERFLOW = {dtypes.float32: -104.0, dtypes.float64: -746.0}
_OVERFLOW = {dtypes.float32: 90.0, dtypes.float64: 711.0}
_MINUS_ONE = {dtypes.float32: -20.0, dtypes.float64: -40.0}
_LOG2_E = 1.4426950408889634
_FAR_MIDDLE = {dtypes.float32: 2.5, dtypes.float64: 3.5}
_FAR_END = {dtypes.float32: 4.0, dtypes.float64: 6.0}


class Exponentials(Polynomials):
    """Functions of eˣ."""

    def _exponential(self, x: Value, low: Value | None = None) -> tuple[Value, Value, Value]:
        """(p, s, t) with e^(x + low) = p · s · t: x = n log 2 + f, |f| ≤ ½ log 2, p = eᶠ and s · t = 2ⁿ."""
        layout, (ln2, ln2_rest) = LAYOUT[x.dtype], coefficients.LN2_SHORT[x.dtype]
        x = self.maximum(self.minimum(x, self.like(_OVERFLOW[x.dtype], x)), self.like(_UNDERFLOW[x.dtype], x))
        shift = self.like(layout.whole + 2 * layout.bias, x)
        biased = self.fma(x, self.like(_LOG2_E, x), shift)
        n = self.sub(biased, shift)
        f = self.fma(n, self.like(-ln2, x), x)
        f = self.fma(n, self.like(-ln2_rest, x), f)
        if low is not None:
            f = self.add(f, low)
        one = self.like(1, x)
        p = self.fma(self.fma(self._polynomial(coefficients.EXP, x, f), f, one), f, one)
        return p, *self._two_factors(biased)

    def _two_factors(self, biased: Value) -> tuple[Value, Value]:
        """2ⁿ as two factors, of a number that holds n + 2 · bias in its lowest bits.

        Each is well inside the range of exponents, so that results beyond that range, subnormal ones too, come out by
        rounding.
        """
        places, bits = LAYOUT[biased.dtype].places, self.bits(biased)
        unsigned = self.reinterpret(bits, dtypes.uint32 if biased.dtype == dtypes.float32 else dtypes.uint64)
        half = self.shift_right(unsigned, 1)
        s, t = self.shift_left(half, places), self.shift_left(self.sub(unsigned, half), places)
        return self.from_bits(s, biased.dtype), self.from_bits(t, biased.dtype)

    def exp(self, x: Value) -> Value:
        """eˣ."""
        p, s, t = self._exponential(x)
        return self.mul(self.mul(p, s), t)

    def exp2(self, x: Value) -> Value:
        """2ˣ; of whole numbers exact."""
        layout = LAYOUT[x.dtype]
        bound = layout.bias + layout.places + 2.0
        x = self.maximum(self.minimum(x, self.like(bound, x)), self.like(-bound, x))
        shift = self.like(layout.whole + 2 * layout.bias, x)
        biased = self.add(x, shift)
        f = self.sub(x, self.sub(biased, shift))
        p = self.fma(self._polynomial(coefficients.EXP2, x, f), f, self.like(1, x))
        s, t = self._two_factors(biased)
        return self.mul(self.mul(p, s), t)

    def _small_power(self, x: Value) -> Value:
        """2ˣ of a number for which that is a normal number."""
        layout = LAYOUT[x.dtype]
        shift = self.like(layout.whole + layout.bias, x)
        biased = self.add(x, shift)
        f = self.sub(x, self.sub(biased, shift))
        p = self.fma(self._polynomial_in_two(coefficients.EXP2, x, f), f, self.like(1, x))
        return self.mul(p, self._exponent_bits(biased))

    def _half_expm1(self, x: Value) -> Value:
        """½ (eˣ − 1) = 2ⁿ⁻¹ (eᶠ − 1) + (2ⁿ⁻¹ − ½), |f| ≤ ½ log 2: the half of 2¹²⁸ is a number."""
        layout, (ln2, ln2_rest) = LAYOUT[x.dtype], coefficients.LN2_SHORT[x.dtype]
        shift = self.like(layout.whole + layout.bias - 1, x)
        biased = self.fma(x, self.like(_LOG2_E, x), shift)
        n = self.sub(biased, shift)
        f = self.fma(n, self.like(-ln2, x), x)
        f = self.fma(n, self.like(-ln2_rest, x), f)
        part = self.fma(self.mul(f, f), self._polynomial(coefficients.EXP, x, f), f)
        s = self._exponent_bits(biased)
        return self.fma(s, part, self.sub(s, self.like(0.5, x)))

    def expm1(self, x: Value) -> Value:
        """eˣ - 1."""
        inside = self.minimum(x, self.like(_OVERFLOW[x.dtype] - 1, x))
        half = self._half_expm1(self.maximum(inside, self.like(_MINUS_ONE[x.dtype], x)))
        return self.copysign(self.add(half, half), x)

    def tanh(self, x: Value) -> Value:
        """The hyperbolic tangent: (e²ˣ − 1) / (e²ˣ + 1)."""
        size = self.minimum(self.abs(x), self.like(-_MINUS_ONE[x.dtype] / 2, x))
        half = self._half_expm1(self.add(size, size))
        return self.copysign(self.div(half, self.add(half, self.like(1, x))), x)

    def _half_exp(self, size: Value) -> Value:
        p, s, t = self._exponential(size)
        return self.mul(self.mul(p, s), self.mul(t, self.like(0.5, size)))

    def sinh(self, x: Value) -> Value:
        """The hyperbolic sine."""
        half = self._half_exp(self.abs(x))
        far = self.sub(half, self.div(self.like(0.25, x), half))
        square = self.mul(x, x)
        near = self.fma(self.mul(x, square), self._polynomial(coefficients.SINH, x, square), x)
        return self.where(self.lt(self.abs(x), self.like(1, x)), near, self.copysign(far, x))

    def cosh(self, x: Value) -> Value:
        """The hyperbolic cosine."""
        half = self._half_exp(self.abs(x))
        return self.add(half, self.div(self.like(0.25, x), half))

    # --- the sigmoid family

    def sigmoid(self, x: Value) -> Value:
        """1 / (1 + e⁻ˣ); for x < 0 as eˣ / (1 + eˣ), which keeps eˣ's last bits."""
        one, zero = self.like(1, x), self.like(0, x)
        u = self.exp(self.neg(self.abs(x)))
        return self.div(self.where(self.lt(x, zero), u, one), self.add(one, u))

    def _log1p_exp(self, x: Value) -> Value:
        """log(1 + eˣ) for x ≤ 0."""
        u = self.exp(x)
        return self.fma(self.mul(u, u), self._polynomial(coefficients.LOG1P, x, u), u)

    def softplus(self, x: Value) -> Value:
        """log(1 + eˣ) = max(x, 0) + log(1 + e^−|x|)."""
        return self.add(self.maximum(x, self.like(0, x)), self._log1p_exp(self.neg(self.abs(x))))

    def log_sigmoid(self, x: Value) -> Value:
        """-log(1 + e⁻ˣ)."""
        return self.sub(self.minimum(x, self.like(-0.0, x)), self._log1p_exp(self.neg(self.abs(x))))

    def erf(self, x: Value) -> Value:
        """The error function: a polynomial near 0; beyond 1 one minus an exponential of a polynomial."""
        near = self.fma(self._polynomial_in_two(coefficients.ERF_NEAR, x, self.mul(x, x)), x, x)
        size = self.minimum(self.abs(x), self.like(_FAR_END[x.dtype], x))
        power = self._polynomial_in_two(coefficients.ERF_FAR, x, self.sub(size, self.like(_FAR_MIDDLE[x.dtype], x)))
        far = self.sub(self.like(1, x), self._small_power(power))
        return self.where(self.lt(self.abs(x), self.like(1, x)), near, self.copysign(far, x))
