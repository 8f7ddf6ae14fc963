"""Random programs in the styles people write: source text made from a seed, statement by statement.

Every statement is run while it is written, so the next one can be built on shapes that exist; one that fails, or whose
values grow out of hand, is left out. The same seed gives the same program.
"""

import random
import re

import numpy as np

import chainrule as cr

HEAD = """\
import chainrule as cr
from chainrule import nn

cr.manual_seed({seed})


class Cube(cr.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 3 * x**2 * g


class Scaled(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.inner = nn.Linear(n, n)
        self.gain = nn.Parameter(cr.ones(n) * 0.7)

    def forward(self, x):
        return x + self.gain * self.inner(x).tanh()


class Mixer:
    def __init__(self, w):
        self.w = w

    def __call__(self, x):
        return self.mixed(x) * 0.5 - x

    def mixed(self, x):
        return (x + self.w).sin()

"""

SHAPES = ((), (1,), (3,), (4,), (1, 3), (4, 1), (4, 3), (3, 3), (2, 4, 3), (2, 1, 3), (2, 3, 4), (1, 1))

ANY = (
    "{a}.tanh()", "cr.sin({a})", "{a}.sigmoid()", "({a} / 3).exp()", "({a}.abs() + 0.5).log()",
    "({a}.square() + 1).sqrt()", "({a} ** 2 + 0.3) ** -0.5", "{a} ** 3", "1 / ({a}.abs() + 1)", "-{a}", "2 - {a}",
    "{a} / 3", "0.5 * {a}", "{a} * 2 - 1", "cr.where({a} > 0, {a}, 0.1 * {a})", "{a}.clamp(-0.8, 0.9)",
    "{a}.clamp_min(0.)", "{a}.clamp_max(0.4)", "{a}.relu()", "cr.expm1({a} / 4)", "cr.erf({a})", "{a}.abs()",
    "({a} * 0.3).tan()", "cr.atan({a})", "cr.log1p({a}.square())", "{a}.cos() - {a}", "cr.exp2({a} / 2)",
    "nn.functional.gelu({a})", "nn.functional.softplus({a})", "nn.functional.silu({a})",
    "nn.functional.logsigmoid({a})",
    "{a}.floor() + {a}", "{a} % 1.5", "cr.atan2({a}, 2 + {a}.cos())", "{a} * {a}", "{a} * {a} / ({a} * {a} + 2)",
    "(-{a}) * (2 - {a})", "{a} - (1 - {a})", "-(-{a} - 1)", "Cube.apply({a}) / 4", "{a}.detach() * {a}",
    "({a}.square() + 0.1).rsqrt()", "{a}.sinh() / 4", "{a}[None]", "({a} * 0.2).asin()", "2 ** {a}",
    "({a}.abs() + 1) ** 0.5", "{a}.reciprocal().clamp(-2, 2)", "{a}.square().mean() * {a}", "{a} * 0.25 * 4 / 3",
    "3 / ({a}.cosh() + 1)", "{a} / ({a}.abs() + 1) / 2", "{a} - {a}.sum() / 7", "{a} * {a}.detach().sign()",
    "nn.functional.dropout({a}, 0.5, training=False)", "nn.functional.leaky_relu({a}, 0.1)",
)  # fmt: skip
ARRAYS = (
    "{a}.softmax({d})", "{a}.log_softmax({d})", "{a}.sum({d})", "{a}.mean({d}, keepdim=True)", "{a}.mean({d})",
    "{a}.logsumexp({d})", "{a}.logsumexp({d}, keepdim=True)", "{a}.var({d})", "{a}.std({d}, keepdim=True)",
    "{a}.norm(dim={d})", "{a}.amax({d})", "{a}.max({d})[0]", "{a}.prod({d})", "{a}.cumsum({d})", "{a}.flip({d})",
    "{a}[0]", "{a}[-1:]", "{a}[..., ::2]", "{a}[:, None]", "{a}[[0, 0, -1]]", "{a}[{a} > 0].tanh()", "{a}.squeeze()",
    "{a}.unsqueeze({d})", "{a}.reshape(-1)", "{a}.transpose(0, -1)", "{a}.mT", "{a} - {a}.mean({d}, keepdim=True)",
    "({a} - {a}.mean({d}, keepdim=True)) / ({a}.var({d}, keepdim=True, correction=0) + 0.1).sqrt()",
    "nn.functional.pad({a}, (1, 2))", "{a}.tril()", "{a}.triu(1)", "{a}.roll(1, {d})", "cr.chunk({a}, 2, {d})[0]",
    "{a}.sum(keepdim=True)", "{a}.sum((0, -1), keepdim=True)", "{a}.mean((0, 1))", "cr.sort({a}, {d})[0]",
    "{a}.expand(2, *{a}.shape)", "{a}.gather({d}, {a}.argsort({d}))", "cr.stack([{a}, {a} * 2], {d})",
    "cr.cat([{a}, {a}.sin()], {d})", "{a} / {a}.norm()", "{a}.softmax({d}) * {a}", "{a} * {a}.sum({d}, keepdim=True)",
    "{a}.exp() / {a}.exp().sum({d}, keepdim=True)", "{a}.amin({d}, keepdim=True) - {a}", "{a}[..., 1]", "{a}[1:, None]",
    "{a}.masked_fill({a} < -0.5, 0.3)", "{a}.permute(*reversed(range({a}.ndim)))", "{a}.cumsum({d}).square()",
    "{a}[cr.tensor([1, 0])]", "{a}.logsumexp(tuple(range({a}.ndim)))", "{a}.diagonal() * 2",
    "{a}[..., None] * {a}[..., None, :]",
)  # fmt: skip
PAIRS = (
    "{a} + {b}", "{a} - {b}", "{a} * {b}", "{a} / ({b}.abs() + 1)", "cr.maximum({a}, {b})", "cr.minimum({a}, {b})",
    "cr.where({a} > {b}, {a}, {b} * 2)", "({a}.abs() + 0.5) ** ({b} / 2)", "{a} - 2 * {b}", "{b} - {a} * {b}",
    "{a} @ {b}", "{a} @ {b}.mT", "{a}.mT @ {b}", "({a} @ {b}) / 2", "({a} + 1) @ {b}", "cr.stack([{a}, {b}])",
    "cr.cat([{a}, {b}])", "cr.cat([{a}, {b}], -1)", "({a} - {b}).square()", "-({a} - {b})", "{a} - (-{b})",
    "cr.einsum('ij,kj->ik', {a}, {b})", "cr.einsum('bij,ij->b', {a}, {b})", "cr.atan2({a}, {b}.square() + 1)",
    "({a} * {b}).sum(-1)", "({a} * {b}).sum(0, keepdim=True)", "({a} @ {b}.mT).softmax(-1)", "{a}.lerp({b}, 0.3)",
    "nn.functional.mse_loss({a}, {b})", "cr.outer({a}.reshape(-1), {b}.reshape(-1))", "(-{a}) @ {b}", "{a} @ (2 * {b})",
    "{a} / 2 * {b}", "{a} * ({b} / 2)", "({a} - {b}) @ {b}", "{a} @ {b} @ {b}",
)  # fmt: skip
SCALARS = (
    "{a}.sum()", "{a}.mean()", "{a}.square().mean()", "{a}.norm()", "{a}.square().sum() / 5",
    "({a} - 0.3).square().mean()",
    "{a}.abs().sum() * 0.1", "{a}.sigmoid().log().mean()", "{a}.tanh().prod()",
)  # fmt: skip


