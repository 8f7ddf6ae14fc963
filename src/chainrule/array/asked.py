"""What is said when a function that works on tensors is given something else.

Such a function uses its inputs as the tensors that they nearly always are: it checks nothing. What is no tensor fails
at the first thing that it lacks, and only then is it asked, of the function's own annotations, which input it was.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from chainrule.array.align import not_a_tensor
from chainrule.core.node import Node
from chainrule.errors import ChainruleError

Called = TypeVar("Called", bound=Callable[..., Any])

# How the source spells that an input is a tensor, or may be left out: annotations are kept as text here.
_TENSOR = frozenset({"Tensor", "Tensor | None"})

# By function: as it is offered, which is one function however many names it has.
_offered: dict[Callable[..., Any], Callable[..., Any]] = {}


def of_tensors(function: Called, module: str) -> Called:
    """The function as `module` offers it: an input that is no tensor where one is needed is named.

    Raises: DTypeError: instead of the AttributeError or the TypeError that the function stumbles over.
    """

    @functools.wraps(function)
    def asked(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except (AttributeError, TypeError) as error:
            blame(error, function.__name__, function, args, kwargs)
            raise

    asked.__module__ = module  # where pickle finds it again
    return asked  # type: ignore[return-value]


def offer(names: dict[str, Any], module: str) -> None:
    """Put `of_tensors` around each function of a module's namespace that takes a tensor, unless another module did."""
    for name, value in names.items():
        if inspect.isfunction(value) and value.__module__ != module:
            taken = (kind for parameter, kind in value.__annotations__.items() if parameter != "return")
            if value not in _offered and not _TENSOR.isdisjoint(taken):
                _offered[value] = of_tensors(value, module)
            names[name] = _offered.get(value, value)


def blame(
    error: Exception, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> None:
    """Name the input that is no tensor where `function`, which stumbled with `error`, needs one.

    Raises: DTypeError: such an input.
    """
    if isinstance(error, ChainruleError):
        return
    signature = inspect.signature(function)
    try:
        given = signature.bind(*args, **kwargs).arguments
    except TypeError:  # the call itself does not fit; `error` says how
        return
    first = next(iter(given), "")
    for parameter, value in given.items():
        asks = signature.parameters[parameter]
        if asks.annotation in _TENSOR and not (value is None and asks.annotation != "Tensor"):
            for x in value if asks.kind is asks.VAR_POSITIONAL else (value,):
                if _is_behind(x, error):
                    raise not_a_tensor(name, x, "" if parameter == first else parameter) from error


def _is_behind(value: object, error: Exception) -> bool:
    """Is it an input like this that lacks an attribute, or fits no operator? Arrays fit those of NumPy's."""
    if isinstance(value, Node):
        return False
    if isinstance(error, AttributeError):
        return type(error.obj) is type(value)
    return not isinstance(value, np.ndarray | np.generic)
