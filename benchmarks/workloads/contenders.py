"""The contenders: who takes part in what, what must be installed for it, and in what surroundings it runs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from workloads.problems import Problem, Task

NETS = ("dense", "lenet", "block", "transformer", "recurrent", "tabular")
LOOPLESS = tuple(net for net in NETS if net != "recurrent")  # where a layer's steps would be unrolled into one program


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One contender.

    name: as on the command line. title: what a table calls it. module: its file beside this one. variant: see `Job`.
    needs: distributions. compilers: programs, one of which it needs. nets, tasks: what it can do.
    ours: whether it is this library, not a peer.
    """

    name: str
    title: str
    module: str
    variant: str = ""
    needs: tuple[str, ...] = ()
    compilers: tuple[str, ...] = ()
    nets: tuple[str, ...] = NETS
    tasks: tuple[Task, ...] = ("training",)
    ours: bool = False

    def missing(self) -> str | None:
        """What it lacks here, in words; None if it can run."""
        for distribution in self.needs:
            if version(distribution) is None:
                return f"{distribution} is not installed"
        if self.compilers and self.compiler() is None:
            return f"there is no {self.compilers[0]}"
        return None

    def compiler(self) -> str | None:
        """The program it compiles with."""
        return next(filter(None, map(shutil.which, self.compilers)), None)

    def takes(self, problem: Problem, task: Task) -> bool:
        """Whether this is among what it can do."""
        return problem.net in self.nets and task in self.tasks


BOTH: tuple[Task, ...] = ("training", "inference")
GXX = ("g++", "clang++")
CLANG = ("clang", *(f"clang-{n}" for n in range(24, 13, -1)))
ALL = (
    Contender(name="chainrule", title="chainrule, compiled", module="with_chainrule", variant="compiled",
              needs=("chainrule",), tasks=BOTH, ours=True),
    Contender(name="chainrule-eager", title="chainrule, eager", module="with_chainrule", variant="eager",
              needs=("chainrule",), tasks=BOTH, ours=True),
    Contender(name="numpy", title="NumPy by hand", module="with_numpy", nets=("dense",)),
    Contender(name="torch", title="PyTorch, eager", module="with_torch", variant="eager", needs=("torch",), tasks=BOTH),
    Contender(name="torch-compile", title="torch.compile", module="with_torch", variant="compiled", needs=("torch",),
              compilers=GXX, tasks=BOTH),
    Contender(name="torch-autotune", title="torch.compile, tuned", module="with_torch", variant="autotuned",
              needs=("torch",), compilers=GXX),
    Contender(name="jax", title="JAX, jit", module="with_jax", needs=("jax", "jaxlib")),
    Contender(name="tinygrad", title="tinygrad, TinyJit", module="with_tinygrad", needs=("tinygrad",), compilers=CLANG,
              nets=LOOPLESS),
    Contender(name="onnxruntime", title="ONNX Runtime", module="with_onnxruntime", needs=("onnxruntime", "onnx"),
              nets=("dense", "lenet"), tasks=("inference",)),
)  # fmt: skip
NAMED = {contender.name: contender for contender in ALL}


def version(distribution: str) -> str | None:
    """The version that is installed, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def versions(contenders: Iterable[Contender]) -> dict[str, str]:
    """The version of each distribution that they need, and of NumPy."""
    wanted = dict.fromkeys(("numpy", *(name for c in contenders for name in c.needs)))
    return {name: found for name in wanted if (found := version(name)) is not None}


def surroundings(contender: Contender, threads: int, folder: Path) -> dict[str, str]:
    """The environment of a contender's process: its threads, and its cache in a folder of this run."""
    numbers = ("OMP", "OPENBLAS", "MKL", "CHAINRULE")
    changed = {f"{name}_NUM_THREADS": str(threads) for name in numbers}
    changed["VECLIB_MAXIMUM_THREADS"] = changed["NUM_CPU_THREADS"] = str(threads)  # Apple's BLAS, tinygrad
    changed["CHAINRULE_CACHE_DIR"] = str(folder / "chainrule")
    changed["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "torch")
    changed["JAX_COMPILATION_CACHE_DIR"] = str(folder / "jax")
    # What compiles fast is kept too: without these, JAX keeps nothing of these workloads.
    changed["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    changed["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    changed["JAX_PLATFORMS"], changed["DEV"], changed["CUDA_VISIBLE_DEVICES"] = "cpu", "CPU", ""
    changed["CACHEDB"] = str(folder / "tinygrad.db")
    changed["PYTHONDONTWRITEBYTECODE"] = ""  # what is imported is compiled once, as for a user
    compiler = contender.compiler()
    if compiler is not None:
        changed["CXX" if contender.compilers is GXX else "CC"] = compiler
    return os.environ | changed
