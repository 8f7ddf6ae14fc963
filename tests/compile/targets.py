"""The targets that tests are run for: each on every machine, if only the way it is planned."""

from chainrule.compile.llvm.target import Target, describe, host
from chainrule.errors import ArgumentError

# Vectors of 64, 32 and 16 bytes; the last without x · y + z in one rounding.
KINDS = ("avx512", "avx2", "baseline")
_BASELINE = "+sse4.2,+popcnt"
_AVX2 = f"{_BASELINE},+avx2,+fma,+f16c,+bmi,+bmi2,+lzcnt,+movbe"
_AVX512 = f"{_AVX2},+avx512f,+avx512bw,+avx512cd,+avx512dq,+avx512vl"
_FEATURES = {"avx512": _AVX512, "avx2": _AVX2, "baseline": _BASELINE}


def described(kind: str) -> Target:
    """A target to write code for. It need not run here."""
    return describe(triple="x86_64-unknown-linux-gnu", cpu="x86-64", features=_FEATURES[kind])


def runnable(kind: str) -> Target:
    """The target; on a machine that lacks it, one whose code is the same text in the instructions that there are.

    LLVM then takes each vector apart, which is slow, and computes the same.
    """
    try:
        return Target.restricted(kind)
    except ArgumentError:
        wanted = described(kind)
        name = f"{wanted.name}, taken apart"
        return host()._replace(name=name, vector_bytes=wanted.vector_bytes, registers=wanted.registers)
