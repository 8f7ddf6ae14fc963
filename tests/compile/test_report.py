"""The report of a compiled step: what it says, and that its numbers fit together. No time is asserted."""

import io
import re
import types
import weakref
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from steps import page_step

import chainrule as cr
from chainrule import nn
from chainrule.compile.interpret import interpret
from chainrule.compile.llvm.target import host
from chainrule.compile.report import quantities, text
from chainrule.compile.report.measuring import measured
from chainrule.compile.report.memory_map import Stretch, chart
from chainrule.errors import ArgumentError, NoGradientError, TraceError

BATCH, INPUTS, HIDDEN, CLASSES = 64, 96, 80, 10


class Mlp:
    """A step of a net of three layers, and what it trains."""

    def __init__(self, **options):
        rng = np.random.default_rng(0)
        w1, w2, w3 = (
            cr.tensor((rng.standard_normal(shape) / 10).astype(np.float32), requires_grad=True)
            for shape in ((INPUTS, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, CLASSES))
        )
        b1, b2, b3 = (cr.zeros(n, requires_grad=True) for n in (HIDDEN, HIDDEN, CLASSES))
        self.params = [w1, b1, w2, b2, w3, b3]
        optimizer = cr.optim.SGD(self.params, lr=0.1)

        @cr.compile(**options)
        def train_step(x, y):
            optimizer.zero_grad()
            h1 = (x @ w1 + b1).relu()
            h2 = (h1 @ w2 + b2).relu()
            logits = h2 @ w3 + b3
            loss = nn.functional.cross_entropy(logits, y)
            loss.backward()
            optimizer.step()
            return loss

        self.step = train_step
        self.x = cr.tensor(rng.standard_normal((BATCH, INPUTS)).astype(np.float32))
        self.y = cr.tensor(rng.integers(0, CLASSES, BATCH))

    def __call__(self):
        return self.step(self.x, self.y)


@pytest.fixture(scope="module")
def mlp():
    net = Mlp()
    net()
    return net


@pytest.fixture(scope="module")
def report(mlp):
    return mlp.step.report()


def formulas(report):
    return [f for k in report.kernels for f in k.formulas]


# --- what it says


def test_the_forward_pass_is_written_in_the_users_names(report):
    forward = ["h1 = relu(x @ w1 + b1)", "h2 = relu(h1 @ w2 + b2)", "logits = h2 @ w3 + b3"]
    assert [f for f in formulas(report) if f in forward] == forward


def test_an_update_is_written_with_the_product_that_makes_its_gradient(report):
    assert "w1 = w1 - lr * (x^T @ (h1 before relu).g)" in formulas(report)
    assert "b2 = b2 - lr * sum((h2 before relu).g, rows)" in formulas(report)


def test_the_backward_pass_is_written_with_its_masks(report):
    assert "(h1 before relu).g = [h1 > 0] * ((h2 before relu).g @ w2^T)" in formulas(report)


def test_each_kernel_says_which_lines_it_works_for(report):
    first, update = report.kernels[0], next(k for k in report.kernels if "w1" in k.updated)
    assert [line.role for line in first.lines] == ["forward"]
    assert first.lines[0].place.text == "h1 = (x @ w1 + b1).relu()"
    assert [line.role for line in update.lines] == ["backward", "update"]
    assert update.lines[0].place.text == "h1 = (x @ w1 + b1).relu()"
    assert update.lines[1].place.text == "optimizer.step()"


def test_gradients_that_are_never_stored_are_said(report):
    names = {name for k in report.kernels for name in k.unstored}
    assert names == {"w1", "b1", "w2", "b2", "w3", "b3"} == {name for k in report.kernels for name in k.updated}
    assert "Never stored: their gradients" in str(report)


def test_gradients_that_are_kept_are_not_said_to_be_unstored():
    net = Mlp(keep_grads=True)
    net()
    found = net.step.report()
    assert not [name for k in found.kernels for name in k.unstored]
    assert "Never stored" not in str(found)


