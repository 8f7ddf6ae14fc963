"""A contender in a process of its own: `python -m workloads.process TASK CONTENDER PROBLEM BATCHES CORE …`.

It starts, calls the step eight times, and says what came out; then, for each line with a number of seconds on its
standard input, runs for about as long, or longer if a call takes long, and says how long a call took. All that it says
is one line of JSON each.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
import time
from itertools import cycle, islice
from pathlib import Path
from typing import Any, TextIO

FIRST_CALLS = 8
SHORTEST = 0.02  # seconds; what is timed once to learn how many calls fill a time
WARM = 0.2  # share of a lap that is run before it, untimed
LEAST = 12  # calls of a lap: after it was stopped, a library may take some to find its number of threads again


def private_output() -> TextIO:
    """Standard output for this module alone: whatever a library prints goes to standard error."""
    own = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return own


def peak() -> int:
    """Most bytes of memory that the process has had."""
    status = Path("/proc/self/status")
    if status.exists():  # `getrusage` on Linux counts in what the parent had when it started this process
        return 1024 * int(re.search(r"^VmHWM:\s*(\d+) kB", status.read_text(encoding="ascii"), re.MULTILINE)[1])
    import resource  # not on Windows, where nothing of this runs

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def timed(running: Any, calls: int) -> tuple[float, float]:
    """Seconds by the clock and of the processors, of one call, while so many are made."""
    call, finish, result = running.call, running.finish, None
    inputs = list(islice(cycle(running.inputs), calls))
    start, start_of_cores = time.perf_counter(), time.process_time()
    for given in inputs:
        result = call(*given)
    finish(result)
    return (time.perf_counter() - start) / calls, (time.process_time() - start_of_cores) / calls


def main() -> None:
    output = private_output()
    task, name, problem_name, count, *cores = sys.argv[1:]
    if hasattr(os, "sched_setaffinity"):  # before anything is imported that counts cores
        os.sched_setaffinity(0, {int(core) for core in cores})

    from workloads import contenders, problems

    def say(**values: object) -> None:
        print(json.dumps(values), file=output, flush=True)

    contender, problem = contenders.NAMED[name], problems.ALL[problem_name]
    batches = problems.batches(problem, int(count))
    job = problems.Job(problem, problems.weights(problem), batches, contender.variant, len(cores))
    module = importlib.import_module(f"workloads.{contender.module}")
    before, start = peak(), time.perf_counter()
    running = getattr(module, task)(job)
    results, seconds = [], []
    for given in islice(cycle(running.inputs), FIRST_CALLS):
        results.append([float(x) for x in running.finish(running.call(*given)).flat[:20]])
        seconds.append(time.perf_counter() - start)
    calls = 1
    while (each := timed(running, calls)[0]) * calls < SHORTEST:
        calls *= 2
    say(results=results, first=seconds[0], peak_before=before)  # from here on, it is stopped but for its laps
    for line in sys.stdin:
        wanted = max(float(line) / each, LEAST)
        timed(running, max(round(WARM * wanted), 1))
        each, of_cores = timed(running, round(wanted))
        say(seconds=each, of_cores=of_cores, peak=peak())


if __name__ == "__main__":
    main()
