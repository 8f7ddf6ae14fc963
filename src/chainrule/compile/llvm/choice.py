"""One thread or several: how a job's figures change after each call, and which way the next one goes.

Knows the words of a job; knows neither threads nor clocks.

Where a core is busy with something else, waiting for it costs more than a second thread gains. So each call is timed,
and the job keeps the time of both ways. One is used until a trial of the other, made now and then, was faster by a
sixteenth; the first call of a trial, which may have had to wake somebody, and its slowest do not count. What a trial
that failed has cost, some multiple of that time passes until the next: twice at first, for what disturbed it is mostly
gone soon; three times as much each time it fails again, and in the end 54, so that trials cost less than a fiftieth.
Several threads are given up sooner, without a trial, once they have lost the time of 16 steps against one: gains make
good for losses, and one slow call counts for eight at most, so that a hiccup of the system is forgiven. So one thread
needs to be tried less often, and eight times as long is waited for that. A call during which the process must have been
stopped says nothing, and is left out altogether.

Times are ticks of the processor's counter; all is said in multiples of measured times, so the unit does not matter.
"""

from __future__ import annotations

from chainrule import dtypes
from chainrule.compile.llvm.blocks import JOB, PATIENCE_AT_FIRST, TRIAL
from chainrule.compile.llvm.builder import Builder, Value

_MORE, _MOST = 3, 54  # each time it fails again, so many times as much; at most
_ONE_WAITS = 8  # so many times as much where the trial was of one thread
_SHORTEST_WAIT = 64  # calls between trials
_SETTLED = 256  # calls after which a way has proved its worth


