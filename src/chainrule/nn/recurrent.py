"""Layers that read a sequence entry by entry and keep a state: RNN, LSTM, GRU, and one step of each as a cell."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

from chainrule import creation
from chainrule.array import arrangement, manipulation
from chainrule.core.node import at_user_line
from chainrule.errors import ArgumentError, DTypeError, ShapeError
from chainrule.functional import linear as functional
from chainrule.functional import recurrent
from chainrule.functional.recurrent import State, Step
from chainrule.nn import init
from chainrule.nn.linear import check_sizes
from chainrule.nn.module import Module
from chainrule.nn.parameter import blank
from chainrule.tensor import Tensor

__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNCell"]

Nonlinearity = Literal["tanh", "relu"]

_RNN_STEPS: dict[str, Step] = {"tanh": recurrent.rnn_tanh_cell, "relu": recurrent.rnn_relu_cell}


class _Recurrent(Module):
    """What layers and cells share: the weights of a step, by PyTorch's names, uniform on ±1/√hidden_size at first."""

    gates: ClassVar[int]  # how many times `hidden_size` the weights have rows
    parts: ClassVar[int] = 1  # of the state: h, or h and c
    input_size: int
    hidden_size: int
    bias: bool

    def _step(self) -> Step:
        raise NotImplementedError

    def _add_weights(self, suffix: str, inputs: int, outputs: int, dtype: object) -> None:
        rows = self.gates * self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {"weight_ih": (rows, inputs), "weight_hh": (rows, outputs)}
        if self.bias:
            shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
        if outputs != self.hidden_size:
            shapes["weight_hr"] = (outputs, self.hidden_size)
        for name, shape in shapes.items():
            setattr(self, name + suffix, blank(*shape, dtype=dtype))

    def reset_parameters(self) -> None:
        """Draw all weights and biases again."""
        bound = 1 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            init.uniform_(parameter, -bound, bound)

    def _weight(self, name: str) -> Any:
        return getattr(self, name, None)

    def _driven(self, input: Tensor, suffix: str) -> Tensor:
        """x W_ihᵀ + b_ih, of all entries at once."""
        return functional.linear(input, self._weight(f"weight_ih{suffix}"), self._weight(f"bias_ih{suffix}"))

    def _next(self, driven: Tensor, state: State, suffix: str) -> State:
        """The state after one more entry."""
        weights = (self._weight(f"{name}{suffix}") for name in ("weight_hh", "bias_hh", "weight_hr"))
        return self._step()(driven, state, *weights)

    def _check_input(self, input: Tensor, forms: dict[int, str]) -> None:
        name, weight = type(self).__name__, next(self.parameters())
        if input.ndim not in forms or input.shape[-1] != self.input_size:
            wanted = ", or ".join(forms.values())
            raise at_user_line(
                ShapeError(f"{name}: expected an input {wanted}, of input_size {self.input_size}; got {input.aval}")
            )
        if input.dtype != weight.dtype:
            raise at_user_line(DTypeError(
                f"{name}: the input is {input.aval}, the weights are {weight.dtype}; cast the input with "
                f"x.to(cr.{weight.dtype}){functional.or_model(input)}"
            ))  # fmt: skip

    def _start(self, input: Tensor, given: Any, shapes: list[tuple[int, ...]]) -> State:
        """The first state, one tensor a part: what is given, if it fits; else zeros."""
        name = type(self).__name__
        if given is None:
            return tuple(creation.zeros(*shape, dtype=input.dtype) for shape in shapes)
        parts = (given,) if self.parts == 1 else given
        wanted = " and ".join(map(str, shapes))
        says = "a state" if self.parts == 1 else "a pair of states (h, c)"
        if isinstance(parts, Tensor) or not isinstance(parts, tuple | list) or len(parts) != self.parts:
            raise at_user_line(ArgumentError(f"{name}: expected {says} of {wanted}; got {type(given).__name__}"))
        for part, shape in zip(parts, shapes, strict=True):
            fits = isinstance(part, Tensor) and part.dtype == input.dtype
            if not fits or part.shape != shape:
                got = " and ".join(str(p.aval) if isinstance(p, Tensor) else type(p).__name__ for p in parts)
                error = ShapeError if fits else DTypeError
                raise at_user_line(error(f"{name}: expected {says} of {wanted} for the input {input.aval}; got {got}"))
        return tuple(parts)


# --- layers


