"""Activation functions as modules. Each names its function; what that computes is said there (`nn.functional`)."""

from __future__ import annotations

from typing import Literal

from chainrule.creation import full
from chainrule.functional import activations as functional
from chainrule.nn.module import Module
from chainrule.nn.parameter import Parameter
from chainrule.tensor import Tensor


class Pointwise(Module):
    """What some modules that work entry by entry share: that PyTorch can do them in place.

    Args:
        inplace: accepted, as in PyTorch, and of no effect: `input` keeps its entries, and the result is a new tensor.
    """

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def options(self) -> str:
        """What else is said of it."""
        return ""

    def extra_repr(self) -> str:
        """The options, and whether it was asked to be done in place."""
        return ", ".join(x for x in (self.options(), "inplace=True" if self.inplace else "") if x)


class ReLU(Pointwise):
    """max(x, 0), entry by entry; gradient 0 at 0.

    Args:
        inplace: accepted, and of no effect.

    >>> import chainrule as cr
    >>> cr.nn.ReLU()(cr.tensor([-1.0, 2.0]))
    tensor([0., 2.])
    """

    def forward(self, input: Tensor) -> Tensor:
        """The shape of `input`."""
        return functional.relu(input)


class ReLU6(Pointwise):
    """min(max(x, 0), 6), entry by entry.

    Args:
        inplace: accepted, and of no effect.
    """

    def forward(self, input: Tensor) -> Tensor:
        """The shape of `input`."""
        return functional.relu6(input)


class LeakyReLU(Pointwise):
    """x where x > 0, else negative_slope · x.

    Args:
        negative_slope: the slope below 0.
        inplace: accepted, and of no effect.
    """

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.negative_slope = negative_slope

    def forward(self, input: Tensor) -> Tensor:
        """The shape of `input`."""
        return functional.leaky_relu(input, self.negative_slope)

    def options(self) -> str:
        """The slope."""
        return f"negative_slope={self.negative_slope}"


class PReLU(Module):
    """x where x > 0, else weight · x, with a slope that is learnt.

    Args:
        num_parameters: 1, one slope for all, or one for each channel (dimension 1).
        init: the slope at the start.
        dtype: of the slope; float32 if None.
    """

    def __init__(self, num_parameters: int = 1, init: float = 0.25, dtype: object = None) -> None:
        super().__init__()
        self.num_parameters = num_parameters
        self.weight = Parameter(full((num_parameters,), float(init), dtype=dtype))

    def forward(self, input: Tensor) -> Tensor:
        """The shape of `input`."""
        return functional.prelu(input, self.weight)

    def extra_repr(self) -> str:
        """The number of slopes."""
        return f"num_parameters={self.num_parameters}"


class ELU(Pointwise):
    """x where x > 0, else α (eˣ − 1).

    Args:
        alpha: minus the limit for x → −∞.
        inplace: accepted, and of no effect.
    """

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.alpha = alpha

    def forward(self, input: Tensor) -> Tensor:
        """The shape of `input`."""
        return functional.elu(input, self.alpha)

    def options(self) -> str:
        """The limit."""
        return f"alpha={self.alpha}"


class SELU(Pointwise):
    """scale · elu(x, α), with the two numbers under which mean 0 and variance 1 are a fixed point.

    Args:
        inplace: accepted, and of no effect.
    """

    def forward(self, input: Tensor) -> Tensor:
        """The shape of `input`."""
        return functional.selu(input)


class GELU(Module):
    """x Φ(x).

    Args:
        approximate: "none", or "tanh".
    """

    def __init__(self, approximate: Literal["none", "tanh"] = "none") -> None:
        super().__init__()
        self.approximate = approximate

    def forward(self, input: Tensor) -> Tensor:
        """The shape of `input`."""
        return functional.gelu(input, self.approximate)

    def extra_repr(self) -> str:
        """The approximation."""
        return f"approximate={self.approximate!r}"


class SiLU(Pointwise):
    """x σ(x).

    Args:
        inplace: accepted, and of no effect.
    """

    def forward(self, input: Tensor) -> Tensor:
        """The shape of `input`."""
        return functional.silu(input)


class Mish(Pointwise):
    """x tanh(log(1 + eˣ)).

    Args:
        inplace: accepted, and of no effect.
    """

    def forward(self, input: Tensor) -> Tensor:
        """The shape of `input`."""
        return functional.mish(input)


class Sigmoid(Module):
    """1 / (1 + e⁻ˣ)."""

    def forward(self, input: Tensor) -> Tensor:
        """The shape of `input`."""
        return functional.sigmoid(input)


class Hardsigmoid(Pointwise):
    """min(max(x + 3, 0), 6) / 6.

    Args:
        inplace: accepted, and of no effect.
    """

    def forward(self, input: Tensor) -> Tensor:
        """The shape of `input`."""
        return functional.hardsigmoid(input)


class Hardswish(Pointwise):
    """x · min(max(x + 3, 0), 6) / 6.

    Args:
        inplace: accepted, and of no effect.
    """

    def forward(self, input: Tensor) -> Tensor:
        """The shape of `input`."""
        return functional.hardswish(input)


class LogSigmoid(Module):
    """log σ(x), without overflow."""

    def forward(self, input: Tensor) -> Tensor:
        """The shape of `input`."""
        return functional.logsigmoid(input)


class Tanh(Module):
    """The hyperbolic tangent."""

    def forward(self, input: Tensor) -> Tensor:
        """The shape of `input`."""
        return functional.tanh(input)


class Tanhshrink(Module):
    """x − tanh(x)."""

    def forward(self, input: Tensor) -> Tensor:
        """The shape of `input`."""
        return functional.tanhshrink(input)


class Hardtanh(Pointwise):
    """x limited to [min_val, max_val]; gradient 0 at both bounds.

    Args:
        min_val, max_val: the bounds.
        inplace: accepted, and of no effect.
    """

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.min_val, self.max_val = min_val, max_val

    def forward(self, input: Tensor) -> Tensor:
        """The shape of `input`."""
        return functional.hardtanh(input, self.min_val, self.max_val)

    def options(self) -> str:
        """The bounds."""
        return f"min_val={self.min_val}, max_val={self.max_val}"


class Softplus(Module):
    """log(1 + e^(βx)) / β.

    Args:
        beta: how sharply it bends.
        threshold: x itself is returned where βx is above it.
    """

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        self.beta, self.threshold = beta, threshold

    def forward(self, input: Tensor) -> Tensor:
        """The shape of `input`."""
        return functional.softplus(input, self.beta, self.threshold)

    def extra_repr(self) -> str:
        """The bend."""
        return f"beta={self.beta}, threshold={self.threshold}"


class Softsign(Module):
    """x / (1 + |x|)."""

    def forward(self, input: Tensor) -> Tensor:
        """The shape of `input`."""
        return functional.softsign(input)


class Softmax(Module):
    """eˣ / Σ eˣ along `dim`.

    Args:
        dim: the dimension that adds to 1.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        """The shape of `input`."""
        return functional.softmax(input, self.dim)

    def extra_repr(self) -> str:
        """The dimension."""
        return f"dim={self.dim}"


class LogSoftmax(Module):
    """x − log Σ eˣ along `dim`.

    Args:
        dim: the dimension whose exponentials add to 1.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        """The shape of `input`."""
        return functional.log_softmax(input, self.dim)

    def extra_repr(self) -> str:
        """The dimension."""
        return f"dim={self.dim}"
