"""RNN, LSTM, GRU and their cells against PyTorch's: one state in, the same outputs, states and gradients."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as torch_functional

import chainrule as cr
from chainrule import nn
from chainrule.errors import ArgumentError, DTypeError, ShapeError

LAYERS: list[tuple[str, dict[str, Any]]] = [
    ("RNN", {}),
    ("RNN", {"num_layers": 2, "nonlinearity": "relu", "bidirectional": True}),
    ("LSTM", {}),
    ("LSTM", {"num_layers": 2, "bidirectional": True, "bias": False, "batch_first": True}),
    ("LSTM", {"num_layers": 2, "bidirectional": True, "proj_size": 2}),
    ("GRU", {"num_layers": 3}),
    ("GRU", {"bidirectional": True, "batch_first": True, "dropout": 0.0}),
]
CELLS: list[tuple[str, dict[str, Any]]] = [
    ("RNNCell", {}),
    ("RNNCell", {"nonlinearity": "relu", "bias": False}),
    ("LSTMCell", {}),
    ("LSTMCell", {"bias": False}),
    ("GRUCell", {}),
    ("GRUCell", {"bias": False}),
]


def named(cases: list[tuple[str, dict[str, Any]]]) -> list[Any]:
    return [pytest.param(*case, id=f"{case[0]}-{'-'.join(map(str, case[1].values()))}") for case in cases]


def pair(name: str, options: dict[str, Any]) -> tuple[Any, Any]:
    """Our layer and PyTorch's, with one state that was passed from theirs to ours."""
    ours, theirs = getattr(nn, name)(3, 4, **options).double(), getattr(torch.nn, name)(3, 4, **options).double()
    ours.load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})
    return ours, theirs


def flat(found: Any) -> list[Any]:
    return [x for part in found for x in flat(part)] if isinstance(found, tuple) else [found]


def assert_same(ours: Any, theirs: Any, given: tuple[Any, ...]) -> None:
    """Outputs, and the gradients of all inputs and parameters. given: arrays, or pairs of them."""
    inputs = [cr.tensor(x, requires_grad=True) for x in flat(given)]
    others = [torch.tensor(x, requires_grad=True) for x in flat(given)]
    out = flat(ours(*nested(given, inputs)))
    expected = flat(theirs(*nested(given, others)))
    for a, b in zip(out, expected, strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-10, atol=1e-12)
    ours.zero_grad()
    theirs.zero_grad()
    sum((a.sin().sum() for a in out), start=cr.tensor(0.0)).backward()
    sum((b.sin().sum() for b in expected), start=torch.tensor(0.0)).backward()
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    for a, b in zip([*inputs, *ours.parameters()], [*others, *theirs.parameters()], strict=True):
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-9, atol=1e-11)


def nested(given: tuple[Any, ...], tensors: list[Any]) -> tuple[Any, ...]:
    """The tensors, arranged as `given` is."""
    rest = iter(tensors)
    return tuple(tuple(next(rest) for _ in x) if isinstance(x, tuple) else next(rest) for x in given)


def states(name: str, options: dict[str, Any], *middle: int) -> Any:
    """First states for a layer of size 4, one tensor or a pair."""
    places = options.get("num_layers", 1) * (2 if options.get("bidirectional") else 1)
    sizes = [options.get("proj_size") or 4, 4] if name.startswith("LSTM") else [4]
    lead = () if name.endswith("Cell") else (places,)
    rng = np.random.default_rng(5)
    found = tuple(rng.normal(size=(*lead, *middle, size)) for size in sizes)
    return found if len(found) > 1 else found[0]


@pytest.mark.parametrize(("name", "options"), named(LAYERS))
@pytest.mark.parametrize("shape", [(5, 2, 3), (1, 2, 3), (5, 1, 3), (5, 3)], ids=str)
def test_a_layer_is_pytorchs(name: str, options: dict[str, Any], shape: tuple[int, ...]) -> None:
    ours, theirs = pair(name, options)
    assert repr(ours) == repr(theirs)
    x = np.random.default_rng(0).normal(size=shape)
    assert_same(ours, theirs, (x,))
    n = shape[0 if options.get("batch_first") else 1 : len(shape) - 1][:1] if len(shape) == 3 else ()
    assert_same(ours, theirs, (x, states(name, options, *n)))


