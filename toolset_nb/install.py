"""Installs the pinned packages into the Python that runs this file: `make setup` and Colab's setup cell both do.

Standard library only, since nothing else is there yet. unsloth comes last and alone: what it needs beside the pins stands in
requirements-cuda.txt and is installed where a CUDA GPU is found (its CPU path needs none of it). The torch that is already
installed is never replaced.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def pip(*arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments], check=True
    )


def torch_version() -> str:
    """The installed torch without its local suffix, empty when there is none."""
    code = "import importlib.metadata as m; print(m.version('torch').partition('+')[0])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


def install(profile: str, dev: bool = False) -> None:
    """profile "local" or "colab" picks requirements-<profile>.txt; `dev` adds what the tests need.

    "local" makes the package importable from any folder, editable; Colab's setup cell puts the project on its path.
    """
    cuda = bool(shutil.which("nvidia-smi"))
    print(f"Installing requirements-{profile}.txt ({'CUDA GPU found' if cuda else 'no CUDA GPU'})", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        keep = Path(scratch) / "keep.txt"
        keep.write_text(f"torch=={torch_version()}\n" if torch_version() else "")
        index = os.environ.get("TORCH_INDEX")
        extra = ["--extra-index-url", index] if index else []
        pip("-c", str(keep), *extra, "-r", str(ROOT / f"requirements-{profile}.txt"))
        keep.write_text(f"torch=={torch_version()}\n")
        if cuda:
            pip("-c", str(keep), "-r", str(ROOT / "requirements-cuda.txt"))
        pip("--no-deps", "-r", str(ROOT / "requirements-unsloth.txt"))
        if dev:
            pip("-r", str(ROOT / "requirements-dev.txt"))
        if profile == "local":  # built apart: the setuptools of an image or a bare venv may be too old, or missing
            pip("--no-deps", "-e", str(ROOT))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("profile", choices=["local", "colab"])
    parser.add_argument("--dev", action="store_true", help="also the test tools")
    options = parser.parse_args()
    install(options.profile, options.dev)
