"""Functional transforms: functions in, derivative functions out, freely nested.

Each takes a function of tensors (or trees of them: dicts, lists, tuples) and returns a function. Inner transforms see
outer ones as nodes like any other, so `grad(grad(f))` and `jvp(grad(f))` are what they say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.autodiff.forward import push
from chainrule.autodiff.reverse import is_origin, needs_gradient, pull
from chainrule.core.aval import Aval
from chainrule.core.node import ENGINE_OFF, RECORD, Node, ancestors, at_user_line, recording
from chainrule.core.tracing import differentiating, tracer, wanting_graph
from chainrule.errors import ArgumentError, DTypeError, NotScalarError, ShapeError
from chainrule.tree import flatten, rebuild

Function = Callable[..., Any]


def value_and_grad(function: Function, argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Function:
    """A function that returns (value, gradient) of a scalar function.

    Args:
        function: returns a scalar tensor, or (scalar, anything) with `has_aux`.
        argnums: which positional arguments to differentiate by; an int gives one gradient, a sequence gives a tuple.
        has_aux: the function also returns something that is handed on as it is.
    Returns: a function of the same arguments; the gradient has the tree of the argument.
    Raises: NotScalarError, and DTypeError for an integer argument.
    """

    def evaluated(*args: Any, **kwargs: Any) -> Any:
        fresh, args = _lift(function, args, argnums)
        result = _run(function, args, kwargs)
        value, aux = result if has_aux else (result, None)
        if not isinstance(value, Node) or value.aval.size != 1:
            got = str(value.aval) if isinstance(value, Node) else type(value).__name__
            raise at_user_line(
                NotScalarError(
                    f"grad: the function must return a scalar tensor; got {got}; "
                    f"reduce it with .sum() or .mean(), or use vjp or jacobian"
                )
            )
        gradient = fresh.rebuild(fresh.pulled([(value, type(value).filled(value.aval, 1.0))]))
        value = fresh.released(value)
        return ((value, aux), gradient) if has_aux else (value, gradient)

    return evaluated


def _run(function: Function, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """The function's result, with its graph: whatever is compiled in it runs op by op."""
    return wanting_graph(differentiating, True, recording, RECORD, function, *args, **kwargs)


def grad(function: Function, argnums: int | Sequence[int] = 0, has_aux: bool = False) -> Function:
    """A function that returns the gradient of a scalar function (with `has_aux`, (gradient, aux)).

    >>> import chainrule as cr
    >>> cr.grad(lambda x: x**3)(cr.tensor(2.0))
    tensor(12.)
    >>> cr.grad(cr.grad(lambda x: x**3))(cr.tensor(2.0))
    tensor(12.)
    """
    both = value_and_grad(function, argnums, has_aux)

    def gradient(*args: Any, **kwargs: Any) -> Any:
        value, found = both(*args, **kwargs)
        return (found, value[1]) if has_aux else found

    return gradient


def vjp(function: Function, *primals: Any) -> tuple[Any, Function]:
    """(output, pullback): the pullback takes a cotangent shaped like the output and returns one for each primal."""
    fresh, args = _lift(function, primals, tuple(range(len(primals))))
    out = _run(function, args, {})
    outputs, spec = flatten(out)

    def pullback(cotangent: Any) -> tuple[Any, ...]:
        seeds, _ = flatten(cotangent)
        if len(seeds) != len(outputs):
            raise at_user_line(ArgumentError(f"vjp: the cotangent has {len(seeds)} tensors, the output {len(outputs)}"))
        for y, g in zip(outputs, seeds, strict=True):
            _same_aval("vjp: the cotangent", g, "the output", y)
        return tuple(fresh.rebuild(fresh.pulled(list(zip(outputs, seeds, strict=True)))))

    return rebuild(spec, [fresh.released(y) for y in outputs]), pullback


