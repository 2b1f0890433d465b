"""What commands print besides results: bars, notes and warnings, fit for terminals, log files and --quiet.

On a terminal there are bars. Elsewhere a bar is a line a minute, so that short commands leave none and no log holds a
carriage return. Results go to stdout by `print`, and are all that --quiet leaves there; warnings and errors go to
stderr, always.
"""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

LINE_SECONDS = 60.0
LINE = "{n_fmt}/{total_fmt} {unit} after {elapsed}, {remaining} left{postfix}"

_quiet = False


@contextmanager
def quietly(quiet: bool = True) -> Iterator[None]:
    """Leave out bars and notes within, or not."""
    global _quiet
    before, _quiet = _quiet, quiet
    try:
        yield
    finally:
        _quiet = before


def note(text: str) -> None:
    """Print on stdout what is no result, above a bar; nothing with --quiet."""
    if not _quiet:
        _write(text, sys.stdout)


def warn(text: str) -> None:
    """Print on stderr what the user should know, above a bar."""
    _write(text, sys.stderr)


def bar(items: Iterable[Any] | None = None, *, shown: bool = True, **about: Any) -> Any:
    """Return a bar of tqdm over the items, or one that is updated by hand; `about` goes to tqdm.

    Args:
        items: what is iterated over.
        shown: whether there is one at all, --quiet aside.
        **about: total, initial, desc, unit.

    Returns:
        the bar: iterable, a context manager, with update(n) and set_postfix_str(text).
    """
    from tqdm import tqdm  # comes with the suites, not with the library

    if _quiet or not shown:
        return tqdm(items, disable=True, **about)
    if sys.stderr.isatty():
        return tqdm(items, file=sys.stderr, mininterval=0.5, dynamic_ncols=True, **about)
    desc = f"{about.pop('desc')}: " if "desc" in about else ""
    lines = {"mininterval": LINE_SECONDS, "maxinterval": LINE_SECONDS, "delay": LINE_SECONDS, "miniters": 1}
    return tqdm(
        items, file=ProgressLines(sys.stderr), bar_format=desc + LINE, position=0, leave=False, **lines, **about
    )


class Speed:
    """Forward passes per second over the last steps, by the time of the steps alone.

    Both are averaged with weights that fall by `memory` a step, so that neither an evaluation nor a replay is in it.
    """

    def __init__(self, memory: float = 0.9) -> None:
        self.memory, self.passes, self.seconds = memory, 0.0, 0.0

    def see(self, passes: int, seconds: float) -> None:
        """Take note of a step."""
        self.passes = self.memory * self.passes + passes
        self.seconds = self.memory * self.seconds + seconds

    def __str__(self) -> str:
        return f"{self.passes / self.seconds:.3g} forward passes/s" if self.seconds else ""


class ProgressLines:
    """A stream on which each state of a bar is a line."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> None:
        """Write what is left of the text without carriage returns and moves of the cursor."""
        text = text.replace("\x1b[A", "").strip("\r\n ")
        if text:
            self.stream.write(text + "\n")

    def flush(self) -> None:
        """Flush the stream."""
        self.stream.flush()


def _write(text: str, stream: Any) -> None:
    from tqdm import tqdm

    tqdm.write(text, file=stream)
