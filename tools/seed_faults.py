"""Does the contract suite notice a wrong rule? Seeds one fault at a time in a copy of the library and runs the suite.

    python tools/seed_faults.py [NAME ...]

Prints a table: the fault, caught or missed, and the first test that failed. Exits with the number missed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OPS = Path("src/chainrule/ops")


@dataclass(frozen=True)
class Fault:
    """In `file`, `right` (found once after `after`) becomes `wrong`."""

    name: str
    file: str
    after: str
    right: str
    wrong: str

    def seed(self, tree: Path) -> None:
        path = tree / OPS / self.file
        text = path.read_text()
        start = text.index(self.right, text.index(self.after))
        path.write_text(text[:start] + self.wrong + text[start + len(self.right) :])


RULES = (
    Fault("sin: its derivative is sin", "transcendental.py", 'name="sin"', "x: cos(x)", "x: sin(x)"),
    Fault("tanh: 1 - out for 1 - out²", "transcendental.py", 'name="tanh"', "1.0 - out * out", "1.0 - out"),
    Fault("div: the sign of ∂/∂y", "elementwise.py", 'name="div"', "-out / y", "out / y"),
    Fault("erf: 1.999 for 2 in 2/√π", "transcendental.py", 'name="erf"', "2.0 / math.sqrt", "1.999 / math.sqrt"),
    Fault("relu: open at 0", "elementwise.py", 'name="relu"', "x > 0.0", "x >= 0.0"),
    Fault("maximum: all to the first on a tie", "elementwise.py", "def _wins", "0.5", "1.0"),
    Fault("matmul: ∂/∂y too large by 1e-4", "contraction.py", "transposes=", "x.mT @ g", "(x * 1.0001).mT @ g"),
    Fault("mean: divided by n + 1", "reduction.py", 'name="mean"', "max(count, 1)", "max(count + 1, 1)"),
    Fault("softmax: the row's share left out", "normalisation.py", 'name="softmax"', "g - (g * out)", "g - (g)"),
    Fault("cumsum: the running sum from the wrong end", "movement.py", 'name="cumsum"',
          "flip(cumsum(flip(g, dims=(dim,)), dim=dim), dims=(dim,))", "cumsum(g, dim=dim)"),
)  # fmt: skip
WRITING = (
    Fault("cos: printed as sin", "transcendental.py", 'name="cos"', r'latex=r"\cos"', r'latex=r"\sin"'),
    Fault("sub: a - (b - c) without parentheses", "elementwise.py", 'name="sub"', 'infix("-", "-", SUM)',
          'infix("-", "-", SUM, associative=True)'),
)  # fmt: skip
FAULTS = RULES + WRITING


def first_failure(fault: Fault | None, library: Path) -> str | None:
    """The first test that fails with the fault (or none) seeded in a copy of `library`, or None."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(library, tree)
        if fault is not None:
            fault.seed(tree)
        command = [sys.executable, "-m", "pytest", "tests/contract", "-x", "-q", "--tb=no", "-n", "2"]
        ran = subprocess.run(
            [*command, "-p", "no:cacheprovider"],
            cwd=tree,
            env={**os.environ, "PYTHONPATH": str(tree / "src")},
            capture_output=True,
            text=True,
            check=False,
        )
    if ran.returncode != 0 and "FAILED" not in ran.stdout:
        raise SystemExit(f"{fault}: the suite did not run:\n{ran.stdout}\n{ran.stderr}")
    failed = re.search(r"^FAILED \S*?/?(\w+\.py::\S+)", ran.stdout, re.MULTILINE)
    return failed[1] if failed else None


def main() -> int:
    """Print the table; return how many were missed."""
    wanted = sys.argv[1:]
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder)  # one copy for all: the working tree may change meanwhile
        for part in ("src", "tests"):
            shutil.copytree(ROOT / part, library / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", library)
        failing = first_failure(None, library)
        if failing:
            raise SystemExit(f"the suite fails without a fault: {failing}")
        for fault in FAULTS:
            if wanted and not any(name in fault.name for name in wanted):
                continue
            test = first_failure(fault, library)
            missed += test is None
            print(f"{'caught' if test else 'MISSED':<8}{fault.name:<48}{test or ''}", flush=True)
    return missed


if __name__ == "__main__":
    sys.exit(main())
