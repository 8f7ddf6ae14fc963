"""The command line: what it prints, its exit codes, its errors. Run in this process; one test starts a real one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import chainrule as cr
from chainrule import cli
from chainrule.tensor import backward_watchers

NET = """\
import chainrule as cr

cr.manual_seed(1)
x, y = cr.randn(20, 3), cr.randn(20)
w = cr.randn(3, 1).requires_grad_()
b = cr.zeros(1, requires_grad=True)
unused = cr.ones(2, requires_grad=True)
"""
LOOP = """
for step in range(5):
    out = x @ w + b
    loss = (out.squeeze(-1) - y).pow(2).mean()
    w.grad = b.grad = None
    loss.backward()
    seen = w.detach().numpy().copy()
    gradient = w.grad.numpy().copy()
    with cr.no_grad():
        w -= 0.1 * w.grad
        b -= 0.1 * b.grad
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs `chainrule ARGS` in a folder of its own; `net.py` is there."""
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NET + LOOP)
    runner = CliRunner()

    def invoke(*arguments):
        result = runner.invoke(cli.app, [str(a) for a in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return invoke


def script(text, name="other.py"):
    Path(name).write_text(text)
    return name


# --- what it does


def test_version(run):
    result = run("--version")
    assert result.output == f"chainrule {cr.__version__}\n"
    assert result.exit_code == 0


def test_a_newcomer_gets_a_table_and_two_explanations(run):
    result = run("explain", "net.py")
    assert result.exit_code == 0
    assert "the last of 5 backward passes" in result.output
    assert "dloss/dw  (3,1)" in result.output
    assert "b.grad = " in result.output
    assert "--wrt w" in result.output


def test_the_values_are_those_of_the_backward_pass(run):
    script(NET + LOOP + "import numpy\nnumpy.save('seen.npy', [seen, gradient, w.detach().numpy()])\n")
    result = run("explain", "other.py", "--wrt", "w", "--json")
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    seen, gradient, after = np.load("seen.npy")
    assert not np.allclose(seen, after)
    assert told["norm"] == pytest.approx(float(np.linalg.norm(gradient)), rel=1e-6)
    assert all(link["agrees"] for link in told["links"])
    assert told["checked"]["error"] < 1e-3


def test_views_and_reused_buffers_are_put_back(run):
    script(
        NET + "x = cr.zeros(20, 3)\n"
        "for step in range(3):\n"
        "    x.copy_(cr.randn(20, 3))\n"
        "    loss = (x @ w.reshape(3, 1).mT.mT).pow(2).mean()\n"
        "    w.grad = None\n"
        "    loss.backward()\n"
        "    with cr.no_grad(): w -= 0.1 * w.grad\n"
        "x.zero_()\n"
    )
    told = json.loads(run("explain", "other.py", "--wrt", "w", "--json").stdout)
    assert all(link["agrees"] for link in told["links"])
    assert told["checked"]["error"] < 1e-3
    assert told["norm"] > 0


def test_names_come_from_the_function_that_called_backward(run):
    script(
        "import chainrule as cr\n"
        "def train(steps):\n"
        "    weight = cr.ones(2, requires_grad=True)\n"
        "    for _ in range(steps):\n"
        "        loss = (weight * 3).sum()\n"
        "        loss.backward()\n"
        "if __name__ == '__main__':\n"
        "    train(2)\n"
    )
    assert "dloss/dweight" in run("explain", "other.py", "--wrt", "weight").output


def test_one_gradient_one_entry_deeper(run):
    assert run("explain", "net.py", "--wrt", "w").output.startswith("dloss/dw")
    assert run("explain", "net.py", "--wrt", "w", "--at", "2,0").output.startswith("w.grad[2,0] = ")
    assert "pow" in run("explain", "net.py", "--wrt", "w", "--depth", "2").output
    assert "dloss/dout" in run("explain", "net.py", "--wrt", "out").output


def test_latex_and_json_are_not_mixed_with_what_the_script_prints(run):
    script(NET + "print('hello')\n" + LOOP)
    latex = run("explain", "other.py", "--wrt", "b", "--latex")
    assert latex.stdout.startswith(r"\frac{\partial")
    assert "hello" in latex.stderr
    every = json.loads(run("explain", "other.py", "--json").stdout)
    assert [e["wrt"] for e in every] == ["w", "b"]


def test_html(run):
    result = run("explain", "net.py", "--html", "deep/er/net.html")
    assert result.exit_code == 0
    assert str(Path("deep/er/net.html").resolve()) in result.output.replace("\n", "")
    content = Path("deep/er/net.html").read_text(encoding="utf-8")
    assert "loss = (out.squeeze(-1) - y).pow(2).mean()" in content


def test_a_page_and_json_are_both_written(run):
    result = run("explain", "net.py", "--html", "net.html", "--json")
    assert [e["wrt"] for e in json.loads(result.stdout)] == ["w", "b"]
    assert "net.html" in result.stderr.replace("\n", "")
    assert Path("net.html").exists()


def test_two_forms_of_one_answer(run):
    refused(run("explain", "net.py", "--json", "--latex"), 2, "--latex and --json: one of them")


def test_the_script_is_run_as_python_runs_it(run):
    Path("lib").mkdir()
    Path("lib/beside.py").write_text("import chainrule as cr\nw = cr.ones(2, requires_grad=True)\n")
    script(
        "import sys\nfrom beside import w\n"
        "assert __name__ == '__main__' and __file__.endswith('main.py'), __file__\n"
        "assert sys.argv[1:] == ['--lr', '3'], sys.argv\n"
        "loss = w.sum()\nloss.backward()\nsys.exit(0)\n",
        "lib/main.py",
    )
    before, path = list(sys.argv), list(sys.path)
    result = run("explain", "lib/main.py", "--", "--lr", "3")
    assert result.exit_code == 0, result.output
    assert "dloss/dw" in result.output
    assert (sys.argv, sys.path) == (before, path)
    assert backward_watchers.get() == ()


def test_an_interrupted_script_is_explained(run):
    result = run("explain", script(NET + LOOP + "raise KeyboardInterrupt\n"))
    assert result.exit_code == 0
    assert result.output.startswith("interrupted")


# --- what it refuses, and how


def refused(result, code, *parts):
    assert result.exit_code == code, result.output
    assert result.stderr.startswith("chainrule: ")
    assert "Traceback" not in result.stderr
    for part in parts:
        assert part in result.stderr
    package = str(Path(cr.__file__).parent)
    assert package not in result.stderr
    assert "\n  at " not in result.stderr


def test_a_missing_file(run):
    refused(run("explain", "nte.py"), 2, "nte.py: no such file; Python files there: net.py")


@pytest.mark.parametrize("name", ["notes.txt", "folder"])
def test_not_a_python_file(run, name):
    Path("notes.txt").write_text("hello")
    Path("folder").mkdir()
    refused(run("explain", name), 2, f"{name}: expected a Python file that ends in .py")


def test_an_unknown_name(run):
    refused(run("explain", "net.py", "--wrt", "weight"), 2, "no value is called 'weight'", "b, w")


@pytest.mark.parametrize(
    ("at", "part"),
    [("3,x", "expected integers"), ("1", "needs 2"), ("3,0", "out of range"), ("0,0,0", "needs 2"), ("", "needs 2")],
)
def test_a_bad_index(run, at, part):
    refused(run("explain", "net.py", "--wrt", "w", f"--at={at}"), 2, part)


def test_an_index_of_what(run):
    refused(run("explain", "net.py", "--at", "0,0"), 2, "--wrt NAME")


def test_a_page_of_another_kind(run):
    refused(run("explain", "net.py", "--html", "net.pdf"), 2, "ends in .html")


def test_a_page_that_cannot_be_written(run):
    Path("taken").write_text("a file")
    refused(run("explain", "net.py", "--html", "taken/net.html"), 1, "taken")


def test_no_backward(run):
    refused(run("explain", script(NET)), 1, "never called backward()", "call .backward() on a scalar")


def test_the_broken_link(run):
    refused(run("explain", "net.py", "--wrt", "unused"), 1, "does not depend on unused")
    refused(run("explain", "net.py", "--wrt", "x"), 1, "x does not require a gradient")
    cut = script(NET + "z = x @ w\nh = z.detach()\nloss = (h * b).sum()\nloss.backward()\n")
    refused(run("explain", cut, "--wrt", "w"), 1, "the link is broken here: detach", "other.py:9")


def test_a_backward_of_something_that_is_no_scalar(run):
    refused(run("explain", script(NET + "(x @ w).backward(cr.ones(20, 1))\n")), 1, "a loss is a scalar")


def own_traceback(result, *parts):
    assert result.exit_code == 1
    assert result.stderr.startswith("chainrule: other.py: the script failed")
    for part in parts:
        assert part in result.stderr
    assert str(Path(cr.__file__).parent) not in result.stderr
    assert "runpy" not in result.stderr


def test_a_script_that_fails_shows_its_own_frames(run):
    text = "def inner():\n    return 1 / 0\n\n\ninner()\n"
    own_traceback(run("explain", script(text)), 'other.py", line 5', 'other.py", line 2, in inner', "ZeroDivisionError")


def test_an_error_of_the_library_in_a_script_shows_the_scripts_line(run):
    text = NET + "x @ cr.ones(4, 2)\n"
    own_traceback(run("explain", script(text)), 'other.py", line 8', "ShapeError", "matmul")


def test_chained_errors_show_both(run):
    text = "try:\n    {}['a']\nexcept KeyError as e:\n    raise ValueError('no a') from e\n"
    own_traceback(run("explain", script(text)), "KeyError", "direct cause", "ValueError: no a")


def test_a_script_that_is_not_python(run):
    own_traceback(run("explain", script("def f(:\n")), 'other.py", line 1', "SyntaxError")


def test_a_script_that_gives_up(run):
    refused(run("explain", script("import sys\nsys.exit(3)\n")), 1, "ended itself with exit code 3")
    refused(run("explain", script("raise SystemExit('no data')\n")), 1, "no data")


def test_unknown_options_are_usage_errors(run):
    assert run("explain", "net.py", "--nonsense").exit_code == 2
    assert run("explain").exit_code == 2
    assert run("explain", "net.py", "--depth", "0").exit_code == 2
    assert run("tour", "--epochs", "0").exit_code == 2


def test_the_process_itself(run, tmp_path):
    """The entry point, in a process of its own: what a shell sees."""
    code = "import sys; from chainrule.cli import main; sys.argv[0] = 'chainrule'; sys.exit(main())"
    environment = {**os.environ, "COLUMNS": "80"}
    found = subprocess.run(
        [sys.executable, "-c", code, "explain", "nte.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 2
    assert found.stdout == ""
    assert found.stderr.startswith("chainrule: nte.py: no such file")


def test_a_fault_of_the_library_is_one_message(monkeypatch, capsys):
    from chainrule import cli

    def broken():
        raise ZeroDivisionError("float division by zero")

    monkeypatch.setattr(cli, "app", broken)
    monkeypatch.delenv("CHAINRULE_TRACEBACK", raising=False)
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 70
    said = capsys.readouterr().err
    assert "a fault of chainrule" in said
    assert "ZeroDivisionError: float division by zero" in said
    assert "Traceback" not in said
    monkeypatch.setenv("CHAINRULE_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        cli.main()
