"""Optimisers and learning-rate schedules. PyTorch's names."""

from chainrule.optim import lr_scheduler
from chainrule.optim.adagrad import Adagrad
from chainrule.optim.adam import Adam
from chainrule.optim.adamw import AdamW
from chainrule.optim.base import Optimizer
from chainrule.optim.rmsprop import RMSprop
from chainrule.optim.schedule import (
    CosineAnnealingLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    Scheduler,
    StepLR,
)  # fmt: skip
from chainrule.optim.sgd import SGD

__all__ = [
    "Optimizer", "SGD", "Adagrad", "Adam", "AdamW", "RMSprop",
    "Scheduler", "CosineAnnealingLR", "ExponentialLR", "LambdaLR", "LinearLR", "MultiStepLR", "OneCycleLR", "StepLR",
    "lr_scheduler",
]  # fmt: skip
