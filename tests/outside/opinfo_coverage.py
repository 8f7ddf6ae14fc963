"""Prints what PyTorch's sample inputs say about chainrule; with --write, renews `opinfo_coverage.txt` beside this file.

python tests/outside/opinfo_coverage.py [--write] [name of an op ...]
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path

import opinfo_walk

TABLE = Path(__file__).with_suffix(".txt")
RENEW = "python tests/outside/opinfo_coverage.py --write"

HEAD = """\
PyTorch's own sample inputs (OpInfo, torch.testing._internal.common_methods_invocations.op_db), put to every function
of chainrule that has the name of a PyTorch function. Kept by `{renew}`.

For each entry of PyTorch's table, the samples run. They agree with PyTorch, or the test fails.
    float64, float32, int64, bool   samples run for values and dtype, in that dtype
    gradients                       of those in float64, reference ones included: gradients for a random cotangent too;
                                    not where an input is inf or nan
    twice                           of those, differentiated again (the first {twice} of an entry)
    reference float64, ...          samples of PyTorch's larger set: extremes, layouts, mixed dtypes
Agreement: |ours - PyTorch's| <= tolerance * (1 + |PyTorch's|), tolerance {tolerances};
{second:g} for second derivatives; for gradients where PyTorch rounds a slope, {looser};
in float32 where large products cancel, {single}.
Of random values, shape and dtype are compared.
Left out of the call: device="cpu" and layout=torch.strided, since there is one of each.
Not walked: complex numbers, 16-bit floats, other integers than int64, the in-place and out= forms.

not covered: samples not run, or a difference that is meant, with the reason.
"""


def head() -> str:
    """What the columns mean."""
    tolerances = ", ".join(
        f"{value:g} in {dtype}" for dtype, value in opinfo_walk.TOLERANCE.items() if dtype.itemsize > 2
    )
    looser = ", ".join(f"{value:g} for {name}" for name, value in opinfo_walk.excuses.GRADIENT_TOLERANCE.items())
    single = ", ".join(f"{value:g} for {name}" for name, value in opinfo_walk.excuses.SINGLE_TOLERANCE.items())
    shared = {"single": single, "renew": RENEW, "twice": opinfo_walk.TWICE, "tolerances": tolerances, "looser": looser}
    return HEAD.format(**shared, second=opinfo_walk.TWICE_TOLERANCE)


def block(name: str, tally: opinfo_walk.Tally) -> str:
    """What became of one entry's samples, as the table has it."""
    lines = [name, "    run: " + (", ".join(f"{what} {n}" for what, n in tally.run.items()) or "none")]
    lines += [f"    not covered: {n}  {reason}" for reason, n in sorted(tally.not_covered.items())]
    return "\n".join(lines)


def blocks(text: str) -> dict[str, str]:
    """The blocks of a table, by name."""
    return {part.split("\n")[0]: part for part in text.split("\n\n") if "\n    run: " in part}


def lacking() -> str:
    """The names of PyTorch's table that chainrule has not got."""
    lines, line = [f"Not offered at all, {len(opinfo_walk.LACKING)} names:"], "   "
    for name in opinfo_walk.LACKING:
        if len(line) + len(name) > 118:
            lines.append(line)
            line = "   "
        line += f" {name}"
    return "\n".join([*lines, line])


def totals(written: dict[str, str]) -> str:
    """The sums over all blocks."""
    run: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for part in written.values():
        for what, n in re.findall(r"([a-z][a-z0-9 ]*) ([0-9]+)(?:,|$)", part.split("\n")[1].removeprefix("    run: ")):
            run[what] += int(n)
        for n, reason in re.findall(r"not covered: ([0-9]+)  (.*)", part):
            reasons[reason] += int(n)
    counted = sum(n for what, n in run.items() if what not in ("gradients", "twice"))
    lines = [
        f"Total: {len(written)} entries, {counted} samples run",
        "    " + ", ".join(f"{k} {v}" for k, v in run.items()),
    ]
    return "\n".join([*lines, *(f"    not covered: {n}  {reason}" for reason, n in reasons.most_common())])


def table(written: dict[str, str]) -> str:
    """The whole table."""
    return "\n\n".join([head().rstrip(), totals(written), *written.values(), lacking()]) + "\n"


def main(arguments: list[str]) -> int:
    """Walk, print, write. The number of faults is the exit status' reason, not its value."""
    names = [a for a in arguments if not a.startswith("-")]
    walked, faults = {}, []
    for name in opinfo_walk.OFFERED:
        entry = opinfo_walk.ENTRIES[name]
        if not names or entry.name in names:
            tally = opinfo_walk.walk(entry)
            walked[name] = block(name, tally)
            faults += [f"{name}: {fault}" for fault in tally.faults[:10]]
    print("\n\n".join(walked.values()) if names else table(walked))
    print(*faults, sep="\n", file=sys.stderr)
    if "--write" in arguments and not names:
        TABLE.write_text(table(walked), encoding="utf-8")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
