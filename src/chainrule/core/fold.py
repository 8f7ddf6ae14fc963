"""The fold tree: a run's nodes grouped as the user wrote them, by function, module and statement.

The tree is the call stack that `provenance` recorded, cut below the deepest call that all nodes share. Depth 1 shows
that call's own statements and what it called; each further depth opens those.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

from chainrule.core.node import Node
from chainrule.core.provenance import (
    TRAIL_LENGTH,
    Call,
    Place,
    Scope,
    calls,
    in_a_loop,
    is_composite,
    is_module_call,
    is_ours,
    is_top_level,
    path,
    place,
    user_place,
)

Kind = Literal["root", "function", "module", "statement", "op"]


@dataclass
class Fold:
    """A group of nodes that is shown as one step.

    name: what the step is called: the function, the module's path, the statement, or the op.
    nodes: the ops in it, in the order they ran, those of its children included.
    place: where it was called, in its caller's source.
    unshown: what was between it and its children and is not shown, outermost first: the model itself, for one.
    """

    kind: Kind
    name: str
    children: list[Fold] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    place: Place | None = None
    unshown: list[Fold] = field(default_factory=list)

    def opened(self, depth: int) -> list[Fold]:
        """The steps that are shown at a depth: 1 is this fold's children."""
        if depth <= 0 or not self.children:
            return [self]
        return [step for child in self.children for step in child.opened(depth - 1)]

    def walk(self) -> Iterator[Fold]:
        """The fold and everything in it, outermost first, with what is not shown."""
        yield self
        yield from self.unshown
        for child in self.children:
            yield from child.walk()


@dataclass(frozen=True)
class _Level:
    """One call on the way to a node: of a function of the user's or of ours, or of a module.

    kind: None for the library's machinery, which is never shown but tells two calls apart.
    """

    kind: Literal["function", "module"] | None
    call: Call
    scope: Scope | None = None
    name: str = ""


def _levels(node: Node) -> list[_Level]:
    """The calls around a node, outermost first."""
    levels: list[_Level] = []
    scope = node.scope
    outermost = scope
    while outermost is not None and outermost.outer is not None:
        outermost = outermost.outer
    for trail in (calls(node.trail), [] if outermost is None else calls(outermost.trail)):
        for position, call in enumerate(trail):
            code = call[0]
            if is_module_call(code) and scope is not None:
                where, kind = path(scope), type(scope.module).__name__
                levels.append(_Level("module", call, scope, f"{where}: {kind}" if where else kind))
                scope = scope.outer
            elif is_composite(code):
                levels.append(_Level("function", call, None, code.co_name))
            elif is_ours(code):
                levels.append(_Level(None, call))
            else:
                inside_module = position + 1 < len(trail) and is_module_call(trail[position + 1][0])
                levels.append(_Level("function", call, None, "forward" if inside_module else code.co_name))
        if scope is None or len(trail) < TRAIL_LENGTH:
            break
        while scope is not None:  # the trail was cut inside the modules: the scope knows the rest
            levels.append(
                _Level("module", trail[-1], scope, f"{path(scope)}: {type(scope.module).__name__}".lstrip(": "))
            )
            scope = scope.outer
    return levels[::-1]


def _shared(earlier: Sequence[_Level], later: Sequence[_Level]) -> int:
    """How many calls, from the outside, two nodes made one after the other have in common.

    The identity of a frame may be reused once its call has ended. Within one call the instructions only move backwards,
    or stand still, inside a loop: so a step back outside any loop is a new call.
    """
    for level, (before, after) in enumerate(zip(earlier, later, strict=False)):
        if before.scope is not None or after.scope is not None:
            if before.scope is not after.scope:
                return level
            continue
        code, was_at, frame = before.call
        later_code, is_at, later_frame = after.call
        if code is not later_code and is_top_level(code) and is_top_level(later_code):
            return level + 1  # two cells of a notebook are one program
        if code is not later_code or frame != later_frame:
            return level
        if is_at > was_at:
            return level + 1
        if is_at < was_at:
            return level + 1 if in_a_loop(code, is_at, was_at) else level
    # Every instruction is the same: some call was made again, from the innermost loop around.
    common = min(len(earlier), len(later))
    for level in reversed(range(common)):
        code, at, _ = later[level].call
        if in_a_loop(code, at, at):
            return level + 1
    return max(common - 1, 0)


def fold_tree(nodes: Sequence[Node]) -> Fold:
    """The fold tree of the ops in a graph, which are in the order they ran."""
    levels = _aligned([_levels(node) for node in nodes])
    common = [_shared(before, after) for before, after in pairwise(levels)]
    shown = [[i for i, level in enumerate(path_) if level.kind is not None] for path_ in levels]
    depth = min([*common, *(i[-1] + 1 if i else 0 for i in shown)], default=0)
    while depth and levels[0][depth - 1].kind is None:
        depth -= 1
    root = Fold("root", levels[0][depth - 1].name if depth else "program", nodes=list(nodes))
    if depth:
        root.place = _called_at(levels[0], depth - 1)
    _Builder(root, depth).build(nodes, levels, common)
    _drop_transparent(root)
    return root


