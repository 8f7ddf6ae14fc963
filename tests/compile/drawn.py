"""Random programs: steps drawn one after the other, each on what is there, run as they are drawn.

A program is a function of its inputs; what it returns and how its steps read each other is drawn too. Values stay of
moderate size, so that eager and compiled can be told apart from rounding.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st

import chainrule as cr
from chainrule.ops.normalisation import normalize

F = cr.nn.functional
Draw = Callable[..., Any]
Step = Callable[..., cr.Tensor]

SHAPES = (
    (), (1,), (3,), (8,), (17,), (33,), (2, 3), (5, 7), (1, 9), (7, 1), (16, 16), (9, 33), (2, 3, 4), (3, 1, 5),
    (2, 5, 17), (2, 3, 6, 7), (1, 2, 8, 8), (0,), (0, 4), (3, 0, 2),
)  # fmt: skip
MOST = 4000  # entries of a value
LARGE = 50.0

SMOOTH: dict[str, Step] = {
    "tanh": lambda x: x.tanh(),
    "sin": lambda x: x.sin(),
    "sigmoid": lambda x: x.sigmoid(),
    "exp": lambda x: (x * 0.25).tanh().exp(),
    "square": lambda x: x.square() * 0.5,
    "cube": lambda x: (x * 0.5) ** 3,
    "log": lambda x: (x.square() + 1.0).log(),
    "sqrt": lambda x: (x.square() + 0.5).sqrt(),
    "inverse": lambda x: 1.0 / (x.square() + 1.0),
    "erf": lambda x: x.erf(),
    "atan": lambda x: x.atan(),
    "neg": lambda x: -x,
    "scaled": lambda x: x * 0.7 + 0.3,
    "gelu": lambda x: F.gelu(x),
    "softplus": lambda x: F.softplus(x),
    "silu": lambda x: F.silu(x),
    "clone": lambda x: x.clone(),
    "detached": lambda x: x.detach() + x,
}
KINKED: dict[str, Step] = {
    "relu": lambda x: x.relu(),
    "abs": lambda x: x.abs(),
    "clamp": lambda x: x.clamp(-0.83, 0.91),
    "leaky": lambda x: F.leaky_relu(x, 0.1),
    "masked": lambda x: x.masked_fill(x > 0.37, 0.5),
    "floor": lambda x: x - (x * 3.1).floor() * 0.1,
    "whole": lambda x: x + (x * 2.3).int().to(x.dtype) * 0.1,
    "positive": lambda x: x * (x > 0.11).to(x.dtype),
    "sign": lambda x: x.sign() * 0.5 + x,
}
PAIRS: dict[str, Step] = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y * 0.5,
    "mul": lambda x, y: x * y.tanh(),
    "div": lambda x, y: x / (y.square() + 1.0),
    "maximum": lambda x, y: cr.maximum(x, y + 0.123),
    "minimum": lambda x, y: cr.minimum(x - 0.123, y),
    "where": lambda x, y: cr.where(x > y + 0.0123, x, y),
    "atan2": lambda x, y: cr.atan2(x, y.square() + 0.5),
    "masked": lambda x, y: cr.where((x < 0.31) & (y > -0.47), y * 0.5, x),
}


@dataclass
class Program:
    """A drawn program: `steps` make values from the inputs and each other, `results` are returned.

    arrays: what the inputs hold.
    """

    arrays: list[np.ndarray]
    steps: list[tuple[str, Step, tuple[int, ...]]] = field(default_factory=list)
    results: list[int] = field(default_factory=list)

    def values(self, *inputs: cr.Tensor) -> list[cr.Tensor]:
        """The inputs, then what each step makes."""
        values = list(inputs)
        for _, step, reads in self.steps:
            values.append(step(*(values[i] for i in reads)))
        return values

    def __call__(self, *inputs: cr.Tensor) -> list[cr.Tensor]:
        values = self.values(*inputs)
        return [values[i] for i in self.results]

    def loss(self, *inputs: cr.Tensor) -> cr.Tensor:
        """A number that depends on every result."""
        total = cr.zeros((), dtype=cr.float64)
        for number, x in enumerate(self(*inputs)):
            weights = np.cos(np.arange(x.numel()) + number).reshape(x.shape)
            total = total + (x * cr.tensor(weights)).sum()
        return total

    def value_and_gradients(self, *inputs: cr.Tensor) -> Any:
        """Results, loss, and the gradient of each input."""
        value, found = cr.value_and_grad(self.loss, argnums=tuple(range(len(inputs))))(*inputs)
        return self(*inputs), value, found

    def tensors(self, dtype: Any = cr.float64) -> list[cr.Tensor]:
        """The inputs."""
        return [cr.tensor(a, dtype=dtype) for a in self.arrays]

    def __repr__(self) -> str:
        lines = [f"v{i} = input {a.shape}" for i, a in enumerate(self.arrays)]
        for number, (name, _, reads) in enumerate(self.steps, len(lines)):
            lines.append(f"v{number} = {name}({', '.join(f'v{i}' for i in reads)})")
        return "\n".join([*lines, f"return {', '.join(f'v{i}' for i in self.results)}"])


class _Drawing:
    def __init__(self, draw: Draw, longest: int) -> None:
        self.draw = draw
        shapes = draw(st.lists(st.sampled_from(SHAPES), min_size=1, max_size=3))
        rng = np.random.default_rng(draw(st.integers(0, 2**16)))
        self.program = Program([rng.uniform(-1.5, 1.5, shape) for shape in shapes])
        self.values = self.program.tensors()
        for _ in range(draw(st.integers(2, longest))):
            self.step()
        last = len(self.values) - 1
        more = draw(st.lists(st.integers(0, last), max_size=3))
        self.program.results = [last, *more]

    def pick(self, where: Callable[[cr.Tensor], bool] = lambda x: True) -> int | None:
        """A value that has some property; what was made last rather than others."""
        fitting = [i for i, x in enumerate(self.values) if where(x)]
        if not fitting:
            return None
        return fitting[-1 - min(self.draw(st.integers(0, 5)), len(fitting) - 1)]

    def made(self, name: str, step: Step, *reads: int) -> None:
        value = step(*(self.values[i] for i in reads))
        if value.numel() > MOST:
            return
        self.program.steps.append((name, step, reads))
        self.values.append(value)
        if value.numel() and float(value.abs().max().item()) > LARGE:
            self.made("tanh", SMOOTH["tanh"], len(self.values) - 1)

    def step(self) -> None:
        kind = self.draw(st.sampled_from(KINDS))
        kind(self)

    # --- kinds of steps

    def unary(self) -> None:
        x = self.pick()
        name = self.draw(st.sampled_from([*SMOOTH, *KINKED]))
        self.made(name, (SMOOTH | KINKED)[name], x)

    def pair(self) -> None:
        x = self.pick()
        y = self.pick(lambda y: broadcastable(self.values[x].shape, y.shape))
        name = self.draw(st.sampled_from(list(PAIRS)))
        self.made(name, PAIRS[name], x, y)

    def reduction(self) -> None:
        x = self.pick(lambda x: x.ndim and x.numel())
        if x is None:
            return
        rank = self.values[x].ndim
        dims = tuple(sorted(self.draw(st.sets(st.integers(0, rank - 1), min_size=1))))
        keep = self.draw(st.booleans())
        name, f = self.draw(st.sampled_from([
            ("sum", lambda x: x.sum(dims, keepdim=keep)),
            ("mean", lambda x: x.mean(dims, keepdim=keep)),
            ("amax", lambda x: x.amax(dims, keepdim=keep)),
            ("amin", lambda x: x.amin(dims, keepdim=keep)),
            ("var", lambda x: x.var(dims, correction=0, keepdim=keep)),
            ("logsumexp", lambda x: x.logsumexp(dims, keepdim=keep)),
            ("norm", lambda x: (x.square().sum(dims, keepdim=keep) + 0.1).sqrt()),
            ("count", lambda x: (x > 0.21).sum(dims, keepdim=keep).to(x.dtype) * 0.1),
            ("any", lambda x: (x > 0.9).any(dims[0], keepdim=keep).to(x.dtype)),
            ("argmax", lambda x: x.argmax(dims[0], keepdim=keep).to(x.dtype) * 0.1),
            ("argmin", lambda x: x.argmin(dims[0], keepdim=keep).to(x.dtype) * 0.1),
            ("prod", lambda x: x.tanh().prod(dims[0], keepdim=keep)),
        ]))  # fmt: skip
        self.made(f"{name} {dims} {keep}", f, x)

    def normalised(self) -> None:
        x = self.pick(lambda x: x.ndim and x.numel())
        if x is None:
            return
        rank = self.values[x].ndim
        dim = self.draw(st.integers(0, rank - 1))
        name, f = self.draw(st.sampled_from([
            ("softmax", lambda x: x.softmax(dim)),
            ("log_softmax", lambda x: x.log_softmax(dim)),
            ("layer_norm", lambda x: F.layer_norm(x, x.shape[dim:], eps=0.1)),
            ("rms_norm", lambda x: F.rms_norm(x, x.shape[dim:], eps=0.1)),
            ("normalize", lambda x: normalize(x, dim=(dim,), eps=0.1)),
            ("cumsum", lambda x: x.cumsum(dim) * 0.3),
            ("centred", lambda x: x - x.mean(dim, keepdim=True)),
            ("shifted", lambda x: (x - x.amax(dim, keepdim=True)).exp()),
            ("sorted", lambda x: x.sort(dim)[0]),
            ("picked", lambda x: x.gather(dim, x.argsort(dim, descending=True))),
            ("top", lambda x: x.gather(dim, x.argmax(dim, keepdim=True))),
            ("hot", lambda x: x * F.one_hot(x.argmax(-1), x.shape[-1]).to(x.dtype)),
        ]))  # fmt: skip
        self.made(f"{name} {dim}", f, x)

    def move(self) -> None:
        x = self.pick(lambda x: x.ndim)
        if x is None:
            return
        shape = self.values[x].shape
        rank = len(shape)
        which = self.draw(st.integers(0, 9))
        dim = self.draw(st.integers(0, rank - 1))
        n = shape[dim]
        if which == 0:
            order = tuple(self.draw(st.permutations(range(rank))))
            self.made(f"permute {order}", lambda x: x.permute(order), x)
        elif which == 1:
            self.made("flatten", lambda x: x.reshape(-1), x)
        elif which == 2 and n:
            split = self.draw(st.sampled_from([d for d in range(1, n + 1) if n % d == 0]))
            new = (*shape[:dim], split, n // split, *shape[dim + 1 :])
            self.made(f"reshape {new}", lambda x: x.reshape(new), x)
        elif which == 3 and rank > 1:
            first = min(dim, rank - 2)
            new = (*shape[:first], shape[first] * shape[first + 1], *shape[first + 2 :])
            self.made(f"reshape {new}", lambda x: x.reshape(new), x)
        elif which == 4 and n:
            start = self.draw(st.integers(0, n - 1))
            stop = self.draw(st.integers(start, n))
            step = self.draw(st.integers(1, 3))
            at = (*(slice(None),) * dim, slice(start, stop, step))
            self.made(f"slice {at}", lambda x: x[at], x)
        elif which == 5:
            self.made(f"flip {dim}", lambda x: x.flip(dim), x)
        elif which == 6:
            y = self.pick(
                lambda y: (
                    y.ndim == rank
                    and all(a == b or d == dim for d, (a, b) in enumerate(zip(shape, y.shape, strict=True)))
                )
            )
            self.made(f"cat {dim}", lambda x, y: cr.cat([x, y, x], dim), x, y)
        elif which == 7:
            widths = self.draw(st.tuples(st.integers(0, 3), st.integers(0, 3)))
            self.made(f"pad {widths}", lambda x: F.pad(x, widths), x)
        elif which == 8 and n:
            index = self.draw(st.integers(0, n - 1))
            self.made(f"select {dim} {index}", lambda x: x.select(dim, index), x)
        elif which == 9:
            count = self.draw(st.integers(1, 3))
            new = (count, *shape)
            self.made(f"expand {new}", lambda x: x.expand(new), x)

    def window(self) -> None:
        x = self.pick(lambda x: x.ndim and x.shape[-1] > 1)
        if x is None:
            return
        n = self.values[x].shape[-1]
        size = self.draw(st.integers(1, min(n, 4)))
        stride, dilation = self.draw(st.integers(1, 3)), self.draw(st.integers(1, max(1, (n - 1) // max(size - 1, 1))))
        self.made(f"windows {size} {stride} {dilation}", lambda x: F.windows(x, (size,), (stride,), (dilation,)), x)

    def product(self) -> None:
        x = self.pick(lambda x: x.ndim and x.shape[-1])
        if x is None:
            return
        shape = self.values[x].shape
        n = shape[-1]
        which = self.draw(st.integers(0, 4))
        if which == 0:
            columns = self.draw(st.sampled_from([1, 2, 5, 16, 19]))
            weight = np.sin(np.arange(n * columns)).reshape(n, columns) / n**0.5
            self.made(f"@ weight {weight.shape}", lambda x: x @ cr.tensor(weight), x)
        elif which == 1 and len(shape) > 1:
            self.made("x @ x.T", lambda x: (x @ x.mT) * (1.0 / n), x)
        elif which == 2 and len(shape) > 1:
            self.made("x.T @ x", lambda x: (x.mT @ x) * (1.0 / max(shape[-2], 1)), x)
        elif which == 3:
            y = self.pick(lambda y: y.ndim > 1 and y.shape[-2] == n and broadcastable(shape[:-2], y.shape[:-2]))
            if y is not None:
                self.made("@", lambda x, y: (x @ y) * (1.0 / n), x, y)
        else:
            y = self.pick(lambda y: y.shape == (n,))
            if y is not None:
                self.made("@ vector", lambda x, y: (x @ y) * (1.0 / n), x, y)

    def indexed(self) -> None:
        x = self.pick(lambda x: x.ndim and x.shape[0])
        if x is None:
            return
        shape = self.values[x].shape
        n = shape[0]
        index = self.draw(st.lists(st.integers(-n, n - 1), min_size=1, max_size=7))
        places = np.array(index)
        name, f = self.draw(st.sampled_from([
            ("x[i]", lambda x: x[cr.tensor(places)]),
            ("x[argsort]", lambda x: x[x.reshape(n, -1)[:, 0].argsort(0)] if x.numel() else x),
            ("index_add", lambda x: (x * 0.0).index_add(0, cr.tensor(places), x[cr.tensor(places)])),
            ("x[x > 0]", lambda x: x[(x.reshape(n, -1).sum(1) > 0.123).to(cr.int64).clamp(0, n - 1)]),
            ("put", lambda x: x.index_put((cr.tensor(places),), x[:1].expand(len(index), *shape[1:]), True)),
        ]))  # fmt: skip
        self.made(f"{name} {index}", f, x)

    def network(self) -> None:
        which = self.draw(st.integers(0, 2))
        if which == 0:
            x = self.pick(lambda x: x.ndim >= 2 and x.numel() and x.shape[-1] > 1)
            if x is not None:
                causal = self.draw(st.booleans())
                self.made(
                    f"attention {causal}",
                    lambda x: F.scaled_dot_product_attention(x, x.sin(), x * 0.5, is_causal=causal),
                    x,
                )
            return
        x = self.pick(lambda x: x.ndim >= 2 and min(x.shape[-2:]) >= 4 and x.numel())
        if x is None:
            return
        height, width = self.values[x].shape[-2:]
        channels = self.values[x].numel() // (height * width)
        size = self.draw(st.integers(1, 4))
        stride, padding = self.draw(st.integers(1, 2)), self.draw(st.integers(0, size // 2))
        batch = self.draw(st.sampled_from([b for b in (1, 2, 3) if channels % b == 0]))
        shape = (batch, channels // batch, height, width)
        if which == 1:
            weight = np.sin(np.arange(3 * shape[1] * size * size)).reshape(3, shape[1], size, size) / size
            self.made(
                f"conv2d {weight.shape} {stride} {padding}",
                lambda x: F.conv2d(x.reshape(shape), cr.tensor(weight), stride=stride, padding=padding), x,
            )  # fmt: skip
        else:
            self.made(
                f"max_pool2d {size} {stride} {padding}",
                lambda x: F.max_pool2d(x.reshape(shape), size, stride=stride, padding=padding), x,
            )  # fmt: skip

    def random(self) -> None:
        x = self.pick()
        name, f = self.draw(st.sampled_from([
            ("dropout", lambda x: F.dropout(x, 0.3)),
            ("rand", lambda x: x + cr.rand(*x.shape, dtype=x.dtype)),
            ("randn", lambda x: x * cr.randn(*x.shape, dtype=x.dtype)),
            ("randint", lambda x: x + cr.randint(0, 5, x.shape).to(x.dtype) * 0.1),
        ]))  # fmt: skip
        self.made(name, f, x)


KINDS = (
    *[_Drawing.unary] * 3, *[_Drawing.pair] * 2, *[_Drawing.reduction] * 2, *[_Drawing.move] * 3,
    *[_Drawing.product] * 2, _Drawing.normalised, _Drawing.window, _Drawing.indexed, _Drawing.network, _Drawing.random,
)  # fmt: skip


def broadcastable(shape: Sequence[int], other: Sequence[int]) -> bool:
    """Do two shapes broadcast?"""
    return all(a == b or 1 in (a, b) for a, b in zip(reversed(shape), reversed(other), strict=False))


@st.composite
def programs(draw: Draw, longest: int = 25) -> Program:
    """Programs of 2 to `longest` steps."""
    return _Drawing(draw, longest).program
