"""Every figure of the report, from the committed rows: legible on a page, labelled, nothing cut or overprinted."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from analysis import phases
from analysis.figures.agreement import agreement_figure
from analysis.figures.kernels import worded
from analysis.report import SECTIONS
from analysis.rows import read
from analysis.sections import claims
from analysis.sections.section import Illustration
from zobench.figures import sheet, style, ticks

ROOT = Path(__file__).resolve().parents[1]
PAGE, LEAST_PX, LEAST_PT = 730, 9.0, 5.0  # pixels of a page, and of its smallest words; superscripts are smaller
MOST_HIGH = 1.9  # height over width: what a screen shows at once


def shown() -> list[str]:
    """The figures of `make figures`, and those of fine-tuning."""
    listed = re.search(r"^SHOWN := ((?:.*\\\n)*.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert listed
    return [*listed[1].replace("\\", " ").split(), "finetuning-tiny-opt", "finetuning-accuracy"]


@pytest.fixture(scope="module")
def drawn() -> dict[str, Illustration]:
    """Each figure by its name, laid out as `report.save` does."""
    names = ("bias", "kernels", "converge", "design", "descent", "phase", "epsilon", "noise", "speed", "rounding")
    results = read([ROOT / "results" / name for name in (*names, "spam/seeds")])
    figures = [each for section in SECTIONS for each in section(results).illustrations]
    figures += claims.section(read([ROOT / "results/kerzoo-claims"])).illustrations
    for each in figures:
        laid_out(each.figure)
    return {each.stem: each for each in figures}


@style.styled
def laid_out(figure: Figure) -> Figure:
    figure.draw_without_rendering()
    return figure


def renderer(figure: Figure) -> RendererBase:
    return figure.canvas.get_renderer()  # type: ignore[attr-defined, no-any-return]


def texts(figure: Figure) -> Iterator[Text]:
    """What a reader sees written, ticks within their axis only."""
    hidden = {id(label) for axes in figure.axes for label in outside(axes)}
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text().strip() and id(text) not in hidden:
            yield text


def outside(axes: Axes) -> Iterator[Text]:
    """Labels that matplotlib keeps but does not draw: of ticks beyond the view, and of axes that are switched off."""
    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
            room = 1e-9 * max(abs(low), abs(high))
            if not axes.axison or not low - room <= tick.get_loc() <= high + room or not tick.label1.get_visible():
                yield tick.label1
            yield tick.label2
        if not axes.axison:
            yield axis.label


def boxes(figure: Figure) -> list[tuple[str, Bbox]]:
    found = [(text.get_text(), text.get_window_extent(renderer(figure))) for text in texts(figure)]
    return [(words, box) for words, box in found if box.width > 0 and box.height > 0]


def overlaps(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of texts whose boxes share more than a sliver."""
    sides = [(words, *box.extents.tolist()) for words, box in boxes(figure)]  # numbers: a map has 200,000 pairs
    return [
        (one, two)
        for (one, left, low, right, high), (two, west, south, east, north) in itertools.combinations(sides, 2)
        if min(right, east) - max(left, west) > 1.0 and min(high, north) - max(low, south) > 1.5
    ]


def cut(figure: Figure) -> list[str]:
    """Texts that leave the canvas or touch its edge."""
    frame = figure.bbox
    return [
        words
        for words, box in boxes(figure)
        if box.x0 < frame.x0 + 1 or box.y0 < frame.y0 + 1 or box.x1 > frame.x1 - 1 or box.y1 > frame.y1 - 1
    ]


def labelled(axes: Axes) -> list[tuple[str, list[str]]]:
    """Name and tick labels of each axis of a panel that shows any."""
    found = []
    for axis in (axes.xaxis, axes.yaxis):
        hidden = {id(label) for label in outside(axes)}
        labels = [tick.label1 for tick in axis.get_major_ticks() if id(tick.label1) not in hidden]
        if words := [label.get_text() for label in labels if label.get_text()]:
            found.append((axis.label.get_text(), words))
    return found


def test_the_report_has_these_figures_and_no_other(drawn: dict[str, Illustration]) -> None:
    assert sorted(drawn) == sorted(shown())


@pytest.mark.parametrize("name", shown())
def test_a_figure_is_legible_on_a_page_and_nothing_in_it_is_cut(drawn: dict[str, Illustration], name: str) -> None:
    figure = drawn[name].figure
    assert figure.get_figwidth() == sheet.WIDTH  # one scale: text is as large in every figure
    pixels = {text.get_text(): text.get_fontsize() * PAGE / (72 * figure.get_figwidth()) for text in texts(figure)}
    assert {words: size for words, size in pixels.items() if size < LEAST_PX} == {}
    assert figure.get_figheight() <= MOST_HIGH * figure.get_figwidth()
    assert overlaps(figure) == []
    assert cut(figure) == []


@pytest.mark.parametrize("name", shown())
def test_every_axis_is_named_and_has_enough_ticks(drawn: dict[str, Illustration], name: str) -> None:
    panels = [axes for axes in drawn[name].figure.axes if axes.axison]
    named = [found for axes in panels for found in labelled(axes)]
    assert named
    for words, labels in named:
        assert len(labels) >= 3 or (len(labels) == 2 and "parameters" in words), (words, labels)
    names = {axes: (axes.get_xlabel(), axes.get_ylabel()) for axes in panels}
    shared = {axes for axes in panels if not axes.yaxis.get_tick_params().get("labelleft", True)}
    if not name.startswith("phase-0") and name != "phase-own":  # a grid of small panels is named at its edges
        assert [axes for axes, (x, y) in names.items() if not x or not (y or axes in shared)] == []
    else:
        assert any(x for x, _ in names.values())
        assert any(y for _, y in names.values())


