"""Judging replies strictly, executing their calls, and naming what went wrong."""

import json
import re
from dataclasses import asdict

import pytest
from scripted import ASK, NATIVE, PROMPT, QUIET, TASK, Script, answer, single
from written_call import ARGUMENTS, CONTEXT, RIGHT, TOOL, call

from toolset_nb import tasks
from toolset_nb.calls import Call, render
from toolset_nb.evaluation import attempt, judge
from toolset_nb.evaluation.verdicts import FAILURES, literal, said
from toolset_nb.settings import EvaluateSettings
from toolset_nb.vault.snapshots import Snapshot

# reply -> (outcome, the measures that hold, a word of the first issue)
ALL = "well_formed known_tool schema context right_tool arguments passed"
JUDGED = {
    "right call": (answer(RIGHT), "call", ALL, ""),
    "right call with prose": (answer("Here you go.\n" + RIGHT), "text_call", ALL, ""),
    "right call in the text form": (
        answer(f"tool_call: {TOOL}\narguments: {json.dumps(ARGUMENTS)}"),
        "call",
        ALL,
        "",
    ),
    "right call by tool_calls": (answer(None, tool_calls=NATIVE), "call", ALL, ""),
    "another value": (answer(call(path="Books")), "call", ALL.replace(" arguments", ""), ""),
    "wrong tool": (
        answer(call("vaultManager_listDirectory", path="Scores")),
        "call",
        "well_formed known_tool schema context",
        f"called vaultManager_listDirectory, expected {TOOL}",
    ),
    "unknown tool": (answer(call("vaultManager_makeFolder")), "call", "well_formed context", "name: found"),
    "bad argument": (
        answer(call(path=7)),
        "call",
        "well_formed known_tool context right_tool",
        "arguments.path: found 7",
    ),
    "unknown argument": (
        answer(call(path="Scores", contextDepth="minimal")),
        "call",
        "well_formed known_tool context right_tool arguments",
        "arguments.contextDepth",
    ),
    "bad ids": (
        answer(call(context=CONTEXT | {"sessionId": "session_1"})),
        "call",
        "well_formed known_tool schema right_tool arguments",
        "arguments.context.sessionId",
    ),
    "missing context field": (
        answer(call(context={key: CONTEXT[key] for key in CONTEXT if key != "subgoal"})),
        "call",
        "well_formed known_tool schema right_tool arguments",
        "subgoal",
    ),
    "no context": (
        answer(render([Call(TOOL, {"path": "Scores"})])),
        "call",
        "well_formed known_tool schema right_tool arguments",
        "context",
    ),
    "empty sessionMemory": (
        answer(call(context=CONTEXT | {"sessionMemory": ""})),
        "call",
        "well_formed known_tool schema right_tool arguments",
        "arguments.context.sessionMemory",
    ),
    "blank sessionMemory": (
        answer(call(context=CONTEXT | {"sessionMemory": " "})),
        "call",
        "well_formed known_tool schema right_tool arguments",
        "arguments.context.sessionMemory",
    ),
    "77 fenced JSON": (
        answer(f'```json\n{{"name": "{TOOL}", "arguments": {json.dumps(ARGUMENTS)}}}\n```'),
        "malformed",
        "",
        "the call is readable only leniently",
    ),
    "79 truncated": (answer(RIGHT[:-40], "length"), "truncated", "", "<tool_call>"),
    "75 empty": (answer(""), "empty", "", f"no call, expected {TOOL}"),
    "75 null": (answer(None), "empty", "", f"no call, expected {TOOL}"),
    "prose in place of a call": (answer("Shall I?"), "text", "", f"no call, expected {TOOL}"),
    "fault that the server reports": (
        answer(None, "error", "does not match the expected"),
        "malformed",
        "",
        "does not match",
    ),
}


@pytest.mark.parametrize(("reply", "outcome", "measures", "issue"), JUDGED.values(), ids=JUDGED)
def test_a_reply_where_a_call_is_expected(reply, outcome, measures, issue):
    record = judge(PROMPT, single(reply))
    assert record.outcome == outcome
    assert [name for name, holds in record.measures.items() if holds] == measures.split()
    assert record.passed == record.measures["passed"]
    assert record.error is None  # a model's fault is judged, not counted as a request error
    issues = record.validator["issues"]
    assert bool(issues) != record.passed
    assert not issue or any(issue in found["message"] for found in issues), issues


