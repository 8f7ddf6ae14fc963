"""Tensor: a node with operators, `.grad` and `.backward()`. The only class users build; ops never import it.

The methods are the functions of `array`, listed in one place each; this module adds what belongs to the object itself:
gradients, in-place updates of leaves, and the way to and from NumPy.
"""

from __future__ import annotations

import builtins
import copy
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, Self

import numpy as np

from chainrule import dtypes
from chainrule.array import (
    align,
    arrangement,
    elementwise,
    formulas,
    indexing,
    inplace,
    linear_algebra,
    manipulation,
    statistical,
    ufuncs,
)  # fmt: skip
from chainrule.autodiff.broken import no_gradient_reason
from chainrule.autodiff.reverse import checked_grad, fits, gradients
from chainrule.core.alignment import is_writable
from chainrule.core.node import (
    ENGINE_OFF,
    NO_PARAMS,
    Cut,
    Node,
    at_user_line,
    make,
    recording,
    tick,
)  # fmt: skip
from chainrule.core.provenance import capture
from chainrule.core.tracing import tracer
from chainrule.errors import (
    ArgumentError,
    DTypeError,
    GradientError,
    InPlaceError,
    NoGradientError,
    NotScalarError,
    ShapeError,
)
from chainrule.ops import movement

# Told of each backward pass before it begins: how the last one of a script is explained without editing the script.
backward_watchers: ContextVar[tuple[Callable[[Tensor], None], ...]] = ContextVar(
    "chainrule_backward_watchers", default=()
)