def test_values_of_modules_are_named_by_their_paths():
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 10)
    )  # fmt: skip
    optimizer = cr.optim.SGD(model.parameters(), lr=0.1)

    @cr.compile
    def step(images, labels):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss

    step(cr.randn(8, 1, 8, 8), cr.tensor([0, 1, 2, 3, 4, 5, 6, 7]))
    found = formulas(step.report())
    assert "ReLU_1 = relu(Conv2d_0)" in found
    assert any(f.startswith("Conv2d_0 = Conv2d 0, from images") for f in found), found
    assert any(re.match(r"0\.weight = 0\.weight - lr \* ", f) for f in found), found
    assert any("backward of" in f and "MaxPool2d 2" in f for f in found), found


def test_weights_in_a_list_are_named_by_their_place():
    def initial():
        return [cr.randn(3, 2, requires_grad=True), cr.zeros(2, requires_grad=True)]

    weights = initial()

    @cr.compile
    def step(x):
        loss = (x @ weights[0] + weights[1]).square().sum()
        loss.backward()
        for w in weights:
            with cr.no_grad():
                w -= 0.1 * w.grad
            w.grad = None
        return loss

    loss = step(cr.randn(4, 3))
    assert "Updated in place: weights[0] and weights[1]." in str(step.report())
    assert "dloss/dweights[1]" in str(cr.explain(loss, wrt=weights[1]))


def test_weights_of_an_object_are_named_by_its_attributes():
    class Trainer:
        def __init__(self):
            self.params = {"w": cr.randn(3, requires_grad=True)}
            self.scale = cr.tensor(2.0)

        def loss(self, x):
            return self.scale * (x @ self.params["w"])

    loss = cr.compile(Trainer().loss)
    loss(cr.randn(3))
    assert 'self.scale * x @ self.params["w"]' in str(loss.report()).replace("(", "").replace(")", "")


def test_tensors_that_no_variable_of_the_function_holds_go_by_the_line_that_made_them():
    def optimizer_of_two():
        first = cr.ones(2, requires_grad=True)
        rest = []
        for _ in range(2):
            w = cr.ones(2, requires_grad=True)
            rest.append(w)
        return cr.optim.SGD([first, *rest], lr=0.1)

    optimizer = optimizer_of_two()

    @cr.compile
    def step(x):
        a, b, c = optimizer.param_groups[0]["params"]
        loss = (x * a + b + c).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    step(cr.randn(2))
    assert "Updated in place: first, w.1 and w.2." in str(step.report())


def test_what_a_model_returns_goes_by_the_variable_it_is_assigned_to():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.second(self.first(x).relu())

    net = Net()

    @cr.compile
    def forward(x):
        out = net(x)
        return out, out.square().sum()

    forward(cr.randn(500, 3))
    assert any(f.startswith("out = ") for f in formulas(forward.report()))


def test_updates_that_follow_from_each_other_are_read_in_their_order():
    w = cr.ones(8, 4, requires_grad=True)
    optimizer = cr.optim.SGD([w], lr=0.1, momentum=0.9)

    @cr.compile
    def step(x):
        optimizer.zero_grad()
        (x @ w).square().sum().backward()
        optimizer.step()

    step(cr.ones(6, 8))
    step(cr.ones(6, 8))
    assert formulas(step.report()) == [
        "t1 = 2 (x @ w)",
        "w.momentum_buffer = momentum * w.momentum_buffer + x^T @ t1",
        "w = w - lr * w.momentum_buffer",
    ]
    assert "Updated in place: w; and the momentum_buffer of each." in str(step.report())


def test_an_old_value_is_told_from_the_new_one():
    a, b = cr.ones(64, requires_grad=True), cr.full((64,), 2.0, requires_grad=True)

    @cr.compile
    def turn():
        with cr.no_grad():
            before = a * 2
            a.add_(1.0)
            b.add_(before)

    turn()
    found = formulas(turn.report())
    assert found in (["a = a + 1", "b = b + 2 (old a)"], ["b = b + 2 a", "a = a + 1"])


def test_reshapes_and_reorderings_go_unwritten():
    w = cr.ones(6, 4)

    @cr.compile
    def heads(x):
        h = (x @ w).reshape(8, 5, 2, 2).permute(0, 2, 1, 3)
        return h.exp().sum((1, 3))

    heads(cr.ones(40, 6))
    assert formulas(heads.report()) == ["t1 = exp(x @ w)", "result = sum(t1, dim 1,3)"]


