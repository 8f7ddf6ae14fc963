"""Making tensors: from data, filled, and random with a seed."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.array import align
from chainrule.array.align import check_device
from chainrule.core.alignment import aligned_copy
from chainrule.core.family import Source
from chainrule.core.node import NO_PARAMS, apply, at_user_line
from chainrule.core.provenance import capture
from chainrule.core.tracing import tracer
from chainrule.errors import ArgumentError, ChainruleError, DTypeError
from chainrule.ops import source
from chainrule.tensor import Tensor

# --- from data


def tensor(data: Any, dtype: object = None, requires_grad: bool = False, *, device: object = None) -> Tensor:
    """A tensor with a copy of `data`: a number, nested lists, a NumPy array, or anything with `__array__`.

    Python floats become float32, Python ints int64; arrays keep their dtype.

    Raises: DTypeError: the data is not numeric, or an integer tensor is to have a gradient.
    """
    check_device("tensor", device)
    return _leaf(_array(data, dtype, copy=True), requires_grad)


def asarray(data: Any, dtype: object = None, *, device: object = None) -> Tensor:
    """A tensor of `data`, sharing its memory where that is possible (see `from_numpy`)."""
    check_device("asarray", device)
    return data if isinstance(data, Tensor) and dtype is None else _leaf(_array(data, dtype, copy=False), False)


def as_tensor(data: Any, dtype: object = None, *, device: object = None) -> Tensor:
    """A tensor of `data`, sharing its memory where that is possible: PyTorch's name for `asarray`."""
    return asarray(data, dtype, device=device)


def from_numpy(array: np.ndarray) -> Tensor:
    """A tensor that shares memory with a NumPy array: a change of one is a change of the other.

    What is written into the array changes the tensor unseen: a backward pass that needs the old value is wrong, and no
    error. `cr.tensor(array)` copies.
    """
    if not isinstance(array, np.ndarray):
        raise at_user_line(DTypeError(f"from_numpy: expected a NumPy array; got {type(array).__name__}; use cr.tensor"))
    align.as_dtype(array.dtype)
    return _leaf(array, False)


def _array(data: Any, dtype: object, copy: bool) -> np.ndarray:
    if isinstance(data, Tensor):
        data = data.detach().numpy()
    elif isinstance(data, list | tuple) and any(isinstance(x, Tensor) for x in data):
        data = [x.detach().numpy() if isinstance(x, Tensor) else x for x in data]
    from_array = hasattr(data, "dtype")
    try:
        array = np.asarray(data)
    except ValueError:
        raise at_user_line(
            DTypeError("tensor: expected nested lists of one shape; these have unequal lengths")
        ) from None
    try:
        if not array.dtype.isnative:
            array = array.astype(array.dtype.newbyteorder("="))
        given = dtypes.as_dtype(array.dtype)
    except DTypeError:
        raise at_user_line(
            DTypeError(
                f"tensor: expected real numbers, or nested lists of them; got {type(data).__name__} of {array.dtype}"
            )
        ) from None
    if dtype is not None:
        wanted = align.as_dtype(dtype)
    else:
        wanted = dtypes.DEFAULT_FLOAT if not from_array and given == dtypes.float64 else given
    if array.dtype != wanted or (copy and from_array):
        return aligned_copy(array, wanted)
    return array


def _leaf(array: np.ndarray, requires_grad: bool) -> Tensor:
    leaf = Tensor.leaf(array, trail=capture(3))
    return leaf.requires_grad_() if requires_grad else leaf


# --- filled


def full(
    *shape: Any, fill_value: Any = None, dtype: object = None, requires_grad: bool = False, device: object = None
) -> Tensor:
    """Every entry `fill_value`; the shape is one tuple."""
    check_device("full", device)
    if fill_value is None:
        if len(shape) != 2:
            raise at_user_line(ArgumentError("full: expected a shape and a value, full((2, 3), 1.0)"))
        fill_value = shape[1]
        shape = shape[:1]
    if isinstance(fill_value, Tensor):
        fill_value = fill_value.item()
    wanted = align.as_dtype(dtype) if dtype is not None else dtypes.as_dtype(type(fill_value))
    return _made(source.full, requires_grad, shape=align.sizes(shape), dtype=wanted, value=fill_value)