@pytest.mark.parametrize("name", shown())
def test_captions_and_alternative_texts_say_what_is_to_be_seen(drawn: dict[str, Illustration], name: str) -> None:
    shown = drawn[name]
    assert len(shown.alt) > 30
    assert not shown.alt.endswith("..")
    assert shown.caption.endswith(".")
    words = " ".join(text.get_text() for text in texts(shown.figure))
    assert not re.search(r"\bnan\b|None|=\?|\w+\(\)|\w=\w", words)
    for symbol, told in (("t =", "noise-to-gradient"), ("bend", "scale of the terms"), ("floor", "floor √")):
        assert symbol not in words or told in shown.caption + words


def test_every_published_figure_has_an_alternative_text() -> None:
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        for alt, target in re.findall(r"!\[([^\]]*)\]\(([^)]+\.png)\)", page.read_text(encoding="utf-8")):
            assert len(alt) > 30, f"{page.name}: {target} has the alternative text {alt!r}"


# the checks themselves, on figures that are wrong


@style.styled
def wrong(**changes: object) -> Figure:
    figure, (axes,) = style.panels(1, 1, 3.0)
    axes.set(xlabel="steps", ylabel="loss", **changes)  # type: ignore[arg-type]
    return figure


def test_overprinted_and_cut_text_is_found() -> None:
    assert overlaps(laid_out(wrong())) == []
    figure = wrong()
    for place in (0.5, 0.52):
        figure.axes[0].text(place, 0.5, f"written at {place}", transform=figure.axes[0].transAxes)
    assert overlaps(laid_out(figure)) == [("written at 0.5", "written at 0.52")]
    assert cut(figure) == []
    long = figure.axes[0].text(0.9, 0.2, "beyond the edge of the page", transform=figure.axes[0].transAxes)
    long.set_in_layout(False)
    assert cut(laid_out(figure)) == ["beyond the edge of the page"]


# labels however long


@style.styled
def test_long_labels_neither_squeeze_nor_leave_a_figure() -> None:
    names = [f"method-{place} of a user, learning_rate=0.001, adapter=lora, trained=attention" for place in range(12)]
    looks = style.looks(names)
    for count in (1, 3):
        figure, axes = style.panels(count, 2, 2.6)
        axes[0].set_yticks(range(3), list(map(style.wrapped, names[:3])) if count == 1 else None)
        for panel in axes:
            style.title(panel, "smollm2-135m-instruct, a task of a user, bfloat16, 2 threads")
        handles = [axes[0].plot([0, 2], [0, 2], color=looks[name].colour, label=name)[0] for name in names]
        style.legend(figure, handles)
        laid_out(figure)
        assert cut(figure) == []
        assert overlaps(figure) == []
        assert min(panel.get_window_extent().width for panel in axes) > 0.15 * figure.bbox.width


def test_labels_are_words() -> None:
    assert style.named("kerzoo:order=5") == style.named("kerzoo order=5") == "kerzoo, order 5"
    assert style.named("mezo") == "mezo"
    assert style.wrapped("mezo:n=4:law=rademacher", 12) == "mezo, n 4,\nlaw\nrademacher"
    assert [worded(name) for name in ("legendre(3)", "kerzoo5_as_printed()", "my_own()", "order 3")] == [
        *("Legendre, order 3", "KerZOO, order 5 as printed", "my own", "order 3"),
    ]


# ticks


@pytest.mark.parametrize("low", [1e-13, 3e-7, 0.02, 0.9, 4.0])
@pytest.mark.parametrize("span", [1.3, 2.0, 4.0, 12.0, 90.0, 1e4, 1e15])
def test_a_logarithmic_axis_has_at_least_three_ticks_and_not_too_many(low: float, span: float) -> None:
    found = ticks.log_ticks(low, low * span)
    assert 3 <= len(found) <= 12
    assert found == sorted(set(found))
    assert low <= found[0] < found[-1] <= low * span


def test_tick_labels_are_plain_numbers_or_powers_on_one_axis() -> None:
    labels = ticks.LogLabels()
    assert labels.format_ticks([0.01, 0.0625, 1.0, 1000.0]) == ["0.01", "0.0625", "1", "1,000"]
    assert labels.format_ticks([1e-6, 3e-5, 0.01, 1.0]) == ["$10^{-6}$", "$3\\cdot 10^{-5}$", "$10^{-2}$", "1"]


# predicted against measured


def measured(gains: np.ndarray) -> pd.DataFrame:
    rows = {"goal": "descent", "method": "mezo", "predicted": np.full(len(gains), 1e-4), "measured": gains}
    return phases.sampled(pd.DataFrame({**rows, "error": 1e-3}))


def test_gains_measured_below_zero_are_drawn_as_all_others() -> None:
    gains = 1e-4 + 1e-3 * np.linspace(-2.5, 2.5, 41)
    figure = agreement_figure(measured(gains))
    values, deviations, _ = figure.axes
    for panel, expected in ((values, gains / 1e-3), (deviations, (gains - 1e-4) / 1e-3)):
        points = np.concatenate([line.get_ydata() for line in panel.lines if line.get_marker() == "o"])
        assert sorted(points) == pytest.approx(sorted(expected))
        low, high = panel.get_ylim()
        assert low < points.min() < 0 < points.max() < high
    above = (values.lines[0].get_ydata() > values.lines[0].get_xdata()).mean()
    assert above == pytest.approx(0.5, abs=0.02)  # as many on either side of the diagonal: no false bias
