"""Kernels that NumPy lacks, against the C library and against what they must do at the edges."""

import math

import numpy as np
import pytest

from chainrule.ops.kernels import erf_kernel, gate_kernel, log_sigmoid_kernel, sigmoid_kernel, softplus_kernel


def test_erf_is_within_four_ulp_of_the_c_library():
    x = np.concatenate([np.linspace(-7, 7, 20_001), np.logspace(-300, 1, 500), [0.46875, 4.0, 6.0]])
    wanted = np.array([math.erf(v) for v in x])
    assert np.max(np.abs(erf_kernel(x) - wanted) / np.spacing(np.abs(wanted))) <= 4


def test_erf_at_the_edges():
    found = erf_kernel(np.array([0.0, -0.0, np.inf, -np.inf, np.nan]))
    np.testing.assert_array_equal(found, [0.0, -0.0, 1.0, -1.0, np.nan])
    assert np.signbit(found[1])
    assert erf_kernel(np.array(0.5)).shape == ()
    assert erf_kernel(np.zeros((0, 3), np.float32)).shape == (0, 3)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64, np.bool_])
def test_a_gate_is_where(dtype):
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((5, 7)) * 9).astype(dtype)
    c = rng.random((5, 7)) > 0.5
    for a, b in ((x, c), (x.T, c.T), (x[::2], c[::2]), (x[:, 0], c[:, 0]), (x[0, 0], c[0, 0])):
        a, b = np.asarray(a), np.asarray(b)
        np.testing.assert_array_equal(gate_kernel(b, a), np.where(b, a, a.dtype.type(0)))


def test_a_closed_gate_lets_no_infinity_through():
    x = np.array([np.inf, np.nan, -np.inf, 2.0], np.float32)
    np.testing.assert_array_equal(gate_kernel(np.array([False, False, False, True]), x), [0, 0, 0, 2])


@pytest.mark.filterwarnings("ignore:overflow encountered in exp:RuntimeWarning")  # the engine runs kernels without it
def test_the_sigmoid_family_has_no_cliff():
    x = np.array([-1e4, -100.0, 0.0, 100.0, 1e4])
    np.testing.assert_allclose(sigmoid_kernel(x), [0.0, 3.720076e-44, 0.5, 1.0, 1.0], rtol=1e-6)
    np.testing.assert_allclose(log_sigmoid_kernel(x), [-1e4, -100.0, -math.log(2), 0.0, 0.0], atol=1e-40)
    np.testing.assert_allclose(softplus_kernel(x), [0.0, 0.0, math.log(2), 100.0, 1e4], atol=1e-40)
