"""What is recorded while a user's code runs: `no_grad`, `enable_grad`, and the question which of them holds."""

from __future__ import annotations

from contextlib import ContextDecorator

from chainrule.core.node import RECORD, USER_OFF, recording, recording_mode


class no_grad(ContextDecorator):
    """Inside the block (or decorated function) nothing is recorded: results are constants, leaves change in place."""

    _mode = USER_OFF

    def __init__(self) -> None:
        self._entered: list[recording] = []

    def __enter__(self) -> None:
        self._entered.append(recording(self._mode))
        self._entered[-1].__enter__()

    def __exit__(self, *exc: object) -> None:
        self._entered.pop().__exit__(*exc)


class enable_grad(no_grad):
    """Inside the block recording is on again, within a `no_grad()` block."""

    _mode = RECORD


def is_grad_enabled() -> bool:
    """Is what is computed here recorded?"""
    return recording_mode() is RECORD
