"""Normalisations against PyTorch, in double and in short floats, what they keep beside, and what they refuse."""

from typing import Any

import numpy as np
import pytest
import torch
from agreement import assert_agrees

import chainrule as cr
from chainrule.errors import ArgumentError, DTypeError, InPlaceError, ShapeError
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


SHAPES = [(6, 3), (4, 3, 5), (2, 3, 4, 5), (1, 3, 2), (2, 3, 2, 2, 2)]
AFFINE = [(False, False), (True, False), (True, True), (False, True)]


def by_channel(shape: tuple[int, ...], affine: tuple[bool, bool]) -> list[np.ndarray]:
    """An input, a running mean and variance, and what there is of weight and bias."""
    rng = np.random.default_rng(0)
    mean, var = rng.normal(size=shape[1]), rng.uniform(0.5, 2.0, size=shape[1])
    return [rng.normal(size=shape) * 3 + 1, mean, var, *(rng.normal(size=shape[1]) for given in affine if given)]


def running(function: Any, affine: tuple[bool, bool], *options: Any) -> Any:
    """The function of input, weight and bias, with running statistics that nobody differentiates."""

    def called(x: Any, mean: Any, var: Any, *p: Any) -> Any:
        weight, bias = p[0] if affine[0] else None, p[-1] if affine[1] else None
        return function(x, mean.detach(), var.detach(), weight, bias, *options)

    return called


@pytest.mark.parametrize("affine", AFFINE)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("name", ["batch_norm", "instance_norm"])
def test_normalising_channels(name: str, own: bool, shape: tuple[int, ...], affine: tuple[bool, bool]) -> None:
    if name == "instance_norm" and len(shape) == 2:
        return  # no places
    arrays = by_channel(shape, affine)
    ours, theirs = (running(getattr(f, name), affine, own, 0.3, 1e-3) for f in (F, T))

    def of_what_is_differentiated(function: Any, constant: Any) -> Any:
        return lambda x, *p: function(x, constant(arrays[1]), constant(arrays[2]), *p)

    given = [arrays[0], *arrays[3:]]
    assert_agrees(of_what_is_differentiated(ours, cr.tensor), of_what_is_differentiated(theirs, torch.tensor), given)


@pytest.mark.parametrize("momentum", [0.1, 1.0, 0.0])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["batch_norm", "instance_norm"])
def test_running_statistics_follow_the_batch(name: str, shape: tuple[int, ...], momentum: float) -> None:
    if name == "instance_norm" and len(shape) == 2:
        return
    x, *kept = by_channel(shape, (False, False))
    ours, theirs = [cr.tensor(a) for a in kept], [torch.tensor(a) for a in kept]
    for _ in range(3):
        getattr(F, name)(cr.tensor(x, requires_grad=True), *ours, None, None, True, momentum)
        getattr(T, name)(torch.tensor(x), *theirs, None, None, True, momentum)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-12)
        assert not a.requires_grad
    getattr(F, name)(cr.tensor(x), *ours, None, None, False, momentum)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-12)


def test_a_momentum_may_be_a_tensor() -> None:
    x, mean, var = cr.randn(5, 2), cr.zeros(2), cr.ones(2)
    F.batch_norm(x, mean, var, training=True, momentum=cr.tensor(0.25))
    np.testing.assert_allclose(mean.numpy(), 0.25 * x.mean(0).numpy(), rtol=1e-6)
    np.testing.assert_allclose(var.numpy(), 0.75 + 0.25 * x.var(0).numpy(), rtol=1e-6)


def test_statistics_that_are_not_kept_are_not_needed_in_training() -> None:
    x, mean, var = cr.randn(5, 2), cr.zeros(2), cr.ones(2)
    assert cr.equal(F.batch_norm(x, None, None, training=True), F.batch_norm(x, mean, None, training=True))
    assert cr.equal(F.batch_norm(x, None, var, training=True), F.batch_norm(x, None, None, training=True))


def test_an_empty_batch_changes_no_statistic() -> None:
    mean, var = cr.zeros(2), cr.ones(2)
    assert F.batch_norm(cr.zeros(0, 2), mean, var, training=True).shape == (0, 2)
    assert F.instance_norm(cr.zeros(0, 2, 3), mean, var).shape == (0, 2, 3)
    assert (mean.tolist(), var.tolist()) == ([0, 0], [1, 1])


@pytest.mark.parametrize("affine", AFFINE[:3])  # PyTorch cannot differentiate its bias without its weight
@pytest.mark.parametrize(("shape", "groups"), [((3, 6), 2), ((2, 6, 5), 3), ((2, 4, 3, 2), 1), ((2, 4, 3, 2), 4)])
def test_group_norm(shape: tuple[int, ...], groups: int, affine: tuple[bool, bool]) -> None:
    x, _, _, *given = by_channel(shape, affine)

    def called(function: Any) -> Any:
        return lambda x, *p: function(x, groups, p[0] if affine[0] else None, p[-1] if affine[1] else None, 1e-3)

    assert_agrees(called(F.group_norm), called(T.group_norm), [x, *given])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_batch_of_short_floats_is_summed_in_float32(dtype: str) -> None:
    x = cr.randn(4096, 3) + 40.0
    short = x.to(dtype)
    mean = cr.zeros(3).to(dtype)
    found = F.batch_norm(short, mean, cr.ones(3).to(dtype), training=True, momentum=1.0)
    assert str(found.dtype) == dtype
    exact = F.batch_norm(short.double(), None, None, training=True)
    eps = float(cr.finfo(getattr(cr, dtype)).eps)
    assert (found.double() - exact).abs().max().item() < 4 * eps
    np.testing.assert_allclose(mean.double().numpy(), short.double().mean(0).numpy(), rtol=eps)


