"""The targets that tests are run for: each on every machine, if only the way it is planned."""

from chainrule.compile.llvm.target import Target, host
from chainrule.errors import ArgumentError

# Vectors of 64, 32 and 16 bytes; the last without x · y + z in one rounding.
KINDS = ("avx512", "avx2", "baseline")


def runnable(kind: str) -> Target:
    """The target; on a machine that lacks it, one whose code is the same text in the instructions that there are.

    LLVM then takes each vector apart, which is slow, and computes the same.
    """
    try:
        return Target.restricted(kind)
    except ArgumentError:
        wanted, here = Target.of_kind(kind), host()
        return here._replace(
            name=f"{wanted.name}, taken apart",
            vector_bytes=wanted.vector_bytes,
            registers=wanted.registers,
            has_fma=wanted.has_fma and here.has_fma,
        )
