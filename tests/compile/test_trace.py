"""What a traced function becomes: a program that, run op by op, gives what the function gives."""

import numpy as np
import pytest

import chainrule as cr
from chainrule.compile.interpret import interpret
from chainrule.compile.tracing.outcome import trace
from chainrule.compile.tracing.signature import arguments_of
from chainrule.core.node import Node
from chainrule.errors import InPlaceError, NoGradientError, StaleValueError, SymbolicValueError, TraceError


def traced(function, *args, **kwargs):
    outcome = trace(function, arguments_of(*cr.tree.flatten((args, kwargs))), ("x", "y"))
    outcome.name_inputs()
    return outcome


def compiled(function, **options):
    return cr.compile(function, build=interpret, **options)


def same(a, b):
    return np.array_equal(a.numpy(), b.numpy(), equal_nan=True) and a.dtype == b.dtype


def test_a_program_is_the_ops_that_ran_and_reads_like_them():
    w = cr.tensor([[1.0], [2.0]], requires_grad=True)

    def f(x):
        h = x @ w
        return (h * 2).sum()

    program = traced(f, cr.ones(3, 2)).program
    assert [str(x.aval) for x in program.inputs] == ["float32[3,2]", "float32[2,1]"]
    assert [x.op.name for x in program.nodes if x.op] == ["matmul", "mul", "sum"]
    assert all(x.array is None for x in program.nodes if x.op or x.symbol)
    lines = str(program).splitlines()
    assert lines[0].split() == ["%0", "=", "input", ":", "float32[3,2]", "#", "x"]
    assert lines[1].endswith("# w")
    assert lines[2].startswith("%2 = matmul(%0, %1) : float32[3,1]")
    assert "test_trace.py:" in lines[2]
    assert lines[2].endswith("h = x @ w")
    assert lines[3].startswith("%3 = mul(%2, 2)")
    assert lines[-1] == "return %4"


def test_updates_are_in_the_program():
    w = cr.tensor([1.0, 2.0], requires_grad=True)

    def f(x):
        (w * x).sum().backward()
        with cr.no_grad():
            w.sub_(0.1 * w.grad)
        w.grad = None

    program = traced(f, cr.ones(2)).program
    ((target, value),) = program.updates
    assert target.symbol == "w"
    assert value.aval == target.aval
    assert "update %1 <- %" in str(program)
    assert not program.outputs
    assert w.tolist() == [1.0, 2.0]
    assert w.grad is None


def test_constants_of_the_function_stay_in_the_program():
    program = traced(lambda x: x + cr.tensor([1.0, 2.0]) * 3, cr.ones(2)).program
    constants = [x for x in program.nodes if x.op is None and x.array is not None]
    assert [x.array.tolist() for x in constants if x.constant is None] == [[1.0, 2.0]]
    assert len(program.inputs) == 1


def test_an_input_that_is_not_read_is_none():
    assert len(traced(lambda x, y: x * 2, cr.ones(2), cr.ones(3)).program.inputs) == 1


def test_inputs_in_a_tree_are_named_by_their_path():
    program = traced(lambda p, y: p["w"] * p["b"][0] + y, {"w": cr.ones(2), "b": [cr.ones(2)]}, cr.ones(2)).program
    assert [x.symbol for x in program.inputs] == ["x['b'][0]", "x['w']", "y"]


# --- functional style