@pytest.mark.parametrize(("name", "options"), named(CELLS))
@pytest.mark.parametrize("shape", [(2, 3), (3,)], ids=str)
def test_a_cell_is_pytorchs(name: str, options: dict[str, Any], shape: tuple[int, ...]) -> None:
    ours, theirs = pair(name, options)
    assert repr(ours) == repr(theirs)
    x = np.random.default_rng(0).normal(size=shape)
    assert_same(ours, theirs, (x,))
    assert_same(ours, theirs, (x, states(name, options, *shape[:-1])))


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_the_first_weights_are_pytorchs(name: str) -> None:
    cr.manual_seed(0)
    layer = getattr(nn, name)(50, 100)
    assert {key: tuple(value.shape) for key, value in layer.state_dict().items()} == {
        key: tuple(value.shape) for key, value in getattr(torch.nn, name)(50, 100).state_dict().items()
    }
    for parameter in layer.parameters():
        values = parameter.detach().numpy()
        assert 0.095 < np.abs(values).max() <= 0.1  # uniform on ±1/√100
        assert abs(values.mean()) < 0.02


def test_entries_between_layers_are_dropped_in_training_only() -> None:
    cr.manual_seed(0)
    layer = nn.GRU(3, 64, num_layers=2, dropout=0.5)
    x = cr.randn(4, 2, 3)
    assert not np.allclose(layer(x)[0].detach().numpy(), layer(x)[0].detach().numpy())
    layer.eval()
    np.testing.assert_array_equal(layer(x)[0].detach().numpy(), layer(x)[0].detach().numpy())
    single = nn.GRU(3, 64, dropout=0.5)  # between which layers?
    np.testing.assert_array_equal(single(x)[0].detach().numpy(), single(x)[0].detach().numpy())


def test_a_gradient_flows_through_all_of_a_sequence() -> None:
    cr.manual_seed(0)
    layer, x = nn.LSTM(3, 4), cr.randn(30, 2, 3, requires_grad=True)
    layer(x)[0][-1].sum().backward()
    assert (x.grad.numpy()[0] != 0).all()


