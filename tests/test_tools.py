"""The tool registry: its data, its two compact forms, and the check of a call."""

import json

import jsonschema_rs
import pytest

from toolset_nb.tools import CONTEXT_FIELDS, catalogue

AGENTS = {
    "vaultManager": 9,
    "contentManager": 9,
    "vaultLibrarian": 4,
    "memoryManager": 12,
    "agentManager": 10,
    "commandManager": 2,
}
HIDDEN = {"agentManager_executePrompt", "commandManager_listCommands", "commandManager_executeCommand"}
REQUIRED = {
    "memoryManager_createState": "name conversationContext activeTask activeFiles nextSteps reasoning",
    "memoryManager_createWorkspace": "name rootFolder purpose currentGoal workflows",
    "memoryManager_loadWorkspace": "id",
    "memoryManager_updateWorkspace": "workspaceId fieldPath newValue",
    "memoryManager_updateState": "stateId",
    "vaultLibrarian_searchDirectory": "query paths",
    "vaultLibrarian_searchMemory": "query workspaceId",
    "agentManager_executePrompt": "prompt provider model",
    "agentManager_generateImage": "prompt provider savePath",
    "agentManager_listModels": "",
    "contentManager_replaceByLine": "filePath startLine endLine newContent",
    "get_tools": "tools",
}
CONTEXT = {
    "sessionId": "session_1732300800000_a1b2c3d4e",
    "workspaceId": "ws_1732300800000_f5g6h7j8k",
    "sessionDescription": "Sorting the score library",
    "sessionMemory": "Two shelves are done.",
    "toolContext": "The user asked for it.",
    "primaryGoal": "A tidy library",
    "subgoal": "One folder more",
}


def test_the_catalogue_holds_47_tools_of_six_agents_and_get_tools():
    tools = catalogue().tools
    assert len(tools) == 47
    counts = {agent: sum(tool.agent == agent for tool in tools.values()) for agent in catalogue().agents}
    assert sum(counts.values()) == 46
    assert counts == AGENTS
    assert (tools["get_tools"].agent, tools["get_tools"].mode) == ("", "")
    assert all(name == f"{t.agent}_{t.mode}" for name, t in tools.items() if t.agent)
    assert {name for name, tool in tools.items() if tool.hidden} == HIDDEN


@pytest.mark.parametrize("name", REQUIRED)
def test_required_parameters_are_those_the_plugin_refuses_to_miss(name):
    assert catalogue().tools[name].required == REQUIRED[name].split()


@pytest.mark.parametrize("tool", catalogue().tools.values(), ids=lambda tool: tool.name)
def test_every_schema_is_valid_and_every_default_fits(tool):
    jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **tool.parameters})
    assert "context" not in tool.parameters["properties"]
    for schema in walk(tool.parameters):
        assert schema.get("additionalProperties", False) is False
        if "default" in schema:
            assert jsonschema_rs.Draft202012Validator(schema).is_valid(schema["default"])
        for example in schema.get("examples", []):
            assert jsonschema_rs.Draft202012Validator(schema).is_valid(example)


@pytest.mark.parametrize("tool", catalogue().tools.values(), ids=lambda tool: tool.name)
def test_descriptions_are_one_short_line(tool):
    assert 3 <= len(tool.description.split()) <= 14
    parameters = [s for schema in walk(tool.parameters) for s in schema.get("properties", {}).values()]
    texts = [s["description"] for s in parameters if "description" in s]
    assert all("description" in schema for schema in tool.parameters["properties"].values())
    assert all("\n" not in text and 1 <= len(text.split()) <= 8 for text in texts)
    assert "\n" not in tool.description


def test_descriptions_tell_tools_apart():
    tools = catalogue().tools.values()
    assert len({tool.description for tool in tools}) == len(tools)


def test_the_context_schema_requires_the_seven_fields():
    context = catalogue().context
    assert tuple(context["properties"]) == tuple(context["required"]) == CONTEXT_FIELDS


def test_the_tool_lists_fit_a_small_context_window():
    from toolset_nb.models import embedded_tokenizer

    encode = embedded_tokenizer().encode
    assert len(encode(json.dumps(catalogue().openai_tools()))) <= 6000
    assert len(encode(catalogue().text_list())) <= 1500


def test_openai_tools_put_context_first_and_keep_the_required_parameters():
    for entry in catalogue().openai_tools():
        function = entry["function"]
        assert list(function["parameters"]["properties"])[0] == "context"
        assert function["parameters"]["required"] == ["context", *catalogue().tools[function["name"]].required]
        jsonschema_rs.meta.validate(function["parameters"])


