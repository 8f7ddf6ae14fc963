"""Named formulas of several ops: scaled sums and products, comparisons within a tolerance, moments in pairs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from chainrule import dtypes
from chainrule.array import arrangement, elementwise, linear_algebra, manipulation, statistical
from chainrule.array.align import as_node, broadcast_shapes, expand, floating, to_dtype, together
from chainrule.array.elementwise import Operand
from chainrule.array.statistical import Dims
from chainrule.core.node import Node, at_user_line
from chainrule.errors import ArgumentError, DTypeError, ShapeError
from chainrule.ops import transcendental

if TYPE_CHECKING:
    from chainrule.tensor import Tensor

# --- entry by entry


def rsub(x: Tensor, other: Operand, *, alpha: float = 1) -> Tensor:
    """other − alpha · x."""
    return elementwise.sub(other, x, alpha=alpha)  # type: ignore[arg-type]


def true_divide(x: Tensor, other: Operand) -> Tensor:
    """x / other, entry by entry; integers give floats."""
    return elementwise.div(x, other)


def positive(x: Tensor) -> Tensor:
    """+x: the tensor as it is."""
    if x.dtype == dtypes.bool_:
        raise at_user_line(DTypeError(f"positive: needs numbers; got {x.aval}; cast it with .to()"))
    return x


def frac(x: Tensor) -> Tensor:
    """The part behind the point, with the sign of x: x − trunc(x)."""
    return x - elementwise.trunc(x)


def nan_to_num(x: Tensor, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> Tensor:
    """`x` with numbers for nan, inf and −inf; None is the largest or lowest there is. Gradient there: 0."""
    if not dtypes.is_float(x.dtype):
        return x
    limits = dtypes.finfo(x.dtype)
    high, low = float(limits.max) if posinf is None else posinf, float(limits.min) if neginf is None else neginf
    found = elementwise.masked_fill(x, elementwise.isnan(x), nan)
    found = elementwise.masked_fill(found, elementwise.eq(x, math.inf), high)
    return elementwise.masked_fill(found, elementwise.eq(x, -math.inf), low)


def addcmul(x: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> Tensor:
    """x + value · tensor1 · tensor2."""
    x, tensor1, tensor2 = together("addcmul", x, tensor1, tensor2)
    product = tensor1 * tensor2
    return x + (product if value == 1 else product * value)


def addcdiv(x: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> Tensor:
    """x + value · tensor1 / tensor2."""
    x, tensor1, tensor2 = together("addcdiv", x, tensor1, tensor2)
    quotient = tensor1 / tensor2
    return x + (quotient if value == 1 else quotient * value)


def lerp(x: Tensor, end: Tensor, weight: Operand) -> Tensor:
    """From x at weight 0 to `end` at weight 1, in a straight line: x + weight · (end − x)."""
    return x + (end - x) * weight


def logaddexp(x: Tensor, other: Tensor) -> Tensor:
    """log(eˣ + e^other), without overflow."""
    x, other = together("logaddexp", x, other, floating=True)
    # From the larger one on, so that nothing is lost; each branch is smooth, so that slopes are right where they meet.
    larger: Any = transcendental.softplus(other - x) + x
    smaller: Any = transcendental.softplus(x - other) + other
    both_infinite = elementwise.eq(x, other) & elementwise.isinf(x)
    return x.where(both_infinite, larger.where(x >= other, smaller))


def logit(x: Tensor, eps: float | None = None) -> Tensor:
    """log(x / (1 − x)), the inverse of sigmoid. `eps`: keep x in [eps, 1 − eps] first."""
    x = floating(x)
    if eps is not None:
        x = elementwise.clamp(x, eps, 1 - eps)
    return elementwise.log(x / (1.0 - x))


def deg2rad(x: Tensor) -> Tensor:
    """Degrees as radians: x · π / 180."""
    return floating(x) * (math.pi / 180)


def rad2deg(x: Tensor) -> Tensor:
    """Radians as degrees: x · 180 / π."""
    return floating(x) * (180 / math.pi)


def float_power(x: Tensor, exponent: Operand) -> Tensor:
    """x to the power of `exponent`, in float64."""
    base, power = (v.to(dtypes.float64) if isinstance(v, Node) else v for v in (x, exponent))
    return elementwise.pow(base, power)  # type: ignore[arg-type]


# --- equal within a tolerance


def isclose(x: Tensor, other: Any, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> Tensor:
    """|x − other| ≤ atol + rtol · |other|, entry by entry. Equal infinities are close; nan to nan if `equal_nan`."""
    other = as_node(other, x)
    same = elementwise.eq(x, other)
    if dtypes.is_float(x.dtype) or dtypes.is_float(other.dtype):
        within = elementwise.le(elementwise.abs(x - other), elementwise.abs(other) * rtol + atol)
        same = same | (within & elementwise.isfinite(other) & elementwise.isfinite(x))
    elif x.dtype != dtypes.bool_:
        distance = to_dtype(elementwise.abs(x - other), dtypes.float64)
        same = same | (distance <= to_dtype(elementwise.abs(other), dtypes.float64) * rtol + atol)
    return same | (elementwise.isnan(x) & elementwise.isnan(other)) if equal_nan else same


def allclose(x: Tensor, other: Any, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False) -> bool:
    """Are all entries close (see `isclose`)?"""
    return bool(isclose(x, other, rtol, atol, equal_nan).all())


def equal(x: Tensor, other: Tensor) -> bool:
    """Have two tensors the same shape and the same entries?"""
    return x.shape == other.shape and bool(elementwise.eq(x, other).all())


# --- scaled sums with a matrix product


def _scaled_sum(name: str, x: Tensor, product: Tensor, beta: float, alpha: float) -> Tensor:
    if alpha != 1:
        product = product * alpha
    if broadcast_shapes(name, [x.aval, product.aval]) != product.shape:
        raise at_user_line(ShapeError(f"{name}: {x.aval} does not stretch to the product, {product.aval}"))
    if beta == 0:  # x is not read then, not even its nan
        return product
    return product + (x if beta == 1 else x * beta)


def addmm(x: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """beta · x + alpha · (mat1 @ mat2)."""
    return _scaled_sum("addmm", x, linear_algebra.mm(mat1, mat2), beta, alpha)


def addmv(x: Tensor, mat: Tensor, vec: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """beta · x + alpha · (mat @ vec)."""
    return _scaled_sum("addmv", x, linear_algebra.mv(mat, vec), beta, alpha)


def baddbmm(x: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """beta · x + alpha · (batch1 @ batch2), matrix by matrix."""
    return _scaled_sum("baddbmm", x, linear_algebra.bmm(batch1, batch2), beta, alpha)


def tensordot(x: Tensor, other: Tensor, dims: Any = 2) -> Tensor:
    """Σ x · other over pairs of dimensions.

    Args:
        x: any shape.
        other: of the dtype of `x`.
        dims: how many of the last of `x` with the first of `other`; or two lists, the dimensions of each to pair.
    Returns: the dimensions left of `x`, then those left of `other`.
    """
    if isinstance(dims, int):
        pairs = list(range(x.ndim - dims, x.ndim)), list(range(dims))
    else:
        pairs = [d % x.ndim for d in dims[0]], [d % other.ndim for d in dims[1]]
    for mine, its in zip(*pairs, strict=False):  # a size of 1 pairs with any: it is stretched, so the other is summed
        if x.shape[mine] == 1 != other.shape[its]:
            other = other.sum(its, keepdim=True)
        elif other.shape[its] == 1 != x.shape[mine]:
            x = x.sum(mine, keepdim=True)
    if [x.shape[d] for d in pairs[0]] != [other.shape[d] for d in pairs[1]]:
        raise at_user_line(ShapeError(f"tensordot: the paired sizes differ: {x.aval}, {other.aval}, dims {dims}"))
    left = [d for d in range(x.ndim) if d not in pairs[0]]
    right = [d for d in range(other.ndim) if d not in pairs[1]]
    count = math.prod(x.shape[d] for d in pairs[0])
    rows = manipulation.permute(x, *left, *pairs[0]) if x.ndim else x
    columns = manipulation.permute(other, *pairs[1], *right) if other.ndim else other
    rows = manipulation.reshape(rows, (math.prod(x.shape[d] for d in left), count))
    columns = manipulation.reshape(columns, (count, math.prod(other.shape[d] for d in right)))
    shape = (*(x.shape[d] for d in left), *(other.shape[d] for d in right))
    return manipulation.reshape(linear_algebra.matmul(rows, columns), shape)


def einsum(equation: str, *operands: Any) -> Tensor:
    """Sums of products over named dimensions; "ik,kj->ij" is the matrix product.

    Args:
        equation: a letter for each dimension of each operand; after "->" those of the result, or all that occur once,
            in alphabetical order. A letter that the result lacks is summed over; one that an operand has twice is its
            diagonal; "..." stands for any further dimensions, which broadcast.
        operands: tensors of one dtype, as arguments or as one sequence.
    Raises: ShapeError: the letters do not fit the dimensions. ArgumentError: the equation cannot be read.
    """
    tensors = list(operands[0]) if len(operands) == 1 and isinstance(operands[0], list | tuple) else list(operands)
    terms, result = _subscripts(equation, tensors)
    pending = [_without_repeats(x, term) for x, term in zip(tensors, terms, strict=True)]
    product, letters = pending[0]
    for position, (x, term) in enumerate(pending[1:], start=2):
        later = set(result).union(*(term for _, term in pending[position:]))
        product, letters = _contracted(product, letters, x, term, later)
    summed = tuple(d for d, letter in enumerate(letters) if letter not in result)
    if summed:
        product = statistical.sum(product, summed, dtype=product.dtype)
        letters = [letter for letter in letters if letter in result]
    return manipulation.permute(product, *(letters.index(letter) for letter in result)) if letters else product


def _subscripts(equation: str, tensors: list[Any]) -> tuple[list[list[str]], list[str]]:
    """The letters of each operand and of the result. The dimensions of "..." are numbered from the right: -1, -2."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    written = left.split(",")
    if len(written) != len(tensors):
        raise at_user_line(ArgumentError(f"einsum: {equation!r} names {len(written)} operands; got {len(tensors)}"))
    terms, widest = [], 0
    for term, x in zip(written, tensors, strict=True):
        before, dots, after = term.partition("...")
        extra = x.ndim - len(before) - len(after)
        if (not (before + after).isalpha() and before + after) or extra < 0 or (extra and not dots):
            raise at_user_line(ShapeError(f"einsum: {term!r} in {equation!r} does not fit {x.aval}"))
        terms.append([*before, *map(str, range(-extra, 0)), *after])
        widest = max(widest, extra)
    shared = list(map(str, range(-widest, 0)))
    seen = [letter for term in terms for letter in term if letter.isalpha()]
    if not arrow:
        return terms, [*shared, *sorted(letter for letter in set(seen) if seen.count(letter) == 1)]
    before, dots, after = right.partition("...")
    if len(set(before + after)) < len(before + after) or not set(before + after) <= set(seen):
        raise at_user_line(
            ArgumentError(f"einsum: the result {right!r} in {equation!r} needs distinct letters of the operands")
        )
    return terms, [*before, *(shared if dots else []), *after]


