"""Running a user's script as Python runs it, and keeping its last `backward()` as it was, to be explained afterwards.

The script may change its weights in place after that backward pass. Their values are copied before it and put back
when the script has ended; nothing of the script is edited.
"""

from __future__ import annotations

import runpy
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from chainrule.autodiff.reverse import needs_gradient
from chainrule.core.memory import forget_changes
from chainrule.core.node import Node, ancestors
from chainrule.core.tracing import wanting_graph
from chainrule.errors import ScriptError
from chainrule.explain.explanation import caller_variables
from chainrule.explain.record import Run
from chainrule.tensor import Tensor, backward_watchers


@dataclass(frozen=True)
class _Kept:
    """A leaf as it was: its array, and a copy of what the array held."""

    leaf: Node
    array: np.ndarray
    copy: np.ndarray
    mutated: int

    def restore(self) -> None:
        """Into the same memory, which views of it in the graph share."""
        np.copyto(self.array, self.copy)
        forget_changes(self.array)
        self.leaf.array = self.array
        self.leaf.mutated = self.mutated


class LastBackward:
    """Keeps the latest backward pass it is told of: the loss, its graph, the given values, the user's variables.

    count: how many backward passes there were. results: the script's own variables when it ended.
    """

    def __init__(self) -> None:
        self.count = 0
        self.interrupted = False
        self.results: dict[str, Any] = {}
        self._loss: Tensor | None = None
        self._kept: list[_Kept] = []
        self._variables: dict[str, Any] = {}

    def __call__(self, loss: Tensor) -> None:
        self.count += 1
        buffers = {id(k.leaf): k.copy for k in self._kept}
        self._loss = loss
        self._variables = dict(caller_variables())
        self._kept = [_keep(x, buffers.get(id(x))) for x in _given(loss)]

    def run(self) -> Run:
        """That backward pass, with the leaves' values put back to what they were then."""
        assert self._loss is not None, "asked of a script that called backward()"
        for kept in self._kept:
            kept.restore()
        return Run(self._loss, self._variables)

    @property
    def variables(self) -> dict[str, Any]:
        """The variables that the user's code held when it called backward()."""
        return self._variables


def _given(loss: Node) -> list[Node]:
    """The values behind a loss that were given and can change in place: weights, and data that a rule may read."""
    found: dict[int, Node] = {}
    for op in ancestors([loss], needs_gradient):
        for x in op.inputs:
            if x.op is None and x.array is not None and x.array.flags.writeable:
                found[id(x)] = x
    return list(found.values())


def _keep(leaf: Node, buffer: np.ndarray | None) -> _Kept:
    array = leaf.array
    assert array is not None
    if buffer is None or buffer.shape != array.shape or buffer.dtype != array.dtype:
        buffer = np.array(array)
    else:
        np.copyto(buffer, array)
    return _Kept(leaf, array, buffer, leaf.mutated)


def check_script(path: str | Path) -> Path:
    """The script's path, if it can be run.

    Raises: ScriptError: there is no such file, or it is no Python file.
    """
    script = Path(path)
    if not script.exists():
        near = sorted(p.name for p in script.parent.glob("*.py"))[:6] if script.parent.is_dir() else []
        hint = f"; Python files there: {', '.join(near)}" if near else ""
        raise ScriptError(f"{path}: no such file{hint}")
    if not script.is_file() or script.suffix != ".py":
        raise ScriptError(f"{path}: expected a Python file that ends in .py")
    return script


def run_script(path: str | Path, arguments: Sequence[str] = ()) -> LastBackward:
    """Run a script as `python path arguments…` would, and keep its last backward pass.

    Ctrl-C ends the script, not the explanation, once there was a backward pass.

    Raises: ScriptError: it is missing, no Python file, fails, or never calls `backward()`.
    """
    script = check_script(path)
    last = LastBackward()
    watchers = (*backward_watchers.get(), last)
    try:
        with _as_main(script, arguments):
            last.results = wanting_graph(backward_watchers, watchers, runpy.run_path, str(script), run_name="__main__")
    except SystemExit as end:
        if end.code not in (None, 0):
            raise ScriptError(f"{script}: the script ended itself with exit code {end.code}") from None
    except KeyboardInterrupt:
        last.interrupted = True
        if not last.count:
            raise ScriptError(f"{script}: interrupted before its first backward()") from None
    except BaseException as error:  # noqa: BLE001 - whatever a script raises is its user's to read
        raise ScriptError(f"{script}: the script failed; nothing to explain\n{_own_traceback(error, script)}") from None
    if not last.count:
        raise ScriptError(
            f"{script}: the script ran to its end and never called backward(), so there is no gradient to explain; "
            "call .backward() on a scalar that depends on a tensor with requires_grad=True"
        )
    return last


@contextmanager
def _as_main(script: Path, arguments: Sequence[str]) -> Iterator[None]:
    """The surroundings that a script expects of Python: its arguments, its folder first on the path."""
    argv, path = sys.argv, list(sys.path)
    sys.argv = [str(script), *arguments]
    sys.path.insert(0, str(script.resolve().parent))
    try:
        yield
    finally:
        sys.argv, sys.path[:] = argv, path


def _own_traceback(error: BaseException, script: Path) -> str:
    """The error as Python shows it, less the frames that are not the user's: the library's, and what runs a script."""
    shown = traceback.TracebackException(type(error), error, _first_own(error.__traceback__, script), lookup_lines=True)
    chain: traceback.TracebackException | None = shown
    while chain is not None:
        chain.stack = traceback.StackSummary.from_list(
            [frame for frame in chain.stack if not _is_machinery(frame.filename)]
        )
        chain = chain.__cause__ or (None if chain.__suppress_context__ else chain.__context__)
    return "".join(shown.format()).rstrip()


def _first_own(trace: TracebackType | None, script: Path) -> TracebackType | None:
    """The traceback from the script's own first frame on."""
    first = trace
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(script):
            return trace
        trace = trace.tb_next
    return first


def _is_machinery(filename: str) -> bool:
    return filename.startswith(("<frozen ", str(Path(__file__).resolve().parent.parent)))
