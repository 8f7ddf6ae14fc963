"""Loop nests of elementwise work and reductions, as vector code; see planning.py."""

from chainrule.compile.llvm.loops.planning import LoopsPlan, plan

__all__ = ["LoopsPlan", "plan"]
