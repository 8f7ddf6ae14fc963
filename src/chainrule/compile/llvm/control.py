"""Loops and branches, and the indices they count with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from chainrule import dtypes
from chainrule.compile.llvm.assembly import Module
from chainrule.compile.llvm.values import Index, Value, index_text


class ControlFlow(Module):
    """What ends a basic block."""

    # --- indices: folded where both are known

    def index_add(self, x: Index, y: Index) -> Index:
        """x + y."""
        if isinstance(x, int) and isinstance(y, int):
            return x + y
        if x == 0:
            return y
        return x if y == 0 else Value(self.let(f"add nsw i64 {index_text(x)}, {index_text(y)}"), dtypes.int64)

    def index_mul(self, x: Index, y: Index) -> Index:
        """x · y."""
        if isinstance(x, int) and isinstance(y, int):
            return x * y
        if x == 0 or y == 0:
            return 0
        if x == 1:
            return y
        return x if y == 1 else Value(self.let(f"mul nsw i64 {index_text(x)}, {index_text(y)}"), dtypes.int64)

    def index_value(self, x: Index) -> Value:
        """An index as an int64 value."""
        return self.constant(x, dtypes.int64) if isinstance(x, int) else x

    # --- control flow

    def loop(
        self,
        start: Index,
        stop: Index,
        step: int,
        body: Callable[[Index, Sequence[Value]], Sequence[Value] | None],
        carry: Sequence[Value] = (),
    ) -> list[Value]:
        """for i in range(start, stop, step): carry = body(i, carry); returns the last carry.

        With bounds known and one round, no loop is written. The counter is tested at the end where at least one round
        is known to happen.
        """
        return self.loop_with_hoist(start, stop, step, lambda i, inside, _: body(i, inside), carry)

    def loop_with_hoist(
        self,
        start: Index,
        stop: Index,
        step: int,
        body: Callable[[Index, Sequence[Value], list[Any] | None], Sequence[Value] | None],
        carry: Sequence[Value] = (),
    ) -> list[Value]:
        """As `loop`; the body is also given the place just before the loop (see `emitting_into`).

        That place is reached also if the loop never runs. It is None where no loop is written.
        """
        known = isinstance(start, int) and isinstance(stop, int)
        if known:
            assert isinstance(start, int)
            assert isinstance(stop, int)
            if stop <= start:
                return list(carry)
            if stop - start <= step:
                return list(body(start, list(carry), None) or [])
        head, done, before = self.register("loop"), self.register("done"), self._block
        # Before the test, so that it also dominates what follows the loop: it mentions nothing that the loop counts.
        hoisted: list[Any] = []
        self._lines.append(hoisted)
        if not known:
            enter, entry = self.let(f"icmp slt i64 {index_text(start)}, {index_text(stop)}"), self.register("enter")
            self.emit(f"br i1 {enter}, label %{entry}, label %{done}")
            self.start(entry)
        entered = self._block
        self.emit(f"br label %{head}")
        self.start(head)
        counter = f"%{self.register('i')}"
        inside = [Value(f"%{self.register('c')}", v.dtype, v.lanes) for v in carry]
        place = len(self._lines)
        self._lines.append("")
        after = list(body(Value(counter, dtypes.int64), list(inside), hoisted) or [])
        following = self.let(f"add nuw nsw i64 {counter}, {step}")
        last = self._block
        again = self.let(f"icmp slt i64 {following}, {index_text(stop)}")
        self.emit(f"br i1 {again}, label %{head}, label %{done}")
        phis = [f"  {counter} = phi i64 [ {index_text(start)}, %{entered} ], [ {following}, %{last} ]"]
        phis += [
            f"  {i.text} = phi {self.type(i)} [ {v.text}, %{entered} ], [ {a.text}, %{last} ]"
            for i, v, a in zip(inside, carry, after, strict=True)
        ]
        self._lines[place] = "\n".join(phis)
        self.start(done)
        if known:
            return after
        return [
            Value(self.let(f"phi {self.type(v)} [ {v.text}, %{before} ], [ {a.text}, %{last} ]"), v.dtype, v.lanes)
            for v, a in zip(carry, after, strict=True)
        ]

    def keep(self, place: list[Any]) -> None:
        """Keep a place open here, for code that is found later (see `emitting_into`)."""
        self._lines.append(place)

    @contextmanager
    def emitting_into(self, place: list[Any]) -> Iterator[None]:
        """Within the block, straight-line code goes to a place kept open earlier: what a loop does not change."""
        here, self._lines = self._lines, place
        yield
        self._lines = here

    def when(self, condition: Value, body: Callable[[list[Any]], None]) -> None:
        """Run the body if a scalar condition holds; it is given the place just before the test."""
        then, done = self.register("then"), self.register("done")
        hoisted: list[Any] = []
        self._lines.append(hoisted)
        self.emit(f"br i1 {condition.text}, label %{then}, label %{done}")
        self.start(then)
        body(hoisted)
        self.emit(f"br label %{done}")
        self.start(done)
