"""The Learner: training, measuring, what it refuses, what an interruption leaves."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn, train
from chainrule.errors import (
    ArgumentError,
    DataError,
    DTypeError,
    MissingExtraError,
    NoGradientError,
    NotScalarError,
    TrainingError,
)

F = nn.functional


def line_data(n: int = 50) -> tuple[cr.Tensor, cr.Tensor]:
    x = np.linspace(-1, 1, n, dtype=np.float32)[:, None]
    return cr.tensor(x), cr.tensor(3 * x + 1)


def line_learner(**options: Any) -> cr.Learner:
    cr.manual_seed(0)
    loader = cr.data.DataLoader(line_data(), batch_size=16, shuffle=True, seed=0)
    valid = cr.data.DataLoader(line_data(30), batch_size=16)
    settings: dict[str, Any] = {"lr": 0.3, "progress": False, "metrics": [train.mean_absolute_error]} | options
    return cr.Learner(nn.Linear(1, 1), (loader, valid), F.mse_loss, cr.optim.SGD, **settings)


def test_training_learns_and_is_recorded() -> None:
    learner = line_learner()
    history = learner.fit(15)
    assert history is learner.history
    assert history.columns == ("epoch", "train_loss", "valid_loss", "mean_absolute_error", "time")
    assert len(history) == 15
    assert len(history.losses) == 15 * 4
    assert history.ends == [4 * i for i in range(1, 16)]
    assert history["epoch"] == list(range(1, 16))
    assert history["valid_loss"][-1] < 1e-4 < history["valid_loss"][0]
    assert learner.model.weight.item() == pytest.approx(3, abs=0.02)
    learner.fit(2)
    assert history["epoch"][-1] == 17
    assert str(history).splitlines()[0].split() == list(history.columns)
    assert len(str(history).splitlines()) == 18
    assert history._repr_html_().count("<tr>") == 18
    with pytest.raises(KeyError, match="no column 'accuracy'; there are epoch, train_loss"):
        history["accuracy"]


def test_the_same_seed_gives_the_same_run() -> None:
    assert line_learner().fit(3).losses == line_learner().fit(3).losses


def test_each_sample_counts_once() -> None:
    learner = line_learner(metrics=[train.mean_absolute_error, train.mean_squared_error, train.r2_score])
    measured = learner.validate()  # batches of 16 and 14
    x, y = line_data(30)
    out = learner.predict(x).numpy().astype(np.float64)
    wanted = y.numpy().astype(np.float64)
    assert measured["valid_loss"] == pytest.approx(((out - wanted) ** 2).mean(), rel=1e-6)
    assert measured["mean_squared_error"] == pytest.approx(((out - wanted) ** 2).mean(), rel=1e-6)
    assert measured["mean_absolute_error"] == pytest.approx(np.abs(out - wanted).mean(), rel=1e-6)
    r2 = 1 - ((out - wanted) ** 2).sum() / ((wanted - wanted.mean()) ** 2).sum()
    assert measured["r2_score"] == pytest.approx(r2, rel=1e-6)
    assert measured["r2_score"] == pytest.approx(train.r2_score(out, wanted), rel=1e-6)


def test_the_batch_is_named_and_kept_for_explanations() -> None:
    learner = line_learner()
    learner.fit(1)
    batch = learner.last_batch
    assert batch is not None
    assert batch.inputs[0].symbol == "x"
    assert batch.target.symbol == "y"
    assert batch.loss.item() == learner.history.losses[-1]
    again = learner.loss()
    assert again.requires_grad
    assert again.item() != batch.loss.item()  # with the weights after the step
    again.backward()
    assert learner.loss((*batch.inputs, batch.target)).item() == again.item()


def test_several_inputs() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(cr.ones(1))

        def forward(self, a: cr.Tensor, b: cr.Tensor) -> cr.Tensor:
            return (a + b) * self.w

    x, y = line_data()
    learner = cr.Learner(
        Sum(), cr.data.DataLoader((x, x, y), batch_size=10), F.mse_loss, cr.optim.SGD, lr=0.1, progress=False
    )
    learner.fit(1)
    assert learner.last_batch is not None
    assert [t.symbol for t in learner.last_batch.inputs] == ["x1", "x2"]
    assert learner.predict(cr.data.DataLoader((x, x, y), batch_size=10)).shape == (50, 1)


def test_a_plain_function_trains_too() -> None:
    w, b = cr.zeros(1, 1, requires_grad=True), cr.zeros(1, requires_grad=True)

    def model(x: cr.Tensor) -> cr.Tensor:
        return x @ w + b

    loader = cr.data.DataLoader(line_data(), batch_size=10)
    learner = cr.Learner(
        model,
        loader,
        F.mse_loss,
        cr.optim.SGD([w, b], lr=0.3),
        progress=False,
        callbacks=[train.EarlyStopping("train_loss")],
    )
    learner.fit(20)
    assert w.item() == pytest.approx(3, abs=0.01)
    assert learner.history.columns == ("epoch", "train_loss", "time")
    with pytest.raises(ArgumentError, match=r"only an nn.Module has a state to save"):
        learner.save("nowhere.npz")
    with pytest.raises(ArgumentError, match=r"a plain function has no parameters\(\)"):
        cr.Learner(model, loader, F.mse_loss, cr.optim.SGD)
    with pytest.raises(ArgumentError, match="no validation data; pass some"):
        learner.validate()


def test_modes_are_set_and_put_back() -> None:
    seen = []

    class Watches(nn.Linear):
        def forward(self, input: cr.Tensor) -> cr.Tensor:
            seen.append((self.training, cr.is_grad_enabled()))
            return super().forward(input)

    loader = cr.data.DataLoader(line_data(), batch_size=50)
    model = Watches(1, 1).eval()
    learner = cr.Learner(
        model, (loader, loader), F.mse_loss, cr.optim.SGD, lr=0.1, progress=False, compile=False
    )  # compiled, `forward` is traced once
    learner.fit(1)
    learner.predict(line_data()[0])
    assert seen == [(True, True), (False, False), (False, False)]
    assert not model.training


# --- what is refused


def test_a_model_that_cannot_be_trained() -> None:
    loader = cr.data.DataLoader(line_data(), batch_size=10)

    class Listed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = [nn.Linear(1, 1)]

    with pytest.raises(ArgumentError, match=r"Listed has no parameters; .*use nn.ModuleList"):
        cr.Learner(Listed(), loader, F.mse_loss, cr.optim.SGD)
    with pytest.raises(ArgumentError, match="holds none of the model's parameters"):
        cr.Learner(nn.Linear(1, 1), loader, F.mse_loss, cr.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1))
    with pytest.raises(DTypeError, match="the model must be a module or a function"):
        cr.Learner(nn.Linear, loader, F.mse_loss, cr.optim.SGD)
    with pytest.raises(DTypeError, match=r"loss_func must be a function .* a class needs \(\)"):
        cr.Learner(nn.Linear(1, 1), loader, nn.MSELoss, cr.optim.SGD)  # type: ignore[arg-type]
    with pytest.raises(DTypeError, match="callbacks are instances of Callback"):
        cr.Learner(nn.Linear(1, 1), loader, F.mse_loss, cr.optim.SGD, callbacks=[train.EarlyStopping])  # type: ignore[list-item]
    with pytest.raises(DTypeError, match=r"metrics: expected functions \(output, target\) -> number; got 'accuracy'"):
        cr.Learner(nn.Linear(1, 1), loader, F.mse_loss, cr.optim.SGD, metrics=["accuracy"])  # type: ignore[list-item]
    with pytest.raises(DTypeError, match=r"expected an optimiser, or what makes one; got 0.1"):
        cr.Learner(nn.Linear(1, 1), loader, F.mse_loss, 0.1)  # type: ignore[arg-type]
    with pytest.raises(DTypeError, match="the optimiser factory returned list"):
        cr.Learner(nn.Linear(1, 1), loader, F.mse_loss, lambda params: params)  # type: ignore[arg-type,return-value]
    model = nn.Linear(1, 1)
    with pytest.raises(ArgumentError, match="lr is for an optimiser still to be made"):
        cr.Learner(model, loader, F.mse_loss, cr.optim.SGD(model.parameters()), lr=0.1)
    with pytest.raises(DTypeError, match="the training data must give batches; got Tensor; wrap arrays"):
        cr.Learner(model, line_data()[0], F.mse_loss, cr.optim.SGD)
    with pytest.raises(ArgumentError, match="expected epochs ≥ 1; got 0"):
        cr.Learner(model, loader, F.mse_loss, cr.optim.SGD, progress=False).fit(0)


def test_a_loss_that_cannot_be_trained_on() -> None:
    with pytest.raises(NotScalarError, match=r"must return a scalar; got float32\[16,1\]; reduce it"):
        fit_with(lambda out, y: (out - y) ** 2)
    with pytest.raises(DTypeError, match="loss_func must return a tensor; got float"):
        fit_with(lambda out, y: 0.0)
    with pytest.raises(NoGradientError):
        fit_with(lambda out, y: F.mse_loss(out.detach(), y))


def fit_with(loss_func: Any) -> cr.Learner:
    learner = line_learner()
    learner.loss_func = loss_func
    learner.fit(1)
    return learner


def test_a_loss_that_is_not_finite_ends_the_training_at_once() -> None:
    learner = line_learner(lr=1e3)
    with pytest.raises(
        TrainingError, match=r"the loss is (inf|nan) in epoch \d+, batch \d: .*lower learning rate \(now 1000\)"
    ):
        learner.fit(30)
    assert len(learner.history.rows) == learner.epoch - 1
    assert np.isfinite(learner.history.losses).all()
    assert learner.model.weight.isfinite().all()

    bad = cr.data.TensorDataset(cr.tensor([[1.0], [float("nan")]]), cr.ones(2, 1), finite=False)
    learner = cr.Learner(
        nn.Linear(1, 1), cr.data.DataLoader(bad, batch_size=1), F.mse_loss, cr.optim.SGD, lr=0.1, progress=False
    )
    with pytest.raises(TrainingError, match="nan in epoch 1, batch 2: an input holds inf or nan already"):
        learner.fit(1)


@pytest.mark.parametrize("compile", [True, False])
def test_running_statistics_are_those_before_a_loss_that_is_not_finite(compile: bool) -> None:
    x = cr.tensor([[1.0], [2.0], [float("nan")], [3.0]])
    loader = cr.data.DataLoader(cr.data.TensorDataset(x, cr.ones(4, 1), finite=False), batch_size=2)
    model = nn.Sequential(nn.BatchNorm1d(1), nn.Linear(1, 1))
    learner = cr.Learner(model, loader, F.mse_loss, cr.optim.SGD, lr=0.1, progress=False, compile=compile)
    with pytest.raises(TrainingError, match="batch 2: an input holds inf or nan already"):
        learner.fit(1)
    kept = model.state_dict()
    np.testing.assert_allclose(kept["0.running_mean"].numpy(), [0.15], rtol=1e-6)
    np.testing.assert_allclose(kept["0.running_var"].numpy(), [0.95], rtol=1e-6)
    assert kept["0.num_batches_tracked"].item() == 1


def test_a_net_with_batch_norm_is_trained_validated_and_resumed(tmp_path: Path) -> None:
    x = cr.randn(50, 4)
    y = (x[:, 0] > 0).long()

    def learner() -> cr.Learner:
        cr.manual_seed(3)
        model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
        loader = cr.data.DataLoader(cr.data.TensorDataset(x, y), batch_size=16)  # and a last batch of 2
        return cr.Learner(model, (loader, loader), F.cross_entropy, cr.optim.AdamW, lr=0.05, progress=False)

    whole, first, second = learner(), learner(), learner()
    whole.fit(4)
    first.fit(2)
    first.save(tmp_path / "half.npz")
    second.load(tmp_path / "half.npz")
    second.fit(2)
    for a, b in zip(whole.model.state_dict().values(), second.model.state_dict().values(), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    assert whole.model[1].num_batches_tracked.item() == 16
    eager = [F.cross_entropy(whole.model.eval()(x), y).item(), whole.validate()["valid_loss"]]
    assert eager[0] == pytest.approx(eager[1], rel=1e-5)


def test_data_that_gives_no_batches() -> None:
    def batches() -> Iterator[tuple[cr.Tensor, cr.Tensor]]:
        yield line_data()

    learner = cr.Learner(nn.Linear(1, 1), batches(), F.mse_loss, cr.optim.SGD, lr=0.1, progress=False)
    with pytest.raises(DataError, match="gave no batch; an iterator is used up after one epoch"):
        learner.fit(2)
    with pytest.raises(DataError, match="validate: the data gave no batch"):
        learner.validate([])
    with pytest.raises(DataError, match="predict: the data gave no batch"):
        learner.predict([])
    with pytest.raises(DataError, match=r"a batch is \(input, …, target\)"):
        learner.validate(cr.data.DataLoader(line_data()[0]))
    with pytest.raises(ArgumentError, match="there is no last batch yet"):
        line_learner().loss()


def test_a_metric_must_give_one_number() -> None:
    assert line_learner(metrics=[lambda out, y: (out - y).abs().mean()]).validate()["<lambda>"] > 0

    def error(out: cr.Tensor, y: cr.Tensor) -> cr.Tensor:
        return out - y

    learner = line_learner(metrics=[error])
    with pytest.raises(NotScalarError, match=r"error: expected one number; got float32\[16,1\]; reduce it"):
        learner.fit(1)
    with pytest.raises(DTypeError, match="expected a number; got str"):
        line_learner(metrics=[lambda out, y: "good"]).validate()


def test_ctrl_c_leaves_a_usable_learner() -> None:
    class Interrupts(train.Callback):
        ended = False

        def on_after_backward(self, learner: cr.Learner) -> None:
            if learner.epoch == 3 and learner.batch == 2:
                raise KeyboardInterrupt

        def on_fit_end(self, learner: cr.Learner) -> None:
            self.ended = True

    callback = Interrupts()
    learner = line_learner(callbacks=[callback])
    history = learner.fit(10)
    assert history.interrupted
    assert callback.ended
    assert len(history) == 2
    assert learner.model.weight.isfinite().all()
    learner.callbacks.clear()
    assert not learner.fit(2).interrupted
    assert len(history) == 4
    assert learner.validate()["valid_loss"] < history.rows[0]["valid_loss"]


# --- real data


def test_the_pages_net_beats_the_mean_on_diabetes() -> None:
    from sklearn.linear_model import LinearRegression

    split = cr.data.load_diabetes(seed=0).standardized(target=True)
    cr.manual_seed(0)
    net = nn.Sequential(nn.Linear(10, 50), nn.ReLU(), nn.Linear(50, 1))
    learner = cr.Learner(
        net, split.loaders(32), lambda out, y: F.mse_loss(out.squeeze(-1), y), cr.optim.SGD, lr=0.02, progress=False
    )
    learner.fit(30)
    error = float(((net(split.x_valid).detach().numpy()[:, 0] - split.y_valid.numpy()) ** 2).mean())
    mean = float((split.y_valid.numpy() ** 2).mean())  # the training part's mean is 0
    ols = LinearRegression().fit(split.x_train.numpy(), split.y_train.numpy())
    least_squares = float(((ols.predict(split.x_valid.numpy()) - split.y_valid.numpy()) ** 2).mean())
    assert error < 0.75 * mean
    assert error < 1.1 * least_squares


def test_digits_are_read() -> None:
    cr.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 50), nn.ReLU(), nn.Linear(50, 10))
    learner = cr.Learner(
        net, cr.data.load_digits().standardized(), F.cross_entropy, cr.optim.Adam, lr=5e-3, metrics=[train.accuracy],
        progress=False,
    )  # fmt: skip
    assert learner.fit(6)["accuracy"][-1] > 0.95


# --- the loss curve


def test_the_loss_curve() -> None:
    learner = line_learner()
    with pytest.raises(DataError, match=r"there is no loss yet; call learner.fit first"):
        learner.loss_curve_svg()
    learner.fit(3)
    svg = learner.loss_curve_svg()
    assert svg.startswith("<svg")
    assert svg.endswith("</svg>")
    assert svg.count("<circle") == 3
    assert "nan" not in svg
    from xml.etree import ElementTree

    ElementTree.fromstring(svg)
    figure = learner.plot_losses()
    assert len(figure.axes[0].lines) == 2
    only_train = cr.Learner(
        nn.Linear(1, 1),
        cr.data.DataLoader(line_data(), batch_size=50),
        F.mse_loss,
        cr.optim.SGD,
        lr=0.0,
        progress=False,
    )
    only_train.fit(1)  # one point, one value
    ElementTree.fromstring(only_train.loss_curve_svg())
    assert len(only_train.plot_losses().axes[0].lines) == 1


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    learner = line_learner()
    learner.fit(1)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'chainrule\[demo\]'"):
        learner.plot_losses()
