"""cr.compile: in whatever style a step is written, it does what it does eagerly, and is traced no more than it must."""

import copy

import numpy as np
import pytest

import chainrule as cr
from chainrule.compile import patience
from chainrule.compile.interpret import interpret
from chainrule.errors import ArgumentError

STEPS = 50
F = cr.nn.functional


def compiled(function, **options):
    return cr.compile(function, build=interpret, **options)


def network(dtype=cr.float32):
    cr.manual_seed(0)
    return cr.nn.Sequential(cr.nn.Linear(10, 5), cr.nn.ReLU(), cr.nn.Dropout(0.2), cr.nn.Linear(5, 1)).to(dtype)


def data(dtype=cr.float32):
    cr.manual_seed(1)
    return cr.randn(20, 10, dtype=dtype), cr.randn(20, dtype=dtype)


def values(tensors):
    return [np.array(t.detach().numpy()) for t in tensors]


def equal(first, second):
    return len(first) == len(second) and all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


# --- styles: a function that makes (step, parameters)


def with_an_optimizer(wrap):
    model = network()
    optimizer = cr.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def step(x, y):
        optimizer.zero_grad()
        loss = F.mse_loss(model(x).squeeze(-1), y)
        loss.backward()
        optimizer.step()
        return loss

    return wrap(step), list(model.parameters())


def zeroed_at_the_end(wrap):
    model = network()
    optimizer = cr.optim.SGD(model.parameters(), lr=0.1)

    def step(x, y):
        loss = F.mse_loss(model(x).squeeze(-1), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    return wrap(step), list(model.parameters())


def by_hand(wrap):
    model = network()

    def step(x, y):
        loss = F.mse_loss(model(x).squeeze(-1), y)
        loss.backward()
        with cr.no_grad():
            for w in model.parameters():
                w -= 0.1 * w.grad
                w.grad = None
        return loss

    return wrap(step), list(model.parameters())


def by_functions(wrap):
    cr.manual_seed(0)
    p = {"w": [cr.randn(10, 5), cr.randn(5, 1)], "b": (cr.zeros(5), cr.zeros(1))}

    def loss(p, x, y):
        return F.mse_loss((cr.relu(x @ p["w"][0] + p["b"][0]) @ p["w"][1] + p["b"][1]).squeeze(-1), y)

    def new(p, x, y):
        value, g = cr.value_and_grad(loss)(p, x, y)
        leaves, spec = cr.tree.flatten(p)
        return value, cr.tree.rebuild(spec, [w - 0.1 * d for w, d in zip(leaves, cr.tree.flatten(g)[0], strict=True)])

    inner, kept = wrap(new), []

    def step(x, y):
        nonlocal p
        value, p = inner(p, x, y)
        kept[:] = cr.tree.flatten(p)[0]
        return value

    step.traces = lambda: inner.traces
    return step, kept


def with_all_as_arguments(wrap):
    model = network()
    optimizer = cr.optim.Adam(model.parameters())

    def step(model, optimizer, batch):
        optimizer.zero_grad()
        loss = F.mse_loss(model(batch["x"]).squeeze(-1), batch["y"])
        loss.backward()
        cr.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        return {"loss": loss}

    inner = wrap(step)
    return lambda x, y: inner(model, optimizer, {"x": x, "y": y})["loss"], list(model.parameters())


STYLES = [with_an_optimizer, zeroed_at_the_end, by_hand, by_functions, with_all_as_arguments]


@pytest.mark.parametrize("style", STYLES)
def test_fifty_steps_are_those_of_the_eager_function(style):
    x, y = data()
    runs = []
    for wrap in (lambda f: f, compiled):
        step, parameters = style(wrap)
        cr.manual_seed(7)
        losses = [step(x, y).item() for _ in range(STEPS)]
        runs.append((losses, values(parameters), cr.rand(3).tolist()))
    assert runs[0][0] == runs[1][0]
    assert equal(runs[0][1], runs[1][1])
    assert runs[0][2] == runs[1][2]  # the random stream stands where it would
    assert runs[0][0][0] != runs[0][0][-1]


OPTIMIZERS = {
    "sgd": lambda p: cr.optim.SGD(p, lr=0.1),
    "momentum": lambda p: cr.optim.SGD(p, lr=0.1, momentum=0.9),
    "nesterov": lambda p: cr.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "dampening": lambda p: cr.optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.2),
    "climb": lambda p: cr.optim.SGD(p, lr=0.01, momentum=0.9, maximize=True),
    "adam": lambda p: cr.optim.Adam(p, lr=0.01),
    "amsgrad": lambda p: cr.optim.Adam(p, lr=0.01, amsgrad=True, weight_decay=0.1),
    "adamw": lambda p: cr.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "adamw climbing": lambda p: cr.optim.AdamW(p, lr=0.01, maximize=True),
    "rmsprop": lambda p: cr.optim.RMSprop(p, lr=0.01),
    "centered": lambda p: cr.optim.RMSprop(p, lr=0.01, centered=True, momentum=0.9, weight_decay=0.1),
    "adagrad": lambda p: cr.optim.Adagrad(
        p, lr=0.1, lr_decay=0.1, initial_accumulator_value=0.5, weight_decay=0.01
    ),
}  # fmt: skip


