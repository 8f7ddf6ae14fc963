"""The closed set of op families. An op is a value of one of these classes; every reader matches on the family.

The family knows how its kind of op is differentiated in both directions, shape-checked and tested; the op states only
what is its own. Rules are written in library ops and run on nodes: on numbers when a gradient is computed, on symbols
when it is explained. The families themselves use only the operators of the node's class: + * where, expand, sum.

Op
├── Elementwise   out[i] = f(inputs[i]), states the partial derivatives
├── Reduction     many entries to one along `dim`, states the partial derivative of the result by an entry
├── Linear        a linear map, states its transpose
├── Contraction   linear in each of two inputs, states both transposes and its index structure
├── Fused         a composite of library ops with a rule of its own
├── Source        values from no inputs, but for the key of a random stream
└── Opaque        a user's own forward and backward (cr.Function)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final

import numpy as np

from chainrule import dtypes
from chainrule.core.aval import Aval
from chainrule.core.node import ENGINE_OFF, AnyNode, Node, Ratio, apply, at_user_line, recording_mode
from chainrule.core.notation import Notation
from chainrule.core.origin import Copies, Origin
from chainrule.core.sample import Misuse, Sample
from chainrule.errors import ChainruleError, DerivativeRuleError, DTypeError, ShapeError

Rule = Callable[..., Any]
Cotangents = tuple[Any, ...]

# How a reduction that is a fold makes one entry of two.
Combine = Literal["add", "mul", "max", "min", "and", "or", "argmax", "argmin"]

# Where the derivative of an elementwise op is not unique, and which value the rule takes: words that begin with it.
# The place is a number, or the name of the parameter that holds it.
Kink = tuple[float | str, str]

DIFFERENTIABLE = ""


@dataclass(frozen=True, eq=False, kw_only=True)
class Op(ABC):
    """What every op states, whatever its family.

    name: the user's name for it.
    reference: the NumPy kernel; runs eagerly, and is the oracle for every other engine.
    notation: how it is written; explanations print any graph through it.
    samples, misuses: what the contract suite feeds it.
    domain: the interval its float samples are drawn from.
    no_gradient: why no gradient passes, in words; empty for a differentiable op.
    source: where the derivative is written down.
    """

    runs_ops: ClassVar[bool] = False  # does its kernel apply ops itself?

    name: str
    reference: Rule
    notation: Notation
    samples: tuple[Sample, ...] = ()
    misuses: tuple[Misuse, ...] = ()
    domain: tuple[float, float] = (-2.0, 2.0)
    no_gradient: str = DIFFERENTIABLE
    source: str = ""

    def __call__(self, *inputs: AnyNode, **params: Any) -> AnyNode:
        """Apply the op to inputs that fit its shape rule as they are: no broadcasting, no promotion.

        The rule is asked first, because NumPy would broadcast and promote in silence. The engine's own arithmetic, and
        functions that have aligned their inputs (they call `apply`), need not ask.
        """
        if recording_mode() is not ENGINE_OFF:
            try:
                self.infer(*[x.aval for x in inputs], **params)
            except ChainruleError as error:
                raise at_user_line(error) from None
        return apply(self, inputs, params)

    @abstractmethod
    def infer(self, *avals: Aval, **params: Any) -> Aval:
        """The shape rule: the output's aval, or the error that says what does not fit."""

    @abstractmethod
    def _pullback(self, g: Any, out: Node, needed: tuple[bool, ...]) -> Cotangents:
        """Cotangents of the inputs, unchecked; None where not needed."""

    @abstractmethod
    def jvp(self, tangents: tuple[Any, ...], out: Node) -> Any:
        """The output's tangent. A tangent of None is zero; at least one is not None."""

    def vjp(self, g: Any, out: Node, needed: tuple[bool, ...]) -> Cotangents:
        """Cotangents of the inputs, given the output's: `g · ∂out/∂input`, None where not needed.

        A cotangent has its primal's aval; checked here, for every op, every time.
        """
        cotangents = self._pullback(g, out, needed)
        if len(cotangents) != len(out.inputs):
            raise DerivativeRuleError(
                f"{self.name}: backward returned {len(cotangents)} gradients for {len(out.inputs)} inputs; "
                f"return one for each input, None where there is none"
            )
        for position, (x, cotangent) in enumerate(zip(out.inputs, cotangents, strict=True)):
            if cotangent is None:
                continue
            given, primal = cotangent.array, x.array
            if given is not None and primal is not None and given.dtype is primal.dtype and given.shape == primal.shape:
                continue
            if cotangent.aval == x.aval:
                continue
            raise DerivativeRuleError(
                f"{self.name}: the gradient of input {position} is {cotangent.aval}, the input itself is {x.aval}; "
                f"a gradient has the shape and dtype of what it is the gradient of"
            )
        return cotangents


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Elementwise(Op):
    """out[i] = f(inputs[i]). States the partial derivatives of f; vjp and jvp both follow.

    partials: one an input: (out, *inputs, **params) -> node; a float when constant; None for an input that carries no
        derivative (a condition). A rule that returns a boolean node is a gate: the direction passes where it is true.
    result: the dtype rule.
    kinks: inputs at which the derivative is a choice, with the choice.
    scalar: one element of it in the words of `core.scalar`, for compilers: (builder, *values, **params) -> value.
    dear: does one element take so many instructions that it is rather stored than computed again?
    jumps: is there an input around which its values lie apart, as those of floor do around 1? Of truth values, always.

    Inputs share one shape; a constant scalar may stand for an array filled with it.
    """

    partials: tuple[Rule | float | None, ...]
    result: Callable[[str, tuple[Aval, ...]], np.dtype]
    scalar: Callable[..., Any]
    dear: bool = False
    jumps: bool = False
    kinks: tuple[Kink, ...] = ()

    def infer(self, *avals: Aval, **params: Any) -> Aval:
        _counted(self.name, avals, len(self.partials))
        shape = max((aval.shape for aval in avals), key=len)
        if any(aval.shape not in (shape, ()) for aval in avals):
            raise ShapeError(f"{self.name}: inputs must share one shape; got {listed(avals)}")
        return Aval(shape, self.result(self.name, avals))

    def _pullback(self, g: Any, out: Node, needed: tuple[bool, ...]) -> Cotangents:
        return tuple([_scaled(g, p, out) if want else None for p, want in zip(self.partials, needed, strict=True)])

    def jvp(self, tangents: tuple[Any, ...], out: Node) -> Any:
        pairs = zip(tangents, self.partials, strict=True)
        return _total([_scaled(t, p, out) for t, p in pairs if t is not None and p is not None])


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Reduction(Op):
    """Many entries to one, along the dimensions `dim` (kept with size 1 if `keepdim`).

    combine: how two entries become one, where the op is such a fold; 16-bit floats add up in float32. For argmax and
        argmin the entry is its position, the first of equals, and nan is the extreme.
    expansion: what it is made of, where it is no fold: (x, *, dim, keepdim, **params) -> node.
    weight: ∂out/∂x[i] where it is one number for every entry: (count of entries reduced to one) -> Ratio.
    partial: ∂out/∂x[i] where it is not: (out, x, dim, **params) -> node shaped like x; `out` already has x's shape.
    """

    combine: Combine | None = None
    expansion: Rule | None = None
    weight: Callable[[int], Ratio] | None = None
    partial: Rule | None = None
    result: Callable[[str, tuple[Aval, ...]], np.dtype]

    def __post_init__(self) -> None:
        if (self.combine is None) == (self.expansion is None):
            raise TypeError(f"{self.name}: a reduction states either how entries combine or an expansion")

    def infer(self, *avals: Aval, **params: Any) -> Aval:
        _counted(self.name, avals, 1)
        (x,) = avals
        dim, keepdim = params["dim"], params["keepdim"]
        if any(not 0 <= d < x.ndim for d in dim) or len(set(dim)) != len(dim):
            raise ShapeError(f"{self.name}: dim {dim} does not name distinct dimensions of {x}")
        kept = tuple(1 if d in dim else n for d, n in enumerate(x.shape))
        shape = kept if keepdim else tuple(n for d, n in enumerate(x.shape) if d not in dim)
        return Aval(shape, self.result(self.name, avals))

    def _pullback(self, g: Any, out: Node, needed: tuple[bool, ...]) -> Cotangents:
        (x,) = out.inputs
        if self.weight is not None:
            return (_spread(_times(g, self.weight(_count(x.aval, out.params["dim"]))), x, out.params),)
        return (_spread(g, x, out.params) * self._slope(out),)

    def jvp(self, tangents: tuple[Any, ...], out: Node) -> Any:
        (t,) = tangents
        dim, keepdim = out.params["dim"], out.params["keepdim"]
        if self.weight is not None:
            return _times(t.sum(dim, keepdim), self.weight(_count(out.inputs[0].aval, dim)))
        return (t * self._slope(out)).sum(dim, keepdim)

    def _slope(self, out: Node) -> Any:
        assert self.partial is not None, f"{self.name} states neither a weight nor a partial"
        (x,) = out.inputs
        rest = {k: v for k, v in out.params.items() if k != "keepdim"}
        return self.partial(_spread(out, x, out.params), x, **rest)


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Linear(Op):
    """A linear map of its float inputs; integer inputs (indices) steer it.

    The jvp of a linear map is the map itself. Its vjp is its transpose: (g, *inputs, **params) -> the cotangent of the
    one float input, or a tuple with one for each input.

    origin: of an op that copies entries, which ones: see `core.origin`. Compilers and explanations read it.
    """

    shape_rule: Rule
    transpose: Rule
    origin: Origin | None = None

    def copies(self, out: Node) -> Copies | None:
        """Which entries `out` is copied from, or None; see `core.origin`."""
        return None if self.origin is None else self.origin(*[x.aval for x in out.inputs], **out.params)

    def infer(self, *avals: Aval, **params: Any) -> Aval:
        aval: Aval = self.shape_rule(*avals, **params)
        return aval

    def _pullback(self, g: Any, out: Node, needed: tuple[bool, ...]) -> Cotangents:
        found = self.transpose(g, *out.inputs, **out.params)
        if not isinstance(found, tuple):
            found = (found, *(None for _ in out.inputs[1:]))
        return tuple(cotangent if want else None for cotangent, want in zip(found, needed, strict=True))

    def jvp(self, tangents: tuple[Any, ...], out: Node) -> Any:
        moved = [
            _or_zero(t, x) if dtypes.is_float(x.aval.dtype) else x for t, x in zip(tangents, out.inputs, strict=True)
        ]
        return apply(self, tuple(moved), out.params)


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Contraction(Op):
    """Linear in each of two inputs: sums of products over shared indices.

    transposes: one an input: (g, x, y, **params) -> the cotangent of that input.
    subscripts: (x aval, y aval, **params) -> ("ik", "kj", "ij"): one letter a dimension of x, y and out. A letter that
        the output lacks is summed over. Explanations read the sums, and the reason for each transpose, off it.
    """

    shape_rule: Rule
    transposes: tuple[Rule, Rule]
    subscripts: Callable[..., tuple[str, str, str]]

    def infer(self, *avals: Aval, **params: Any) -> Aval:
        aval: Aval = self.shape_rule(*avals, **params)
        return aval

    def _pullback(self, g: Any, out: Node, needed: tuple[bool, ...]) -> Cotangents:
        rules = zip(self.transposes, needed, strict=True)
        return tuple([rule(g, *out.inputs, **out.params) if want else None for rule, want in rules])

    def jvp(self, tangents: tuple[Any, ...], out: Node) -> Any:
        (x, y), (dx, dy) = out.inputs, tangents
        terms = [] if dx is None else [apply(self, (dx, y), out.params)]
        terms += [] if dy is None else [apply(self, (x, dy), out.params)]
        return _total(terms)


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Fused(Op):
    """A composite of library ops with a rule of its own, shorter or steadier than the derivative of the composite.

    expansion: the composite, (*inputs, **params) -> node. The contract suite holds `pullback` against its derivative.
    pullback: (g, out, *inputs, **params) -> the cotangent of each input, as a tuple.
    The jvp is that of the expansion (see `autodiff.forward`).
    """

    shape_rule: Rule
    expansion: Rule
    pullback: Rule

    def infer(self, *avals: Aval, **params: Any) -> Aval:
        aval: Aval = self.shape_rule(*avals, **params)
        return aval

    def _pullback(self, g: Any, out: Node, needed: tuple[bool, ...]) -> Cotangents:
        found: Cotangents = self.pullback(g, out, *out.inputs, **out.params)
        return tuple(cotangent if want else None for cotangent, want in zip(found, needed, strict=True))

    def jvp(self, tangents: tuple[Any, ...], out: Node) -> Any:
        raise NotImplementedError("forward mode differentiates the expansion of a fused op, not the op")


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Source(Op):
    """Fills, ranges, random bits. The same params give the same values; random ones are drawn from a key, an input."""

    aval_rule: Callable[..., Aval]
    no_gradient: str = "it is made from no input"

    def infer(self, *avals: Aval, **params: Any) -> Aval:
        return self.aval_rule(*avals, **params)

    def _pullback(self, g: Any, out: Node, needed: tuple[bool, ...]) -> Cotangents:
        return tuple(None for _ in out.inputs)

    def jvp(self, tangents: tuple[Any, ...], out: Node) -> Any:
        raise NotImplementedError(f"{self.name}: {self.no_gradient}")


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class Opaque(Op):
    """One application of a user's own forward and backward; made by `cr.Function`, never in the catalogue.

    saved: the tensors that the backward reads.
    """

    runs_ops: ClassVar[bool] = True

    aval: Aval
    pullback: Rule
    saved: tuple[Any, ...] = ()

    def infer(self, *avals: Aval, **params: Any) -> Aval:
        return self.aval

    def _pullback(self, g: Any, out: Node, needed: tuple[bool, ...]) -> Cotangents:
        found: Cotangents = self.pullback(g, out)
        return found

    def jvp(self, tangents: tuple[Any, ...], out: Node) -> Any:
        raise DerivativeRuleError(
            f"{self.name}: forward mode needs a rule that a cr.Function does not state; use reverse mode (grad, vjp)"
        )


