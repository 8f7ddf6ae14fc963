"""What an op says it delivers is what it delivers: shape and dtype, on numbers and on symbols."""

from dataclasses import replace

import numpy as np
import pytest

import chainrule as cr
from chainrule import dtypes
from chainrule.core.aval import Aval
from chainrule.core.family import Op
from chainrule.core.sample import Sample
from chainrule.errors import ChainruleError, DTypeError
from chainrule.ops import catalogue

FLOATS = [dtypes.float32, dtypes.float64, dtypes.float16, dtypes.bfloat16]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_delivered_aval_is_declared_aval(case, dtype):
    inputs = case.tensors(dtype)
    declared = case.op.infer(*(x.aval for x in inputs), **case.sample.params)
    out = case(*inputs)
    assert out.aval == declared
    assert out.array.dtype == declared.dtype
    assert case(*case.symbols(dtype)).aval == declared


@pytest.mark.parametrize("kind", ["int", "bool"])
def test_integers_and_bools_are_refused_or_delivered_as_declared(floating, kind):
    case = floating
    args = tuple(replace(arg, kind=kind) if arg.kind == "float" else arg for arg in case.sample.args)
    other = replace(case, sample=Sample(args, case.sample.params))
    inputs = other.tensors()
    try:
        declared = case.op.infer(*(x.aval for x in inputs), **case.sample.params)
    except DTypeError:
        with pytest.raises(DTypeError):
            other(*inputs)
        return
    try:
        out = other(*inputs)
    except DTypeError:
        return  # the params do not fit integers
    assert out.aval == declared


@pytest.mark.parametrize("dtype", dtypes.ALL, ids=str)
def test_the_function_of_that_name_gives_numbers_and_symbols_one_aval(function, dtype):
    # Functions of tensors do not ask the rule where shapes and dtypes agree; a kernel must then not be laxer than it.
    op, function = function, getattr(cr, function.name)
    count = len(op.partials)
    symbols = [cr.Tensor.symbolic(f"x{i}", Aval((2, 3), dtype)) for i in range(count)]
    numbers = [cr.Tensor.leaf(np.ones((2, 3), dtype)) for _ in range(count)]
    try:
        expected = function(*symbols).aval
    except ChainruleError as refused:
        with pytest.raises(type(refused), match=f"^{op.name}: "):
            function(*numbers)
    else:
        assert function(*numbers).aval == expected


def test_every_declared_op_is_in_the_catalogue_once():
    names = [op.name for op in catalogue.CATALOGUE]
    assert len(set(names)) == len(names)
    modules = [m for m in vars(catalogue).values() if getattr(m, "__name__", "").startswith("chainrule.ops.")]
    declared = {id(value): value for m in modules for value in vars(m).values() if isinstance(value, Op)}
    missing = [op.name for key, op in declared.items() if key not in {id(op) for op in catalogue.CATALOGUE}]
    assert not missing
    assert len(declared) == len(catalogue.CATALOGUE)


def test_no_gradient_passes_where_none_is_declared_and_the_reason_is_a_sentence(closed):
    case = closed
    out = case(*case.tensors(requires_grad=True))
    assert not out.requires_grad
    reason = case.op.no_gradient
    assert " " in reason
    assert reason[0].islower()
    assert not reason.endswith(".")
    if case.directions:
        assert reason in out.cut.reason
        assert case.op.name in out.cut.reason
        with pytest.raises(cr.errors.NoGradientError, match=reason):
            out.backward(np.ones(out.shape))


def test_a_gradient_passes_where_one_is_declared(differentiable):
    assert differentiable(*differentiable.tensors(requires_grad=True)).requires_grad


def test_values_from_nothing_depend_on_their_params_and_their_key_alone(made):
    first, again = made(*made.tensors()).numpy(), made(*made.tensors()).numpy()
    np.testing.assert_array_equal(first, again)
    for key in made.tensors():
        for other in ([0, 100], [1, 0]):  # another place in the stream, another stream
            assert not np.array_equal(first, made(key + cr.tensor(other)).numpy())
