"""Table: the arrays that an executable runs on, one a place of the program, and which of them are copies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, final
from weakref import ref

import numpy as np
from numpy.lib.array_utils import byte_bounds

from chainrule.array.inplace import own_memory
from chainrule.compile.executable import Binding, Executable, PlainBinding
from chainrule.compile.program import Program
from chainrule.compile.tracing.places import Argument, Option, Place, State, Stream
from chainrule.core.alignment import aligned_copy
from chainrule.core.memory import owner_of, share_memory
from chainrule.core.node import Node

PLAIN_MEMORY = 0x0001 | 0x0100  # in NumPy's flags: C-contiguous and aligned
_MOST_SEEN = 256  # arrays of a place that are remembered


@final
class Table:
    """The arrays of a program's inputs.

    arrays: what each place held when it was last looked at.
    given: what the executable reads: the same array, or a copy where it cannot work on it (`copied`).
    numbers, counts, keys: the memory of what is no array where it comes from: options, counts, random streams.
    owned: ids of the memory that is updated, and of how many places; nothing else may share it.
    replace: tells the executable of another array, once there is a binding. addresses: the binding's, likewise.
    seen: by id, arrays that were at a place before, and their addresses: batches come again in each epoch.
    varied: the positions of arguments that are only read, of which that may be so.
    """

    def __init__(self, program: Program, places: Sequence[Place]) -> None:
        self.avals = [x.aval for x in program.inputs]
        updated = {id(x) for x, _ in program.updates}
        self.writes = [id(x) in updated for x in program.inputs]
        self.arrays: list[Any] = [None] * len(places)
        self.given: list[Any] = [None] * len(places)
        self.copied: list[int] = []
        self.owned: dict[int, int] = {}
        # Of the places that are not varied: the memory of each, by its id, and of how many it is; whose is not NumPy's.
        self._memory: dict[int, int] = {}
        self._of: dict[int, int] = {}
        self._foreign: set[int] = set()
        self._first, self._behind = np.zeros((2, len(places)), np.int64)  # bytes of each array, 0 and 0 of none,
        self._unmeasured: set[int] = set()  # but of these, where another has come since
        self._written = np.array(self.writes, dtype=bool)
        self.replace: Callable[[int, np.ndarray], int | None] = lambda position, array: None
        self.addresses: memoryview | None = None
        self.varied = {i for i, p in enumerate(places) if isinstance(p, Argument) and not self.writes[i]}
        self.seen: list[dict[int, tuple[ref[np.ndarray], int]]] = [{} for _ in places]
        options = [i for i, place in enumerate(places) if isinstance(place, Option)]
        counts = [i for i, place in enumerate(places) if isinstance(place, State) and place.counts]
        streams = [i for i, place in enumerate(places) if isinstance(place, Stream)]
        self.numbers, self.counts = np.zeros(len(options)), np.zeros(len(counts), np.int64)
        self.keys = np.zeros((len(streams), 2), np.int64)
        for cells, positions in ((self.numbers, options), (self.counts, counts)):
            for n, i in enumerate(positions):
                self.given[i] = cells[n : n + 1].reshape(())
        for n, i in enumerate(streams):
            self.given[i] = self.keys[n]

    def bind(self, executable: Executable) -> Binding:
        """The executable on these arrays."""
        own = getattr(executable, "bind", None)
        binding: Binding = PlainBinding(executable, list(self.given)) if own is None else own(list(self.given))
        self.replace, self.addresses = binding.replace, binding.addresses
        return binding

    def remember(self, position: int, data: np.ndarray) -> None:
        """Hand on another array that needs no copy; from now on it is known, while it lives.

        Its memory stays where it is: NumPy resizes no array that is referred to.
        """
        address, seen = self.replace(position, data), self.seen[position]
        if address is None:
            return
        if len(seen) >= _MOST_SEEN:
            for key in [key for key, (found, _) in seen.items() if found() is None]:
                del seen[key]
        if len(seen) < _MOST_SEEN:
            seen[id(data)] = ref(data), address

    def hand_on(self, position: int, data: np.ndarray, holder: Any) -> bool:
        """Another array is at a place, held by a tensor or by anything else. False where the program cannot take it."""
        aval, writes = self.avals[position], self.writes[position]
        if data.shape != aval.shape or data.dtype != aval.dtype:
            return False
        if writes and isinstance(holder, Node):
            data = own_memory(holder, "compile")
        elif writes and not data.flags.writeable:
            return False
        given = data
        if position in self.copied:
            self.copied.remove(position)
        if data.flags.num & PLAIN_MEMORY != PLAIN_MEMORY:
            given = aligned_copy(data)
            self.copied.append(position)
        self.arrays[position] = None
        owner = owner_of(data)
        if self._shares(position, data, owner):
            return False
        self.arrays[position], self.given[position] = data, given
        if position in self.varied and given is data:
            self.remember(position, data)
            return True
        self.replace(position, given)
        if position not in self.varied:
            self._settle(position, owner)
        if writes:
            for i in self.varied:
                self.seen[i].clear()
        return True

    # --- whose memory is whose

    def _settle(self, position: int, owner: np.ndarray) -> None:
        """A place has this memory from now on, and not the one that it had."""
        self._unmeasured.add(position)
        key, old = id(owner), self._memory.get(position)
        if key == old:
            return
        self._memory[position] = key
        for counts in (self._of, self.owned) if self.writes[position] else (self._of,):
            counts[key] = counts.get(key, 0) + 1
            if old is not None:
                counts[old] -= 1
                if not counts[old]:
                    del counts[old]
        if owner.base is not None:
            self._foreign.add(position)
        elif self._foreign:
            self._foreign.discard(position)

    def _shares(self, position: int, data: np.ndarray, owner: np.ndarray) -> bool:
        """Is this memory that is updated under another name, or updated here and read under another name?"""
        here, key = self.writes[position], id(owner)
        if not data.size or (not here and key not in self.owned):
            return False
        varied = [x for i in self.varied if (x := self.arrays[i]) is not None] if here else []
        if data.base is None and not self._foreign:  # else a view, or memory that is not NumPy's
            others = self._of.get(key, 0) - (self._memory.get(position) == key)
            if not others and not any(x is data or x.base is not None for x in varied):
                return False  # as of an array that was just made
        self._measure()
        first, behind = byte_bounds(data)
        overlaps = (self._first < behind) & (first < self._behind)
        near = [self.arrays[i] for i in np.flatnonzero(overlaps if here else overlaps & self._written)]
        return any(share_memory(x, data) for x in (*near, *varied))

    def _measure(self) -> None:
        for i in self._unmeasured:
            x = self.arrays[i]
            self._first[i], self._behind[i] = (0, 0) if x is None or not x.size else byte_bounds(x)
        self._unmeasured.clear()

    def copy_in(self) -> None:
        """What the executable reads a copy of may have changed."""
        for position in self.copied:
            np.copyto(self.given[position], self.arrays[position])

    def copy_back(self) -> None:
        """What it wrote into a copy belongs into the array."""
        for position in self.copied:
            if self.writes[position]:
                np.copyto(self.arrays[position], self.given[position])