def test_lists_can_be_narrowed_and_refuse_unknown_names():
    names = ["contentManager_appendContent", "vaultManager_deleteFolder"]
    assert [entry["function"]["name"] for entry in catalogue().openai_tools(names)] == names
    assert catalogue().text_list(names).splitlines() == [
        "contentManager_appendContent(filePath, content) adds text at the end of an existing note",
        "vaultManager_deleteFolder(path, recursive?) deletes a folder; recursive also deletes what is inside",
    ]
    with pytest.raises(KeyError, match="did you mean vaultManager_deleteFolder"):
        catalogue().text_list(["vaultManager_deleteFolders"])


GOOD = [
    ("agentManager_listModels", {}),
    ("vaultManager_listDirectory", {"path": ""}),
    ("contentManager_createContent", {"filePath": "Scores/Agnus Dei.md", "content": ""}),
    ("vaultLibrarian_searchContent", {"query": "descant", "limit": 50, "paths": ["Scores"]}),
    ("memoryManager_loadSession", {"targetSessionId": "session_1732300800000_a1b2c3d4e"}),
    ("memoryManager_updateSession", {"sessionId": "s", "sessionGoal": "Finish the tenor shelf"}),
    (
        "memoryManager_updateWorkspace",
        {"workspaceId": "default", "fieldPath": "context.workflows[0].name", "newValue": None},
    ),
    ("agentManager_getAgent", {"name": "Copyist"}),
    ("contentManager_batchContent", {"operations": [{"type": "read", "params": {"filePath": "a.md", "limit": 5}}]}),
    ("get_tools", {"tools": []}),
]
BAD = [
    ("vaultManager_createFolder", {}, "arguments.path", "nothing", "text"),
    ("vaultManager_createFolder", {"path": 5}, "arguments.path", "5 (number)", "text"),
    (
        "vaultManager_createFolder",
        {"path": "a", "pth": "b"},
        "arguments.pth",
        "an unknown parameter",
        "did you mean path?",
    ),
    (
        "vaultLibrarian_searchContent",
        {"query": "a", "limit": "5"},
        "arguments.limit",
        "'5' (string)",
        "a number from 1 to 50",
    ),
    (
        "vaultLibrarian_searchContent",
        {"query": "a", "limit": 51},
        "arguments.limit",
        "51 (number)",
        "a number from 1 to 50",
    ),
    ("vaultLibrarian_searchContent", {"query": "a", "paths": [1]}, "arguments.paths[0]", "1 (number)", "text"),
    ("vaultLibrarian_searchDirectory", {"query": "a", "paths": []}, "arguments.paths", "a list of 0", "not empty"),
    (
        "vaultManager_openNote",
        {"path": "a", "mode": "popup"},
        "arguments.mode",
        "'popup' (string)",
        "one of tab, split",
    ),
    (
        "vaultManager_deleteFolder",
        {"path": "a", "recursive": "yes"},
        "arguments.recursive",
        "(string)",
        "true or false",
    ),
    ("agentManager_getAgent", {}, "arguments", "none of these", "at least one of id, name"),
    ("memoryManager_loadSession", {"sessionName": "x"}, "arguments", "none", "targetSessionId, sessionId"),
    (
        "memoryManager_updateSession",
        {"sessionId": "x", "addTags": ["a"]},
        "arguments",
        "none",
        "name, description, sessionGoal",
    ),
    (
        "memoryManager_updateWorkspace",
        {"workspaceId": "w", "fieldPath": "owner", "newValue": 1},
        "arguments.fieldPath",
        "'owner'",
        "such as",
    ),
    (
        "agentManager_createAgent",
        {"name": "x" * 101, "description": "d", "prompt": "p"},
        "arguments.name",
        "x",
        "from 1 to 100 characters",
    ),
    (
        "contentManager_batchContent",
        {"operations": [{"type": "cut", "params": {}}]},
        "arguments.operations[0].type",
        "'cut'",
        "one of read",
    ),
    (
        "contentManager_batchContent",
        {"operations": [{"type": "append", "params": {"filePath": "a.md"}}]},
        "arguments.operations[0].params.content",
        "nothing",
        "text that is not empty",
    ),
    (
        "agentManager_batchExecutePrompt",
        {"prompts": [{"type": "image", "prompt": "a", "provider": "google", "model": "imagen-4"}]},
        "arguments.prompts[0].savePath",
        "nothing",
        "text such as",
    ),
    (
        "agentManager_generateImage",
        {"prompt": "a", "provider": "google", "savePath": "/a.png"},
        "arguments.savePath",
        "/a.png",
        "such as",
    ),
]
BAD_CONTEXT = [
    ({"sessionId": "s-20251122101500"}, "arguments.context.sessionId", "text such as 'session_"),
    ({"workspaceId": "global-workspace"}, "arguments.context.workspaceId", "text such as 'ws_"),
    ({"sessionMemory": ""}, "arguments.context.sessionMemory", "text that is not empty"),
    ({"sessionMemory": " \n"}, "arguments.context.sessionMemory", "text that is not empty"),
    ({"subgoal": 3}, "arguments.context.subgoal", "text that is not empty"),
    ({"subGoal": "x"}, "arguments.context.subGoal", "did you mean subgoal?"),
]


