"""The command line: `chainrule tour`, `chainrule explain FILE.py`, `chainrule --version`.

Exit codes: 0; 1: what was asked cannot be done (the script failed, the loss does not depend on that tensor); 2: it was
asked wrongly; 70: a fault of the library itself. Errors are one message; of a script that fails, its own traceback and
nothing of the library's. The traceback of a fault of ours is printed when CHAINRULE_TRACEBACK is set.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import sys
from collections.abc import Iterator, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from chainrule.core.node import Node
from chainrule.errors import ArgumentError, ChainruleError, ScriptError
from chainrule.explain import html, summary
from chainrule.explain.explanation import Explanation, index_of
from chainrule.explain.record import Run
from chainrule.explain.script import LastBackward, check_script, run_script
from chainrule.tour import show


class Exit(IntEnum):
    """What the process says of how it went."""

    FAILED = 1
    USAGE = 2
    FAULT = 70  # EX_SOFTWARE of sysexits.h


app = typer.Typer(
    name="chainrule",
    help="A neural-network library whose backward pass is an open book.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> None:
    """The entry point."""
    try:
        app()
    except Exception as error:
        if os.environ.get("CHAINRULE_TRACEBACK"):
            raise
        print(
            f"chainrule: this is a fault of chainrule, not of your program: {type(error).__name__}: {error}\n"
            f"  please report it; CHAINRULE_TRACEBACK=1 in front of the command shows where it happened",
            file=sys.stderr,
        )
        sys.exit(Exit.FAULT)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"chainrule {importlib.metadata.version('chainrule')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """A neural-network library whose backward pass is an open book."""


@app.command()
def tour(
    out: Annotated[Path, typer.Option(help="The folder to write the programs and the page into.")] = Path(
        "chainrule-tour"
    ),
    epochs: Annotated[
        int | None, typer.Option(min=1, help="How long to train each net; by default as suits it.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the weights, the split and the order of the batches.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="Two epochs each: a look, not a result.")] = False,
) -> None:
    """Train two nets on real data, explain their gradients, and write it all down as a page."""
    with _told(Exit.FAILED):
        show.run(out, epochs=2 if quick and epochs is None else epochs, seed=seed, console=Console(highlight=False))


@app.command()
def explain(
    file: Annotated[Path, typer.Argument(metavar="FILE.py", help="The script; it is run as `python FILE.py` runs it.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[-- ARGS]", help="The script's own arguments, after --.")
    ] = None,
    wrt: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which gradient; by default a table of all, and two explained.")
    ] = None,
    at: Annotated[str | None, typer.Option(metavar="I,J", help="One entry of it, term by term: --at 3,7.")] = None,
    depth: Annotated[int, typer.Option(min=1, help="1 shows your functions as steps; 2 and more open them.")] = 1,
    page: Annotated[
        Path | None,
        typer.Option(
            "--html", metavar="OUT.html", help="Write the page instead of printing; with --json or --latex, both."
        ),
    ] = None,
    latex: Annotated[bool, typer.Option("--latex", help="Print the formula in LaTeX.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Run a script and explain the gradients of its last backward(), as the values were then."""
    with _told(Exit.USAGE):
        check_script(file)
        if page is not None and page.suffix.lower() not in (".html", ".htm"):
            raise ArgumentError(f"--html: expected a path that ends in .html; got {str(page)!r}")
        if latex and as_json:
            raise ArgumentError("--latex and --json: one of them; each is for a program to read")
        if at is not None and wrt is None:
            raise ArgumentError("--at: say of which gradient: --wrt NAME --at 3,7")
        index = None if at is None else _index(at)
    with _told(Exit.FAILED):
        # What is printed for a program to read stays free of what the script prints.
        with contextlib.redirect_stdout(sys.stderr) if latex or as_json else contextlib.nullcontext():
            last = run_script(file, arguments or ())
        run = last.run()
    with _told(Exit.USAGE):
        node = None if wrt is None else _chosen(run, last, wrt)
        where = None if node is None else index_of(index, node, run)
    with _told(Exit.FAILED):
        chosen = [
            Explanation(run, x, where, depth, 40, "leibniz") for x in ([node] if node is not None else run.leaves)
        ]
        if page is not None:
            html.write_page(page, html.page(chosen, title=f"The last backward pass of {file.name}", program=file))
            said = f"{file.name}: {_passes(last)}; the page is {page.resolve()}"
            print(said, file=sys.stderr if as_json or latex else sys.stdout)
        if as_json:
            print(chosen[0].json() if node is not None else json.dumps([e.as_dict() for e in chosen], indent=2))
        elif latex:
            print("\n".join(e.latex() for e in chosen))
        elif page is None:
            _print(file, last, run, chosen, node)
        sys.stdout.flush()  # here, where a pipe that was closed is met quietly


def _print(file: Path, last: LastBackward, run: Run, chosen: Sequence[Explanation], node: Node | None) -> None:
    """In a terminal: the one gradient asked for, or a table of all and the shortest and the longest chain."""
    if last.interrupted:
        print("interrupted: this is the last backward() that was begun\n")
    if node is not None:
        print(chosen[0])
        return
    print(f"{file.name}: {_passes(last)}\n")
    print(summary.table(chosen))
    simplest = min(reversed(chosen), key=lambda e: (len(e.links), e.value.size))
    longest = max(chosen, key=lambda e: (len(e.links), e.value.size))
    for e in dict.fromkeys((simplest, longest)):
        print(f"\n{e}")
    print(f"\nOne of them:  chainrule explain {file} --wrt {longest.name}")
    print(f"As a page:    chainrule explain {file} --html {file.stem}.html")


def _passes(last: LastBackward) -> str:
    return "one backward()" if last.count == 1 else f"the last of {last.count:,} backward passes"


def _chosen(run: Run, last: LastBackward, name: str) -> Node:
    """The value that a name means; what is no part of the loss is looked up among the script's variables.

    Raises: ArgumentError: nothing has that name. DisconnectedError: the loss does not depend on it.
    """
    known = {run.name(x) for x in (*run.nodes, *run.leaves)}
    held = {**last.results, **last.variables}.get(name)
    if name not in known and isinstance(held, Node):
        with _told(Exit.FAILED):
            return run.parameter(held)
    return run.parameter(name)


def _index(at: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in at.strip("()[] ").split(",") if part.strip())
    except ValueError:
        raise ArgumentError(f"--at: expected integers with commas between them, as in 3,7; got {at!r}") from None


@contextlib.contextmanager
def _told(code: Exit) -> Iterator[None]:
    """Errors of the library become one message and an exit code."""
    try:
        yield
    except ChainruleError as error:
        _stop(error, code)
    except BrokenPipeError:  # whoever read has read enough, as in `| head`: Click ends the process, with 1
        raise
    except OSError as error:  # a folder that cannot be made, a disk that is full
        _stop(ArgumentError(f"{error.filename}: {error.strerror}"), Exit.FAILED)


def _stop(error: ChainruleError, code: Exit) -> NoReturn:
    message = str(error)
    if not isinstance(error, ScriptError):  # the line of the user's that it names is this program's own start
        message = message.split("\n  at ")[0].removeprefix("explain: ")
    print(f"chainrule: {message}", file=sys.stderr)
    raise typer.Exit(code)
