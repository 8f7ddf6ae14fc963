"""Random programs, compiled, are what they are eagerly: results and gradients, on any number of threads, any target.

CHAINRULE_TEST_EFFORT=20 draws twenty times as many, and others at each run.
"""

from dataclasses import dataclass

import numpy as np
import pytest
from drawn import Program, programs
from equality import EFFORT, arrays, assert_equal, compiled, quietly
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from steps import F, drawn, written

import chainrule as cr
from chainrule.compile.kernels import layout
from chainrule.compile.llvm import phases, pool
from chainrule.compile.llvm.loops.layout import decide

CLOSE = 1e-10  # of float64, relative to the largest entry: what 25 steps, some of them unsteady, make of 1e-16

drawn_many = settings(
    max_examples=50 * EFFORT, derandomize=EFFORT == 1, suppress_health_check=list(HealthCheck), database=None
)
drawn_few = settings(parent=drawn_many, max_examples=10 * EFFORT)


def held(program: Program, found: list[np.ndarray], wanted: list[np.ndarray]) -> None:
    for number, (f, w) in enumerate(zip(found, wanted, strict=True)):
        size = float(np.abs(w[np.isfinite(w)]).max(initial=1.0))
        assert_equal(f, w, f"result {number} of\n{program!r}\n", size, CLOSE)


@given(programs())
@drawn_many
def test_values_and_gradients(program):
    inputs = program.tensors()
    cr.manual_seed(7)
    wanted = quietly(program.value_and_gradients, *inputs)
    cr.manual_seed(7)
    found = arrays(compiled(program.value_and_gradients)(*inputs))
    held(program, found, wanted)


@given(programs(8))
@drawn_few
def test_second_derivatives(program):
    smooth = [i for i, a in enumerate(program.arrays) if a.size]
    if not smooth:
        return

    def curvature(*inputs):
        def slope(*xs):
            found = cr.grad(program.loss, argnums=tuple(smooth))(*xs)
            return sum((g.tanh() * g).sum() for g in found)

        return cr.grad(slope, argnums=tuple(smooth))(*inputs)

    inputs = program.tensors()
    cr.manual_seed(7)
    wanted = quietly(curvature, *inputs)
    cr.manual_seed(7)
    held(program, arrays(compiled(curvature)(*inputs)), wanted)


@given(programs(), st.booleans())
@drawn_few
def test_threads(program, stealing):
    """The same bits at each run, for any number of threads, and whoever does what: here every task is shared.

    stealing: in the smallest bits that there are, by whoever comes first.
    """
    inputs = program.tensors()
    cr.manual_seed(7)
    wanted = quietly(program.value_and_gradients, *inputs)
    runs = []
    for threads in (1, 2, 3):
        pool.set_num_threads(threads)
        try:
            with pytest.MonkeyPatch.context() as patch:
                for name in ("_SHARED", "_SHARED_ROWS", *(("_STOLEN", "_GRAIN") if stealing else ())):
                    patch.setattr(phases, name, 1e-9)
                function = compiled(program.value_and_gradients, threads=threads)
                for _ in range(3):
                    cr.manual_seed(7)
                    runs.append(arrays(function(*inputs)))
        finally:
            pool.set_num_threads(pool.usable_cores())
    held(program, runs[0], wanted)
    for again in runs[1:]:
        for first, second in zip(runs[0], again, strict=True):
            assert first.tobytes() == second.tobytes(), repr(program)


@given(programs())
@drawn_few
def test_rows_further_apart(program):
    """What products read and write of each other, with room between all rows, as it is between long ones."""
    inputs = program.tensors()
    cr.manual_seed(7)
    wanted = quietly(program.value_and_gradients, *inputs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "SPREAD", 1)
        function = compiled(program.value_and_gradients)
        cr.manual_seed(7)
        held(program, arrays(function(*inputs)), wanted)


