"""`cr.backward_source`: the backward pass written out as a Python function that a person could have written.

The statements are the links of a derivation, printed as code. A size that came from an input's shape is written as that
shape: the function is traced a second time on other sizes, and a number that changes with them is the size it follows.
"""

from __future__ import annotations

import ast
import inspect
import linecache
import math
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from chainrule import dtypes
from chainrule.autodiff.reverse import needs_gradient
from chainrule.core.family import Opaque
from chainrule.core.node import RECORD, Node, ancestors, at_user_line, recording
from chainrule.core.notation import Style
from chainrule.core.provenance import is_ours
from chainrule.errors import ArgumentError, ChainruleError, NoGradientError
from chainrule.explain.derivation import Derivation
from chainrule.explain.record import Run, Variables
from chainrule.explain.spelling import python_name
from chainrule.ops.printing import array, number_in, size, write
from chainrule.tensor import Tensor

CodeStyle = Literal["chainrule", "torch", "numpy"]
_WRITTEN: Mapping[str, Style] = {"chainrule": "code", "torch": "code", "numpy": "numpy"}
_READABLE = 60  # ops and values in one statement; more is written in pieces
_PLAIN = 3  # ops and values in a part that is rather written twice than named
_COMPARED = 600  # ops and values of expressions that are searched for equal parts
_IMPORTS = {
    "chainrule": "import chainrule as cr",
    "torch": "import torch",
    "numpy": "import math\n\nimport numpy as np",
}


def backward_source(target: Any, *examples: Any, style: CodeStyle = "chainrule") -> str:
    """The backward pass of a function, or of a loss, as the source of a standalone Python function.

    Args:
        target: a function of tensors, or a loss tensor.
        examples: for a function, tensors to trace it on. Left out, they are read off a call of the function in the
            caller's own source, if its arguments are variables that exist.
        style: "chainrule", "torch" or "numpy": what the written function works on.
    Returns: the source. For a function f it defines `f_backward`, with f's arguments (and `g`, the gradient of the
        result, where that is not a scalar), returning one gradient for each float argument; for a loss it defines
        `backward`, with the leaves as arguments, returning one gradient for each leaf that requires one.
    Raises: ArgumentError: no examples, and none could be found. ChainruleError: an op has no form in that style.
    """
    if style not in _WRITTEN:
        raise at_user_line(
            ArgumentError(f"backward_source: style must be 'chainrule', 'torch' or 'numpy'; got {style!r}")
        )
    if isinstance(target, Node):
        return _of_loss(target, style, _callers_frame()[0])
    if not callable(target):
        raise at_user_line(
            ArgumentError(f"backward_source: expected a function or a loss tensor; got {type(target).__name__}")
        )
    if not examples:
        variables, filename = _callers_frame()
        examples = _examples_in(filename, target.__name__, variables)
    source = _Function(target, examples, style).source()
    return _with_shapes(target, examples, style, source)


# --- a loss


def _of_loss(loss: Node, style: CodeStyle, variables: Variables) -> str:
    run = Run(loss, variables)
    d = Derivation(run, 1)
    writer = _Writer(d, style)
    links = {id(link.node): link for leaf in run.leaves for link in d.path(leaf)}
    formulas = [link.formula for link in links.values() if link.formula is not None]
    loss_is_read = any(x is d.symbol(run.loss) for x in ancestors(formulas))
    for step in d.steps:
        for out in step.outputs:
            if out is not run.loss or loss_is_read:
                writer.assign(d.name(out), d.simplified(step.twins[id(out)]))
    forward = writer.take()
    for link in sorted(links.values(), key=lambda x: x.node.made if x.node.op is not None else -1, reverse=True):
        if link.formula is None:
            why = next((p.why_not for p in link.parts if p.why_not), "")
            raise at_user_line(ArgumentError(f"backward_source: the gradient of {link.name} has no formula: {why}"))
        writer.assign(f"{link.name}.g", link.formula)
    lines = [*forward, "# backward, from the loss down", *writer.take()]
    returned = [python_name(f"{d.name(leaf)}.g") for leaf in run.leaves]
    doc = f"Gradients of {d.name(loss)} with respect to {', '.join(d.name(x) for x in run.leaves)}."
    made = {python_name(d.name(x)): x.made for op in run.nodes for x in op.inputs if x.op is None}
    arguments = sorted(writer.arguments(), key=lambda name: made.get(name, 0))
    return _function("backward", arguments, doc, lines, returned, style)


