"""Rows of figures as pandas frames: which columns a kind of row has, and the label of each line."""

from collections import Counter
from dataclasses import dataclass

import pandas as pd


class ReadError(ValueError):
    """Rows cannot be read; the message names the file or the column, and the way out."""


@dataclass(frozen=True)
class Kind:
    """One kind of row: its `required` and `optional` columns, those that hold `text`, and the command that writes
    it.
    """

    command: str
    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    text: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns a frame of this kind has, whether or not a row gave them."""
        return self.required + self.optional

    @property
    def numbers(self) -> tuple[str, ...]:
        """The columns turned to float64, null becoming NaN."""
        return tuple(column for column in self.columns if column not in self.text)


BIAS = Kind(
    "python -m synthetic bias",
    ("method", "problem", "dim", "epsilon", "sampling", "bias", "bias_error"),
    (
        *("estimator", "samples", "queries", "noise", "gradient_norm", "floor", "predicted_bias", "bias_deviation"),
        *("covariance_trace", "covariance_trace_error", "predicted_covariance_trace", "mse", "mse_error"),
        *("predicted_mse", "cosine", "cosine_error", "mean_cosine", "mean_cosine_error", "predicted_cosine"),
        *("prediction_terms", "seconds"),
    ),
    ("method", "problem", "sampling", "estimator", "prediction_terms"),
)
"""Rows of kind "bias", one for each method, problem, epsilon and sampling: those of audits and of the bias suite."""


def tidy(frame: pd.DataFrame, name: str, kind: Kind) -> pd.DataFrame:
    """Rows of one kind, from anywhere, with all columns of their kind: a missing one is empty, numbers are float64.

    Raises:
        ReadError: the frame lacks a needed column, or has a word where a number belongs.
    """
    if missing := [column for column in kind.required if column not in frame.columns]:
        raise ReadError(f"rows of kind {name!r} need the columns {', '.join(kind.required)}: {missing} are missing")
    extra = [column for column in frame.columns if column not in (*kind.columns, "run", "provenance")]
    defaults = {"run": "", "provenance": "live"}
    frame = frame.assign(**{column: value for column, value in defaults.items() if column not in frame.columns})
    frame = frame.reindex(columns=["run", "provenance", *kind.columns, *extra]).astype(object)
    for column in kind.numbers:
        frame[column] = _numbers(frame, name, column)
    return frame


def _numbers(frame: pd.DataFrame, name: str, column: str) -> pd.Series:
    numbers = pd.to_numeric(frame[column], errors="coerce").astype(float)
    wrong = frame[numbers.isna() & frame[column].map(lambda value: isinstance(value, str | list | dict))]
    if len(wrong):
        where, value = wrong["run"].iloc[0], wrong[column].iloc[0]
        raise ReadError(f"run {where!r}: a row of kind {name!r} has {column!r} = {value!r}, not a number")
    return numbers


def labelled(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of kind "bias" with a column `label`: as they are if they have one, else completed by `tidy` and named by
    their methods; the name is the whole method where two methods have the same short one.

    Raises:
        ReadError: see `tidy`.
    """
    if "label" in frame.columns:
        return frame
    frame = tidy(frame, "bias", BIAS)
    short = {method: method_name(str(method)) for method in frame["method"].unique()}
    count = Counter(short.values())
    return frame.assign(label=[short[m] if count[short[m]] == 1 else str(m) for m in frame["method"]])


def method_name(method: str) -> str:
    """`kerzoo order=5` for kerzoo:order=5, and `make n=2` for package.module:make:n=2."""
    parts = [part for part in method.split(":") if part]
    named = [part for part in parts if "=" not in part] or [method]
    options = [part for part in parts if "=" in part]
    return " ".join([named[-1] if "." in named[0] else ":".join(named), *options])
