"""What somebody who comes from PyTorch types without thinking: it works as there, or says what to type instead."""

import builtins
import subprocess
import sys

import numpy as np
import pytest
import torch

import chainrule as cr
from chainrule.errors import (
    ArgumentError,
    DisconnectedError,
    DTypeError,
    InPlaceError,
    NoGradientError,
    NotScalarError,
    ShapeError,
    StaleValueError,
    TrainingError,
)

F = cr.nn.functional


def leaf(*values):
    return cr.tensor([float(v) for v in values], requires_grad=True)


# --- names


def test_other_names_of_dtypes():
    assert cr.float == cr.float32
    assert cr.double == cr.float64
    assert cr.half == cr.float16
    assert cr.int == cr.int32
    assert cr.long == cr.int64
    assert cr.bool == cr.bool_
    assert cr.zeros(2, dtype=cr.long).dtype == cr.int64
    assert cr.finfo(cr.float32).eps == np.finfo(np.float32).eps
    assert float(cr.finfo(cr.bfloat16).max) > 3e38
    assert cr.iinfo(cr.int8).max == 127
    assert (cr.pi, cr.inf) == (np.pi, np.inf)
    assert np.isnan(cr.nan)


def test_a_star_import_leaves_pythons_types():
    names = {}
    exec("from chainrule import *", names)
    assert all(names.get(name, getattr(builtins, name)) is getattr(builtins, name) for name in ("float", "int", "bool"))
    assert names["double"] == cr.float64


def test_there_is_one_device():
    x = cr.ones(2, device="cpu")
    assert x.cpu() is x
    assert x.to("cpu") is x
    assert x.to(device="cpu") is x
    assert x.to("cpu", cr.float64).dtype == x.to(device="cpu", dtype="double").dtype == cr.float64
    assert x.to(cr.zeros(1, dtype=cr.float64)).dtype == cr.float64
    model = cr.nn.Linear(2, 1)
    assert model.to("cpu").cpu() is model
    assert model.to(cr.float64).weight.dtype == cr.float64
    makers = [
        lambda device: cr.zeros(2, device=device), lambda device: cr.ones(2, device=device),
        lambda device: cr.full((2,), 1.0, device=device), lambda device: cr.empty(2, device=device),
        lambda device: cr.rand(2, device=device), lambda device: cr.randn(2, device=device),
        lambda device: cr.randint(0, 3, (2,), device=device), lambda device: cr.randperm(3, device=device),
        lambda device: cr.eye(2, device=device), lambda device: cr.arange(2, device=device),
        lambda device: cr.linspace(0, 1, 2, device=device), lambda device: cr.tensor([1.0], device=device),
        lambda device: cr.as_tensor([1.0], device=device), lambda device: cr.zeros_like(x, device=device),
        lambda device: cr.ones_like(x, device=device), lambda device: cr.full_like(x, 1.0, device=device),
        lambda device: cr.empty_like(x, device=device), lambda device: cr.rand_like(x, device=device),
        lambda device: cr.randn_like(x, device=device), lambda device: cr.normal(0.0, 1.0, (2,), device=device),
        lambda device: x.to(device), lambda device: x.to(device=device), lambda device: model.to(device),
        lambda device: model.to(device=device),
    ]  # fmt: skip
    for make in makers:
        make("cpu")
        with pytest.raises(ArgumentError, match=r"there is only the CPU; got device 'cuda:0'"):
            make("cuda:0")


def test_an_empty_tensor_prints_its_shape():
    for shape in ((3, 0), (0,), (0, 2)):
        assert repr(cr.zeros(shape)) == repr(torch.zeros(shape))
    assert repr(cr.zeros(0, dtype=cr.int64)) == "tensor([], dtype=int64)"
    assert repr(cr.zeros(2, 0, requires_grad=True)) == "tensor([], size=(2, 0), requires_grad=True)"


