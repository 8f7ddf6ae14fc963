"""Optimisers and learning-rate schedules. PyTorch's names."""

from chainrule.optim.adam import Adam
from chainrule.optim.adamw import AdamW
from chainrule.optim.base import Optimizer
from chainrule.optim.schedule import CosineAnnealingLR, LambdaLR, OneCycleLR, Scheduler, StepLR
from chainrule.optim.sgd import SGD

__all__ = [
    "Optimizer", "SGD", "Adam", "AdamW",
    "Scheduler", "CosineAnnealingLR", "LambdaLR", "OneCycleLR", "StepLR",
]  # fmt: skip
