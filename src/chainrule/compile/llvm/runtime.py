"""The threads' half that is machine code: how a step is handed out, waited for, timed, and a barrier between its phases.

Knows two blocks of memory, the pool's `Control` and a step's `Job`, and no Python; `pool.py` is the other half.

A step is `void @step(ptr %table, ptr %scratch, ptr %control, i64 %thread, i64 %threads)`, run by every thread that takes
part, each with its number. It must be right for every number of threads from 1 up: how many run is decided at each call.
Between phases it calls `void @cr_barrier(ptr %control, i64 %threads)`; none is needed at its end.

Publishing: the caller takes `busy`, so that one job runs at a time, writes the job beside `word`, then `word` itself: a
count of the jobs, and how many threads take part. A worker that sees a new word with its number in it may read the job,
since nothing is published before all that take part are done. A worker falls asleep only while it holds `busy` too: so
the caller, once it has found all it needs awake, loses none of them.

One thread or all: where a core is busy with something else, waiting for it costs more than the second thread gains. Each
call is timed, and `Job` keeps both times. One way is used until its trial of the other, now and then, was faster by a
sixteenth. After a trial that failed, the next one waits until 64, 128, … 4096 calls have passed and the trial has cost
less than a fiftieth of the time. Several threads are given up sooner, without a trial, once they have lost the time of
16 steps against one, where gains make good for losses and one slow call counts for at most eight.
"""

from __future__ import annotations

from chainrule import dtypes
from chainrule.compile.llvm.builder import Builder, Value
from chainrule.compile.llvm.target import Target

MOST_THREADS = 256  # one byte each in Control's list of who is awake

# Offsets in bytes. What different threads write lies 128 bytes apart: two lines of 64, since processors fetch
# neighbours in pairs, or one line of 128, which others have.
CONTROL = {
    "word": 0, "step": 8, "table": 16, "scratch": 24,
    "busy": 128,
    "arrived": 256,
    "turn": 384,
    "done": 512,
    # written by Python: threads at most; the C library's way to give the core away, or 0; pauses before that
    "limit": 640, "yield": 648, "patience": 656, "wake_patience": 664,
    "awake": 768,
}  # fmt: skip
CONTROL_BYTES = CONTROL["awake"] + MOST_THREADS

# Positions among 64-bit words. The second line changes at each call.
JOB = {
    "control": 0, "step": 1, "table": 2, "scratch": 3, "threads": 4, "adapts": 5,
    "many": 16,  # which way is in use: 0 one thread, 1 several
    "time_one": 17, "time_many": 18,  # moving averages, in ticks of the processor's counter
    "trial": 19, "trial_time": 20,  # calls left of a trial of the other way, and the time of all but the first
    "wait": 21, "patience": 22,  # ticks until the next trial, and the calls that the last wait was made of
    "debt": 23, "lost": 24,  # what several threads lost against one: with slow calls cut, and as it was
    "since": 25,  # calls since the way in use changed
    "calls_one": 26, "calls_many": 27,
}  # fmt: skip
JOB_WORDS = 32

TRIAL = 6  # calls; the first, which may have had to wake somebody, does not count
_FIRST_WAIT, _LONGEST_WAIT = 64, 4096
_ROUNDS = 32  # pauses between one offer of the core and the next

_BARRIER = """
  %alone = icmp ule i64 %threads, 1
  br i1 %alone, label %passed, label %arrive
arrive:
  %arrived = getelementptr i8, ptr %control, i64 {arrived}
  %turn = getelementptr i8, ptr %control, i64 {turn}
  %before = load atomic i64, ptr %turn monotonic, align 8
  %earlier = atomicrmw add ptr %arrived, i64 1 acq_rel
  %here = add i64 %earlier, 1
  %last = icmp eq i64 %here, %threads
  br i1 %last, label %open, label %wait
open:
  store atomic i64 0, ptr %arrived monotonic, align 8
  %next = add i64 %before, 1
  store atomic i64 %next, ptr %turn release, align 8
  ret void
wait:
  %patience_at = getelementptr i8, ptr %control, i64 {patience}
  %patience = load i64, ptr %patience_at, align 8
  br label %spin
spin:
  %left = phi i64 [ %patience, %wait ], [ %fewer, %rest ], [ {rounds}, %give ]
  %now = load atomic i64, ptr %turn acquire, align 8
  %same = icmp eq i64 %now, %before
  br i1 %same, label %rest, label %passed
rest:
  {pause}
  %fewer = sub i64 %left, 1
  %tired = icmp slt i64 %fewer, 0
  br i1 %tired, label %give, label %spin
give:
  call void @cr_give(ptr %control)
  br label %spin
passed:
  ret void
"""