# dtype rules -----------------------------------------------------------------------------------------------------


def _counted(name: str, avals: tuple[Aval, ...], count: int) -> None:
    if len(avals) != count:
        raise ShapeError(f"{name}: takes {count} input{'s' * (count != 1)}, got {len(avals)}: {listed(avals)}")


def listed(avals: Sequence[Aval]) -> str:
    """Avals as a message lists them: float32[2,3] and float32[3]."""
    return " and ".join(map(str, avals))


def same_dtype(name: str, avals: tuple[Aval, ...]) -> np.dtype:
    """All inputs and the output have one dtype."""
    if len({aval.dtype for aval in avals}) != 1:
        raise DTypeError(f"{name}: inputs must share one dtype; got {listed(avals)}; cast one with .to()")
    return avals[0].dtype


def same_float(name: str, avals: tuple[Aval, ...]) -> np.dtype:
    """All inputs and the output have one float dtype."""
    dtype = same_dtype(name, avals)
    if not dtypes.is_float(dtype):
        raise DTypeError(f"{name}: needs a float dtype; got {listed(avals)}; cast with .to(cr.float32)")
    return dtype


def same_number(name: str, avals: tuple[Aval, ...]) -> np.dtype:
    """All inputs and the output have one dtype, and it is not bool."""
    dtype = same_dtype(name, avals)
    if dtype == dtypes.bool_:
        raise DTypeError(f"{name}: needs numbers; got {listed(avals)}; cast with .to(), or use the logical functions")
    return dtype


