"""Products of matrices and vectors, as a user calls them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule.array.align import as_node, expand
from chainrule.core.node import Node, apply, at_user_line
from chainrule.errors import DTypeError, ShapeError
from chainrule.ops import contraction, movement

if TYPE_CHECKING:
    from chainrule.tensor import Tensor


def matmul(x: Tensor | np.ndarray, y: Tensor | np.ndarray) -> Tensor:
    """The matrix product x @ y.

    Args:
        x: (…, n, k), or (k,) for a row.
        y: (…, k, m), or (k,) for a column. Batch dimensions broadcast.
    Returns: (…, n, m), without the dimension that a vector lacks.
    Raises: ShapeError: the inner sizes differ. DTypeError: the dtypes differ.
    """
    left: Any = x if isinstance(x, Node) else as_node(x, y, "matmul")
    right: Any = y if isinstance(y, Node) else as_node(y, x, "matmul")
    a, b = left.array, right.array
    if a is not None and b is not None and a.ndim == 2 == b.ndim and a.dtype is b.dtype:
        product: Tensor = apply(contraction.matmul, (left, right))
    else:
        product = _of_any_rank(left, right)
    return product


def _of_any_rank(x: Any, y: Any) -> Any:
    """A vector becomes a row (left) or a column (right), and the product loses that dimension again."""
    a, b = x.aval, y.aval
    if a.ndim == 0 or b.ndim == 0:
        raise at_user_line(ShapeError(f"matmul: needs vectors or matrices; got {a} @ {b}; use * for a scalar"))
    if a.shape[-1] != b.shape[-2 if b.ndim > 1 else 0]:
        raise at_user_line(ShapeError(f"matmul: inner sizes differ: {a} @ {b}; transpose one input or reshape"))
    if a.dtype != b.dtype:
        raise at_user_line(DTypeError(f"matmul: inputs must share one dtype; got {a} @ {b}; cast one with .to()"))
    row, column = a.ndim == 1, b.ndim == 1
    product = _of_matrices(
        movement.reshape(x, shape=(1, *a.shape)) if row else x,
        movement.reshape(y, shape=(*b.shape, 1)) if column else y,
    )
    shape = product.aval.shape
    kept = (*shape[:-2], *(() if row else shape[-2:-1]), *(() if column else shape[-1:]))
    return movement.reshape(product, shape=kept) if kept != shape else product


def _of_matrices(x: Any, y: Any) -> Any:
    """Batches of matrices, broadcast against each other."""
    a, b = x.aval, y.aval
    if a.shape[:-2] == b.shape[:-2]:
        return contraction.matmul(x, y)
    if b.ndim == 2 and a.size:
        # One matrix for the whole batch: its rows under each other make one product, and one sum in the backward.
        product = contraction.matmul(movement.reshape(x, shape=(a.size // a.shape[-1], a.shape[-1])), y)
        return movement.reshape(product, shape=(*a.shape[:-1], b.shape[1]))
    try:
        batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError:
        raise at_user_line(ShapeError(f"matmul: batch dimensions do not broadcast: {a} @ {b}")) from None
    return contraction.matmul(expand(x, (*batch, *a.shape[-2:])), expand(y, (*batch, *b.shape[-2:])))


def dot(x: Tensor, y: Tensor) -> Tensor:
    """Σ xᵢ yᵢ of two vectors of one length."""
    if x.ndim != 1 or y.ndim != 1:
        raise at_user_line(ShapeError(f"dot: needs two vectors; got {x.aval} and {y.aval}"))
    return matmul(x, y)


def outer(x: Tensor, y: Tensor) -> Tensor:
    """xᵢ yⱼ of two vectors."""
    if x.ndim != 1 or y.ndim != 1:
        raise at_user_line(ShapeError(f"outer: needs two vectors; got {x.aval} and {y.aval}"))
    return x.reshape(-1, 1) * y.reshape(1, -1)


def _ranked(name: str, rank: int) -> Any:
    def product(x: Tensor, y: Tensor) -> Tensor:
        if x.ndim != rank or y.ndim != (rank if name != "mv" else 1):
            raise at_user_line(
                ShapeError(f"{name}: got {x.aval} and {y.aval}; use matmul for other numbers of dimensions")
            )
        return matmul(x, y)

    product.__name__ = product.__qualname__ = name
    product.__doc__ = {
        "mm": "x @ y of two matrices.",
        "bmm": "x @ y of two batches of matrices.",
        "mv": "x @ y of a matrix and a vector.",
    }[name]
    return product


mm, bmm, mv = _ranked("mm", 2), _ranked("bmm", 3), _ranked("mv", 2)