def jvp(function: Function, primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
    """(output, its tangent): the directional derivative of `function` at `primals` along `tangents`."""
    if len(primals) != len(tangents):
        raise at_user_line(
            ArgumentError(f"jvp: {len(primals)} primals and {len(tangents)} tangents; give one tangent a primal")
        )
    fresh, args = _lift(function, tuple(primals), tuple(range(len(primals))))
    directions = [t for tangent in tangents for t in flatten(tangent)[0]]
    for x, t in zip(fresh.leaves, directions, strict=True):
        _same_aval("jvp: the tangent", t, "its primal", x)
    out = _run(function, args, {})
    outputs, spec = flatten(out)
    outside = fresh.seen_from_outside(outputs) or any(t.requires_grad for t in directions)
    along = list(zip(fresh.leaves, directions, strict=True))
    moved = [recording(RECORD if outside else ENGINE_OFF, push, y, along) for y in outputs]
    moved = [type(y).filled(y.aval, 0.0) if t is None else t for y, t in zip(outputs, moved, strict=True)]
    return rebuild(spec, [fresh.released(y) for y in outputs]), rebuild(spec, moved)


def jacobian(function: Function, argnums: int = 0) -> Function:
    """A function that returns ∂out/∂x for one tensor argument, shaped (*out.shape, *x.shape).

    One reverse pass an output entry, or one forward pass an input entry, whichever are fewer.
    """

    def evaluated(*args: Any, **kwargs: Any) -> Any:
        x = args[argnums]

        def of_x(value: Any) -> Any:
            return function(*args[:argnums], value, *args[argnums + 1 :], **kwargs)

        out, pullback = vjp(of_x, x)
        cls = type(out)
        if out.aval.size <= x.aval.size:
            rows = [pullback(cls.leaf(basis))[0] for basis in _bases(out.aval)]
            return _stacked(cls, rows, (*out.aval.shape, *x.aval.shape), out.aval.dtype)
        columns = [jvp(of_x, (x,), (cls.leaf(basis),))[1] for basis in _bases(x.aval)]
        stacked = _stacked(cls, columns, (*x.aval.shape, *out.aval.shape), out.aval.dtype)
        n, m = x.aval.ndim, out.aval.ndim
        return stacked.permute(*range(n, n + m), *range(n)) if n + m else stacked

    return evaluated


def hessian(function: Function, argnums: int = 0) -> Function:
    """A function that returns ∂²f/∂x∂x for one tensor argument of a scalar function, shaped (*x.shape, *x.shape)."""
    return jacobian(grad(function, argnums), argnums)


# --- shared


def _same_aval(what: str, given: Any, of_what: str, wanted: Any) -> None:
    if not isinstance(given, Node):
        raise at_user_line(DTypeError(f"{what} must be a tensor; got {type(given).__name__}"))
    if given.aval.shape != wanted.aval.shape:
        raise at_user_line(ShapeError(f"{what} {given.aval} must have the shape of {of_what} {wanted.aval}"))
    if given.aval.dtype != wanted.aval.dtype:
        raise at_user_line(DTypeError(f"{what} {given.aval} must have the dtype of {of_what} {wanted.aval}"))


class _Fresh:
    """The arguments that are differentiated by, as nodes of this transform's own with the same values."""

    def __init__(self, leaves: list[Any], rebuild: Function) -> None:
        self.leaves, self.rebuild = leaves, rebuild

    def seen_from_outside(self, outputs: Sequence[Any]) -> bool:
        """Does anything else need a gradient of these: an outer transform, or a tensor the function closes over?"""
        own = {id(x) for x in self.leaves}
        return any(is_origin(x) and id(x) not in own for x in ancestors(outputs, needs_gradient))

    def pulled(self, roots: list[tuple[Any, Any]]) -> list[Any]:
        """The cotangent of each leaf; recorded where something outside may differentiate it again."""
        outside = self.seen_from_outside([root for root, _ in roots]) or any(g.requires_grad for _, g in roots)
        found = recording(RECORD if outside else ENGINE_OFF, pull, roots, self.leaves)
        return [found[id(x)] if id(x) in found else type(x).filled(x.aval, 0.0) for x in self.leaves]

    def released(self, value: Any) -> Any:
        """An output as the caller sees it: it no longer waits for this transform's gradient."""
        return value if self.seen_from_outside([value]) else value.detach()


def _lift(function: Function, args: tuple[Any, ...], argnums: int | Sequence[int]) -> tuple[_Fresh, tuple[Any, ...]]:
    positions = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    lifted, leaves, specs = list(args), [], []
    for position in positions:
        if not -len(args) <= position < len(args):
            name = getattr(function, "__name__", "the function")
            raise at_user_line(
                ArgumentError(f"grad: argnums {position}, but {name} was given {len(args)} positional argument(s)")
            )
        values, spec = flatten(args[position])
        fresh = []
        for x in values:
            _differentiable(x, position)
            fresh.append(_fresh(x))
        lifted[position] = rebuild(spec, fresh)
        leaves += fresh
        specs.append((spec, len(fresh)))

    def rebuilt(found: list[Any]) -> Any:
        parts, start = [], 0
        for spec, count in specs:
            parts.append(rebuild(spec, found[start : start + count]))
            start += count
        return parts[0] if isinstance(argnums, int) else tuple(parts)

    return _Fresh(leaves, rebuilt), tuple(lifted)


def _differentiable(x: Any, position: int) -> None:
    if not isinstance(x, Node):
        got = type(x).__name__
        raise at_user_line(
            DTypeError(f"grad: argument {position} must hold tensors; got {got}; wrap it with cr.tensor(…)")
        )
    if not dtypes.is_float(x.aval.dtype):
        raise at_user_line(DTypeError(
            f"grad: argument {position} is {x.aval}; only float tensors have a gradient; cast it with .to(cr.float32)"
        ))  # fmt: skip


def _fresh(x: Any) -> Any:
    """A node of the same value, told apart from `x`, and leading back to it if it needs a gradient."""
    if x.requires_grad:
        return recording(RECORD, x.alias)
    tracing = tracer()
    if tracing is not None:
        return tracing.as_variable(x)
    if x.array is None:
        return type(x).symbolic(x.symbol or "x", x.aval, requires_grad=True)
    return type(x).leaf(x.array, requires_grad=True, trail=x.trail)


def _bases(aval: Aval) -> list[np.ndarray]:
    eye = np.eye(aval.size, dtype=aval.dtype)
    return [row.reshape(aval.shape) for row in eye]


def _stacked(cls: Any, rows: list[Any], shape: tuple[int, ...], dtype: Any) -> Any:
    if not rows:
        return cls.filled(Aval(shape, dtype), 0.0)
    first = rows[0]
    flat = [row.reshape(1, first.aval.size) for row in rows]
    return cls.joined(flat).reshape(shape)
