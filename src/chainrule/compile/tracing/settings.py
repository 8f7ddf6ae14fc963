"""What a traced function sets: attributes of modules and options of optimisers, as they were before, to be put back.

It would happen once, while tracing, and not at each call; so what stays set is an error.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from chainrule.compile.tracing.places import is_same


class Setting(NamedTuple):
    """An attribute of a module, or an entry of a dict, that was set: what it was before, and the error if that stays.

    before: `MISSING` if there was none. own: whether it was the object's own, and not its class's.
    """

    owner: Any
    name: str
    before: Any
    own: bool
    error: Exception

    @classmethod
    def of(cls, owner: Any, name: str, error: Exception) -> Setting:
        """What is there now."""
        entries = entries_of(owner)
        inherited = MISSING if entries is owner else getattr(type(owner), name, MISSING)
        return cls(owner, name, entries.get(name, inherited), name in entries, error)

    @property
    def stays(self) -> bool:
        """Is it something else now than it was before?"""
        return not is_same(Setting.of(self.owner, self.name, self.error).before, self.before)

    def undo(self) -> None:
        """Make it what it was before."""
        if not self.stays:
            return
        if self.own:
            entries_of(self.owner)[self.name] = self.before
        else:
            del entries_of(self.owner)[self.name]


MISSING: Any = object()


def entries_of(owner: Any) -> dict[str, Any]:
    """What can be set of it: the entries of a dict, the attributes of a module."""
    return owner if isinstance(owner, dict) else vars(owner)


def refused(owner: Any, name: str) -> tuple[str, str]:
    """What is not possible, and what to do instead."""
    if isinstance(owner, dict):
        return (
            f"setting the option {name!r} of an optimiser, which would happen only while it is traced,",
            "set it outside of the compiled function, which reads it anew at each call",
        )
    what = f"setting {type(owner).__name__}.{name}, which would happen only while it is traced,"
    if name == "training":
        return what, "call train() or eval() outside: the function is compiled for each"
    return (
        what,
        f"update a tensor in place (register_buffer; self.{name}.add_(1) under no_grad()), or set it outside",
    )
