"""What setup installs: exact pins, unsloth's dependencies only where a GPU is, never another torch.

pip is recorded, not run.
"""

import re
from pathlib import Path

import pytest

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
def test_unsloth_comes_last_with_its_dependencies_only_on_cuda(recorded, monkeypatch, profile, cuda):
    machine(monkeypatch, cuda)
    install.install(profile)
    (first, _), (last, _) = recorded
    assert first[-1].endswith(f"requirements-{profile}.txt") and last[-1].endswith("requirements-unsloth.txt")
    assert ("--no-deps" in last) is not cuda and "--no-deps" not in first
    assert Path(first[-1]).is_file() and Path(last[-1]).is_file()


def test_the_torch_that_is_there_is_kept(recorded, monkeypatch):
    machine(monkeypatch, True)
    install.install("colab")
    assert [kept for _, kept in recorded] == ["torch==2.13.0\n"] * 2


def test_without_a_torch_the_first_call_is_free_to_bring_one_and_the_second_keeps_it(recorded, monkeypatch):
    machine(monkeypatch, False)
    versions = iter(["", "2.13.0"])
    monkeypatch.setattr(install, "torch_version", lambda: next(versions))
    install.install("local")
    assert [kept for _, kept in recorded] == ["", "torch==2.13.0\n"]


def test_dev_adds_the_tests_tools_and_the_package_itself(recorded, monkeypatch):
    machine(monkeypatch, False)
    install.install("local", dev=True)
    tools, package = (arguments for arguments, _ in recorded[2:])
    assert tools[-1].endswith("requirements-dev.txt")
    assert package[-2:] == ("-e", str(install.ROOT)) and "--no-deps" in package


def test_another_index_for_torch_is_used_when_given(recorded, monkeypatch):
    machine(monkeypatch, False)
    monkeypatch.setenv("TORCH_INDEX", "https://example.org/cpu")
    install.install("local")
    assert recorded[0][0][2:4] == ("--extra-index-url", "https://example.org/cpu")


def test_the_version_of_torch_is_read_without_its_local_part():
    assert re.fullmatch(r"(\d+\.\d+\.\d+\w*)?", install.torch_version())
