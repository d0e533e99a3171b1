"""Judging replies strictly, counting what was not judged apart, and reports with the same fields as ever."""

import csv
import json
from dataclasses import asdict

import pytest

from toolset_nb import evaluation, tasks
from toolset_nb.calls import Call, render
from toolset_nb.evaluation import EvaluationError, evaluate, exit_code, judge, load_prompts, report, save, summarise
from toolset_nb.servers import Answer, RequestFailed
from toolset_nb.settings import EvaluateSettings

CONTEXT = {
    "sessionId": "session_1732300800000_a1b2c3d4e",
    "workspaceId": "default",
    "sessionDescription": "Sorting the score library",
    "sessionMemory": "Two shelves are done.",
    "toolContext": "The user asked for it.",
    "primaryGoal": "A tidy library",
    "subgoal": "One folder more",
}
TOOL = "vaultManager_createFolder"
PROMPT = {
    "id": "full-01",
    "question": "Make the folder Scores",
    "tags": ["vaultManager", "single"],
    "expected_tools": [TOOL],
    "expected_arguments": {"path": ["Scores", "Scores/"]},
}
QUIET = {"id": "talk-01", "question": "Thank you!", "tags": ["talk"], "expected_tools": []}
SETTINGS = EvaluateSettings(slots=2)


def call(name: str = TOOL, context: dict | None = None, **arguments) -> str:
    return render(
        [Call(name, {"context": CONTEXT if context is None else context, **(arguments or {"path": "Scores"})})]
    )


def changed(**fields) -> dict:
    return {key: value for key, value in {**CONTEXT, **fields}.items() if value is not None}


def answer(text: str | None, finish: str = "stop", error: str = "", tool_calls: list | None = None) -> Answer:
    return Answer(text, tool_calls, finish, 0.25, 9, 7, {"id": "x"}, error)


