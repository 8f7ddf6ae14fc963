"""Callbacks, checkpoints, metrics and progress displays."""

import io
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import chainrule as cr
from chainrule import nn, train
from chainrule.errors import ArgumentError, DataError, ShapeError
from chainrule.train import checkpoint
from chainrule.train.progress import Notebook, Plain, Silent, Terminal, chosen, in_notebook

F = nn.functional


def make(lr: float = 0.3, optimizer: Any = cr.optim.SGD, **options: Any) -> cr.Learner:
    cr.manual_seed(0)
    x = np.linspace(-1, 1, 40, dtype=np.float32)[:, None]
    loader = cr.data.DataLoader((x, 3 * x), batch_size=10, shuffle=True, seed=0)
    settings: dict[str, Any] = {"progress": False} | options
    return cr.Learner(nn.Linear(1, 1), (loader, loader), F.mse_loss, optimizer, lr=lr, **settings)


# --- callbacks


def test_callbacks_are_called_in_order() -> None:
    told: list[str] = []

    class Tells(train.Callback):
        def __getattribute__(self, name: str) -> Any:
            if name.startswith("on_"):
                told.append(name)
            return super().__getattribute__(name)

    make(callbacks=[Tells()], compile=False).fit(1)
    batch = ["on_batch_begin", "on_after_backward", "on_batch_end"]
    assert told == ["on_fit_begin", "on_epoch_begin", *batch * 4, "on_epoch_end", "on_fit_end"]


def test_early_stopping_takes_the_best_weights_back() -> None:
    class Spoils(train.Callback):
        def on_epoch_begin(self, learner: cr.Learner) -> None:
            if learner.epoch > 4:
                learner.optimizer.param_groups[0]["lr"] = 1.5  # too high: it gets worse from here

    learner = make(callbacks=[Spoils(), train.EarlyStopping(patience=2)])
    history = learner.fit(50)
    assert history.stopped == "valid_loss has not improved since epoch 4"
    assert len(history) == 6
    assert learner.validate()["valid_loss"] == pytest.approx(history["valid_loss"][3])
    kept = make(callbacks=[Spoils(), train.EarlyStopping(patience=2, restore_best=False)])
    kept.fit(50)
    assert kept.validate()["valid_loss"] == pytest.approx(kept.history["valid_loss"][-1])


def test_early_stopping_knows_which_way_is_better() -> None:
    assert train.EarlyStopping("accuracy").sign == -1
    assert train.EarlyStopping("mean_absolute_error").sign == 1
    assert train.EarlyStopping("cost", mode="min").sign == 1
    with pytest.raises(ArgumentError, match=r"expected patience ≥ 1 and min_delta ≥ 0; got 0 and 0.0"):
        train.EarlyStopping(patience=0)
    with pytest.raises(ArgumentError, match="'accuracy' is not measured; there are epoch, train_loss, valid_loss"):
        make(callbacks=[train.EarlyStopping("accuracy")]).fit(1)


def test_schedules_step_by_batch_or_epoch() -> None:
    by_epoch = make(callbacks=[train.Schedule(lambda o: cr.optim.StepLR(o, 1, gamma=0.5))])
    by_epoch.fit(3)
    assert by_epoch.optimizer.param_groups[0]["lr"] == pytest.approx(0.3 / 8)
    learner = make()
    cycle = cr.optim.OneCycleLR(learner.optimizer, 0.5, epochs=2, steps_per_epoch=4, cycle_momentum=False)
    learner.callbacks.append(train.Schedule(cycle, every="batch"))
    learner.fit(2)
    assert cycle.last_epoch == 8
    with pytest.raises(ArgumentError, match="every must be 'batch' or 'epoch'"):
        train.Schedule(cycle, every="step")  # type: ignore[arg-type]


