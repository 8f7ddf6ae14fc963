"""An op that says where its entries come from says the truth: told by arrays of positions. Names no op."""

import numpy as np
import pytest
from cases import CASES, Case

from chainrule.core.affine import Affine
from chainrule.core.aval import Aval
from chainrule.core.family import Linear
from chainrule.core.origin import ROW_BY_ROW, Copies, rearranged
from chainrule.ops.catalogue import CATALOGUE


def told(case: Case) -> Copies | None:
    """What the op of a case says of it."""
    if not isinstance(case.op, Linear) or case.op.origin is None:
        return None
    return case.op.origin(*(Aval(arg.shape, np.dtype(np.int64)) for arg in case.sample.args), **case.sample.params)


MOVES = [case for case in CASES if told(case) is not None]


def positions(case: Case) -> list[np.ndarray]:
    """Inputs of which no two entries are equal, and none is 0."""
    first, made = 1, []
    for arg in case.sample.args:
        made.append(np.arange(first, first + int(np.prod(arg.shape))).reshape(arg.shape))
        first += made[-1].size
    return made


def value(position: Affine, grid: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A position at every entry of the output."""
    return np.broadcast_to(sum((c * grid[v] for v, c in position.terms), start=position.constant), shape)


@pytest.mark.parametrize("move", MOVES, ids=str)
def test_an_entry_is_the_one_that_its_op_says(move):
    inputs, copies = positions(move), told(move)
    out = move.op.reference(*inputs, **move.sample.params)
    if copies is ROW_BY_ROW:
        np.testing.assert_array_equal(out.ravel(), inputs[0].ravel())
        return
    grid = np.indices(out.shape)
    expected, missing = np.zeros_like(out), np.ones(out.shape, bool)
    for copy in copies:
        here = missing.copy()
        for position, start, stop in copy.within:
            at = value(position, grid, out.shape)
            here &= (start <= at) & (at < stop)
        index = tuple(value(position, grid, out.shape)[here] for position in copy.at)
        for at, size in zip(index, inputs[copy.input].shape, strict=True):
            assert ((at >= 0) & (at < size)).all(), "outside the input"
        expected[here] = inputs[copy.input][index]
        missing &= ~here
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("move", MOVES, ids=str)
def test_what_is_only_rearranged_keeps_its_positions(move):
    x, *others = positions(move)
    out = move.op.reference(x, *others, **move.sample.params)
    order = rearranged(told(move), x.shape, out.shape)
    if order is None:
        return
    grid = np.indices(out.shape)
    index = tuple(np.zeros(out.shape, int) if d is None else grid[d] for d in order)
    np.testing.assert_array_equal(out, x[index])
    assert all(n == 1 if d is None else n == out.shape[d] for d, n in zip(order, x.shape, strict=True))


def test_what_is_stated_is_tested():
    stating = {op.name for op in CATALOGUE if isinstance(op, Linear) and op.origin is not None}
    assert stating == {case.op.name for case in MOVES}


def test_some_are_only_rearranged_and_some_are_not():
    orders = set()
    for move in MOVES:
        x, *others = positions(move)
        orders.add(rearranged(told(move), x.shape, move.op.reference(x, *others, **move.sample.params).shape))
    assert None in orders
    assert len(orders) > 3
