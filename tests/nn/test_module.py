"""Modules: what belongs to one, its walks, its state, its modes, and the calls it notes."""

import copy
import pickle
import threading
from typing import Any

import numpy as np
import pytest
import torch

import chainrule as cr
from chainrule import nn
from chainrule.core.node import Node
from chainrule.core.provenance import current_scope, path, user_place
from chainrule.errors import ArgumentError, DTypeError, GradientError, ShapeError, StaleValueError


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
        self.head = nn.Linear(3, 1, bias=False)
        self.scale = nn.Parameter(cr.tensor(2.0))
        self.register_buffer("mean", cr.zeros(4))
        self.register_buffer("cache", cr.zeros(1), persistent=False)

    def forward(self, x: cr.Tensor) -> cr.Tensor:
        return self.head(self.encoder(x - self.mean)) * self.scale


class TorchNet(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU())
        self.head = torch.nn.Linear(3, 1, bias=False)
        self.scale = torch.nn.Parameter(torch.tensor(2.0))
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("cache", torch.zeros(1), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.encoder(x - self.mean)) * self.scale
        return out


def names(pairs: Any) -> set[str]:
    return {name for name, _ in pairs}


def test_the_walks_find_what_pytorch_finds() -> None:
    ours, theirs = Net(), TorchNet()
    assert names(ours.named_parameters()) == names(theirs.named_parameters())
    assert [n for n, _ in ours.named_modules()] == [n for n, _ in theirs.named_modules()]
    assert [n for n, _ in ours.named_children()] == [n for n, _ in theirs.named_children()]
    assert names(ours.named_buffers()) == names(theirs.named_buffers())
    assert set(ours.state_dict()) == set(theirs.state_dict())
    assert len(list(ours.modules())) == 5
    assert len(list(ours.children())) == 2
    assert len(list(ours.parameters(recurse=False))) == 1
    assert repr(ours) == repr(theirs).removeprefix("Torch")


def test_weights_from_pytorch_give_pytorchs_output_and_gradients() -> None:
    theirs = TorchNet().double()
    ours = Net().double()
    ours.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
    array = np.random.default_rng(0).normal(size=(6, 4))
    ours(cr.tensor(array)).square().mean().backward()
    theirs(torch.tensor(array)).square().mean().backward()
    expected = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        np.testing.assert_allclose(parameter.grad.numpy(), expected[name].grad.numpy(), rtol=1e-12)


def test_an_op_on_a_parameter_gives_a_plain_tensor() -> None:
    w = nn.Parameter(cr.tensor([1.0, 2.0]))
    assert isinstance(w, cr.Tensor)
    for value in (w * 2, w + w, -w, w.sum(), w.detach(), w[0], w.reshape(2, 1), cr.cat([w, w]), cr.where(w > 1, w, 0)):
        assert type(value) is cr.Tensor
    (w * w).sum().backward()
    assert type(w.grad) is cr.Tensor
    with cr.no_grad():
        w -= 0.1 * w.grad
    assert type(w) is nn.Parameter
    assert type(cr.grad(lambda v: (v * v).sum())(w)) is cr.Tensor
    assert w.max(cr.tensor([5.0, 0.0])).tolist() == [5.0, pytest.approx(1.6)]


def test_a_parameter_shares_memory_and_may_be_frozen() -> None:
    data = cr.zeros(2)
    w = nn.Parameter(data, requires_grad=False)
    data.fill_(3)
    assert w.tolist() == [3, 3]
    assert not w.requires_grad
    assert nn.Parameter([1.0, 2.0]).shape == (2,)
    with pytest.raises(DTypeError, match=r"only float tensors have a gradient; got int64\[1\]"):
        nn.Parameter(cr.tensor([1]))


def test_forgetting_super_init_does_no_harm() -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            self.layer = nn.Linear(2, 1)

    assert names(Bare().named_parameters()) == {"layer.weight", "layer.bias"}
    assert Bare().training


