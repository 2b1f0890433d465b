"""Maps of who wins where: cells of noise and dimension, panels of bend and evaluations."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch, Rectangle

from analysis import text
from analysis.phases import GOALS
from zobench.figures import sheet, style
from zobench.figures.style import Look

ROW = 0.3  # inches of a cell, which has two lines of text
SMALLEST = 7
BLANK = "#f4f4f4"
READING = "letters and colour: the best estimator; number: how many times better than mezo kerzoo is (below 1: worse)"
RGB = tuple[float, float, float]


@style.styled
def phase_figure(cells: pd.DataFrame) -> Figure:
    """One block for each goal among `contests` of one map, or of those with epsilons of their own.

    A cell has the colour and letters of its winner, and how many times better than MeZO KerZOO is there.

    Raises:
        ValueError: the sheet is narrower than two columns.
    """
    if sheet.current().narrow:
        raise ValueError(f"a map of {sheet.current().width:g} inches would not be legible: give it two columns")
    goals = [goal for goal in GOALS if goal in set(cells["goal"])]
    axes = {name: sorted(cells[name].unique()) for name in ("bend", "evaluations", "noise", "dim")}
    height = 0.8 + len(axes["evaluations"]) * (ROW * len(axes["dim"]) + 0.12)
    room = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.05)
    figure = Figure(figsize=(sheet.current().width, len(goals) * height), layout=room)
    FigureCanvasAgg(figure)
    looks = style.looks(cells["winner"].dropna().unique())
    letters = initials(list(looks))
    blocks = figure.subfigures(len(goals), 1, squeeze=False)[:, 0]
    for goal, block in zip(goals, blocks, strict=True):
        _block(block, goal, cells[cells["goal"] == goal], axes, looks, letters)
    style.legend(figure, _key(cells, looks, letters), READING)
    return figure


def initials(labels: Sequence[str]) -> dict[str, str]:
    """Short names that tell methods apart in grey print: mezo M, kerzoo:order=5 K5, central4 C4."""
    chosen: dict[str, str] = {}
    for label in labels:
        letters, digits = "".join(c for c in label if c.isalpha()), "".join(c for c in label if c.isdigit())
        longer = (letters[:n].capitalize() + digits for n in range(1, len(letters) + 1))
        chosen[label] = next((name for name in longer if name not in chosen.values()), label)
    return chosen


def tint(colour: str, share: float = 0.42) -> RGB:
    """A colour light enough to write on."""
    red, green, blue = (1 - share * (1 - part) for part in to_rgb(colour))
    return red, green, blue


def _block(
    block: SubFigure,
    goal: str,
    cells: pd.DataFrame,
    values: dict[str, list[float]],
    looks: dict[str, Look],
    letters: dict[str, str],
) -> None:
    block.suptitle(f"by {GOALS[goal]}", x=0.01, ha="left", fontsize=10, weight="bold")
    grid = block.subplots(len(values["evaluations"]), len(values["bend"]), squeeze=False, sharex=True, sharey=True)
    for row, evaluations in zip(grid, values["evaluations"], strict=True):
        for axes, bend in zip(row, values["bend"], strict=True):
            _panel(axes, cells[(cells["evaluations"] == evaluations) & (cells["bend"] == bend)], values, looks, letters)
        row[0].set_ylabel(f"{evaluations:,.0f} evaluations", fontsize=style.SMALL)
    for axes, bend in zip(grid[0], values["bend"], strict=True):
        axes.set_title(f"bend {text.number(bend)}" + ("" if bend else ": quadratic"), fontsize=9, weight="normal")
    for axes in grid[-1]:
        axes.set_xlabel("noise of one evaluation", fontsize=style.SMALL)


def _panel(
    axes: Axes,
    cells: pd.DataFrame,
    values: dict[str, list[float]],
    looks: dict[str, Look],
    letters: dict[str, str],
) -> None:
    noises, dims = values["noise"], values["dim"]
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set(xlim=(-0.5, len(noises) - 0.5), ylim=(-0.5, len(dims) - 0.5))
    axes.set_xticks(range(len(noises)), [text.power(noise) for noise in noises], fontsize=style.SMALL)
    axes.set_yticks(range(len(dims)), [f"d = {dim:g}" for dim in dims], fontsize=style.SMALL)
    for cell in cells.itertuples():
        corner = (noises.index(cell.noise), dims.index(cell.dim))
        look = looks.get(cell.winner) if isinstance(cell.winner, str) else None
        _cell(axes, corner, cell.advantage, look, letters.get(cell.winner, ""))
    for line in range(1, len(noises)):
        axes.axvline(line - 0.5, color="white", linewidth=1.2)


def _cell(axes: Axes, place: tuple[int, int], advantage: float, look: Look | None, letter: str) -> None:
    x, y = place
    face = tint(look.colour) if look else BLANK
    better = advantage > 1
    words: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": SMALLEST}
    drawn: list[Artist] = [
        axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=face, edgecolor="white", linewidth=1.2)),
        axes.text(x, y + 0.2, letter, weight="bold", **words),
        axes.text(x, y - 0.2, _advantage(advantage), weight="bold" if better else "normal", **words),
    ]
    if better:
        inner = Rectangle((x - 0.43, y - 0.43), 0.86, 0.86, fill=False, edgecolor="black", linewidth=1.4, zorder=3)
        drawn.append(axes.add_patch(inner))
    for artist in drawn:
        artist.set_in_layout(False)  # the axes have the room; asking every cell takes most of the time of a map


def _advantage(value: float) -> str:
    """Two digits, of which a cell has room for no more than five characters."""
    return "<0.01" if 0 < value < 0.01 else text.number(value, 2)


def _key(cells: pd.DataFrame, looks: dict[str, Look], letters: dict[str, str]) -> list[Patch]:
    counts = cells["winner"].value_counts()
    key = [
        Patch(
            facecolor=tint(look.colour),
            label=f"{letters[name]}: {style.named(name)}, best in {counts[name]} of {len(cells)}",
        )
        for name, look in looks.items()
    ]
    if (cells["advantage"] > 1).any():
        key.append(Patch(facecolor="white", edgecolor="black", linewidth=1.4, label="framed: kerzoo beats mezo"))
    if cells["winner"].isna().any():
        key.append(Patch(facecolor=BLANK, label="no estimator gains"))
    return key
