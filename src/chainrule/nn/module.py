"""Module: a function with parameters. A module's attributes are all it has: there is no second registry beside them.

A Parameter, a Module or a buffer among the attributes belongs to the module; every walk (parameters, state_dict, repr)
reads them off `vars(self)`, in the order they were set. Calling a module notes the call, for explanations (`Scope`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Self

import numpy as np

from chainrule import dtypes
from chainrule.array.align import as_node, check_device, is_device, value_of
from chainrule.array.asked import blame
from chainrule.core.alignment import aligned_copy
from chainrule.core.node import at_user_line
from chainrule.core.provenance import current_scope, enter_scope, set_scope
from chainrule.core.tracing import module_changes, tracer
from chainrule.errors import ArgumentError, DTypeError, ShapeError
from chainrule.nn.parameter import Parameter
from chainrule.tensor import Tensor

_OURS = "chainrule."  # the modules whose `forward` is one of this library's


class IncompatibleKeys(NamedTuple):
    """The names that a state lacked, and those that the module has no place for."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class Module:
    """A function with parameters: subclass it, set parameters and modules as attributes, and write `forward`.

    Raises: DTypeError: an attribute that holds a Parameter or a Module is overwritten by a value that is neither, which
        would drop it from training without a word. NotImplementedError: called without a `forward`.

    >>> import chainrule as cr
    >>> class Line(cr.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.slope = cr.nn.Parameter(cr.tensor(2.0))
    ...
    ...     def forward(self, x):
    ...         return x * self.slope
    >>> line = Line()
    >>> line(cr.tensor([1.0, 3.0]))
    tensor([2., 6.], requires_grad=True)
    >>> [name for name, _ in line.named_parameters()]
    ['slope']
    """

    # Class attributes, so that a subclass which forgets `super().__init__()` works all the same.
    training: bool = True
    _buffers: Mapping[str, bool] = {}  # names of attributes that are buffers: are they part of the state?

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        tracing = tracer()
        if tracing is not None:
            tracing.called(self)
        outer = current_scope()
        try:
            enter_scope(self, outer)
            return self.forward(*args, **kwargs)
        except (AttributeError, TypeError) as error:
            if type(self).forward.__module__.startswith(_OURS):
                blame(error, type(self).__name__, self.forward, args, kwargs)
            raise
        finally:
            set_scope(outer)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes; a subclass says."""
        raise NotImplementedError(f"{type(self).__name__}: a module states forward(self, …)")

    def __setattr__(self, name: str, value: Any) -> None:
        held = vars(self).get(name)
        if isinstance(held, Parameter | Module) and not isinstance(value, Parameter | Module) and value is not None:
            raise at_user_line(DTypeError(
                f"{type(self).__name__}.{name}: holds a {type(held).__name__}; a {type(value).__name__} in its place "
                f"would no longer be trained; update it in place under no_grad(), or set a new nn.Parameter, or None"
            ))  # fmt: skip
        tracing = tracer()
        if tracing is not None:
            if tracing.replaces(held, value):
                raise tracing.refuse(
                    f"setting {type(self).__name__}.{name}, which the function reads, to another tensor",
                    f"update the one that is there: self.{name}.copy_(…) under no_grad()",
                )
            tracing.setting(self, name)
        object.__setattr__(self, name, value)
        module_changes[0] += 1

    def __delattr__(self, name: str) -> None:
        tracing = tracer()
        if tracing is not None:
            tracing.setting(self, name)
        object.__delattr__(self, name)
        module_changes[0] += 1

    # --- registration by name, where setting an attribute will not do

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Set a tensor that belongs to the module and is not trained, such as a running mean.

        persistent: whether it is part of `state_dict`.
        """
        self._refuse_name("register_buffer", name)
        tracing = tracer()
        if tracing is not None:
            tracing.setting(self, name)
            tracing.setting(self, "_buffers")
        object.__setattr__(self, "_buffers", {**self._buffers, name: persistent})
        object.__setattr__(self, name, tensor)
        module_changes[0] += 1

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Set a parameter under a name; None where the module could have one and does not."""
        if not isinstance(param, Parameter | None):
            raise at_user_line(DTypeError(f"register_parameter: expected an nn.Parameter; got {type(param).__name__}"))
        self._refuse_name("register_parameter", name)
        setattr(self, name, param)

    def add_module(self, name: str, module: Module | None) -> None:
        """Set a module under a name."""
        if not isinstance(module, Module | None):
            raise at_user_line(DTypeError(f"add_module: expected an nn.Module; got {type(module).__name__}"))
        self._refuse_name("add_module", name)
        setattr(self, name, module)

    register_module = add_module

    def _refuse_name(self, by: str, name: str) -> None:
        if not name or "." in name:
            raise at_user_line(ArgumentError(f"{by}: a name is not empty and has no dot; got {name!r}"))
        if hasattr(type(self), name) or (
            name in vars(self) and not isinstance(vars(self)[name], Parameter | Module | None)
        ):
            raise at_user_line(
                ArgumentError(f"{by}: {type(self).__name__} has an attribute {name!r} already; use another name")
            )

    # --- walks

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """(name, module) of each module set on this one; each module once."""
        seen: set[int] = set()
        for name, value in tuple(vars(self).items()):
            if isinstance(value, Module) and id(value) not in seen:
                seen.add(id(value))
                yield name, value

    def children(self) -> Iterator[Module]:
        """The modules set on this one."""
        return (module for _, module in self.named_children())

    def named_modules(self, prefix: str = "", remove_duplicate: bool = True) -> Iterator[tuple[str, Module]]:
        """(path, module) of this module and all inside it, outer ones first: ``, `encoder`, `encoder.0`.

        remove_duplicate: a module that occurs twice is given once, under its first path.
        """
        return self._walk(prefix, set() if remove_duplicate else None)

    def _walk(self, prefix: str, seen: set[int] | None) -> Iterator[tuple[str, Module]]:
        if seen is not None:
            if id(self) in seen:
                return
            seen.add(id(self))
        yield prefix, self
        for name, value in tuple(vars(self).items()):
            if isinstance(value, Module):
                yield from value._walk(f"{prefix}.{name}" if prefix else name, seen)

    def modules(self) -> Iterator[Module]:
        """The module itself and all inside it; each once."""
        return (module for _, module in self.named_modules())

    def get_submodule(self, path: str) -> Module:
        """The module at `path`, such as `encoder.0`.

        Raises: ArgumentError: there is none.
        """
        found: Any = self
        for name in filter(None, path.split(".")):
            found = vars(found).get(name) if isinstance(found, Module) else None
        if not isinstance(found, Module):
            known = ", ".join(name for name, _ in self.named_modules() if name)
            raise at_user_line(
                ArgumentError(f"get_submodule: no module {path!r} in {type(self).__name__}; it has: {known or 'none'}")
            )
        return found

    def _members(
        self, belongs: Callable[[Module, str, Any], bool], prefix: str, recurse: bool, remove_duplicate: bool
    ) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        for path, module in self.named_modules(prefix, remove_duplicate) if recurse else [(prefix, self)]:
            for name, value in vars(module).items():
                if belongs(module, name, value) and not (remove_duplicate and id(value) in seen):
                    seen.add(id(value))
                    yield f"{path}.{name}" if path else name, value

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """(path, parameter) of each parameter; a shared one once, under its first path."""
        return self._members(_is_parameter, prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """The parameters, each once."""
        return (parameter for _, parameter in self.named_parameters(recurse=recurse))

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """(path, tensor) of each buffer."""
        return self._members(_is_buffer, prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """The buffers, each once."""
        return (buffer for _, buffer in self.named_buffers(recurse=recurse))

    def apply(self, function: Callable[[Module], Any]) -> Self:
        """Call `function` on every module inside, then on this one: `model.apply(init_weights)`."""
        for module in self.children():
            module.apply(function)
        function(self)
        return self

    # --- state

    def state_dict(self) -> dict[str, Tensor]:
        """Every parameter and persistent buffer by path, sharing memory with the module, without gradients.

        A parameter shared by two modules stands under both paths.
        """
        return {path: value.detach() for path, value in self._members(_is_state, "", True, False)}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> IncompatibleKeys:
        """Copy values into the parameters and buffers of the same paths. All fit, or nothing is copied.

        Args:
            state_dict: path to tensor or array, as `state_dict` gives it.
            strict: whether every path must be there, and no other; False loads those that match.
        Returns: the paths that were missing, and those that were not expected.
        Raises: ArgumentError: paths are missing or unexpected (`strict`). ShapeError: a value of another shape.
        """
        own = dict(self._members(_is_state, "", True, False))
        keys = IncompatibleKeys([k for k in own if k not in state_dict], [k for k in state_dict if k not in own])
        name = type(self).__name__
        if strict and (keys.missing_keys or keys.unexpected_keys):
            missing = f" missing: {', '.join(keys.missing_keys)};" if keys.missing_keys else ""
            unexpected = f" unexpected: {', '.join(map(str, keys.unexpected_keys))};" if keys.unexpected_keys else ""
            raise at_user_line(ArgumentError(
                f"load_state_dict: the state does not fit {name}:{missing}{unexpected} build the model that the state "
                f"was saved from, or pass strict=False"
            ))  # fmt: skip
        values = {}
        for path, tensor in own.items():
            if path in state_dict:
                given = as_node(state_dict[path], tensor, "load_state_dict")
                if given.aval.shape != tensor.shape:
                    raise at_user_line(ShapeError(
                        f"load_state_dict: {name}.{path} is {tensor.aval}, the state has {given.aval}; "
                        f"build the model with the sizes that the state was saved from"
                    ))  # fmt: skip
                values[path] = given
        for path, given in values.items():
            value: Any = given.array if tracer() is None else given
            np.copyto(own[path].writable("load_state_dict"), value, casting="unsafe")
        return keys

    # --- modes

    def train(self, mode: bool = True) -> Self:
        """Set this module and all inside it to training or, with False, to evaluation.

        In training dropout drops, and a batch norm takes the batch's mean and variance; in evaluation the running ones.
        """
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """Set this module and all inside it to evaluation: `train(False)`."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Freeze (False) or unfreeze every parameter."""
        for parameter in self.parameters():
            parameter.requires_grad = requires_grad
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters, or set them to 0."""
        for parameter in self.parameters():
            if set_to_none or parameter.grad is None:
                parameter.grad = None
            else:
                parameter.grad.zero_()

    def to(self, dtype: object = None, *, device: object = None) -> Self:
        """Cast every float parameter and buffer, and the gradients, in place; make the optimiser afterwards.

        Args:
            dtype: a float dtype; "cpu" in its place changes nothing.
            device: "cpu" is the only one there is.
        Raises: DTypeError: not a float dtype. ArgumentError: another device.
        """
        if is_device(dtype):
            dtype, device = None, dtype
        check_device("Module.to", device)
        if dtype is None:
            return self
        wanted = dtypes.as_dtype(dtype)
        if not dtypes.is_float(wanted):
            raise at_user_line(DTypeError(f"Module.to: parameters have a gradient and must stay float; got {wanted}"))
        for tensor in (*self.parameters(), *self.buffers()):
            if dtypes.is_float(tensor.dtype) and tensor.dtype != wanted:
                tensor.array = aligned_copy(value_of(tensor, "to"), wanted)
                tensor.changed()
                tensor.grad = None if tensor.grad is None else tensor.grad.to(wanted)
        return self

    def cpu(self) -> Self:
        """The module itself: there is only the CPU."""
        return self

    def float(self) -> Self:
        """Cast to float32."""
        return self.to(dtypes.float32)

    def double(self) -> Self:
        """Cast to float64."""
        return self.to(dtypes.float64)

    def half(self) -> Self:
        """Cast to float16."""
        return self.to(dtypes.float16)

    def bfloat16(self) -> Self:
        """Cast to bfloat16."""
        return self.to(dtypes.bfloat16)

    # --- display

    def extra_repr(self) -> str:
        """What stands between the parentheses of the module's line; a subclass says."""
        return ""

    def __repr__(self) -> str:
        inside = [f"({n}): {m!r}" for n, m in vars(self).items() if isinstance(m, Module)]
        extra = self.extra_repr().splitlines()
        if not inside:
            return f"{type(self).__name__}({', '.join(extra)})"
        lines = "\n".join(extra + inside).replace("\n", "\n  ")
        return f"{type(self).__name__}(\n  {lines}\n)"


def _is_parameter(module: Module, name: str, value: Any) -> bool:
    return isinstance(value, Parameter)


def _is_buffer(module: Module, name: str, value: Any) -> bool:
    return name in module._buffers and isinstance(value, Tensor)


def _is_state(module: Module, name: str, value: Any) -> bool:
    return isinstance(value, Parameter) or (isinstance(value, Tensor) and module._buffers.get(name, False))
