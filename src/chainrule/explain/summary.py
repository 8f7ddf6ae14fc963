"""All gradients of one loss in a few lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from chainrule.explain import text

if TYPE_CHECKING:
    from chainrule.explain.explanation import Explanation


def table(explanations: Sequence[Explanation]) -> str:
    """A line for each gradient: its name, shape, norm, mean size, and whether all its formulas were confirmed."""
    first = explanations[0]
    head = ("gradient", "shape", "norm", "mean|.|", "links", "re-evaluated")
    loss = first.derivation.name(first.run.loss)
    rows = [head, *(_row(loss, e) for e in explanations)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    value = float(np.asarray(first.run.loss.array).reshape(-1)[0])
    return "\n".join([f"  {loss} = {value:.6g}", "", *lines])


def _row(loss: str, e: Explanation) -> tuple[str, ...]:
    size = np.abs(e.value.astype(np.float64)).mean() if e.value.size else 0.0
    return (
        f"d{loss}/d{e.name}",
        text.shape_text(e.value.shape),
        f"{e.links[-1].norm:.5g}",
        f"{size:.4g}",
        str(len(e.links)),
        _trust(e),
    )


def _trust(e: Explanation) -> str:
    wrong = [link.name for link in e.links if link.agrees is False]
    unchecked = [link.name for link in e.links if link.agrees is None]
    if wrong:
        return f"DIFFERS at {', '.join(wrong)}"
    if unchecked:
        return f"unchecked: {', '.join(unchecked[:3])}{' ...' if len(unchecked) > 3 else ''}"
    return "all ok"
