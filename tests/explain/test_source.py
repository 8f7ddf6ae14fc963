"""The backward pass written out: standalone, right at other sizes, and made of what the function is given alone."""

import numpy as np
import pytest

import chainrule as cr


def defined(source):
    namespace = {}
    exec(source, namespace)
    return next(v for k, v in namespace.items() if k.endswith("backward"))


def mse(output, targ):
    return (output - targ).pow(2).mean()


def softened(x, w):
    return (x @ w).softmax(-1)


@pytest.mark.parametrize("rows", [1, 2, 3, 200])
def test_a_size_is_never_taken_for_a_number(rows):
    # With two rows 2 / 2 is 1, and a source made from that trace alone would be right for two rows only.
    source = cr.backward_source(mse, cr.randn(rows, 3), cr.randn(rows, 3))
    if rows > 1:
        assert "output.shape[0] * output.shape[1]" in source
    function = defined(source)
    output, targ = cr.randn(5, 7), cr.randn(5, 7)
    found = function(output, targ)
    wanted = cr.grad(mse, (0, 1))(output, targ)
    if rows > 1:
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5)


def test_a_rule_that_reads_its_output_computes_it():
    source = cr.backward_source(softened, cr.randn(4, 3), cr.randn(3, 2))
    function = defined(source)
    assert function.__code__.co_varnames[: function.__code__.co_argcount] == ("x", "w", "g")
    x, w, g = cr.randn(4, 3), cr.randn(3, 2), cr.randn(4, 2)
    _, pullback = cr.vjp(softened, x, w)
    for a, b in zip(function(x, w, g), pullback(g), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-6)


def test_a_loss_that_its_own_rule_reads_is_computed():
    x, w = cr.randn(4, 3), cr.randn(3, 2, requires_grad=True)
    loss = (x @ w).amax()
    function = defined(cr.backward_source(loss))
    loss.backward()
    np.testing.assert_allclose(function(x, w.detach()).numpy(), w.grad.numpy(), rtol=1e-6)


def test_a_lambda_gets_a_name():
    function = defined(cr.backward_source(lambda a: a.sin().sum(), cr.randn(3)))
    assert function.__name__ == "function_backward"
    np.testing.assert_allclose(function(cr.tensor([0.0])).numpy(), [1.0])


def test_what_belongs_to_these_sizes_stays_a_number():
    def first_two(x):
        return x[:2].sum()

    source = cr.backward_source(first_two, cr.randn(5))
    np.testing.assert_allclose(defined(source)(cr.randn(5)).numpy(), [1, 1, 0, 0, 0])