@pytest.mark.parametrize("dtype", [cr.float32, cr.float64, cr.bfloat16], ids=str)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_steps_as_it_does_eagerly(name, dtype):
    x, y = data(dtype)
    runs = []
    for wrap in (lambda f: f, compiled):
        model = network(dtype).eval()
        optimizer = OPTIMIZERS[name](model.parameters())
        schedule = cr.optim.ExponentialLR(optimizer, 0.95)

        def step(x, y, model=model, optimizer=optimizer):
            optimizer.zero_grad()
            F.mse_loss(model(x).squeeze(-1), y).backward()
            optimizer.step()

        step = wrap(step)
        for _ in range(STEPS if dtype == cr.float32 else 5):
            step(x, y)
            schedule.step()
        state = [(key, value) for p in model.parameters() for key, value in optimizer.state.get(p, {}).items()]
        runs.append((values(model.parameters()), state))
    (eager, eager_state), (found, found_state) = runs
    # NumPy's power of two numbers and Python's differ in the last bit, which the others of float64 then show.
    tolerance = 1e-12 if dtype == cr.float64 and ("adam" in name or name == "amsgrad") else 0
    for a, b in zip(eager, found, strict=True):
        np.testing.assert_allclose(a.astype(np.float64), b.astype(np.float64), rtol=tolerance, atol=0)
    assert [key for key, _ in eager_state] == [key for key, _ in found_state]
    for (_, a), (_, b) in zip(eager_state, found_state, strict=True):
        assert type(a) is type(b)
        np.testing.assert_allclose(np.float64(a), np.float64(b), rtol=tolerance, atol=0)
    assert step.traces == (2 if name == "dampening" else 1)


def test_eager_and_compiled_steps_and_checkpoints_take_turns():
    x, y = data()

    def steps(model, optimizer):
        def step():
            optimizer.zero_grad()
            F.mse_loss(model(x).squeeze(-1), y).backward()
            optimizer.step()

        return step

    a, b = network().eval(), network().eval()
    first, second = cr.optim.Adam(a.parameters()), cr.optim.Adam(b.parameters())
    eager, mixed = steps(a, first), steps(b, second)
    fast = compiled(mixed)
    for turn in (fast, mixed, fast, fast, mixed, fast):
        eager()
        turn()
        assert equal(values(a.parameters()), values(b.parameters()))
    saved = copy.deepcopy(second.state_dict()), {k: v.clone() for k, v in b.state_dict().items()}
    fast()
    second.load_state_dict(saved[0])
    b.load_state_dict(saved[1])
    for _ in range(2):
        eager()
        fast()
    assert equal(values(a.parameters()), values(b.parameters()))
    second.state.clear()
    first.state.clear()
    eager()
    fast()
    assert equal(values(a.parameters()), values(b.parameters()))
    assert all(isinstance(s["step"], int) for s in second.state.values())


def test_options_are_read_at_each_call():
    w = cr.tensor([1.0, 2.0], requires_grad=True)
    optimizer = cr.optim.SGD([w], lr=0.5)

    def step():
        optimizer.zero_grad()
        w.sum().backward()
        optimizer.step()

    step = compiled(step)
    step()
    assert w.tolist() == [0.5, 1.5]
    optimizer.param_groups[0]["lr"] = 1.0
    step()
    assert w.tolist() == [-0.5, 0.5]
    assert step.traces == 1
    optimizer.param_groups[0]["weight_decay"] = 1.0
    step()
    assert w.tolist() == [-1.0, -1.0]
    optimizer.param_groups[0]["maximize"] = True
    step()
    assert step.traces == 3
    optimizer.param_groups[0].update(maximize=False, weight_decay=0.0)
    step()
    assert step.traces == 3  # that trace is still there
    optimizer.add_param_group({"params": [cr.zeros(1, requires_grad=True)]})
    step()
    assert step.traces == 4


# --- gradients


def test_gradients_that_nothing_used_are_kept_and_add_up():
    x, y = data()
    a, b = network().eval(), network().eval()

    def backward(model):
        return lambda: F.mse_loss(model(x).squeeze(-1), y).backward()

    eager, fast = backward(a), compiled(backward(b))
    for _ in range(3):
        eager()
        fast()
        assert equal(values(p.grad for p in a.parameters()), values(p.grad for p in b.parameters()))
    assert fast.traces == 2  # without gradients, and with
    b.zero_grad()
    a.zero_grad()
    eager()
    fast()
    assert fast.traces == 2
    assert equal(values(p.grad for p in a.parameters()), values(p.grad for p in b.parameters()))


