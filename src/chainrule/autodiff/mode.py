"""What is recorded while a user's code runs: `no_grad`, `enable_grad`, and the question which of them holds."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ContextDecorator
from contextvars import Token
from typing import Any, TypeVar

from chainrule.core.node import RECORD, USER_OFF, recording_mode, reset_recording, set_recording

_Function = TypeVar("_Function", bound=Callable[..., Any])


class no_grad(ContextDecorator):
    """Inside the block (or decorated function) nothing is recorded: results are constants, leaves change in place."""

    _mode = USER_OFF

    def __init__(self) -> None:
        self._entered: list[Token[str]] = []

    def __enter__(self) -> None:
        self._entered.append(set_recording(self._mode))

    def __exit__(self, *exc: object) -> None:
        reset_recording(self._entered.pop())


class enable_grad(no_grad):
    """Inside the block recording is on again, within a `no_grad()` block."""

    _mode = RECORD


class set_grad_enabled(ContextDecorator):
    """Recording on or off, from the call on; used as a block or a decorator, until its end."""

    def __init__(self, mode: bool) -> None:
        self._mode = mode
        self._before = set_recording(RECORD if mode else USER_OFF)

    def __call__(self, function: _Function) -> _Function:
        reset_recording(self._before)
        return (enable_grad if self._mode else no_grad)()(function)

    def __enter__(self) -> None:
        """Recording was set by the call already."""

    def __exit__(self, *exc: object) -> None:
        reset_recording(self._before)


def is_grad_enabled() -> bool:
    """Is what is computed here recorded?"""
    return recording_mode() is RECORD
