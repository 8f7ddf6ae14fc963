"""A call of a trace as code written for that trace: straight on, without a loop, and without a call in between.

A call looks at each tensor, option and variable that the trace has read, runs, notes what was updated and makes its
result. Loops over lists, and a function for each of these, took two microseconds of the 28 that a step of the page's
net takes; written out, it is less than one.

Knows how lines are written; what is checked and done in them is for others to say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Call = Callable[[Any, Sequence[Any]], Any]  # of a trace, ready to be called, and arguments


class _Miss:
    """The answer of a trace that does not fit the call."""


MISS: Any = _Miss()


class Straight:
    """The source of a function of `bound` and `leaves`: MISS at the first thing that is not as it was.

    bound: whose call it is; by this name, so that it is gone with the last who holds it, and not in a cycle.
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

    def line(self, line: str) -> None:
        """A line as it is."""
        self._lines.append(line)

    def unless(self, wrong: str, mended: str = "") -> None:
        """Where something is wrong, and is not mended by what is called then, the trace does not fit."""
        self._lines.append(f"if ({wrong}) and not {mended}: return MISS" if mended else f"if {wrong}: return MISS")

    def written(self) -> Call:
        """The function."""
        source = "\n    ".join(["def call(bound, leaves):", *self._lines])
        found = {**self._names, "MISS": MISS}
        exec(compile(source, "<a call of a trace>", "exec"), found)
        call: Call = found["call"]
        return call
