"""The two blocks of memory through which Python and the machine code of the threads speak: `Control` and `Job`.

Knows where each word stands, and nothing of what is done with it.
"""

from __future__ import annotations

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
    "stall": 6,  # ticks: who takes so much longer than eight calls was stopped meanwhile
    "many": 16,  # which way is in use: 0 one thread, 1 several
    "time_one": 17, "time_many": 18,  # moving averages, in ticks of the processor's counter
    "trial": 19,  # calls left of a trial of the other way
    "trial_first": 20, "trial_time": 21, "trial_slowest": 22,  # its first call; all others; the slowest of those
    "wait": 23, "patience": 24,  # ticks until the next trial; how many times the cost of the last one is waited
    "debt": 25, "lost": 26,  # what several threads lost against one: with slow calls cut, and as it was
    "since": 27,  # calls since the way in use changed
    "calls_one": 28, "calls_many": 29,
}  # fmt: skip
JOB_WORDS = 32

# What a job begins with.
TRIAL = 6  # calls of a trial
PATIENCE_AT_FIRST = 2  # how many times the cost of a trial that failed is waited