class Choice:
    """Writes how a job's figures change after a call: `%many` says which way it ran, `%time` how long it took."""

    def __init__(self, builder: Builder) -> None:
        self.b = builder
        self.many, self.time = Value("%many", dtypes.int64), Value("%time", dtypes.int64)
        self.zero = self.number(0)

    def number(self, value: int) -> Value:
        return self.b.constant(value, dtypes.int64)

    def times(self, value: Value, factor: int) -> Value:
        return self.b.mul(value, self.number(factor))

    def get(self, name: str) -> Value:
        return self.b.load("%job", JOB[name], dtypes.int64)

    def put(self, **values: Value) -> None:
        for name, value in values.items():
            self.b.store(value, "%job", JOB[name], dtypes.int64)

    def define(self) -> None:
        """Define `cr_note`, and the two functions that it chooses from."""
        arguments = "ptr %job, i64 %many, i64 %time"
        for name, body in (("cr_trial", self.trial), ("cr_usual", self.usual), ("cr_note", self.note)):
            self.b.function(name, arguments, body, "internal void")

    def leave_unless(self, condition: Value) -> None:
        """Return from the function here, unless the condition holds."""
        leave, stay = self.b.register("leave"), self.b.register("stay")
        self.b.emit(f"br i1 {condition.text}, label %{stay}, label %{leave}")
        self.b.start(leave)
        self.b.ret()
        self.b.start(stay)

    def note(self) -> None:
        """The moving averages and the counts; then on to the trial, or to the usual way."""
        b, zero = self.b, self.zero
        one, many = self.get("time_one"), self.get("time_many")
        known = b.where(b.gt(b.minimum(one, many), zero), b.minimum(one, many), b.maximum(one, many))
        stopped = b.gt(self.time, b.add(self.times(known, 8), self.get("stall")))
        self.leave_unless(b.not_(b.and_(b.gt(known, zero), stopped)))

        is_many = b.ne(self.many, zero)
        for name, mine in (("one", b.not_(is_many)), ("many", is_many)):
            old = self.get(f"time_{name}")
            step = b.int_div(b.sub(b.minimum(self.time, self.times(old, 4)), old), self.number(8))
            moved = b.where(b.eq(old, self.zero), self.time, b.add(old, step))
            self.put(**{f"time_{name}": b.where(mine, moved, old)})
            calls = self.get(f"calls_{name}")
            self.put(**{f"calls_{name}": b.add(calls, b.where(mine, self.number(1), self.zero))})
        trying = b.gt(self.get("trial"), self.zero)
        arguments = "ptr %job, i64 %many, i64 %time"
        for name, condition in (("cr_usual", trying), ("cr_trial", b.not_(trying))):
            skip, call = b.register("skip"), b.register("call")
            b.emit(f"br i1 {condition.text}, label %{skip}, label %{call}")
            b.start(call)
            b.emit(f"tail call void @{name}({arguments})")
            b.ret()
            b.start(skip)
        b.ret()

    def trial(self) -> None:
        """One call of a trial; its last decides, or an early one, if two have lost too much."""
        b, zero = self.b, self.zero
        one, is_many, trial = self.get("time_one"), b.ne(self.many, zero), self.get("trial")
        usual_time = b.where(is_many, one, self.get("time_many"))
        unknown = b.eq(usual_time, zero)  # nothing to compare with: that way is tried next
        left = b.sub(trial, self.number(1))
        counts = b.ne(trial, self.number(TRIAL))
        counted = b.where(counts, self.time, zero)
        slowest = b.maximum(self.get("trial_slowest"), counted)
        spent = b.add(self.get("trial_time"), counted)
        first = b.add(self.get("trial_first"), b.where(counts, zero, self.time))
        self.put(trial=left, trial_time=spent, trial_slowest=slowest, trial_first=first)
        calls = b.sub(self.number(TRIAL - 2), left)  # that count, the slowest left out
        rest = b.sub(spent, slowest)
        allowed = b.mul(b.add(calls, self.number(4)), usual_time)
        hopeless = b.and_(b.not_(unknown), b.gt(rest, allowed))
        self.leave_unless(b.or_(hopeless, b.eq(left, zero)))

        found = b.int_div(rest, b.maximum(calls, self.number(1)))
        better = b.or_(unknown, b.lt(self.times(found, 16), self.times(usual_time, 15)))
        cost = b.sub(b.add(first, spent), b.mul(b.add(calls, self.number(2)), usual_time))
        patience = self.get("patience")
        waits = b.where(is_many, patience, self.times(patience, _ONE_WAITS))
        shortest = self.times(b.where(better, found, usual_time), _SHORTEST_WAIT)
        self.put(
            time_one=b.where(is_many, one, found),
            time_many=b.where(is_many, found, self.get("time_many")),
            many=b.where(better, self.many, b.sub(self.number(1), self.many)),
            since=b.where(better, zero, self.get("since")),
            patience=b.where(better, patience, self.longer(patience)),
            wait=b.where(better, shortest, b.maximum(shortest, b.mul(cost, waits))),
            debt=zero,
            lost=zero,
            trial=b.where(unknown, self.number(TRIAL), zero),
            trial_time=zero,
            trial_slowest=zero,
            trial_first=zero,
        )
        b.ret()

    def longer(self, patience: Value) -> Value:
        return self.b.minimum(self.times(patience, _MORE), self.number(_MOST))

    def usual(self) -> None:
        """A call of the usual way: is it time for a trial, or to give several threads up?"""
        b, zero = self.b, self.zero
        is_many, one, patience = b.ne(self.many, zero), self.get("time_one"), self.get("patience")
        since = b.add(self.get("since"), self.number(1))
        cut = b.minimum(self.time, self.times(one, 8))
        debt = b.where(is_many, b.maximum(zero, b.add(self.get("debt"), b.sub(cut, one))), zero)
        loss = b.maximum(zero, b.sub(self.time, one))
        lost = b.where(b.gt(debt, zero), b.add(self.get("lost"), loss), zero)
        give_up = b.gt(debt, self.times(one, 16))
        wait = b.sub(self.get("wait"), self.time)
        due = b.and_(b.not_(give_up), b.le(wait, zero))

        settled = b.gt(since, self.number(_SETTLED))
        fresh = b.where(settled, self.number(PATIENCE_AT_FIRST), self.longer(patience))
        self.put(
            since=b.where(give_up, zero, since),
            debt=b.where(give_up, zero, debt),
            lost=b.where(give_up, zero, lost),
            many=b.where(give_up, zero, self.many),
            patience=b.where(give_up, fresh, patience),
            wait=b.where(give_up, b.maximum(self.times(one, _SHORTEST_WAIT), b.mul(fresh, lost)), wait),
            trial=b.where(due, self.number(TRIAL), zero),
        )
        b.ret()
