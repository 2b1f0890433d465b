"""The folders of a study's runs in one compressed file, which is the same for the same folders."""

import io
import lzma
import tarfile
from pathlib import Path

from llm.run.folder import CONFIG, ENVIRONMENT, JOURNAL, ROWS
from zobench.run.files import create_synced

FILE = "runs.tar.xz"
KEPT = (CONFIG, ENVIRONMENT, ROWS, JOURNAL)
"""What is kept of a run: all that its weights are rebuilt from."""
FINAL = b'"kind": "final"'


def pack(folder: Path, groups: tuple[str, ...]) -> int:
    """Write the runs below `groups` to the archive of a study, beside those that it holds already, and return how many
    files it holds; a run that is there in both is taken from its folder.

    Raises:
        OSError: no space, or the like; the archive before stays.
    """
    files = contents(folder)
    for path in (path for group in groups for path in sorted((folder / group).glob("*/*")) if path.name in KEPT):
        files[path.relative_to(folder).as_posix()] = path.read_bytes()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in sorted(files.items()):
            entry = tarfile.TarInfo(name)  # without date and owner: the same files are the same archive
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    create_synced(folder / FILE, lzma.compress(packed.getvalue(), preset=9))
    return len(files)


def unpack(folder: Path, unfinished: bool = False) -> int:
    """Write the files of the archive of a study below its folder, where they are missing, and return how many; with
    `unfinished` those of runs without a final row, which go on from their journals.
    """
    files = contents(folder)
    rows = {Path(name).parent: data for name, data in files.items() if Path(name).name == ROWS}
    wanted = {
        name: data for name, data in files.items() if not (unfinished and FINAL in rows.get(Path(name).parent, b""))
    }
    missing = {name: data for name, data in wanted.items() if not (folder / name).exists()}
    for name, data in missing.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        create_synced(folder / name, data)
    return len(missing)


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files of the archive of a study by their names; none without an archive.

    Raises:
        ValueError: the archive is damaged, or a name in it leads out of the folder.
    """
    file = folder / FILE
    if not file.exists():
        return {}
    try:
        with tarfile.open(fileobj=io.BytesIO(lzma.decompress(file.read_bytes()))) as archive:
            entries = {entry.name: archive.extractfile(entry) for entry in archive.getmembers() if entry.isfile()}
            found = {name: data.read() for name, data in entries.items() if data is not None}
    except (lzma.LZMAError, tarfile.TarError) as error:
        raise ValueError(f"{file} is damaged ({error}): restore it from a copy") from None
    for name in found:
        if not (folder / name).resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{file} holds {name!r}, which leads out of {folder}: it is not of this command")
    return found
