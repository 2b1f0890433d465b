"""What a check found of a file."""

from typing import NamedTuple

SOUND, DAMAGED, MISSING, UNCHECKED = "ok", "damaged", "missing", "not checked"


class Finding(NamedTuple):
    """A file by its name in the folder, its state, and why."""

    file: str
    state: str
    why: str

    @property
    def bad(self) -> bool:
        """Whether the file is not what was written."""
        return self.state in (DAMAGED, MISSING)

    def __str__(self) -> str:
        return f"{self.state:12}{self.file}: {self.why}"