def written(seed: int) -> str:
    """A program whose gradients are finite numbers."""
    while True:
        program = Program(seed)
        if program.is_finite():
            return program.source
        seed += 1000


class Program:
    """Grows a program; `source` is what it has come to."""

    def __init__(self, seed: int, statements: int = 7) -> None:
        self.rng = random.Random(seed)
        self.dtype = ("float32", "float64")[seed % 3 == 0]
        head = HEAD.format(seed=seed)
        self.lines = [head]
        self.space = {}
        exec(head, self.space)
        self.names, self.used, self.count = [], set(), 0
        for kind in ("w", "w", "w", "x"):
            self._leaf(kind)
        made = 0
        for _ in range(12 * statements):
            made += self._grow()
            if made == statements:
                break
        self._end()

    @property
    def source(self) -> str:
        return "\n".join(self.lines) + "\n"

    def is_finite(self) -> bool:
        """Are all gradients numbers?"""
        space = {}
        exec(self.source, space)
        space["loss"].backward()
        given = [v for v in space.values() if isinstance(v, cr.Tensor) and v.grad is not None]
        return all(np.isfinite(v.grad.numpy()).all() for v in given)

    def _leaf(self, kind: str) -> None:
        self.count += 1
        shape = self.rng.choice(SHAPES)
        name = f"{kind}{self.count}"
        grad = ".requires_grad_()" if kind == "w" else ""
        code = f"{name} = cr.randn({', '.join(map(str, shape)) or '()'}, dtype=cr.{self.dtype}){grad}"
        assert self._run(code, [name]), code

    def _run(self, code: str, results: list[str], largest: float = 30.0) -> bool:
        """Run a statement and keep it, if its results are tensors of a decent size."""
        trial = dict(self.space)
        try:
            exec(code, trial)
        except (cr.errors.ChainruleError, IndexError, ValueError, TypeError):
            return False
        for name in results:
            value = trial[name]
            if not isinstance(value, cr.Tensor) or not 0 < value.numel() <= 200 or value.ndim > 4:
                return False
            data = np.asarray(value.detach().numpy(), np.float64)
            if not np.isfinite(data).all() or np.abs(data).max() > largest:
                return False
        # The namespace is kept as it is: what failed has left no trace, and in-place updates only touch new values.
        self.space = trial
        self.lines.append(code)
        self.names += [n for n in results if n not in self.names]
        return True

    def _pick(self) -> str:
        late = self.names[-5:]
        return self.rng.choice(late if self.rng.random() < 0.7 else self.names)

    def _expression(self) -> str:
        """An expression of one or two values, one to three ops deep."""
        text = self._pick()
        for _ in range(self.rng.choice((1, 1, 2, 3))):
            inner = text if re.fullmatch(r"\w+", text) else f"({text})"
            kind = self.rng.random()
            if kind < 0.35:
                text = self.rng.choice(ANY).format(a=inner)
            elif kind < 0.65:
                text = self.rng.choice(ARRAYS).format(a=inner, d=self.rng.choice((0, -1, -2)))
            else:
                text = self.rng.choice(PAIRS).format(a=inner, b=self._pick())
        return text

    def _grow(self) -> bool:
        self.count += 1
        style = self.rng.choice(STYLES)
        code, results = style(self, f"h{self.count}")
        if not self._run(code, results):
            return False
        self.used |= set(re.findall(r"\b[hwx]\d+\b", code)) - set(results)
        return True

    def _end(self) -> None:
        loose = [n for n in self.names if n not in self.used and self.space[n].requires_grad]
        terms = []
        for name in loose or self.names[-1:]:
            term = self.rng.choice(SCALARS).format(a=name)
            if self._run(f"probe = {term}", ["probe"]):
                terms.append(term)
            if self.lines[-1].startswith("probe"):
                self.lines.pop()
                self.names.remove("probe")
        assert self._run(f"loss = {' + '.join(terms) or '(w1 * w1).sum()'}", ["loss"], largest=1e4), terms


