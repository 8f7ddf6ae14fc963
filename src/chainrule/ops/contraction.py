"""Ops that multiply and sum over shared indices: linear in each of two inputs, so each states two transposes.

Source: Giles (2008), An extended collection of matrix derivative results, section 2.2.2:
for C = A B, the cotangents are Ā = C̄ Bᵀ and B̄ = Aᵀ C̄.
"""

from __future__ import annotations

import numpy as np

from chainrule import dtypes
from chainrule.core.aval import Aval
from chainrule.core.family import Contraction
from chainrule.core.notation import PRODUCT, Notation
from chainrule.core.sample import Arg, Misuse, floats
from chainrule.errors import DTypeError, ShapeError


def _matmul_shape(x: Aval, y: Aval) -> Aval:
    if x.ndim < 2 or y.ndim < 2 or x.shape[:-2] != y.shape[:-2]:
        raise ShapeError(f"matmul: needs matrices with equal batch dimensions; got {x} @ {y}")
    if x.shape[-1] != y.shape[-2]:
        raise ShapeError(f"matmul: inner sizes differ: {x} @ {y}; transpose one input or reshape")
    if x.dtype != y.dtype or x.dtype == dtypes.bool_:
        raise DTypeError(f"matmul: inputs must share one numeric dtype; got {x} @ {y}; cast one with .to()")
    return Aval((*x.shape[:-1], y.shape[-1]), x.dtype)


def _matmul_kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    if x.dtype.kind == "b":
        raise DTypeError(f"matmul: needs numbers; got bool{list(x.shape)} @ bool{list(y.shape)}; cast with .to()")
    out: np.ndarray
    work = dtypes.work_dtype(x.dtype)
    if work is not x.dtype:
        out = np.matmul(x.astype(work), y.astype(work)).astype(x.dtype)
    elif x.shape[-1] == 1 == y.shape[-2]:  # one product an entry, no sum: BLAS takes more than twice as long
        out = np.multiply(x, y)
    else:
        out = np.matmul(x, y)
    return out


def _matmul_subscripts(x: Aval, y: Aval) -> tuple[str, str, str]:
    batch = "abcdefgh"[: x.ndim - 2]
    return batch + "ik", batch + "kj", batch + "ij"


matmul = Contraction(
    name="matmul",
    reference=_matmul_kernel,
    notation=Notation(
        text="{0} @ {1}",
        latex=r"{0}\,{1}",
        code="{0} @ {1}",
        numpy="{0} @ {1}",
        binds=PRODUCT,
        inside=PRODUCT,
        left=True,
    ),
    shape_rule=_matmul_shape,
    transposes=(lambda g, x, y: g @ y.mT, lambda g, x, y: x.mT @ g),
    subscripts=_matmul_subscripts,
    source="https://people.maths.ox.ac.uk/gilesm/files/NA-08-01.pdf",
    samples=(floats((2, 3), (3, 4)), floats((5, 2, 3), (5, 3, 4)), floats((1, 1), (1, 1)), floats((2, 0), (0, 3))),
    misuses=(
        Misuse((Arg((2, 3)), Arg((4, 5))), {}, ShapeError, "inner sizes differ"),
        Misuse((Arg((3,)), Arg((3, 2))), {}, ShapeError, "needs matrices"),
        Misuse((Arg((2, 3)), Arg((3, 2), "int")), {}, DTypeError, "share one numeric dtype"),
    ),
)

ALL = (matmul,)
