"""What a graph is: a node is one application of one op, or a leaf. Everything else in the library reads nodes.

Names no op. `apply` builds a node of the class of its inputs, so a rule may write `g * cos(x)` without knowing which
class carries the operators.
"""

from __future__ import annotations

import contextvars
import itertools
import math
import operator
import threading
import weakref
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, ParamSpec, Self, TypeVar

import numpy as np

from chainrule.core.aval import Aval
from chainrule.core.memory import changed_at, note_change
from chainrule.core.provenance import Scope, Trail, capture, current_scope, user_place
from chainrule.core.tracing import running, tracer
from chainrule.errors import ChainruleError, DTypeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from chainrule.core.family import Op

_Params = ParamSpec("_Params")
_Result = TypeVar("_Result")

NO_PARAMS: Mapping[str, Any] = MappingProxyType({})

# Orders nodes and in-place updates on one clock: a leaf updated after a node was made is stale for that node.
_clock = itertools.count(1)
tick = _clock.__next__

# What `apply` keeps of a node whose inputs need a gradient: everything (RECORD), only why nothing is kept (USER_OFF, a
# user's no_grad), or nothing at all (ENGINE_OFF, the engine's own arithmetic).
RECORD, USER_OFF, ENGINE_OFF = "record", "no_grad", "engine"
_mode: contextvars.ContextVar[str] = contextvars.ContextVar("chainrule_recording", default=RECORD)
recording_mode = _mode.get
set_recording, reset_recording = _mode.set, _mode.reset


def recording(
    mode: str, function: Callable[_Params, _Result], *args: _Params.args, **kwargs: _Params.kwargs
) -> _Result:
    """`function(*args, **kwargs)`, while this is what is recorded in this thread or task.

    No `with` block: a Ctrl-C that arrives in the `__enter__` or `__exit__` of one leaves the mode as it is then. Here,
    and wherever else a variable is set for a while, Python looks at signals inside the `try` only.
    """
    before = _mode.get()
    try:
        _mode.set(mode)
        return function(*args, **kwargs)
    finally:
        _mode.set(before)


class _Quiet(threading.local):
    """Runs NumPy kernels without its floating-point warnings: inf and nan are values here, and are explained.

    `np.errstate` around every kernel costs more than many kernels; a context in which it was set once costs a tenth.
    One context a thread, since a context cannot be entered twice at a time.
    """

    def __init__(self) -> None:
        context = contextvars.copy_context()
        context.run(np.seterr, all="ignore")
        self.run = context.run


_quiet = _Quiet()


def compute(op: Op, arrays: Sequence[np.ndarray], params: Mapping[str, Any]) -> np.ndarray:
    """The op's kernel on arrays, without NumPy's floating-point warnings."""
    if op.runs_ops:  # a user's forward comes back here through `apply`, and a context cannot be entered twice
        return np.asarray(op.reference(*arrays, **params))
    return np.asarray(_quiet.run(op.reference, *arrays, **params))


class Ratio(NamedTuple):
    """An exact constant factor, not reduced: 2/200 stays 2/200, so that a person still sees the 2 and the 200."""

    numerator: float
    denominator: float = 1

    @property
    def value(self) -> float:
        return self.numerator / self.denominator


class Cut(NamedTuple):
    """Why a tensor made from tensors that need a gradient does not need one itself. Holds no graph alive."""

    reason: str
    sources: tuple[weakref.ref[Node], ...]


