"""Nodes: what is kept of an application, where errors point, how graphs are walked."""

import gc
import weakref

import numpy as np
import pytest

import chainrule as cr
from chainrule.core import memory
from chainrule.core.aval import Aval
from chainrule.core.node import ENGINE_OFF, NO_PARAMS, Node, Ratio, ancestors, apply, recording
from chainrule.ops import movement, transcendental


def leaf(*shape):
    return cr.ones(*shape, requires_grad=True)


def test_a_node_keeps_how_it_was_made():
    x = leaf(3)
    y = movement.reshape(x, shape=(3, 1))
    assert y.op is movement.reshape
    assert y.inputs == (x,) or y.inputs[0] is x
    assert y.params == {"shape": (3, 1)}
    assert not y.is_leaf


def test_what_no_gradient_is_asked_of_keeps_nothing():
    y = cr.ones(3) * 2
    assert y.op is None
    assert y.inputs == ()
    assert y.params is NO_PARAMS
    assert y.trail is None


def test_the_engines_own_arithmetic_keeps_not_even_a_reason():
    x = leaf(3)
    y = recording(ENGINE_OFF, lambda: x * 2)
    assert y.op is None
    assert y.cut is None


def test_a_reason_is_handed_on_and_holds_nothing_alive():
    x = leaf(3)
    gone = weakref.ref(x)
    y = (x.detach() * 2 + 1).sum()
    assert "detach" in y.cut.reason
    del x
    gc.collect()
    assert gone() is None


def test_symbols_have_avals_and_no_values():
    x = cr.Tensor.symbolic("x", Aval((2, 3), cr.float32))
    y = (x @ x.T).sum()
    assert y.array is None
    assert y.aval == Aval((), cr.float32)
    assert str(x.aval) == "float32[2,3]"
    assert x.aval.size == 6


def test_an_op_of_a_number_and_a_symbol_is_a_symbol():
    x = cr.Tensor.symbolic("x", Aval((3,), cr.float32))
    assert (cr.ones(3) + x).array is None


def test_filled_stores_one_number_and_says_which():
    node = cr.Tensor.filled(Aval((1000, 1000), cr.float32), Ratio(2, 200))
    assert node.constant == Ratio(2, 200)
    assert node.array.strides == (0, 0)
    assert node.array[3, 4] == np.float32(0.01)


def test_nodes_are_not_constructed():
    with pytest.raises(TypeError, match="applying an op"):
        Node()


def test_results_are_of_the_class_of_the_inputs():
    x = Node.leaf(np.ones(3))
    assert type(apply(transcendental.exp, (x,))) is Node
    assert type(cr.ones(3).exp()) is cr.Tensor


def test_ancestors_come_before_their_users_and_once():
    x = leaf(3)
    y = x * x
    z = y + y.exp()
    order = ancestors([z])
    places = {id(node): place for place, node in enumerate(order)}
    assert len(places) == len(order)
    for node in order:
        assert all(places[id(i)] < places[id(node)] for i in node.inputs)
    assert [n.op.name for n in ancestors([z], lambda n: n is not y) if n.op] == ["exp", "add"]


def test_a_failing_kernel_says_the_rules_words_at_the_users_line():
    with pytest.raises(cr.errors.ShapeError, match=r"expand: float32\[2\] does not stretch to \[3\]") as caught:
        apply(movement.expand, (cr.ones(2),), {"shape": (3,)})
    assert "at test_node.py:" in str(caught.value)


def test_a_kernel_does_not_warn():
    with np.errstate(all="raise"):
        assert np.isinf((cr.ones(1) / cr.zeros(1)).numpy()).all()
        assert np.isnan(cr.tensor([-1.0]).sqrt().numpy()).all()


# --- memory


def test_changes_are_known_to_all_who_share_the_memory():
    data = np.zeros(10)
    head, tail = data[:5], data[5:]
    memory.note_change(head, 7)
    assert memory.changed_at(head) == memory.changed_at(data) == memory.changed_at(data[::2]) == 7
    assert memory.changed_at(tail) == 0
    memory.note_change(data, 9)
    assert memory.changed_at(tail) == 9
    assert memory.latest_change[0] == 9


def test_changes_of_memory_that_is_gone_are_forgotten():
    before = len(memory._records)
    for _ in range(100):
        memory.note_change(np.zeros(3), 1)
    assert len(memory._records) <= before + 1
