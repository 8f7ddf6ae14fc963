"""Bad input: each mistake a clear error of its own class, that says what arrived, what to do, and on which line.

Each case is a line a newcomer might write. The words are checked in part; read them whole with `-v` on a failure.
"""

import inspect
import pickle
import re

import numpy as np
import pytest

import chainrule as cr
from chainrule.errors import (
    ArgumentError,
    ChainruleError,
    DerivativeRuleError,
    DTypeError,
    GradientError,
    InPlaceError,
    NoGradientError,
    NotScalarError,
    OutOfRangeError,
    ShapeError,
    StaleValueError,
    SymbolicValueError,
)


def refusal(error, mistake):
    """The message of the error that a mistake raises, which names the line of the mistake."""
    with pytest.raises(error) as caught:
        mistake()
    assert type(caught.value) is error
    message = str(caught.value)
    assert re.search(r"\n  at test_bad_input\.py:\d+: ", message), message
    return message


def x():
    return cr.ones(2, 3)


def w():
    return cr.ones(3, 4, requires_grad=True)


def positions(*entries):
    return cr.tensor(list(entries))


# what is written, its error, and what the message says besides
MISTAKES = [
    # shapes
    (lambda: x() @ cr.ones(4, 5), ShapeError, "matmul: inner sizes differ: float32[2,3] @ float32[4,5]; transpose"),
    (
        lambda: cr.ones(2, 3, 4) @ cr.ones(3, 4, 5),
        ShapeError,
        "matmul: batch dimensions do not broadcast: float32[2,3,4]",
    ),
    (lambda: cr.ones(4) @ x(), ShapeError, "matmul: inner sizes differ: float32[4] @ float32[2,3]"),
    (lambda: x() @ 2, ShapeError, "use * for a scalar"),
    (lambda: x() + cr.ones(4, 5), ShapeError, "add: shapes do not broadcast: float32[2,3] and float32[4,5]"),
    (lambda: cr.maximum(x(), cr.ones(2)), ShapeError, "maximum: shapes do not broadcast: float32[2,3] and float32[2]"),
    (lambda: x().where(cr.ones(5) > 0, 0.0), ShapeError, "where: shapes do not broadcast"),
    (lambda: x().reshape(4), ShapeError, "reshape: float32[2,3] holds 6 entries, [4] holds 4"),
    (lambda: x().reshape(-1, 4), ShapeError, "reshape: float32[2,3]"),
    (lambda: x().expand(5, 3), ShapeError, "expand: float32[2,3] does not stretch to [5, 3]"),
    (lambda: x().permute(0, 0), ShapeError, "permute: dims [0, 0] must name each"),
    (lambda: cr.ones(2, 3, 4).t(), ShapeError, "use .mT"),
    (lambda: cr.ones(3).mT, ShapeError, "mT: expected a matrix"),
    (
        lambda: cr.cat([x(), cr.ones(4, 5)]),
        ShapeError,
        "cat: inputs must be equal but for dimension 0; got float32[2,3]",
    ),
    (
        lambda: cr.stack([x(), cr.ones(3)]),
        ShapeError,
        "stack: tensors must share one shape; got float32[2,3], float32[3]",
    ),
    (lambda: cr.dot(x(), x()), ShapeError, "dot: needs two vectors; got float32[2,3]"),
    (lambda: cr.mm(x(), cr.ones(3)), ShapeError, "mm: got float32[2,3] and float32[3]; use matmul"),
    (lambda: cr.tril(cr.ones(3)), ShapeError, "expected a matrix"),
    (
        lambda: x().gather(1, positions(0)),
        ShapeError,
        "gather: the index int64[1] must have the dimensions of float32[2,3]",
    ),
    (lambda: x().index_add(0, positions(0, 1, 1), x()), ShapeError, "index_add: source float32[2,3]"),
    (lambda: x()[cr.tensor([True, False, True])], ShapeError, "index: the mask bool[3]"),
    (lambda: x().item(), ShapeError, "item: expected one entry; got float32[2,3]; use .tolist()"),
    (lambda: cr.rand(-1), ShapeError, "rand: sizes must not be negative; got [-1]"),
    # dtypes
    (lambda: x() @ cr.ones(3, 2, dtype=cr.int64), DTypeError, "must share one dtype; got float32[2,3] @ int64[3,2]"),
    (lambda: (x() > 0) @ (x() > 0).T, DTypeError, "matmul: inputs must share one numeric dtype; got bool"),
    (lambda: x() + "a", DTypeError, "add: expected a tensor; got str"),
    (lambda: x() @ None, DTypeError, "matmul: expected a tensor; got None"),
    (lambda: cr.exp("a"), DTypeError, "exp: expected a tensor; got str; make one with cr.tensor(…)"),
    (lambda: cr.relu([1.0]), DTypeError, "relu: expected a tensor; got list"),
    (lambda: (x() > 0) - (x() > 0), DTypeError, "sub: needs numbers; got bool[2,3] and bool[2,3]"),
    (lambda: -(x() > 0), DTypeError, "neg: needs numbers; got bool[2,3]"),
    (lambda: ~x(), DTypeError, "bitwise_not: needs integers or bool; got float32[2,3]"),
    (lambda: cr.where(x(), 1.0, 2.0), DTypeError, "where: the condition must be bool; got float32[2,3]; compare it"),
    (lambda: cr.arange(3).mean(), DTypeError, "mean: needs a float dtype; got int64[3]; cast it with"),
    (
        lambda: cr.ones(1, dtype=cr.uint64) + cr.ones(1, dtype=cr.int64),
        DTypeError,
        "add: uint64 and int64 have no common",
    ),
    (lambda: x()[1.5], DTypeError, "index: expected ints, slices"),
    (lambda: x()["a"], DTypeError, "index: expected a tensor; got str"),
    (lambda: x().gather(1, x()), DTypeError, "gather: an index must be integer"),
    (lambda: x().to("complex64"), DTypeError, "dtype: expected one of bool, int8"),
    (lambda: cr.zeros(3, dtype="foo"), DTypeError, "got 'foo'"),
    (lambda: cr.tensor("a"), DTypeError, "tensor: expected real numbers, or nested lists of them; got str"),
    (lambda: cr.tensor([[1, 2], [3]]), DTypeError, "unequal lengths"),
    (lambda: cr.tensor(1j), DTypeError, "tensor: expected real numbers"),
    (lambda: cr.from_numpy([1]), DTypeError, "from_numpy: expected a NumPy array; got list"),
    (lambda: cr.from_numpy(np.ones(2, complex)), DTypeError, "dtype: expected one of"),
    (lambda: cr.cat([x(), [1.0]]), DTypeError, "cat: expected a tensor; got list"),
    # places that do not exist
    (lambda: x().sum(3), OutOfRangeError, "sum: dim 3 is out of range for 2 dimensions; use -2 to 1"),
    (lambda: x().softmax(7), OutOfRangeError, "softmax: dim 7 is out of range"),
    (lambda: x()[5], OutOfRangeError, "index: 5 is out of range for dimension 0 of size 2"),
    (lambda: x()[0, 0, 0], OutOfRangeError, "index: 3 dimensions indexed, the tensor has 2"),
    (lambda: x()[positions(7)], OutOfRangeError, "index: 7 is out of range for a dimension of size 2; use -2 to 1"),
    (lambda: x().gather(1, cr.tensor([[9]])), OutOfRangeError, "gather: 9 is out of range for a dimension of size 3"),
    (
        lambda: x().narrow(0, 1, 9),
        OutOfRangeError,
        "narrow: 9 entries from 1 on are not in dimension 0 of float32[2,3]",
    ),
    (lambda: x().__setitem__(9, 1.0), OutOfRangeError, "setitem: index 9"),
    # arguments
    (lambda: x().sum("a"), ArgumentError, "sum: dim must be an int; got 'a'"),
    (lambda: x().sum((0, 0)), ArgumentError, "names a dimension twice"),
    (lambda: cr.cat([]), ArgumentError, "cat: expected at least one tensor; got none"),
    (lambda: cr.stack([]), ArgumentError, "stack: expected at least one tensor; got none"),
    (lambda: x().split(0), ArgumentError, "split: the size of a part must be at least 1; got 0"),
    (lambda: x().split([1, 5]), ArgumentError, "split: sizes [1, 5] add to 6"),
    (lambda: x().chunk(0), ArgumentError, "chunk: the number of parts must be at least 1; got 0"),
    (lambda: x().topk(9), ArgumentError, "topk: k = 9"),
    (lambda: x().clamp(), ArgumentError, "clamp: give min, max or both"),
    (lambda: x().flatten(1, 0), ArgumentError, "flatten: start_dim 1 comes after end_dim 0"),
    (lambda: cr.arange(3) ** -1, ArgumentError, "pow: int64[3] to the negative power -1"),
    (lambda: cr.zeros(0, 3).amax(0), ArgumentError, "amax: float32[0,3] has no entry"),
    (lambda: cr.zeros("a"), ArgumentError, "expected ints; got ('a',)"),
    (lambda: cr.zeros(2.5), ArgumentError, "expected ints; got (2.5,)"),
    (lambda: cr.arange(0, 5, 0), ArgumentError, "arange: step must not be 0"),
    (lambda: cr.randint(5, 2, (3,)), ArgumentError, "randint: expected low < high; got 5 and 2"),
    (lambda: cr.manual_seed(-1), ArgumentError, "manual_seed: expected an int"),
    (lambda: bool(x()), ArgumentError, "bool: float32[2,3] has more than one truth value; use .any() or .all()"),
    (lambda: x().index_put((positions(0),), cr.ones(1, 3)), ArgumentError, "only accumulate=True"),
    # gradients
    (
        lambda: (w() * 2).backward(),
        NotScalarError,
        "backward: gradients start from a scalar; got float32[3,4]; reduce it",
    ),
    (
        lambda: (w() * 2).backward(cr.ones(3)),
        ShapeError,
        "backward: the gradient is float32[3], the tensor float32[3,4]",
    ),
    (lambda: w().sum().backward("a"), DTypeError, "backward: expected a tensor; got str"),
    (lambda: x().sum().backward(), NoGradientError, "create the weights with requires_grad=True"),
    (lambda: (w().detach() * 2).sum().backward(), NoGradientError, "the link is broken here: detach"),
    (lambda: (w() > 0).sum().backward(), NoGradientError, "gt: its output is true or false, which has no slope"),
    (
        lambda: cr.tensor([1, 2], requires_grad=True),
        DTypeError,
        "requires_grad: only float tensors have a gradient; got int64[2]",
    ),
    (lambda: cr.arange(3).requires_grad_(), DTypeError, "requires_grad: only float tensors"),
    (lambda: (w() * 2).requires_grad_(False), InPlaceError, "use .detach()"),
    (lambda: w().numpy(), GradientError, "use .detach().numpy()"),
    (lambda: np.asarray(w()), GradientError, "use .detach().numpy()"),
    (lambda: cr.grad(lambda a: a.sum())(cr.arange(3)), DTypeError, "grad: argument 0 is int64[3]; only float"),
    (lambda: cr.grad(lambda a: a * 2)(2.0), DTypeError, "grad: argument 0 must hold tensors; got float"),
    (
        lambda: cr.grad(lambda a: a * 2)(w()),
        NotScalarError,
        "grad: the function must return a scalar tensor; got float32[3,4]",
    ),
    (lambda: cr.grad(lambda a: 3.0)(w()), NotScalarError, "got float"),
    (lambda: cr.grad(lambda a: a.sum(), 3)(w()), ArgumentError, "grad: argnums 3"),
    (
        lambda: cr.jvp(lambda a: a, (x(),), (w(),)),
        ShapeError,
        "jvp: the tangent float32[3,4] must have the shape of its primal",
    ),
    (lambda: cr.jvp(lambda a: a, (x(),), ()), ArgumentError, "jvp: 1 primals and 0 tangents"),
    (lambda: cr.jvp(lambda a: a, (x(),), (1.0,)), DTypeError, "jvp: the tangent must be a tensor; got float"),
    (lambda: cr.jvp(lambda a: a, (x(),), (x().double(),)), DTypeError, "must have the dtype of its primal"),
    (lambda: cr.vjp(lambda a: a, x())[1](w()), ShapeError, "vjp: the cotangent float32[3,4]"),
    # updates in place
    (lambda: (w() * 2).zero_(), InPlaceError, "zero_: this tensor was computed by mul; only leaves change in place"),
    (lambda: w().add_(1), InPlaceError, "only under `with cr.no_grad():`"),
    (lambda: x().add_(cr.ones(4, 2, 3)), ShapeError, "add_: float32[4,2,3] does not fit into float32[2,3]"),
    (lambda: cr.arange(3).add_(0.5), DTypeError, "add_: the result is float32 and does not fit in place into int64[3]"),
    (lambda: x().__setitem__(0, np.ones(7)), ShapeError, "setitem: "),
    (lambda: x().__setitem__(0, w()[:, 0]), InPlaceError, "write y = y … instead, with cr.where(…), or collect the"),
    (lambda: cr.ones(3, 4).add_(w()), InPlaceError, "add_: the new value requires a gradient"),
    (lambda: cr.ones(3, 4).mul_(w()), InPlaceError, "mul_: the new value requires a gradient"),
    (lambda: setattr(w(), "data", 3.0), DTypeError, "data: expected a tensor; got float"),
    (lambda: setattr(w(), "data", cr.ones(3).double()), DTypeError, "data: expected float32[3,4], as it was"),
    (lambda: setattr(w(), "data", cr.ones(3)), ShapeError, "data: expected float32[3,4], as it was; got float32[3];"),
    (lambda: setattr(w() * 2, "data", w()), InPlaceError, "data: this tensor was computed by mul"),
]


