"""What `import chainrule as cr` offers is said once, so that a strict type checker of a user's finds it too."""

import ast
import pickle
import subprocess
import sys
import types
from pathlib import Path

import pytest

import chainrule as cr

# Python's own names: `from chainrule import *` leaves them alone.
NOT_BY_A_STAR = {"float", "int", "bool"}

# What a program that never explains, compiles or plots does not wait for.
NOT_AT_IMPORT = ["jinja2", "rich", "llvmlite", "sklearn", "matplotlib", "chainrule.train", "chainrule.data"]
MODULES = {"data", "train"}  # these are bound as soon as something that uses them is loaded
NOT_BELOW = ["chainrule.explain.", "chainrule.compile."]


def python(program: str, *more: str) -> str:
    """What a program prints that runs in an interpreter of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *more], capture_output=True, text=True, check=False
    )
    assert not done.returncode, done.stderr
    return done.stdout.strip()


def test_all_names_what_is_offered():
    offered = {name for name in dir(cr) if not name.startswith("_")}
    offered -= {name for name in offered if isinstance(getattr(cr, name), types.ModuleType) and name not in cr.__all__}
    assert offered - NOT_BY_A_STAR == set(cr.__all__)
    assert offered >= NOT_BY_A_STAR
    assert len(cr.__all__) == len(set(cr.__all__))


def test_little_is_loaded_at_import():
    loaded = python("import sys, chainrule; print(*sys.modules, sep='\\n')").splitlines()
    assert "chainrule.tensor" in loaded
    assert not set(NOT_AT_IMPORT) & set(loaded)
    assert not [name for name in loaded if name.startswith(tuple(NOT_BELOW))]


def test_type_checkers_are_told_the_same_places():
    told = {}
    for node in ast.walk(ast.parse(Path(cr.__file__).read_text(encoding="utf-8"))):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "_typing.TYPE_CHECKING":
            for line in node.body:
                assert isinstance(line, ast.ImportFrom)
                inside = f"{line.module}." if line.module == "chainrule" else f"{line.module}:"
                told |= {alias.name: inside + alias.name for alias in line.names}
    assert told == cr._AT_FIRST_USE


@pytest.mark.parametrize("order", [1, -1])
def test_each_comes_at_its_first_use(order):
    names = list(cr._AT_FIRST_USE)[::order]
    lines = ["import chainrule as cr"]
    for name in names:
        lines.append(f"assert {name!r} in dir(cr); assert {name!r} in {MODULES} or {name!r} not in vars(cr)")
        lines.append(f"from chainrule import {name} as found; assert found is cr.{name} is vars(cr)[{name!r}]")
    python("\n".join(lines))


@pytest.mark.parametrize(
    "before",
    [
        "import chainrule.explain, chainrule.compile",
        "import chainrule.explain.text, chainrule.compile.jit",
        "from chainrule.compile.llvm import pool",
        "from chainrule import *",
        "cr.get_num_threads(), cr.check",
    ],
)
def test_a_function_is_not_hidden_by_the_package_of_its_name(before):
    program = "import chainrule as cr\n{}\nprint(type(cr.compile).__name__, type(cr.explain).__name__)"
    assert python(program.format(before)) == "function function"


def test_a_star_takes_all():
    program = "from chainrule import *\nimport chainrule\nassert not set(chainrule.__all__) - set(globals())"
    python(program)


def test_what_is_reached_through_its_package():
    python("import chainrule as cr; assert cr.train.learner.Learner is cr.train.Learner is cr.Learner")
    python("import chainrule.data.loader as l; import chainrule; assert chainrule.data.DataLoader is l.DataLoader")


def test_what_was_pickled_is_read_by_a_process_that_loaded_nothing_yet():
    bytes_ = pickle.dumps([cr.Learner, cr.explain, cr.compile, cr.data.DataLoader])
    program = "import pickle, sys; print(*(x.__name__ for x in pickle.loads(bytes.fromhex(sys.argv[1]))))"
    assert python(program, bytes_.hex()) == "Learner explain compile DataLoader"


def test_threads_that_ask_at_once_get_the_same():
    program = """
import threading
import chainrule as cr
start, found = threading.Barrier(8), []
def ask(name):
    start.wait()
    found.append(getattr(cr, name))
names = ["explain", "compile", "train", "Learner"] * 2
threads = [threading.Thread(target=ask, args=(name,)) for name in names]
[t.start() for t in threads]
[t.join() for t in threads]
print(len(found), len(set(map(id, found))))
"""
    assert python(program) == "8 4"


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match=r"^module 'chainrule' has no attribute 'linalg'$"):
        _ = cr.linalg
    with pytest.raises(ImportError, match="cannot import name 'Module_' from 'chainrule'"):
        exec("from chainrule import Module_")
    assert not hasattr(cr, "__path_to_nothing__")
