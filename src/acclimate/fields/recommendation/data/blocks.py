"""Text files, plain or gzipped, in blocks of whole lines."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from acclimate.core.config import whole

__all__ = ["BLOCK", "Block", "blocks"]

BLOCK = 1 << 24
"""Bytes of text read at a time: about 65,000 rows of Criteo."""

_LONGEST_LINE = 1 << 20
_GZIP = b"\x1f\x8b"
_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Whole lines of a file.

    Arguments:
        path: of the file.
        number: which block of the file it is, from 0.
        first: the number of its first line, from 1.
        text: the lines, each with its line feed.
        position: bytes of the file that were read so far, compressed where it is.
    """

    path: Path
    number: int
    first: int
    text: bytes
    position: int


def blocks(path: str | Path, size: int = BLOCK) -> Iterator[Block]:
    """The blocks of a file, of about `size` bytes each; for one file and size they are always the same.

    A gzipped file is known by its first bytes, whatever its name. A byte order mark is dropped; a last line without a
    line feed gets one.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an empty, damaged or truncated file, or one that is no text; the message names the row.
    """
    whole(1, size=size)
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}; expected a text file with clicks, plain or gzipped.")
    number, line = 0, 1
    for text, position in _lines(path, size):
        text = text.removeprefix(_MARK) if number == 0 else text
        if b"\0" in text:
            row = line + text.count(b"\n", 0, text.index(b"\0"))
            raise ValueError(
                f"{path}, row {row}: found a zero byte; expected text in UTF-8 or ASCII. Convert the file."
            )
        yield Block(path, number, line, text, position)
        number, line = number + 1, line + text.count(b"\n")
    if number == 0:
        raise ValueError(f"{path} is empty; expected a row for each click. Fetch the file again.")


def _lines(path: Path, size: int) -> Iterator[tuple[bytes, int]]:
    rest, row = b"", 1
    with path.open("rb") as raw:
        zipped = raw.read(2) == _GZIP
        raw.seek(0)
        file = gzip.GzipFile(fileobj=raw) if zipped else raw
        while True:
            try:
                read = file.read(size)
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise ValueError(
                    f"{path}, row {row}: found the end of what can be unpacked ({error}); expected a whole gzipped "
                    "file. It is truncated or damaged: fetch it again."
                ) from error
            ended = len(read) < size
            if ended and (rest or read) and not read.endswith(b"\n"):
                read += b"\n"
            lines, feed, after = read.rpartition(b"\n")
            if feed:
                yield rest + lines + feed, raw.tell()
                row, rest = row + lines.count(b"\n") + 1, after
            else:
                rest += after
            if len(rest) > _LONGEST_LINE:
                raise ValueError(
                    f"{path}, row {row}: found a line of more than {_LONGEST_LINE} bytes; expected lines that end in "
                    "a line feed. Choose the file that holds the rows."
                )
            if ended:
                break