@pytest.mark.parametrize(
    ("reply", "passed", "issue"),
    [
        (answer("You are welcome."), True, ""),
        (answer("I cannot send mail from the vault."), True, ""),
        (answer(RIGHT), False, f"called {TOOL}, expected no call"),
        (answer("Gladly.\n" + RIGHT), False, f"called {TOOL}, expected no call"),
        (answer(RIGHT[:-40]), False, "<tool_call>"),
        (answer(""), False, "empty"),
        (answer(None, "error", "does not match the expected"), False, "does not match"),
    ],
    ids=["thanks", "refusal", "call", "text and call", "broken call", "empty", "fault"],
)
def test_a_reply_where_no_call_is_right(reply, passed, issue):
    record = judge(QUIET, single(reply))
    assert record.passed is passed
    assert not issue or any(issue in found["message"] for found in record.validator["issues"])


def test_several_tools_are_all_expected():
    both = {**PROMPT, "expected_tools": [TOOL, "vaultManager_listDirectory"], "expected_arguments": {}}
    second = call("vaultManager_listDirectory", path="Scores")
    assert judge(both, single(answer(f"{RIGHT}\n{second}"))).passed
    assert not judge(both, single(answer(RIGHT))).passed


@pytest.mark.parametrize(
    ("reply", "passed", "failure"),
    [
        (f"{RIGHT}\n{RIGHT}", False, "wrong_sibling"),
        (f"{RIGHT}\n{call(path='Books')}\n{call(path='X')}", False, "wrong_sibling"),
        (f'{RIGHT}\nResult: {{"success": true}}\nDone, I made it.', False, "invented_result"),
        (f"{RIGHT}\nResult: it worked", False, "invented_result"),
        (f"{RIGHT}\nThat makes the folder.", True, ""),
    ],
    ids=["twice", "three", "invented result", "invented line", "words after"],
)
def test_one_reply_makes_the_calls_as_often_as_expected_and_no_results(reply, passed, failure):
    prompt = {key: value for key, value in PROMPT.items() if key != "expected_arguments"}
    record = judge(prompt, single(answer(reply)))
    assert record.passed is passed and record.failures == ([failure] if failure else [])


def test_a_record_has_the_predecessors_fields():
    record = asdict(judge(PROMPT, single(answer(call("vaultManager_makeFolder")))))
    keys = "case_id question tags expected_tools response_text latency_s passed error validator raw_response"
    assert record.keys() >= set(keys.split())
    assert (record["case_id"], record["latency_s"], record["raw_response"]) == ("full-01", 0.25, {"id": "x"})
    assert record["validator"].keys() >= {"passed", "issues", "tool_calls"}
    assert record["validator"]["issues"][0].keys() == {"level", "message"}
    assert record["validator"]["tool_calls"][0]["name"] == "vaultManager_makeFolder"


def test_the_message_of_a_native_call_counts_like_a_written_one():
    native, written = judge(PROMPT, single(answer(None, tool_calls=NATIVE))), judge(PROMPT, single(answer(RIGHT)))
    assert native.measures == written.measures


# allowed values, what a call gave -> whether it is right
LITERAL = [
    ({"path": ["A/B.md"]}, {"path": "A/B.md"}, True),
    ({"path": ["A/B.md"]}, {"path": "/A/B"}, True),  # it leads to the same note
    ({"path": ["A/B.md"]}, {"path": "a/b.md"}, False),
    ({"path": ["A/B.md"]}, {"path": "AB.md"}, False),
    ({"filePath": ["A.md"]}, {"filePath": "../A.md"}, False),
    ({"sessionId": ["s_1a"]}, {"sessionId": "s_1A"}, False),
    ({"content": ["Buy  milk"]}, {"content": "buy milk"}, True),
    ({"content": ["Buy milk"]}, {"content": "Buy milk!"}, False),
    ({"limit": [5, ""]}, {}, True),
    ({"limit": [5]}, {}, False),
    ({"limit": [5]}, {"limit": 5.0}, True),
    ({"limit": [1]}, {"limit": True}, False),
    ({"paths": [["A", "B"]]}, {"paths": ["B", "A"]}, True),
    ({"name": ["x", "y"]}, {"name": "y", "other": 1}, True),
]


