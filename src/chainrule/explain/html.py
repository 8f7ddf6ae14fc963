"""An explanation as one offline page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chainrule.explain.explanation import Explanation


def explanation(e: Explanation) -> str:
    """The rich display of one explanation in a notebook."""
    return f"<pre>{e}</pre>"


def page(explanations: Sequence[Explanation]) -> str:
    """A page about several gradients of one loss."""
    return "\n".join(explanation(e) for e in explanations)


def write_page(path: Path, content: str) -> None:
    """Write a page whole or not at all."""
    path.write_text(content, encoding="utf-8")
