"""Nothing is read or written outside the arrays that a program is given, and an index outside of them is an error.

The guarded runs are in processes of their own: a kernel that leaves its memory ends its process.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from equality import compiled
from targets import KINDS

import chainrule as cr
from chainrule.errors import OutOfRangeError

HERE = Path(__file__).parent


def guarded(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the script; its exit code is below 0 if it was ended by a signal."""
    command = [sys.executable, str(HERE / "guarded.py"), *arguments]
    around = {**os.environ, "PYTHONPATH": str(HERE.parent / "contract")}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=around)


READS = {
    "index": lambda x, i: x[i],
    "index of two": lambda x, i: x[i, i.clamp(-3, 2)],
    "gather": lambda x, i: x.gather(0, i.reshape(-1, 1).expand(len(i), x.shape[1])),
    "embedding": lambda x, i: cr.nn.functional.embedding(i.clamp_min(0), x),
    "index after a reshape": lambda x, i: x.tanh().mT.reshape(x.shape)[i] * 2.0,
    "index of what is computed": lambda x, i: (x * x + 1.0)[i].sum(0),
    "index under a pad": lambda x, i: cr.nn.functional.pad(x[i], (1, 2, 3, 1)),
}
WRITES = {
    "index_add": lambda x, i: cr.zeros(5, 3, dtype=x.dtype).index_add(0, i, x[: len(i)]),
    "scatter_add": lambda x, i: cr.zeros(5, 3, dtype=x.dtype).scatter_add(
        0, i.reshape(-1, 1).expand(len(i), 3), x[: len(i)]
    ),
    "index_put": lambda x, i: x.index_put((i,), x[: len(i)], accumulate=True),
    "the gradient of an index": lambda x, i: cr.grad(lambda x: (x[i] * x[: len(i)]).sum())(x),
}


@pytest.mark.parametrize("name", [*READS, *WRITES])
def test_an_index_out_of_range(name):
    f = (READS | WRITES)[name]
    x = cr.tensor(np.arange(15.0).reshape(5, 3))
    function = compiled(f)
    for good in ([0, 1, 4], [-5, -1, 2]):
        if name == "scatter_add" or "embedding" not in name:
            i = cr.tensor(good)
            np.testing.assert_allclose(function(x, i).numpy(), f(x, i).numpy())
    for bad in ([0, 5, 1], [9**9, 0, 0], [0, 0, 2**62], [-6, 0, 0], [0, -(2**63), 0]):
        if name == "embedding" and min(bad) < 0:
            continue
        for _ in range(2):  # a fault leaves nothing behind
            with pytest.raises(OutOfRangeError, match="out of range"):
                function(x, cr.tensor(bad))
    assert np.array_equal(x.numpy().reshape(-1), np.arange(15.0))
    i = cr.tensor([4, 0, 2])
    np.testing.assert_allclose(function(x, i).numpy(), f(x, i).numpy())


def test_an_index_that_is_not_read_is_no_fault():
    """Positions that a pad leaves out, and lanes beyond the last entry, look nothing up."""

    def f(x, i):
        return cr.nn.functional.pad(x[i], (3, 3)), x[i[:2]]

    x, i = cr.tensor(np.arange(7.0)), cr.tensor([6, -7, 3])
    for found, wanted in zip(compiled(f)(x, i), f(x, i), strict=True):
        assert np.array_equal(found.numpy(), wanted.numpy())


F = cr.nn.functional
LOOKED_UP = {
    "cross_entropy": lambda x, i: F.cross_entropy(x, i),
    "cross_entropy, weighted": lambda x, i: F.cross_entropy(x, i, weight=x[0].detach() ** 2, label_smoothing=0.1),
    "its gradient": lambda x, i: cr.grad(lambda x: F.cross_entropy(x, i))(x),
    "nll_loss": lambda x, i: F.nll_loss(x, i),
    "embedding": lambda x, i: F.embedding(i, x[:10]),
    "embeddings, joined": lambda x, i: cr.cat([F.embedding(i, x[:10, :3]), x, F.embedding(i * 0 + 1, x[:10, :5])], 1),
    "one_hot": lambda x, i: F.one_hot(i, 10),
    "scatter_add": lambda x, i: cr.scatter_add(x[:10] * 0.0, 0, i.reshape(1, 17)[:, :10], x[:1]),
    "gradient of gather": lambda x, i: cr.grad(lambda x: x.gather(1, i.unsqueeze(1)).sum())(x),
}


# What the message names; of a gradient alone, the op that sends it back.
CALLED = {"cross_entropy, weighted": "cross_entropy", "embeddings, joined": "embedding"} | dict.fromkeys(
    ("its gradient", "gradient of gather"), "scatter_add"
)


@pytest.mark.parametrize("wrong", [10, -1, -11])
@pytest.mark.parametrize("name", LOOKED_UP)
def test_labels_and_indices_out_of_range(name, wrong):
    """As eagerly: where an index may count from the end, -1 is one; a class, or a row of an embedding, is none."""
    function, x = LOOKED_UP[name], cr.randn(17, 10)
    labels = np.arange(17) % 10
    fast = compiled(function)
    fast(x, cr.tensor(labels))
    labels[3] = wrong
    given = x, cr.tensor(labels)
    if wrong == -1 and name in {"scatter_add", "gradient of gather"}:
        np.testing.assert_array_equal(fast(*given).numpy(), function(*given).numpy())
        return
    with pytest.raises(OutOfRangeError):
        function(*given)
    with pytest.raises(OutOfRangeError, match="the compiled function has run to its end") as caught:
        fast(*given)
    said = str(caught.value)
    assert f" {wrong} " in said, said
    assert said.startswith(f"{CALLED.get(name, name)}: "), said
    assert "test_faults.py:" in said, said


def test_a_backward_pass_names_the_op_it_goes_back_through():
    x = cr.ones(3, 4, requires_grad=True)

    @compiled
    def step(i):
        x.gather(1, i).sum().backward()

    with pytest.raises(OutOfRangeError, match=r"^gather: 4 is out of range for a dimension of size 4"):
        step(cr.tensor([[4], [0], [1]]))


def test_an_index_of_the_users_own_choice_is_no_label():
    x, either = cr.ones(3, 4), cr.tensor([True, False])
    with pytest.raises(OutOfRangeError, match=r"^index: 50 is out of range for a dimension of size 3; use -3 to 2"):
        compiled(lambda x, i, j: x[cr.where(either, i, j)])(x, cr.tensor([50, 1]), cr.tensor([0, 0]))
    table = cr.tensor([[1, 2], [3, 4]])
    with pytest.raises(OutOfRangeError, match=r"^index: 5 is out of range for a dimension of size 2"):
        compiled(lambda t, k: cr.where(t > 1, t, t * 2)[k])(table, cr.tensor([5]))


def test_an_index_that_was_updated_meanwhile_is_said_to_have_been_wrong():
    i, x = cr.tensor([1, 9]), cr.ones(3)

    @compiled
    def step():
        found = x[i]
        i.fill_(0)
        return found

    with pytest.raises(OutOfRangeError, match="was out of range, and is not any more"):
        step()
    assert np.array_equal(step().numpy(), [1.0, 1.0])


@pytest.mark.parametrize(("kind", "side"), [("", "start"), *((kind, "end") for kind in ("", *KINDS))])
def test_nothing_outside_the_arrays_is_touched(kind, side):
    done = guarded(kind, side)
    assert done.returncode == 0, f"exit code {done.returncode} in\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def test_the_guards_hold():
    done = guarded("", "end", "on purpose")
    assert done.returncode < 0, done.stdout
