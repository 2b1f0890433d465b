"""Build the documentation into build/site: docs/, the reference, the commands, the tour; a warning is an error."""

import os
import shutil
import sys
from pathlib import Path

from sphinx.cmd.build import build_main

from docs.site.pages import ROOT, stage

PAGES, SITE = ROOT / "build" / "pages", ROOT / "build" / "site"


def main() -> int:
    """Write the pages, then the site; return what `build` returns."""
    os.environ["COLUMNS"] = "110"  # of the help texts
    for folder in (PAGES, SITE):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    stage(PAGES)
    status = build(PAGES, SITE)
    if not status:
        print(f"site: {SITE / 'index.html'}")
    return status


def build(pages: Path, out: Path) -> int:
    """Build the site of these pages; return 0, or what Sphinx returns where there is anything to warn of."""
    options = ["-W", "--keep-going", "-n", "-q", "-c", str(Path(__file__).parent), "-d", str(pages / ".tree")]
    return build_main([*options, str(pages), str(out)])


if __name__ == "__main__":
    sys.exit(main())