def test_a_sum_along_reordered_dimensions_is_said_in_those_of_the_value():
    total = cr.compile(lambda x: x.exp().reshape(6, 20).sum(1))
    total(cr.ones(3, 2, 4, 5))
    assert formulas(total.report()) == ["result = sum(exp(x), dim 2,3)"]


def test_an_input_in_another_order_is_told_from_the_input():
    total = cr.compile(lambda x: x.permute(2, 0, 1).reshape(30, 4).sum(1))
    total(cr.ones(3, 4, 10))
    assert formulas(total.report()) == ["x reordered = x, in another order", "result = sum(x reordered, dim 2)"]


def test_sums_in_parts_say_so():
    x, w = cr.ones(16, 4096), cr.ones(4096, 32)
    product = cr.compile(lambda x, w: x @ w)
    product(x, w)
    assert formulas(product.report()) == ["t1 = x @ w, in 2 parts", "result = sum(the parts of t1)"]


def test_a_method_that_is_another_callable_object_has_a_report():
    class Called:
        def __init__(self, function):
            self.function = function

        def __call__(self, *args):
            return self.function(*args)

        def __get__(self, instance, owner=None):
            return types.MethodType(self, instance)

    class Net:
        def __init__(self):
            self.w = cr.randn(40, 30)

        @Called
        def forward(self, x):
            return x @ self.w

    forward = cr.compile(Net().forward)
    forward(cr.randn(5, 40))
    assert formulas(forward.report()) == ["result = argument 0 @ self.w"]


def test_the_loss_of_a_function_goes_by_the_variable_it_is_assigned_to():
    w = cr.randn(40, 3, requires_grad=True)

    def error(x):
        return (x @ w).square().mean()

    @cr.compile
    def step(x):
        loss = error(x)
        loss.backward()
        return loss

    step(cr.randn(50, 40))
    assert any(f.startswith("loss = ") for f in formulas(step.report()))


def test_adam_is_read_in_its_order_and_said_to_read_what_it_reads():
    w = cr.randn(30, 20, requires_grad=True)
    optimizer = cr.optim.AdamW([w], lr=0.1)

    @cr.compile
    def step(x):
        optimizer.zero_grad()
        h = x @ w
        loss = h.square().mean()
        loss.backward()
        optimizer.step()
        return loss

    step(cr.randn(40, 30))
    step(cr.randn(40, 30))
    found = step.report()
    lines = next(k.formulas for k in found.kernels if "w" in k.updated)
    assert lines[:3] == (
        "w.g = x^T @ h.g",
        "w.exp_avg_sq = betas[1] * w.exp_avg_sq + (1 - betas[1]) * w.g^2",
        "w.exp_avg = betas[0] * w.exp_avg + (1 - betas[0]) * w.g",
    )
    assert lines[3].startswith("w = updated by optimizer.step(), from w, w.exp_avg_sq, w.exp_avg, betas[0], ")
    # A few numbers are float64: the limit is that of what is done at each entry.
    assert all(k.doubles <= 100 for k in found.kernels)
    product = next(k for k in found.kernels if k.kind == "product")
    assert product.operations / product.limit / 1e9 > 1.5 * found.machine["float64"].one


def test_what_an_earlier_kernel_has_done_is_not_named_again():
    @cr.compile
    def step(x, w, y):
        return nn.functional.cross_entropy((x @ w).sin(), y)

    step(cr.randn(64, 32), cr.randn(32, 10), cr.tensor(np.arange(64) % 10))
    told = [f for f in formulas(step.report()) if "cross_entropy" in f]
    assert told
    assert not any("matmul" in f for f in told), told


def test_of_a_slice_only_its_bytes_are_read():
    half = cr.compile(lambda x: x[:, :50].exp())
    half(cr.randn(100, 200))
    (k,) = half.report().kernels
    assert dict(k.read) == {"x": 4 * 100 * 50}