@pytest.mark.parametrize(
    ("shape", "function"),
    [
        ((64, 256), lambda x, w: cr.randn(64, 256) @ w),
        ((64, 256), lambda x, w: F.dropout(x, 0.3) @ w),
        ((64, 256), lambda x, w: (cr.rand(64, 256) + cr.randint(0, 9, (64, 256))) @ w),
        ((20, 3, 8, 8), lambda x, w: F.conv2d(cr.randn(20, 3, 8, 8), w.flatten()[:108].reshape(4, 3, 3, 3))),
        ((20, 3, 8, 8), lambda x, w: F.conv2d(F.dropout(x, 0.3), w.flatten()[:108].reshape(4, 3, 3, 3))),
    ],
)
def test_random_numbers_are_the_same_wherever_they_lie(shape, function):
    """Rows with room between, for a product; the batch innermost, for a convolution."""
    given = drawn(*shape), drawn(256, 9)
    cr.manual_seed(7)
    wanted = [quietly(function, *given)[0] for _ in range(2)]
    cr.manual_seed(7)
    compiled_ = compiled(function)
    for w in wanted:
        assert_equal(arrays(compiled_(*given))[0], w, size=60.0)


SHAPES_OF_NUMBERS = [
    (4,),
    (7,),
    (100,),
    (1000,),
    (1001,),
    (3, 32),
    (3, 33),
    (5, 36),
    (1, 2, 64),
    (2, 3, 5, 8),
    (6, 1, 40),
]


@pytest.mark.parametrize("shape", SHAPES_OF_NUMBERS, ids=str)
@pytest.mark.parametrize("dtype", [cr.float32, cr.float64, cr.bfloat16], ids=str)
def test_uniform_numbers_are_the_same_bit_by_bit(shape, dtype, target):
    """Where four vectors are drawn together, what is left over at the end, and where rows begin within a block."""

    def drawn_numbers():
        return cr.rand(*shape, dtype=dtype), cr.rand(*shape, dtype=dtype), cr.rand(*reversed(shape), dtype=dtype).mT

    if len(shape) == 1:
        drawn_numbers = lambda: (cr.rand(*shape, dtype=dtype), cr.rand(*shape, dtype=dtype))  # noqa: E731
    cr.manual_seed(3)
    wanted = [arrays(drawn_numbers()) for _ in range(2)]
    cr.manual_seed(3)
    function = compiled(drawn_numbers, target)
    for each in wanted:
        for found, w in zip(arrays(function()), each, strict=True):
            assert found.tobytes() == w.tobytes()


def test_targets(target):
    @given(programs())
    @drawn_few
    def equal(program):
        inputs = program.tensors()
        cr.manual_seed(7)
        wanted = quietly(program.value_and_gradients, *inputs)
        cr.manual_seed(7)
        held(program, arrays(compiled(program.value_and_gradients, target)(*inputs)), wanted)

    equal()


# --- updates in place: what is read is what was there before


@dataclass
class Updates:
    """Tensors that are updated from each other: each takes `factor` of the source, moved and bent, now or at once."""

    shape: tuple[int, ...]
    count: int
    changes: list[tuple[int, int, str, str]]

    def tensors(self) -> list[cr.Tensor]:
        """What is updated."""
        return [
            cr.tensor(np.cos(np.arange(np.prod(self.shape, dtype=int)) + i).reshape(self.shape))
            for i in range(self.count)
        ]

    def __call__(self, weights: list[cr.Tensor]) -> cr.Tensor:
        old = [w * 1.0 for w in weights]
        for target, source, what, way in self.changes:
            x = WAYS[way](weights[source] if what != "old" else old[source])
            if what == "copy":
                weights[target].copy_(x)
            else:
                weights[target] -= 0.3 * x
        return sum((w * w).sum() for w in weights) + old[0].sum()


WAYS = {
    "as it is": lambda x: x,
    "bent": lambda x: x.tanh(),
    "turned": lambda x: x.flip(0),
    "transposed": lambda x: x.mT.reshape(x.shape),
    "its mean": lambda x: x.mean(0, keepdim=True) + x * 0.0,
    "its sum": lambda x: x.sum().tanh() + x,
    "shifted": lambda x: cr.cat([x[1:], x[:1]]),
    "a product": lambda x: (x @ x.mT * 0.01).tanh() @ x * 0.1,  # bounded: nine of x @ x.mT @ x overflow
    "running": lambda x: x.cumsum(0) * 0.1,
    "sorted": lambda x: x[x.sum(1).argsort(0)],
}


@st.composite
def updates(draw):
    shape = draw(st.sampled_from([(1, 1), (4, 4), (5, 3), (17, 17), (33, 9), (70, 70)]))
    count = draw(st.integers(1, 4))
    change = st.tuples(
        st.integers(0, count - 1),
        st.integers(0, count - 1),
        st.sampled_from(["now", "old", "copy"]),
        st.sampled_from(list(WAYS)),
    )
    return Updates(shape, count, draw(st.lists(change, min_size=1, max_size=6)))