def test_small_functions():
    x = cr.tensor([[1.0, 5.0, 3.0], [cr.nan, 2.0, 0.0]])
    assert cr.is_tensor(x)
    assert not cr.is_tensor(np.ones(2))
    assert x.is_floating_point()
    assert not cr.arange(2).is_floating_point()
    assert cr.equal(x[0], x[0].clone())
    assert not cr.equal(x, x)
    assert not cr.equal(x, x[0])
    assert (cr.concat([x[0], x[0]]) == cr.cat([x[0], x[0]])).all()
    assert x.clip(0, 2)[0].tolist() == cr.clip(x, 0, 2)[0].tolist() == [1.0, 2.0, 2.0]
    assert x.swapaxes(0, 1).shape == cr.swapaxes(x, -1, 0).shape == (3, 2)
    assert x[0].median().item() == 3.0
    assert np.isnan(x.median().item())
    assert cr.as_tensor(x) is x
    values, indices = cr.tensor([[1.0, 4.0, 2.0, 3.0]]).median(1)
    assert (values.tolist(), indices.tolist()) == ([2.0], [2])
    with pytest.raises(ArgumentError, match=r"median: .* no entry"):
        cr.zeros(0).median()
    with pytest.raises(ArgumentError, match="one for each of the 2 slices"):
        x.repeat_interleave(cr.tensor([1, 2, 3]), 0)


def test_draws():
    cr.manual_seed(0)
    x = cr.normal(cr.tensor([0.0, 100.0]), cr.tensor([1.0, 0.0]))
    assert x[1].item() == 100.0
    with pytest.raises(DTypeError, match="normal: needs a float dtype"):
        cr.normal(cr.arange(2), 1.0)
    weights = cr.tensor([1.0, 0.0, 3.0])
    drawn = cr.multinomial(weights, 20_000, replacement=True)
    counts = np.bincount(drawn.numpy(), minlength=3)
    assert counts[1] == 0
    assert counts[2] / 20_000 == pytest.approx(0.75, abs=0.02)
    firsts = [cr.multinomial(weights, 2).tolist() for _ in range(2000)]
    assert {tuple(f) for f in firsts} == {(0, 2), (2, 0)}
    assert np.mean([f[0] == 2 for f in firsts]) == pytest.approx(0.75, abs=0.05)
    for wrong in (lambda: cr.multinomial(weights, 3), lambda: cr.multinomial(-weights, 1)):
        with pytest.raises(ArgumentError, match="multinomial"):
            wrong()


def test_recording_is_set_by_a_call_a_block_or_a_decorator():
    assert cr.is_grad_enabled()
    with cr.set_grad_enabled(False):
        assert not cr.is_grad_enabled()
        with cr.set_grad_enabled(True):
            assert cr.is_grad_enabled()
    assert cr.is_grad_enabled()

    @cr.set_grad_enabled(False)
    def inside():
        return cr.is_grad_enabled()

    assert cr.is_grad_enabled()
    assert not inside()
    cr.set_grad_enabled(False)
    try:
        assert not cr.is_grad_enabled()
    finally:
        cr.set_grad_enabled(True)
    assert cr.is_grad_enabled()


# --- gradients


def test_backward_takes_pytorchs_options():
    x = leaf(1, 2)
    loss = (x * x).sum()
    loss.backward(retain_graph=True)
    loss.backward(retain_graph=False)
    assert x.grad.tolist() == [4.0, 8.0]
    with pytest.raises(ArgumentError, match=r"cr\.grad\(cr\.grad\(f\)\)"):
        loss.backward(create_graph=True)


def test_autograd_grad():
    x, unused = leaf(1, 2), leaf(0)
    y = x * x
    loss = (y * y).sum()
    gx, gy = cr.autograd.grad(loss, [x, y])
    assert (gx.tolist(), gy.tolist()) == ([4.0, 32.0], [2.0, 8.0])
    assert x.grad is None
    assert cr.autograd.grad(y, x, cr.tensor([1.0, 10.0]))[0].tolist() == [2.0, 40.0]
    (g,) = cr.autograd.grad(loss, x, create_graph=True)
    assert cr.autograd.grad(g.sum(), x)[0].tolist() == [12.0, 48.0]
    assert cr.autograd.grad([loss, y.sum()], x)[0].tolist() == [6.0, 36.0]
    assert cr.autograd.grad(loss, [x, unused], allow_unused=True)[1] is None
    mistakes = [
        (lambda: cr.autograd.grad(loss, unused), DisconnectedError, "input 0, float32\\[1\\].*allow_unused=True"),
        (lambda: cr.autograd.grad(y, x), NotScalarError, "pass grad_outputs"),
        (lambda: cr.autograd.grad(y, x, cr.ones(3)), ShapeError, "the cotangent is float32\\[3\\]"),
        (lambda: cr.autograd.grad(y, x, 1.0), DTypeError, "grad_outputs must be tensors"),
        (lambda: cr.autograd.grad(1.0, x), DTypeError, "outputs must be tensors; got float"),
        (lambda: cr.autograd.grad(y.detach().sum(), x), NoGradientError, "autograd.grad: "),
        (lambda: cr.autograd.grad(loss, x, [None, None]), ArgumentError, "1 outputs and 2 grad_outputs"),
    ]
    for mistake, error, says in mistakes:
        with pytest.raises(error, match=says):
            mistake()


