"""Tracing: a function runs once on symbols, and what it computes, reads and writes becomes a Program.

Nothing of the user's is touched meanwhile: gradients, updates in place, an optimiser's state and the random stream are
kept here, as nodes; so an exception leaves everything as it was, and other threads see nothing. Every tensor with a
value that is met is an input, read anew at each call; what the function makes itself is a constant.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, NamedTuple, final

import numpy as np

from chainrule import dtypes
from chainrule.array.inplace import no_leaf
from chainrule.autodiff.reverse import is_origin
from chainrule.compile.tracing.cells import Cell
from chainrule.compile.tracing.optimizing import Kept, Options
from chainrule.compile.tracing.places import (
    Argument,
    Captured,
    Guard,
    Holder,
    OldGradient,
    Option,
    Place,
    State,
    Stream,
)
from chainrule.compile.tracing.settings import Setting, entries_of, refused
from chainrule.compile.tracing.sharing import Sharing
from chainrule.core.aval import Aval
from chainrule.core.memory import note_moment
from chainrule.core.node import (
    ENGINE_OFF,
    NO_PARAMS,
    RECORD,
    Cut,
    Node,
    at_user_line,
    inferred,
    make,
    recording_mode,
    tick,
)
from chainrule.core.provenance import Scope, capture, current_scope
from chainrule.core.tracing import Tracer
from chainrule.errors import ChainruleError, TraceError
from chainrule.ops import movement
from chainrule.tensor import Tensor

# How far a trail goes back: to the user's line from deep inside a backward pass.
_DEPTH = 64


class Pull(NamedTuple):
    """One step of a backward pass: a node, its cotangent, and what its rule sent to its inputs (None: nothing)."""

    node: Any
    g: Any
    sent: tuple[Any, ...]


class Asked(NamedTuple):
    """Whether a tensor required a gradient before the function, and whether it does after."""

    holder: Holder
    before: bool
    after: bool


@final
class GraphTracer(Tracer):
    """One function being traced.

    inputs, places: the symbols for what is read from outside, and where each comes from.
    guards: what was taken for granted.
    """

    def __init__(self) -> None:
        self.started = tick()
        self.inputs: list[Any] = []
        self.places: list[Place] = []
        self.guards: list[Guard] = []
        self.sizes: list[tuple[list[Any], int]] = []  # lists that the trace went through, and how long they were
        self.optimizers: dict[int, Any] = {}
        self.scopes: dict[int, Scope] = {}
        self.option_guards: list[Guard] = []
        self.options_watched: list[tuple[dict[str, Any], str]] = []
        self.absent: list[Any] = []  # tensors whose `.grad` was None when first looked at
        self.options_read: dict[tuple[int, str], Options] = {}
        self.states: dict[tuple[int, int], Kept] = {}
        self.streams: dict[int, tuple[Any, Stream]] = {}
        self.first_reads: set[int] = set()  # of tensors whose `.grad` was read before anything set it
        self.grads: dict[int, tuple[Any, Any]] = {}  # by id of a tensor: that tensor, and its `.grad` now
        self.opaques: dict[int, Any] = {}  # by id of a node with a backward of a user's own: how it is computed
        self._now: dict[int, Any] = {}  # by id of a tensor: the node that stands for it
        self._owner: dict[int, Any] = {}  # by id of a node that stands for a tensor: that tensor
        self._place: dict[int, Place] = {}  # by id of a tensor that is an input: where it comes from
        self._given: dict[int, Any] = {}  # by id of the symbol of an argument: the tensor
        self._names: dict[int, list[Any]] = {}  # by id of a tensor: nodes that are handled in its place, as its `.grad`
        self._sharing = Sharing()
        self._asked: dict[int, tuple[Any, bool]] = {}  # by id of a tensor: it, and what its `requires_grad` was before
        self._same: dict[int, Any] = {}  # by id of a node that stands for a tensor: one of the same value before it
        self.by_identity: dict[int, Any] = {}  # arguments that are to be the same in each call: known in other ways too
        self._arguments: dict[int, Any] = {}  # by id of a tensor that is an argument, and not trained: its symbol
        self.pulls: list[Pull] = []  # what backward passes went through, in their order
        self._computed_outside: set[int] = set()  # ids of arguments that were computed, and lead on to other tensors
        self.modules: dict[int, Any] = {}  # those that were called
        self.settings: dict[tuple[int, str], Setting] = {}
        self._made: set[int] = set()  # ids of modules that the function makes
        self._kept: list[Any] = []  # whatever is known by its id stays alive

    # --- what a function is given

    def argument(self, x: Any, index: int, name: str) -> Any:
        """What the function gets for a tensor or an array among its arguments."""
        if not isinstance(x, Node):
            return self._input(Argument(index), Tensor.symbolic(name, Aval(x.shape, x.dtype)))
        symbol = self._symbol(x, name)
        self._given[id(symbol)] = x
        if x.requires_grad and x.op is None:  # what is trained is known by its identity: to optimisers, for one
            self._stands_for(symbol, x, Argument(index))
            self._input(Argument(index), symbol)
            return x
        if x.op is not None:
            self._computed_outside.add(id(symbol))
        self._arguments[id(x)] = symbol
        return self._input(Argument(index), symbol)

    def _by_another_name(self, x: Any, symbol: Any) -> None:
        """The function reaches a tensor that is an argument in another way too: as the very same one."""
        place = self._place[id(symbol)]
        assert isinstance(place, Argument)
        self.by_identity[place.index] = x
        self._owner[id(x)] = symbol
        self._names.setdefault(id(symbol), []).append(x)
        self._now[id(x)] = self._now.get(id(symbol), symbol)
        x._requires_grad = symbol.requires_grad

    def _symbol(self, x: Any, name: str) -> Any:
        symbol: Any = make(x.makes, None, (), NO_PARAMS, None, x.aval, x.requires_grad, capture(3, _DEPTH))
        symbol.symbol = name
        return symbol

    def _input(self, place: Place, symbol: Any) -> Any:
        self.inputs.append(symbol)
        self.places.append(place)
        self._place[id(symbol)] = place
        return symbol

    def _stands_for(self, symbol: Any, x: Any, place: Place) -> None:
        self._kept.append(x)
        self._now[id(x)], self._owner[id(symbol)], self._place[id(x)] = symbol, x, place

    def _capture(self, x: Any) -> Any:
        symbol = self._symbol(x, "")
        self._stands_for(symbol, x, Captured(x))
        return self._input(Captured(x), symbol)

    # --- ops

    def apply(self, op: Any, inputs: tuple[Any, ...], params: Mapping[str, Any], cls: type[Any]) -> Any:
        values = tuple([self.read(x) for x in inputs])
        aval = inferred(op, values, params)
        mode = recording_mode()
        wants_grad = any(x.requires_grad for x in values)
        keeps = wants_grad and mode is RECORD and not op.no_gradient
        node = make(cls, op, values, params, None, aval, keeps, capture(3, _DEPTH))
        node.scope = scope = current_scope()
        if scope is not None:
            self.scopes[id(scope)] = scope
        if wants_grad and not keeps and mode is not ENGINE_OFF:
            reason = op.no_gradient or "it was computed under no_grad()"
            node.cut = Cut(f"{op.name}: {reason}", tuple(weakref.ref(x) for x in values))
        elif not wants_grad:
            node.cut = next((x.cut for x in values if x.cut is not None), None)
        if op in movement.VIEWS:
            self._sharing.add_view(node, self._tensor(inputs[0]))
        return node

    def read(self, x: Any) -> Any:
        found = self._now.get(id(x))
        if found is not None:
            if found is _STALE:
                raise at_user_line(TraceError(
                    f"compile: what shares memory with this {x.aval}, as a view of a tensor does, was changed in place "
                    f"since; make the view again after the update, or write y = y … instead of the update "
                    f"(z[0] = z[0] + 1 for z[0] += 1)"
                ))  # fmt: skip
            return found
        if x.array is None or x.constant is not None or x.made > self.started:
            return x
        return self.read(x) if self._tensor(x) is not x else self._capture(x)

    def is_constant(self, x: Any) -> bool:
        return x.array is not None and id(x) not in self._now and (x.constant is not None or x.made > self.started)

    def replaces(self, old: Any, new: Any) -> bool:
        return isinstance(old, Node) and id(old) in self._now and isinstance(new, Node) and new.array is None

    def as_variable(self, x: Any) -> Any:
        return self._renamed(self.read(x), requires_grad=True)

    def detached(self, x: Any) -> Any:
        if self.is_constant(x):
            value: Any = Tensor.leaf(x.array)
            value.constant = x.constant
        else:
            value = self._renamed(self.read(x), requires_grad=False)
        self._sharing.add(value, self._tensor(x))
        return value

    def _renamed(self, value: Any, *, requires_grad: bool) -> Any:
        """The same value as another node; if that requires a gradient, the gradient ends there."""
        if requires_grad and value.requires_grad:
            value = self._renamed(value, requires_grad=False)
        node = make(
            value.makes, movement.reshape, (value,), {"shape": value.aval.shape}, None, value.aval, requires_grad,
            capture(3, _DEPTH),
        )  # fmt: skip
        node.scope = current_scope()
        self._kept.append(node)
        return node

    def is_leaf(self, x: Any) -> bool:
        tensor = self._tensor(x)
        if tensor.array is not None:
            return tensor.op is None
        found = self._now.get(id(tensor), tensor)
        found = tensor if found is _STALE else found
        return not found.requires_grad or is_origin(found)

    def ask_for_gradient(self, x: Any, asked: bool) -> None:
        tensor = self._tensor(x)
        value, before = self.read(tensor), tensor.requires_grad
        if self._is_outside(tensor):
            self._asked.setdefault(id(tensor), (tensor, before))
        if asked == before:
            return
        for y in (tensor, *self._names.get(id(tensor), ())):
            y._requires_grad = asked
        self._let_stand(tensor, self._renamed(value, requires_grad=asked), same=value)

    def asked(self) -> list[Asked]:
        """Of which tensors `requires_grad` was set."""
        return [Asked(self.holder(x), before, x.requires_grad) for x, before in self._asked.values()]

    def undo(self) -> None:
        """What the function has set is as it was before."""
        for x, before in self._asked.values():
            for y in (x, *self._names.get(id(x), ())):
                y._requires_grad = before
        for setting in self.settings.values():
            setting.undo()

    def opaque(self, made: Any, value: Any) -> None:
        self.opaques[id(made)] = value

    # --- updates in place

    def write(self, x: Any, value: Any, name: str) -> None:
        tensor = self._tensor(x)
        if not self.is_leaf(tensor):
            raise no_leaf(tensor, name)
        region = self._sharing.of(tensor)
        old = [self.read(y) for y in region.tensors]  # before any is stale
        outside = next(filter(self._is_outside, region.others), None)
        if outside is not None:
            known = self.read(outside)
            raise at_user_line(TraceError(
                f"{name}: an update in place of a view of a tensor from outside cannot be compiled; update the tensor "
                f"itself, {known.symbol + ' ' if known.symbol else ''}{known.aval}, or write y = y … instead"
            ))  # fmt: skip
        for y in region.others:
            self._set_stale(y)
        region.alone()
        self._set(region.tensors, old, value)

    def replace(self, x: Any, value: Any) -> None:
        tensor, given = self._tensor(x), self._tensor(value)
        if not self.is_leaf(tensor):
            raise no_leaf(tensor, "data")
        here, there = self._sharing.of(tensor), self._sharing.of(given)
        if here is there:  # as after `x.data += y`
            return
        own = here.memory is there.memory
        if not own and any(map(self._is_outside, [*there.tensors, *there.others])):
            raise self.refuse("setting .data to memory of another tensor", "copy its entries: x.data.copy_(y)")
        old, new = self.read(tensor), self.read(value)
        self._sharing.leave(tensor)
        if own:  # it lies in its own memory in another way: nobody may read what it was
            for y in (*there.tensors, *there.others):
                self._set_stale(y)
        self._set([tensor], [old], new)
        if not own:
            self._sharing.add(tensor, given)

    def _set(self, tensors: Sequence[Any], old: Sequence[Any], value: Any) -> None:
        """Tensors that lie in the same place have another value from now on."""
        when = tick()
        note_moment(when)
        for tensor, before in zip(tuple(tensors), old, strict=True):
            before.mutated = when
            if self.is_leaf(tensor):
                self._let_stand(tensor, self._renamed(value, requires_grad=tensor.requires_grad))
            else:  # it would go on without its gradient
                self._sharing.leave(tensor)
                self._set_stale(tensor)

    def _let_stand(self, tensor: Any, node: Any, same: Any = None) -> None:
        """A node stands for a tensor from now on. same: the one that did before, if the value is the same."""
        self._owner[id(node)] = tensor
        if same is not None:
            self._same[id(node)] = same
        for y in (tensor, *self._names.get(id(tensor), ())):
            self._now[id(y)] = node
        self._kept.append(tensor)

    def _set_stale(self, x: Any) -> None:
        for y in (x, *self._names.get(id(x), ())):
            self._now[id(y)] = _STALE
            self._kept.append(y)

    def _tensor(self, x: Any) -> Any:
        """The tensor that a node stands for, or is handled in the place of."""
        if id(x) in self._arguments and id(x) not in self._owner:
            self._by_another_name(x, self._arguments[id(x)])
        return self._owner.get(id(x), x)

    def _is_outside(self, x: Any) -> bool:
        """Is this a tensor, or the symbol of one, that there is before and after the function?"""
        return id(x) in self._place or (x.op is None and not self.is_constant(x))

    # --- gradients

    def grad(self, x: Any) -> Any:
        owner = self._tensor(x)
        found = self.grads.get(id(owner))
        if found is not None:
            return found[1]
        given = self._given.get(id(owner), owner)
        old = given._grad
        if given.array is not None and given.made < self.started:
            self.first_reads.add(id(owner))
            if old is None:
                self.absent.append(owner)
        if old is not None:
            old = self._old_gradient(owner, old)
        self.grads[id(owner)] = (owner, old)
        return old

    def _old_gradient(self, owner: Any, old: Any) -> Any:
        symbol = self._symbol(old, f"grad of {self._now[id(owner)].symbol}" if id(owner) in self._now else "grad")
        symbol._requires_grad = False
        place = OldGradient(self.holder(owner))
        self._stands_for(symbol, old, place)
        self._names.setdefault(id(old), []).append(symbol)  # the function handles the symbol, as its `.grad`
        return self._input(place, symbol)

    def is_input(self, x: Any) -> bool:
        """Is this a tensor, or the symbol of one, that a call reads?"""
        return id(x) in self._place

    def value_of_input(self, symbol: Any) -> Any:
        """What an input holds now, given its symbol."""
        found = self.read(self._owner.get(id(symbol), symbol))
        while id(found) in self._same:
            found = self._same[id(found)]
        return found

    def holder(self, owner: Any) -> Holder:
        """How a tensor is found again at a call."""
        place = self._place.get(id(owner))
        return place if isinstance(place, Argument) else Captured(owner)

    def set_grad(self, x: Any, grad: Any) -> None:
        owner = self._tensor(x)
        self.grads[id(owner)] = (owner, grad)

    def pulled(self, node: Any, g: Any, sent: tuple[Any, ...]) -> None:
        self.pulls.append(Pull(node, g, sent))

    def add_grad(self, leaf: Any, g: Any) -> None:
        owner = self._tensor(leaf)
        if id(owner) in self._asked and not owner.requires_grad:
            return  # it was taken away since
        self.pulls.append(Pull(leaf, g, ()))
        if id(owner) in self._place and (owner.op is not None or id(owner) in self._computed_outside):
            raise at_user_line(TraceError(
                f"backward: it would go on beyond the compiled function: {owner.aval} was computed outside, from "
                f"tensors that require a gradient; compute it inside, or pass it detached"
            ))  # fmt: skip
        old = self.grad(owner)
        # As a node of its own: two leaves may be sent the same one, and each has its gradient in memory of its own.
        self.grads[id(owner)] = (owner, self._renamed(g, requires_grad=False) if old is None else old + g)

    # --- optimisers and random numbers

    def array(self, x: Any) -> Cell:
        return Cell(self, x.aval, tensor=x)

    def options(self, group: dict[str, Any]) -> Mapping[str, Any]:
        found = Options(self, group)
        self.sizes.append((group["params"], len(group["params"])))
        return found

    def state(self, optimizer: Any, param: Any) -> MutableMapping[str, Any]:
        self.optimizers[id(optimizer)] = optimizer
        key = (id(optimizer), id(param))
        if key not in self.states:
            self.states[key] = Kept(self, optimizer, param)
            place = self._place.get(id(param))
            if isinstance(place, Argument):
                self.by_identity[place.index] = param
        return self.states[key]

    def number(self, place: Option | State, dtype: np.dtype, name: str) -> Any:
        """An input for a number."""
        return self._input(place, Tensor.symbolic(name, Aval((), dtype)))

    def kept_array(self, place: State, aval: Aval) -> Any:
        """An input for an array that an optimiser keeps."""
        return self._input(place, Tensor.symbolic(place.name, aval))

    def key(self, generator: Any, blocks: int) -> tuple[Any, int]:
        found = self.streams.get(id(generator))
        if found is None:
            stream = Stream(generator, [0])
            symbol = self._input(stream, Tensor.symbolic("random", Aval((2,), dtypes.int64)))
            found = self.streams[id(generator)] = (symbol, stream)
        symbol, stream = found
        offset = stream.blocks[0]
        stream.blocks[0] += blocks
        return symbol, offset

    # --- modules and options

    def called(self, module: Any) -> None:
        self.modules[id(module)] = module

    def setting(self, owner: Any, name: str) -> None:
        if not entries_of(owner) and id(owner) not in self.modules:  # a module that is being made
            self._made.add(id(owner))
            self._kept.append(owner)
        if id(owner) in self._made or (id(owner), name) in self.settings:
            return
        self.settings[id(owner), name] = Setting.of(owner, name, self.refuse(*refused(owner, name)))

    def refuse_set(self, owner: Any, name: str) -> None:
        """Raise if an attribute or an entry is read that is now another than before the function."""
        setting = self.settings.get((id(owner), name))
        if setting is not None and setting.stays:
            raise setting.error

    def refuse(self, what: str, advice: str) -> ChainruleError:
        return at_user_line(TraceError(f"compile: {what} cannot be compiled; {advice}"))


class _Stale:
    """Stands for a view whose memory was changed."""


_STALE: Any = _Stale()
