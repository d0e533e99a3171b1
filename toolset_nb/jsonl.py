"""Reading JSON Lines files that anybody may have written: line by line, with the fault of each bad line. Appending to our own.

Memory use does not grow with the file. What the rows must hold is not judged here (`rules`).
"""

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from toolset_nb.calls import loads
from toolset_nb.errors import ToolsetError
from toolset_nb.tools import Problem

LONGEST_LINE = 50_000_000  # bytes
FOREIGN = {
    b"\x1f\x8b": "is gzip; unpack it first (gunzip)",
    b"PK\x03\x04": "is a zip archive; unpack it first",
    b"\x28\xb5\x2f\xfd": "is zstd; unpack it first",
    b"PAR1": "is a Parquet file; export it as JSON Lines first",
    b"\xff\xfe": "is UTF-16; save it as UTF-8",
    b"\xfe\xff": "is UTF-16; save it as UTF-8",
    b"{\0": "is UTF-16; save it as UTF-8",
    b"\0{": "is UTF-16; save it as UTF-8",
}


class DataError(ToolsetError, ValueError):
    """A file that cannot be read as JSON Lines at all; the message names the file and what to do."""

    exit_code = 2


def read(path: str | Path) -> Iterator[tuple[int, dict | Problem]]:
    """(line number, row) of each line that is not blank, a Problem in place of a row that cannot be read.

    Raises DataError when the file as a whole is unreadable: missing, no regular file, another encoding or format.
    """
    for number, line in read_lines(path):
        yield number, line if isinstance(line, Problem) else parse_line(line)


def read_lines(path: str | Path) -> Iterator[tuple[int, bytes | Problem]]:
    """As `read`, with the undecoded bytes of each line."""
    path = Path(path)
    with _open(path) as file:
        number = count = 0
        while line := file.readline(LONGEST_LINE + 1):
            number += 1
            if number == 1:
                _refuse_foreign(path, line)
                line = line.removeprefix(b"\xef\xbb\xbf")
            if len(line) > LONGEST_LINE and not line.endswith(b"\n"):
                while (rest := file.readline(1 << 20)) and not rest.endswith(b"\n"):
                    pass
                line = Problem("line", f"more than {LONGEST_LINE // 1_000_000} MB", "one row, far shorter")
            elif not (line := line.strip(b" \t\r\n")):
                continue
            elif count == 0 and line[:1] == b"[":
                raise DataError(f"{path} is a JSON array; write one object per line (jq -c '.[]' {path.name})")
            count += 1
            yield number, line
        if not count:
            yield 1, Problem("file", "no rows" if number else "an empty file", "one JSON object per line")


def parse_line(line: bytes) -> dict | Problem:
    """The row on a line, or what keeps it from being one: encoding, JSON, duplicate keys, NaN, depth, type."""
    try:
        row = loads(line.decode())
    except UnicodeDecodeError as error:
        return Problem("line", f"byte 0x{line[error.start]:02x} at offset {error.start}", "UTF-8 text")
    except ValueError as error:
        if "more text after" in str(error):
            return Problem("line", str(error), "one JSON object per line (lines end with LF)")
        torn = "" if line.endswith(b"}") else "; the line is cut off"
        return Problem("line", f"{error}{torn}", "a JSON object")
    if not isinstance(row, dict):
        return Problem("line", f"a JSON {type(row).__name__}", "a JSON object")
    return row


def append(path: Path, row: dict[str, Any]) -> None:
    """Adds a row on a line of its own, although a killed process left half a line; the file and its folder are made.

    Numbers of NumPy and torch become plain ones. Half a surrogate pair, which UTF-8 does not have, is written as its escape.
    """
    line = json.dumps(row, ensure_ascii=False, default=float) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        size = file.tell()
        file.seek(max(size - 1, 0))
        torn = file.read(1) not in (b"", b"\n")
        file.write((b"\n" if torn else b"") + line.encode("utf-8", "backslashreplace"))


def _open(path: Path):
    try:
        mode = path.stat().st_mode  # before opening: a FIFO would block
        if stat.S_ISDIR(mode):
            raise DataError(f"{path} is a folder; name the .jsonl files in it")
        if not stat.S_ISREG(mode):
            raise DataError(f"{path} is not a regular file; copy its content into one")
        return path.open("rb")
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path} cannot be read: {reason}") from None


def _refuse_foreign(path: Path, line: bytes) -> None:
    for start, reason in FOREIGN.items():
        if line.startswith(start):
            raise DataError(f"{path} {reason}")
