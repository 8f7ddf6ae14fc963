"""The threads' half that is machine code: a step is handed out, waited for, and timed; a barrier between its phases.

Knows two blocks of memory, the pool's `Control` and a step's `Job`, and no Python; `pool.py` is the other half.

A step is `void @step(ptr %table, ptr %scratch, ptr %control, i64 %thread, i64 %threads)`, run by every thread that
takes part, each with its number. It must be right for every number of threads from 1 up: each call decides how many
run. Between phases it calls `void @cr_barrier(ptr %control, i64 %threads)`; none is needed at its end.

Publishing: the caller takes `busy`, so that one job runs at a time, writes the job beside `word`, then `word` itself: a
count of the jobs, and how many threads take part. A worker that sees a new word with its number in it may read the job,
since nothing is published before all that take part are done. A worker falls asleep only while it holds `busy` too: so
the caller, once it has found all it needs awake, loses none of them.
"""

from __future__ import annotations

from chainrule.compile.llvm.blocks import CONTROL, JOB
from chainrule.compile.llvm.builder import Builder
from chainrule.compile.llvm.choice import Choice
from chainrule.compile.llvm.target import Target

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
  %start = {cycles}
  br label %spin
spin:
  %left = phi i64 [ %pauses, %entry ], [ %fewer, %spin ]
  {pause}
  %fewer = sub i64 %left, 1
  %more = icmp sgt i64 %fewer, 0
  br i1 %more, label %spin, label %done
done:
  %end = {cycles}
  %ticks = sub i64 %end, %start
  ret i64 %ticks
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


def emit_barrier(builder: Builder, target: Target) -> None:
    """Define `void @cr_barrier(ptr %control, i64 %threads)` in a module, for the steps in it.

    Every thread counts itself in; the last opens the next turn, which the others watch on a line of its own. That is
    one write of a shared line per thread: a tenth of a microsecond for a few threads, some microseconds for 64, where a
    tree of counters would pay. A thread that waits longer than Control's patience offers its core to others.
    """
    define(builder, target, "internal void", "cr_give", "ptr %control", _GIVE)
    define(builder, target, "internal void", "cr_barrier", "ptr %control, i64 %threads", _BARRIER)


def runtime_text(target: Target) -> str:
    """The module of the pool: `i32 @cr_launch(ptr %job)`, `@cr_launch_woken`, `i64 @cr_work(…)`, `@cr_spin(i64)`."""
    builder = Builder(target.vector_bytes, fma=target.has_fma)
    define(builder, target, "internal void", "cr_give", "ptr %control", _GIVE)
    define(builder, target, "i64", "cr_spin", "i64 %pauses", _SPIN)
    define(builder, target, "i64", "cr_work", "ptr %control, i64 %thread, i64 %pauses", _WORK)
    for name in ("umin", "smax"):
        builder.declare(f"i64 @llvm.{name}.i64(i64, i64)")
    define(builder, target, "internal i32", "cr_run", "ptr %job, i32 %woken", _RUN)
    Choice(builder).define()
    for name, woken in (("cr_launch", 0), ("cr_launch_woken", 1)):
        call = f"  %result = tail call i32 @cr_run(ptr %job, i32 {woken})\n  ret i32 %result"
        define(builder, target, "i32", name, "ptr %job", call)
    return builder.text()


def define(builder: Builder, target: Target, result: str, name: str, arguments: str, text: str, **numbers: int) -> None:
    """Define a function that is written out, with the instructions of a target, and numbers by name."""
    pause, cycles = "; no pause is known", "add i64 0, 0"
    if target.has_counter:  # RDTSC; on AArch64 CNTVCT_EL0, which a user's program may read
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
        **numbers,
    )

    def body() -> None:
        for line in filled.strip("\n").splitlines():
            builder.emit(line.strip())

    builder.function(name, arguments, body, result)
