"""Build the documentation: pages of docs/, the reference, the commands, the tour; a warning is an error."""

import argparse
import os
import sys
from pathlib import Path

from sphinx.cmd.build import build_main

from docs.site.pages import stage


def main() -> int:
    """Write the pages to `--pages`, the site to `--out`; return 1 where Sphinx found something to warn of."""
    parser = argparse.ArgumentParser(prog="python -m docs.site", description=__doc__)
    parser.add_argument("--pages", type=Path, default=Path("build/pages"), help="folder that Sphinx reads")
    parser.add_argument("--out", type=Path, default=Path("build/site"), help="folder of the site")
    arguments = parser.parse_args()
    os.environ["COLUMNS"] = "110"  # of the help texts
    stage(arguments.pages)
    status = build(arguments.pages, arguments.out)
    if not status:
        print(f"site: {arguments.out / 'index.html'}")
    return status


def build(pages: Path, out: Path) -> int:
    """Build the site of these pages; return 0, or what Sphinx returns where there is anything to warn of."""
    options = ["-W", "--keep-going", "-n", "-q", "-c", str(Path(__file__).parent), "-d", str(pages / ".tree")]
    return build_main([*options, str(pages), str(out)])


if __name__ == "__main__":
    sys.exit(main())
