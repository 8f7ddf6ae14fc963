"""Passes that convolutions and poolings go through: products of windows, loops over dimensions that are separate."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.compile.equality import EFFORT

import chainrule as cr
from chainrule.autodiff.reverse import pull
from chainrule.compile import writing
from chainrule.compile.interpret import interpret
from chainrule.compile.passes.arrangement import Part, arrangement, regrouped
from chainrule.compile.passes.joins_last import joins_last
from chainrule.compile.passes.known_signs import known_signs
from chainrule.compile.passes.overlap_of_product import overlap_of_product
from chainrule.compile.passes.splits_first import splits, splits_first
from chainrule.compile.pipeline import optimised
from chainrule.compile.program import Program
from chainrule.compile.verify import verify
from chainrule.core.aval import Aval
from chainrule.core.family import Elementwise, Reduction
from chainrule.core.provenance import user_place
from chainrule.errors import ChainruleError
from chainrule.nn import functional as F
from chainrule.ops import elementwise, movement, reduction, windows

F64 = np.dtype(np.float64)


def symbol(name, *shape, dtype=F64):
    return cr.Tensor.symbolic(name, Aval(shape, np.dtype(dtype)), requires_grad=np.dtype(dtype).kind == "f")


def program(function, *symbols):
    found = function(*symbols)
    return Program(inputs=symbols, outputs=found if isinstance(found, tuple) else (found,))


def gradients(function, *symbols):
    """A program of a function's value and its gradients by all inputs, the value seeded by an input of its own."""
    out = function(*symbols)
    seed = symbol("seed", *out.shape, dtype=out.dtype)
    sent = pull([(out, seed)], symbols)
    return Program(inputs=(*symbols, seed), outputs=(out, *[sent[id(x)] for x in symbols if id(x) in sent]))


def drawn(a_program, seed=0):
    rng = np.random.default_rng(seed)
    found = []
    for x in a_program.inputs:
        values = rng.integers(-3, 4, x.aval.shape) if x.aval.dtype.kind == "i" else rng.standard_normal(x.aval.shape)
        found.append(values.astype(x.aval.dtype))
    return found


def same(before, after, arrays, tolerance=1e-12):
    verify(after, "the pass")
    for expected, found in zip(interpret(before)(arrays), interpret(after)(arrays), strict=True):
        assert (expected.dtype, expected.shape) == (found.dtype, found.shape)
        finite = np.abs(expected[np.isfinite(expected)]) if expected.dtype.kind == "f" else np.zeros(0)
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * finite.max(initial=1.0))


def names(a_program):
    return [node.op.name for node in a_program.nodes if node.op is not None]


# --- products of windows

DIM = st.tuples(st.integers(1, 9), st.integers(1, 4), st.integers(0, 3), st.integers(1, 2), st.integers(1, 2))


@st.composite
def convolutions(draw):
    """(function of input and weight, their shapes)"""
    dims = draw(st.lists(DIM, min_size=1, max_size=2))
    n, filters, channels, groups = (draw(st.integers(1, 3)) for _ in range(4))
    sizes, size, padding, stride, dilation = zip(*dims, strict=True)
    spans = [(k - 1) * step + 1 for k, step in zip(size, dilation, strict=True)]
    assume(all(m + 2 * p >= span for m, p, span in zip(sizes, padding, spans, strict=True)))
    convolve = F.conv1d if len(dims) == 1 else F.conv2d

    def convolved(x, w):
        return convolve(x, w, None, stride, padding, dilation, groups)

    return convolved, (n, channels * groups, *sizes), (filters * groups, channels, *size)


@given(convolutions())
def test_gradient_of_a_convolution(case):
    function, *shapes = case
    before = gradients(function, *(symbol(name, *shape) for name, shape in zip("xw", shapes, strict=True)))
    after = overlap_of_product(before)
    same(before, after, drawn(before))
    assert overlap_of_product(after) is after
    same(before, optimised(before), drawn(before))