@given(updates())
@drawn_many
def test_updates(case):
    updates_held(case, calls=3)


def updates_held(case, calls: int) -> None:
    """What calls of a case give, and what its tensors are then, eagerly and compiled."""
    runs = []
    for wrap in (lambda f: f, compiled):
        tensors = case.tensors()
        step = wrap(lambda tensors=tensors: case(tensors))
        with cr.no_grad():
            found = [result for result in (step() for _ in range(calls)) if result is not None]
        runs.append(arrays([found, tensors]))
    for f, w in zip(runs[1], runs[0], strict=True):
        assert_equal(f, w, case, max(1.0, float(np.abs(w).max())), CLOSE)


# Of a matrix, and of what has one entry a column or a row of it: each updated from what was there before.
REDUCED = {
    "sum": lambda x, d: x.sum(d, keepdim=True),
    "mean": lambda x, d: x.mean(d, keepdim=True),
    "largest": lambda x, d: x.amax(d, keepdim=True),
    "softmax": lambda x, d: x.softmax(d),
    "spread": lambda x, d: (x - x.mean(d, keepdim=True)).square().mean(d, keepdim=True),
    "as it is": lambda x, d: x,
}


@dataclass
class Chain:
    """Values, each of earlier ones and reduced or not; then each tensor is updated by one of them that fits."""

    shapes: list[tuple[int, int]]
    links: list[tuple[int, int, str, int, bool]]

    def tensors(self) -> list[cr.Tensor]:
        """What is updated."""
        return [cr.tensor(np.cos(np.arange(m * n) + i).reshape(m, n)) for i, (m, n) in enumerate(self.shapes)]

    def __call__(self, tensors: list[cr.Tensor]) -> None:
        values = list(tensors)
        for one, other, how, dim, added in self.links:
            x, y = values[one % len(values)], values[other % len(values)]
            made = REDUCED[how](x, dim)
            values.append((made + y if added else made * y) * 0.3)
        for x in tensors:
            fitting = [v for v in values[len(tensors) :] if np.broadcast_shapes(v.shape, x.shape) == x.shape]
            for v in fitting[-1:]:
                x.sub_(v)


@st.composite
def chains(draw):
    m, n = draw(st.sampled_from([(3, 4), (2, 17), (17, 2), (9, 9)]))
    shapes = draw(st.lists(st.sampled_from([(m, n), (1, n), (m, 1)]), min_size=1, max_size=4))
    link = st.tuples(
        st.integers(0, 9), st.integers(0, 9), st.sampled_from(list(REDUCED)), st.integers(0, 1), st.booleans()
    )
    return Chain(shapes, draw(st.lists(link, min_size=1, max_size=6)))


