"""From groups of nodes to kernels in an order: what each reads and writes, and which updates happen in place.

An update is written straight into the memory of what it updates if every other reader of the old value can run before;
otherwise it is computed into memory of its own, and copied at the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from chainrule import dtypes
from chainrule.compile.access import Flat, Index, Lowering, Where, is_free
from chainrule.compile.grouping import DEAR, Group, Grouping, grouped, points_of
from chainrule.compile.kernel import (
    Accumulated,
    Affine,
    Buffer,
    Compute,
    Contract,
    Expr,
    Kernel,
    Load,
    Loops,
    Nest,
    Number,
    Pick,
    Random,
    Reduced,
    Reduction,
    Scan,
    Scatter,
    Sort,
    Stage,
    Store,
    row_major,
    substituted,
    variables,
    walk,
)
from chainrule.compile.layout import batch_innermost
from chainrule.compile.program import Program
from chainrule.core.node import Node
from chainrule.ops import indexing, movement, windows

_ROW = 8192  # entries of a row that is remembered: it stays in the first cache


@dataclass(frozen=True, eq=False, kw_only=True)
class Task:
    """A kernel with what it reads and writes, and the nodes it computes (for reports)."""

    kernel: Kernel
    reads: frozenset[Buffer]
    writes: frozenset[Buffer]
    nodes: tuple[Node, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class Schedule:
    """Tasks in the order they run, over buffers.

    memory: the buffer of each input, constant and stored node, by the node's id.
    """

    program: Program
    tasks: tuple[Task, ...]
    inputs: tuple[Buffer, ...]
    outputs: tuple[Buffer, ...]
    memory: Mapping[int, Buffer] = field(default_factory=dict)

    def buffers(self) -> list[Buffer]:
        """Every buffer, once, in the order of first use."""
        found: dict[int, Buffer] = {}
        for b in (*self.inputs, *self.outputs):
            found.setdefault(id(b), b)
        for task in self.tasks:
            for b in (*sorted(task.reads | task.writes, key=lambda b: b.name),):
                found.setdefault(id(b), b)
        return list(found.values())


def scheduled(program: Program) -> Schedule:
    """The kernels of a program."""
    return _Scheduling(program, grouped(program)).schedule()


@dataclass(eq=False)
class _Copy:
    """A value that already has memory, copied to where it is also wanted.

    memory: where it is copied from, if it has been put aside.
    """

    source: Node
    target: Buffer
    memory: Buffer | None = None


@dataclass(eq=False)
class _Scheduling:
    program: Program
    grouping: Grouping
    memory: dict[int, Buffer] = field(default_factory=dict)  # of inputs, constants and stored nodes, by id of the node
    alive: list[Node] = field(default_factory=list)
    flat: set[int] = field(default_factory=set)  # ids of nodes that are read as if they lay row by row
    counter: int = 0

    def schedule(self) -> Schedule:
        """Buffers, then an order, then kernels."""
        program = self.program
        inputs = tuple(self._buffer(x, "input", f"in{i}") for i, x in enumerate(program.inputs))
        self.memory.update({id(x): b for x, b in zip(program.inputs, inputs, strict=True)})
        copies = self._place_outputs()
        order, late = self._order()
        copies += late
        for group in order:
            for node in group.placed:
                if id(node) not in self.memory:
                    self.memory[id(node)] = self._buffer(node, "arena", f"t{self._number()}")
        tasks = [self._task(group) for group in order]
        turned = batch_innermost(order, self.memory, self.flat)
        if turned:
            self.memory.update(turned)
            tasks = [self._task(group) for group in order]
        tasks += [self._copied(copy) for copy in copies]
        return Schedule(
            program=program, tasks=tuple(tasks), inputs=inputs, outputs=tuple(self.outputs), memory=self.memory
        )

    def _number(self) -> int:
        self.counter += 1
        return self.counter - 1

    def _buffer(self, node: Node, place: Any, name: str) -> Buffer:
        shape, dtype = node.aval.shape, node.aval.dtype
        return Buffer(name=name, shape=shape, dtype=dtype, strides=row_major(shape), place=place)

    def _constant(self, node: Node) -> Buffer:
        found = self.memory.get(id(node))
        if found is None:
            array = np.asarray(node.data, order="C")
            found = self.memory[id(node)] = Buffer(
                name=f"c{self._number()}", shape=array.shape, dtype=array.dtype, strides=row_major(array.shape),
                place="constant", array=array,
            )  # fmt: skip
            self.alive.append(node)
        return found

    # --- where results go

    def _place_outputs(self) -> list[_Copy]:
        copies: list[_Copy] = []
        self.outputs: list[Buffer] = []
        for i, node in enumerate(self.program.outputs):
            buffer = self._buffer(node, "output", f"out{i}")
            self.outputs.append(buffer)
            if node.op is None or id(node) in self.memory:
                copies.append(_Copy(node, buffer))
            else:
                self.memory[id(node)] = buffer
        return copies

    def _order(self) -> tuple[list[Group], list[_Copy]]:
        """The groups in an order that every read allows, and the updates that have to be copied at the end."""
        groups = self.grouping.active()
        writer = {id(n): g for g in groups for n in g.placed}
        after: dict[int, set[int]] = {g.number: set() for g in groups}
        for g in groups:
            for node in g.loads.values():
                maker = writer.get(id(node))
                if maker is not None and maker is not g:
                    after[g.number].add(maker.number)
        late: list[_Copy] = []
        changed = {id(x) for x, _ in self.program.updates}
        # What is copied at the end still has to be there then: it is not overwritten before.
        results = [*self.program.outputs, *(value for _, value in self.program.updates)]
        copied_later = {id(node) for node in results if node.op is None}
        for x, value in self.program.updates:
            target = self.memory[id(x)]
            maker = writer.get(id(value))
            readers = [g.number for g in groups if id(x) in g.loads and g is not maker]
            fits = maker is not None and id(value) not in self.memory and id(x) not in copied_later
            if fits and maker is not None:
                fits = self._reads_in_place(maker, x, value)
            if fits and maker is not None:
                tried = {k: set(v) for k, v in after.items()}
                tried[maker.number] |= set(readers)
                if _sorted(tried) is not None:
                    after = tried
                    self.memory[id(value)] = target
                    continue
            late.append(_Copy(value, target))
        late = self._kept(late, changed) + late
        order = _sorted(after)
        assert order is not None, "groups depend on each other in a circle"
        by_number = {g.number: g for g in groups}
        return [by_number[n] for n in order], late

    def _kept(self, late: list[_Copy], changed: set[int]) -> list[_Copy]:
        """Inputs that others become, and that change themselves, as in a swap: put aside before either is written."""
        aside: dict[int, _Copy] = {}
        for copy in late:
            if id(copy.source) in changed and self.memory[id(copy.source)] is not copy.target:
                if id(copy.source) not in aside:
                    place = self._buffer(copy.source, "arena", f"t{self._number()}")
                    aside[id(copy.source)] = _Copy(copy.source, place)
                copy.memory = aside[id(copy.source)].target
        return list(aside.values())

    def _reads_in_place(self, group: Group, x: Node, value: Node) -> bool:
        """Does a group read the old value of `x` only where it writes the new one?"""
        if id(x) not in group.loads:
            return True
        place = self.grouping.places.get(id(value))
        if place is None or group.kind not in ("loops", "contract"):
            return False
        if group.kind == "contract" and any(x is y for s in group.seeds for y in _behind(s.inputs, group)):
            return False
        want = Affine.total(zip(place, row_major(x.aval.shape), strict=True))
        fits = True

        def leaf(node: Node, where: Where) -> Expr | None:
            nonlocal fits
            if node is x:
                fits = fits and not isinstance(where, Flat) and _offset_of(where, x.aval.shape) == want
                return Number(0, node.aval.dtype)
            if id(node) in group.loads or group.holds(node):
                return Number(0, node.aval.dtype)
            return None

        lowering = Lowering(leaf, group.extents)
        for node in group.placed:
            if not group.holds(node):
                lowering.lowered(node, self.grouping.places[id(node)])
        for seed in group.seeds:
            if group.kind == "loops":
                lowering.lowered(seed.inputs[0], group.everywhere(seed.inputs[0]))
        return fits

    # --- kernels

    def _task(self, group: Group) -> Task:
        match group.kind:
            case "loops":
                kernel: Kernel = self._loops(group)
            case "contract":
                kernel = self._contract(group)
            case "scatter":
                kernel = self._scatter(group)
            case "scan":
                kernel = self._scan(group)
            case "sort":
                kernel = self._sort(group)
            case _:
                kernel = self._random(group)
        return task_of(kernel, (*group.seeds, *group.placed))

    def _copied(self, copy: _Copy) -> Task:
        frame = copy.source.aval.shape
        group = Group("loops", -1, frame)
        group.loads[id(copy.source)] = copy.source
        value: Expr
        if copy.memory is None:
            value = Lowering(self._reading(group), group.extents).lowered(copy.source, group.points)
        else:
            value = Load(copy.memory, _offset(group.points, copy.memory))
        store = Store(buffer=copy.target, offset=_offset(group.points, copy.target), value=value)
        kernel = Loops(
            name="copy",
            extents=group.extents,
            outer=tuple(range(len(frame))),
            stages=(Stage(inner=(), stores=(store,)),),
        )
        return task_of(kernel, (copy.source,))

    def _reading(self, group: Group, own: Callable[[Node, Where], Expr | None] | None = None) -> Any:
        """How a group reads what it does not compute: as loads."""

        def leaf(node: Node, where: Where) -> Expr | None:
            if id(node) in group.loads or (node.op is None and node.constant is None):
                return self._load(node, where)
            return None if own is None else own(node, where)

        return leaf

    def _load(self, node: Node, where: Where) -> Expr:
        buffer = self.memory.get(id(node))
        if buffer is None:
            buffer = self._constant(node)
        if isinstance(where, Flat):
            self.flat.add(id(node))
            return Load(buffer, where.offset)
        affine = [(w, s) for w, s in zip(where, buffer.strides, strict=True) if isinstance(w, Affine)]
        offset = Affine.total(affine)
        indices = tuple(
            (w, n, s) for w, n, s in zip(where, buffer.shape, buffer.strides, strict=True) if not isinstance(w, Affine)
        )
        return Pick(buffer, offset, indices, "index") if indices else Load(buffer, offset)

    def _loops(self, group: Group) -> Loops:
        reductions: dict[int, Reduction] = {}

        def own(node: Node, where: Where) -> Expr | None:
            if not group.holds(node):
                return None
            if id(node) not in reductions:
                raise AssertionError(f"{node.op.name if node.op else node} is read before it is reduced")
            return Reduced(reductions[id(node)])

        lowering = Lowering(self._reading(group, own), group.extents)
        wanted = self._wanted(group)
        for seed in sorted(group.seeds, key=lambda n: self.grouping.position[id(n)]):
            if id(seed) in wanted:
                reductions[id(seed)] = self._fold(group, seed, lowering)
        stores = []
        for node in group.placed:
            place = self.grouping.places[id(node)]
            value = Reduced(reductions[id(node)]) if group.holds(node) else lowering.lowered(node, place)
            buffer = self.memory[id(node)]
            stores.append(
                (group.is_full(node.aval.shape), Store(buffer=buffer, offset=_offset(place, buffer), value=value))
            )
        name = "_".join(_names(group))
        outer = tuple(v for v in range(len(group.frame)) if v not in group.reduced)
        inner = tuple(sorted(group.reduced))
        stages = _stages(inner, list(reductions.values()), stores)
        return Loops(
            name=name, extents=group.extents, outer=outer, stages=_remembered(stages, inner, group.extents)
        )  # fmt: skip

    def _wanted(self, group: Group) -> set[int]:
        """The reductions that something written depends on."""
        found: set[int] = set()
        seen: set[int] = set()
        todo = list(group.placed)
        while todo:
            node = todo.pop()
            if id(node) in seen or id(node) in group.loads:
                continue
            seen.add(id(node))
            if group.holds(node):
                found.add(id(node))
                todo += node.inputs
            elif is_free(node):
                todo += node.inputs
        return found

    def _fold(self, group: Group, seed: Node, lowering: Lowering) -> Reduction:
        (x,) = seed.inputs
        op: Any = seed.op
        place = group.everywhere(x)
        value = lowering.lowered(x, place)
        position = None
        if op.combine in ("argmax", "argmin"):
            dims = sorted(seed.params["dim"])
            sizes = row_major(tuple(x.aval.shape[d] for d in dims))
            position = Affine.total((place[d], s) for d, s in zip(dims, sizes, strict=True))
        return Reduction(combine=op.combine, value=value, dtype=seed.aval.dtype, position=position)

    def _contract(self, group: Group) -> Contract:
        (seed,) = group.seeds
        lowering = Lowering(self._reading(group), group.extents)
        left, right = (lowering.lowered(x, at) for x, at in zip(seed.inputs, group.operands(), strict=True))
        accumulated = Accumulated(seed.aval.dtype)

        def own(node: Node, where: Where) -> Expr | None:
            return accumulated if node is seed else None

        epilogue = Lowering(self._reading(group, own), group.extents)
        stores = []
        for node in group.placed:
            place = self.grouping.places[id(node)]
            buffer = self.memory[id(node)]
            stores.append(Store(buffer=buffer, offset=_offset(place, buffer), value=epilogue.lowered(node, place)))
        count = len(group.frame)
        return Contract(
            name="_".join(_names(group)),
            extents=group.extents,
            batch=tuple(range(count - len(group.rows) - len(group.columns))),
            rows=group.rows,
            columns=group.columns,
            summed=tuple(range(count, count + len(group.summed))),
            left=left,
            right=right,
            accumulate=dtypes.work_dtype(seed.aval.dtype),
            epilogue=tuple(stores),
        )

    def _scatter(self, group: Group) -> Scatter:
        (seed,) = group.seeds
        x, *given = seed.inputs
        params = seed.params
        extents = dict(enumerate(x.aval.shape))
        points = points_of(x.aval.shape)
        lowering = Lowering(self._reading(group), extents)
        value = lowering.lowered(x, points)
        buffer = self.memory[id(seed)]
        strides, shape = buffer.strides, buffer.shape
        indices: list[tuple[Expr, int, int]] = []
        if seed.op is indexing.index_add:
            count = given[0].aval.ndim
            indices = [
                (lowering.lowered(i, points[:count]), n, s) for i, n, s in zip(given, shape, strides, strict=False)
            ]
            offset = _dot(points[count:], strides[len(given) :])
        elif seed.op is indexing.scatter_add:
            dim = params["dim"]
            indices = [(lowering.lowered(given[0], points), shape[dim], strides[dim])]
            offset = _dot(points[:dim] + points[dim + 1 :], strides[:dim] + strides[dim + 1 :])
        elif seed.op is movement.embed:
            at = [p * step + start for p, (start, _, step) in zip(points, params["window"], strict=True)]
            offset = _dot(tuple(at), strides)
        else:
            assert seed.op is windows.overlap_add, seed.op
            count = len(params["size"])
            lead = x.aval.ndim - 2 * count
            out, inside = points[lead : lead + count], points[lead + count :]
            at = [o * s + i * d for o, i, s, d in zip(out, inside, params["stride"], params["dilation"], strict=True)]
            offset = _dot((*points[:lead], *at), strides)
        return Scatter(
            name=seed.op.name, extents=extents, loops=tuple(extents), buffer=buffer, offset=offset,
            indices=tuple(indices), value=value,
        )  # fmt: skip

    def _scan(self, group: Group) -> Scan:
        (seed,) = group.seeds
        dim = seed.params["dim"]
        value = Lowering(self._reading(group), group.extents).lowered(seed.inputs[0], group.points)
        buffer = self.memory[id(seed)]
        outer = tuple(v for v in range(len(group.frame)) if v != dim)
        target = Store(buffer=buffer, offset=_offset(group.points, buffer), value=value)
        return Scan(name="cumsum", extents=group.extents, outer=outer, along=dim, value=value, target=target)

    def _sort(self, group: Group) -> Sort:
        (seed,) = group.seeds
        dim = seed.params["dim"]
        value = Lowering(self._reading(group), group.extents).lowered(seed.inputs[0], group.points)
        buffer = self.memory[id(seed)]
        outer = tuple(v for v in range(len(group.frame)) if v != dim)
        target = Store(buffer=buffer, offset=_offset(group.points, buffer), value=value)
        return Sort(
            name="argsort", extents=group.extents, outer=outer, along=dim, value=value,
            descending=seed.params["descending"], target=target,
        )  # fmt: skip

    def _random(self, group: Group) -> Loops:
        (seed,) = group.seeds
        op: Any = seed.op
        buffer = self.memory[id(seed)]
        offset = _offset(group.points, buffer)
        (key,) = seed.inputs
        load = self._load(key, (Affine(),))
        assert isinstance(load, Load)
        value = Random(
            op.name, load.buffer, seed.params["offset"], offset, seed.aval.size, seed.params, seed.aval.dtype
        )
        store = Store(buffer=buffer, offset=offset, value=value)
        outer = tuple(range(len(group.frame)))
        return Loops(name=op.name, extents=group.extents, outer=outer, stages=(Stage(inner=(), stores=(store,)),))


def _stages(inner: tuple[int, ...], reductions: list[Reduction], stores: list[tuple[bool, Store]]) -> tuple[Stage, ...]:
    """Reductions and stores in the order in which what they read is there."""
    level: dict[int, int] = {}

    def depth(e: Expr) -> int:
        return max((level[id(x.reduction)] for x in walk(e) if isinstance(x, Reduced)), default=0)

    for r in reductions:
        level[id(r)] = depth(r.value) + 1
    last = max(level.values(), default=0)
    stages = []
    for n in range(last + 1):
        mine = tuple(r for r in reductions if level[id(r)] == n + 1)
        full = tuple(s for is_full, s in stores if is_full and depth(s.value) == n)
        rows = tuple(s for is_full, s in stores if not is_full and depth(s.value) == n)
        if rows:
            stages.append(Stage(inner=(), stores=rows))
        if mine or full:
            stages.append(Stage(inner=inner, reductions=mine, stores=full))
    return tuple(stages)


def _remembered(stages: tuple[Stage, ...], inner: tuple[int, ...], extents: Mapping[int, int]) -> tuple[Stage, ...]:
    """What is dear and read by several stages is kept, for one row, in memory private to the thread."""
    points = math.prod(extents[v] for v in inner)
    if not inner or max(extents) not in inner or points > _ROW:
        return stages
    first: dict[int, int] = {}
    again: dict[int, Expr] = {}
    for n, stage in enumerate(stages):
        reduced = {id(e) for e in walk(*(r.value for r in stage.reductions))}
        for e in walk(*(r.value for r in stage.reductions), *(s.value for s in stage.stores)):
            dear = isinstance(e, Compute) and e.op.name in DEAR and variables(e) & set(inner)
            if dear and first.setdefault(id(e), n) != n and id(e) not in reduced:
                again[id(e)] = e  # a reduction is known by its identity, and goes on computing it
    inside = {id(x) for e in again.values() for x in walk(e) if x is not e}
    found = list(stages)
    strides = row_major(tuple(extents[v] for v in inner))
    offset = Affine.total((Affine.variable(v), s) for v, s in zip(inner, strides, strict=True))
    for number, e in enumerate(e for k, e in again.items() if k not in inside):
        buffer = Buffer(
            name=f"row{number}", shape=(points,), dtype=dtypes.work_dtype(e.dtype), strides=(1,), place="private"
        )  # fmt: skip
        n = first[id(e)]
        keep = Store(buffer=buffer, offset=offset, value=e)
        found[n] = Stage(inner=inner, reductions=found[n].reductions, stores=(*found[n].stores, keep))
        done: dict[int, Expr] = {}
        by = {id(e): Load(buffer, offset)}
        for later in range(n + 1, len(found)):
            found[later] = _changed(found[later], by, done)
    return tuple(found)


def _changed(stage: Stage, by: Mapping[int, Expr], done: dict[int, Expr]) -> Stage:
    stores = tuple(Store(buffer=s.buffer, offset=s.offset, value=substituted(s.value, by, done)) for s in stage.stores)
    return Stage(inner=stage.inner, reductions=stage.reductions, stores=stores)


def _sorted(after: Mapping[int, set[int]]) -> list[int] | None:
    """An order in which each number comes after those it has to, by number where there is a choice; None if none."""
    left = {n: set(before) & set(after) for n, before in after.items()}
    order: list[int] = []
    while left:
        ready = [n for n, before in left.items() if not before]
        if not ready:
            return None
        n = min(ready)
        order.append(n)
        del left[n]
        for before in left.values():
            before.discard(n)
    return order


def task_of(kernel: Kernel, nodes: tuple[Node, ...]) -> Task:
    """A kernel with what it reads and writes."""
    reads: set[Buffer] = set()
    writes: set[Buffer] = set()
    for e in walk(*values(kernel)):
        if isinstance(e, Load | Pick):
            reads.add(e.buffer)
        elif isinstance(e, Random):
            reads.add(e.key)
    for store in targets(kernel):
        writes.add(store)
    reads = {b for b in reads if b.place != "private"}
    return Task(kernel=kernel, reads=frozenset(reads), writes=frozenset(writes), nodes=nodes)


def values(kernel: Kernel) -> Iterator[Expr]:
    """The expressions of a kernel."""
    match kernel:
        case Loops():
            for stage in kernel.stages:
                yield from (r.value for r in stage.reductions)
                yield from (s.value for s in stage.stores)
        case Contract():
            yield kernel.left
            yield kernel.right
            yield from (s.value for s in kernel.epilogue)
        case Scatter():
            yield kernel.value
            yield from (i for i, _, _ in kernel.indices)
        case Nest():
            for part in kernel.kernels:
                yield from values(part)
        case _:
            yield kernel.value


def targets(kernel: Kernel) -> Iterator[Buffer]:
    """What a kernel writes, but for memory private to a thread."""
    match kernel:
        case Loops():
            yield from (s.buffer for stage in kernel.stages for s in stage.stores if s.buffer.place != "private")
        case Contract():
            yield from (s.buffer for s in kernel.epilogue if s.buffer.place != "private")
        case Scatter():
            yield kernel.buffer
        case Nest():
            for part in kernel.kernels:
                yield from targets(part)
        case _:
            yield kernel.target.buffer


def _names(group: Group) -> list[str]:
    """Op names in the order they are computed, for reports."""
    found = [n.op.name for n in (*group.seeds, *group.placed) if n.op is not None]
    return list(dict.fromkeys(found))[:4]


def _offset(place: tuple[Affine, ...], buffer: Buffer) -> Affine:
    return _dot(place, buffer.strides)


def _offset_of(where: Index, shape: tuple[int, ...]) -> Affine | None:
    if not all(isinstance(w, Affine) for w in where):
        return None
    return _dot(where, row_major(shape))  # type: ignore[arg-type]


def _dot(place: tuple[Affine, ...], strides: tuple[int, ...]) -> Affine:
    return Affine.total(zip(place, strides, strict=True))


def _behind(nodes: tuple[Node, ...], group: Group) -> Iterator[Node]:
    for node in nodes:
        if id(node) in group.loads:
            yield node
        else:
            yield from _behind(node.inputs, group)
