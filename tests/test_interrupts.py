"""Ctrl-C at any moment: what was set for a while is as it was before, and what is asked for next is right."""

from __future__ import annotations

import contextvars
import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import chainrule as cr
from chainrule.core import provenance, tracing
from chainrule.core.node import recording_mode

LIBRARY = str(Path(cr.__file__).parent)


class _Interrupt(KeyboardInterrupt):
    """What Ctrl-C raises."""


def _interrupted(function: Callable[[], Any], moment: int) -> bool:
    """Run a function, interrupted when one of the library's own is called, or returns, for the `moment`-th time.

    Where a function of Python's begins, and behind each call, is where Python looks whether a signal arrived.
    Returns: whether there was such a moment.
    """
    moments = itertools.count(1)
    reached = False

    def look() -> None:
        nonlocal reached
        if next(moments) == moment:
            reached = True
            raise _Interrupt

    def inside(frame: FrameType, event: str, value: Any) -> Any:
        if event == "return" and not (frame.f_code.co_flags & 0x20):  # of a generator, that may be its clean-up
            look()
        return inside

    def begun(frame: FrameType, event: str, value: Any) -> Any:
        if not frame.f_code.co_filename.startswith(LIBRARY) or frame.f_code.co_flags & 0x20:
            return None
        look()
        return inside

    before = sys.gettrace()
    sys.settrace(begun)
    try:
        function()
    except _Interrupt:
        pass
    finally:
        sys.settrace(before)
    return reached


def _set_for_a_while() -> dict[str, Any]:
    return {
        "recording": recording_mode(),
        "differentiating": tracing.differentiating.get(),
        "wanting a graph": list(tracing.graph_wanted),
        "tracing": (list(tracing.running), tracing.current.get()),
        "module": provenance.current_scope(),
    }


def _step() -> Callable[[], Any]:
    x = cr.tensor([1.0, 2.0])
    w = cr.tensor([1.0, 2.0], requires_grad=True)
    optimizer = cr.optim.SGD([w], lr=0.5)

    def step() -> Any:
        optimizer.zero_grad()
        loss = (w * x).square().sum()
        loss.backward()
        optimizer.step()
        return loss

    return step


def _compiled_again() -> Callable[[], Any]:
    step = cr.compile(_step())
    step()
    return step


def _of_a_module() -> Callable[[], Any]:
    model = cr.nn.Sequential(cr.nn.Linear(2, 2), cr.nn.ReLU())
    return lambda: model(cr.tensor([1.0, 2.0])).sum().backward()


def _of_a_compiled_function() -> Callable[[], Any]:
    square = cr.compile(lambda t: (t * t).sum())
    return lambda: cr.grad(lambda t: cr.grad(square)(t).sum())(cr.tensor([1.0, 2.0]))


def _along() -> Callable[[], Any]:
    return lambda: cr.jvp(lambda t: t.softmax(0), [cr.tensor([1.0, 2.0])], [cr.tensor([1.0, 0.0])])


def _in_place() -> Callable[[], Any]:
    t = cr.tensor([[1.0, 2.0]])
    return lambda: t.mul_(1.5).sub_(2).__setitem__(0, 3.0)


@pytest.mark.parametrize(
    "make", [_step, _compiled_again, _of_a_module, _of_a_compiled_function, _along, _in_place], ids=lambda f: f.__name__
)
def test_what_an_interrupted_call_has_set_is_set_back(make: Callable[[], Callable[[], Any]]) -> None:
    before = _set_for_a_while()
    for moment in itertools.count(1):
        context = contextvars.copy_context()
        reached = context.run(_interrupted, make(), moment)
        assert context.run(_set_for_a_while) == before, f"after moment {moment}"
        if not reached:
            break
    assert moment > 5


@pytest.mark.parametrize("moment", [1, 10, 100, 1000])
def test_a_first_call_that_was_interrupted_changes_nothing_and_is_made_again(moment: int) -> None:
    eager, before = _step(), _set_for_a_while()
    step = cr.compile(_step())
    assert _interrupted(step, moment), "it was through before"
    assert _set_for_a_while() == before
    assert [step().item() for _ in range(3)] == pytest.approx([eager().item() for _ in range(3)])