@pytest.mark.parametrize(("allowed", "given", "right"), LITERAL)
def test_named_arguments(allowed, given, right):
    assert literal(allowed, given) is right


FOUND = {"success": True, "results": [{}, {}, {}], "totalResults": 4}
LISTED = {"success": True, "data": {"workspaces": [{}, {}, {}]}}
PART = {"success": True, "data": {"content": "one\ntwo", "startLine": 1, "endLine": 2}}
# tool, wanted arguments, given ones, the result -> whether the given ones show what is wanted
AGREE = [
    ("vaultLibrarian_searchContent", {"query": "x"}, {"query": "X"}, None, True),
    ("vaultLibrarian_searchContent", {"query": "x"}, {"query": "x", "paths": ["Nowhere"]}, None, False),
    ("vaultLibrarian_searchContent", {"query": "x"}, {"query": "x", "paths": ["Old songs"]}, None, True),  # named
    ("vaultLibrarian_searchContent", {"query": "x"}, {"query": "x", "paths": ["/"]}, None, True),
    ("vaultLibrarian_searchContent", {"query": "x"}, {"query": "x", "paths": []}, None, True),
    ("vaultLibrarian_searchContent", {"query": "x"}, {"query": "x", "snippetLength": 50}, None, True),
    ("vaultLibrarian_searchContent", {"query": "x"}, {"query": "x", "includeContent": False}, None, False),
    ("vaultLibrarian_searchContent", {"query": "x", "includeContent": True}, {"query": "x"}, None, True),
    ("vaultLibrarian_searchContent", {"query": "x"}, {"query": "x", "limit": 20}, None, True),
    ("vaultLibrarian_searchContent", {"query": "x"}, {"query": "x", "limit": 5}, None, False),
    ("vaultLibrarian_searchContent", {"query": "x"}, {"query": "x", "limit": 5}, FOUND, True),
    ("vaultLibrarian_searchContent", {"query": "x"}, {"query": "x", "limit": 3}, FOUND, False),
    ("memoryManager_listWorkspaces", {}, {"limit": 4}, LISTED, True),
    ("memoryManager_listWorkspaces", {}, {"limit": 3}, LISTED, False),
    ("vaultLibrarian_searchContent", {"query": "x", "limit": 3}, {"query": "x", "limit": 5}, FOUND, False),
    ("vaultLibrarian_searchDirectory", {"query": "x"}, {"query": "x", "searchType": "files"}, None, True),  # named
    ("vaultLibrarian_searchDirectory", {"query": "x"}, {"query": "x", "searchType": "folders"}, None, False),
    ("vaultLibrarian_searchDirectory", {"query": "x"}, {"query": "x", "pattern": "files"}, None, False),
    ("vaultLibrarian_searchDirectory", {"query": "x"}, {"query": "x", "depth": 10}, None, True),
    ("vaultLibrarian_searchDirectory", {"query": "x"}, {"query": "x", "depth": 1}, None, False),
    ("vaultManager_listDirectory", {"path": "A"}, {"path": "/A/", "depth": 2, "filesOnly": False}, None, True),
    ("vaultManager_listDirectory", {"path": "A"}, {"path": "A", "filesOnly": True}, None, False),
    ("vaultManager_listDirectory", {"path": "A"}, {"path": "A", "filter": "zzz"}, None, False),
    ("contentManager_readContent", {"filePath": "A.md"}, {"filePath": "A", "includeLineNumbers": True}, None, True),
    ("contentManager_readContent", {"filePath": "A.md"}, {"filePath": "A", "offset": 1, "limit": 99}, PART, True),
    ("contentManager_readContent", {"filePath": "A.md"}, {"filePath": "A", "offset": 1, "limit": 2}, PART, False),
    ("contentManager_readContent", {"filePath": "A.md"}, {"filePath": "A", "offset": 2, "limit": 99}, PART, False),
    ("memoryManager_listSessions", {}, {"order": "asc"}, None, True),
    ("memoryManager_listSessions", {"limit": 3}, {"limit": 3, "order": "asc"}, None, False),
    ("memoryManager_listSessions", {"limit": 3}, {"limit": 3, "order": "desc"}, None, True),
    ("memoryManager_listWorkspaces", {"sortBy": "name"}, {"sortBy": "name", "order": "asc"}, None, True),
    ("memoryManager_listWorkspaces", {"sortBy": "name"}, {"sortBy": "name", "order": "desc"}, None, False),
    ("agentManager_listAgents", {}, {"enabledOnly": True}, None, False),
    ("no such tool", {"path": "A"}, {"path": "A", "more": 1}, None, False),
]