@pytest.mark.parametrize(("mistake", "error", "says"), MISTAKES, ids=[says for *_, says in MISTAKES])
def test_a_mistake(mistake, error, says):
    assert says in refusal(error, mistake)


def test_every_error_is_one_of_pythons_too():
    kinds = [ValueError, TypeError, RuntimeError, IndexError, ImportError, MemoryError]
    assert all(issubclass(error, tuple(kinds)) for error in ChainruleError.__subclasses__())


def test_a_message_names_the_line_inside_a_users_function():
    def layer(a, b):
        return a @ b

    message = refusal(ShapeError, lambda: layer(x(), x()))
    assert message.endswith("return a @ b")


def test_backward_under_no_grad_says_so():
    with cr.no_grad():
        y = w() * 2
    message = refusal(NoGradientError, lambda: y.sum().backward())
    assert "mul: it was computed under no_grad()" in message
    assert "y = w() * 2" in message


def test_an_integer_leaf_that_was_given_requires_grad_by_assignment():
    i = cr.arange(3)
    i.requires_grad = True
    assert "requires_grad: only float tensors" in refusal(DTypeError, lambda: (i * 2.0).sum().backward())


def test_backward_twice_after_an_update_in_place():
    v = cr.ones(3, requires_grad=True)
    loss = (v * v).sum()
    loss.backward()
    with cr.no_grad():
        v -= 0.1 * v.grad
    message = refusal(StaleValueError, lambda: loss.backward())
    assert "mul (made at test_bad_input.py:" in message
    assert "loss = (v * v).sum()" in message
    assert "run the forward pass again" in message


