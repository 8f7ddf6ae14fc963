"""Parameter: a tensor that a module trains."""

from __future__ import annotations

from typing import Any

import numpy as np

from chainrule import creation, dtypes
from chainrule.array.align import value_of
from chainrule.core.node import NO_PARAMS, at_user_line, make
from chainrule.core.provenance import capture
from chainrule.errors import DTypeError
from chainrule.tensor import Tensor


class Parameter(Tensor, makes=Tensor):
    """A leaf that requires a gradient, and that a module finds among its attributes.

    The class is the mark: a module trains what is a Parameter and nothing else. What is computed from a Parameter is a
    plain Tensor (`makes`), so that a value kept as an attribute is not taken for something to train.

    Args:
        data: a tensor, whose memory is shared, or anything `cr.asarray` takes.
        requires_grad: False freezes it.
    Raises: DTypeError: an integer or bool cannot have a gradient.

    >>> import chainrule as cr
    >>> w = cr.nn.Parameter(cr.tensor([1.0, 2.0]))
    >>> w
    Parameter containing:
    tensor([1., 2.], requires_grad=True)
    >>> type(w * 2)
    <class 'chainrule.tensor.Tensor'>
    """

    __slots__ = ()

    def __new__(cls, data: Any, requires_grad: bool = True) -> Parameter:
        value = data.detach() if isinstance(data, Tensor) else creation.asarray(data)
        if requires_grad and not dtypes.is_float(value.dtype):
            raise at_user_line(DTypeError(
                f"Parameter: only float tensors have a gradient; got {value.aval}; cast it with .to(cr.float32), "
                f"or say requires_grad=False"
            ))  # fmt: skip
        array: np.ndarray = value_of(value, "Parameter")
        made: Parameter = make(cls, None, (), NO_PARAMS, array, None, requires_grad, capture(2))
        return made

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        """Made by `__new__`."""

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"


def blank(*shape: int, dtype: object) -> Parameter:
    """A parameter of zeros, whose first values are still to be drawn; float32 if `dtype` is None."""
    return Parameter(creation.zeros(*shape, dtype=dtype or dtypes.DEFAULT_FLOAT))