@pytest.mark.parametrize(("tool", "wanted", "given", "result", "right"), AGREE)
def test_an_argument_that_nobody_asked_for_hides_nothing(tool, wanted, given, result, right):
    assert tasks.agree(tool, wanted, {**given, "context": CONTEXT}, result, "Find the files in Old songs") is right


NOTE = "---\ntags: [a, b]\nrank: 2\n---\n# Songs\n- one\n- two"
# a note's text, what it should be, what it was -> whether it will do
READS = [
    (NOTE, NOTE.replace("# Songs\n- one", "#  SONGS\n\n- ONE"), "", True),
    ("---\nrank: 2\ntags:\n- a\n- b\n---\n# Songs\n\n- one\n- two\n", NOTE, "", True),
    (NOTE.replace("rank: 2", "rank: 3"), NOTE, "", False),
    (NOTE.replace("\n", ""), NOTE, "", False),
    (NOTE.replace("\n- two", " - two"), NOTE, "", False),
    (NOTE.replace("- one\n- two", "- two\n- one"), NOTE, "", False),
    (NOTE + "- three", NOTE + "\n- three", NOTE, True),  # where it meets the last line
    (NOTE + "\n- three", NOTE + "- three", NOTE, True),
    (NOTE + "\n- three- four", NOTE + "\n- three\n- four", NOTE, False),
    ("Read this first. # Songs\n- one", "Read this first.\n\n# Songs\n- one", "# Songs\n- one", True),
    ("Draft" + NOTE, "Draft\n" + NOTE, NOTE, True),  # before front matter
    ("Songs", "Sung", "", False),
]


@pytest.mark.parametrize(("text", "wanted", "old", "right"), READS)
def test_a_note_reads_as_it_should_line_by_line(text, wanted, old, right):
    def snapshot(content):
        return Snapshot({"A.md": content.encode()}, frozenset(), {"ui": {}})

    outcome = tasks.Outcome([Call(TOOL, {})], [{"success": True}], "", snapshot(old), snapshot(text))
    found = tasks.faults({"must_change": {"A.md": {"text": wanted}}}, outcome)
    assert found == ([] if right else ["A.md does not read as it should"])


STATE = {
    "conversationContext": "The office  opens at ten.",
    "activeFiles": ["Today", "Deadlines.md"],
    "nextSteps": ["Call"],
}
# what a call saves otherwise than it was dictated -> whether it will do
SAVED = [
    ({}, True),
    ({"conversationContext": "the office opens at ten"}, True),
    ({"activeFiles": ["Deadlines.md", "Today.md"]}, True),
    ({"activeFiles": ["zzz.md"]}, False),
    ({"nextSteps": ["zzz"]}, False),
    ({"nextSteps": ["Call", "Wait"]}, False),
    ({"reasoning": "zzz"}, False),
    ({"tags": ["office"]}, True),
]


