"""The fold tree: a run's nodes grouped as the user wrote them, by function, module and statement.

The tree is the call stack that `provenance` recorded, cut below the deepest call that all nodes share. Depth 1 shows
that call's own statements and what it called; each further depth opens those.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from chainrule.core.node import Node
from chainrule.core.provenance import (
    TRAIL_LENGTH,
    Call,
    Place,
    Scope,
    is_composite,
    is_module_call,
    is_ours,
    path,
    place,
    same_call,
    user_place,
)

Kind = Literal["root", "function", "module", "statement", "op"]


@dataclass
class Fold:
    """A group of nodes that is shown as one step.

    name: what the step is called: the function, the module's path, the variable assigned, or the op.
    nodes: the ops in it, in the order they ran, those of its children included.
    place: where it was called, in its caller's source.
    """

    kind: Kind
    name: str
    children: list[Fold] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    place: Place | None = None

    def opened(self, depth: int) -> list[Fold]:
        """The steps that are shown at a depth: 1 is this fold's children."""
        if depth <= 0 or not self.children:
            return [self]
        return [step for child in self.children for step in child.opened(depth - 1)]


@dataclass(frozen=True)
class _Entry:
    """One level of a node's path: the call of a function, or of a module."""

    kind: Literal["function", "module"]
    call: Call
    scope: Any = None

    def same(self, earlier: _Entry) -> bool:
        if self.kind != earlier.kind:
            return False
        return self.scope is earlier.scope if self.kind == "module" else same_call(earlier.call, self.call)


def _path(node: Node) -> list[_Entry]:
    """The calls around a node that a person would name, outermost first."""
    entries: list[_Entry] = []
    scope = node.scope
    outermost = _outermost(scope)
    for trail in (node.trail or (), () if outermost is None else outermost.trail or ()):
        for position, call in enumerate(trail):
            code = call[0]
            if is_module_call(code):
                if scope is not None:
                    entries.append(_Entry("module", call, scope))
                    scope = scope.outer
            elif is_composite(code):
                entries.append(_Entry("function", call))
            elif not is_ours(code):
                inside_module = position + 1 < len(trail) and is_module_call(trail[position + 1][0])
                entries.append(_Entry("function", call, "forward" if inside_module else None))
        if scope is None or len(trail) < TRAIL_LENGTH:
            break
        while scope is not None:  # the trail was cut inside the modules: the scope knows the rest
            entries.append(_Entry("module", trail[-1], scope))
            scope = scope.outer
    return entries[::-1]


def _outermost(scope: Scope | None) -> Scope | None:
    while scope is not None and scope.outer is not None:
        scope = scope.outer
    return scope


def fold_tree(nodes: Sequence[Node]) -> Fold:
    """The fold tree of the ops in a graph, which are in the order they ran."""
    paths = _aligned([_path(node) for node in nodes])
    shared = _shared_depth(paths)
    root = Fold("root", paths[0][shared - 1].call[0].co_name if paths and shared else "program", nodes=list(nodes))
    open_: list[tuple[_Entry, Fold]] = []
    for node, calls in zip(nodes, paths, strict=True):
        below = calls[shared:]
        around = calls[shared - 1] if shared else None
        kept = 0
        while kept < min(len(open_), len(below)) and below[kept].same(open_[kept][0]):
            open_[kept] = (below[kept], open_[kept][1])
            kept += 1
        del open_[kept:]
        for level in range(kept, len(below)):
            parent = open_[-1][1] if open_ else root
            caller = below[level - 1] if level else around
            fold = _entered(below[level], caller)
            parent.children.append(fold)
            open_.append((below[level], fold))
        for _, fold in open_:
            fold.nodes.append(node)
        _add_op(open_[-1][1] if open_ else root, node, top=not open_)
    _drop_transparent(root)
    return root


def _entered(entry: _Entry, caller: _Entry | None) -> Fold:
    called_at = place(caller.call) if caller is not None and not is_ours(caller.call[0]) else None
    if entry.kind == "module":
        where = path(entry.scope)
        kind = type(entry.scope.module).__name__
        return Fold("module", f"{where}: {kind}" if where else kind, place=called_at)
    return Fold("function", entry.scope or entry.call[0].co_name, place=called_at)


def _add_op(fold: Fold, node: Any, *, top: bool) -> None:
    """Add an op to a fold; the shared call's own ops go under their statement."""
    where = user_place(node.trail)
    step = Fold("op", node.op.name, nodes=[node], place=where)
    if top and where is not None and where.statement is not None:
        last = fold.children[-1] if fold.children else None
        if last is not None and last.kind == "statement" and last.place is not None and last.place.statement == where.statement:
            last.children.append(step)
            last.nodes.append(node)
            last.place = where  # the statement's value is its last op's
            return
        step = Fold("statement", where.text, children=[step], nodes=[node], place=where)
    fold.children.append(step)


def _drop_transparent(fold: Fold) -> None:
    """Remove levels that say nothing: containers that only pass on, and `forward` inside its module."""
    children: list[Fold] = []
    for child in fold.children:
        _drop_transparent(child)
        says_nothing = child.name == "forward" and child.kind == "function" and fold.kind in ("module", "root")
        says_nothing = says_nothing or child.kind == "module" and all(c.kind == "module" for c in child.children)
        children += child.children if says_nothing else [child]
    fold.children = children
    if fold.kind == "statement" and len(fold.children) == 1:
        fold.children[0].place = fold.place


def _aligned(paths: list[list[_Entry]]) -> list[list[_Entry]]:
    """Paths that begin at a call they all share: a deep stack was recorded only up to a number of calls."""
    if not paths:
        return paths
    shared = set.intersection(*({(e.call[0], e.call[2]) for e in path} for path in paths))
    return [path[_first(path, shared) :] for path in paths]


def _first(path: list[_Entry], shared: set[Any]) -> int:
    return next((i for i, e in enumerate(path) if (e.call[0], e.call[2]) in shared), 0)


def _shared_depth(paths: list[list[_Entry]]) -> int:
    depth = 0
    while paths and all(len(path) > depth for path in paths):
        entries = [path[depth] for path in paths]
        if not all(later.same(earlier) for earlier, later in zip(entries, entries[1:], strict=False)):
            break
        depth += 1
    return depth


def walk(fold: Fold) -> Iterator[Fold]:
    """The fold and everything in it, outermost first."""
    yield fold
    for child in fold.children:
        yield from walk(child)
