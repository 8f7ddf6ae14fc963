"""Activation functions, under PyTorch's names, composed of library ops: no derivative is stated here.

Where a function has a kink, it is composed so that its derivative there is PyTorch's choice; each docstring says which.
A branch that may overflow never stands behind a gate: 0 · inf would be nan in the backward pass.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from chainrule.array import elementwise, statistical
from chainrule.array.align import floating
from chainrule.array.elementwise import logsigmoid, relu, sigmoid, tanh
from chainrule.core.node import at_user_line
from chainrule.errors import ArgumentError
from chainrule.ops import transcendental

if TYPE_CHECKING:
    from chainrule.tensor import Tensor

__all__ = [
    "elu", "gelu", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "log_softmax", "logsigmoid", "mish", "prelu",
    "relu", "relu6", "selu", "sigmoid", "silu", "softmax", "softmin", "softplus", "softsign", "tanh", "tanhshrink",
]  # fmt: skip


def leaky_relu(input: Tensor, negative_slope: float = 0.01) -> Tensor:
    """x where x > 0, else negative_slope · x. Gradient at 0: `negative_slope`.

    Args:
        input: any shape, float.
        negative_slope: the slope below 0.
    Returns: the shape of `input`.
    Source: Maas, Hannun, Ng (2013), Rectifier nonlinearities improve neural network acoustic models.

    >>> import chainrule as cr
    >>> cr.nn.functional.leaky_relu(cr.tensor([-2.0, 3.0]), 0.1)
    tensor([-0.2,  3. ])
    """
    x: Tensor = floating(input)
    return elementwise.where(x > 0.0, x, x * negative_slope)


def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """x where x > 0, else weight · x, with a slope that is learnt. Gradient at 0: `weight`.

    Args:
        input: (n, channels, …) or (channels,), float.
        weight: (1,), one slope for all, or (channels,).
    Returns: the shape of `input`.
    Source: He et al. (2015), Delving deep into rectifiers, arXiv:1502.01852.
    """
    x: Tensor = floating(input)
    slope = weight if x.ndim < 2 or weight.numel() == 1 else weight.reshape(-1, *(1 for _ in range(x.ndim - 2)))
    if x.ndim == 0:
        slope = slope.reshape(())
    return elementwise.where(x > 0.0, x, slope * x)


def elu(input: Tensor, alpha: float = 1.0) -> Tensor:
    """x where x > 0, else α (eˣ − 1). Gradient at 0: α.

    Args:
        input: any shape, float.
        alpha: minus the limit for x → −∞.
    Returns: the shape of `input`.
    Source: Clevert, Unterthiner, Hochreiter (2015), Fast and accurate deep network learning by ELUs, arXiv:1511.07289.

    >>> import chainrule as cr
    >>> cr.nn.functional.elu(cr.tensor([-100.0, 3.0]))
    tensor([-1.,  3.])
    """
    x: Tensor = floating(input)
    below = elementwise.expm1(x.clamp_max(0.0))
    return elementwise.where(x > 0.0, x, below if alpha == 1 else below * alpha)


_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946


def selu(input: Tensor) -> Tensor:
    """scale · elu(x, α), with the two numbers under which mean 0 and variance 1 are a fixed point.

    Gradient at 0: scale · α.

    Args:
        input: any shape, float.
    Returns: the shape of `input`.
    Source: Klambauer et al. (2017), Self-normalizing neural networks, arXiv:1706.02515.
    """
    return elu(input, _SELU_ALPHA) * _SELU_SCALE


def gelu(input: Tensor, approximate: Literal["none", "tanh"] = "none") -> Tensor:
    """x Φ(x), with Φ the distribution function of the standard normal: x (1 + erf(x/√2)) / 2.

    Args:
        input: any shape, float.
        approximate: "tanh" takes Φ(x) ≈ (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2.
    Returns: the shape of `input`.
    Raises: ArgumentError: another approximation was asked for.
    Source: Hendrycks, Gimpel (2016), Gaussian error linear units, arXiv:1606.08415.

    >>> import chainrule as cr
    >>> cr.nn.functional.gelu(cr.tensor([-1.0, 0.0, 1.0]))
    tensor([-0.1587,  0.    ,  0.8413])
    """
    x: Tensor = floating(input)
    if approximate == "none":
        share = elementwise.erf(x * math.sqrt(0.5)) + 1.0
    elif approximate == "tanh":
        share = tanh((x + x**3 * 0.044715) * math.sqrt(2.0 / math.pi)) + 1.0
    else:
        raise at_user_line(ArgumentError(f"gelu: approximate must be 'none' or 'tanh'; got {approximate!r}"))
    return x * 0.5 * share


def silu(input: Tensor) -> Tensor:
    """x σ(x), also called swish.

    Args:
        input: any shape, float.
    Returns: the shape of `input`.
    Source: Elfwing, Uchibe, Doya (2017), Sigmoid-weighted linear units, arXiv:1702.03118.

    >>> import chainrule as cr
    >>> cr.nn.functional.silu(cr.tensor([-1.0, 0.0, 1.0]))
    tensor([-0.2689,  0.    ,  0.7311])
    """
    x: Tensor = floating(input)
    return x * sigmoid(x)


def mish(input: Tensor) -> Tensor:
    """x tanh(log(1 + eˣ)).

    Args:
        input: any shape, float.
    Returns: the shape of `input`.
    Source: Misra (2019), Mish, arXiv:1908.08681.
    """
    x: Tensor = floating(input)
    return x * tanh(transcendental.softplus(x))


def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + e^(βx)) / β, a smooth relu.

    Args:
        input: any shape, float.
        beta: how sharply it bends; must not be 0.
        threshold: x itself is returned where βx is above it. PyTorch needs that against overflow; this function does
            not, so the default, where the two differ by less than 3e-9, is left out.
    Returns: the shape of `input`.
    Raises: ArgumentError: `beta` is 0.

    >>> import chainrule as cr
    >>> cr.nn.functional.softplus(cr.tensor([-1000.0, 0.0, 1000.0]))
    tensor([0.0000e+00, 6.9315e-01, 1.0000e+03])
    """
    if beta == 0:
        raise at_user_line(ArgumentError("softplus: beta must not be 0, which the result is divided by"))
    x: Tensor = floating(input)
    bent = transcendental.softplus(x) if beta == 1 else transcendental.softplus(x * beta) / beta
    return bent if threshold == 20 else elementwise.where(x * beta > threshold, x, bent)


def softsign(input: Tensor) -> Tensor:
    """x / (1 + |x|).

    Args:
        input: any shape, float.
    Returns: the shape of `input`.
    """
    x: Tensor = floating(input)
    return x / (abs(x) + 1.0)


def tanhshrink(input: Tensor) -> Tensor:
    """x − tanh(x).

    Args:
        input: any shape, float.
    Returns: the shape of `input`.
    """
    x: Tensor = floating(input)
    return x - tanh(x)


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    """x limited to [min_val, max_val]. Gradient at both bounds: 0, where `clamp` has 1.

    Args:
        input: any shape, float.
        min_val: the lower bound.
        max_val: the upper bound, not below the lower.
    Returns: the shape of `input`.
    Raises: ArgumentError: the bounds are in the wrong order.

    >>> import chainrule as cr
    >>> cr.nn.functional.hardtanh(cr.tensor([-2.0, 0.5, 2.0]))
    tensor([-1. ,  0.5,  1. ])
    """
    if min_val > max_val:
        raise at_user_line(ArgumentError(f"hardtanh: expected min_val ≤ max_val; got {min_val} and {max_val}"))
    x: Tensor = floating(input)
    return elementwise.where(x <= min_val, min_val, elementwise.where(x >= max_val, max_val, x))


def relu6(input: Tensor) -> Tensor:
    """min(max(x, 0), 6). Gradient at 0 and at 6: 0.

    Args:
        input: any shape, float.
    Returns: the shape of `input`.
    """
    return hardtanh(input, 0.0, 6.0)


def hardsigmoid(input: Tensor) -> Tensor:
    """min(max(x + 3, 0), 6) / 6: three straight lines for a sigmoid. Gradient at −3 and at 3: 0.

    Args:
        input: any shape, float.
    Returns: the shape of `input`.
    """
    return relu6(input + 3.0) / 6.0


def hardswish(input: Tensor) -> Tensor:
    """x · min(max(x + 3, 0), 6) / 6: `silu` with three straight lines for its sigmoid.

    Args:
        input: any shape, float.
    Returns: the shape of `input`.
    Source: Howard et al. (2019), Searching for MobileNetV3, arXiv:1905.02244.
    """
    return input * hardsigmoid(input)


def softmax(input: Tensor, dim: int, *, dtype: object = None) -> Tensor:
    """eˣ / Σ eˣ along `dim`: positive numbers that add to 1.

    Args:
        input: any shape, float.
        dim: the dimension that adds to 1. PyTorch guesses it when left out; here it must be said.
        dtype: what to cast `input` to first.
    Returns: the shape of `input`.
    Raises: OutOfRangeError: there is no such dimension.

    >>> import chainrule as cr
    >>> cr.nn.functional.softmax(cr.tensor([[0.0, 0.0], [1000.0, 0.0]]), dim=1)
    tensor([[0.5, 0.5],
            [1. , 0. ]])
    """
    return statistical.softmax(input, dim, dtype)


def softmin(input: Tensor, dim: int, *, dtype: object = None) -> Tensor:
    """Softmax of −x along `dim`.

    Args:
        input: any shape, float.
        dim: the dimension that adds to 1.
        dtype: what to cast to first.
    Returns: the shape of `input`.
    Raises: OutOfRangeError: there is no such dimension.
    """
    return statistical.softmax(-input, dim, dtype)


def log_softmax(input: Tensor, dim: int, *, dtype: object = None) -> Tensor:
    """x − log Σ eˣ along `dim`, without overflow.

    Args:
        input: any shape, float.
        dim: the dimension whose exponentials add to 1.
        dtype: what to cast to first.
    Returns: the shape of `input`.
    Raises: OutOfRangeError: there is no such dimension.
    """
    return statistical.log_softmax(input, dim, dtype)
