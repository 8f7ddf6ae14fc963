"""Where a node came from: which call of which user function, which line, which variable, which module call.

Recording costs a walk over the frames (`capture`); everything a person reads is resolved later (`resolve`), from the
source text, and only when somebody asks. A frame object is never kept: it would keep the user's variables alive.
"""

from __future__ import annotations

import ast
import itertools
import linecache
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from sys import _getframe
from types import CodeType, FrameType
from typing import Any, NamedTuple, Protocol

# One call on the stack: the code object, the instruction it stood at, and the frame's identity, which tells two calls
# of one function apart while either still runs.
Call = tuple[CodeType, int, int]
# The calls that lead to a node, innermost first, one after the other in one flat list: made for every node of every
# step, read by `calls` when somebody asks.
Trail = list[Any]

TRAIL_LENGTH = 16
_IN_A_FUNCTION = 0x1  # CO_OPTIMIZED of a code object: set for functions, not for modules
_PACKAGE = str(Path(__file__).resolve().parent.parent)
_COMPOSITES = str(Path(_PACKAGE) / "functional")


def capture(skip: int = 2, depth: int = TRAIL_LENGTH) -> Trail:
    """The calls that lead here, innermost first, at most `depth`, down to the script's own level."""
    frame: FrameType | None = _getframe(skip)
    trail: Trail = []
    while frame is not None and depth:
        code = frame.f_code
        trail += code, frame.f_lasti, id(frame)
        if not code.co_flags & _IN_A_FUNCTION:  # is_top_level, without the cost of a call
            break
        frame = frame.f_back
        depth -= 1
    return trail


def calls(trail: Trail | None) -> list[Call]:
    """The calls of a trail, innermost first."""
    flat = iter(trail or ())
    return list(zip(flat, flat, flat, strict=True))


class HasModules(Protocol):
    """What a scope needs of a module: the paths of the modules, of the parameters and of the buffers inside it."""

    def named_modules(self) -> Iterator[tuple[str, object]]: ...

    def named_parameters(self) -> Iterator[tuple[str, object]]: ...

    def named_buffers(self) -> Iterator[tuple[str, object]]: ...


class Scope(NamedTuple):
    """One call of a module, and the call it runs inside.

    outer: the module call that was running, or None for the outermost.
    module: the module called.
    number: tells two calls of one module apart; later calls have higher numbers.
    trail: for the outermost call, where it was made: a deep model leaves no room for that in its nodes' own trails.
    """

    outer: Scope | None
    module: HasModules
    number: int
    trail: Trail | None


_scope: ContextVar[Scope | None] = ContextVar("chainrule_scope", default=None)
_numbers = itertools.count(1)
current_scope, set_scope = _scope.get, _scope.set


def enter_scope(module: HasModules, outer: Scope | None) -> None:
    """A call of `module` begins inside of `outer`; give that to `set_scope` when it ends, however it ends."""
    _scope.set(Scope(outer, module, next(_numbers), capture(3) if outer is None else None))


def path(scope: Scope) -> str:
    """The module as the user would write it, from the outermost module called: `encoder.0`; that one itself is ``.

    Names are looked up when somebody asks: a module is found in the one whose call it ran inside, under its first name
    there; one that is no part of it (a global called from a forward) goes by its class.
    """
    names = []
    while scope.outer is not None:
        inside = (name for name, module in scope.outer.module.named_modules() if module is scope.module)
        names.append(next(inside, type(scope.module).__name__))
        scope = scope.outer
    return ".".join(name for name in reversed(names) if name)


@dataclass(frozen=True)
class Place:
    """A position in a user's source, as a person would say it.

    text: the statement, or the line it begins on.
    target: the variable that the line assigns the value to, where the value is the whole right-hand side.
    statement: (line, column) where the statement begins, which tells two statements on one line apart.
    """

    file: str
    line: int
    function: str
    text: str
    target: str | None
    statement: tuple[int, int] | None = None

    def __str__(self) -> str:
        return f"{Path(self.file).name}:{self.line}"


def is_ours(code: CodeType) -> bool:
    """Does this code belong to the library, rather than to the user?"""
    return code.co_filename.startswith(_PACKAGE)


def user_calls(trail: Trail | None) -> Iterator[Call]:
    """The calls of the user's own code, innermost first."""
    return (call for call in calls(trail) if not is_ours(call[0]))


def user_place(trail: Trail | None) -> Place | None:
    """The line of the user's code that made the node."""
    for call in user_calls(trail):
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
    statement = _statement(code, position)
    text = statement[1] if statement is not None else linecache.getline(code.co_filename, line).strip()
    return Place(code.co_filename, line, code.co_name, text, _assigned(code, position), statement and statement[0])


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
                for inner, part in zip(names, parts, strict=True):
                    yield from _pairs([inner], part)
            case _:
                pass


def _statement(
    code: CodeType, position: tuple[int | None, int | None, int | None, int | None]
) -> tuple[tuple[int, int], str] | None:
    """((line, column), text) of the simple statement around a position."""
    line, _, column, _ = position
    if line is None or column is None:
        return None
    for (first, start, last, end), text in _statements(code.co_filename):
        if (first, start) <= (line, column) < (last, end):
            return (first, start), text
    return None


_SIMPLE = (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Expr, ast.Return)


@lru_cache(maxsize=256)
def _statements(filename: str) -> tuple[tuple[tuple[int, int, int, int], str], ...]:
    """(first line, column, last line, column) and text of every simple statement in a source file."""
    lines = linecache.getlines(filename)
    try:
        tree = ast.parse("".join(lines))
    except (SyntaxError, ValueError):  # as in _assignments
        return ()
    found = []
    for node in ast.walk(tree):
        if isinstance(node, _SIMPLE) and node.end_lineno is not None and node.end_col_offset is not None:
            whole = node.lineno == node.end_lineno
            line = lines[node.lineno - 1].encode()
            text = line[node.col_offset : node.end_col_offset if whole else None].decode().strip()
            found.append(((node.lineno, node.col_offset, node.end_lineno, node.end_col_offset), text))
    return tuple(found)


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


def in_a_loop(code: CodeType, start: int, end: int) -> bool:
    """Do two instructions of a function lie in one loop of it, so that the second may come before the first?"""
    return any(first <= start and end <= last for first, last in _backward_jumps(code))


def is_top_level(code: CodeType) -> bool:
    """Is this the level of a script or of a notebook cell, outside every function?"""
    return not code.co_flags & _IN_A_FUNCTION


def is_module_call(code: CodeType) -> bool:
    """Is this the call of a module, which the scope recorded beside the trail describes?"""
    return code.co_qualname == "Module.__call__" and is_ours(code)


def is_composite(code: CodeType) -> bool:
    """Is this a function of the library that a person knows by name, such as a loss, and not its machinery?"""
    return code.co_filename.startswith(_COMPOSITES) and not code.co_name.startswith("_")
