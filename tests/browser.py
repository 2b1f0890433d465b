"""Reports in headless Chromium, at the widths of a screen, a side window and a phone: what cannot be read is a fault.

    python tests/browser.py [--out build/browser]

Pages are those of old runs (results/) and of new ones, made once under --out. Screenshots are kept there. Without
Chromium there is nothing to test, and the exit status is 0.
"""

import argparse
import contextlib
import html
import io
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from analysis.__main__ import main as analysis
from llm.__main__ import main as llm
from synthetic.__main__ import main as synthetic

RESULTS = Path(__file__).parent.parent / "results"
MEASURE = Path(__file__).with_name("browser.js").read_text(encoding="utf-8")
WIDTHS = (1280, 730, 390)
TALLEST = 12_000  # pixels of a screenshot
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
PLACEHOLDER = re.compile(r"=\?|\bNone\b|\b[Nn]a[Nn]\b")
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


def main() -> int:
    """Make the pages, look at each, and print every fault; 1 if there is one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/browser"))
    out: Path = parser.parse_args().out
    browser = next(filter(None, map(shutil.which, NAMES)), None)
    if browser is None:
        print(f"browser test skipped: none of {', '.join(NAMES)} is installed (Debian: apt install chromium)")
        return 0
    out.mkdir(parents=True, exist_ok=True)
    found = [fault for name, folders in pages(out / "runs").items() for fault in look(browser, out, name, folders)]
    print("\n".join(dict.fromkeys(found)) or f"no fault; screenshots: {out.resolve()}")
    return 1 if found else 0


def pages(runs: Path) -> dict[str, list[Path]]:
    """The folders of each report, new runs made where they are not there yet."""
    train(runs / "one", "--method", "mezo", "--lr", "3e-4")
    for rate in ("1e-4", "3e-4"):
        train(runs / f"two/mezo-{rate}", "--method", "mezo", "--lr", rate)
        train(runs / f"two/kerzoo-{rate}", "--method", "kerzoo:order=5", "--lr", rate, "--clip", "100")
    for seed in range(5):
        train(runs / f"seeds/{seed}", "--method", "mezo", "--lr", "3e-4", "--seed", str(seed))
    train(runs / "diverged/good", "--method", "mezo", "--lr", "3e-4")
    train(runs / "diverged/bad", "--method", "mezo", "--lr", "1e3")
    interrupted(runs / "one", runs / "interrupted")
    study = ("--forward-passes", "12", "--rates", "1e-4,3e-4,1e-3", "--seeds", "2", "--test", "40", "--dev", "20")
    made(runs / "study", llm, "study", "--methods", "mezo,kerzoo", *study, "--train", "60", "--evaluations", "2")
    bias = ("--problem", "quadratic,sextic", "--samples", "20000", "--controlled-samples", "2000")
    made(runs / "demo/bias", synthetic, "bias", *bias)
    made(runs / "demo/kernels", synthetic, "kernels")
    rates = ("--rates", "0.0078125,0.015625,0.03125,0.0625,0.125,0.25")
    made(runs / "demo/converge", synthetic, "converge", "--evaluations", "600", *rates)
    train(runs / "demo/spam-mezo", "--method", "mezo", "--lr", "3e-4", "--select", "last")
    train(runs / "demo/spam-kerzoo", "--method", "kerzoo", "--lr", "1e-4", "--select", "last")
    own = ("one", "two", "seeds", "diverged", "interrupted", "study")
    theory = ("bias", "kernels", "converge", "design", "descent", "phase", "epsilon", "noise", "speed", "rounding")
    return {
        "demo": [runs / "demo", RESULTS / "spam"],
        "old": [RESULTS / "spam/seeds"],
        "smollm2": [RESULTS / "smollm2"],
        "published": [*(RESULTS / name for name in theory), RESULTS / "spam"],
        **{name: [runs / name] for name in own},
    }


def train(out: Path, *options: str) -> None:
    """A run of a few steps."""
    sizes = ("--steps", "6", "--eval-every", "3", "--train", "60", "--dev", "20", "--test", "40")
    made(out, llm, "train", *sizes, "--no-save", *options)


def made(out: Path, command: Callable[[list[str]], int], *words: str) -> None:
    """The run of a command, which is not repeated where it ended."""
    if not (out / ".ended").exists():
        with contextlib.redirect_stdout(io.StringIO()):
            status = command([*words, "--quiet", "--out", str(out)])
        if status not in (0, 3):
            raise SystemExit(f"{' '.join(words)} ended with status {status}")
        (out / ".ended").touch()


def interrupted(run: Path, out: Path) -> None:
    """A copy of the run as it was before its last evaluation."""
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(run, out)
    rows = (out / "rows.jsonl").read_text().splitlines()
    kept = [row for row in rows if json.loads(row)["kind"] != "final" and json.loads(row).get("step", 0) < 6]
    (out / "rows.jsonl").write_text("\n".join(kept) + "\n")


def look(browser: str, out: Path, name: str, folders: list[Path]) -> Iterator[str]:
    """Faults of one report, and its screenshots."""
    page = out / f"{name}.html"
    if analysis(["report", *map(str, folders), "--out", str(page)]):
        yield f"{name}: no report"
        return
    written = page.read_text(encoding="utf-8")
    for width, found in measured(browser, written).items():
        yield from (f"{name} at {width} px: {fault}" for fault in found["faults"])
        if PLACEHOLDER.search(found["text"]):
            yield f"{name}: placeholders {sorted(set(PLACEHOLDER.findall(found['text'])))}"
        screenshot(browser, written, width, min(found["height"], TALLEST), out / f"{name}-{width}.png")
    for svg in sorted(page.with_name(f"{name}_figures").glob("*.svg")):
        told = re.findall(r"<!--(.*?)-->", svg.read_text(encoding="utf-8"), re.DOTALL)
        yield from (f"{svg.name} of {name}: {words.strip()!r}" for words in told if PLACEHOLDER.search(words))


def measured(browser: str, page: str) -> dict[int, dict[str, Any]]:
    """What browser.js finds in the page at each width: faults, text and height."""
    frames = "".join(_frame(page, width, 800) for width in WIDTHS)
    told = _chromium(browser, f"{frames}<pre></pre><script>{MEASURE}</script>", "--dump-dom", "--window-size=1400,900")
    found = re.search(r"<pre>(.*?)</pre>\s*<script>", told, re.DOTALL)
    if not found:
        raise SystemExit(f"{browser} measured nothing: {told[-500:]}")
    return {int(width): values for width, values in json.loads(html.unescape(found[1])).items()}


def screenshot(browser: str, page: str, width: int, height: int, file: Path) -> None:
    """The page at that width; a frame has it, as windows have a least width."""
    picture = f"--screenshot={file.resolve()}"
    _chromium(browser, _frame(page, width, height), picture, f"--window-size={max(width, 500)},{height}")


def _frame(page: str, width: int, height: int) -> str:
    style = f"width:{width}px;height:{height}px;border:0;display:block"
    return f'<iframe style="{style}" srcdoc="{html.escape(page)}"></iframe>'


def _chromium(browser: str, body: str, *options: str) -> str:
    with tempfile.TemporaryDirectory() as own:
        file = Path(own) / "page.html"
        file.write_text(f'<!DOCTYPE html><meta charset="utf-8"><body style="margin:0">{body}', encoding="utf-8")
        command = [browser, *QUIET, f"--user-data-dir={own}/profile", *options, file.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
