"""cr.Function: an operation with a forward and a backward of the user's own, as in PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np

from chainrule.core.family import Opaque
from chainrule.core.node import ENGINE_OFF, NO_PARAMS, RECORD, Node, at_user_line, make, recording, recording_mode
from chainrule.core.notation import Notation
from chainrule.core.provenance import capture, current_scope
from chainrule.core.tracing import tracer
from chainrule.errors import ArgumentError, DerivativeRuleError, DTypeError
from chainrule.tensor import Tensor


class Context:
    """What a forward hands to its backward: saved tensors, and any attribute set on it."""

    def __init__(self) -> None:
        self.saved_tensors: tuple[Any, ...] = ()
        self.needs_input_grad: tuple[bool, ...] = ()

    def save_for_backward(self, *tensors: Any) -> None:
        """Keep these for the backward."""
        self.saved_tensors = tensors

    def on(self, twins: dict[int, Any]) -> Context:
        """The same context with tensors replaced by their twins, by id; what else was saved is given its name."""
        other = Context()
        other.__dict__.update({name: _twin(value, twins, name) for name, value in self.__dict__.items()})
        other.saved_tensors = tuple(_twin(x, twins, f"saved{i + 1}") for i, x in enumerate(self.saved_tensors))
        return other


def _twin(value: Any, twins: dict[int, Any], name: str) -> Any:
    if id(value) in twins:
        return twins[id(value)]
    if not isinstance(value, Tensor) or value.array is None:
        return value
    named = Tensor.leaf(value.array)
    named.symbol = value.symbol or name
    return named


class Function:
    """Subclass it with two static methods, and call `apply`.

    >>> import chainrule as cr
    >>> class Cube(cr.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         ctx.save_for_backward(x)
    ...         return x**3
    ...
    ...     @staticmethod
    ...     def backward(ctx, g):
    ...         (x,) = ctx.saved_tensors
    ...         return 3 * x**2 * g
    >>> x = cr.tensor(2.0, requires_grad=True)
    >>> Cube.apply(x).backward()
    >>> x.grad
    tensor(12.)

    `backward` returns one gradient for each input of `forward`, None for inputs that are not tensors. Written in
    tensors, it can be differentiated again and is explained in symbols; written in NumPy, it still runs.
    """

    def __init__(self, *args: object, **kwargs: object) -> None:
        name = type(self).__name__
        raise at_user_line(ArgumentError(f"{name}: a cr.Function has no instances; call {name}.apply(…)"))

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Any:
        raise at_user_line(DerivativeRuleError("cr.Function: the subclass must state forward(ctx, *inputs)"))

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        raise at_user_line(DerivativeRuleError("cr.Function: the subclass must state backward(ctx, g)"))

    @classmethod
    def apply(cls, *inputs: Any, **options: Any) -> Tensor:
        """Run `forward`, and record `backward` as its derivative.

        Raises: DTypeError: forward returned something other than a tensor. DerivativeRuleError, when the backward
            pass runs: backward returned the wrong number of gradients, or one of the wrong shape.
        """
        ctx = Context()
        ctx.needs_input_grad = tuple(isinstance(x, Node) and x.requires_grad for x in inputs)
        recorded = any(ctx.needs_input_grad) and recording_mode() is RECORD
        value = recording(ENGINE_OFF, cls.forward, ctx, *inputs, **options)
        if not isinstance(value, Tensor):
            raise at_user_line(DTypeError(f"{cls.__name__}.forward: must return a tensor; got {type(value).__name__}"))
        if not recorded:
            return value
        tensors = tuple(x for x in inputs if isinstance(x, Node))
        tracing = tracer()
        if tracing is not None:
            tensors = tuple(tracing.read(x) for x in tensors)
        op = Opaque(
            name=cls.__name__,
            reference=_rerun(cls, inputs, options),
            notation=_written(cls.__name__, len(tensors)),
            aval=value.aval,
            pullback=_backward(cls, ctx, inputs, value),
            saved=ctx.saved_tensors,
        )
        data = None if value.array is None else value.array.view()
        out: Tensor = make(Tensor, op, tensors, NO_PARAMS, data, value.aval, True, capture(2))
        out.scope = current_scope()
        if tracing is not None:
            tracing.opaque(out, value)
        return out


def _rerun(cls: type[Function], inputs: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """The forward as a kernel of arrays, for checks that evaluate it again."""

    def kernel(*arrays: np.ndarray) -> np.ndarray:
        values = iter(arrays)
        again = [Tensor.leaf(next(values)) if isinstance(x, Node) else x for x in inputs]
        out = recording(ENGINE_OFF, cls.forward, Context(), *again, **options)
        return np.asarray(out.array)

    return kernel


def _backward(cls: type[Function], ctx: Context, inputs: tuple[Any, ...], value: Tensor) -> Any:
    """The backward as a rule: one cotangent for each tensor among the inputs."""
    tensors = tuple(x for x in inputs if isinstance(x, Node))

    def pullback(g: Tensor, out: Node) -> tuple[Any, ...]:
        # On other inputs than those of the forward, such as symbols, what the forward saved of its own is theirs. And
        # the output it saved is the node that leads back to the inputs, so that the rule can be differentiated again.
        moved = any(x is not twin for x, twin in zip(tensors, out.inputs, strict=True))
        moved = moved or any(saved is value for saved in ctx.saved_tensors)
        used = (
            ctx.on({id(value): out, **{id(x): t for x, t in zip(tensors, out.inputs, strict=True)}}) if moved else ctx
        )
        returned = cls.backward(used, g)
        found = returned if isinstance(returned, tuple) else (returned,)
        if len(found) != len(inputs):
            raise DerivativeRuleError(
                f"{cls.__name__}.backward: forward took {len(inputs)} input(s), backward returned {len(found)} "
                f"gradient(s); return one for each input, None where there is none"
            )
        return tuple(_as_cotangent(cls, c) for c, x in zip(found, inputs, strict=True) if isinstance(x, Node))

    return pullback


def _as_cotangent(cls: type[Function], value: Any) -> Any:
    if value is None or isinstance(value, Node):
        return value
    if isinstance(value, np.ndarray | np.generic):
        return Tensor.leaf(np.asarray(value))
    raise DerivativeRuleError(f"{cls.__name__}.backward: expected tensors or None; got {type(value).__name__}")


def _written(name: str, count: int) -> Notation:
    arguments = ", ".join(f"{{{i}}}" for i in range(count))
    return Notation(
        text=f"{name}({arguments})", latex=rf"\operatorname{{{{{name}}}}}\left({arguments}\right)",
        code=f"{name}.apply({arguments})", numpy="",
    )  # fmt: skip
