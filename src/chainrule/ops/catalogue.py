"""Every op, listed once. Tests, documentation and coverage tables walk this; nothing looks an op up by name."""

from __future__ import annotations

from chainrule.core.family import Op
from chainrule.ops import (
    attention,
    comparison,
    contraction,
    elementwise,
    indexing,
    movement,
    normalisation,
    reduction,
    source,
    transcendental,
    windows,
)

CATALOGUE: tuple[Op, ...] = (
    *elementwise.ALL,
    *transcendental.ALL,
    *comparison.ALL,
    *movement.ALL,
    *reduction.ALL,
    *contraction.ALL,
    *windows.ALL,
    *indexing.ALL,
    *normalisation.ALL,
    *attention.ALL,
    *source.ALL,
)
