"""One thread or several: how a job's figures change after each call, and which way the next one goes.

Knows the words of a job; knows neither threads nor clocks.

Where a core is busy with something else, waiting for it costs more than a second thread gains. So each call is timed,
and the job keeps the time of both ways. One is used until a trial of the other, made now and then, was faster by a
sixteenth. After a trial that failed, the next waits until 64, 128, … 4096 calls have passed, and until what the trial
lost is less than a fiftieth of the time. Several threads are given up sooner, without a trial, once they have lost the
time of 16 steps against one: gains make good for losses. Everywhere one slow call counts for eight at most, so that a
hiccup of the system is forgiven, and a process that was stopped for an hour tries again.

Times are ticks of the processor's counter; all is said in multiples of measured times, so the unit does not matter.
"""

from __future__ import annotations

from chainrule import dtypes
from chainrule.compile.llvm.blocks import JOB
from chainrule.compile.llvm.builder import Builder, Value

TRIAL = 6  # calls; the first, which may have had to wake somebody, does not count
_FIRST_WAIT, _LONGEST_WAIT = 64, 4096  # calls


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
        b = self.b
        is_many = b.ne(self.many, self.zero)
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
        """One call of a trial; its last decides. Several threads that took eight times as long end it at once."""
        b, zero = self.b, self.zero
        is_many, one, trial = b.ne(self.many, zero), self.get("time_one"), self.get("trial")
        left = b.sub(trial, self.number(1))
        hopeless = b.and_(b.and_(is_many, b.gt(one, zero)), b.gt(self.time, self.times(one, 8)))
        uncounted = b.and_(b.eq(trial, self.number(TRIAL)), b.not_(hopeless))
        # A process that was stopped in the middle, or a machine that slept, is no reason never to try again.
        known = b.where(b.gt(one, zero), one, self.get("time_many"))
        cut = b.where(b.gt(known, zero), b.minimum(self.time, self.times(known, 8)), self.time)
        spent = b.add(self.get("trial_time"), b.where(uncounted, zero, cut))
        self.put(trial=left, trial_time=spent)
        self.leave_unless(b.or_(hopeless, b.eq(left, zero)))

        calls = b.maximum(b.sub(self.number(TRIAL - 1), left), self.number(1))
        found = b.int_div(spent, calls)
        usual_time = b.where(is_many, one, self.get("time_many"))
        unknown = b.eq(usual_time, zero)  # nothing to compare with: that way is tried next
        better = b.or_(unknown, b.lt(self.times(found, 16), self.times(usual_time, 15)))
        longer = b.minimum(self.times(self.get("patience"), 2), self.number(_LONGEST_WAIT))
        patience = b.where(better, self.number(_FIRST_WAIT), longer)
        cost = b.sub(spent, b.mul(calls, usual_time))
        wait = b.where(better, b.mul(patience, found), b.maximum(b.mul(patience, usual_time), self.times(cost, 50)))
        self.put(
            time_one=b.where(is_many, one, found),
            time_many=b.where(is_many, found, self.get("time_many")),
            many=b.where(better, self.many, b.sub(self.number(1), self.many)),
            since=b.where(better, zero, self.get("since")),
            patience=patience,
            wait=wait,
            debt=zero,
            lost=zero,
            trial=b.where(unknown, self.number(TRIAL), zero),
            trial_time=zero,
        )
        b.ret()

    def usual(self) -> None:
        """A call of the usual way: is it time for a trial, or to give several threads up?"""
        b, zero = self.b, self.zero
        is_many, one = b.ne(self.many, zero), self.get("time_one")
        since = b.add(self.get("since"), self.number(1))
        cut = b.minimum(self.time, self.times(one, 8))
        debt = b.where(is_many, b.maximum(zero, b.add(self.get("debt"), b.sub(cut, one))), zero)
        loss = b.maximum(zero, b.sub(cut, one))
        lost = b.where(b.gt(debt, zero), b.add(self.get("lost"), loss), zero)
        give_up = b.gt(debt, self.times(one, 16))
        wait = b.sub(self.get("wait"), self.time)
        due = b.and_(b.not_(give_up), b.le(wait, zero))

        longer = b.minimum(self.times(self.get("patience"), 2), self.number(_LONGEST_WAIT))
        fresh = b.where(b.gt(since, self.number(4 * _FIRST_WAIT)), self.number(_FIRST_WAIT), longer)
        self.put(
            since=b.where(give_up, zero, since),
            debt=b.where(give_up, zero, debt),
            lost=b.where(give_up, zero, lost),
            many=b.where(give_up, zero, self.many),
            patience=b.where(give_up, fresh, self.get("patience")),
            wait=b.where(give_up, b.maximum(b.mul(fresh, one), self.times(lost, 50)), wait),
            trial=b.where(due, self.number(TRIAL), zero),
            trial_time=zero,
        )
        b.ret()
