"""What NumPy's functions do when they meet a tensor: operators between an array and a tensor work, all others say why.

NumPy hands `array + tensor` over here whole, instead of looping over the array.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from chainrule.core.node import Node, at_user_line
from chainrule.errors import DTypeError

# The operator of a tensor on the left, and that of one on the right.
_OPERATORS = {
    np.add: ("__add__", "__radd__"),
    np.subtract: ("__sub__", "__rsub__"),
    np.multiply: ("__mul__", "__rmul__"),
    np.true_divide: ("__truediv__", "__rtruediv__"),
    np.floor_divide: ("__floordiv__", "__rfloordiv__"),
    np.remainder: ("__mod__", "__rmod__"),
    np.power: ("__pow__", "__rpow__"),
    np.matmul: ("__matmul__", "__rmatmul__"),
    np.bitwise_and: ("__and__", "__rand__"),
    np.bitwise_or: ("__or__", "__ror__"),
    np.bitwise_xor: ("__xor__", "__rxor__"),
    np.equal: ("__eq__", "__eq__"),
    np.not_equal: ("__ne__", "__ne__"),
    np.less: ("__lt__", "__gt__"),
    np.less_equal: ("__le__", "__ge__"),
    np.greater: ("__gt__", "__lt__"),
    np.greater_equal: ("__ge__", "__le__"),
}


def applied(x: Any, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
    """`ufunc` of arrays and tensors, for an operator.

    Raises: DTypeError: any other function of NumPy's, or one that is to write into an array.
    """
    operators = _OPERATORS.get(ufunc)
    if operators is not None and method == "__call__" and not kwargs:
        left, right = inputs
        if isinstance(left, Node):
            return getattr(left, operators[0])(right)
        return getattr(right, operators[1])(left)
    name = ufunc.__name__
    if kwargs.get("out") is not None:
        raise at_user_line(DTypeError(
            f"np.{name}: a tensor is not written into an array; use a = a … t for a tensor, or t.detach().numpy()"
        ))  # fmt: skip
    ours = f"t.{name}()" if hasattr(x, name) else "a function of chainrule's"
    raise at_user_line(DTypeError(f"np.{name}: got a tensor; use {ours}, or t.detach().numpy() for an array"))