def test_a_shared_module_counts_once_but_is_saved_under_both_names() -> None:
    shared = nn.Linear(2, 2)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    assert [n for n, _ in model.named_parameters()] == ["0.weight", "0.bias"]
    assert set(model.state_dict()) == {"0.weight", "0.bias", "2.weight", "2.bias"}


def test_what_would_drop_out_of_training_is_refused() -> None:
    model = Net()
    with pytest.raises(
        DTypeError, match=r"Net.scale: holds a Parameter; a Tensor in its place would no longer be trained"
    ):
        model.scale = model.scale * 2  # type: ignore[assignment]
    with pytest.raises(DTypeError, match=r"Net.head: holds a Linear; a Tensor"):
        model.head = cr.zeros(1)  # type: ignore[assignment]
    model.head = nn.Identity()  # type: ignore[assignment]
    model.scale = None  # type: ignore[assignment]
    assert "scale" not in names(model.named_parameters())


def test_registration_refuses_bad_names_and_values() -> None:
    model = nn.Module()
    for name in ("", "a.b"):
        with pytest.raises(ArgumentError, match="a name is not empty and has no dot"):
            model.register_buffer(name, cr.zeros(1))
    with pytest.raises(ArgumentError, match="has an attribute 'train' already"):
        model.add_module("train", nn.ReLU())
    with pytest.raises(DTypeError, match=r"expected an nn.Module; got int"):
        model.add_module("layer", 3)  # type: ignore[arg-type]
    with pytest.raises(DTypeError, match=r"expected an nn.Parameter; got Tensor"):
        model.register_parameter("w", cr.zeros(1))  # type: ignore[arg-type]
    model.register_parameter("w", None)
    assert model.w is None
    with pytest.raises(NotImplementedError, match="Module: a module states forward"):
        model(1)


def test_loading_is_all_or_nothing() -> None:
    model = Net()
    before = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    state = {name: cr.ones(*value.shape) for name, value in model.state_dict().items()}
    with pytest.raises(ArgumentError, match=r"does not fit Net: missing: head.weight; unexpected: tail.weight; build"):
        model.load_state_dict({("tail.weight" if n == "head.weight" else n): v for n, v in state.items()})
    with pytest.raises(ShapeError, match=r"Net.head.weight is float32\[1,3\], the state has float32\[3,1\]"):
        model.load_state_dict({**state, "head.weight": cr.ones(3, 1)})
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[name])
    keys = model.load_state_dict({"scale": cr.tensor(7.0), "other": cr.zeros(1)}, strict=False)
    assert model.scale.item() == 7
    assert keys.unexpected_keys == ["other"]
    assert "head.weight" in keys.missing_keys
    model.load_state_dict(state)
    assert model.head.weight.tolist() == [[1, 1, 1]]


def test_loading_makes_an_older_graph_stale() -> None:
    model = nn.Linear(2, 1)
    x = cr.ones(1, 2, requires_grad=True)
    loss = model(x).sum()
    model.load_state_dict(model.state_dict())
    with pytest.raises(StaleValueError):
        loss.backward()


def test_modes_freezing_and_zero_grad() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
    assert not model.eval()[1].training
    assert model.train()[1].training
    model(cr.ones(1, 2)).sum().backward()
    model.zero_grad(set_to_none=False)
    assert all((p.grad == 0).all() for p in model.parameters())
    model.zero_grad()
    assert all(p.grad is None for p in model.parameters())
    model.requires_grad_(False)
    assert not model(cr.ones(1, 2)).requires_grad


def test_apply_and_get_submodule() -> None:
    model = Net()
    order: list[str] = []
    model.apply(lambda m: order.append(type(m).__name__))
    assert order == ["Linear", "ReLU", "Sequential", "Linear", "Net"]
    assert model.get_submodule("encoder.0") is model.encoder[0]
    assert model.get_submodule("") is model
    with pytest.raises(ArgumentError, match=r"no module 'encoder.5' in Net; it has: encoder, encoder.0"):
        model.get_submodule("encoder.5")


