"""Prompt sets: faults named by file and field, and the chat that a prompt becomes."""

import json
import re

import pytest
from scripted import PROMPT, QUIET
from written_call import TOOL

from toolset_nb.evaluation import EvaluationError, load_prompts, messages, prompt_sets
from toolset_nb.evaluation.prompts import offered_tools, reply_schema
from toolset_nb.settings import EvaluateSettings
from toolset_nb.tools import catalogue

GOOD = dict(PROMPT)
HIDDEN = next(tool.name for tool in catalogue().tools.values() if tool.hidden)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not JSON"),
        ([], "set.json: "),
        ([{**GOOD, "tags": "single"}], "set.json: 0.tags"),
        ([GOOD, {**GOOD, "id": "full-02", "expected_tool": []}], "set.json: 1: .*expected"),
        ([{key: GOOD[key] for key in ("id", "tags", "expected_tools")}], 'set.json: 0: "question" is a required'),
        ([GOOD, GOOD], "set.json: 1.id: 'full-01' stands twice"),
        ([{**GOOD, "fixture": "atlantis"}], "set.json: 0.fixture: 'atlantis' is no sample vault"),
        ([{**GOOD, "must_call": []}], "set.json: 0.must_call: no vault to look at"),
    ],
)
def test_a_bad_prompt_set_is_named_with_its_field(content, words, tmp_path):
    path = tmp_path / "set.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(EvaluationError, match=words):
        load_prompts(str(path))


def test_a_path_is_read_from_the_repositorys_root_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_prompts("datasets/prompts/baseline.json") == load_prompts("baseline")


def test_prompts_are_chosen_by_all_their_tags_and_a_limit(tmp_path):
    path = tmp_path / "set.json"
    path.write_text(json.dumps([GOOD, {**GOOD, "id": "full-02", "tags": ["single"]}, {**GOOD, "id": "full-03"}]))
    assert [p["id"] for p in load_prompts(str(path), "single, vaultManager")] == ["full-01", "full-03"]
    assert [p["id"] for p in load_prompts(str(path), "", 2)] == ["full-01", "full-02"]
    assert len(load_prompts(str(path), "", 4)) == 3
    spread = [p["tags"][0] for p in load_prompts("tasks", limit=40)]
    assert len(spread) == 40 and {"ask_first", "multi_step", "single_call", "unable"} <= set(spread)
    with pytest.raises(EvaluationError, match="no prompt carries the tags batch"):
        load_prompts(str(path), "batch")
    with pytest.raises(EvaluationError, match="known sets: .*full_coverage"):
        load_prompts("no_such_set")


@pytest.mark.parametrize("name", prompt_sets())
def test_the_projects_own_sets_are_valid_and_expect_known_tools(name):
    found = load_prompts(name)
    known = catalogue().tools
    assert {tool for prompt in found for tool in prompt["expected_tools"]} <= known.keys()
    for prompt in found:
        for tool in prompt["expected_tools"]:
            if len(prompt["expected_tools"]) == 1:
                assert prompt.get("expected_arguments", {}).keys() <= known[tool].parameters["properties"].keys()


def test_the_chat_shows_tools_and_ids_as_asked_for():
    def system(**settings):
        chat = messages(PROMPT, EvaluateSettings(**settings))
        return chat[0]["content"] if chat[0]["role"] == "system" else ""

    assert system() == ""
    assert "sessionId: session_" in system(context_source="system")
    agent, everything = system(tool_exposure="agent"), system(tool_exposure="all")
    assert TOOL in agent and "memoryManager_" not in agent and "memoryManager_" in everything
    assert system(tool_exposure="all", tools_as="api") == ""
    assert messages({**PROMPT, "system": "Be kind."}, EvaluateSettings())[0]["content"] == "Be kind."


def test_tools_can_go_by_the_api():
    def offered(exposure: str) -> set[str]:
        tools = offered_tools(PROMPT, EvaluateSettings(tool_exposure=exposure, tools_as="api"))
        return {tool["function"]["name"] for tool in tools}

    shown = {tool.name for tool in catalogue().tools.values() if not tool.hidden}
    assert offered("all") == shown
    assert offered("agent") == {name for name in shown if name.startswith("vaultManager_")}
    assert offered_tools(PROMPT, EvaluateSettings(tool_exposure="all")) is None
    assert offered_tools(QUIET, EvaluateSettings(tools_as="api")) is None


@pytest.mark.parametrize("exposure", ["agent", "all"])
@pytest.mark.parametrize("expected", [[], [TOOL], [HIDDEN], ["memoryManager_createState", TOOL]])
def test_the_api_offers_the_tools_that_a_system_message_shows(exposure, expected):
    prompt = {**PROMPT, "expected_tools": expected}
    text, api = (EvaluateSettings(tool_exposure=exposure, tools_as=how) for how in ("text", "api"))
    listed = re.findall(r"^(\w+)\(", messages(prompt, text)[0]["content"], re.MULTILINE)
    assert [tool["function"]["name"] for tool in offered_tools(prompt, api)] == listed
    assert set(expected) <= set(listed)


def test_a_constrained_reply_is_one_known_call_or_words():
    import jsonschema_rs

    allowed = jsonschema_rs.validator_for(reply_schema())
    context = dict.fromkeys(catalogue().context["required"], "x")
    assert allowed.is_valid({"text": "Which one?"})
    assert allowed.is_valid({"name": TOOL, "parameters": {"context": context, "path": "Scores"}})
    assert not allowed.is_valid({"name": "vaultManager_make", "parameters": {"context": context}})
    assert not allowed.is_valid({"name": TOOL, "parameters": {"context": context, "folder": "Scores"}})
