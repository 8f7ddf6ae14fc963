"""Which nodes are computed together: groups of nodes that become one kernel each, and what has to lie in memory.

A heavy node (a product of matrices, a reduction, a sort) starts a group, or joins one that runs over the same points.
What is computed from it entry by entry joins it too, as long as each value is read at the very point where it is
computed: a bias and an activation join the product, the shift and the exponential of a softmax join its maximum. Every
other elementwise node is free: it is computed where it is read, again for each reader, unless it has to be stored.

Then, from the results back, each group says which values of other groups it reads: those, and only those, are stored.
What turns out to be cheap to compute from the rest of them is not stored after all, and they are found once more.

Knows only these steps and their order: `homes.py`, `stores.py` and `sparing.py` take them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chainrule.compile.kernels.access import is_free
from chainrule.compile.kernels.group import Group, Places
from chainrule.compile.kernels.homes import find_homes
from chainrule.compile.kernels.repeated import far, repeated
from chainrule.compile.kernels.sparing import worth_storing
from chainrule.compile.kernels.stores import find_stores
from chainrule.compile.kernels.uses import uses_of
from chainrule.compile.program import Program


@dataclass(frozen=True, eq=False, kw_only=True)
class Grouping:
    """The groups of a program, each with what it reads and writes; and where it computes them."""

    groups: Sequence[Group]
    places: Places


def grouped(program: Program) -> Grouping:
    """The groups of a program."""
    uses = uses_of(program)
    cuts = far(program.nodes)
    often = repeated(program) | cuts
    homes = find_homes(program, uses, often, cuts)
    stores = find_stores(program, homes, uses, often, cuts)
    kept = worth_storing(stores, uses)
    # Who computes for himself what turned out to be stored, reads it then.
    again = any(is_free(node) and homes.of(node) is None for node in kept.values())
    if again or kept.keys() != stores.required.keys():
        stores = find_stores(program, homes, uses, often, cuts, kept)
    return Grouping(groups=[g for g in stores.homes.groups if g.placed], places=stores.homes.places)