def _without_repeats(x: Any, term: list[str]) -> tuple[Any, list[str]]:
    """An operand with the diagonal taken where it has a letter twice."""
    while len(set(term)) < len(term):
        twice = next(letter for letter in term if term.count(letter) > 1)
        first, second = [d for d, letter in enumerate(term) if letter == twice][:2]
        if x.shape[first] != x.shape[second]:
            raise at_user_line(ShapeError(f"einsum: {twice!r} names two sizes of {x.aval}"))
        x = arrangement.diagonal(x, 0, first, second)
        term = [letter for d, letter in enumerate(term) if d not in (first, second)] + [twice]
    return x, term


def _contracted(x: Any, xs: list[str], y: Any, ys: list[str], kept: set[str]) -> tuple[Any, list[str]]:
    """Two operands as one batched matrix product: letters of both that are needed later are its batch."""
    sizes: dict[str, int] = {}
    for letters, shape in ((xs, x.shape), (ys, y.shape)):
        for letter, n in zip(letters, shape, strict=True):
            if sizes.setdefault(letter, n) != n and 1 not in (n, sizes[letter]):
                raise at_user_line(ShapeError(f"einsum: {letter!r} names sizes {sizes[letter]} and {n}"))
            sizes[letter] = n if sizes[letter] == 1 else sizes[letter]
    batch = [letter for letter in xs if letter in ys and letter in kept]
    inner = [letter for letter in xs if letter in ys and letter not in kept]
    rows = [letter for letter in xs if letter not in ys]
    columns = [letter for letter in ys if letter not in xs]

    def arranged(value: Any, letters: list[str], *groups: list[str]) -> Any:
        order = [letters.index(letter) for group in groups for letter in group]
        value = manipulation.permute(value, *order) if order else value
        value = expand(value, tuple(sizes[letter] for group in groups for letter in group))
        lead = tuple(sizes[letter] for letter in groups[0])
        return manipulation.reshape(value, (*lead, *(math.prod(sizes[a] for a in group) for group in groups[1:])))

    product = linear_algebra.matmul(arranged(x, xs, batch, rows, inner), arranged(y, ys, batch, inner, columns))
    left = [*batch, *rows, *columns]
    return manipulation.reshape(product, tuple(sizes[letter] for letter in left)), left


# --- along dimensions


def nansum(x: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: object = None) -> Tensor:
    """Σ x along `dim`, nan counted as 0."""
    return statistical.sum(elementwise.masked_fill(x, elementwise.isnan(x), 0), dim, keepdim, dtype=dtype)


def count_nonzero(x: Tensor, dim: Dims = None) -> Tensor:
    """How many entries along `dim` are not 0, as int64."""
    return statistical.sum(elementwise.ne(x, 0), dim)


def var_mean(
    x: Tensor, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *, correction: float | None = None
) -> tuple[Tensor, Tensor]:
    """(var, mean) along `dim`, with the arguments of `var`."""
    mean = statistical.mean(x, None if isinstance(dim, bool) else dim, keepdim)
    return statistical.var(x, dim, unbiased, keepdim, correction=correction), mean


def std_mean(
    x: Tensor, dim: Any = None, unbiased: bool | None = None, keepdim: bool = False, *, correction: float | None = None
) -> tuple[Tensor, Tensor]:
    """(std, mean) along `dim`, with the arguments of `var`."""
    mean = statistical.mean(x, None if isinstance(dim, bool) else dim, keepdim)
    return statistical.std(x, dim, unbiased, keepdim, correction=correction), mean
