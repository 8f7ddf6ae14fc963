"""layer_norm and rms_norm against PyTorch, in double and in short floats, and what they refuse."""

from typing import Any

import numpy as np
import pytest
import torch
from agreement import assert_agrees

import chainrule as cr
from chainrule.errors import DTypeError, ShapeError
from chainrule.ops.normalisation import normalize

F, T = cr.nn.functional, torch.nn.functional


@pytest.mark.parametrize("affine", [(False, False), (True, False), (True, True), (False, True)])
@pytest.mark.parametrize(
    ("shape", "last"), [((3, 5), (5,)), ((2, 3, 5), (3, 5)), ((2, 3, 5), (5,)), ((5,), (5,)), ((2, 3, 1), (1,))]
)
def test_layer_norm(shape: tuple[int, ...], last: tuple[int, ...], affine: tuple[bool, bool]) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=shape), *(rng.normal(size=last) for given in affine if given)]

    def called(function: Any) -> Any:
        return lambda x, *p: function(x, last, p[0] if affine[0] else None, p[-1] if affine[1] else None, 1e-3)

    assert_agrees(called(F.layer_norm), called(T.layer_norm), arrays)
    if not affine[1]:
        assert_agrees(lambda x, *p: F.rms_norm(x, last, *p), lambda x, *p: T.rms_norm(x, last, *p), arrays)
        assert_agrees(
            lambda x, *p: F.rms_norm(x, last, *p, eps=0.1), lambda x, *p: T.rms_norm(x, last, *p, eps=0.1), arrays
        )


def test_an_int_names_the_last_size() -> None:
    x = cr.randn(3, 4)
    assert cr.equal(F.layer_norm(x, 4), F.layer_norm(x, (4,)))
    assert cr.equal(F.rms_norm(x, 4), F.rms_norm(x, [4]))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_short_floats_are_summed_in_float32(dtype: str) -> None:
    x = cr.randn(4, 4096) + 40.0
    short = x.to(dtype)
    found = F.layer_norm(short, 4096)
    assert str(found.dtype) == dtype
    exact = F.layer_norm(short.double(), 4096)
    worst = (found.double() - exact).abs().max().item()
    assert worst < 4 * float(cr.finfo(getattr(cr, dtype)).eps)


def test_a_large_mean_costs_no_digits() -> None:
    x = cr.randn(3, 64, dtype=cr.float64)
    np.testing.assert_allclose(F.layer_norm(x + 1e8, 64).numpy(), F.layer_norm(x, 64).numpy(), atol=1e-6)


def test_the_gradient_is_orthogonal_to_what_normalising_undoes() -> None:
    x = cr.randn(3, 8, dtype=cr.float64, requires_grad=True)
    (normalize(x, dim=(1,), eps=1e-12) * cr.randn(3, 8, dtype=cr.float64)).sum().backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.sum(1).numpy(), 0, atol=1e-12)
    np.testing.assert_allclose((x.grad * x.detach()).sum(1).numpy(), 0, atol=1e-10)


X = cr.zeros(2, 3)
WRONG = [
    (lambda: F.layer_norm(X, 4), ShapeError, r"layer_norm: the last sizes of the input must be \[4\].*float32\[2,3\]"),
    (lambda: F.layer_norm(X, (1, 2, 3)), ShapeError, "the last sizes of the input"),
    (lambda: F.layer_norm(X, ()), ShapeError, "one at least"),
    (lambda: F.layer_norm(X, 3, cr.ones(2)), ShapeError, r"the weight must be \[3\]; got float32\[2\]"),
    (lambda: F.layer_norm(X, 3, None, cr.ones(1, 3)), ShapeError, r"the bias must be \[3\]; got float32\[1,3\]"),
    (lambda: F.layer_norm(X, 3, cr.ones(3).double()), DTypeError, r"the input is float32\[2,3\], the weight float64"),
    (lambda: F.rms_norm(cr.arange(3), 3), DTypeError, r"rms_norm: needs a float dtype; got int64\[3\]"),
]


@pytest.mark.parametrize(("call", "error", "says"), WRONG, ids=[says for *_, says in WRONG])
def test_what_does_not_fit_is_named(call: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        call()
