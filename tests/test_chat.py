"""Talking to a model in a vault that somebody uses: looks are free, writes wait for a yes and show what they change."""

import json
import tempfile

import pytest
from werkzeug import Response
from written_call import ARGUMENTS, CONTEXT, RIGHT, TOOL

from toolset_nb.__main__ import main
from toolset_nb.chat import REFUSED, Asking
from toolset_nb.vault import Vault, fixtures
from toolset_nb.vault.snapshots import diff


def call(name: str, /, **arguments) -> tuple[str, dict]:
    return name, {"context": CONTEXT, **arguments}


@pytest.fixture
def vault(tmp_path):
    return fixtures.build("music", tmp_path / "music")


def test_a_look_is_free_and_a_write_is_shown_before_it_is_made(vault):
    seen = []
    asking = Asking(vault, lambda made, difference: seen.append((made.name, str(difference))) or True)
    assert asking.call(*call("vaultManager_listDirectory", path="/"))["success"] and seen == []
    before = vault.snapshot().digest
    assert asking.call(TOOL, ARGUMENTS)["success"]
    assert seen == [("vaultManager_createFolder", "+ Scores/")] and vault.snapshot().digest != before


def test_a_declined_write_leaves_everything_as_it_was(vault):
    before = vault.snapshot().digest
    result = Asking(vault, lambda *_: False).call(TOOL, ARGUMENTS)
    assert result == {"success": False, "error": REFUSED, "code": "DECLINED"}
    assert vault.snapshot().digest == before


def never(*_):
    raise AssertionError("asked")


def test_until_the_yes_nothing_of_the_vault_itself_is_written(vault):
    def everything():
        root = vault.tree.root
        return {path: path.stat().st_ctime_ns for path in (root, *root.rglob("*")) if path.name != "lock"}

    before, seen = everything(), []
    Asking(vault, lambda *_: seen.append(everything())).call(TOOL, ARGUMENTS)
    Asking(vault, never).call(*call("vaultManager_deleteNote", path="No such note.md"))
    assert seen == [before] and everything() == before


SHOWN = {
    "create": ("contentManager_createContent", {"filePath": "New/Note", "content": "text"}),
    "edit": ("contentManager_appendContent", {"filePath": "Note", "content": "more"}),
    "move": ("vaultManager_moveNote", {"path": "Note", "newPath": "Old/Note"}),
    "move over another": ("vaultManager_moveNote", {"path": "Note", "newPath": "Folder/A", "overwrite": True}),
    "move a folder": ("vaultManager_moveFolder", {"path": "Folder", "newPath": "Old/Folder"}),
    "delete": ("vaultManager_deleteNote", {"path": "Note"}),
    "delete a folder": ("vaultManager_deleteFolder", {"path": "Folder", "recursive": True}),
    "a record": ("memoryManager_createSession", {"name": "Evening"}),
}


@pytest.mark.parametrize("wanted", SHOWN.values(), ids=SHOWN)
def test_what_is_shown_is_the_difference_of_the_whole_vaults(vault, tmp_path, wanted):
    for path, text in {"Note": "one", "Folder/A": "a [[Note]]", "Folder/B": "same", "Folder/C": "same"}.items():
        assert vault.call(*call("contentManager_createContent", filePath=path, content=text))["success"]
    shown, answers = [], iter([False, True])
    asking = Asking(vault, lambda made, difference: shown.append(str(difference)) or next(answers))
    made, other = call(wanted[0], **wanted[1]), vault.copy(tmp_path / "other")
    before = other.snapshot()
    result = other.call(*made)
    difference = diff(before, other.snapshot())
    assert asking.call(*made)["code"] == "DECLINED" and vault.snapshot() == before
    assert asking.call(*made) == result and result["success"]
    assert difference and shown == [str(difference)] * 2 and vault.snapshot() == other.snapshot()


def test_a_file_that_is_too_large_to_be_read_can_be_moved_and_replaced(vault):
    for name in ("film.mp4", "other.mp4"):
        with open(vault.tree.root / name, "wb") as file:
            file.truncate(1 << 30)
    shown = []
    asking = Asking(vault, lambda made, difference: shown.append(str(difference)) or True)
    assert asking.call(*call("vaultManager_moveNote", path="film.mp4", newPath="Films/film.mp4"))["success"]
    over = {"path": "Films/film.mp4", "newPath": "other.mp4", "overwrite": True}
    assert asking.call(*call("vaultManager_moveNote", **over))["success"]
    assert shown[0] == "+ Films/\n> film.mp4 -> Films/film.mp4"
    assert shown[1].startswith("- Films/film.mp4\n~ other.mp4\n") and "-1073741824 bytes" in shown[1]


def test_a_note_that_was_edited_outside_between_two_trials_is_seen(vault):
    shown = []
    asking = Asking(vault, lambda made, difference: shown.append(str(difference)))
    for text in ("first", "other"):
        (vault.tree.root / "Note.md").write_text(text)
        asking.call(*call("contentManager_replaceContent", filePath="Note", oldContent=text, newContent="new"))
    assert ["-first" in shown[0], "-other" in shown[1]] == [True, True]


