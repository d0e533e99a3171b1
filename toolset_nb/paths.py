"""Where the repository's data files are. Holds no other configuration."""

import os
from functools import cache
from pathlib import Path


def repo_root() -> Path:
    """Return the repository's folder: TOOLSET_NB_ROOT when set, else the folder above the package."""
    return _root(os.environ.get("TOOLSET_NB_ROOT"))


@cache
def _root(named: str | None) -> Path:
    return Path(named).expanduser().resolve() if named else Path(__file__).resolve().parent.parent
