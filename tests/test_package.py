"""The package as a whole: light to import, and one version everywhere."""

import subprocess
import sys
import time
import tomllib

import toolset_nb
from toolset_nb.paths import repo_root

HEAVY = ("torch", "unsloth", "transformers", "pydantic", "matplotlib", "httpx")


def seconds(code: str) -> float:
    """Best of five fresh interpreters."""
    times = []
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, cwd=repo_root())
        times.append(time.perf_counter() - started)
    return min(times)


def test_importing_the_package_takes_under_150_ms():
    assert seconds("import toolset_nb") - seconds("pass") < 0.15


def test_importing_the_package_loads_nothing_heavy():
    code = f"import sys, toolset_nb; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=repo_root())
    assert done.stdout.strip() == "[]"


def test_the_version_is_the_same_everywhere():
    project = tomllib.loads((repo_root() / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["version"] == toolset_nb.__version__
    assert project["dependencies"] == []  # the pins stand in the requirement files


def test_every_folder_of_the_package_is_installed():
    packages = tomllib.loads((repo_root() / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["packages"]
    folders = {path.parent for path in (repo_root() / "toolset_nb").rglob("*.py")}
    assert sorted(packages) == sorted(".".join(folder.relative_to(repo_root()).parts) for folder in folders)
