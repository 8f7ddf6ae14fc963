"""What a compiled kernel computes per element is said in these words: the `scalar` of an op asks a builder for them.

Knows no machine and no code: a backend brings a builder, and values of its own that carry an element type. What one
method emits computes one element or a whole vector of them; the op does not know which.

Floats are float32 or float64: 16-bit floats are computed in float32. `x.dtype` of a value tells which.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Protocol, TypeVar

import numpy as np


class ScalarValue(Protocol):
    """A value of one element type."""

    @property
    def dtype(self) -> np.dtype:
        """Its element type: float32, float64, an integer or bool."""
        ...


V = TypeVar("V", bound=ScalarValue)


class ScalarBuilder(Protocol[V]):
    """Emits the arithmetic of one element. All operands of a method share one element type."""

    @abstractmethod
    def like(self, number: float | bool, value: V, /) -> V:
        """A constant of the type of a value."""

    @abstractmethod
    def cast(self, x: V, dtype: np.dtype, /) -> V:
        """x in another element type, as NumPy's astype."""

    # --- arithmetic

    @abstractmethod
    def add(self, x: V, y: V, /) -> V:
        """x + y; of bools, or."""

    @abstractmethod
    def sub(self, x: V, y: V, /) -> V:
        """x - y."""

    @abstractmethod
    def mul(self, x: V, y: V, /) -> V:
        """x · y; of bools, and."""

    @abstractmethod
    def div(self, x: V, y: V, /) -> V:
        """x / y, of floats."""

    @abstractmethod
    def fma(self, x: V, y: V, z: V, /) -> V:
        """x · y + z, rounded once where the machine has an instruction for that."""

    @abstractmethod
    def neg(self, x: V, /) -> V:
        """-x."""

    @abstractmethod
    def abs(self, x: V, /) -> V:
        """|x|."""

    @abstractmethod
    def sign(self, x: V, /) -> V:
        """-1, 0 or 1; nan of nan."""

    @abstractmethod
    def maximum(self, x: V, y: V, /) -> V:
        """The larger; of floats nan where one is nan."""

    @abstractmethod
    def minimum(self, x: V, y: V, /) -> V:
        """The smaller; of floats nan where one is nan."""

    @abstractmethod
    def floor(self, x: V, /) -> V:
        """⌊x⌋."""

    @abstractmethod
    def ceil(self, x: V, /) -> V:
        """⌈x⌉."""

    @abstractmethod
    def round(self, x: V, /) -> V:
        """The nearest whole number, ties to even."""

    @abstractmethod
    def trunc(self, x: V, /) -> V:
        """x without its fraction."""

    @abstractmethod
    def floor_divide(self, x: V, y: V, /) -> V:
        """⌊x / y⌋; of integers 0 where y is 0."""

    @abstractmethod
    def remainder(self, x: V, y: V, /) -> V:
        """x - ⌊x / y⌋ · y, with the sign of y; of integers 0 where y is 0."""

    # --- comparisons and choices

    @abstractmethod
    def eq(self, x: V, y: V, /) -> V:
        """Is x = y?"""

    @abstractmethod
    def ne(self, x: V, y: V, /) -> V:
        """Is x ≠ y? True of nan."""

    @abstractmethod
    def lt(self, x: V, y: V, /) -> V:
        """Is x < y?"""

    @abstractmethod
    def le(self, x: V, y: V, /) -> V:
        """Is x ≤ y?"""

    @abstractmethod
    def gt(self, x: V, y: V, /) -> V:
        """Is x > y?"""

    @abstractmethod
    def ge(self, x: V, y: V, /) -> V:
        """Is x ≥ y?"""

    @abstractmethod
    def isnan(self, x: V, /) -> V:
        """Is x not a number? Of integers, no."""

    @abstractmethod
    def isinf(self, x: V, /) -> V:
        """Is x infinite? Of integers, no."""

    @abstractmethod
    def isfinite(self, x: V, /) -> V:
        """Is x neither infinite nor nan? Of integers, yes."""

    @abstractmethod
    def where(self, condition: V, x: V, y: V, /) -> V:
        """x where the condition holds, else y."""

    # --- bits of integers and bools

    @abstractmethod
    def and_(self, x: V, y: V, /) -> V:
        """x & y."""

    @abstractmethod
    def or_(self, x: V, y: V, /) -> V:
        """x | y."""

    @abstractmethod
    def xor(self, x: V, y: V, /) -> V:
        """x ^ y."""

    @abstractmethod
    def not_(self, x: V, /) -> V:
        """~x."""

    # --- powers and elementary functions, of floats

    @abstractmethod
    def sqrt(self, x: V, /) -> V:
        """√x."""

    @abstractmethod
    def rsqrt(self, x: V, /) -> V:
        """1 / √x."""

    @abstractmethod
    def pow(self, x: V, y: V, /) -> V:
        """x to the power y; of integers y ≥ 0, and the result wraps."""

    @abstractmethod
    def power(self, x: V, exponent: float, /) -> V:
        """x to a power known when the code is written."""

    @abstractmethod
    def exp(self, x: V, /) -> V:
        """eˣ."""

    @abstractmethod
    def exp2(self, x: V, /) -> V:
        """2ˣ."""

    @abstractmethod
    def expm1(self, x: V, /) -> V:
        """eˣ - 1."""

    @abstractmethod
    def log(self, x: V, /) -> V:
        """The natural logarithm."""

    @abstractmethod
    def log2(self, x: V, /) -> V:
        """The logarithm to base 2."""

    @abstractmethod
    def log10(self, x: V, /) -> V:
        """The logarithm to base 10."""

    @abstractmethod
    def log1p(self, x: V, /) -> V:
        """log(1 + x)."""

    @abstractmethod
    def sin(self, x: V, /) -> V:
        """The sine."""

    @abstractmethod
    def cos(self, x: V, /) -> V:
        """The cosine."""

    @abstractmethod
    def tan(self, x: V, /) -> V:
        """The tangent."""

    @abstractmethod
    def asin(self, x: V, /) -> V:
        """The arc sine."""

    @abstractmethod
    def acos(self, x: V, /) -> V:
        """The arc cosine."""

    @abstractmethod
    def atan(self, x: V, /) -> V:
        """The arc tangent."""

    @abstractmethod
    def atan2(self, y: V, x: V, /) -> V:
        """The angle of the point (x, y)."""

    @abstractmethod
    def sinh(self, x: V, /) -> V:
        """The hyperbolic sine."""

    @abstractmethod
    def cosh(self, x: V, /) -> V:
        """The hyperbolic cosine."""

    @abstractmethod
    def tanh(self, x: V, /) -> V:
        """The hyperbolic tangent."""

    @abstractmethod
    def asinh(self, x: V, /) -> V:
        """The inverse hyperbolic sine."""

    @abstractmethod
    def acosh(self, x: V, /) -> V:
        """The inverse hyperbolic cosine."""

    @abstractmethod
    def atanh(self, x: V, /) -> V:
        """The inverse hyperbolic tangent."""

    @abstractmethod
    def erf(self, x: V, /) -> V:
        """The error function."""

    @abstractmethod
    def sigmoid(self, x: V, /) -> V:
        """1 / (1 + e⁻ˣ)."""

    @abstractmethod
    def softplus(self, x: V, /) -> V:
        """log(1 + eˣ)."""

    @abstractmethod
    def log_sigmoid(self, x: V, /) -> V:
        """-log(1 + e⁻ˣ)."""
