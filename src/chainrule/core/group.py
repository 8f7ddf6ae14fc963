"""Groups of an optimiser's parameters, with their options.

Here, below the optimisers, since who compiles a step looks at each call whether an option was changed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

from chainrule.core.tracing import tracer

# How often an option of any group was changed.
changes = [0]


class Group(dict[str, Any]):
    """A parameter group: a dict that counts its changes, and tells who traces of them, since there they happen once."""

    def __setitem__(self, key: str, value: Any) -> None:
        self._told((key,))
        super().__setitem__(key, value)

    def __delitem__(self, key: str) -> None:
        self._told((key,))
        super().__delitem__(key)

    def update(self, *others: Any, **options: Any) -> None:
        """As of any dict."""
        added = dict(*others, **options)
        self._told(added)
        super().update(added)

    def __ior__(self, other: Any) -> Self:  # type: ignore[override, misc]
        self.update(other)
        return self

    def setdefault(self, key: str, default: Any = None) -> Any:
        """As of any dict."""
        self._told((key,))
        return super().setdefault(key, default)

    def pop(self, key: str, *default: Any) -> Any:
        """As of any dict."""
        self._told((key,))
        return super().pop(key, *default)

    def popitem(self) -> tuple[str, Any]:
        """As of any dict."""
        self._told(self)
        return super().popitem()

    def clear(self) -> None:
        """As of any dict."""
        self._told(self)
        super().clear()

    def _told(self, keys: Iterable[str]) -> None:
        changes[0] += 1
        tracing = tracer()
        if tracing is not None:
            for key in keys:
                tracing.setting(self, key)
