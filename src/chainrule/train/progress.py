"""How a training run shows where it is: a bar in a terminal, an HTML bar in a notebook, plain lines in a file.

Showing must not slow the run: between two looks of a person, about a tenth of a second, batches are not reported.
"""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, final

from chainrule.train.history import Row, header, line, table_html

_LOOK = 0.1  # seconds


class Progress(ABC):
    """What the Learner tells about its training."""

    @abstractmethod
    def begin(self, columns: Sequence[str], epochs: int, batches: int | None) -> None:
        """Training starts: so many epochs of so many batches, if that is known."""

    @abstractmethod
    def batch(self, epoch: int, batch: int, loss: float) -> None:
        """Batch `batch` of epoch `epoch` is done, both counted from 1."""

    @abstractmethod
    def row(self, row: Row) -> None:
        """An epoch is done."""

    @abstractmethod
    def end(self, note: str = "") -> None:
        """Training is over, because of `note` if it ended early."""


@final
class Silent(Progress):
    """Shows nothing."""

    def begin(self, columns: Sequence[str], epochs: int, batches: int | None) -> None:
        pass

    def batch(self, epoch: int, batch: int, loss: float) -> None:
        pass

    def row(self, row: Row) -> None:
        pass

    def end(self, note: str = "") -> None:
        pass


@final
class Plain(Progress):
    """Lines for a file or a pipe: the table, at most about twenty rows of it, evenly spaced, the last one always.

    Args:
        stream: where to write; None: the standard output at the time of writing.
    """

    def __init__(self, stream: Any = None) -> None:
        self._stream = stream

    def _write(self, text: str) -> None:
        stream = self._stream or sys.stdout
        stream.write(text + "\n")
        stream.flush()

    def begin(self, columns: Sequence[str], epochs: int, batches: int | None) -> None:
        self._columns, self._step, self._epochs = tuple(columns), max(1, -(-epochs // 20)), epochs
        self._done = 0
        self._held: Row | None = None
        self._write(header(columns))

    def batch(self, epoch: int, batch: int, loss: float) -> None:
        pass

    def row(self, row: Row) -> None:
        self._done += 1
        self._held = row
        if self._done % self._step == 0 or self._done in (1, self._epochs):
            self._write(line(self._columns, row))
            self._held = None

    def end(self, note: str = "") -> None:
        if self._held is not None:
            self._write(line(self._columns, self._held))
        if note:
            self._write(note)


@final
class Terminal(Progress):
    """A live bar over the table's rows, drawn by rich.

    Args:
        console: a rich console; None: one on the standard output.
    """

    def __init__(self, console: Any = None) -> None:
        self._console = console

    def begin(self, columns: Sequence[str], epochs: int, batches: int | None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self._columns, self._epochs, self._batches = tuple(columns), epochs, batches
        self._seen = 0.0
        self._bar = Bar(
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            BarColumn(),
            TextColumn("loss {task.fields[loss]}"),
            TimeRemainingColumn(),
            console=self._console or Console(),
            transient=True,  # what stays is the table
        )
        self._task = self._bar.add_task(
            "fit", total=None if batches is None else epochs * batches, epoch=1, epochs=epochs, loss="–"
        )
        self._bar.console.print(header(columns), style="bold", highlight=False)
        self._bar.start()

    def batch(self, epoch: int, batch: int, loss: float) -> None:
        now = time.monotonic()
        if now - self._seen < _LOOK:
            return
        self._seen = now
        done = {} if self._batches is None else {"completed": (epoch - 1) * self._batches + batch}
        self._bar.update(self._task, epoch=epoch, loss=f"{loss:.5g}", **done)  # type: ignore[arg-type]

    def row(self, row: Row) -> None:
        self._bar.console.print(line(self._columns, row), highlight=False)

    def end(self, note: str = "") -> None:
        self._bar.stop()
        if note:
            self._bar.console.print(note, highlight=False)


@final
class Notebook(Progress):
    """A bar and the table as HTML in the cell's output, updated in place through IPython's display."""

    def begin(self, columns: Sequence[str], epochs: int, batches: int | None) -> None:
        from IPython.display import HTML, display

        self._html = HTML
        self._columns, self._epochs, self._batches = tuple(columns), epochs, batches
        self._rows: list[Row] = []
        self._seen = 0.0
        self._handle = display(HTML(self._page(0.0, "")), display_id=True)

    def _page(self, share: float | None, text: str) -> str:
        bar = "" if share is None else f'<progress value="{share:.4f}" max="1" style="width:20em"></progress> {text}'
        return table_html(self._columns, self._rows, bar)

    def _show(self, share: float | None, text: str) -> None:
        if self._handle is not None:
            self._handle.update(self._html(self._page(share, text)))

    def batch(self, epoch: int, batch: int, loss: float) -> None:
        now = time.monotonic()
        if now - self._seen < 2 * _LOOK:  # an update crosses to the browser
            return
        self._seen = now
        done = epoch - 1 + (batch / self._batches if self._batches else 0.0)
        self._show(done / self._epochs, f"epoch {epoch}/{self._epochs}, loss {loss:.5g}")

    def row(self, row: Row) -> None:
        self._rows.append(row)
        self._show(len(self._rows) / self._epochs, f"epoch {len(self._rows)}/{self._epochs}")

    def end(self, note: str = "") -> None:
        self._show(None, "")
        if note and self._handle is not None:
            self._handle.update(self._html(table_html(self._columns, self._rows, f"<p>{note}</p>")))


def in_notebook() -> bool:
    """Does this run in a notebook's kernel? Looks only at what is imported already."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None and hasattr(ipython, "get_ipython") else None
    return shell is not None and "IPKernelApp" in getattr(shell, "config", {})


def chosen(progress: Progress | bool | None) -> Progress:
    """The display asked for: one of these; False for none; None or True for what suits the place."""
    if isinstance(progress, Progress):
        return progress
    if progress is False:
        return Silent()
    if in_notebook():
        return Notebook()
    return Terminal() if sys.stdout.isatty() else Plain()