def test_csv_logger(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "run.csv"
    learner = make(callbacks=[train.CSVLogger(path)])
    learner.fit(3)
    lines = path.read_text().splitlines()
    assert lines[0] == "epoch,train_loss,valid_loss,time"
    assert len(lines) == 4
    assert float(lines[2].split(",")[1]) == learner.history["train_loss"][1]


def test_save_best(tmp_path: Path) -> None:
    learner = make(callbacks=[train.SaveBest(tmp_path / "best.npz")])
    learner.fit(3)
    twin = make()
    twin.load(tmp_path / "best.npz")
    assert twin.validate()["valid_loss"] == pytest.approx(min(learner.history["valid_loss"]))
    with pytest.raises(ArgumentError, match="'r2' is not measured"):
        make(callbacks=[train.SaveBest(tmp_path / "x.npz", "r2")]).fit(1)


# --- checkpoints


@pytest.mark.parametrize("optimizer", [cr.optim.SGD, cr.optim.Adam, cr.optim.AdamW])
def test_a_loaded_learner_goes_on_as_if_never_stopped(tmp_path: Path, optimizer: Any) -> None:
    def batches() -> list[tuple[np.ndarray, np.ndarray]]:
        x = np.linspace(-1, 1, 40, dtype=np.float32).reshape(4, 10, 1)
        return [(part, 3 * part) for part in x]

    def fresh() -> cr.Learner:
        cr.manual_seed(0)
        return cr.Learner(nn.Linear(1, 1), batches(), F.mse_loss, optimizer, lr=0.05, progress=False)

    whole = fresh()
    whole.fit(6)
    first = fresh()
    first.fit(3)
    path = first.save(tmp_path / "half.npz")
    second = fresh()
    second.load(path)
    second.fit(3)
    assert second.epoch == 6
    for a, b in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        np.testing.assert_array_equal(a.detach().numpy(), b.detach().numpy())


@pytest.mark.parametrize("seed", [None, 5])  # the loader's own stream, or that of cr.manual_seed
def test_a_loaded_learner_meets_the_batches_that_it_would_have_met(tmp_path: Path, seed: int | None) -> None:
    def fresh() -> cr.Learner:
        cr.manual_seed(0)
        x = cr.linspace(-1, 1, 60).reshape(60, 1)
        loader = cr.data.DataLoader((x, 3 * x), batch_size=16, shuffle=True, seed=seed)
        model = nn.Sequential(
            nn.Linear(1, 8), nn.Dropout(0.3), nn.Dropout(0.3, generator=cr.Generator(1)), nn.Linear(8, 1)
        )
        return cr.Learner(model, loader, F.mse_loss, cr.optim.Adam, lr=0.05, progress=False)

    losses = fresh().fit(6).losses
    first = fresh()
    first.fit(3)
    path = first.save(tmp_path / "half.npz")
    second = fresh()
    second.load(path)
    assert second.fit(3).losses == losses[len(losses) // 2 :]


def test_every_dtype_and_extra_values_come_back(tmp_path: Path) -> None:
    for dtype in (cr.float16, cr.bfloat16, cr.float32, cr.float64):
        model, twin = nn.Linear(2, 3, dtype=dtype), nn.Linear(2, 3, dtype=dtype)
        train.save_checkpoint(tmp_path / "m.npz", model, extra={"note": "β"})
        assert train.load_checkpoint(tmp_path / "m.npz", twin) == {"note": "β"}
        assert (twin.weight == model.weight).all()
        assert twin.weight.dtype == dtype


def test_a_crash_while_writing_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.npz"
    model = nn.Linear(2, 3)
    train.save_checkpoint(path, model)
    before = path.read_bytes()

    def breaks(file: Any, **arrays: Any) -> None:
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(checkpoint.np, "savez", breaks)
    with pytest.raises(OSError, match="disk full"):
        train.save_checkpoint(path, nn.Linear(2, 3))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_no_checkpoint(tmp_path: Path) -> None:
    model = nn.Linear(2, 3)
    with pytest.raises(DataError, match="there is no file"):
        train.load_checkpoint(tmp_path / "none.npz", model)
    np.save(tmp_path / "one.npy", np.ones(3))
    with pytest.raises(DataError, match="is damaged or no checkpoint"):
        train.load_checkpoint(tmp_path / "one.npy", model)
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(DataError, match="is damaged or no checkpoint"):
        train.load_checkpoint(tmp_path / "text.npz", model)
    np.savez(tmp_path / "other.npz", a=np.ones(2))
    with pytest.raises(DataError, match="is damaged or no checkpoint"):
        train.load_checkpoint(tmp_path / "other.npz", model)
    whole = train.save_checkpoint(tmp_path / "m.npz", model).read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="is damaged or no checkpoint"):
        train.load_checkpoint(tmp_path / "cut.npz", model)
    np.savez(tmp_path / "new.npz", meta=np.frombuffer(b'{"format": 99}', np.uint8))
    with pytest.raises(DataError, match="no checkpoint of format 1"):
        train.load_checkpoint(tmp_path / "new.npz", model)
    np.savez(tmp_path / "evil.npz", meta=np.array([object()], dtype=object))
    with pytest.raises(DataError, match="is damaged or no checkpoint"):
        train.load_checkpoint(tmp_path / "evil.npz", model)


def test_a_checkpoint_of_something_else_changes_nothing(tmp_path: Path) -> None:
    model = nn.Linear(2, 3)
    path = train.save_checkpoint(tmp_path / "m.npz", model)
    with pytest.raises(ShapeError, match=r"Linear.weight is"):
        train.load_checkpoint(path, nn.Linear(3, 3))
    twin = nn.Linear(2, 3)
    before = twin.weight.detach().numpy().copy()
    with pytest.raises(ArgumentError, match="was saved without an optimiser"):
        train.load_checkpoint(path, twin, cr.optim.SGD(twin.parameters()))
    np.testing.assert_array_equal(twin.weight.detach().numpy(), before)
    train.save_checkpoint(path, model, cr.optim.Adam(model.parameters()))
    with pytest.raises(ArgumentError, match="holds the state of Adam, not of SGD"):
        train.load_checkpoint(path, twin, cr.optim.SGD(twin.parameters()))
    np.testing.assert_array_equal(twin.weight.detach().numpy(), before)
    with pytest.raises(ArgumentError, match="extra must be what JSON can say"):
        train.save_checkpoint(path, model, extra={"a": object()})


# --- metrics


def test_metrics_against_scikit_learn() -> None:
    from sklearn import metrics as judge

    rng = np.random.default_rng(0)
    out, wanted = rng.normal(size=30), rng.normal(size=30)
    assert train.mean_squared_error(out, wanted) == pytest.approx(judge.mean_squared_error(wanted, out))
    assert train.mean_absolute_error(out, wanted) == pytest.approx(judge.mean_absolute_error(wanted, out))
    assert train.r2_score(out, wanted) == pytest.approx(judge.r2_score(wanted, out))
    scores, labels = rng.normal(size=(30, 4)), rng.integers(0, 4, 30)
    assert train.accuracy(scores, labels) == judge.accuracy_score(labels, scores.argmax(1))
    assert train.accuracy(labels, labels) == 1
    with pytest.raises(ShapeError, match=r"r2_score: .* got \[30, 1\] and \[30\]; use out.squeeze\(-1\)"):
        train.r2_score(out[:, None], wanted)
    with pytest.raises(ShapeError, match=r"accuracy: expected scores \(n, classes\) and labels \(n,\)"):
        train.accuracy(scores, labels[:5])
    assert np.isnan(train.r2_score(out, np.ones(30)))
    assert np.isnan(train.R2Score().value())


# --- progress


def test_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    make(progress=None).fit(3)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["epoch", "train_loss", "valid_loss", "time"]
    assert [line.split()[0] for line in lines[1:]] == ["1", "2", "3"]
    stream = io.StringIO()
    make(progress=Plain(stream)).fit(100)
    assert [line.split()[0] for line in stream.getvalue().splitlines()] == ["epoch", "1", *map(str, range(5, 101, 5))]
    stream = io.StringIO()
    make(progress=Plain(stream), callbacks=[train.EarlyStopping(patience=1, min_delta=10)]).fit(60)
    lines = stream.getvalue().splitlines()
    assert [line.split()[0] for line in lines] == ["epoch", "1", "2", "stopped"]  # the last row always


def test_a_bar_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chainrule.train.progress._LOOK", 0.0)
    console = Console(file=io.StringIO(), force_terminal=True, width=100, legacy_windows=False)
    make(progress=Terminal(console)).fit(2)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "epoch 2/2" in text
    assert "train_loss" in text
    assert "\x1b[" in text
    cr.Learner(
        nn.Linear(1, 1), iter([(cr.ones(2, 1), cr.ones(2, 1))]), F.mse_loss, cr.optim.SGD, progress=Terminal(console)
    ).fit(1)  # of unknown length


class FakeNotebook:
    """Stands for IPython in a notebook's kernel."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shown: list[str] = []
        ipython, display = types.ModuleType("IPython"), types.ModuleType("IPython.display")
        shell = types.SimpleNamespace(config={"IPKernelApp": {}})
        ipython.get_ipython = lambda: shell  # type: ignore[attr-defined]
        display.HTML = str  # type: ignore[attr-defined]

        def show(html: str, display_id: bool) -> Any:
            self.shown.append(html)
            return types.SimpleNamespace(update=self.shown.append)

        display.display = show  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "IPython", ipython)
        monkeypatch.setitem(sys.modules, "IPython.display", display)


def test_a_bar_in_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chainrule.train.progress._LOOK", 0.0)
    assert not in_notebook()
    notebook = FakeNotebook(monkeypatch)
    assert in_notebook()
    assert isinstance(chosen(None), Notebook)
    make(progress=None, callbacks=[train.EarlyStopping(patience=1, min_delta=10)]).fit(5)
    assert '<progress value="0.0500" max="1"' in notebook.shown[1]
    assert "epoch 1/5, loss" in notebook.shown[1]
    assert "<progress" not in notebook.shown[-1]
    assert notebook.shown[-1].count("<tr>") == 3
    assert "stopped after epoch 2" in notebook.shown[-1]


def test_the_display_is_chosen_by_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(chosen(False), Silent)
    assert isinstance(chosen(None), Plain)
    plain = Plain()
    assert chosen(plain) is plain
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert isinstance(chosen(True), Terminal)
