"""The project's address: held once, written everywhere."""

import json
import re

import pytest

from toolset_nb import repository

NEW = "https://git.example.org:8443/ada/vault-tools.py"


@pytest.fixture
def copy(repository_copy, monkeypatch):
    monkeypatch.setenv("TOOLSET_NB_ROOT", str(repository_copy))
    return repository_copy


def texts(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_badge_bootstrap_cell_and_clone_command_gets_the_address(copy):
    before, old = texts(copy), repository.current()
    changed = repository.rewrite(NEW)
    named = {"pyproject.toml", "README.md", "platforms.md", "huggingface_jobs.sh"}
    assert {path.name for path in changed} == named | {path.name for path in (copy / "notebooks").glob("*.ipynb")}
    assert repository.current() == NEW
    after = texts(copy)
    assert [path for path, text in after.items() if old.encode() in text] == []
    assert after.keys() == before.keys()  # no temporary file is left
    assert {path for path in before if before[path] != after[path]} == set(changed)
    for path in changed:
        text = after[path].decode()
        assert old not in text and NEW in text, path
    assert f"git clone {NEW} && cd vault-tools.py" in (copy / "README.md").read_text("utf-8")
    for path in (copy / "notebooks").glob("*.ipynb"):
        sources = ["".join(cell["source"]) for cell in json.loads(after[path])["cells"]]
        link = re.search(r"https://colab\.research\.google\.com/github/\S+\.ipynb", sources[0])[0]
        assert link.partition("/github/")[2].startswith("ada/vault-tools.py/blob/v")
        assert link.endswith(f"/notebooks/{path.name}")


def test_there_and_back_gives_the_same_bytes(copy):
    before, old = texts(copy), repository.current()
    repository.rewrite(NEW)
    repository.rewrite(old)
    assert texts(copy) == before


def test_the_same_address_changes_nothing(copy):
    assert repository.rewrite(repository.current()) == []


def test_a_repository_whose_name_begins_alike_is_left_alone(copy):
    old = repository.current()
    others = f"{old}-2 {old}.org {old}s"
    (copy / "README.md").write_text(f"{others} {old}. {old}/issues", "utf-8")
    repository.rewrite(NEW)
    assert (copy / "README.md").read_text("utf-8") == f"{others} {NEW}. {NEW}/issues"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "owner/name",
        "http://github.com/you/name",
        "git@github.com:you/name.git",
        "ssh://git@github.com/you/name",
        "file:///home/you/name",
        "https://github.com/you",
        "https://github.com/you/",
        "https://github.com/you/name/",
        "https://github.com/you/name.git",
        "https://github.com/you/name/tree/main",
        "https://github.com/you/../name",
        "https://github.com/../name",
        "https://github.com/you/name?x",
        "https://github.com/you/name#x",
        "https://github.com/you/na me",
        'https://github.com/you/na"me',
        "https://github.com/you/name\n",
        "https://user:secret@github.com/you/name",
        "https://github.com/yöu/name",
    ],
)
def test_what_is_no_address_is_refused_before_anything_is_written(copy, url):
    before = texts(copy)
    with pytest.raises(repository.RepositoryError, match="https://host/owner/name") as caught:
        repository.rewrite(url)
    assert "secret" not in str(caught.value)
    assert texts(copy) == before
