"""Object code is put into memory as LLVM would, and what is not known is left to LLVM."""

import ctypes
import gc
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from chainrule.compile.llvm import engine, loader, processor
from chainrule.compile.llvm import target as targets
from chainrule.compile.llvm.target import aarch64, describe, host

# Constants, another function, a table of jumps, and two functions of the C library.
MANY = """
declare double @sin(double)
declare i64 @labs(i64)

define double @scaled(double %x) { %y = fmul double %x, 0x400921FB54442D18
 %z = call double @sin(double %y)
 ret double %z }

define internal i64 @chosen(i64 %n) {
 switch i64 %n, label %other [ i64 0, label %a i64 1, label %b i64 2, label %c i64 3, label %d i64 4, label %e ]
a: ret i64 31
b: ret i64 41
c: ret i64 59
d: ret i64 26
e: ret i64 53
other: %m = call i64 @labs(i64 %n)
 ret i64 %m }

define i64 @asked(i64 %n) { %x = call i64 @chosen(i64 %n)
 %y = add i64 %x, 1
 ret i64 %y }

@table = internal constant [4 x i32] [i32 2, i32 7, i32 1, i32 8]
define i32 @looked_up(i64 %n) { %p = getelementptr i32, ptr @table, i64 %n
 %x = load i32, ptr %p
 ret i32 %x }
"""
on_elf_x86_64 = pytest.mark.skipif(
    sys.platform != "linux" or host().arch != "x86_64", reason="object code here is of the kind that LLVM loads"
)


def answers(code: engine.Code) -> list[float]:
    asked = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(code.address("asked"))
    scaled = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)(code.address("scaled"))
    looked_up = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_int64)(code.address("looked_up"))
    return [*(asked(n) for n in (0, 3, 4, -8)), scaled(1.25), *(looked_up(n) for n in range(4))]


@on_elf_x86_64
@pytest.mark.parametrize("level", [0, 2])
def test_what_is_placed_computes_what_it_computes_when_llvm_loads_it(level):
    object_code = engine.compile_text(MANY, host(), level)
    placed = loader.place(object_code)
    assert placed is not None
    assert set(placed.functions) == {"asked", "chosen", "scaled", "looked_up"}
    found = answers(engine.Code(placed.functions.__getitem__, placed.memory))
    assert found == answers(engine.load_by_llvm(object_code))
    assert found == [32, 27, 54, 9, np.sin(1.25 * np.pi), 2, 7, 1, 8]


@on_elf_x86_64
def test_placed_code_cannot_be_written_to_and_is_given_back():
    def rights(address: int) -> str | None:
        """Of the stretch of memory around an address; the system joins neighbours that have the same."""
        for line in Path("/proc/self/maps").read_text(encoding="ascii").splitlines():
            span, found, *_ = line.split()
            first, end = (int(n, 16) for n in span.split("-"))
            if first <= address < end:
                return found
        return None

    placed = loader.place(engine.compile_text(MANY, host()))
    assert placed is not None
    start = min(placed.functions.values())
    assert rights(start) == "r-xp"
    del placed
    gc.collect()
    assert rights(start) != "r-xp"


@on_elf_x86_64
@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("@n = global i64 7\ndefine i64 @f() { %x = load i64, ptr @n\n ret i64 %x }", "written to"),
        (
            "@n = internal global i64 0\ndefine void @f() { store i64 1, ptr @n\n ret void }",
            "written to, zero at first",
        ),
        (
            "declare i64 @no_such_function()\ndefine i64 @f() { %x = call i64 @no_such_function()\n ret i64 %x }",
            "unknown",
        ),
    ],
)
def test_what_is_not_known_is_left_to_llvm(text, why):
    assert loader.place(engine.compile_text(text, host())) is None, why


@on_elf_x86_64
def test_addresses_of_32_bits_are_left_to_llvm():
    binding = engine.llvm()
    machine = binding.Target.from_triple(host().triple).create_target_machine(reloc="pic", codemodel="small")
    assert loader.place(machine.emit_object(binding.parse_assembly(MANY))) is None


def test_code_of_other_machines_is_left_to_llvm():
    assert loader.place(engine.compile_text("define i64 @f() { ret i64 7 }", aarch64())) is None
    assert loader.place(b"") is None
    assert loader.place(b"MZ" + bytes(500)) is None


@on_elf_x86_64
def test_a_system_that_runs_no_new_code_is_reported(monkeypatch):
    def refused(*_: int) -> int:
        ctypes.set_errno(13)
        return -1

    monkeypatch.setattr(loader, "_protect", lambda: refused)
    with pytest.raises(OSError, match="expected a system that runs code made by its programs, got 'Permission denied'"):
        loader.place(engine.compile_text(MANY, host()))


STEP = """
import sys
import numpy as np
import chainrule as cr
from chainrule.compile import cache

@cr.compile
def step(x):
    return (x.tanh() @ x).sum()

assert np.isclose(step(cr.ones(3, 3)).item(), 27 * np.tanh(1))
print("llvmlite.binding" in sys.modules, cache.cache_info().misses)
"""


@on_elf_x86_64
def test_llvm_is_not_loaded_where_a_step_was_compiled_before(tmp_path, monkeypatch):
    monkeypatch.setenv("CHAINRULE_CACHE_DIR", str(tmp_path))
    found = [
        subprocess.run([sys.executable, "-c", STEP], check=True, capture_output=True, text=True).stdout for _ in "ab"
    ]
    assert found[0].split()[0] == "True"
    assert found[1].split() == ["False", "0"]


@on_elf_x86_64
def test_what_llvm_found_in_the_machine_is_kept_for_this_processor_only(tmp_path, monkeypatch):
    monkeypatch.setenv("CHAINRULE_CACHE_DIR", str(tmp_path))
    looked: list[str] = []
    found = targets._found
    monkeypatch.setattr(targets, "_found", lambda: looked.append("looked") or found())
    detected = targets._detected.__wrapped__
    assert detected() == detected() == found()
    assert len(looked) == 1
    monkeypatch.setattr(processor, "description", lambda _: "another")
    assert detected() == found()
    assert len(looked) == 2
    monkeypatch.setattr(processor, "description", lambda _: None)
    assert detected() == found()
    assert len(looked) == 3


@on_elf_x86_64
def test_a_processor_says_the_same_on_each_core():
    any_x86_64 = describe(triple="x86_64-unknown-linux-gnu", cpu="x86-64", features="")
    usable = os.sched_getaffinity(0)
    said = set()
    try:
        for core in usable:
            os.sched_setaffinity(0, {core})
            said.add(processor.description(any_x86_64))
    finally:
        os.sched_setaffinity(0, usable)
    (text,) = said
    assert text.startswith("0 [")
    assert "\n1 [" in text


def test_a_processor_of_another_kind_is_not_asked():
    assert processor.description(aarch64()) is None or host().arch == "aarch64"
