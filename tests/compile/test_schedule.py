"""What is computed together, what is stored, and where: the kernels of programs that a person can follow."""

import itertools

import numpy as np
import pytest
from equality import arrays, assert_equal
from hypothesis import given
from hypothesis import strategies as st
from steps import F, attention_gradients, drawn, page_step, written

import chainrule as cr
from chainrule.compile.jit import Compiled
from chainrule.compile.kernels.expression import Compute, Load, walk
from chainrule.compile.kernels.kernel import Contract, Loops, Nest, Scatter
from chainrule.compile.kernels.likeness import likeness_of
from chainrule.compile.kernels.limits import limits
from chainrule.compile.kernels.tasks import values
from chainrule.compile.llvm.sequential import plan_scatter
from chainrule.compile.llvm.target import host
from chainrule.compile.pipeline import optimised
from chainrule.compile.recipe import Recipe, key_of
from chainrule.compile.writing import compiled
from chainrule.errors import OutOfMemoryError


def same(function, *inputs):
    for found, wanted in zip(arrays(cr.compile(function)(*inputs)), arrays(function(*inputs)), strict=True):
        assert_equal(found, wanted, size=float(np.abs(wanted).max()))


def kernels(found):
    return [task.kernel for task in found.schedule.tasks]


def stored(kernel):
    stores = kernel.epilogue if isinstance(kernel, Contract) else [s for stage in kernel.stages for s in stage.stores]
    return [s.buffer for s in stores]


@pytest.mark.parametrize(("batch", "most"), [(100, 7), (200, 8)])
def test_the_page_step_is_seven_or_eight_kernels(batch, most):
    """Of 200 rows sums are in two parts, which a kernel more adds."""
    found = kernels(written(*page_step(batch)))
    products = [k for k in found if isinstance(k, Contract)]
    assert len(products) == 2  # x @ w1, and x^T @ dz; all else is loops
    assert len(found) <= most
    assert [k.batch for k in products] == [(), () if batch == 100 else (0,)]


def test_a_product_carries_bias_and_activation():
    first = kernels(written(*page_step(batch=100)))[0]
    assert isinstance(first, Contract)
    (hidden,) = stored(first)
    assert hidden.shape == (100, 50)
    assert [getattr(e.op, "name", "") for e in walk(*values(first)) if hasattr(e, "op")] == ["add", "relu"]


@pytest.mark.parametrize(("dtype", "width"), [(np.float32, 4), (np.float64, 8)])
def test_places_of_extremes_are_as_wide_as_the_values(dtype, width):
    def mask(x):
        return x.argmax(-1, keepdim=True) == cr.arange(6)

    found = written(mask, cr.tensor(np.ones((40, 6), dtype)))
    compared = [e for k in kernels(found) for e in walk(*values(k)) if isinstance(e, Compute) and e.op.name == "eq"]
    assert {x.dtype.itemsize for e in compared for x in e.inputs} == {width}


def test_what_is_computed_often_may_stand_between_two_reductions_of_one_kernel():
    """Stored for its many readers, it would have to be known before the kernel that the reductions share."""
    w = cr.tensor(np.random.default_rng(0).uniform(0.5, 1.5, (8, 2)))

    def moved(x):
        z = x - x.mean(0)
        for _ in range(2):
            z = F.pad(z, (0, 0, 1, 1), value=0.5).tanh()
        return (cr.cat([z[8:] * z[8:], z[:8]], 0) * 1.5).sum()

    same(lambda x: cr.value_and_grad(moved)(x), w)


def test_a_product_of_many_entries_is_not_made_anew_for_each_of_their_gradients():
    def size(n):
        found = written(cr.grad(lambda x: x.prod(1).sum()), cr.ones(8, n))
        return sum(1 for k in kernels(found) for e in walk(*values(k)) if isinstance(e, Compute))

    assert size(256) < 3 * size(32)  # three more halvings, where each entry by itself would be 64 times as much
    x = cr.tensor(np.random.default_rng(0).uniform(0.5, 1.5, (3, 100)))
    same(lambda x: [cr.grad(lambda x: x.prod(1).sum())(x)], x)