def test_it_explains_itself_step_by_step() -> None:
    cr.manual_seed(0)
    layer, x = nn.LSTM(2, 3), cr.randn(3, 4, 2)
    loss = (layer(x)[0] ** 2).mean()
    explanation = cr.explain(loss, wrt=layer.weight_hh_l0)
    assert "LSTM: " in str(explanation)  # one link, at first
    text = str(explanation.unfold())
    assert all(f"{name} = lstm_cell(...)" in text for name in ("lstm_cell", "lstm_cell.3", "lstm_cell.5"))
    assert "sum of 3 uses" in text
    assert "relative error" in text  # checked against differences, as a whole


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True, "batch_first": True}], ids=str)
def test_a_compiled_step_trains_as_an_eager_one(name: str, options: dict[str, Any]) -> None:
    def losses(compiled: bool) -> list[float]:
        cr.manual_seed(0)
        layer = getattr(nn, name)(3, 8, dtype=cr.float64, **options)
        head = nn.Linear(16 if options else 8, 1, dtype=cr.float64)
        optimizer = cr.optim.Adam([*layer.parameters(), *head.parameters()], lr=0.05)

        def step(x: Any, y: Any) -> Any:
            loss = ((head(layer(x)[0]) - y) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        run = cr.compile(step) if compiled else step
        x = cr.randn(6, 5, 3, dtype=cr.float64)
        return [float(run(x, x.sum(-1, keepdim=True).tanh())) for _ in range(20)]

    found = losses(True)
    np.testing.assert_allclose(found, losses(False), rtol=1e-9)
    assert found[-1] < 0.5 * found[0]


BAD = [
    (lambda: nn.LSTM(3, 0), ArgumentError, "LSTM: hidden_size must be a positive int; got 0"),
    (lambda: nn.GRU(3, 4, dropout=2.0), ArgumentError, "dropout is a probability"),
    (lambda: nn.LSTM(3, 4, proj_size=4), ArgumentError, "from 0 to below hidden_size = 4; got 4"),
    (lambda: nn.RNN(3, 4, nonlinearity="gelu"), ArgumentError, "must be 'tanh' or 'relu'; got 'gelu'"),
    (lambda: nn.RNNCell(3, 4, nonlinearity="gelu"), ArgumentError, "must be 'tanh' or 'relu'; got 'gelu'"),
    (
        lambda: nn.LSTM(3, 4)(cr.zeros(5, 2, 2)),
        ShapeError,
        r"expected an input \(length, n, input\), or \(length, input\), of input_size 3; got float32\[5,2,2\]",
    ),
    (lambda: nn.LSTM(3, 4, batch_first=True)(cr.zeros(3)), ShapeError, r"\(n, length, input\), or \(length, input\)"),
    (lambda: nn.LSTM(3, 4)(cr.zeros(0, 2, 3)), ShapeError, "a sequence needs an entry"),
    (lambda: nn.GRU(3, 4)(cr.zeros(5, 2, 3, dtype=cr.float64)), DTypeError, r"x.to\(cr.float32\)"),
    (
        lambda: nn.LSTM(3, 4)(cr.zeros(5, 2, 3), cr.zeros(1, 2, 4)),
        ArgumentError,
        r"a pair of states \(h, c\) of \(1, 2, 4\) and \(1, 2, 4\); got Tensor",
    ),
    (
        lambda: nn.GRU(3, 4)(cr.zeros(5, 2, 3), cr.zeros(1, 5, 4)),
        ShapeError,
        r"a state of \(1, 2, 4\) for the input float32\[5,2,3\]; got float32\[1,5,4\]",
    ),
    (lambda: nn.GRU(3, 4)(cr.zeros(5, 2, 3), [1.0]), DTypeError, "got list"),
    (lambda: nn.GRU(3, 4)(cr.zeros(5, 2, 3), cr.zeros(1, 2, 4).double()), DTypeError, r"got float64\[1,2,4\]"),
    (lambda: nn.LSTM(3, "4"), ArgumentError, "hidden_size must be a positive int; got '4'"),
    (lambda: nn.GRU(3, 4, dropout=True), ArgumentError, "dropout is a probability"),
    (lambda: nn.RNN(3, 4, nonlinearity=[]), ArgumentError, "must be 'tanh' or 'relu'"),
    (
        lambda: nn.Sequential(nn.LSTM(3, 4), nn.Linear(4, 2))(cr.zeros(5, 2, 3)),
        DTypeError,
        "linear: expected a tensor; got a tuple of 2; take one of its parts",
    ),
    (lambda: nn.LSTMCell(3, 4)(cr.zeros(5, 2, 3)), ShapeError, r"expected an input \(n, input\), or \(input,\)"),
    (lambda: nn.LSTM(3, 4)([1.0]), DTypeError, "LSTM: expected a tensor; got list"),
]


@pytest.mark.parametrize(("mistake", "error", "says"), BAD)
def test_a_mistake(mistake: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says) as caught:
        mistake()
    assert "test_recurrent.py" in str(caught.value)


def test_what_a_cell_computes_is_written_as_the_field_writes_it() -> None:
    """One step by hand, from the formulas of the docstring."""
    cell, x = nn.GRUCell(2, 3).double(), np.random.default_rng(0).normal(size=(4, 2))
    h = np.random.default_rng(1).normal(size=(4, 3))
    weights = [torch.tensor(p.detach().numpy()) for p in cell.parameters()]
    gates = torch_functional.linear(torch.tensor(x), weights[0], weights[2]).numpy()
    state = torch_functional.linear(torch.tensor(h), weights[1], weights[3]).numpy()
    r, z = (1 / (1 + np.exp(-(gates[:, i : i + 3] + state[:, i : i + 3]))) for i in (0, 3))
    n = np.tanh(gates[:, 6:] + r * state[:, 6:])
    found = cell(cr.tensor(x), cr.tensor(h)).detach().numpy()
    np.testing.assert_allclose(found, (1 - z) * n + z * h, rtol=1e-12)
