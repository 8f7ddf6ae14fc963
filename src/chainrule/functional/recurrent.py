"""One step of a recurrent layer: the next state, from what the next entry of a sequence drives and from the last state.

What the input drives, x W_ihᵀ + b_ih, depends on no state: a layer computes it of a whole sequence in one product.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from chainrule.array.elementwise import relu, sigmoid, tanh
from chainrule.array.manipulation import chunk
from chainrule.functional.linear import linear

if TYPE_CHECKING:
    from chainrule.tensor import Tensor

__all__ = ["gru_cell", "lstm_cell", "rnn_relu_cell", "rnn_tanh_cell"]

# (what the input drives, the state, the weight and the bias of the state, the weight of a projection) to the new state,
# whose first part is also what the layer puts out.
State = tuple["Tensor", ...]
Step = Callable[["Tensor", State, "Tensor", "Tensor | None", "Tensor | None"], State]


def rnn_tanh_cell(
    drive: Tensor, state: State, weight: Tensor, bias: Tensor | None, projection: Tensor | None = None
) -> State:
    """h′ = tanh(drive + h W_hhᵀ + b_hh).

    Args:
        drive: (n, hidden), x W_ihᵀ + b_ih.
        state: (h,), (n, hidden).
        weight: W_hh, (hidden, hidden).
        bias: b_hh, (hidden,), or None.
        projection: only None.
    Returns: (h′,).
    """
    return (tanh(drive + linear(state[0], weight, bias)),)


def rnn_relu_cell(
    drive: Tensor, state: State, weight: Tensor, bias: Tensor | None, projection: Tensor | None = None
) -> State:
    """h′ = max(0, drive + h W_hhᵀ + b_hh); shapes as in `rnn_tanh_cell`."""
    return (relu(drive + linear(state[0], weight, bias)),)


def lstm_cell(
    drive: Tensor, state: State, weight: Tensor, bias: Tensor | None, projection: Tensor | None = None
) -> State:
    """c′ = σ(f) · c + σ(i) · tanh(g) and h′ = σ(o) · tanh(c′), where [i f g o] = drive + h W_hhᵀ + b_hh.

    Args:
        drive: (n, 4 · hidden), x W_ihᵀ + b_ih.
        state: (h, c), (n, out) and (n, hidden); `out` is `hidden` unless there is a projection.
        weight: W_hh, (4 · hidden, out).
        bias: b_hh, (4 · hidden,), or None.
        projection: W_hr, (out, hidden): h′ is multiplied by its transpose; or None.
    Returns: (h′, c′).
    Source: Hochreiter, Schmidhuber (1997), Long short-term memory, Neural Computation 9(8); with the forget gate of
        Gers, Schmidhuber, Cummins (2000); the projection: Sak, Senior, Beaufays (2014), arXiv:1402.1128.
    """
    h, c = state
    i, f, g, o = chunk(drive + linear(h, weight, bias), 4, -1)
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    h = sigmoid(o) * tanh(c)
    return (h if projection is None else linear(h, projection)), c


def gru_cell(
    drive: Tensor, state: State, weight: Tensor, bias: Tensor | None, projection: Tensor | None = None
) -> State:
    """h′ = (1 − z) · n + z · h, where r = σ(rₓ + rₕ), z = σ(zₓ + zₕ), n = tanh(nₓ + r · nₕ).

    Args:
        drive: (n, 3 · hidden), [rₓ zₓ nₓ] = x W_ihᵀ + b_ih.
        state: (h,), (n, hidden).
        weight: W_hh, (3 · hidden, hidden): [rₕ zₕ nₕ] = h W_hhᵀ + b_hh.
        bias: b_hh, (3 · hidden,), or None.
        projection: only None.
    Returns: (h′,).
    Source: Cho et al. (2014), arXiv:1406.1078; with the reset gate after the product, as cuDNN and PyTorch have it.
    """
    (h,) = state
    of_input, of_state = chunk(drive, 3, -1), chunk(linear(h, weight, bias), 3, -1)
    r, z = (sigmoid(x + s) for x, s in zip(of_input[:2], of_state[:2], strict=True))
    n = tanh(of_input[2] + r * of_state[2])
    return (n + z * (h - n),)