def test_the_mirror_goes_with_the_conversation(vault, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    asking = Asking(vault, lambda *_: False)
    asking.call(TOOL, ARGUMENTS)
    asking.call(TOOL, ARGUMENTS)
    assert len(list(tmp_path.glob("tmp*"))) == 1
    del asking
    assert not list(tmp_path.glob("tmp*"))


def test_a_copy_that_cannot_be_made_is_a_refused_call_with_its_reason(vault, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", "/tmp/x")

    monkeypatch.setattr(vault, "mirror", full)
    result = Asking(vault, never).call(TOOL, ARGUMENTS)
    assert not result["success"] and "could not be tried" in result["error"]
    assert "/tmp/x: No space left on device" in result["error"]


def test_a_vault_whose_records_cannot_be_read_is_an_answer(vault):
    (vault.tree.own / "state.json").write_text("{")
    result = Asking(vault, never).call(*call("vaultManager_createFolder", path="x"))
    assert result["code"] == "IO_ERROR" and "state.json" in result["error"]


def test_what_the_vault_would_refuse_is_not_asked_about(vault):
    assert not Asking(vault, never).call(*call("vaultManager_deleteNote", path="No such note.md"))["success"]
    assert not Asking(vault, never).call("no_such_tool", {})["success"]


@pytest.fixture
def talk(httpserver, tmp_path, monkeypatch, capsys):
    """A conversation in the terminal: what is typed and a model, chat -> text or (text, status); gives what was printed."""
    folder = tmp_path / "music"
    fixtures.build("music", folder)

    def talk(typed, model, *options, target=f"openai+http://127.0.0.1:{httpserver.port}#m"):
        def reply(request):
            text = model(request.get_json()["messages"])
            if isinstance(text, tuple):
                return Response(*text)
            return Response(json.dumps({"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}))

        httpserver.expect_request("/v1/chat/completions").respond_with_handler(reply)
        lines = iter([*typed, ""])
        monkeypatch.setattr("builtins.input", lambda question: next(lines))
        assert main(["chat", target, "--vault", str(folder), *options]) == 0
        return capsys.readouterr().out

    talk.folder = folder
    return talk


@pytest.mark.parametrize(("answer", "there"), [("y", True), ("n", False), ("", False)])
def test_a_conversation_in_the_terminal(answer, there, talk):
    def model(chat):
        return "It is there." if chat[-1]["role"] == "tool" else RIGHT

    printed = talk(["Make a folder for the scores", answer], model)
    assert "+ Scores/" in printed and "It is there." in printed
    asked = printed.partition("+ Scores/")[0]
    assert "vaultManager_createFolder {'path': 'Scores'}" in asked and CONTEXT["sessionId"] not in asked
    assert (talk.folder / "Scores").is_dir() is there and ("declined" in printed) is not there
    assert Vault(talk.folder).snapshot()


def test_a_call_that_cannot_be_read_is_shown_as_it_was_said(talk):
    printed = talk(["Make a folder"], lambda chat: RIGHT.replace('"arguments"', "arguments"))
    assert "vaultManager_createFolder" in printed and "(ended: malformed)" in printed


def test_a_conversation_that_outgrows_the_context_loses_its_oldest_requests(talk):
    def model(chat):
        questions = [message["content"] for message in chat if message["role"] == "user"]
        if len(questions) > 2 or "long" in questions[-1]:
            return "the request exceeds the available context size", 400
        return f"I know of {', '.join(questions)}."

    printed = talk(["one", "two", "three", "a long one", "four"], model, "--context", "512")
    assert "(more than --context 512 holds: oldest requests left out, 1)\n" in printed
    assert "I know of two, three." in printed
    assert "(this alone is more than --context 512 holds: the conversation starts anew)" in printed
    assert printed.endswith("I know of four.\n")


def test_a_run_is_asked_as_it_was_trained(talk, monkeypatch):
    from toolset_nb import chat
    from toolset_nb.runs import Run

    given = []
    monkeypatch.setattr(chat.Chat, "__enter__", lambda self: given.append(self.config) or pytest.fail("opened"))
    run = Run.start("sft", "tiny", parameters={"call_format": "text", "tool_exposure": "all", "max_rows": 3})
    run.finish()
    for options in ([], ["--tool-exposure", "none"]):
        with pytest.raises(pytest.fail.Exception):
            talk([], None, *options, target=run.folder.name)
    assert [config.call_format for config in given] == ["text", "text"]
    assert [config.tool_exposure for config in given] == ["all", "none"]


def test_a_folder_or_a_model_that_is_not_there_is_said(tmp_path, capsys):
    assert main(["chat", "latest", "--vault", str(tmp_path / "nothing")]) == 2
    fixtures.build("music", tmp_path / "music")
    assert main(["chat", "no-such-run", "--vault", str(tmp_path / "music")]) == 1
    assert "no-such-run" in capsys.readouterr().err