def test_product_is_no_larger_than_the_gradient():
    """What padding added is cut off: those windows are not computed, and nothing is as large as all windows were."""
    before = gradients(lambda x, w: F.conv2d(x, w, padding=2), symbol("x", 2, 3, 8, 8), symbol("w", 5, 3, 5, 5))
    after = optimised(before)
    assert "overlap_add" in names(before)
    assert "overlap_add" not in names(after)
    assert [n.aval.shape for n in after.nodes if n.op is not None and n.op.name == "matmul"].count((2 * 64, 3)) == 1


def test_more_padding_than_a_window_reaches_takes_a_slice_of_the_gradient():
    before = gradients(lambda x, w: F.conv1d(x, w, padding=4), symbol("x", 1, 2, 6), symbol("w", 3, 2, 2))
    after = optimised(before)
    same(before, after, drawn(before))
    assert "overlap_add" not in names(after)


def test_single_window_is_moved():
    before = gradients(F.conv2d, symbol("x", 2, 3, 4, 5), symbol("w", 6, 3, 4, 5))
    after = overlap_of_product(before)
    same(before, after, drawn(before))
    assert "overlap_add" not in names(after)
    assert names(after).count("matmul") == names(before).count("matmul")


def test_a_wide_border_is_not_worth_a_product():
    before = gradients(F.conv1d, symbol("x", 2, 3, 13), symbol("w", 4, 3, 12))
    assert overlap_of_product(before) is before


def test_strided_windows_stay():
    before = gradients(lambda x, w: F.conv1d(x, w, stride=2), symbol("x", 2, 3, 13), symbol("w", 4, 3, 3))
    assert overlap_of_product(before) is before


def test_a_product_that_is_read_twice_stays():
    def function(x, w):
        products = x @ w
        added = windows.overlap_add(products, shape=(6,), size=(3,), stride=(1,), dilation=(1,))
        return products, added

    before = program(function, symbol("x", 4, 2), symbol("w", 2, 3))
    assert overlap_of_product(before) is before
    before = program(lambda x, w: function(x, w)[1], symbol("x", 4, 2), symbol("w", 2, 3))
    after = overlap_of_product(before)
    same(before, after, drawn(before))
    assert "overlap_add" not in names(after)


def test_windows_that_are_no_product_stay():
    before = program(
        lambda x: windows.overlap_add(x, shape=(6,), size=(3,), stride=(1,), dilation=(1,)), symbol("x", 4, 3)
    )
    assert overlap_of_product(before) is before


def test_rows_and_columns_in_other_places_stay():
    """Windows that stand along the columns of a product, and reach along its rows."""
    before = program(
        lambda x, w: windows.overlap_add((x @ w).mT, shape=(6,), size=(3,), stride=(1,), dilation=(1,)),
        symbol("x", 3, 2), symbol("w", 2, 4),
    )  # fmt: skip
    assert overlap_of_product(before) is before


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_gradient_that_is_not_finite_reaches_the_same_places(value):
    before = gradients(lambda x, w: F.conv2d(x, w, padding=1), symbol("x", 2, 2, 6, 5), symbol("w", 3, 2, 3, 3))
    arrays = drawn(before)
    arrays[2][0, 1, 2, 3] = arrays[2][1, 0, 0, 0] = value
    same(before, overlap_of_product(before), arrays)


def test_product_comes_from_the_users_line():
    before = gradients(lambda x, w: F.conv2d(x, w).relu(), symbol("x", 2, 2, 6, 5), symbol("w", 3, 2, 3, 3))
    known = {id(node) for node in before.nodes}
    old = [node for node in before.nodes if node.op is windows.overlap_add]
    new = [node for node in overlap_of_product(before).nodes if id(node) not in known and node.op is not None]
    assert new
    assert {user_place(node.trail) for node in new} <= {user_place(node.trail) for node in old}


