"""Layers, containers, losses and initial values, against PyTorch."""

from typing import Any

import numpy as np
import pytest
import torch

import chainrule as cr
from chainrule import nn
from chainrule.errors import ArgumentError, DTypeError, OutOfRangeError, ShapeError

ARRAY = np.random.default_rng(1).normal(size=(6, 4))
LABELS = np.array([0, 1, 2, 3, 1, 2])


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("ReLU", ()), ("ReLU6", ()), ("LeakyReLU", (0.2,)), ("PReLU", ()), ("ELU", (0.5,)), ("SELU", ()), ("GELU", ()),
        ("GELU", ("tanh",)), ("SiLU", ()), ("Mish", ()), ("Sigmoid", ()), ("Hardsigmoid", ()), ("Hardswish", ()),
        ("LogSigmoid", ()),
        ("Tanh", ()), ("Tanhshrink", ()), ("Hardtanh", (-0.5, 0.7)), ("Softplus", ()), ("Softsign", ()),
        ("Softmax", (1,)), ("LogSoftmax", (0,)), ("Identity", ()), ("Flatten", (0,)),
    ],
)  # fmt: skip
def test_a_layer_computes_and_is_written_as_pytorchs(name: str, args: tuple[Any, ...]) -> None:
    theirs = getattr(torch.nn, name)(*args)
    ours = getattr(nn, name)(*args)
    expected = theirs.double()(torch.tensor(ARRAY)).detach().numpy()
    np.testing.assert_allclose(ours.double()(cr.tensor(ARRAY)).detach().numpy(), expected, rtol=1e-7, atol=1e-12)
    if "GELU" not in name and name not in ("ReLU6", "Softplus", "Softmax", "LogSoftmax", "Hardtanh"):
        assert repr(ours) == repr(theirs)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(
    ("name", "options", "labels"),
    [
        ("MSELoss", {}, False), ("L1Loss", {}, False), ("HuberLoss", {"delta": 0.5}, False),
        ("SmoothL1Loss", {"beta": 0.5}, False), ("BCEWithLogitsLoss", {}, False),
        ("NLLLoss", {"ignore_index": 1}, True),
        ("CrossEntropyLoss", {"label_smoothing": 0.1, "ignore_index": 2}, True),
    ],
)  # fmt: skip
def test_a_loss_computes_pytorchs(name: str, options: dict[str, Any], labels: bool, reduction: str) -> None:
    target = LABELS if labels else np.abs(np.sin(ARRAY))
    ours = getattr(nn, name)(reduction=reduction, **options)(cr.tensor(ARRAY), cr.tensor(target))
    theirs = getattr(torch.nn, name)(reduction=reduction, **options)(torch.tensor(ARRAY), torch.tensor(target))
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-12)


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides:UserWarning")  # theirs, of a name they want to change
@pytest.mark.parametrize("reduction", ["mean", "batchmean", "sum", "none"])
@pytest.mark.parametrize("log_target", [False, True])
def test_a_divergence_is_pytorchs(reduction: Any, log_target: bool) -> None:
    target = np.abs(np.sin(ARRAY))
    ours = nn.KLDivLoss(reduction, log_target)(cr.tensor(ARRAY), cr.tensor(target))
    theirs = torch.nn.KLDivLoss(reduction=reduction, log_target=log_target)(torch.tensor(ARRAY), torch.tensor(target))
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-12)


def test_weights_of_a_loss_are_buffers() -> None:
    weight = cr.tensor([1.0, 2.0, 3.0, 4.0])
    loss = nn.CrossEntropyLoss(weight=weight).double()
    assert list(loss.parameters()) == []
    assert loss.weight.dtype == cr.float64
    expected = torch.nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0, 4.0]).double())
    np.testing.assert_allclose(
        loss(cr.tensor(ARRAY), cr.tensor(LABELS)).numpy(), expected(torch.tensor(ARRAY), torch.tensor(LABELS)).numpy()
    )
    p = cr.sigmoid(cr.tensor(ARRAY))
    assert nn.BCELoss()(p, p).item() == pytest.approx(torch.nn.BCELoss()(*(torch.tensor(p.numpy()),) * 2).item())
    assert nn.BCEWithLogitsLoss(pos_weight=weight)(cr.rand(2, 4), cr.rand(2, 4)).shape == ()


