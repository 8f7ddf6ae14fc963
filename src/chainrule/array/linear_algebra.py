"""Products of matrices and vectors, as a user calls them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule.array.align import as_node, broadcast_shapes, expand
from chainrule.core.aval import Aval
from chainrule.core.node import Node, apply, at_user_line
from chainrule.errors import ShapeError
from chainrule.ops import contraction, movement

if TYPE_CHECKING:
    from chainrule.tensor import Tensor


def matmul(x: Tensor, y: Tensor | np.ndarray) -> Tensor:
    """The matrix product x @ y.

    Args:
        x: (…, n, k), or (k,) for a row.
        y: (…, k, m), or (k,) for a column. Batch dimensions broadcast.
    Returns: (…, n, m), without the dimension that a vector lacks.
    Raises: ShapeError: the inner sizes differ. DTypeError: the dtypes differ.
    """
    if not isinstance(y, Node):
        y = as_node(y, x)
    if not isinstance(x, Node):
        x = as_node(x, y)
    a, b = x.data, y.data
    if a is not None and b is not None and a.ndim == 2 == b.ndim:
        return apply(contraction.matmul, (x, y))  # type: ignore[no-any-return]
    return _general(x, y)  # type: ignore[no-any-return]


def _general(x: Any, y: Any) -> Any:
    if x.aval.ndim == 0 or y.aval.ndim == 0:
        raise at_user_line(
            ShapeError(f"matmul: needs vectors or matrices; got {x.aval} @ {y.aval}; use * for a scalar")
        )
    if x.aval.ndim == 1:
        product = _general(movement.reshape(x, shape=(1, *x.aval.shape)), y)
        return movement.reshape(product, shape=(*product.aval.shape[:-2], *product.aval.shape[-1:])) if y.aval.ndim > 1 else (
            movement.reshape(product, shape=())
        )  # fmt: skip
    if y.aval.ndim == 1:
        product = _general(x, movement.reshape(y, shape=(*y.aval.shape, 1)))
        return movement.reshape(product, shape=product.aval.shape[:-1])
    if x.aval.shape[:-2] == y.aval.shape[:-2]:
        return contraction.matmul(x, y)
    if y.aval.ndim == 2 and x.aval.shape[-1] == y.aval.shape[0]:
        # One matrix for the whole batch: the batch's rows under each other make one product, and one sum in the backward.
        rows = (
            movement.reshape(x, shape=(x.aval.size // x.aval.shape[-1] if x.aval.shape[-1] else 0, x.aval.shape[-1]))
            if x.aval.size
            else None
        )
        if rows is not None:
            product = contraction.matmul(rows, y)
            return movement.reshape(product, shape=(*x.aval.shape[:-1], y.aval.shape[1]))
    batch = broadcast_shapes("matmul", [Aval(x.aval.shape[:-2], x.aval.dtype), Aval(y.aval.shape[:-2], y.aval.dtype)])
    return contraction.matmul(expand(x, (*batch, *x.aval.shape[-2:])), expand(y, (*batch, *y.aval.shape[-2:])))


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
    def product(x: Any, y: Any) -> Any:
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
