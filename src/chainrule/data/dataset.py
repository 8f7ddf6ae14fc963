"""Samples by index: arrays of one length side by side, and parts of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from chainrule import creation, dtypes
from chainrule.array.align import value_of
from chainrule.core.node import at_user_line
from chainrule.creation import Generator
from chainrule.errors import ArgumentError, DataError, DTypeError
from chainrule.tensor import Tensor


class TensorDataset:
    """Tensors of one length side by side: sample i is entry i of each.

    Args:
        arrays: tensors, or anything `cr.asarray` takes; the first size of all is the number of samples.
        finite: whether inf and nan are refused.
    Raises: DataError: no array, no samples, unequal lengths, or a value that is not finite.

    >>> import chainrule as cr
    >>> data = cr.data.TensorDataset(cr.tensor([[1.0], [2.0]]), cr.tensor([0, 1]))
    >>> len(data), data[1]
    (2, (tensor([2.]), tensor(1)))
    """

    def __init__(self, *arrays: Any, finite: bool = True) -> None:
        if not arrays:
            raise at_user_line(DataError("TensorDataset: expected arrays; got none"))
        self.tensors: tuple[Tensor, ...] = tuple(creation.asarray(a).detach() for a in arrays)
        for i, t in enumerate(self.tensors):
            if t.ndim == 0:
                raise at_user_line(
                    DataError(f"TensorDataset: array {i} is one number; its first dimension counts samples")
                )
        lengths = [t.shape[0] for t in self.tensors]
        if len(set(lengths)) > 1:
            raise at_user_line(DataError(
                f"TensorDataset: arrays must have one length; got {', '.join(str(t.aval) for t in self.tensors)}; "
                f"the first dimension counts samples"
            ))  # fmt: skip
        if not lengths[0]:
            raise at_user_line(DataError("TensorDataset: expected samples; got none"))
        if finite:
            for i, t in enumerate(self.tensors):
                _refuse_nonfinite(i, t)

    def __len__(self) -> int:
        return self.tensors[0].shape[0]

    def __getitem__(self, index: Any) -> tuple[Tensor, ...]:
        return tuple(t[index] for t in self.tensors)

    def take(self, indices: np.ndarray) -> tuple[np.ndarray, ...]:
        """The samples at these positions, as arrays of their own: a batch."""
        return tuple(value_of(t, "take")[indices] for t in self.tensors)

    def __repr__(self) -> str:
        return f"TensorDataset({', '.join(str(t.aval) for t in self.tensors)})"


class Subset:
    """Some samples of a dataset, by position.

    Args:
        dataset: what to choose from.
        indices: the positions, in order.
    Raises: DataError: no position, or one that does not exist.
    """

    def __init__(self, dataset: Any, indices: Sequence[int] | np.ndarray) -> None:
        self.dataset, self.indices = dataset, np.asarray(indices, np.int64)
        if not self.indices.size:
            raise at_user_line(DataError("Subset: expected positions; got none"))
        if self.indices.min() < 0 or self.indices.max() >= len(dataset):
            raise at_user_line(DataError(f"Subset: positions must lie in 0 … {len(dataset) - 1}"))

    def __len__(self) -> int:
        return int(self.indices.size)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, int | np.integer):
            return self.dataset[int(self.indices[index])]
        return self.dataset[self.indices[index]]

    def take(self, indices: np.ndarray) -> tuple[np.ndarray, ...]:
        """The samples at these positions of this part, as arrays of their own: a batch."""
        return take(self.dataset, self.indices[indices])


def take(dataset: Any, indices: np.ndarray) -> tuple[np.ndarray, ...]:
    """A batch of any dataset: at once where it can, else sample by sample."""
    if hasattr(dataset, "take"):
        batch: tuple[np.ndarray, ...] = dataset.take(indices)
        return batch
    samples = [dataset[int(i)] for i in indices]
    rows = [sample if isinstance(sample, tuple | list) else (sample,) for sample in samples]
    try:
        columns = [
            [value_of(creation.asarray(value), "take") for value in column] for column in zip(*rows, strict=True)
        ]
        return tuple(np.stack(column) for column in columns)
    except (ValueError, DTypeError) as error:
        raise at_user_line(DataError(
            f"DataLoader: samples of one batch must have the same parts, of the same shapes; got {error}; "
            f"make them so in the dataset"
        )) from None  # fmt: skip


def random_split(
    dataset: Any,
    lengths: Sequence[int] | Sequence[float],
    generator: Generator | None = None,
    *,
    seed: int | None = None,
) -> list[Subset]:
    """A dataset split at random into parts that do not overlap.

    Args:
        dataset: anything with `len` and indexing.
        lengths: how many samples each part has; or shares that add to 1, of which the first parts get what rounding
            leaves over.
        generator: where the random numbers come from; None: the one that `cr.manual_seed` seeds.
        seed: makes a generator of its own; the same seed gives the same parts.
    Returns: one part a length.
    Raises: ArgumentError: lengths that do not add to the number of samples. DataError: a part without a sample.

    >>> import chainrule as cr
    >>> train, valid = cr.data.random_split(cr.data.TensorDataset(cr.arange(10)), [0.8, 0.2], seed=1)
    >>> len(train), len(valid)
    (8, 2)
    """
    n = len(dataset)
    counts = _counted(lengths, n) if any(isinstance(c, float) for c in lengths) else [int(c) for c in lengths]
    if sum(counts) != n:
        raise at_user_line(
            ArgumentError(f"random_split: lengths {counts} add to {sum(counts)}, the dataset has {n} samples")
        )
    order = _value(creation.randperm(n, generator_for("random_split", generator, seed)))
    ends = np.cumsum(np.asarray(counts, np.int64))
    return [Subset(dataset, order[end - count : end]) for end, count in zip(ends, counts, strict=True)]


def _counted(shares: Sequence[float], n: int) -> list[int]:
    """Shares of n samples as counts; the first ones get what rounding leaves over."""
    if abs(sum(shares) - 1) > 1e-9 or min(shares) < 0:
        raise at_user_line(ArgumentError(f"random_split: shares must be ≥ 0 and add to 1; got {list(shares)}"))
    counts = [int(n * share) for share in shares]
    for i in range(n - sum(counts)):
        counts[i % len(counts)] += 1
    return counts


def generator_for(name: str, generator: Generator | None, seed: int | None) -> Generator | None:
    """The generator that a caller asked for by one of the two; None: the default one."""
    if generator is not None and seed is not None:
        raise at_user_line(ArgumentError(f"{name}: give a generator or a seed, not both"))
    return Generator(seed) if seed is not None else generator


def _value(tensor: Tensor) -> np.ndarray:
    return value_of(tensor, "data")


def _refuse_nonfinite(i: int, tensor: Tensor) -> None:
    if not dtypes.is_float(tensor.dtype):
        return
    bad = ~np.isfinite(_value(tensor))
    count = int(bad.sum())
    if count:
        where = tuple(int(n) for n in np.argwhere(bad)[0])
        raise at_user_line(DataError(
            f"TensorDataset: array {i}, {tensor.aval}, holds {_value(tensor)[where]} at {list(where)}, {count} such "
            f"in all; drop or fill those samples, or pass finite=False"
        ))  # fmt: skip
