"""What a traced function does to memory and to gradients asked for: the same as when it runs op by op."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule.compile.interpret import interpret
from chainrule.errors import DTypeError, TraceError

F = cr.nn.functional
Wrap = Callable[[Any], Any]
Program = Callable[[Wrap], tuple[Callable[[], Any], list[Any]]]


def compiled(function):
    return cr.compile(function, build=interpret, keep_grads=True)


def leaf(*numbers):
    return cr.tensor([float(n) for n in numbers], requires_grad=True)


def seen(x):
    return None if x is None else np.round(np.asarray(x.tolist() if isinstance(x, cr.Tensor) else x, float), 5).tolist()


def run(program: Program, wrap: Wrap, calls: int = 3) -> list[Any]:
    """What each call returns, and what the program's tensors, their gradients and flags are after it."""
    step, tensors = program(wrap)
    found = []
    for _ in range(calls):
        returned = step()
        returned = returned if isinstance(returned, tuple) else (returned,)
        found.append([[seen(x) for x in returned], [(seen(t), seen(t.grad), t.requires_grad) for t in tensors]])
    return found


# --- where gradients end


def cut_and_started_anew(wrap):
    w = leaf(1, 2)

    def step():
        w.grad = None
        z = (w * 3).detach().requires_grad_()
        (z * w).sum().backward()
        return w.grad * 1, z.grad

    return wrap(step), []


def flagged_by_assignment(wrap):
    w = leaf(1, 2)

    def step():
        w.grad = None
        h = (w * 3).detach()
        h.requires_grad = True
        (h * h * w).sum().backward()
        return w.grad * 1, h.grad, h.requires_grad, h.is_leaf

    return wrap(step), []


def flagged_after_no_grad(wrap):
    w = leaf(1, 2)

    def step():
        w.grad = None
        h = w * 3
        with cr.no_grad():
            z = h * 1
        z.requires_grad_()
        (z * w).sum().backward()
        return w.grad * 1, z.grad

    return wrap(step), []


def backward_in_two_pieces(wrap):
    w = leaf(1, 2)

    def step():
        w.grad = None
        h = w * w
        top = h.detach().requires_grad_()
        (top * top * 3).sum().backward()
        h.backward(top.grad)
        return w.grad * 1, top.grad

    return wrap(step), []


def back_through_time_truncated(wrap):
    w, x = leaf(0.5, 0.7), cr.tensor([1.0, 2.0])

    def step():
        w.grad = None
        h = cr.zeros(2)
        for t in range(6):
            h = (w * h + x).tanh()
            if t % 3 == 2:
                h.sum().backward()
                h = h.detach().requires_grad_()
        return w.grad * 1

    return wrap(step), []


def penalty_of_a_gradient(wrap):
    maker, judge, x = leaf(1, 2), leaf(3, 4), cr.tensor([1.0, 3.0])

    def step():
        maker.grad = judge.grad = None
        between = (0.5 * maker * x + 0.5 * x).detach().requires_grad_()
        (g,) = cr.autograd.grad((judge * between * between).sum(), [between], create_graph=True)
        ((g * g).sum() - 1).square().backward()
        return judge.grad * 1, maker.grad

    return wrap(step), []


def frozen_and_thawed(wrap):
    maker, judge = leaf(1, 2), leaf(3, 4)
    train = cr.optim.SGD([maker], lr=0.01), cr.optim.SGD([judge], lr=0.01)

    def step():
        judge.requires_grad = False
        train[0].zero_grad()
        loss = (judge * maker).square().sum()
        loss.backward()
        train[0].step()
        judge.requires_grad = True
        train[1].zero_grad()
        (judge * maker.detach()).sum().backward()
        train[1].step()
        return loss

    return wrap(step), [maker, judge]


def left_frozen(wrap):
    w, v = leaf(1, 2), leaf(3, 4)

    def step():
        v.requires_grad_(True)
        v.grad = None
        (v * w).sum().backward()
        g = v.grad * 1
        v.requires_grad = False
        return g

    return wrap(step), [v]


def argument_asked_for_its_gradient(wrap):
    x = cr.tensor([1.0, 2.0])

    def step(x):
        x.requires_grad_()
        (x * x).sum().backward()
        return x * 1

    step = wrap(step)
    return lambda: step(x), [x]


# --- updates with what requires a gradient


def copied_from_another(wrap):
    w, u = leaf(1, 2), leaf(1, 3)

    def step():
        w.grad = u.grad = None
        with cr.no_grad():
            w.copy_(u * 2)
        (w * w).sum().backward()
        return w.grad * 1, u.grad

    return wrap(step), []


def gradients_that_are_one_cotangent(wrap):
    w, u, v = leaf(1, 2), leaf(3, 4), cr.tensor([[5.0, 6.0]], requires_grad=True)

    def step():
        w.grad = u.grad = v.grad = None
        (w + u + v.reshape(2)).square().sum().backward()
        w.grad.mul_(2)
        v.grad.add_(1)
        cr.nn.utils.clip_grad_norm_([w, u, v], 1.0)
        return w.grad * 1, u.grad * 1, v.grad * 1

    return wrap(step), []


