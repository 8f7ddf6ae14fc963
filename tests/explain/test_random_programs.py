"""Explanations of random programs: every formula, read back from what is printed, is the gradient in use.

Text is read as a person reads it (`reading`), code and NumPy are run, LaTeX is held against what KaTeX knows.
"""

import importlib.util
import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import chainrule as cr
from chainrule import nn
from chainrule.core.node import ancestors
from chainrule.explain import latex as latex_lines
from chainrule.explain.spelling import python_name

sys.path.insert(0, str(Path(__file__).parent))
import programs
import reading

SEEDS = range(72)
LONGEST = 1500  # characters of a formula that is read back; longer ones are held by their value alone
KATEX = {
    "left", "right", "frac", "tfrac", "mathit", "mathbf", "mathbb", "mathrm", "operatorname", "text", "sum", "sqrt",
    "partial", "top", "odot", "in", "times", "cdot", "cdots", "sigma", "log", "exp", "sin", "cos", "tan", "sinh",
    "cosh", "tanh", "arcsin", "arccos", "arctan", "max", "min", "bmod", "lfloor", "rfloor", "lceil", "rceil", "le",
    "ge", "ne", "wedge", "vee", "oplus", "neg",
}  # fmt: skip


@pytest.fixture(scope="module", params=SEEDS)
def program(request, tmp_path_factory):
    """A random program, run from a file, so that its lines and names can be looked up."""
    path = tmp_path_factory.mktemp("random") / f"program_{request.param}.py"
    path.write_text(programs.written(request.param))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.loss.backward()
    return module


def leaves(loss):
    return [x for x in ancestors([loss]) if x.op is None and x.requires_grad]


def asked(program, wrt, **options):
    """What the program itself would be told: its variables name the values."""
    space = {k: v for k, v in vars(program).items() if not k.startswith("_")}
    return eval("cr.explain(loss, wrt=_wrt, **_options)", {**space, "cr": cr, "_wrt": wrt, "_options": options})


def close(found, wanted, tolerance):
    """Equal up to rounding, and up to dimensions of size 1, which text leaves out."""
    if [n for n in found.shape if n != 1] == [n for n in wanted.shape if n != 1]:
        found = found.reshape(wanted.shape)
    try:
        found = np.broadcast_to(found, wanted.shape)
    except ValueError:
        return False
    size = np.abs(wanted).max(initial=1e-3)  # below it, a float32 gradient may be all rounding error
    return np.allclose(found, wanted, rtol=tolerance, atol=tolerance * size)


def named_values(derivation, formula):
    """The recorded value behind every name in a formula; one name is one value."""
    values = {}
    for symbol in ancestors([formula]):
        if symbol.op is not None or symbol.constant is not None:
            continue
        value = derivation.value(symbol)
        assert np.array_equal(values.setdefault(symbol.symbol, value), value), f"two values are called {symbol.symbol}"
    assert len({python_name(n) for n in values}) == len(values), values.keys()
    return values


def widened(values):
    return {n: v.astype(np.float64) if v.dtype == np.float32 else v for n, v in values.items()}


def holds(program, derivation, formula):
    """Check a formula as it is printed in every style."""
    text = derivation.written(formula)
    if len(text) > LONGEST or "ops and values)" in text:
        return
    wanted = derivation.value(formula, np.dtype(np.float64))
    values = named_values(derivation, formula)
    assert not re.search(r"[{}]|tensor\(|float\d\d|\bNone(?=[^],])", text), text
    assert any(close(np.asarray(v), wanted, 1e-7) for v in reading.readings(text, formula, widened(values))), text
    is_readable(derivation.written(formula, "latex"))
    for style in ("code", "numpy"):
        try:
            code = derivation.written(formula, style)
        except LookupError:
            continue  # not every op has a NumPy form
        assert close(ran(program, code, style, values), wanted, 1e-3), code