class _Layer(_Recurrent):
    """A stack of layers over whole sequences, in one direction or in both."""

    proj_size = 0

    def _build(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        dtype: object,
    ) -> None:
        name = type(self).__name__
        check_sizes(name, input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
        if type(dropout) not in (int, float) or not 0 <= dropout <= 1:
            raise at_user_line(ArgumentError(f"{name}: dropout is a probability, 0 ≤ dropout ≤ 1; got {dropout!r}"))
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout = bias, batch_first, float(dropout)
        self.bidirectional = bidirectional
        outputs = self.proj_size or hidden_size
        for layer in range(num_layers):
            for suffix in self._suffixes(layer):
                inputs = input_size if layer == 0 else outputs * (2 if bidirectional else 1)
                self._add_weights(suffix, inputs, outputs, dtype)
        self.reset_parameters()

    def _suffixes(self, layer: int) -> tuple[str, ...]:
        return (f"_l{layer}", f"_l{layer}_reverse") if self.bidirectional else (f"_l{layer}",)

    def flatten_parameters(self) -> None:
        """Nothing: a name that programs written for cuDNN call."""

    def _run(self, input: Tensor, given: Any) -> tuple[Tensor, State]:
        """(what the last layer put out at each entry, the last state of each layer and direction)."""
        order = "n, length" if self.batch_first else "length, n"
        self._check_input(input, {3: f"({order}, input)", 2: "(length, input)"})
        batched = input.ndim == 3
        sequence = manipulation.transpose(input, 0, 1) if self.batch_first and batched else input
        if sequence.shape[0] == 0:
            raise at_user_line(ShapeError(f"{type(self).__name__}: a sequence needs an entry; got {input.aval}"))
        places = self.num_layers * (2 if self.bidirectional else 1)
        sizes = (self.proj_size or self.hidden_size, self.hidden_size)[: self.parts]
        first = self._start(input, given, [(places, *sequence.shape[1:-1], size) for size in sizes])
        starts = iter(zip(*(arrangement.unbind(part) for part in first), strict=True))
        ends: list[State] = []
        for layer in range(self.num_layers):
            if layer:
                sequence = functional.dropout(sequence, self.dropout, self.training)
            ways = []
            for suffix in self._suffixes(layer):
                out, state = self._way(sequence, next(starts), suffix)
                ways.append(out)
                ends.append(state)
            sequence = manipulation.cat(ways, -1) if len(ways) > 1 else ways[0]
        out = manipulation.transpose(sequence, 0, 1) if self.batch_first and batched else sequence
        return out, tuple(manipulation.stack(part) for part in zip(*ends, strict=True))

    def _way(self, sequence: Tensor, state: State, suffix: str) -> tuple[Tensor, State]:
        """One layer in one direction: what it puts out, and its last state."""
        driven = arrangement.unbind(self._driven(sequence, suffix))
        backwards = suffix.endswith("_reverse")
        out = []
        for entry in reversed(driven) if backwards else driven:
            state = self._next(entry, state, suffix)
            out.append(state[0])
        return manipulation.stack(out[::-1] if backwards else out), state

    def extra_repr(self) -> str:
        """The sizes, and the options that are not as usual."""
        usual = {
            "proj_size": 0, "num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0, "bidirectional": False
        }  # fmt: skip
        options = [f"{name}={getattr(self, name)}" for name, value in usual.items() if getattr(self, name) != value]
        return ", ".join([str(self.input_size), str(self.hidden_size), *options])


class _OneState(_Layer):
    """A stack of layers whose state is h alone."""

    def forward(self, input: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(what the last layer put out at each entry, the last state of each layer).

        Args:
            input: (length, n, input_size), or (n, length, input_size) if `batch_first`; or without n.
            hx: the first states, (layers, n, hidden_size), both directions of a layer in turn; None: 0. Or without n.
        Returns: (length, n, hidden_size · directions), in the order of `input`, and the shape of `hx`.
        """
        out, (last,) = self._run(input, hx)
        return out, last


class RNN(_OneState):
    """A stack of Elman layers: h′ = tanh(x W_ihᵀ + b_ih + h W_hhᵀ + b_hh) at each entry of a sequence.

    Args:
        input_size: the size of an entry.
        hidden_size: the size of the state.
        num_layers: how many layers, each reading what the one before put out.
        nonlinearity: "tanh" or "relu".
        bias: whether there is b_ih and b_hh.
        batch_first: whether sequences are (n, length, size); else (length, n, size). States are not affected.
        dropout: the probability with which, in training, an entry between two layers is dropped.
        bidirectional: whether each layer reads the sequence from both ends; what it puts out is then twice as wide.
        dtype: of the parameters; float32 if None.
    Raises: ArgumentError: a size that is no positive int, or another option. ShapeError: an input or a state of other
        sizes. DTypeError: an input of another dtype.
    Source: Elman (1990), Finding structure in time, Cognitive Science 14(2).

    >>> import chainrule as cr
    >>> out, h = cr.nn.RNN(3, 4)(cr.zeros(5, 2, 3))
    >>> out.shape, h.shape
    ((5, 2, 4), (1, 2, 4))
    """

    gates = 1

    def __init__(  # noqa: PLR0913 - PyTorch's signature
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: Nonlinearity = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        dtype: object = None,
    ) -> None:
        super().__init__()
        self.nonlinearity = _known("RNN", nonlinearity)
        self._build(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, dtype)

    def _step(self) -> Step:
        return _RNN_STEPS[self.nonlinearity]


class LSTM(_Layer):
    """A stack of long short-term memories: at each entry of a sequence, gates decide what the state takes in and keeps.

    c′ = σ(f) · c + σ(i) · tanh(g) and h′ = σ(o) · tanh(c′), where [i f g o] = x W_ihᵀ + b_ih + h W_hhᵀ + b_hh.

    Args:
        input_size: the size of an entry.
        hidden_size: the size of the states.
        num_layers: how many layers, each reading what the one before put out.
        bias: whether there is b_ih and b_hh.
        batch_first: whether sequences are (n, length, size); else (length, n, size). States are not affected.
        dropout: the probability with which, in training, an entry between two layers is dropped.
        bidirectional: whether each layer reads the sequence from both ends; what it puts out is then twice as wide.
        proj_size: what h′ is projected to, by W_hr; 0: it is not.
        dtype: of the parameters; float32 if None.
    Raises: ArgumentError: a size that is no positive int, or another option. ShapeError: an input or a state of other
        sizes. DTypeError: an input of another dtype.
    Source: Hochreiter, Schmidhuber (1997), Long short-term memory, Neural Computation 9(8).

    >>> import chainrule as cr
    >>> out, (h, c) = cr.nn.LSTM(3, 4, num_layers=2, batch_first=True)(cr.zeros(2, 5, 3))
    >>> out.shape, h.shape, c.shape
    ((2, 5, 4), (2, 2, 4), (2, 2, 4))
    """

    gates, parts = 4, 2

    def __init__(  # noqa: PLR0913 - PyTorch's signature
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        dtype: object = None,
    ) -> None:
        super().__init__()
        check_sizes("LSTM", hidden_size=hidden_size)
        if type(proj_size) is not int or not 0 <= proj_size < hidden_size:
            raise at_user_line(ArgumentError(
                f"LSTM: proj_size must be an int from 0 to below hidden_size = {hidden_size}; got {proj_size!r}"
            ))  # fmt: skip
        self.proj_size = proj_size
        self._build(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, dtype)

    def _step(self) -> Step:
        return recurrent.lstm_cell

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """(what the last layer put out at each entry, the last states (h, c) of each layer).

        Args:
            input: (length, n, input_size), or (n, length, input_size) if `batch_first`; or without n.
            hx: the first states (h, c), each (layers, n, size), both directions of a layer in turn; None: 0. Or
                without n.
        Returns: (length, n, size of h · directions), in the order of `input`, and the shapes of `hx`.
        """
        out, (h, c) = self._run(input, hx)
        return out, (h, c)


class GRU(_OneState):
    """A stack of gated recurrent units: at each entry of a sequence, a state between the last one and a new one.

    h′ = (1 − z) · n + z · h, where r = σ(rₓ + rₕ), z = σ(zₓ + zₕ), n = tanh(nₓ + r · nₕ), [rₓ zₓ nₓ] = x W_ihᵀ + b_ih
    and [rₕ zₕ nₕ] = h W_hhᵀ + b_hh.

    Args:
        input_size: the size of an entry.
        hidden_size: the size of the state.
        num_layers: how many layers, each reading what the one before put out.
        bias: whether there is b_ih and b_hh.
        batch_first: whether sequences are (n, length, size); else (length, n, size). States are not affected.
        dropout: the probability with which, in training, an entry between two layers is dropped.
        bidirectional: whether each layer reads the sequence from both ends; what it puts out is then twice as wide.
        dtype: of the parameters; float32 if None.
    Raises: ArgumentError: a size that is no positive int, or another option. ShapeError: an input or a state of other
        sizes. DTypeError: an input of another dtype.
    Source: Cho et al. (2014), Learning phrase representations using RNN encoder-decoder, arXiv:1406.1078.

    >>> import chainrule as cr
    >>> out, h = cr.nn.GRU(3, 4, bidirectional=True)(cr.zeros(5, 2, 3))
    >>> out.shape, h.shape
    ((5, 2, 8), (2, 2, 4))
    """

    gates = 3

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        dtype: object = None,
    ) -> None:
        super().__init__()
        self._build(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, dtype)

    def _step(self) -> Step:
        return recurrent.gru_cell


def _known(name: str, nonlinearity: str) -> Nonlinearity:
    if nonlinearity not in tuple(_RNN_STEPS):  # whatever it is: not everything can be looked up
        raise at_user_line(ArgumentError(f"{name}: nonlinearity must be 'tanh' or 'relu'; got {nonlinearity!r}"))
    return nonlinearity  # type: ignore[return-value]


# --- cells


class _Cell(_Recurrent):
    """One layer, one entry."""

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, *, dtype: object = None) -> None:
        super().__init__()
        check_sizes(type(self).__name__, input_size=input_size, hidden_size=hidden_size)
        self.input_size, self.hidden_size, self.bias = input_size, hidden_size, bias
        self._add_weights("", input_size, hidden_size, dtype)
        if not bias:
            self.bias_ih = self.bias_hh = None
        self.reset_parameters()

    def _run(self, input: Tensor, given: Any) -> State:
        self._check_input(input, {2: "(n, input)", 1: "(input,)"})
        state = self._start(input, given, [(*input.shape[:-1], self.hidden_size)] * self.parts)
        return self._next(self._driven(input, ""), state, "")

    def extra_repr(self) -> str:
        """The sizes, and whether there is no bias."""
        return f"{self.input_size}, {self.hidden_size}{'' if self.bias else ', bias=False'}"


class _OneStateCell(_Cell):
    """One layer, one entry, whose state is h alone."""

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """(n, input_size) and the last state (n, hidden_size), or 0, to the next; or both without n."""
        return self._run(input, hx)[0]


class RNNCell(_OneStateCell):
    """One step of an `RNN` of one layer: h′ = tanh(x W_ihᵀ + b_ih + h W_hhᵀ + b_hh).

    Args:
        input_size: the size of an entry.
        hidden_size: the size of the state.
        bias: whether there is b_ih and b_hh.
        nonlinearity: "tanh" or "relu".
        dtype: of the parameters; float32 if None.
    Raises: ArgumentError: a size that is no positive int, or another nonlinearity. ShapeError: an input or a state of
        other sizes. DTypeError: an input of another dtype.

    >>> import chainrule as cr
    >>> cr.nn.RNNCell(3, 4)(cr.zeros(2, 3)).shape
    (2, 4)
    """

    gates = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: Nonlinearity = "tanh",
        *,
        dtype: object = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, dtype=dtype)
        self.nonlinearity = _known("RNNCell", nonlinearity)

    def _step(self) -> Step:
        return _RNN_STEPS[self.nonlinearity]

    def extra_repr(self) -> str:
        """The sizes, and the options that are not as usual."""
        return super().extra_repr() + ("" if self.nonlinearity == "tanh" else f", nonlinearity={self.nonlinearity}")


class LSTMCell(_Cell):
    """One step of an `LSTM` of one layer.

    Args:
        input_size: the size of an entry.
        hidden_size: the size of the states.
        bias: whether there is b_ih and b_hh.
        dtype: of the parameters; float32 if None.
    Raises: ArgumentError: a size that is no positive int. ShapeError: an input or a state of other sizes. DTypeError:
        an input of another dtype.

    >>> import chainrule as cr
    >>> h, c = cr.nn.LSTMCell(3, 4)(cr.zeros(2, 3))
    >>> h.shape, c.shape
    ((2, 4), (2, 4))
    """

    gates, parts = 4, 2

    def _step(self) -> Step:
        return recurrent.lstm_cell

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """(n, input_size) and the last states (h, c), each (n, hidden_size), or 0, to the next; or all without n."""
        h, c = self._run(input, hx)
        return h, c


class GRUCell(_OneStateCell):
    """One step of a `GRU` of one layer.

    Args:
        input_size: the size of an entry.
        hidden_size: the size of the state.
        bias: whether there is b_ih and b_hh.
        dtype: of the parameters; float32 if None.
    Raises: ArgumentError: a size that is no positive int. ShapeError: an input or a state of other sizes. DTypeError:
        an input of another dtype.

    >>> import chainrule as cr
    >>> cr.nn.GRUCell(3, 4)(cr.zeros(2, 3)).shape
    (2, 4)
    """

    gates = 3

    def _step(self) -> Step:
        return recurrent.gru_cell
