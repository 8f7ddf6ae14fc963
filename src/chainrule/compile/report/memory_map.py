"""The memory plan as a picture: what lies where in the arena, while which kernels run."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from chainrule.compile.report.quantities import number

_ROWS = 12
_LETTERS = string.ascii_lowercase + string.ascii_uppercase
_WIDEST = 4  # characters a kernel


@final
@dataclass(frozen=True, kw_only=True)
class Stretch:
    """A temporary's place in the arena: its first byte, its size, and the kernels from its making to its last use."""

    name: str
    start: int
    size: int
    first: int
    last: int


def chart(stretches: Sequence[Stretch], arena: int, kernels: int, room: int) -> list[str]:
    """A letter for each temporary, at its bytes (down) and while it is needed (across), and what the letters mean."""
    letters = {id(s): _LETTERS[i % len(_LETTERS)] for i, s in enumerate(stretches)}
    drawn: set[int] = set()
    edge = 9
    each = max(min((room - edge - 2) // kernels, _WIDEST), 1)
    shown = min(kernels, room - edge - 2)  # of more kernels than columns, some share one
    rows = min(_ROWS, max(len(stretches), 2))
    lines = []
    for row in range(rows):
        low, high = arena * row // rows, arena * (row + 1) // rows
        cells = []
        for column in range(shown):
            now = range(column * kernels // shown + 1, (column + 1) * kernels // shown + 1)
            here = [
                s for s in stretches
                if s.start < high and low < s.start + s.size and s.first <= now[-1] and now[0] <= s.last
            ]  # fmt: skip
            largest = max(here, key=lambda s: min(high, s.start + s.size) - max(low, s.start), default=None)
            drawn.add(id(largest))
            cells.append((letters[id(largest)] if largest is not None else ".") * each)
        lines.append(f"{number(low, 'B'):>{edge - 2}}  {''.join(cells)}".rstrip())
    ruler = "".join(f"{n:<{each}}" if n == 1 or n % 5 == 0 else " " * each for n in range(1, kernels + 1))
    if each > 1 and shown == kernels:
        lines.append(f"{'kernel':>{edge - 2}}  {ruler}".rstrip())
    return [*lines, *_key(stretches, {x: letter if x in drawn else "-" for x, letter in letters.items()}, room)]


def _key(stretches: Sequence[Stretch], letters: dict[int, str], room: int) -> list[str]:
    """What the letters mean; a line stands for what is too small to be drawn."""
    entries = [
        f"{letters[id(s)]} {s.name}  {number(s.size, 'B')}, {'kernel' if s.first == s.last else 'kernels'} "
        f"{s.first}{f'-{s.last}' if s.last != s.first else ''}"
        for s in stretches
    ]  # fmt: skip
    width = max(map(len, entries)) + 3
    across = max((room - 2) // width, 1)
    down = -(-len(entries) // across)
    return [
        "  " + "".join(f"{entries[i]:<{width}}" for i in range(row, len(entries), down)).rstrip() for row in range(down)
    ]