def test_what_the_function_drops_itself_cannot_be_kept():
    w = cr.ones(64, 8, requires_grad=True)

    @cr.compile
    def step(x):
        (x @ w).square().sum().backward()
        with cr.no_grad():
            w.sub_(0.1 * w.grad)
        w.grad = None

    step(cr.ones(4, 64))
    said = str(step.report())
    assert "Never stored: the gradient of w" in said
    assert "keep_grads" not in said


def test_a_loop_over_one_variable_numbers_its_values():
    ws = [cr.full((8, 8), 0.1, requires_grad=True) for _ in range(3)]

    @cr.compile
    def forward(x):
        h = x
        for w in ws:
            h = (h @ w).tanh()
        return h

    forward(cr.ones(4, 8))
    names = [f.split(" = ")[0] for f in formulas(forward.report())]
    assert names == ["h.1", "h.2", "h.3"]


def test_formulas_are_what_is_computed():
    """Each kernel's formula, read as NumPy and run in the order of the kernels, gives the parameters after the step."""
    net = Mlp()
    net()
    values = {name: p.detach().numpy().astype(np.float64) for name, p in zip(PARAMS, net.params, strict=True)}
    values |= {"x": net.x.numpy().astype(np.float64), "lr": 0.1, "relu": lambda a: np.maximum(a, 0), "rows": 0}
    values["sum"] = np.sum
    found = net.step.report()
    run = 0
    for k in found.kernels:
        for formula in k.formulas:
            name, _, right = formula.partition(" = ")
            if "logits.g" not in values and "logits" in values:  # cross_entropy is told, not written out
                e = np.exp(values["logits"] - values["logits"].max(1, keepdims=True))
                values["logits_g"] = (e / e.sum(1, keepdims=True) - np.eye(CLASSES)[net.y.numpy()]) / BATCH
            if "cross_entropy" in right or "t1" in right or "t2" in right or name.startswith(("b3", "t")):
                continue
            values[as_python(name)] = eval(as_python(right), {}, values)
            run += 1
    assert run >= 10
    net()
    for name, p in zip(PARAMS[:-1], net.params, strict=False):
        np.testing.assert_allclose(p.detach().numpy(), values[name], rtol=1e-4, atol=1e-6)


PARAMS = ["w1", "b1", "w2", "b2", "w3", "b3"]


def as_python(formula):
    named = re.sub(r"\((\w+) before relu\)\.g", r"\1_before_g", formula).replace("logits.g", "logits_g")
    return named.replace("^T", ".T").replace("[", "(").replace("]", ")")


# --- numbers


def test_the_products_of_a_net_are_counted_exactly(report):
    sizes = [(INPUTS, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, CLASSES)]
    forward = sum(2 * BATCH * n * m for n, m in sizes)
    weights, values = forward, sum(2 * BATCH * n * m for n, m in sizes[1:])  # nobody asks for the gradient of x
    assert sum(k.products for k in report.kernels) == forward + weights + values


def test_sums_over_kernels_are_those_of_the_step(report):
    assert report.operations == sum(k.operations for k in report.kernels)
    assert report.bytes == sum(k.bytes for k in report.kernels)
    assert all(k.products <= k.operations for k in report.kernels)


def test_a_buffer_counts_once(report):
    first = report.kernels[0]
    assert dict(first.read) == {"x": 4 * BATCH * INPUTS, "w1": 4 * INPUTS * HIDDEN, "b1": 4 * HIDDEN}
    assert dict(first.written) == {"h1": 4 * BATCH * HIDDEN}


def test_additions_beside_a_product_are_counted_at_each_of_its_entries(report):
    first = report.kernels[0]
    assert first.operations - first.products == 2 * BATCH * HIDDEN  # the bias, and the comparison of the relu


def test_speed_and_share_follow_from_time_and_limit(report):
    for k in report.kernels:
        assert k.limit > 0
        if k.seconds:
            assert k.gflops == pytest.approx(k.operations / k.seconds / 1e9)
            assert k.share == pytest.approx(k.limit / k.seconds)
    assert report.share == pytest.approx(report.limit / report.times.best)


class Addresses:
    """A step that is bound to arrays, and holds none of them: as one does that knows their addresses only."""

    def __init__(self):
        self.ticks = np.zeros((1, 1), np.int64)
        self.lent = []

    def bind(self, arrays):
        self.lent = [weakref.ref(a) for a in arrays]
        return self

    def run(self):
        assert all(array() is not None for array in self.lent)
        self.ticks += 1


