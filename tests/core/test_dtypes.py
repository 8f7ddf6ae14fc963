"""Names of dtypes, and that bad ones are refused."""

import numpy as np
import pytest

from chainrule import dtypes
from chainrule.errors import DTypeError


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (float, "float32"),
        (int, "int64"),
        (bool, "bool"),
        ("double", "float64"),
        ("half", "float16"),
        ("bfloat16", "bfloat16"),
        (np.float64, "float64"),
        (np.dtype("int8"), "int8"),
        ("uint16", "uint16"),
        ("long", "int64"),
        ("int", "int32"),
    ],
)
def test_spellings(given, meant):
    assert str(dtypes.as_dtype(given)) == meant


@pytest.mark.parametrize("given", ["foo", complex, object, np.dtype("complex64"), str, 3, None.__class__])
def test_refusals(given):
    with pytest.raises(DTypeError, match="dtype: expected one of bool"):
        dtypes.as_dtype(given)


def test_the_accumulator_is_wide_enough():
    assert dtypes.work_dtype(dtypes.float16) == dtypes.work_dtype(dtypes.bfloat16) == dtypes.float32
    assert dtypes.work_dtype(dtypes.float64) == dtypes.float64
    assert dtypes.work_dtype(dtypes.int8) == dtypes.int8