def test_the_number_behind_a_symbol():
    symbol = cr.Tensor.symbolic("a", x().aval)
    for wanted in (symbol.item, symbol.numpy, symbol.tolist, lambda: symbol[symbol > 0], lambda: symbol.zero_()):
        refusal(SymbolicValueError, wanted)


def test_tensor_is_not_a_constructor():
    with pytest.raises(TypeError, match=r"cr\.tensor\(data\)"):
        cr.Tensor([1.0])


# --- a user's own backward


def function(rule, forward=lambda ctx, *inputs: inputs[0] * 2):
    """A cr.Function with this backward."""
    return type("Double", (cr.Function,), {"forward": staticmethod(forward), "backward": staticmethod(rule)})


@pytest.mark.parametrize(
    ("rule", "error", "says"),
    [
        (
            lambda ctx, g: g.sum(),
            DerivativeRuleError,
            "Double: the gradient of input 0 is float32[], the input itself is float32[3,4]",
        ),
        (lambda ctx, g: g.double(), DerivativeRuleError, "the gradient of input 0 is float64[3,4]"),
        (lambda ctx, g: (g, g), DerivativeRuleError, "forward took 1 input(s), backward returned 2 gradient(s)"),
        (lambda ctx, g: "a", DerivativeRuleError, "Double.backward: expected tensors or None; got str"),
        (lambda ctx, g: g @ g, ShapeError, "matmul: inner sizes differ: float32[3,4] @ float32[3,4]"),
    ],
)
def test_a_wrong_backward_is_named_with_the_line_of_its_forward(rule, error, says):
    weight = w()
    loss = function(rule).apply(weight).sum()
    with pytest.raises(error) as caught:
        loss.backward()
    message = str(caught.value)
    assert says in message
    assert re.search(r"in the backward of Double, applied at test_bad_input\.py:\d+: loss = function", message)


