"""Talking to a model in a vault that somebody uses: looks are free, writes wait for a yes and show what they change."""

import json

import pytest
from werkzeug import Response
from written_call import ARGUMENTS, CONTEXT, RIGHT, TOOL

from toolset_nb.__main__ import main
from toolset_nb.chat import REFUSED, Asking
from toolset_nb.vault import Vault, fixtures


def call(name: str, **arguments) -> tuple[str, dict]:
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


def test_what_the_vault_would_refuse_is_not_asked_about(vault):
    def never(*_):
        raise AssertionError("asked")

    assert not Asking(vault, never).call(*call("vaultManager_deleteNote", path="No such note.md"))["success"]
    assert not Asking(vault, never).call("no_such_tool", {})["success"]


@pytest.mark.parametrize(("answer", "there"), [("y", True), ("n", False), ("", False)])
def test_a_conversation_in_the_terminal(answer, there, httpserver, tmp_path, monkeypatch, capsys):
    def reply(request):
        chat = request.get_json()["messages"]
        text = "It is there." if chat[-1]["role"] == "tool" else RIGHT
        return Response(json.dumps({"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}))

    httpserver.expect_request("/v1/chat/completions").respond_with_handler(reply)
    folder = tmp_path / "music"
    fixtures.build("music", folder)
    typed = iter(["Make a folder for the scores", answer, ""])
    monkeypatch.setattr("builtins.input", lambda question: next(typed))
    assert main(["chat", f"openai+http://127.0.0.1:{httpserver.port}#m", "--vault", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "+ Scores/" in printed and "It is there." in printed
    assert (folder / "Scores").is_dir() is there and ("declined" in printed) is not there
    assert Vault(folder).snapshot()


def test_a_folder_or_a_model_that_is_not_there_is_said(tmp_path, capsys):
    assert main(["chat", "latest", "--vault", str(tmp_path / "nothing")]) == 2
    fixtures.build("music", tmp_path / "music")
    assert main(["chat", "no-such-run", "--vault", str(tmp_path / "music")]) == 1
    assert "no-such-run" in capsys.readouterr().err
