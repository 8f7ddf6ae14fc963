"""linear, embedding, one_hot, pad, embed and dropout: against PyTorch, and their errors."""

import numpy as np
import pytest
import torch

import chainrule as cr
from chainrule.errors import ArgumentError, DTypeError, OutOfRangeError, ShapeError

F, T = cr.nn.functional, torch.nn.functional


@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 4)])
@pytest.mark.parametrize("biased", [True, False])
def test_linear(shape: tuple[int, ...], biased: bool) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=shape), rng.normal(size=(5, 4)), rng.normal(size=5)][: 3 if biased else 2]
    xs = [cr.tensor(a, requires_grad=True) for a in arrays]
    ts = [torch.tensor(a, requires_grad=True) for a in arrays]
    out, expected = F.linear(*xs), T.linear(*ts)
    np.testing.assert_allclose(out.detach().numpy(), expected.detach().numpy(), rtol=1e-12)
    out.square().sum().backward()
    expected.square().sum().backward()
    for x, t in zip(xs, ts, strict=True):
        np.testing.assert_allclose(x.grad.numpy(), t.grad.numpy(), rtol=1e-12)


def test_linear_names_what_does_not_fit() -> None:
    with pytest.raises(
        ShapeError, match=r"linear: the weight float32\[5,4\] takes inputs \(…, 4\); got float32\[2,3\]"
    ):
        F.linear(cr.rand(2, 3), cr.rand(5, 4))
    with pytest.raises(ShapeError, match=r"linear: the bias float32\[4\] does not fit"):
        F.linear(cr.rand(2, 4), cr.rand(5, 4), cr.rand(4))
    with pytest.raises(DTypeError, match="dtype"):
        F.linear(cr.rand(2, 4, dtype=cr.float64), cr.rand(5, 4))


@pytest.mark.parametrize("padding", [None, 2, -1])
def test_embedding(padding: int | None) -> None:
    table, places = np.random.default_rng(0).normal(size=(5, 3)), np.array([[2, 0, 2], [4, 4, 1]])
    w, tw = cr.tensor(table, requires_grad=True), torch.tensor(table, requires_grad=True)
    out = F.embedding(cr.tensor(places), w, padding_idx=padding)
    expected = T.embedding(torch.tensor(places), tw, padding_idx=padding)
    np.testing.assert_array_equal(out.detach().numpy(), expected.detach().numpy())
    out.square().sum().backward()
    expected.square().sum().backward()
    np.testing.assert_allclose(w.grad.numpy(), tw.grad.numpy(), rtol=1e-12)


def test_embedding_names_what_does_not_fit() -> None:
    w = cr.rand(5, 3)
    with pytest.raises(OutOfRangeError, match=r"indices must lie in 0 … 4, one a row of float32\[5,3\]; got 5"):
        F.embedding(cr.tensor([0, 5]), w)
    with pytest.raises(OutOfRangeError, match="got -1"):
        F.embedding(cr.tensor([-1]), w)
    with pytest.raises(DTypeError, match=r"indices must be integer; got float32\[1\]"):
        F.embedding(cr.tensor([0.0]), w)
    with pytest.raises(ShapeError, match="num_embeddings, embedding_dim"):
        F.embedding(cr.tensor([0]), cr.rand(5))
    with pytest.raises(OutOfRangeError, match="padding_idx 5 is no row"):
        F.embedding(cr.tensor([0]), w, padding_idx=5)


def test_one_hot() -> None:
    labels = np.array([[2, 0], [1, 1]])
    for classes in (-1, 3, 5):
        ours = F.one_hot(cr.tensor(labels), classes)
        np.testing.assert_array_equal(ours.numpy(), T.one_hot(torch.tensor(labels), classes).numpy())
        assert ours.dtype == cr.int64
    with pytest.raises(OutOfRangeError, match="expected labels 0 ≤ label < 2; got 2"):
        F.one_hot(cr.tensor(labels), 2)
    with pytest.raises(OutOfRangeError, match="expected labels 0 ≤ label; got -1"):
        F.one_hot(cr.tensor([-1]))
    with pytest.raises(DTypeError, match="labels must be integer"):
        F.one_hot(cr.tensor([1.0]))
    with pytest.raises(ArgumentError, match="give num_classes"):
        F.one_hot(cr.zeros(0, dtype=cr.int64))


@pytest.mark.parametrize("sizes", [(1, 2), (0, 0, 3, 1), (-1, 1), (-1, -1, 2, 0), ()])
@pytest.mark.parametrize("value", [0.0, 2.5])
def test_pad(sizes: tuple[int, ...], value: float) -> None:
    array = np.arange(12.0).reshape(3, 4)
    x, t = cr.tensor(array, requires_grad=True), torch.tensor(array, requires_grad=True)
    out, expected = F.pad(x, sizes, value=value), T.pad(t, sizes, value=value)
    np.testing.assert_array_equal(out.detach().numpy(), expected.detach().numpy())
    out.square().sum().backward()
    expected.square().sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), t.grad.numpy())


def test_pad_names_what_does_not_fit() -> None:
    with pytest.raises(ArgumentError, match="mode must be 'constant'; got 'reflect'"):
        F.pad(cr.rand(3), (1, 1), mode="reflect")
    with pytest.raises(ArgumentError, match="for at most 1 dimensions"):
        F.pad(cr.rand(3), (1, 1, 1, 1))
    with pytest.raises(ArgumentError, match="cuts off more"):
        F.pad(cr.rand(3), (-2, -2))


def test_embed_is_the_transpose_of_slicing() -> None:
    x = cr.tensor(np.arange(10.0), requires_grad=True)
    x[1:8:3].backward(cr.tensor([1.0, 2.0, 3.0], dtype=cr.float64))
    embedded = F.embed(cr.tensor([1.0, 2.0, 3.0], dtype=cr.float64), (10,), ((1, 8, 3),))
    np.testing.assert_array_equal(x.grad.numpy(), embedded.numpy())


def test_dropout() -> None:
    x = cr.ones(2000, requires_grad=True)
    out = F.dropout(x, 0.25, generator=cr.Generator(5))
    values = out.detach().numpy()
    assert set(np.unique(values)) == {np.float32(0), np.float32(1 / 0.75)}
    assert 0.7 < (values > 0).mean() < 0.8
    out.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), values)  # the gradient passes the same gate
    again = F.dropout(x, 0.25, generator=cr.Generator(5))
    np.testing.assert_array_equal(again.detach().numpy(), values)
    assert F.dropout(x, 0.25, training=False) is x
    assert F.dropout(x, 1.0).sum().item() == 0
    with pytest.raises(ArgumentError, match=r"p is a probability, 0 ≤ p ≤ 1; got 1.5"):
        F.dropout(x, 1.5)
