"""Figures on their own: `python -m analysis figure KIND rows... --out fig.pdf`."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from analysis import figures, phases
from analysis.kinds import KINDS
from analysis.labels import label
from analysis.outcomes import counted, levels, outcomes, trajectories
from analysis.rows import ReadError, Results
from analysis.tables.finetuning import accuracies
from zobench.figures import panels, sheet
from zobench.figures.files import write
from zobench.figures.sheet import Sheet

Named = tuple[str, Figure]


@dataclass(frozen=True)
class Drawing:
    """One kind of figure: the kinds of rows it is made of, and a function that draws it. `SHOWN` says what it shows.

    `draw` gives each figure with a name that tells it from the others of the same rows.
    """

    rows: tuple[str, ...]
    draw: Callable[[Results], Iterable[Named]]


def _bias(results: Results) -> Iterator[Named]:
    yield "", figures.bias(_labelled(results))


def _mse(results: Results) -> Iterator[Named]:
    yield "", figures.mse(_with("mse", _labelled(results)))


def _cosine(results: Results) -> Iterator[Named]:
    yield "", figures.cosine(_with("cosine", _labelled(results)))


def _labelled(results: Results) -> pd.DataFrame:
    return label(results.of("bias"), [*panels.PANEL, "sampling"], ())


def _with(column: str, rows: pd.DataFrame) -> pd.DataFrame:
    if rows[column].isna().all():
        raise ReadError(f"no row has a number in the column {column!r}, which this figure shows")
    return rows


def _convergence(results: Results) -> Iterator[Named]:
    yield "", figures.convergence(results.of("converge"))


def _kernels(results: Results) -> Iterator[Named]:
    yield "", figures.kernels(results.of("kernel").drop_duplicates("name"))


def _phase(results: Results) -> Iterator[Named]:
    cells = phases.contests(phases.goals(results.of("phase")))
    for (run, epsilon), mine in cells.groupby(["run", "common_epsilon"], dropna=False, sort=True):
        name = "own-epsilon" if pd.isna(epsilon) else f"epsilon-{epsilon:g}"
        yield f"{run}-{name}".replace("/", "-"), figures.phase(mine)


def _finetuning(results: Results) -> Iterator[Named]:
    baselines = levels(results)
    for model, rows in trajectories(results, outcomes(results)).groupby("model"):
        yield str(model).replace("/", "-"), figures.curves(rows, baselines[baselines["model"] == model])


def _accuracy(results: Results) -> Iterator[Named]:
    ends, baselines = outcomes(results), levels(results)
    scores = accuracies(ends, baselines)
    scored = scores[scores["n"] > 0]
    if scored.empty:
        raise ReadError("no run has ended with a test accuracy, which this figure shows")
    yield "", figures.accuracies(scored, counted(ends), baselines)


_RUNS = ("final", "evaluation")
DRAWINGS: Mapping[str, Drawing] = {
    "bias": Drawing(("bias",), _bias),
    "mse": Drawing(("bias",), _mse),
    "cosine": Drawing(("bias",), _cosine),
    "convergence": Drawing(("converge",), _convergence),
    "phase": Drawing(("phase",), _phase),
    "kernels": Drawing(("kernel",), _kernels),
    "finetuning": Drawing(_RUNS, _finetuning),
    "accuracy": Drawing(_RUNS, _accuracy),
}


def only(results: Results, kind: str, subset: Mapping[str, Sequence[str]]) -> Results:
    """The rows whose columns have one of the values named.

    Raises:
        ReadError: no row of this kind of figure has such a column, or none such a value.
    """
    for column, wanted in subset.items():
        having = [name for name, frame in results.frames.items() if column in frame.columns]
        mine = [name for name in DRAWINGS[kind].rows if name in having]
        known = list(dict.fromkeys(str(value) for name in mine for value in results.of(name)[column]))
        if not mine:
            raise ReadError(f"--only {column}: rows of this figure have no such column: {_columns(kind)}")
        if missing := [value for value in wanted if not any(map(_same(value), known))]:
            raise ReadError(f"--only {column}: no row has {', '.join(missing)}; rows have {', '.join(known[:12])}")
        kept = {name: _kept(results.of(name), column, wanted) for name in having}
        results = replace(results, frames={**results.frames, **kept})
    return results


def _kept(frame: pd.DataFrame, column: str, wanted: Sequence[str]) -> pd.DataFrame:
    return frame[[any(_same(value)(known) for value in wanted) for known in map(str, frame[column])]]


def _same(value: str) -> Callable[[str], bool]:
    """Whether a value of a row is the one asked for, as a number where both are."""

    def same(known: str) -> bool:
        try:
            return known == value or float(known) == float(value)
        except ValueError:
            return False

    return same


def _columns(kind: str) -> str:
    return ", ".join(dict.fromkeys(column for name in DRAWINGS[kind].rows for column in KINDS[name].columns))


def draw(kind: str, results: Results, out: Path, paper: Sheet) -> list[Path]:
    """Write the figures of a kind to `out`, its format by its suffix; several get their names before the suffix.

    Raises:
        ReadError: no rows for it, an unknown suffix, or PGF without LaTeX.
    """
    if all(results.of(name).empty for name in DRAWINGS[kind].rows):
        commands = " or ".join(dict.fromkeys(f"`{KINDS[name].command}`" for name in DRAWINGS[kind].rows))
        raise ReadError(f"no rows of kind {' or '.join(DRAWINGS[kind].rows)}: {commands} writes them")
    with sheet.printed_on(paper):
        return write(DRAWINGS[kind].draw(results), out)