def test_any_other_error_in_a_backward_keeps_its_class_and_gains_a_note():
    loss = function(lambda ctx, g: 1 / 0).apply(w()).sum()
    with pytest.raises(ZeroDivisionError) as caught:
        loss.backward()
    assert "in the backward of Double" in caught.value.__notes__[0]


def test_a_function_that_states_too_little_or_is_called():
    empty = type("Empty", (cr.Function,), {})
    assert "must state forward" in refusal(DerivativeRuleError, lambda: empty.apply(w()))
    half = type("Half", (cr.Function,), {"forward": staticmethod(lambda ctx, a: a * 2)})
    loss = half.apply(w()).sum()
    with pytest.raises(DerivativeRuleError, match="must state backward"):
        loss.backward()
    assert "call Empty.apply" in refusal(ArgumentError, lambda: empty())
    number = function(lambda ctx, g: g, lambda ctx, a: 3.0)
    assert "Double.forward: must return a tensor; got float" in refusal(DTypeError, lambda: number.apply(w()))


def test_the_line_is_the_users_however_deep_the_library_is():
    model = cr.nn.Linear(3, 4)
    for _ in range(12):
        model = cr.nn.Sequential(model)
    message = refusal(ShapeError, lambda: model(cr.ones(2, 5)))
    assert "float32[2,5]" in message
    assert "model(cr.ones(2, 5))" in message


