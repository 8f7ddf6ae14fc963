"""Positions: a number plus variables times numbers.

Knows the arithmetic of such sums, and how far they reach. What a variable counts, and what a position is a position in,
is for others to say: in an op's `origin` it is a dimension of the output, in a compiled kernel a loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple


class Affine(NamedTuple):
    """constant + Σ coefficient · variable; terms sorted by variable, no coefficient 0.

    >>> str(Affine.of(3) + Affine.variable(0) * 10)
    '10 v0 + 3'
    """

    constant: int = 0
    terms: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, constant: int) -> Affine:
        """A number."""
        return cls(constant, ())

    @classmethod
    def variable(cls, number: int) -> Affine:
        """One variable."""
        return cls(0, ((number, 1),))

    @classmethod
    def total(cls, parts: Iterable[tuple[Affine, int]]) -> Affine:
        """Σ affine · factor."""
        constant, terms = 0, {}  # type: int, dict[int, int]
        for affine, factor in parts:
            constant += affine.constant * factor
            for v, c in affine.terms:
                terms[v] = terms.get(v, 0) + c * factor
        return cls(constant, tuple(sorted((v, c) for v, c in terms.items() if c)))

    def __add__(self, other: Affine | int) -> Affine:  # type: ignore[override]
        if isinstance(other, int):
            return Affine(self.constant + other, self.terms)
        return Affine.total(((self, 1), (other, 1)))

    def __sub__(self, other: Affine) -> Affine:
        return Affine.total(((self, 1), (other, -1)))

    def __mul__(self, factor: int) -> Affine:  # type: ignore[override]
        return self if factor == 1 else Affine.total(((self, factor),))

    def coefficient(self, variable: int) -> int:
        """How much one step of the variable moves this position."""
        return next((c for v, c in self.terms if v == variable), 0)

    def replaced(self, by: Mapping[int, Affine]) -> Affine:
        """With other positions in place of some variables."""
        if len(self.terms) == 1:  # as most are
            ((v, c),) = self.terms
            return by[v] * c + self.constant if v in by else self
        if not any(v in by for v, _ in self.terms):
            return self
        moved = [(by.get(v, Affine.variable(v)), c) for v, c in self.terms]
        return Affine.total([(Affine.of(self.constant), 1), *moved])

    def range(self, extents: Mapping[int, int]) -> tuple[int, int]:
        """The least and the greatest value while each variable runs over 0 … extent - 1."""
        return self.between([(0, extents[v] - 1) for v, _ in self.terms])

    def between(self, reaches: Iterable[tuple[int, int]]) -> tuple[int, int]:
        """The least and the greatest value while the variable of each term keeps between two values."""
        low = high = self.constant
        for (_, c), (least, most) in zip(self.terms, reaches, strict=True):
            low, high = low + min(c * least, c * most), high + max(c * least, c * most)
        return low, high

    def __str__(self) -> str:
        parts = [f"{c} v{v}" if c != 1 else f"v{v}" for v, c in self.terms]
        if self.constant or not parts:
            parts.append(str(self.constant))
        return " + ".join(parts)
