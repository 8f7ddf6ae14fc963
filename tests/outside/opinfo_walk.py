"""Runs PyTorch's own sample inputs (OpInfo, `op_db`) through chainrule, one entry of the table at a time.

Knows how a sample becomes a chainrule call and when two results agree. What is left out on purpose, and why, stands in
`opinfo_excuses`; a sample that fails without an excuse is a fault, and no sample is dropped without being counted.
"""

from __future__ import annotations

import inspect
import random
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import opinfo_excuses as excuses
import torch
from torch.testing._internal.common_methods_invocations import op_db

import chainrule as cr
import chainrule.nn.functional

DTYPES = (torch.float64, torch.float32, torch.int64, torch.bool)
# |ours − theirs| ≤ tolerance · (1 + |theirs|), entry by entry; inf and nan must be the same.
TOLERANCE = {cr.float64: 1e-10, cr.float32: 1e-5, cr.float16: 2e-3, cr.bfloat16: 1.6e-2}
TWICE_TOLERANCE = 1e-8  # second derivatives, in float64
TWICE = 3  # samples an entry that are differentiated twice

LARGEST = 100_000  # entries of a reference input that is still run

Function = Callable[..., Any]


@dataclass
class Tally:
    """What became of the samples of one entry."""

    run: Counter[str] = field(default_factory=Counter)
    not_covered: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


class NotCovered(Exception):
    """The sample cannot be put to chainrule; the message says why."""


def title(entry: Any) -> str:
    """The entry's name, with its variant."""
    return entry.name + (f" ({entry.variant_test_name})" if entry.variant_test_name else "")


ENTRIES = {title(entry): entry for entry in op_db}


# --- which function of chainrule an entry speaks of


def offered(entry: Any) -> Function | None:
    """chainrule's function (or method) of the entry's name, or of a name that PyTorch calls an alias of it."""
    for name in (entry.name, *(alias.name for alias in entry.aliases)):
        if name in excuses.CALLED_AS:
            return excuses.CALLED_AS[name]
        found = _function(cr, name) or (None if "." in name else _method(name))
        if found is not None:
            return found
    return None


def _function(root: Any, dotted: str) -> Function | None:
    found = root
    for part in dotted.split("."):
        found = getattr(found, part, None)
    return found if callable(found) and not inspect.isclass(found) else None


def _method(name: str) -> Function | None:
    found = getattr(cr.Tensor, name, None)
    if isinstance(found, property):
        return found.fget
    return found if callable(found) else None


LACKING = sorted({entry.name for entry in op_db if offered(entry) is None})
OFFERED = sorted(name for name, entry in ENTRIES.items() if offered(entry) is not None)


# --- samples as chainrule arguments


def mapped(change: Callable[[Any], Any], value: Any) -> Any:
    """The value with `change` applied to whatever in it is no container."""
    if isinstance(value, slice):
        return slice(*(mapped(change, part) for part in (value.start, value.stop, value.step)))
    if isinstance(value, list | tuple):
        parts = [mapped(change, part) for part in value]
        return parts if isinstance(value, list) else tuple(parts)
    if isinstance(value, dict):
        return {key: mapped(change, part) for key, part in value.items()}
    return change(value)


class Leaves:
    """The tensors of a sample as leaves of PyTorch and as leaves of chainrule, which share their memory.

    One tensor stays one leaf, wherever it stands. Views and layouts stay as they are.
    """

    def __init__(self, wants_gradient: Callable[[torch.Tensor], bool]) -> None:
        self.differentiated: list[tuple[torch.Tensor, cr.Tensor]] = []
        self._wants_gradient = wants_gradient
        self._torch: dict[int, torch.Tensor] = {}
        self._ours: dict[int, cr.Tensor] = {}

    def as_torch(self, value: Any) -> Any:
        """A sample's value, as PyTorch is given it."""
        if not isinstance(value, torch.Tensor):
            return value
        if id(value) not in self._torch:
            leaf = value.detach()
            self._torch[id(value)] = leaf.requires_grad_() if self._wants_gradient(value) else leaf
        return self._torch[id(value)]

    def as_ours(self, value: Any) -> Any:
        """A value given to PyTorch, as chainrule is given it."""
        if isinstance(value, torch.dtype):
            return _dtype(value)
        if isinstance(value, complex):
            raise NotCovered("complex numbers are not offered")
        if not isinstance(value, torch.Tensor):
            return value
        if id(value) not in self._ours:
            _dtype(value.dtype)
            if value.layout is not torch.strided:
                raise NotCovered("sparse tensors are not offered")
            leaf = cr.from_numpy(array_of(value))
            if value.requires_grad:
                self.differentiated.append((value, leaf.requires_grad_()))
            self._ours[id(value)] = leaf
        return self._ours[id(value)]