def test_one_column_times_several_rows_is_no_product():
    message = refusal(ShapeError, lambda: cr.ones(3, 1) @ cr.ones(3, 4))
    assert "inner sizes differ: float32[3,1] @ float32[3,4]" in message


# --- what is no tensor where one is needed


def needing_a_tensor():
    """(module, name) of each function that the library offers whose first input is a tensor, and nothing else."""
    for module in (cr, cr.nn.functional):
        for name in module.__all__:
            function = getattr(module, name)
            if inspect.isfunction(function):
                first = next(iter(inspect.signature(function).parameters.values()), None)
                if first is not None and first.annotation == "Tensor":
                    yield module, name


OFFERED = [pytest.param(*found, id=f"{found[0].__name__}.{found[1]}") for found in needing_a_tensor()]


def test_the_functions_that_need_a_tensor_are_found():
    names = {param.values[1] for param in OFFERED}
    assert {"sum", "sort", "exp", "reshape", "gather", "softmax", "gelu", "max_pool2d", "zeros_like"} <= names
    assert len(OFFERED) > 150


@pytest.mark.parametrize("given", [[[1.0, 2.0]], None, "text"], ids=["list", "None", "str"])
@pytest.mark.parametrize(("module", "name"), OFFERED)
def test_what_is_no_tensor_is_named(module, name, given):
    function = getattr(module, name)
    more = [cr.ones(3, 3) for p in list(inspect.signature(function).parameters.values())[1:]
            if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]  # fmt: skip
    with pytest.raises(ChainruleError) as caught:
        function(given, *more)
    message = str(caught.value)
    assert "function(given, *more)" in message
    taken = isinstance(given, list) and "float64[" in message  # where one input is a tensor, a list may be another
    assert "tensor" in message or taken or name in ("addmv", "baddbmm", "clamp", "clip", "where")  # lack more than that


def test_the_input_that_is_no_tensor_is_said():
    got = refusal(DTypeError, lambda: cr.sum([1.0, 2.0]))
    assert "sum: expected a tensor; got list; make one with cr.tensor(…) first" in got
    got = refusal(DTypeError, lambda: cr.gather(x(), 0, 1))
    assert "gather: expected a tensor as index; got int" in got
    got = refusal(DTypeError, lambda: cr.nn.functional.softmax(None, -1))
    assert "softmax: expected a tensor; got None; does what made it return anything?" in got
    got = refusal(DTypeError, lambda: cr.nn.GELU()(np.ones(3)))
    assert "GELU: expected a tensor; got ndarray" in got


def test_other_mistakes_of_a_call_stay_what_they_are():
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'x'"):
        cr.sum()

    class Broken(cr.nn.Module):
        def forward(self, input):
            return input.no_such_name

    with pytest.raises(AttributeError, match="no_such_name"):
        cr.nn.Sequential(Broken())([1.0])
    for mistake in (
        lambda: cr.nn.functional.cross_entropy(x(), np.array([0, 1]), label_smoothing=None),
        lambda: cr.nn.functional.huber_loss(x(), np.ones((2, 3), np.float32), delta=None),
    ):
        with pytest.raises(TypeError, match="NoneType") as caught:  # arrays are welcome as targets
            mistake()
        assert "expected a tensor" not in str(caught.value)


def test_a_function_that_is_offered_is_one_and_can_be_pickled():
    for module in (cr, cr.nn.functional):
        for name in module.__all__:
            function = getattr(module, name)
            assert not inspect.isfunction(function) or pickle.loads(pickle.dumps(function)) is function, name
    assert cr.clip is cr.clamp
    assert cr.concat is cr.cat
    assert cr.relu is cr.nn.functional.relu