class _Builder:
    """Builds the tree below a root: keeps the folds that are open, innermost last, with their level in the stack."""

    def __init__(self, root: Fold, depth: int) -> None:
        self.root, self.depth = root, depth
        self.open: list[tuple[int, Fold]] = []
        self.levels: dict[int, Sequence[_Level]] = {}

    def build(self, nodes: Sequence[Node], levels: Sequence[Sequence[_Level]], common: Sequence[int]) -> None:
        for node, path_, shared in zip(nodes, levels, [0, *common], strict=True):
            self.levels[id(node)] = path_
            self.open = [(level, fold) for level, fold in self.open if level < shared]
            for level in range(max(self.depth, self.open[-1][0] + 1 if self.open else 0), len(path_)):
                if path_[level].kind is not None and level >= shared:
                    self._enter(path_, level)
            for _, fold in self.open:
                fold.nodes.append(node)
            self._add(self.open[-1][1] if self.open else self.root, node, top=not self.open)

    def _enter(self, path_: Sequence[_Level], level: int) -> None:
        kind = path_[level].kind
        assert kind is not None
        fold = Fold(kind, path_[level].name, place=_called_at(path_, level))
        (self.open[-1][1] if self.open else self.root).children.append(fold)
        self.open.append((level, fold))

    def _add(self, fold: Fold, node: Any, *, top: bool) -> None:
        """Add an op to a fold; the shared call's own ops go under their statement."""
        where = user_place(node.trail)
        step = Fold("op", node.op.name, nodes=[node], place=where)
        if top and where is not None and where.statement is not None:
            last = fold.children[-1] if fold.children else None
            if last is not None and last.kind == "statement" and last.place is not None:
                earlier = last.nodes[-1]
                before, after = self.levels[id(earlier)], self.levels[id(node)]
                same = (last.place.file, last.place.statement) == (where.file, where.statement)
                if same and _one_execution(before, after, self.depth - 1):
                    last.children.append(step)
                    last.nodes.append(node)
                    last.place = where  # the statement's value is its last op's
                    return
            step = Fold("statement", where.text, children=[step], nodes=[node], place=where)
        fold.children.append(step)


def _called_at(path_: Sequence[_Level], level: int) -> Place | None:
    """Where in the user's program the call of a level was made."""
    caller = next((p for p in reversed(path_[:level]) if p.kind is not None), None)
    return place(caller.call) if caller is not None and not is_ours(caller.call[0]) else None


def _one_execution(before: Sequence[_Level], after: Sequence[_Level], level: int) -> bool:
    """Were two ops of one statement made in one execution of it? In a loop, the second time starts over."""
    _, was_at, _ = before[level].call
    _, is_at, _ = after[level].call
    if is_at != was_at:
        return is_at > was_at
    # At one instruction, ops come from inside one library function, further on in it each time.
    return _shared(before[level + 1 :], after[level + 1 :]) > 0


def _drop_transparent(fold: Fold) -> None:
    """Remove levels that say nothing: containers that only pass on, and `forward` inside its module."""
    children: list[Fold] = []
    for child in fold.children:
        _drop_transparent(child)
        says_nothing = child.name == "forward" and child.kind == "function" and fold.kind in ("module", "root")
        inner = [c.kind == "module" for c in child.children]
        # The model itself, which the whole forward pass is inside of, is opened; so is a container of modules alone.
        outermost = child.kind == "module" and ": " not in child.name
        says_nothing = says_nothing or (child.kind == "module" and (all(inner) or (outermost and any(inner))))
        children += child.children if says_nothing else [child]
        if says_nothing:
            fold.unshown += [child, *child.unshown]
    fold.children = children


def _aligned(paths: list[list[_Level]]) -> list[list[_Level]]:
    """Paths that begin at a call they all share: a deep stack was recorded only up to a number of calls."""
    if not paths:
        return paths
    shared = set.intersection(*({_identity(level) for level in path_} for path_ in paths))
    if not shared:  # stacks deeper than a trail: what is left in common is what each op was made in
        return [path_[_innermost(path_) :] for path_ in paths]
    return [path_[next((i for i, level in enumerate(path_) if _identity(level) in shared), 0) :] for path_ in paths]


def _innermost(path_: Sequence[_Level]) -> int:
    """Where a path's outermost module begins, or else its innermost function."""
    modules = [i for i, level in enumerate(path_) if level.kind == "module"]
    return modules[0] if modules else max((i for i, level in enumerate(path_) if level.kind is not None), default=0)


def _identity(level: _Level) -> Any:
    if is_top_level(level.call[0]) and level.scope is None:
        return "the program"
    return level.scope.number if level.scope is not None else (level.call[0], level.call[2])
