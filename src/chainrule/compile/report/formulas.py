"""What a kernel writes, as mathematics: lines that can be read one after the other.

A value that is written first goes by its name in those after it; so does an update, whose name then means the new
value. Where a formula would be long, values that are made on the way and have names get lines of their own; where it
would still say little, the line tells of the user's calls that the value comes from.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

from chainrule.compile.kernels.buffer import Buffer
from chainrule.compile.kernels.tasks import Task
from chainrule.compile.report.unmoved import formula, is_split, unordered
from chainrule.core.aval import Aval
from chainrule.core.node import ancestors
from chainrule.core.provenance import user_place
from chainrule.core.rewrite import again, rewrite
from chainrule.ops import elementwise, identities, movement, windows
from chainrule.ops.printing import write

if TYPE_CHECKING:
    from chainrule.compile.report.meaning import Meaning

_LONGEST = 64  # characters of a formula; a longer one is said in values with names, or else told
_LONGEST_IN_NAMES = 110  # of one in values with names; a longer one is told by the calls that it came from
_NAMED = 10  # values said of those that something is computed from
# Ops that say more to a machine than to a person: a formula with them is told by the calls that it came from.
_MACHINERY = frozenset({movement.embed, windows.windows, windows.overlap_add})
_LONG_NUMBER = re.compile(r"\d+\.\d{6,}(?:e-?\d+)?")


@final
class Formulas:
    """The lines of one task."""

    def __init__(self, meaning: Meaning, task: Task) -> None:
        self.meaning, self.task = meaning, task
        self.results = sorted(meaning.results(task), key=lambda x: x.made)  # each after those that it is made from
        self.names = [meaning.name(meaning.schedule.memory[id(x)]) for x in self.results]
        self.said: dict[str, str] = {}
        self.before: dict[int, str] = {}  # results that have been said, by id

    def lines(self) -> list[str]:
        """One or several for each value that is written."""
        task, meaning = self.task, self.meaning
        if not self.results:
            to, given = (", ".join(map(meaning.name, sorted(x, key=_by_name))) for x in (task.writes, task.reads))
            return [f"{to} = {given}, copied"]
        self._define_shared_gradients()
        told: list[Any] = []
        updated: list[Any] = []
        for x, name in zip(self.results, self.names, strict=True):
            text = self._formula(x, {})
            if text is not None:
                self.said[name] = text
            elif not self._in_names(x, name):
                (updated if self._is_update(x) else told).append(x)
            self.before[id(x)] = name
        lines = []
        for goes_back in (False, True):
            mine = [x for x in told if meaning.goes_back(x) is goes_back]
            if mine:
                lines.append(f"{', '.join(self.before[id(x)] for x in mine)} = {self._told(mine)}")
        lines += [f"{name} = {text}" for name, text in self.said.items()]
        return [*lines, *(f"{self.before[id(x)]} = {self._updated_by(x)}" for x in updated)]

    def _is_update(self, x: Any) -> bool:
        return self.meaning.schedule.memory[id(x)].place == "input"

    # --- formulas

    def _formula(self, root: Any, named: Mapping[str, Any], longest: int = _LONGEST) -> str | None:
        """A value as mathematics; None where that is long or says little. named: values that go by names here."""
        symbols: dict[int, Any] = {id(x): self._symbol(x, name) for name, x in named.items()}
        parts: set[str] = set()
        for x in self._behind(root):
            if x is root:
                continue
            if id(x) in self.before:
                symbols[id(x)] = self._symbol(x, self.before[id(x)])
            elif x.constant is None and self._is_load(x):
                name = self.meaning.name(self.meaning.schedule.memory[id(x)])
                if self.meaning.is_in_parts(x):
                    parts.add(name)
                symbols[id(x)] = self._symbol(x, f"(old {name})" if name in self.said else name)
        if root.op is movement.embed and id(root.inputs[0]) in symbols:
            return f"{unordered(symbols[id(root.inputs[0])]).symbol}, with zeros around it"
        found = rewrite(rewrite(root, identities.ALL, symbols), (_without_cast, _number_first))
        if any(x.op in _MACHINERY for x in ancestors([found])):
            return None
        text = formula(found, parts) or write(found, "text", lambda x: None)
        text = _LONG_NUMBER.sub(lambda match: f"{float(match[0]):.6g}", text)
        return text if len(text) <= longest else None

    def _symbol(self, x: Any, name: str) -> Any:
        """A value by its name, in the shape that the user knows where its dimensions were only taken apart."""
        shape = self.meaning.shape_of(x)
        if shape == x.aval.shape or not is_split(shape, x.aval.shape):
            return type(x).symbolic(name, x.aval)
        whole = type(x).symbolic(name, Aval(shape, x.aval.dtype))
        return type(x).applied(movement.reshape, (whole,), {"shape": x.aval.shape}, x.aval)

    def _in_names(self, root: Any, name: str) -> bool:
        """Say a value by values with names that are made on the way; False if there are none, or it does not help."""
        named: dict[str, Any] = {}
        for x in self._behind(root):
            own = None if x is root or x.op is None or id(x) in self.before else self.meaning.name_of(x)
            if own is not None and own not in self.names and not self._is_load(unordered(x)):
                named[own] = x
        text = self._formula(root, named, _LONGEST_IN_NAMES)
        if text is None:
            return False
        for own, x in named.items():
            if own in text and own not in self.said:
                self.said[own] = self._formula(x, {}) or self._told([x])
        self.said[name] = text
        return True

    def _define_shared_gradients(self) -> None:
        """Say the gradients that several of the values written are made of, so that these go by their names."""
        written = set(map(self.meaning.name, self.task.writes))
        results = {id(x) for x in self.results}
        uses: Counter[int] = Counter()
        named: dict[int, tuple[str, Any]] = {}
        for root in self.results:
            for x in self.meaning.made_for(root, self.task, results - {id(root)}):
                name = self.meaning.name_of(x) if x.op is not None and x is not root else None
                if name is not None and name.endswith(".g") and name.removesuffix(".g") in written:
                    uses[id(x)] += 1
                    named[id(x)] = name, x
        for key, count in uses.items():
            name, node = named[key]
            if count > 1 and name not in self.names:
                self.said.setdefault(name, self._formula(node, {}) or self._told([node]))
                self.before[key] = name

    # --- words, where a formula says too little

    def _updated_by(self, root: Any) -> str:
        """An update whose formula is long: the line that asks for it, and what it reads."""
        where, memory = user_place(root.trail), self.meaning.schedule.memory
        mine = self.before[id(root)]
        stops = self.before.keys() - {id(root)}
        made = self.meaning.made_for(root, self.task, stops)
        inputs = {id(y): y for x in made for y in x.inputs if id(y) in stops or self._is_load(y)}
        given = {mine: None, **{self.before[x]: None for x in inputs if x in stops}}
        loads = [memory[x] for x, y in inputs.items() if x not in stops and y.constant is None]
        given |= dict.fromkeys(sorted(self.meaning.name(b) for b in loads if b.place != "constant"))
        return f"updated by {where.text if where is not None else 'the step'}, from {_some(list(given))}"

    def _told(self, roots: Sequence[Any]) -> str:
        """The user's calls that values come from, and what they are computed from."""
        meaning, memory = self.meaning, self.meaning.schedule.memory
        nodes = list({id(x): x for root in roots for x in self._behind(root)}.values())
        loads = {id(memory[id(x)]) for x in nodes if self._is_load(x)}
        reads = sorted((b for b in self.task.reads if id(b) in loads), key=lambda b: (b.place != "arena", b.name))
        inside = [x for x in nodes if not self._is_load(x)]
        forward, backward = meaning.steps_of(inside, "forward"), meaning.steps_of(inside, "backward")[::-1]
        given = _some([meaning.name(b) for b in reads if b.place != "constant"])
        goes_back = any(map(meaning.goes_back, roots))
        if forward and not goes_back:
            part = "" if all(map(self._is_whole, roots)) else "part of "
            return f"{part}{', '.join(forward)}, from {given}"
        if backward:
            part = "" if all(map(self._is_whole, roots)) else "part of the "
            return f"{part}backward of {', '.join(backward)}, from {given}"
        return f"{', '.join(dict.fromkeys(x.op.name for x in inside if x.op is not None))} of {given}"

    def _is_whole(self, x: Any) -> bool:
        """Has a value a name, its own or that of what it updates?"""
        buffer = self.meaning.schedule.memory.get(id(x))
        return self.meaning.name_of(x) is not None or (buffer is not None and buffer.place == "input")

    # --- what is behind a value

    def _behind(self, root: Any) -> list[Any]:
        return self.meaning.behind(root, self.task)

    def _is_load(self, x: Any) -> bool:
        return self.meaning.is_load(x, self.task)


def _by_name(buffer: Buffer) -> str:
    return buffer.name


def _some(names: Sequence[str]) -> str:
    """a, b, c; of many, the first."""
    if len(names) <= _NAMED:
        return ", ".join(names)
    return f"{', '.join(names[: _NAMED - 1])} and {len(names) - _NAMED + 1} more"


def _without_cast(x: Any) -> Any:
    """cast(x) = x: element types are said in the program's text."""
    if x.op is not movement.cast:
        return None
    inner = x.inputs[0]
    return type(inner).symbolic(inner.symbol, x.aval) if inner.op is None and inner.symbol else None


def _number_first(x: Any) -> Any:
    """a · s = s · a for a number s, such as a learning rate."""
    if x.op is not elementwise.mul:
        return None
    a, s = x.inputs
    return again(x, (s, a)) if _is_number(s) and not _is_number(a) else None


def _is_number(x: Any) -> bool:
    return x.aval.size == 1 or (x.op is movement.expand and x.inputs[0].aval.size == 1)
