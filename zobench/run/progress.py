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
    """Print a text that is not a result on stdout, above a bar; with --quiet print nothing."""
    if not _quiet:
        _write(text, sys.stdout)


def warn(text: str) -> None:
    """Print a warning on stderr, above a bar; --quiet does not suppress it."""
    _write(text, sys.stderr)


def bar(items: Iterable[Any] | None = None, *, shown: bool = True, **about: Any) -> Any:
    """Return a progress bar of tqdm over the items, or without items a bar that the caller updates.

    Args:
        items: the items to iterate over.
        shown: whether the bar is shown; with --quiet it never is.
        **about: options of tqdm: total, initial, desc, unit.

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
    """Forward passes per second over the last steps, without the time of evaluations and replays.

    Passes and seconds are summed with weights that fall by the factor `memory` at each step.
    """

    def __init__(self, memory: float = 0.9) -> None:
        self.memory, self.passes, self.seconds = memory, 0.0, 0.0

    def see(self, passes: int, seconds: float) -> None:
        """Count a step.

        Args:
            passes: forward passes of the step.
            seconds: wall time of the step.
        """
        self.passes = self.memory * self.passes + passes
        self.seconds = self.memory * self.seconds + seconds

    def __str__(self) -> str:
        return f"{self.passes / self.seconds:.3g} forward passes/s" if self.seconds else ""


class ProgressLines:
    """A stream that writes each state of a bar on a line of its own."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> None:
        """Write the text without carriage returns and cursor movements."""
        text = text.replace("\x1b[A", "").strip("\r\n ")
        if text:
            self.stream.write(text + "\n")

    def flush(self) -> None:
        """Flush the stream."""
        self.stream.flush()


def _write(text: str, stream: Any) -> None:
    from tqdm import tqdm

    tqdm.write(text, file=stream)
