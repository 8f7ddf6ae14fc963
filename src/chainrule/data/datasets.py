"""Real data sets that need no network: those bundled with scikit-learn, an optional extra."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from chainrule import creation
from chainrule.array.align import value_of
from chainrule.core.node import at_user_line
from chainrule.data.dataset import TensorDataset
from chainrule.data.loader import DataLoader
from chainrule.data.standardize import Standardizer
from chainrule.errors import ArgumentError, MissingExtraError
from chainrule.tensor import Tensor


@dataclass(frozen=True, kw_only=True)
class Split:
    """A data set in a training and a validation part.

    name: what it is called.
    x_train, x_valid: (n, features), float32.
    y_train, y_valid: (n,), float32 for numbers, int64 for classes.
    feature_names: one a column of x.
    target_names: the classes, or the one quantity.
    description: the data set's own text.
    source: where it comes from.
    x_scale, y_scale: how x and y were standardised, or None.
    """

    name: str
    x_train: Tensor
    y_train: Tensor
    x_valid: Tensor
    y_valid: Tensor
    feature_names: tuple[str, ...]
    target_names: tuple[str, ...]
    description: str
    source: str
    x_scale: Standardizer | None = None
    y_scale: Standardizer | None = None

    @property
    def train(self) -> TensorDataset:
        """The training part."""
        return TensorDataset(self.x_train, self.y_train)

    @property
    def valid(self) -> TensorDataset:
        """The validation part."""
        return TensorDataset(self.x_valid, self.y_valid)

    def standardized(self, *, target: bool = False) -> Split:
        """The same with features (and a numeric target) of mean 0 and standard deviation 1 in the training part.

        Raises: ArgumentError: classes have no mean.
        """
        scale = Standardizer.fit(self.x_train)
        made = replace(
            self, x_train=scale.transform(self.x_train), x_valid=scale.transform(self.x_valid), x_scale=scale
        )
        if not target:
            return made
        if self.y_train.dtype.kind != "f":
            raise at_user_line(ArgumentError(f"standardized: the target of {self.name} is a class, which has no mean"))
        scale = Standardizer.fit(self.y_train)
        return replace(
            made, y_train=scale.transform(self.y_train), y_valid=scale.transform(self.y_valid), y_scale=scale
        )

    def loaders(self, batch_size: int = 64, *, seed: int | None = 0) -> tuple[DataLoader, DataLoader]:
        """(shuffled batches of the training part, the validation part in order)."""
        train = DataLoader(self.train, batch_size, shuffle=True, seed=seed)
        return train, DataLoader(self.valid, max(batch_size, 256))

    def __repr__(self) -> str:
        return (
            f"Split({self.name}: {len(self.x_train)} to train on, {len(self.x_valid)} to validate, "
            f"{len(self.feature_names)} features, target {', '.join(self.target_names)})"
        )


def load_diabetes(*, seed: int = 0, valid: float = 0.2) -> Split:
    """442 patients, 10 measurements, and how far their diabetes went in a year: a number from 25 to 346.

    Args:
        seed: of the split; the same seed gives the same parts.
        valid: the share to validate on, 0 < share < 1.
    Raises: MissingExtraError: scikit-learn is not installed. ArgumentError: `valid` leaves a part empty.

    >>> import chainrule as cr
    >>> cr.data.load_diabetes()
    Split(diabetes: 354 to train on, 88 to validate, 10 features, target disease progression)
    """
    bunch = _bunch("load_diabetes", scaled=False)
    return _split(
        "diabetes", bunch, np.float32, ("disease progression",), seed, valid,
        "Efron, Hastie, Johnstone, Tibshirani (2004), Least angle regression, Annals of Statistics 32; by scikit-learn",
    )  # fmt: skip


def load_digits(*, seed: int = 0, valid: float = 0.2) -> Split:
    """1,797 handwritten digits, 8 × 8 grey values from 0 to 16, ten classes.

    Args:
        seed: of the split; the same seed gives the same parts.
        valid: the share to validate on, 0 < share < 1.
    Raises: MissingExtraError: scikit-learn is not installed. ArgumentError: `valid` leaves a part empty.
    """
    source = "Alpaydin, Kaynak (1998), Optical recognition of handwritten digits, UCI repository; by scikit-learn"
    return _split("digits", _bunch("load_digits"), np.int64, None, seed, valid, source)


def load_breast_cancer(*, seed: int = 0, valid: float = 0.2) -> Split:
    """569 tumours, 30 measurements of their cells, two classes: malignant and benign.

    Args:
        seed: of the split; the same seed gives the same parts.
        valid: the share to validate on, 0 < share < 1.
    Raises: MissingExtraError: scikit-learn is not installed. ArgumentError: `valid` leaves a part empty.
    """
    source = (
        "Wolberg, Mangasarian, Street (1995), Breast cancer Wisconsin (diagnostic), UCI repository; by scikit-learn"
    )
    return _split("breast cancer", _bunch("load_breast_cancer"), np.int64, None, seed, valid, source)


def load_wine(*, seed: int = 0, valid: float = 0.2) -> Split:
    """178 wines, 13 chemical measurements, three cultivars.

    Args:
        seed: of the split; the same seed gives the same parts.
        valid: the share to validate on, 0 < share < 1.
    Raises: MissingExtraError: scikit-learn is not installed. ArgumentError: `valid` leaves a part empty.
    """
    source = "Aeberhard, Forina (1991), Wine, UCI repository; by scikit-learn"
    return _split("wine", _bunch("load_wine"), np.int64, None, seed, valid, source)


def load_iris(*, seed: int = 0, valid: float = 0.2) -> Split:
    """150 irises, 4 measurements of their petals and sepals, three species.

    Args:
        seed: of the split; the same seed gives the same parts.
        valid: the share to validate on, 0 < share < 1.
    Raises: MissingExtraError: scikit-learn is not installed. ArgumentError: `valid` leaves a part empty.
    """
    source = "Fisher (1936), The use of multiple measurements in taxonomic problems; by scikit-learn"
    return _split("iris", _bunch("load_iris"), np.int64, None, seed, valid, source)


def _bunch(function: str, **options: Any) -> Any:
    try:
        sets = importlib.import_module("sklearn.datasets")
    except ImportError:
        raise at_user_line(MissingExtraError(
            f"{function}: this data set comes with scikit-learn, which is not installed; pip install 'chainrule[demo]'"
        )) from None  # fmt: skip
    load: Callable[..., Any] = getattr(sets, function)
    return load(**options)


def _split(
    name: str, bunch: Any, target_type: type, target_names: tuple[str, ...] | None, seed: int, valid: float, source: str
) -> Split:
    n = len(bunch.data)
    count = round(n * valid)
    if not 0 < count < n:
        raise at_user_line(ArgumentError(f"load: valid = {valid} leaves a part of the {n} samples empty; use e.g. 0.2"))
    order = value_of(creation.randperm(n, creation.Generator(seed)), "split")
    x, y = bunch.data.astype(np.float32), bunch.target.astype(target_type)
    in_train, in_valid = order[count:], order[:count]
    return Split(
        name=name,
        x_train=Tensor.leaf(x[in_train]), y_train=Tensor.leaf(y[in_train]),
        x_valid=Tensor.leaf(x[in_valid]), y_valid=Tensor.leaf(y[in_valid]),
        feature_names=tuple(map(str, bunch.feature_names)),
        target_names=target_names or tuple(map(str, bunch.target_names)),
        description=str(bunch.DESCR),
        source=source,
    )  # fmt: skip