def test_what_is_moved_between_two_means_is_not_made_anew_for_each_place_it_goes_to():
    """A reduction that needs it does not share the loops of an earlier one that it comes from."""

    def moved(rounds):
        def loss(x):
            z = x - x.mean(0)
            for _ in range(rounds):
                z = cr.cat([z[1:] * z[:-1], z[:1]])
            return (z - z.mean(0)).square().sum()

        return cr.grad(loss)

    def size(rounds):
        found = written(moved(rounds), cr.ones(16, 3))
        return sum(1 for k in kernels(found) for e in walk(*values(k)) if isinstance(e, Compute))

    assert size(7) < 3 * size(4)  # each round made anew for two places would be 8 times as much, and more
    same(lambda x: [moved(6)(x)], cr.tensor(np.random.default_rng(0).uniform(0.5, 1.5, (16, 3))))


def test_a_weight_is_updated_where_its_gradient_is_made_and_the_gradient_is_not_stored():
    found = written(*page_step(batch=102))
    updates = [k for k in kernels(found) if isinstance(k, Contract) and stored(k)[0].place == "input"]
    assert len(updates) == 1
    assert stored(updates[0])[0].shape == (100, 50)
    assert not any(s.buffer.shape == (100, 50) for s in found.arena.stays)


def test_a_convolution_of_images_made_here_keeps_the_batch_innermost_and_its_result_is_turned():
    w = drawn(8, 4, 3, 3)
    x = drawn(16, 4, 10, 10)

    def made(x):
        return F.conv2d(x.tanh(), w, padding=1).relu()

    *_, product, copy = kernels(written(made, x))
    (kept,) = stored(product)
    assert isinstance(product, Contract)
    assert kept.place == "arena"
    assert kept.strides[0] == 1
    assert [b.place for b in stored(copy)] == ["output"]
    same(made, x)
    # Images that are given lie in rows, and so does the result: lanes go along the rows then, and nothing is turned.
    (product,) = kernels(written(lambda x: F.conv2d(x, w), x))
    assert [b.place for b in stored(product)] == ["output"]


def test_an_update_waits_for_whoever_reads_the_old_weight():
    found = written(*page_step())
    names = [b for task in found.schedule.tasks for b in task.writes if b.place == "input"]
    for buffer in names:
        writer = next(i for i, t in enumerate(found.schedule.tasks) if buffer in t.writes)
        assert all(buffer not in t.reads for t in found.schedule.tasks[writer + 1 :])


def test_weights_that_swap_are_copied():
    a, b = drawn(5), drawn(5, seed=1)
    before = a.numpy().copy(), b.numpy().copy()

    def swap():
        old = a * 1.0
        with cr.no_grad():
            a.copy_(b)
            b.copy_(old)
        return old.sum()

    cr.compile(swap)()
    assert np.array_equal(a.numpy(), before[1])
    assert np.array_equal(b.numpy(), before[0])


def test_a_softmax_is_one_kernel_that_reads_its_input_from_memory_once_a_stage():
    (kernel,) = kernels(written(lambda x: x.softmax(1), drawn(64, 40)))
    assert isinstance(kernel, Loops)
    assert kernel.outer == (0,)
    assert [len(stage.reductions) for stage in kernel.stages] == [1, 1, 0]
    # What the second stage makes of exp, the third reads back from memory of the thread.
    assert [b.place for b in stored(kernel)] == ["private", "output"]


def test_a_layer_norm_and_its_gradient():
    def gradients(x, w, b):
        return cr.grad(lambda x, w, b: F.layer_norm(x, (32,), w, b).square().sum(), argnums=(0, 1, 2))(x, w, b)

    found = kernels(written(gradients, drawn(16, 32), drawn(32), drawn(32)))
    assert len(found) <= 3  # rows forward, rows backward, columns


