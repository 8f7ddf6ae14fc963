"""Bringing inputs to one shape and dtype before a strict op meets them, and naming dimensions.

Broadcasting and promotion happen here and nowhere else: as `expand` and `cast` nodes, so that gradients are summed and
cast back by those ops' own rules. A Python number stays a scalar constant and needs neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeGuard

import numpy as np

from chainrule import dtypes
from chainrule.core.aval import Aval
from chainrule.core.node import AnyNode, Node, Ratio, at_user_line
from chainrule.core.tracing import tracer
from chainrule.errors import ArgumentError, ChainruleError, DTypeError, OutOfRangeError, ShapeError, SymbolicValueError
from chainrule.ops import movement

Scalar = bool | int | float
_SCALARS = (bool, int, float, Ratio, np.bool_, np.integer, np.floating)
Shape = tuple[int, ...]


def is_scalar(value: object) -> TypeGuard[Scalar]:
    """A Python or NumPy number, which joins a tensor as a constant."""
    return isinstance(value, _SCALARS)


def as_node(value: Any, like: Any, name: str = "tensor") -> Any:
    """A node for anything array-like; `like` gives the class, `name` is the function that wants it."""
    if isinstance(value, Node):
        return value
    try:
        array = np.asarray(value)
        dtypes.as_dtype(array.dtype)
    except (ValueError, DTypeError):
        raise not_a_tensor(name, value) from None
    return type(like).leaf(array)


def not_a_tensor(name: str, value: object, parameter: str = "") -> ChainruleError:
    """The error for something that is no tensor where one is needed: as that parameter, where there are several."""
    kind = type(value)
    wanted = f"{name}: expected a tensor{parameter and f' as {parameter}'}"
    if value is None:
        return at_user_line(DTypeError(f"{wanted}; got None; does what made it return anything?"))
    if isinstance(value, tuple):
        return at_user_line(DTypeError(f"{wanted}; got a tuple of {len(value)}; take one of its parts"))
    got = kind.__name__ if kind.__name__ != "Tensor" else f"{kind.__module__}.Tensor"  # that of another library
    return at_user_line(DTypeError(f"{wanted}; got {got}; make one with cr.tensor(…) first"))


def as_dtype(dtype: object) -> np.dtype:
    """`dtypes.as_dtype`, whose error says where the user asked."""
    try:
        return dtypes.as_dtype(dtype)
    except DTypeError as error:
        raise at_user_line(error) from None


_DEVICES = ("cpu", "cuda", "gpu", "meta", "mps", "tpu", "xpu")


def is_device(value: object) -> bool:
    """Does this name a device, of ours or of another library's?"""
    return isinstance(value, str) and value.partition(":")[0] in _DEVICES


def check_device(name: str, device: object) -> None:
    """Take note that a device was named, and that it is the CPU.

    Raises: ArgumentError: any other device.
    """
    if device is not None and str(device) not in ("cpu", "cpu:0"):
        raise at_user_line(ArgumentError(f"{name}: there is only the CPU; got device {device!r}; leave it out"))


def value_of(x: Any, wanted: str) -> np.ndarray:
    """The numbers behind a tensor.

    Raises: SymbolicValueError: it is a symbol, or is traced and has another value at each call.
    """
    tracing = tracer()
    if x.array is None or (tracing is not None and not tracing.is_constant(x)):
        raise at_user_line(SymbolicValueError(f"{wanted}: {x.aval} has a shape and a dtype, but no value{_why(x)}"))
    data: np.ndarray = x.array
    return data


def _why(x: Any) -> str:
    if tracer() is not None:
        return (
            " while cr.compile traces the function; compute it with tensors (cr.where for a branch), or return it and "
            "look at it outside"
        )
    traced = x.trail is not None  # a symbol that no trace made has none
    return "; it was made while a function was traced, and kept; return it from that function instead" if traced else ""


def constant(value: Any, dtype: np.dtype) -> tuple[Any, np.dtype]:
    """(the number as a Python scalar or Ratio, the dtype that a tensor of `dtype` takes on when it meets it)."""
    if isinstance(value, Ratio):
        return value, dtypes.promote_scalar(dtype, value.value)
    if isinstance(value, np.generic):
        value = value.item()
    return value, dtypes.promote_scalar(dtype, value)


