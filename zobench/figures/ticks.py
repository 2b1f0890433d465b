"""Ticks of logarithmic axes: as many labels as a reader needs, none that runs into its neighbour."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import Formatter, Locator, MaxNLocator, NullLocator

from zobench.figures import text

LEAST, MOST = 3, 7
_STEPS: tuple[tuple[float, ...], ...] = ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7))


class LogTicks(Locator):
    """Powers of ten (every second, third ... of many), or steps between them where there are fewer than LEAST."""

    def __init__(self, most: int = MOST) -> None:
        self.most = most

    def __call__(self) -> Sequence[float]:
        """Ticks of the view that the axis has now."""
        low, high = self.axis.get_view_interval()  # type: ignore[union-attr]
        return self.tick_values(low, high)

    def tick_values(self, vmin: float, vmax: float) -> Sequence[float]:
        """Ticks between two positive ends, in either order."""
        return log_ticks(min(vmin, vmax), max(vmin, vmax), self.most)


def log_ticks(low: float, high: float, most: int = MOST) -> list[float]:
    """At least LEAST and about `most` round values from `low` to `high`."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in _STEPS:
        inside = [v for k in decades for step in steps if low <= (v := float(f"{step}e{k}")) <= high]
        if len(inside) >= LEAST:
            every = -(-len(inside) // most) if steps == (1,) else 1
            return inside[::every]
    return [float(value) for value in MaxNLocator(4).tick_values(low, high) if low <= value <= high]


class LogLabels(Formatter):
    """Plain numbers from 0.001 to 10,000, powers of ten where an axis goes beyond."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        """The label of a value on its own."""
        return self.format_ticks([x])[0]

    def format_ticks(self, values: Sequence[float]) -> list[str]:
        """The labels of all ticks of an axis, alike."""
        known = [value for value in values if value > 0]
        plain = not known or (min(known) >= 1e-3 and max(known) <= 1e4)
        return [f"{value:,.12g}" if plain else scientific(value) for value in values]


def scientific(value: float) -> str:
    """10⁻⁶, 3·10⁻⁵: a number by its power of ten."""
    if value <= 0 or value == 1:
        return text.number(value)
    exponent = math.floor(math.log10(value) + 1e-9)
    front = value / 10.0**exponent
    return f"$10^{{{exponent}}}$" if math.isclose(front, 1.0) else f"${front:.3g}\\cdot 10^{{{exponent}}}$"


def logarithmic(axes: Axes, which: str, most: int = MOST) -> None:
    """Make the axis "x" or "y" logarithmic, with these ticks and labels and none between them."""
    axes.set(**{f"{which}scale": "log"})
    axis: Axis = getattr(axes, f"{which}axis")
    axis.set_major_locator(LogTicks(most))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(LogLabels())
