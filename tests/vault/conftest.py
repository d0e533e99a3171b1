"""A small vault, a fingerprint of everything around it, and a context that every call needs."""

import hashlib
import os
from pathlib import Path

import pytest

from toolset_nb.vault import FixedClock, Vault, fixtures

HERE = Path(__file__).parent
CONTEXT = {
    "sessionId": "session_1731571200000_base00000",
    "workspaceId": "default",
    "sessionDescription": "Trying the tools",
    "sessionMemory": "Nothing has been done yet",
    "toolContext": "A test of one call",
    "primaryGoal": "See what the tool does",
    "subgoal": "One call",
}


def fingerprint(folder):
    """Names, kinds, contents and times of everything below a folder, links not followed."""
    digest = hashlib.sha256()
    for root, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(folders + files):
            path = os.path.join(root, name)
            status = os.lstat(path)
            digest.update(f"{path}\0{status.st_mode}\0{status.st_nlink}\0".encode("utf-8", "surrogateescape"))
            if os.path.isfile(path) and not os.path.islink(path):
                digest.update(Path(path).read_bytes() + str(status.st_mtime_ns).encode())
    return digest.hexdigest()


@pytest.fixture
def vault(tmp_path):
    """A vault of six notes in tmp_path/vault."""
    folder = tmp_path / "vault"
    texts = {
        "Home.md": "---\ntags: [start, café]\nstatus: open\n---\n# Home\nSee [[Tea]] #daily\n",
        "Drinks/Tea.md": "Green tea\nBlack tea\nC++ tea\n",
        "Drinks/Hot/Cocoa.md": "Milk and cocoa\n",
        "Drinks/Empty.md": "",
        "Überblick.md": "Alles über Tee\n",
        "Attachments/data.csv": "a,b\n1,2\n",
    }
    for path, text in texts.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    return Vault(folder, FixedClock(1_763_112_600_000), seed=1, private=True)


@pytest.fixture
def call(vault):
    """Call a tool of the small vault: call("vaultManager_openNote", path="Home")."""

    def run(name, /, **arguments):
        return vault.call(name, {"context": dict(CONTEXT), **arguments})

    return run


@pytest.fixture(scope="session")
def base_vault(tmp_path_factory):
    """The vault of the conformance table."""
    return fixtures.build(HERE / "base.yaml", tmp_path_factory.mktemp("base") / "vault")
