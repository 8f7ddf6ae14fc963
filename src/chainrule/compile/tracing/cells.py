"""Cell and Number: what stands for an array and for a number in an optimiser's update rule while it is traced.

So the rules that run in NumPy at each step are the very rules that are compiled: what they do to arrays and floats
makes nodes. A Number is float64, or int64 for a count, as Python's are; it takes on an array's dtype where they meet.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule import dtypes
from chainrule.array import elementwise, manipulation, statistical
from chainrule.array.align import expand, to_dtype
from chainrule.core.aval import Aval
from chainrule.core.node import ENGINE_OFF, Node, recording
from chainrule.tensor import Tensor

if TYPE_CHECKING:
    from chainrule.compile.tracing.trace import GraphTracer

_UFUNCS: dict[Any, Callable[..., Any]] = {
    np.add: elementwise.add,
    np.subtract: elementwise.sub,
    np.multiply: elementwise.mul,
    np.true_divide: elementwise.true_divide,
    np.power: elementwise.pow,
    np.maximum: elementwise.maximum,
    np.minimum: elementwise.minimum,
    np.negative: elementwise.neg,
    np.absolute: elementwise.abs,
    np.sign: elementwise.sign,
    np.square: elementwise.square,
    np.reciprocal: elementwise.reciprocal,
    np.sqrt: elementwise.sqrt,
    np.exp: elementwise.exp,
    np.log: elementwise.log,
}


class Traced:
    """What both share: NumPy's functions of them make nodes."""

    __slots__ = ("tracer",)

    tracer: GraphTracer

    @property
    def node(self) -> Any:
        """The value it stands for."""
        raise NotImplementedError

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **options: Any) -> Any:
        function = _UFUNCS.get(ufunc)
        if function is None or method != "__call__" or options:
            how = "" if method == "__call__" else f".{method}"
            raise self.tracer.refuse(f"np.{ufunc.__name__}{how} in an update rule", _RULES)
        found = computed(self.tracer, function, *inputs)
        if out is None:
            return found
        (into,) = out
        into.assign(found)
        return into

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        known = _FUNCTIONS.get(function)
        if known is None:
            raise self.tracer.refuse(f"np.{function.__name__} in an update rule", _RULES)
        return known(self.tracer, *args, **kwargs)

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise self.tracer.refuse("the values of an array that is being traced", _RULES)

    def __add__(self, other: Any) -> Any:
        return np.add(self, other)

    def __radd__(self, other: Any) -> Any:
        return np.add(other, self)

    def __sub__(self, other: Any) -> Any:
        return np.subtract(self, other)

    def __rsub__(self, other: Any) -> Any:
        return np.subtract(other, self)

    def __mul__(self, other: Any) -> Any:
        return np.multiply(self, other)

    def __rmul__(self, other: Any) -> Any:
        return np.multiply(other, self)

    def __truediv__(self, other: Any) -> Any:
        return np.true_divide(self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return np.true_divide(other, self)

    def __pow__(self, other: Any) -> Any:
        return np.power(self, other)

    def __rpow__(self, other: Any) -> Any:
        return np.power(other, self)

    def __neg__(self) -> Any:
        return np.negative(self)

    def __bool__(self) -> bool:
        raise self.tracer.refuse("a branch on a value in an update rule", _RULES)

    def __float__(self) -> float:
        raise self.tracer.refuse("the value of a number that is being traced", _RULES)

    def __eq__(self, other: object) -> Any:
        raise self.tracer.refuse("a comparison in an update rule", _RULES)

    __int__ = __float__
    __lt__ = __le__ = __gt__ = __ge__ = __ne__ = __eq__
    __hash__ = object.__hash__


_RULES = (
    "an update rule that is compiled works on whole arrays, with + - * / **, in place or with out=, and branches on "
    "options only, by whether they are 0"
)


class Number(Traced):
    """A number that is read anew at each call, or computed from such numbers.

    option: what tells whether it is 0, and keeps that as a guard; None for what was computed.
    """

    __slots__ = ("_node", "_truth", "value")

    def __init__(
        self, tracer: GraphTracer, node: Any, truth: Callable[[], bool] | None = None,
        value: Callable[[], Any] | None = None,
    ) -> None:  # fmt: skip
        self.tracer, self._node, self._truth, self.value = tracer, node, truth, value

    @property
    def node(self) -> Any:
        return self._node

    def __bool__(self) -> bool:
        return super().__bool__() if self._truth is None else self._truth()


class Cell(Traced):
    """An array whose contents change: reading it gives the node it holds now, writing gives it another.

    tensor: the tensor whose memory it is, or None for memory of its own.
    fill: for memory of its own that nothing was written to yet, the number that it is filled with.
    """

    __slots__ = ("_node", "aval", "fill", "tensor")

    def __init__(
        self, tracer: GraphTracer, aval: Aval, node: Any = None, *, tensor: Any = None, fill: Any = None
    ) -> None:
        self.tracer, self.aval, self._node, self.tensor, self.fill = tracer, aval, node, tensor, fill

    @property
    def shape(self) -> tuple[int, ...]:
        return self.aval.shape

    @property
    def dtype(self) -> np.dtype:
        return self.aval.dtype

    @property
    def size(self) -> int:
        return self.aval.size

    @property
    def ndim(self) -> int:
        return self.aval.ndim

    @property
    def node(self) -> Any:
        if self.tensor is not None:
            return self.tracer.read(self.tensor)
        if self._node is None:
            self._node = _filled(self.fill, self.aval)
        return self._node

    def begin(self, node: Any) -> None:
        """What this memory holds at the beginning of the step."""
        self._node, self.fill = node, None

    def assign(self, value: Any, name: str = "update") -> None:
        """Write a cell, a number, or what is computed from them, into this memory; `name` is who asks."""
        if isinstance(value, Node):  # a tensor, which may have been changed before
            value = self.tracer.read(value)
        node = _fitted(value.node if isinstance(value, Traced) else value, self.aval)
        self.fill = None
        if self.tensor is None:
            self._node = node
        else:
            self.tracer.write(self.tensor, node, name)

    def copy(self) -> Cell:
        return Cell(self.tracer, self.aval, self.node)

    def reshape(self, *shape: Any) -> Cell:
        node = recording(ENGINE_OFF, manipulation.reshape, self.node, *shape)
        return Cell(self.tracer, node.aval, node)

    def astype(self, dtype: Any) -> Cell:
        node = _fitted(self.node, Aval(self.shape, dtypes.as_dtype(dtype)))
        return Cell(self.tracer, node.aval, node)

    def __iadd__(self, other: Any) -> Any:
        return np.add(self, other, out=self)  # type: ignore[call-overload]

    def __isub__(self, other: Any) -> Any:
        return np.subtract(self, other, out=self)  # type: ignore[call-overload]

    def __imul__(self, other: Any) -> Any:
        return np.multiply(self, other, out=self)  # type: ignore[call-overload]

    def __itruediv__(self, other: Any) -> Any:
        return np.true_divide(self, other, out=self)  # type: ignore[call-overload]

    def __setitem__(self, key: Any, value: Any) -> None:
        if key is not Ellipsis and key != slice(None):
            raise self.tracer.refuse("a part of an array in an update rule", _RULES)
        self.assign(value)

    def __getitem__(self, key: Any) -> Any:
        if key is not Ellipsis and key != slice(None):
            raise self.tracer.refuse("a part of an array in an update rule", _RULES)
        return self


def computed(tracer: GraphTracer, function: Callable[..., Any], *operands: Any) -> Any:
    """`function` of cells and numbers: a cell if one of them is, else a number."""
    cells = [x for x in operands if isinstance(x, Cell)]
    if cells:
        dtype = functools.reduce(dtypes.promote, [x.dtype for x in cells])
        if dtype == dtypes.bfloat16 and len(cells) < len(operands):  # as NumPy does with a Python float
            dtype = dtypes.float32
    else:
        whole = all(_is_whole(x) for x in operands) and function not in (elementwise.true_divide, elementwise.pow)
        dtype = dtypes.int64 if whole else dtypes.float64
    node = recording(ENGINE_OFF, _applied, function, operands, dtype)
    return Cell(tracer, node.aval, node) if cells else Number(tracer, node)


def _applied(function: Callable[..., Any], operands: Iterable[Any], dtype: np.dtype) -> Any:
    nodes = [_operand(x, dtype) for x in operands]
    if not isinstance(nodes[0], Node):  # 1 - x: the functions want the tensor first
        nodes[0] = Tensor.filled(Aval((), dtype), nodes[0])
    return function(*nodes)


def _is_whole(x: Any) -> bool:
    return dtypes.is_integer(x.node.aval.dtype) if isinstance(x, Number) else isinstance(x, int | np.integer)


def _operand(x: Any, dtype: np.dtype) -> Any:
    if x is None:  # an option that was taken away, of which NumPy would make nan
        raise TypeError("an update rule computes with numbers; one of them is None")
    # As NumPy does with Python's numbers, a Number takes on the dtype of the array it meets.
    return to_dtype(x.node, dtype) if isinstance(x, Traced) else x


def _fitted(value: Any, aval: Aval) -> Any:
    """A node of `value` with this shape and dtype."""
    assert value is not None
    if not isinstance(value, Node):
        return (
            Tensor.filled(aval, value) if np.ndim(value) == 0 else Tensor.leaf(np.full(aval.shape, value, aval.dtype))
        )
    return recording(ENGINE_OFF, lambda: expand(to_dtype(value, aval.dtype), aval.shape))


def _filled(fill: Any, aval: Aval) -> Any:
    return _fitted(fill.node if isinstance(fill, Number) else fill, aval)


# --- NumPy's functions that are no ufuncs


def _like(fill: Any) -> Callable[..., Cell]:
    return lambda tracer, like, *args, **kwargs: Cell(tracer, like.aval, fill=fill)


def _copyto(tracer: GraphTracer, into: Cell, value: Any, **kwargs: Any) -> None:
    into.assign(value)


def _clip(tracer: GraphTracer, x: Cell, low: Any, high: Any, out: Any = None) -> Any:
    found = computed(tracer, elementwise.clamp, x, low, high)
    if out is None:
        return found
    out.assign(found)
    return out


def _sum(tracer: GraphTracer, x: Any) -> Any:
    """All entries of an array, as a Number."""
    total = recording(ENGINE_OFF, lambda: statistical.sum(to_dtype(x.node, dtypes.float64)))
    return Number(tracer, total)


def _max(tracer: GraphTracer, x: Any) -> Any:
    return Number(tracer, recording(ENGINE_OFF, lambda: to_dtype(statistical.amax(x.node), dtypes.float64)))


def _norm(tracer: GraphTracer, x: Any, order: float = 2) -> Any:
    """The norm of a vector, as a Number."""
    if order == 2:
        return np.sqrt(_sum(tracer, x * x))
    if np.isinf(order):
        return _max(tracer, np.absolute(x))
    return _sum(tracer, np.absolute(x) ** order) ** (1 / order)


_FUNCTIONS: dict[Any, Callable[..., Any]] = {
    np.zeros_like: _like(0),
    np.ones_like: _like(1),
    np.empty_like: _like(0),
    np.full_like: lambda tracer, like, fill, **kwargs: Cell(tracer, like.aval, fill=fill),
    np.copyto: _copyto,
    np.copy: lambda tracer, x, **kwargs: x.copy(),
    np.clip: _clip,
    np.sum: _sum,
    np.max: _max,
    np.linalg.norm: _norm,
}
