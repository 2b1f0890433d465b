"""Results -> one self-contained HTML page, and its figures as PNG, SVG and PDF beside it."""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from matplotlib.figure import Figure

from analysis import text
from analysis.lead import lead
from analysis.rows import Results, RunRows
from analysis.sections import (
    bias,
    claims,
    convergence,
    descent,
    design,
    epsilon,
    finetuning,
    kernels,
    mse,
    noise,
    phase,
    profile,
    rounding,
    speed,
)
from analysis.sections.section import Illustration, Section
from analysis.tables.table import folded
from zobench.figures import style
from zobench.figures.files import METADATA

SECTIONS: tuple[Callable[[Results], Section], ...] = (
    bias.section,
    mse.section,
    kernels.section,
    design.section,
    phase.section,
    descent.section,
    epsilon.section,
    noise.section,
    convergence.section,
    finetuning.section,
    speed.section,
    profile.section,
    rounding.section,
    claims.section,
)
SCALE = 130  # pixels an inch of a figure where the page has room
SHOWN_APART = ("command", "provenance")


@dataclass(frozen=True)
class Picture:
    """A figure as the page holds it: SVG to see and PDF to keep, in base64; `width` is the most it is shown at."""

    shown: Illustration
    svg: str
    narrow: str
    pdf: str
    width: int


def write(results: Results, out: Path, title: str) -> Path:
    """Write the page to `out` and the figures to `<out stem>_figures/`; return that folder.

    The same rows give the same bytes. Figures of other names, from an older report there, are left alone.
    """
    folder = out.with_name(out.stem + "_figures")
    folder.mkdir(parents=True, exist_ok=True)
    every = [section(results) for section in SECTIONS]
    shown = [section for section in every if not section.missing]
    made = [lead(results, shown), *shown]
    pictures = {section.key: [_picture(shown, folder) for shown in section.illustrations] for section in made}
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html.jinja").render(
        title=title,
        sections=made,
        absent=_absent(every),
        figures=folder.name,
        pictures=pictures,
        folded=folded,
        runs=[_described(run) for run in results.runs],
        warnings=results.warnings,
    )
    out.write_text(page, encoding="utf-8")
    return folder


def _absent(sections: Sequence[Section]) -> dict[str, str]:
    """Commands that would add sections, with the titles of these."""
    commands: dict[str, list[str]] = {}
    for section in sections:
        if section.missing:
            commands.setdefault(section.missing, []).append(section.title)
    return {command: text.listed(titles) for command, titles in commands.items()}


def _picture(shown: Illustration, folder: Path) -> Picture:
    svg, pdf = _saved(shown.figure, folder / shown.stem)
    narrow = _saved(shown.narrow, folder / f"{shown.stem}-narrow")[0] if shown.narrow else ""
    return Picture(shown, svg, narrow, pdf, round(SCALE * shown.figure.get_figwidth()))


def _saved(figure: Figure, stem: Path) -> tuple[str, str]:
    """SVG and PDF of a figure in base64; the files are beside the page."""
    files = save(figure, stem)
    one, two = (base64.b64encode(files[suffix].read_bytes()).decode("ascii") for suffix in ("svg", "pdf"))
    return one, two


@style.styled
def save(figure: Figure, stem: Path) -> dict[str, Path]:
    """Write `stem` as PNG, SVG and PDF, and return their files by suffix."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out once here, not twice for each file
    files = {suffix: stem.with_name(f"{stem.name}.{suffix}") for suffix in METADATA}
    for suffix, file in files.items():
        figure.savefig(file, metadata=METADATA[suffix])
    return files


def _described(run: RunRows) -> dict[str, str]:
    """A run as the list at the end of the page has it."""
    settings = (f"{key} = {value}" for key, value in run.config.items() if key not in SHOWN_APART)
    machine = [str(run.environment[key]) for key in ("cpu", "gpu", "platform") if run.environment.get(key)]
    if run.environment.get("cores"):
        machine.append(f"{run.environment['cores']} cores")
    versions = (f"{key} {run.environment[key]}" for key in ("python", "torch") if run.environment.get(key))
    return {
        "name": run.name,
        "command": str(run.config.get("command", "unknown")),
        "settings": ", ".join(settings),
        "commit": str(run.environment.get("commit") or "unknown")[:12],
        "machine": ", ".join(machine) or "unknown",
        "versions": ", ".join(versions),
        "date": str(run.environment.get("date", "")),
        "rows": f"{len(run.rows):,}",
        "provenance": run.provenance,
    }
