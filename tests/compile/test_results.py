"""Large results of compiled functions: memory is used again when nobody holds it, and never before."""

import gc
import weakref

import numpy as np
import pytest
import torch

import chainrule as cr
from chainrule.compile import results
from chainrule.compile.results import Results

SIZE = 5000  # entries: more than what is copied out of memory of its own


def doubled():
    return cr.compile(lambda x: x * 2.0)


def address(x):
    return x.array.__array_interface__["data"][0]


HOLDERS = {
    "the tensor": lambda y: y,
    "its array": lambda y: y.numpy(),
    "a view of the array": lambda y: y.numpy()[::2],
    "a view of a view": lambda y: y.numpy()[10:][::2].T,
    "a view of the tensor": lambda y: y[5:].reshape(5, -1),
    "a detached tensor": lambda y: y.detach(),
    "a buffer": lambda y: memoryview(y.numpy()),
    "DLPack": lambda y: np.from_dlpack(y),
    "a graph": lambda y: (y * cr.ones(SIZE, requires_grad=True)).sum(),
    "a tensor of PyTorch": lambda y: torch.from_dlpack(y),
}


def read(held):
    return np.array(held.detach().numpy() if hasattr(held, "detach") else held)


@pytest.mark.parametrize("holder", HOLDERS)
def test_what_somebody_holds_is_not_written_to(holder):
    f = doubled()
    held = HOLDERS[holder](f(cr.ones(SIZE)))
    before = read(held)
    for n in range(5):
        f(cr.full((SIZE,), float(n)))
    np.testing.assert_array_equal(read(held), before)
    if holder == "a graph":
        held.backward()


def test_what_is_done_to_an_array_stays_with_it():
    f, x = doubled(), cr.ones(SIZE)
    a, b, c = (f(x).numpy() for _ in range(3))
    a.dtype = np.int32
    b.setflags(write=False)
    c.shape = (50, SIZE // 50)
    del a, b, c
    for _ in range(3):
        y = f(x).numpy()
        assert (y.dtype, y.shape, y.flags.writeable) == (np.float32, (SIZE,), True)
        assert y[0] == 2.0
        del y


def test_memory_that_is_held_without_its_array_is_not_written_to():
    f = doubled()
    room = f(cr.ones(SIZE)).numpy().base
    for _ in range(4):
        f(cr.zeros(SIZE))
    assert np.frombuffer(room, np.float32)[0] == 2.0


def test_results_held_one_by_one_are_all_their_own():
    f = doubled()
    held = [f(cr.full((SIZE,), float(n))) for n in range(6)]
    assert len({address(y) for y in held}) == 6
    assert [y[0].item() for y in held] == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]


def test_a_result_that_takes_the_place_of_the_last_one_uses_two_memories_in_turn():
    f = doubled()
    seen = set()
    y = None
    for n in range(10):
        y = f(cr.full((SIZE,), float(n)))
        seen.add(address(y))
        assert y[-1].item() == 2.0 * n
    assert len(seen) == 2


def test_several_results_do_not_share():
    f = cr.compile(lambda x: (x + 1.0, x + 2.0))
    for n in range(4):
        a, b = f(cr.full((SIZE,), float(n)))
        assert (a[0].item(), b[0].item()) == (n + 1.0, n + 2.0)


def test_a_result_given_back_as_an_argument_is_read_before_it_is_written():
    f = doubled()
    x = f(cr.ones(SIZE))
    for _ in range(6):
        x = f(x)
    assert x[0].item() == 2.0**7


def test_what_is_large_is_not_kept(monkeypatch):
    monkeypatch.setattr(results, "_MOST", 4 * SIZE - 1)
    kept = Results((SIZE,), np.dtype(np.float32))
    array, _ = kept.free()
    gone = weakref.ref(array.base)
    del array
    gc.collect()
    assert gone() is None


def test_without_a_count_of_references_every_result_is_fresh(monkeypatch):
    monkeypatch.setattr(results, "_count", None)
    kept = Results((SIZE,), np.dtype(np.float32))
    first, _ = kept.free()
    gone = weakref.ref(first.base)
    del first
    assert gone() is None