def test_casting() -> None:
    model = Net()
    model(cr.ones(1, 4)).sum().backward()
    weight = model.head.weight
    model.to(cr.float64)
    assert model.head.weight is weight
    assert weight.dtype == weight.grad.dtype == model.mean.dtype == cr.float64
    assert model.half().head.weight.dtype == cr.float16
    assert model.bfloat16().head.weight.dtype == cr.bfloat16
    assert model.float()(cr.ones(1, 4)).dtype == cr.float32
    with pytest.raises(DTypeError, match="must stay float; got int64"):
        model.to(cr.int64)


def test_copies_and_pickles_are_independent() -> None:
    model = Net()
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(twin.head.weight.detach().numpy(), model.head.weight.detach().numpy())
        assert isinstance(twin.head.weight, nn.Parameter)
        assert twin.head.weight.requires_grad
        twin.head.weight.writable()[...] = 0
        assert (model.head.weight != 0).any()
        assert twin(cr.ones(1, 4)).shape == (1, 1)
    with pytest.raises(GradientError, match="deepcopy: this tensor was computed by mul"):
        copy.deepcopy(model.scale * 2)
    with pytest.raises(GradientError, match="pickle: this tensor was computed by mul"):
        pickle.dumps(model.scale * 2)


# --- the calls that explanations read


def scopes(root: Node) -> list[str]:
    """op at path, from the root down the first inputs."""
    found = []
    while root.op is not None:
        found.append(f"{root.op.name} {path(root.scope) if root.scope else '-'}")
        root = root.inputs[0]
    return found


def test_a_node_knows_the_module_call_it_was_made_in() -> None:
    model = Net()
    out = model(cr.ones(2, 4))
    outside = out.sum()
    assert outside.scope is None
    assert out.scope is not None
    assert scopes(outside) == ["sum -", "mul ", "matmul head", "relu encoder.1", "add encoder.0", "matmul encoder.0"]
    relu = out.inputs[0].inputs[0]
    assert relu.scope is not None
    assert relu.scope.module is model.encoder[1]
    assert user_place(out.scope.trail) is not None
    assert "out = model(cr.ones(2, 4))" in user_place(out.scope.trail).text  # type: ignore[union-attr]


def test_two_calls_of_one_module_are_told_apart() -> None:
    layer = nn.Linear(2, 2)

    class Twice(nn.Module):
        def __init__(self) -> None:
            self.layers = nn.ModuleList([layer])
            self.deep = nn.ModuleDict({"again": layer})

        def forward(self, x: cr.Tensor) -> cr.Tensor:
            return self.layers[0](self.deep["again"](x))

    out = Twice()(cr.ones(1, 2))
    first, second = out.inputs[0].inputs[0].scope, out.scope
    assert first is not None
    assert second is not None
    assert path(first) == path(second) == "layers.0"  # a shared module goes by its first name
    assert first.number < second.number
    assert first.outer is second.outer


def test_a_module_from_elsewhere_goes_by_its_class() -> None:
    layer = nn.Linear(2, 2)

    class Uses(nn.Module):
        def forward(self, x: cr.Tensor) -> cr.Tensor:
            return layer(x)

    scope = Uses()(cr.ones(1, 2)).scope
    assert scope is not None
    assert path(scope) == "Linear"


def test_a_call_ends_however_it_ends() -> None:
    model = Net()
    with pytest.raises(ShapeError, match=r"takes inputs \(…, 4\); got float32\[2,5\]"):
        model.encoder(cr.ones(2, 5))
    assert current_scope() is None
    inside: list[Any] = []

    class Looks(nn.Module):
        def forward(self) -> None:
            thread = threading.Thread(target=lambda: inside.append(current_scope()))
            thread.start()
            thread.join()
            inside.append(current_scope())

    Looks()()
    assert inside[0] is None  # another thread is in no call
    assert inside[1] is not None
    assert current_scope() is None


def test_the_error_in_a_deep_model_names_the_users_line() -> None:
    model: nn.Module = nn.Linear(3, 3)
    for _ in range(30):
        model = nn.Sequential(model)
    with pytest.raises(ShapeError, match=r"test_module.py:\d+: model\(cr.ones\(2, 4\)\)"):
        model(cr.ones(2, 4))