@given(chains())
@drawn_many
def test_what_is_written_over_is_not_read_after_that(case):
    """In loops with several stages an old value may be needed in a later one, at the very place of the new one."""
    updates_held(case, calls=2)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_layer_trained_on_one_sample(batch):
    """Its products are sums then, and the weight is updated in the loops in which the bias is read."""
    runs = []
    for wrap in (lambda f: f, compiled):
        w, b, x, y = drawn(2, 3), drawn(3), drawn(batch, 2, seed=1), drawn(batch, 3, seed=2)
        w.requires_grad_(), b.requires_grad_()
        optimizer = cr.optim.SGD([w, b], lr=0.1)

        def step(w=w, b=b, x=x, y=y, optimizer=optimizer):
            optimizer.zero_grad()
            loss = (x @ w + b - y).square().sum()
            loss.backward()
            optimizer.step()
            return loss

        step = wrap(step)
        losses = [step().item() for _ in range(3)]
        runs.append((losses, w.detach().numpy(), b.detach().numpy()))
    for f, g in zip(runs[0], runs[1], strict=True):
        np.testing.assert_allclose(f, g, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("joined", [cr.cat, cr.stack])
@pytest.mark.parametrize(
    "made", [lambda x: x.softmax(0), lambda x: x - x.sum(0), lambda x: x - x.mean(1, keepdim=True)]
)
def test_what_is_joined_and_returned_with_sums_of_it(joined, made):
    """Computed by the very loops that would have to read it."""

    def function(x):
        both = joined([made(x), x])
        return both, both.square()[:1].sum(0), cr.grad(lambda x: joined([made(x), x]).square().sum())(x)

    x = cr.tensor(np.cos(np.arange(12.0)).reshape(3, 4))
    for f, w in zip(arrays(compiled(function)(x)), quietly(function, x), strict=True):
        assert_equal(f, w, size=10.0)


@given(programs(14), st.data())
@drawn_many
def test_inputs_that_become_what_the_program_computes(program, data):
    """All values are computed from what the inputs held before."""
    values = program.values(*program.tensors())
    changes = []
    for x in program.arrays:
        fitting = [j for j, y in enumerate(values) if y.shape == x.shape]
        changes.append(fitting[-1 - min(data.draw(st.integers(0, 4)), len(fitting) - 1)])
    differentiated = data.draw(st.booleans())

    def step(inputs):
        if differentiated:
            value, slopes = cr.value_and_grad(program.loss, argnums=tuple(range(len(inputs))))(*inputs)
        else:
            value, slopes = program.loss(*inputs), [0.0] * len(inputs)
        made = [x + 0.0 for x in program.values(*inputs)]
        for i, (j, slope) in enumerate(zip(changes, slopes, strict=True)):
            inputs[i].copy_(made[j] - slope * 0.01)
        return value, [made[i] for i in program.results]

    runs = []
    for wrap in (lambda f: f, compiled):
        inputs = program.tensors()
        cr.manual_seed(7)
        with cr.no_grad():
            result = arrays(wrap(lambda inputs=inputs: step(inputs))())
        runs.append([*result, *arrays(inputs)])
    held(program, runs[1], runs[0])


def test_a_swap():
    a, b = (cr.tensor(np.arange(35.0).reshape(5, 7) + 100 * i) for i in range(2))

    def swap():
        a_before = a * 1.0
        a.copy_(b)
        b.copy_(a_before)

    compiled(swap)()
    assert a[0, 0].item() == 100.0
    assert b[0, 0].item() == 0.0
    assert a[4, 6].item() == 134.0


def test_results_that_are_inputs_and_the_same_result_twice():
    def f(x, w):
        y = x @ w
        return x, y, y, w, y.mT, (y, y + 0.0), y.reshape(-1)

    x, w = cr.randn(5, 3, dtype=cr.float64), cr.randn(3, 9, dtype=cr.float64)
    found = compiled(f)(x, w)
    for g, e in zip(arrays(found), quietly(f, x, w), strict=True):
        assert_equal(g, e)


def test_tied_weights_are_updated_once():
    runs = []
    for wrap in (lambda f: f, compiled):
        cr.manual_seed(0)
        w = cr.randn(7, 7, dtype=cr.float64).requires_grad_()
        x = cr.randn(5, 7, dtype=cr.float64)

        def step(w=w, x=x):
            w.grad = None
            loss = ((x @ w).tanh() @ w.mT).square().mean()
            loss.backward()
            with cr.no_grad():
                w.sub_(0.1 * w.grad)
                w.sub_(0.1 * w.grad * w)
            return loss

        step = wrap(step)
        runs.append([step().item() for _ in range(4)] + [w.detach().numpy().copy()])
    for f, e in zip(runs[1], runs[0], strict=True):
        np.testing.assert_allclose(f, e, rtol=1e-12)


# --- what random programs led to


def same(function, *inputs):
    for found, wanted in zip(arrays(compiled(function)(*inputs)), quietly(function, *inputs), strict=True):
        assert_equal(found, wanted, size=max(1.0, float(np.abs(wanted.astype(np.float64)).max(initial=0.0))))


def numbers(*shape):
    return cr.tensor(np.cos(np.arange(np.prod(shape, dtype=int)) * 1.7).reshape(shape))


def test_a_value_two_groups_read_is_computed_where_neither_waits_for_the_other():
    def loss(x):
        return (cr.nn.functional.windows(x.tanh(), (1,), (2,), (1,)).tanh() * numbers(2, 1)).sum()

    same(cr.value_and_grad(loss), numbers(3))


def test_a_result_that_is_a_number():
    same(lambda x: (x, cr.tensor(2.5), cr.tensor(3.0) * 2.0), numbers(3))


def test_the_first_of_equal_extremes_along_several_dimensions():
    def places(x):
        tied = (x > 0.0).to(x.dtype)
        return tied.argmax(), tied.argmin(), tied.reshape(-1).argmin(0), tied.mT.argmax(), tied[0].argmin(1)

    same(places, numbers(9, 5, 3))


EXTREMES = {
    "floats": ([-np.inf, 0.0, 1.5, np.inf, np.nan], np.float32),
    "doubles": ([-np.inf, 0.0, 1.5, np.inf, np.nan], np.float64),
    "only the lowest": ([-np.inf], np.float32),
    "only the highest": ([np.inf, np.nan], np.float32),
    "whole numbers": ([np.iinfo(np.int64).min, -1, np.iinfo(np.int64).max], np.int64),
    "short ones": ([0, 255], np.uint8),
}


@pytest.mark.parametrize("kind", EXTREMES)
@pytest.mark.parametrize("shape", [(1, 1), (3, 40), (40, 3), (17, 19)], ids=str)
def test_extremes_and_their_places_whatever_the_values(kind, shape):
    values, dtype = EXTREMES[kind]
    rng = np.random.default_rng(0)

    def largest(x):
        return x.argmax(0), x.amax(0), x.argmax(1), x.amax(1), x.argmax(), x.amax()

    def smallest(x):
        return x.argmin(0), x.amin(0), x.argmin(1), x.amin(1), x.argmin(), x.amin()

    for _ in range(8):
        x = cr.tensor(rng.choice(np.array(values, dtype), shape))
        for function in (largest, smallest):
            for found, wanted in zip(arrays(compiled(function)(x)), arrays(function(x)), strict=True):
                assert_equal(found, wanted)


@pytest.mark.parametrize("padding", [0, 1])
def test_pooling_sends_its_gradient_to_the_first_of_the_largest(padding):
    x = cr.tensor(np.random.default_rng(0).choice(np.float32([-np.inf, -1.0, 2.0]), (3, 2, 9, 9)))
    g = cr.tensor(np.arange(3 * 2 * 25, dtype=np.float32).reshape(3, 2, 5, 5)[..., : 4 + padding, : 4 + padding])

    def pooled(x):
        found, back = cr.vjp(lambda x: F.max_pool2d(x, 2, padding=padding), x)
        return found, back(g)[0]

    for found, wanted in zip(arrays(compiled(pooled)(x)), arrays(pooled(x)), strict=True):
        assert_equal(found, wanted)


def test_reductions_that_differ_in_where_their_size_of_one_stands():
    same(lambda x: (x.sum(0), x.argmax(0), x.reshape(1, 5).argmin(1), x.reshape(1, 5, 1).amax(1)), numbers(5, 1))


def test_a_looked_up_position_through_a_reshape():
    i = cr.tensor([3, 5, -1])
    same(lambda x: (x.reshape(-1)[i], x.mT.tanh().reshape(-1)[i], x.mT.reshape(2, -1)[:, i]), numbers(3, 4))


def test_joined_parts_are_not_read_beyond_their_ends():
    def f(x):
        a = x - 0.3 * x[x.sum(1).argsort(0)]
        return (a - cr.cat([a[1:], a[:1]])).square().sum()

    same(cr.value_and_grad(f), numbers(4, 4))


def test_a_row_that_is_kept_for_later_is_read_later():
    def f(q, k, v):
        return cr.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)

    same(
        lambda *x: cr.vjp(f, *x)[1](numbers(3, 1).to(cr.float16)),
        *(numbers(*s).to(cr.float16) for s in ((3, 2), (2, 2), (2, 1))),
    )


