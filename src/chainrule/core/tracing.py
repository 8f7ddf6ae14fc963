"""What tracing asks of the rest of the library: who is told, instead of memory, what a function reads and writes.

While a function is traced, ops make nodes without values, and reading `.grad`, an update in place, an option of an
optimiser or a random number goes to the `Tracer` of this thread or task. The tracer itself stands in `compile/`; here
is only what those below it know of it. Names no op and no node class.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, MutableMapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy as np

if TYPE_CHECKING:
    from chainrule.core.family import Op
    from chainrule.core.node import Node

_Params = ParamSpec("_Params")
_Result = TypeVar("_Result")

# The tracers of all threads. Empty nearly always, and that is all an op asks before it computes its value.
running: list[Tracer] = []
current: ContextVar[Tracer | None] = ContextVar("chainrule_tracer", default=None)

# Does a transform (grad, jvp, …) run the function that it differentiates? Then a compiled function in it runs op by op.
differentiating: ContextVar[bool] = ContextVar("chainrule_differentiating", default=False)

# One entry for each transform that runs, and for each who watches backward passes, in any thread. Empty nearly always,
# and that is all a compiled function asks before it runs as one.
graph_wanted: list[object] = []

# How often an attribute of any module was set: what a traced function saw of its modules holds until this moves.
module_changes = [0]


def tracer() -> Tracer | None:
    """Who traces the function that runs now in this thread or task, if it is traced."""
    return current.get() if running else None


def wanting_graph(
    variable: ContextVar[Any],
    value: Any,
    function: Callable[_Params, _Result],
    *args: _Params.args,
    **kwargs: _Params.kwargs,
) -> _Result:
    """`function(*args, **kwargs)`, while a variable says why a compiled function is to run op by op."""
    mark, before = object(), variable.get()
    try:
        graph_wanted.append(mark)
        try:
            variable.set(value)
            return function(*args, **kwargs)
        finally:
            variable.set(before)
    finally:
        graph_wanted.remove(mark)


def known(x: Node) -> Any:
    """The value of a tensor where one may look at it: not of a symbol, nor of one that a traced function reads anew."""
    tracing = tracer()
    return x.array if tracing is None or tracing.is_constant(x) else None


def square_root(number: Any) -> Any:
    """√ of a number of Python's, or of one that is traced."""
    return math.sqrt(number) if isinstance(number, float) else np.sqrt(number)


class Tracer(ABC):
    """Records what a function computes, reads and writes. Tensors of the user's stay as they are meanwhile."""

    @abstractmethod
    def apply(self, op: Op, inputs: tuple[Any, ...], params: Mapping[str, Any], cls: type[Any]) -> Any:
        """A node for `op` applied to what its inputs are now."""

    @abstractmethod
    def read(self, x: Any) -> Any:
        """The node that stands for a tensor now: after the updates so far, and without a value."""

    @abstractmethod
    def write(self, x: Any, value: Any, name: str) -> None:
        """`x` is updated in place, and is `value` from now on; `name` is who asks."""

    @abstractmethod
    def replace(self, x: Any, value: Any) -> None:
        """`x.data = value`: the tensor has the memory of another from now on; what shared its old memory keeps that."""

    @abstractmethod
    def is_leaf(self, x: Any) -> bool:
        """May it change in place? Then a gradient ends at it, if it requires one."""

    @abstractmethod
    def ask_for_gradient(self, x: Any, asked: bool) -> None:
        """`x.requires_grad = asked`."""

    @abstractmethod
    def is_constant(self, x: Any) -> bool:
        """Is the value of this tensor the same in each call?"""

    @abstractmethod
    def replaces(self, old: Any, new: Any) -> bool:
        """Would `new` stand in the place of a tensor that was read, and be none itself when the function is through?"""

    @abstractmethod
    def as_variable(self, x: Any) -> Any:
        """A node of the value of `x`, told apart from it, that can be differentiated by."""

    @abstractmethod
    def detached(self, x: Any) -> Any:
        """The value of `x` as a constant that shares its memory."""

    @abstractmethod
    def grad(self, x: Any) -> Any:
        """What `x.grad` is now."""

    @abstractmethod
    def set_grad(self, x: Any, grad: Any) -> None:
        """`x.grad` is set."""

    @abstractmethod
    def add_grad(self, leaf: Any, g: Any) -> None:
        """A backward pass adds `g` to the gradient of the tensor that `leaf` stands for."""

    @abstractmethod
    def pulled(self, node: Any, g: Any, sent: tuple[Any, ...]) -> None:
        """A backward pass went through `node`: `g` is its cotangent, `sent` what its rule made of it for its inputs."""

    @abstractmethod
    def array(self, x: Any) -> Any:
        """What acts as the array of a tensor: reads it, and updates it in place."""

    @abstractmethod
    def options(self, group: dict[str, Any]) -> Mapping[str, Any]:
        """The options of a parameter group, whose numbers are read anew at each call."""

    @abstractmethod
    def state(self, optimizer: Any, param: Any) -> MutableMapping[str, Any]:
        """What an optimiser keeps for a parameter."""

    @abstractmethod
    def key(self, generator: Any, blocks: int) -> tuple[Any, int]:
        """The next `blocks` blocks of a random stream: (a node of its seed and position, how far beyond they begin)."""

    @abstractmethod
    def opaque(self, made: Any, value: Any) -> None:
        """`made`, whose backward is a user's own, is computed as `value` was."""

    @abstractmethod
    def called(self, module: Any) -> None:
        """A module is called: what its attributes are decides what is computed."""

    @abstractmethod
    def setting(self, owner: Any, name: str) -> None:
        """An attribute of a module, or an entry of a dict, is about to be set or deleted: once, not at each call."""

    @abstractmethod
    def refuse(self, what: str, advice: str) -> Exception:
        """The error for what a traced function cannot do."""
