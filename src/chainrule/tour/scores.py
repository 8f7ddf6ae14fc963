"""How good a trained net is, beside the simplest predictor there is and beside scikit-learn's standard one.

All are measured on the same validation part, which none was trained on, with the standard error of each number.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np

from chainrule.data.datasets import Split
from chainrule.errors import MissingExtraError


@dataclass(frozen=True)
class Score:
    """One predictor's results: what it is, and its numbers as text, under `Scores.columns`."""

    what: str
    numbers: tuple[str, ...]


@dataclass(frozen=True)
class Scores:
    """A table: several predictors, measured alike. measured_on: on what. verdict: what the numbers allow to say."""

    columns: tuple[str, ...]
    rows: tuple[Score, ...]
    measured_on: str
    verdict: str

    def facts(self) -> dict[str, str]:
        """The table's last column, by predictor, for the page."""
        column = self.columns[-1]
        return {f"{column} of {row.what}": row.numbers[-1] for row in self.rows} | {"measured on": self.measured_on}


def diabetes(data: Split, predict: Callable[[Any], Any]) -> Scores:
    """The net's error on patients it was not trained on: in points of the disease's progression, and as R²."""
    points = float(np.asarray(data.y_scale.std).reshape(-1)[0]) if data.y_scale is not None else 1.0
    x, y, x_valid, y_valid = _arrays(data)
    line = _sklearn("linear_model").LinearRegression().fit(x, y)
    predictors = {
        "the training mean": np.full_like(y_valid, y.mean()),
        "ordinary least squares": line.predict(x_valid),
        "the page's net": np.asarray(predict(data.x_valid)).reshape(-1),
    }
    rows = [_regression(what, found, y_valid, points) for what, found in predictors.items()]
    return Scores(("error (RMSE, points)", "R²"), tuple(rows), f"{len(y_valid)} patients held out", _verdict(
        [np.square(predictors[what] - y_valid) for what in ("the page's net", "ordinary least squares")],
        "the page's net", "ordinary least squares", "patients",
    ))  # fmt: skip


def _regression(what: str, found: np.ndarray, wanted: np.ndarray, points: float) -> Score:
    squares = np.square(found.astype(np.float64) - wanted)
    error = sqrt(float(squares.mean()))
    spread = (
        float(squares.std(ddof=1)) / sqrt(len(squares)) / (2 * max(error, 1e-12))
    )  # the delta method: d sqrt(m) = dm / 2 sqrt(m)
    r2 = 1 - float(squares.mean()) / float(np.var(wanted.astype(np.float64)))
    return Score(what, (f"{points * error:.1f} ± {points * spread:.1f}", f"{r2:.3f}"))


def digits(data: Split, predict: Callable[[Any], Any]) -> Scores:
    """How many of the digits that it was not trained on the net reads rightly."""
    x, y, x_valid, y_valid = _arrays(data)
    logistic = _sklearn("linear_model").LogisticRegression(max_iter=2000).fit(x, y)
    predictors = {
        "always the most frequent digit": np.full_like(y_valid, np.bincount(y).argmax()),
        "logistic regression": logistic.predict(x_valid),
        "the net": np.asarray(predict(data.x_valid)).argmax(1),
    }
    rows = [_classification(what, found, y_valid) for what, found in predictors.items()]
    return Scores(("accuracy",), tuple(rows), f"{len(y_valid)} digits held out", _verdict(
        [predictors[what] != y_valid for what in ("the net", "logistic regression")], "the net",
        "logistic regression", "digits",
    ))  # fmt: skip


def _classification(what: str, found: np.ndarray, wanted: np.ndarray) -> Score:
    share = float((found == wanted).mean())
    spread = sqrt(share * (1 - share) / len(wanted))
    return Score(what, (f"{100 * share:.1f} ± {100 * spread:.1f} %",))


def _verdict(losses: Sequence[np.ndarray], net: str, other: str, what: str = "samples") -> str:
    """Which of two predictors is better, if two standard errors of the mean difference, sample by sample, tell."""
    difference = losses[0].astype(np.float64) - losses[1].astype(np.float64)
    mean, error = float(difference.mean()), float(difference.std(ddof=1)) / sqrt(len(difference))
    if abs(mean) <= 2 * error:
        return (
            f"{net[0].upper()}{net[1:]} and {other} cannot be told apart on these {len(difference)} {what}: they "
            f"differ by less than two standard errors."
        )
    better, worse = (other, net) if mean > 0 else (net, other)
    return f"On these {len(difference)} {what}, {better} does better than {worse}, by more than two standard errors."


def _arrays(data: Split) -> Sequence[np.ndarray]:
    return [np.asarray(part) for part in (data.x_train, data.y_train, data.x_valid, data.y_valid)]


def _sklearn(module: str) -> Any:
    try:
        return importlib.import_module(f"sklearn.{module}")
    except ImportError:
        raise MissingExtraError(
            "the tour trains on scikit-learn's data, which is not installed: pip install 'chainrule[demo]'"
        ) from None


def check_installed() -> None:
    """Raises: MissingExtraError: scikit-learn is missing; said before anything is trained."""
    _sklearn("linear_model")
