"""Functions in, derivative functions out, nested at will; JAX-like calls against PyTorch's torch.func."""

import numpy as np
import pytest
import torch

import chainrule as cr

W = np.random.default_rng(0).standard_normal((3, 3))


def f64(*values):
    return cr.tensor(np.array(values, np.float64))


def scalar(x):
    return (x.sin() * x.exp()).sum() + (x * x * x).mean()


def vector(x):
    return cr.tensor(W) @ x.tanh() * x[0]


def same(ours, theirs):
    np.testing.assert_allclose(ours.detach().numpy(), theirs.detach().numpy(), rtol=1e-12, atol=1e-12)


def torch_scalar(x):
    return (x.sin() * x.exp()).sum() + (x * x * x).mean()


def torch_vector(x):
    return torch.tensor(W) @ x.tanh() * x[0]


def torch_hessian(function):
    return torch.func.jacrev(torch.func.jacrev(function))  # torch.func.hessian warns of a deprecation of its own


POINT = (0.3, -1.2, 0.7)


def test_grad_and_value():
    x, t = f64(*POINT), torch.tensor(POINT, dtype=torch.float64)
    value, gradient = cr.value_and_grad(scalar)(x)
    same(value, torch_scalar(t))
    same(gradient, torch.func.grad(torch_scalar)(t))
    assert not value.requires_grad
    assert not gradient.requires_grad
    assert x.grad is None


def test_grad_of_grad_of_grad():
    x = cr.tensor(0.7, dtype=cr.float64)
    third = cr.grad(cr.grad(cr.grad(lambda t: t.sin())))
    assert third(x).item() == pytest.approx(-np.cos(0.7), rel=1e-13)


def test_hessian_both_ways_and_torch():
    x, t = f64(*POINT), torch.tensor(POINT, dtype=torch.float64)
    expected = torch_hessian(torch_scalar)(t)
    same(cr.hessian(scalar)(x), expected)
    same(cr.jacobian(cr.grad(scalar))(x), expected)
    forward_over_reverse = [cr.jvp(cr.grad(scalar), (x,), (f64(*row),))[1].numpy() for row in np.eye(3)]
    np.testing.assert_allclose(forward_over_reverse, expected.numpy(), rtol=1e-12, atol=1e-12)


def test_reverse_over_forward_and_forward_over_forward():
    x, v = f64(*POINT), f64(1.0, 2.0, -1.0)
    directional = cr.grad(lambda t: cr.jvp(scalar, (t,), (v,))[1])(x)
    expected = cr.hessian(scalar)(x) @ v
    np.testing.assert_allclose(directional.numpy(), expected.numpy(), rtol=1e-12)
    _, second = cr.jvp(lambda t: cr.jvp(scalar, (t,), (v,))[1], (x,), (v,))
    assert second.item() == pytest.approx((v @ expected).item(), rel=1e-12)


@pytest.mark.parametrize("rows", [2, 5])
def test_jacobian_by_rows_and_by_columns(rows):
    matrix = np.random.default_rng(1).standard_normal((rows, 3))
    x, t = f64(*POINT), torch.tensor(POINT, dtype=torch.float64)
    same(
        cr.jacobian(lambda a: (cr.tensor(matrix) @ a.exp()).sin())(x),
        torch.func.jacrev(lambda a: (torch.tensor(matrix) @ a.exp()).sin())(t),
    )


def test_jacobian_of_matrices_keeps_both_shapes():
    x = cr.randn(2, 3, dtype=cr.float64)
    t = torch.tensor(x.numpy())
    for function, theirs in (
        (lambda a: a.T @ a, lambda a: a.T @ a),
        (lambda a: a.sum(0), lambda a: a.sum(0)),
        (lambda a: a.sum(), lambda a: a.sum()),
    ):
        same(cr.jacobian(function)(x), torch.func.jacrev(theirs)(t))


def test_vjp_and_jvp_of_several_inputs_and_outputs():
    def both(a, b):
        return {"product": a * b, "sum": (a + b).sum()}

    a, b = f64(1.0, 2.0), f64(3.0, 5.0)
    out, pullback = cr.vjp(both, a, b)
    to_a, to_b = pullback({"product": f64(1.0, 0.0), "sum": cr.tensor(2.0, dtype=cr.float64)})
    np.testing.assert_array_equal(to_a.numpy(), [5, 2])
    np.testing.assert_array_equal(to_b.numpy(), [3, 2])
    _, moved = cr.jvp(both, (a, b), (f64(1.0, 1.0), f64(0.0, 1.0)))
    np.testing.assert_array_equal(moved["product"].numpy(), [3, 7])
    assert moved["sum"].item() == 3
    assert out["sum"].item() == 11


def test_has_aux():
    gradient, aux = cr.grad(lambda x: (x.sum(), {"x": x, "n": 3}), has_aux=True)(f64(1.0, 2.0))
    np.testing.assert_array_equal(gradient.numpy(), [1, 1])
    assert aux["n"] == 3
    (value, aux), gradient = cr.value_and_grad(lambda x: ((x * x).sum(), x), has_aux=True)(f64(1.0, 2.0))
    assert value.item() == 5


