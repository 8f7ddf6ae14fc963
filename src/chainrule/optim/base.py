"""What every optimiser shares: parameter groups, their state, and the walk of a step. The update rule is a subclass's.

Updates are done in NumPy on the leaves' own memory, with scratch arrays that live as long as the optimiser: a step
allocates nothing. Each update is noted on the graph's clock (`Tensor.writable`), so that a backward pass of an older
graph is a clear error and not a wrong gradient.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from chainrule.autodiff.mode import enable_grad
from chainrule.autodiff.reverse import checked_grad, fits
from chainrule.core.group import Group
from chainrule.core.node import at_user_line
from chainrule.core.tracing import tracer
from chainrule.errors import ArgumentError, DTypeError, GradientError, ShapeError
from chainrule.tensor import Tensor


class Optimizer(ABC):
    """Parameters in groups, each with its own options.

    param_groups: a list of dicts: "params" and one entry an option, as in PyTorch; options may be changed at any time.
    state: what the update rule keeps for each parameter, by parameter; NumPy arrays and numbers.

    Args:
        params: tensors, or dicts with "params" and options of their own.
        defaults: the options of groups that do not say.
    Raises: ArgumentError: no parameter, one twice, or an option outside its range. DTypeError: something that is no
        tensor. GradientError: a tensor that is no leaf.
    """

    def __init__(self, params: Iterable[Tensor] | Iterable[Mapping[str, Any]], defaults: Mapping[str, Any]) -> None:
        self.defaults = dict(defaults)
        self.param_groups: list[Group] = []
        self.state: dict[Tensor, dict[str, Any]] = {}
        self._scratch: dict[tuple[Any, ...], np.ndarray] = {}
        name = type(self).__name__
        if isinstance(params, Tensor):
            raise at_user_line(DTypeError(f"{name}: expected parameters in a list; got one tensor; write [w]"))
        if callable(params):
            raise at_user_line(DTypeError(f"{name}: expected parameters; got a function; call it: model.parameters()"))
        given: list[Any] = list(params)
        if not given:
            raise at_user_line(ArgumentError(
                f"{name}: got no parameters; a generator is used up after one pass, and modules in a plain list "
                f"are not found: use nn.ModuleList"
            ))  # fmt: skip
        for group in given if isinstance(given[0], Mapping) else [{"params": given}]:
            self.add_param_group(group)

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Train further parameters: {"params": tensors, "lr": 0.1, …}; options left out are the optimiser's own.

        Raises: as the constructor.
        """
        name = type(self).__name__
        if "params" not in param_group:
            raise at_user_line(ArgumentError(f'{name}: a group is a dict with "params"; got {param_group!r}'))
        unknown = [key for key in param_group if key != "params" and key not in self.defaults]
        if unknown:
            raise at_user_line(ArgumentError(
                f"{name}: no option {', '.join(map(repr, unknown))}; there are {', '.join(self.defaults)}"
            ))  # fmt: skip
        params = param_group["params"]
        tensors = [params] if isinstance(params, Tensor) else list(params)
        options = {name: tuple(v) if isinstance(v, list) else v for name, v in {**self.defaults, **param_group}.items()}
        group = Group({**options, "params": tensors})
        known = {id(p) for g in self.param_groups for p in g["params"]}
        for position, p in enumerate(group["params"]):
            self._check_param(name, p, position)
            if id(p) in known:
                raise at_user_line(
                    ArgumentError(f"{name}: parameter {position}, {p.aval}, is given twice; give it once")
                )
            known.add(id(p))
        if not group["params"]:
            raise at_user_line(ArgumentError(f"{name}: a group without parameters"))
        self._check_options(group)
        self.param_groups.append(group)

    @staticmethod
    def _check_param(name: str, p: Any, position: int) -> None:
        if not isinstance(p, Tensor):
            hint = "; pass model.parameters()" if isinstance(p, tuple | str) else ""
            raise at_user_line(DTypeError(f"{name}: parameter {position} is no tensor: got {type(p).__name__}{hint}"))
        if p.op is not None and not p.is_leaf:
            raise at_user_line(GradientError(
                f"{name}: parameter {position}, {p.aval}, was computed by {p.op.name}; only leaves can be trained; "
                f"call .detach().requires_grad_() on it first"
            ))  # fmt: skip

    @abstractmethod
    def _check_options(self, group: Group) -> None:
        """Raise for options outside their range."""

    @abstractmethod
    def _update(self, param: np.ndarray, grad: np.ndarray, state: dict[str, Any], group: Group) -> None:
        """One step of one parameter, in place; `grad` must not be written to.

        The rule is compiled as it stands, so it works on whole arrays, and branches on options only, by whether they
        are 0. What it finds missing in `state` it creates filled (`np.zeros_like`), and goes on as in any other step.
        """

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient.

        Args:
            closure: computes the loss and its gradients again, and returns the loss.
        Returns: what the closure returned, or None.
        Raises: ShapeError, DTypeError: a `.grad` that was assigned does not fit its parameter.
        """
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        name, tracing = type(self).__name__, tracer()
        with np.errstate(all="ignore"):  # inf and nan are values here, as in every op
            for group in self.param_groups:
                options: Any = group if tracing is None else tracing.options(group)
                for p in group["params"]:
                    grad = p.grad
                    if grad is not None:
                        if not fits(p):
                            checked_grad(p, f"{name}: parameter {self._position(p)}")
                        if tracing is None:
                            self._update(p.writable(name), grad.array, self.state.setdefault(p, {}), options)
                        else:
                            state: Any = tracing.state(self, p)
                            self._update(p.writable(name), tracing.array(grad), state, options)
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters, or set them to 0.

        set_to_none: None costs nothing, and tells a parameter that took no part from one whose gradient is 0.
        """
        for group in self.param_groups:
            for p in group["params"]:
                if set_to_none or p.grad is None:
                    p.grad = None
                else:
                    p.grad.zero_()

    def _temporary(self, like: np.ndarray, number: int = 0) -> np.ndarray:
        """Memory shaped like an array, shared by all parameters of that shape; its contents are anybody's."""
        if tracer() is not None:
            return np.empty_like(like)
        key = (like.shape, like.dtype, number)
        found = self._scratch.get(key)
        if found is None:
            found = self._scratch[key] = np.empty_like(like)
        return found

    # --- state

    def state_dict(self) -> dict[str, Any]:
        """Options and state with parameters by number, in the order of the groups; arrays are shared, not copied."""
        numbers = {id(p): i for i, p in enumerate(self._params())}
        groups = [{**group, "params": [numbers[id(p)] for p in group["params"]]} for group in self.param_groups]
        return {"state": {numbers[id(p)]: dict(s) for p, s in self.state.items()}, "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over options and state, copied. All fit, or nothing is changed.

        Raises: ArgumentError: another number of groups or of parameters in one. ShapeError: state of another shape.
        """
        name = type(self).__name__
        groups = state_dict["param_groups"]
        sizes, own = [len(g["params"]) for g in groups], [len(g["params"]) for g in self.param_groups]
        if sizes != own:
            raise at_user_line(ArgumentError(
                f"{name}.load_state_dict: the state has groups of {sizes} parameters, this optimiser of {own}; "
                f"build it on the same model"
            ))  # fmt: skip
        params = self._params()
        order = [number for g in groups for number in g["params"]]
        state = {
            params[order.index(int(n))]: {k: _copied(v) for k, v in s.items()} for n, s in state_dict["state"].items()
        }
        for p, entries in state.items():
            for key, value in entries.items():
                if isinstance(value, np.ndarray) and value.shape not in (p.shape, ()):
                    raise at_user_line(ShapeError(
                        f"{name}.load_state_dict: {key} is {list(value.shape)}, its parameter {p.aval}; "
                        f"build the optimiser on the model that the state was saved from"
                    ))  # fmt: skip
        for group, saved in zip(self.param_groups, groups, strict=True):
            group.update({key: value for key, value in saved.items() if key != "params"})
        self.state = state

    def _position(self, param: Tensor) -> int:
        return next(i for i, p in enumerate(self._params()) if p is param)

    def _params(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def __repr__(self) -> str:
        lines = [
            f"  group {i}: {len(g['params'])} parameters, "
            + ", ".join(f"{k}={v}" for k, v in g.items() if k != "params")
            for i, g in enumerate(self.param_groups)
        ]
        return f"{type(self).__name__}(\n" + "\n".join(lines) + "\n)"


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        value = value.array
    return np.array(value) if isinstance(value, np.ndarray) else value


def check_range(name: str, option: str, value: float, low: float, high: float | None = None) -> None:
    """Raise DTypeError unless the value is a number, ArgumentError unless low ≤ value (< high)."""
    given: object = value
    if isinstance(given, bool) or not isinstance(given, int | float | np.integer | np.floating):
        raise at_user_line(DTypeError(f"{name}: {option} must be a number; got {given!r} ({type(given).__name__})"))
    if not low <= value or (high is not None and not value < high):
        wanted = f"{low:g} ≤ {option}" + ("" if high is None else f" < {high:g}")
        raise at_user_line(ArgumentError(f"{name}: expected {wanted}; got {value!r}"))
