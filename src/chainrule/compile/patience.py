"""A sign of life on a terminal, for whatever goes on for more than two seconds and cannot say how far it is."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

_PATIENCE = 2.0  # seconds before it is said


@contextlib.contextmanager
def sign_of_life(says: str) -> Iterator[None]:
    """Says on standard error, if that is a terminal, what goes on, as long as it does."""
    shown: list[Any] = []
    timer = threading.Timer(_PATIENCE, lambda: shown.append(_status(says)))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        for status in shown:
            status.stop()


def _status(text: str) -> Any:
    from rich.console import Console  # half the time of an import of the library, and seldom needed

    status = Console(stderr=True).status(text)
    status.start()
    return status