class Tensor(Node):
    """An array that knows how it was made.

    Made by `cr.tensor`, `cr.zeros`, `cr.randn`, … and by every function of tensors. Values do not change, except those
    of leaves, in place, under `no_grad()`.
    """

    __slots__ = ()

    # --- what it is

    @property
    def shape(self) -> tuple[int, ...]:
        data = self.array
        return self.aval.shape if data is None else data.shape

    @property
    def dtype(self) -> np.dtype:
        data = self.array
        return self.aval.dtype if data is None else data.dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def dim(self) -> int:
        """The number of dimensions."""
        return len(self.shape)

    def numel(self) -> int:
        """The number of entries."""
        return self.aval.size

    def size(self, dim: int | None = None) -> Any:
        """The shape, or the size of one dimension."""
        return self.shape if dim is None else self.shape[align.one_dim("size", dim, self.ndim)]

    @property
    def device(self) -> str:
        return "cpu"

    @property
    def T(self) -> Tensor:
        return manipulation.permute(self, *range(self.ndim)[::-1])

    mT = property(manipulation.matrix_transpose)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a tensor without dimensions")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        if self.array is None:
            return f"tensor(symbol {self.symbol or '?'}: {self.aval})"
        if not self.array.size:
            size = f", size={self.shape}" if self.ndim != 1 else ""
            kind = "" if self.dtype == dtypes.DEFAULT_FLOAT else f", dtype={self.dtype}"
            return f"tensor([]{size}{kind}{', requires_grad=True' if self.requires_grad else ''})"
        text = np.array2string(self.array, separator=", ", prefix="tensor(", precision=4, threshold=1000)
        known = self.dtype in (dtypes.DEFAULT_FLOAT, dtypes.DEFAULT_INT, dtypes.bool_)
        extra = ("" if known else f", dtype={self.dtype}") + (
            f", requires_grad={self.requires_grad}" if self.requires_grad else ""
        )
        return f"tensor({text}{extra})"

    # --- to Python and NumPy

    def numpy(self) -> np.ndarray:
        """The value as a NumPy array that shares memory with the tensor.

        What is written into the array changes the tensor unseen: a backward pass that needs the old value is wrong, and
        no error. Write through the tensor, under `no_grad()`, or into a copy.

        Raises: GradientError: the tensor requires a gradient, which NumPy would lose; say `.detach().numpy()`.
        """
        if self.requires_grad:
            raise at_user_line(
                GradientError("numpy: this tensor requires a gradient, which NumPy would lose; use .detach().numpy()")
            )
        return align.value_of(self, "numpy")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def __dlpack__(self, **kwargs: Any) -> Any:
        return self.numpy().__dlpack__(**kwargs)

    def __dlpack_device__(self) -> tuple[int, int]:
        return align.value_of(self, "dlpack").__dlpack_device__()

    __array_ufunc__ = ufuncs.applied

    def item(self) -> Any:
        """The one entry, as a Python number."""
        value = align.value_of(self, "item")
        if value.size != 1:
            raise at_user_line(ShapeError(f"item: expected one entry; got {self.aval}; use .tolist()"))
        return value.item()

    def tolist(self) -> Any:
        """The entries as nested lists of Python numbers."""
        return align.value_of(self, "tolist").tolist()

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        if not dtypes.is_integer(self.dtype):
            raise TypeError(f"only an integer tensor with one entry is an index; got {self.aval}")
        return int(self.item())

    def __bool__(self) -> bool:
        if self.numel() != 1:
            raise at_user_line(ArgumentError(f"bool: {self.aval} has more than one truth value; use .any() or .all()"))
        return bool(self.item())

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec and self.numel() == 1 else str(self)

    # --- gradients

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Ask for a gradient of this leaf, in place.

        Raises: DTypeError: integers and bools have no gradient. InPlaceError: the tensor was computed from others.
        """
        if requires_grad and not dtypes.is_float(self.dtype):
            raise at_user_line(_no_float(self))
        if self.op is not None and not requires_grad:
            raise at_user_line(
                InPlaceError("requires_grad: this tensor was computed from others that need a gradient; use .detach()")
            )
        self.requires_grad = requires_grad
        self.trail = capture()
        return self

    def detach(self) -> Tensor:
        """The same value, sharing memory, as a constant: no gradient passes."""
        tracing = tracer()
        if tracing is not None:
            value: Tensor = tracing.detached(self)
        elif self.array is not None:
            value = Tensor.leaf(self.array)
            if self.op is None and not is_writable(self.array):  # what is written there would be lost to this one
                value.origin = self.origin or (movement.reshape, self, {"shape": self.shape})
        else:
            value = Tensor.symbolic(self.symbol or "?", self.aval)
        if self.requires_grad:
            value.cut = Cut("detach: it was detached", (weakref.ref(self),))
            value.trail = capture()
        value.constant = self.constant
        return value

    @property
    def data(self) -> Tensor:
        """The same value, sharing memory, without a gradient: `detach()`.

        Setting it puts the tensor's value into other memory: that of the tensor which is given. A backward pass that
        needs the old value is then an error.
        """
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:
        inplace.replace(self, value)

    def alias(self) -> Tensor:
        """The same value as a new node that leads back to this one."""
        return movement.reshape(self, shape=self.shape)

    def detach_(self) -> Self:
        """A leaf that no longer requires a gradient.

        Raises: InPlaceError: the tensor was computed from others, whose graphs would lose it.
        """
        if self.op is not None:
            raise at_user_line(
                InPlaceError(f"detach_: this tensor was computed by {self.op.name}; write y = y.detach() instead")
            )
        self.requires_grad = False
        return self

    def backward(
        self, gradient: Any = None, retain_graph: builtins.bool | None = None, create_graph: builtins.bool = False
    ) -> None:
        """Add the gradient of this tensor to the `.grad` of every leaf that requires one.

        Args:
            gradient: the cotangent to start from, shaped like this tensor; may be left out for a scalar, where it is 1.
            retain_graph: accepted, and of no effect: a graph lives as long as the loss.
            create_graph: only False; gradients of gradients are `cr.grad`'s and `cr.autograd.grad`'s.
        Raises:
            ArgumentError: `create_graph`. ShapeError, DTypeError: a `.grad` that was assigned does not fit its leaf.
            NotScalarError: not a scalar, and no `gradient`. NoGradientError: nothing here requires a gradient.
            StaleValueError: a value that the backward pass needs was changed in place since.
        """
        if create_graph:
            raise at_user_line(ArgumentError(
                "backward: create_graph is not there; differentiate a function with cr.grad(cr.grad(f)), or use "
                "cr.autograd.grad(loss, x, create_graph=True)"
            ))  # fmt: skip
        if not self.requires_grad:
            raise at_user_line(NoGradientError(no_gradient_reason(self)))
        seed = self._seed(gradient)
        if tracer() is None:
            for watcher in backward_watchers.get():
                watcher(self)
        started = tick()
        found = recording(ENGINE_OFF, gradients, self, seed)
        recording(ENGINE_OFF, _add_to_grads, found, started)

    def _seed(self, gradient: Any) -> Tensor:
        if gradient is None:
            if self.aval.size != 1:
                raise at_user_line(NotScalarError(
                    f"backward: gradients start from a scalar; got {self.aval}; reduce it with .sum() or .mean(), "
                    f"or pass the cotangent: y.backward(gradient) with the shape of y"
                ))  # fmt: skip
            return Tensor.filled(self.aval, 1.0)
        seed = align.as_node(gradient, self, "backward")
        if seed.shape != self.shape:
            raise at_user_line(
                ShapeError(f"backward: the gradient is {seed.aval}, the tensor {self.aval}; their shapes must agree")
            )
        return align.to_dtype(seed, self.dtype)  # type: ignore[no-any-return]

    # --- in-place updates of leaves

    writable = inplace.writable
    add_, sub_, mul_, div_ = inplace.add_, inplace.sub_, inplace.mul_, inplace.div_
    clamp_, zero_, fill_, copy_ = inplace.clamp_, inplace.zero_, inplace.fill_, inplace.copy_
    __iadd__, __isub__ = inplace.iadd, inplace.isub
    __imul__, __itruediv__ = inplace.imul, inplace.itruediv
    __setitem__ = inplace.setitem

    # --- copies

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A leaf with memory of its own; its gradient is copied too."""
        if self.op is not None:
            raise at_user_line(
                GradientError(
                    f"deepcopy: this tensor was computed by {self.op.name}, and a copy would have no graph; "
                    f"use .detach() first"
                )
            )
        copied: Self = make(
            type(self),
            None,
            (),
            NO_PARAMS,
            np.array(align.value_of(self, "deepcopy")),
            None,
            self.requires_grad,
            self.trail,
        )
        copied.grad = copy.deepcopy(self.grad, memo)
        memo[id(self)] = copied
        return copied

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as its value, and whether it requires a gradient."""
        if self.op is not None:
            raise at_user_line(GradientError(
                f"pickle: this tensor was computed by {self.op.name}, and its graph is not pickled; use .detach() first"
            ))  # fmt: skip
        return _unpickled, (type(self), align.value_of(self, "pickle"), self.requires_grad)

    # --- operators

    __add__ = elementwise.plus
    __radd__ = elementwise.plus
    __sub__ = elementwise.minus
    __mul__ = elementwise.mul
    __rmul__ = elementwise.mul
    __truediv__ = elementwise.true_divide
    __floordiv__ = elementwise.floor_divide
    __mod__ = elementwise.remainder
    __pow__ = elementwise.pow
    __rpow__ = elementwise.rpow
    __matmul__ = linear_algebra.matmul
    __neg__ = elementwise.neg
    __abs__ = elementwise.abs
    __invert__ = elementwise.bitwise_not
    __and__ = elementwise.bitwise_and
    __rand__ = elementwise.bitwise_and
    __or__ = elementwise.bitwise_or
    __ror__ = elementwise.bitwise_or
    __xor__ = elementwise.bitwise_xor
    __rxor__ = elementwise.bitwise_xor
    __lt__ = elementwise.lt
    __le__ = elementwise.le
    __gt__ = elementwise.gt
    __ge__ = elementwise.ge
    __getitem__ = indexing.getitem
    __hash__ = object.__hash__

    def __eq__(self, other: Any) -> Any:
        return elementwise.eq(self, other) if _comparable(other) else NotImplemented

    def __ne__(self, other: Any) -> Any:
        return elementwise.ne(self, other) if _comparable(other) else NotImplemented

    def __rfloordiv__(self, other: Any) -> Tensor:
        return elementwise.floor_divide(other, self)

    def __rmod__(self, other: Any) -> Tensor:
        return elementwise.remainder(other, self)

    def __rsub__(self, other: Any) -> Tensor:
        return elementwise.sub(other, self)

    def __rtruediv__(self, other: Any) -> Tensor:
        return elementwise.div(other, self)

    def __rmatmul__(self, other: Any) -> Tensor:
        return linear_algebra.matmul(align.as_node(other, self, "matmul"), self)

    # --- functions as methods

    add, sub, mul, div = elementwise.add, elementwise.sub, elementwise.mul, elementwise.div
    floor_divide, remainder = elementwise.floor_divide, elementwise.remainder
    neg, abs, sign, square, reciprocal = (
        elementwise.neg,
        elementwise.abs,
        elementwise.sign,
        elementwise.square,
        elementwise.reciprocal,
    )
    pow, sqrt, rsqrt = elementwise.pow, elementwise.sqrt, elementwise.rsqrt
    exp, exp2, expm1 = elementwise.exp, elementwise.exp2, elementwise.expm1
    log, log2, log10, log1p = elementwise.log, elementwise.log2, elementwise.log10, elementwise.log1p
    sin, cos, tan, asin, acos, atan = (
        elementwise.sin,
        elementwise.cos,
        elementwise.tan,
        elementwise.asin,
        elementwise.acos,
        elementwise.atan,
    )
    sinh, cosh, tanh = elementwise.sinh, elementwise.cosh, elementwise.tanh
    asinh, acosh, atanh, atan2 = elementwise.asinh, elementwise.acosh, elementwise.atanh, elementwise.atan2
    erf, sigmoid, relu = elementwise.erf, elementwise.sigmoid, elementwise.relu
    floor, ceil, round, trunc = elementwise.floor, elementwise.ceil, elementwise.round, elementwise.trunc
    clamp, clamp_min, clamp_max = elementwise.clamp, elementwise.clamp_min, elementwise.clamp_max
    clip = elementwise.clip
    gate = elementwise.gate
    maximum, minimum, masked_fill = elementwise.maximum, elementwise.minimum, elementwise.masked_fill
    eq, ne, lt, le, gt, ge = (
        elementwise.eq,
        elementwise.ne,
        elementwise.lt,
        elementwise.le,
        elementwise.gt,
        elementwise.ge,
    )
    logical_and, logical_or = elementwise.logical_and, elementwise.logical_or
    logical_xor, logical_not = elementwise.logical_xor, elementwise.logical_not
    isnan, isinf, isfinite = elementwise.isnan, elementwise.isinf, elementwise.isfinite

    def where(self, condition: Tensor, other: Any) -> Tensor:
        """The tensor where the condition holds, `other` elsewhere."""
        return elementwise.where(condition, self, other)

    reshape, view, flatten = manipulation.reshape, manipulation.reshape, manipulation.flatten
    squeeze, unsqueeze = manipulation.squeeze, manipulation.unsqueeze
    permute, transpose, t = manipulation.permute, manipulation.transpose, manipulation.t
    swapaxes = manipulation.swapaxes
    expand, expand_as, flip = manipulation.expand, manipulation.expand_as, manipulation.flip
    split, chunk, narrow = manipulation.split, manipulation.chunk, manipulation.narrow
    cumsum, to, tril, triu = manipulation.cumsum, manipulation.to, manipulation.tril, manipulation.triu

    def float(self) -> Tensor:
        """As float32."""
        return manipulation.to(self, dtypes.float32)

    def double(self) -> Tensor:
        """As float64."""
        return manipulation.to(self, dtypes.float64)

    def half(self) -> Tensor:
        """As float16."""
        return manipulation.to(self, dtypes.float16)

    def bfloat16(self) -> Tensor:
        """As bfloat16."""
        return manipulation.to(self, dtypes.bfloat16)

    def int(self) -> Tensor:
        """As int32."""
        return manipulation.to(self, dtypes.int32)

    def long(self) -> Tensor:
        """As int64."""
        return manipulation.to(self, dtypes.int64)

    def bool(self) -> Tensor:
        """As bool: what is not 0."""
        return manipulation.to(self, dtypes.bool_)

    def cpu(self) -> Tensor:
        """The tensor itself: there is only the CPU."""
        return self

    def is_floating_point(self) -> builtins.bool:
        """Is the dtype one of the floats?"""
        return dtypes.is_float(self.dtype)

    def type_as(self, other: Tensor) -> Tensor:
        """Cast to the dtype of `other`."""
        return manipulation.to(self, other.dtype)

    def contiguous(self) -> Tensor:
        """The tensor itself if its entries lie row by row in memory, else a copy where they do."""
        return self if arrangement.lies_in_rows(self) else self.clone()

    def clone(self) -> Tensor:
        """A copy with memory of its own that leads back to this tensor."""
        copied: Tensor = movement.cast(self, dtype=self.dtype)
        return copied

    sum, mean, var, std = statistical.sum, statistical.mean, statistical.var, statistical.std
    prod, norm, logsumexp = statistical.prod, statistical.norm, statistical.logsumexp
    max, min, amax, amin = statistical.max, statistical.min, statistical.amax, statistical.amin
    argmax, argmin, any, all = statistical.argmax, statistical.argmin, statistical.any, statistical.all
    softmax, log_softmax = statistical.softmax, statistical.log_softmax
    sort, argsort, topk = statistical.sort, statistical.argsort, statistical.topk
    median = statistical.median
    matmul, mm, bmm, mv = linear_algebra.matmul, linear_algebra.mm, linear_algebra.bmm, linear_algebra.mv
    dot, outer = linear_algebra.dot, linear_algebra.outer
    gather, scatter_add = indexing.gather, indexing.scatter_add
    index_select, index_add, index_put = indexing.index_select, indexing.index_add, indexing.index_put
    movedim, ravel, unflatten, roll = arrangement.movedim, arrangement.ravel, arrangement.unflatten, arrangement.roll
    broadcast_to, reshape_as, view_as = arrangement.broadcast_to, arrangement.reshape_as, arrangement.reshape_as
    repeat_interleave = arrangement.repeat_interleave
    repeat, tile, unbind, select = arrangement.repeat, arrangement.tile, arrangement.unbind, arrangement.select
    diagonal, diag, trace, diff = arrangement.diagonal, arrangement.diag, arrangement.trace, arrangement.diff
    take_along_dim, masked_select = arrangement.take_along_dim, arrangement.masked_select
    nonzero = arrangement.nonzero
    true_divide, positive, frac = formulas.true_divide, formulas.positive, formulas.frac
    addcmul, addcdiv, lerp, logaddexp = formulas.addcmul, formulas.addcdiv, formulas.lerp, formulas.logaddexp
    logit, deg2rad, rad2deg, float_power = formulas.logit, formulas.deg2rad, formulas.rad2deg, formulas.float_power
    isclose, allclose, nansum = formulas.isclose, formulas.allclose, formulas.nansum
    equal, nan_to_num = formulas.equal, formulas.nan_to_num
    addmm, addmv, baddbmm = formulas.addmm, formulas.addmv, formulas.baddbmm
    count_nonzero = formulas.count_nonzero
    joined = staticmethod(manipulation.cat)


def _unpickled(cls: type[Tensor], data: np.ndarray, requires_grad: bool) -> Tensor:
    restored: Tensor = make(cls, None, (), NO_PARAMS, data, None, requires_grad, None)
    return restored


def _add_to_grads(found: list[tuple[Any, Any]], started: int) -> None:
    """Each leaf's gradient goes to its `.grad`; one that was made after `started` may be nobody else's."""
    tracing = tracer()
    times = Counter(id(g) for _, g in found)
    for leaf, g in found:
        if not dtypes.is_float(leaf.dtype):  # x.requires_grad = True is a plain assignment, checked here
            raise at_user_line(_no_float(leaf))
        if tracing is not None:
            tracing.add_grad(leaf, g)
        elif leaf.grad is not None:
            leaf.grad = (leaf.grad if fits(leaf) else checked_grad(leaf, "backward")) + g
        elif g.array.flags.owndata and g.made > started and times[id(g)] == 1:
            leaf.grad = g
        else:  # a view, a number stored once, or an array that is also another leaf's: .grad owns its memory
            leaf.grad = Tensor.leaf(np.array(g.array))


def _no_float(x: Tensor) -> DTypeError:
    return DTypeError(f"requires_grad: only float tensors have a gradient; got {x.aval}; cast it with .to(cr.float32)")


def _comparable(value: Any) -> Any:
    return isinstance(value, Node | np.ndarray) or align.is_scalar(value)
