"""Pairs from a model's own mistakes: what counts as one, what it is called, and that the pairs are fit to train on.

The model is a table of answers here; the command asks a scripted server over HTTP.
"""

import json
from functools import cache
from itertools import islice

import pytest

from toolset_nb import calls, rows, rules
from toolset_nb.__main__ import main
from toolset_nb.paths import repo_root
from toolset_nb.servers import Answer
from toolset_nb.settings import EvaluateSettings
from toolset_nb.synth.mistakes import pairs

KTO = repo_root() / "datasets" / "kto.jsonl"


@cache
def true_row(behaviour: str, results: bool = False, tool: str = "") -> dict:
    """The first true row of a behaviour, with or without results before its last words or calls, of one tool by choice."""
    return next(
        row
        for _, row in rows.read(KTO)
        if row["label"] is True
        and row["meta"]["behaviour"] == behaviour
        and ("Result:" in row["conversations"][-1]["content"]) is results
        and (not tool or row["meta"]["tools"] == [tool])
    )


def last(row: dict) -> list[calls.Block]:
    """What the model should answer at the row's last turn."""
    return calls.parse(rows.prompt_completion(row)[-1]["completion"][0]["content"]).blocks


def asked(row: dict, answer: list[calls.Block] | str) -> list[dict]:
    """The pairs that come of one row when the model gives `answer`."""
    text = answer if isinstance(answer, str) else calls.render(answer, "hermes")

    class Endpoint:
        def ask(self, messages, **_):
            assert messages == rows.prompt_completion(row, knowable=True)[-1]["prompt"]
            return Answer(text, None, "stop", 0.1, 1, 1, {})

    return list(pairs([row], Endpoint(), EvaluateSettings(slots=1)))


def changed(row: dict, name: str = "", **arguments) -> list[calls.Block]:
    """The right answer with another tool or other arguments; None takes an argument out."""
    call = next(block for block in last(row) if isinstance(block, calls.Call))
    given = {key: value for key, value in (call.arguments | arguments).items() if value is not None}
    return [calls.Call(name or call.name, given)]


SINGLE = true_row("single_call", tool="vaultManager_createFolder")
CONTEXT = changed(SINGLE)[0].arguments["context"]
MISTAKES = {
    "other words in an argument": (SINGLE, changed(SINGLE, path="Elsewhere"), "wrong_argument"),
    "an argument left out": (SINGLE, changed(SINGLE, path=None), "missing_argument"),
    "an argument nobody knows": (SINGLE, changed(SINGLE, colour="red"), "unknown_argument"),
    "a tool that is not there": (SINGLE, changed(SINGLE, "vaultManager_paintNote"), "unknown_tool"),
    "another tool": (SINGLE, [calls.Call("agentManager_listAgents", {"context": CONTEXT})], "wrong_tool"),
    "words": (SINGLE, ["That is done."], "text_without_call"),
    "a question": (SINGLE, ["Which one do you mean?"], "needless_question"),
    "a call where a question is due": (true_row("ask_first"), changed(SINGLE), "call_without_asking"),
    "a call in small talk": (true_row("small_talk"), changed(SINGLE), "call_on_small_talk"),
    "a call where none can help": (true_row("unable"), changed(SINGLE), "call_when_unable"),
}  # fmt: skip


@pytest.mark.parametrize(("row", "answer", "defect"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_makes_a_pair_that_names_it(row, answer, defect):
    true, false = asked(row, answer)
    assert (true["label"], false["label"], false["meta"]["defect"]) == (True, False, defect)
    assert true["conversations"] == row["conversations"] and "defect" not in true["meta"]
    assert not rules.check_row(true) and not rules.check_row(false, true)


@pytest.mark.parametrize("behaviour", ["single_call", "several_calls", "ask_first", "unable", "small_talk"])
def test_the_right_answer_makes_none(behaviour):
    assert asked(true_row(behaviour), last(true_row(behaviour))) == []


def test_ids_and_prose_of_the_context_are_no_mistake():
    other = CONTEXT | {"sessionId": "session_1732300800000_zzzzzzzzz", "subgoal": "Do what was asked"}
    assert asked(SINGLE, changed(SINGLE, context=other)) == []


@pytest.mark.parametrize("text", ["", '<tool_call>{"name": "x"', "<tool_call>\n{'name': 'x'}\n</tool_call>"])
def test_what_cannot_be_read_makes_none(text):
    assert asked(SINGLE, text) == []


def test_only_the_last_turn_is_asked_and_what_went_before_stays():
    row = true_row("multi_step", results=True)
    pair = asked(row, changed(SINGLE))
    before = row["conversations"][-1]["content"].rpartition("Result:")[0]
    assert pair and all(each["conversations"][-1]["content"].startswith(before) for each in pair)


def test_the_command_writes_pairs_that_validate(httpserver, tmp_path, capsys):
    reply = {"choices": [{"message": {"content": "Shall I go on?"}, "finish_reason": "stop"}]}
    httpserver.expect_request("/v1/chat/completions").respond_with_json(reply)
    target, out = f"http://127.0.0.1:{httpserver.port}#one", tmp_path / "own.jsonl"
    assert main(["mistakes", target, str(KTO), "--rows", "12", "--first", "3", "-o", str(out)]) == 0
    written = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    source = [row for _, row in islice(rows.read(KTO), 40) if row["label"] is True][3:15]
    calling = [row for row in source if any(isinstance(block, calls.Call) for block in last(row))]
    assert [row["conversations"] for row in written[::2]] == [row["conversations"] for row in calling]
    assert not list(rules.validate([out]))
    assert f"one got {len(calling)} of 12 wrong: needless_question {len(calling)}" in capsys.readouterr().out
