"""The tools beside the library: what they import is where they look for it. They are run by hand, now and then."""

from itertools import pairwise
from pathlib import Path

import pytest

import chainrule as cr
from chainrule.compile import writing
from chainrule.compile.jit import Compiled
from chainrule.compile.pipeline import optimised

TOOLS = sorted((Path(__file__).parents[2] / "tools").glob("*.py"))


@pytest.mark.parametrize("path", TOOLS, ids=lambda path: path.stem)
def test_tools_find_what_they_import(path, load):
    assert callable(load(path).main)


def test_memcheck_keeps_temporaries_apart(load, monkeypatch):
    """Its own plan of the arena stands in for the library's, and is asked as that is."""
    memcheck = load(TOOLS[0].parent / "memcheck.py")
    monkeypatch.setattr(writing, "planned", memcheck.planned_apart)
    plans = []

    def build(program):
        written = writing.write(optimised(program), threads=2)
        plans.append(written.arena)
        return written.native()

    x, w, v = cr.randn(8, 6), cr.randn(6, 5), cr.randn(5, 4)
    function = lambda x, w, v: cr.grad(lambda w: ((x @ w).tanh() @ v).square().sum())(w)  # noqa: E731
    assert (Compiled(function, build=build)(x, w, v) - function(x, w, v)).abs().max() < 1e-4
    ends = [(stay.start, stay.start + stay.buffer.bytes) for stay in plans[0].stays]
    assert len(ends) > 1
    assert all(start - end >= memcheck.GAP for (_, end), (start, _) in pairwise(ends))
