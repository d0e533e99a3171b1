"""Differences and hashes: what counts as a change, how it is shown, and which runs end in the same place."""

import pytest
from conftest import CONTEXT

from toolset_nb.vault import Vault, snapshots


def changes(vault, call, *calls):
    before = vault.snapshot()
    for name, arguments in calls:
        assert call(name, **arguments)["success"]
    return snapshots.diff(before, vault.snapshot())


def test_each_kind_of_change_is_told_apart(vault, call):
    difference = changes(
        vault,
        call,
        ("contentManager_createContent", {"filePath": "New", "content": "one\n"}),
        ("contentManager_appendContent", {"filePath": "Home", "content": "more\n"}),
        ("vaultManager_moveNote", {"path": "Drinks/Tea", "newPath": "Drinks/Hot/Tea"}),
        ("vaultManager_deleteNote", {"path": "Überblick.md"}),
        ("vaultManager_createFolder", {"path": "Folder"}),
        ("memoryManager_createSession", {"name": "Evening"}),
        ("vaultManager_openNote", {"path": "Home"}),
    )
    told = {(change.kind, change.path, change.to) for change in difference.changes}
    assert told == {
        ("created", "New.md", ""),
        ("modified", "Home.md", ""),
        ("moved", "Drinks/Tea.md", "Drinks/Hot/Tea.md"),
        ("deleted", "Überblick.md", ""),
        ("created", "Folder/", ""),
        ("created", "state/sessions/Evening", ""),
        ("modified", "state/ui", ""),
    }
    text = str(difference)
    assert "~ Home.md" in text and "    +more" in text and "> Drinks/Tea.md -> Drinks/Hot/Tea.md" in text


def test_a_hidden_file_is_a_change_as_any_other(vault, call):
    (vault.tree.root / ".git").mkdir()
    (vault.tree.root / ".git" / "HEAD").write_text("ref")
    written = {"filePath": ".vscode/tasks.json", "content": "{}"}
    difference = changes(vault, call, ("contentManager_createContent", written))
    assert [change.path for change in difference.changes] == [".vscode/", ".vscode/tasks.json"]
    assert not [path for path in vault.snapshot().files if path.startswith(".git")]


def test_no_change_is_said(vault, call):
    difference = changes(
        vault,
        call,
        ("vaultLibrarian_searchContent", {"query": "tea"}),
        ("vaultManager_createFolder", {"path": "Drinks"}),
    )
    assert not difference and str(difference) == "no changes" and "no changes" in difference._repr_html_()


def test_notes_cannot_put_script_into_the_page(vault, call):
    name = "<img src=x onerror=alert(1)>"
    page = changes(
        vault, call, ("contentManager_createContent", {"filePath": "a & b", "content": f"<script>1</script>{name}"})
    )._repr_html_()
    assert "<script" not in page and "<img" not in page and "&lt;script&gt;" in page and "a &amp; b" in page


def test_binary_and_long_differences_are_short(vault, call):
    image = {"prompt": "p", "provider": "google", "savePath": "x.png"}
    long = {"filePath": "long", "content": "line\n" * 1000}
    text = str(changes(vault, call, ("agentManager_generateImage", image), ("contentManager_createContent", long)))
    assert "0 bytes -> " in text and "more lines" in text and text.count("\n") < 230


def test_the_digest_ignores_ids_and_times(tmp_path, vault):
    one = vault.copy(tmp_path / "one")
    two = Vault(vault.copy(tmp_path / "two").tree.root, private=True)  # real clock, random ids
    ids = []
    for run in (one, two):
        session = run.call("memoryManager_createSession", {"context": CONTEXT, "name": "s"})["data"]["sessionId"]
        ids.append(session)
        state = {
            "name": "n",
            "conversationContext": "c",
            "activeTask": "t",
            "activeFiles": ["Home.md"],
            "nextSteps": ["x"],
        }
        run.call("memoryManager_createState", {"context": CONTEXT | {"sessionId": session}, "reasoning": "r", **state})
        run.call(
            "contentManager_createContent", {"context": CONTEXT | {"subgoal": session}, "filePath": "x", "content": "y"}
        )
    assert ids[0] != ids[1] and one.snapshot().digest == two.snapshot().digest != vault.snapshot().digest


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("contentManager_appendContent", {"filePath": "Home", "content": " "}),
        ("vaultManager_createFolder", {"path": "Empty"}),
        ("vaultManager_openNote", {"path": "Home"}),
        ("memoryManager_createSession", {"name": "s"}),
        ("agentManager_createAgent", {"name": "a", "description": "d", "prompt": "p"}),
        ("vaultManager_moveNote", {"path": "Home", "newPath": "House"}),
    ],
)
def test_every_real_difference_changes_the_digest(vault, call, name, arguments):
    before = vault.snapshot().digest
    assert call(name, **arguments)["success"]
    assert vault.snapshot().digest != before


def test_which_record_a_state_belongs_to_is_part_of_the_digest(tmp_path, vault):
    digests = set()
    for first in (True, False):
        run = vault.copy(tmp_path / str(first))
        sessions = [
            run.call("memoryManager_createSession", {"context": CONTEXT, "name": n})["data"]["sessionId"] for n in "ab"
        ]
        state = {
            "name": "n",
            "conversationContext": "c",
            "activeTask": "t",
            "activeFiles": ["x"],
            "nextSteps": ["x"],
            "reasoning": "r",
        }
        run.call("memoryManager_createState", {"context": CONTEXT, "targetSessionId": sessions[not first], **state})
        digests.add(run.snapshot().digest)
    assert len(digests) == 2
