"""Where the repository's data files are. Holds no other configuration."""

import os
from pathlib import Path


def repo_root() -> Path:
    """Return the repository's folder: TOOLSET_NB_ROOT when set, else the folder above the package."""
    root = os.environ.get("TOOLSET_NB_ROOT")
    return Path(root).expanduser().resolve() if root else Path(__file__).resolve().parent.parent
