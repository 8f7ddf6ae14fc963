"""Rows of a kernel's output: how threads share them so that each finds what it made itself in the kernel before."""

from __future__ import annotations

from typing import NamedTuple


class Rows(NamedTuple):
    """What the units of a kernel stand for: unit u for the rows from u · height on, of `number` in all."""

    number: int
    height: int


class Split(NamedTuple):
    """How threads share a kernel's units: `blocks` of so many units each, as evenly as blocks allow."""

    blocks: int
    each: int
