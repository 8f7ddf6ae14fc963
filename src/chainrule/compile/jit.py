"""cr.compile: a function that is traced once for each kind of call, and from then on runs as one program."""

from __future__ import annotations

import functools
import importlib
import sys
import threading
import types
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, final

from chainrule.compile.executable import Build
from chainrule.compile.native import build as native
from chainrule.compile.tracing.bound import Bound
from chainrule.compile.tracing.outcome import trace
from chainrule.compile.tracing.signature import Arguments, arguments_of, is_dynamic, names_of, what_changed
from chainrule.compile.tracing.straight import MISS
from chainrule.core.node import at_user_line
from chainrule.core.tracing import differentiating, graph_wanted, running, tracer
from chainrule.errors import ArgumentError, DTypeError, RetraceWarning
from chainrule.tensor import backward_watchers
from chainrule.tree import flatten

if TYPE_CHECKING:
    from chainrule.compile.report.report import Report

# What makes an executable of a program. The one place to put another.
BUILD: Build = native

TRACES_BEFORE_WARNING = 8


@final
class Compiled:
    """A function that runs as a compiled program; made by `cr.compile`.

    eager: the function itself.
    traces: how many times it has been traced.
    last_call: the trace of the last call, and its arguments.
    """

    def __init__(self, function: Callable[..., Any], *, keep_grads: bool = False, build: Build | None = None) -> None:
        self.traces = 0
        self._keep_grads, self._build = keep_grads, build or BUILD
        self._names = names_of(function)
        self._lock = threading.RLock()
        self._last: Bound | None = None
        self._bound: dict[tuple[Any, ...], list[Bound]] = {}
        self._last_given: Arguments | None = None
        functools.update_wrapper(self, function, updated=())
        self.eager = function  # the last: from now on what it has is its own, see `__setattr__`

    @property
    def signatures(self) -> list[tuple[Any, ...]]:
        """The kinds of calls that there have been."""
        return list(self._bound)

    @property
    def last_call(self) -> tuple[Bound, Arguments | None] | None:
        return None if self._last is None else (self._last, self._last_given)

    def report(self) -> Report:
        """What the step of the last call does, kernel by kernel, and what of the machine's limit it reaches.

        Measured now, on copies of its arrays: nothing of the user's changes.

        Raises: TraceError: there has been no call yet.
        """
        with self._lock:
            report: Report = importlib.import_module("chainrule.compile.report.report").report_of(self)
            return report

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if running and tracer() is not None:  # inside a function that is traced itself, it is part of that one
            return self.eager(*args, **kwargs)
        if graph_wanted and (differentiating.get() or backward_watchers.get()):  # who wants the graph gets it
            return self.eager(*args, **kwargs)
        with self._lock:
            last = self._last
            if last is not None and last.flat and not kwargs and len(args) == last.arity:
                result = last.call(last, args)
                if result is not MISS:
                    return result
            return self._call(args, kwargs)

    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        leaves, spec = flatten((args, kwargs))
        last = self._last
        if last is not None and last.takes(leaves, spec):
            result = last.call(last, leaves)
            if result is not MISS:
                return result
        given = arguments_of(leaves, spec)
        known = self._bound.get(given.key, ())
        for bound in known:
            result = bound.call(bound, given.leaves)
            if result is not MISS:
                self._last, self._last_given = bound, given
                return result
        bound = self._traced(given, args, kwargs)
        result = bound.call(bound, given.leaves)
        assert result is not MISS, f"{self.eager}: {bound.why_not(given.leaves)} during the trace itself"
        self._last, self._last_given = bound, given
        return result

    def _traced(self, given: Arguments, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Bound:
        outcome = trace(self.eager, given, self._names, keep_grads=self._keep_grads)
        flat = not kwargs and len(given.leaves) == len(args) and all(is_dynamic(x) for x in args)
        bound = Bound(outcome, self._build(outcome.program), given, flat=flat)
        if self.traces >= TRACES_BEFORE_WARNING:
            self._warn(given)
        self.traces += 1
        self._bound.setdefault(given.key, []).append(bound)
        return bound

    def _warn(self, given: Arguments) -> None:
        name = getattr(self.eager, "__name__", type(self.eager).__name__)
        before = self._bound.get(given.key)
        if before:
            why = before[-1].why_not(given.leaves)
        else:
            why = what_changed(given.spec, next(reversed(self._bound)), given.key, self._names)
        warnings.warn(
            f"compile: {name} has been traced {self.traces} times, and is now traced again: {why}; a number that "
            f"changes is traced once if it is passed as a tensor, or a NumPy scalar, of the dtype it meets; a shape if "
            f"it is padded",
            RetraceWarning,
            stacklevel=5,
        )

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        """As a function among the attributes of a class does, it becomes a method."""
        return self if instance is None else types.MethodType(self, instance)

    def __setattr__(self, name: str, value: Any) -> None:
        # What is the function's is read through (`__getattr__`), and would be hidden by a value of the same name here.
        own = vars(self)
        if name not in own and not name.startswith("__") and hasattr(eager := own.get("eager"), name):
            raise at_user_line(ArgumentError(
                f"compile: {name} belongs to the {type(eager).__name__} that was compiled; set it there"
            ))  # fmt: skip
        object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        if name == "eager":  # asked before it is set, when an instance is copied
            raise AttributeError(name)
        return getattr(self.eager, name)

    def __repr__(self) -> str:
        return f"compiled({self.eager!r})"

    def __reduce__(self) -> Any:
        """Copied or pickled as a function is, by its name, or else as the function in it: traced anew."""
        if _named(self.eager) is self:
            return self.eager.__qualname__
        return functools.partial(Compiled, keep_grads=self._keep_grads, build=self._build), (self.eager,)


def _named(function: Any) -> Any:
    """What stands under the name of a function where it was written."""
    found = sys.modules.get(getattr(function, "__module__", None) or "")
    for name in getattr(function, "__qualname__", "").split("."):
        found = getattr(found, name, None)
    return found


def compile(function: Callable[..., Any] | None = None, *, keep_grads: bool = False, build: Build | None = None) -> Any:
    """A function that computes what `function` does, as one program: forward, backward and update, without Python.

    The function runs once on symbols for each kind of call (shapes, dtypes, numbers); what it applied to them is then
    run at each call, on the values that its arguments and the tensors it closes over have then. Modules, optimisers and
    lists, dicts and tuples may be arguments too. Used as `@cr.compile`, or with options as `@cr.compile(…)`.

    Args:
        function: of tensors, arrays and trees of them; or a module.
        keep_grads: whether `.grad` is kept where the function itself has used it up, in an optimiser's step.
        build: what makes an executable of a program; None: the library's own.
    Raises, when it is called:
        TraceError, SymbolicValueError: it does what depends on values, as `if loss > 1` does; the message names the
            line.
        DTypeError: an argument that is neither a tensor nor can be compared with that of the next call.

    >>> import chainrule as cr
    >>> w = cr.tensor([1.0, 2.0], requires_grad=True)
    >>> optimizer = cr.optim.SGD([w], lr=0.25)
    >>> @cr.compile
    ... def step(x):
    ...     optimizer.zero_grad()
    ...     loss = ((w - x) ** 2).sum()
    ...     loss.backward()
    ...     optimizer.step()
    ...     return loss
    >>> step(cr.tensor([0.0, 0.0])), w
    (tensor(5.), tensor([0.5, 1. ], requires_grad=True))
    """
    if function is None:
        return lambda f: compile(f, keep_grads=keep_grads, build=build)
    if not callable(function):
        raise at_user_line(DTypeError(f"compile: expected a function or a module; got {type(function).__name__}"))
    return Compiled(function, keep_grads=keep_grads, build=build)