def zeros(
    *shape: Any, dtype: object = dtypes.DEFAULT_FLOAT, requires_grad: bool = False, device: object = None
) -> Tensor:
    """Every entry 0; the shape is given as ints or as one tuple."""
    check_device("zeros", device)
    return _made(source.full, requires_grad, shape=align.sizes(shape), dtype=align.as_dtype(dtype), value=0)


def ones(
    *shape: Any, dtype: object = dtypes.DEFAULT_FLOAT, requires_grad: bool = False, device: object = None
) -> Tensor:
    """Every entry 1; the shape is given as ints or as one tuple."""
    check_device("ones", device)
    return _made(source.full, requires_grad, shape=align.sizes(shape), dtype=align.as_dtype(dtype), value=1)


def empty(
    *shape: Any, dtype: object = dtypes.DEFAULT_FLOAT, requires_grad: bool = False, device: object = None
) -> Tensor:
    """Entries that are to be written over; here they are 0, so that forgetting it shows the same everywhere."""
    return zeros(*shape, dtype=dtype, requires_grad=requires_grad, device=device)


def empty_like(x: Tensor, dtype: object = None, *, requires_grad: bool = False, device: object = None) -> Tensor:
    """As `empty`, with the shape and dtype of `x`."""
    return zeros_like(x, dtype, requires_grad=requires_grad, device=device)


def zeros_like(x: Tensor, dtype: object = None, *, requires_grad: bool = False, device: object = None) -> Tensor:
    """Every entry 0, with the shape and dtype of `x`."""
    check_device("zeros_like", device)
    return zeros(x.shape, dtype=dtype or x.dtype, requires_grad=requires_grad)


def ones_like(x: Tensor, dtype: object = None, *, requires_grad: bool = False, device: object = None) -> Tensor:
    """Every entry 1, with the shape and dtype of `x`."""
    check_device("ones_like", device)
    return ones(x.shape, dtype=dtype or x.dtype, requires_grad=requires_grad)


def full_like(
    x: Tensor, fill_value: float, dtype: object = None, *, requires_grad: bool = False, device: object = None
) -> Tensor:
    """Every entry `fill_value`, with the shape and dtype of `x`."""
    check_device("full_like", device)
    return full(x.shape, fill_value=fill_value, dtype=dtype or x.dtype, requires_grad=requires_grad)


def eye(
    n: int,
    m: int | None = None,
    dtype: object = dtypes.DEFAULT_FLOAT,
    requires_grad: bool = False,
    *,
    device: object = None,
) -> Tensor:
    """The identity matrix, n × n or n × m."""
    check_device("eye", device)
    return _leaf(np.eye(n, m, dtype=align.as_dtype(dtype)), requires_grad)


def arange(
    start: float, end: float | None = None, step: float = 1, dtype: object = None, *, device: object = None
) -> Tensor:
    """start, start + step, … below `end`; of one number, from 0 to it."""
    check_device("arange", device)
    if end is None:
        start, end = 0, start
    if step == 0:
        raise at_user_line(ArgumentError("arange: step must not be 0"))
    whole = all(isinstance(v, int | np.integer) for v in (start, end, step))
    wanted = align.as_dtype(dtype) if dtype is not None else dtypes.DEFAULT_INT if whole else dtypes.DEFAULT_FLOAT
    return _made(source.arange, False, start=start, stop=end, step=step, dtype=wanted)


def linspace(
    start: float, end: float, steps: int, dtype: object = dtypes.DEFAULT_FLOAT, *, device: object = None
) -> Tensor:
    """`steps` numbers from `start` to `end`, evenly spaced, both included."""
    check_device("linspace", device)
    start, end = float(start), float(end)
    return _leaf(np.linspace(start, end, steps).astype(align.as_dtype(dtype)), False)


# --- random