X = cr.zeros(2, 3)
WRONG = [
    (lambda: F.layer_norm(X, 4), ShapeError, r"layer_norm: the last sizes of the input must be \[4\].*float32\[2,3\]"),
    (lambda: F.layer_norm(X, (1, 2, 3)), ShapeError, "the last sizes of the input"),
    (lambda: F.layer_norm(X, ()), ShapeError, "one at least"),
    (lambda: F.layer_norm(X, 3, cr.ones(2)), ShapeError, r"the weight must be \[3\]; got float32\[2\]"),
    (lambda: F.layer_norm(X, 3, None, cr.ones(1, 3)), ShapeError, r"the bias must be \[3\]; got float32\[1,3\]"),
    (lambda: F.layer_norm(X, 3, cr.ones(3).double()), DTypeError, r"the input is float32\[2,3\], the weight float64"),
    (lambda: F.rms_norm(cr.arange(3), 3), DTypeError, r"rms_norm: needs a float dtype; got int64\[3\]"),
    (
        lambda: F.batch_norm(X[0], None, None),
        ShapeError,
        r"batch_norm: the input must be \(n, channels, …\); got float32",
    ),
    (
        lambda: F.batch_norm(X, cr.zeros(2), None),
        ShapeError,
        r"the running_mean must be \[3\], an entry a channel; got",
    ),
    (lambda: F.batch_norm(X, cr.zeros(3), cr.ones(3, 1)), ShapeError, r"the running_var must be \[3\]"),
    (lambda: F.batch_norm(X, None, None, cr.ones(2), training=True), ShapeError, r"the weight must be \[3\], an entry"),
    (lambda: F.batch_norm(X, None, None, None, cr.ones(4), True), ShapeError, r"the bias must be \[3\], an entry"),
    (
        lambda: F.batch_norm(X.long(), None, None, training=True),
        DTypeError,
        "batch_norm: needs a float dtype; got int64",
    ),
    (
        lambda: F.batch_norm(X.double(), cr.zeros(3), cr.ones(3)),
        DTypeError,
        r"float64\[2,3\], the running_mean float32",
    ),
    (
        lambda: F.batch_norm(X, None, None),
        ArgumentError,
        "batch_norm: running_mean and running_var must be given where",
    ),
    (lambda: F.batch_norm(X, cr.zeros(3), None), ArgumentError, "input's own statistics are not taken; got None"),
    (lambda: F.batch_norm(X[:1], None, None, training=True), ShapeError, "expected more than 1 value per channel"),
    (
        lambda: F.batch_norm(X[:1, :, None], None, None, training=True),
        ShapeError,
        r"when training; got float32\[1,3,1\]",
    ),
    (
        lambda: F.batch_norm(X, cr.ones(3, requires_grad=True) + 1, None, training=True),
        InPlaceError,
        "copy_: this tensor was computed by add",
    ),
    (lambda: F.batch_norm([[1.0]], None, None), DTypeError, "batch_norm: expected a tensor; got list"),
    (lambda: F.instance_norm(X), ShapeError, "instance_norm: expected more than 1 place in each channel; got float32"),
    (lambda: F.instance_norm(X[:, :, None]), ShapeError, r"got float32\[2,3,1\]"),
    (lambda: F.instance_norm(X[None], use_input_stats=False), ArgumentError, "instance_norm: running_mean and running"),
    (
        lambda: F.group_norm(X, 2),
        ArgumentError,
        "group_norm: num_groups must be a positive int that divides the 3 chan",
    ),
    (lambda: F.group_norm(X, 0), ArgumentError, "got 0"),
    (lambda: F.group_norm(X, 3, cr.ones(2)), ShapeError, r"group_norm: the weight must be \[3\], an entry a channel"),
]


@pytest.mark.parametrize(("call", "error", "says"), WRONG, ids=[says for *_, says in WRONG])
def test_what_does_not_fit_is_named(call: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        call()


@pytest.mark.parametrize("norm", [
    lambda x: F.layer_norm(x, 3), lambda x: F.rms_norm(x, 3), lambda x: F.group_norm(x, 1),
    lambda x: F.instance_norm(x), lambda x: F.batch_norm(x, None, None, training=True),
])  # fmt: skip
def test_an_array_with_no_tensor_beside_it_is_refused(norm):
    with pytest.raises(DTypeError, match=r"expected a tensor; got ndarray; make one with cr\.tensor"):
        norm(np.ones((2, 3), np.float32))
