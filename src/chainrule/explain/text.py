"""An explanation in the terminal."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from chainrule.core.family import Contraction
from chainrule.core.node import ancestors
from chainrule.explain import chain
from chainrule.explain.derivation import Link, Step
from chainrule.explain.entries import Entry, sized
from chainrule.explain.measured import AGREES
from chainrule.explain.terms import Terms
from chainrule.ops import elementwise, reduction

if TYPE_CHECKING:
    from chainrule.explain.explanation import Explanation

LONGEST_COMBINED = 12  # links; a longer chain is read link by link
_SOURCES = 5  # lines of the user's beside the chain rule
_WIDTH = 100
_LONGEST_RULE = 60
_PLAIN_STEP = 3  # a linear layer is three ops; a step of more says what is folded in it
_SHOWN = 3
_SAID = 16  # columns before what is said beside a word
_REASONS = 3  # printed; `.reasons` holds all
_USES = 6  # of a value that are listed
_NAMES = 6  # of those that were made up here, and are said at the end


WIDE = 120  # columns, where nothing says how many there are


def explanation(e: Explanation, room: int = WIDE) -> str:
    """The whole explanation in `room` columns: what does not fit beside goes below."""
    blocks = [_head(e)]
    if e.at is not None:
        blocks.append(_entry(e))
        blocks.append(_checked(e))
        blocks += _recomputed(e)
        return _within("\n".join(b for b in blocks if b), room)
    blocks += ["", _chain(e, room), "", *_combined(e), _table(e, room)]
    left = max(e.lines - sum(b.count("\n") + 1 for b in blocks), 8)
    for reason in e.reasons[:_REASONS]:
        left -= len(reason.lines)
        if left >= 0:
            blocks.append(_reason(reason.title, reason.lines))
    blocks += _made_up(e, "\n".join(blocks))
    blocks.append(_checked(e))
    return _within("\n".join([*blocks, *_recomputed(e)]), room)


def _made_up(e: Explanation, said: str) -> list[str]:
    """What names stand for that were made up for the values of others: of constants, nothing else says it."""
    words = set(re.findall(r"[A-Za-z_][\w.]*", said))
    found = [
        (name, node)
        for name, node in e.derivation.made_up()
        if name in words and node.array is not None and node.op is None
    ]
    lines = [f"{name} = a constant, {node.aval} {array_text(np.asarray(node.array))}" for name, node in found[:_NAMES]]
    if len(found) > _NAMES:
        lines.append(f"and {len(found) - _NAMES} more constants")
    return [_reason("named here", tuple(lines))] if lines else []


def _within(text: str, room: int) -> str:
    """The text with long lines broken at spaces, each further indented than it began."""
    lines: list[str] = []
    for line in text.split("\n"):
        indent = " " * (len(line) - len(line.lstrip()) + 4)
        if len(line) <= room or len(indent) >= room // 2:
            lines.append(line)
            continue
        lines += textwrap.wrap(
            line, room, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False,
            drop_whitespace=True, replace_whitespace=False, expand_tabs=False,
        )  # fmt: skip
    return "\n".join(lines)


def terminal_width() -> int:
    """The columns there are to print in; many where the output is no terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDE


def _head(e: Explanation) -> str:
    loss = f"{e.loss_name} = {float(np.asarray(e.run.loss.array).reshape(-1)[0]):.6g}"
    if e.at is not None:
        return ""
    shape = shape_text(e.value.shape)
    if e.value.size <= _SHOWN:
        left = f"d{e.loss_name}/d{e.name}  {shape} = {array_text(e.value)}"
    else:
        left = f"d{e.loss_name}/d{e.name}  {shape}  norm {e.links[-1].norm:.6g}   mean|.| {np.abs(e.value).mean():.5g}"
    return f"{left:<60}  {loss}"


def shape_text(shape: tuple[int, ...]) -> str:
    """(200,1) as a person writes a shape."""
    return f"({','.join(map(str, shape))}{',' if len(shape) == 1 else ''})"


def array_text(array: np.ndarray) -> str:
    """The first entries: [0.00856 0.00234 0.01146 ...]."""
    flat = array.reshape(-1)
    shown = " ".join(f"{float(v):.4g}" for v in flat[:_SHOWN])
    return f"[{shown}{' ...' if flat.size > _SHOWN else ''}]"


# --- the chain rule, in either notation


