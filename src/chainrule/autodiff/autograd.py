"""`cr.autograd`, as in PyTorch: the gradient of what was computed already, where `cr.grad` takes a function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chainrule.autodiff.broken import broken_link, no_gradient_reason
from chainrule.autodiff.reverse import pull
from chainrule.core.node import ENGINE_OFF, RECORD, Node, at_user_line, recording
from chainrule.core.tracing import tracer
from chainrule.errors import ArgumentError, DisconnectedError, DTypeError, NoGradientError, NotScalarError, ShapeError

__all__ = ["grad"]


def grad(
    outputs: Any,
    inputs: Any,
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
) -> tuple[Any, ...]:
    """The gradients of outputs with respect to inputs, values in between included; `.grad` stays as it is.

    Args:
        outputs: a tensor, or several, whose gradients add up.
        inputs: a tensor, or several.
        grad_outputs: the cotangent of each output; may be left out for scalars, where it is 1.
        retain_graph: accepted, and of no effect: a graph lives as long as the loss.
        create_graph: whether the gradients can be differentiated again.
        allow_unused: None for an input that no output depends on, instead of an error.
    Returns: one gradient an input.
    Raises: NotScalarError: no `grad_outputs` for what is no scalar. NoGradientError: an output that depends on nothing
        that requires a gradient. DisconnectedError: an input that no output depends on.

    >>> import chainrule as cr
    >>> x = cr.tensor(2.0, requires_grad=True)
    >>> (g,) = cr.autograd.grad(x**3, x, create_graph=True)
    >>> g, cr.autograd.grad(g, x)
    (tensor(12., requires_grad=True), (tensor(12.),))
    """
    roots, wrt = _several("outputs", outputs), _several("inputs", inputs)
    seeds: Sequence[Any] = [None] * len(roots)
    if grad_outputs is not None:
        seeds = grad_outputs if isinstance(grad_outputs, tuple | list) else [grad_outputs]
    if len(seeds) != len(roots):
        raise at_user_line(ArgumentError(f"autograd.grad: {len(roots)} outputs and {len(seeds)} grad_outputs"))
    started = [(root, _seed(root, seed)) for root, seed in zip(roots, seeds, strict=True)]
    found = recording(RECORD if create_graph else ENGINE_OFF, pull, started, wrt)
    for number, x in enumerate(wrt):
        if id(x) not in found and not allow_unused:
            raise at_user_line(DisconnectedError(
                f"autograd.grad: {broken_link(roots[0], x, f'input {number}, {x.aval}')}; "
                f"allow_unused=True gives None"
            ))  # fmt: skip
    return tuple(found.get(id(x)) for x in wrt)


def _several(what: str, given: Any) -> list[Any]:
    tensors = list(given) if isinstance(given, tuple | list) else [given]
    for x in tensors:
        if not isinstance(x, Node):
            raise at_user_line(DTypeError(f"autograd.grad: {what} must be tensors; got {type(x).__name__}"))
    tracing = tracer()
    return tensors if tracing is None else [tracing.read(x) for x in tensors]


def _seed(root: Any, seed: Any) -> Any:
    if not root.requires_grad:
        raise at_user_line(NoGradientError(no_gradient_reason(root).replace("backward:", "autograd.grad:", 1)))
    if seed is None:
        if root.aval.size != 1:
            raise at_user_line(
                NotScalarError(f"autograd.grad: gradients start from a scalar; got {root.aval}; pass grad_outputs")
            )
        return type(root).filled(root.aval, 1.0)
    if not isinstance(seed, Node):
        raise at_user_line(DTypeError(f"autograd.grad: grad_outputs must be tensors; got {type(seed).__name__}"))
    if seed.aval != root.aval:
        raise at_user_line(
            ShapeError(f"autograd.grad: the cotangent is {seed.aval}, the output {root.aval}; they must agree")
        )
    return seed
