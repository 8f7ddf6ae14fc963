"""Contractions: products of matrices, batches of them, convolutions, as register tiles; see planning.py."""

from chainrule.compile.llvm.contraction.planning import ContractPlan, plan

__all__ = ["ContractPlan", "plan"]
