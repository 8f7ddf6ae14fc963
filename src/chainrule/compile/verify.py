"""What holds for every program: checked when it was traced, and after each pass. Names no op."""

from __future__ import annotations

from collections.abc import Iterator

from chainrule.compile.program import Program
from chainrule.core.aval import Aval
from chainrule.core.family import Opaque
from chainrule.core.node import Node
from chainrule.core.provenance import user_place
from chainrule.errors import ChainruleError, ProgramError, TraceError
from chainrule.ops.catalogue import CATALOGUE

_KNOWN = frozenset(map(id, CATALOGUE))

# Nodes that were found sound, by id, and the nodes themselves, since ids are unique among the living.
Checked = dict[int, Node]


def verify(program: Program, after: str = "tracing", checked: Checked | None = None) -> None:
    """Check that a program is one.

    Inputs are symbols, each once. Every other leaf is a constant. Every node is an op of the catalogue applied to nodes
    that come before it, and has the shape and dtype that the op's rule gives. Each update is of an input, at most one
    an input, by a value with its shape and dtype.

    Args:
        program: what to check.
        after: the pass that made it, for the error.
        checked: what earlier calls found sound and need not look at again; what this one finds is added.
    Raises: ProgramError: one of these does not hold. TraceError: a cr.Function is applied as a whole.
    """
    checked = {} if checked is None else checked
    for node in program.nodes:
        if isinstance(node.op, Opaque):
            raise TraceError(
                f"compile: {_said(node)} is a cr.Function applied as a whole, which cannot be compiled; make its "
                f"forward of functions of tensors, or call it outside the compiled function"
            )
        if node.op is not None and id(node.op) not in _KNOWN and after == "tracing":
            raise TraceError(
                f"compile: {_said(node)} is an op of your own, which cannot be compiled; write it as a function of the "
                f"library's ops, or call it outside the compiled function"
            )
    problem = next(_problems(program, checked), None)
    if problem is not None:
        raise ProgramError(f"compile: after {after}, {problem}")


_OURS = "this is a fault of chainrule, please report it"


def _problems(program: Program, checked: Checked) -> Iterator[str]:
    inputs = {id(x) for x in program.inputs}
    if len(inputs) != len(program.inputs):
        yield f"an input is given twice among {len(program.inputs)}; {_OURS}"
    for number, x in enumerate(program.inputs):
        if x.op is not None or x.array is not None or x.constant is not None:
            yield f"input {number} is {_said(x)}, and must be a symbol; {_OURS}"
    yield from _node_problems(program, inputs, checked)
    yield from _update_problems(program, inputs)


def _node_problems(program: Program, inputs: set[int], checked: Checked) -> Iterator[str]:
    seen: set[int] = set()
    for node in program.nodes:
        key = id(node)
        seen.add(key)
        if key in checked:
            continue
        if node.op is None:
            if node.array is None and key not in inputs:
                yield f"{_said(node)} is neither an input nor a constant; {_OURS}"
            if node.array is not None and node._aval not in (None, node.aval):
                yield f"{_said(node)} is declared {node._aval}; {_OURS}"
        else:
            if any(id(x) not in seen for x in node.inputs):
                yield f"{_said(node)} comes before what it is computed from; {_OURS}"
            yield from _op_problems(node)
        checked[key] = node


def _op_problems(node: Node) -> Iterator[str]:
    op = node.op
    assert op is not None
    if id(op) not in _KNOWN:
        yield f"{_said(node)} is no op of the catalogue; {_OURS}"
    if node.array is not None:
        yield f"{_said(node)} has a value already; {_OURS}"
    try:
        wanted: Aval | None = op.infer(*[x.aval for x in node.inputs], **node.params)
    except (ChainruleError, TypeError, ValueError, IndexError, KeyError) as error:
        yield f"{_said(node)} does not fit its inputs: {error}; {_OURS}"
        return
    if wanted != node.aval:
        yield f"{_said(node)} should be {wanted} by its rule; {_OURS}"


def _update_problems(program: Program, inputs: set[int]) -> Iterator[str]:
    updated: set[int] = set()
    for x, value in program.updates:
        if id(x) not in inputs:
            yield f"{_said(x)} is updated, and is no input; {_OURS}"
        if id(x) in updated:
            yield f"{_said(x)} is updated twice; {_OURS}"
        if x.aval != value.aval:
            yield f"{_said(x)} is updated by {value.aval}; {_OURS}"
        updated.add(id(x))


def _said(node: Node) -> str:
    """The node, and the user's line that it was made for."""
    what = node.op.name if node.op is not None else node.symbol or "a leaf"
    where = user_place(node.trail)
    return f"{what} : {node.aval}" + (f" (at {where}: {where.text})" if where is not None else "")
