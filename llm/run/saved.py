"""A folder of weights with the checksums of its files beside them."""

import json
from collections.abc import Iterator
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import Any

from llm.model import loading
from llm.model.language_model import LanguageModel
from llm.run.finding import DAMAGED, MISSING, SOUND, UNCHECKED, Finding
from zobench.run.files import create_synced
from zobench.run.reading import file_bytes, json_object

FILE = "checksums.json"
REPORTS = ("README.md",)
"""Files that decide about no weights, and may be written again."""


def save(language_model: LanguageModel, folder: Path, weights: str) -> None:
    """Write a model, as `loading.save` does, and then its checksums; `weights` is its fingerprint.

    Raises:
        OSError: no space, or the like.
    """
    loading.save(language_model, folder)
    write_checksums(folder, weights)


def write_checksums(folder: Path, weights: str | None) -> None:
    """Write 128 bits of BLAKE2b of every file in a folder; `weights` is the fingerprint of the weights in it, None
    where they are not as a run selected them.

    Raises:
        OSError: no space, or the like.
    """
    files = {name: _checksum(folder / name) for name in _names(folder)}
    create_synced(folder / FILE, (json.dumps({"fingerprint": weights, "files": files}, indent=2) + "\n").encode())


def checksums(folder: Path) -> dict[str, Any]:
    """Return what the file of checksums says.

    Raises:
        ValueError: it is damaged.
        OSError: it cannot be read.
    """
    file = folder / FILE
    said = json_object(file_bytes(file), str(file))
    files = said.get("files")
    if not isinstance(files, dict) or "fingerprint" not in said:
        raise ValueError(f"{file}: it lacks files or fingerprint: restore the file from a copy")
    return said


def check(folder: Path, weights: str | None) -> Iterator[Finding]:
    """Find out whether a folder holds what was written, `weights` by their fingerprint; nothing is loaded.

    Cost: every file is read once.
    """
    place = folder.name
    if not folder.is_dir():
        yield Finding(place, MISSING, "the folder is gone")
        return
    try:
        said = checksums(folder)
    except FileNotFoundError:
        yield Finding(f"{place}/{FILE}", MISSING, "it has the checksums of the other files")
        return
    except (ValueError, OSError) as error:
        yield Finding(f"{place}/{FILE}", DAMAGED, str(error))
        return
    if weights is not None and said.get("fingerprint") != weights:
        yield Finding(
            f"{place}/{FILE}", DAMAGED, f"it is of weights {said.get('fingerprint')}, and the run selected {weights}"
        )
    else:
        yield Finding(f"{place}/{FILE}", SOUND, f"of weights {said.get('fingerprint') or 'that were changed since'}")
    yield from _files(folder, said["files"])


def _files(folder: Path, wanted: dict[str, str]) -> Iterator[Finding]:
    names = _names(folder)
    for name in sorted({*names, *wanted}):
        where = f"{folder.name}/{name}"
        if name not in names:
            yield Finding(where, MISSING, "it was written there")
        elif name not in wanted:
            yield Finding(where, UNCHECKED, "it was not written with the others")
        elif _checksum(folder / name) != wanted[name]:
            yield Finding(where, DAMAGED, "it does not have its checksum")
        else:
            yield Finding(where, SOUND, "it has its checksum")
    for name in REPORTS:
        if (folder / name).is_file():
            yield Finding(f"{folder.name}/{name}", UNCHECKED, "a report for readers")


def _names(folder: Path) -> list[str]:
    """The files of a folder and of those in it, but for reports and the checksums themselves."""
    files = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in files if name not in (FILE, *REPORTS))


def _checksum(file: Path) -> str:
    with file.open("rb") as opened:
        return file_digest(opened, lambda: blake2b(digest_size=16)).hexdigest()
