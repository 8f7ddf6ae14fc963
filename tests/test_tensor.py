"""Tensor as an object: what it says of itself, recording on and off, updates in place, to NumPy and back."""

import copy
import threading

import numpy as np
import pytest
import torch

import chainrule as cr


def leaf(*shape):
    return cr.ones(*shape, dtype=cr.float64, requires_grad=True)


# --- what it says of itself


def test_shape_dtype_and_the_like():
    x = cr.zeros(2, 3)
    assert (x.shape, x.ndim, x.dim(), x.numel(), len(x), x.device) == ((2, 3), 2, 2, 6, 2, "cpu")
    assert x.size() == (2, 3)
    assert x.size(-1) == 3
    assert x.dtype == cr.float32
    assert x.is_leaf
    assert [row.shape for row in x] == [(3,), (3,)]
    assert x.T.shape == (3, 2)


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (lambda: cr.tensor([1.0, 2.5]), "tensor([1. , 2.5])"),
        (lambda: cr.tensor([1, 2]), "tensor([1, 2])"),
        (lambda: cr.tensor(True), "tensor(True)"),
        (lambda: cr.tensor(1.0, dtype=cr.float64), "tensor(1., dtype=float64)"),
        (lambda: cr.tensor([1.0], requires_grad=True), "tensor([1.], requires_grad=True)"),
        (lambda: cr.Tensor.symbolic("w", cr.zeros(2, 3).aval), "tensor(symbol w: float32[2,3])"),
    ],
)
def test_repr(made, text):
    assert repr(made()) == text


def test_to_python():
    x = cr.tensor(2.5)
    assert (float(x), int(x), x.item(), x.tolist(), f"{x:.2f}") == (2.5, 2, 2.5, 2.5, "2.50")
    assert isinstance(x.item(), float)
    assert bool(cr.tensor(True))
    assert [10, 20, 30][cr.tensor(2)] == 30
    with pytest.raises(TypeError, match="index"):
        [10, 20][cr.tensor(0.0)]
    with pytest.raises(TypeError, match="len"):
        len(x)


def test_equality_is_entry_by_entry_and_hash_by_identity():
    x, y = cr.tensor([1, 2]), cr.tensor([1, 3])
    assert (x == y).tolist() == [True, False]
    assert (x != y).tolist() == [False, True]
    assert x != "a"
    assert (x == None) is False  # noqa: E711 - what a user may write
    assert {x: 1}[x] == 1


def test_deepcopy_has_memory_of_its_own():
    x = leaf(3)
    (x * x).sum().backward()
    twin = copy.deepcopy(x)
    assert twin.requires_grad
    with cr.no_grad():
        twin.zero_()
    assert x.tolist() == [1, 1, 1]


# --- recording on and off


def test_no_grad_and_enable_grad():
    x = leaf(3)
    with cr.no_grad():
        assert not cr.is_grad_enabled()
        assert not (x * 2).requires_grad
        with cr.enable_grad():
            assert (x * 2).requires_grad
        assert not (x * 2).requires_grad
    assert cr.is_grad_enabled()
    assert (x * 2).requires_grad


def test_as_decorators():
    x = leaf(3)

    @cr.no_grad()
    def quiet(t):
        return t * 2

    @cr.enable_grad()
    def loud(t):
        return t * 2

    for _ in range(2):
        assert not quiet(x).requires_grad
    assert quiet.__name__ == "quiet"
    with cr.no_grad():
        assert loud(x).requires_grad


def test_an_error_inside_leaves_recording_as_it_was():
    with pytest.raises(ZeroDivisionError), cr.no_grad():
        1 / 0  # noqa: B018
    assert cr.is_grad_enabled()


def test_one_block_entered_again_inside_itself():
    block = cr.no_grad()
    with block, block:
        assert not cr.is_grad_enabled()
    assert cr.is_grad_enabled()


def test_each_thread_has_its_own_switch():
    seen = {}
    inside, done = threading.Event(), threading.Event()

    def other():
        inside.wait()
        seen["enabled"] = cr.is_grad_enabled()
        x = leaf(3)
        (x * x).sum().backward()
        seen["grad"] = x.grad.tolist()
        done.set()

    thread = threading.Thread(target=other)
    thread.start()
    with cr.no_grad():
        inside.set()
        done.wait()
    thread.join()
    assert seen == {"enabled": True, "grad": [2, 2, 2]}


