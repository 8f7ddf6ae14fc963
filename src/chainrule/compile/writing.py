"""A program written as machine code: passes, kernels, memory, text, object code.

All that a program goes through where no recipe is on the disk. `native.py` runs what comes out, and imports this file
only when it is needed: with what it stands on, it is two thirds of the compiler.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from chainrule.compile import cache
from chainrule.compile.kernels.arena import Arena, planned
from chainrule.compile.kernels.claiming import claimed
from chainrule.compile.kernels.nesting import nested
from chainrule.compile.kernels.schedule import Schedule, scheduled
from chainrule.compile.llvm import engine, pool
from chainrule.compile.llvm.step import Module, written
from chainrule.compile.llvm.target import Target, host
from chainrule.compile.native import Native
from chainrule.compile.pipeline import optimised
from chainrule.compile.program import Program
from chainrule.compile.recipe import Recipe

_LONG = 4e6  # cycles of work from which the first call had better wake others, which takes as long as a million


@dataclass(frozen=True, eq=False, kw_only=True)
class Written:
    """A program with all that was decided on the way to its code: what a report tells of."""

    program: Program
    schedule: Schedule
    arena: Arena
    module: Module
    target: Target
    threads: int

    @cached_property
    def recipe(self) -> Recipe:
        """What is needed to run it; compiles, unless the same code was compiled before."""
        module = self.module
        return Recipe(
            code=cache.object_code(module.text, self.target),
            constants=tuple(b.array for b in module.table if b.array is not None),
            arena=self.arena.size,
            scratch=module.scratch,
            parallel=module.parallel,
            is_long=module.work >= _LONG,
            faults=module.faults,
        )

    def untimed(self) -> Written:
        """The same without counters, which what is timed has."""
        return replace(self, module=written(self.schedule, self.arena, self.target, self.threads))

    def native(self) -> Native:
        """Ready to run."""
        return Native(self.program, self.recipe, self.threads, len(self.schedule.tasks))

    def assembly(self) -> str:
        """The machine code, to be read."""
        return engine.assembly(self.module.text, self.target)


def write(
    program: Program, target: Target | None = None, *, threads: int | None = None, timed: bool = False
) -> Written:
    """Code for a program that has gone through its passes.

    threads: how many the code shall be good for at most; by default as many as are set.
    timed: count what each task takes; see `Native.ticks`.
    """
    target, threads = target or host(), threads or pool.get_num_threads()
    schedule = nested(scheduled(program))
    if threads > 1:
        schedule = claimed(schedule, threads)
    arena = planned(schedule, threads)
    module = written(schedule, arena, target, threads, timed=timed)
    return Written(program=program, schedule=schedule, arena=arena, module=module, target=target, threads=threads)


def compiled(program: Program, target: Target | None = None, *, threads: int | None = None) -> Native:
    """Machine code, ready to run, for a program that has gone through its passes."""
    return write(program, target, threads=threads).native()


def recipe_of(program: Program, target: Target, threads: int) -> Recipe:
    """What becomes of a program as it was traced."""
    return write(optimised(program), target, threads=threads).recipe
