"""MultiheadAttention and TransformerEncoderLayer against PyTorch's, with one state; a block that learns by heart."""

from typing import Any

import numpy as np
import pytest
import torch

import chainrule as cr
from chainrule import nn
from chainrule.errors import ArgumentError, DTypeError, ShapeError

F = nn.functional
RNG = np.random.default_rng(0)


def pair(name: str, *args: Any, **options: Any) -> tuple[Any, Any]:
    """A layer of each library, with one state, random biases included."""
    theirs = getattr(torch.nn, name)(*args, **options).double()
    ours = getattr(nn, name)(*args, **options).double()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    state = {k: RNG.normal(size=tuple(v.shape)) for k, v in theirs.state_dict().items()}
    ours.load_state_dict(state)
    theirs.load_state_dict({k: torch.tensor(v) for k, v in state.items()})
    return ours, theirs


def assert_alike(ours: Any, theirs: Any, xs: list[np.ndarray], masks: dict[str, Any]) -> None:
    a = [cr.tensor(x, requires_grad=True) for x in xs]
    b = [torch.tensor(x, requires_grad=True) for x in xs]
    if len(xs) == 1 and isinstance(ours, nn.MultiheadAttention):
        a, b = a * 3, b * 3
    out = ours(*a, **{k: cr.tensor(v) if isinstance(v, np.ndarray) else v for k, v in masks.items()})
    expected = theirs(*b, **{k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in masks.items()})
    out, expected = ((r,) if not isinstance(r, tuple) else r for r in (out, expected))
    for o, e in zip(out, expected, strict=True):
        if e is None:
            assert o is None
            continue
        np.testing.assert_allclose(o.detach().numpy(), e.detach().numpy(), rtol=1e-10, atol=1e-11)
    sum((o.sin().sum() for o in out if o is not None), cr.tensor(0.0)).backward()
    sum(e.sin().sum() for e in expected if e is not None).backward()
    for p, t in zip((*a, *ours.parameters()), (*b, *theirs.parameters()), strict=True):
        np.testing.assert_allclose(p.grad.numpy(), t.grad.numpy(), rtol=1e-9, atol=1e-10)


PADDED = np.array([[False, False, True], [False, True, True]])
AFTER = ~np.tri(3, dtype=bool)


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize(
    "masks",
    [
        {}, {"attn_mask": AFTER}, {"key_padding_mask": PADDED}, {"attn_mask": AFTER, "key_padding_mask": PADDED},
        {"attn_mask": RNG.normal(size=(3, 3))}, {"attn_mask": RNG.normal(size=(4, 3, 3))},
        {"attn_mask": RNG.normal(size=(4, 3, 3)), "key_padding_mask": np.where(PADDED, -np.inf, 0.0)},
        {"attn_mask": AFTER, "is_causal": True}, {"average_attn_weights": False},
    ],
    ids=lambda masks: ", ".join(f"{k} {getattr(v, 'shape', v)}" for k, v in masks.items()) or "none",
)  # fmt: skip
def test_self_attention(masks: dict[str, Any], batch_first: bool, need_weights: bool) -> None:
    ours, theirs = pair("MultiheadAttention", 6, 2, batch_first=batch_first)
    x = RNG.normal(size=(2, 3, 6) if batch_first else (3, 2, 6))
    assert_alike(ours, theirs, [x], {"need_weights": need_weights, **masks})


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("widths", [(6, 6), (4, 6), (4, 5)])
@pytest.mark.parametrize("bias", [True, False])
def test_cross_attention(widths: tuple[int, int], bias: bool, need_weights: bool) -> None:
    ours, theirs = pair("MultiheadAttention", 6, 3, bias=bias, kdim=widths[0], vdim=widths[1], batch_first=True)
    xs = [RNG.normal(size=(2, 3, 6)), RNG.normal(size=(2, 5, widths[0])), RNG.normal(size=(2, 5, widths[1]))]
    assert_alike(ours, theirs, xs, {"need_weights": need_weights})
    assert_alike(ours, theirs, [x[0] for x in xs], {"need_weights": need_weights})


def test_causal_without_a_mask_is_the_mask() -> None:
    layer, x = nn.MultiheadAttention(6, 2, batch_first=True), cr.randn(2, 3, 6)
    after, padded = cr.tensor(AFTER), cr.tensor(PADDED)
    for need_weights in (True, False):
        for padding in (None, padded):
            found = layer(x, x, x, padding, need_weights=need_weights, is_causal=True)[0]
            expected = layer(x, x, x, padding, need_weights=need_weights, attn_mask=after)[0]
            np.testing.assert_allclose(found.detach().numpy(), expected.detach().numpy(), atol=1e-6)


