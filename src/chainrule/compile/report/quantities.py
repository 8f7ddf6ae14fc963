"""Words for numbers in a report: durations, amounts, shares, lists of names."""

from __future__ import annotations

import re
from collections.abc import Sequence

_QUANTITY = re.compile(r"(?<=\d) (?=[KMGT]?(?:B|FLOP|threads?|pieces|parts|entries|terms)\b)")
_BAR = 10
_LISTED = 12  # names; of more, the first are said


def duration(seconds: float) -> str:
    """1.84 ms, 12.0 us."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{three_digits(seconds / size)} {unit}"
    return f"{seconds * 1e9:.0f} ns"


def three_digits(value: float) -> str:
    """1.84, 12.0, 317; 1,234 whole."""
    return f"{value:#.3g}".rstrip(".") if value < 999.5 else f"{value:,.0f}"


def number(value: float, unit: str) -> str:
    """827 MFLOP, 3.2 MB, 115 GFLOP/s."""
    for prefix, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("K", 1e3)):
        if value >= size:
            shown = f"{value / size:.3g}" if value / size < 1000 else f"{value / size:,.0f}"
            return f"{shown} {prefix}{unit}"
    return f"{value:.0f} {unit}"


def percent(share: float) -> str:
    """83 %, 0.4 %."""
    return f"{100 * share:.0f} %" if share >= 0.01 else f"{100 * share:.1f} %"


def bar(share: float) -> str:
    """A bar of ten characters between two lines."""
    filled = min(round(share * _BAR), _BAR)
    return f"|{'#' * filled}{' ' * (_BAR - filled)}|"


def listed(names: Sequence[str]) -> str:
    """a, b and c; of many, the first."""
    if len(names) > _LISTED:
        return f"{', '.join(names[:_LISTED])} and {len(names) - _LISTED} more"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def unbroken(says: str) -> str:
    """With spaces that do not break between a number and its unit."""
    return _QUANTITY.sub("\u00a0", says)
