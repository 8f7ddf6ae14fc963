"""Random programs, compiled, are what they are eagerly: results and gradients, at any number of threads, for any target.

CHAINRULE_TEST_EFFORT=20 draws twenty times as many, and others at each run.
"""

import numpy as np
import pytest
from drawn import Program, programs
from equality import EFFORT, arrays, assert_equal, compiled, quietly
from hypothesis import HealthCheck, given, settings

import chainrule as cr
from chainrule.compile.llvm.target import Target
from chainrule.errors import ArgumentError

CLOSE = 1e-10  # of float64, relative to the largest entry: what 25 steps, some of them unsteady, make of 1e-16

drawn_many = settings(
    max_examples=60 * EFFORT, derandomize=EFFORT == 1, suppress_health_check=list(HealthCheck), database=None
)
drawn_few = settings(parent=drawn_many, max_examples=12 * EFFORT)


def held(program: Program, found: list[np.ndarray], wanted: list[np.ndarray]) -> None:
    for number, (f, w) in enumerate(zip(found, wanted, strict=True)):
        size = float(np.abs(w[np.isfinite(w)]).max(initial=1.0))
        assert_equal(f, w, f"result {number} of\n{program!r}\n", size, CLOSE)


@given(programs())
@drawn_many
def test_values_and_gradients(program):
    inputs = program.tensors()
    cr.manual_seed(7)
    wanted = quietly(program.value_and_gradients, *inputs)
    cr.manual_seed(7)
    found = arrays(compiled(program.value_and_gradients)(*inputs))
    held(program, found, wanted)