_GIVE = """
  %at = getelementptr i8, ptr %control, i64 {yield}
  %yield = load ptr, ptr %at, align 8
  %some = icmp ne ptr %yield, null
  br i1 %some, label %give, label %done
give:
  %ignored = call i32 %yield()
  br label %done
done:
  ret void
"""

_SPIN = """
  br label %spin
spin:
  %left = phi i64 [ %pauses, %entry ], [ %fewer, %spin ]
  {pause}
  %fewer = sub i64 %left, 1
  %more = icmp sgt i64 %fewer, 0
  br i1 %more, label %spin, label %done
done:
  ret void
"""

# A worker's time on duty: serves jobs until none came for so many pauses; returns how many it served, -1 if another
# worker of its number is on duty.
_WORK = """
  %word_at = getelementptr i8, ptr %control, i64 {word}
  %busy_at = getelementptr i8, ptr %control, i64 {busy}
  %done_at = getelementptr i8, ptr %control, i64 {done}
  %list = getelementptr i8, ptr %control, i64 {awake}
  %awake_at = getelementptr i8, ptr %list, i64 %thread
  ; Read before reporting for duty: a job that counts on this worker is published after.
  %first = load atomic i64, ptr %word_at acquire, align 8
  %other = atomicrmw xchg ptr %awake_at, i8 1 seq_cst
  %taken = icmp ne i8 %other, 0
  br i1 %taken, label %twice, label %spin
twice:
  ret i64 -1
spin:
  %seen = phi i64 [ %first, %entry ], [ %seen, %rest ], [ %now, %look ], [ %now, %run ], [ %seen, %tired ]
  %left = phi i64 [ %pauses, %entry ], [ %fewer, %rest ], [ %left, %look ], [ %pauses, %run ], [ {rounds}, %tired ]
  %served = phi i64 [ 0, %entry ], [ %served, %rest ], [ %served, %look ], [ %more, %run ], [ %served, %tired ]
  %now = load atomic i64, ptr %word_at acquire, align 8
  %same = icmp eq i64 %now, %seen
  br i1 %same, label %rest, label %look
rest:
  {pause}
  %fewer = sub i64 %left, 1
  %out = icmp slt i64 %fewer, 0
  br i1 %out, label %tired, label %spin
look:
  %threads = and i64 %now, 65535
  %mine = icmp ult i64 %thread, %threads
  br i1 %mine, label %run, label %spin
run:
  %step_at = getelementptr i8, ptr %control, i64 {step}
  %table_at = getelementptr i8, ptr %control, i64 {table}
  %scratch_at = getelementptr i8, ptr %control, i64 {scratch}
  %step = load ptr, ptr %step_at, align 8
  %table = load ptr, ptr %table_at, align 8
  %scratch = load ptr, ptr %scratch_at, align 8
  call void %step(ptr %table, ptr %scratch, ptr %control, i64 %thread, i64 %threads)
  %ignored = atomicrmw add ptr %done_at, i64 1 release
  %more = add i64 %served, 1
  br label %spin
tired:
  %pair = cmpxchg ptr %busy_at, i64 0, i64 1 acquire monotonic
  %free = extractvalue {{ i64, i1 }} %pair, 1
  br i1 %free, label %leave, label %spin
leave:
  store atomic i8 0, ptr %awake_at release, align 1
  store atomic i64 0, ptr %busy_at release, align 8
  ret i64 %served
"""