def test_backward_in_many_threads_at_once():
    found = []

    def train():
        x = cr.tensor(np.arange(50.0), requires_grad=True)
        for _ in range(20):
            (x.tanh() * x).sum().backward()
        found.append(x.grad.numpy())

    threads = [threading.Thread(target=train) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(found) == 4
    assert all(np.array_equal(found[0], other) for other in found)


def test_detach_shares_memory_and_stops_the_gradient():
    x = leaf(3)
    y = x.detach()
    assert np.shares_memory(x.detach().numpy(), y.numpy())
    assert not y.requires_grad
    (x * y).sum().backward()
    assert x.grad.tolist() == [1, 1, 1]


def test_requires_grad_can_be_taken_back():
    x = leaf(3)
    assert x.requires_grad_(False) is x
    assert not (x * 2).requires_grad


# --- in place


def test_updates_in_place_write_into_the_same_memory():
    data = np.ones(3)
    x = cr.from_numpy(data)
    x += 1
    x *= 3
    x -= 2
    x /= 4
    assert x.add_(1, alpha=2) is x
    np.testing.assert_array_equal(data, [3, 3, 3])
    x.clamp_(max=2)
    x[1] = 5
    x[2:] = cr.tensor([7.0], dtype=cr.float64)
    np.testing.assert_array_equal(data, [2, 5, 7])
    x.fill_(1)
    x.copy_(np.array([1, 2, 3]))
    np.testing.assert_array_equal(data, [1, 2, 3])
    x.zero_()
    assert not data.any()


@pytest.mark.parametrize("offset", [0, 1, -2, 5])
def test_a_diagonal_is_a_view(offset):
    x, y = cr.zeros(3, 4), np.zeros((3, 4), np.float32)
    x.diagonal(offset).fill_(1)
    y[np.eye(3, 4, offset, dtype=bool)] = 1
    np.testing.assert_array_equal(x.numpy(), y)


def test_a_leaf_that_needs_a_gradient_changes_only_under_no_grad():
    x = leaf(3)
    for update in (lambda: x.zero_(), lambda: x.__iadd__(1), lambda: x.__setitem__(0, 1.0)):
        with pytest.raises(cr.errors.InPlaceError, match="no_grad"):
            update()
        with cr.no_grad():
            update()
    assert x.requires_grad
    assert x.is_leaf


def test_data_is_the_value_without_its_gradient():
    for library in (cr, torch):
        x = library.ones(3, requires_grad=True)
        loss = (x * x).sum()
        assert not x.data.requires_grad
        x.data *= 2
        x.data.add_(1)
        assert x.tolist() == [3.0] * 3
        assert x.requires_grad
        x.data = library.zeros(3)
        assert x.tolist() == [0.0] * 3
        if library is cr:  # which PyTorch lets pass, with a gradient of the new value
            with pytest.raises(cr.errors.StaleValueError):
                loss.backward()


def test_data_that_is_replaced_changes_nobody_else():
    online, target = leaf(3), leaf(3)
    old, loss = target.data, (online * online).sum()
    pending = (target * target).sum()
    target.data = online.data
    loss.backward()
    assert online.grad.tolist() == [2 * value for value in online.tolist()]
    old.add_(1)
    assert target.tolist() == online.tolist()
    target.data.mul_(2)
    assert target.tolist() == online.tolist()
    with pytest.raises(cr.errors.StaleValueError):
        pending.backward()


@pytest.mark.parametrize("update", [lambda x: x.add_(1), lambda x: x.__setitem__(0, 5.0)], ids=["add_", "setitem"])
@pytest.mark.parametrize("view", [lambda x: x.data, lambda x: x[0], lambda x: x.T], ids=["data", "entry", "transposed"])
def test_an_update_that_a_view_would_keep_for_itself_is_an_error(view, update):
    """PyTorch lets the first two pass, and writes to memory that is read-only."""
    fixed = np.ones((3, 3), np.float32)
    fixed.flags.writeable = False
    for x in (cr.from_numpy(fixed), cr.from_numpy(fixed).data, cr.ones(3, 1).expand(3, 3)):
        with pytest.raises(cr.errors.InPlaceError, match=r"call \.clone"):
            update(view(x))
    own = cr.from_numpy(fixed)
    own.add_(1)  # has memory of its own from now on
    update(view(own))
    assert own.tolist() != [[2.0] * 3] * 3


def test_augmented_assignment_of_a_computed_value_makes_a_new_one():
    x = leaf(3)
    y = x * 2
    first = y
    y += x
    assert y is not first
    y.sum().backward()
    assert x.grad.tolist() == [3, 3, 3]


def test_a_total_can_be_added_up_from_a_constant():
    x = leaf(3)
    total = cr.zeros((), dtype=cr.float64)
    for entry in x:
        total += entry * 2
    total.backward()
    assert x.grad.tolist() == [2, 2, 2]


def test_an_update_of_numbers_stored_once_gives_them_memory():
    x = cr.zeros(3) + 0
    full = cr.Tensor.filled(x.aval, 1.0)
    full.add_(1)
    assert full.tolist() == [2, 2, 2]
    assert full.constant is None


def test_an_integer_update_keeps_its_dtype():
    x = cr.arange(3)
    x += 1
    assert x.dtype == cr.int64
    assert x.tolist() == [1, 2, 3]


# --- to NumPy and back


def test_numpy_shares_memory_both_ways():
    data = np.ones(3)
    x = cr.from_numpy(data)
    assert np.shares_memory(x.numpy(), data)
    assert np.shares_memory(np.asarray(x), data)
    assert not np.shares_memory(np.array(x), data)
    assert not np.shares_memory(cr.tensor(data).numpy(), data)
    assert np.asarray(x, dtype=np.float32).dtype == np.float32
    assert cr.asarray(x) is x


@pytest.mark.parametrize(
    "op",
    [
        lambda a, b: a + b,
        lambda a, b: a - b,
        lambda a, b: a * b,
        lambda a, b: a / b,
        lambda a, b: a**b,
        lambda a, b: a // b,
        lambda a, b: a % b,
        lambda a, b: a @ b,
        lambda a, b: a < b,
        lambda a, b: a >= b,
        lambda a, b: a == b,
        lambda a, b: a != b,
    ],
)
def test_arrays_and_tensors_mix_on_either_side(op):
    a, b = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[2.0, 0.5], [1.0, 4.0]])
    for ours in (op(cr.tensor(a), b), op(a, cr.tensor(b)), op(cr.tensor(a), cr.tensor(b))):
        assert isinstance(ours, cr.Tensor)
        np.testing.assert_allclose(ours.numpy(), op(a, b), rtol=1e-15)


