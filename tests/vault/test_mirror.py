"""A private folder that is made like a vault's before each trial: what is copied, what is undone, what stays outside."""

import os

import pytest
from conftest import CONTEXT

from toolset_nb.vault import Vault
from toolset_nb.vault.files import MOST_FILE_BYTES, Tree


@pytest.fixture
def mirrored(tmp_path, vault):
    """Bring the mirror up to date: mirrored() gives its vault, `mirrored.copied` what was written for it this time."""
    folder, seen = tmp_path / "mirror", {}
    folder.mkdir()

    def times():
        return {path: path.stat().st_ctime_ns for path in folder.rglob("*") if path.is_file()}

    def run():
        before = times()
        made = vault.mirror(folder, seen)
        run.copied = sorted(p.relative_to(folder).as_posix() for p, time in times().items() if before.get(p) != time)
        return made

    run.folder = folder
    return run


def append(vault: Vault, path: str) -> dict:
    return vault.call("contentManager_appendContent", {"context": CONTEXT, "filePath": path, "content": "more"})


def test_only_what_has_changed_is_copied_again(vault, mirrored):
    assert mirrored().snapshot() == vault.snapshot() and "Home.md" in mirrored.copied
    mirrored()
    assert mirrored.copied == []
    assert append(vault, "Home.md")["success"]
    (vault.tree.root / "Drinks" / "Tea.md").write_text("edited by somebody else")
    assert mirrored().snapshot() == vault.snapshot()
    assert mirrored.copied == [".toolset_nb/traces.jsonl", "Drinks/Tea.md", "Home.md"]


def test_what_a_trial_did_is_undone(vault, mirrored):
    trial = mirrored()
    for name, arguments in (
        ("contentManager_appendContent", {"filePath": "Home.md", "content": "more"}),
        ("contentManager_createContent", {"filePath": "New/Note.md", "content": "x"}),
        ("vaultManager_deleteNote", {"path": "Überblick.md"}),
        ("vaultManager_createFolder", {"path": "Überblick.md"}),
        ("vaultManager_moveFolder", {"path": "Drinks", "newPath": "Food"}),
        ("memoryManager_createSession", {"name": "x"}),
    ):
        assert trial.call(name, {"context": CONTEXT, **arguments})["success"]
    assert mirrored().snapshot() == vault.snapshot()
    assert not (mirrored.folder / ".trash").exists() and not (mirrored.folder / ".toolset_nb" / "traces.jsonl").exists()


def test_the_same_call_gives_the_same_in_both(vault, mirrored):
    call = "memoryManager_createSession", {"context": CONTEXT, "name": "x"}
    assert mirrored().call(*call) == vault.call(*call)


def test_what_no_call_can_reach_is_not_copied(tmp_path, vault, mirrored):
    (tmp_path / "secret.md").write_text("outside")
    for folder in (".git", ".obsidian", ".trash", "Drinks/.git"):
        (vault.tree.root / folder).mkdir()
        (vault.tree.root / folder / "x.md").write_text("x")
    os.symlink(tmp_path / "secret.md", vault.tree.root / "link.md")
    os.link(tmp_path / "secret.md", vault.tree.root / "hard.md")
    os.symlink(tmp_path, vault.tree.root / "in")
    os.symlink(tmp_path / "secret.md", vault.tree.own / "state.json")
    mirrored()
    notes = sorted(entry.path for entry in vault.tree.walk() if not entry.is_folder)
    assert sorted(p.relative_to(mirrored.folder).as_posix() for p in mirrored.folder.rglob("*") if p.is_file()) == notes


def test_a_file_that_is_too_large_to_be_read_costs_nothing(vault, mirrored, monkeypatch):
    with open(vault.tree.root / "film.mp4", "wb") as file:
        file.truncate(1 << 30)
    read = []
    monkeypatch.setattr(
        Tree, "read_bytes", lambda tree, path, plain=Tree.read_bytes: read.append(path) or plain(tree, path)
    )
    mirror = mirrored()
    assert "film.mp4" in mirrored.copied and "film.mp4" not in read and "Home.md" in read
    status = (mirrored.folder / "film.mp4").stat()
    assert status.st_size == 1 << 30 and getattr(status, "st_blocks", 0) * 512 <= MOST_FILE_BYTES
    assert append(mirror, "film.mp4") == append(vault, "film.mp4")
    mirrored()
    assert "film.mp4" not in mirrored.copied