class Node:
    """One value in the graph: an op applied to inputs, or a leaf (`op` is None) holding data, a constant or a symbol.

    op, inputs, params: how the value was made; for a leaf None, (), {}.
    array: the value, or None for a symbol.
    constant: for a leaf whose entries are all one number known when it was written.
    symbol: the name a symbol is printed as.
    made: when, on the clock that orders nodes and in-place updates.
    mutated: when a leaf was last changed in place; 0 if never.
    trail: where in the user's program (see `provenance`), or None.
    scope: the module call it was made in (see `provenance`), or None.
    cut: why no gradient passes, where one might be expected to.
    origin: for a constant that is a view of another, the op and the input it came from: y in y.reshape(-1, 1).
    """

    __slots__ = (
        "__weakref__", "_aval", "_grad", "_requires_grad", "array", "constant", "cut", "inputs", "made", "mutated",
        "op", "origin", "params", "scope", "symbol", "trail",
    )  # fmt: skip

    op: Op | None
    inputs: tuple[Node, ...]
    params: Mapping[str, Any]
    array: np.ndarray | None
    constant: Ratio | None
    symbol: str | None
    _requires_grad: bool
    made: int
    mutated: int
    trail: Trail | None
    scope: Scope | None
    cut: Cut | None
    _grad: Any
    origin: tuple[Op, Node, Mapping[str, Any]] | None
    _aval: Aval | None

    # The class of what is computed from nodes of this class, and of its constants. Not `type(node)`: a subclass may
    # mark leaves (nn.Parameter) without marking what is computed from them. An attribute costs what `type()` costs.
    makes: ClassVar[type[Any]]

    def __init_subclass__(cls, makes: type[Any] | None = None) -> None:
        cls.makes = makes or cls

    def __init__(self, *args: object, **kwargs: object) -> None:
        raise TypeError(
            "a tensor is made by cr.tensor(data), cr.zeros(…), …; a node by applying an op, or by Node.leaf, "
            "Node.symbolic and Node.filled"
        )

    @classmethod
    def leaf(cls, data: np.ndarray, *, requires_grad: bool = False, trail: Trail | None = None) -> Self:
        """A leaf that holds `data`, without copying it."""
        return make(cls.makes, None, (), NO_PARAMS, data, None, requires_grad, trail)  # type: ignore[no-any-return]

    @classmethod
    def symbolic(cls, symbol: str, aval: Aval, *, requires_grad: bool = False) -> Self:
        """A leaf with a name, a shape and a dtype, and no value."""
        node: Self = make(cls.makes, None, (), NO_PARAMS, None, aval, requires_grad, None)
        node.symbol = symbol
        return node

    @classmethod
    def applied(cls, op: Op, inputs: tuple[Node, ...], params: Mapping[str, Any], aval: Aval) -> Self:
        """A symbol for `op` applied to symbols, whose aval is known already."""
        return make(cls.makes, op, inputs, params, None, aval, True, None)  # type: ignore[no-any-return]

    @classmethod
    def filled(cls, aval: Aval, value: float | Ratio) -> Self:
        """A leaf whose entries are all `value`, stored once."""
        ratio = value if isinstance(value, Ratio) else Ratio(value)
        one = np.array(ratio.value if ratio.denominator != 1 else ratio.numerator, aval.dtype)
        data = np.ndarray(aval.shape, aval.dtype, one, 0, (0,) * len(aval.shape))
        node: Self = make(cls.makes, None, (), NO_PARAMS, data, None, False, None)
        node.constant = ratio
        return node

    @classmethod
    def number(cls, aval: Aval, value: Ratio) -> Self:
        """A symbol for an array whose entries are all `value`: part of a formula, not of a computation."""
        node = cls.symbolic("", aval)
        node.constant = value
        return node

    @property
    def aval(self) -> Aval:
        """Shape and dtype."""
        data = self.array
        if data is not None:
            return Aval(data.shape, data.dtype)
        return self._aval  # type: ignore[return-value] # what has no value has an aval: both are set in `make` alone

    @property
    def grad(self) -> Any:
        """The gradient that backward passes have added up on a leaf, or None."""
        return self._grad if not running or (tracing := tracer()) is None else tracing.grad(self)

    @grad.setter
    def grad(self, grad: Any) -> None:
        if not running or (tracing := tracer()) is None:
            self._grad = grad
        else:
            tracing.set_grad(self, grad)

    def _ask_for_gradient(self, asked: Any) -> None:
        if type(asked) is not bool:
            if not isinstance(asked, np.bool_):
                raise at_user_line(DTypeError(f"requires_grad: True or False; got {asked!r}"))
            asked = bool(asked)
        if not running or (tracing := tracer()) is None:
            self._requires_grad = asked
        else:
            tracing.ask_for_gradient(self, asked)

    # Does a gradient pass to it? Read without a function of Python's: it is asked of every input of every op.
    requires_grad = property(operator.attrgetter("_requires_grad"), _ask_for_gradient)

    def changed(self) -> None:
        """Note on the clock that this value was just changed in place."""
        self.mutated = when = tick()
        if self.array is not None:
            note_change(self.array, when)

    @property
    def last_change(self) -> int:
        """When this value was last changed in place, by itself or through memory that it shares; 0 if never."""
        return max(self.mutated, 0 if self.array is None else changed_at(self.array))

    @property
    def is_leaf(self) -> bool:
        """Was this value given, rather than computed from values that need a gradient?"""
        return self.op is None or (self.array is None and (tracing := tracer()) is not None and tracing.is_leaf(self))


Node.makes = Node

# What an op makes is of the class of what it is given.
AnyNode = TypeVar("AnyNode", bound=Node)

_new = object.__new__


def make(
    cls: type[Any], op: Op | None, inputs: tuple[Node, ...], params: Mapping[str, Any], data: np.ndarray | None,
    aval: Aval | None, requires_grad: bool, trail: Trail | None,
) -> Any:  # fmt: skip
    """A node with these parts, unchecked: for `apply`, and for ops that compute their value themselves."""
    node = _new(cls)
    node.op = op
    node.inputs = inputs
    node.params = params
    node.array = data
    node._aval = aval
    node._requires_grad = requires_grad
    node.trail = trail
    node.constant = node.symbol = node.scope = node.cut = node._grad = node.origin = None
    node.mutated = 0
    node.made = tick()
    return node