def test_what_is_measured_runs_on_copies_that_live():
    given = np.zeros(3)
    whole, timed = Addresses(), Addresses()
    assert measured(whole, timed, [given], host()).kernels[0] > 0
    assert whole.lent[0]() is not given
    assert timed.lent[0]() is not given


def test_the_arena_holds_every_temporary_while_it_is_needed(report):
    for s in report.stretches:
        assert s.start >= 0
        assert s.start + s.size <= report.arena <= report.apart
        assert 1 <= s.first <= s.last <= len(report.kernels)
        writer = report.kernels[s.first - 1]
        assert s.name in dict(writer.written) or s.name in writer.claimed
    for s in report.stretches:
        for o in report.stretches:
            if s is not o and s.first <= o.last and o.first <= s.last:
                assert s.start + s.size <= o.start or o.start + o.size <= s.start


def test_nothing_of_the_users_changes():
    net = Mlp()
    net()
    before = [p.detach().numpy().copy() for p in net.params]
    net.step.report()
    for p, old in zip(net.params, before, strict=True):
        np.testing.assert_array_equal(p.detach().numpy(), old)


# --- forms


@pytest.mark.parametrize("room", [60, 80, 100, 160])
def test_no_line_is_wider_than_the_terminal(report, room):
    lines = text.report(report, room).splitlines()
    assert max(map(len, lines)) <= room


def test_it_prints_alike_as_str_and_repr_and_in_colours(report):
    rich = pytest.importorskip("rich.console")
    assert repr(report) == str(report)
    console = rich.Console(width=100, file=io.StringIO(), force_terminal=True, color_system="standard")
    console.print(report)
    printed = console.file.getvalue()
    assert "\x1b[" in printed
    assert "h1 = relu(x @ w1 + b1)" in re.sub(r"\x1b\[[0-9;]*m", "", printed)


class Balanced(HTMLParser):
    """Notes tags that are not closed in the order they were opened."""

    VOID = frozenset({"meta", "br", "rect", "img"})

    def __init__(self):
        super().__init__()
        self.open, self.faults, self.outside = [], [], []

    def handle_starttag(self, tag, attrs):
        self.outside += [v for name, v in attrs if name in ("src", "href") and v]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append((tag, self.getpos()))


@pytest.mark.parametrize("form", ["html", "_repr_html_"])
def test_the_page_is_whole_and_fetches_nothing(report, form):
    parser = Balanced()
    parser.feed(getattr(report, form)())
    assert not parser.faults
    assert not parser.open
    assert not parser.outside


def test_the_page_escapes_what_the_program_says(report):
    assert "[h1 &gt; 0]" in report.html()
    assert "[h1 > 0]" not in report.html().split("<details", 1)[0]


def test_the_page_is_saved(report, tmp_path: Path):
    target = report.save(tmp_path / "deep" / "step.html")
    assert target.read_text(encoding="utf-8").startswith("<!doctype html>")
    with pytest.raises(ArgumentError, match=r"save: expected a path that ends in \.html; got 'step\.txt'"):
        report.save("step.txt")


def test_it_is_data_too(report):
    found = report.as_dict()
    assert [k["number"] for k in found["kernels"]] == list(range(1, len(report.kernels) + 1))
    assert found["kernels"][0]["read"]["w1"] == 4 * INPUTS * HIDDEN
    assert '"kernels"' in report.json()


def test_passes_tell_of_programs_before_and_after(report):
    found = report.passes()
    assert found[0].name == "simplify"
    assert found[0].program_before.startswith("%0 = input : ")
    for earlier, later in pairwise(found):
        assert earlier.after == later.before
    assert found[-1].program_after == report.program
    assert "simplify" in str(found)


def test_code_is_that_of_the_one_kernel(report):
    for k in (report.kernels[0], report.kernels[-1]):
        ir = report.ir(k.number)
        assert re.findall(r"^define .*@(\w+)\(", ir, re.MULTILINE) == [k.function]
        assert ir.rstrip().endswith("}")
        assembly = report.assembly(k.number)
        heading = "\n".join([f"kernel {k.number}", *k.formulas])
        assert assembly.startswith(f"# {heading}\n{k.function}:".replace("\n", "\n# ", len(k.formulas)))
        assert "ret" in assembly
        assert "step:" not in assembly


