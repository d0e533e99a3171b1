"""Files as commands read and write them."""

import glob
import os
from collections.abc import Iterable
from pathlib import Path

from toolset_nb.errors import UsageError
from toolset_nb.files import replacing
from toolset_nb.jsonl import DataError


def write(target: Path, lines: Iterable[str]) -> None:
    """Write a file in one step; raises DataError."""
    try:
        with replacing(target) as path, path.open("w", encoding="utf-8", newline="\n") as out:
            out.writelines(lines)
    except OSError as error:
        raise DataError(f"{target} cannot be written: {error.strerror}") from None


def read(source: Path) -> str:
    """The text of a file; raises UsageError."""
    try:
        return source.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{source} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def expand(patterns: list[str]) -> list[str]:
    """Files of names and globs, each once; raises DataError for a glob that matches nothing."""
    files: dict[Path, str] = {}
    for pattern in patterns:
        found = [pattern] if os.path.lexists(pattern) else sorted(glob.glob(pattern, recursive=True))
        if not found:
            raise DataError(f"{pattern}: no such file")
        for name in found:
            files.setdefault(Path(name).resolve(), name)
    return list(files.values())


def count_rows(files: list[str]) -> int:
    """Lines that are not blank."""
    from toolset_nb.jsonl import read_lines

    return sum(isinstance(line, bytes) for file in files for _, line in read_lines(file))
