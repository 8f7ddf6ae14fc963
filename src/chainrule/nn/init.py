"""Initial values, written into a tensor in place, outside any graph. Under PyTorch's names.

The scale of the random ones keeps the variance of what flows through a layer: of activations with "fan_in" (inputs an
output), of gradients with "fan_out" (outputs an input).

Sources: Glorot, Bengio (2010), Understanding the difficulty of training deep feedforward neural networks (xavier);
He et al. (2015), Delving deep into rectifiers, arXiv:1502.01852 (kaiming).
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np

from chainrule import creation
from chainrule.autodiff.mode import no_grad
from chainrule.core.node import at_user_line
from chainrule.creation import Generator
from chainrule.errors import ArgumentError, ShapeError
from chainrule.tensor import Tensor

Fan = Literal["fan_in", "fan_out"]


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor by which weights must be larger for what a nonlinearity takes away.

    Args:
        nonlinearity: "linear", "sigmoid", "tanh", "relu", "leaky_relu" or "selu".
        param: the negative slope of leaky_relu, 0.01 if None.
    Raises: ArgumentError: another name.

    >>> calculate_gain("relu")
    1.4142
    """
    slope = 0.01 if param is None else param
    gains = {
        "linear": 1.0, "sigmoid": 1.0, "tanh": 5.0 / 3.0, "relu": math.sqrt(2.0),
        "leaky_relu": math.sqrt(2.0 / (1 + slope**2)), "selu": 0.75,
    }  # fmt: skip
    if nonlinearity not in gains:
        raise at_user_line(ArgumentError(f"calculate_gain: expected one of {', '.join(gains)}; got {nonlinearity!r}"))
    return gains[nonlinearity]


def _fans(name: str, tensor: Tensor) -> tuple[int, int]:
    if tensor.ndim < 2:
        raise at_user_line(
            ShapeError(f"{name}: needs a weight (out, in, …); got {tensor.aval}; use uniform_ or normal_")
        )
    field = math.prod(tensor.shape[2:])
    return tensor.shape[1] * field, tensor.shape[0] * field


def _fan(name: str, tensor: Tensor, mode: str) -> int:
    if mode not in ("fan_in", "fan_out"):
        raise at_user_line(ArgumentError(f"{name}: mode must be 'fan_in' or 'fan_out'; got {mode!r}"))
    return max(1, _fans(name, tensor)[mode == "fan_out"])


def _write(tensor: Tensor, value: Any) -> Tensor:
    with no_grad():
        return tensor.copy_(value)


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Uniform on a ≤ u < b."""
    with no_grad():
        return tensor.copy_(creation.rand(tensor.shape, dtype=tensor.dtype, generator=generator) * (b - a) + a)


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Normal with this mean and standard deviation."""
    with no_grad():
        return tensor.copy_(creation.randn(tensor.shape, dtype=tensor.dtype, generator=generator) * std + mean)


def constant_(tensor: Tensor, val: float) -> Tensor:
    """Every entry `val`."""
    return _write(tensor, val)


def zeros_(tensor: Tensor) -> Tensor:
    """Every entry 0."""
    return _write(tensor, 0)


def ones_(tensor: Tensor) -> Tensor:
    """Every entry 1."""
    return _write(tensor, 1)


def eye_(tensor: Tensor) -> Tensor:
    """The identity matrix.

    Raises: ShapeError: not a matrix.
    """
    if tensor.ndim != 2:
        raise at_user_line(ShapeError(f"eye_: needs a matrix; got {tensor.aval}"))
    return _write(tensor, np.eye(tensor.shape[0], tensor.shape[1]))


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Uniform on ±gain √(6 / (fan_in + fan_out)).

    Args:
        tensor: (out, in, …), written in place.
        gain: see `calculate_gain`.
        generator: where the random numbers come from; None: the one that `cr.manual_seed` seeds.
    Raises: ShapeError: fewer than two dimensions.
    """
    bound = gain * math.sqrt(6.0 / max(1, sum(_fans("xavier_uniform_", tensor))))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Normal with standard deviation gain √(2 / (fan_in + fan_out)).

    Args:
        tensor: (out, in, …), written in place.
        gain: see `calculate_gain`.
        generator: where the random numbers come from; None: the one that `cr.manual_seed` seeds.
    Raises: ShapeError: fewer than two dimensions.
    """
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / max(1, sum(_fans("xavier_normal_", tensor)))), generator)


def kaiming_uniform_(
    tensor: Tensor,
    a: float = 0.0,
    mode: Fan = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:
    """Uniform on ±gain √(3 / fan).

    Args:
        tensor: (out, in, …), written in place.
        a: the negative slope of the leaky_relu that follows; 0 for relu.
        mode: "fan_in" keeps the variance of activations, "fan_out" that of gradients.
        nonlinearity: what follows the layer, see `calculate_gain`.
        generator: where the random numbers come from; None: the one that `cr.manual_seed` seeds.
    Raises: ShapeError: fewer than two dimensions. ArgumentError: another mode or nonlinearity.
    """
    bound = calculate_gain(nonlinearity, a) * math.sqrt(3.0 / _fan("kaiming_uniform_", tensor, mode))
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Tensor,
    a: float = 0.0,
    mode: Fan = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:
    """Normal with standard deviation gain / √fan.

    Args:
        tensor: (out, in, …), written in place.
        a: the negative slope of the leaky_relu that follows; 0 for relu.
        mode: "fan_in" keeps the variance of activations, "fan_out" that of gradients.
        nonlinearity: what follows the layer, see `calculate_gain`.
        generator: where the random numbers come from; None: the one that `cr.manual_seed` seeds.
    Raises: ShapeError: fewer than two dimensions. ArgumentError: another mode or nonlinearity.
    """
    std = calculate_gain(nonlinearity, a) / math.sqrt(_fan("kaiming_normal_", tensor, mode))
    return normal_(tensor, 0.0, std, generator)
