"""Mean 0 and standard deviation 1, column by column, as measured on the training part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from chainrule import creation
from chainrule.array.align import value_of
from chainrule.core.node import at_user_line
from chainrule.errors import DataError, ShapeError
from chainrule.tensor import Tensor


@dataclass(frozen=True)
class Standardizer:
    """z = (x − mean) / std, with the mean and the standard deviation of the data it was fitted on.

    Fit it on the training part alone: the validation part must not be known beforehand. A column that never changes
    becomes 0.

    mean, std: one number a column, in float64.

    >>> import chainrule as cr
    >>> scale = cr.data.Standardizer.fit(cr.tensor([[1.0, 5.0], [3.0, 5.0]]))
    >>> scale.transform(cr.tensor([[3.0, 5.0], [5.0, 6.0]]))
    tensor([[1., 0.],
            [3., 1.]])
    """

    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def fit(cls, x: Any) -> Standardizer:
        """Measure `x`, (n, …).

        Raises: DataError: no samples.
        """
        values = value_of(creation.asarray(x), "Standardizer")
        if not values.ndim or not len(values):
            raise at_user_line(DataError("Standardizer: expected samples; got none"))
        wide = values.astype(np.float64)
        mean, std = wide.mean(axis=0), wide.std(axis=0)
        return cls(mean, np.where(std > 0, std, 1.0))

    def transform(self, x: Any) -> Tensor:
        """(x − mean) / std, in the dtype of `x`.

        Raises: ShapeError: other columns than it was fitted on.
        """
        values = self._values("transform", x)
        return Tensor.leaf(((values - self.mean) / self.std).astype(values.dtype))

    def inverse(self, z: Any) -> Tensor:
        """z · std + mean: predictions back in the unit of the data.

        Raises: ShapeError: other columns than it was fitted on.
        """
        values = self._values("inverse", z)
        return Tensor.leaf((values * self.std + self.mean).astype(values.dtype))

    def _values(self, name: str, x: Any) -> np.ndarray:
        values = value_of(creation.asarray(x).detach(), name)
        if values.shape[1:] != self.mean.shape:
            raise at_user_line(ShapeError(
                f"Standardizer.{name}: fitted on samples of shape {list(self.mean.shape)}; got {list(values.shape[1:])}"
            ))  # fmt: skip
        return values if values.dtype.kind == "f" else values.astype(np.float32)