RIGHT = call()
NATIVE = [{"function": {"name": TOOL, "arguments": json.dumps({"context": CONTEXT, "path": "Scores"})}}]
# reply -> (outcome, the measures that hold, a word of the first issue)
ALL = "well_formed known_tool schema context right_tool arguments passed"
JUDGED = {
    "right call": (answer(RIGHT), "call", ALL, ""),
    "right call with prose": (answer("Here you go.\n" + RIGHT), "text_call", ALL, ""),
    "right call in the text form": (
        answer(f"tool_call: {TOOL}\narguments: {json.dumps({'context': CONTEXT, 'path': 'Scores'})}"),
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
        answer(call(context=changed(sessionId="session_1"))),
        "call",
        "well_formed known_tool schema right_tool arguments",
        "arguments.context.sessionId",
    ),
    "missing context field": (
        answer(call(context=changed(subgoal=None))),
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
        answer(call(context=changed(sessionMemory=""))),
        "call",
        "well_formed known_tool schema right_tool arguments",
        "arguments.context.sessionMemory",
    ),
    "blank sessionMemory": (
        answer(call(context=changed(sessionMemory=" "))),
        "call",
        "well_formed known_tool schema right_tool arguments",
        "arguments.context.sessionMemory",
    ),
    "77 fenced JSON": (
        answer(
            f'```json\n{{"name": "{TOOL}", "arguments": {json.dumps({"context": CONTEXT, "path": "Scores"})}}}\n```'
        ),
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
    record = judge(PROMPT, reply)
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
    record = judge(QUIET, reply)
    assert record.passed is passed
    assert not issue or any(issue in found["message"] for found in record.validator["issues"])


def test_several_tools_are_all_expected():
    both = {**PROMPT, "expected_tools": [TOOL, "vaultManager_listDirectory"], "expected_arguments": {}}
    second = call("vaultManager_listDirectory", path="Scores")
    assert judge(both, answer(f"{RIGHT}\n{second}")).passed
    assert not judge(both, answer(RIGHT)).passed


def test_a_record_has_the_predecessors_fields():
    record = asdict(judge(PROMPT, answer(call("vaultManager_makeFolder"))))
    keys = "case_id question tags expected_tools response_text latency_s passed error validator raw_response"
    assert record.keys() >= set(keys.split())
    assert (record["case_id"], record["latency_s"], record["raw_response"]) == ("full-01", 0.25, {"id": "x"})
    assert record["validator"].keys() >= {"passed", "issues", "tool_calls"}
    assert record["validator"]["issues"][0].keys() == {"level", "message"}
    assert record["validator"]["tool_calls"][0]["name"] == "vaultManager_makeFolder"


class Script:
    """An endpoint that answers from a table: question -> Answer, or an error to raise. No HTTP here, see test_servers."""

    url = "http://127.0.0.1:1"

    def __init__(self, replies: dict):
        self.replies, self.asked = replies, []

    def ask(self, messages, **sampling):
        self.asked.append((messages, sampling))
        reply = self.replies[messages[-1]["content"]]
        if isinstance(reply, Exception):
            raise reply
        return reply


def prompts(count: int) -> list[dict]:
    return [{**PROMPT, "id": f"full-{n}", "question": f"q{n}"} for n in range(count)]


@pytest.fixture
def records():
    """Two passed, one failed, one request error, in the set's order."""
    replies = {"q0": answer(RIGHT), "q1": RequestFailed("refused"), "q2": answer("Shall I?"), "q3": answer(RIGHT)}
    return evaluate(Script(replies), prompts(4), SETTINGS)


def test_records_keep_the_sets_order_and_the_sampling_reaches_the_server():
    endpoint, seen = Script({f"q{n}": answer(RIGHT) for n in range(9)}), []
    settings = EvaluateSettings(slots=3, max_tokens=50, seed=7)
    records = evaluate(endpoint, prompts(9), settings, lambda done, of: seen.append((done, of)))
    assert [record.case_id for record in records] == [f"full-{n}" for n in range(9)]
    assert endpoint.asked[0][1] == {"temperature": 0.0, "top_p": 1.0, "max_tokens": 50, "seed": 7}
    assert (9, 9) in seen and len(seen) == 9


def test_a_request_error_is_counted_apart_and_never_dropped(records):
    summary = summarise(records)
    assert (summary["total"], summary["passed"], summary["failed"], summary["request_errors"]) == (4, 2, 1, 1)
    assert summary["pass_rate"] == round(2 / 3, 4)
    assert summary["measures"]["passed"]["total"] == 3
    assert summary["outcomes"] == {"call": 2, "infra": 1, "text": 1}
    assert (records[1].outcome, records[1].error, records[1].passed) == ("infra", "refused", False)


def test_the_summary_has_the_predecessors_fields(records):
    summary = summarise(records)
    keys = {"total", "passed", "failed", "request_errors", "pass_rate", "by_tag", "top_failure_reasons"}
    assert summary.keys() >= keys
    assert summary["by_tag"]["single"] == {"total": 3, "passed": 2, "pass_rate": 0.6667}
    assert summary["top_failure_reasons"] == [[f"no call, expected {TOOL}", 1]]


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    [(8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (0, 0, 0.0, 1.0)],
)
def test_intervals_are_wilsons(count, total, low, high):
    # by hand: (p + z²/2n ± z·sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n), z = 1.95996
    rate = evaluation._rate(count, total)
    assert (rate["low"], rate["high"]) == (low, high)


def test_only_request_errors_still_make_a_summary():
    summary = summarise(evaluate(Script({"q0": RequestFailed("refused")}), prompts(1), SETTINGS))
    assert (summary["total"], summary["request_errors"], summary["pass_rate"]) == (1, 1, 0.0)


@pytest.mark.parametrize(
    ("last", "code"), [([RIGHT, RIGHT], 0), ([RIGHT, "Shall I?"], 2), ([RIGHT, None], 3)], ids=["0", "2", "3"]
)
def test_the_exit_code_tells_failures_from_request_errors_on_the_last_target(last, code):
    def made(replies):
        replies = {f"q{n}": answer(text) if text else RequestFailed("x") for n, text in enumerate(replies)}
        endpoint = Script(replies)
        return report("m", evaluate(endpoint, prompts(2), SETTINGS), SETTINGS, endpoint, 1.0)

    assert exit_code([made(["Shall I?", "no"]), made(last)]) == code


def test_save_writes_json_markdown_csv_and_a_figure(records, tmp_path):
    hostile = judge({**PROMPT, "id": "full-9", "question": "a | b\nc"}, answer(call(path="\ud83d", note="|")))
    assert hostile.validator["tool_calls"][0]["arguments"]["path"] == "\ud83d"
    reports = [report(name, [*records, hostile], SETTINGS, Script({}), 2.0) for name in ("base", "lora/tiny <1>")]
    path = save(reports, tmp_path / "new" / "folder")
    folder = path.parent
    assert {file.name for file in folder.iterdir()} == {
        "report.md",
        "records.csv",
        "measures.png",
        "base.json",
        "lora-tiny--1-.json",
    }
    assert json.loads((folder / "base.json").read_text("utf-8")) == reports[0]
    assert reports[0].keys() == {"metadata", "summary", "records"}
    assert reports[0]["metadata"].keys() >= {
        "backend",
        "model",
        "host",
        "prompt_file",
        "prompt_selected",
        "generated_at",
    }
    lines = list(csv.DictReader((folder / "records.csv").open(encoding="utf-8")))
    assert len(lines) == 10 and lines[0]["passed"] == "True" and lines[1]["outcome"] == "infra"
    text = path.read_text("utf-8")
    assert "- Request errors: **1**" in text and "| a / b c |" in text
    assert (folder / "measures.png").read_bytes().startswith(b"\x89PNG")


def test_the_figure_names_its_axis_and_its_models(records):
    figure = evaluation.plot([report("base", records, SETTINGS, Script({}), 1.0)])
    (axis,) = figure.axes
    assert "%" in axis.get_ylabel() and "95%" in axis.get_ylabel()
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["base"]
    assert len(axis.get_xticklabels()) == len(evaluation.MEASURES) - 2  # no task here whose calls are executed


def test_the_table_shows_share_count_and_interval(records):
    rows = evaluation.table([report("base", records, SETTINGS, Script({}), 1.0)]).splitlines()
    assert rows[0] == "| measure | base |"
    assert "| 2/3 = 67% (21% to 94%) |" in rows[2]
    assert rows[-1] == "| request errors | 1 |"


GOOD = {key: value for key, value in PROMPT.items()}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not JSON"),
        ([], "set.json: "),
        ([{**GOOD, "tags": "single"}], "set.json: 0.tags"),
        ([GOOD, {**GOOD, "id": "full-02", "expected_tool": []}], "set.json: 1: .*expected"),
        ([{key: GOOD[key] for key in ("id", "tags", "expected_tools")}], 'set.json: 0: "question" is a required'),
        ([GOOD, GOOD], "set.json: 1.id: 'full-01' stands twice"),
    ],
)
def test_a_bad_prompt_set_is_named_with_its_field(content, words, tmp_path):
    path = tmp_path / "set.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(EvaluationError, match=words):
        load_prompts(str(path))


