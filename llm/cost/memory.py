"""Peak memory of the blocks that a meter runs over."""

import sys
from pathlib import Path

import torch

MIB = 2**20
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """The highest memory within the `with` blocks of one meter, in MiB.

    On CUDA what torch had allocated on the device (`torch.cuda.max_memory_allocated`), and in `reserved_mb` what it
    kept for that (`torch.cuda.max_memory_reserved`). On a CPU the resident set: Linux's VmHWM, reset where a
    block begins, so that loading, evaluations and runs before it in the same process do not count. `ru_maxrss` stands
    in where there is no VmHWM (macOS): it cannot be reset, and is then the peak of the whole process. (On Linux
    `ru_maxrss` would start at the size of the process that started this one.)

    On CUDA a block ends when the device has done what it was given, so that times taken around it are whole. Cost of a
    block: about 0.1 ms.
    """

    def __init__(self, device: torch.device, mb: float | None = None) -> None:
        self.device, self.mb = device, mb
        self.reserved_mb: float | None = None

    def __enter__(self) -> "PeakMemory":
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            _reset()
        return self

    def __exit__(self, *_: object) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else resident_peak()
        self.mb = max(self.mb or 0.0, now / MIB)
        if self.device.type == "cuda":
            self.reserved_mb = max(self.reserved_mb or 0.0, torch.cuda.max_memory_reserved(self.device) / MIB)


def _reset() -> None:
    """Let VmHWM begin again at the present size; a kernel that does not know how keeps the peak."""
    try:
        RESET.write_text("5")
    except OSError:
        return


def resident_peak() -> int:
    """Return the highest resident set of this process since its start or the last reset, in bytes."""
    if STATUS.is_file():
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource  # Windows has none

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
