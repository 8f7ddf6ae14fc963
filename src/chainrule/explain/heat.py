"""An array as a small picture: zero-centred, one colour either side, pooled down where it is large.

A picture keeps real entries: where several share one cell, the cell shows the one farthest from 0, and says so. What a
cell shows can therefore be looked up, and one outlier among a thousand zeros is still seen.
"""

from __future__ import annotations

import base64
import struct
import zlib
from dataclasses import dataclass

import numpy as np

LARGEST = 64  # cells along a side
_SCALE = 32_767
_NOT_FINITE = -32_768
_NEGATIVE, _POSITIVE, _BROKEN = (47, 111, 179), (201, 92, 28), (190, 30, 140)


@dataclass(frozen=True)
class Heat:
    """An array as at most LARGEST × LARGEST cells.

    shape: the array's own shape. rows, columns: of the matrix it is drawn as. block: entries a cell, down and across.
    cells: what each cell shows; an entry that is not finite stays so. offsets: which entry of its block that is,
        counted along its rows. largest: the largest finite size among the cells.
    """

    shape: tuple[int, ...]
    rows: int
    columns: int
    block: tuple[int, int]
    cells: np.ndarray
    offsets: np.ndarray
    largest: float

    @property
    def pooled(self) -> bool:
        return self.block != (1, 1)

    def packed(self) -> str:
        """The cells as base64 of little-endian int16: 32767 stands for `largest`, -32768 for what is not finite."""
        finite = np.isfinite(self.cells)
        scaled = np.where(finite, self.cells, 0.0) / (self.largest or 1.0) * _SCALE
        codes = np.where(finite, np.rint(scaled), _NOT_FINITE).astype("<i2")
        return base64.b64encode(codes.tobytes()).decode("ascii")

    def packed_offsets(self) -> str:
        """The offsets as base64 of little-endian uint32; nothing where every cell is one entry."""
        return base64.b64encode(self.offsets.astype("<u4").tobytes()).decode("ascii") if self.pooled else ""

    def png(self) -> str:
        """The cells as a PNG in a data URI: hue for the sign, opacity for the size, so that it suits light and dark."""
        finite = np.isfinite(self.cells)
        size = np.sqrt(np.abs(np.where(finite, self.cells, self.largest)) / (self.largest or 1.0))
        pixels = np.empty((*self.cells.shape, 4), np.uint8)
        pixels[..., :3] = np.where((self.cells < 0)[..., None], _NEGATIVE, _POSITIVE)
        pixels[..., :3][~finite] = _BROKEN
        pixels[..., 3] = np.rint(255 * size)
        return "data:image/png;base64," + base64.b64encode(_png(pixels)).decode("ascii")

    def described(self) -> str:
        """What a person who does not see the picture is told."""
        shape = " x ".join(map(str, self.shape)) or "one number"
        text = f"{shape}, zero-centred, from -{self.largest:.3g} to {self.largest:.3g}"
        if not np.isfinite(self.cells).all():
            text += ", some entries not finite"
        return f"{text}; {self.pooling()}" if self.pooled else text

    def pooling(self) -> str:
        """How entries share cells, in words."""
        down, across = self.block
        return f"each cell shows the largest of {down} x {across} entries" if self.pooled else ""


def heat(array: np.ndarray, largest_side: int = LARGEST) -> Heat:
    """The picture of an array; what has more than two dimensions is drawn as its rows, one under another."""
    values = np.asarray(array, np.float64)
    matrix = values.reshape(1, -1) if values.ndim < 2 else values.reshape(-1, values.shape[-1])
    rows, columns = matrix.shape
    # A vector has room for more cells than a side of a matrix, at the cost of one row of them.
    side = largest_side * 4 if min(rows, columns) == 1 else largest_side
    block = (max(1, -(-rows // side)), max(1, -(-columns // side)))
    cells, offsets = _pooled(matrix, block)
    finite = cells[np.isfinite(cells)]
    return Heat(values.shape, rows, columns, block, cells, offsets, float(np.max(np.abs(finite), initial=0.0)))


def _pooled(matrix: np.ndarray, block: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """In each block, the entry farthest from 0, and its place there; one that is not finite comes before all."""
    if block == (1, 1):
        return matrix, np.zeros(matrix.shape, np.uint32)
    rows, columns = matrix.shape
    down, across = -(-rows // block[0]), -(-columns // block[1])
    padded = np.zeros((down * block[0], across * block[1]))
    padded[:rows, :columns] = matrix
    blocks = padded.reshape(down, block[0], across, block[1]).transpose(0, 2, 1, 3).reshape(down, across, -1)
    size = np.where(np.isfinite(blocks), np.abs(blocks), np.inf)
    offsets = size.argmax(-1)
    return np.take_along_axis(blocks, offsets[..., None], -1)[..., 0], offsets


def _png(pixels: np.ndarray) -> bytes:
    """An RGBA picture as a PNG file (ISO/IEC 15948): one filter byte before each row, all of it deflated."""
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