def apply(  # noqa: C901, PLR0915 - in one piece: it is on the path of every op, and a call costs as much as what it does
    op: Op, inputs: tuple[AnyNode, ...], params: Mapping[str, Any] = NO_PARAMS, cls: type[AnyNode] | None = None
) -> AnyNode:
    """Apply `op`: compute the value where all inputs have one, and keep how it was made where a gradient may be asked.

    Inputs are as the op's shape rule wants them. When they are not, the error is the one its rule words.
    """
    node: AnyNode
    wants_grad = False
    values = []
    symbolic = False
    for x in inputs:
        value = x.array
        if value is None:
            symbolic = True
        values.append(value)
        if x._requires_grad:
            wants_grad = True
    if cls is None:
        cls = inputs[0].makes
    if symbolic or running:
        tracing = tracer()
        if tracing is not None:
            node = tracing.apply(op, inputs, params, cls)
            return node
        if symbolic:
            aval = inferred(op, inputs, params)
            node = make(cls, op, inputs, params, None, aval, wants_grad and not op.no_gradient, None)
            return node
    try:
        data = _quiet.run(op.reference, *values, **params) if params else _quiet.run(op.reference, *values)
    except Exception as error:  # noqa: BLE001 - whatever a kernel raises is raised again, in the words of the op's rule
        raise refusal(op, inputs, params, error) from None
    if type(data) is not np.ndarray:
        data = np.asarray(data)
    mode = recording_mode()
    if mode is ENGINE_OFF:
        node = make(cls, None, (), NO_PARAMS, data, None, False, None)
        return node
    if wants_grad:
        if mode is RECORD and not op.no_gradient:
            node = make(cls, op, inputs, params, data, None, True, capture())
            node.scope = current_scope()
            return node
        node = make(cls, None, (), NO_PARAMS, data, None, False, capture())
        reason = op.no_gradient or "it was computed under no_grad()"
        node.cut = Cut(f"{op.name}: {reason}", tuple(weakref.ref(x) for x in inputs))
        return node
    node = make(cls, None, (), NO_PARAMS, data, None, False, None)
    for x in inputs:
        if x.cut is not None:  # a constant made from one that lost its gradient says where it was lost
            node.cut, node.trail = x.cut, x.trail
            break
    if data.base is not None and len(inputs) == 1:
        node.origin = (op, inputs[0], params)  # keeps nothing alive that the view does not: they share memory
    return node


def inferred(op: Op, inputs: Sequence[Node], params: Mapping[str, Any]) -> Aval:
    """The aval of `op` applied to these, or the error of its rule at the user's line."""
    try:
        return op.infer(*[x.aval for x in inputs], **params)
    except ChainruleError as error:
        raise at_user_line(error) from None


_scalars: dict[tuple[type[Any], float, np.dtype], Any] = {}
_SCALARS_KEPT = 1024


def scalar(cls: type[Any], value: float, dtype: np.dtype) -> Any:
    """A number as an operand: a scalar constant. Programs use the same few numbers all the time; they are kept."""
    key = (cls, value, dtype)
    found = _scalars.get(key)
    if found is not None and (value or math.copysign(1.0, value) > 0):  # -0.0 equals 0.0, and is not the same number
        return found
    found = cls.filled(Aval((), dtype), value)
    if len(_scalars) >= _SCALARS_KEPT:
        _scalars.clear()
    if value or math.copysign(1.0, value) > 0:
        _scalars[key] = found
    return found


def refusal(op: Op, inputs: Sequence[Node], params: Mapping[str, Any], error: Exception) -> Exception:
    """The error to raise for inputs that a kernel refused: worded by the op's own rule, at the user's line."""
    try:
        op.infer(*(x.aval for x in inputs), **params)
    except ChainruleError as worded:
        return at_user_line(worded)
    return at_user_line(error) if isinstance(error, ChainruleError) else error


_AT = "\n  at "


def at_user_line(error: ChainruleError) -> ChainruleError:
    """The same error, ending with the line of the user's program that is running."""
    return at_line_of(capture(2, depth=1000), error)


SomeError = TypeVar("SomeError", bound=ChainruleError)


def at_line_of(trail: Trail | None, error: SomeError) -> SomeError:
    """The same error, ending with the line of the user's program that a trail comes from."""
    where = user_place(trail)
    if where is None or not where.text or _AT in str(error):
        return error
    return type(error)(f"{error}{_AT}{where}: {where.text}")


def ancestors(roots: Sequence[Node], follow: Callable[[Node], bool] = lambda node: True) -> list[Node]:
    """Every node under `roots`, inputs before their users. Walks a list, not the call stack: graphs are deep.

    follow: whether to look behind a node at all.
    """
    seen: set[int] = set()
    found: list[Node] = []
    pending = [root for root in roots if follow(root)]
    while pending:
        node = pending.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        found.append(node)
        for x in node.inputs:
            if id(x) not in seen and follow(x):
                pending.append(x)  # noqa: PERF401 - on the path of every backward pass; a loop is faster than extend here
    found.sort(key=_made)
    return found


_made = operator.attrgetter("made")
