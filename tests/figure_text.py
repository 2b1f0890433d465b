"""Whether the text of a Matplotlib figure can be read: in whole, and each label beside the next, not over it."""

from itertools import combinations
from typing import Any
from unittest.mock import patch

from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

SLACK = 1.0  # points by which boxes may meet: those of letters are larger than their ink


def faults(figure: Figure) -> list[str]:
    """Pairs of texts that overlap by more than SLACK, and texts that the frame cuts, as the figure is saved."""
    slack = SLACK * figure.dpi / 72
    boxes = list(drawn(figure))
    frame = figure.bbox.padded(slack)
    cut = [f"cut: {words!r}" for words, box in boxes if not _holds(frame, box)]
    over = [
        f"{one!r} over {two!r}" for (one, first), (two, second) in combinations(boxes, 2) if _meet(first, second, slack)
    ]
    return cut + over


def drawn(figure: Figure) -> list[tuple[str, Bbox]]:
    """Each text that is drawn, with its box; ticks beyond an axis are artists, but are not drawn."""
    found: dict[Text, Bbox] = {}
    plain = Text.draw

    def draw(text: Text, renderer: Any) -> None:
        plain(text, renderer)
        if text.get_visible() and text.get_text().strip():
            found[text] = text.get_window_extent(renderer)

    with patch.object(Text, "draw", draw):
        figure.draw_without_rendering()
    return [(text.get_text(), box) for text, box in found.items()]


def _holds(frame: Bbox, box: Bbox) -> bool:
    return bool(frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1)


def _meet(one: Bbox, two: Bbox, slack: float) -> bool:
    wide = min(one.x1, two.x1) - max(one.x0, two.x0)
    high = min(one.y1, two.y1) - max(one.y0, two.y0)
    return bool(wide > slack and high > slack)
