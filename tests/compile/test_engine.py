"""Targets, object code and functions in memory."""

import ctypes
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from targets import KINDS

from chainrule import dtypes
from chainrule.compile.llvm import engine, runtime
from chainrule.compile.llvm import target as targets
from chainrule.compile.llvm.builder import Builder
from chainrule.compile.llvm.target import Target, aarch64, describe, host
from chainrule.errors import ArgumentError

ADD = "define i64 @add(i64 %x, i64 %y) { %z = add i64 %x, %y\n ret i64 %z }"


def rounding(target: Target) -> str:
    """y[i] = round(x[i]) · x[i] + floor(x[i]) + ceil(x[i]) · trunc(x[i]), 16 numbers, float32."""
    b = Builder(target.vector_bytes, fma=target.has_fma)
    lanes = b.lanes(dtypes.float32)

    def body() -> None:
        for i in range(0, 16, lanes):
            x = b.load("%x", i, dtypes.float32, lanes)
            y = b.fma(b.round(x), x, b.add(b.floor(x), b.mul(b.ceil(x), b.trunc(x))))
            b.store(y, "%y", i, dtypes.float32)
        b.ret()

    b.function("rounding", "ptr %x, ptr %y", body)
    return b.text()


def test_a_function_is_compiled_loaded_and_called():
    code = engine.load(engine.compile_text(ADD, host()))
    add = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)(code.address("add"))
    assert add(2, 3) == 5
    assert code.address("add") == code.address("add")
    with pytest.raises(KeyError, match="sub"):
        code.address("sub")


def test_object_code_is_the_same_each_time():
    assert engine.compile_text(ADD, host()) == engine.compile_text(ADD, host())


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_every_level_of_effort_computes_the_same(level):
    code = engine.load(engine.compile_text(ADD, host(), level))
    assert ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)(code.address("add"))(20, 22) == 42


@pytest.mark.parametrize("text", ["define void @x( {", "define i64 @x() { ret void }"])
def test_a_faulty_module_is_refused_with_the_words_of_llvm(text):
    with pytest.raises(RuntimeError, match="error"):
        engine.compile_text(text, host())


def test_functions_are_gone_with_their_code():
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4

    if not Path("/proc/self/statm").exists():
        pytest.skip("the system does not tell how much memory is used")
    block = "\n".join(f"define i64 @f{i}(i64 %x) {{ %y = mul i64 %x, {i}\n ret i64 %y }}" for i in range(400))
    compiled = engine.compile_text(block, host())
    for _ in range(50):
        engine.load(compiled)
    before = resident()
    for _ in range(200):
        engine.load(compiled)
    assert len(compiled) > 30_000
    assert resident() - before < 200 * len(compiled) // 1024 // 10


@pytest.mark.parametrize("kind", KINDS)
def test_restricted_targets_compute_without_the_c_library(kind):
    try:
        target = Target.restricted(kind)
    except ArgumentError:
        pytest.skip("this machine lacks it")
    assert not re.search(r"fma|round|floor|ceil|trunc", called_in(engine.assembly(rounding(target), target)))
    code = engine.load(engine.compile_text(rounding(target), target))
    x = np.linspace(-3.3, 3.3, 16, dtype=np.float32)
    y = np.empty_like(x)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(code.address("rounding"))(x.ctypes.data, y.ctypes.data)
    np.testing.assert_allclose(y, np.rint(x) * x + np.floor(x) + np.ceil(x) * np.trunc(x), rtol=1e-6)


def called_in(text: str) -> str:
    return "\n".join(re.findall(r"^\s*(?:movabsq\s+\$\w+|call\w*\s+.*|jmp\w*\s+\*.*|bl\s+\w+)", text, re.MULTILINE))


@pytest.mark.parametrize(
    ("kind", "registers", "width"), [("avx512", "zmm", 64), ("avx2", "ymm", 32), ("baseline", "xmm", 16)]
)
def test_a_restricted_target_uses_its_registers(kind, registers, width):
    try:
        target = Target.restricted(kind)
    except ArgumentError:
        pytest.skip("this machine lacks it")
    assert target.vector_bytes == width
    assert target.has_fma == (kind != "baseline")
    assert registers in engine.assembly(rounding(target), target)


def test_the_environment_restricts_the_host(monkeypatch):
    if host().arch != "x86_64":
        pytest.skip("restrictions are of x86-64")
    monkeypatch.setenv("CHAINRULE_TARGET", "baseline")
    assert host() == Target.restricted("baseline")
    assert str(host()) == "baseline x86-64 (x86-64-v2)"
    monkeypatch.setenv("CHAINRULE_TARGET", "sse")
    with pytest.raises(ArgumentError, match="CHAINRULE_TARGET: expected avx512, avx2, baseline, got 'sse'"):
        host()


def test_what_the_host_lacks_is_said(monkeypatch):
    old = describe(triple="x86_64-unknown-linux-gnu", cpu="nehalem", features="+sse4.2,+popcnt,-avx2")
    monkeypatch.setattr(targets, "_detected", lambda: old)
    assert Target.restricted("baseline").vector_bytes == 16
    with pytest.raises(
        ArgumentError, match=r"CHAINRULE_TARGET=avx2: expected a CPU with AVX2, got nehalem without avx2"
    ):
        Target.restricted("avx2")
    monkeypatch.setattr(targets, "_detected", aarch64)
    with pytest.raises(ArgumentError, match=r"got generic \(AArch64 NEON\); unset it"):
        Target.restricted("baseline")


def test_targets_by_their_features():
    avx2 = "+sse4.2,+popcnt,+avx2,+fma,+f16c,+bmi,+bmi2,+lzcnt,+movbe"
    found = describe(triple="x86_64-pc-windows-msvc", cpu="haswell", features=avx2)
    assert (found.name, found.vector_bytes, found.registers, found.has_fma) == ("AVX2", 32, 16, True)
    found = describe(triple="arm64-apple-darwin24", cpu="apple-m4", features="+neon")
    assert (found.name, found.arch, found.vector_bytes, found.registers) == ("AArch64 NEON", "aarch64", 16, 32)
    found = describe(triple="riscv64-unknown-linux-gnu", cpu="generic", features="")
    assert (found.name, found.vector_bytes, found.has_fma) == ("riscv64 (not known)", 16, False)


def test_the_same_text_is_compiled_for_another_machine():
    target = aarch64()
    text = engine.assembly(rounding(target), target)
    assert re.search(r"fmla\s+v\d+\.4s", text)
    assert re.search(r"frintn\s+v\d+\.4s", text)
    assert not called_in(text)
    assert engine.compile_text(rounding(target), target)[:20] == b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x01\x00\xb7\x00"
    text = engine.assembly(runtime.runtime_text(target), target)
    assert "CNTVCT_EL0" in text  # a counter that a user's program may read
    assert "isb" in text


def test_llvm_is_not_loaded_before_it_is_needed():
    script = "import sys, chainrule, chainrule.compile.llvm.pool\nassert not any('llvmlite' in m for m in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)
