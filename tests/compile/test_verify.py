"""A program that is none is refused, whatever is wrong with it, and the error names the pass that left it so."""

from dataclasses import replace

import numpy as np
import pytest

import chainrule as cr
from chainrule.compile.program import Program
from chainrule.compile.verify import verify
from chainrule.core.aval import Aval
from chainrule.core.node import NO_PARAMS, Ratio, make
from chainrule.errors import ProgramError, TraceError
from chainrule.ops import contraction, elementwise, movement

F64 = np.dtype(np.float64)


def symbol(name, *shape, dtype=F64):
    return cr.Tensor.symbolic(name, Aval(shape, dtype), requires_grad=True)


def node(op, *inputs, aval, **params):
    """A node that nobody checked."""
    return cr.Tensor.applied(op, inputs, params, aval)


@pytest.fixture
def sound():
    x, w = symbol("x", 2, 3), symbol("w", 3)
    loss = (x * w).sum()
    return Program(inputs=(x, w), outputs=(loss,), updates=((w, w - 0.1 * x.sum(0)),))


def outputs(*nodes, inputs=()):
    return Program(inputs=inputs, outputs=nodes)


def test_a_sound_program_passes(sound):
    verify(sound)
    checked = {}
    verify(sound, "one", checked)
    assert checked.keys() == {id(node) for node in sound.nodes}
    verify(sound, "two", checked)


def given_twice(sound):
    return replace(sound, inputs=(*sound.inputs, sound.inputs[0]))


def not_a_symbol(sound):
    return replace(sound, inputs=(*sound.inputs, cr.tensor([1.0])))


def computed_input(sound):
    return replace(sound, inputs=(*sound.inputs, sound.outputs[0]))


def unknown_leaf(sound):
    return replace(sound, inputs=sound.inputs[1:], updates=())


def number_without_a_value(sound):
    return replace(sound, outputs=(cr.Tensor.number(Aval((), F64), Ratio(2)),))


def wrong_shape(sound):
    x = sound.inputs[0]
    return replace(sound, outputs=(node(elementwise.neg, x, aval=Aval((3,), F64)),))


def wrong_dtype(sound):
    x = sound.inputs[0]
    return replace(sound, outputs=(node(elementwise.neg, x, aval=Aval((2, 3), np.dtype(np.float32))),))


def wrong_downstream(sound):
    x = sound.inputs[0]
    bad = node(movement.reshape, x, aval=Aval((6,), F64), shape=(3, 2))
    return replace(sound, outputs=(bad.sum(),))


def inputs_that_do_not_fit(sound):
    x, w = sound.inputs
    return replace(sound, outputs=(node(elementwise.add, x, w, aval=x.aval),))


def too_many_inputs(sound):
    x, _ = sound.inputs
    return replace(sound, outputs=(node(elementwise.neg, x, x, aval=x.aval),))


def params_that_the_op_does_not_have(sound):
    x, _ = sound.inputs
    return replace(sound, outputs=(node(movement.permute, x, aval=Aval((3, 2), F64), order=(1, 0)),))


def params_missing(sound):
    x, _ = sound.inputs
    return replace(sound, outputs=(node(movement.permute, x, aval=Aval((3, 2), F64)),))


def no_such_op(sound):
    x, _ = sound.inputs
    return replace(sound, outputs=(node(replace(elementwise.neg), x, aval=x.aval),))


def a_value_already(sound):
    x, _ = sound.inputs
    made = make(cr.Tensor, elementwise.neg, (x,), NO_PARAMS, np.zeros((2, 3)), None, False, None)
    return replace(sound, outputs=(made,))


def made_before_its_input(sound):
    x, _ = sound.inputs
    early = node(elementwise.neg, x, aval=x.aval)
    early.inputs = (x.exp(),)
    return replace(sound, outputs=(early,))


def updated_twice(sound):
    return replace(sound, updates=sound.updates * 2)


def update_of_no_input(sound):
    (_, value), *_ = sound.updates
    return replace(sound, updates=((symbol("v", 3), value),))


def update_of_another_shape(sound):
    x, w = sound.inputs
    return replace(sound, updates=((w, x),))


BROKEN = {
    given_twice: "given twice",
    not_a_symbol: r"input 2 is a leaf : float32\[1\] .*, and must be a symbol",
    computed_input: r"input 2 is sum : float64\[\], and must be a symbol",
    unknown_leaf: r"x : float64\[2,3\] is neither an input nor a constant",
    number_without_a_value: "neither an input nor a constant",
    wrong_shape: r"neg : float64\[3\] should be float64\[2,3\] by its rule",
    wrong_dtype: r"neg : float32\[2,3\] should be float64\[2,3\] by its rule",
    wrong_downstream: r"reshape : float64\[6\] should be float64\[3,2\]",
    inputs_that_do_not_fit: "add .* does not fit its inputs: add: inputs must share one shape",
    too_many_inputs: "takes 1 input, got 2",
    params_that_the_op_does_not_have: "permute .* does not fit its inputs: .*unexpected keyword argument 'order'",
    params_missing: "permute .* does not fit its inputs: .*missing",
    no_such_op: "neg .* is no op of the catalogue",
    a_value_already: "has a value already",
    made_before_its_input: "comes before what it is computed from",
    updated_twice: r"w : float64\[3\] is updated twice",
    update_of_no_input: r"v : float64\[3\] is updated, and is no input",
    update_of_another_shape: r"w : float64\[3\] is updated by float64\[2,3\]",
}


@pytest.mark.parametrize("breaking", BROKEN, ids=lambda f: f.__name__)
def test_a_broken_program_is_refused(sound, breaking):
    with pytest.raises(ProgramError, match=f"^compile: after flattening, .*{BROKEN[breaking]}.*; this is a fault of"):
        verify(breaking(sound), "flattening")


def test_what_was_found_sound_hides_nothing_new(sound):
    checked = {}
    verify(sound, "tracing", checked)
    with pytest.raises(ProgramError, match="should be"):
        verify(wrong_shape(sound), "flattening", checked)
    with pytest.raises(ProgramError, match="neither an input"):
        verify(unknown_leaf(sound), "flattening", {})


def test_an_opaque_function_is_refused_with_what_to_do():
    class Cube(cr.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx, g):
            return g

    x = cr.tensor([1.0, 2.0], requires_grad=True)
    made = Cube.apply(x)
    s = symbol("x", 2, dtype=np.dtype(np.float32))
    program = outputs(node(made.op, s, aval=made.aval), inputs=(s,))
    with pytest.raises(TraceError, match=r"is a cr\.Function applied as a whole, .*; make its forward of functions"):
        verify(program)


def test_the_error_names_the_users_line(sound):
    x, w = sound.inputs
    bad = node(contraction.matmul, x, w, aval=Aval((2,), F64))
    made = (cr.tensor([1.0], requires_grad=True) * 2).exp()
    bad.trail = made.trail
    with pytest.raises(ProgramError, match=r"matmul : float64\[2\] \(at test_verify.py:\d+: made = "):
        verify(replace(sound, outputs=(bad,)))