# --- a function


class _Function:
    """A function of tensors traced on examples, as one step."""

    def __init__(self, function: Callable[..., Any], examples: Sequence[Any], style: CodeStyle) -> None:
        self.function, self.style = function, style
        self.names = _parameter_names(function, len(examples))
        self.inputs = [_leaf(x) for x in examples]
        result = recording(RECORD, function, *self.inputs)
        if not isinstance(result, Node) or not result.requires_grad:
            raise at_user_line(
                NoGradientError(
                    f"backward_source: {function.__name__} returned nothing that depends on a float argument"
                )
            )
        self.result: Any = result

    def source(self) -> str:
        """The function's backward as source."""
        run = _Whole(self.result, dict(zip(self.names, self.inputs, strict=True)))
        d = Derivation(run, 0)
        writer = _Writer(d, self.style, [python_name(n) for n in self.names])
        wanted = [x for x in self.inputs if isinstance(x, Node) and x.requires_grad and run.gradient(x) is not None]
        formulas = []
        for x in wanted:
            formula = d.link(x).formula
            if formula is None:
                raise at_user_line(ArgumentError(f"backward_source: the gradient of {d.name(x)} has no formula"))
            # A rule may read the result itself; the written function computes it, its caller need not have it.
            formulas.append(d.substituted(formula, d.symbol(self.result), d.steps[0].twins[id(self.result)]))
        writer.share(formulas)
        for x, formula in zip(wanted, formulas, strict=True):
            writer.assign(f"{d.name(x)}.g", formula)
        arguments = [*writer.arguments(), *(["g"] if self.result.aval.size != 1 else [])]
        returned = [python_name(f"{d.name(x)}.g") for x in wanted]
        by = ", ".join(d.name(x) for x in wanted)
        name = self.function.__name__ if self.function.__name__.isidentifier() else "function"
        doc = f"Gradients of {name}({', '.join(self.names)}) with respect to {by}."
        own = re.compile(rf"\b{python_name(d.name(self.result))}_g\b")
        lines = [own.sub("g", line) for line in writer.take()]
        return _function(f"{name}_backward", arguments, doc, lines, returned, self.style)


class _Whole(Run):
    """A run that is one function call: its result need not be a scalar, its own gradient is a symbol."""

    def __init__(self, result: Any, variables: Variables) -> None:
        self.loss = result
        self._build(ancestors([result], needs_gradient), variables, np.ones(result.aval.shape, result.aval.dtype))


