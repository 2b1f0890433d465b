"""The figures of an audit, from its rows; needs the extra `figures`."""

from pathlib import Path
from typing import Any

import pandas as pd

from zobench.figures import ReadError, bias, cosine, mse
from zobench.figures.files import require_format as require_format
from zobench.figures.files import write
from zobench.figures.frame import labelled

DRAWN = {"bias": bias, "mse": mse, "cosine": cosine}


def draw(rows: list[dict[str, Any]], file: Path) -> list[Path]:
    """Write the bias, the mean squared error and the cosine against epsilon, their names before the suffix.

    Raises:
        ReadError: see `labelled_rows`.
    """
    frame = labelled_rows(rows)
    return write([(name, drawn(frame)) for name, drawn in DRAWN.items()], file)


def labelled_rows(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """The rows of kind "bias"; their label names the composition that the predicted lines are of.

    Raises:
        ReadError: the target has no displacement against which anything could be drawn.
    """
    (facts,) = (row for row in rows if row["kind"] == "audit")
    frame = labelled(pd.DataFrame([row for row in rows if row["kind"] == "bias"]))
    if frame["epsilon"].isna().any():
        raise ReadError(f"--figure: {facts['target']} has no displacement, against which figures are drawn")
    return frame.assign(label=frame["label"] + (f"; lines: {facts['composition']}" if facts["match"] else ""))
