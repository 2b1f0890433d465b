"""The look that all figures share: Okabe-Ito colours, each with its marker and dash for grey print."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, cycle
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import IdentityTransform, ScaledTranslation

RC: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "errorbar.capsize": 0,
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "legend.fontsize": 8.5,
    "legend.title_fontsize": 8.5,
    "legend.frameon": False,
    "legend.handlelength": 3.4,
    "lines.linewidth": 1.5,
    "lines.markersize": 5.5,
    "savefig.dpi": 150,
    "svg.hashsalt": "zobench",
}
styled = matplotlib.rc_context(RC)

GREY = "#6e6e6e"
LEGEND_DROP = -0.5
Dash = str | tuple[int, tuple[float, ...]]


@dataclass(frozen=True)
class Look:
    """How one method is drawn everywhere."""

    colour: str
    marker: str
    dash: Dash


SOLID: Dash = "-"
DASHED: Dash = (0, (5, 2))
DOTTED: Dash = (0, (1.2, 1.4))
DASHDOT: Dash = (0, (6, 1.6, 1.2, 1.6))
KNOWN = {
    "mezo": Look("#0072B2", "o", SOLID),
    "kerzoo": Look("#D55E00", "s", DASHED),
    "forward": Look("#E69F00", "^", DOTTED),
    "richardson": Look("#009E73", "D", DASHDOT),
    "coordinate": Look("#CC79A7", "v", (0, (9, 2))),
    "optimal": Look("#56B4E9", "*", (0, (7, 1.5))),
    "chebyshev": Look("#882255", "p", (0, (4, 1, 1, 1, 1, 1))),
    "central4": Look("#117733", "h", (0, (2, 1))),
    "central6": Look("#44AA99", "H", (0, (5, 1, 2, 1))),
    "telescoping": Look("#999933", ">", (0, (1, 2))),
    "orthogonal": Look("#332288", "8", (0, (8, 2, 2, 2))),
    "one-point": Look("#8C510A", "<", (0, (1, 1))),
    "kerzoo-code": Look("#CC6677", "d", (0, (6, 3))),
    "sgd": Look("#000000", "P", (0, (3, 1, 1, 1, 1, 1))),
    "adamw": Look("#5a5a5a", "X", (0, (2, 2))),
}
FIRST_ORDER = frozenset({"sgd", "adamw", "adam"})
_SPARE = (
    Look("#AA4499", "<", (0, (4, 1, 1, 1))),
    Look("#661100", ">", (0, (8, 2, 2, 2))),
    Look("#6699CC", "p", (0, (2, 1))),
    Look("#DDAA33", "h", (0, (1, 2))),
    Look("#D55E00", "*", (0, (6, 3))),
    Look("#009E73", "d", (0, (3, 3))),
    Look("#0072B2", "8", (0, (1, 1))),
    Look("#E69F00", "H", SOLID),
)


_SHADES = ("#d9b8e8", "#a97bc4", "#6a3d8f", "#2d1045")
_LEVELS = ("o", "s", "D", "^", "v", "p")


def looks(labels: Iterable[str]) -> dict[str, Look]:
    """One look for each label, the same everywhere for methods in KNOWN; variants take spare ones.

    What is shipped looks like what was measured live, with another dash where both are shown.
    """
    ordered = sorted(in_order(labels), key=lambda label: label.endswith(")"))
    chosen: dict[str, Look] = {}
    spare = cycle(_SPARE)
    for label in ordered:
        look, dash = KNOWN.get(_base(label)), (0, (3, 1.5))
        if look and label.endswith(")"):
            chosen[label] = replace(look, dash=dash) if look in chosen.values() else look
        else:
            chosen[label] = look if look and look not in chosen.values() else next(spare)
    return {label: chosen[label] for label in in_order(chosen)}


def sequence(names: Iterable[str]) -> dict[str, Look]:
    """Looks for things that are no methods, in their own order."""
    return dict(zip(dict.fromkeys(names), cycle(KNOWN.values()), strict=False))


def shade(place: int, count: int) -> dict[str, Any]:
    """Marker and colour of one of `count` levels of a quantity, light to dark."""
    colour = _SHADES[round(place * (len(_SHADES) - 1) / max(1, count - 1))]
    return {"marker": _LEVELS[place % len(_LEVELS)], "color": colour, "markeredgewidth": 0.0}


def in_order(labels: Iterable[str]) -> list[str]:
    """Labels with the known methods first, in the order of KNOWN, each followed by its variants."""
    places = {name: place for place, name in enumerate(KNOWN)}
    return sorted(set(labels), key=lambda label: (places.get(_base(label), len(KNOWN)), label))


def _base(label: str) -> str:
    return label.split(":")[0].split(" ")[0]


def legend_below(axes: Axes, handles: Sequence[Artist], names: Sequence[str], title: str | None = None) -> None:
    """A legend under the axes, in two columns where its names are short enough not to squeeze them."""
    columns = 2 if max(map(len, names), default=0) <= 5.6 * _width(axes) else 1
    figure = axes.get_figure(root=True)
    below = ScaledTranslation(0, LEGEND_DROP, figure.dpi_scale_trans) if figure else IdentityTransform()
    place: dict[str, Any] = {
        "loc": "upper left",
        "bbox_to_anchor": (-0.04, 0.0),
        "alignment": "left",
        "borderaxespad": 0,
    }
    place["bbox_transform"] = axes.transAxes + below  # inches, whatever the height of the axes
    axes.legend(handles, names, ncols=columns, columnspacing=1.2, handlelength=3.0, title=title, **place)


def _width(axes: Axes) -> float:
    figure, grid = axes.get_figure(root=True), axes.get_gridspec()
    return figure.get_figwidth() / grid.ncols if figure and grid else 5.0


def panels(count: int, columns: int, size: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels in rows of up to `columns` (up to 3 in one, unless 1), each about `size` inches."""
    columns = count if count <= 3 and columns > 1 else columns
    rows = -(-count // columns)
    figure = Figure(figsize=(columns * size[0], rows * size[1]), layout="constrained")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.1, wspace=0.03, hspace=0.04)  # type: ignore[union-attr, call-arg]
    axes: Sequence[Axes] = list(chain.from_iterable(figure.subplots(rows, columns, squeeze=False)))
    for spare in axes[count:]:
        spare.remove()
    return figure, list(axes[:count])


@styled
def save(figure: Figure, stem: Path) -> tuple[Path, Path]:
    """Write `stem`.png and `stem`.svg, the same bytes for the same figure: no dates, no version strings."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out once here, not twice for each file
    png, svg = stem.with_name(stem.name + ".png"), stem.with_name(stem.name + ".svg")
    figure.savefig(png, metadata={"Software": None})
    figure.savefig(svg, metadata={"Date": None, "Creator": None})
    return png, svg