def test_of_two_backward_passes_each_belongs_to_its_own_loss():
    cr.manual_seed(0)
    made, judge = nn.Linear(4, 6), nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))
    first, second = cr.optim.SGD(judge.parameters(), lr=0.1), cr.optim.SGD(made.parameters(), lr=0.1)

    @cr.compile
    def step(real, noise):
        first.zero_grad()
        fake = made(noise)
        judged = nn.functional.softplus(-judge(real)).mean() + nn.functional.softplus(judge(fake.detach())).mean()
        judged.backward()
        first.step()
        second.zero_grad()
        fooled = nn.functional.softplus(-judge(fake)).mean()
        fooled.backward()
        second.step()
        return judged, fooled

    step(cr.randn(16, 6), cr.randn(16, 4))
    report = step.report()
    roles = {}
    for kernel in report.kernels:
        for line in kernel.lines:
            roles.setdefault(line.place.text, set()).add(line.role)
    assert roles["fooled = nn.functional.softplus(-judge(fake)).mean()"] == {"forward", "backward"}
    assert roles["first.step()"] == roles["second.step()"] == {"update"}
    formulas = [f for k in report.kernels for f in k.formulas]
    assert any(f.startswith("fooled = ") for f in formulas)
    assert any(f.startswith("judged = ") for f in formulas)


def test_kernels_that_share_their_code_say_so():
    net = nn.Sequential(*[m for _ in range(3) for m in (nn.Linear(8, 8), nn.Tanh())]).eval()
    step = cr.compile(lambda x: net(x))
    step(cr.ones(4, 8))
    report = step.report()
    first, second = report.kernels[:2]
    assert first.function == second.function
    assert f"; the same code, on other memory: kernel {second.number}" in report.ir(first.number)
    assert f"@{first.function}(" in report.ir(second.number)
    assert f"{first.function}:" in report.assembly(second.number)


def test_a_kernel_that_is_none_is_refused(report):
    with pytest.raises(
        ArgumentError, match=rf"report: kernel 99 was asked for; the step has kernels 1 to {len(report.kernels)}"
    ):
        report.ir(99)


def test_without_a_call_there_is_nothing_to_report():
    with pytest.raises(TraceError, match="report: train_step has not been called yet, so nothing is compiled; call it"):
        Mlp().step.report()


def test_a_step_that_runs_op_by_op_says_so():
    net = Mlp(build=interpret)
    net()
    assert "this step runs op by op" in str(net.step.report())


def test_the_chart_shows_who_lies_where():
    stretches = [
        Stretch(name="a1", start=0, size=100, first=1, last=2), Stretch(name="b1", start=0, size=100, first=3, last=3)
    ]  # fmt: skip
    lines = chart(stretches, 100, 3, 40)
    assert lines[0].endswith("aaaaaaaabbbb")
    assert any("a a1  100 B, kernels 1-2" in line for line in lines)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(1.5, "1.50 s"), (0.00184, "1.84 ms"), (12.3e-6, "12.3 us"), (4.01e-8, "40 ns"), (9.999e-4, "1,000 us")],
)
def test_durations_are_said_in_three_digits(seconds, said):
    assert quantities.duration(seconds) == said


# --- explaining a compiled loss


def test_the_loss_of_a_compiled_step_is_explained_by_computing_it_again():
    net = Mlp()
    first = net()
    before = [p.detach().numpy().copy() for p in net.params]
    found = cr.explain(first, wrt=net.params[0])
    for p, old in zip(net.params, before, strict=True):
        np.testing.assert_array_equal(p.detach().numpy(), old)
    printed = " ".join(str(found).split())
    assert "computed again op by op, since a compiled step keeps no graph" in printed
    assert "is from before its update" in printed
    assert found.name == "w1"
    assert float(net()) == pytest.approx(float(found.run.loss), rel=1e-5)  # the next step starts from there


