"""Fitting an explanation's text into a narrow terminal, whose own line breaks would tear its columns apart."""

from __future__ import annotations

import re

_HANGING = 6
_SHORTEST = 30  # characters; a window narrower than this gets its lines unbroken
_LABEL = re.compile(r"\s*\S+(?: \S+)*\s{2,}")  # what stands before the second column


def fitted(text: str, width: int) -> str:
    """The text; a line that is too long goes on below, under its second column, broken between columns if it can be."""
    if width < _SHORTEST:
        return text
    return "\n".join(piece for line in text.split("\n") for piece in _pieces(line, width))


def _pieces(line: str, width: int) -> list[str]:
    label = _LABEL.match(line)
    indent = len(line) - len(line.lstrip())
    hanging = " " * (
        label.end() if label is not None and label.end() <= width // 3 else min(indent + _HANGING, width // 2)
    )
    pieces = []
    while len(line) > width:
        start = max(len(line) - len(line.lstrip()) + 1, len(hanging) + 1)
        cut = line.rfind("  ", max(start, width // 2), width)
        if cut < 0:
            cut = line.rfind(" ", start, width + 1)
        if cut < 0:
            break
        pieces.append(line[:cut].rstrip())
        line = hanging + line[cut:].strip()
    return [*pieces, line]