# Returns 0 when the step has run; 1 when it has not, since a worker sleeps and `woken` is 0.
_RUN = """
  %control = load ptr, ptr %job, align 8
  {job_loads}
  %limit_at = getelementptr i8, ptr %control, i64 {limit}
  %limit = load i64, ptr %limit_at, align 8
  %threads = call i64 @llvm.umin.i64(i64 %asked, i64 %limit)
  %few = icmp ule i64 %threads, 1
  br i1 %few, label %alone, label %choose
alone:
  call void %step(ptr %table, ptr %scratch, ptr %control, i64 0, i64 1)
  ret i32 0

choose:
  %many_at = getelementptr i64, ptr %job, i64 {j[many]}
  %usual = load i64, ptr %many_at, align 8
  %trial_at = getelementptr i64, ptr %job, i64 {j[trial]}
  %trial = load i64, ptr %trial_at, align 8
  %trying = icmp ne i64 %trial, 0
  %flip = zext i1 %trying to i64
  %many = xor i64 %usual, %flip
  %start = {cycles}
  %several = icmp ne i64 %many, 0
  br i1 %several, label %take, label %one
one:
  call void %step(ptr %table, ptr %scratch, ptr %control, i64 0, i64 1)
  br label %timed

take:
  %busy_at = getelementptr i8, ptr %control, i64 {busy}
  %pair = cmpxchg ptr %busy_at, i64 0, i64 1 acquire monotonic
  %free = extractvalue {{ i64, i1 }} %pair, 1
  br i1 %free, label %taken, label %alone
taken:
  %time_one_at = getelementptr i64, ptr %job, i64 {j[time_one]}
  %time_one = load i64, ptr %time_one_at, align 8
  %wake_patience_at = getelementptr i8, ptr %control, i64 {wake_patience}
  %wake_patience = load i64, ptr %wake_patience_at, align 8
  %list = getelementptr i8, ptr %control, i64 {awake}
  br label %roll
roll:
  %number = phi i64 [ 1, %taken ], [ %following, %present ], [ %number, %hope ]
  %waited = phi i64 [ 0, %taken ], [ %waited, %present ], [ %longer, %hope ]
  %awake_at = getelementptr i8, ptr %list, i64 %number
  %awake = load atomic i8, ptr %awake_at acquire, align 1
  %is_awake = icmp ne i8 %awake, 0
  br i1 %is_awake, label %present, label %missing
present:
  %following = add i64 %number, 1
  %full = icmp eq i64 %following, %threads
  br i1 %full, label %publish, label %roll
missing:
  %unasked = icmp eq i32 %woken, 0
  br i1 %unasked, label %ask, label %hope
ask:
  store atomic i64 0, ptr %busy_at release, align 8
  ret i32 1
hope:
  ; Waiting longer than the step takes one thread is never worth it.
  {pause}
  %longer = add i64 %waited, 1
  %clock = {cycles}
  %passed = sub i64 %clock, %start
  %known = icmp ne i64 %time_one, 0
  %slow = icmp ugt i64 %passed, %time_one
  %hopeless = and i1 %known, %slow
  %long = icmp ugt i64 %longer, %wake_patience
  %stop = or i1 %hopeless, %long
  br i1 %stop, label %resign, label %roll
resign:
  store atomic i64 0, ptr %busy_at release, align 8
  br label %one

publish:
  %done_at = getelementptr i8, ptr %control, i64 {done}
  %step_at = getelementptr i8, ptr %control, i64 {step}
  %table_at = getelementptr i8, ptr %control, i64 {table}
  %scratch_at = getelementptr i8, ptr %control, i64 {scratch}
  store atomic i64 0, ptr %done_at monotonic, align 8
  store ptr %step, ptr %step_at, align 8
  store ptr %table, ptr %table_at, align 8
  store ptr %scratch, ptr %scratch_at, align 8
  %word_at = getelementptr i8, ptr %control, i64 {word}
  %old = load atomic i64, ptr %word_at monotonic, align 8
  %count = or i64 %old, 65535
  %counted = add i64 %count, 1
  %word = or i64 %counted, %threads
  store atomic i64 %word, ptr %word_at release, align 8
  call void %step(ptr %table, ptr %scratch, ptr %control, i64 0, i64 %threads)
  %others = sub i64 %threads, 1
  %patience_at = getelementptr i8, ptr %control, i64 {patience}
  %patience = load i64, ptr %patience_at, align 8
  br label %join
join:
  %left = phi i64 [ %patience, %publish ], [ %fewer, %rest ], [ {rounds}, %give ]
  %done = load atomic i64, ptr %done_at acquire, align 8
  %all = icmp eq i64 %done, %others
  br i1 %all, label %joined, label %rest
rest:
  {pause}
  %fewer = sub i64 %left, 1
  %tired = icmp slt i64 %fewer, 0
  br i1 %tired, label %give, label %join
give:
  call void @cr_give(ptr %control)
  br label %join
joined:
  store atomic i64 0, ptr %busy_at release, align 8
  br label %timed

timed:
  %end = {cycles}
  %spent = sub i64 %end, %start
  %time = call i64 @llvm.smax.i64(i64 %spent, i64 1)
  %adapts_at = getelementptr i64, ptr %job, i64 {j[adapts]}
  %adapts = load i64, ptr %adapts_at, align 8
  %learn = icmp ne i64 %adapts, 0
  br i1 %learn, label %note, label %end_of_call
note:
  call void @cr_note(ptr %job, i64 %many, i64 %time)
  br label %end_of_call
end_of_call:
  ret i32 0
"""


