"""The look that all figures share: Okabe-Ito colours, each with its marker and dash for grey print."""

import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from itertools import chain, cycle
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.typing import LineStyleType

from zobench.figures import sheet

if TYPE_CHECKING:
    from matplotlib.typing import RcKeyType  # matplotlib 3.10 does not have it

Arguments = ParamSpec("Arguments")
Drawn = TypeVar("Drawn")

DPI = 150
RC: "dict[RcKeyType, Any]" = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "errorbar.capsize": 0,
    "figure.dpi": DPI,  # laid out at the resolution of the file: text is wider there than at 100
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "legend.fontsize": 8.5,
    "legend.title_fontsize": 8.5,
    "legend.frameon": False,
    "legend.handlelength": 3.4,
    "lines.linewidth": 1.5,
    "lines.markersize": 5.5,
    "savefig.dpi": DPI,
    "svg.hashsalt": "zobench",
}


def styled(draw: Callable[Arguments, Drawn]) -> Callable[Arguments, Drawn]:
    """Draw in this style, and in that of the sheet over it."""

    @wraps(draw)
    def drawn(*arguments: Arguments.args, **named: Arguments.kwargs) -> Drawn:
        settings: dict[Any, Any] = {**RC, **sheet.current().rc}
        with matplotlib.rc_context(settings):
            return draw(*arguments, **named)

    return drawn


GREY = "#6e6e6e"
SMALL = 8
LINE = 0.175  # inches of a line of a legend
FREE = "free"  # the mark of a cell of a grid without a panel


@dataclass(frozen=True)
class Look:
    """The colour, marker and line of one method, the same in all figures."""

    colour: str
    marker: str
    dash: LineStyleType


SOLID: LineStyleType = "-"
DASHED: LineStyleType = (0, (5, 2))
DOTTED: LineStyleType = (0, (1.2, 1.4))
DASHDOT: LineStyleType = (0, (6, 1.6, 1.2, 1.6))
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
    "adamw": Look("#8a8a8a", "X", (0, (2, 2))),
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


_SHADES = ("#c08bdb", "#9553ba", "#643488", "#2d1045")
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
    return {label: _coloured(label, chosen[label]) for label in in_order(chosen)}


def _coloured(label: str, look: Look) -> Look:
    colours = sheet.current().colours
    colour = colours.get(label, colours.get(_base(label)))
    return look if colour is None else replace(look, colour=to_hex(colour))


def sequence(names: Iterable[str]) -> dict[str, Look]:
    """Looks for things that are no methods, in their own order."""
    return dict(zip(dict.fromkeys(names), cycle(KNOWN.values()), strict=False))


def shade(place: int, count: int) -> dict[str, Any]:
    """Marker and colour of one of `count` levels of a quantity, light to dark."""
    colour = _SHADES[round(place * (len(_SHADES) - 1) / max(1, count - 1))]
    return {"marker": _LEVELS[place % len(_LEVELS)], "color": colour, "markeredgewidth": 0.0}


def in_order(labels: Iterable[str]) -> list[str]:
    """Labels in the order of the sheet, then the known methods in that of KNOWN, each followed by its variants."""
    places = {name: place for place, name in enumerate(dict.fromkeys((*sheet.current().order, *KNOWN)))}

    def place(label: str) -> tuple[int, str]:
        return places.get(label, places.get(_base(label), len(places))), label

    return sorted(set(labels), key=place)


def _base(label: str) -> str:
    return label.split(":")[0].split(" ")[0]


def named(label: str) -> str:
    """A label in words: those of the sheet, or `kerzoo, order 5` for kerzoo:order=5 or kerzoo order=5."""
    return sheet.current().words(label) or re.sub(r"[: ](\w+)=", r", \1 ", label)


def wrapped(label: str, width: int = 24) -> str:
    """A label in words, in lines of at most `width` characters as far as its words allow."""
    return textwrap.fill(named(label), width, break_long_words=False, break_on_hyphens=False)


