"""Data: arrays to shuffled batches, and real data sets."""

from chainrule.data.dataset import Subset, TensorDataset, random_split
from chainrule.data.datasets import Split, load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine
from chainrule.data.loader import DataLoader
from chainrule.data.standardize import Standardizer

__all__ = [
    "DataLoader", "Standardizer", "Subset", "TensorDataset", "random_split",
    "Split", "load_breast_cancer", "load_diabetes", "load_digits", "load_iris", "load_wine",
]  # fmt: skip
