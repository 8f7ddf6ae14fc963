"""What a trace took for granted, checked by code written for that trace: straight on, without a loop.

A call looks at each tensor, option and variable that the trace has read. Loops over lists of them took a microsecond,
of the 28 that a step of the page's net takes; written out, it is a third of that.

Knows how a check is written; what is checked, and what is done where something is not as it was, is for others to say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Holds = Callable[[Any, Sequence[Any]], bool]  # of a trace, ready to be called, and arguments


class Checks:
    """The source of a function of `bound` and `leaves`: False at the first thing that is not as it was.

    bound: whose checks they are; by this name, so that it is gone with the last who holds it, and not in a cycle.
    leaves: the arguments of a call.
    """

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._names: dict[str, Any] = {}
        self._known: dict[int, str] = {}

    def name(self, value: Any) -> str:
        """What a value is called in the source."""
        if id(value) not in self._known:
            self._known[id(value)] = f"v{len(self._names)}"
            self._names[self._known[id(value)]] = value
        return self._known[id(value)]

    def let(self, line: str) -> None:
        """A line as it is."""
        self._lines.append(line)

    def unless(self, wrong: str, mended: str = "") -> None:
        """Where something is wrong, and is not mended by what is called then, the trace does not fit."""
        self._lines.append(f"if ({wrong}) and not {mended}: return False" if mended else f"if {wrong}: return False")

    def written(self, last: str) -> Holds:
        """The function; where all is as it was it returns what `last` comes to."""
        source = "\n    ".join(["def holds(bound, leaves):", *self._lines, f"return {last}"])
        found = dict(self._names)
        exec(compile(source, "<the checks of a trace>", "exec"), found)
        holds: Holds = found["holds"]
        return holds
