"""Reverse mode: cotangents from an output back to its inputs, the chain rule walked link by link. Names no op."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from chainrule.core.family import Opaque
from chainrule.core.memory import latest_change
from chainrule.core.node import Node, ancestors, at_user_line
from chainrule.core.provenance import user_place
from chainrule.core.tracing import tracer
from chainrule.errors import ChainruleError, DTypeError, ShapeError, StaleValueError

# What a reader of the walk is shown: a node, its cotangent, and the cotangents its rule sent to its inputs.
Visit = Callable[[Node, Any, tuple[Any, ...]], None]


# Does the backward pass go through this node? (A getter written in C: it is asked of every input of every node.)
needs_gradient: Callable[[Node], bool] = operator.attrgetter("_requires_grad")


def pull(roots: Sequence[tuple[Node, Any]], wrt: Sequence[Node], visit: Visit | None = None) -> dict[int, Any]:
    """The cotangents of `wrt`, keyed by id, given those of `roots`. A node that no root depends on is left out.

    Raises: StaleValueError: a value that a rule reads was changed in place since.
    """
    order = ancestors([root for root, _ in roots], needs_gradient)
    wanted = {id(x) for x in wrt}
    through = _leading_to(order, wanted)
    return _walk(order, roots, lambda x: id(x) in through, wanted, visit)


def is_origin(x: Node) -> bool:
    """Does a gradient end here? While a function is traced, what it differentiates by may be a node with inputs."""
    return x.op is None or (tracer() is not None and x.requires_grad and not any(map(needs_gradient, x.inputs)))


def gradients(root: Node, g: Any) -> list[tuple[Any, Any]]:
    """(leaf, cotangent) of every leaf under `root` that requires a gradient, given the cotangent of `root`.

    Raises: StaleValueError: a value that a rule reads was changed in place since.
    """
    order = ancestors([root], needs_gradient)
    tracing = tracer()
    if tracing is None:
        found = _walk(order, [(root, g)], needs_gradient, frozenset(), None)
        return [(x, found[id(x)]) for x in order if x.op is None and id(x) in found]
    leaves = {id(x) for x in order if is_origin(x)}
    found = _walk(order, [(root, g)], needs_gradient, leaves, tracing.pulled)
    return [(x, found[id(x)]) for x in order if id(x) in leaves and id(x) in found]


def _walk(
    order: Sequence[Node],
    roots: Sequence[tuple[Node, Any]],
    wants: Callable[[Node], bool],
    keep: Collection[int],
    visit: Visit | None,
) -> dict[int, Any]:
    """The chain rule: from the last node made to the first, each rule sends its node's cotangent on to its inputs."""
    refuse_stale(order)
    cotangents: dict[int, Any] = {}
    for root, g in roots:
        _accumulate(cotangents, root, g)
    for node in reversed(order):
        key = id(node)
        op = node.op
        if op is None or key not in cotangents:
            continue
        g = cotangents[key] if key in keep else cotangents.pop(key)
        needed = tuple(map(wants, node.inputs))
        if True not in needed:
            continue
        try:
            sent = op.vjp(g, node, needed)
        except Exception as error:  # noqa: BLE001 - whatever a rule raises is raised again, saying in which rule
            raise _in_rule(error, node) from error.__cause__
        if visit is not None:
            visit(node, g, sent)
        for x, cotangent in zip(node.inputs, sent, strict=True):
            if cotangent is not None:
                _accumulate(cotangents, x, cotangent)
    return cotangents


def _in_rule(error: Exception, node: Node) -> Exception:
    """The error, saying in which op's backward rule it happened and which line applied that op."""
    assert node.op is not None
    where = user_place(node.trail)
    place = f", applied at {where}: {where.text}" if where is not None and where.text else ""
    says = f"in the backward of {node.op.name}{place}"
    if not isinstance(error, ChainruleError):
        error.add_note(says)
        return error
    return type(error)(f"{error}\n  {says}").with_traceback(error.__traceback__)


def _accumulate(cotangents: dict[int, Any], node: Node, g: Any) -> None:
    key = id(node)
    cotangents[key] = cotangents[key] + g if key in cotangents else g