def has_counter(target: Target) -> bool:
    """Can a program read a counter of the processor's ticks?"""
    return target.arch in {"x86_64", "aarch64"}


def emit_barrier(builder: Builder, target: Target) -> None:
    """Define `void @cr_barrier(ptr %control, i64 %threads)` in a module, for the steps in it.

    Every thread counts itself in; the last opens the next turn, which the others watch on a line of its own. That is one
    write of a shared line per thread: a tenth of a microsecond for a few threads, some microseconds for 64, where a tree
    of counters would pay. A thread that waits longer than Control's patience offers its core to others, again and again.
    """
    _define(builder, target, "internal void", "cr_give", "ptr %control", _GIVE)
    _define(builder, target, "internal void", "cr_barrier", "ptr %control, i64 %threads", _BARRIER)


def runtime_text(target: Target) -> str:
    """The module of the pool: `i32 @cr_launch(ptr %job)`, `@cr_launch_woken`, `i64 @cr_work(…)`, `@cr_spin(i64)`."""
    builder = Builder(target.vector_bytes, fma=target.has_fma)
    _define(builder, target, "internal void", "cr_give", "ptr %control", _GIVE)
    _define(builder, target, "void", "cr_spin", "i64 %pauses", _SPIN)
    _define(builder, target, "i64", "cr_work", "ptr %control, i64 %thread, i64 %pauses", _WORK)
    for name in ("umin", "smax"):
        builder.declare(f"i64 @llvm.{name}.i64(i64, i64)")
    _define(builder, target, "internal i32", "cr_run", "ptr %job, i32 %woken", _RUN)
    _Notes(builder).define()
    for name, woken in (("cr_launch", 0), ("cr_launch_woken", 1)):
        call = f"  %result = tail call i32 @cr_run(ptr %job, i32 {woken})\n  ret i32 %result"
        _define(builder, target, "i32", name, "ptr %job", call)
    return builder.text()


def _define(builder: Builder, target: Target, result: str, name: str, arguments: str, text: str) -> None:
    """Define a function written out above, with the instructions of a target."""
    pause, cycles = "; no pause is known", "add i64 0, 0"
    if has_counter(target):  # RDTSC; on AArch64 CNTVCT_EL0, which a user's program may read
        cycles = "call i64 @llvm.readcyclecounter()"
        builder.declare("i64 @llvm.readcyclecounter()")
    if target.arch == "x86_64":
        pause = "call void @llvm.x86.sse2.pause()"
        builder.declare("void @llvm.x86.sse2.pause()")
    elif target.arch == "aarch64":  # isb, not yield: yield takes no time on a core that runs one thread
        pause = "call void @llvm.aarch64.isb(i32 15)"
        builder.declare("void @llvm.aarch64.isb(i32)")
    loads = []
    for field, kind in (("step", "ptr"), ("table", "ptr"), ("scratch", "ptr"), ("threads", "i64")):
        register = "asked" if field == "threads" else field
        loads.append(f"%{register}_of = getelementptr i64, ptr %job, i64 {JOB[field]}")
        loads.append(f"%{register} = load {kind}, ptr %{register}_of, align 8")
    filled = text.format(
        pause=pause,
        cycles=cycles,
        rounds=_ROUNDS,
        job_loads="\n  ".join(loads),
        j=JOB,
        **CONTROL,
    )

    def body() -> None:
        for line in filled.strip("\n").splitlines():
            builder.emit(line.strip())

    builder.function(name, arguments, body, result)


class _Notes:
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
        spent = b.add(self.get("trial_time"), b.where(uncounted, zero, self.time))
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
        loss = b.maximum(zero, b.sub(self.time, one))
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
