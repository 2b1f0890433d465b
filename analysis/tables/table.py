"""A table of the page: strings under a caption."""

from dataclasses import dataclass

import pandas as pd

CIRCUMSTANCES = frozenset(
    {
        *("model", "task", "trained on", "problem", "place", "machine", "setting", "size", "dtype", "batch × tokens"),
        *("threads", "engine", "weights", "rows are", "interval", "metric", "sampling", "prediction", "repetitions"),
        *("lines", "calls", "ε", "evaluations"),
    }
)


@dataclass(frozen=True)
class Table:
    """A frame of strings with its caption and a note on its numbers; a `long` one is folded away."""

    caption: str
    frame: pd.DataFrame
    note: str = ""
    long: bool = False


def table(rows: list[dict[str, str]], caption: str, note: str = "", long: bool = False) -> Table:
    """Rows of text as a Table; columns that say nothing in any row are left out."""
    frame = pd.DataFrame(rows, dtype=str)
    said = [column for column in frame.columns if not frame[column].isin(["", "–"]).all()]
    return Table(caption, frame[said], note, long)


def folded(table: Table) -> Table:
    """The table without the columns of CIRCUMSTANCES that say the same in every row, which its note says once."""
    frame = table.frame
    same = [column for column in frame.columns if column in CIRCUMSTANCES and frame[column].nunique() == 1]
    if len(frame) < 2 or not same:
        return table
    said = "; ".join(f"{column}: {frame[column].iloc[0]}" for column in same)
    note = " ".join(filter(None, [f"In all rows {said}.", table.note]))
    return Table(table.caption, frame.drop(columns=same), note, table.long)


def markdown(table: Table) -> str:
    """Return the table as a page in Markdown has it."""
    table = folded(table)
    columns = list(table.frame.columns)
    lines = [columns, ["---"] * len(columns), *table.frame.to_numpy().tolist()]
    cells = "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
    return "\n\n".join(part for part in (f"**{table.caption}**", cells, table.note) if part)