def _leaf(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        value = Tensor.leaf(value)
    if not isinstance(value, Node):
        return value
    data = value.array
    return Tensor.leaf(np.array(data), requires_grad=dtypes.is_float(value.aval.dtype))


def _parameter_names(function: Callable[..., Any], count: int) -> list[str]:
    names: list[str] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            names += [f"{parameter.name}{i}" for i in range(count - len(names))]
        elif parameter.kind is not parameter.KEYWORD_ONLY:
            names.append(parameter.name)
    if len(names) < count:
        raise at_user_line(
            ArgumentError(f"backward_source: {function.__name__} takes {len(names)} arguments; got {count} examples")
        )
    return names[:count]


# --- statements


class _Writer:
    """Collects assignments, and knows which leaves they mention."""

    def __init__(self, derivation: Derivation, style: CodeStyle, arguments: Sequence[str] = ()) -> None:
        self.derivation, self.style = derivation, style
        self._assigned: set[str] = set()
        self._lines: list[str] = []
        self._arguments = dict.fromkeys(arguments)
        self._shared: dict[Any, str] = {}
        self._pieces: dict[int, str] = {}
        self._kept: list[Any] = []  # the nodes of the pieces: an id is unique among the living

    def assign(self, name: str, expression: Any) -> None:
        """name = expression."""
        target = python_name(name)
        if size(expression, lambda x: None) > _READABLE:
            self._in_pieces(expression)
        self._lines.append(f"{target} = {self._text(expression)}")
        self._assigned.add(target)

    def _in_pieces(self, expression: Any) -> None:
        """Give names to parts of an expression too long for one statement: what it reads twice, and what is long."""
        order = ancestors([expression])
        uses = Counter(id(x) for node in order for x in node.inputs)
        long: dict[int, int] = {}
        for node in order:
            long[id(node)] = 1 + sum(long[id(x)] for x in node.inputs)
            inline = long[id(node)] <= _READABLE and (uses[id(node)] < 2 or long[id(node)] <= _PLAIN)
            if node.op is None or node is expression or inline or id(node) in self._pieces:
                continue
            name = self._fresh(node.op.name)
            self._lines.append(f"{name} = {self._text(node)}")
            self._pieces[id(node)] = name
            self._assigned.add(name)
            self._kept.append(node)
            long[id(node)] = 1

    def share(self, expressions: Sequence[Any]) -> None:
        """Give a name to what is computed twice, in one expression or in several, and more than a view."""
        uses: dict[Any, list[Any]] = {}
        if any(size(expression, lambda x: None) > _COMPARED for expression in expressions):
            return  # `assign` writes them in pieces
        for expression in expressions:
            for node in _tree(expression):
                uses.setdefault(_key(node), []).append(node)
        repeated = [
            nodes[0]
            for key, nodes in uses.items()
            if len(nodes) > 1 and nodes[0].op is not None and _weight(nodes[0]) > 1
        ]
        for node in sorted(repeated, key=_weight):
            if not any(
                _key(node) != _key(o)
                and _key(node) in map(_key, _tree(o))
                and len(uses[_key(o)]) == len(uses[_key(node)])
                for o in repeated
            ):
                name = self._fresh(node.op.name)
                text = self._text(node)
                self._shared[_key(node)] = name
                self._lines.append(f"{name} = {text}")

    def _fresh(self, base: str) -> str:
        taken = {*self._arguments, *self._assigned, *self._shared.values()}
        name, count = base, 1
        while name in taken:
            count += 1
            name = f"{base}{count}"
        return name

    def take(self) -> list[str]:
        """The statements so far; the next ones start anew."""
        lines, self._lines = self._lines, []
        return lines

    def arguments(self) -> list[str]:
        """The names that are mentioned and not assigned."""
        return list(self._arguments)

    def _text(self, expression: Any) -> str:
        def name(x: Node) -> str | None:
            shared = self._pieces.get(id(x))
            if shared is None and x.op is not None and self._shared:
                shared = self._shared.get(_key(x))
            if shared is not None:
                return shared
            if x.op is not None or x.constant is not None:
                return None
            written = python_name(str(x.symbol))
            if written not in self._assigned and not self.derivation.is_cotangent(x):
                self._arguments.setdefault(written)
            return written

        own = next((n.op.name for n in ancestors([expression]) if isinstance(n.op, Opaque)), None)
        if own is not None and self.style != "chainrule":
            raise at_user_line(ArgumentError(f"backward_source: {own} is a cr.Function and has no {self.style} form"))
        try:
            style = _WRITTEN[self.style]
            # A gradient that is one number everywhere is an array still: what reads it may reshape or return it.
            text = write(expression, style, name) if number_in(expression) is None else array(expression, style).text
        except LookupError as error:
            raise at_user_line(ArgumentError(f"backward_source: {error}; use another style")) from None
        return re.sub(r"\bcr\.", "torch.", text) if self.style == "torch" else text


def _tree(x: Any) -> Iterator[Any]:
    pending = [x]
    while pending:
        node = pending.pop()
        yield node
        pending.extend(node.inputs)


def _weight(x: Any) -> int:
    return sum(1 for n in _tree(x) if n.op is not None)


def _key(x: Any) -> Any:
    """Equal for expressions that compute the same."""
    if x.op is None:
        return x.constant if x.constant is not None else id(x)
    return (id(x.op), tuple(map(_key, x.inputs)), repr(sorted(x.params.items())))


def _function(
    name: str, arguments: Sequence[str], doc: str, lines: Sequence[str], returned: Sequence[str], style: CodeStyle
) -> str:
    lines = list(lines)
    if returned == [lines[-1].split(" = ", 1)[0]] and len(returned) == 1:
        last = lines.pop().split(" = ", 1)[1]
        returned = [last]
    body = [f'"""{doc}"""', *lines, f"return {', '.join(returned)}"]
    code = "\n".join([f"def {name}({', '.join(arguments)}):", *(f"    {line}" for line in body)])
    prefix = _IMPORTS[style].splitlines()
    used = [p for p in prefix if p and re.search(rf"\b{p.split()[-1]}\.", code)]
    head = "\n".join(used)
    return f"{head}\n\n\n{code}\n" if head else f"{code}\n"


# --- sizes


def _with_shapes(function: Callable[..., Any], examples: Sequence[Any], style: CodeStyle, source: str) -> str:
    """The source with sizes of the inputs written as such, where a second trace on other sizes confirms it."""
    names = [python_name(n) for n in _parameter_names(function, len(examples))]
    shapes = [x.aval.shape if isinstance(x, Node) else x.shape if isinstance(x, np.ndarray) else None for x in examples]
    sizes = sorted({n for shape in shapes if shape for n in shape if n > 1})
    if not sizes or len(sizes) > len(_PRIMES) // 2:
        return source
    # Primes, twice: a size is then told from every other number in the source, such as the 2 of a square.
    first, second = dict(zip(sizes, _PRIMES, strict=False)), dict(zip(sizes, _PRIMES[::-1], strict=False))
    try:
        once, again = (
            _Function(function, [_resized(x, other) for x in examples], style).source() for other in (first, second)
        )
    except (ChainruleError, IndexError):
        return source  # the function is made for these sizes: they are part of it
    pattern = re.compile(r"(?<![\w.])\d+(?![\w.])")
    if pattern.sub("#", once) != pattern.sub("#", again):
        return source
    replacements = []
    for here, there in zip(pattern.findall(once), pattern.findall(again), strict=True):
        written = here if here == there else _size_text(int(here), int(there), names, shapes, first, second)
        if written is None:
            return source
        replacements.append(written)
    pieces = iter(replacements)
    return pattern.sub(lambda _: next(pieces), once)


_PRIMES = (7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47)


def _resized(x: Any, other: Mapping[int, int]) -> Any:
    if not isinstance(x, Node | np.ndarray):
        return x
    data = np.asarray(x.array if isinstance(x, Node) else x)
    for d, n in enumerate(data.shape):
        data = np.take(data, np.arange(other.get(n, n)) % max(n, 1), axis=d)
    return Tensor.leaf(np.ascontiguousarray(data))


def _size_text(
    here: int,
    there: int,
    names: Sequence[str],
    shapes: Sequence[Any],
    first: Mapping[int, int],
    second: Mapping[int, int],
) -> str | None:
    """The size of an input, or the number of its entries, that is `here` in one trace and `there` in the other."""
    for name, shape in zip(names, shapes, strict=True):
        for d, n in enumerate(shape or ()):
            if first.get(n, n) == here and second.get(n, n) == there:
                return f"{name}.shape[{d}]"
    for name, shape in zip(names, shapes, strict=True):
        entries = [math.prod(sizes.get(n, n) for n in shape or ()) for sizes in (first, second)]
        if shape and len(shape) > 1 and entries == [here, there]:
            return "(" + " * ".join(f"{name}.shape[{d}]" for d, n in enumerate(shape) if n != 1) + ")"
    return None


# --- the caller


def _callers_frame() -> tuple[Variables, str]:
    frame: Any = sys._getframe(1)
    while frame is not None and is_ours(frame.f_code):
        frame = frame.f_back
    return ({}, "") if frame is None else ({**frame.f_globals, **frame.f_locals}, frame.f_code.co_filename)


def _examples_in(filename: str, function: str, variables: Variables) -> tuple[Any, ...]:
    """The arguments of a call of `function` in a source file, where they are variables that exist."""
    try:
        tree = ast.parse("".join(linecache.getlines(filename)))
    except SyntaxError:
        tree = ast.Module([], [])
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=name), args=[_, *_] as arguments, keywords=[]) if name == function:
                if all(isinstance(a, ast.Name) and a.id in variables for a in arguments):
                    values = tuple(variables[a.id] for a in arguments if isinstance(a, ast.Name))
                    if any(isinstance(v, Node) for v in values):
                        return values
    raise at_user_line(ArgumentError(
        f"backward_source: give example tensors, backward_source({function}, x, y): no call of {function} on variables "
        f"that exist was found in the calling code"
    ))  # fmt: skip
