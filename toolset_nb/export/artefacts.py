"""What an export leaves: a file or folder made beside its place, moved there in one step, with a mark of what it was made from.

The mark of `model-q8_0.gguf` is `.model-q8_0.gguf.json`. Not here: what is made, and how.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from toolset_nb import files


def finish(target: Path, key: dict[str, Any], make: Callable[[Path], Any]) -> bool:
    """`make` writes the artefact to the path it is given, unless one made from `key` is there; True when it was made."""
    if up_to_date(target, key):
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    files.clear(target.parent)
    with files.replacing(target) as path:  # while a folder is not there, no mark of it counts
        make(path)
    with files.replacing(_mark(target)) as path:
        path.write_text(json.dumps({"made_from": key, "bytes": size(target)}) + "\n", "utf-8")
    return True


def up_to_date(target: Path, key: dict[str, Any]) -> bool:
    """Whether `target` is there, whole, and made from `key`."""
    return made_from(target) == key


def made_from(target: Path) -> dict[str, Any] | None:
    """What `target` was made from; None where it is not there, not whole, or has no mark that can be read."""
    try:
        mark = json.loads(_mark(target).read_text("utf-8"))
        return mark["made_from"] if mark["bytes"] == size(target) else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def is_mark(path: Path) -> bool:
    """Whether a file is the mark of an artefact beside it."""
    return path.match(".*.json") and path.with_name(path.name[1:]).with_suffix("").exists()


def size(path: Path) -> int:
    """Bytes of a file, or of the files in a folder; raises FileNotFoundError."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size


def size_words(count: float) -> str:
    """A number of bytes for people, to three digits."""
    units = ["bytes", "kB", "MB", "GB", "TB"]
    while round(count) >= 1000 and units[1:]:
        count, units = count / 1000, units[1:]
    return f"{count:.3g} {units[0]}"


def _mark(target: Path) -> Path:
    return target.with_name(f".{target.name}.json")
