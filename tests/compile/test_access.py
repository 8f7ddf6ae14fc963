"""Moved entries are read where they come from: through several moves at once, and through positions looked up."""

import numpy as np
import pytest
from equality import assert_equal, compiled
from steps import drawn, written

import chainrule as cr
from chainrule.compile.kernels.expression import Within, walk
from chainrule.compile.kernels.kernel import Loops

LAST = cr.tensor(np.array([-1, 0]))


def bounds(function, *args) -> int:
    """How many bounds are asked for in the kernels of a function."""
    kernels = [task.kernel for task in written(function, *args).schedule.tasks]
    values = [s.value for k in kernels if isinstance(k, Loops) for stage in k.stages for s in stage.stores]
    return sum(len(e.bounds) for e in walk(*values) if isinstance(e, Within))


@pytest.mark.parametrize(
    "move",
    [
        lambda x: x[:3],  # begins where the whole begins, and ends before it
        lambda x: x[1:],
        lambda x: x.flip(0),
        lambda x: x.permute(1, 0),
        lambda x: x.reshape(2, 3, 4)[:, 1],
        lambda x: cr.cat([x, x * 2]),
        lambda x: cr.nn.functional.pad(x, (0, 0, 1, 2)),
        lambda x: x[:1].expand(5, 4),
        lambda x: cr.nn.functional.windows(x, (3,), (2,), (1,)),
    ],
    ids=["first", "rest", "flip", "permute", "reshape", "cat", "pad", "expand", "windows"],
)
def test_a_position_that_is_looked_up_counts_in_what_was_moved(move):
    def looked_up(x, i):
        return move(x + 1)[i]

    x = drawn(6, 4)
    assert_equal(compiled(looked_up)(x, LAST).numpy(), looked_up(x, LAST).numpy())


def test_a_bound_that_holds_everywhere_is_not_asked_for():
    pad = cr.nn.functional.pad
    assert bounds(lambda x: pad(x, (1, 1)) * 2, drawn(7)) == 1
    assert bounds(lambda x: pad(x, (1, 1))[1:8] * 2, drawn(7)) == 0
    assert bounds(lambda x: cr.cat([x, x + 1]) * 2, drawn(7)) == 1
    assert bounds(lambda x: cr.cat([x, x + 1])[:7] * 2, drawn(7)) == 0