def _chain(e: Explanation, room: int) -> str:
    """The chain rule, with the user's own lines beside it, or below where there is no room beside."""
    rows, sources = chain.chain(e), _sources(e)
    width = max(map(len, rows)) + 6
    if 2 + width + max(map(len, sources), default=0) > room:
        lines = [f"  {line}".rstrip() for line in (*rows, "", *sources)]
    else:
        count = max(len(rows), len(sources))
        padded = zip([*rows, *[""] * (count - len(rows))], [*sources, *[""] * (count - len(sources))], strict=True)
        lines = [f"  {row:<{width}}{source}".rstrip() for row, source in padded]
    if not chain.is_chain(e.derivation, e.links):
        lines += ["", f"  {chain.MEETING}"]
    return "\n".join(lines)


def _sources(e: Explanation) -> list[str]:
    """The user's own lines, from the loss down; of many, the first and the last."""
    seen: dict[str, str] = {}
    for link in e.links:
        for part in link.parts:
            place = part.step.fold.place
            if place is not None and place.text:
                seen.setdefault(place.text, str(place))
    shown = list(seen.items())
    if len(shown) > _SOURCES:
        shown = [*shown[: _SOURCES - 2], ("...", f"{len(shown) - _SOURCES + 1} lines between"), shown[-1]]
    width = max((len(t) for t, _ in shown), default=0)
    return [f"{text:<{width}}    {where}" for text, where in shown]


# --- formulas


def _combined(e: Explanation) -> list[str]:
    formula = e.combined
    if formula is None or len(e.links) < 2:
        return []
    text = e.derivation.written(formula)
    if len(text) > 3 * _WIDTH:
        return []
    lines = [f"  {e.name}.grad = {text}"]
    mean = _as_mean(e, formula)
    return [*lines, *([f"  {mean}"] if mean else []), ""]


def _as_mean(e: Explanation, formula: Any) -> str | None:
    """A sum of n entries over n read as a mean: 2 sum(out - y) / 200 is 2 x the mean of (out - y)."""
    found = mean_form(formula)
    if found is None or e.value.size != 1:
        return None
    factor, inner = found
    mean = float(e.derivation.exact(inner).mean())
    written = e.derivation.written(inner)
    return f"read it: {factor:g} x the mean of ({written}) = {factor:g} x {mean:.6g} = {factor * mean:.6g}"


def mean_form(formula: Any) -> tuple[float, Any] | None:
    """(a, x) where the formula is a · mean(x): a number times a sum over as many entries as the number divides by."""
    if formula.op is not elementwise.mul or formula.inputs[0].constant is None:
        return None
    ratio, total = formula.inputs[0].constant, formula.inputs[1]
    if total.op is not reduction.sum_ or ratio.denominator == 1:
        return None
    (x,) = total.inputs
    return (ratio.numerator, x) if x.aval.size == ratio.denominator and total.aval.size == 1 else None


# --- the link table


_SHAPE = 2  # the column that moves below its row where there is no room for it


def _table(e: Explanation, room: int) -> str:
    heads = (*(("link", "rule") if e.depth == 1 else ("forward", "backward")), "shape", "norm", "gain", "re-evaluated")
    rows = [_row(e, link) for link in e.links]
    widths = [max(map(len, column)) for column in zip(heads, *(row[:6] for row in rows), strict=True)]
    columns = list(range(len(heads)))
    if sum(widths) + 2 * len(widths) > room:
        columns.remove(_SHAPE)

    def aligned(cells: Sequence[str]) -> str:
        return ("  " + "  ".join(f"{cells[c]:<{widths[c]}}" for c in columns)).rstrip()

    lines = [aligned(heads)]
    keep = _kept(e, len(rows), max(e.lines - 20, 8))
    folded = 0
    for i, row in enumerate(rows):
        if i not in keep:
            folded += 1
            continue
        if folded:
            gains = _gain_range(e, i - folded, i)
            lines.append(f"  ...   {folded} links folded   gains {gains}   lines={e.lines + folded} shows them")
            folded = 0
        lines.append(aligned(row))
        below = row[6] if _SHAPE in columns else [row[_SHAPE], *row[6]]
        lines += [f"  {'':<{widths[0]}}    {extra}" for extra in below]
    return "\n".join(lines)


