"""Fitting an explanation's text into a narrow terminal, where a line broken by the terminal itself would be unreadable."""

from __future__ import annotations

_HANGING = 6
_SHORTEST = 30  # characters; a window narrower than this gets its lines unbroken


def fitted(text: str, width: int) -> str:
    """The text with lines that are too long continued below, further in; broken between columns where there are any."""
    if width < _SHORTEST:
        return text
    return "\n".join(piece for line in text.split("\n") for piece in _pieces(line, width))


def _pieces(line: str, width: int) -> list[str]:
    indent = len(line) - len(line.lstrip())
    hanging = " " * min(indent + _HANGING, width // 2)
    pieces = []
    while len(line) > width:
        start = len(line) - len(line.lstrip()) + 1
        cut = line.rfind("  ", max(start, width // 2), width)
        if cut < 0:
            cut = line.rfind(" ", start, width + 1)
        if cut < 0:
            break
        pieces.append(line[:cut].rstrip())
        line = hanging + line[cut:].strip()
    return [*pieces, line]