FUNCTIONS = {
    "value": lambda p, x: ((x @ p["w"] + p["b"]).tanh() ** 2).mean(),
    "grad": cr.grad(lambda p, x: ((x @ p["w"] + p["b"]).relu() ** 2).mean()),
    "value_and_grad": cr.value_and_grad(lambda p, x: ((x @ p["w"] + p["b"]).clamp_min(0.0) ** 2).mean(), (0, 1)),
    "vjp": lambda p, x: cr.vjp(lambda q: (x @ q["w"]).sigmoid(), p)[1](cr.ones(4, 2)),
    "jvp": lambda p, x: cr.jvp(lambda v: (v @ p["w"]).softmax(-1), (x,), (cr.ones_like(x),)),
    "hessian": lambda p, x: cr.hessian(lambda v: (v**3).sum())(p["b"]),
    "autograd": lambda p, x: cr.grad(lambda q: cr.grad(lambda r: (r["b"] ** 4).sum())(q)["b"].sum())(p),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_trees_give_what_they_give_eagerly(name):
    function = FUNCTIONS[name]
    p, x = {"w": cr.randn(3, 2), "b": cr.randn(2)}, cr.randn(4, 3)
    step = compiled(function)
    for _ in range(2):
        expected, found = cr.tree.flatten(function(p, x)), cr.tree.flatten(step(p, x))
        assert expected[1] == found[1]
        assert all(same(a, b) for a, b in zip(expected[0], found[0], strict=True))
        p, x = {"w": cr.randn(3, 2), "b": cr.randn(2)}, cr.randn(4, 3)
    assert step.traces == 1


def test_autograd_grad_of_a_tensor_from_outside():
    w = cr.tensor([1.0, 2.0], requires_grad=True)

    def f(x):
        return cr.autograd.grad((w * x).pow(2).sum(), w)

    assert same(compiled(f)(cr.ones(2))[0], f(cr.ones(2))[0])


def test_a_function_with_a_backward_of_its_own():
    class Cube(cr.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return 30 * x**2 * g  # not the derivative: seen to be used

    def f(x):
        return cr.value_and_grad(lambda v: (Cube.apply(v) * 2).sum())(x)

    program = traced(f, cr.ones(2)).program
    assert "Cube" not in {x.op.name for x in program.nodes if x.op}
    expected, found = f(cr.tensor([1.0, 2.0])), compiled(f)(cr.tensor([1.0, 2.0]))
    assert same(expected[0], found[0])
    assert found[1].tolist() == [60.0, 240.0]


def test_where_a_gradient_ends_is_known_in_a_trace():
    def f(x):
        y = (x * 2).detach()
        with cr.no_grad():
            z = x * 3
        return cr.grad(lambda v: (v * y * z).sum())(x)

    assert same(compiled(f)(cr.ones(2)), f(cr.ones(2)))
    with pytest.raises(NoGradientError, match="no_grad"):
        compiled(lambda x: cr.no_grad()(lambda: (w * x).sum())().backward())(cr.ones(2))


w = cr.tensor([1.0, 2.0], requires_grad=True)

# --- updates in place


def test_reads_after_an_update_see_it():
    w = cr.tensor([1.0, 2.0], requires_grad=True)

    def two_steps(x):
        losses = []
        for _ in range(2):
            loss = ((w * x) ** 2).sum()
            loss.backward()
            with cr.no_grad():
                w.sub_(w.grad, alpha=0.1)
                w.grad = None
            losses.append(loss)
        return losses, w, w.detach() * 1

    start, step = w.tolist(), compiled(two_steps)
    runs = []
    for f in (two_steps, step):
        with cr.no_grad():
            w.copy_(cr.tensor(start))
        runs.append([f(cr.tensor([0.5, 0.7])) for _ in range(3)][-1])
        assert runs[-1][1] is w
        runs[-1] = (*map(float, runs[-1][0]), *runs[-1][2].tolist(), *w.tolist())
    assert runs[0] == runs[1]


def test_an_argument_is_updated_where_it_is():
    def f(x):
        x *= 2
        x[0] = 5.0
        return x + 1

    step = compiled(f)
    for _ in range(2):
        x, y = cr.tensor([1.0, 2.0, 3.0]), cr.tensor([1.0, 2.0, 3.0])
        a, b = f(x), step(y)
        assert same(a, b)
        assert same(x, y)
    assert y.mutated


SETS = {
    "number": lambda z, v: z.__setitem__(1, 7.0),
    "window": lambda z, v: z.__setitem__((slice(1, 3), slice(None, None, 2)), v[:2, :3]),
    "all": lambda z, v: z.__setitem__(..., 3.0),
    "negative": lambda z, v: z.__setitem__((-1, slice(1, -1)), v[0, 0]),
    "backwards": lambda z, v: z.__setitem__(slice(None, None, -1), v[0, 0]),
    "places": lambda z, v: z.__setitem__(([0, 3], [1, 1]), cr.tensor([5.0, 6.0])),
    "mask of values": lambda z, v: z.__setitem__(z > 0, 2.0),
    "a mask": lambda z, v: z.__setitem__(cr.tensor([True, False, True, False]), -1.0),
    "nothing": lambda z, v: z.__setitem__(slice(2, 2), 1.0),
}


@pytest.mark.parametrize("name", SETS)
def test_entries_are_set(name):
    def f(x, v):
        z = x * 1
        SETS[name](z, v)
        return z

    x, v = cr.randn(4, 5), cr.randn(3, 4)
    assert same(compiled(f)(x, v), f(x, v))


def test_a_view_and_what_it_is_a_view_of_do_not_drift_apart():
    def through_the_view(x):
        y = x * 2
        v = y.reshape(-1)
        v += 1
        return v

    assert same(compiled(through_the_view)(cr.ones(2, 2)), through_the_view(cr.ones(2, 2)))

    def read_the_base(x):
        y = x * 2
        y.reshape(-1).add_(1)
        return y + 0

    with pytest.raises(TraceError, match=r"what shares memory with this .* was changed in place"):
        compiled(read_the_base)(cr.ones(2, 2))

    def read_the_view(x):
        y = x * 2
        v = y.reshape(-1)
        y += 1
        return v + 0

    with pytest.raises(TraceError, match="make the view again"):
        compiled(read_the_view)(cr.ones(2, 2))
    with pytest.raises(TraceError, match="view of a tensor from outside"):
        compiled(lambda x: x.reshape(-1).add_(1))(cr.ones(2, 2))


def test_what_is_an_error_eagerly_is_one_in_a_trace():
    w = cr.tensor([1.0, 2.0], requires_grad=True)
    with pytest.raises(InPlaceError, match="only under"):
        compiled(lambda x: w.sub_(x))(cr.ones(2))
    with pytest.raises(InPlaceError, match="only leaves"):
        compiled(lambda x: (w * x).add_(1))(cr.ones(2))

    def stale(x):
        loss = (w * w * x).sum()
        with cr.no_grad():
            w.mul_(2)
        loss.backward()

    with pytest.raises(StaleValueError, match="changed in place"):
        compiled(stale)(cr.ones(2))
    assert w.tolist() == [1.0, 2.0]
    with pytest.raises(cr.errors.ShapeError, match="inner sizes"):
        compiled(lambda x: x @ cr.ones(3, 2))(cr.ones(2, 2))


# --- what cannot be traced

REFUSED = {
    "branch": lambda x: x if x.sum() > 1 else -x,
    "item": lambda x: x * x.sum().item(),
    "float": lambda x: float(x.sum()),
    "format": lambda x: f"{x.sum():.2f}",
    "numpy": lambda x: np.exp(x.numpy()),
    "a tensor from outside": lambda x: x * w.detach().numpy(),
    "its item": lambda x: x * w[0].item(),
    "mask": lambda x: x[x > 0],
    "a mask from outside": lambda x: x[outside > 0],
    "nonzero": lambda x: x.nonzero(),
    "multinomial": lambda x: cr.multinomial(x, 1),
}
outside = cr.ones(2)


@pytest.mark.parametrize("name", REFUSED)
def test_what_depends_on_values_names_the_line(name):
    with pytest.raises(SymbolicValueError, match=r"(?s)value.*at test_trace.py:"):
        compiled(REFUSED[name])(cr.ones(2))


def test_entries_that_depend_on_values_cannot_be_set():
    with pytest.raises(TraceError, match="entries to set depend on values"):
        compiled(lambda x, i: x.__setitem__(i, 1.0))(cr.ones(2), cr.tensor([0]))
    with pytest.raises(TraceError, match="names an entry twice"):
        compiled(lambda x: x.__setitem__([0, 0], cr.tensor([1.0, 2.0])))(cr.ones(2))


def test_indices_from_outside_are_read_at_each_call():
    rows = cr.tensor([0, 2])
    f = compiled(lambda x: x[rows])
    x = cr.arange(3.0)
    assert f(x).tolist() == [0.0, 2.0]
    rows.copy_(cr.tensor([1, -1]))
    assert f(x).tolist() == [1.0, 2.0]


def test_labels_from_outside_are_read_at_each_call():
    labels = cr.tensor([0, 1])
    loss = lambda x: cr.nn.functional.cross_entropy(x, labels)  # noqa: E731
    f, x = compiled(loss), cr.randn(2, 3)
    assert f(x).item() == pytest.approx(loss(x).item())
    labels.copy_(cr.tensor([2, -100]))
    assert f(x).item() == pytest.approx(loss(x).item())


def test_printing_shows_a_symbol():
    said = []
    compiled(lambda x: said.append(repr(x * 2)))(cr.ones(2))
    assert said == ["tensor(symbol ?: float32[2])"]


def test_a_traced_tensor_that_was_kept_says_so_when_it_is_used():
    kept = []
    compiled(lambda x: kept.append(x * 2))(cr.ones(2))
    with pytest.raises(SymbolicValueError, match="made while a function was traced, and kept"):
        kept[0].numpy()
    with pytest.raises(SymbolicValueError, match="return it from that function"):
        compiled(lambda x: x)(kept[0])


class Running(cr.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", cr.zeros(3))
        self.seen = cr.ones(2)

    def forward(self, x):
        self.seen = x * 2.0  # not read: a picture of the last call, no more
        self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
        return x - self.mean


SET_ANEW = cr.ones(3)


def set_a_global(x):
    global SET_ANEW  # noqa: PLW0603
    SET_ANEW = SET_ANEW - x
    return SET_ANEW.sum()


def test_another_tensor_in_the_place_of_one_that_is_read_is_refused():
    """Later calls would read the first one again and again; what was there is there afterwards."""
    model, before = Running(), SET_ANEW
    mean = model.mean
    with pytest.raises(TraceError, match=r"setting Running\.mean, which the function reads.*self\.mean\.copy_"):
        compiled(model)(cr.ones(4, 3))
    assert model.mean is mean
    with pytest.raises(TraceError, match=r"setting the variable SET_ANEW.*SET_ANEW\.copy_"):
        compiled(set_a_global)(cr.ones(3))
    assert SET_ANEW is before

    def counted(start):
        def step(x):
            nonlocal start
            start = start + x
            return start

        return step

    with pytest.raises(TraceError, match="setting the variable start"):
        compiled(counted(cr.zeros(3)))(cr.ones(3))


@pytest.mark.parametrize("seeding", [lambda: cr.manual_seed(1), cr.Generator])
def test_a_stream_cannot_be_seeded_inside(seeding):
    def function(x):
        seeding()
        return x * cr.rand(3)

    with pytest.raises(TraceError, match="seeding a random stream cannot be compiled"):
        compiled(function)(cr.ones(3))


def test_an_exception_leaves_everything_as_it_was():
    w = cr.tensor([1.0, 2.0], requires_grad=True)
    w.grad = old = cr.tensor([5.0, 5.0])
    optimizer = cr.optim.Adam([w])
    model = cr.nn.Linear(2, 2)

    def fails(x):
        (w * x * cr.rand(2)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        model(x).sum().backward()
        cr.nn.utils.clip_grad_value_([w], 1.0)
        raise KeyError("mine")

    state = cr.creation.default_generator.get_state()
    with pytest.raises(KeyError, match="mine"):
        compiled(fails)(cr.ones(2))
    assert w.grad is old
    assert w.tolist() == [1.0, 2.0]
    assert not optimizer.state
    assert model.weight.grad is None
    assert cr.creation.default_generator.get_state() == state
    assert cr.is_grad_enabled()
    assert isinstance((w * 2).array, np.ndarray)


def test_backward_does_not_go_on_outside():
    v = cr.tensor([1.0, 2.0], requires_grad=True)
    h = v * 2
    for f, args in ((lambda: (h * 3).sum().backward(), ()), (lambda x: (x * 3).sum().backward(), (h,))):
        with pytest.raises(TraceError, match="go on beyond the compiled function"):
            compiled(f)(*args)


def test_memory_that_is_updated_is_read_under_one_name():
    buffer = cr.zeros(4)
    part = cr.from_numpy(buffer.numpy()[:2])

    def f(x):
        with cr.no_grad():
            buffer.add_(1)
        return part + x

    with pytest.raises(TraceError, match=r"buffer float32\[4\] is updated in place and shares memory with part"):
        compiled(f)(cr.ones(2))


def test_a_node_is_never_made_outside_of_its_trace():
    compiled(lambda x: x * 2)(cr.ones(2))
    assert isinstance((cr.ones(2) * 2).array, np.ndarray)
    assert isinstance(cr.rand(2), Node)
