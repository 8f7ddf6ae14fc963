"""DataLoader: a dataset as batches, shuffled anew in each pass, the same way for the same seed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from chainrule import creation
from chainrule.array.align import value_of
from chainrule.core.node import at_user_line
from chainrule.creation import Generator
from chainrule.data.dataset import TensorDataset, generator_for, take
from chainrule.errors import ArgumentError, DataError
from chainrule.tensor import Tensor


class DataLoader:
    """A dataset as batches: iterate over it once an epoch. Each batch is a tuple of tensors with memory of their own.

    Args:
        dataset: a dataset (`len` and indexing), one array, or a tuple of arrays of one length.
        batch_size: samples a batch, ≥ 1; the last one may be smaller.
        shuffle: whether each pass takes the samples in a new random order.
        drop_last: whether a smaller last batch is left out.
        generator: where the random orders come from; None: the one that `cr.manual_seed` seeds.
        seed: makes a generator of its own; the same seed gives the same orders, pass for pass.
    Raises: DataError: no samples, unequal lengths, values that are not finite, or `drop_last` leaves no batch.
        ArgumentError: `batch_size` < 1.

    >>> import chainrule as cr
    >>> loader = cr.data.DataLoader((cr.arange(5), cr.arange(5) * 10), batch_size=2)
    >>> len(loader)
    3
    >>> next(iter(loader))
    (tensor([0, 1]), tensor([ 0, 10]))
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 1,
        shuffle: bool = False,
        *,
        drop_last: bool = False,
        generator: Generator | None = None,
        seed: int | None = None,
    ) -> None:
        if isinstance(dataset, Tensor | np.ndarray):
            dataset = TensorDataset(dataset)
        elif isinstance(dataset, tuple):
            dataset = TensorDataset(*dataset)
        if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
            raise at_user_line(DataError(f"DataLoader: a dataset has len() and indexing; got {type(dataset).__name__}"))
        if not len(dataset):
            raise at_user_line(DataError("DataLoader: expected samples; got none"))
        if type(batch_size) is not int or batch_size < 1:
            raise at_user_line(ArgumentError(f"DataLoader: batch_size must be an int ≥ 1; got {batch_size!r}"))
        if drop_last and len(dataset) < batch_size:
            raise at_user_line(DataError(
                f"DataLoader: drop_last leaves no batch: {len(dataset)} samples, batch_size {batch_size}; lower it"
            ))  # fmt: skip
        self.dataset, self.batch_size, self.shuffle, self.drop_last = dataset, batch_size, shuffle, drop_last
        self.generator = generator_for("DataLoader", generator, seed)

    def __len__(self) -> int:
        """The number of batches."""
        n = len(self.dataset)
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        n = len(self.dataset)
        order = value_of(creation.randperm(n, self.generator), "order") if self.shuffle else np.arange(n)
        for i in range(len(self)):
            arrays = take(self.dataset, order[i * self.batch_size : (i + 1) * self.batch_size])
            yield tuple(Tensor.leaf(array) for array in arrays)

    def __repr__(self) -> str:
        return (
            f"DataLoader({self.dataset!r}, batch_size={self.batch_size}, shuffle={self.shuffle}): "
            f"{len(self.dataset)} samples in {len(self)} batches"
        )
