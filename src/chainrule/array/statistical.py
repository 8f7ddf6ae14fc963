"""Sums, means, extremes and their like, as a user calls them: `dim` an int, a tuple or None for all."""

from __future__ import annotations

import builtins
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from chainrule import dtypes
from chainrule.array import elementwise, indexing, manipulation
from chainrule.array.align import as_dtype, floating, one_dim, some_dims, to_dtype
from chainrule.core.node import Node, apply, at_user_line
from chainrule.errors import ArgumentError, DTypeError
from chainrule.ops import indexing as indexing_ops
from chainrule.ops import normalisation, reduction

if TYPE_CHECKING:
    from chainrule.tensor import Tensor

Dims = int | Sequence[int] | None


class Extreme(NamedTuple):
    """The values and the positions found along a dimension."""

    values: Tensor
    indices: Tensor


def _counted(x: Any, dtype: object) -> Any:
    """`x` as the dtype asked for; without one, integers and bools as int64."""
    if dtype is not None:
        return to_dtype(x, as_dtype(dtype))
    return x if dtypes.is_float(x.dtype) else to_dtype(x, dtypes.DEFAULT_INT)


def sum(x: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: object = None) -> Tensor:
    """Σ x along `dim`; integers and bools are summed as int64. `dtype`: what to cast `x` to first."""
    x = _counted(x, dtype)
    if x.dtype == dtypes.bool_:  # asked for: a sum of truth values is their `any`
        return any(x, dim, keepdim)
    return apply(reduction.sum_, (x,), {"dim": some_dims("sum", dim, x.aval.ndim), "keepdim": keepdim})


def mean(x: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: object = None) -> Tensor:
    """Mean along `dim`. Of no entries: nan. `dtype`: what to cast `x` to first."""
    x = x if dtype is None else to_dtype(x, as_dtype(dtype))
    if not dtypes.is_float(x.dtype):
        raise at_user_line(DTypeError(f"mean: needs a float dtype; got {x.aval}; cast it with .to(cr.float32)"))
    return apply(reduction.mean, (x,), {"dim": some_dims("mean", dim, x.aval.ndim), "keepdim": keepdim})