@pytest.mark.parametrize(("batch", "size", "width"), [(64, 32, 48), (1024, 600, 512)])  # the latter are 2 MB each
def test_an_activation_stores_its_slope_and_not_what_that_is_computed_from(batch, size, width):
    """As many values as if its input were stored, but the backward pass computes no tanh again."""

    def gradients(*given):
        return cr.grad(lambda x, w, v: (F.gelu(x @ w, approximate="tanh") @ v).square().sum(), argnums=(0, 1, 2))(
            *given
        )

    found = kernels(written(gradients, drawn(batch, size), drawn(size, width), drawn(width, 16)))
    assert len(stored(found[0])) == 2  # the slope, and what the next product reads
    dear = [k for k in found if any(isinstance(e, Compute) and e.op.dear for e in walk(*values(k)))]
    assert dear == found[:1]


def test_an_entry_that_is_looked_up_in_what_a_nest_keeps_to_itself():
    """A large batched product of which only looked-up entries are read: they are read where the product is."""

    def function(q, k, at):
        return (q @ k.mT).gather(2, at)

    q, k = drawn(4, 300, 16), drawn(4, 300, 16, seed=1)
    at = cr.tensor(np.random.default_rng(0).integers(0, 300, (4, 300, 1)))
    same(function, q, k, at)


def test_rows_that_products_read_do_not_lie_a_power_of_two_apart():
    def gradients(x, w, v):
        return cr.grad(lambda x, w, v: (F.relu(x @ w) @ v).square().sum(), argnums=(0, 1, 2))(x, w, v)

    given = drawn(96, 40), drawn(40, 512), drawn(512, 48)
    found = written(gradients, *given)
    hidden = [b for b in found.schedule.buffers() if b.place == "arena" and b.shape == (96, 2, 256)]  # in two parts
    assert {b.strides for b in hidden} == {(2 * 272, 272, 1)}
    narrow = [b for b in found.schedule.buffers() if b.place == "arena" and b.shape == (96, 48)]
    assert {b.strides for b in narrow} == {(48, 1)}
    same(gradients, *given)


