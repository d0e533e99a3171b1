"""What Colab's machines have (tests/fixtures/colab.yaml, with its date) against what the setup leaves there or adds."""

import ast
import re
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, requires

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from toolset_nb.paths import repo_root

COLAB = yaml.safe_load((repo_root() / "tests" / "fixtures" / "colab.yaml").read_text("utf-8"))
PYTHON = ".".join(COLAB["python"].split(".")[:2])
SERVES = "vault/server.py"  # the MCP server: no notebook starts it
OPTIONAL = {"google", "pynvml"}  # Colab's own; NVIDIA's counters, used where they are


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@cache
def pinned() -> dict[str, str]:
    """Package -> version that setup brings to Colab."""
    found = {}
    for name in ("colab", "cuda", "unsloth"):
        for line in (repo_root() / f"requirements-{name}.txt").read_text("utf-8").splitlines():
            if line and not line.startswith("#"):
                package, _, version = line.partition("==")
                found[plain(package)] = version
    return found


@cache
def needs(package: str) -> list[Requirement]:
    """What a package requires on Colab; nothing for one that is not installed here (tests/notebooks resolves those)."""
    machine = {"python_version": PYTHON, "python_full_version": COLAB["python"], "extra": ""}
    machine |= {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64"}
    try:
        wanted = [Requirement(line) for line in requires(package) or []]
    except PackageNotFoundError:
        return []
    return [need for need in wanted if need.marker is None or need.marker.evaluate(machine)]


@cache
def brought() -> set[str]:
    """The pins for Colab and all that pip fetches with them."""
    found, waiting = set(), list(pinned())
    while waiting:
        package = waiting.pop()
        if package not in found:
            found.add(package)
            if package not in ("unsloth", "unsloth-zoo"):  # these come alone
                waiting += [plain(need.name) for need in needs(package)]
    return found


def imported() -> dict[str, str]:
    """Top-level module that toolset_nb imports -> one of the files that do."""
    found = {}
    for path in (repo_root() / "toolset_nb").rglob("*.py"):
        place = path.relative_to(repo_root() / "toolset_nb").as_posix()
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
            if place != SERVES:
                found |= {name.partition(".")[0]: place for name in names}
    return {name: place for name, place in found.items() if name not in sys.stdlib_module_names | {"toolset_nb"}}


def test_every_import_of_the_package_is_there_or_brought():
    distributions = packages_distributions()
    missing = {}
    for module, place in imported().items():
        names = {plain(name) for name in distributions.get(module, [module])}
        if module not in OPTIONAL and not names & (brought() | COLAB["packages"].keys()):
            missing[module] = place
    assert missing == {}


def test_nothing_that_is_pinned_needs_another_torch_or_another_python():
    torch = [(package, need) for package in brought() for need in needs(package) if need.name == "torch"]
    assert len(torch) >= 3
    assert [entry for entry in torch if not entry[1].specifier.contains(COLAB["packages"]["torch"])] == []
    project = re.search(r'requires-python = "([^"]+)"', (repo_root() / "pyproject.toml").read_text("utf-8"))[1]
    assert SpecifierSet(project).contains(COLAB["python"])


# What is left to Colab, and the oldest version that has what toolset_nb calls.
LEFT = {
    "numpy": "1.23.5",  # statsmodels
    "scipy": "1.8",  # statsmodels
    "matplotlib": "3.6",  # layout="constrained"
    "ipywidgets": "7.7",  # Tab.set_title; 8 has titles, which are not used
    "ipykernel": "6.0",
    "ipython": "7.0",  # display_id
    "httpx": "0.27",
    "pydantic": "2.7",
    "pyyaml": "5.1",
    "pillow": "9.0",
    "pandas": "1.4",  # statsmodels
    "nbformat": "5.2",  # papermill
    "typing-extensions": "4.10",
}


@pytest.mark.parametrize(("package", "oldest"), LEFT.items())
def test_what_is_left_to_colab_is_there_and_new_enough(package, oldest):
    assert package not in pinned()
    assert Version(COLAB["packages"][package]) >= Version(oldest)
    for asking in brought():
        for need in needs(asking):
            if plain(need.name) == package:
                assert need.specifier.contains(COLAB["packages"][package], prereleases=True), (asking, str(need))


def test_the_list_says_when_it_was_published():
    assert re.fullmatch(r"[0-9a-f]{40}", COLAB["commit"]) and COLAB["date"].year >= 2026
