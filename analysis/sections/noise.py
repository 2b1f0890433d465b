"""The report on real models: how exact their losses are, and how much bias there is for a kernel to remove."""

import pandas as pd

from analysis import noises, text
from analysis.figures.noise import noise_figure
from analysis.rows import Results
from analysis.sections.section import Illustration, Section, missing
from analysis.statistics import Interval
from analysis.tables.noise import levels_table, reports_table

TITLE = "Noise and bias of real models"
CAPTION = (
    "Errors against ε, divided by the norm of the gradient. Circles show the root mean square error of one "
    "directional derivative, which is an upper bound on the bias. Squares show the size of the component of the "
    "bias along the gradient. A filled square means that the component points along the gradient, so that "
    "estimates are too long on average; a hollow square means that it points against the gradient. Bars are 95 % "
    "intervals over lines; a triangle at the bottom ends an interval that reaches 0 or the frame. Points are "
    "shifted by 3 % in ε so that they do not overlap. Grey lines show the truncation and the noise that a probe "
    "predicts from a handful of evaluations. The vertical line shows the ε that the probe recommends."
)
ALT = (
    "Error of one directional derivative and bias along the gradient, against epsilon, with a panel for each "
    "model. A probe predicts the truncation and the noise and recommends an epsilon."
)


def section(results: Results) -> Section:
    """Noise levels, errors against epsilon, and the bound on the bias."""
    reports = noises.last(results.of("noise-report"), [*noises.PLACE, "epsilon"]).sort_values(
        [*noises.PLACE, "epsilon"], kind="stable"
    )
    levels = noises.last(results.of("noise-level"), noises.PLACE)
    if reports.empty and levels.empty:
        return missing("noise", TITLE, "noise-report")
    shown, tables = [], [levels_table(levels)] if len(levels) else []
    if len(reports):
        shown.append(Illustration("noise", noise_figure(reports, levels), CAPTION, ALT))
        tables.append(reports_table(reports))
    return Section("noise", TITLE, sentences(reports, levels), shown, tables)


def sentences(reports: pd.DataFrame, levels: pd.DataFrame) -> list[str]:
    """For each model: the bound on the bias at the usual epsilon, then the noise and the recommended epsilon."""
    lines = []
    for model, rows in reports.groupby(noises.PLACE, sort=False):
        level = levels[(levels[noises.PLACE] == list(model)).all(axis=1)]
        lines.append(_bias(", ".join(map(str, model)), noises.nearest(rows), level))
        lines += _least(", ".join(map(str, model)), rows, level)
    for _, level in levels.iterrows():
        name = ", ".join(str(level[key]) for key in noises.PLACE)
        lines.append(
            f"{name}: one evaluation has a noise of {text.number(level['noise'])} and a rounding of "
            f"{text.number(level['rounding'])}; the probe recommends ε = {text.number(level['epsilon'])}."
        )
    return lines


def _bias(name: str, row: pd.Series, level: pd.DataFrame) -> str:
    bound, along = noises.bound(row), noises.along(row)
    sentence = (
        f"{name}: at ε = {text.number(row['epsilon'])} the bias for a kernel to remove is at most {_signed(bound)} of "
        f"the gradient's norm, noise included; along the gradient it is {_signed(along)}"
    )
    if along.low <= 0 <= along.high:
        sentence += ", not told from 0"
    if len(level):
        truncation, noise = (float(each[0]) for each in noises.parts(level.iloc[0], row[["epsilon"]].to_numpy(float)))
        sentence += f". The probe predicts {_percent(truncation)} of truncation and {_percent(noise)} of noise"
        parameters = level["parameters"].iloc[0]
        if not pd.isna(parameters):
            sentence += f"; the standard deviation of one estimate is √d = {text.number(parameters**0.5)} gradients"
    return sentence + "."


def _least(name: str, rows: pd.DataFrame, level: pd.DataFrame) -> list[str]:
    """The measured epsilon of least error, against the recommended epsilon."""
    own = rows[rows["epsilon"] == level["epsilon"].iloc[0]] if len(level) else rows.iloc[:0]
    if own.empty:
        return []
    best = rows.loc[rows["relative_error"].idxmin()]
    times = own["relative_error"].iloc[0] / best["relative_error"]
    return [
        f"{name}: of the ε measured, {text.number(best['epsilon'])} has the least error, "
        f"{_percent(best['relative_error'])}; at the recommended ε it is {text.number(times)} times that."
    ]


def _percent(share: float) -> str:
    return f"{text.number(100 * share, 2)} %"


def _signed(value: Interval) -> str:
    return f"{_percent(value.estimate)} [{_percent(value.low)}, {_percent(value.high)}]"
