"""Prints src/chainrule/compile/llvm/coefficients.py: the polynomials behind exp, log, sin and the others.

    python tools/minimax.py > src/chainrule/compile/llvm/coefficients.py

Each is the minimax polynomial of its degree: the largest weighted error on the interval is the least possible (Remez'
exchange). The first coefficients are rounded to the element type one after the other, and those that
follow are fitted anew, so that they make good for what rounding took.

Source: Muller (2016), Elementary Functions, 3rd edition, sections 3.3 (Remez) and 4.3 (coefficients in a format).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import mpmath as mp
import numpy as np

mp.mp.dps = 120  # a remainder is divided by up to the 20th power of a small number
Function = Callable[[mp.mpf], mp.mpf]


class Fit(NamedTuple):
    """A polynomial P(z) wanted on [low, high]: target(z) ≈ P(z), errors weighed by weight(z)."""

    name: str
    says: str
    target: Function
    weight: Function
    low: mp.mpf
    high: mp.mpf
    coefficients: tuple[int, int]  # how many, for float32 and float64; 0: not needed


def remez(target: Function, weight: Function, low: mp.mpf, high: mp.mpf, count: int) -> tuple[list[mp.mpf], mp.mpf]:
    """The `count` coefficients, lowest first, of the best polynomial, and its weighted error."""
    middle, half = (low + high) / 2, (high - low) / 2
    # Most weights are 0 at 0: stay off it.
    away = half / 50 if low < 0 else half / 10**4
    nodes = [middle + half * mp.cos(mp.pi * (count - k) / count) for k in range(count + 1)]
    nodes = [z if abs(z) > away else z + 2 * away for z in nodes]
    dense = max(300, 30 * count)
    grid = [middle + half * mp.cos(mp.pi * k / dense) for k in range(dense, -1, -1)]
    truth = [(z, target(z), weight(z)) for z in grid if abs(z) > away]
    found: list[mp.mpf] = []
    for _ in range(12):
        rows = mp.matrix([[*(z**k for k in range(count)), (-1) ** i / weight(z)] for i, z in enumerate(nodes)])
        solved = mp.lu_solve(rows, mp.matrix([target(z) for z in nodes]))
        found, level = [solved[k] for k in range(count)], abs(solved[count])
        errors = [(w * (mp.polyval(found[::-1], z) - t), z) for z, t, w in truth]
        peaks: list[tuple[mp.mpf, mp.mpf]] = []
        for error, z in errors:
            if peaks and (error > 0) == (peaks[-1][0] > 0):
                if abs(error) > abs(peaks[-1][0]):
                    peaks[-1] = error, z
            else:
                peaks.append((error, z))
        while len(peaks) > count + 1:
            peaks.pop(0 if abs(peaks[0][0]) < abs(peaks[-1][0]) else -1)
        worst = max(abs(e) for e, _ in errors)
        if len(peaks) < count + 1 or worst < level * mp.mpf("1.01"):
            break
        nodes = [z for _, z in peaks]
    return found, worst


def rounded(fit: Fit, count: int, dtype: type[np.floating]) -> tuple[list[np.floating], mp.mpf]:
    """The coefficients in a float type, lowest first, and the weighted error they leave: the best of four roundings."""
    zs = [fit.low + (fit.high - fit.low) * (k + mp.mpf(1) / 3) / 1000 for k in range(1000)]
    truth = [(z, fit.target(z), fit.weight(z)) for z in zs]
    made = [_rounded(fit, count, dtype, singly) for singly in range(min(4, count - 1))]
    worst = [max(w * abs(_value(numbers, z) - t) for z, t, w in truth) for numbers in made]
    best = worst.index(min(worst))
    return made[best], worst[best]


def _rounded(fit: Fit, count: int, dtype: type[np.floating], singly: int) -> list[np.floating]:
    """Coefficients of which the first few are rounded singly, and the others fitted anew."""
    fixed: list[np.floating] = []
    for k in range(singly + 1):

        def rest(z: mp.mpf, known: tuple[np.floating, ...] = tuple(fixed), power: int = k) -> mp.mpf:
            return (fit.target(z) - _value(known, z)) / z**power

        free, _ = remez(rest, lambda z, power=k: fit.weight(z) * abs(z) ** power, fit.low, fit.high, count - k)
        fixed.append(_nearest(free[0], dtype))
    return [*fixed, *(_nearest(c, dtype) for c in free[1:])]


def _value(coefficients: Sequence[np.floating], z: mp.mpf) -> mp.mpf:
    return mp.polyval([mp.mpf(float(c)) for c in coefficients[::-1]] or [mp.mpf(0)], z)


def _nearest(number: mp.mpf, dtype: type[np.floating]) -> np.floating:
    return dtype(float(mp.nstr(number, 20, strip_zeros=False)))


def parts(number: mp.mpf, dtype: type[np.floating], count: int) -> list[np.floating]:
    """A number as an unevaluated sum of floats, largest first."""
    found = []
    for _ in range(count):
        found.append(_nearest(number, dtype))
        number -= mp.mpf(float(found[-1]))
    return found


def short(number: mp.mpf, dtype: type[np.floating]) -> list[np.floating]:
    """A number in two parts, the first of 12 bits (float32) or 40 (float64)."""
    places = 12 if dtype is np.float32 else 40
    first = mp.floor(mp.ldexp(number, places)) / 2**places
    return [_nearest(first, dtype), _nearest(number - first, dtype)]


def _log_series(s: mp.mpf) -> mp.mpf:
    return (mp.log((1 + s) / (1 - s)) - 2 * s - mp.mpf(2) / 3 * s**3) / s**5


LN2, ROOT2, PI = mp.log(2), mp.sqrt(2), mp.pi
FAR = {np.float32: mp.mpf("4"), np.float64: mp.mpf("6")}

FITS = (
    Fit(
        "EXP2", "2ᶠ = 1 + f P(f), |f| ≤ ½",
        lambda f: (mp.mpf(2) ** f - 1) / f, lambda f: abs(f) / mp.mpf(2) ** f, mp.mpf("-0.5005"), mp.mpf("0.5005"),
        (7, 12),
    ),
    Fit(
        "EXP", "eᶠ − 1 = f + f² P(f), |f| ≤ ½ log 2",
        lambda f: (mp.exp(f) - 1 - f) / f**2, lambda f: f**2 / abs(mp.exp(f) - 1), -LN2 / 2 * mp.mpf("1.001"),
        LN2 / 2 * mp.mpf("1.001"), (5, 11),
    ),
    Fit(
        "LOG", "log(1 + f) = f − ½ f² + f³ P(f), √½ ≤ 1 + f ≤ √2",
        lambda f: (mp.log(1 + f) - f + f**2 / 2) / f**3, lambda f: abs(f**3 / mp.log(1 + f)), 1 / ROOT2 - 1, ROOT2 - 1,
        (9, 20),
    ),
    Fit(
        "LOG1P", "log(1 + u) = u + u² P(u), 0 ≤ u ≤ 1",
        lambda u: (mp.log(1 + u) - u) / u**2, lambda u: u**2 / mp.log(1 + u), mp.mpf(0), mp.mpf(1), (9, 20),
    ),
    Fit(
        "LOG_TAIL", "log((1 + s) / (1 − s)) = 2 s + ⅔ s³ + s⁵ P(s²), s ≤ 3 − 2 √2",
        lambda z: _log_series(mp.sqrt(z)), lambda z: z * z / 2, mp.mpf(0), (3 - 2 * ROOT2) ** 2, (4, 9),
    ),
    Fit(
        "SIN", "sin f = f + f³ P(f²), |f| ≤ 1.75, a little more than ½ π",
        lambda z: (mp.sin(mp.sqrt(z)) / mp.sqrt(z) - 1) / z, lambda z: z * mp.sqrt(z) / mp.sin(mp.sqrt(z)), mp.mpf(0),
        mp.mpf("1.75") ** 2, (5, 9),
    ),
    Fit(
        "SIN_QUARTER", "sin f = f + f³ P(f²), |f| ≤ 0.9, a little more than ¼ π",
        lambda z: (mp.sin(mp.sqrt(z)) / mp.sqrt(z) - 1) / z, lambda z: z * mp.sqrt(z) / mp.sin(mp.sqrt(z)), mp.mpf(0),
        mp.mpf("0.9") ** 2, (4, 7),
    ),
    Fit(
        "COS_QUARTER", "cos f = 1 − ½ f² + f⁴ P(f²), |f| ≤ 0.9, a little more than ¼ π",
        lambda z: (mp.cos(mp.sqrt(z)) - 1 + z / 2) / z**2, lambda z: z**2 / mp.cos(mp.sqrt(z)), mp.mpf(0),
        mp.mpf("0.9") ** 2, (4, 7),
    ),
    Fit(
        "ASIN", "asin s = s + s³ P(s²), |s| ≤ ½",
        lambda z: (mp.asin(mp.sqrt(z)) / mp.sqrt(z) - 1) / z, lambda z: z * mp.sqrt(z) / mp.asin(mp.sqrt(z)),
        mp.mpf(0), mp.mpf("0.25"), (5, 12),
    ),
    Fit(
        "ATAN", "atan t = t + t³ P(t²), |t| ≤ 1",
        lambda z: (mp.atan(mp.sqrt(z)) / mp.sqrt(z) - 1) / z, lambda z: z * mp.sqrt(z) / mp.atan(mp.sqrt(z)),
        mp.mpf(0), mp.mpf(1), (8, 19),
    ),
    Fit(
        "SINH", "sinh x = x + x³ P(x²), |x| ≤ 1",
        lambda z: (mp.sinh(mp.sqrt(z)) / mp.sqrt(z) - 1) / z, lambda z: z * mp.sqrt(z) / mp.sinh(mp.sqrt(z)),
        mp.mpf(0), mp.mpf(1), (3, 7),
    ),
    Fit(
        "ERF_NEAR", "erf x = x + x P(x²), |x| ≤ 1",
        lambda z: mp.erf(mp.sqrt(z)) / mp.sqrt(z) - 1, lambda z: mp.sqrt(z) / mp.erf(mp.sqrt(z)), mp.mpf(0), mp.mpf(1),
        (7, 13),
    ),
)  # fmt: skip

# log₂ erfc(a) for 1 ≤ a ≤ FAR, in a − the middle; an error of it weighs by what it does to erf a = 1 − 2^P.
FAR_COUNT = {np.float32: 7, np.float64: 24}
FAR_MIDDLE = {np.float32: mp.mpf("2.5"), np.float64: mp.mpf("3.5")}


def _far(dtype: type[np.floating]) -> Fit:
    middle = FAR_MIDDLE[dtype]
    return Fit(
        "ERF_FAR", "erf a = 1 − 2^P(a − middle), 1 ≤ a ≤ 4 (float32) or 6",
        lambda u: mp.log(mp.erfc(u + middle), 2), lambda u: mp.erfc(u + middle) * LN2, 1 - middle, FAR[dtype] - middle,
        (FAR_COUNT[np.float32], FAR_COUNT[np.float64]),
    )  # fmt: skip


HEAD = '''"""Coefficients of the elementary functions' polynomials, lowest power first. Written by tools/minimax.py.

