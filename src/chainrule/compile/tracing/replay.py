"""A compiled call once more, op by op, as a graph that can be explained: nothing of the user's is touched.

The trace holds every op of the function, symbolic; here each is applied again, with its own kernel, to what the call
was given and to what the tensors it closes over hold now. An update in place is a value like any other in a trace, so
that parameters, an optimiser's state and the random stream stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, final, runtime_checkable

import numpy as np

from chainrule import dtypes
from chainrule.compile.tracing.no_graph import NoGraph
from chainrule.compile.tracing.places import Argument, Captured
from chainrule.core.node import NO_PARAMS, Node, ancestors, at_user_line, compute, make
from chainrule.errors import ArgumentError, TraceError
from chainrule.ops import movement
from chainrule.ops.algebra import one_number
from chainrule.tensor import Tensor

if TYPE_CHECKING:
    from chainrule.compile.tracing.bound import Bound


@runtime_checkable
class HasLastCall(Protocol):
    """A compiled function: what this module asks of it."""

    @property
    def last_call(self) -> Any: ...


@final
class Replay(NamedTuple):
    """A result of a compiled call, computed again.

    value: the tensor, with its graph. compiled: what the compiled code gives for the very same arrays.
    updates: does the function update anything that `value` depends on?
    names: of the tensors that the function closes over.
    """

    value: Any
    compiled: np.ndarray
    updates: bool
    names: dict[str, Any]


def replayed(of: Any, known: Sequence[Any] = ()) -> Replay | None:
    """What a compiled function, or a result of one, was computed as; None where `of` is neither.

    Args:
        of: a compiled function that has been called, or a result of the latest of its calls.
        known: tensors that shall stand for themselves where their values are among the arguments.
    Raises: TraceError: the function was not called yet, or is gone. ArgumentError: it gives no loss, or several.
    """
    if isinstance(of, Node):
        if not isinstance(of.cut, NoGraph):
            return None
        bound = of.cut.source()
        if bound is None:
            raise at_user_line(TraceError(
                "explain: this came from a compiled function that is gone, and with it the trace; keep the function"
            ))  # fmt: skip
        return _replay(bound, of.cut.output, known)
    if not isinstance(of, HasLastCall):
        return None
    if of.last_call is None:
        raise at_user_line(TraceError("explain: the compiled function has not been called yet; call it once, then ask"))
    bound = of.last_call[0]
    return _replay(bound, _only_loss(bound), known)


def _only_loss(bound: Bound) -> int:
    """The number of the one result that can be a loss."""
    outputs = bound.outcome.program.outputs
    losses = {
        r.value for r in bound.outcome.results
        if r.kind == "output" and outputs[r.value].aval.size == 1 and outputs[r.value].requires_grad
    }  # fmt: skip
    if len(losses) != 1:
        raise at_user_line(ArgumentError(
            f"explain: expected a compiled function that returns one loss; it returns {len(losses)} scalars that "
            f"require a gradient; pass the loss it gave"
        ))  # fmt: skip
    return int(losses.pop())


def _replay(bound: Bound, output: int, known: Sequence[Any]) -> Replay:
    program, table = bound.outcome.program, bound.table
    root = program.outputs[output]
    bound.outcome.name_inputs()
    values: dict[int, Any] = {}
    for symbol, place, data, given in zip(
        program.inputs, bound.outcome.places, table.arrays, table.given, strict=True
    ):  # fmt: skip
        values[id(symbol)] = _leaf(symbol, place, data, given, known)
    of_labels: set[int] = set()
    for node in ancestors([root]):
        is_leaf = node.op is None
        if is_leaf and not dtypes.is_float(node.aval.dtype):
            of_labels.add(id(node))
        if not is_leaf and all(id(x) in of_labels for x in node.inputs):
            of_labels.add(id(node))
        if id(node) not in values:
            values[id(node)] = _applied(node, values, id(node) in of_labels)
    copies = [np.array(array) for array in table.given]
    outputs = bound.executable(copies)
    used = {id(x) for x in ancestors([root])}
    return Replay(
        value=values[id(root)],
        compiled=outputs[output],
        updates=any(id(x) in used for x, _ in program.updates),
        names={
            symbol.symbol: place.tensor
            for symbol, place in zip(program.inputs, bound.outcome.places, strict=True)
            if isinstance(place, Captured) and symbol.symbol
        },
    )


def _leaf(symbol: Any, place: Any, data: Any, given: Any, known: Sequence[Any]) -> Any:
    """What stands for an input: the user's own tensor where there is one, so that it can be asked about."""
    if isinstance(place, Captured):
        return place.tensor
    if isinstance(place, Argument):
        for x in known:
            if isinstance(x, Node) and x.array is data:
                return x
    leaf = Tensor.leaf(np.array(given), requires_grad=symbol.requires_grad)
    leaf.symbol = symbol.symbol
    return leaf


def _applied(node: Any, values: dict[int, Any], of_labels: bool) -> Any:
    """A node as running it op by op would have made it.

    of_labels: is it made of integers alone? Then a mask or a count is the number that it is, where it is one: nothing
    is left of the labels that might have been ignored, as it is eagerly, where the labels are known.
    """
    if node.op is None:
        return node
    inputs = tuple(values[id(x)] for x in node.inputs)
    data = compute(node.op, [x.array for x in inputs], node.params)
    if not node.requires_grad:
        for x in inputs if of_labels else ():  # of which none is ignored: they are the labels, and go by their name
            if x.array.dtype == data.dtype and np.array_equal(x.array, data):
                return x
        again = make(type(node), None, (), NO_PARAMS, data, None, False, None)
        again.cut = node.cut
        if of_labels and not dtypes.is_integer(data.dtype):
            again.constant = one_number(data)
        if node.op in movement.VIEWS and not inputs[0].requires_grad:  # no gradient goes back to what was detached
            again.origin = (node.op, inputs[0], node.params)
        return again
    again = make(type(node), node.op, inputs, node.params, data, None, True, node.trail)
    again.scope = node.scope
    return again