@pytest.mark.parametrize(("name", "arguments"), GOOD, ids=lambda value: value if isinstance(value, str) else "")
def test_good_calls_pass(name, arguments):
    assert catalogue().check(name, {"context": CONTEXT, **arguments}) == []


@pytest.mark.parametrize(("name", "arguments", "field", "found", "expected"), BAD)
def test_bad_arguments_are_named(name, arguments, field, found, expected):
    (problem,) = catalogue().check(name, {"context": CONTEXT, **arguments})
    assert problem.field == field
    assert found in problem.found
    assert expected in problem.expected


@pytest.mark.parametrize(("change", "field", "expected"), BAD_CONTEXT)
def test_bad_context_is_named(change, field, expected):
    (problem,) = catalogue().check("agentManager_listModels", {"context": {**CONTEXT, **change}})
    assert problem.field == field
    assert expected in problem.expected


@pytest.mark.parametrize("missing", CONTEXT_FIELDS)
def test_every_context_field_is_needed(missing):
    context = {key: value for key, value in CONTEXT.items() if key != missing}
    (problem,) = catalogue().check("agentManager_listModels", {"context": context})
    assert (problem.field, problem.found) == (f"arguments.context.{missing}", "nothing")


def test_context_comes_first_in_the_call_and_in_the_report():
    check = catalogue().check
    late = check("vaultManager_createFolder", {"path": 1, "context": {**CONTEXT, "sessionMemory": " "}})
    assert [p.field for p in late] == ["arguments.context", "arguments.context.sessionMemory", "arguments.path"]
    assert [p.field for p in check("vaultManager_createFolder", {})] == ["arguments.context", "arguments.path"]
    assert check("agentManager_listModels", {"context": "none"})[0].found == "'none' (string)"


@pytest.mark.parametrize(
    ("name", "arguments", "field", "expected"),
    [
        ("contentManager_apendContent", {}, "name", "did you mean contentManager_appendContent?"),
        (None, {}, "name", "a known tool"),
        ("get_tools", "tools", "arguments", "an object"),
        ("get_tools", None, "arguments", "an object"),
        ("get_tools", {"context": CONTEXT, "tools": {1, 2}}, "arguments", "plain JSON"),
        ("get_tools", {"context": CONTEXT, 1: 2}, "arguments", "plain JSON"),
    ],
)
def test_calls_that_are_no_calls(name, arguments, field, expected):
    (problem,) = catalogue().check(name, arguments)
    assert problem.field == field
    assert expected in problem.expected


def test_a_second_catalogue_is_data_alone(tmp_path):
    parameters = {
        "type": "object",
        "properties": {"room": {"type": "string"}},
        "required": ["room"],
        "additionalProperties": False,
    }
    tool = {
        "name": "lamp_on",
        "agent": "lamp",
        "mode": "on",
        "description": "Lights a room",
        "hidden": False,
        "mutates": None,
    }
    house = tmp_path / "house.json"
    data = {"catalogue": {"name": "house", "version": "1"}, "agents": {"lamp": "Lamps."}}
    house.write_text(json.dumps({**data, "tools": [{**tool, "parameters": parameters, "result": {}}]}))
    (tmp_path / "context.json").write_text(
        json.dumps({"type": "object", "properties": {"who": {"type": "string"}}, "required": ["who"]})
    )
    second = catalogue(house)
    assert second is catalogue(house)
    assert second.text_list() == "lamp_on(room) lights a room"
    assert second.check("lamp_on", {"context": {"who": "me"}, "room": "attic"}) == []
    assert [p.field for p in second.check("lamp_on", {"context": {}, "room": 1})] == [
        "arguments.context.who",
        "arguments.room",
    ]


def test_no_schema_is_fetched(tmp_path):
    parameters = {"type": "object", "properties": {"room": {"$ref": "https://example.org/room.json"}}}
    tool = {"name": "a_b", "agent": "a", "mode": "b", "description": "x", "hidden": False, "mutates": None}
    path = tmp_path / "remote.json"
    data = {"catalogue": {"name": "remote", "version": "1"}, "agents": {"a": "A."}}
    path.write_text(json.dumps({**data, "tools": [{**tool, "parameters": parameters, "result": {}}]}))
    with pytest.raises(ValueError, match="self-contained"):
        catalogue(path).check("a_b", {"context": CONTEXT})


def walk(schema):
    """Every schema inside a schema, itself included."""
    yield schema
    inside = [*schema.get("properties", {}).values(), *schema.get("allOf", [])]
    for sub in inside + [schema[key] for key in ("items", "then") if key in schema]:
        yield from walk(sub)