def test_detach_in_place():
    w = leaf(1)
    assert w.detach_() is w
    assert not w.requires_grad
    with pytest.raises(InPlaceError, match=r"y = y\.detach\(\)"):
        (leaf(1) * 2).detach_()


WRONG = [
    (3.0, DTypeError, "must be a tensor like it, or None; got float"),
    (np.ones(2, np.float32), DTypeError, "got ndarray; make one with cr.tensor"),
    (cr.ones(3), ShapeError, r"must have its shape; got float32\[3\]"),
    (cr.ones(()), ShapeError, r"must have its shape; got float32\[\]"),
    (cr.ones(2, dtype=cr.float64), DTypeError, r"got float64\[2\]; cast it with .to\(cr.float32\)"),
]


@pytest.mark.parametrize(("wrong", "error", "says"), WRONG, ids=[says for *_, says in WRONG])
def test_a_gradient_that_does_not_fit_its_parameter(wrong, error, says):
    other, w = leaf(1), leaf(1, 2)
    (other * 2).sum().backward()
    w.grad = wrong
    for make in (cr.optim.SGD, cr.optim.Adam):
        with pytest.raises(error, match=f"parameter 1: the .grad of float32\\[2\\] \\(made at .*{says}"):
            make([other, w], lr=0.1).step()
    with pytest.raises(error, match=f"backward: the .grad of float32\\[2\\] .*{says}"):
        (w * 2).sum().backward()
    with pytest.raises(error, match="clip_grad_norm_: the "):
        cr.nn.utils.clip_grad_norm_([w], 1.0)
    assert w.tolist() == [1.0, 2.0]


def test_a_stale_value_is_named_by_where_it_was_made():
    w = leaf(1, 2)
    loss = (w * w).sum()
    with cr.no_grad():
        w += 1
    with pytest.raises(StaleValueError) as caught:
        loss.backward()
    message = str(caught.value)
    assert "needs the old value of float32[2] (made at test_habits.py:" in message
    assert "run the forward pass again" in message


@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.5, float("inf")])
@pytest.mark.parametrize("max_norm", [0.5, 1e6])
def test_clipping_is_pytorchs(norm_type, max_norm):
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(3, 4)).astype(np.float32), rng.normal(size=5).astype(np.float32)]
    ours = [cr.tensor(a, requires_grad=True) for a in arrays]
    theirs = [torch.tensor(a, requires_grad=True) for a in arrays]
    for tensors in (ours, theirs):
        sum((t**2).sum() for t in tensors).backward()
    mine = cr.nn.utils.clip_grad_norm_([*ours, leaf(1)], max_norm, norm_type)
    other = torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type)
    assert mine.item() == pytest.approx(other.item(), rel=1e-5)
    cr.nn.utils.clip_grad_value_(ours, 0.1)
    torch.nn.utils.clip_grad_value_(theirs, 0.1)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-5)


def test_clipping_refuses():
    w = leaf(1)
    w.grad = cr.tensor([cr.inf])
    with pytest.raises(TrainingError, match="the norm of the gradients is inf"):
        cr.nn.utils.clip_grad_norm_(w, 1.0, error_if_nonfinite=True)
    with pytest.raises(ArgumentError, match="max_norm ≥ 0"):
        cr.nn.utils.clip_grad_norm_(w, -1.0)
    with pytest.raises(ArgumentError, match="clip_value ≥ 0"):
        cr.nn.utils.clip_grad_value_(w, -1.0)


# --- NumPy's functions