def _leading_to(order: Sequence[Node], wrt: Collection[int]) -> set[int]:
    """The ids of the nodes in `order` that depend on one of `wrt`, those included."""
    found = set(wrt)
    for node in order:
        if any(id(x) in found for x in node.inputs):
            found.add(id(node))
    return found


# --- values changed in place


def refuse_stale(order: Sequence[Node]) -> None:
    """Raise if a value that a rule in `order` will read was changed after the forward pass read it.

    Every in-place update is on the same clock as the nodes, so the usual case, no update since, is one comparison.
    """
    first = next((node.made for node in order if node.op is not None), None)
    if first is None or latest_change[0] < first:
        return
    for node in order:
        suspects = {id(x) for x in _at_hand(node) if x.last_change > node.made}
        if suspects:
            for value in residuals(node):
                if id(value) in suspects:
                    raise at_user_line(_stale(node, value))


def _at_hand(node: Node) -> tuple[Any, ...]:
    """The values that the rule of `node` may read."""
    if node.op is None:
        return ()
    return (node, *node.inputs, *(node.op.saved if isinstance(node.op, Opaque) else ()))


def residuals(node: Node) -> Iterator[Node]:
    """The values the rule of `node` reads: itself or inputs of it. Found by running the rule on symbols."""
    if node.op is None:
        return
    if isinstance(node.op, Opaque):
        yield from node.op.saved
        return
    cls = type(node)
    inputs = tuple(cls.symbolic(f"x{i}", x.aval, requires_grad=x.requires_grad) for i, x in enumerate(node.inputs))
    stand_in = cls.applied(node.op, inputs, node.params, node.aval)
    g = cls.symbolic("g", node.aval)
    needed = tuple(x.requires_grad for x in node.inputs)
    sent = [c for c in node.op.vjp(g, stand_in, needed) if c is not None]
    # The walk stops at the output: what stands behind it is not read by a rule that reads the output.
    read = {id(x) for x in ancestors(sent, lambda x: x is not stand_in)}
    if any(
        x is stand_in for x in (*sent, *(i for n in ancestors(sent, lambda x: x is not stand_in) for i in n.inputs))
    ):
        yield node
    for symbol, x in zip(inputs, node.inputs, strict=True):
        if id(symbol) in read:
            yield x


def _stale(node: Node, value: Node) -> StaleValueError:
    assert node.op is not None
    return StaleValueError(
        f"backward: {node.op.name}{_made(node)} needs the old value of {value.aval}{_made(value)}, which was changed "
        f"in place after the forward pass; run the forward pass again before backward(), or update the tensor only "
        f"after the last backward()"
    )


def _made(node: Node) -> str:
    """Where in the user's program a value was made, as far as its trail tells."""
    where = user_place(node.trail)
    return f" (made at {where}: {where.text})" if where is not None and where.text else ""


# --- gradients set by hand


def checked_grad(leaf: Node, name: str) -> Any:
    """The `.grad` of a leaf, which anybody may have assigned; `name` is who asks for it.

    Raises: DTypeError: it is no tensor, or of another dtype. ShapeError: it is of another shape.
    """
    grad, which = leaf.grad, f"the .grad of {leaf.aval}{_made(leaf)}"
    if not isinstance(grad, Node) or (grad.array is None and tracer() is None):
        raise at_user_line(DTypeError(
            f"{name}: {which} must be a tensor like it, or None; got {type(grad).__name__}; make one with cr.tensor(…)"
        ))  # fmt: skip
    if grad.aval.shape != leaf.aval.shape:
        raise at_user_line(
            ShapeError(f"{name}: {which} must have its shape; got {grad.aval}; reshape what is assigned")
        )
    if grad.aval.dtype != leaf.aval.dtype:
        raise at_user_line(
            DTypeError(f"{name}: {which} must have its dtype; got {grad.aval}; cast it with .to(cr.{leaf.aval.dtype})")
        )
    return grad


def fits(leaf: Any) -> bool:
    """May the `.grad` of a leaf be used as it is?"""
    grad, data = leaf.grad, leaf.array
    if isinstance(grad, Node) and (g := grad.array) is not None and data is not None:
        return g.shape == data.shape and g.dtype == data.dtype  # type: ignore[no-any-return]
    return tracer() is not None and isinstance(grad, Node) and grad.aval == leaf.aval