def _dtype(dtype: torch.dtype) -> np.dtype:
    if dtype.is_complex:
        raise NotCovered("complex numbers are not offered")
    try:
        return cr.dtypes.as_dtype(str(dtype).removeprefix("torch."))
    except cr.errors.DTypeError:
        raise NotCovered(f"{dtype} is not offered") from None


def flat(value: Any) -> list[Any]:
    """The tensors and numbers of a result, in order."""
    return [leaf for part in value for leaf in flat(part)] if isinstance(value, list | tuple) else [value]


# --- agreement


def array_of(value: Any) -> np.ndarray:
    """A result of either library as a NumPy array."""
    if isinstance(value, torch.Tensor):
        if value.dtype is torch.bfloat16:
            return value.detach().view(torch.int16).numpy().view(cr.bfloat16)
        return value.numpy(force=True)
    return np.asarray(value.detach().numpy() if isinstance(value, cr.Tensor) else value)


def differs(ours: Any, theirs: Any, tolerance: float | None = None) -> str:
    """How two results differ, in words; empty if they agree."""
    a, b = array_of(ours), array_of(theirs)
    if a.shape != b.shape:
        return f"shape {a.shape}, PyTorch {b.shape}"
    if a.dtype != b.dtype:
        return f"dtype {a.dtype}, PyTorch {b.dtype}"
    if a.dtype not in TOLERANCE:
        return "" if np.array_equal(a, b) else f"{_short(a)}, PyTorch {_short(b)}"
    tolerance = tolerance or TOLERANCE[a.dtype]
    if a.dtype.itemsize == 2:
        a, b = a.astype(np.float32), b.astype(np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        close = (a == b) | (np.isnan(a) & np.isnan(b)) | (np.abs(a - b) <= tolerance * (1 + np.abs(b)))
    close &= np.isfinite(b) | (a == b) | np.isnan(b)  # inf agrees with inf only
    if close.all():
        return ""
    worst = tuple(np.argwhere(~close)[0].tolist())
    return f"{np.sum(~close)} of {a.size} entries, first at {worst}: {a[worst]}, PyTorch {b[worst]}"


def _short(a: np.ndarray) -> str:
    return np.array2string(a, threshold=8, edgeitems=2).replace("\n", "")


# --- one sample


class Case:
    """One sample, put to both libraries."""

    def __init__(
        self, entry: Any, function: Function, sample: Any, wants_gradient: Callable[[torch.Tensor], bool]
    ) -> None:
        self.entry, self.function = entry, function
        self.leaves = Leaves(wants_gradient)
        given = {name: value for name, value in sample.kwargs.items() if not excuses.only_one(name, value)}
        for name, value in given.items():
            if name in excuses.KEYWORDS and value is not None:
                raise NotCovered(excuses.KEYWORDS[name])
            if name in excuses.RANDOM_KEYWORDS and value:
                raise NotCovered(excuses.RANDOM_KEYWORDS[name])
        arguments = (sample.input, *sample.args), given
        theirs = mapped(self.leaves.as_torch, arguments)
        self.theirs = self._reference(*theirs)
        self.args, self.kwargs = mapped(self.leaves.as_ours, theirs)

    def _reference(self, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Any]:
        """PyTorch's results."""
        with warnings.catch_warnings(action="ignore"):  # PyTorch's remarks on its own samples
            try:
                return flat(self.entry.op(*args, **kwargs))
            except Exception as error:
                raise NotCovered("PyTorch refuses its own sample") from error

    def results(self, args: Any = None, kwargs: Any = None) -> list[Any]:
        """chainrule's results."""
        args, kwargs = (self.args, self.kwargs) if args is None else (args, kwargs)
        try:
            return flat(self.function(*args, **kwargs))
        except Exception as error:
            for kind, words, reason in (*excuses.ERRORS.get(self.entry.name, ()), *excuses.ERRORS["any"]):
                if isinstance(error, kind) and words in str(error):
                    raise NotCovered(reason) from error
            raise

    def value_differences(self, ours: list[Any]) -> Iterator[str]:
        """How the values differ, in words."""
        if len(ours) != len(self.theirs):
            yield f"{len(ours)} results, PyTorch {len(self.theirs)}"
            return
        for a, b in zip(ours, self.theirs, strict=True):
            if isinstance(b, torch.Tensor):
                _dtype(b.dtype)
            if self.entry.name in excuses.RANDOM:
                a, b = np.zeros_like(array_of(a)), np.zeros_like(array_of(b))
            single = array_of(b).dtype == cr.float32
            difference = differs(a, b, excuses.SINGLE_TOLERANCE.get(self.entry.name) if single else None)
            if difference:
                yield difference

    def weights(self, rng: np.random.Generator) -> list[np.ndarray | None]:
        """A random cotangent of each result that PyTorch differentiates."""
        random_values = self.entry.name in excuses.RANDOM
        return [
            np.asarray(rng.standard_normal(b.shape)).astype(array_of(b).dtype)
            if _has_gradient(b) and not random_values
            else None
            for b in self.theirs
        ]

    def pulled(self, weights: Sequence[np.ndarray | None], *, twice: bool = False) -> tuple[torch.Tensor | None, ...]:
        """PyTorch's gradients, given those cotangents."""
        roots = [b for b, w in zip(self.theirs, weights, strict=True) if w is not None]
        seeds = [
            torch.from_numpy(w.astype(np.float64)).to(b.dtype)
            for b, w in zip(self.theirs, weights, strict=True)
            if w is not None
        ]
        inputs = [x for x, _ in self.leaves.differentiated]
        try:
            return torch.autograd.grad(roots, inputs, seeds, allow_unused=True, create_graph=twice)
        except RuntimeError as error:
            raise NotCovered("PyTorch refuses to differentiate its own sample") from error

    def gradient_differences(self, ours: list[Any], weights: Sequence[np.ndarray | None]) -> Iterator[str]:
        """How the gradients differ, in words."""
        loss = _weighted(ours, weights)
        if loss.requires_grad:
            loss.backward()
        for position, (g, (_, leaf)) in enumerate(zip(self.pulled(weights), self.leaves.differentiated, strict=True)):
            tolerance = excuses.GRADIENT_TOLERANCE.get(self.entry.name)
            difference = differs(_or_zero(leaf.grad, leaf), _or_zero(g, leaf), tolerance)
            if difference:
                yield f"gradient {position}: {difference}"

    def second_differences(self, weights: Sequence[np.ndarray | None], rng: np.random.Generator) -> list[str] | None:
        """How the gradients of ⟨w, gradient of ⟨v, f⟩⟩ differ. None: PyTorch says the first gradient is constant."""
        leaves = self.leaves.differentiated
        inputs = [x for x, _ in leaves]
        directions = [rng.standard_normal(x.shape) for x in inputs]
        pairs = zip(self.pulled(weights, twice=True), directions, strict=True)
        linked = [(g, torch.from_numpy(np.asarray(d))) for g, d in pairs if g is not None and g.requires_grad]
        if not linked:
            return None
        wanted = torch.autograd.grad([g for g, _ in linked], inputs, [d for _, d in linked], allow_unused=True)

        def slope(*values: cr.Tensor) -> cr.Tensor:
            put = {id(leaf): value for (_, leaf), value in zip(leaves, values, strict=True)}
            return _weighted(self.results(*mapped(lambda x: put.get(id(x), x), (self.args, self.kwargs))), weights)

        positions = tuple(range(len(leaves)))

        def sloped(*values: cr.Tensor) -> cr.Tensor:
            return _weighted(cr.grad(slope, positions)(*values), directions)

        found = cr.grad(sloped, positions)(*(leaf.detach() for _, leaf in leaves))
        differences = [differs(a, _or_zero(b, a), TWICE_TOLERANCE) for a, b in zip(found, wanted, strict=True)]
        return [f"{position}: {difference}" for position, difference in enumerate(differences) if difference]


def _has_gradient(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.requires_grad and not value.is_complex()


def _weighted(results: Sequence[Any], weights: Sequence[np.ndarray | None]) -> cr.Tensor:
    terms = [(r * cr.asarray(w)).sum() for r, w in zip(results, weights, strict=True) if w is not None]
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _or_zero(gradient: Any, like: cr.Tensor) -> Any:
    """No gradient says the same as a gradient of 0."""
    return np.zeros(like.shape, like.dtype) if gradient is None else gradient


# --- one entry


def samples(entry: Any, dtype: torch.dtype, *, reference: bool = False) -> list[Any]:
    """PyTorch's sample inputs, the same ones every time; or its larger set, which adds extremes, layouts and dtypes."""
    torch.default_generator.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - the global state is what PyTorch's generators of samples use
    random.seed(0)
    with warnings.catch_warnings(action="ignore"):
        if reference:
            return (
                []
                if entry.reference_inputs_func is None
                else list(entry.reference_inputs("cpu", dtype, set_seed=False))
            )
        return list(entry.sample_inputs("cpu", dtype, requires_grad=_differentiated(entry, dtype), set_seed=False))


def _differentiated(entry: Any, dtype: torch.dtype) -> bool:
    return entry.supports_autograd and dtype is torch.float64 and dtype in entry.backward_dtypes


def walk(entry: Any) -> Tally:
    """Every sample of one entry, in every dtype walked, counted."""
    tally = Tally()
    torch.set_num_threads(1)  # the samples are small, and the test workers many
    for dtype in DTYPES:
        if dtype not in entry.dtypes:
            continue
        for number, sample in enumerate(samples(entry, dtype)):
            _run(entry, dtype, sample, tally, number, lambda x: x.requires_grad)
        for number, sample in enumerate(samples(entry, dtype, reference=True)):
            if isinstance(sample.input, torch.Tensor) and sample.input.numel() > LARGEST:
                tally.not_covered[f"larger than {LARGEST} entries"] += 1
                continue
            differentiated = _differentiated(entry, dtype)
            _run(
                entry,
                dtype,
                sample,
                tally,
                number,
                lambda x, on=differentiated: on and x.dtype is torch.float64,
                "reference ",
            )
    return tally


def _run(
    entry: Any, dtype: torch.dtype, sample: Any, tally: Tally, number: int,
    wants_gradient: Callable[[torch.Tensor], bool], prefix: str = "",
) -> None:  # fmt: skip
    """Run one sample for values, gradients and second gradients, as far as it has them, and count."""
    name = prefix + str(dtype).removeprefix("torch.")
    rng = np.random.default_rng(number)
    function = offered(entry)
    assert function is not None

    def note(what: str, differences: Any) -> None:
        tally.run[what] += 1
        for difference in differences:
            _note_difference(entry, tally, f"{what}: {_written(sample)}: {difference}")

    what = name
    try:
        with warnings.catch_warnings(action="error"):
            case = Case(entry, function, sample, wants_gradient)
            ours = case.results()
            note(name, case.value_differences(ours))
            weights = case.weights(rng)
            if case.leaves.differentiated and any(w is not None for w in weights) and _all_finite(case.args):
                what = "gradients"
                note(what, case.gradient_differences(ours, weights))
                if tally.run["twice"] < TWICE and entry.supports_gradgrad and not prefix:
                    what = "twice"
                    seconds = Case(entry, function, sample, wants_gradient).second_differences(weights, rng)
                    if seconds is not None:
                        note(what, seconds)
    except NotCovered as excuse:
        tally.not_covered[str(excuse)] += 1
    except Exception as error:  # noqa: BLE001 - every error of chainrule's is a fault to list
        note(what, [f"{type(error).__name__}: {error}"])


def _note_difference(entry: Any, tally: Tally, fault: str) -> None:
    for pattern, reason in excuses.DIFFERENCES.get(entry.name, ()):
        if re.search(pattern, fault):
            tally.not_covered[reason] += 1
            return
    tally.faults.append(fault)


def _all_finite(values: Any) -> bool:
    """Are all numbers in there finite? A derivative at infinity is nobody's to define."""
    finite = True

    def look(value: Any) -> None:
        nonlocal finite
        if isinstance(value, cr.Tensor) and cr.dtypes.is_float(value.dtype):
            finite = finite and bool(np.isfinite(value.detach().numpy()).all())

    mapped(look, values)
    return finite


def _written(sample: Any) -> str:
    def brief(value: Any) -> str:
        if isinstance(value, torch.Tensor):
            return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
        if isinstance(value, list | tuple):
            return "(" + ", ".join(map(brief, value)) + ")"
        return repr(value)

    parts = [brief(sample.input), *map(brief, sample.args), *(f"{k}={brief(v)}" for k, v in sample.kwargs.items())]
    return ", ".join(parts)[:300]
