"""Noise of real models in numbers."""

import pandas as pd

from analysis import noises, text
from analysis.tables.table import Table, table


def levels_table(levels: pd.DataFrame) -> Table:
    """The probe's measurements on each model, and the epsilon that it recommends."""
    rows = [
        {
            **_place(row),
            "parameters": text.NONE if pd.isna(row["parameters"]) else f"{row['parameters']:,.0f}",
            "noise": text.number(row["noise"]),
            "rounding": text.number(row["rounding"]),
            "rms D₁": text.number(row["slope"]),
            "rms D₃": text.number(row["third"]),
            "recommended ε": text.number(row["epsilon"]),
            "evaluations": text.NONE if pd.isna(row["evaluations"]) else f"{row['evaluations']:,.0f}",
            "weights": row["weights"] if isinstance(row["weights"], str) else "",
        }
        for _, row in levels.iterrows()
    ]
    note = (
        "Noise: standard deviation of one loss evaluation, that of rounding apart (kinks of f count as noise); D₁ and "
        "D₃: derivatives along random lines."
    )
    return table(rows, "Noise of one loss evaluation", note)


def reports_table(reports: pd.DataFrame) -> Table:
    """Every epsilon: the bound on the bias, and the bias along the gradient."""
    rows = [
        {
            **_place(row),
            "ε": text.number(row["epsilon"]),
            "lines": text.number(row["lines"]),
            "|bias| / |∇f| at most": _with_error(row, "relative_error"),
            "bias along ∇f / |∇f|": _with_error(row, "along_gradient"),
            "z": text.fixed(row["along_gradient"] / row["along_gradient_error"], signed=True)
            if row["along_gradient_error"] > 0
            else text.NONE,
        }
        for _, row in reports.iterrows()
    ]
    note = (
        "The bias E[δu] is at most √E[δ²], δ the error of the central difference along one line, noise included "
        "(E[uuᵀ] = I, Cauchy and Schwarz); its component along the gradient is E[δD₁] / |∇f|. ± standard errors over "
        "lines; z: the component in standard errors."
    )
    return table(rows, "How much bias there is for a kernel to remove", note)


def _with_error(row: pd.Series, column: str) -> str:
    return f"{text.number(row[column])} ± {text.number(row[column + '_error'], 2)}"


def _place(row: pd.Series) -> dict[str, str]:
    return {name: str(row[name]) for name in noises.PLACE}