def _arguments(text: str) -> list[str]:
    return list(dict.fromkeys(re.findall(r"\b[hwx]\d+\b", text)))


def _renamed(text: str, names: list[str]) -> tuple[str, str]:
    """(the text with values as parameters p, q, r, …; those parameters)."""
    letters = dict(zip(names, "pqrstuv", strict=False))
    return re.sub(r"\b[hwx]\d+\b", lambda m: letters[m.group()], text), ", ".join(letters[n] for n in names)


def plain(p: Program, name: str):
    return f"{name} = {p._expression()}", [name]


def function(p: Program, name: str):
    text = p._expression()
    names = _arguments(text)
    body, parameters = _renamed(text, names)
    return f"def f_{name}({parameters}):\n    return {body}\n{name} = f_{name}({', '.join(names)})", [name]


def function_with_steps(p: Program, name: str):
    text = p._expression()
    names = _arguments(text)
    body, parameters = _renamed(text, names)
    after = p.rng.choice(ANY).format(a="t")
    return (
        f"def f_{name}({parameters}):\n    t = {body}\n    u = {after}\n    return u * 0.5 + t.mean()\n"
        f"{name} = f_{name}({', '.join(names)})"
    ), [name]


def two_results(p: Program, name: str):
    text = p._expression()
    names = _arguments(text)
    body, parameters = _renamed(text, names)
    after = p.rng.choice((*ANY, *SCALARS)).format(a="t")
    return (
        f"def both_{name}({parameters}):\n    t = {body}\n    return t, {after}\n"
        f"{name}, {name}0 = both_{name}({', '.join(names)})"
    ), [name, f"{name}0"]