def test_numpy_numbers_on_the_left():
    x = cr.ones(2)
    for out in (np.float64(2) * x, np.float32(2) * x, np.int64(2) * x):
        assert isinstance(out, cr.Tensor)
        assert out.dtype == cr.float32


def test_gradients_pass_through_a_mix():
    x = leaf(2)
    (np.array([3.0, 4.0]) * x - np.array([1.0, 1.0])).sum().backward()
    assert x.grad.tolist() == [3, 4]


def test_dlpack_to_and_from_other_libraries():
    x = cr.tensor([[1.0, 2.0]])
    assert np.array_equal(np.from_dlpack(x), x.numpy())
    theirs = torch.from_dlpack(x)
    theirs[0, 0] = 9
    assert x[0, 0].item() == 9
    assert cr.tensor(torch.tensor([1.0, 2.0])).tolist() == [1, 2]
    assert cr.from_numpy(np.from_dlpack(torch.tensor([3.0]))).tolist() == [3]


def test_a_list_of_tensors_becomes_one():
    assert cr.tensor([cr.tensor(1.0), cr.tensor(2.0)]).tolist() == [1, 2]
    assert cr.tensor([[cr.tensor(1.0), 2.0]]).tolist() == [[1, 2]]


@pytest.mark.parametrize(
    "copied",
    [
        "x.T.contiguous()", "x[:, :2].contiguous()", "x.contiguous()", "x[:2].contiguous()", "x.flip(0)", "x.diag()",
        "x.repeat(1, 1)", "x.repeat(2, 1)", "x.tile((1, 1))", "x.roll(0, 0)", "x[0].expand(3, 3).contiguous()",
        "x.clone()", "x[0].repeat(3, 1)", "x[0].expand(2, 3).flip(0)",
    ],
)  # fmt: skip
def test_what_is_a_copy_in_pytorch_is_one(copied):
    """And what is a view there is a view: an update in place shows it."""
    results = []
    for library in (cr, torch):
        x = library.arange(9.0).reshape(3, 3)
        made = eval(copied, {"x": x})
        made.add_(10)
        made[0] = -1
        results.append((x.tolist(), made.tolist()))
    assert results[0] == results[1]


def test_empty_memory_is_updated_whatever_it_is():
    fixed = np.zeros((0, 3), np.float32)
    fixed.flags.writeable = False
    assert cr.from_numpy(fixed).add_(1).shape == (0, 3)
    assert cr.from_numpy(fixed).data.add_(1).shape == (0, 3)
    assert cr.ones(1, 0).expand(3, 0).add_(1).shape == (3, 0)