class Generator:
    """A stream of random numbers: a seed, and how much of the stream has been used.

    The same seed and the same calls give the same numbers, on every machine.
    """

    def __init__(self, seed: int | None = None) -> None:
        self._lock = threading.Lock()
        # Not `secrets`, whose import takes longer than that of any file of ours.
        self.manual_seed(int.from_bytes(os.urandom(8), "little") >> 1 if seed is None else seed)

    def manual_seed(self, seed: Any) -> Generator:
        """Start the stream of `seed` from its beginning. 0 ≤ seed < 2⁶⁴."""
        if not isinstance(seed, int | np.integer) or not 0 <= seed < 2**64:
            raise at_user_line(ArgumentError(f"manual_seed: expected an int, 0 ≤ seed < 2⁶⁴; got {seed!r}"))
        tracing = tracer()
        if tracing is not None:
            raise tracing.refuse("seeding a random stream", "a call goes on where the last one ended; seed outside")
        with self._lock:
            self.seed, self.counter = int(seed), 0
        return self

    def get_state(self) -> tuple[int, int]:
        """(seed, position): where the stream stands."""
        with self._lock:
            return self.seed, self.counter

    def set_state(self, state: Sequence[int]) -> Generator:
        """Go on from where `get_state` was asked."""
        self.manual_seed(state[0])
        with self._lock:
            self.counter = int(state[1])
        return self

    def take(self, blocks: int) -> tuple[int, int]:
        """(seed, position) of the next `blocks` blocks of four words, which then count as used."""
        with self._lock:
            position = self.counter
            self.counter += blocks
            return self.seed, position


default_generator = Generator()


def manual_seed(seed: int) -> Generator:
    """Seed the generator that the random functions use when given none."""
    return default_generator.manual_seed(seed)


def _random(
    op: Source,
    shape: tuple[int, ...],
    dtype: object,
    generator: Generator | None,
    requires_grad: bool,
    words: int,
    **params: Any,
) -> Tensor:
    count = int(np.prod(shape, dtype=np.int64))
    generator, blocks = generator or default_generator, source.blocks_for(max(count, 0) + 1, words)
    tracing = tracer()
    if tracing is None:
        key, offset = Tensor.leaf(source.key_of(*generator.take(blocks))), 0
    else:
        key, offset = tracing.key(generator, blocks)
    return _made(op, requires_grad, key, shape=shape, dtype=align.as_dtype(dtype), offset=offset, **params)


def rand(
    *shape: Any,
    dtype: object = dtypes.DEFAULT_FLOAT,
    generator: Generator | None = None,
    requires_grad: bool = False,
    device: object = None,
) -> Tensor:
    """Uniform on 0 ≤ u < 1."""
    check_device("rand", device)
    return _random(source.rand, align.sizes(shape), dtype, generator, requires_grad, 2)


def randn(
    *shape: Any,
    dtype: object = dtypes.DEFAULT_FLOAT,
    generator: Generator | None = None,
    requires_grad: bool = False,
    device: object = None,
) -> Tensor:
    """Standard normal: mean 0, variance 1."""
    check_device("randn", device)
    return _random(source.randn, align.sizes(shape), dtype, generator, requires_grad, 2)


def randint(
    low: int,
    high: Any,
    size: Sequence[int] | None = None,
    dtype: object = dtypes.DEFAULT_INT,
    generator: Generator | None = None,
    *,
    device: object = None,
) -> Tensor:
    """Integers, uniform on low ≤ i < high; given one bound, from 0."""
    check_device("randint", device)
    if size is None:
        low, high, size = 0, low, high
    if low >= high:
        raise at_user_line(ArgumentError(f"randint: expected low < high; got {low} and {high}"))
    return _random(source.randint, align.sizes((size,)), dtype, generator, False, 2, low=low, high=high)


def rand_like(x: Tensor, *, dtype: object = None, generator: Generator | None = None, device: object = None) -> Tensor:
    """Uniform on 0 ≤ u < 1, with the shape and dtype of `x`."""
    check_device("rand_like", device)
    return rand(x.shape, dtype=dtype or x.dtype, generator=generator)