# --- loops over separate dimensions


def separated(a_program):
    return splits_first(joins_last(splits_first(a_program)))


def shapes_of(a_program, *names_):
    return [node.aval.shape for node in a_program.nodes if node.op is not None and node.op.name in names_]


def joined_operands(a_program):
    """What elementwise ops and reductions read that was joined from dimensions of something computed."""
    reads = [node for node in a_program.nodes if isinstance(node.op, Elementwise | Reduction)]
    return [x for node in reads for x in node.inputs if (a := arrangement(x)).is_joined() and a.source.op is not None]


MOVES = (
    lambda x, y: x.reshape(-1, x.shape[-1]),
    lambda x, y: x.flatten(1),
    lambda x, y: x.flatten(0, -2) if x.ndim > 2 else x,
    lambda x, y: x.reshape(2, 3, 4),
    lambda x, y: x.reshape(6, 4),
    lambda x, y: x.reshape(2, 12),
    lambda x, y: x.reshape(3, 8),
    lambda x, y: x.reshape(2, 3, 2, 2),
    lambda x, y: x.reshape(2, 2, 2, 3),
    lambda x, y: x.reshape(24),
    lambda x, y: x[None],
    lambda x, y: x.reshape(1, 2, 1, 12),
    lambda x, y: x.squeeze(),
    lambda x, y: x.mT,
    lambda x, y: x.permute(1, 2, 0),
    lambda x, y: x.permute(0, 2, 1, 3),
    lambda x, y: x.permute(2, 0, 3, 1),
    lambda x, y: x.permute(0, 2, 1),
    lambda x, y: x + y,
    lambda x, y: x * y,
    lambda x, y: cr.where(x > 0.5, x, y),
    lambda x, y: x.relu(),
    lambda x, y: x * 2,
    lambda x, y: x.exp(),
    lambda x, y: x + x.shape[0],
    lambda x, y: cr.where(x > y, x, 1.0),
    lambda x, y: (x > 0).to(x.dtype),
    lambda x, y: x.sum(0),
    lambda x, y: x.sum(-1, keepdim=True),
    lambda x, y: x.amax((0, -1), keepdim=True),
    lambda x, y: x.amin(0, keepdim=True),
    lambda x, y: x.argmax(-1).to(x.dtype),
    lambda x, y: x.argmax().to(x.dtype),
    lambda x, y: x.argmin(0, keepdim=True).to(x.dtype),
    lambda x, y: x - x.amax(-1, keepdim=True),
    lambda x, y: x.mean((0, 1)),
    lambda x, y: x.softmax(-1),
    lambda x, y: x.expand(2, *x.shape),
    lambda x, y: x.reshape(2, 12) @ y.reshape(12, 2),
    lambda x, y: (x.reshape(6, 4) @ y.reshape(4, 6)).reshape(2, 3, 6),
    lambda x, y: F.windows(x, (2,), (2,)),
    lambda x, y: x.cumsum(0),
    lambda x, y: x[1:],
    lambda x, y: x + cr.arange(4.0, dtype=x.dtype).reshape(2, 2).reshape(4),
    lambda x, y: F.max_pool1d(x, 2),
    lambda x, y: F.max_pool1d(x[:, None], 2).flatten(1),
)
STEPS = st.lists(
    st.tuples(st.integers(0, len(MOVES) - 1), st.integers(0, 99), st.integers(0, 99)), min_size=1, max_size=15
)


def random_program(steps, with_gradients):
    inputs = (symbol("x", 2, 3, 4), symbol("y", 6, 4), symbol("z", 24))
    pool = list(inputs)
    for which, a, b in steps:
        x, y = (pool[-1 - k % len(pool)] for k in (a % 5, b % 9))
        try:
            made = MOVES[which](x, y)
        except (ChainruleError, IndexError):
            continue
        if made.aval.size <= 2000:
            pool.append(made)
    if not with_gradients:
        return Program(inputs=inputs, outputs=tuple(pool[-2:]))
    sent = pull([(pool[-1], cr.Tensor.filled(pool[-1].aval, 1.0))], inputs)
    return Program(inputs=inputs, outputs=(pool[-1], *[sent[id(x)] for x in inputs if id(x) in sent]))