def test_a_recurrence_is_not_computed_from_its_beginning_by_each_step():
    """Gates cut from one product: no kernel can store the hidden state beside it. Thrice the steps, thrice the code."""

    def trained(steps):
        cr.manual_seed(0)
        of_input, of_state = cr.nn.Linear(8, 72), cr.nn.Linear(24, 72)
        optimizer = cr.optim.SGD([*of_input.parameters(), *of_state.parameters()], lr=0.1)

        def step(x, y):
            h = cr.zeros(17, 24)
            for t in range(steps):
                r, z, n = of_input(x[:, t]).chunk(3, 1)
                a, b, c = of_state(h).chunk(3, 1)
                r, z = (r + a).sigmoid(), (z + b).sigmoid()
                n = (n + r * c).tanh()
                h = (1 - z) * n + z * h
            loss = ((h - y) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        return len(written(step, drawn(17, steps, 8), drawn(17, 24)).module.text)

    assert trained(12) < 4 * trained(4)


def test_the_gates_of_a_recurrence_are_computed_once():
    """Cut from one product, they have no loops of their own; the backward pass reads what the forward pass made."""
    cr.manual_seed(0)
    layer, steps = cr.nn.LSTM(8, 16), 6

    def gradients(x):
        layer.zero_grad()
        layer(x)[0].sum().backward()
        return [p.grad for p in layer.parameters()]

    found = kernels(written(gradients, drawn(steps, 4, 8)))
    dear = [e.op.name for k in found for e in walk(*values(k)) if isinstance(e, Compute) and e.op.dear]
    assert (dear.count("sigmoid"), dear.count("tanh")) == (3 * steps, 2 * steps)


def test_threads_share_what_is_scattered_for_a_product():
    """Rows of 1 KB, without room between: each thread clears the stretches that it adds to."""

    def function(x, at, w):
        return cr.grad(lambda x: (x.gather(1, at) ** 2).sum())(x) @ w

    at = cr.tensor(np.random.default_rng(0).integers(0, 256, (64, 9)))
    given = drawn(64, 256), at, drawn(256, 16)
    (scatter,) = (k for k in kernels(written(function, *given)) if isinstance(k, Scatter))
    assert scatter.buffer.strides == (256, 1)
    assert plan_scatter(scatter).units == 64
    same(function, *given)


def test_what_is_joined_for_a_product_is_read_by_others_too():
    """And made in the same loops as the sums of it."""

    def function(x, y, w):
        both = cr.cat([x.exp() @ w, y.exp() @ w])
        return both @ w, both.sum(0)

    given = drawn(32, 24), drawn(32, 24, seed=1), drawn(24, 24)
    found = kernels(written(function, *given))
    assert [k.name for k in found if k.name.startswith("cat")] == []
    (joining,) = (k for k in found if isinstance(k, Loops) and any(r for stage in k.stages for r in stage.reductions))
    assert len(stored([joining][0])) == 2
    same(function, *given)


def test_many_that_are_joined_are_stored_before_a_sum_in_parts_reads_them():
    """Half of the rows lie in some, half in others: no loop over the rows of a half can be cut at their edges."""

    def function(xs, w, v):
        both = cr.cat([x @ w for x in xs])
        return both.mT @ v, both.sum(0)

    given = [drawn(32, 16, seed=i) for i in range(64)], drawn(16, 96), drawn(2048, 16)
    found = kernels(written(function, *given))
    reads = [len({id(e.buffer) for e in walk(*values(k)) if isinstance(e, Load)}) for k in found]
    assert sorted(reads)[-2:] == [2, 64]
    (joining,) = (k for k, n in zip(found, reads, strict=True) if n == 64)
    assert not any(stage.reductions for stage in joining.stages)
    same(function, *given)


@pytest.mark.parametrize("derived", [False, True])
def test_what_is_joined_of_what_a_kernel_sums_itself_is_not_waited_for(derived):
    """The mean of each example is made in the kernel that reads the parts it was put into."""

    def function(x):
        mean = (x * x).mean((1, 2), keepdim=True)
        parts = (x * mean).flatten(1).chunk(4, 1)
        return (mean * cr.cat([part.tanh() for part in parts], 1).reshape(x.shape) * x).sum()

    same(cr.grad(function) if derived else function, drawn(8, 2, 24))


# --- nests


def test_attention_keeps_large_scores_in_memory_of_the_thread():
    q, k, v = (drawn(2, 4, 1024, 8, seed=i) for i in range(3))
    found = written(attention_gradients, q, k, v)
    assert all(isinstance(kernel, Nest) for kernel in kernels(found))
    scores = 2 * 4 * 1024 * 1024 * 4
    assert found.arena.size < scores / 16


def test_a_nest_computes_what_its_kernels_would():
    q, k, v = (drawn(3, 2, 300, 16, seed=i) for i in range(3))
    assert any(isinstance(kernel, Nest) for kernel in kernels(written(attention_gradients, q, k, v)))
    eager = attention_gradients(q, k, v)
    for one, other in zip(eager, cr.compile(attention_gradients)(q, k, v), strict=True):
        np.testing.assert_allclose(other.numpy(), one.numpy(), rtol=2e-4, atol=2e-5)


def test_the_backward_pass_of_attention_nests_though_its_heads_lie_in_one_buffer():
    x, w, p = drawn(4, 128, 64), drawn(64, 192), drawn(64, 64)

    def loss(w, p):
        q, k, v = (x @ w).reshape(4, 128, 3, 4, 16).permute(2, 0, 3, 1, 4).unbind(0)
        heads = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(4, 128, 64)
        return (heads @ p).square().sum()

    found = kernels(written(lambda w, p: cr.grad(loss, argnums=(0, 1))(w, p), w, p))
    assert [len(k.kernels) for k in found if isinstance(k, Nest)] == [3, 4]


# --- layout


def image_gradients(x, w):
    return cr.grad(lambda w: F.max_pool2d(F.relu(F.conv2d(x, w)), 2).square().sum())(w)


@pytest.mark.parametrize(("batch", "innermost"), [(32, True), (4, False)])
def test_around_a_convolution_a_long_batch_lies_innermost(batch, innermost):
    x, w = drawn(batch, 3, 12, 12), drawn(8, 3, 3, 3)
    found = written(lambda x, w: image_gradients(x * 2.0, w), x, w)
    images = [s.buffer for s in found.arena.stays if len(s.buffer.shape) == 4 and s.buffer.shape[0] == batch]
    assert images
    assert all((b.strides[0] == 1) == innermost for b in images)
    eager = image_gradients(x * 2.0, w).numpy()
    got = cr.compile(lambda x, w: image_gradients(x * 2.0, w))(x, w).numpy()
    np.testing.assert_allclose(got, eager, rtol=1e-4, atol=1e-4 * np.abs(eager).max())


def image_gradient_of_two(x, v, w):
    """Of the first filters: the gradient of what the second convolution reads has zeros all around."""
    return cr.grad(lambda v: F.max_pool2d(F.relu(F.conv2d(F.relu(F.conv2d(x, v)), w)), 2).square().sum())(v)


@pytest.mark.parametrize("batch", [32, 5])
def test_zeros_around_a_gradient_are_not_stored_where_the_batch_lies_innermost(batch):
    x, v, w = drawn(batch, 1, 12, 12), drawn(3, 1, 3, 3), drawn(8, 3, 5, 5)
    found = written(image_gradient_of_two, x, v, w)
    padded = [s.buffer for s in found.arena.stays if s.buffer.shape[-2:] == (14, 14)]
    limited = [k for k in kernels(found) if isinstance(k, Contract) and limits(k.left, k.summed)]
    assert (len(limited), len(padded)) == ((1, 0) if batch == 32 else (0, 1))
    eager = image_gradient_of_two(x, v, w).numpy()
    got = cr.compile(image_gradient_of_two)(x, v, w).numpy()
    np.testing.assert_allclose(got, eager, rtol=1e-4, atol=1e-4 * np.abs(eager).max())


@pytest.mark.parametrize("padding", [1, 3])
@pytest.mark.parametrize("dilation", [1, 2])
def test_a_padded_convolution_of_what_was_computed_reads_it_where_it_lies(padding, dilation):
    x, w, big = drawn(17, 2, 9, 8), drawn(4, 2, 3, 3), drawn(4, 2, 3, 3)

    def both(x, w, big):
        h = F.conv2d(x.tanh(), w, padding=padding, dilation=dilation)
        value, sent = cr.vjp(lambda h: F.conv2d(h, big.transpose(0, 1), padding=padding, dilation=dilation), h)
        return value, sent(value)[0]

    for got, wanted in zip(cr.compile(both)(x, w, big), both(x, w, big), strict=True):
        size = np.abs(wanted.numpy()).max()
        np.testing.assert_allclose(got.numpy(), wanted.numpy(), rtol=1e-4, atol=1e-4 * size)


def test_what_is_beyond_the_edge_spoils_no_gradient():
    """A gradient times a weight that is inf is inf; a zero that nobody wrote is not multiplied by it."""
    x, v, w = drawn(16, 1, 8, 8), drawn(2, 1, 3, 3), np.array(drawn(2, 2, 3, 3).numpy())
    w[0, 0, 0, 0] = np.inf

    def sent(x, v, w, g):
        _, back = cr.vjp(lambda h: F.conv2d(h, w), F.conv2d(x, v))
        return back(g.exp())[0]

    given = x, v, cr.tensor(w), drawn(16, 2, 4, 4)
    wanted, got = sent(*given).numpy(), cr.compile(sent)(*given).numpy()
    assert np.isfinite(wanted).any()
    np.testing.assert_array_equal(np.isfinite(got), np.isfinite(wanted))


# --- memory


def test_temporaries_that_live_at_once_do_not_share_memory():
    def chain(x):
        for _ in range(6):
            x = (x @ x.mT).softmax(1) @ x + x
        return x

    arena = written(chain, drawn(24, 16)).arena
    assert arena.size < arena.apart
    for i, one in enumerate(arena.stays):
        for other in arena.stays[i + 1 :]:
            meet = one.first <= other.last and other.first <= one.last
            assert not (meet and one.start < other.stop and other.start < one.stop)


def test_for_several_threads_a_place_is_shared_by_temporaries_of_one_size_and_large_ones_lie_apart():
    """So that a core fills the lines it filled before, and does not fetch those of another beyond its own."""

    def chain(x, w):
        for _ in range(5):
            x = (x @ w).softmax(1) @ w.mT + x
        return x

    arena = written(chain, drawn(256, 64), drawn(64, 96), threads=2).arena
    assert arena.size < arena.apart
    places = {(stay.start, stay.stop) for stay in arena.stays}
    assert len(places) < len(arena.stays)
    large = sorted(place for place in places if place[1] - place[0] >= 1 << 13)
    assert len(large) > 1
    assert all(one[1] + (1 << 14) <= other[0] for one, other in itertools.pairwise(large))


def test_several_threads_do_not_take_much_more_memory():
    """A chain of ever other sizes, of which two live at a time."""

    def chain(x):
        for n in range(12):
            x = (x[: 2000 - 20 * n] @ x[: 2000 - 20 * n].mT).relu()
        return x.sum()

    one, two = (written(chain, drawn(2000, 2000), threads=n).arena for n in (1, 2))
    assert one.size > 1 << 24
    assert two.size == one.size < two.apart / 4


def test_a_sum_over_a_batch_that_was_joined_copies_nothing():
    """Half of 8 · 128 rows are 4 · 128: the gradient of a weight is read where heads and positions lie."""
    x, w, v = drawn(8, 4, 128, 32), drawn(128, 64), drawn(64, 128)

    def gradients(x, w, v):
        def loss(w, v):
            return (F.relu(x.tanh().transpose(1, 2).reshape(1024, 128) @ w) @ v).square().sum()

        return cr.grad(loss, argnums=(0, 1))(w, v)

    found = kernels(written(gradients, x, w, v))
    assert not any("permute" in k.name or "reshape" in k.name for k in found)
    assert sum(isinstance(k, Contract) and bool(k.batch) for k in found) == 2
    for got, wanted in zip(cr.compile(gradients)(x, w, v), gradients(x, w, v), strict=True):
        np.testing.assert_allclose(got.numpy(), wanted.numpy(), rtol=1e-3, atol=1e-4 * np.abs(wanted.numpy()).max())


def test_a_step_that_does_not_fit_says_how_much_it_needs():
    def enormous(x):
        scores = x @ x.mT
        return (scores @ scores).sum()

    with pytest.raises(OutOfMemoryError, match="MiB for its temporaries"):
        cr.compile(enormous)(cr.zeros(3_000_000, 2))


# --- recipes


@given(st.lists(st.integers(1, 5), min_size=0, max_size=3), st.binary(max_size=40))
def test_a_recipe_is_what_was_packed(shape, code):
    constants = (np.arange(int(np.prod(shape)), dtype=np.float32).reshape(shape), np.array(3, np.int64))
    recipe = Recipe(
        code=code, constants=constants, arena=12, scratch=7, parallel=True, is_long=False, faults=("gather",)
    )
    again = Recipe.unpacked(recipe.packed())
    assert again._replace(constants=()) == recipe._replace(constants=())
    for one, other in zip(constants, again.constants, strict=True):
        assert one.dtype == other.dtype
        assert np.array_equal(one, other)


def test_a_key_says_what_is_computed_and_not_where_it_was_written():
    programs = []

    def take(program):
        programs.append(program)
        return compiled(optimised(program))

    x = drawn(4, 4)
    Compiled(lambda x: x @ x + 1.0, build=take)(x)
    Compiled(lambda z: z @ z + 1.0, build=take)(x)
    Compiled(lambda z: z @ z + 2.0, build=take)(x)
    Compiled(lambda z: z @ z + 1.0, build=take)(drawn(5, 5))
    target = host()
    keys = [key_of(p, target, 2) for p in programs]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3
    assert key_of(programs[0], target, 1) != keys[0]


def test_loads_stand_where_values_lie():
    found = written(lambda x: x.mT[1:4, ::2] + 1.0, drawn(6, 5))
    (kernel,) = kernels(found)
    (load,) = [e for e in walk(*values(kernel)) if isinstance(e, Load)]
    assert str(load.offset) == "v0 + 10 v1 + 1"


def deep(layers, dropout=0.0):
    """A step of a net of equal layers, and its input."""
    cr.manual_seed(0)
    blocks = [m for _ in range(layers) for m in (cr.nn.Linear(12, 12), cr.nn.Tanh(), cr.nn.Dropout(dropout))]
    net = cr.nn.Sequential(*blocks, cr.nn.Linear(12, 1))
    optimizer = cr.optim.Adam(net.parameters(), lr=0.01)

    def step(x):
        optimizer.zero_grad()
        loss = net(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    return step, drawn(20, 12)


def test_equal_layers_share_their_functions():
    def functions(layers):
        module = written(*deep(layers)).module
        assert all(module.text.count(f"@{name}(") >= 1 for name in module.functions)
        return module.functions

    assert len(functions(12)) - len(functions(6)) >= 12
    assert len(set(functions(12))) == len(set(functions(6)))


@pytest.mark.parametrize("threads", [1, 2])
def test_shared_functions_draw_the_numbers_of_each_layer(threads):
    runs = []
    for wrap in (
        lambda f: f,
        lambda f: Compiled(f, build=lambda program: compiled(optimised(program), threads=threads)),
    ):
        step, x = deep(5, dropout=0.3)
        step = wrap(step)
        cr.manual_seed(3)
        runs.append([float(step(x)) for _ in range(6)])
    np.testing.assert_allclose(runs[1], runs[0], rtol=1e-4)


def test_what_reads_one_buffer_twice_is_not_like_what_reads_two():
    x, y = drawn(40), drawn(40, seed=1)

    def functions(function):
        same(function, x, y)
        return written(function, x, y).module.functions

    first, second = functions(lambda x, y: [(x / y).cumsum(0), (y / x).cumsum(0)])
    assert first == second
    first, second = functions(lambda x, y: [(x / x.flip(0)).cumsum(0), (x / y.flip(0)).cumsum(0)])
    assert first != second


def test_the_steps_of_a_recurrence_share_their_functions():
    """Each reads a piece of its own of the inputs, from another place on."""
    w, u = drawn(6, 9), drawn(9, 9, seed=1)

    def last(steps):
        def loss(w, u, x):
            h = cr.zeros(7, 9)
            for t in range(steps):
                h = (x[:, t] @ w + h @ u).tanh()
            return h.square().sum()

        return lambda x: cr.grad(loss, argnums=(0, 1))(w, u, x)

    same(last(5), drawn(7, 5, 6))
    few, many = (set(written(last(n), drawn(7, n, 6)).module.functions) for n in (6, 12))
    assert len(many) <= len(few) + 3  # the gradient of a weight adds up more


def test_dropouts_share_their_functions():
    """Each draws from a place of its own in the stream of random numbers."""

    def dropped(count):
        def loss(x):
            for _ in range(count):
                x = F.dropout(x.tanh(), 0.5, training=True).cumsum(0)
            return x.sum()

        return loss

    few, many = (set(written(dropped(n), drawn(7, 40)).module.functions) for n in (4, 8))
    assert len(few) == len(many)

    def both(function):
        cr.manual_seed(3)
        return function(drawn(7, 40)).item()

    assert both(cr.compile(dropped(4))) == pytest.approx(both(dropped(4)), rel=1e-5)


def test_a_convolution_whose_batch_is_innermost_is_not_done_in_turned_tiles(target):
    """They are one vector wide: for each multiply-add they read once, where others read two thirds as often."""
    x, w = cr.tensor(np.ones((16, 32, 8, 8), np.float32)), cr.tensor(np.ones((32, 32, 3, 3), np.float32))
    found = written(lambda x: F.conv2d(x.tanh(), w, padding=1).tanh().sum(), x, target=target)
    (placed,) = (p for phase in found.module.phases for p in phase if isinstance(p.task.kernel, Contract))
    assert [layout.results_turned for layout in placed.plan.layouts] == [False]


def test_a_piece_that_is_read_backwards_begins_inside_its_buffer():
    """Its first place is not the constant of its position, which is the last one."""

    def function(x):
        h = F.pad(x, (20, 20)).flip(1)
        return [cr.cat([h[:, t : t + 9].flip(1), x[:, :3]], 1).cumsum(1).sum(1) for t in range(4)]

    same(function, drawn(3, 12))
    for kernel in kernels(written(function, drawn(3, 12))):
        assert all(0 <= own.start < own.memory.span for own in likeness_of(kernel).memory)
