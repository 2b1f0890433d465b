"""What a command ends with, so that scripts can tell."""

import sys

OK = 0
DIFFERENT = 1
"""What was asked does not hold: a replay that ends with other weights, say. Also what Python gives for a traceback."""
BAD_INPUT = 2
"""An option, a file or a configuration that cannot be used."""
DIVERGED = 3
"""Training was stopped by skipped steps, or its loss ended far above the start; everything is kept."""
FAULT = 4
"""The machine: a full disk, a folder that cannot be written or that another process writes, no memory."""
INTERRUPTED = 130
"""Ctrl-C or SIGTERM; what was measured is kept."""
BROKEN_PIPE = 141
"""Whoever read the output has left, as in `| head`."""

FAULTS = (OSError, MemoryError)
MISSING = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


def status(error: BaseException) -> int | None:
    """Return what a command that raises this ends with; None for an error of the program, which wants its traceback."""
    if isinstance(error, BrokenPipeError):
        return BROKEN_PIPE
    if isinstance(error, (ValueError, *MISSING)):
        return BAD_INPUT
    if isinstance(error, FAULTS) or _of_torch(error):
        return FAULT
    return INTERRUPTED if isinstance(error, KeyboardInterrupt) else None


def _of_torch(error: BaseException) -> bool:
    """Whether a device has no memory left; without torch in the process no error is of torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(error, torch.OutOfMemoryError)
