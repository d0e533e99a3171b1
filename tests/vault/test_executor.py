"""What holds for every call: validation, codes, foreign sessions, rollback, atomic writes, several processes, time limits."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import CONTEXT, fingerprint

from toolset_nb.tools import catalogue
from toolset_nb.vault import FixedClock, Vault, VaultError, executor, files
from toolset_nb.vault.executor import _handlers

ROOT = Path(__file__).resolve().parents[2]


def test_every_tool_of_the_catalogue_has_a_function():
    assert _handlers().keys() == catalogue().tools.keys() and len(_handlers()) == 47


@pytest.mark.parametrize(
    ("name", "arguments", "code"),
    [
        ("vaultManager_fly", {}, "UNKNOWN_TOOL"),
        (None, {}, "UNKNOWN_TOOL"),
        (["vaultManager_createFolder"], {}, "UNKNOWN_TOOL"),
        ("vaultManager_createFolder", None, "TYPE_ERROR"),
        ("vaultManager_createFolder", "path", "TYPE_ERROR"),
        ("vaultManager_createFolder", {"path": "x"}, "MISSING_REQUIRED"),
        ("vaultManager_createFolder", {"context": "x", "path": "x"}, "TYPE_ERROR"),
        ("vaultManager_createFolder", {"context": {}, "path": "x"}, "MISSING_REQUIRED"),
        ("vaultManager_createFolder", {"context": CONTEXT | {"subgoal": 5}, "path": "x"}, "TYPE_ERROR"),
        ("vaultManager_createFolder", {"context": CONTEXT}, "MISSING_REQUIRED"),
        ("vaultManager_createFolder", {"context": CONTEXT, "path": ["x"]}, "TYPE_ERROR"),
        ("vaultManager_createFolder", {"context": CONTEXT, "path": "\ud800"}, "INVALID_PATH"),
        ("contentManager_createContent", {"context": CONTEXT, "filePath": "x", "content": "\ud800"}, "INVALID"),
        ("memoryManager_createSession", {"context": CONTEXT, "name": "\ud800"}, "INVALID"),
        ("vaultManager_listDirectory", {"context": CONTEXT, "path": "", "depth": -1}, "MIN_ERROR"),
        ("vaultManager_listDirectory", {"context": CONTEXT, "path": "", "depth": float("nan")}, "TYPE_ERROR"),
        ("vaultManager_listDirectory", {"context": CONTEXT, "path": "", "depth": True}, "TYPE_ERROR"),
        ("vaultLibrarian_searchContent", {"context": CONTEXT, "query": "x", "limit": 51}, "MAX_ERROR"),
        ("vaultManager_openNote", {"context": CONTEXT, "path": "Home", "mode": "popup"}, "ENUM_ERROR"),
        ("contentManager_batchContent", {"context": CONTEXT, "operations": []}, "MIN_ITEMS_ERROR"),
        ("vaultLibrarian_batch", {"context": CONTEXT, "searches": [{"query": "x"}] * 101}, "MAX_ITEMS_ERROR"),
        ("vaultLibrarian_searchMemory", {"context": CONTEXT, "query": "", "workspaceId": "x"}, "MIN_LENGTH_ERROR"),
        (
            "agentManager_createAgent",
            {"context": CONTEXT, "name": "x" * 101, "description": "d", "prompt": "p"},
            "MAX_LENGTH_ERROR",
        ),
        ("agentManager_getAgent", {"context": CONTEXT}, "MISSING_REQUIRED"),
    ],
)
def test_faults_of_a_call_have_a_code_and_change_nothing(vault, name, arguments, code):
    before = vault.snapshot()
    result = vault.call(name, arguments)
    assert (result["success"], result["code"]) == (False, code), result
    assert vault.snapshot() == before


def test_unknown_parameters_pass_as_in_the_plugin(call):
    assert call("vaultManager_createFolder", path="New", colour="red")["success"]
    assert call(
        "contentManager_batchContent", operations=[{"type": "read", "params": {"filePath": "Home", "x": 1}, "y": 2}]
    )["success"]


def test_a_lock_that_cannot_be_taken_is_an_answer(tmp_path):
    shared = Vault(tmp_path)
    (tmp_path / ".toolset_nb" / "lock").mkdir()
    for use in (shared.call, shared.rehearse):
        assert use("vaultManager_listDirectory", {"context": CONTEXT, "path": ""})["code"] == "IO_ERROR"


def test_half_a_character_fails_its_operation_alone(vault, call):
    notes = {"a": "x", "b": "\ud800"}
    operations = [{"type": "create", "params": {"filePath": path, "content": text}} for path, text in notes.items()]
    results = call("contentManager_batchContent", operations=operations)["data"]["results"]
    assert [result["success"] for result in results] == [True, False] and "a.md" in vault.snapshot().files


def test_one_field_of_a_workspace_is_set_or_refused(call):
    workspace = {"name": "n", "purpose": "p", "currentGoal": "g", "rootFolder": "/"}
    steps = [{"name": "a", "when": "b", "steps": "c"}]
    key = call("memoryManager_createWorkspace", workflows=steps, **workspace)["data"]["workspaceId"]

    def update(path, value):
        return call("memoryManager_updateWorkspace", workspaceId=key, fieldPath=path, newValue=value)

    assert update("relatedFiles[0]", "a.md")["data"]["workspace"]["relatedFiles"] == ["a.md"]
    for path, value in {"name": " ", "relatedFiles[" + "9" * 5000 + "]": "a.md", "context[0]": "x"}.items():
        assert update(path, value)["code"] == "INVALID"
    told = call("memoryManager_listSessions", workspaceContext={"workspaceId": ["a"]})
    assert told["code"] == "TYPE_ERROR" and "workspaceContext.workspaceId" in told["error"]


def test_failed_calls_under_a_foreign_session_id_are_found(vault):
    context = CONTEXT | {"sessionId": "my chat", "subgoal": "zebra hunt"}
    vault.call("vaultManager_deleteNote", {"context": context, "path": "none"})
    vault.call("vaultManager_createFolder", {"context": context, "path": "New"})
    query = {"query": "zebra", "workspaceId": "default", "filterBySession": True}
    assert vault.call("vaultLibrarian_searchMemory", {"context": context, **query})["totalResults"] == 2


def test_a_deep_or_huge_argument_is_an_answer(call):
    deep = []
    for _ in range(100_000):
        deep = [deep]
    assert call("memoryManager_updateWorkspace", workspaceId="x", fieldPath="name", newValue=deep)["success"] is False
    assert call("vaultManager_createFolder", path=10**5000)["code"] == "TYPE_ERROR"


@pytest.mark.parametrize("known", ["s-20251114093000", "session_1731571200000_abcdefghi"])
def test_session_ids_in_the_plugins_forms_are_kept(vault, known):
    result = vault.call("vaultManager_createFolder", {"context": CONTEXT | {"sessionId": known}, "path": "x"})
    assert "sessionId" not in result and "recommendations" not in result


@pytest.mark.parametrize("foreign", ["", "my session", "session_123_abc", "s-1", "default", "💥"])
def test_a_foreign_session_id_is_replaced_by_the_same_fresh_one(vault, foreign):
    arguments = {"context": CONTEXT | {"sessionId": foreign}, "path": "x"}
    first, second = (
        vault.call("vaultManager_createFolder", arguments),
        vault.call("vaultManager_createFolder", arguments),
    )
    assert first["success"] and first["sessionId"] == second["sessionId"]
    assert (
        first["recommendations"][-1]["type"] == "session"
        and first["sessionId"] in first["recommendations"][-1]["message"]
    )


def test_read_only_refuses_every_tool_that_changes_something(tmp_path, vault):
    reader = Vault(vault.tree.root, FixedClock(0), seed=1, read_only=True)
    reader.snapshot()
    before = fingerprint(vault.tree.root)
    for tool in catalogue().tools.values():
        result = reader.call(tool.name, {"context": CONTEXT})
        assert (result.get("code") == "READ_ONLY") == bool(tool.mutates), tool.name
    foreign = reader.call("vaultLibrarian_searchContent", {"context": CONTEXT | {"sessionId": "x"}, "query": "tea"})
    assert foreign["success"] and foreign["sessionId"]
    assert fingerprint(vault.tree.root) == before


def test_reading_only_leaves_no_trace_in_the_folder(tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.md").write_text("tea")
    before = fingerprint(tmp_path)
    reader = Vault(tmp_path / "notes", read_only=True)
    assert reader.call("vaultLibrarian_searchContent", {"context": CONTEXT, "query": "tea"})["totalResults"] == 1
    assert fingerprint(tmp_path) == before


def test_two_runs_give_the_same_bytes(tmp_path, vault):
    calls = [
        ("contentManager_createContent", {"context": CONTEXT, "filePath": "a", "content": "x"}),
        ("memoryManager_createSession", {"context": CONTEXT, "name": "s"}),
        ("vaultLibrarian_searchContent", {"context": CONTEXT, "query": "tea"}),
        ("vaultManager_deleteNote", {"context": CONTEXT | {"sessionId": "odd"}, "path": "a"}),
        ("vaultManager_listDirectory", {"context": CONTEXT, "path": "", "depth": 3}),
    ]
    one, two = vault.copy(tmp_path / "one"), vault.copy(tmp_path / "two")
    assert json.dumps(one.replay(calls)) == json.dumps(two.replay(calls))
    assert one.snapshot() == two.snapshot()
    for name in ("state.json", "traces.jsonl"):
        assert (one.tree.own / name).read_bytes() == (two.tree.own / name).read_bytes()


def test_a_copy_is_private(tmp_path, vault, call):
    copy = vault.copy(tmp_path / "copy")
    assert copy.snapshot() == vault.snapshot()
    copy.call("contentManager_appendContent", {"context": CONTEXT, "filePath": "Home", "content": "more"})
    assert (
        copy.snapshot() != vault.snapshot()
        and "more" not in call("contentManager_readContent", filePath="Home")["data"]["content"]
    )


def test_deleted_things_come_back_in_reverse_order(vault, call):
    before = vault.snapshot()
    call("vaultManager_deleteNote", path="Drinks/Tea.md")
    call("vaultManager_deleteFolder", path="Drinks", recursive=True)
    call("contentManager_createContent", filePath="Tea.md", content="other")
    call("vaultManager_deleteNote", path="Tea.md")
    assert [vault.undelete() for _ in range(3)] == ["Tea.md", "Drinks", "Drinks/Tea.md"]
    assert vault.snapshot().files == before.files | {"Tea.md": b"other"}
    with pytest.raises(VaultError):
        vault.undelete()


def test_undelete_never_replaces_what_has_taken_the_place(vault, call):
    call("vaultManager_deleteNote", path="Home.md")
    call("contentManager_createContent", filePath="Home.md", content="new")
    with pytest.raises(VaultError) as error:
        vault.undelete()
    assert error.value.code == "EXISTS" and vault.snapshot().files["Home.md"] == b"new"


FAULTS = [
    ("vaultManager_moveNote", {"path": "Home", "newPath": "a/b/Home.md"}, "rename"),
    ("vaultManager_moveNote", {"path": "Home", "newPath": "Drinks/Tea.md", "overwrite": True}, "rename"),
    ("vaultManager_moveFolder", {"path": "Drinks/Hot", "newPath": "Attachments", "overwrite": True}, "rename"),
    ("vaultManager_duplicateNote", {"sourcePath": "Home", "targetPath": "Drinks/Tea", "overwrite": True}, "replace"),
    ("contentManager_createContent", {"filePath": "a/b/c", "content": "x"}, "replace"),
    ("contentManager_appendContent", {"filePath": "Home", "content": "x"}, "replace"),
    (
        "memoryManager_createWorkspace",
        {
            "name": "n",
            "rootFolder": "a/b",
            "purpose": "p",
            "currentGoal": "g",
            "workflows": [{"name": "a", "when": "b", "steps": "c"}],
        },
        "replace",
    ),
    ("agentManager_createAgent", {"name": "n", "description": "d", "prompt": "p"}, "replace"),
    ("agentManager_generateImage", {"prompt": "p", "provider": "google", "savePath": "a/b.png"}, "replace"),
]


@pytest.mark.parametrize(("name", "arguments", "broken"), FAULTS)
def test_a_disk_that_fails_in_mid_call_leaves_the_vault_as_it_was(vault, call, monkeypatch, name, arguments, broken):
    before, real = vault.snapshot(), getattr(os, broken)

    def fail(source, target, **options):
        if ".trash" in str(target) or "back" in failed:
            return real(source, target, **options)
        failed.append("back")
        raise OSError(28, "No space left on device")

    failed: list[str] = []
    monkeypatch.setattr(files.os, broken, fail)
    result = call(name, **arguments)
    monkeypatch.undo()
    assert failed and result["code"] == "IO_ERROR", result
    assert vault.snapshot() == before
    assert not list((vault.tree.own / "tmp").iterdir())


def test_a_call_that_fails_inside_is_an_answer(vault, call, monkeypatch):
    monkeypatch.setitem(_handlers(), "vaultManager_createFolder", lambda vault, given: 1 / 0)
    assert call("vaultManager_createFolder", path="x")["code"] == "INTERNAL"


def test_a_state_file_that_is_no_state_is_named(vault, call):
    (vault.tree.own / "state.json").write_text('{"workspaces": []}')
    result = call("vaultManager_createFolder", path="x")
    assert result["code"] == "IO_ERROR" and "state.json" in result["error"]


def test_a_pattern_cannot_hang_the_vault(vault, call):
    call("contentManager_createContent", filePath="a" * 60 + "!", content="")
    started = time.perf_counter()
    result = call("vaultManager_listDirectory", path="", filter="(a|a)+$|(a+)+$")
    assert result["success"] or result["code"] == "LIMIT"
    call("vaultLibrarian_searchDirectory", query="a", paths=["/"], pattern="((a+)+)+b")
    assert time.perf_counter() - started < 5


WRITER = """
import sys
from toolset_nb.vault import Vault
vault = Vault(sys.argv[1])
context = dict.fromkeys("sessionDescription sessionMemory toolContext primaryGoal subgoal".split(), "x")
context |= {"sessionId": "session_1731571200000_abcdefghi", "workspaceId": "default"}
for number in range(int(sys.argv[3])):
    shared = {"context": context, "filePath": "Shared.md"}
    vault.call("contentManager_findReplaceContent", shared | {"findText": "nothing", "replaceText": ""})
    vault.call("contentManager_deleteContent", shared | {"content": "none"})
    text = sys.argv[2] * 20000
    vault.call("contentManager_replaceByLine", shared | {"startLine": 1, "endLine": 9, "newContent": text})
    vault.call("memoryManager_createSession", {"context": context, "name": f"{sys.argv[2]}{number}"})
    print(number, flush=True)
