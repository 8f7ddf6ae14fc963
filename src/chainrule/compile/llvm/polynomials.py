"""What the elementary functions are made of: polynomials, and products whose rounding error is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from chainrule import dtypes
from chainrule.compile.llvm import coefficients
from chainrule.compile.llvm.conversions import Conversions
from chainrule.compile.llvm.values import Value


class Layout(NamedTuple):
    """How a float is laid out: its bits behind the point, and the exponent field of 1."""

    places: int
    bias: int

    @property
    def whole(self) -> float:
        """Adding this rounds to a whole number, which then stands in the lowest bits."""
        return 1.5 * 2.0**self.places

    @property
    def smallest(self) -> float:
        """The least number of full precision."""
        return float(2.0 ** (1 - self.bias))


LAYOUT = {dtypes.float32: Layout(23, 127), dtypes.float64: Layout(52, 1023)}


class Polynomials(Conversions):
    """Steps that several functions share."""

    def _polynomial(self, table: coefficients.Table, x: Value, z: Value) -> Value:
        """The polynomial of x's element type at z, by Horner's scheme: the fewest operations."""
        return self._horner(table[x.dtype], z)

    def _polynomial_in_two(self, table: coefficients.Table, x: Value, z: Value) -> Value:
        """The same, the even powers beside the odd ones: two operations more, and half as long to wait.

        For what is a long chain otherwise, of which a processor cannot hold several vectors' at a time. Where x · y + z
        is rounded twice, it would be less exact.
        """
        if not self._has_fma:
            return self._polynomial(table, x, z)
        square, numbers = self.mul(z, z), table[x.dtype]
        even, odd = (self._horner(numbers[start::2], square) for start in (0, 1))
        return self.fma(odd, z, even)

    def _horner(self, numbers: Sequence[float], z: Value) -> Value:
        found = self.like(numbers[-1], z)
        for c in reversed(numbers[:-1]):
            found = self.fma(found, z, self.like(c, z))
        return found

    def _product(self, x: Value, y: Value) -> tuple[Value, Value]:
        """x · y and what rounding took from it. Source: Dekker (1971), Numerische Mathematik 18, 224-242."""
        high = self.mul(x, y)
        if self._has_fma:
            return high, self.fma(x, y, self.neg(high))
        (a, b), (c, d) = self._split(x), self._split(y)
        error = self.sub(self.mul(a, c), high)
        error = self.add(self.add(error, self.mul(a, d)), self.mul(b, c))
        return high, self.add(error, self.mul(b, d))

    def _split(self, x: Value) -> tuple[Value, Value]:
        """x as a sum of two numbers of half its bits."""
        scaled = self.mul(x, self.like(2.0 ** ((LAYOUT[x.dtype].places + 2) // 2) + 1, x))
        high = self.sub(scaled, self.sub(scaled, x))
        return high, self.sub(x, high)

    def _minus_product(self, x: Value, n: Value, c: Value) -> Value:
        """x - n · c where that nearly cancels, on any target as if rounded once."""
        if self._has_fma:
            return self.fma(self.neg(n), c, x)
        high, low = self._product(n, c)
        low = self.where(self.lt(self.abs(high), self.like(1e18, x)), low, self.like(0, x))  # nan of huge numbers
        return self.sub(self.sub(x, high), low)

    def _sum(self, large: Value, small: Value) -> tuple[Value, Value]:
        """large + small and what rounding took from it; |large| ≥ |small|."""
        high = self.add(large, small)
        return high, self.sub(small, self.sub(high, large))

    def _exponent_bits(self, whole: Value) -> Value:
        """2ⁿ of a number that holds n + bias in its lowest bits."""
        return self.from_bits(self.shift_left(self.bits(whole), LAYOUT[whole.dtype].places), whole.dtype)
