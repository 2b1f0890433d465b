"""What commands print besides results: bars, notes and warnings, fit for terminals, log files and --quiet.

On a terminal there are bars: the loss first and the bar last, so that a narrow window cuts the bar. Elsewhere a command
writes a line a minute, however many bars it has, so that short commands leave none and no log holds a carriage return.
Results go to stdout by `print`, and are all that --quiet leaves there; warnings and errors go to stderr, always.
"""

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import Any

LINE_SECONDS = 60.0
TERMINAL = "{desc}{n_fmt}/{total_fmt} {unit} [{elapsed}<{remaining}]{postfix} |{bar}|"

_quiet = False
_whole = ""
_told: float | None = None
"""When the last line of progress was written, or the first bar of the command was made."""


def begin() -> None:
    """Forget when an earlier command of this process wrote its last line of progress."""
    global _told
    _told = None


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


@contextmanager
def part_of(whole: str) -> Iterator[None]:
    """Begin the bars within by a text: which part of a whole they are, and what is left of that."""
    global _whole
    before, _whole = _whole, whole
    try:
        yield
    finally:
        _whole = before


def bar(items: Iterable[Any] | None = None, *, shown: bool = True, **about: Any) -> Any:
    """Return a progress bar over the items, or without items a bar that the caller updates.

    Args:
        items: the items to iterate over.
        shown: whether the bar is shown; with --quiet it never is.
        **about: options of tqdm: total, initial, desc, unit; on a terminal delay and leave too.

    Returns:
        the bar: iterable, a context manager, with update(n) and set_postfix_str(text, refresh).
    """
    desc = ", ".join(filter(None, (_whole, about.pop("desc", ""))))
    if not (sys.stderr.isatty() and shown and not _quiet):
        return Lines(items, desc=desc, shown=shown and not _quiet, **about)
    from tqdm import tqdm  # comes with the suites, not with the library

    about = {"file": sys.stderr, "mininterval": 0.5, "miniters": 1, "dynamic_ncols": True, **about}
    return tqdm(items, desc=desc and f"{desc}: ", bar_format=TERMINAL, **about)


class Lines:
    """A bar where there is no terminal: an update writes a line if the command has written none for a minute."""

    def __init__(
        self,
        items: Iterable[Any] | None = None,
        total: int | None = None,
        initial: int = 0,
        desc: str = "",
        unit: str = "it",
        shown: bool = True,
        **_: Any,
    ) -> None:
        global _told
        self.items, self.n, self.initial, self.desc, self.unit, self.shown = items, initial, initial, desc, unit, shown
        self.total = len(items) if total is None and isinstance(items, Sized) else total
        self.postfix, self.began = "", time.monotonic()
        _told = self.began if _told is None else _told

    def __iter__(self) -> Iterator[Any]:
        for item in self.items or ():
            yield item
            self.update()

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, n: int = 1) -> None:
        """Count n more."""
        global _told
        self.n += n
        now = time.monotonic()
        if self.shown and _told is not None and now - _told >= LINE_SECONDS:
            _told = now
            sys.stderr.write(f"{self}\n")
            sys.stderr.flush()

    def set_postfix_str(self, text: str, refresh: bool = True) -> None:
        """Set what a line ends with."""
        self.postfix = text

    def __str__(self) -> str:
        seconds, done = time.monotonic() - self.began, self.n - self.initial
        left = f", {duration(seconds / done * (self.total - self.n))} left" if self.total and done else ""
        count = f"{self.n}/{self.total}" if self.total else f"{self.n}"
        named = f"{self.desc}: " if self.desc else ""
        return f"{named}{count} {self.unit} after {duration(seconds)}{left}" + (self.postfix and f", {self.postfix}")


def duration(seconds: float) -> str:
    """Return a time as 01:15, or as 2:01:15 from an hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"


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


def _write(text: str, stream: Any) -> None:
    bars = sys.modules.get("tqdm")  # without it there is no bar to write above
    if bars is None:
        print(text, file=stream)
    else:
        bars.tqdm.write(text, file=stream)