@pytest.mark.parametrize(("other", "right"), SAVED)
def test_a_saved_state_holds_what_was_dictated(other, right, vaults):
    told = {**STATE, "name": "Office", "activeTask": "Permits", "reasoning": "It opens late"}

    def made(given):
        call = Call("memoryManager_createState", {"context": CONTEXT, **given})
        return tasks.perform(vaults.copy("law"), [call])

    gold = made(told)
    said = tasks.plain("Office. Permits. It opens late. The office opens at ten. Today, Deadlines.md. Call")
    wanted = tasks.expectations(gold.before, gold.after, said)
    fields = wanted["state/states/Office"]["fields"]
    assert fields["context"].keys() == {"conversationContext", "activeTask", "activeFiles", "nextSteps", "reasoning"}
    wanted = {"state/states/Office": {"fields": fields}}
    found = tasks.faults({"must_change": wanted, "may_change": ["state/sessions/*"]}, made(told | other))
    assert (found == []) is right, found


def test_a_folder_may_be_renamed_with_its_links(vaults):
    (task,) = (task for task in tasks.load() if task["id"] == "task-270")
    given = task["gold"][0]["arguments"]
    for tool in ("editFolder", "moveFolder"):
        assert judged(task, [call(f"vaultManager_{tool}", **given), "Done."], vaults).passed, tool


# words alone, and what they do
SAID = {
    "Which of the two notes do you mean?": "ask",
    "There are two. Which one? Tell me the folder, too.": "ask",
    "I cannot send mail from here.": "refuse",
    "I can’t reach your calendar. Shall I note the date in the vault?": "ask",
    "That is beyond what I can do here.": "refuse",
    "No tengo acceso a Notion. Puedo mostrarte el texto.": "refuse",
    "Please tell me the new name.": "ask",
    "Sure. Please name the folder it belongs in.": "ask",
    "Let me know which one you mean.": "ask",
    "Let me know if you need anything else.": "talk",
    "Give me a moment, I am thinking.": "talk",
    "I did what you tell me.": "talk",
    "You are welcome.": "talk",
    "I cannot send mail from here. Is there anything else I can help with?": "refuse",
    "It is done. Can I help you with anything else?": "talk",
    "Hello! How can I help you today?": "talk",
    "Should the note hold anything else, or is that all?": "ask",
}


@pytest.mark.parametrize(("words", "action"), SAID.items())
def test_words_ask_refuse_or_talk(words, action):
    assert said(words) == action


def judged(prompt: dict, replies, vaults, **settings):
    """The record of an attempt at which a scripted model gives these replies in turn."""
    turn = iter(replies)
    script = Script(lambda chat: next(turn))
    return judge(prompt, attempt(script, prompt, EvaluateSettings(**settings), vaults))


READ = call("contentManager_readContent", filePath="No/such note.md")
BOOKS = call(path="Books")
# what a model does with TASK in several turns -> (passed, stop, failures)
TASKS = {
    "right": ([RIGHT, "Done."], True, "words", []),
    "right, with a look first": ([call("vaultManager_listDirectory", path="/"), RIGHT, "Done."], True, "words", []),
    "another folder": (
        [BOOKS, "Done."],
        False,
        "words",
        ["collateral_change"],
    ),
    "both": ([RIGHT, BOOKS, "Done."], False, "words", ["collateral_change"]),
    "words": (["Which one?"], False, "words", ["asked_needlessly"]),
    "promise": (["It is done."], False, "words", ["no_call"]),
    "wrong tool": (
        [call("vaultManager_listDirectory", path="/"), "Done."],
        False,
        "words",
        ["wrong_sibling", "wrong_state"],
    ),
    "unknown tool": ([call("vaultManager_makeFolder"), "Done."], False, "words", ["hallucinated_tool"]),
    "a path that is not there": ([READ, "Done."], False, "words", ["wrong_sibling", "invented_path", "wrong_state"]),
    "recovered": ([READ, RIGHT, "Done."], True, "words", []),
    "again": ([RIGHT, RIGHT], False, "loop", ["loop"]),
    "context repaired": ([call(context={**CONTEXT, "subgoal": 5}), RIGHT, "Done."], True, "words", []),
    "context not repaired": ([call(context={**CONTEXT, "subgoal": 5})] * 2, False, "loop", ["loop"]),
    "broken": ([RIGHT[:-40]], False, "malformed", ["malformed"]),
    "fenced": ([f"```json\n{RIGHT[12:-13]}\n```"], False, "malformed", ["malformed"]),
    "no end": (
        [call("vaultManager_listDirectory", path="/", depth=n) for n in (1, 2, 3)],
        False,
        "max_turns",
        ["wrong_sibling", "max_turns"],
    ),
    "bad ids": ([call(context=CONTEXT | {"sessionId": "x"}), "Done."], False, "words", ["bad_context"]),
    "missing argument": ([call("vaultManager_createFolder", more=1), "Done."], False, "words", ["missing_arg"]),
}