Above each: what it stands for, and the largest relative error of that form for float32 and float64, as a power of 2.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from chainrule.dtypes import float32, float64

# Numbers for each element type.
Table = Mapping[np.dtype, tuple[float, ...]]
'''


def _table(name: str, says: str, found: dict[str, tuple[list[np.floating], mp.mpf]]) -> None:
    errors = " and ".join(f"2^{float(mp.log(e, 2)):.1f}" for _, e in found.values())
    print(f"\n# {says}: {errors}\n{name}: Table = {{")
    for dtype, (numbers, _) in found.items():
        print(f"    {dtype}: (")
        line = "       "
        for number in numbers:
            if len(line) + len(str(number)) > 116:
                print(line)
                line = "       "
            line += f" {number!s},"
        print(line + "\n    ),")
    print("}  # fmt: skip")


def _parts(name: str, found: dict[str, list[np.floating]]) -> None:
    print(f"{name}: Table = {{")
    for dtype, numbers in found.items():
        print(f"    {dtype}: ({', '.join(str(n) for n in numbers)}),")
    print("}")


def main() -> None:
    """Print the file."""
    print(HEAD, end="")
    kinds = (("float32", np.float32), ("float64", np.float64))
    for fit in FITS:
        counts = zip(kinds, fit.coefficients, strict=True)
        _table(fit.name, fit.says, {name: rounded(fit, n, dtype) for (name, dtype), n in counts if n})
    far = {name: (_far(dtype), FAR_COUNT[dtype], dtype) for name, dtype in kinds}
    _table("ERF_FAR", far["float32"][0].says, {name: rounded(*made) for name, made in far.items()})
    print("\n# Constants in parts; the largest comes first.")
    constants = (("PI", PI, 3), ("LN2", LN2, 2), ("LOG2_E", 1 / LN2, 2), ("LOG10_E", 1 / mp.log(10), 2))
    constants += (("TWO_THIRDS", mp.mpf(2) / 3, 2),)
    for name, value, count in constants:
        _parts(name, {label: parts(value, dtype, count) for label, dtype in kinds})
    print("\n# The first with trailing zeros: its product with an exponent is exact.")
    for name, value in (("LN2_SHORT", LN2), ("LOG10_2_SHORT", mp.log10(2))):
        _parts(name, {label: short(value, dtype) for label, dtype in kinds})


if __name__ == "__main__":
    main()