def title(axes: Axes, words: str) -> None:
    """A title over the panel, in as many lines as its width asks for."""
    axes.set_title(textwrap.fill(words, max(16, int(9 * _width(axes)) - 3), break_long_words=False))


def legend(
    figure: Figure, handles: Sequence[Artist], heading: str | None = None, axes: Sequence[Axes] | None = None
) -> None:
    """One legend for all panels: in the free cell of the grid if it has room, else under them, in columns that fit; in
    the last of a caller's `axes`.
    """
    if axes is not None:
        axes[-1].legend(handles, [wrapped(str(handle.get_label())) for handle in handles], title=heading)
        return
    labels = [str(handle.get_label()) for handle in handles]
    look: dict[str, Any] = {"title": heading, "alignment": "left", "columnspacing": 1.4}
    free = next((axes for axes in figure.axes if axes.get_gid() == FREE), None)
    words = [wrapped(label, 34) for label in labels]
    if free and LINE * sum(word.count("\n") + 1 for word in words) < figure.get_figheight() / _rows(free) - 0.3:
        free.legend(handles, words, loc="upper left", bbox_to_anchor=(-0.1, 1.0), borderaxespad=0, **look)
        return
    words = [wrapped(label, 60) for label in labels]
    longest = max(len(line) for word in words for line in word.split("\n"))
    columns = max(1, min(len(handles), int(figure.get_figwidth() / (0.065 * longest + 0.62))))
    lines = max(word.count("\n") + 1 for word in words) * -(-len(words) // columns) + bool(heading)
    figure.set_figheight(figure.get_figheight() + 0.1 + LINE * lines)  # panels keep the height they asked for
    figure.legend(handles, words, loc="outside lower center", ncols=columns, **look)


def legend_below(axes: Axes, handles: Sequence[Artist], names: Sequence[str]) -> None:
    """A legend under one of several panels, for lines that only that panel has."""
    below: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (0.0, -0.5 / axes.get_window_extent().height * DPI)}
    axes.legend(handles, list(map(wrapped, names)), ncols=min(3, len(handles)), borderaxespad=0, **below)


def leftmost(axes: Axes) -> bool:
    """Whether the panel is in the first column of its figure, where the label of a shared axis stands."""
    place = axes.get_subplotspec()
    return place is None or place.is_first_col()


def _rows(axes: Axes) -> int:
    grid = axes.get_gridspec()
    return grid.nrows if grid else 1


def _width(axes: Axes) -> float:
    figure, grid = axes.get_figure(root=True), axes.get_gridspec()
    return figure.get_figwidth() / grid.ncols if figure and grid else sheet.current().width


def panels(
    count: int,
    columns: int,
    height: float | Sequence[float],
    share_y: bool = False,
    width: float | None = None,
    axes: Sequence[Axes] | None = None,
) -> tuple[Figure, list[Axes]]:
    """A figure as wide as the sheet: `count` panels in rows of up to `columns`, as high as told, labels included.

    A legend that `legend` puts under them adds its own height. Where a caller gives `axes`, these are the panels.

    Raises:
        ValueError: not as many `axes` as panels.
    """
    if axes is not None:
        return _of_caller(axes, count)
    if width is None:
        width = sheet.current().width
        columns = max(1, int(columns * width / sheet.WIDTH + 1e-9))
    columns = min(count, columns)
    rows = -(-count // columns)
    heights = [height] * rows if isinstance(height, int | float) else list(height)
    room = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08, wspace=0.03, hspace=0.04)
    figure = Figure(figsize=(width, sum(heights)), layout=room)
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False, sharey="row" if share_y else False, height_ratios=heights)
    every: Sequence[Axes] = list(chain.from_iterable(grid))
    for spare in every[count:]:
        spare.set_axis_off()
        spare.set_gid(FREE)
    return figure, list(every[:count])


def _of_caller(axes: Sequence[Axes], count: int) -> tuple[Figure, list[Axes]]:
    figure = axes[0].get_figure(root=True) if len(axes) else None
    if len(axes) != count or figure is None:
        raise ValueError(f"{len(axes)} axes for {count} panels: give as many, or none")
    return figure, list(axes)