def ran(program, code, style, values):
    """What printed code gives; in float64, where its own casts let it."""
    wide, narrow = ({python_name(n): v for n, v in some.items()} for some in (widened(values), values))
    with np.errstate(all="ignore"):
        if style == "numpy":
            return np.asarray(eval(code.replace("float32", "float64"), {"np": np, "math": math}, wide))
        space = {"cr": cr, "Cube": program.Cube}
        try:
            out = eval(code.replace("float32", "float64"), space, {n: cr.tensor(v) for n, v in wide.items()})
        except cr.errors.DTypeError:
            out = eval(code, space, {n: cr.tensor(v) for n, v in narrow.items()})
        return out.numpy() if isinstance(out, cr.Tensor) else np.asarray(out)


def is_readable(latex):
    """Balanced, and made of commands that KaTeX knows."""
    depth = 0
    for mark in re.findall(r"\\.|[{}]", latex):
        depth += {"{": 1, "}": -1}.get(mark, 0)
        assert depth >= 0, latex
    assert depth == 0, latex
    assert len(re.findall(r"\\left\b", latex)) == len(re.findall(r"\\right\b", latex)), latex
    assert set(re.findall(r"\\([A-Za-z]+)", latex)) <= KATEX, latex
    assert not re.search(r"(?<!\\)[#$%&]", latex), latex


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_what_is_printed_is_the_gradient(program, depth):
    for leaf in leaves(program.loss):
        e = asked(program, leaf, depth=depth)
        np.testing.assert_array_equal(e.value, leaf.grad.numpy())
        names = [link.name for link in e.links]
        assert len(set(names)) == len(names)
        for link in e.links:
            assert link.agrees, f"{link.name}: {link.error}"
            holds(program, e.derivation, link.formula)
        if e.combined is not None:
            assert close(e.derivation.value(e.combined, np.dtype(np.float64)), e.value.astype(np.float64), 1e-3)
            holds(program, e.derivation, e.combined)


