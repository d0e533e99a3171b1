"""The loop: what is sent, what is given back, when it ends; nothing that a model or a server does raises."""

import json

import pytest
from scripted import NATIVE, PROMPT, QUIET, TASK, Script, answer
from written_call import ARGUMENTS, RIGHT, TOOL, call

from toolset_nb.calls import Call
from toolset_nb.evaluation import attempt
from toolset_nb.evaluation.agent import Attempt, converse
from toolset_nb.servers import RequestFailed
from toolset_nb.settings import EvaluateSettings

LOOK = call("vaultManager_listDirectory", path="/")


def tried(prompt, replies, vaults, **settings):
    """(attempt, script) of a model that gives these replies in turn."""
    turn = iter(replies)
    script = Script(lambda chat: next(turn))
    return attempt(script, prompt, EvaluateSettings(**settings), vaults), script


def test_without_a_vault_there_is_one_reply(vaults):
    made, script = tried(PROMPT, [RIGHT], vaults)
    assert (made.stop, len(script.asked), made.outcome) == ("single", 1, None)


def test_results_go_back_as_tool_messages(vaults):
    made, script = tried(TASK, [LOOK, RIGHT, "Done."], vaults)
    roles = [message["role"] for message in script.asked[-1][0]]
    assert roles == ["user", "assistant", "tool", "assistant", "tool"]
    assert script.asked[1][0][2]["content"].startswith('{"success": true')
    assert made.stop == "words" and made.outcome.text == "Done."
    assert [name for name, _ in made.outcome.made] == ["vaultManager_listDirectory", TOOL]


def test_a_native_call_goes_back_with_an_id_and_its_arguments_as_text(vaults):
    _, script = tried(TASK, [answer(None, tool_calls=NATIVE), "Done."], vaults)
    said, told = script.asked[1][0][1:]
    (made,) = said["tool_calls"]
    assert made["id"] and told["tool_call_id"] == made["id"] and told["name"] == TOOL
    assert json.loads(made["function"]["arguments"]) == ARGUMENTS


def test_the_ids_of_native_calls_are_unique_in_a_chat_of_several_requests(vaults):
    made = Attempt(chat=[{"role": "user", "content": "Make the folder Scores"}])
    for _ in range(2):
        replies = iter([answer(None, tool_calls=NATIVE * 2), "Done."])
        converse(made, Script(lambda chat, replies=replies: next(replies)), EvaluateSettings(), vaults.copy("music"))
        made.chat.append({"role": "user", "content": "Again"})
    told = [message["tool_call_id"] for message in made.chat if message["role"] == "tool"]
    assert len(set(told)) == len(told) == 4 and {len(each) for each in told} == {9}


def test_errors_of_the_vault_are_returned_to_the_model(vaults):
    _, script = tried(TASK, [call("contentManager_readContent", filePath="No.md"), "I see."], vaults)
    assert '"success": false' in script.asked[1][0][2]["content"]


def test_a_broken_call_is_not_executed_and_history_stays_readable(vaults):
    made, _ = tried(TASK, [RIGHT[:-40]], vaults)
    assert made.stop == "malformed" and made.outcome.made == []
    assert made.outcome.before.digest == made.outcome.after.digest
    assert made.chat[-1]["role"] == "assistant" and "tool_calls" not in made.chat[-1]


def test_a_long_result_is_cut(vaults, monkeypatch):
    from toolset_nb.evaluation import agent

    monkeypatch.setattr(agent, "MOST_RESULT", 40)
    _, script = tried(TASK, [LOOK, "I see."], vaults)
    assert "characters cut)" in script.asked[1][0][2]["content"]


@pytest.mark.parametrize(
    ("replies", "stop"),
    [
        ([LOOK, LOOK], "loop"),
        ([LOOK, RIGHT, LOOK], "max_turns"),
        ([answer(RIGHT, "length")], "truncated"),
        ([answer(None, "error", "does not match the expected format")], "malformed"),
        ([""], "malformed"),
        ([RequestFailed("refused")], "infra"),
        ([LOOK, RequestFailed("HTTP 400: exceeds the available context size", 400)], "context"),
        ([LOOK, RequestFailed("refused")], "infra"),
    ],
)
def test_how_it_ends(replies, stop, vaults):
    made, _ = tried(TASK, replies, vaults, max_turns=3)
    assert made.stop == stop and (made.error is not None) == (stop == "infra")


def test_89_an_endless_loop_of_calls_ends(vaults):
    script = Script(lambda chat: call("vaultManager_listDirectory", path="/", depth=len(chat)))
    assert attempt(script, TASK, EvaluateSettings(), vaults).stop == "max_turns"


def test_where_words_are_due_a_readable_call_is_executed_so_that_its_damage_shows(vaults):
    task = {**QUIET, "fixture": "music", "expected": "talk"}
    made, _ = tried(task, [f"```json\n{RIGHT[12:-13]}\n```"], vaults, max_turns=1)
    assert [name for name, _ in made.outcome.made] == [TOOL]
    assert made.outcome.before.digest != made.outcome.after.digest


def test_every_trial_has_its_own_seed(vaults):
    script = Script(lambda chat: "Hello.")
    for trial in (0, 1):
        attempt(script, QUIET, EvaluateSettings(seed=7), vaults, trial)
    assert [options["seed"] for _, options in script.asked] == [7, 8]


def test_constrained_decoding_sends_a_schema_and_reads_words_and_calls(vaults):
    words, _ = tried(QUIET, ['{"text": "You are welcome."}'], vaults, constrained=True)
    assert words.turns[0].reply.blocks == ["You are welcome."]
    written = json.dumps({"name": TOOL, "parameters": ARGUMENTS})
    made, script = tried(PROMPT, [written], vaults, constrained=True)
    assert made.calls == [Call(TOOL, ARGUMENTS)] and made.turns[0].strict
    assert "anyOf" in script.asked[0][1]["schema"]


def test_no_copy_of_a_vault_is_left(vaults, tmp_path):
    from pathlib import Path

    tried(TASK, [RIGHT, "Done."], vaults)
    assert len(list(Path(vaults._folder.name).iterdir())) == 1  # the original alone
