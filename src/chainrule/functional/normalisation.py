"""Normalisation over the last dimensions, under PyTorch's names. No derivative is stated here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from chainrule import dtypes
from chainrule.array import elementwise, statistical
from chainrule.core.node import at_user_line
from chainrule.errors import DTypeError, ShapeError
from chainrule.functional.linear import as_tensor
from chainrule.ops import normalisation

if TYPE_CHECKING:
    from chainrule.tensor import Tensor

__all__ = ["layer_norm", "rms_norm"]


def layer_norm(
    input: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """(x − mean) / √(var + ε) over the last dimensions, times the weight, plus the bias.

    Args:
        input: (…, *normalized_shape), float.
        normalized_shape: the last sizes of the input, over which mean and variance are taken.
        weight: normalized_shape, or None.
        bias: normalized_shape, or None.
        eps: what is added to the variance, so that it is not 0.
    Returns: the shape of `input`.
    Raises: ShapeError: the sizes do not fit. DTypeError: `input` is not float, or the dtypes differ.
    Source: Ba, Kiros, Hinton (2016), Layer normalization, arXiv:1607.06450.

    >>> import chainrule as cr
    >>> cr.nn.functional.layer_norm(cr.tensor([[1.0, 2.0, 3.0]]), 3)
    tensor([[-1.2247,  0.    ,  1.2247]])
    """
    x, dims = _checked("layer_norm", input, normalized_shape, weight, bias)
    out: Tensor = normalisation.normalize(x, dim=dims, eps=float(eps))
    if weight is not None:
        out = out * weight
    return out if bias is None else out + bias


def rms_norm(
    input: Tensor, normalized_shape: int | Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """x / √(mean of x² + ε) over the last dimensions, times the weight.

    Args:
        input: (…, *normalized_shape), float.
        normalized_shape: the last sizes of the input, over which the mean is taken.
        weight: normalized_shape, or None.
        eps: what is added to the mean, so that it is not 0; None: the distance from 1 to the next float of the dtype.
    Returns: the shape of `input`.
    Raises: ShapeError: the sizes do not fit. DTypeError: `input` is not float, or the dtypes differ.
    Source: Zhang, Sennrich (2019), Root mean square layer normalization, arXiv:1910.07467.

    >>> import chainrule as cr
    >>> cr.nn.functional.rms_norm(cr.tensor([[3.0, 4.0]]), 2)
    tensor([[0.8485, 1.1314]])
    """
    x, dims = _checked("rms_norm", input, normalized_shape, weight, None)
    least = dtypes.epsilon(x.dtype) if eps is None else float(eps)
    out: Tensor = x * elementwise.rsqrt(statistical.mean(elementwise.square(x), dims, True) + least)
    return out if weight is None else out * weight


def _checked(
    name: str, input: Any, normalized_shape: int | Sequence[int], weight: Any, bias: Any
) -> tuple[Any, tuple[int, ...]]:
    """The input as a tensor, and the dimensions that `normalized_shape` names."""
    x = as_tensor(name, input, input if weight is None else weight)
    last = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if not last or x.shape[max(x.ndim - len(last), 0) :] != last:
        raise at_user_line(ShapeError(
            f"{name}: the last sizes of the input must be {list(last)}, one at least; got {x.aval}"
        ))  # fmt: skip
    if not dtypes.is_float(x.dtype):
        raise at_user_line(DTypeError(f"{name}: needs a float dtype; got {x.aval}; cast it with .to(cr.float32)"))
    for what, given in (("weight", weight), ("bias", bias)):
        if given is None:
            continue
        if given.shape != last:
            raise at_user_line(ShapeError(f"{name}: the {what} must be {list(last)}; got {given.aval}"))
        if given.dtype != x.dtype:
            raise at_user_line(DTypeError(
                f"{name}: the input is {x.aval}, the {what} {given.aval}; cast one of them with .to()"
            ))  # fmt: skip
    return x, tuple(range(x.ndim - len(last), x.ndim))
