"""Where named files are: as given, or under the repository; and where short-lived ones go. Holds no other configuration."""

import os
from functools import cache
from pathlib import Path


def repo_root() -> Path:
    """Return the repository's folder: TOOLSET_NB_ROOT when set, else the folder above the package."""
    return _root(os.environ.get("TOOLSET_NB_ROOT"))


def find_file(name: str) -> Path | None:
    """A file's path: as given, else relative to the repository (the working folder varies); None where neither is there."""
    return next((path for path in (Path(name).expanduser(), repo_root() / name) if path.is_file()), None)


def memory_folder() -> str | None:
    """A folder that lies in memory where there is one (several times as fast as a disk), else None."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


@cache
def _root(named: str | None) -> Path:
    return Path(named).expanduser().resolve() if named else Path(__file__).resolve().parent.parent