def test_prompts_are_chosen_by_all_their_tags_and_a_limit(tmp_path):
    path = tmp_path / "set.json"
    path.write_text(json.dumps([GOOD, {**GOOD, "id": "full-02", "tags": ["single"]}, {**GOOD, "id": "full-03"}]))
    assert [p["id"] for p in load_prompts(str(path), "single, vaultManager")] == ["full-01", "full-03"]
    assert len(load_prompts(str(path), "", 2)) == 2
    with pytest.raises(EvaluationError, match="no prompt carries the tags batch"):
        load_prompts(str(path), "batch")
    with pytest.raises(EvaluationError, match="known sets: .*full_coverage"):
        load_prompts("no_such_set")


@pytest.mark.parametrize("name", evaluation.prompt_sets())
def test_the_projects_own_sets_are_valid_and_expect_known_tools(name):
    found = load_prompts(name)
    known = evaluation.catalogue().tools
    assert {tool for prompt in found for tool in prompt["expected_tools"]} <= known.keys()
    for prompt in found:
        for tool in prompt["expected_tools"]:
            if len(prompt["expected_tools"]) == 1:
                assert prompt.get("expected_arguments", {}).keys() <= known[tool].parameters["properties"].keys()


def test_no_target_is_an_error_before_anything_is_asked():
    with pytest.raises(EvaluationError, match="targets ' , ' names none"):
        evaluation.run(EvaluateSettings(targets=" , "))


def test_the_calls_of_a_task_are_executed_and_the_vault_is_judged():
    task = {
        "id": "task-001",
        "question": "Make the folder Scores",
        "tags": ["single_call"],
        "expected_tools": [TOOL],
        "fixture": "music",
        "gold": [{"tool": TOOL, "arguments": {"path": "Scores"}}],
        "must_change": {"Scores/": {"folder": True}},
    }
    talk = {**QUIET, "fixture": "music", "expected": "ask", "gold": [], "must_change": {}}
    with tasks.Fixtures() as fixtures:
        right = judge(task, answer(RIGHT), fixtures)
        wrong = judge(task, answer(call(path="Books")), fixtures)
        asked = judge(talk, answer("Which one?"), fixtures)
        acted = judge(talk, answer(RIGHT), fixtures)
        claimed = judge(talk, answer("It is done."), fixtures)
        silent = judge(task, answer("It is done."), fixtures)
    assert [r.measures["action"] for r in (right, wrong, asked, acted, claimed, silent)] == [1, 1, 1, 0, 0, 0]
    assert right.passed and right.measures["state"]
    assert wrong.measures["right_tool"] and not wrong.measures["state"] and not wrong.passed
    assert any("Scores" in issue["message"] for issue in wrong.validator["issues"])
    assert asked.passed and not acted.passed
    assert summarise([right, wrong])["measures"]["state"]["rate"] == 0.5