def var(
    x: Tensor,
    dim: Dims | bool = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Tensor:
    """Variance along `dim`: Σ (x − mean)² / (n − correction).

    Args:
        x: any shape.
        dim: an int, several, or None for all.
        unbiased: the older way to say correction=1 (True) or correction=0 (False).
        keepdim: keep the reduced dimensions with size 1.
        correction: what is taken off the count; 1 if not given.
    """
    dims, correction = _corrected("var", dim, unbiased, correction)
    return reduction.var(floating(x), dim=some_dims("var", dims, x.ndim), keepdim=keepdim, correction=correction)


def std(
    x: Tensor,
    dim: Dims | bool = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Tensor:
    """Standard deviation along `dim`, √var, with the arguments of `var`."""
    return elementwise.sqrt(var(x, dim, unbiased, keepdim, correction=correction))


def _corrected(name: str, dim: Any, unbiased: bool | None, correction: float | None) -> tuple[Dims, float]:
    """(dim, correction) of the two ways to say them; var(x, False) means unbiased=False."""
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    if unbiased is not None and correction is not None:
        raise at_user_line(ArgumentError(f"{name}: give unbiased or correction, not both"))
    if correction is None:
        correction = 1 if unbiased is None else int(unbiased)
    return dim, correction


def norm(
    x: Tensor,
    p: float | str | None = "fro",
    dim: Dims = None,
    keepdim: bool = False,
    dtype: object = None,
) -> Tensor:
    """The p-norm of the entries along `dim`, (Σ |x|ᵖ)^(1/p). Gradient at the origin: 0.

    Args:
        x: any shape.
        p: 2 or "fro", the Euclidean norm; ±inf, the largest or smallest |x|; 0, the count of entries that are not 0; or
            any other number.
        dim: an int, several, or None for all.
        keepdim: keep the reduced dimensions with size 1.
        dtype: what to cast `x` to first.
    Raises: ArgumentError: p is another word ("nuc" needs singular values).
    """
    x = floating(x) if dtype is None else to_dtype(x, as_dtype(dtype))
    dims = some_dims("norm", dim, x.ndim)
    if p is None or p == "fro" or p == 2:
        return reduction.norm(x, dim=dims, keepdim=keepdim)
    if isinstance(p, str):
        raise at_user_line(ArgumentError(f'norm: p must be a number or "fro"; got {p!r}'))
    size = elementwise.abs(x)
    if math.isinf(p):
        return (amax if p > 0 else amin)(size, dims, keepdim)
    if p == 0:
        return sum(to_dtype(elementwise.ne(x, 0), x.dtype), dims, keepdim)
    if p == 1:
        return sum(size, dims, keepdim)
    return elementwise.pow(sum(elementwise.pow(size, p), dims, keepdim), 1 / p)


def logsumexp(x: Tensor, dim: Dims, keepdim: bool = False) -> Tensor:
    """log Σ eˣ along `dim`, without overflow."""
    return reduction.logsumexp(floating(x), dim=some_dims("logsumexp", dim, x.ndim), keepdim=keepdim)


def prod(x: Tensor, dim: int | None = None, keepdim: bool = False, *, dtype: object = None) -> Tensor:
    """Π x along `dim` (one dimension, or None for all).

    Multiplied pairwise, halves with halves: no rule divides by an entry, so gradients of all orders are right at zeros.
    `dtype`: what to cast `x` to first; without it, integers and bools are multiplied as int64.
    """
    x = _counted(x, dtype)
    if x.dtype == dtypes.bool_:  # asked for: a product of truth values is their `all`
        return all(x, dim, keepdim)
    if dim is None:
        total = prod(manipulation.reshape(x, (x.aval.size,)), 0)
        return manipulation.reshape(total, (1,) * x.ndim) if keepdim else total
    where = one_dim("prod", dim, x.ndim)
    if x.ndim == 0:
        return x
    if x.shape[where] == 0:
        shape = [1 if d == where else n for d, n in enumerate(x.shape)]
        product: Any = type(x).filled(x.aval._replace(shape=tuple(shape)), 1)
    else:
        product = x
        while product.shape[where] > 1:
            n = product.shape[where]
            half = n // 2
            pairs = manipulation.narrow(product, where, 0, half) * manipulation.narrow(product, where, half, half)
            odd = [manipulation.narrow(product, where, n - 1, 1)] if n % 2 else []
            product = manipulation.cat([pairs, *odd], where) if odd else pairs
    return product if keepdim else manipulation.squeeze(product, where)


def amax(x: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """The largest entry along `dim`; entries that tie share the gradient."""
    return _extreme(reduction.amax, x, dim, keepdim)


def amin(x: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """The smallest entry along `dim`; entries that tie share the gradient."""
    return _extreme(reduction.amin, x, dim, keepdim)


def _extreme(op: Any, x: Tensor, dim: Dims, keepdim: bool) -> Tensor:
    dims = some_dims(op.name, dim, x.ndim)
    if builtins.any(x.shape[d] == 0 for d in dims):
        raise at_user_line(ArgumentError(f"{op.name}: {x.aval} has no entry along dimensions {dims} to choose from"))
    return op(x, dim=dims, keepdim=keepdim)  # type: ignore[no-any-return]


def max(x: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
    """The largest entry of all, or along a dimension, or the larger of two tensors.

    Without `dim`, the largest entry; with `dim`, (values, indices) along it, the first of those that tie; with another
    tensor in its place, the larger of the two entry by entry (`maximum`).
    """
    return _max_or_min(x, dim, keepdim, amax, argmax, elementwise.maximum)


def min(x: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
    """The smallest entry of all, or along a dimension, or the smaller of two tensors.

    Without `dim`, the smallest entry; with `dim`, (values, indices) along it, the first of those that tie; with another
    tensor in its place, the smaller of the two entry by entry (`minimum`).
    """
    return _max_or_min(x, dim, keepdim, amin, argmin, elementwise.minimum)


def _max_or_min(x: Tensor, dim: Any, keepdim: bool, all_of: Any, position: Any, of_two: Any) -> Any:
    if dim is None:
        return all_of(x)
    if isinstance(dim, Node):
        return of_two(x, dim)
    if x.ndim == 0:
        return Extreme(x, position(x))
    indices = position(x, dim, True)
    values = indexing.gather(x, dim, indices)
    if keepdim:
        return Extreme(values, indices)
    return Extreme(manipulation.squeeze(values, dim), manipulation.squeeze(indices, dim))


def argmax(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Position of the largest entry along `dim`, or in the flattened tensor. Carries no gradient."""
    return _extreme(reduction.argmax, x, dim, keepdim)


def argmin(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Position of the smallest entry along `dim`, or in the flattened tensor. Carries no gradient."""
    return _extreme(reduction.argmin, x, dim, keepdim)


def median(x: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """The entry in the middle, of an even number the lower one; nan where an entry is nan.

    Without `dim`, of all entries; with `dim`, (values, indices) along it. The gradient goes to the entry taken.

    Raises: ArgumentError: no entry.
    """
    if dim is None:
        middle = median(manipulation.reshape(x, (x.aval.size,)), 0).values
        return manipulation.reshape(middle, (1,) * x.ndim) if keepdim else middle
    where = one_dim("median", dim, x.ndim)
    if x.ndim == 0:
        return Extreme(x, argsort(x))
    if not x.shape[where]:
        raise at_user_line(ArgumentError(f"median: {x.aval} has no entry along dimension {where} to choose from"))
    indices = manipulation.narrow(argsort(x, where), where, (x.shape[where] - 1) // 2, 1)
    if dtypes.is_float(x.dtype):
        broken = to_dtype(elementwise.isnan(x), dtypes.DEFAULT_INT)
        indices = elementwise.where(amax(broken, where, True) > 0, argmax(broken, where, True), indices)
    values = indexing.gather(x, where, indices)
    return (
        Extreme(values, indices)
        if keepdim
        else Extreme(manipulation.squeeze(values, where), manipulation.squeeze(indices, where))
    )


def any(x: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """Is any entry true (not 0) along `dim`?"""
    return reduction.any_(x, dim=some_dims("any", dim, x.ndim), keepdim=keepdim)


def all(x: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """Are all entries true (not 0) along `dim`?"""
    return reduction.all_(x, dim=some_dims("all", dim, x.ndim), keepdim=keepdim)


def softmax(x: Tensor, dim: int, dtype: object = None) -> Tensor:
    """eˣ / Σ eˣ along `dim`. `dtype`: what to cast `x` to first."""
    return _normalised(normalisation.softmax, x, dim, dtype)


def log_softmax(x: Tensor, dim: int, dtype: object = None) -> Tensor:
    """x − log Σ eˣ along `dim`. `dtype`: what to cast `x` to first."""
    return _normalised(normalisation.log_softmax, x, dim, dtype)


def _normalised(op: Any, x: Tensor, dim: int, dtype: object) -> Tensor:
    x = x if dtype is None else to_dtype(x, as_dtype(dtype))
    where = one_dim(op.name, dim, x.ndim)
    if x.ndim == 0:
        return manipulation.reshape(op(manipulation.reshape(floating(x), 1), dim=0), ())
    return op(floating(x), dim=where)  # type: ignore[no-any-return]


def argsort(x: Tensor, dim: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """Positions that would sort `x` along `dim`. Always stable, whatever `stable` says. Carries no gradient."""
    where = one_dim("argsort", dim, x.ndim)
    if x.ndim == 0:
        return type(x).filled(x.aval._replace(dtype=dtypes.DEFAULT_INT), 0)
    return indexing_ops.argsort(x, dim=where, descending=descending)


def sort(x: Tensor, dim: int = -1, descending: bool = False, stable: bool = True) -> Extreme:
    """(values, indices) of `x` sorted along `dim`. Always stable, whatever `stable` says."""
    indices = argsort(x, dim, descending)
    return Extreme(x if x.ndim == 0 else indexing.gather(x, dim, indices), indices)


def topk(x: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Extreme:
    """(values, indices) of the `k` largest (or smallest) entries along `dim`; in order, whatever `sorted` says."""
    where = one_dim("topk", dim, x.ndim)
    if not 0 <= k <= (x.shape[where] if x.ndim else 1):
        raise at_user_line(ArgumentError(f"topk: k = {k} entries were asked of dimension {dim} of {x.aval}"))
    indices = argsort(x, dim, largest)
    if x.ndim == 0:
        return Extreme(x, indices)
    indices = manipulation.narrow(indices, where, 0, k)
    return Extreme(indexing.gather(x, dim, indices), indices)