@pytest.mark.parametrize("size", [(64, 10), (67, 10), (5, 3), (130, 40), (3, 200)], ids="{0[0]} x {0[1]}".format)
@pytest.mark.parametrize("dtype", [cr.float32, cr.float64], ids=str)
def test_what_is_kept_of_short_rows_lies_side_by_side(size, dtype, target):
    """A softmax of few columns has a row in each lane; of many, a lane for each column."""
    rng = np.random.default_rng(size)
    x, y = cr.tensor(rng.standard_normal(size), dtype=dtype), cr.tensor(rng.integers(0, size[1], size[0]))

    def losses(x, y):
        return cr.value_and_grad(lambda x: cr.nn.functional.cross_entropy(x, y))(x)

    for f, w in zip(arrays(compiled(losses, target)(x, y)), arrays(losses(x, y)), strict=True):
        assert_equal(f, w)
    layouts = [decide(task.kernel, target) for task in written(losses, x, y).schedule.tasks]
    side_by_side = [layout.base is not None for layout in layouts]
    assert any(side_by_side) or size[1] != 10 or dtype == cr.float64  # of two lanes, neither way is much worse
    assert not any(side_by_side) or size != (3, 200)


def test_the_last_lane_of_a_narrow_result():
    x = numbers(17).to(cr.bfloat16)
    same(lambda x, y: (x + y, (x * y).to(cr.float16), (x > y)), x, x.flip(0))