def test_linear_starts_where_pytorchs_does() -> None:
    cr.manual_seed(0)
    torch.manual_seed(0)
    ours, theirs = nn.Linear(50, 400), torch.nn.Linear(50, 400)
    for a, b in ((ours.weight, theirs.weight), (ours.bias, theirs.bias)):
        mine, other = a.detach().numpy(), b.detach().numpy()
        assert mine.shape == other.shape
        bound = 1 / np.sqrt(50)
        assert 0.98 * bound < np.abs(mine).max() <= bound
        assert abs(mine.std() - other.std()) < 0.1 * other.std()
    assert nn.Linear(2, 3, bias=False).bias is None
    assert nn.Linear(2, 3, dtype=cr.float64).weight.dtype == cr.float64
    cr.manual_seed(0)
    np.testing.assert_array_equal(nn.Linear(50, 400).weight.detach().numpy(), ours.weight.detach().numpy())


def test_embedding() -> None:
    cr.manual_seed(0)
    layer = nn.Embedding(1000, 8, padding_idx=-1)
    values = layer.weight.detach().numpy()
    assert abs(values.std() - 1) < 0.05
    assert (values[999] == 0).all()
    layer(cr.tensor([1, 999])).sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad[1].tolist() == [1] * 8
    assert layer.weight.grad[999].tolist() == [0] * 8
    assert repr(layer) == "Embedding(1000, 8, padding_idx=999)"
    with pytest.raises(OutOfRangeError, match="padding_idx 5 is none of the 3 rows"):
        nn.Embedding(3, 2, padding_idx=5)


def test_dropout_drops_in_training_only() -> None:
    layer = nn.Dropout(0.5, generator=cr.Generator(0))
    x = cr.ones(100)
    assert set(np.unique(layer(x).numpy())) == {0, 2}
    assert layer.eval()(x) is x
    with pytest.raises(ArgumentError, match="p is a probability"):
        nn.Dropout(-0.1)


@pytest.mark.parametrize("sizes", [(0, 1), (1, -1), (2.0, 1), (True, 1)])
def test_sizes_are_positive_ints(sizes: tuple[Any, Any]) -> None:
    with pytest.raises(ArgumentError, match="must be a positive int"):
        nn.Linear(*sizes)
    with pytest.raises(ArgumentError, match="must be a positive int"):
        nn.Embedding(*sizes)


# --- containers


def test_sequential() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1))
    assert model(cr.tensor(ARRAY, dtype=cr.float32)).shape == (6, 1)
    assert len(model) == 3
    assert [type(m).__name__ for m in model] == ["Linear", "ReLU", "Linear"]
    assert model[-1] is list(model)[2]
    assert isinstance(model[:2], nn.Sequential)
    model[1] = nn.Tanh()
    assert isinstance(model[1], nn.Tanh)
    assert len(model.append(nn.Identity())) == 4
    named = nn.Sequential({"first": nn.Linear(2, 2), "then": nn.ReLU()})
    assert [n for n, _ in named.named_parameters()] == ["first.weight", "first.bias"]
    with pytest.raises(OutOfRangeError, match="no module 7; it holds 4"):
        model[7]
    with pytest.raises(DTypeError, match=r"expected modules; got .*make an instance: add \(\)"):
        nn.Sequential(nn.ReLU)  # type: ignore[arg-type]
    with pytest.raises(DTypeError, match="expected modules; got 3"):
        nn.Sequential(3)  # type: ignore[arg-type]