def test_operators_between_an_array_and_a_tensor():
    a, t = np.array([1.0, 2.0], np.float32), leaf(3, 5)
    assert (a + t).tolist() == [4.0, 7.0]
    assert (a - t).tolist() == [-2.0, -3.0]
    assert (a / t).requires_grad
    assert (a**t).tolist() == [1.0, 32.0]
    assert (a < t).tolist() == [True, True]
    assert (a >= t).tolist() == [False, False]
    assert (a == t).tolist() == [False, False]
    assert (a @ t).item() == 13.0
    assert (np.float64(2) * t).dtype == cr.float32
    assert (np.float64(2) - t).tolist() == [-1.0, -3.0]
    assert np.add(t, a).tolist() == [4.0, 7.0]


def test_numpys_functions_say_what_to_write():
    a, t = np.ones(2, np.float32), leaf(1, 2)
    with pytest.raises(DTypeError, match=r"np\.exp: got a tensor; use t\.exp\(\), or t\.detach\(\)\.numpy\(\)"):
        np.exp(t)
    with pytest.raises(DTypeError, match=r"np\.heaviside: got a tensor; use a function of chainrule's"):
        np.heaviside(t, 1.0)
    with pytest.raises(DTypeError, match=r"np\.add: a tensor is not written into an array"):
        a += t
    assert np.asarray(t.detach()).tolist() == [1.0, 2.0]


# --- layers


def test_layers_say_what_arrived():
    model = cr.nn.Linear(3, 2)
    with pytest.raises(DTypeError, match=r"linear: expected a tensor; got list; make one with cr\.tensor"):
        model([1.0, 2.0, 3.0])
    with pytest.raises(DTypeError, match=r"cast the input with x\.to\(cr\.float32\), or the layer with model\.double"):
        model(cr.ones(3, dtype=cr.float64))
    with pytest.raises(DTypeError, match=r"cast the input with x\.to\(cr\.float32\)$|cast the input .*\n  at"):
        model(cr.arange(3))
    assert model(np.ones(3, np.float32)).shape == (2,)
    with pytest.raises(DTypeError, match="embedding: expected a tensor; got list"):
        cr.nn.Embedding(4, 2)([1, 2])


def test_one_column_against_a_row_names_what_a_learner_needs():
    loader = cr.data.DataLoader((cr.ones(8, 10), cr.ones(8)), batch_size=4)
    learner = cr.Learner(cr.nn.Linear(10, 1), loader, cr.nn.MSELoss(), cr.optim.SGD, lr=0.1, progress=False)
    with pytest.raises(ShapeError, match=r"nn\.Flatten\(0\)"):
        learner.fit(1)
    model = cr.nn.Sequential(cr.nn.Linear(10, 1), cr.nn.Flatten(0))
    cr.Learner(model, loader, cr.nn.MSELoss(), cr.optim.SGD, lr=0.1, progress=False).fit(1)


def test_options_that_are_no_numbers():
    for make in (cr.optim.SGD, cr.optim.Adam, cr.optim.RMSprop, cr.optim.Adagrad):
        with pytest.raises(DTypeError, match=r"lr must be a number; got '0\.1' \(str\)"):
            make([leaf(1)], lr="0.1")


# --- memory that NumPy shares


def test_what_the_readme_says_of_shared_memory_holds():
    """A change through NumPy is unseen: the docstrings say so, and this is why."""
    array = np.ones(2, np.float32)
    w = cr.from_numpy(array).requires_grad_()
    loss = (w * w).sum()
    array[:] = 5
    loss.backward()
    assert w.grad.tolist() == [10.0, 10.0]  # of the new value; 2 of the old
    for function in (cr.from_numpy, cr.Tensor.numpy):
        assert "unseen" in function.__doc__


def test_a_pipe_that_is_closed_ends_quietly(tmp_path):
    (tmp_path / "net.py").write_text(
        "import chainrule as cr\nw = cr.randn(200, 200, requires_grad=True)\nloss = (w * w).sum()\nloss.backward()\n"
    )
    program = "import sys; from chainrule.cli import main; sys.argv[0] = 'chainrule'; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "explain", "net.py", "--json"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.close()
    _, said = process.communicate(timeout=120)
    assert said == b""
    assert process.returncode == 1
