"""Which part of a buffer a kernel touches at each point of its first loops: whether that part is the point's own.

Kernels that touch what they share only so may be run point by point together, or by threads that share the points.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from chainrule.compile.kernels.buffer import Buffer
from chainrule.compile.kernels.expression import Load, Pick, walk
from chainrule.compile.kernels.tasks import Task, stores, values
from chainrule.core.affine import Affine


@dataclass(frozen=True)
class Batch:
    """The sizes of the first loops that some kernels share."""

    sizes: tuple[int, ...]

    @property
    def variables(self) -> tuple[int, ...]:
        return tuple(range(len(self.sizes)))

    def inside(self, offset: Affine) -> Affine:
        """What an offset is within the part of one batch point."""
        return Affine(offset.constant, tuple(t for t in offset.terms if t[0] not in self.variables))


def by_point(buffer: Buffer, task: Task, batch: Batch) -> bool:
    """Does a task touch, at each batch point, a stretch of the buffer that is that point's own?"""
    count = len(batch.sizes)
    if buffer.shape[:count] != batch.sizes or not _is_nested(buffer):
        return False
    own = buffer.strides[count - 1]
    for offset, beyond in _offsets(buffer, task):
        if any(offset.coefficient(v) != buffer.strides[v] for v in batch.variables):
            return False
        low, high = batch.inside(offset).range(task.kernel.extents)
        if low < 0 or high + beyond >= own:
            return False
    return True


def _is_nested(buffer: Buffer) -> bool:
    """Does each dimension's part of the buffer lie in one piece, those of the first dimension one after the other?"""
    return all(s >= n * t for s, n, t in zip(buffer.strides, buffer.shape[1:], buffer.strides[1:], strict=False))


def _offsets(buffer: Buffer, task: Task) -> Iterable[tuple[Affine, int]]:
    """Where a task touches a buffer, and how much further on it may be by what is looked up when it runs."""
    for e in walk(*values(task.kernel)):
        if isinstance(e, Load) and e.buffer is buffer:
            yield e.offset, 0
        elif isinstance(e, Pick) and e.buffer is buffer:
            yield e.offset, sum((size - 1) * stride for _, size, stride in e.indices)
    for store in stores(task.kernel):  # type: ignore[arg-type]
        if store.buffer is buffer:
            yield store.offset, 0
