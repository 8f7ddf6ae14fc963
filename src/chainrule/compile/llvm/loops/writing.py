"""The code of a loop nest, as its layout says: outer loops, then the stages at each point or block of points.

Knows how loops over vectors go, and what is left over at their ends. What a layout chose, and why, is not known here;
what an expression is as code is for the `Emitter` to know, how values add up for `reductions.py`.

Several vectors are worked on at once where a reduction would else wait for its own last result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, final

from chainrule import dtypes
from chainrule.compile.kernels.expression import Reduction
from chainrule.compile.kernels.kernel import Stage
from chainrule.compile.llvm.builder import SCALAR, Builder, Index, Value
from chainrule.compile.llvm.expressions import Across, Emitter
from chainrule.compile.llvm.indices import index_divmod, index_max, index_min, index_sub
from chainrule.compile.llvm.loops.layout import Layout, cut
from chainrule.compile.llvm.loops.reductions import Accumulators
from chainrule.compile.llvm.random import TOGETHER

# What a loop does in a round: from the values that it carries to those that the next round is given.
Round = Callable[[Sequence[Value]], list[Value] | None]


class Piece(NamedTuple):
    """One vector's worth of the vector variable: where it starts, and how many of its lanes count."""

    offset: int
    active: int


def _pieces(size: int, lanes: int) -> list[Piece]:
    """So many entries in vectors; of the last one not all lanes may count."""
    return [Piece(at, min(lanes, size - at)) for at in range(0, size, lanes)]


