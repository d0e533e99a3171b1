"""The sample vaults: enough of them, varied, the same each time, half of them kept for evaluation."""

import json
import re

import pytest
from conftest import CONTEXT, fingerprint

from toolset_nb.__main__ import main
from toolset_nb.vault import fixtures
from toolset_nb.vault.state import SESSION_ID
from toolset_nb.vault.vault_librarian import front_matter, tags

NAMES = fixtures.names()


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return {name: fixtures.build(name, tmp_path_factory.mktemp(name) / "vault") for name in NAMES}


def test_twelve_vaults_half_of_them_for_evaluation():
    training, evaluation = fixtures.names("training"), fixtures.names("evaluation")
    assert len(NAMES) >= 12 and len(training) == len(evaluation) and sorted(training + evaluation) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_notes_are_many_and_varied(built, name):
    files = {path: content.decode() for path, content in built[name].snapshot().files.items()}
    notes = {path: text for path, text in files.items() if path.endswith(".md")}
    lines = sorted(text.count("\n") for text in notes.values())
    assert 30 <= len(notes) <= 300
    assert lines[0] == 0 and lines[-1] >= 40, lines[-5:]
    assert len(set(notes.values())) >= 0.97 * len(notes)
    assert any(not path.isascii() for path in notes)
    assert sum(bool(front_matter(text)[0]) for text in notes.values()) >= 5
    assert sum("[[" in text for text in notes.values()) >= 5
    assert len(set().union(*(tags(text) for text in notes.values()))) >= 5
    assert max(path.count("/") for path in notes) >= 1


@pytest.mark.parametrize("name", NAMES)
def test_records_are_complete_and_point_to_what_exists(built, name):
    vault, state, seed = built[name], built[name].snapshot().state, fixtures.load(name)
    assert seed["about"] and seed["vault"] == name and seed["split"] in ("training", "evaluation")
    assert (
        len(state["workspaces"]) >= 2 and len(state["agents"]) >= 2 and len(state["commands"]) >= 6 and state["states"]
    )
    for workspace in state["workspaces"].values():
        assert re.fullmatch(r"ws_\d{13}_[a-z0-9]{9}", workspace["id"])
        assert vault.tree.kind(workspace["rootFolder"]) == "folder", workspace["rootFolder"]
        for path in workspace["context"]["keyFiles"]:
            assert vault.tree.kind(path) == "file", path
    for session in state["sessions"].values():
        assert SESSION_ID.match(session["id"]) and session["workspaceId"] in {"default", *state["workspaces"]}
    for saved in state["states"].values():
        assert saved["sessionId"] in state["sessions"], saved["sessionId"]
        assert state["sessions"][saved["sessionId"]]["workspaceId"] == saved["workspaceId"]
        for path in saved["context"]["activeFiles"]:
            assert vault.tree.kind(path) == "file", path
    assert any(not agent["isEnabled"] for agent in state["agents"].values())
    for workspace in ("default", *state["workspaces"]):
        for tool in ("memoryManager_listSessions", "memoryManager_listStates"):
            assert vault.call(tool, {"context": CONTEXT | {"workspaceId": workspace}})["success"]
    for workspace in state["workspaces"]:
        assert vault.call("memoryManager_loadWorkspace", {"context": CONTEXT, "id": workspace})["success"]


def test_ids_are_used_once_over_all_vaults():
    found = [
        key for name in NAMES for table in ("workspaces", "sessions", "states", "agents") for key in ids(name, table)
    ]
    assert len(found) == len(set(found))


def ids(name, table):
    return [record["id"] for record in fixtures.load(name).get(table, [])]


def test_the_same_seed_gives_the_same_bytes_and_times(tmp_path, built):
    again = fixtures.build(NAMES[0], tmp_path / "vault")
    assert again.snapshot().files == fixtures.build(NAMES[0], tmp_path / "two").snapshot().files
    entries = [[(e.path, e.size, e.modified) for e in v.tree.walk()] for v in (again, built[NAMES[0]])]
    assert entries[0] == entries[1]
    assert json.loads((again.tree.own / "state.json").read_text()).keys() and fingerprint(tmp_path / "vault")


def test_training_and_evaluation_vaults_share_no_text(built):
    """No line of 8 words or more stands in a vault of both splits."""
    lines = {split: set() for split in ("training", "evaluation")}
    for name in NAMES:
        for content in built[name].snapshot().files.values():
            lines[fixtures.load(name)["split"]] |= {
                line.strip() for line in content.decode().splitlines() if len(line.split()) >= 8
            }
    assert not lines["training"] & lines["evaluation"]


def test_the_command_line_lists_and_writes_them(tmp_path, capsys):
    assert main(["vault"]) == 0
    assert all(name in capsys.readouterr().out for name in NAMES[:1])
    assert main(["vault", NAMES[0], str(tmp_path / "mine")]) == 0
    assert "serve" in capsys.readouterr().out and (tmp_path / "mine").is_dir()
    assert main(["vault", NAMES[0], str(tmp_path / "mine")]) == 2
    assert main(["vault", "nope", str(tmp_path / "other")]) == 2
    assert "expected one of" in capsys.readouterr().err
