"""Values from no inputs: fills, ranges, and random bits, which depend on a key alone: a seed and a counter.

Random numbers are Philox4x32-10: block number `counter + i` of the stream of `seed`, mixed ten times, gives four 32-bit
words. Nothing is carried from one number to the next, so any slice of any stream can be made again, on any machine,
by any engine, in any order. The key is an input, int64[2], since it is another at each step of a compiled program; the
op draws from `offset` blocks beyond its counter. NumPy's own Philox works on 64-bit words and its normal numbers take a
varying count of them; neither can be remade inside a compiled vector loop, which is why this one is written out here.

Source: Salmon, Moraes, Dror, Shaw (2011), Parallel random numbers: as easy as 1, 2, 3.
https://doi.org/10.1145/2063384.2063405; the known-answer vectors of its Random123 library are in the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from chainrule import dtypes
from chainrule.core.alignment import aligned_empty
from chainrule.core.aval import Aval
from chainrule.core.family import Source
from chainrule.core.notation import Notation
from chainrule.core.sample import Misuse, Sample, ints
from chainrule.errors import DTypeError, ShapeError

Shape = tuple[int, ...]

# Of Philox4x32.
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)


def philox(blocks: np.ndarray, seed: int) -> np.ndarray:
    """Philox4x32-10 of each block number.

    Args:
        blocks: (n, 4) uint64 holding 32-bit words: the counter, lowest word first.
        seed: 0 ≤ seed < 2⁶⁴, the key.
    Returns: (n, 4) uint32, independent and uniform.
    """
    c0, c1, c2, c3 = (blocks[:, i] for i in range(4))
    k0, k1 = seed & 0xFFFFFFFF, seed >> 32
    for _ in range(10):
        p0, p1 = c0 * np.uint64(MULTIPLIERS[0]), c2 * np.uint64(MULTIPLIERS[1])
        c0, c1, c2, c3 = (
            (p1 >> _SHIFT) ^ c1 ^ np.uint64(k0), p1 & _LOW, (p0 >> _SHIFT) ^ c3 ^ np.uint64(k1), p0 & _LOW,
        )  # fmt: skip
        k0, k1 = (k0 + WEYL[0]) & 0xFFFFFFFF, (k1 + WEYL[1]) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=1).astype(np.uint32)


def blocks_for(count: int, words: int) -> int:
    """Blocks of four words that `count` numbers of `words` words each take."""
    return -(-count * words // 4)


def _words(count: int, seed: int, counter: int) -> np.ndarray:
    """The first `count` 32-bit words of the stream `seed`, from block `counter` on."""
    n = blocks_for(count, 1)
    number = np.arange(counter, counter + n, dtype=np.uint64)
    zero = np.zeros(n, np.uint64)
    return philox(np.stack([number & _LOW, number >> _SHIFT, zero, zero], axis=1), seed).reshape(-1)[:count]


def _size(shape: Shape) -> int:
    return Aval(tuple(shape), dtypes.float32).size


def _uniform(count: int, dtype: np.dtype, seed: int, counter: int) -> np.ndarray:
    """Uniform on 0 ≤ u < 1: the top 24 bits of one word, or for float64 53 bits of two."""
    if dtype == dtypes.float64:
        pairs = _words(2 * count, seed, counter).reshape(-1, 2).astype(np.uint64)
        return ((pairs[:, 0] << _SHIFT | pairs[:, 1]) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    work = (_words(count, seed, counter) >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)
    return work.astype(dtype)


def _normal(count: int, dtype: np.dtype, seed: int, counter: int) -> np.ndarray:
    """Standard normal by Box and Muller: two uniforms give two normals, so every number has its place in the stream."""
    work = dtypes.work_dtype(dtype)
    half = -(-count // 2)
    u = _uniform(2 * half, work, seed, counter).reshape(2, half)
    radius = np.sqrt(work.type(-2) * np.log1p(-u[0]))  # 1 - u lies in (0, 1]: its logarithm is finite
    angle = work.type(2 * np.pi) * u[1]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count].astype(dtype)


def key_of(seed: int, counter: int) -> np.ndarray:
    """The key that draws from block `counter` of the stream of `seed`, 0 ≤ seed < 2⁶⁴."""
    return np.array([seed, counter], np.uint64).view(np.int64)


def _place(key: np.ndarray, offset: int) -> tuple[int, int]:
    """(seed, counter) of a key and an offset."""
    seed, counter = key.tolist()
    return seed & 0xFFFFFFFFFFFFFFFF, counter + offset


def _full_kernel(*, shape: Shape, dtype: np.dtype, value: float) -> np.ndarray:
    filled = aligned_empty(tuple(shape), dtype)
    np.copyto(filled, value, casting="unsafe")
    return filled


def _rand_kernel(key: np.ndarray, *, shape: Shape, dtype: np.dtype, offset: int) -> np.ndarray:
    return _uniform(_size(shape), dtype, *_place(key, offset)).reshape(shape)


def _randn_kernel(key: np.ndarray, *, shape: Shape, dtype: np.dtype, offset: int) -> np.ndarray:
    return _normal(_size(shape), dtype, *_place(key, offset)).reshape(shape)


def _randint_kernel(key: np.ndarray, *, shape: Shape, dtype: np.dtype, offset: int, low: int, high: int) -> np.ndarray:
    # 53 bits scaled to the range: the bias is at most range / 2⁵³.
    u = _uniform(_size(shape), dtypes.float64, *_place(key, offset))
    drawn: np.ndarray = np.floor(u * (high - low)).astype(np.int64) + low
    return drawn.astype(dtype).reshape(shape)


def _shaped(name: str) -> Callable[..., Aval]:
    def aval_rule(*, shape: Shape, dtype: np.dtype, **params: object) -> Aval:
        if any(n < 0 for n in shape):
            raise ShapeError(f"{name}: sizes must not be negative; got {list(shape)}")
        return Aval(tuple(shape), dtype)

    return aval_rule


_KEY = Aval((2,), dtypes.int64)


def _drawn(name: str) -> Callable[..., Aval]:
    shaped = _shaped(name)

    def aval_rule(key: Aval, **params: object) -> Aval:
        if key != _KEY:
            raise DTypeError(f"{name}: the key must be {_KEY}, a seed and a counter; got {key}")
        return shaped(**params)

    return aval_rule


def _written(name: str, arguments: str) -> Notation:
    return Notation(
        text=f"{name}({arguments})", latex=rf"\operatorname{{{{{name}}}}}\left({arguments}\right)",
        code=f"cr.{name}({arguments})", numpy="",
    )  # fmt: skip


_RANDOM = (
    {"shape": (3, 5), "dtype": dtypes.float64, "offset": 0},
    {"shape": (4,), "dtype": dtypes.float32, "offset": 9},
)
_A_KEY = ints(2, high=1000)
_WRONG_KEY = (
    Misuse((ints(3),), {"shape": (1,), "dtype": dtypes.float32, "offset": 0}, DTypeError, "a seed and a counter"),
)

rand = Source(
    name="rand",
    reference=_rand_kernel,
    aval_rule=_drawn("rand"),
    notation=_written("rand", "{shape}"),
    samples=tuple(Sample((_A_KEY,), params) for params in _RANDOM),
    misuses=_WRONG_KEY,
)
randn = Source(
    name="randn",
    reference=_randn_kernel,
    aval_rule=_drawn("randn"),
    notation=_written("randn", "{shape}"),
    samples=tuple(Sample((_A_KEY,), params) for params in _RANDOM),
    misuses=_WRONG_KEY,
)
randint = Source(
    name="randint",
    reference=_randint_kernel,
    aval_rule=_drawn("randint"),
    notation=_written("randint", "{low}, {high}, {shape}"),
    samples=(Sample((_A_KEY,), {"shape": (6,), "dtype": dtypes.int64, "offset": 2, "low": -2, "high": 5}),),
)
full = Source(
    name="full",
    reference=_full_kernel,
    aval_rule=_shaped("full"),
    notation=_written("full", "{shape}, {value}"),
    samples=(Sample((), {"shape": (2, 3), "dtype": dtypes.float32, "value": 0.5}),),
    misuses=(Misuse((), {"shape": (-1,), "dtype": dtypes.float32, "value": 0.0}, ShapeError, "must not be negative"),),
)


def _range_aval(*, start: float, stop: float, step: float, dtype: np.dtype) -> Aval:
    return Aval((max(0, int(np.ceil((stop - start) / step))),), dtype)


def _range_form(form: str) -> Callable[..., str]:
    """arange(5) of what starts at 0 and goes up by 1."""

    def template(avals: object, params: Mapping[str, object]) -> str:
        counts = params["start"] == 0 and params["step"] == 1
        return form.format(range="{stop}" if counts else "{start}, {stop}, {step}")

    return template


arange = Source(
    name="arange",
    reference=lambda *, start, stop, step, dtype: (
        start + step * np.arange(_range_aval(start=start, stop=stop, step=step, dtype=dtype).shape[0])
    ).astype(dtype),
    aval_rule=_range_aval,
    notation=Notation(
        text=_range_form("arange({range})"),
        latex=_range_form(r"\operatorname{{{{arange}}}}\left({range}\right)"),
        code=_range_form("cr.arange({range})"),
        numpy=_range_form("np.arange({range})"),
    ),
    samples=(
        Sample((), {"start": 0, "stop": 5, "step": 1, "dtype": dtypes.int64}),
        Sample((), {"start": 1.0, "stop": 2.0, "step": 0.25, "dtype": dtypes.float64}),
    ),
)

ALL = (rand, randn, randint, full, arange)