@settings(max_examples=300 * EFFORT)
@given(STEPS, st.booleans(), st.sampled_from([None, np.nan, np.inf, -np.inf, 0.0]), st.integers(0, 23))
def test_random_programs_keep_their_values(steps, with_gradients, special, place):
    before = random_program(steps, with_gradients)
    arrays = drawn(before)
    if special is not None:
        arrays[0].flat[place] = arrays[2].flat[-place] = special
    for change in (splits_first, joins_last, separated, known_signs):
        same(before, change(before), arrays)
    same(before, optimised(before), arrays)


@settings(max_examples=100 * EFFORT)
@given(STEPS, st.booleans())
def test_passes_come_to_an_end(steps, with_gradients):
    """What is moved once is moved for good: again and again, the program stays as large as it is."""
    program_ = optimised(random_program(steps, with_gradients))
    sizes = [len(program_.nodes)]
    for _ in range(3):
        program_ = optimised(program_)
        sizes.append(len(program_.nodes))
    assert max(sizes) <= sizes[0] + 2
    assert sizes[-1] == sizes[-2]


def test_join_moves_behind_what_is_computed_entry_by_entry():
    def function(x, y):
        h = cr.exp(x).permute(0, 2, 1).reshape(6, 4)  # 3 and 2 change places: rows are joined from both
        return (h * y + 2.0).relu()

    before = program(function, symbol("x", 2, 4, 3), symbol("y", 4))
    after = joins_last(before)
    same(before, after, drawn(before))
    assert set(shapes_of(after, "mul", "add", "clamp_min", "relu")) == {(2, 4, 3)}
    assert names(after)[-1] == "reshape"
    assert joins_last(after) is after


def test_what_would_be_joined_in_turn_stays():
    """(2, 6) and (4, 3) into 12: neither has loops in which the other is apart."""
    before = program(lambda x, y: cr.exp(x).reshape(12) + cr.exp(y).reshape(12), symbol("x", 3, 4), symbol("y", 4, 3))
    assert joins_last(before) is before


def test_joined_inputs_are_read_as_they_lie():
    before = program(lambda x, y: x.reshape(12) * y, symbol("x", 3, 4), symbol("y", 12))
    assert joins_last(before) is before


@pytest.mark.parametrize(
    ("reduced", "shape"),
    [
        (lambda h: h.sum(0), (2, 3, 4)),
        (lambda h: h.amax(1, keepdim=True), (2, 3, 4)),
        (lambda h: h.argmax(0), (2, 3, 4)),
        (lambda h: h.argmin(0, keepdim=True), (2, 3, 4)),
        (lambda h: (h > 0).any(0), (2, 3, 4)),
        (lambda h: h.argmax(), (2, 3, 4)),
        (lambda h: h.amin((0, 1), keepdim=True), (2, 3, 4)),
    ],
)
def test_reduction_over_joined_dimensions_is_one_over_the_separate_ones(reduced, shape):
    before = program(lambda x: reduced(cr.exp(x).round().reshape(6, 4)), symbol("x", *shape))
    after = joins_last(before)
    same(before, after, drawn(before))
    (reduction_,) = [node for node in after.nodes if isinstance(node.op, Reduction)]
    assert reduction_.inputs[0].aval.shape == shape
    assert joins_last(after) is after