@pytest.mark.parametrize(("replies", "passed", "stop", "failures"), TASKS.values(), ids=TASKS)
def test_a_task_in_several_turns(replies, passed, stop, failures, vaults):
    record = judged(TASK, replies, vaults, max_turns=3)
    assert (record.passed, record.stop) == (passed, stop), record
    assert set(failures) <= set(record.failures) and bool(record.failures) != passed, record.failures
    assert set(record.failures) <= FAILURES.keys()
    assert record.turns == len(replies) and record.latency_s == 0.25 * len(replies)


def test_recovery_is_told_where_a_call_was_refused(vaults):
    assert judged(TASK, [READ, RIGHT, "Done."], vaults).recovered is True
    assert judged(TASK, [READ, "Done."], vaults).recovered is False
    assert judged(TASK, [RIGHT, "Done."], vaults).recovered is None


def test_what_changed_in_the_vault_is_kept(vaults):
    assert judged(TASK, [RIGHT], vaults, max_turns=1).changes == "+ Scores/"
    assert judged(TASK, ["Which?"], vaults, max_turns=1).changes == ""


@pytest.mark.parametrize(
    ("reply", "passed", "action", "failure"),
    [
        ("Do you want me to delete it?", True, "ask", ""),
        ("It is gone.", False, "talk", "should_ask"),
        (RIGHT, False, "call", "should_ask"),
        ("All is fine. Anything else?", False, "talk", "should_ask"),
        (RIGHT[:-40], False, "malformed", "malformed"),
        (call("vaultManager_listDirectory", path="/"), False, "talk", "should_ask"),
        ("", False, "malformed", "malformed"),
    ],
)
def test_where_a_question_is_due(reply, passed, action, failure, vaults):
    record = judged(ASK, [reply, "Done."], vaults)
    assert (record.passed, record.action, record.expected) == (passed, action, "ask")
    assert record.measures["action"] is passed
    assert record.failures[:1] == ([failure] if failure else [])


def test_looking_before_a_question_is_no_act(vaults):
    look = call("vaultManager_listDirectory", path="/")
    asked = judged(ASK, [look, "Do you want me to delete it?"], vaults)
    assert (asked.passed, asked.action, asked.measures["state"]) == (True, "ask", True)
    assert not judged(ASK, [RIGHT, "Do you want me to delete it?"], vaults).passed
    assert not judged(ASK | {"expected": "talk"}, [look, "Hello?"], vaults).passed


@pytest.mark.parametrize(
    ("reply", "passed"),
    [
        ("I cannot send mail.", True), ("Das kann ich nicht.", True), ("I can’t. Shall I write a note?", True),
        ("Done, I sent the mail.", False), ("Which mail?", False),
    ],
)  # fmt: skip
def test_where_a_refusal_is_due_it_has_to_be_said(reply, passed, vaults):
    assert judged(ASK | {"expected": "refuse"}, [reply], vaults).passed is passed


@pytest.mark.parametrize("paths", [["../x"], [5], ["Books", None], "Books"])
def test_a_list_of_paths_that_holds_anything_is_judged(paths):
    assert not tasks.same("paths", ["Books"], paths)


def test_a_pattern_that_must_not_change_wins_over_one_that_may(vaults):
    task = TASK | {"may_change": ["*"]}
    assert judged(task, [RIGHT, BOOKS, "Done."], vaults).passed
    assert not judged(task | {"must_not_change": ["Books/*", "Books/"]}, [RIGHT, BOOKS, "Done."], vaults).passed