def randn_like(x: Tensor, *, dtype: object = None, generator: Generator | None = None, device: object = None) -> Tensor:
    """Standard normal, with the shape and dtype of `x`."""
    check_device("randn_like", device)
    return randn(x.shape, dtype=dtype or x.dtype, generator=generator)


def randperm(n: int, generator: Generator | None = None, *, device: object = None) -> Tensor:
    """0 … n − 1 in random order."""
    check_device("randperm", device)
    return rand(n, dtype=dtypes.float64, generator=generator).argsort()


def bernoulli(p: Tensor, generator: Generator | None = None) -> Tensor:
    """1 with probability `p`, entry by entry, else 0; in the dtype of `p`."""
    return (rand(p.shape, generator=generator) < p.detach()).to(p.dtype)


def normal(
    mean: Any = 0.0,
    std: Any = 1.0,
    size: Sequence[int] | None = None,
    *,
    dtype: object = None,
    generator: Generator | None = None,
    device: object = None,
) -> Tensor:
    """Normal with a mean and a standard deviation each: numbers, with a `size`, or tensors that broadcast."""
    check_device("normal", device)
    shape = size if size is not None else np.broadcast_shapes(np.shape(mean), np.shape(std))
    for x in (mean, std):
        if isinstance(x, Tensor) and not dtypes.is_float(x.dtype):
            raise at_user_line(DTypeError(f"normal: needs a float dtype; got {x.aval}; cast it with .to(cr.float32)"))
    drawn = randn(*align.sizes((shape,)), dtype=dtype or dtypes.DEFAULT_FLOAT, generator=generator)
    made: Tensor = drawn * std + mean
    return made.detach()


def multinomial(
    input: Tensor, num_samples: int, replacement: bool = False, *, generator: Generator | None = None
) -> Tensor:
    """Indices drawn with the given weights, row by row.

    Args:
        input: (classes,) or (n, classes), weights ≥ 0; they need not add up to 1.
        num_samples: how many of each row.
        replacement: whether an index can be drawn twice.
        generator: where the random numbers come from; None: the one that `cr.manual_seed` seeds.
    Returns: (num_samples,) or (n, num_samples), int64.
    Raises: ArgumentError: weights that are negative, not finite or all 0, or fewer of them that are not 0 than are
        drawn without replacement.
    """
    weights = np.asarray(align.value_of(input, "multinomial"), np.float64)
    if weights.ndim not in (1, 2) or not np.isfinite(weights).all() or (weights < 0).any() or num_samples < 1:
        raise at_user_line(ArgumentError(
            f"multinomial: expected weights ≥ 0, (classes,) or (n, classes), and num_samples ≥ 1; got {input.aval} and "
            f"{num_samples}"
        ))  # fmt: skip
    least = 1 if replacement else num_samples
    if ((weights > 0).sum(-1) < least).any():
        raise at_user_line(ArgumentError(f"multinomial: a row has fewer than {least} weights that are not 0"))
    rows = weights.shape[:-1]
    if replacement:
        bounds = weights.cumsum(-1)
        u = rand(*rows, num_samples, dtype=dtypes.float64, generator=generator).numpy() * bounds[..., -1:]
        return Tensor.leaf((u[..., :, None] >= bounds[..., None, :]).sum(-1))
    # The first of exponential clocks with these rates to ring: Efraimidis, Spirakis (2006).
    u = rand(*weights.shape, dtype=dtypes.float64, generator=generator).numpy()
    with np.errstate(divide="ignore"):
        rings = np.where(weights > 0, -np.log1p(-u) / weights, np.inf)
    return Tensor.leaf(np.argsort(rings, axis=-1, kind="stable")[..., :num_samples].copy())


def _made(op: Source, requires_grad: bool, *inputs: Tensor, **params: Any) -> Tensor:
    try:
        op.infer(*(x.aval for x in inputs), **params)
    except ChainruleError as error:
        raise at_user_line(error) from None
    made: Tensor = apply(op, inputs, params or NO_PARAMS, Tensor)
    made.trail, made.origin = capture(3), None
    return made.requires_grad_() if requires_grad else made
