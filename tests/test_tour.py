"""The tour: told whole, to a pipe and to narrow terminals, with its page and its numbers."""

import io
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

import chainrule as cr
from chainrule import cli
from chainrule.explain.narrow import fitted
from chainrule.tour import scores, show


@pytest.fixture(scope="module")
def toured(tmp_path_factory):
    out = tmp_path_factory.mktemp("tour") / "deep" / "er"
    result = CliRunner().invoke(cli.app, ["tour", "--out", str(out), "--epochs", "3", "--seed", "1"])
    assert result.exception is None, result.output
    return out, result.output


def test_the_page_is_written_and_said(toured):
    out, told = toured
    page = out / "index.html"
    assert str(page.resolve()) in told
    assert sorted(p.name for p in out.iterdir()) == ["diabetes.py", "digits.py", "index.html"]
    content = page.read_text(encoding="utf-8")
    assert len(content.encode()) < 1_000_000
    assert content.count('class="loss-curve"') == 2
    assert "ordinary least squares" in content


def test_it_tells_training_scores_explanations_and_checks(toured):
    _, told = toured
    for part in (
        "train_loss", "the training mean", "ordinary least squares", "always the most frequent digit",
        "logistic regression", "dloss/db2", "dloss/dw1", "w1.grad[", "dloss/d0.weight", "why x^T", "all agree",
    ):  # fmt: skip
        assert part in told, part
    assert "DIFFERS" not in told
    assert "WRONG" not in told
    assert "\x1b[" not in told  # plain text in a pipe


def test_its_numbers_are_what_was_measured():
    data = cr.data.load_diabetes(seed=0).standardized(target=True)
    wanted = np.asarray(data.y_valid)
    perfect = scores.diabetes(data, lambda x: data.y_valid.reshape(-1, 1))
    r2 = {row.what: row.numbers[1] for row in perfect.rows}
    assert r2["the page's net"] == "1.000"
    mean = 1 - np.square(wanted - np.asarray(data.y_train).mean()).mean() / wanted.var()
    assert r2["the training mean"] == f"{mean:.3f}"
    assert "the page's net does better than ordinary least squares" in perfect.verdict
    useless = scores.diabetes(data, lambda x: 100 + data.y_valid.reshape(-1, 1))
    assert "ordinary least squares does better" in useless.verdict


def test_a_tie_is_called_one():
    assert "apart" in scores._verdict([np.array([1.0, 2, 3, 2]), np.array([2.0, 1, 3, 2])], "a", "b")


def test_an_edited_program_is_not_overwritten(tmp_path):
    (tmp_path / "diabetes.py").write_text("# mine\n")
    result = CliRunner().invoke(cli.app, ["tour", "--out", str(tmp_path), "--quick"])
    assert result.exit_code == 1
    assert "would be overwritten" in result.stderr
    assert (tmp_path / "diabetes.py").read_text() == "# mine\n"


def test_without_scikit_learn_the_extra_is_named(tmp_path, monkeypatch):
    for name in [n for n in sys.modules if n.split(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    result = CliRunner().invoke(cli.app, ["tour", "--out", str(tmp_path / "t")])
    assert result.exit_code == 1
    assert "pip install 'chainrule[demo]'" in result.stderr
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_is_not_overrun(toured, tmp_path, width):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=width, highlight=False)
    show.run(tmp_path, epochs=1, seed=0, console=console)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", screen.getvalue()).split("\n")
    # Paths and commands are lines to be copied: never broken.
    long = [line for line in lines if len(line) > width and str(tmp_path) not in line]
    assert long == []


def test_fitting_breaks_between_columns():
    line = "  dloss/dw1  lin: x^T @ l1.g    (10,34)@(34,50) -> (10,50)   1.1025   ok 5e-08"
    assert fitted(line, 100) == line
    assert fitted(line, 60).split("\n") == [
        "  dloss/dw1  lin: x^T @ l1.g    (10,34)@(34,50) -> (10,50)",
        "             1.1025   ok 5e-08",
    ]
    assert fitted(line, 10) == line
    assert fitted("x" * 90, 60) == "x" * 90


def test_fitting_continues_under_the_text_not_under_its_label():
    line = "  why the sum   the forward added the one b2 in 34 rows (broadcast (1,) -> (34,1))"
    assert fitted(line, 70).split("\n") == [
        "  why the sum   the forward added the one b2 in 34 rows (broadcast",
        "                (1,) -> (34,1))",
    ]


def test_the_programs_run_by_themselves(tmp_path):
    folder = Path(show.__file__).parent / "programs"
    for program in show.STOPS:
        text = (folder / program.program).read_text()
        assert "import chainrule as cr" in text
        assert (tmp_path / program.program).write_text(text)
