"""Where code stands: the loops entered so far, and what is known at each level of them.

Loops are entered through `Levels`, so that it knows the nesting. What mentions no inner variable is placed before the
loop over that variable, and computed once: what an optimiser calls loop-invariant code motion happens here by
construction. Knows positions, and that values are defined; refuses to know lanes, expressions and memory.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from chainrule.compile.llvm.builder import Builder, Index, Value
from chainrule.core.affine import Affine

Key = tuple[Any, ...]


@dataclass
class Level:
    """One loop being written, or a place where variables have values without a loop.

    before: where code goes that is to run just before the loop; None where there is no loop.
    known: values computed at this level, by expression and lanes.
    lent: entries of outer levels' `known` whose code stands before this loop; a loop that may have no round may not
        reach it, so they are forgotten where the loop ends.
    reach: the least and the greatest value of a variable in here, in any lane, where that is of use.
    """

    before: list[Any] | None
    values: Mapping[int, Index]
    reach: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    known: dict[Key, Any] = field(default_factory=dict)
    lent: list[tuple[dict[Key, Any], Key]] = field(default_factory=list)


class Levels:
    """The levels entered so far, outermost first."""

    def __init__(self, builder: Builder) -> None:
        self.builder = builder
        self._levels: list[Level] = [Level(None, {})]
        self._host: Level | None = None  # the loop before which code is being placed

    # --- entering

    def loop(
        self,
        variable: int,
        start: Index,
        stop: Index,
        step: int,
        body: Callable[[Sequence[Value]], Sequence[Value] | None],
        carry: Sequence[Value] = (),
        reach: tuple[int, int] | None = None,
    ) -> list[Value]:
        """A loop over a variable; see `Builder.loop`. reach: see `Level`."""
        reaches = {} if reach is None else {variable: reach}

        def inside(i: Index, carried: Sequence[Value], before: list[Any] | None) -> Sequence[Value] | None:
            with self.at({variable: i}, before, reaches):
                return body(carried)

        return self.builder.loop_with_hoist(start, stop, step, inside, carry)

    @contextmanager
    def at(
        self,
        values: Mapping[int, Index],
        before: list[Any] | None = None,
        reach: Mapping[int, tuple[int, int]] | None = None,
    ) -> Iterator[None]:
        """Variables have values here; one whose reach is known keeps within it."""
        self._levels.append(Level(before, values, reach or {}))
        yield
        for known, key in self._levels.pop().lent:
            known.pop(key, None)

    def when(self, condition: Value, body: Callable[[], None]) -> None:
        """Run the body if a scalar condition holds."""

        def inside(before: list[Any]) -> None:
            with self.at({}, before):
                body()

        self.builder.when(condition, inside)

    # --- what has a value here

    def counter(self, variable: int) -> Index:
        """The value of a variable, as the innermost level has it."""
        return next(level.values[variable] for level in reversed(self._levels) if variable in level.values)

    def reach(self, affine: Affine) -> tuple[int, int] | None:
        """The least and the greatest value of a position here, in any lane, if they are known."""
        found = [
            next((level.reach[v] for level in reversed(self._levels) if v in level.reach), None)
            for v, _ in affine.terms
        ]  # fmt: skip
        known = [x for x in found if x is not None]
        return affine.between(known) if len(known) == len(found) else None

    def index(self, affine: Affine) -> Index:
        """A position at the point of the loops (of lane 0), each part computed at its own level."""
        total: Index = affine.constant
        remaining = dict(affine.terms)
        # A variable may be given a value again further inside: that one counts.
        owner = {v: depth for depth, level in enumerate(self._levels) for v in level.values if v in remaining}
        reached = 0
        spelled: list[tuple[int, int]] = []
        for depth, level in enumerate(self._levels):
            mine = [(v, remaining.pop(v)) for v in level.values if owner.get(v) == depth]
            if not mine:
                continue
            spelled += mine
            key = ("index", affine.constant, tuple(spelled))
            total = self._once(depth, key, partial(self._sum, total, [(level.values[v], c) for v, c in mine]))
            reached = depth
        assert not remaining, f"variables {sorted(remaining)} have no value here (depth {reached})"
        return total

    def _sum(self, total: Index, parts: Sequence[tuple[Index, int]]) -> Index:
        for value, coefficient in parts:
            total = self.builder.index_add(total, self.builder.index_mul(value, coefficient))
        return total

    def define(self, key: object, value: Value) -> None:
        """What something stands for, from here to the end of the innermost level."""
        self._levels[-1].known[id(key), "defined"] = key, value

    def _defined(self, key: object) -> Value:
        for level in reversed(self._levels):
            found = level.known.get((id(key), "defined"))
            if found is not None:
                value: Value = found[1]
                return value
        raise AssertionError("read before it was reduced")

    def _definitions(self) -> Iterator[tuple[int, Value]]:
        """All that is defined: by id, its value."""
        for level in self._levels:
            for key, found in level.known.items():
                if len(key) == 2 and key[1] == "defined":
                    yield key[0], found[1]

    # --- where code goes

    def _depth(self, mentioned: Collection[Any]) -> int:
        """The innermost level that gives a value to what is mentioned: variables, and ("defined", id)."""
        for depth in range(len(self._levels) - 1, 0, -1):
            level = self._levels[depth]
            if any(v in mentioned for v in level.values):
                return depth
            if any(("defined", k[0]) in mentioned for k in level.known if len(k) == 2 and k[1] == "defined"):
                return depth
        return 0

    def _once(self, depth: int, key: Key, make: Callable[[], Any]) -> Any:
        """What `make` gives, its code placed at this level; the same without any code when asked for again."""
        known = self._levels[depth].known
        found = known.get(key)
        if found is None:
            with self._placed(depth):
                found = make()
            known[key] = found
            host = next((level for level in self._levels[depth + 1 :] if level.before is not None), self._host)
            if host is not None:
                host.lent.append((known, key))
        return found

    @contextmanager
    def _placed(self, depth: int) -> Iterator[None]:
        """Code goes where it runs once for each point of the levels up to this one; only these are seen."""
        whole, self._levels = self._levels, self._levels[: depth + 1]
        for level in whole[depth + 1 :]:
            if level.before is not None:
                outer, self._host = self._host, level
                with self.builder.emitting_into(level.before):
                    yield
                self._host = outer
                break
        else:
            yield
        self._levels = whole
