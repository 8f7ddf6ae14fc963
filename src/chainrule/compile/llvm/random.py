"""Random numbers as code: Philox4x32-10, the same stream that `ops/source.py` draws from.

Every lane makes the block that its own number stands in, and takes its word: no lane waits for another, and any part of
a stream can be drawn anywhere. Where four vectors of neighbours are wanted at once, each lane makes another block, and
its four words are dealt out: a quarter of the work.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.compile.llvm.builder import Builder, Value
from chainrule.core.affine import Affine
from chainrule.ops.source import MULTIPLIERS, WEYL


def drawn(
    b: Builder,
    kind: str,
    key: tuple[Value, Value],
    number: Value,
    count: int,
    params: Mapping[str, Any],
    dtype: np.dtype,
) -> Value:
    """Entry `number` (int64) of `count` numbers of a kind, from a seed and a counter (int64 scalars)."""
    work = dtypes.work_dtype(dtype)
    if kind == "rand":
        return _rounded(b, _uniform(b, key, number, work), dtype)
    if kind == "randn":
        return _rounded(b, _normal(b, key, number, count, work), dtype)
    u = _uniform(b, key, number, dtypes.float64)
    low, high = params["low"], params["high"]
    steps = b.floor(b.mul(u, b.like(float(high - low), u)))
    return b.cast(b.add(b.cast(steps, dtypes.int64), b.constant(low, dtypes.int64, steps.lanes)), dtype)


TOGETHER = 4  # vectors that the words of one vector of blocks make


def are_quads(kind: str, dtype: np.dtype, number: Affine, vector: int | None, lanes: int) -> bool:
    """Are the numbers of four vectors of neighbours all the words of some blocks, wherever they begin?"""
    if kind != "rand" or dtypes.work_dtype(dtype) != dtypes.float32 or vector is None or lanes % 4 or not lanes:
        return False
    others = [number.constant, *(c for v, c in number.terms if v != vector)]
    return number.coefficient(vector) == 1 and not any(n % 4 for n in others)


def drawn_together(b: Builder, key: tuple[Value, Value], first: Value, lanes: int, dtype: np.dtype) -> list[Value]:
    """Four vectors of uniform numbers, from number `first` on (an int64 scalar, a multiple of four)."""
    block = b.spread(b.shift_right(first, 2), lanes)
    words = _block(b, key, b.add(block, b.iota(dtypes.int64, lanes)))
    found = []
    for number in range(TOGETHER):
        places = [divmod(number * lanes + lane, 4) for lane in range(lanes)]  # (block, word) of each lane
        early = b.shuffle(words[0], words[1], [j + lanes * w if w < 2 else j for j, w in places])
        late = b.shuffle(words[2], words[3], [j + lanes * (w - 2) if w > 1 else j for j, w in places])
        word = b.shuffle(early, late, [lane + lanes * (w > 1) for lane, (_, w) in enumerate(places)])
        found.append(_rounded(b, _fraction(b, word), dtype))
    return found


def _rounded(b: Builder, x: Value, dtype: np.dtype) -> Value:
    return b.cast(x, dtype) if dtypes.work_dtype(dtype) != dtype else x


def _normal(b: Builder, key: tuple[Value, Value], number: Value, count: int, work: np.dtype) -> Value:
    """Box and Muller, as ops/source.py: entries of the first half are cosines, of the second sines."""
    half = -(-count // 2)
    second = b.ge(number, b.like(half, number))
    pair = b.where(second, b.sub(number, b.like(half, number)), number)
    u0 = _uniform(b, key, pair, work)
    u1 = _uniform(b, key, b.add(pair, b.like(half, pair)), work)
    radius = b.sqrt(b.mul(b.like(-2.0, u0), b.log1p(b.neg(u0))))
    angle = b.mul(b.like(2 * math.pi, u1), u1)
    return b.mul(radius, b.where(second, b.sin(angle), b.cos(angle)))


def _uniform(b: Builder, key: tuple[Value, Value], number: Value, work: np.dtype) -> Value:
    """Uniform on 0 ≤ u < 1: the top 24 bits of one word, or for float64 53 bits of two."""
    if work == dtypes.float64:
        words = _block(b, key, b.shift_right(number, 1))
        later = b.ne(b.and_(number, b.like(1, number)), b.like(0, number))
        high = b.cast(b.where(later, words[2], words[0]), dtypes.uint64)
        low = b.cast(b.where(later, words[3], words[1]), dtypes.uint64)
        bits = b.shift_right(b.or_(b.shift_left(high, 32), low), 11)
        return b.mul(b.cast(b.reinterpret(bits, dtypes.int64), dtypes.float64), b.constant(2.0**-53, work, bits.lanes))
    words = _block(b, key, b.shift_right(number, 2))
    place = b.cast(b.and_(number, b.like(3, number)), dtypes.int32)
    odd = b.ne(b.and_(place, b.like(1, place)), b.like(0, place))
    late = b.ge(place, b.like(2, place))
    word = b.where(late, b.where(odd, words[3], words[2]), b.where(odd, words[1], words[0]))
    return _fraction(b, word)


def _fraction(b: Builder, word: Value) -> Value:
    """The top 24 bits of a word, as a float32 from 0 to below 1."""
    bits = b.reinterpret(b.shift_right(word, 8), dtypes.int32)
    return b.mul(b.cast(bits, dtypes.float32), b.constant(2.0**-24, dtypes.float32, bits.lanes))


def _block(b: Builder, key: tuple[Value, Value], number: Value) -> tuple[Value, Value, Value, Value]:
    """The four words (uint32) of a block of the stream."""
    seed, counter = (b.reinterpret(k, dtypes.uint64) for k in key)
    at = b.add(b.spread(counter, number.lanes), b.reinterpret(number, dtypes.uint64))
    c0, c1 = b.cast(at, dtypes.uint32), b.cast(b.shift_right(at, 32), dtypes.uint32)
    c2 = c3 = b.like(0, c0)
    k0, k1 = b.cast(seed, dtypes.uint32), b.cast(b.shift_right(seed, 32), dtypes.uint32)
    for _ in range(10):
        high0, low0 = b.multiply_high(c0, b.like(MULTIPLIERS[0], c0))
        high1, low1 = b.multiply_high(c2, b.like(MULTIPLIERS[1], c2))
        c0, c1, c2, c3 = b.xor(b.xor(high1, c1), k0), low1, b.xor(b.xor(high0, c3), k1), low0
        k0, k1 = b.add(k0, b.like(WEYL[0], k0)), b.add(k1, b.like(WEYL[1], k1))
    return c0, c1, c2, c3