def nested(p: Program, name: str):
    text = p._expression()
    names = _arguments(text)
    body, parameters = _renamed(text, names)
    after = p.rng.choice(ANY).format(a="v")
    return (
        f"def inner_{name}(v):\n    return {after}\n"
        f"def outer_{name}({parameters}):\n    return inner_{name}(inner_{name}({body}) * 0.5)\n"
        f"{name} = outer_{name}({', '.join(names)})"
    ), [name]


def anonymous(p: Program, name: str):
    text = p._expression()
    names = _arguments(text)
    body, parameters = _renamed(text, names)
    return f"{name} = (lambda {parameters}: {body})({', '.join(names)})", [name]


def loop(p: Program, name: str):
    a, step = p._pick(), p.rng.choice(ANY).format(a=name)
    return f"{name} = {a} * 1.5\nfor _ in range(3):\n    {name} = {step} * 0.5 + {p._pick()}", [name]


def loop_in_function(p: Program, name: str):
    a, w, step = p._pick(), p._pick(), p.rng.choice(ANY).format(a="h")
    return (
        f"def run_{name}(x, w):\n    h = x\n    for k in range(3):\n        h = {step} * (k + 1) / 4 - w\n"
        "    return h\n"
        f"{name} = run_{name}({a}, {w})"
    ), [name]


def comprehension(p: Program, name: str):
    a = p._pick()
    step = p.rng.choice(ANY).format(a=f"({a} * k)")
    form = p.rng.choice(("cr.stack([{s} for k in (1, 2, 3)])", "sum({s} for k in (1, 2))"))
    return f"{name} = {form.format(s=step)}", [name]


def augmented(p: Program, name: str):
    return f"{name} = {p._expression()} * 1\n{name} += {p._pick()}\n{name} *= 0.5", [name]


def one_line(p: Program, name: str):
    step = p.rng.choice((*ANY, *ARRAYS)).format(a=f"{name}0", d=0)
    return f"{name}0 = {p._expression()}; {name} = {step}", [f"{name}0", name]


def linear(p: Program, name: str):
    a = p._pick()
    n = p.space[a].shape[-1] if p.space[a].ndim else 1
    cast = ".double()" if p.dtype == "float64" else ""
    made = p.rng.choice((
        f"nn.Linear({n}, 3)", f"Scaled({n})", f"nn.Sequential(nn.Linear({n}, 4), nn.Tanh(), nn.Linear(4, 2))",
    ))  # fmt: skip
    return f"m_{name} = {made}{cast}\n{name} = m_{name}({a})", [name]


def method(p: Program, name: str):
    return f"mix_{name} = Mixer({p._pick()})\n{name} = mix_{name}({p._pick()})", [name]


def twice(p: Program, name: str):
    a, b = p._pick(), p._pick()
    return f"def g_{name}(x, w):\n    return x * w - w\n{name} = g_{name}(g_{name}({a}, {b}), {b})", [name]


STYLES = (
    plain, plain, plain, function, function, function_with_steps, two_results, nested, anonymous, loop,
    loop_in_function, comprehension, augmented, one_line, linear, method, twice,
)  # fmt: skip