@pytest.mark.parametrize("depth", [1, 2])
def test_every_form_is_told(program, depth):
    for leaf in leaves(program.loss):
        e = asked(program, leaf, depth=depth)
        entry = asked(program, leaf, depth=depth, at=tuple(n // 2 for n in leaf.shape))
        for text in (str(e), str(e.unfold()), str(entry), str(asked(program, leaf, notation="composition"))):
            assert not re.search(r"\{\d\}|DIFFERS by|unchecked", text), text
        is_readable(e.latex())
        is_readable(latex_lines.chain(e))
        assert json.loads(e.json())["wrt"] == e.name


def test_every_rule_is_right(program):
    report = cr.check(program.loss)
    assert report.passed, str(report)


def test_the_backward_written_out_runs(program):
    loss = program.loss
    space = {k: v for k, v in vars(program).items() if not k.startswith("_")}
    source = eval("cr.backward_source(loss)", {**space, "cr": cr})
    written = {"Cube": program.Cube}
    exec(source, written)
    derivation = asked(program, leaves(loss)[0]).derivation
    given = [x for x in ancestors([loss]) if x.op is None and x.constant is None]
    by_name = {python_name(derivation.name(x)): x for leaf in given for x in (leaf, *behind(leaf))}
    code = written["backward"].__code__
    found = written["backward"](*(by_name[n].detach() for n in code.co_varnames[: code.co_argcount]))
    found = found if isinstance(found, tuple) else (found,)
    for leaf, g in zip(leaves(loss), found, strict=True):
        assert g.shape == leaf.shape, source
        assert close(g.numpy().astype(np.float64), leaf.grad.numpy().astype(np.float64), 1e-3), source


def behind(leaf):
    """What a constant is a view of."""
    while leaf.origin is not None:
        leaf = leaf.origin[1]
        yield leaf


# --- what random programs led to


def test_a_result_that_is_read_on_inside_counts_once():
    def both(x):
        t = x * 2
        return t, t.square().sum()

    w = cr.randn(3, requires_grad=True)
    t, s = both(w)
    loss = (t * 3).sum() + s
    e = cr.explain(loss, wrt=w)
    assert [link.name for link in e.links] == ["s", "t", "w"]
    assert all(link.agrees for link in e.links)
    assert e.derivation.written(e.links[1].formula) == "2 s.g * t + 3"


def test_a_value_inside_a_function_can_be_asked_for():
    inside = []

    def step(x):
        inside.append(x * 3)
        return inside[-1].tanh()

    w = cr.randn(4, requires_grad=True)
    loss = step(w).sum()
    e = cr.explain(loss, wrt=inside[0])
    assert e.links[-1].agrees
    assert len(e.links[-1].parts) == 1


@pytest.mark.parametrize("seed", range(8))
def test_terms_that_cancel_are_no_disagreement(seed):
    """Down to a few roundings, or to 0 altogether: which of them depends on the order of NumPy's sums."""
    cr.manual_seed(seed)
    w = cr.randn(50, requires_grad=True)
    loss = w.softmax(0).sum() + (w - w.mean()).sum()  # its gradient is 0, and rounding
    e = cr.explain(loss, wrt=w, depth=2)
    assert all(link.agrees for link in e.links), str(e)


@pytest.mark.parametrize("dtype", [cr.bfloat16, cr.float16, cr.float64], ids=str)
def test_a_gradient_of_zero_has_a_size_to_compare_with(dtype):
    w = cr.ones(3, dtype=dtype, requires_grad=True)
    e = cr.explain((w * 0.0).sum(), wrt=w)
    assert all(link.agrees for link in e.links), str(e)


def test_a_formula_keeps_what_is_not_finite():
    x = cr.tensor([0.0, 1.0], requires_grad=True)
    loss = (x.sqrt() * 0.0).sum()  # 0 x inf: the engine says nan, and so does the formula
    e = cr.explain(loss, wrt=x)
    assert np.isnan(e.value[0])
    assert e.links[-1].agrees, str(e)


def test_the_loss_goes_by_its_name_in_latex():
    w = cr.randn(3, requires_grad=True)
    h = w.exp()
    total = h.square().mean()
    e = cr.explain(total, wrt=w)
    assert r"\partial \mathit{total}" in e.latex()
    assert "loss" not in e.latex() + latex_lines.chain(e)


def whole(x, w):
    h = x[0]
    for i in range(len(x)):
        h = (h @ w + x[i]).tanh()
    return h


def test_a_long_loop_is_explained_at_every_depth():
    x, w = cr.randn(300, 2, 4), (cr.randn(4, 4) / 4).requires_grad_()
    loss = whole(x, w).square().mean()
    for depth in (1, 2):
        e = cr.explain(loss, wrt=w, depth=depth)
        assert all(link.agrees for link in e.links)
        assert len(str(e)) < 20_000
        assert json.loads(e.json())["wrt"] == "w"
    loss.backward()
    written = {}
    exec(cr.backward_source(loss), written)
    np.testing.assert_allclose(written["backward"](x, w.detach()).numpy(), w.grad.numpy(), rtol=1e-3, atol=1e-6)


def test_a_hundred_layers():
    model = nn.Sequential(*[layer for _ in range(100) for layer in (nn.Linear(4, 4), nn.Tanh())])
    loss = model(cr.randn(3, 4)).square().mean()
    e = cr.explain(loss, wrt=model[0].weight)
    assert len(e.links) == 201
    assert all(link.agrees for link in e.links)
    assert str(e).count("\n") < 60
    assert e.derivation.combined(e.wrt) is not None


def test_names_that_code_spells_alike_are_told_apart():
    w = cr.randn(3, requires_grad=True)
    out = w * 2
    out_g = out.exp()
    h = out_g + 1
    h_1 = h * h
    h = h_1 + out
    loss = h.sum() + out_g.sum()
    spelled = {python_name(f"{link.name}{end}") for link in cr.explain(loss, wrt=w).links for end in ("", ".g")}
    assert len(spelled) == 2 * len(cr.explain(loss, wrt=w).links)
    loss.backward()
    written = {}
    exec(cr.backward_source(loss), written)
    np.testing.assert_allclose(written["backward"](w.detach()).numpy(), w.grad.numpy(), rtol=1e-5)
