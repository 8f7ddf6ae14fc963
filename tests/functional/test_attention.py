"""scaled_dot_product_attention against PyTorch: masks of both kinds, rows without a key, broadcasting, dropout."""

from typing import Any

import numpy as np
import pytest
import torch
from agreement import assert_agrees

import chainrule as cr
from chainrule.errors import ArgumentError, DTypeError, ShapeError
from chainrule.functional.attention import scaled_dot_product_attention as attention

theirs = torch.nn.functional.scaled_dot_product_attention

BATCHES: list[tuple[tuple[int, ...], ...]] = [
    ((), (), ()), ((2,), (2,), (2,)), ((2, 3), (2, 3), (2, 3)), ((2, 3), (1, 3), (2, 1)), ((3,), (2, 3), (3,)),
]  # fmt: skip


@pytest.mark.parametrize("batches", BATCHES, ids=str)
@pytest.mark.parametrize("sizes", [(4, 4, 3, 3), (3, 5, 2, 4), (5, 3, 2, 2)], ids=str)
@pytest.mark.parametrize("scale", [None, 0.3])
def test_attention(batches: tuple[tuple[int, ...], ...], sizes: tuple[int, int, int, int], scale: float | None) -> None:
    rng = np.random.default_rng(0)
    length, keys, width, features = sizes
    shapes = ((length, width), (keys, width), (keys, features))
    arrays = [rng.normal(size=(*batch, *shape)) for batch, shape in zip(batches, shapes, strict=True)]

    def both(*more: np.ndarray, **options: Any) -> None:
        assert_agrees(
            lambda *xs: attention(*xs, scale=scale, **options),
            lambda *ts: theirs(*ts, scale=scale, **options),
            [*arrays, *more],
        )

    both()
    both(is_causal=True)
    batch = np.broadcast_shapes(*batches)
    for shape in ((length, keys), (1, keys), (length, 1), (*batch, length, keys)):
        allowed = rng.random(shape) > 0.6  # some queries see no key
        both(allowed)
        both(np.where(rng.random(shape) > 0.6, -np.inf, rng.normal(size=shape)))


def test_a_query_that_sees_no_key_gets_nothing_and_sends_nothing_back() -> None:
    q, k, v = (cr.randn(3, 2, requires_grad=True) for _ in range(3))
    out = attention(q, k, v, cr.tensor([[True] * 3, [False] * 3, [True] * 3]))
    out.sum().backward()
    assert out[1].tolist() == [0, 0]
    assert q.grad is not None
    assert q.grad[1].tolist() == [0, 0]
    assert all(x.grad is not None and bool(x.grad.isfinite().all()) for x in (q, k, v))
    assert attention(q, k[:0], v[:0]).tolist() == [[0, 0]] * 3


def test_large_scores_do_not_overflow() -> None:
    q = cr.full((2, 4), 300.0)
    np.testing.assert_allclose(attention(q, q, cr.tensor([[1.0], [3.0]])).numpy(), 2.0)
    assert attention(q.half(), q.half(), cr.ones(2, 1, dtype=cr.float16), scale=1e-3).dtype == cr.float16


def test_the_backward_keeps_no_weights() -> None:
    q, k, v = (cr.randn(64, 8, requires_grad=True) for _ in range(3))
    out = attention(q, k, v, is_causal=True)
    assert out.inputs == (q, k, v)


def test_a_bias_that_is_learnt() -> None:
    rng = np.random.default_rng(0)
    arrays = [
        rng.normal(size=(2, 3, 4)),
        rng.normal(size=(2, 5, 4)),
        rng.normal(size=(2, 5, 4)),
        rng.normal(size=(3, 5)),
    ]
    assert_agrees(attention, theirs, arrays)


def test_dropout_drops_weights() -> None:
    q, k = cr.zeros(1, 2), cr.zeros(1000, 2)
    out = attention(q, k, cr.eye(1000), dropout_p=0.25)
    values = np.unique(np.round(out.numpy() * 1000, 3))
    np.testing.assert_allclose(values, [0, 1 / 0.75], rtol=1e-3)
    x = cr.randn(2, 4, 3, requires_grad=True)
    attention(x, x, x, dropout_p=0.5, is_causal=True).sum().backward()
    assert x.grad is not None


X = cr.zeros(2, 3, 4)
WRONG = [
    (lambda: attention(X, X, X, cr.ones(3, 3), is_causal=True), ArgumentError, "give attn_mask or is_causal, not both"),
    (lambda: attention(X, cr.zeros(3, 5), X), ShapeError, r"expected query \(…, length, width\), key .*float32\[3,5\]"),
    (lambda: attention(X, X, cr.zeros(2, 4, 4)), ShapeError, r"and float32\[2,4,4\]"),
    (lambda: attention(X, cr.zeros(3, 3, 4), X), ShapeError, "shapes do not broadcast"),
    (lambda: attention(X, X, X.double()), DTypeError, "must share one float dtype"),
    (lambda: attention(X, X, X, cr.ones(4, 3)), ShapeError, r"must broadcast to \(…, 3, 3\); got float32\[4,3\]"),
    (lambda: attention(X, X, X, cr.ones(3, 3, dtype=cr.int64)), DTypeError, r"a mask is bool, or .*float32; got int64"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "says"), WRONG, ids=[says for *_, says in WRONG])
def test_what_does_not_fit_is_named(call: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        call()
