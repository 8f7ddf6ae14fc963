"""Lengths and angles of vectors, under PyTorch's names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chainrule.array import elementwise, statistical
from chainrule.array.align import together

if TYPE_CHECKING:
    from chainrule.tensor import Tensor

__all__ = ["cosine_similarity", "normalize"]


def normalize(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:
    """x / max(‖x‖ₚ, ε) along `dim`: vectors of length 1.

    Args:
        input: any shape, float.
        p: which norm.
        dim: along which dimension the vectors lie.
        eps: the least number that is divided by.
    Returns: the shape of `input`.

    >>> import chainrule as cr
    >>> cr.nn.functional.normalize(cr.tensor([[3.0, 4.0]]))
    tensor([[0.6, 0.8]])
    """
    return input / elementwise.clamp_min(statistical.norm(input, p, dim, True), eps)


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """The cosine of the angle between vectors, x₁ · x₂ / (max(‖x₁‖, ε) max(‖x₂‖, ε)).

    Args:
        x1: any shape, float.
        x2: broadcasts with `x1`.
        dim: along which dimension the vectors lie.
        eps: the least length that is divided by.
    Returns: the broadcast shape without `dim`.

    >>> import chainrule as cr
    >>> cr.nn.functional.cosine_similarity(cr.tensor([[1.0, 0.0]]), cr.tensor([[1.0, 1.0]]))
    tensor([0.7071])
    """
    x1, x2 = together("cosine_similarity", x1, x2, floating=True)
    return (normalize(x1, 2.0, dim, eps) * normalize(x2, 2.0, dim, eps)).sum(dim)