def test_the_formula_of_a_compiled_loss_is_the_eager_one():
    """Where no label is ignored, nothing of the mask is left, which the compiled code has."""
    x, y, w = cr.randn(16, 5), cr.randint(0, 3, (16,)), cr.randn(5, 3, requires_grad=True)

    def loss_of(x, y):
        return nn.functional.cross_entropy(x @ w, y)

    def formula(loss):
        found = re.search(r"w\.grad = (.*)", str(cr.explain(loss, wrt=w)))
        return None if found is None else re.sub(r"\b(x @ w|m)\b", "m", found[1])

    step = cr.compile(loss_of)
    compiled = formula(step(x, y))
    assert compiled == formula(loss_of(x, y))
    assert compiled == "x^T @ ((softmax(m) - onehot(y)) / 16)"


def test_a_compiled_function_is_explained_by_its_last_call():
    w = cr.tensor([1.0, 2.0], requires_grad=True)

    @cr.compile
    def loss_of(x):
        return ((w - x) ** 2).sum()

    loss_of(cr.tensor([0.0, 0.0]))
    loss_of(cr.tensor([3.0, 4.0]))
    found = cr.explain(loss_of, wrt=w)
    np.testing.assert_allclose(found.value, [-4.0, -4.0])
    assert float(found.run.loss) == 8.0
    assert "before its update" not in str(found)
    assert found.unfold().recomputed == found.recomputed == found.as_dict()["recomputed"]


def test_an_argument_can_be_asked_about():
    @cr.compile
    def loss_of(w, x):
        return ((w - x) ** 2).sum()

    w = cr.tensor([1.0, 2.0], requires_grad=True)
    loss = loss_of(w, cr.tensor([3.0, 4.0]))
    np.testing.assert_allclose(cr.explain(loss, wrt=w).value, [-4.0, -4.0])


def test_random_numbers_are_those_of_the_call():
    w = cr.ones(100, requires_grad=True)

    @cr.compile
    def loss_of(x):
        return nn.functional.dropout(w * x, 0.5, training=True).sum()

    loss = loss_of(cr.ones(100))
    assert float(cr.explain(loss, wrt=w).run.loss) == float(loss)


def test_what_cannot_be_explained_is_said():
    @cr.compile
    def values(x):
        return x * 2, x * 3

    with pytest.raises(TraceError, match="explain: the compiled function has not been called yet; call it once"):
        cr.explain(values, wrt="x")
    x = cr.ones((), requires_grad=True)
    values(x)
    with pytest.raises(
        ArgumentError, match="explain: expected a compiled function that returns one loss; it returns 2"
    ):
        cr.explain(values, wrt=x)
    with pytest.raises(NoGradientError, match="explain:"):
        cr.explain(cr.ones(()), wrt=x)


def test_a_function_that_is_gone_cannot_be_explained():
    loss = Mlp()()
    with pytest.raises(TraceError, match="explain: this came from a compiled function that is gone"):
        cr.explain(loss, wrt="w1")


@pytest.mark.parametrize("cut", [lambda w: w.detach(), lambda w: w.data, lambda w: w.detach().reshape(3, 1).reshape(3)])
def test_what_was_detached_sends_nothing_back_in_a_compiled_explanation(cut):
    w = cr.tensor([1.0, 2.0, 3.0], requires_grad=True)
    step = cr.compile(lambda: (cut(w) * w).sum())
    np.testing.assert_array_equal(cr.explain(step(), wrt=w).value, [1.0, 2.0, 3.0])


def test_a_choice_between_numbers_is_written_for_one_entry_of_all_that_are_alike():

    def loss(x):
        return cr.where((cr.arange(5) % 3 == 0)[:, None], x - x, x - x - 1).amax(0).sum()

    step = cr.compile(cr.grad(loss))
    step(cr.ones(5, 4))
    assert "result = 0" in str(step.report())


def test_new_dimensions_of_what_is_summed_in_parts_are_those_of_the_user():
    step, x, y = page_step()
    compiled = cr.compile(step)
    compiled(x, y)
    formulas = re.sub(r"\s{2,}\d.*|\s+", " ", str(compiled.report()))  # without the times at the right
    assert ", columns)[:, None] + b2" in formulas
    assert "[:, :, None]" not in formulas