def data_set_to_what_was_computed(wrap):
    w = leaf(1, 2)

    def step():
        w.grad = None
        w.data = w * 2
        (w * w).sum().backward()
        return w.grad * 1

    return wrap(step), [w]


# --- leaves made inside change in place


def weights_that_run_ahead(wrap):
    w = leaf(1, 2)

    def step():
        fast = w.detach().clone().requires_grad_()
        for _ in range(3):
            fast.grad = None
            (fast * fast).sum().backward()
            with cr.no_grad():
                fast -= 0.1 * fast.grad
        with cr.no_grad():
            w.add_(0.5 * (fast - w))
        return fast * 1

    return wrap(step), [w]


def an_attack(wrap):
    w, x = leaf(1, -2), cr.tensor([1.0, 3.0])

    def step():
        delta = cr.zeros_like(x).requires_grad_()
        for _ in range(3):
            ((x + delta) * w).square().sum().backward()
            with cr.no_grad():
                delta += 0.1 * delta.grad.sign()
            delta.grad.zero_()
        return delta.detach()

    return wrap(step), []


def an_optimizer_made_inside(wrap):
    w = leaf(1, 2)

    def step():
        fast = cr.zeros(2, requires_grad=True)
        inner = cr.optim.SGD([fast], lr=0.1)
        for _ in range(2):
            inner.zero_grad()
            (fast - w.detach()).square().sum().backward()
            inner.step()
        return fast * 1

    return wrap(step), []


# --- copies, and the state of modules


def copies_are_apart(wrap):
    x = cr.tensor([[1.0, 2.0], [3.0, 4.0]])

    def step():
        made = [x.roll(0, 0), x.repeat(1, 1), x.tile((1, 1)), x.diag(), x.T.contiguous(), x.flip(()), x.diff(n=0)]
        for y in made:
            y.add_(10)
        return *made, x * 1

    return wrap(step), [x]


def a_target_network(wrap):
    cr.manual_seed(0)
    online, target = (cr.nn.Sequential(cr.nn.Linear(2, 2), cr.nn.Tanh(), cr.nn.Linear(2, 1)) for _ in range(2))
    x, train = cr.tensor([[1.0, 2.0]]), cr.optim.SGD(online.parameters(), lr=0.1)

    def step():
        with cr.no_grad():
            aim = 0.9 * target(x) + 1
        train.zero_grad()
        loss = (online(x) - aim).square().mean()
        loss.backward()
        train.step()
        target.load_state_dict(online.state_dict())
        return loss

    return wrap(step), [*online.parameters(), *target.parameters()]


def an_argument_twice(wrap):
    x, y = cr.tensor([1.0, 2.0]), cr.tensor([3.0, 4.0])

    def step(a, b):
        a.add_(1)
        return a * b

    step, calls = wrap(step), iter([(x, y), (x, x), (y, x), (x, x), (x, y)] * 2)
    return lambda: step(*next(calls)), [x, y]


def parts_that_do_not_meet(wrap):
    x = cr.tensor([1.0, 2.0, 3.0, 4.0])

    def step(a, b):
        a.add_(1)
        return a * b

    step = wrap(step)
    return lambda: step(x[::2], x[1::2]), [x]


def an_argument_that_is_captured_too(wrap):
    w, v, c = leaf(1, 2), leaf(3, 4), cr.tensor([5.0, 6.0])

    def step(x):
        w.grad = v.grad = None
        c.requires_grad_()
        (x * w * w * c).sum().backward()
        found = w.grad * 1, c.grad * 1
        c.grad = None
        c.requires_grad = False
        return found

    step, calls = wrap(step), iter([w, v, c, w, v, c, cr.ones(2), v] * 2)
    return lambda: step(next(calls)), [w, v]


def parameters_that_a_module_holds(wrap):
    cr.manual_seed(0)
    m, n, x = cr.nn.Linear(2, 1, bias=False), cr.nn.Linear(2, 1, bias=False), cr.ones(1, 2)
    step = wrap(lambda weights, x: (weights[0] * m(x)).sum())
    calls = iter([m, n, m, n, n, m] * 2)
    return lambda: step(list(next(calls).parameters()), x), []


def asked_of_one_that_comes_twice_later(wrap):
    a, b = cr.tensor([1.0, 2.0]), cr.tensor([3.0, 4.0])

    def step(a, b):
        a.requires_grad_()
        (a * b * b).sum().backward()
        found = a.grad * 1
        a.grad = None
        a.requires_grad_(False)
        return found

    step, calls = wrap(step), iter([(a, b), (a, a), (b, a), (b, b)] * 3)
    return lambda: step(*next(calls)), [a, b]


