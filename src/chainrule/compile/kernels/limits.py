"""Terms of a product's sums that are 0, because an operand is read from beyond its edge, where zeros are imagined.

The gradient of what a convolution read is a convolution too, of a gradient with zeros all around it. With 5×5 filters
and 10×10 places half of what would be added is 0. So the zeros are neither stored nor multiplied: at each place of the
result, the sums run over those terms only for which there is something to read.

Knows expressions and loop variables; where a contraction's loops then begin and end is for who writes them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from chainrule.compile.kernels.expression import Expr, Load, Number, Within
from chainrule.compile.kernels.kernel import Contract
from chainrule.core.affine import Affine
from chainrule.core.origin import Bound


class Limit(NamedTuple):
    """Where `start` ≤ `variable` + `rest` < `stop`, there is a term; the variable is summed over, the rest is not."""

    variable: int
    rest: Affine
    start: int
    stop: int


def limits(operand: Expr, summed: Collection[int]) -> tuple[Limit, ...]:
    """What limits the sums over an operand that is 0 beyond its edges; none, if it is anything else."""
    if not isinstance(operand, Within) or not isinstance(operand.inside, Load):
        return ()
    zero = isinstance(operand.outside, Number) and operand.outside.value == 0
    found = [limit(bound, summed) for bound in operand.bounds]
    return tuple([x for x in found if x is not None]) if zero and None not in found else ()


def limit(bound: Bound, summed: Collection[int]) -> Limit | None:
    """A bound as one of a single summed variable; None if it is not."""
    position, start, stop = bound
    own = [(v, c) for v, c in position.terms if v in summed]
    if len(own) != 1 or own[0][1] != 1:
        return None
    ((variable, _),) = own
    return Limit(variable, position - Affine.variable(variable), start, stop)


def terms(kernel: Contract) -> int:
    """How many products a contraction adds up."""
    total = math.prod(kernel.extents[v] for v in (*kernel.batch, *kernel.rows, *kernel.columns, *kernel.summed))
    found = [x for operand in (kernel.left, kernel.right) for x in limits(operand, kernel.summed)]
    for group in _apart(found):
        points, some = _counted(group, kernel)
        total = total // points * some
    return total


def _apart(found: Iterable[Limit]) -> list[list[Limit]]:
    """Limits in groups that have no variable in common."""
    groups: list[tuple[set[int], list[Limit]]] = []
    for x in found:
        mentioned, members = {x.variable, *(v for v, _ in x.rest.terms)}, [x]
        for group in [g for g in groups if g[0] & mentioned]:
            groups.remove(group)
            mentioned |= group[0]
            members += group[1]
        groups.append((mentioned, members))
    return [members for _, members in groups]


def _counted(group: Sequence[Limit], kernel: Contract) -> tuple[int, int]:
    """The points of all variables that limits mention; and those at which there is a term."""
    variables = sorted({v for x in group for v in (x.variable, *(v for v, _ in x.rest.terms))})
    shape = tuple(kernel.extents[v] for v in variables)
    at = dict(zip(variables, np.ogrid[tuple(slice(n) for n in shape)], strict=True))
    some = np.ones(shape, bool)
    for x in group:
        position = at[x.variable] + x.rest.constant + sum(c * at[v] for v, c in x.rest.terms)
        some &= (position >= x.start) & (position < x.stop)
    return math.prod(shape), int(some.sum())
