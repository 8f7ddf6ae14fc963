"""Matrix products that are none: an inner size of 1, or a single row or column.

They become elementwise products and sums, which fuse with what stands around them.
"""

from __future__ import annotations

from typing import Any

from chainrule import dtypes
from chainrule.compile.passes.rewriting import rewritten, stored
from chainrule.compile.program import Program
from chainrule.core.node import Ratio
from chainrule.ops import contraction, elementwise, movement, reduction


def thin_products(program: Program) -> Program:
    """A matrix product of one row, one column or one term a sum is a multiplication, and a sum."""
    return rewritten(program, (_thin, stored))


def _thin(node: Any) -> Any:
    """X @ y = Σ_k X[i, k] y[k], xᵀ @ Y = Σ_k x[k] Y[k, j], and x @ yᵀ = x[i] y[j] without a sum.

    16-bit floats are multiplied and added in float32 and rounded once, as in every matrix product.
    """
    if node.op is not contraction.matmul:
        return None
    x, y = node.inputs
    (rows, inner), columns = x.aval.shape[-2:], y.aval.shape[-1]
    if inner == 0:
        return type(node).number(node.aval, Ratio(0))
    if inner == 1:
        product = elementwise.mul(*(movement.expand(_wide(v), shape=node.aval.shape) for v in (x, y)))
    elif columns == 1:
        product = _weighted(x, y, inner)
    elif rows == 1:
        product = _weighted(movement.permute(y, dims=_swapped(y)), x, inner)
    else:
        return None
    return movement.cast(movement.reshape(product, shape=node.aval.shape), dtype=node.aval.dtype)


def _weighted(matrix: Any, weights: Any, inner: int) -> Any:
    """Σ_k matrix[i, k] weights[k], read in the order in which the matrix was made."""
    batch = matrix.aval.shape[:-2]
    transposed = matrix.op is movement.permute and movement.swaps_last_two(matrix.params["dims"])
    if transposed:
        (matrix,) = matrix.inputs
    matrix, weights = _wide(matrix), _wide(weights)
    weights = movement.reshape(weights, shape=(*batch, inner, 1) if transposed else (*batch, 1, inner))
    terms = elementwise.mul(matrix, movement.expand(weights, shape=matrix.aval.shape))
    return reduction.sum_(terms, dim=(len(batch) + (0 if transposed else 1),), keepdim=False)


def _wide(x: Any) -> Any:
    return movement.cast(x, dtype=dtypes.work_dtype(x.aval.dtype))


def _swapped(x: Any) -> tuple[int, ...]:
    rank = x.aval.ndim
    return (*range(rank - 2), rank - 1, rank - 2)
