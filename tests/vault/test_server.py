"""The MCP server with the SDK's own client: both shapes, stdio, HTTP, reading only, the log and its replay."""

import json
import sys
from pathlib import Path

import anyio
import httpx
import pytest
from conftest import CONTEXT
from mcp import Client, StdioServerParameters

from toolset_nb.__main__ import main
from toolset_nb.tools import catalogue
from toolset_nb.vault import server

ROOT = Path(__file__).resolve().parents[2]


def ask(target, *calls):
    """The tools a server lists and the results of calls."""

    async def run():
        async with Client(target) as client:
            return (await client.list_tools()).tools, [
                await client.call_tool(name, arguments) for name, arguments in calls
            ]

    return anyio.run(run)


def test_one_tool_for_each_name_with_the_registrys_schema(vault):
    listed, _ = ask(server.build(vault))
    known = catalogue()
    assert [tool.name for tool in listed] == list(known.tools)
    for tool in listed:
        schema = dict(tool.input_schema["properties"])
        assert schema.pop("context") == known.context
        assert schema == known.tools[tool.name].parameters["properties"]
        assert tool.annotations.read_only_hint == (known.tools[tool.name].mutates is None)
    destructive = {tool.name for tool in listed if tool.annotations.destructive_hint}
    assert {"vaultManager_deleteNote", "vaultManager_moveNote", "contentManager_replaceContent"} <= destructive
    assert "contentManager_readContent" not in destructive


def test_one_tool_for_each_agent_with_its_modes(vault):
    listed, results = ask(
        server.build(vault, "agents"),
        ("vaultManager", {"mode": "createFolder", "context": CONTEXT, "path": "New"}),
        ("vaultManager", {"mode": "fly", "context": CONTEXT}),
        ("vaultManager", {"context": CONTEXT, "path": "x"}),
        ("get_tools", {"context": CONTEXT, "tools": []}),
    )
    assert [tool.name for tool in listed] == [*catalogue().agents, "get_tools"]
    assert set(listed[0].input_schema["properties"]["mode"]["enum"]) >= {"createFolder", "moveNote"}
    assert [result.is_error for result in results] == [False, True, True, False]
    assert results[1].structured_content["code"] == "UNKNOWN_TOOL"


def test_text_and_structured_content_are_the_same_result(vault):
    _, (good, bad) = ask(
        server.build(vault),
        ("contentManager_readContent", {"context": CONTEXT, "filePath": "Überblick"}),
        ("contentManager_readContent", {"context": CONTEXT, "filePath": "../x"}),
    )
    for result in (good, bad):
        assert json.loads(result.content[0].text) == result.structured_content
    assert not good.is_error and bad.is_error and bad.structured_content["code"] == "INVALID_PATH"


@pytest.mark.parametrize("shape", server.SHAPES)
def test_reading_only_offers_and_runs_nothing_else(vault, shape):
    vault.read_only = True
    listed, (result,) = ask(
        server.build(vault, shape), ("vaultManager_createFolder", {"context": CONTEXT, "path": "x"})
    )
    assert all(tool.annotations.read_only_hint for tool in listed) and "createFolder" not in str(listed)
    assert result.structured_content["code"] == "READ_ONLY" and "x" not in vault.snapshot().folders


def test_stdio_as_a_client_starts_it(vault, tmp_path):
    command = ["-m", "toolset_nb", "serve", str(vault.tree.root), "--log", str(tmp_path / "calls.jsonl")]
    target = StdioServerParameters(command=sys.executable, args=command, cwd=ROOT)
    listed, (result,) = ask(target, ("vaultManager_createFolder", {"context": CONTEXT, "path": "From stdio"}))
    assert len(listed) == 47 and result.structured_content["success"]
    assert (vault.tree.root / "From stdio").is_dir() and (tmp_path / "calls.jsonl").exists()


def test_http_on_this_machine_only(vault):
    with server.in_background(server.build(vault)) as url:
        listed, (result,) = ask(url, ("vaultManager_createFolder", {"context": CONTEXT, "path": "From HTTP"}))
        assert url.startswith("http://127.0.0.1:")
        foreign = httpx.post(url, headers={"Host": "evil.example"}, json={})
    assert len(listed) == 47 and (vault.tree.root / "From HTTP").is_dir()
    assert foreign.status_code in (403, 421)


def test_the_log_can_be_replayed(vault, tmp_path, capsys):
    log, copy = tmp_path / "calls.jsonl", vault.copy(tmp_path / "copy")
    calls = [
        ("contentManager_createContent", {"context": CONTEXT, "filePath": "Día", "content": "ñ\u2028"}),
        ("vaultManager_deleteNote", {"context": CONTEXT, "path": "Home"}),
    ]
    ask(server.build(vault, log=log), *calls)
    log.write_bytes(log.read_bytes() + b'{"name": "vaultManager_cre')
    assert list(server.read_calls(log)) == calls
    assert main(["replay", str(copy.tree.root), str(log)]) == 0
    out = capsys.readouterr().out
    assert "ok   contentManager_createContent" in out and "+ Día.md" in out and "- Home.md" in out
    assert copy.snapshot().digest == vault.snapshot().digest
    assert main(["replay", str(copy.tree.root), str(log)]) == 1
    assert main(["replay", str(copy.tree.root), str(tmp_path / "none")]) == 2


def test_serving_what_is_no_folder_is_a_clear_error(tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    for path in ("none", "file"):
        assert main(["serve", str(tmp_path / path)]) == 2
        assert path in capsys.readouterr().err


def test_a_deleted_note_is_put_back_from_the_command_line(vault, call, capsys):
    call("vaultManager_deleteNote", path="Home")
    assert main(["undelete", str(vault.tree.root)]) == 0 and "Home.md" in capsys.readouterr().out
    assert (vault.tree.root / "Home.md").is_file()
    assert main(["undelete", str(vault.tree.root)]) == 1 and "empty" in capsys.readouterr().err
