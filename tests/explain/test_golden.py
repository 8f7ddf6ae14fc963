"""What a person reads, held in golden files: the page's program explained.

Numbers are rounded to three digits and rounding errors hidden: a different BLAS rounds differently, and says the same.
To accept a change that was read and found better: pytest tests/explain/test_golden.py --snapshot-update
"""

import importlib.util
import json
import re
from pathlib import Path

import pytest

import chainrule as cr


@pytest.fixture(scope="module")
def program():
    spec = importlib.util.spec_from_file_location("page_program", Path(__file__).parent / "page_program.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def steady(text):
    text = re.sub(r"(ok|error:?) \d(\.\d)?e[+-]\d+", r"\1 #", str(text))
    text = re.sub(r'("(error|measured|stated)": )[-+.\de]+', r"\1#", text)
    text = re.sub(r"-?\d+\.\d+(e-?\d+)?", lambda m: f"{float(m.group()):.3g}", text)
    # A column is as wide as its longest cell, and that may be a number.
    return re.sub(r"(?<=\S) {2,}", "  ", text)


def names(module):
    return {k: v for k, v in vars(module).items() if not k.startswith("_")}


def explain(program, *args, **kwargs):
    # As if the program itself called explain: its variables name the values.
    return eval("cr.explain(*args, **kwargs)", {**names(program), "cr": cr, "args": args, "kwargs": kwargs})


def test_the_bias(program, snapshot):
    assert steady(explain(program, program.loss, wrt=program.b2)) == snapshot


def test_the_bias_unfolded(program, snapshot):
    assert steady(explain(program, program.loss, wrt=program.b2).unfold()) == snapshot


def test_the_first_weight(program, snapshot):
    assert steady(explain(program, program.loss, wrt=program.w1)) == snapshot


def test_one_entry(program, snapshot):
    assert steady(explain(program, program.loss, wrt=program.w1, at=(3, 7))) == snapshot


def test_the_other_notation(program, snapshot):
    assert steady(explain(program, program.loss, wrt=program.w1, notation="composition")) == snapshot


def test_latex(program, snapshot):
    assert explain(program, program.loss, wrt=program.w1).latex() == snapshot


def test_json(program, snapshot):
    text = explain(program, program.loss, wrt=program.b2).json()
    assert json.loads(text)["wrt"] == "b2"
    assert steady(text) == snapshot


@pytest.mark.parametrize("style", ["chainrule", "torch", "numpy"])
def test_source_of_the_loss(program, snapshot, style):
    assert cr.backward_source(program.loss, style=style) == snapshot


@pytest.mark.parametrize("style", ["chainrule", "torch", "numpy"])
def test_source_of_mse(program, snapshot, style):
    assert cr.backward_source(program.mse, program.out, program.y, style=style) == snapshot


def test_rule_check(program, snapshot):
    assert steady(cr.check(program.loss)) == snapshot
