"""The pages that Sphinx reads: docs/*.md as they are, and those made from code."""

import re
import shutil
from pathlib import Path

from docs.site import commands, notebook, reference

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

FIRST = (
    "tasks",
    "objectives",
    "training",
    "quantised",
    "baselines",
    "presets",
    "export",
    "journal",
    "run-folder",
    "integrations",
    "own",
    "property-tests",
    "audit",
    "figures",
    "speed",
    "scale",
    "gpu",
    "smoke",
)
"""The order of the guide; other pages of docs/ follow by name."""
WAY_IN = ("install", "own-data", "own-estimator", "faq")
THEORY = ("theory", "epsilon")
FOUND = ("findings", "gallery")

PICTURES = (".png", ".svg", ".jpg")
TOUR = "tour.ipynb"

OUTSIDE = re.compile(r"\[([^\]]*)\]\(\.\./([^)#\s]*)[^)]*\)")


def stage(folder: Path) -> None:
    """Write all pages to a folder; what a page shows of the code is read from the code now.

    Raises:
        FileNotFoundError: a page links to a file that the repository does not have.
        nbclient.exceptions.CellExecutionError: a cell of the tour fails.
    """
    for picture in (file for file in DOCS.iterdir() if file.suffix in PICTURES):
        shutil.copy(picture, folder)
    pages = {page.stem: page.read_text(encoding="utf-8") for page in DOCS.glob("*.md")}
    pages["changelog"] = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").replace("](docs/", "](")
    for name, text in pages.items():
        (folder / f"{name}.md").write_text(inside(text), encoding="utf-8")
    index = (Path(__file__).parent / "index.md").read_text(encoding="utf-8")
    (folder / "index.md").write_text(index.replace("GUIDE", "\n".join(guide(pages))), encoding="utf-8")
    (folder / "methods.md").write_text(commands.methods_page(), encoding="utf-8")
    (folder / "commands.md").write_text(commands.page(), encoding="utf-8")
    for name, text in reference.pages().items():
        (folder / f"{name}.rst").write_text(text, encoding="utf-8")
    notebook.page(DOCS / TOUR, folder)


def guide(pages: dict[str, str]) -> list[str]:
    """Return the pages of the guide in order: every page that has no other place."""
    elsewhere = {*WAY_IN, *THEORY, *FOUND, "changelog"}
    return [n for n in FIRST if n in pages] + sorted(n for n in pages if n not in FIRST and n not in elsewhere)


def inside(text: str) -> str:
    """Return the page with links that leave docs/ named instead, since the site has no other files of the repository,
    and links to the tour led to its page.
    """
    return OUTSIDE.sub(_named, text.replace(f"]({TOUR})", "](tour.md)"))


def _named(link: re.Match[str]) -> str:
    text, place = link.groups()
    if place == "CHANGELOG.md":
        return f"[{text}](changelog.md)"
    if not (ROOT / place).exists():
        raise FileNotFoundError(f"a page of docs/ links to ../{place}, which is not there")
    return text if text.strip("`") == place else f"{text} (`{place}` in the repository)"
