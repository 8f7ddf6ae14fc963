"""Groups of an optimiser's parameters, with their options.

Here, below the optimisers, since who compiles a step looks at each call whether an option was changed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

from chainrule.core.tracing import tracer

# Another object each time that an option of any group was changed.
changes: list[object] = [object()]


class Group(dict[str, Any]):
    """A parameter group: a dict that marks its changes, and tells who traces of them, since there they happen once."""

    def __setitem__(self, key: str, value: Any) -> None:
        self._told((key,))
        super().__setitem__(key, value)
        _mark()

    def __delitem__(self, key: str) -> None:
        self._told((key,))
        super().__delitem__(key)
        _mark()

    def update(self, *others: Any, **options: Any) -> None:
        """As of any dict."""
        added = dict(*others, **options)
        self._told(added)
        super().update(added)
        _mark()

    def __ior__(self, other: Any) -> Self:  # type: ignore[override, misc]
        self.update(other)
        return self

    def setdefault(self, key: str, default: Any = None) -> Any:
        """As of any dict."""
        self._told((key,))
        found = super().setdefault(key, default)
        _mark()
        return found

    def pop(self, key: str, *default: Any) -> Any:
        """As of any dict."""
        self._told((key,))
        found = super().pop(key, *default)
        _mark()
        return found

    def popitem(self) -> tuple[str, Any]:
        """As of any dict."""
        self._told(self)
        found = super().popitem()
        _mark()
        return found

    def clear(self) -> None:
        """As of any dict."""
        self._told(self)
        super().clear()
        _mark()

    def _told(self, keys: Iterable[str]) -> None:
        # Called where the change is made, and no block around it: an error in here names the line that asked for it.
        tracing = tracer()
        if tracing is not None:
            for key in keys:
                tracing.setting(self, key)


def _mark() -> None:
    changes[0] = object()  # not a number: two threads could count to the same
