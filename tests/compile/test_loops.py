"""How loop nests are written: cut where what is read changes, in squares where it lies the other way round."""

import re

import numpy as np
import pytest
from equality import arrays, compiled
from steps import F, written

import chainrule as cr
from chainrule.compile.llvm.loops.layout import decide


def numbers(*shape, dtype=np.float32):
    return np.arange(np.prod(shape, dtype=int), dtype=dtype).reshape(shape) * 0.5 - 3


MOVES = {
    "columns joined": (lambda x, y: cr.cat([x, y * 2, x], 1), lambda x, y: np.concatenate([x, y * 2, x], 1)),
    "rows joined": (lambda x, y: cr.cat([x, y.tanh(), x], 0), lambda x, y: np.concatenate([x, np.tanh(y), x], 0)),
    "turned round": (lambda x, y: cr.roll(x, (2, 5), (0, 1)) + y, lambda x, y: np.roll(x, (2, 5), (0, 1)) + y),
    "padded": (
        lambda x, y: F.pad(x, (3, 1, 2, 4), value=7.0),
        lambda x, y: np.pad(x, ((2, 4), (3, 1)), constant_values=7),
    ),
    "joined and backwards": (lambda x, y: cr.cat([x, y], 1).flip(1), lambda x, y: np.concatenate([x, y], 1)[:, ::-1]),
    "summed": (lambda x, y: cr.cat([x, y], 1).sum(1), lambda x, y: np.concatenate([x, y], 1).sum(1)),
    "summed by columns": (lambda x, y: cr.cat([x, y], 0).sum(0), lambda x, y: np.concatenate([x, y], 0).sum(0)),
    "transposed": (lambda x, y: x.T * 2 + y.T, lambda x, y: x.T * 2 + y.T),
    "transposed and joined": (lambda x, y: cr.cat([x, y], 0).T.exp(), lambda x, y: np.exp(np.concatenate([x, y], 0).T)),
    "with its transpose": (lambda x, y: (x @ y.T) + (x @ y.T).T, lambda x, y: x @ y.T + (x @ y.T).T),
}


@pytest.mark.parametrize("shape", [(16, 32), (7, 9), (33, 40), (67, 17), (1, 64), (64, 1), (24, 131)], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, cr.bfloat16], ids=["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("move", MOVES)
def test_what_is_moved_is_where_numpy_has_it(move, dtype, shape, target):
    ours, numpys = MOVES[move]
    x, y = (cr.tensor(numbers(*shape) / shape[1] + i).to(cr.tensor(np.zeros(1, dtype)).dtype) for i in range(2))
    (found,) = arrays(compiled(ours, target)(x, y))
    wanted = numpys(*(a.to(cr.float64).numpy() for a in (x, y)))
    # Of float32 and float64, what sums of 131 terms lose; bfloat16 has 8 bits, and is rounded once or twice.
    bits = {"float32": 1e-5, "float64": 1e-12, "bfloat16": 2e-2}[str(x.dtype).removeprefix("chainrule.")]
    size = max(1.0, float(np.abs(wanted).max()))
    np.testing.assert_allclose(found, wanted, rtol=bits, atol=bits * size)


def text(function, *inputs, target):
    return written(function, *inputs, target=target).module.text


@pytest.mark.parametrize("dim", [0, 1])
def test_no_lane_is_asked_which_of_joined_arrays_it_is_in(dim, target):
    x = cr.tensor(numbers(64, 64))
    assert not re.search(r"x i1>", text(lambda x: cr.cat([x, x * 2], dim), x, target=target))
    # But in a vector that lies across the edge.
    assert re.search(r"x i1>", text(lambda x: cr.cat([x[:, :61], x * 2], 1), x, target=target))


def looked_up(tables, columns):
    """A row of each table, side by side."""
    return cr.cat([F.embedding(columns[:, n], table) for n, table in enumerate(tables)], 1)


def test_of_many_tables_joined_none_is_asked_for_another(target):
    tables = [cr.tensor(numbers(9, 64) + n) for n in range(8)]
    columns = cr.tensor(np.arange(80).reshape(10, 8) % 9)
    code = text(looked_up, tables, columns, target=target)
    assert not re.search(r"x i1>", code)
    assert len(code) < 4 * len(text(looked_up, tables[:2], columns, target=target)) + 2000


@pytest.mark.parametrize("widths", [(5, 8, 8, 4, 8, 3, 3, 21), (1, 1, 1, 1), (3, 64, 2), (70,)], ids=str)
def test_rows_of_tables_are_joined(widths, target):
    tables = [cr.tensor(numbers(4 + n, width) + n) for n, width in enumerate(widths)]
    columns = cr.tensor(np.stack([np.arange(11) % (4 + n) for n in range(len(widths))], 1))
    (found,) = arrays(compiled(looked_up, target)(tables, columns))
    wanted = np.concatenate([table.numpy()[columns.numpy()[:, n]] for n, table in enumerate(tables)], 1)
    np.testing.assert_array_equal(found, wanted)
    gradient = cr.grad(lambda tables: looked_up(tables, columns).square().sum())
    for ours, eager in zip(compiled(gradient, target)(tables), gradient(tables), strict=True):
        np.testing.assert_allclose(ours.numpy(), eager.numpy(), rtol=1e-6)


def test_a_matrix_is_transposed_in_squares(target):
    x = cr.tensor(numbers(64, 96))
    (task,) = written(lambda x: x.T * 2, x).schedule.tasks
    layout = decide(task.kernel, target)
    assert layout.across is not None
    assert "shufflevector" in text(lambda x: x.T * 2, x, target=target)


def test_rows_of_a_table_are_read_in_whole_vectors_and_looked_up_once(target):
    """Though the labels are twice as wide as the rows' entries."""
    table, rows = cr.tensor(numbers(50, 64)), cr.tensor(np.arange(20) % 7)
    found = written(lambda table, rows: F.embedding(rows, table), table, rows, target=target)
    (task,) = found.schedule.tasks
    assert decide(task.kernel, target).lanes == target.vector_bytes // 4
    code = re.search(r"define internal void @k0\(.*?^}", found.module.text, re.DOTALL | re.MULTILINE)[0]
    *_, innermost = re.split(r"^loop\d+:", code, flags=re.MULTILINE)
    assert "select i1" not in innermost  # is the index in range?
    (got,) = arrays(compiled(lambda table, rows: F.embedding(rows, table), target)(table, rows))
    np.testing.assert_array_equal(got, table.numpy()[rows.numpy()])
