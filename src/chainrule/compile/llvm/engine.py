"""Turns LLVM IR into object code, and object code into functions that can be called. The only file that loads LLVM.

Knows targets by their names; knows no builder, no kernel and no cache. The IR is compiled as it stands: none of the
passes of LLVM's optimiser run, only its code generator (instruction selection, scheduling, registers).

Object code holds no address of this process, so it may be kept on disk. It may call only what the C library offers.
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chainrule.compile.llvm import loader
from chainrule.errors import MissingExtraError

if TYPE_CHECKING:
    from chainrule.compile.llvm.target import Target

# How hard the code generator tries, 0 to 3. From 1 to 3 matrix products came out as fast, and compiled as fast: the
# loops are written as they shall run.
LEVEL = 2


@functools.cache
def llvm() -> Any:
    """llvmlite's binding, loaded at first use: it takes 25 to 50 ms, a third of all of `import chainrule`."""
    binding = _imported("llvmlite.binding")
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    binding.initialize_native_asmparser()
    return binding


def _imported(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError("compile: expected llvmlite, which is not installed; pip install llvmlite") from error


@functools.cache
def version() -> str:
    """What decides which code comes out, beside the IR and the target: which llvmlite, and which files LLVM is in.

    LLVM is not loaded for it.
    """
    package = _imported("llvmlite")
    with os.scandir(Path(package.__file__).with_name("binding")) as found:
        files = sorted((f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in found if not f.name.startswith("__"))
    libraries = [" ".join(map(str, file)) for file in files if not file[0].endswith(".py")]
    return ", ".join([f"llvmlite {package.__version__}", *libraries])


@functools.cache
def _machine(triple: str, cpu: str, features: str, level: int) -> Any:
    """LLVM's code generator for a target."""
    binding = llvm()
    if triple != binding.get_process_triple():  # another kind of machine: to read its code, or to carry it there
        binding.initialize_all_targets()
        binding.initialize_all_asmprinters()
    # LLVM's defaults for a JIT: code and data may lie anywhere, and the loader runs no risk of an address out of reach.
    # The price, 64-bit addresses of constants, is paid outside the loops: products and exp ran as fast as with 32 bits.
    return binding.Target.from_triple(triple).create_target_machine(cpu=cpu, features=features, opt=level, jit=True)


def _module(ir: str, triple: str) -> Any:
    binding = llvm()
    module = binding.parse_assembly(ir)
    module.triple = triple
    module.verify()
    return module


def compile_text(ir: str, target: Target, level: int = LEVEL) -> bytes:
    """The object code of a module.

    Args:
        ir: LLVM assembly.
        target: the machine it shall run on.
        level: of the code generator's effort, 0 to 3.
    Raises: RuntimeError: the text is no valid module; LLVM's words.
    """
    machine = _machine(target.triple, target.cpu, target.features, level)
    code: bytes = machine.emit_object(_module(ir, machine.triple))
    return code


def assembly(ir: str, target: Target, level: int = LEVEL) -> str:
    """What `compile_text` makes of a module, as the target's assembly, to be read."""
    machine = _machine(target.triple, target.cpu, target.features, level)
    text: str = machine.emit_assembly(_module(ir, machine.triple))
    return text


class Code:
    """Functions in memory, ready to be called. They are gone with this object: keep it while an address is in use."""

    def __init__(self, find: Callable[[str], int], memory: object) -> None:
        self._find, self._memory = functools.cache(find), memory

    def address(self, name: str) -> int:
        """Where a function begins.

        Raises: KeyError: the object code defines no such function.
        """
        found = self._find(name)
        if not found:
            raise KeyError(name)
        return found


def load(object_code: bytes) -> Code:
    """Put object code of this machine into memory."""
    placed = loader.place(object_code)
    if placed is None:
        return load_by_llvm(object_code)
    return Code(lambda name: placed.functions.get(name, 0), placed.memory)


def load_by_llvm(object_code: bytes) -> Code:
    """The same for object code of any kind, with LLVM's library."""
    # MCJIT: LLVM's newer ORC keeps 10 KB of every library it has unloaded, this keeps none.
    binding = llvm()
    machine = binding.Target.from_default_triple().create_target_machine(opt=0, jit=True)
    engine = binding.create_mcjit_compiler(binding.parse_assembly(""), machine)
    engine.add_object_file(binding.ObjectFileRef.from_data(object_code))
    engine.finalize_object()
    return Code(engine.get_function_address, engine)
