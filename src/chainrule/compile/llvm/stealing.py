"""Work stealing: a thread takes its share of a task bit by bit, and what is left of the others' when it is through.

Cores are not equally fast: other programs take time from them, some have small cores beside large ones. With shares
dealt out beforehand, all wait for the slowest. What a unit comes to does not depend on who does it; nor does a result.

What is left of a thread's share of a task is a word in its own scratch memory: the first unit in the lower half, the
end in the upper. The thread takes from the front, so that one bit goes on where the last one ended; others take from
the back. Bits are whole grains of units, and get smaller towards the end. A step begins with `deal` for each of its
tasks, and leaves the words empty; at the first task, who is late may not have dealt yet, and is not helped.
"""

from __future__ import annotations

from chainrule.compile.llvm.builder import Builder
from chainrule.compile.llvm.runtime import define
from chainrule.compile.llvm.target import Target

_BITS = 8  # a thread takes so much of what is left to it; of another's, half

_SHARE = """
  %alone = icmp ule i64 %threads, 1
  %own_bits = select i1 %alone, i64 1, i64 {bits}
  br label %whose
whose:
  %n = phi i64 [ 0, %entry ], [ %after, %empty ]
  %further = add i64 %thread, %n
  %owner = urem i64 %further, %threads
  %distance = mul i64 %owner, %stride
  %word_at = getelementptr i8, ptr %words, i64 %distance
  %own = icmp eq i64 %n, 0
  %bits = select i1 %own, i64 %own_bits, i64 2
  br label %look
look:
  %continues = phi i1 [ false, %whose ], [ %continues, %take ], [ %own, %run ]
  %word = load atomic i64, ptr %word_at monotonic, align 8
  %lo = and i64 %word, 4294967295
  %hi = lshr i64 %word, 32
  %some = icmp ult i64 %lo, %hi
  br i1 %some, label %take, label %empty
take:
  %first = udiv i64 %lo, %grain
  %rounded = add i64 %hi, %grain
  %up = sub i64 %rounded, 1
  %last = udiv i64 %up, %grain
  %grains = sub i64 %last, %first
  %part = udiv i64 %grains, %bits
  %taken = call i64 @llvm.umax.i64(i64 %part, i64 1)
  %front_grain = add i64 %first, %taken
  %front_end = mul i64 %front_grain, %grain
  %front = call i64 @llvm.umin.i64(i64 %front_end, i64 %hi)
  %back_grain = sub i64 %last, %taken
  %back_start = mul i64 %back_grain, %grain
  %back = call i64 @llvm.umax.i64(i64 %back_start, i64 %lo)
  %start = select i1 %own, i64 %lo, i64 %back
  %stop = select i1 %own, i64 %front, i64 %hi
  %left_lo = select i1 %own, i64 %front, i64 %lo
  %left_hi = select i1 %own, i64 %hi, i64 %back
  %upper = shl i64 %left_hi, 32
  %left = or i64 %upper, %left_lo
  %pair = cmpxchg ptr %word_at, i64 %word, i64 %left monotonic monotonic
  %won = extractvalue {{ i64, i1 }} %pair, 1
  br i1 %won, label %run, label %look
run:
  call void %kernel(ptr %table, ptr %scratch, i64 %start, i64 %stop, i1 %continues)
  br label %look
empty:
  %after = add i64 %n, 1
  %through = icmp eq i64 %after, %threads
  br i1 %through, label %done, label %whose
done:
  ret void
"""


def emit_sharing(builder: Builder, target: Target) -> None:
    """Define `@cr_share`, by which a thread does its part of a task whose shares are dealt.

    words: that of the first thread; those of the others lie `stride` bytes apart.
    """
    for name in ("umin", "umax"):
        builder.declare(f"i64 @llvm.{name}.i64(i64, i64)")
    arguments = "ptr %kernel, ptr %table, ptr %scratch, ptr %words, i64 %stride, i64 %grain, i64 %thread, i64 %threads"
    define(builder, target, "internal void", "cr_share", arguments, _SHARE, bits=_BITS)


def deal(builder: Builder, word: str, lo: str, hi: str) -> None:
    """A thread's share of a task: units `lo` up to `hi` are left of it."""
    upper = builder.let(f"shl i64 {hi}, 32")
    builder.emit(f"store atomic i64 {builder.let(f'or i64 {upper}, {lo}')}, ptr {word} monotonic, align 8")
