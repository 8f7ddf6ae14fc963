"""`cr.optim.lr_scheduler`, as in PyTorch: the schedules under the name that users know."""

from __future__ import annotations

from chainrule.optim.schedule import (
    CosineAnnealingLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    StepLR,
)

__all__ = ["CosineAnnealingLR", "ExponentialLR", "LambdaLR", "LinearLR", "MultiStepLR", "OneCycleLR", "StepLR"]
