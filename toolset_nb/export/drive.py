"""A run copied to a mounted Google Drive, so that it outlives a Colab session.

Not here: mounting, which asks for a click and is the notebook's, and telling Drive to write out what it holds back.
"""

import os
import shutil
from pathlib import Path

from toolset_nb.export import artefacts
from toolset_nb.export.weights import ExportError
from toolset_nb.runs import Run

DRIVE = Path("/content/drive/MyDrive")  # where Colab mounts it


def copy_to_drive(run: Run, drive: Path | str = DRIVE) -> Path:
    """Copies a run without its checkpoints to toolset_nb/ on the Drive, whole files only; returns the folder.

    What is there already in the same size and not older is not copied again. The copy is a run folder: `runs.find` takes its
    path, and what was exported counts as made there, since the marks go along, after all else. Raises ExportError when Drive is
    not mounted or a file cannot be written.
    """
    if not Path(drive).is_dir():
        raise ExportError(
            f"Google Drive is not mounted at {drive}: in Colab run `from google.colab import drive; "
            "drive.mount('/content/drive')` first"
        )
    target = Path(drive) / "toolset_nb" / run.folder.name
    files = [path for path in run.folder.rglob("*") if path.is_file()]
    for file in sorted(files, key=lambda path: (artefacts.is_mark(path), path)):
        name = file.relative_to(run.folder)
        shown = name.parent if artefacts.is_mark(file) else name
        unfinished = file.suffix == ".tmp" or any(part.startswith(".") for part in shown.parts)
        if not unfinished and name.parts[0] != "checkpoints":
            _copy(file, target / name)
    return target


def _copy(file: Path, copy: Path) -> None:
    seen, there = file.stat(), copy.stat() if copy.exists() else None
    if there and there.st_size == seen.st_size and there.st_mtime >= seen.st_mtime:
        return
    part = copy.with_name(f".{copy.name}.part")
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, part)
        os.replace(part, copy)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise ExportError(
            f"{copy} could not be written ({error.strerror}): what was copied before it is whole; make room or mount Drive "
            "again, then call it again"
        ) from None
