"""What a training run measured: the loss of every batch, and a row an epoch."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Row = dict[str, float]


@dataclass
class History:
    """The record of a Learner's training, over all its calls of `fit`.

    columns: the names of a row's entries: epoch, train_loss, valid_loss, the metrics, time (seconds).
    rows: one dict an epoch.
    losses: the training loss of every batch.
    ends: how many batches had been trained on at the end of each epoch.
    interrupted: whether Ctrl-C ended the last `fit`.
    stopped: why a callback ended the last `fit`, or None.
    """

    columns: tuple[str, ...] = ("epoch", "train_loss", "time")
    rows: list[Row] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    interrupted: bool = False
    stopped: str | None = None

    def __getitem__(self, column: str) -> list[float]:
        """One column: `history["valid_loss"]`."""
        if column not in self.columns:
            raise KeyError(f"history: no column {column!r}; there are {', '.join(self.columns)}")
        return [row[column] for row in self.rows]

    def __len__(self) -> int:
        """The number of epochs."""
        return len(self.rows)

    def __str__(self) -> str:
        return "\n".join([header(self.columns), *(line(self.columns, row) for row in self.rows)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return table_html(self.columns, self.rows)


def number(column: str, value: float) -> str:
    """An entry of the table as a person reads it."""
    if column == "epoch":
        return str(int(value))
    return f"{value:.2f}" if column == "time" else f"{value:.5g}"


def _width(column: str) -> int:
    return max(len(column), 5 if column == "epoch" else 7 if column == "time" else 10)


def header(columns: Sequence[str]) -> str:
    """The table's first line."""
    return "  ".join(column.rjust(_width(column)) for column in columns)


def line(columns: Sequence[str], row: Row) -> str:
    """A row of the table, under its header."""
    return "  ".join(number(column, row[column]).rjust(_width(column)) for column in columns)


def table_html(columns: Sequence[str], rows: Sequence[Row], extra: Any = "") -> str:
    """The table as HTML."""
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{number(column, row[column])}</td>" for column in columns) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{extra}"