def together(name: str, *values: Any, floating: bool = False) -> tuple[Any, ...]:
    """The values as nodes of one shape and one dtype.

    floating: integers and bools become the default float, for functions that only floats have.
    Raises: ShapeError: the shapes do not broadcast. DTypeError: the dtypes have no common one.
    """
    like = next((v for v in values if isinstance(v, Node)), None)
    if like is None:
        raise at_user_line(
            DTypeError(f"{name}: expected a tensor among its inputs; got {', '.join(type(v).__name__ for v in values)}")
        )
    nodes = [v if isinstance(v, Node) or is_scalar(v) else as_node(v, like, name) for v in values]
    dtype: np.dtype | None = None
    for node in nodes:
        if isinstance(node, Node):
            dtype = node.aval.dtype if dtype is None else _promoted(name, dtype, node.aval.dtype)
    assert dtype is not None
    for node in nodes:
        if not isinstance(node, Node):
            dtype = constant(node, dtype)[1]
    if floating and not dtypes.is_float(dtype):
        dtype = dtypes.DEFAULT_FLOAT
    shape = broadcast_shapes(name, [n.aval for n in nodes if isinstance(n, Node)])
    cls = type(like)
    return tuple(
        cls.filled(Aval((), dtype), constant(n, dtype)[0])
        if not isinstance(n, Node)
        else _same_number(n, dtype)  # a number stays a number: no copies of it are made
        if n.constant is not None and n.aval.shape == ()
        else expand(to_dtype(n, dtype), shape)
        for n in nodes
    )


def _same_number(x: Any, dtype: np.dtype) -> Any:
    """A scalar constant in another dtype: a number in a formula stays one, and is not computed with."""
    if x.aval.dtype == dtype:
        return x
    aval = Aval((), dtype)
    return type(x).number(aval, x.constant) if x.array is None else type(x).filled(aval, x.constant)


def _promoted(name: str, first: np.dtype, second: np.dtype) -> np.dtype:
    try:
        return dtypes.promote(first, second)
    except DTypeError:
        raise at_user_line(
            DTypeError(f"{name}: {first} and {second} have no common dtype; cast one of them with .to()")
        ) from None


def broadcast_shapes(name: str, avals: Sequence[Aval]) -> Shape:
    """The shape all of these stretch to, by the usual rule: from the right, sizes are equal or 1."""
    rank = max(a.ndim for a in avals)
    sizes = []
    for d in range(-rank, 0):
        here = {a.shape[d] for a in avals if a.ndim >= -d}
        others = here - {1}
        if len(others) > 1:
            raise at_user_line(ShapeError(
                f"{name}: shapes do not broadcast: {' and '.join(map(str, avals))}; dimension {d} has sizes "
                f"{' and '.join(str(a.shape[d]) for a in avals if a.ndim >= -d)}; reshape or transpose one input"
            ))  # fmt: skip
        sizes.append(others.pop() if others else 1)
    return tuple(sizes)


def expand(x: AnyNode, shape: Shape) -> AnyNode:
    """`x` stretched to `shape`; itself if it has that shape already."""
    return x if x.aval.shape == shape else movement.expand(x, shape=shape)


def to_dtype(x: AnyNode, dtype: np.dtype) -> AnyNode:
    """`x` cast to `dtype`; itself if it has that dtype already."""
    return x if x.aval.dtype == dtype else movement.cast(x, dtype=dtype)


def floating(x: AnyNode) -> AnyNode:
    """`x`, cast to the default float if it is integer or bool."""
    dtype = x.aval.dtype
    return x if dtypes.is_float(dtype) else movement.cast(x, dtype=dtypes.DEFAULT_FLOAT)


def one_dim(name: str, dim: Any, ndim: int) -> int:
    """A dimension as a non-negative int; a scalar is taken as having one.

    Raises: OutOfRangeError.
    """
    rank = max(ndim, 1)
    if not isinstance(dim, int | np.integer) or isinstance(dim, bool):
        raise at_user_line(ArgumentError(f"{name}: dim must be an int; got {dim!r}"))
    if not -rank <= dim < rank:
        raise at_user_line(
            OutOfRangeError(f"{name}: dim {dim} is out of range for {ndim} dimensions; use {-rank} to {rank - 1}")
        )
    return int(dim) % rank


def some_dims(name: str, dim: int | Sequence[int] | None, ndim: int) -> tuple[int, ...]:
    """Dimensions as distinct non-negative ints; None means all."""
    if dim is None:
        return tuple(range(ndim))
    if isinstance(dim, int | np.integer):
        dim = (int(dim),)
    found = tuple(one_dim(name, d, ndim) for d in dim) or tuple(range(ndim))
    if len(set(found)) != len(found):
        raise at_user_line(ArgumentError(f"{name}: dim {tuple(dim)} names a dimension twice"))
    return found if ndim else ()


def sizes(args: tuple[Any, ...]) -> Shape:
    """A shape given as f(2, 3) or f((2, 3))."""
    if len(args) == 1 and isinstance(args[0], Iterable):
        args = tuple(args[0])
    if not all(isinstance(n, int | np.integer) for n in args):
        raise at_user_line(ArgumentError(f"shape: expected ints; got {args!r}"))
    return tuple(int(n) for n in args)
