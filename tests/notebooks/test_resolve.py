"""The pins can be installed together, with all that they need, for every system that the project names (needs the network)."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml
from uv import find_uv_bin

ROOT = Path(__file__).resolve().parents[2]
COLAB = yaml.safe_load((ROOT / "tests" / "fixtures" / "colab.yaml").read_text("utf-8"))
LINUX, WINDOWS, MACOS = "x86_64-manylinux_2_28", "x86_64-pc-windows-msvc", "aarch64-apple-darwin"
CASES = {
    "Linux, Python 3.11, CUDA": ("3.11", LINUX, ["local", "cuda"], ""),
    "Linux, Python 3.13, CUDA": ("3.13", LINUX, ["local", "cuda"], ""),
    "Windows": ("3.12", WINDOWS, ["local"], ""),
    "macOS": ("3.12", MACOS, ["local"], ""),
    "Colab, T4": (
        COLAB["python"],
        LINUX,
        ["colab", "cuda"],
        f"torch=={COLAB['packages']['torch'].partition('+')[0]}\n",
    ),
}

pytestmark = pytest.mark.notebooks


@pytest.mark.parametrize(("python", "platform", "files", "kept"), CASES.values(), ids=CASES)
def test_the_pins_resolve_with_all_that_they_need(python, platform, files, kept, tmp_path):
    (tmp_path / "keep.txt").write_text(kept)
    command = [
        find_uv_bin(),
        "pip",
        "compile",
        "--quiet",
        "--no-config",
        "--system-certs",
        "--only-binary",
        ":all:",
        "--no-header",
    ]
    command += ["--python-version", python, "--python-platform", platform, "-c", str(tmp_path / "keep.txt")]
    names = [str(ROOT / f"requirements-{name}.txt") for name in files]
    environment = os.environ | {"MACOSX_DEPLOYMENT_TARGET": "14.0"}  # the oldest that torch is built for
    done = subprocess.run([*command, *names], capture_output=True, text=True, env=environment, timeout=600)
    if "client error (Connect)" in done.stderr:
        pytest.skip("the package index cannot be reached")
    assert done.returncode == 0, done.stderr
    found = dict(line.split("==") for line in done.stdout.split() if "==" in line)
    assert found["transformers"] and (not kept or f"torch=={found['torch']}\n" == kept)