@pytest.mark.parametrize("dtype", [cr.bfloat16, cr.float16], ids=str)
@pytest.mark.parametrize("shape", [(12, 5), (300, 100)])
def test_the_largest_of_16_bit_floats_gets_its_gradient(dtype, shape):
    """Stored, it is rounded; and is one of the entries still, though these are computed where they are wanted."""
    functions = [
        lambda x: (x * 0.75).amax(),
        lambda x: (x * 0.75).amax(0).sum(),
        lambda x: (x * 0.75).amin(1).sum(),
        lambda x: F.pad(x * 0.75, (1, 1)).amax(),
        lambda x: ((x * 0.75) - (x * 0.75).amax()).exp().sum().log(),
    ]
    pooled = lambda x: F.max_pool2d((x * 0.75)[None, None], 2).sum()  # noqa: E731
    for seed in range(3):
        x = drawn(*shape, seed=seed).to(dtype)
        for function in functions:
            expected, found = (g(x).to(cr.float32).numpy() for g in (cr.grad(function), compiled(cr.grad(function))))
            np.testing.assert_allclose(found, expected, atol=0.02 * np.abs(expected).max())
        # Of two that are the same when rounded, the larger one may be taken.
        assert compiled(cr.grad(pooled))(x).numpy().sum() == cr.grad(pooled)(x).numpy().sum()


@pytest.mark.parametrize("dtype", [cr.bfloat16, cr.float16], ids=str)
@pytest.mark.parametrize("n", [7, 301])
def test_what_jumps_and_what_gives_positions_meets_16_bit_floats_as_they_are_stored(dtype, n):
    rng = np.random.default_rng(n)
    x, y = (cr.tensor(rng.integers(100, 200, n) / 64).to(dtype) for _ in range(2))  # products of many are rounded

    def program(x, y):
        z = x * y
        steps = (z.floor(), z.ceil(), z.round(), z.trunc(), (z - 3).sign(), z // y, z % y)
        return *steps, (8 * z).long(), z == 3, z.argmax(), z.argmin(), z.argsort(), z.topk(3)[1]

    for expected, found in zip(arrays(program(x, y)), arrays(compiled(program)(x, y)), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("start", [lambda x: x, lambda x: x.sum()], ids=["entries", "a number"])
def test_a_long_chain_is_cut(start):
    def program(x):
        y = start(x)
        for n in range(400):
            y = (y * 1.01).tanh() if n % 3 else y + 0.25
        return y

    x = numbers(9)
    found = arrays(compiled(cr.value_and_grad(lambda x: program(x).sum()))(x))
    for f, expected in zip(found, arrays(cr.value_and_grad(lambda x: program(x).sum())(x)), strict=True):
        np.testing.assert_allclose(f, expected, rtol=1e-5, atol=1e-30)


def test_a_copy_of_what_was_changed_before():
    a, b, c = numbers(4), numbers(4), numbers(4)

    def step():
        a.sub_(0.5)
        b.copy_(a)
        a.copy_(a)
        c[1:3] = a[1:3]

    compiled(step)()
    assert np.array_equal(a.numpy(), numbers(4).numpy() - 0.5)
    assert np.array_equal(b.numpy(), a.numpy())
    assert np.array_equal(c.numpy()[1:3], a.numpy()[1:3])


@pytest.mark.parametrize("rows", [20_000, 20_001, 60_000])
def test_products_of_long_sums_keep_their_digits(rows, target):
    """Terms of one sign: added one to another, as many as here would lose two or three digits of seven."""
    rng = np.random.default_rng(rows)
    x, y = (rng.random((rows, n), dtype=np.float32) for n in (8, 5))
    images, filters = rng.random((rows // 500, 1, 20, 20), dtype=np.float32), rng.random((4, 1, 3, 3), dtype=np.float32)

    def function(x, y, images, filters):
        return x.mT @ y, cr.grad(lambda w: F.conv2d(images, w).square().sum())(filters)

    exact = function(*(cr.tensor(a.astype(np.float64)) for a in (x, y, images, filters)))
    found = compiled(function, target)(*map(cr.tensor, (x, y, images, filters)))
    for f, e in zip(arrays(found), arrays(exact), strict=True):
        assert np.abs(f / e - 1.0).max() < 1.5e-6