def boolean(name: str, avals: tuple[Aval, ...]) -> np.dtype:
    """Inputs share one dtype; the output is bool."""
    same_dtype(name, avals)
    return dtypes.bool_


def integer_or_bool(name: str, avals: tuple[Aval, ...]) -> np.dtype:
    """Inputs share one integer dtype or bool, and so does the output."""
    dtype = same_dtype(name, avals)
    if dtypes.is_float(dtype):
        raise DTypeError(
            f"{name}: needs integers or bool; got {listed(avals)}; cast with .to(), or compare to get bool"
        )
    return dtype


def choice(name: str, avals: tuple[Aval, ...]) -> np.dtype:
    """A bool condition, then inputs of one dtype, which is the output's."""
    if avals[0].dtype != dtypes.bool_:
        raise DTypeError(
            f"{name}: the condition must be bool; got {listed(avals)}; compare it with something, e.g. x > 0"
        )
    return same_dtype(name, avals[1:])


# shared arithmetic of the families --------------------------------------------------------------------------------


_NUMBERS = (Ratio, float)


def _scaled(direction: Any, partial: Rule | float | None, out: Node) -> Any:
    """direction · partial, without multiplying by ±1 and without letting 0 · inf through a gate."""
    if partial is None:
        return None
    if not callable(partial):
        if partial == 1.0:
            return direction
        return -direction if partial == -1.0 else type(direction).filled(direction.aval, 0.0)
    slope = partial(out, *out.inputs, **out.params)
    if isinstance(slope, _NUMBERS):
        return _times(direction, slope if isinstance(slope, Ratio) else Ratio(slope))
    data = slope.array
    if (slope.aval.dtype if data is None else data.dtype) is dtypes.bool_:
        return direction.gate(slope)
    return direction * slope


def _times(direction: Any, factor: Ratio) -> Any:
    """direction · factor; a unit fraction divides, as a person would write it."""
    if factor.numerator == 1:
        return direction if factor.denominator == 1 else direction / factor.denominator
    return direction * factor


def _spread(reduced: Any, x: Node, params: Mapping[str, Any]) -> Any:
    """A reduced value copied back over the dimensions it was reduced along."""
    shape = x.aval.shape
    if not params["keepdim"] and reduced.aval.shape:
        dim = params["dim"]
        reduced = reduced.reshape(tuple(1 if d in dim else n for d, n in enumerate(shape)))
    return reduced.expand(shape)


def _count(aval: Aval, dim: tuple[int, ...]) -> int:
    count = 1
    for d in dim:
        count *= aval.shape[d]
    return count


def _total(terms: list[Any]) -> Any:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _or_zero(tangent: Any, x: Node) -> Any:
    return type(x).filled(x.aval, 0.0) if tangent is None else tangent
