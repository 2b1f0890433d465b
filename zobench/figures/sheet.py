"""The sheet that a figure is made for: its width, and the names, order and colours that its author wants."""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.colors import is_color_like

WIDTH = 7.2  # inches of every figure of the report, and of a page of two columns
WIDTHS = {"one": 3.4, "two": WIDTH}
LEAST, MOST = 2.5, 20.0
SETTINGS: Mapping[str, tuple[tuple[type, ...], str]] = {
    "columns": ((str, float, int), '"one", "two" or a width in inches'),
    "style": ((str,), "the name of a file"),
    "order": ((list,), "a list of labels"),
    "only": ((dict,), "a table of columns and their values"),
    "labels": ((dict,), "a table of labels and their words"),
    "colours": ((dict,), "a table of labels and their colours"),
}


@dataclass(frozen=True)
class Sheet:
    """How figures are drawn.

    Args:
        width: inches. Text keeps its size, so that fewer panels stand side by side on a narrow sheet.
        names: a label of the legend -> the words shown for it.
        order: labels or methods in the order of the legend; the others follow.
        colours: a label or a method -> a Matplotlib colour.
        rc: settings of a Matplotlib style, which come before those of this package.

    Raises:
        ValueError: a width that no page has, or an unknown colour.
    """

    width: float = WIDTH
    names: Mapping[str, str] = field(default_factory=dict)
    order: Sequence[str] = ()
    colours: Mapping[str, str] = field(default_factory=dict)
    rc: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not LEAST <= self.width <= MOST:
            raise ValueError(f"a width of {self.width:g} inches: give one from {LEAST:g} to {MOST:g}, `one` or `two`")
        for label, colour in self.colours.items():
            if not is_color_like(colour):
                raise ValueError(f"the colour of {label} is {colour!r}: give a Matplotlib colour, as #0072B2 or black")

    @property
    def narrow(self) -> bool:
        """Whether a legend has no room beside a panel."""
        return self.width < 0.8 * WIDTH

    def words(self, label: str) -> str | None:
        """The words for a label, or for one that a comma and further words follow; None where none were given."""
        for known in sorted(self.names, key=len, reverse=True):
            if label == known or label.startswith(f"{known}, "):
                return self.names[known] + label[len(known) :]
        return None


_REPORT = Sheet()
_current = ContextVar("sheet", default=_REPORT)


def current() -> Sheet:
    """The sheet that figures are drawn for now."""
    return _current.get()


@contextmanager
def printed_on(sheet: Sheet) -> Iterator[None]:
    """Draw figures for this sheet.

    >>> with printed_on(Sheet(width=WIDTHS["one"])):
    ...     current().narrow
    True
    """
    token = _current.set(sheet)
    try:
        yield
    finally:
        _current.reset(token)


def width(told: str | float) -> float:
    """Inches of `one` or `two` columns, or of a number.

    Raises:
        ValueError: neither.
    """
    try:
        return WIDTHS[told] if isinstance(told, str) and told in WIDTHS else float(told)
    except ValueError:
        raise ValueError(f"columns is {told!r}: give one, two, or a width in inches") from None


def style_of(file: Path) -> dict[str, Any]:
    """The settings of a Matplotlib style file.

    Raises:
        ValueError: it cannot be read, or it has a setting that Matplotlib does not know.
    """
    try:
        settings: Any = matplotlib.rc_params_from_file(file, fail_on_error=True, use_default_template=False)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{file}: no Matplotlib style ({error}): see matplotlib.style") from error
    return dict(settings)


def settings_of(file: Path) -> dict[str, Any]:
    """The settings of a figure in a TOML file: `columns`, `style`, `order`, and the tables `only`, `labels`, `colours`.

    Raises:
        ValueError: it cannot be read, it is no TOML, or it has another key or a value of another type.
    """
    try:
        settings = tomllib.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{file}: no settings of a figure ({error})") from error
    for key, value in settings.items():
        if key not in SETTINGS:
            raise ValueError(f"{file}: {key} is no setting of a figure: there are {', '.join(SETTINGS)}")
        types, wanted = SETTINGS[key]
        if not isinstance(value, types):
            raise ValueError(f"{file}: {key} is {value!r:.60}, where {wanted} belongs")
    return settings
