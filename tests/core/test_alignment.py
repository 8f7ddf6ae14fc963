"""Memory at cache lines: large arrays begin at one, and own their memory as NumPy's do."""

import gc
import weakref

import numpy as np
import pytest

import chainrule as cr
from chainrule.core import memory
from chainrule.core.alignment import ALIGNMENT, aligned_bytes, aligned_copy, aligned_empty


@pytest.mark.parametrize("size", [1, 64, 1000, 1 << 20])
def test_bytes_begin_at_a_line_and_are_zero(size):
    found = aligned_bytes(size)
    assert found.shape == (size,)
    assert found.ctypes.data % ALIGNMENT == 0
    assert not found.any()


@pytest.mark.parametrize("shape", [(300, 77), (1 << 17,), (2, 3, 4000)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int8, cr.bfloat16])
def test_large_arrays_begin_at_a_line(shape, dtype):
    found = aligned_empty(shape, np.dtype(dtype))
    assert (found.shape, found.dtype) == (shape, np.dtype(dtype))
    assert found.ctypes.data % ALIGNMENT == 0
    assert found.flags.c_contiguous
    assert found.flags.writeable


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 5), (7,), (300, 400)])
def test_a_copy_has_the_values_in_c_order(shape):
    given = np.asfortranarray(np.random.default_rng(0).standard_normal(shape))
    for dtype in (None, np.dtype(np.float32)):
        found = aligned_copy(given, dtype)
        np.testing.assert_array_equal(found, given.astype(dtype or given.dtype))
        assert found.flags.c_contiguous
        assert not np.may_share_memory(found, given)


def test_a_view_of_it_is_known_to_be_one():
    whole = aligned_empty((300, 77), np.dtype(np.float32))
    view = whole[3:, ::2].T
    assert view.base is whole
    memory.note_change(view, 10**9)
    assert memory.changed_at(whole) == 10**9
    assert memory.changed_at(whole[:3]) == 0
    memory.note_change(whole, 10**9 + 1)
    assert memory.changed_at(whole[:3]) == memory.changed_at(view) == 10**9 + 1
    record = memory.record_of(whole)
    record.whole = 10**9 + 2
    assert memory.changed_at(view) == 10**9 + 2
    memory.forget_changes(view)
    assert memory.changed_at(whole) == 0
    assert memory.record_of(whole) is record


def test_memory_is_given_back():
    whole = aligned_empty((300, 77), np.dtype(np.float32))
    gone = weakref.ref(whole)
    view = whole[1:]
    del whole
    view[...] = 1
    assert gone() is not None
    del view
    gc.collect()
    assert gone() is None


def test_tensors_that_will_be_updated_lie_there():
    array = np.ones((200, 100))
    made = [
        cr.tensor(array),
        cr.tensor(array, dtype=cr.float32),
        cr.nn.Linear(200, 100).weight,
        cr.nn.Linear(200, 100).to(cr.float64).weight,
    ]
    assert [x.array.ctypes.data % ALIGNMENT for x in made] == [0, 0, 0, 0]
    assert [isinstance(x.array.base, np.ndarray) for x in made] == [False] * 4
    assert cr.from_numpy(array).array is array
