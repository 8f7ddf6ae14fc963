"""Which tensors of a traced function share memory, and how: what is written to one of them is not lost on the others.

Tensors that lie in the same place entry by entry are a *region*: a tensor, what `detach` made of it, what `.data =` put
there. They have one value. Regions that are parts of one memory, or other layouts of it, are a tensor and views of it:
of a write to one of them, the others' new values are not worked out.

Knows tensors by identity alone: not their values, nor which of them there are outside of the function.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final


@dataclass(eq=False)
class Region:
    """Where some tensors lie. memory: all regions of the memory that it is of, itself among them."""

    tensors: list[Any]
    memory: list[Region]

    @property
    def others(self) -> list[Any]:
        """The tensors in the other regions of the memory."""
        return [x for region in self.memory if region is not self for x in region.tensors]

    def alone(self) -> None:
        """None of the others is read from its memory any more."""
        self.memory[:] = [self]


@final
class Sharing:
    """The regions of tensors."""

    def __init__(self) -> None:
        self._regions: dict[int, Region] = {}  # by id of the tensor, which its region keeps alive

    def of(self, x: Any) -> Region:
        """The region of a tensor; one of its own, if nothing was said of it."""
        found = self._regions.get(id(x))
        return self._placed(x, []) if found is None else found

    def add(self, x: Any, like: Any) -> None:
        """A new tensor lies where another does."""
        region = self.of(like)
        region.tensors.append(x)
        self._regions[id(x)] = region

    def add_view(self, x: Any, of: Any) -> None:
        """A new tensor lies somewhere in the memory of another."""
        self._placed(x, self.of(of).memory)

    def leave(self, x: Any) -> None:
        """A tensor gets memory of its own; what shared its old one goes on with that."""
        tensors = self.of(x).tensors
        tensors[:] = [y for y in tensors if y is not x]
        self._placed(x, [])

    def _placed(self, x: Any, memory: list[Region]) -> Region:
        region = self._regions[id(x)] = Region([x], memory)
        memory.append(region)
        return region
