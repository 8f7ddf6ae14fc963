"""Imports point only down the layers. Reads the source with `ast`; imports nothing of the library.

To add a layer, put its name into LAYERS: one found in the source that is not there is a failure. Only the package's own
`__init__` may load late, by its table of names; and what LATE lists, within its layer.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = "chainrule"
SOURCE = Path(__file__).resolve().parent.parent / "src" / PACKAGE

# From the bottom up. A layer may import itself and whatever stands in a lower row; the names of one row do not know
# each other. The package's own `__init__.py` stands above all: it may import anything, and nothing may import it.
LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"errors"}),
    frozenset({"dtypes", "tree"}),
    frozenset({"core"}),
    frozenset({"ops", "autodiff"}),
    frozenset({"array"}),
    frozenset({"tensor"}),
    frozenset({"creation", "function"}),
    frozenset({"functional"}),
    frozenset({"compile", "nn", "optim", "data"}),
    frozenset({"train"}),
    frozenset({"explain"}),
    frozenset({"tour"}),
    frozenset({"cli"}),
)
# What the tour runs as a user's script: it is copied out first, and belongs to no layer.
USER_PROGRAMS = "tour/programs"
HEIGHT = {layer: height for height, row in enumerate(LAYERS) for layer in row}
# Imported where they are needed, by `importlib.import_module`: most of the compiler, which takes 50 ms to load, and
# which nobody needs whose code is on the disk already.
LATE = {
    "chainrule.compile.jit": "chainrule.compile.report.report",
    "chainrule.compile.native": "chainrule.compile.writing",
    "chainrule.compile.llvm.pool": "chainrule.compile.llvm.runtime",
}


class ImportFinder(ast.NodeVisitor):
    """Collects the faulty imports of one file as `line: what is wrong` into `faults`."""

    def __init__(self, module: str, is_package: bool) -> None:
        parts = module.split(".")
        self.module = module
        self.home = parts if is_package else parts[:-1]  # the package that a relative import starts from
        self.layer = parts[1] if len(parts) > 1 else None  # None: the package's own __init__
        self.in_function = self.in_class = False
        self.for_types = False
        self.faults: list[tuple[int, str]] = []

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self.judge(node.lineno, alias.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        source = node.module or ""
        if node.level:
            kept = len(self.home) - node.level + 1
            if kept < 1:
                self.faults.append((node.lineno, "a relative import leaves the package"))
                return
            source = ".".join([*self.home[:kept], *filter(None, [source])])
        if source == PACKAGE:  # from chainrule import errors: the layer is among the names
            for alias in node.names:
                self.judge(node.lineno, f"{PACKAGE}.{alias.name}")
        else:
            self.judge(node.lineno, source)

    def visit_Call(self, node: ast.Call) -> None:
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
        if called in {"import_module", "__import__"} and node.args and isinstance(node.args[0], ast.Constant):
            target = str(node.args[0].value)
            if (target.startswith(".") or target.split(".")[0] == PACKAGE) and LATE.get(self.module) != target:
                self.faults.append((node.lineno, f"imports {target} by a call, where no reader sees it"))
        self.generic_visit(node)

    def visit_If(self, node: ast.If) -> None:
        guard = node.test
        name = guard.attr if isinstance(guard, ast.Attribute) else getattr(guard, "id", None)
        self.visit(guard)
        outside, self.for_types = self.for_types, self.for_types or name == "TYPE_CHECKING"
        for statement in node.body:
            self.visit(statement)
        self.for_types = outside
        for statement in node.orelse:
            self.visit(statement)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> None:
        if getattr(node, "name", "") == "__getattr__" and self.layer is not None and not self.in_class:
            self.faults.append((node.lineno, "loads names late; only the package's own __init__ does"))
        outside, self.in_function = self.in_function, True
        self.generic_visit(node)
        self.in_function = outside

    visit_AsyncFunctionDef = visit_Lambda = visit_FunctionDef

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        outside, self.in_class = self.in_class, True
        self.generic_visit(node)
        self.in_class = outside

    def judge(self, line: int, target: str) -> None:
        """Note what is wrong with importing the dotted name `target` here, if anything is."""
        root, *below = target.split(".")
        if root != PACKAGE:
            return
        if self.in_function:
            self.faults.append((line, f"imports {target} inside a function; import at module level"))
        if self.layer is None or self.for_types:
            return
        if not below or below[0] not in HEIGHT:
            self.faults.append((line, f"imports {target}, which is no layer; import from the module that defines it"))
        elif below[0] != self.layer and HEIGHT[below[0]] >= HEIGHT.get(self.layer, len(LAYERS)):
            self.faults.append((line, f"{self.layer} imports {target}, which is not below it"))


def faults_in(source: Path) -> Iterator[str]:
    """Yield `file:line: what is wrong` for each fault of the package whose files lie in `source`."""
    unknown: set[str] = set()
    for path in sorted(source.rglob("*.py")):
        if path.parent == source / USER_PROGRAMS:
            continue
        inner = path.relative_to(source).with_suffix("").parts
        is_package = inner[-1] == "__init__"
        finder = ImportFinder(".".join((PACKAGE, *(inner[:-1] if is_package else inner))), is_package)
        if finder.layer is not None and finder.layer not in HEIGHT and finder.layer not in unknown:
            unknown.add(finder.layer)
            yield f"{path.relative_to(source)}:1: {finder.layer} is a layer that LAYERS does not know"
        finder.visit(ast.parse(path.read_text(encoding="utf-8"), filename=str(path)))
        for line, fault in finder.faults:
            yield f"{path.relative_to(source)}:{line}: {fault}"


def test_imports_point_down() -> None:
    assert list(SOURCE.rglob("*.py")), f"no source in {SOURCE}"
    faults = list(faults_in(SOURCE))
    assert not faults, "\n" + "\n".join(faults)


def test_what_is_late_is_so_and_within_its_layer() -> None:
    for module, target in LATE.items():
        path = SOURCE.joinpath(*module.split(".")[1:]).with_suffix(".py")
        assert f'import_module("{target}")' in path.read_text(encoding="utf-8")
        assert module.split(".")[1] == target.split(".")[1]


def test_each_layer_stands_in_one_row() -> None:
    assert len(HEIGHT) == sum(map(len, LAYERS))


def write_tree(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


SOUND = {
    "__init__.py": "from chainrule.nn.linear import Linear\nfrom chainrule.cli import main\n",
    "errors.py": "class Late:\n    def __getattr__(self, name):\n        return 1\n",
    "dtypes.py": "from chainrule.errors import DTypeError\n",
    "tree.py": "from . import errors\n",
    "core/__init__.py": "",
    "core/node.py": (
        "import typing\nfrom typing import TYPE_CHECKING\nfrom chainrule import dtypes, tree\nfrom .aval import Aval\n"
        "if TYPE_CHECKING:\n    from chainrule.tensor import Tensor\n"
        "if typing.TYPE_CHECKING:\n    from chainrule import Tensor\n"
    ),
    "core/aval.py": "from ..errors import ShapeError\n",
    "tensor.py": "import chainrule.core.node\nfrom chainrule.ops.elementwise import tanh\n",
    "ops/elementwise.py": "from chainrule.core.node import Node\nfrom chainrule.ops.family import Elementwise\n",
    "ops/family.py": "def lazy():\n    import sklearn\n    from chainrules import other\n",
    "nn/linear.py": "try:\n    from ..tensor import Tensor\nexcept ImportError:\n    raise\n",
    "cli.py": "from chainrule.explain import text\n",
    "explain/text.py": "from chainrule.train.learner import Learner\n",
}


def test_a_sound_tree_has_no_fault(tmp_path: Path) -> None:
    assert list(faults_in(write_tree(tmp_path, SOUND))) == []


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("core/node.py", "from chainrule.tensor import Tensor\n", "core/node.py:1: core imports chainrule.tensor"),
        ("core/node.py", "import chainrule.cli as cli\n", "core/node.py:1: core imports chainrule.cli"),
        ("core/node.py", "from ..ops import tanh\n", "core/node.py:1: core imports chainrule.ops"),
        ("core/__init__.py", "from ..ops import tanh\n", "core/__init__.py:1: core imports chainrule.ops"),
        ("core/node.py", "from .. import errors, nn\n", "core/node.py:1: core imports chainrule.nn"),
        ("core/deep/one.py", "from ...train import fit\n", "core/deep/one.py:1: core imports chainrule.train"),
        ("ops/movement.py", "import chainrule.autodiff\n", "ops/movement.py:1: ops imports chainrule.autodiff"),
        ("autodiff/reverse.py", "from chainrule import ops\n", "autodiff imports chainrule.ops"),
        ("nn/linear.py", "from chainrule.optim.sgd import SGD\n", "nn imports chainrule.optim.sgd"),
        ("explain/text.py", "from chainrule.tour import show\n", "explain imports chainrule.tour"),
        ("tree.py", "from chainrule.dtypes import float32\n", "tree.py:1: tree imports chainrule.dtypes"),
        ("errors.py", "from chainrule import dtypes\n", "errors.py:1: errors imports chainrule.dtypes"),
        ("tensor.py", "try:\n    import chainrule.nn\nexcept ImportError:\n    pass\n", "tensor.py:2: tensor imports"),
        ("tensor.py", "class A:\n    from chainrule.nn import B\n", "tensor.py:2: tensor imports chainrule.nn"),
        ("tensor.py", "from chainrule import Tensor\n", "imports chainrule.Tensor, which is no layer"),
        ("tensor.py", "from chainrule import *\n", "imports chainrule.*, which is no layer"),
        ("cli.py", "import chainrule as cr\n", "cli.py:1: imports chainrule, which is no layer"),
        ("cli.py", "from ... import errors\n", "cli.py:1: a relative import leaves the package"),
        (
            "cli.py",
            "def f():\n    from chainrule.errors import E\n",
            "cli.py:2: imports chainrule.errors inside a function",
        ),
        ("__init__.py", "def f():\n    import chainrule.nn\n", "__init__.py:2: imports chainrule.nn inside a function"),
        ("cli.py", "async def f():\n    from .errors import E\n", "cli.py:2: imports chainrule.errors inside"),
        (
            "cli.py",
            "from typing import TYPE_CHECKING\ndef f():\n    if TYPE_CHECKING:\n        import chainrule.errors\n",
            "cli.py:4: imports chainrule.errors inside a function",
        ),
        (
            "core/node.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    pass\nelse:\n    import chainrule.tensor\n",
            "core/node.py:5: core imports chainrule.tensor",
        ),
        ("core/node.py", "import importlib\nx = importlib.import_module('chainrule.nn')\n", "core/node.py:2: imports"),
        ("tree.py", "def __getattr__(name):\n    return 1\n", "tree.py:1: loads names late"),
        ("utils.py", "", "utils.py:1: utils is a layer that LAYERS does not know"),
        ("helpers/text.py", "import chainrule.errors\n", "helpers is a layer that LAYERS does not know"),
    ],
)
def test_a_seeded_fault_is_found(tmp_path: Path, name: str, text: str, expected: str) -> None:
    faults = list(faults_in(write_tree(tmp_path, SOUND | {name: text})))
    assert len(faults) == 1, faults
    assert expected in faults[0]