def test_place_of_the_extreme_is_counted_in_the_stated_order():
    """Rows that changed places: the first of equals is another one."""
    before = program(lambda x: cr.exp(x).permute(1, 0, 2).reshape(6, 4).argmax(0), symbol("x", 2, 3, 4))
    assert joins_last(before) is before
    before = program(lambda x: cr.exp(x).permute(1, 0, 2).reshape(6, 4).amax(0), symbol("x", 2, 3, 4))
    after = joins_last(before)
    same(before, after, drawn(before))
    assert names(after) == ["exp", "amax"]


@pytest.mark.parametrize("dim", [(0,), (0, 1), (1, 2), (2, 0), (0, 1, 2)])
@pytest.mark.parametrize("keepdim", [False, True])
def test_position_of_the_extreme_over_several_dimensions(dim, keepdim):
    x = np.random.default_rng(0).integers(0, 5, (3, 4, 5)).astype(float)
    kept = [d for d in range(3) if d not in dim]
    rows = x.transpose(*kept, *dim).reshape(*(x.shape[d] for d in kept), -1)
    for op, of in ((reduction.argmax, np.argmax), (reduction.argmin, np.argmin)):
        found = op(cr.tensor(x), dim=dim, keepdim=keepdim)
        assert found.aval == op.infer(Aval(x.shape, F64), dim=dim, keepdim=keepdim)
        np.testing.assert_array_equal(found.numpy().reshape(of(rows, -1).shape), of(rows, -1))


def test_split_moves_before_what_is_computed_entry_by_entry():
    def function(x, w, b):
        return ((x.reshape(6, 4) @ w + b) * 2.0).exp().reshape(2, 3, 5).permute(0, 2, 1)

    before = program(function, symbol("x", 2, 3, 4), symbol("w", 4, 5), symbol("b", 5))
    after = splits_first(before)
    same(before, after, drawn(before))
    assert set(shapes_of(after, "add", "mul", "exp", "expand")) == {(2, 3, 5)}
    assert splits_first(after) is after


def test_split_stays_where_others_read_the_whole():
    def function(x):
        h = x.exp()
        return h.cumsum(0), h.reshape(2, 3, 4) * 2.0

    before = program(function, symbol("x", 6, 4))
    assert splits_first(before) is before


def test_sums_and_products_do_not_keep_a_split_from_moving():
    def function(x, w):
        h = (x @ w).exp()
        return h.sum(0), h @ w.mT, h.reshape(2, 3, 4) * 2.0

    before = program(function, symbol("x", 6, 3), symbol("w", 3, 4))
    after = separated(before)
    same(before, after, drawn(before))
    assert shapes_of(after, "exp") == [(2, 3, 4)]
    assert not joined_operands(after)


def test_units_alone_do_not_move_what_is_summed():
    before = program(lambda x: (x.exp().sum(), x.exp()[:, None] * 2.0), symbol("x", 4))
    assert shapes_of(separated(before), "exp")[0] == (4,)


def lenet():
    x, labels = symbol("x", 3, 1, 16, 16), symbol("labels", 3, dtype=np.int64)
    w1, b1, w2, b2 = symbol("w1", 4, 1, 5, 5), symbol("b1", 4), symbol("w2", 6, 4, 3, 3), symbol("b2", 6)
    w3 = symbol("w3", 10, 54)
    h = F.max_pool2d(F.conv2d(x, w1, b1, padding=2).relu(), 2)
    h = F.max_pool2d(F.conv2d(h, w2, b2).relu(), 2)
    loss = F.cross_entropy(h.flatten(1) @ w3.mT, labels)
    weights = (w1, b1, w2, b2, w3)
    sent = pull([(loss, cr.Tensor.filled(loss.aval, 1.0))], weights)
    return Program(inputs=(x, labels, *weights), outputs=(loss, *[sent[id(w)] for w in weights]))


