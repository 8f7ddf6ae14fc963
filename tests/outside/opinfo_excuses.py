"""Where chainrule is not PyTorch on purpose, each with its reason in words.

An excuse that no sample uses shows as a changed line of the coverage table.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import chainrule as cr

# Keyword arguments that no function takes.
KEYWORDS = {
    "out": "out= is not offered: values do not change",
    "memory_format": "memory_format= is not offered: layout is no part of a tensor's meaning",
    "layout": "layout= is not offered: layout is no part of a tensor's meaning",
    "device": "device= is not offered: there is one device",
    "pin_memory": "pin_memory= is not offered: there is one device",
}


def only_one(keyword: str, value: Any) -> bool:
    """Does the argument name the one thing there is of its kind? It is left out of the call."""
    return (keyword == "device" and str(value) == "cpu") or (keyword == "layout" and str(value) == "torch.strided")


# Entries whose PyTorch function is a wrapper with another order of arguments.
CALLED_AS: dict[str, Callable[..., Any]] = {
    "nn.functional.embedding": lambda weight, indices, **kw: cr.nn.functional.embedding(indices, weight, **kw),
    "einsum": lambda operands, equation: cr.einsum(equation, *operands),
    "zero_": lambda x: x.detach().clone().zero_(),
    "where": lambda x, condition, other, **kwargs: cr.where(condition, x, other, **kwargs),
}

# Their values are random: shape and dtype are compared.
RANDOM = {
    "bernoulli", "multinomial", "normal", "rand_like", "randint", "randint_like", "randn", "randn_like",
    "nn.functional.dropout",
    "empty", "empty_like",  # whatever lay there
}  # fmt: skip

# Keyword arguments that make the values random where they are not 0.
RANDOM_KEYWORDS = {"dropout_p": "which weights are dropped is random"}

# float32 compared with another tolerance: sums of large products that cancel, added up in another order.
SINGLE_TOLERANCE = {
    "nn.functional.conv1d": 1e-4, "nn.functional.conv2d": 1e-4, "nn.functional.scaled_dot_product_attention": 1e-4,
}  # fmt: skip

# Gradients compared with another tolerance: PyTorch's slope 1/6 is that number in float32, in float64 too.
GRADIENT_TOLERANCE = {"nn.functional.hardsigmoid": 1e-7}

_ACTIVATION = "an activation of integers is a float here"
_FACTOR = "a float factor makes floats of integers; PyTorch cuts the factor down to an integer"
_UNSTABLE = "PyTorch's default sort is not stable, ours always is: which of equal entries comes first differs"
_CEIL = "ceil_mode=True is not offered: pad the input instead"
_INDICES = "return_indices=True is not offered"
_WHOLE_MEAN = "a mean of integers is refused; PyTorch cuts it down to an integer"
_TRUNCATES = "PyTorch cuts the arguments down to integers first; here the numbers are computed, then cast"

# entry name -> (regular expression for a difference, the reason it is one)
DIFFERENCES: dict[str, tuple[tuple[str, str], ...]] = {
    "nn.functional.hardtanh": (("dtype float32, PyTorch int64", _ACTIVATION),),
    "nn.functional.relu6": (("dtype float32, PyTorch int64", _ACTIVATION),),
    "addmv": (("^int64: .*dtype float32, PyTorch int64", _FACTOR),),
    "baddbmm": (("^int64: .*dtype float32, PyTorch int64", _FACTOR),),
    "logit": (("^gradients: .*PyTorch nan$", "outside (0, 1) the value is nan; PyTorch makes its gradient nan too"),),
    "sign": (("nan, PyTorch 0.0$", "the sign of nan is nan, as the array API standard has it; 0 in PyTorch"),),
    "sort": (("^bool", _UNSTABLE),),
    "argsort": (("^bool", _UNSTABLE),),
    "topk": (("^int64", _UNSTABLE),),
    "arange": (("^int64: (-?[0-9]+[.]|0, end=3[.])", _TRUNCATES),),
    "linspace": ((r"^int64: (4[.]3|float32\[\]), ", _TRUNCATES),),
    "__rsub__": (("^reference [a-z0-9]+: -?[0-9.]+, ", "PyTorch's __rsub__ of a number loses the tensor's shape"),),
}

# entry name (or "any") -> (error class, part of its message, the reason a sample is not covered)
ERRORS: dict[str, tuple[tuple[type[Exception], str, str], ...]] = {
    "any": ((TypeError, "expected a tensor among its inputs", "two Python numbers, and no tensor among them"),),
    "pow": ((ValueError, "has no integer value", "an integer to a negative power is an error; PyTorch makes it 0"),),
    "__rpow__": (
        (ValueError, "has no integer value", "an integer to a negative power is an error; PyTorch makes it 0"),
    ),
    "index_put": (
        (ValueError, "only accumulate=True", "overwriting is not offered: which of two writes wins is chance"),
    ),
    "nn.functional.pad": ((ValueError, "mode must be", "only mode='constant' is offered"),),
    "nn.functional.embedding": (
        (TypeError, "'max_norm'", "max_norm= is not offered: it changes the weight in place"),
        (TypeError, "'sparse'", "sparse= is not offered: gradients are dense"),
        (TypeError, "'scale_grad_by_freq'", "scale_grad_by_freq= is not offered: it is not the derivative"),
    ),
    "nn.functional.batch_norm": ((ValueError, "must be (n, channels", "an input without channels is refused"),),
    "nn.functional.max_pool1d": (
        (ValueError, "ceil_mode is not there", _CEIL),
        (ValueError, "return_indices is not there", _INDICES),
    ),
    "nn.functional.max_pool2d": (
        (ValueError, "ceil_mode is not there", _CEIL),
        (ValueError, "return_indices is not there", _INDICES),
    ),
    "nn.functional.avg_pool1d": (
        (ValueError, "ceil_mode is not there", _CEIL),
        (TypeError, "needs a float dtype", _WHOLE_MEAN),
    ),
    "nn.functional.avg_pool2d": (
        (ValueError, "ceil_mode is not there", _CEIL),
        (TypeError, "needs a float dtype", _WHOLE_MEAN),
    ),
    "normal": ((ValueError, "shape: expected ints", "the in-place form is not offered"),),
    "norm": ((ValueError, "p must be a number", "singular values are not offered"),),
}
