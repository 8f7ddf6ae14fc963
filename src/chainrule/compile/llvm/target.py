"""For which machine code is written: its vector registers, and what LLVM calls it.

Knows CPUs; knows no IR. A `Target` is a value: code for it can be emitted on any machine, and run where `host()` has
all it asks for. CHAINRULE_TARGET = avx512, avx2 or baseline restricts the host's, to try one machine's code on another.

`baseline` is x86-64-v2, the x86-64 of 2009: SSE4.2. Below it roundings are calls of the C library.
"""

from __future__ import annotations

import functools
import os
from typing import NamedTuple

import numpy as np

from chainrule.compile import cache
from chainrule.compile.llvm import engine, processor
from chainrule.errors import ArgumentError

# A restricted target: name, LLVM's CPU, bytes of a vector register, how many there are, and what the host needs.
_V2 = ("sse4.2", "popcnt")
_V3 = (*_V2, "avx2", "fma", "f16c", "bmi", "bmi2", "lzcnt", "movbe")
_V4 = (*_V3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")
_RESTRICTED = {
    "avx512": ("AVX-512", "x86-64-v4", 64, 32, _V4),
    "avx2": ("AVX2", "x86-64-v3", 32, 16, _V3),
    "baseline": ("baseline x86-64", "x86-64-v2", 16, 16, _V2),
}


class Target(NamedTuple):
    """A kind of machine.

    triple, cpu, features: LLVM's names; features is "+avx2,-sse4a,…", sorted.
    vector_bytes: the width of a vector register, 16, 32 or 64; registers: how many there are.
    has_fma: x · y + z, rounded once, is an instruction. Where it is none, LLVM calls the C library for it.
    """

    name: str
    triple: str
    cpu: str
    features: str
    vector_bytes: int
    registers: int
    has_fma: bool

    @property
    def arch(self) -> str:
        """The first part of the triple in one spelling, such as "x86_64" or "aarch64"."""
        arch = self.triple.split("-")[0]
        return {"arm64": "aarch64", "amd64": "x86_64"}.get(arch, arch)

    @property
    def machine(self) -> str:
        """All that object code depends on: LLVM's names, in one text."""
        return " ".join(self.names)

    @property
    def names(self) -> tuple[str, str, str]:
        """LLVM's: triple, CPU and features."""
        return self.triple, self.cpu, self.features

    @property
    def has_counter(self) -> bool:
        """Can a program read a counter of the processor's ticks?"""
        return self.arch in {"x86_64", "aarch64"}

    def flops_a_cycle(self, dtype: np.dtype) -> int:
        """Multiplications and additions of a core in a cycle, about: of two vectors, the widest in two halves."""
        lanes = min(self.vector_bytes, 32) // max(dtype.itemsize, 4)
        return 2 * lanes * (2 if self.has_fma else 1)

    def __str__(self) -> str:
        return f"{self.name} ({self.cpu})"

    @staticmethod
    def restricted(kind: str) -> Target:
        """A target that the host can run and that has no more than `kind`: "avx512", "avx2" or "baseline".

        Raises: ArgumentError: another kind, or the host lacks it.
        """
        if kind not in _RESTRICTED:
            raise ArgumentError(f"CHAINRULE_TARGET: expected {', '.join(_RESTRICTED)}, got {kind!r}; set one, or none")
        host_ = _detected()
        name, _, _, _, needed = _RESTRICTED[kind]
        present = set(host_.features.split(","))
        missing = [f for f in needed if f"+{f}" not in present]
        if missing:
            wanted = f"expected a CPU with {name}, got {host_.cpu}"
            what = f"without {', '.join(missing)}" if host_.arch == "x86_64" else f"({host_.name})"
            raise ArgumentError(f"CHAINRULE_TARGET={kind}: {wanted} {what}; unset it, or ask for less")
        return Target.of_kind(kind, host_.triple)

    @staticmethod
    def of_kind(kind: str, triple: str = "x86_64-unknown-linux-gnu") -> Target:
        """An x86-64 that has no more than `kind`, to write code for; it need not run here."""
        name, cpu, vector_bytes, registers, needed = _RESTRICTED[kind]
        return Target(
            name=name,
            triple=triple,
            cpu=cpu,
            features="",
            vector_bytes=vector_bytes,
            registers=registers,
            has_fma="fma" in needed,
        )


def host() -> Target:
    """The machine this process runs on, restricted as CHAINRULE_TARGET says.

    Raises: ArgumentError: CHAINRULE_TARGET asks for what the machine lacks.
    """
    kind = os.environ.get("CHAINRULE_TARGET", "")
    return _restricted_once(kind) if kind else _detected()


@functools.cache
def _restricted_once(kind: str) -> Target:
    return Target.restricted(kind)


@functools.cache
def _detected() -> Target:
    """What LLVM finds in this machine, now or when it looked at it before."""
    said = processor.description(describe(triple="x86_64-unknown-linux-gnu", cpu="x86-64", features=""))
    if said is None:
        return _found()
    key = f"names of the target\n{engine.version()}\n{said}"
    kept = cache.found_or_made(key, lambda: "\n".join(_found().names).encode())
    triple, cpu, features = kept.decode().split("\n")
    return describe(triple=triple, cpu=cpu, features=features)


def _found() -> Target:
    binding = engine.llvm()
    features = binding.get_host_cpu_features().flatten(sort=True)
    return describe(triple=binding.get_process_triple(), cpu=binding.get_host_cpu_name(), features=features)


def aarch64(triple: str = "aarch64-unknown-linux-gnu") -> Target:
    """Any 64-bit ARM: what every one of them has."""
    return describe(triple=triple, cpu="generic", features="+neon,+fp-armv8")


def describe(*, triple: str, cpu: str, features: str) -> Target:
    """The target that LLVM's names stand for. A kind of CPU that is not known here gets 16-byte vectors."""
    arch = triple.split("-")[0]
    present = {f[1:] for f in features.split(",") if f.startswith("+")}
    if arch in {"aarch64", "arm64"}:
        name, vector_bytes, registers, has_fma = "AArch64 NEON", 16, 32, True
    elif arch in {"x86_64", "amd64"}:
        kind = "avx512" if present.issuperset(_V4) else "avx2" if present.issuperset(_V3) else "baseline"
        name, _, vector_bytes, registers, _ = _RESTRICTED[kind]
        has_fma = kind != "baseline"
    else:
        name, vector_bytes, registers, has_fma = f"{arch} (not known)", 16, 16, False
    return Target(
        name=name,
        triple=triple,
        cpu=cpu,
        features=features,
        vector_bytes=vector_bytes,
        registers=registers,
        has_fma=has_fma,
    )