def test_gradients_used_up_are_none_unless_kept():
    for keep in (False, True):
        w = cr.tensor([1.0, 2.0], requires_grad=True)
        optimizer = cr.optim.SGD([w], lr=0.1)

        def step(w=w, optimizer=optimizer):
            optimizer.zero_grad()
            (w * w).sum().backward()
            optimizer.step()

        compiled(step, keep_grads=keep)()
        assert (w.grad.tolist() if keep else w.grad) == ([2.0, 4.0] if keep else None)


def test_a_step_that_never_forgets_gradients_adds_them_up_as_eagerly():
    runs = []
    for wrap in (lambda f: f, compiled):
        w = cr.tensor([1.0, 2.0], requires_grad=True)
        optimizer = cr.optim.SGD([w], lr=0.1)

        def step(w=w, optimizer=optimizer):
            (w * w).sum().backward()
            optimizer.step()

        step = wrap(step)
        for _ in range(4):
            step()
        runs.append((w.tolist(), w.grad.tolist()))
    assert runs[0] == runs[1]


def test_an_old_gradient_can_be_used_and_changed():
    w = cr.tensor([1.0, 2.0], requires_grad=True)
    w.grad = cr.tensor([3.0, 4.0])

    def step():
        cr.nn.utils.clip_grad_norm_([w], 1.0)
        with cr.no_grad():
            w.sub_(w.grad)

    compiled(step)()
    assert w.grad.tolist() == pytest.approx([0.6, 0.8])
    assert w.tolist() == pytest.approx([0.4, 1.2])


def test_an_argument_that_requires_a_gradient():
    def step(w, x):
        w.grad = None
        loss = ((w * x) ** 2).sum()
        loss.backward()
        return loss

    fast, x = compiled(step), cr.tensor([3.0, 4.0])
    for _ in range(2):
        a, b = cr.tensor([1.0, 2.0], requires_grad=True), cr.tensor([1.0, 2.0], requires_grad=True)
        assert step(a, x).item() == fast(b, x).item()
        assert a.grad.tolist() == b.grad.tolist()
    assert fast.traces == 1


def test_an_argument_that_an_optimizer_knows():
    w = cr.tensor([1.0, 2.0], requires_grad=True)
    optimizer = cr.optim.SGD([w], lr=0.5, momentum=0.5)

    def step(w):
        optimizer.zero_grad()
        w.sum().backward()
        optimizer.step()

    fast = compiled(step)
    fast(w)
    fast(w)
    assert w.tolist() == [-0.25, 0.75]
    assert list(optimizer.state) == [w]
    fast(other := cr.tensor([1.0, 1.0], requires_grad=True))
    assert other.grad.tolist() == [1.0, 1.0]
    assert w.tolist() == [-0.25, 0.75]


def test_what_belongs_to_the_model_is_set_on_the_model():
    model = cr.nn.Sequential(cr.nn.Linear(2, 3), cr.nn.Dropout(0.5))
    fast = cr.compile(model)
    with pytest.raises(ArgumentError, match="training belongs to the Sequential that was compiled; set it there"):
        fast.training = False
    model.eval()
    assert fast.training is False
    fast.note = "mine"
    assert fast.note == "mine"


def test_what_is_compiled_may_have_attributes_of_the_same_names():
    assert cr.compile(cr.compile(lambda x: x * 2.0))(cr.ones(2)).tolist() == [2.0, 2.0]
    model = cr.nn.Linear(2, 3)
    model.traces = model._last = "the model's"
    fast = cr.compile(model)
    fast(cr.ones(1, 2))
    assert (fast.traces, model.traces) == (1, "the model's")


def test_a_long_compilation_gives_a_sign_of_life(monkeypatch, tmp_path):
    shown = []

    class Status:
        def stop(self):
            shown.append("stopped")

    def status(text):
        shown.append(text)
        return Status()

    monkeypatch.setenv("CHAINRULE_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(patience, "_status", status)
    cr.compile(lambda x: x * 2.0)(cr.ones(3))
    assert shown == []
    monkeypatch.setattr(patience, "_PATIENCE", 0.0)
    function = cr.compile(lambda x: (x * 3.0).softmax(0))
    function(cr.ones(3))
    assert shown[0].startswith("compile: ")
    assert "operations become machine code" in shown[0]
    assert shown[1:] == ["stopped"]
    function.report()
    assert "are written with clocks around them" in shown[2]
    assert shown[-1] == "stopped"
