"""Programs run as another machine runs them: AArch64 code under QEMU's user mode, in a process without a C library.

Between the blocks of memory that a program is given lie gaps that it must leave as they are.
"""

import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from chainrule.compile.executable import PlainBinding
from chainrule.compile.llvm.blocks import CONTROL, CONTROL_BYTES
from chainrule.compile.writing import Written

ASSEMBLER, LINKER, EMULATOR = "aarch64-linux-gnu-as", "aarch64-linux-gnu-ld", "qemu-aarch64"
MISSING = [name for name in (ASSEMBLER, LINKER, EMULATOR) if shutil.which(name) is None]

_START = Path(__file__).with_name("start_aarch64.s")
_BASE = 0x4000_0000  # where the image lies: far from the program itself
_HEADER, _GAP, _STACK, _LINE = 64, 192, 1 << 16, 64
_UNTOUCHED = 0xA5


class ObjectFile(NamedTuple):
    """What the tables of an ELF file say: the machine (183 is AArch64), and the symbols others must bring."""

    machine: int
    undefined: list[str]


def read_object(code: bytes) -> ObjectFile:
    """The tables of a 64-bit ELF file, little-endian."""
    assert code[:6] == b"\x7fELF\x02\x01"
    (machine,) = struct.unpack_from("<H", code, 18)
    (table,) = struct.unpack_from("<Q", code, 40)
    size, count = struct.unpack_from("<HH", code, 58)
    # of each section: name, type, flags, address, offset, size, link, info, alignment, size of an entry
    sections = [struct.unpack_from("<IIQQQQIIQQ", code, table + i * size) for i in range(count)]
    undefined = []
    for section in sections:
        if section[1] == 2:  # a table of symbols: name, info, other, section, value, size; section 0 is none
            names = sections[section[6]][4]
            for at in range(section[4], section[4] + section[5], 24):
                name, _, _, where, _, _ = struct.unpack_from("<IBBHQQ", code, at)
                if name and not where:
                    undefined.append(code[names + name : code.index(b"\0", names + name)].decode())
    return ObjectFile(machine, undefined)


class Emulated:
    """A program compiled for AArch64: an `Executable`, each of whose runs is a process."""

    def __init__(self, written: Written, folder: Path, threads: int) -> None:
        self.program, self.recipe, self.threads = written.program, written.recipe, threads
        self.folder = folder

    def __call__(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        image = _Image()
        inputs = [image.place(a.tobytes()) for a in arrays]
        constants = [image.place(np.ascontiguousarray(a).tobytes()) for a in self.recipe.constants]
        sizes = [x.aval.size * x.aval.dtype.itemsize for x in self.program.outputs]
        outputs = [image.room(size) for size in sizes]
        arena, faults, ticks = image.room(self.recipe.arena), image.room(16), image.room(8)
        addresses = [_BASE + at for at in (*inputs, *constants, *outputs, arena, faults, ticks)]
        table = image.place(struct.pack(f"<{len(addresses)}Q", *addresses))
        scratch = image.room(self.recipe.scratch * self.threads)
        control = bytearray(CONTROL_BYTES)
        struct.pack_into("<Q", control, CONTROL["patience"], 100)
        control_at, stack = image.place(bytes(control)), image.room(_STACK)
        header = [self.threads, *(_BASE + at for at in (stack + _STACK, table, scratch, control_at)), 0]
        image.bytes[:48] = struct.pack("<6Q", *header)
        after = self._run(bytes(image.bytes))
        image.check_gaps(after)
        assert not any(after[faults : faults + 8]), "an index is out of range"
        updated = {id(x) for x, _ in self.program.updates}
        for x, array, at in zip(self.program.inputs, arrays, inputs, strict=True):
            held = np.frombuffer(after, array.dtype, array.size, at).reshape(array.shape)
            if id(x) in updated:
                array[...] = held
            else:
                assert held.tobytes() == array.tobytes(), f"{x.symbol} is read only, and was written"
        return [
            np.frombuffer(after, x.aval.dtype, x.aval.size, at).reshape(x.aval.shape).copy()
            for x, at in zip(self.program.outputs, outputs, strict=True)
        ]

    def bind(self, arrays: list[np.ndarray]) -> PlainBinding:
        return PlainBinding(self, arrays)

    def _run(self, image: bytes) -> bytes:
        start, step, whole = (self.folder / name for name in ("start.o", "step.o", "whole"))
        step.write_bytes(self.recipe.code)
        sizes = [f"--defsym=image_base={_BASE}", f"--defsym=image_size={len(image)}"]
        subprocess.run([ASSEMBLER, "-o", start, _START], check=True)
        subprocess.run([LINKER, "-z", "noexecstack", *sizes, "-o", whole, start, step], check=True)
        return subprocess.run([EMULATOR, whole], input=image, stdout=subprocess.PIPE, check=True, timeout=60).stdout


class _Image:
    """A stretch of memory, being laid out: blocks at cache lines, with gaps before and behind them."""

    def __init__(self) -> None:
        self.bytes = bytearray(_HEADER)
        self.gaps: list[tuple[int, int]] = []
        self._gap()

    def place(self, content: bytes) -> int:
        """A block with this content; says where."""
        at = len(self.bytes)
        self.bytes += content
        self._gap()
        return at

    def room(self, size: int) -> int:
        return self.place(bytes(size))

    def check_gaps(self, after: bytes) -> None:
        assert len(after) == len(self.bytes)
        for lo, hi in self.gaps:
            assert after[lo:hi] == bytes([_UNTOUCHED]) * (hi - lo), f"written beside a block, within {lo} … {hi}"

    def _gap(self) -> None:
        lo = len(self.bytes)
        hi = -(-(lo + _GAP) // _LINE) * _LINE
        self.bytes += bytes([_UNTOUCHED]) * (hi - lo)
        self.gaps.append((lo, hi))
