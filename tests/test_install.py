"""What setup installs: exact pins, what unsloth needs only where a GPU is, never another torch.

pip is recorded, not run.
"""

import re
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, requires
from importlib.metadata import version as installed
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement

from toolset_nb import install
from toolset_nb.paths import repo_root

FILES = sorted(repo_root().glob("requirements-*.txt"))
STANDING = {
    "unsloth": "2026.10.9",
    "unsloth_zoo": "2026.10.9",
    "transformers": "5.17.0",
    "trl": "1.15.0",
    "peft": "0.21.2",
    "datasets": "4.8.5",
    "accelerate": "1.15.0",
    "bitsandbytes": "0.50.2",
    "torch": "2.13.0",
}


def lines(path: Path) -> list[str]:
    return [line for raw in path.read_text("utf-8").splitlines() if (line := raw.partition("#")[0].strip())]


def pins() -> dict[str, set[str]]:
    """Package (as PyPI compares names) -> the versions it is pinned to in all files."""
    found: dict[str, set[str]] = {}
    for path in FILES:
        for line in lines(path):
            name, _, version = line.partition("==")
            found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), set()).add(version)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_requirement_is_an_exact_pin_and_stands_once(path):
    assert [line for line in lines(path) if not re.fullmatch(r"[A-Za-z0-9][\w.-]*==\d[\w.]*", line)] == []
    assert len(lines(path)) == len(set(lines(path))) > 0


def test_no_package_is_pinned_to_two_versions():
    assert {name: versions for name, versions in pins().items() if len(versions) > 1} == {}


@pytest.mark.parametrize(("package", "version"), STANDING.items())
def test_the_training_stack_is_the_one_it_was_tested_with(package, version):
    assert pins()[package.replace("_", "-")] == {version}


@pytest.fixture
def recorded(monkeypatch):
    """The pip calls of install(), each with the text of its constraints file."""
    calls = []

    def pip(*arguments):
        kept = Path(arguments[arguments.index("-c") + 1]).read_text() if "-c" in arguments else ""
        calls.append((arguments, kept))

    monkeypatch.setattr(install, "pip", pip)
    monkeypatch.setattr(install, "torch_version", lambda: "2.13.0")
    monkeypatch.delenv("TORCH_INDEX", raising=False)
    return calls


def machine(monkeypatch, cuda: bool) -> None:
    monkeypatch.setattr(install.shutil, "which", lambda name: "/usr/bin/nvidia-smi" if cuda else None)


@pytest.mark.parametrize("cuda", [False, True])
@pytest.mark.parametrize("profile", ["local", "colab"])
def test_unsloth_comes_last_and_alone_after_what_it_needs_on_cuda(recorded, monkeypatch, profile, cuda):
    machine(monkeypatch, cuda)
    install.install(profile)
    read = [arguments for arguments, _ in recorded if "-r" in arguments]
    wanted = [profile, *(["cuda"] if cuda else []), "unsloth"]
    assert [Path(arguments[-1]).name for arguments in read] == [f"requirements-{name}.txt" for name in wanted]
    assert all(Path(arguments[-1]).is_file() for arguments in read)
    assert ["--no-deps" in arguments for arguments in read] == [name == "unsloth" for name in wanted]


def test_the_torch_that_is_there_is_kept(recorded, monkeypatch):
    machine(monkeypatch, True)
    install.install("colab")
    assert [kept for arguments, kept in recorded if "--no-deps" not in arguments] == ["torch==2.13.0\n"] * 2


def test_without_a_torch_the_first_call_is_free_to_bring_one_and_the_second_keeps_it(recorded, monkeypatch):
    machine(monkeypatch, True)
    versions = iter(["", "2.13.0"])
    monkeypatch.setattr(install, "torch_version", lambda: next(versions))
    install.install("local")
    assert [kept for arguments, kept in recorded if "--no-deps" not in arguments] == ["", "torch==2.13.0\n"]


def test_unsloth_gets_all_that_it_asks_for_but_a_certifi_that_was_never_published():
    wanted = [Requirement(line) for name in ("unsloth", "unsloth_zoo") for line in requires(name)]
    linux = default_environment() | {"sys_platform": "linux", "platform_machine": "x86_64", "extra": ""}
    asked = [need for need in wanted if need.marker is None or need.marker.evaluate(linux)]
    unmet = {need.name for need in asked if not need.specifier.contains(given(need.name), prereleases=True)}
    assert len(asked) > 30 and unmet <= {"certifi", "torchvision", "triton", "wheel"}  # see requirements-cuda.txt


def given(name: str) -> str:
    """The version that is pinned, else the one that came with a pin; 0 when neither is there."""
    for version in pins().get(re.sub(r"[-_.]+", "-", name).lower(), ()):
        return version
    try:
        return installed(name)
    except PackageNotFoundError:
        return "0"


@pytest.mark.parametrize(
    ("profile", "dev", "added"),
    [
        ("local", False, [("--no-deps", "-e", str(install.ROOT))]),
        ("local", True, [("-r", str(install.ROOT / "requirements-dev.txt")), ("--no-deps", "-e", str(install.ROOT))]),
        ("colab", False, []),
    ],
)
def test_local_adds_the_package_itself_and_dev_the_tests_tools(recorded, monkeypatch, profile, dev, added):
    machine(monkeypatch, False)
    install.install(profile, dev)
    assert [arguments for arguments, _ in recorded[2:]] == added


def test_another_index_for_torch_is_used_when_given(recorded, monkeypatch):
    machine(monkeypatch, False)
    monkeypatch.setenv("TORCH_INDEX", "https://example.org/cpu")
    install.install("local")
    assert recorded[0][0][2:4] == ("--extra-index-url", "https://example.org/cpu")


def test_the_version_of_torch_is_read_without_its_local_part():
    assert re.fullmatch(r"(\d+\.\d+\.\d+\w*)?", install.torch_version())


@pytest.mark.parametrize(("pip", "made_anew"), [("exit 0", False), ("exit 1", True)])
def test_make_setup_makes_an_environment_without_pip_anew(tmp_path, pip, made_anew):
    shutil.copy(repo_root() / "Makefile", tmp_path)
    for name in [*(path.name for path in FILES), "toolset_nb/install.py"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    script(tmp_path / ".venv" / "bin" / "python", pip)  # what a first try left, Debian without python3-venv for one
    made = script(tmp_path / "python3", 'echo "$@" >> asked; [ "$2" != venv ] || echo "exit 0" > .venv/bin/python')
    subprocess.run(["make", "setup", f"PYTHON={made}"], cwd=tmp_path, check=True, capture_output=True)
    assert ("-m venv --clear .venv" in (tmp_path / "asked").read_text()) == made_anew


def script(path: Path, line: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
    return path
