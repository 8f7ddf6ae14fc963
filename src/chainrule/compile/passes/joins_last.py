"""A reshape that joins dimensions stands after what is computed from it, not before.

Loops over a joined dimension would have to divide to find where an entry is; loops over the separate ones run along
what they read. Joined dimensions are left where they cost nothing: where a value is only moved, and read by a product.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

from chainrule.compile.passes.arrangement import Arrangement, Part, Parts, arrangement
from chainrule.compile.passes.rewriting import walked
from chainrule.compile.program import Program
from chainrule.core.family import Elementwise, Reduction
from chainrule.core.node import Node
from chainrule.ops import movement

Shape = tuple[int, ...]


def joins_last(program: Program) -> Program:
    """f(reshape(permute(x)), y) = reshape(permute(f(x, y turned back))), for what is computed entry by entry.

    Σ, max and the place of the extreme over a joined dimension are those over the dimensions it was joined from.
    """
    if not any(node.op is movement.reshape for node in program.nodes):
        return program
    bare = _read_without_units(program)

    def moved(node: Node, inputs: tuple[Node, ...]) -> Any:
        if isinstance(node.op, Elementwise) or node.op is movement.cast:
            return _elementwise(node, inputs)
        if isinstance(node.op, Reduction) and node.op.combine is not None:
            return _reduced(node, inputs[0], keepdim=node.params["keepdim"] and id(node) not in bare)
        return None

    return walked(program, moved)


def _read_without_units(program: Program) -> set[int]:
    """Reductions that keep dimensions of size 1 which every reader then reshapes away, by id."""
    found = {id(node) for node in program.nodes if isinstance(node.op, Reduction) and node.params["keepdim"]}
    for node in program.nodes:
        if node.op is not movement.reshape:
            found.difference_update(map(id, node.inputs))
    return found.difference(map(id, program.roots))


# --- loops over the separate dimensions


@final
@dataclass(frozen=True, eq=False)
class _Loops:
    """The separate dimensions that a value was joined from, in the order of its source.

    parts: what the value's dimensions consist of. order: for each of the loops that has more than one round, its place
    among them.
    """

    parts: tuple[Parts, ...]
    order: Shape
    shape: Shape

    @cached_property
    def loop_of(self) -> dict[Part, int]:
        """Which of the loops each part is."""
        flat = [part for parts in self.parts for part in parts]
        turns = [v for v, n in enumerate(self.shape) if n != 1]
        return {flat[place]: v for v, place in zip(turns, self.order, strict=True)}

    def separated(self, x: Node, target: Sequence[int]) -> Any:
        """A value that fits the joined shape, in these loops; None if its own dimensions would be joined by that.

        target: the joined shape.
        """
        if x.constant is not None:
            return type(x).filled(x.aval._replace(shape=self.shape), x.constant)
        if x.op is movement.expand:
            (inner,) = x.inputs
            sizes = (1,) * (len(target) - inner.aval.ndim) + inner.aval.shape
            found = self._apart(inner, [n != 1 for n in sizes])
            return None if found is None else movement.expand(found, shape=self.shape)
        return self._apart(x, [True] * len(target))

    def _apart(self, x: Node, present: Sequence[bool]) -> Any:
        """present: for each joined dimension, whether `x` has it, rather than one entry for all of it."""
        there = [there for parts, there in zip(self.parts, present, strict=True) for _ in parts]
        flat = [part.size for parts in self.parts for part in parts]
        found = arrangement(x).reshaped(tuple([n if is_ else 1 for n, is_ in zip(flat, there, strict=True)]))
        if found is None:
            return None
        found = found.permuted(self.order)
        kept = iter([there[place] for place in self.order])
        found = found.reshaped(tuple([n if n != 1 and next(kept) else 1 for n in self.shape]))
        return None if found is None or found.is_joined() else found.built()

    def joined(self, made: Node, dims: Sequence[Parts] | None = None, without: Shape = ()) -> Any:
        """What was computed in these loops, joined again. dims: into which; without: loops that are gone."""
        left = [v for v in range(len(self.shape)) if v not in without]
        places = {part: Part(left.index(v), 1, part.size) for part, v in self.loop_of.items() if v in left}
        kept = self.parts if dims is None else dims
        return Arrangement(made, tuple([tuple([places[part] for part in parts]) for parts in kept])).built()

    def numbers(self, dims: Sequence[int]) -> Shape:
        """The loops that joined dimensions become, in the order in which these are joined."""
        return tuple([self.loop_of[part] for d in dims for part in self.parts[d]])


def _loops(x: Node) -> tuple[_Loops, Any] | None:
    """Loops over what a value was joined from, and its source in them; or None: it is not joined, or of an input."""
    found = arrangement(x)
    if found.source.op is None or not found.is_joined():
        return None
    flat = [part for parts in found.dims for part in parts]
    order = sorted(range(len(flat)), key=lambda place: (flat[place].dim, -flat[place].step))
    source: Any = found.source
    shape = source.aval.shape
    apart = tuple([flat[place].size for place in order])
    if apart != tuple([n for n in shape if n != 1]):
        source, shape = movement.reshape(source, shape=apart), apart
    return _Loops(found.dims, tuple(order), shape), source


# --- what is computed in them


def _elementwise(node: Node, inputs: tuple[Node, ...]) -> Any:
    full = [x for x in inputs if x.aval.shape == node.aval.shape]
    for leader in full:
        if leader.op is not movement.reshape and leader.op is not movement.permute:
            continue
        found = _loops(leader)
        if found is None:
            continue
        loops, source = found
        operands = [
            source if x is leader else x if not x.aval.shape else loops.separated(x, node.aval.shape) for x in inputs
        ]
        if all(x is not None for x in operands):
            assert node.op is not None
            return loops.joined(node.op(*operands, **node.params))
    return None


def _reduced(node: Any, x: Node, *, keepdim: bool) -> Any:
    dim = node.params["dim"]
    found = _loops(x)
    if found is None:
        if keepdim or not node.params["keepdim"]:
            return None
        return movement.reshape(node.op(x, dim=dim, keepdim=False), shape=node.aval.shape)
    loops, source = found
    numbers = loops.numbers(dim)
    if not numbers or (node.op.combine in ("argmax", "argmin") and list(numbers) != sorted(numbers)):
        return None
    made = node.op(source, dim=tuple(sorted(numbers)), keepdim=False)
    kept = [() if d in dim else parts for d, parts in enumerate(loops.parts)]
    if not node.params["keepdim"]:
        kept = [parts for d, parts in enumerate(kept) if d not in dim]
    return loops.joined(made, kept, numbers)
