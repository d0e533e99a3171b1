"""The conformance table (conformance/*.yaml): what each tool answers and does, in-process and through the MCP server."""

import re
from collections import Counter
from pathlib import Path

import anyio
import pytest
import yaml
from conftest import CONTEXT, HERE
from mcp import Client

from toolset_nb.tools import catalogue
from toolset_nb.vault import server

CASES = [
    case for path in sorted((HERE / "conformance").glob("*.yaml")) for case in yaml.safe_load(path.read_text("utf-8"))
]
TYPES = {"string": str, "number": (int, float), "boolean": bool, "list": list, "object": dict}
MISSING = object()


def _in_process(vault, tool, arguments):
    return vault.call(tool, arguments)


def _over_mcp(vault, tool, arguments):
    """One call by the SDK's client, to the server in this process."""

    async def ask(shape, name, arguments):
        async with Client(server.build(vault, shape)) as client:
            return await client.call_tool(name, arguments)

    agent, _, mode = tool.partition("_")
    if agent in catalogue().agents and len(mode) % 2:  # every other tool in the plugin's own shape
        answer = anyio.run(ask, "agents", agent, {"mode": mode, **arguments})
    else:
        answer = anyio.run(ask, "tools", tool, arguments)
    assert answer.is_error == (not answer.structured_content["success"])
    return answer.structured_content


def test_the_table_covers_every_tool():
    counted = Counter(case["tool"] for case in CASES)
    assert len(CASES) >= 300
    for name in catalogue().tools:
        outcomes = {case["expect"].get("success") for case in CASES if case["tool"] == name}
        assert True in outcomes and counted[name] >= 3, name
    assert len({(case["tool"], case["case"]) for case in CASES}) == len(CASES)


@pytest.mark.parametrize("execute", [_in_process, _over_mcp], ids=["in-process", "mcp"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['tool']}: {case['case']}")
def test_conformance(base_vault, tmp_path, case, execute):
    vault = base_vault.copy(tmp_path / "vault")
    before = []
    for step in case.get("before", []):
        result = execute(vault, step["tool"], _filled(_with_context(step), before))
        assert result["success"], (step, result)
        before.append(result)
    snapshot = vault.snapshot()
    result = execute(vault, case["tool"], _filled(_with_context(case), before))
    for path, expected in _filled(case["expect"], before).items():
        found = _at(result, path)
        assert _agrees(found, expected), f"{path}: expected {expected!r}, found {found!r} in {result}"
    if not result["success"]:
        after = vault.snapshot()
        assert (after.files, after.folders) == (snapshot.files, snapshot.folders)
        assert {k: v for k, v in after.state.items() if k != "aliases"} == {
            k: v for k, v in snapshot.state.items() if k != "aliases"
        }
    for path, expected in case.get("files", {}).items():
        _check_file(vault.tree.root, path, expected)


def _with_context(step):
    given = step.get("context", {})
    if given is None:
        return step.get("arguments", {})
    context = {key: value for key, value in (CONTEXT | given).items() if value is not None}
    return {"context": context, **step.get("arguments", {})}


def _filled(value, before):
    """Replace "{{before.0.data.id}}" by the value of an earlier result."""
    if isinstance(value, str) and (match := re.fullmatch(r"\{\{before\.(\d+)\.(.+)\}\}", value)):
        return _at(before[int(match[1])], match[2])
    if isinstance(value, dict):
        return {key: _filled(part, before) for key, part in value.items()}
    return [_filled(part, before) for part in value] if isinstance(value, list) else value


def _at(value, path):
    for step in str(path).split("."):
        if isinstance(value, list) and step.lstrip("-").isdigit() and -len(value) <= int(step) < len(value):
            value = value[int(step)]
        elif isinstance(value, dict) and step in value:
            value = value[step]
        else:
            return MISSING
    return value


def _agrees(found, expected):
    if not isinstance(expected, dict) or not expected.keys() <= MATCHERS.keys():
        return (
            type(found) is type(expected)
            and found == expected
            or _number(found)
            and _number(expected)
            and found == expected
        )
    return all(MATCHERS[name](found, wanted) for name, wanted in expected.items())


def _number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


MATCHERS = {
    "matches": lambda found, wanted: isinstance(found, str) and re.search(wanted, found),
    "contains": lambda found, wanted: isinstance(found, (str, list, dict)) and wanted in found,
    "length": lambda found, wanted: found is not MISSING and len(found) == wanted,
    "absent": lambda found, wanted: (found is MISSING) == wanted,
    "type": lambda found, wanted: isinstance(found, TYPES[wanted]) and (wanted != "number" or _number(found)),
    "min": lambda found, wanted: _number(found) and found >= wanted,
    "max": lambda found, wanted: _number(found) and found <= wanted,
}


def _check_file(root: Path, path, expected):
    target = root / path
    if expected is None:
        assert not target.exists(), f"{path} should not exist"
    elif path.endswith("/"):
        assert target.is_dir(), f"{path} should be a folder"
    elif isinstance(expected, dict):
        assert target.is_file() and _agrees(target.read_text("utf-8"), expected), (
            path,
            expected,
            target.exists() and target.read_text("utf-8"),
        )
    else:
        assert target.read_text("utf-8") == expected