def taken_away_before_the_backward_pass(wrap):
    w, x = leaf(1, 2), cr.tensor([3.0, 4.0])

    def step():
        w.requires_grad = True
        y = (x * w).sum()
        w.requires_grad = np.bool_(False)
        y.backward()
        return y

    return wrap(step), [w]


PROGRAMS = [
    cut_and_started_anew, flagged_by_assignment, flagged_after_no_grad, backward_in_two_pieces,
    back_through_time_truncated, penalty_of_a_gradient, frozen_and_thawed, left_frozen, argument_asked_for_its_gradient,
    copied_from_another, gradients_that_are_one_cotangent, data_set_to_what_was_computed, weights_that_run_ahead,
    an_attack, an_optimizer_made_inside, an_argument_that_is_captured_too, parameters_that_a_module_holds,
    asked_of_one_that_comes_twice_later, taken_away_before_the_backward_pass, copies_are_apart, a_target_network,
    an_argument_twice, parts_that_do_not_meet,
]  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda f: f.__name__)
def test_compiled_it_does_what_it_does_op_by_op(program):
    assert run(program, compiled, calls=5) == run(program, lambda f: f, calls=5)


def test_steps_that_freeze_in_turn_are_not_traced_anew_each_time():
    w, v = leaf(1, 2), leaf(3, 4)

    def step_of(flag):
        def step():
            v.requires_grad = flag
            return (v * w).sum()

        return compiled(step)

    first, second = step_of(True), step_of(False)
    for _ in range(5):
        first(), second()
    assert (first.traces, second.traces) == (2, 1)
    assert not v.requires_grad


def test_requires_grad_is_true_or_false():
    with pytest.raises(DTypeError, match="requires_grad: True or False; got 'yes'"):
        leaf(1).requires_grad = "yes"


# --- views of memory that went on without what they were views of


def test_a_view_stays_with_its_memory_when_the_tensor_leaves_it():
    w = leaf(1, 2)

    def step():
        d = w.detach()
        view = d[:1]
        d.data = d + 5
        w.data.add_(1)
        return view * 1

    with pytest.raises(TraceError, match="what shares memory with this"):
        compiled(step)()


@pytest.mark.parametrize("part", [lambda d: d[:1], lambda d: d[1:].detach(), lambda d: d.reshape(2, 1)])
def test_what_would_be_lost_on_a_tensor_from_outside_is_refused(part):
    b = cr.tensor([1.0, 2.0])

    def step():
        d = b.data
        view = part(d)
        d.data = d + 1
        view.add_(10)
        return d * 1

    with pytest.raises(TraceError, match="a view of a tensor from outside cannot be compiled"):
        compiled(step)()


def test_memory_that_goes_round_in_a_circle():
    x = cr.tensor([[1.0, 2.0], [3.0, 4.0]])

    def step():
        y = x * 2
        d = y.detach()
        c = d.T
        y.data = x * 3
        c.data = y
        d.data = c
        d.add_(1)
        return c * 1, d * 1, y * 1

    assert [seen(z) for z in compiled(step)()] == [seen(z) for z in step()]


# --- what is set, and what an error leaves


def test_after_an_error_everything_is_as_it_was():
    w = leaf(1, 2)
    names = {"cr": cr, "w": w, "g": cr.tensor([1.0])}
    exec("def step():\n    global g\n    g = g * 2\n    w.requires_grad = False\n    raise KeyError('no')", names)
    before = names["g"]
    with pytest.raises(KeyError):
        compiled(names["step"])()
    assert names["g"] is before
    assert w.requires_grad


def test_a_buffer_registered_inside_is_an_error():
    class Late(cr.nn.Module):
        def forward(self, x):
            self.register_buffer("late", cr.ones(2))
            return x + self.late

    late = Late()
    with pytest.raises(TraceError, match=r"setting Late\.late"):
        compiled(late)(cr.ones(2))
    assert "late" not in vars(late)
    assert not late._buffers


def test_attributes_of_a_module_that_is_not_called_are_watched():
    layer = cr.nn.Linear(2, 2)
    layer.scale = 2.0
    step = compiled(lambda x: x @ layer.weight * layer.scale)
    x = cr.ones(1, 2)
    for change in (
        lambda: None,
        lambda: setattr(layer, "weight", cr.nn.Parameter(cr.ones(2, 2))),
        lambda: setattr(layer, "scale", 3.0),
    ):
        change()
        assert step(x).tolist() == (x @ layer.weight * layer.scale).tolist()


def test_options_that_are_no_numbers_any_more():
    w = leaf(1, 2)
    train = cr.optim.Adam([w], lr=0.1, betas=[0.9, 0.999])
    assert train.param_groups[0]["betas"] == (0.9, 0.999)

    @compiled
    def step():
        train.zero_grad()
        (w * w).sum().backward()
        train.step()

    step()
    before = w.tolist()
    train.param_groups[0]["lr"] = None
    with pytest.raises(TypeError):
        step()
    assert w.tolist() == before
