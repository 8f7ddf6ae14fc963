"""Puts object code into memory, ready to run, without LLVM, whose library takes 25 ms and 40 MB to load.

Knows one format, ELF for x86-64, and of it what our code needs: nothing that is written to, and addresses of 64 bits.
Other object code is left to LLVM.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

# Source: System V ABI, chapter 4 (object files), and its AMD64 supplement, section 4.4 (relocation).
_IDENTITY = b"\x7fELF\x02\x01\x01"  # 64 bits, little-endian, version 1
_X86_64 = 62
_CONTENT, _SYMBOLS, _RELOCATIONS = 1, 2, 4  # kinds of sections
_WRITTEN, _IN_MEMORY = 1, 2  # flags of sections
_ELSEWHERE = 0  # the section of a symbol that is not defined here
_FUNCTION = 2  # a kind of symbol
_ADDRESS = 1  # a kind of relocation: eight bytes, the symbol's address and the addend


class _Header(NamedTuple):
    kind: int
    machine: int
    version: int
    entry: int
    segments_offset: int
    sections_offset: int
    flags: int
    size: int
    segment_size: int
    segments: int
    section_size: int
    sections: int
    names: int


class _Section(NamedTuple):
    name: int
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int
    entry_size: int


class _Symbol(NamedTuple):
    name: int
    info: int
    other: int
    section: int
    value: int
    size: int


class _Relocation(NamedTuple):
    offset: int
    info: int
    addend: int


_HEADER, _SECTION = struct.Struct("<16xHHIQQQIHHHHHH"), struct.Struct("<IIQQQQIIQQ")
_SYMBOL, _RELOCATION = struct.Struct("<IBBHQQ"), struct.Struct("<QQq")


class Placed(NamedTuple):
    """Functions in memory: the address of each, and the memory, which is given back when this is gone."""

    functions: dict[str, int]
    memory: mmap.mmap


class _Unknown(Exception):
    """The object code has something that is not known here."""


def place(code: bytes) -> Placed | None:
    """Object code in memory, to be run and not written to; None if it is of another kind than the one known here.

    Raises: OSError: the system lets no process run what it has written.
    """
    if not code.startswith(_IDENTITY) or not hasattr(mmap, "MAP_ANONYMOUS"):
        return None
    try:
        return _placed(_Object(code))
    except _Unknown:
        return None


class _Object:
    """Object code, read."""

    def __init__(self, code: bytes) -> None:
        self.code = code
        header = _Header(*_HEADER.unpack_from(code))
        if header.machine != _X86_64:
            raise _Unknown
        places = range(header.sections_offset, header.sections_offset + header.sections * _SECTION.size, _SECTION.size)
        self.sections = [_Section(*_SECTION.unpack_from(code, at)) for at in places]

    def content(self, section: _Section) -> bytes:
        """What stands in a section."""
        return self.code[section.offset : section.offset + section.size]

    def of_kind(self, kind: int) -> Iterator[_Section]:
        """All sections of a kind."""
        return (section for section in self.sections if section.kind == kind)

    def symbols(self) -> list[tuple[str, _Symbol]]:
        """Its symbols with their names, in the order in which relocations count them."""
        table = next(self.of_kind(_SYMBOLS))
        names = self.content(self.sections[table.link])
        symbols = [_Symbol(*entry) for entry in _SYMBOL.iter_unpack(self.content(table))]
        return [(names[s.name : names.index(b"\0", s.name)].decode(), s) for s in symbols]


def _placed(found: _Object) -> Placed:
    starts, size = _starts(found.sections)
    memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_READ | mmap.PROT_WRITE)
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for number, start in starts.items():
        memory[start : start + found.sections[number].size] = found.content(found.sections[number])
    symbols = found.symbols()
    for table in found.of_kind(_RELOCATIONS):
        if table.info in starts:
            for entry in _RELOCATION.iter_unpack(found.content(table)):
                relocation = _Relocation(*entry)
                if relocation.info & 0xFFFFFFFF != _ADDRESS:
                    raise _Unknown
                address = _address(*symbols[relocation.info >> 32], base, starts) + relocation.addend
                at = starts[table.info] + relocation.offset
                memory[at : at + 8] = address.to_bytes(8, "little")
    if _protect()(base, size, mmap.PROT_READ | mmap.PROT_EXEC):
        reason = os.strerror(ctypes.get_errno())
        raise OSError(f"compile: expected a system that runs code made by its programs, got {reason!r} from mprotect")
    functions = {name: _address(name, s, base, starts) for name, s in symbols if s.info & 0xF == _FUNCTION}
    return Placed(functions, memory)


def _starts(sections: list[_Section]) -> tuple[dict[int, int], int]:
    """Where each section that is needed to run lies in memory, by its number; and the size of all."""
    starts, end = {}, 0
    for number, section in enumerate(sections):
        if section.flags & _IN_MEMORY and section.size:
            if section.flags & _WRITTEN:
                raise _Unknown
            if section.kind == _CONTENT:  # and not what debuggers and exceptions read
                starts[number] = start = end + -end % max(section.alignment, 1)
                end = start + section.size
    return starts, end


def _address(name: str, symbol: _Symbol, base: int, starts: dict[int, int]) -> int:
    if symbol.section in starts:
        return base + starts[symbol.section] + symbol.value
    if symbol.section != _ELSEWHERE:
        raise _Unknown
    try:
        return ctypes.cast(getattr(ctypes.CDLL(None), name), ctypes.c_void_p).value or 0
    except AttributeError:
        raise _Unknown from None


@cache
def _protect() -> Any:
    """The system's `int mprotect(void *address, size_t size, int protection)`."""
    function = ctypes.CDLL(None, use_errno=True).mprotect
    function.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    return function