def test_argnums():
    def function(a, b, c):
        return (a * b * b + c).sum()

    a, b, c = f64(1.0), f64(2.0), f64(3.0)
    assert cr.grad(function)(a, b, c).item() == 4
    assert cr.grad(function, 1)(a, b, c).item() == 4
    assert cr.grad(function, -1)(a, b, c).item() == 1
    first, third = cr.grad(function, (0, 2))(a, b, c)
    assert (first.item(), third.item()) == (4, 1)
    assert cr.grad(lambda a, b=None: (a * b).sum())(a, b=b).item() == 2


def test_trees_come_back_as_trees():
    params = {"layers": [(f64(1.0, 2.0), f64(3.0)), (f64(4.0, 5.0), f64(6.0))], "none": None}

    def loss(tree):
        return sum((w * w).sum() + b.sum() for w, b in tree["layers"])

    found = cr.grad(loss)(params)
    assert found["none"] is None
    assert isinstance(found["layers"][0], tuple)
    np.testing.assert_array_equal(found["layers"][1][0].numpy(), [8, 10])
    np.testing.assert_array_equal(found["layers"][0][1].numpy(), [1])


def test_an_input_that_is_not_used_has_gradient_zero():
    found = cr.grad(lambda a, b: a.sum(), 1)(f64(1.0), f64(1.0, 2.0))
    np.testing.assert_array_equal(found.numpy(), [0, 0])


def test_one_tensor_given_twice_has_two_gradients():
    x = f64(3.0)
    a, b = cr.grad(lambda a, b: (a * a * b).sum(), (0, 1))(x, x)
    assert (a.item(), b.item()) == (18, 9)


def test_a_closure_over_a_tensor_that_needs_a_gradient_can_be_differentiated_after():
    w = cr.tensor(2.0, dtype=cr.float64, requires_grad=True)
    inner = cr.grad(lambda x: (w * x * x).sum())(f64(3.0))  # 2 w x
    assert inner.requires_grad
    inner.sum().backward()
    assert w.grad.item() == 6
    value, _ = cr.value_and_grad(lambda x: (w * x).sum())(f64(3.0))
    value.backward()
    assert w.grad.item() == 9


def test_an_argument_that_needs_a_gradient_is_led_back_to():
    w = cr.tensor(2.0, dtype=cr.float64, requires_grad=True)
    cr.grad(lambda x: x * x * x)(w).backward()  # 3 w²
    assert w.grad.item() == 12


def test_perturbations_of_nested_transforms_are_not_confused():
    # d/dx [ x · d/dy (x + y) ] = 1, and 2 for who confuses the two
    for inner in (
        lambda x: cr.grad(lambda y: x + y)(x),
        lambda x: cr.jvp(lambda y: x + y, (x,), (cr.ones_like(x),))[1],
    ):
        x = cr.tensor(1.0, dtype=cr.float64)
        assert cr.grad(lambda x, inner=inner: x * inner(x))(x).item() == 1
        assert cr.jvp(lambda x, inner=inner: x * inner(x), (x,), (cr.ones_like(x),))[1].item() == 1


def test_transforms_work_inside_no_grad_and_record_nothing():
    with cr.no_grad():
        found = cr.grad(lambda x: (x * x).sum())(f64(3.0))
    assert found.item() == 6
    assert not found.requires_grad


def test_transforms_through_a_users_function():
    class Cube(cr.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x * x

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return 3 * x * x * g

    x = cr.tensor(2.0, dtype=cr.float64)
    assert cr.grad(Cube.apply)(x).item() == 12
    assert cr.grad(cr.grad(Cube.apply))(x).item() == 12
    with pytest.raises(cr.errors.DerivativeRuleError, match="forward mode"):
        cr.jvp(Cube.apply, (x,), (x,))


def test_fused_ops_in_every_mode():
    x = cr.randn(4, dtype=cr.float64)
    t = torch.tensor(x.numpy())
    same(cr.jacobian(lambda a: a.softmax(0))(x), torch.func.jacrev(lambda a: a.softmax(0))(t))
    same(cr.hessian(lambda a: -a.log_softmax(0)[1])(x), torch_hessian(lambda a: -a.log_softmax(0)[1])(t))
    v = cr.randn(4, dtype=cr.float64)
    same(
        cr.jvp(lambda a: a.log_softmax(0), (x,), (v,))[1],
        torch.func.jacrev(lambda a: a.log_softmax(0))(t) @ torch.tensor(v.numpy()),
    )


def test_inside_a_transform_the_graph_of_the_argument_is_new():
    seen = []
    cr.grad(lambda x: seen.append(x) or x.sum())(f64(1.0))
    assert seen[0].op is None
    assert seen[0].requires_grad