"""


def _writer(folder, letter, times):
    command = [sys.executable, "-c", WRITER, str(folder), letter, str(times)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_a_kill_in_a_write_leaves_the_old_or_the_new_file(vault):
    shared = vault.tree.root / "Shared.md"
    shared.write_text("start")
    for attempt in range(6):
        process = _writer(vault.tree.root, "ab"[attempt % 2], 100_000)
        process.stdout.readline()
        time.sleep(0.01 + 0.013 * attempt)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert shared.read_text() in ("a" * 20000, "b" * 20000)
        reader = Vault(vault.tree.root)
        listed = reader.call("memoryManager_listSessions", {"context": CONTEXT})
        assert listed["success"] and listed["data"]["total"] > 0
    assert all("tool" in trace for trace in reader.state.traces())


def test_two_processes_on_one_vault_do_not_lose_anything(vault):
    (vault.tree.root / "Shared.md").write_text("start")
    processes = [_writer(vault.tree.root, letter, 40) for letter in "ab"]
    assert [process.wait(60) for process in processes if process.communicate() is not None] == [0, 0]
    reader = Vault(vault.tree.root)
    sessions = reader.call("memoryManager_listSessions", {"context": CONTEXT, "limit": 1000})["data"]
    assert sessions["total"] == 80
    assert (vault.tree.root / "Shared.md").read_text() in ("a" * 20000, "b" * 20000)
    assert len(reader.state.traces()) == 2 * 40 * 4 + 1


def test_threads_share_a_vault(vault):
    def work(letter):
        for number in range(30):
            vault.call(
                "contentManager_createContent",
                {"context": CONTEXT, "filePath": f"{letter}/{number}", "content": letter},
            )

    threads = [threading.Thread(target=work, args=(letter,)) for letter in "abc"]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len([path for path in vault.snapshot().files if path[1] == "/"]) == 90


def test_a_held_lock_is_an_answer(vault, monkeypatch):
    monkeypatch.setattr(executor, "LOCK_SECONDS", 0.05)
    shared = Vault(vault.tree.root)
    ready, done = multiprocessing.Event(), multiprocessing.Event()
    process = multiprocessing.Process(target=_hold, args=(str(vault.tree.own / "lock"), ready, done))
    process.start()
    ready.wait(10)
    try:
        assert shared.call("vaultManager_createFolder", {"context": CONTEXT, "path": "x"})["code"] == "IO_ERROR"
    finally:
        done.set()
        process.join()
    assert shared.call("vaultManager_createFolder", {"context": CONTEXT, "path": "x"})["success"]


def _hold(path, ready, done):
    from filelock import FileLock

    with FileLock(path):
        ready.set()
        done.wait(10)


def test_a_vault_with_the_real_clock_can_be_copied(tmp_path):
    (tmp_path / "mine").mkdir()
    copy = Vault(tmp_path / "mine").copy(tmp_path / "copy")
    assert copy.call("vaultManager_createFolder", {"context": CONTEXT, "path": "x"})["success"]
    assert list(tmp_path.glob("mine/x")) == []


def test_a_rehearsal_leaves_nothing(vault):
    before, files = vault.snapshot(), sorted(path.as_posix() for path in vault.tree.root.rglob("*"))
    times = {entry.path: entry.modified for entry in vault.tree.walk()}
    wanted = [
        ("contentManager_createContent", {"filePath": "New/Note", "content": "text"}),
        ("contentManager_appendContent", {"filePath": "Drinks/Tea", "content": "more"}),
        ("vaultManager_deleteNote", {"path": "Drinks/Tea"}),
        ("vaultManager_moveNote", {"path": "Drinks/Tea", "newPath": "Tea"}),
        ("memoryManager_createSession", {"name": "x"}),
        ("contentManager_readContent", {"filePath": "nowhere"}),
        (
            "contentManager_batchContent",
            {"operations": [{"type": "append", "params": {"filePath": "Home.md", "content": "x"}}]},
        ),
    ]
    first = [vault.rehearse(name, {"context": CONTEXT, **arguments}) for name, arguments in wanted]
    assert [result["success"] for result in first] == [True] * 5 + [False, True]
    assert vault.snapshot().digest == before.digest and vault.state.traces() == []
    assert {entry.path: entry.modified for entry in vault.tree.walk()} == times
    assert sorted(path.as_posix() for path in vault.tree.root.rglob("*") if ".trash" not in path.parts) == files
    session = vault.call(wanted[4][0], {"context": CONTEXT, **wanted[4][1]})
    assert session["data"]["sessionId"][-9:] == first[4]["data"]["sessionId"][-9:]  # no id was used up
