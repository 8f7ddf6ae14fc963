"""Windows are views: they cost no memory, and a change of what they show is noticed."""

import numpy as np
import pytest

import chainrule as cr
from chainrule.errors import ArgumentError, ShapeError, StaleValueError
from chainrule.ops.windows import overlap_add, windows

F = cr.nn.functional
PARAMS = {"size": (2, 3), "stride": (2, 1), "dilation": (1, 2)}

# One array in the layouts that steps before may leave it in; the last two have no dense order of their own.
LAYOUTS = {
    "rows": lambda x: x,
    "channels last": lambda x: np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
    "columns": np.asfortranarray,
    "backwards": lambda x: np.ascontiguousarray(x[..., ::-1])[..., ::-1],
    "a part": lambda x: np.pad(x, 1)[1:-1, 1:-1, 1:-1, 1:-1],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_windows_of_any_layout(layout: str) -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 6, 7))
    laid = LAYOUTS[layout](x)
    np.testing.assert_array_equal(laid, x)
    found = windows.reference(laid, **PARAMS)
    wide = np.lib.stride_tricks.sliding_window_view(x, (2, 5), axis=(2, 3))[:, :, ::2, :, :, ::2]
    np.testing.assert_array_equal(found, wide)
    assert not found.flags.writeable
    if layout in ("rows", "channels last", "columns"):
        assert np.shares_memory(found, laid)
    back = overlap_add.reference(found, shape=x.shape, **PARAMS)
    counts = overlap_add.reference(np.ones_like(found), shape=x.shape, **PARAMS)
    np.testing.assert_allclose(back, x * counts, rtol=1e-12)


def test_overlapping_sums_of_short_floats_are_added_in_float32() -> None:
    ones = np.ones((1, 3000), np.float16)
    (total,) = overlap_add.reference(ones.T, shape=(3000,), size=(1,), stride=(1,), dilation=(1,)).max(keepdims=True)
    assert total == 1
    x = np.full((9, 8), np.float16(0.1))
    found = overlap_add.reference(x, shape=(16,), size=(8,), stride=(1,), dilation=(1,))
    assert found.dtype == np.float16
    np.testing.assert_allclose(found[7], np.float16(8 * np.float32(np.float16(0.1))))


def test_a_change_under_a_window_is_noticed() -> None:
    x = cr.arange(6.0).clone()
    w = cr.ones(2, requires_grad=True)
    loss = (F.windows(x, 2) * w).sum()
    x[0] = 7.0
    with pytest.raises(StaleValueError, match="needs the old value"):
        loss.backward()


def test_windows_as_a_user_calls_them() -> None:
    x = cr.arange(24.0).reshape(2, 3, 4)
    assert F.windows(x, (2, 2)).shape == (2, 2, 3, 2, 2)
    assert F.windows(x, 3, stride=2).shape == (2, 3, 1, 3)
    assert F.windows(cr.arange(5), 2, dilation=2).tolist() == [[0, 2], [1, 3], [2, 4]]
    with pytest.raises(ShapeError, match=r"windows: float32\[2,3,4\] is smaller than a window, which spans \[4, 1\]"):
        F.windows(x, (4, 1))
    with pytest.raises(ArgumentError, match="windows: size must be an int ≥ 1; got 0"):
        F.windows(x, 0)
    with pytest.raises(ArgumentError, match=r"windows: stride must be an int ≥ 1, or 2 of them; got \(1, 1, 1\)"):
        F.windows(x, (2, 2), (1, 1, 1))
    with pytest.raises(
        ShapeError, match=r"overlap_add: the windows of \[5\] are \[3, 3\], the input is float32\[2,3\]"
    ):
        F.overlap_add(cr.ones(2, 3), (5,), 3)