def test_the_same_call_with_another_context_is_a_loop(vaults):
    look = [
        call("vaultManager_listDirectory", context=CONTEXT | {"sessionMemory": words}, path="/")
        for words in ("One", "Two")
    ]
    assert judged(TASK, look, vaults).stop == "loop"


def test_ids_of_the_system_message_have_to_be_copied():
    def asked(session: str):
        prompt = {"id": "p", "question": "?", "tags": [], "expected_tools": [TOOL]}
        settings = EvaluateSettings(context_source="system")
        script = Script(lambda chat: call(context=CONTEXT | {"sessionId": session or ID.search(chat[0]["content"])[1]}))
        return judge(prompt, attempt(script, prompt, settings, None))

    ID = re.compile("sessionId: (.+)")
    assert asked("").measures["context"] is False  # the workspace is another one
    foreign = asked("session_1732300800000_zzzzzzzzz")
    assert "bad_context" in foreign.failures and any("sessionId" in i["message"] for i in foreign.validator["issues"])


def test_named_arguments_are_a_measure_only_where_they_are_named(vaults):
    assert "arguments" not in judged(TASK, [RIGHT, "Done."], vaults).measures


def test_a_malformed_reply_is_never_an_abstention():
    for reply in (answer(RIGHT[:-40]), answer(""), answer(RIGHT, "length"), answer(None, "error", "bad format")):
        record = judge(QUIET, single(reply))
        assert record.action == "malformed" and not record.passed and not record.measures["well_formed"]


def test_a_single_reply_is_judged_by_the_vault(vaults):
    replies = [RIGHT, call(path="Books"), "Which one?"]
    right, wrong, silent = (judged(TASK, [reply], vaults, max_turns=1) for reply in replies)
    assert right.passed and right.measures["state"] and right.stop == "single"
    assert wrong.measures["right_tool"] and not wrong.measures["state"] and not wrong.passed
    assert any("Scores" in issue["message"] for issue in wrong.validator["issues"])
    assert [r.measures["action"] for r in (right, wrong, silent)] == [True, True, False]


def test_notes_by_name_may_be_searched_by_either_search(vaults):
    (task,) = (task for task in tasks.load() if task["id"] == "task-247")
    query = task["gold"][0]["arguments"]["query"]

    def passed(tool, **given):
        record = judged(task, [call(f"vaultLibrarian_{tool}", query=query, **given), "Here they are."], vaults)
        return record.measures["right_tool"], record.passed

    assert passed("searchContent", includeContent=False) == passed("searchDirectory", paths=["/"]) == (True, True)
    assert passed("searchDirectory", paths=["Banco"]) == (True, False)  # only a part of the vault
    assert passed("searchMemory", workspaceId="default") == (False, False)


@pytest.mark.parametrize(
    ("expected", "reply", "passed"),
    [
        ("ask", "Which one do you mean?", True),
        ("ask", "Done, I deleted it.", False),
        ("refuse", "I cannot send mail from the vault.", True),
        ("refuse", "I cannot send mail from the vault. Shall I write a note?", True),  # as with a vault
        ("refuse", "I cannot send mail from the vault. Is there anything else I can help with?", True),
        ("refuse", "It is on its way.", False),
        ("ask", "All is fine. Anything else?", False),
        ("talk", "It is on its way.", True),
    ],
)
def test_without_a_vault_the_words_that_are_due_have_to_come(expected, reply, passed):
    record = judge({**QUIET, "expected": expected}, single(answer(reply)))
    assert record.passed is passed and (record.measures.get("action", True) is passed)


def test_a_call_that_was_made_out_leniently_is_shown_as_it_was_written(vaults):
    fenced = f"```json\n{RIGHT.removeprefix('<tool_call>').removesuffix('</tool_call>').strip()}\n```"
    record = judged(TASK, [fenced], vaults, max_turns=1)
    (shown,) = [message for message in record.transcript if message["role"] == "assistant"]
    assert record.validator["rescued"] and shown["written"] == fenced != shown["content"]
    plain = judged(TASK, [RIGHT, "Done."], vaults)
    assert not any("written" in message for message in plain.transcript)
