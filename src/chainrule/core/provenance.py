"""Where a node came from: which call of which user function, which line, which variable.

Recording costs a walk over the frames (`capture`); everything a person reads is resolved later (`resolve`), from the
source text, and only when somebody asks. A frame object is never kept: it would keep the user's variables alive.
"""

from __future__ import annotations

import ast
import linecache
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import CodeType

# One call on the stack, innermost first: the code object, the instruction it stood at, and the frame's identity,
# which tells two calls of one function apart while either still runs.
Call = tuple[CodeType, int, int]
Trail = tuple[Call, ...]

_DEPTH = 10
_PACKAGE = str(Path(__file__).resolve().parent.parent)


def capture(skip: int = 2) -> Trail:
    """The calls that lead here, innermost first, at most ten, down to the script's own level."""
    frame = sys._getframe(skip)
    trail = []
    for _ in range(_DEPTH):
        code = frame.f_code
        trail.append((code, frame.f_lasti, id(frame)))
        outer = frame.f_back
        if outer is None or code.co_name == "<module>":
            break
        frame = outer
    return tuple(trail)


@dataclass(frozen=True)
class Place:
    """A position in a user's source, as a person would say it.

    target: the variable that the line assigns the value to, where the value is the whole right-hand side.
    """

    file: str
    line: int
    function: str
    text: str
    target: str | None

    def __str__(self) -> str:
        return f"{Path(self.file).name}:{self.line}"


def is_ours(code: CodeType) -> bool:
    """Does this code belong to the library, rather than to the user?"""
    return code.co_filename.startswith(_PACKAGE)


def user_calls(trail: Trail) -> Iterator[Call]:
    """The calls of the user's own code, innermost first."""
    return (call for call in trail if not is_ours(call[0]))


def user_place(trail: Trail | None) -> Place | None:
    """The line of the user's code that made the node."""
    for call in user_calls(trail or ()):
        return place(call)
    return None


def place(call: Call) -> Place:
    """The source position of one call."""
    code, instruction, _ = call
    return _place(code, instruction)


@lru_cache(maxsize=4096)
def _place(code: CodeType, instruction: int) -> Place:
    position = _position(code, instruction)
    line = position[0] or code.co_firstlineno
    text = linecache.getline(code.co_filename, line).strip()
    return Place(code.co_filename, line, code.co_name, text, _assigned(code, position))


def _position(code: CodeType, instruction: int) -> tuple[int | None, int | None, int | None, int | None]:
    """Line, end line, column and end column of an instruction."""
    for index, position in enumerate(code.co_positions()):
        if index == instruction // 2:
            return position
    return (None, None, None, None)


def _assigned(code: CodeType, position: tuple[int | None, int | None, int | None, int | None]) -> str | None:
    """The variable that the expression at this position is assigned to, or None."""
    line, end_line, column, end_column = position
    if line is None or column is None:
        return None
    wanted = (line, column, end_line, end_column)
    for targets, value in _assignments(code.co_filename):
        for target, part in _pairs(targets, value):
            if (part.lineno, part.col_offset, part.end_lineno, part.end_col_offset) == wanted:
                return target
    return None


def _pairs(targets: list[ast.expr], value: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    """(name, expression) for `a = f()`, and for each part of `a, b = f(), g()`."""
    for target in targets:
        match target, value:
            case ast.Name(id=name), _:
                yield name, value
            case ast.Attribute(value=ast.Name(id=owner), attr=name), _:
                yield f"{owner}.{name}", value
            case ast.Tuple(elts=names), ast.Tuple(elts=parts) if len(names) == len(parts):
                for name, part in zip(names, parts, strict=True):
                    yield from _pairs([name], part)
            case _:
                pass


@lru_cache(maxsize=256)
def _assignments(filename: str) -> tuple[tuple[list[ast.expr], ast.expr], ...]:
    """Every assignment in a source file, with columns counted in bytes as the compiler counts them."""
    source = "".join(linecache.getlines(filename))
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # a template, or a file that changed since it was run: no names, nothing lost
        return ()
    found: list[tuple[list[ast.expr], ast.expr]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            found.append((node.targets, node.value))
        elif isinstance(node, ast.AnnAssign | ast.NamedExpr) and node.value is not None:
            found.append(([node.target], node.value))
    return tuple(found)


@lru_cache(maxsize=1024)
def _backward_jumps(code: CodeType) -> tuple[tuple[int, int], ...]:
    """(start, end) of every loop in a function, in instruction offsets."""
    import dis

    return tuple(
        (instruction.argval, instruction.offset)
        for instruction in dis.get_instructions(code)
        if "JUMP_BACKWARD" in instruction.opname
    )


def same_call(earlier: Call, later: Call) -> bool:
    """Do two recorded positions of one function belong to one call of it?

    The identity of a frame may be reused once the call has ended. Within one call the instructions only move backwards
    inside a loop, so a step backwards outside any loop is a new call.
    """
    code, before, frame = earlier
    later_code, after, later_frame = later
    if code is not later_code or frame != later_frame:
        return False
    return after >= before or any(start <= after and before <= end for start, end in _backward_jumps(code))