def _kept(e: Explanation, count: int, budget: int) -> set[int]:
    """Which links are shown: both ends, gains outside the usual, and as many of the rest as fit."""
    if count <= budget:
        return set(range(count))
    gains = [chain.gain(e.derivation, link) for link in e.links]
    known = [g for g in gains if g is not None] or [1.0]
    low, high = np.percentile(known, [1, 99])
    ends = {0, 1, 2, count - 3, count - 2, count - 1}
    odd = [i for i, g in enumerate(gains) if g is not None and not low <= g <= high]
    failing = [i for i, link in enumerate(e.links) if link.agrees is not True]
    return ends | set(odd[: budget // 3]) | set(failing[: budget // 3])


def _gain_range(e: Explanation, first: int, last: int) -> str:
    found = [chain.gain(e.derivation, link) for link in e.links[first:last]]
    gains = [g for g in found if g is not None]
    return f"{min(gains):.3g}-{max(gains):.3g}" if gains else "-"


def _row(e: Explanation, link: Link) -> tuple[Any, ...]:
    parts = link.parts
    formula = e.derivation.written(link.formula) if link.formula is not None else "not written in tensors"
    extra: list[str] = []
    if len(formula) > _LONGEST_RULE:  # on a line of its own, so that the table stays narrow
        extra = [formula if len(formula) <= 2 * _WIDTH else f"a formula of {len(formula):,} characters     .unfold()"]
        count = sum(len(p.step.fold.nodes) for p in parts)
        formula = f"{count} rule{'s' * (count != 1)}"
    if e.depth > 1:
        first = " and ".join(_forward(e, p.step) for p in parts[:2])
        rule = f"{link.name}.g = {formula}"
    else:
        first = f"d{e.loss_name}/d{link.name}"
        rule = f"{' + '.join(dict.fromkeys(chain.step_name(p.step) for p in parts))}: {formula}"
    ratio = chain.gain(e.derivation, link) if link is not e.links[-1] else None
    gain = f"x{ratio:.3g}" if ratio is not None else ""
    times = Counter(link.notes)
    extra += [*_numbers(e, link), *(note if n == 1 else f"{n} times: {note}" for note, n in times.items())]
    if len(parts) > 1:
        extra.append(_uses(e, link))
    folded = [n.op.name for p in parts for n in reversed(p.step.fold.nodes) if n.op is not None]
    if e.depth == 1 and len(parts) == 1 and len(folded) > _PLAIN_STEP:
        extra.append(
            f"{len(folded)} rules folded: {' . '.join(folded[:6])}{' ...' if len(folded) > 6 else ''}     .unfold()"
        )
    return (first, rule, shapes(link), f"{link.norm:.5g}", gain, verdict(link), extra)


def _uses(e: Explanation, link: Link) -> str:
    """What a gradient is the sum of: each use with its size; of many, how large they are, and where the largest is."""
    sizes = [
        (_norm(e, p.formula), str(p.step.fold.place or chain.step_name(p.step)))
        for p in link.parts
        if p.formula is not None
    ]
    what = f"sum of {len(link.parts)} uses"
    if len(sizes) <= _USES:
        return f"{what}: {', '.join(f'{place} norm {norm:.4g}' for norm, place in sizes)}"
    (least, _), (most, place) = min(sizes), max(sizes)
    return f"{what}, of norms {least:.4g} to {most:.4g}, the largest at {place}"


def _forward(e: Explanation, step: Step) -> str:
    """The step as the forward ran it: p = s^2."""
    d = e.derivation
    out = step.outputs[0]
    text = d.written(d.simplified(step.twins[id(out)]))
    return (
        f"{d.name(out)} = {text}"
        if len(text) <= _LONGEST_RULE // 2
        else f"{d.name(out)} = {chain.step_name(step)}(...)"
    )


def _norm(e: Explanation, formula: Any) -> float:
    return float(np.linalg.norm(e.derivation.value(formula).astype(np.float64)))


def verdict(link: Link) -> str:
    """Whether the formula, evaluated on the recorded values, gives the engine's gradient."""
    if link.error is None:
        return "unchecked: " + next((p.why_not for p in link.parts if p.why_not), "no formula")[:60]
    return f"ok {link.error:.0e}" if link.agrees else f"DIFFERS by {link.error:.1e}"


def shapes(link: Link) -> str:
    """What a link's formula does to shapes: (100,200) @ (200,50) -> (100,50)."""
    own = shape_text(link.gradient.shape)
    x = link.formula
    if x is not None and isinstance(x.op, Contraction):
        a, b = x.inputs
        return f"{shape_text(a.aval.shape)}@{shape_text(b.aval.shape)} -> {own}"
    if x is not None and x.op is elementwise.gate:
        return f"{own} * gate"
    if x is not None and x.op is reduction.sum_:
        return f"{shape_text(x.inputs[0].aval.shape)} -> {own}"
    return own


def _numbers(e: Explanation, link: Link) -> list[str]:
    """One line of the run's own numbers: a formula at its first entry, or the first terms of a sum."""
    x = link.formula
    if x is None or link.gradient.size == 0 or any(isinstance(n.op, Contraction) for n in ancestors([x])):
        return []
    d = e.derivation
    if x.op is reduction.sum_ and link.gradient.size == 1:
        terms = d.value(x.inputs[0]).reshape(-1)
        return (
            [f"{_added(terms[:_SHOWN])} + ... ({terms.size:,} terms) = {float(link.gradient.reshape(-1)[0]):.6g}"]
            if terms.size > _SHOWN
            else []
        )
    if x.op is None or any(n.op is reduction.sum_ for n in ancestors([x])):
        return []
    index = (0,) * link.gradient.ndim

    def one(x: Any, at: tuple[str, ...]) -> str:
        return f"{float(d.value(x)[tuple(int(i) for i in at)]):.4g}"

    text = Entry(one, one).write(x, sized(tuple(map(str, index)), link.gradient.shape))
    where = f"[{','.join(map(str, index))}]" if index else ""
    result = f"{float(link.gradient[index]):.4g}"
    return [f"{link.name}.g{where} = {text} = {result}"] if text != result and len(text) < _WIDTH else []


def _added(terms: Any) -> str:
    """0.5 - 0.25 + 1: terms with their signs."""
    text = " ".join(f"{'-' if v < 0 else '+'} {abs(float(v)):.4g}" for v in terms)
    return text[2:] if text.startswith("+") else f"-{text[2:]}"


# --- reasons, one entry, the check


def _reason(title: str, lines: tuple[str, ...]) -> str:
    return "\n".join(f"  {title if i == 0 else '':<13} {line}" for i, line in enumerate(lines))


def _entry(e: Explanation) -> str:
    assert e.at is not None
    where = f"{e.name}.grad[{','.join(map(str, e.at))}]"
    value = float(e.value[e.at])
    t = e.terms
    if t is None:
        return f"{where} = {value:.7g}   (its formula cannot be opened into terms)"
    if not t.over:
        return f"{where} = {value:.7g} = {t.formula}"
    lines = [f"{where} = {value:.7g} = {t.formula}, over {t.over}     {t.nonzero:,} of {t.count:,} terms are not 0"]
    for term in t.terms:
        at = ",".join(map(str, term.index))
        product = " x ".join(f"{v:.6g}" for _, v in term.factors)
        names = " x ".join(n for n, _ in term.factors)
        tail = f" = {term.value:.6g}" if len(term.factors) > 1 else ""
        lines.append(f"  {f'term {at}':<9} {product}{tail:<16}   {names}")
        if term.opened:
            lines.append(f"            {term.opened}")
    others = t.count - len(t.terms)
    if others > 0:
        lines.append(f"  other {others:,} terms {t.rest:+.6g}")
    return "\n".join(lines)


def terms_dict(t: Terms) -> dict[str, Any]:
    """One entry's terms as plain Python values."""
    return {
        "value": t.value,
        "formula": t.formula,
        "over": t.over,
        "count": t.count,
        "nonzero": t.nonzero,
        "rest": t.rest,
        "terms": [
            {
                "index": list(x.index),
                "factors": [{"what": w, "value": v} for w, v in x.factors],
                "value": x.value,
                "opened": x.opened,
            }
            for x in t.terms
        ],
    }


def _recomputed(e: Explanation) -> list[str]:
    lines = textwrap.wrap(e.recomputed, _WIDTH - _SAID)
    return [_reason("compiled", tuple(lines))] if lines else []


def _checked(e: Explanation) -> str:
    c = e.checked
    if isinstance(c, str):
        says = c
    elif not c.finite:
        says = f"{c.what} in float64: {c.measured:.8g}, stated {c.stated:.8g}: not finite, so nothing to compare"
    elif c.too_small:
        says = (
            f"{c.stated:.3g} is too small to measure: differences of this loss show no slope below {c.resolution:.1g}"
        )
    else:
        says = f"{c.what} in float64: {c.measured:.8g}, stated {c.stated:.8g}, relative error {c.error:.1e}"
        if not c.agrees:
            says += "   DIFFERS: a rule is wrong, or a kink is near; cr.check(loss) looks at each rule"
        elif c.error > AGREES:
            says += f"   rounding of {e.value.dtype}"
            says += "" if c.exact is None else f": in float64 the same rules give {c.exact:.8g}"
    return f"  {'checked':<13} {says}"