def test_projections_start_where_pytorchs_do() -> None:
    layer = nn.MultiheadAttention(60, 2)
    assert layer.in_proj_weight is not None
    assert layer.in_proj_bias is not None
    weight, bound = layer.in_proj_weight.detach().numpy(), np.sqrt(6 / (60 + 180))
    assert 0.98 * bound < np.abs(weight).max() <= bound
    assert not layer.in_proj_bias.detach().numpy().any()
    assert layer.out_proj.bias is not None
    assert not layer.out_proj.bias.detach().numpy().any()
    assert np.abs(layer.out_proj.weight.detach().numpy()).max() <= 1 / np.sqrt(60)


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_a_transformer_block(norm_first: bool, activation: str, batch_first: bool, bias: bool) -> None:
    options = {"norm_first": norm_first, "activation": activation, "batch_first": batch_first, "bias": bias}
    ours, theirs = pair("TransformerEncoderLayer", 6, 2, 8, 0.0, **options)
    x = RNG.normal(size=(2, 3, 6) if batch_first else (3, 2, 6))
    assert_alike(ours, theirs, [x], {})
    assert_alike(ours.train(), theirs.train(), [x], {"src_mask": AFTER, "src_key_padding_mask": PADDED})


def test_dropout_of_a_block_is_off_in_evaluation() -> None:
    block, x = nn.TransformerEncoderLayer(6, 2, 8, 0.5), cr.randn(3, 2, 6)
    assert not cr.equal(block(x), block(x))
    block.eval()
    assert cr.equal(block(x), block(x))
    layer = nn.MultiheadAttention(6, 2, dropout=0.5)
    assert not cr.equal(layer(x, x, x, need_weights=False)[0], layer(x, x, x, need_weights=False)[0])
    assert (layer(x, x, x)[1] == 0).any()


X = cr.zeros(3, 2, 6)
LAYER = nn.MultiheadAttention(6, 2)
WRONG = [
    (lambda: nn.MultiheadAttention(6, 4), ArgumentError, "4 heads do not divide the width embed_dim = 6"),
    (lambda: nn.MultiheadAttention(6, 0), ArgumentError, "num_heads must be a positive int; got 0"),
    (lambda: LAYER(X, X, X[0]), ShapeError, r"must all have 3 dimensions, or 2 .* and float32\[2,6\]"),
    (lambda: LAYER(X, X[..., :4], X), ShapeError, "the widths 6, 6, 6; got"),
    (lambda: LAYER(X, X[:2], X), ShapeError, "there must be a value for each key.*with batch_first=False"),
    (lambda: LAYER(X, X[:, :1], X[:, :1]), ShapeError, "as many sequences of keys as of queries"),
    (lambda: LAYER(X, X, X, cr.zeros(3, 2)), ShapeError, r"must be \[2, 3\], one a key; got float32\[3,2\]"),
    (lambda: LAYER(X, X, X, attn_mask=cr.zeros(2, 2)), ShapeError, r"attn_mask must be \[3, 3\] or \[4, 3, 3\]; got"),
    (lambda: LAYER(X, X, X, attn_mask=cr.zeros(3, 3).double()), DTypeError, "a mask is bool, or of the dtype"),
    (lambda: nn.TransformerEncoderLayer(6, 2, activation="tanh"), ArgumentError, "or a function; got 'tanh'"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "says"), WRONG, ids=[says for *_, says in WRONG])
def test_what_does_not_fit_is_named(call: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        call()


class Reader(nn.Module):
    """A transformer of one pre-norm block that reads a sentence and says, at every place, the next letter."""

    def __init__(self, letters: int, length: int, width: int = 32) -> None:
        super().__init__()
        self.letters = nn.Embedding(letters, width)
        self.places = nn.Embedding(length, width)
        self.block = nn.TransformerEncoderLayer(
            width, 4, 64, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, letters)

    def forward(self, text: cr.Tensor) -> cr.Tensor:
        x = self.letters(text) + self.places(cr.arange(text.shape[1]))
        out: cr.Tensor = self.head(self.norm(self.block(x, is_causal=True)))
        return out


def test_a_transformer_block_learns_a_sentence_by_heart() -> None:
    sentence = "the gradient flows back through every step that led to the loss"
    alphabet = sorted(set(sentence))
    codes = cr.tensor([[alphabet.index(c) for c in sentence]])
    model = Reader(len(alphabet), len(sentence))
    optimizer = cr.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(codes[:, :-1]).flatten(0, 1), codes[0, 1:])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 2
    assert losses[-1] < 0.05
    # What comes later says nothing about what came before.
    changed = codes.detach().clone()
    changed[0, 40] = 0
    early = model(changed)[0, :40].detach().numpy()
    np.testing.assert_allclose(early, model(codes)[0, :40].detach().numpy(), atol=1e-5)
