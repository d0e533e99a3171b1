"""Files and folders replaced in one step: written beside their place and moved there whole.

The draft of `run.json` is `.run.json.<process id>`. What a killed process left is removed by the next one.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A path to write to, moved to `target` when the block ends; an error leaves what was there."""
    with draft(target) as path:
        yield path
        if target.is_dir():  # a folder cannot be replaced by another in one step
            remove(target)
        os.replace(path, target)


@contextmanager
def draft(target: Path) -> Iterator[Path]:
    """A path beside `target` to write to; whatever is still there when the block ends is removed."""
    clear(target.parent, target.name)
    path = target.with_name(f".{target.name}.{os.getpid()}")
    remove(path)
    try:
        yield path
    finally:
        remove(path)


def clear(folder: Path, name: str = "") -> None:
    """Removes drafts of processes that are gone: those of one name, or all."""
    import psutil

    for path in folder.glob(".*"):
        owner = path.suffix[1:]
        if owner.isdigit() and name in ("", path.stem[1:]) and not psutil.pid_exists(int(owner)):
            remove(path)


def remove(path: Path) -> None:
    """Removes a file or a folder with all it holds, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