@final
class Writing:
    """Writes the code of one layout."""

    def __init__(self, layout: Layout, emitter: Emitter) -> None:
        self.layout, self.kernel, self.emitter = layout, layout.kernel, emitter
        self.builder: Builder = emitter.builder
        self._in_square = False

    # --- outer loops

    def units(self, lo: Index, hi: Index) -> None:
        """The loops over the outer variables: rounds `lo` to `hi` of those that threads share."""
        b, count = self.builder, self.layout.units
        if not self.layout.order:  # one unit: whoever has it does it all
            self.emitter.when(b.lt(b.index_value(lo), b.index_value(hi)), self._point)
        elif isinstance(lo, int) and isinstance(hi, int) and (lo, hi) == (0, count):
            self._deeper(self.layout.order)
        else:
            self._shared(self.layout.shared, count, lo, hi)

    def _shared(self, shared: Sequence[int], count: int, lo: Index, hi: Index) -> None:
        """Of loops that are taken as one, of so many rounds, those from `lo` to `hi`, and what is inside of them."""
        b, (variable, *rest) = self.builder, shared
        if not rest:
            self._outer(self.layout.order[self.layout.order.index(variable) :], lo, hi)
            return
        each = count // self.layout.rounds(variable)

        def inside(_: Sequence[Value]) -> None:
            before = b.index_mul(self.emitter.counter(variable), each)
            start = index_max(b, index_sub(b, lo, before), 0)
            self._shared(rest, each, start, index_min(b, index_sub(b, hi, before), each))

        self._parts(variable, 0, self.layout.rounds(variable), 1, inside)

    def _outer(self, order: Sequence[int], lo: Index, hi: Index) -> None:
        first, rest = order[0], order[1:]
        if first == self.layout.vector:
            self._blocks(first, lo, hi)
        elif first == self.layout.across:
            self._squares(first, rest, lo, hi)
        else:
            self._parts(first, lo, hi, 1, lambda _: self._deeper(rest))

    def _squares(self, variable: int, rest: Sequence[int], lo: Index, hi: Index) -> None:
        """As many points at once as there are lanes, then those left over one by one."""
        b, emitter, lanes = self.builder, self.emitter, self.layout.lanes

        def square(_: Sequence[Value]) -> None:
            self._in_square = True
            self._deeper(rest)
            self._in_square = False

        for first, last, reach in self._between_edges(variable, lo, hi, 1):
            size = index_max(b, index_sub(b, last, first), 0)
            middle = b.index_add(first, index_sub(b, size, index_divmod(b, size, lanes)[1]))
            emitter.loop(variable, first, middle, lanes, square, reach=reach)
            emitter.loop(variable, middle, last, 1, lambda _: self._deeper(rest), reach=reach)

    def _deeper(self, order: Sequence[int]) -> None:
        if order:
            self._outer(order, 0, self.layout.rounds(order[0]))
        else:
            self._point()

    def _blocks(self, variable: int, lo: Index, hi: Index) -> None:
        """Blocks of whole vectors, then the rest of the extent as one shorter block."""
        b, block, lanes = self.builder, self.layout.block, max(self.layout.lanes, 1)
        whole, rest = divmod(self.kernel.extents[variable], block)
        known = isinstance(lo, int) and isinstance(hi, int)
        stop = index_min(b, hi, whole) if rest else hi
        # The loop counts elements, so that the variable is the counter itself.
        start, pieces = b.index_mul(lo, block), _pieces(block, lanes)
        self._parts(variable, start, b.index_mul(stop, block), block, lambda _: self._block(pieces, variable))
        if not rest:
            return

        def tail() -> None:
            with self.emitter.at({variable: whole * block}, reach=self._last(variable, whole * block)):
                self._block(_pieces(rest, lanes), variable)

        if known:
            tail()
        else:
            reached = b.and_(
                b.ge(b.index_value(hi), b.constant(whole + 1, dtypes.int64)),
                b.le(b.index_value(lo), b.constant(whole, dtypes.int64)),
            )
            self.emitter.when(reached, tail)

    # --- a block of points of the outer loops: lanes over an outer variable

    def _block(self, pieces: Sequence[Piece], vector: int) -> None:
        """All stages, for all the pieces of a block of points, at each row if they are columns of a square."""
        across = self.layout.across
        if not self._in_square or across is None:
            self._row(pieces, vector)
            return
        emitter, start = self.emitter, self.emitter.counter(across)
        read: dict[int, list[Value]] = {}
        if any(piece.active != self.layout.lanes for piece in pieces):
            stop = self.builder.index_add(start, self.layout.lanes)
            emitter.loop(across, start, stop, 1, lambda _: self._row(pieces, vector))
            return
        for row in range(self.layout.lanes):
            emitter.across = Across(across, row, read)
            with emitter.at({across: self.builder.index_add(start, row)}):
                self._row(pieces, vector)
        emitter.across = None

    def _row(self, pieces: Sequence[Piece], vector: int) -> None:
        """All stages, for all the pieces."""
        reduced: list[list[tuple[Reduction, Value]]] = [[] for _ in pieces]
        base = self.layout.base
        with self.emitter.at({} if base is None else {base: self.emitter.counter(vector)}):
            for stage in self.kernel.stages:
                self._stage_across_points(stage, pieces, vector, reduced)

    def _stage_across_points(
        self, stage: Stage, pieces: Sequence[Piece], vector: int, reduced: Sequence[list[tuple[Reduction, Value]]]
    ) -> None:
        emitter, sums = self.emitter, Accumulators(stage.reductions, self.emitter)
        base, lanes = emitter.counter(vector), self.layout.lanes

        def point(carried: Sequence[Value]) -> list[Value]:
            after: list[Value] = []
            whole = len(pieces) == TOGETHER and all(piece.active == lanes for piece in pieces)
            for number, piece in enumerate(pieces):
                emitter.quarter = number if whole else None
                with (
                    emitter.at({vector: self.builder.index_add(base, piece.offset)}),
                    emitter.lanes_over(vector, lanes, piece.active),
                ):
                    for reduction, value in reduced[number]:
                        emitter.define(reduction, value)
                    after += sums.taken(carried[number * sums.size : (number + 1) * sums.size])
                    self._stores(stage)
            emitter.quarter = None
            return after

        final = self._nest(stage.inner, point, sums.start(lanes) * len(pieces))
        for number, found in enumerate(reduced):
            found += sums.results(final[number * sums.size : (number + 1) * sums.size])

    # --- one point of the outer loops: lanes over an inner variable

    def _point(self) -> None:
        """All stages at the present point."""
        for number, stage in enumerate(self.kernel.stages):
            sums, vector, lanes = Accumulators(stage.reductions, self.emitter), self.layout.inner[number], SCALAR
            if vector is not None:
                lanes = min(self.layout.lanes, 1 << max(self.kernel.extents[vector] - 1, 0).bit_length())
            if vector is None or lanes <= 1:
                final = self._scalar_stage(stage, sums)
            else:
                final = self._vector_stage(stage, sums, vector, lanes)
            for reduction, value in sums.results(final):
                self.emitter.define(reduction, value)

    def _scalar_stage(self, stage: Stage, sums: Accumulators) -> list[Value]:
        def scalar(carried: Sequence[Value]) -> list[Value]:
            after = sums.taken(carried)
            self._stores(stage)
            return after

        return self._nest(stage.inner, scalar, sums.start(SCALAR))

    def _vector_stage(self, stage: Stage, sums: Accumulators, vector: int, lanes: int) -> list[Value]:
        emitter, b, extent = self.emitter, self.builder, self.kernel.extents[vector]
        chains = min(self.layout.pieces if stage.reductions else 1, max(extent // lanes, 1))
        block = lanes * chains
        whole = extent // block * block

        def work(base: Index, pieces: Sequence[Piece], carried: Sequence[Value]) -> list[Value]:
            after = list(carried)
            for number, piece in enumerate(pieces):
                chain = number % chains
                mine = slice(chain * sums.size, (chain + 1) * sums.size)
                with (
                    emitter.at({vector: b.index_add(base, piece.offset)}),
                    emitter.lanes_over(vector, lanes, piece.active),
                ):
                    after[mine] = sums.taken(after[mine], piece.active if piece.active != lanes else None)
                    self._stores(stage)
            return after

        def row(carried: Sequence[Value]) -> list[Value]:
            pieces = _pieces(block, lanes)
            after = list(carried)
            if whole:
                after = self._parts(
                    vector, 0, whole, block, lambda inner: work(emitter.counter(vector), pieces, inner), carried
                )
            if whole == extent:
                return after
            with emitter.at({}, reach=self._last(vector, whole)):
                return work(whole, _pieces(extent - whole, lanes), after)

        outside = tuple(v for v in stage.inner if v != vector)
        final = self._nest(outside, row, sums.start(lanes) * chains)
        return sums.folded(_paired(sums, [final[i * sums.size : (i + 1) * sums.size] for i in range(chains)]))

    # --- parts of both

    def _nest(self, variables: Sequence[int], body: Round, carry: Sequence[Value]) -> list[Value]:
        if not variables:
            return body(carry) or []
        first, rest = variables[0], variables[1:]
        return self._parts(first, 0, self.kernel.extents[first], 1, lambda inner: self._nest(rest, body, inner), carry)

    def _parts(
        self, variable: int, lo: Index, hi: Index, step: int, body: Round, carry: Sequence[Value] = ()
    ) -> list[Value]:
        """A loop over a variable, cut at its edges: what lies across one, in a step, is a part of its own."""
        after = list(carry)
        for first, last, reach in self._between_edges(variable, lo, hi, step):
            after = self.emitter.loop(variable, first, last, step, body, after, reach)
        return after

    def _between_edges(
        self, variable: int, lo: Index, hi: Index, step: int
    ) -> Iterator[tuple[Index, Index, tuple[int, int] | None]]:
        """The parts of a loop: where each begins and ends, and how far the variable reaches there if that is of use."""
        edges, b = self.layout.edges.get(variable), self.builder
        if not edges:
            yield lo, hi, None
            return
        for start, stop in cut(self.kernel.extents[variable], edges, step):
            yield index_max(b, lo, start), index_min(b, hi, stop), (start, stop - 1)

    def _last(self, variable: int, start: int) -> dict[int, tuple[int, int]]:
        """How far the rest of a variable reaches."""
        extent = self.kernel.extents[variable]
        return {variable: (start, extent - 1)} if self.layout.edges.get(variable) else {}

    def _stores(self, stage: Stage) -> None:
        # Every value before the first store: what is updated in place may be read by several of them.
        emitter = self.emitter
        values = [
            emitter.spread(s.value)
            if emitter.vector is not None and s.offset.coefficient(emitter.vector)
            else emitter.value(s.value)
            for s in stage.stores
        ]
        for store, value in zip(stage.stores, values, strict=True):
            emitter.store(store, value)


def _paired(sums: Accumulators, chains: list[list[Value]]) -> list[Value]:
    """What chains came to, as one: neighbours with neighbours, so that few additions wait for each other."""
    while len(chains) > 1:
        joined = [sums.joined(x, y) for x, y in zip(chains[::2], chains[1::2], strict=False)]
        chains = joined + ([chains[-1]] if len(chains) % 2 else [])
    return chains[0]