def test_lenet_runs_over_separate_dimensions():
    before = lenet()
    after = optimised(before)
    arrays = drawn(before)
    arrays[1] = np.abs(arrays[1])
    same(before, after, arrays, 1e-11)
    assert not joined_operands(after)
    # Pooling reduces windows where they stand; its gradient is computed over them, and then moved.
    pooled = [node for node in after.nodes if isinstance(node.op, Reduction) and node.inputs[0].op is windows.windows]
    assert {node.op.name for node in pooled} == {"amax", "argmax"}
    assert all(node.params["dim"] == (4, 5) for node in pooled)
    gated = [node for node in after.nodes if node.op is elementwise.gate and node.aval.ndim == 6]
    assert len(gated) == 4
    # No reshape stands between two elementwise ops, but one that splits what is stored anyway.
    reshaped = [x for node in after.nodes if isinstance(node.op, Elementwise) for x in node.inputs]
    between = [x.inputs[0] for x in reshaped if x.op is movement.reshape and x.aval.ndim > 2]
    assert {x.op.name for x in between if isinstance(x.op, Elementwise)} <= {"relu"}
    # The sums of the biases run over what was computed, and not over rows of it.
    assert {(0, 2, 3, 4, 5)} == {
        node.params["dim"] for node in after.nodes if node.op is reduction.sum_ and node.aval.shape in {(4,), (6,)}
    }


def test_lenet_compiles():
    program_ = lenet()
    arrays = [x.astype(x.dtype) for x in drawn(program_)]
    arrays[1] = np.abs(arrays[1])
    run = writing.compiled(optimised(program_), threads=1)
    for expected, found in zip(interpret(program_)(arrays), run(arrays), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


def test_where_the_largest_is_needs_no_counting_from_the_end():
    before = program(lambda x: cr.where(x.argmax(0) < 0, x.argmax(0) + 4, x.argmax(0)), symbol("x", 4, 3))
    after = known_signs(before)
    same(before, after, drawn(before))
    assert set(names(after)) == {"argmax"}
    before = program(lambda i: cr.where(i < 0, i + 4, i), symbol("i", 3, dtype=np.int64))
    assert known_signs(before) is before


# --- arrangements


def test_arrangement_of_a_value():
    x = symbol("x", 2, 12, 1)
    found = arrangement(x.reshape(2, 3, 4).permute(1, 0, 2).reshape(6, 1, 2, 2))
    assert found.source is x
    assert found.dims == ((Part(1, 4, 3), Part(0, 1, 2)), (), (Part(1, 2, 2),), (Part(1, 1, 2),))
    assert found.is_joined()
    assert not found.in_order()


@settings(max_examples=100 * EFFORT)
@given(st.lists(st.integers(0, 17), max_size=6))
def test_arrangement_is_built_again(moves):
    x = made = symbol("x", 2, 3, 4)
    for which in moves:
        try:
            made = MOVES[which](made, made)
        except (ChainruleError, IndexError):
            continue
    found = arrangement(made)
    assert found.shape == made.shape
    before, after = (Program(inputs=(x,), outputs=(node,)) for node in (made, found.built()))
    same(before, after, drawn(before))
    assert len(names(after)) <= 3 + len(names(Program(inputs=(x,), outputs=(found.source,))))


def test_parts_are_not_cut_unevenly():
    assert regrouped([Part(0, 1, 6)], (4,)) is None
    assert regrouped([Part(0, 1, 2), Part(1, 1, 3)], (3, 2)) is None
    assert regrouped([Part(0, 1, 6)], (2, 1, 3)) == ((Part(0, 3, 2),), (), (Part(0, 1, 3),))
    assert regrouped([Part(0, 3, 2), Part(0, 1, 3)], (6,)) == ((Part(0, 1, 6),),)
    assert regrouped([Part(0, 1, 2)], (2, 2)) is None


def test_splits():
    assert splits((6, 4), (2, 3, 1, 4))
    assert splits((1, 6), (6,))
    assert not splits((2, 3), (6,))
    assert not splits((6, 4), (4, 6))
    assert not splits((0, 4), (0, 2, 2))
