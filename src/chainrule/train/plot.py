"""The loss curve of a run: as an SVG element, without a plotting library, and as a matplotlib figure."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from typing import Any

from chainrule.core.node import at_user_line
from chainrule.errors import DataError, MissingExtraError
from chainrule.train.history import History

Points = list[tuple[float, float]]

_TRAIN, _VALID = "#4477aa", "#ee6677"  # told apart by the colour-blind as well
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 28, 44


def curves(history: History) -> tuple[Points, Points]:
    """(batches done, loss): every batch of the training, and the validation after each epoch.

    Raises: DataError: nothing was trained yet.
    """
    if not history.losses:
        raise at_user_line(DataError("plot: there is no loss yet; call learner.fit first"))
    train = [(float(i + 1), loss) for i, loss in enumerate(history.losses)]
    valid: Points = []
    if "valid_loss" in history.columns:
        pairs = zip(history.ends, history.rows, strict=True)
        valid = [(float(end), row["valid_loss"]) for end, row in pairs if "valid_loss" in row]
    return train, [(x, y) for x, y in valid if math.isfinite(y)]


def loss_curve_svg(history: History, width: int = 640, height: int = 320) -> str:
    """The loss curve as an SVG element; text and axes take the colour of the page around it.

    Args:
        history: a Learner's.
        width: in pixels.
        height: in pixels.
    Raises: DataError: nothing was trained yet.
    """
    train, valid = curves(history)
    xs, ys = [x for x, _ in train + valid], [y for _, y in train + valid]
    x_low, x_high = min(xs), max(*xs, min(xs) + 1)
    y_ticks, x_ticks = _ticks(min(0.0, *ys), max(ys)), _ticks(x_low, x_high)
    y_low, y_high = min(y_ticks[0], *ys), max(y_ticks[-1], *ys)

    def place(x: float, y: float) -> tuple[float, float]:
        across = _LEFT + (x - x_low) / (x_high - x_low) * (width - _LEFT - _RIGHT)
        down = _TOP + (y_high - y) / (y_high - y_low) * (height - _TOP - _BOTTOM)
        return across, down

    def path(points: Points) -> str:
        return " ".join(f"{a:.1f},{b:.1f}" for a, b in (place(x, y) for x, y in points))

    axes = []
    for y in y_ticks:
        _, down = place(x_low, y)
        axes.append(
            f'<line x1="{_LEFT}" x2="{width - _RIGHT}" y1="{down:.1f}" y2="{down:.1f}" stroke="currentColor" '
            f'stroke-opacity="0.15"/><text x="{_LEFT - 8}" y="{down + 4:.1f}" text-anchor="end">{y:g}</text>'
        )
    for x in x_ticks:
        if x_low <= x <= x_high:
            across, _ = place(x, y_low)
            axes.append(f'<text x="{across:.1f}" y="{height - _BOTTOM + 18}" text-anchor="middle">{x:g}</text>')
    middle = _LEFT + (width - _LEFT - _RIGHT) / 2
    axes.append(f'<text x="{middle:.0f}" y="{height - 8}" text-anchor="middle">batches</text>')
    dots = "".join(
        f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2.5" fill="{_VALID}"/>' for a, b in (place(x, y) for x, y in valid)
    )
    legend = f'<text x="{_LEFT}" y="16" fill="{_TRAIN}">training loss, each batch</text>'
    if valid:
        legend += f'<text x="{_LEFT + 190}" y="16" fill="{_VALID}">validation loss, each epoch</text>'
        dots = f'<polyline points="{path(valid)}" fill="none" stroke="{_VALID}" stroke-width="1.8"/>{dots}'
    last = f"training {train[-1][1]:.5g}" + (f", validation {valid[-1][1]:.5g}" if valid else "")
    return (
        f'<svg class="loss-curve" role="img" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'style="max-width:{width}px;width:100%" font-family="sans-serif" font-size="12" fill="currentColor">'
        f"<title>Loss over {len(history.losses)} batches; at the end: {last}</title>{''.join(axes)}"
        f'<polyline points="{path(train)}" fill="none" stroke="{_TRAIN}" stroke-width="1.2"/>{dots}{legend}</svg>'
    )


def _ticks(low: float, high: float) -> Sequence[float]:
    """About five round numbers from at most `low` to at least `high`."""
    span = high - low if high > low else max(abs(high), 1.0)
    rough = span / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(f * power for f in (1, 2, 5, 10) if f * power >= rough)
    first, last = math.floor(low / step), math.ceil((low + span) / step)
    return [round(i * step, 12) for i in range(first, last + 1)]


def loss_figure(history: History) -> Any:
    """The loss curve as a matplotlib figure.

    Raises: MissingExtraError: matplotlib is not installed. DataError: nothing was trained yet.
    """
    train, valid = curves(history)
    try:
        figures = importlib.import_module("matplotlib.figure")
    except ImportError:
        raise at_user_line(MissingExtraError(
            "plot_losses: needs matplotlib, which is not installed; pip install 'chainrule[demo]', or loss_curve_svg"
        )) from None  # fmt: skip
    figure = figures.Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(*zip(*train, strict=True), color=_TRAIN, linewidth=1, label="training, each batch")
    if valid:
        axes.plot(*zip(*valid, strict=True), color=_VALID, marker="o", markersize=3, label="validation, each epoch")
    axes.set_xlabel("batches")
    axes.set_ylabel("loss")
    axes.legend()
    return figure