def test_module_list() -> None:
    layers = nn.ModuleList([nn.Linear(2, 2)])
    layers.extend([nn.ReLU()]).append(nn.Linear(2, 1))
    layers.insert(1, nn.Tanh())
    assert [type(m).__name__ for m in layers] == ["Linear", "Tanh", "ReLU", "Linear"]
    assert set(layers.state_dict()) == {"0.weight", "0.bias", "3.weight", "3.bias"}
    assert len(layers[1:]) == 3
    with pytest.raises(NotImplementedError):
        layers(1)


def test_module_dict() -> None:
    heads = nn.ModuleDict({"a": nn.Linear(2, 1)})
    heads["b"] = nn.ReLU()
    assert list(heads.keys()) == ["a", "b"]
    assert [n for n, _ in heads.items()] == ["a", "b"]
    assert len(list(heads.values())) == len(heads) == 2
    assert "b" in heads
    del heads["b"]
    assert "b" not in heads
    with pytest.raises(ArgumentError, match="no module 'c'; it holds a"):
        heads["c"]
    with pytest.raises(ArgumentError, match="has an attribute 'keys' already"):
        heads["keys"] = nn.ReLU()


# --- initial values


def moments(tensor: cr.Tensor) -> tuple[float, float]:
    values = tensor.detach().numpy()
    return float(values.mean()), float(values.std())


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("uniform_", {"a": -2.0, "b": 3.0}), ("normal_", {"mean": 1.0, "std": 0.5}), ("xavier_uniform_", {"gain": 2.0}),
        ("xavier_normal_", {}), ("kaiming_uniform_", {"a": 0.5}),
        ("kaiming_normal_", {"mode": "fan_out", "nonlinearity": "relu"}),
    ],
)  # fmt: skip
def test_initial_values_are_distributed_as_pytorchs(name: str, options: dict[str, Any]) -> None:
    ours, theirs = cr.zeros(200, 100, requires_grad=True), torch.empty(200, 100)
    assert getattr(nn.init, name)(ours, generator=cr.Generator(0), **options) is ours
    getattr(torch.nn.init, name)(theirs, generator=torch.Generator().manual_seed(0), **options)
    mean, std = moments(ours)
    assert std == pytest.approx(theirs.std().item(), rel=0.03)
    assert mean == pytest.approx(theirs.mean().item(), abs=0.03 * std + 0.001)
    assert ours.requires_grad
    assert ours.op is None


def test_constant_initial_values_and_gains() -> None:
    x = cr.zeros(2, 3, requires_grad=True)
    assert nn.init.ones_(x).tolist() == [[1] * 3] * 2
    assert nn.init.constant_(x, 2.5).tolist() == [[2.5] * 3] * 2
    assert nn.init.zeros_(x).tolist() == [[0] * 3] * 2
    assert nn.init.eye_(x).tolist() == [[1, 0, 0], [0, 1, 0]]
    for name in ("linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu"):
        assert nn.init.calculate_gain(name) == pytest.approx(torch.nn.init.calculate_gain(name))
    with pytest.raises(ArgumentError, match="got 'swish'"):
        nn.init.calculate_gain("swish")
    with pytest.raises(ShapeError, match=r"needs a weight \(out, in, …\); got float32\[3\]"):
        nn.init.kaiming_uniform_(cr.zeros(3))
    with pytest.raises(ArgumentError, match="mode must be 'fan_in' or 'fan_out'"):
        nn.init.kaiming_normal_(x, mode="fan")  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="eye_: needs a matrix"):
        nn.init.eye_(cr.zeros(3))


@pytest.mark.parametrize(
    "name", ["ReLU", "ReLU6", "LeakyReLU", "ELU", "SELU", "SiLU", "Mish", "Hardtanh", "Hardsigmoid", "Dropout"]
)
def test_in_place_is_accepted_and_of_no_effect(name):
    given = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    ours, theirs = getattr(nn, name)(inplace=True).eval(), getattr(torch.nn, name)(inplace=True).eval()
    x = cr.tensor(given)
    np.testing.assert_allclose(ours(x).numpy(), theirs(torch.tensor(given)).numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(x.numpy(), given)
    assert "inplace=True" in repr(ours)
    assert "inplace" not in repr(getattr(nn, name)())
