"""Bytes in, lines of text out: the decoder of all data files and task files."""

import codecs
from pathlib import Path

# The mark of UTF-32 begins with that of UTF-16, so it comes first.
MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
BINARY = {b"PAR1\x15": "Parquet", b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip or Excel", b"\xd0\xcf\x11\xe0": "Excel"}
CONVERT = "convert the file to UTF-8"
NAME_IT = 'convert the file, or name its encoding in the task file (encoding = "cp1252", "latin-1" or "utf-16")'


def lines(file: Path, encoding: str = "utf-8", way_out: str = CONVERT) -> list[str]:
    r"""Return the lines of a file without their ends, which are \n, \r\n or \r.

    A byte order mark decides on the encoding; further ones, at the seams of files that were joined, are left out.
    UTF-16 without a mark is read in the byte order that has the zeros of Latin letters on the right side.

    Raises:
        ValueError: the file is missing, empty or binary, or a byte is not of the encoding; the message says which line.
    """
    if not file.is_file():
        raise ValueError(f"{file}: no such file")
    data = file.read_bytes()
    for first, kind in BINARY.items():
        if data.startswith(first):
            raise ValueError(f"{file}:1: the file is {kind} by its first bytes, not text: unpack or convert it")
    split = _split(_decoded(file, data, encoding, way_out))
    if not any(map(str.strip, split)):
        raise ValueError(f"{file}:1: the file is empty")
    for number, line in enumerate(split, 1):
        if "\0" in line:
            where = f"{file}:{number}: there is a zero byte at {line.index(chr(0)) + 1}"
            raise ValueError(f"{where}: is the file UTF-16, or damaged? {way_out}")
    return split


def _split(text: str) -> list[str]:
    # Not splitlines: U+2028 and others of its ends may stand within a line of JSON.
    joined = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return [line.removeprefix("\ufeff") for line in joined]


def _decoded(file: Path, data: bytes, encoding: str, way_out: str) -> str:
    mark = next((mark for mark in MARKS if data.startswith(mark)), b"")
    data = data.removeprefix(mark)
    try:
        codec = MARKS[mark] if mark else codecs.lookup(encoding).name
        if codec == "utf-16":
            codec = "utf-16-be" if data[0::2].count(0) > data[1::2].count(0) else "utf-16-le"
        return data.decode(codec)
    except UnicodeDecodeError as error:
        before = _split(data[: error.start].decode(codec, "replace"))
        byte, column = data[error.start], len(before[-1]) + 1
        raise ValueError(f"{file}:{len(before)}: byte 0x{byte:02x} at {column} is not {codec}: {way_out}") from None
    except (LookupError, ValueError):
        raise ValueError(f"{file}: encoding {encoding!r} is unknown: give utf-8, cp1252, utf-16, ...") from None
