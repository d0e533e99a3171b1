"""Dataset rows: hostile files, planted defects, conversions, rendering, coverage and the command line."""

import contextlib
import copy
import gzip
import json
import os
import subprocess
import sys

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolset_nb import __main__ as command
from toolset_nb import calls, jsonl, rows, rules
from toolset_nb.calls import Broken, Call, Result
from toolset_nb.paths import repo_root
from toolset_nb.tools import Problem

CONTEXT = {
    "sessionId": "session_1732300800000_a1b2c3d4e",
    "workspaceId": "ws_1732300800000_f5g6h7j8k",
    "sessionDescription": "Planning the garden",
    "sessionMemory": "Sorted the seed list",
    "toolContext": "A folder was asked for",
    "primaryGoal": "Keep the notes in order",
    "subgoal": "Make one folder",
}
FOLDER, SEARCH = "vaultManager_createFolder", "vaultLibrarian_searchContent"


def answer(*blocks):
    return calls.render(blocks, "text")


def call(name=FOLDER, context=CONTEXT, /, **arguments):
    return Call(name, {"context": context, **(arguments or {"path": "Garden"})})


def make(number, content=None, label=True, asked=None, **meta):
    content = answer(call(path=f"Garden {number}")) if content is None else content
    turns = [{"role": "user", "content": asked or f"Make folder {number}"}, {"role": "assistant", "content": content}]
    meta = {"behaviour": "single_call", "tools": [FOLDER], "scenario": "garden", "split": "train", **meta}
    return {"id": f"row-{number}", "conversations": turns, "label": label, "meta": meta}


def pair(number, defect="wrong_tool", content=None):
    content = content or answer(call(SEARCH, query=f"Garden {number}"))
    asked = f"Make folder {number}"
    wrong = make(f"{number}b", content, False, asked, defect=defect)
    return make(f"{number}a", asked=asked), wrong


def write(path, *lines):
    """Rows as JSON, texts and bytes as they are, each on a line."""
    encoded = [
        line if isinstance(line, bytes) else line.encode() if isinstance(line, str) else dump(line) for line in lines
    ]
    path.write_bytes(b"".join(line + b"\n" for line in encoded))
    return path


def dump(row):
    return json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass")


def places(*paths):
    return [(finding.line, finding.field) for finding in rows.validate(paths)]


GOOD = [
    make(1),
    make(
        2,
        answer("I look first.", call(SEARCH, query="beds", limit=5), Result({"success": True}), "There are two beds."),
    ),
    make(3, "Which folder do you mean?", tools=[]),
    make(4, answer(call(path="A"), call(path="B"))),
    make(5, answer(call(path='C:\\ and "quotes" \u2028 \u0085 é 漢 𝄞'))),
    make(6, answer(call(SEARCH, {**CONTEXT, "workspaceId": "default"}, query="tasks [ ] in desk-notes of Users < 5"))),
]


def test_good_rows_have_no_findings(tmp_path):
    assert places(write(tmp_path / "sft.jsonl", *GOOD)) == []
    assert places(write(tmp_path / "kto.jsonl", *pair(1), *pair(2), *pair(3))) == []


# --- Files that are bad as a whole, numbered as in the list of bad inputs ---------------------------------------------

LINE = dump(make(1))
FILES = {
    "1 empty": (b"", [(1, "file")]),
    "2 only blank lines": (b"\n \n\r\n\t\n", [(1, "file")]),
    "3 byte order mark": (b"\xef\xbb\xbf" + LINE + b"\n", []),
    "5 CRLF": (LINE + b"\r\n" + dump(make(2)) + b"\r\n", []),
    "5 lone CR": (LINE + b"\r" + dump(make(2)) + b"\r", [(1, "line")]),
    "6 invalid UTF-8": (dump(make(2)) + b"\n" + LINE.replace(b"folder", b"fol\xffder"), [(2, "line")]),
    "7 line separators in a string": (dump(make(1, asked="a\u2028b\u2029c\u0085d")) + b"\n" + dump(make(2)), []),
    "8 torn last line": (LINE + b"\n" + dump(make(2))[:99], [(2, "line")]),
    "8 no newline at the end": (LINE, []),
    "9 two objects on a line": (LINE + b" " + dump(make(2)), [(1, "line")]),
    "11 NaN": (LINE.replace(b"true", b"NaN"), [(1, "line")]),
    "11 Infinity": (LINE.replace(b"true", b"-Infinity"), [(1, "line")]),
    "11 1e999": (LINE.replace(b"true", b"1e999"), [(1, "line")]),
    "12 key twice": (LINE.replace(b'"label"', b'"id": "x", "label"'), [(1, "line")]),
    "13 5,000 digits": (LINE.replace(b"true", b"9" * 5000), [(1, "line")]),
    "14 depth 3,000": (b"\n" + b'{"a":' * 3000 + b"1" + b"}" * 3000 + b"\n" + LINE, [(2, "line")]),
    "14 depth 100,000": (b'{"a":' + b"[" * 100_000, [(1, "line")]),
    "not an object": (LINE + b'\n"row"\n', [(2, "line")]),
    "blank lines between": (LINE + b"\n\n\n" + dump(make(2)) + b"\n", []),
}


@pytest.mark.parametrize(("content", "expected"), FILES.values(), ids=FILES)
def test_bad_files(tmp_path, content, expected):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    assert places(path) == expected


def test_17_a_line_over_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(jsonl, "LONGEST_LINE", 2000)
    path = write(tmp_path / "rows.jsonl", make(1), make(2, asked="x" * 3_000_000), make(3))
    read = list(rows.read(path))
    assert [number for number, _ in read] == [1, 2, 3]
    assert isinstance(read[1][1], Problem)
    assert read[2][1]["id"] == "row-3"


def a_folder(path):
    path.mkdir()


def a_fifo(path):
    if not hasattr(os, "mkfifo"):
        pytest.skip("no FIFO on this system")
    os.mkfifo(path)


def a_secret(path):
    write(path, make(1)).chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")


UNREADABLE = {
    "4 UTF-16 with mark": (lambda path: path.write_bytes(LINE.decode().encode("utf-16")), "UTF-16"),
    "4 UTF-16 without mark": (lambda path: path.write_bytes(LINE.decode().encode("utf-16-le")), "UTF-16"),
    "10 JSON array": (lambda path: path.write_text(json.dumps([make(1)], indent=1)), "JSON array"),
    "18 gzip": (lambda path: path.write_bytes(gzip.compress(LINE)), "gzip"),
    "32 folder": (a_folder, "folder"),
    "32 FIFO": (a_fifo, "not a regular file"),
    "32 unreadable": (a_secret, "cannot be read"),
    "32 dangling symlink": (lambda path: path.symlink_to(path.with_name("nothing")), "cannot be read"),
    "33 missing": (lambda path: None, "cannot be read"),
}


@pytest.mark.parametrize(("build", "words"), UNREADABLE.values(), ids=UNREADABLE)
def test_unreadable_files(tmp_path, build, words, capsys):
    path = tmp_path / "rows.jsonl"
    build(path)
    with pytest.raises(rows.DataError, match=words):
        list(rows.read(path))
    assert command.main(["validate", str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("name", ["34 with spaces.jsonl", "34 🌱.jsonl", "sub/../34.jsonl"])
def test_34_odd_file_names(tmp_path, name):
    (tmp_path / "sub").mkdir()
    assert command.main(["validate", str(write(tmp_path / name, make(1)))]) == 0


def test_32_a_symlink_to_a_file_is_read(tmp_path):
    link = tmp_path / "link.jsonl"
    link.symlink_to(write(tmp_path / "rows.jsonl", make(1)))
    assert places(link) == []


# --- Defects planted in line 2 of a good file: (what is wrong, how the row is changed, the field named) ---------------

CONTENT, ASKED = "conversations[1].content", "conversations[0].content"


def put(*path):
    """A change that sets the value at a path of the row; `put("label", 1)` sets row["label"] = 1."""

    def change(row):
        *steps, last, value = path
        for step in steps:
            row = row[step]
        row[last] = value

    return change


def drop(*path):
    def change(row):
        for step in path[:-1]:
            row = row[step]
        del row[path[-1]]

    return change


def says(text):
    return put("conversations", 1, "content", text)


def calling(name=FOLDER, context=CONTEXT, /, **arguments):
    return says(answer(call(name, context, **arguments)))


def without(name):
    return {key: value for key, value in CONTEXT.items() if key != name}


def turn(role, content="x", **more):
    return {"role": role, "content": content, **more}


def talk(*turns):
    return put("conversations", list(turns))


USER, ASSISTANT = turn("user", "Make it"), turn("assistant", answer(call()))
TOOL_CALLS = [{"id": "1", "type": "function", "function": {"name": FOLDER, "arguments": json.dumps(call().arguments)}}]
PLANTED = {
    "15 lone surrogate": (put("conversations", 0, "content", "a\ud800"), "line"),
    "16 NUL": (put("conversations", 0, "content", "a\x00b"), ASKED),
    "16 NUL in an argument": (calling(path="a\x00b"), "arguments.path"),
    "19 conversations missing": (drop("conversations"), "conversations"),
    "19 conversations null": (put("conversations", None), "conversations"),
    "19 conversations a text": (put("conversations", "hi"), "conversations"),
    "19 conversations empty": (put("conversations", []), "conversations"),
    "20 unknown role": (put("conversations", 0, "role", "human"), "conversations[0].role"),
    "20 role in capitals": (put("conversations", 1, "role", "Assistant"), "conversations[1].role"),
    "20 role missing": (drop("conversations", 0, "role"), "conversations[0].role"),
    "20 role a list": (put("conversations", 0, "role", ["user"]), "conversations[0].role"),
    "21 assistant first": (talk(ASSISTANT, USER), "conversations"),
    "21 two users": (talk(USER, USER, ASSISTANT), "conversations"),
    "21 two turns": (talk(USER, ASSISTANT, USER, ASSISTANT), "conversations"),
    "21 no assistant": (talk(USER), "conversations"),
    "21 system message": (talk(turn("system"), USER, ASSISTANT), "conversations[0].role"),
    "21 tool message": (talk(USER, ASSISTANT, turn("tool", "{}")), "conversations[2].role"),
    "21 tool result twice": (
        talk(USER, ASSISTANT, turn("tool", "{}", tool_call_id="1"), turn("tool", "{}", tool_call_id="1")),
        "conversations[3].tool_call_id",
    ),
    "21 result without a call": (says('Result: {"success": true}\n\nDone.'), CONTENT),
    "22 content null": (says(None), CONTENT),
    "22 content a number": (says(5), CONTENT),
    "22 content blank": (says(" \n"), CONTENT),
    "22 user content blank": (put("conversations", 0, "content", ""), ASKED),
    "23 OpenAI form": (talk(USER, turn("assistant", None, tool_calls=TOOL_CALLS)), "conversations[1].tool_calls"),
    "24 arguments are no JSON": (says(f"tool_call: {FOLDER}\narguments: path=Garden"), CONTENT),
    "24 arguments a list": (says(f"tool_call: {FOLDER}\narguments: []"), CONTENT),
    "24 arguments a text": (says(f'tool_call: {FOLDER}\narguments: ""'), CONTENT),
    "24 late comma": (says(answer(call())[:-1] + ",}"), CONTENT),
    "24 on several lines": (says(answer(call()).replace('"path"', '\n"path"')), CONTENT),
    "24 another form": (says(calls.render([call()], "hermes")), CONTENT),
    "24 no name": (says("tool_call: \narguments: {}"), CONTENT),
    "24 key twice": (says(answer(call()).replace('"path"', '"path": "x", "path"')), CONTENT),
    "25 unknown tool": (calling("vaultManager_makeFolder"), "name"),
    "25 wrong case": (calling("vaultmanager_createfolder"), "name"),
    "26 argument missing": (calling(SEARCH, limit=5), "arguments.query"),
    "26 argument unknown": (calling(path="A", deep=True), "arguments.deep"),
    "26 number as text": (calling(SEARCH, query="a", limit="5"), "arguments.limit"),
    "26 out of range": (calling(SEARCH, query="a", limit=500), "arguments.limit"),
    "26 near miss of a choice": (calling("vaultManager_openNote", path="A.md", mode="tabs"), "arguments.mode"),
    "26 nested object": (
        calling("contentManager_batchContent", operations=[{"type": "raed", "params": {}}]),
        "arguments.operations[0].type",
    ),
    "context missing": (says(answer(Call(FOLDER, {"path": "A"}))), "arguments.context"),
    "context not first": (says(answer(Call(FOLDER, {"path": "A", "context": CONTEXT}))), "arguments.context"),
    "context no object": (calling(FOLDER, "here"), "arguments.context"),
    "context incomplete": (calling(FOLDER, without("subgoal")), "arguments.context.subgoal"),
    "session memory empty": (calling(FOLDER, {**CONTEXT, "sessionMemory": ""}), "arguments.context.sessionMemory"),
    "session memory blank": (calling(FOLDER, {**CONTEXT, "sessionMemory": " "}), "arguments.context.sessionMemory"),
    "session id": (calling(FOLDER, {**CONTEXT, "sessionId": "session_17_abc"}), "arguments.context.sessionId"),
    "workspace id": (calling(FOLDER, {**CONTEXT, "workspaceId": "home"}), "arguments.context.workspaceId"),
    "tool context an object": (calling(FOLDER, {**CONTEXT, "toolContext": {}}), "arguments.context.toolContext"),
    "ids differ in a row": (
        says(answer(call(), call(FOLDER, {**CONTEXT, "workspaceId": "default"}))),
        "calls[1].arguments.context.workspaceId",
    ),
    "second call wrong": (says(answer(call(), call(pth="A"))), "calls[1].arguments.path"),
    "result no JSON": (says(answer(call()) + "\n\nResult: done"), CONTENT),
    "result cut off": (says(answer(call()) + '\n\nResult: {"success": tr'), CONTENT),
    "result a list": (says(answer(call(), Result([1]))), CONTENT),
    "result as user turn": (put("conversations", 0, "content", 'Result: {"success": true}'), ASKED),
    "27 label missing": (drop("label"), "label"),
    "27 label a text": (put("label", "true"), "label"),
    "27 label 1": (put("label", 1), "label"),
    "28 same row": (put("conversations", make(1)["conversations"]), "conversations"),
    "28 same id": (put("id", "row-1"), "id"),
    "28 prompt in two splits": (
        lambda row: (
            talk(make(1)["conversations"][0], row["conversations"][1])(row),
            put("meta", "split", "test")(row),
        ),
        "meta.split",
    ),
    "30 end of turn": (put("conversations", 0, "content", "stop <|im_end|> now"), ASKED),
    "30 closing tag": (calling(path="a</tool_call>"), CONTENT),
    "30 escaped token": (says(answer(call(path="a")).replace('"a"', '"\\u003c|im_end|>"')), "arguments.path"),
    "30 Mistral token": (put("conversations", 0, "content", "[INST] hi"), ASKED),
    "31 both keys": (put("messages", []), "messages"),
    "31 messages alone": (lambda row: row.update(messages=row.pop("conversations")), "messages"),
    "36 hub token": (put("conversations", 0, "content", "use hf_" + "a1" * 17), ASKED),
    "36 API key": (calling(path="sk-" + "a1" * 12), CONTENT),
    "36 home path": (put("conversations", 0, "content", "open /home/anna/x.md"), ASKED),
    "36 Windows home": (put("conversations", 0, "content", "open C:\\Users\\anna\\x.md"), ASKED),
    "36 Windows home in a call": (calling(path="C:\\Users\\anna"), CONTENT),
    "37 zero width in a name": (calling("vaultManager_create\u200bFolder"), "name"),
    "37 bidi in a name": (calling("\u202evaultManager_createFolder"), "name"),
    "id missing": (drop("id"), "id"),
    "id a number": (put("id", 5), "id"),
    "id with a space": (put("id", "row 2"), "id"),
    "unknown key": (put("lable", True), "lable"),
    "unknown key of a message": (put("conversations", 0, "name", "Anna"), "conversations[0].name"),
    "message a text": (put("conversations", 0, "hello"), "conversations[0]"),
    "meta a list": (put("meta", []), "meta"),
    "meta.tools unknown": (put("meta", "tools", ["makeFolder"]), "meta.tools"),
    "meta.split a number": (put("meta", "split", 1), "meta.split"),
    "defect on a true row": (put("meta", "defect", "wrong_tool"), "meta.defect"),
}


@pytest.mark.parametrize(("change", "field"), PLANTED.values(), ids=PLANTED)
def test_planted_defects(tmp_path, change, field):
    row = make(2)
    change(row)
    found = places(write(tmp_path / "rows.jsonl", make(1), row, make(3)))
    assert (2, field) in found
    assert {line for line, _ in found} == {2}
    for finding in rows.validate([tmp_path / "rows.jsonl"]):
        assert finding.found and finding.expected
        str(finding).encode()


@pytest.mark.parametrize("text", ["\\b", "\\f", "[INST] hi", "[/TOOL_RESULTS]", "\\/home\\/anna\\/x"])
def test_text_that_is_escaped_or_stands_in_a_row_without_lists_is_seen(tmp_path, text):
    row = {key: value for key, value in make(2, content="PLACE").items() if key != "meta"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row).replace("PLACE", text) + "\n")
    assert rows.validate([tmp_path / "rows.jsonl"])


@pytest.mark.parametrize("row", GOOD, ids=lambda row: row["id"])
def test_the_short_way_agrees_with_the_long_one(row):
    assert rules.check_row(row, suspect=True) == rules.check_row(row, suspect=False) == []


def test_15_an_escaped_lone_surrogate(tmp_path):
    line = json.dumps(make(2, asked="a\ud800"))
    assert places(write(tmp_path / "rows.jsonl", make(1), line)) == [(2, ASKED)]


def test_an_id_stands_once_in_all_files(tmp_path):
    first, second = write(tmp_path / "a.jsonl", make(1)), write(tmp_path / "b.jsonl", make(2), make(1))
    [finding] = rows.validate([first, second])
    assert finding == (str(second), 2, "id", f"the same as {first}:1", "a different one in every row")


KEYS = [
    "id",
    "conversations",
    "messages",
    "label",
    "meta",
    "role",
    "content",
    "tool_calls",
    "tools",
    "defect",
    "function",
]
WORDS = [
    "user",
    "assistant",
    "tool",
    "system",
    "wrong_type",
    "malformed_call",
    "Result: {}",
    answer(call()),
    "\ud800",
    "\x00",
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(WORDS),
    lambda v: st.lists(v, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=3), v, max_size=4),
    max_leaves=12,
)
MESSAGE = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "tool"]) | JSON, "content": JSON})
ROW = st.fixed_dictionaries(
    {"conversations": st.lists(MESSAGE, max_size=3) | JSON, "label": st.booleans() | JSON, "meta": JSON}
)


@given(st.lists(ROW | JSON, max_size=4))
def test_validate_and_convert_take_any_json(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("any") / "rows.jsonl"
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    try:
        told = [str(finding) for finding in rows.validate([path])]
        str(rows.coverage([path]))
    except rows.DataError:
        return
    assert told
    for value in values:
        for to in rows.TARGETS:
            try:
                rows.convert(value if isinstance(value, dict) else {}, to)
            except ValueError:
                continue


@given(
    st.binary(max_size=80)
    | st.lists(st.sampled_from([b"{", b"}", b'"', b"\n", b":", b"1e999", b"\xff", b"\\", LINE])).map(b"".join)
)
def test_reading_raises_nothing_but_data_errors(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("any") / "rows.jsonl"
    path.write_bytes(content)
    with contextlib.suppress(rows.DataError):
        assert list(rows.read(path))


# --- Labels, pairs and defects -----------------------------------------------------------------------------------------

ORDER = {
    "27 all false": ([pair(1)[1], pair(2)[1]], (1, "label")),
    "27 false first": ([pair(1)[1], pair(1)[0]], (1, "label")),
    "true twice": ([make(9), *pair(1)], (2, "label")),
    "false twice": ([*pair(1), pair(2)[1]], (3, "label")),
    "true without its false": ([*pair(1), make(9)], (3, "label")),
    "another prompt": ([pair(1)[0], pair(2)[1]], (2, ASKED)),
}


@pytest.mark.parametrize(("order", "expected"), ORDER.values(), ids=ORDER)
def test_pairs(tmp_path, order, expected):
    assert expected in places(write(tmp_path / "kto.jsonl", *order))


FOREIGN = {**CONTEXT, "sessionId": "session_1732300899999_zzzzzzzzz"}
PRESENT = {
    "wrong_tool": answer(call(SEARCH, query="A")),
    "text_without_call": "I made the folder.",
    "missing_argument": answer(Call(SEARCH, {"context": CONTEXT})),
    "unknown_argument": answer(call(path="A", deep=1)),
    "wrong_type": answer(call(path=5)),
    "empty_session_memory": answer(call(FOLDER, {**CONTEXT, "sessionMemory": ""})),
    "missing_context": answer(Call(FOLDER, {"path": "A"})),
    "foreign_ids": answer(call(FOLDER, FOREIGN)),
    "malformed_call": answer(Broken(FOLDER, '{"context": {"sessionId": "s"')),
    "unknown_tool": answer(call("vaultManager_makeFolder")),
}


@pytest.mark.parametrize(("defect", "content"), PRESENT.items(), ids=PRESENT)
def test_a_false_row_may_have_the_defect_it_names(tmp_path, defect, content):
    assert places(write(tmp_path / "kto.jsonl", *pair(1, defect, content))) == []


def test_one_of_several_arguments_may_be_the_missing_one(tmp_path):
    content = answer(Call("agentManager_getAgent", {"context": CONTEXT}))
    assert places(write(tmp_path / "kto.jsonl", *pair(1, "missing_argument", content))) == []


ABSENT = sorted(rules.STRUCTURAL)


@pytest.mark.parametrize("defect", ABSENT)
def test_a_false_row_without_its_defect(tmp_path, defect):
    path = write(tmp_path / "kto.jsonl", *pair(1, defect, answer(call(SEARCH, query="A"))))
    assert places(path) == [(2, "meta.defect")]


@pytest.mark.parametrize("defect", [None, "bad", 5, ["wrong_tool"]])
def test_a_false_row_names_a_listed_defect(tmp_path, defect):
    true, false = pair(1)
    false["meta"]["defect"] = defect
    assert places(write(tmp_path / "kto.jsonl", true, false)) == [(2, "meta.defect")]


def test_a_semantic_defect_stands_in_a_valid_call(tmp_path):
    assert places(write(tmp_path / "a.jsonl", *pair(1, "wrong_tool", answer(call(SEARCH, limit=1))))) == [
        (2, "arguments.query")
    ]


def test_a_false_answer_differs_from_the_true_one(tmp_path):
    true, false = pair(1)
    false["conversations"] = copy.deepcopy(true["conversations"])
    assert places(write(tmp_path / "a.jsonl", true, false)) == [(2, "meta.defect")]


# --- Conversions and rendering -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "row", [*GOOD, *pair(7), pair(8, "malformed_call", PRESENT["malformed_call"])[1]], ids=lambda row: row["id"]
)
def test_text_to_openai_and_back(row):
    [openai] = rows.convert(row, "openai")
    for message in openai["messages"]:
        for entry in message.get("tool_calls", []):
            assert len(entry["id"]) == 9
    assert rows.convert(openai, "text") == [row]
    assert rows.convert(row, "text") == [row]


def test_older_forms_become_the_present_one():
    system = turn("system", '<session_context>\n- sessionId: "x"\n</session_context>')
    done = turn("user", 'Result: {"success": true}')
    old = {
        "conversations": [
            system,
            USER,
            turn("assistant", None, tool_calls=TOOL_CALLS),
            done,
            turn("assistant", "Done."),
        ]
    }
    [new] = rows.convert(old, "text")
    assert new == {"conversations": [USER, turn("assistant", answer(call(), Result({"success": True}), "Done."))]}
    tool = {
        "messages": [USER, turn("assistant", None, tool_calls=TOOL_CALLS), turn("tool", "all well", tool_call_id="1")]
    }
    [new] = rows.convert(tool, "text")
    assert new["conversations"][1]["content"] == answer(call(), Result({"result": "all well"}))


@pytest.mark.parametrize("made", [[{"name": "x"}], ["x"], 5])
def test_a_ground_truth_that_is_no_call_is_refused(made):
    with pytest.raises(ValueError, match="ground_truth_calls"):
        rows.convert({"prompt": "p", "ground_truth_calls": made}, "text")


@pytest.mark.parametrize("row", [{}, {"conversations": []}, {"conversations": "x"}, {"messages": [{"role": "system"}]}])
def test_a_row_without_messages_is_refused(row):
    with pytest.raises(ValueError, match="no messages"):
        rows.convert(row, "text")


@pytest.mark.parametrize("call_format", calls.FORMATS)
def test_results_are_never_trained(call_format):
    blocks = [
        "I look.",
        call(SEARCH, query="a"),
        Result({"success": True}),
        call(),
        Result({"success": False}),
        "Done.",
    ]
    parts = rows.prompt_completion(make(1, answer(*blocks)), call_format)
    assert [part["id"] for part in parts] == ["row-1", "row-1#2", "row-1#3"]
    for part, wanted in zip(parts, (blocks[:2], blocks[3:4], blocks[5:]), strict=True):
        assert part["label"] is True
        assert calls.parse(part["completion"][0]["content"]).blocks == wanted
        assert "Result" not in part["completion"][0]["content"]
    assert [message["role"] for message in parts[2]["prompt"]] == ["user", "assistant", "tool", "assistant", "tool"]
    assert parts[2]["prompt"][4]["content"] == '{"success": false}'


def test_a_malformed_call_stays_malformed_in_hermes():
    [part] = rows.prompt_completion(pair(1, "malformed_call", answer(call())[:-1] + ",}")[1])
    content = part["completion"][0]["content"]
    assert content.startswith('<tool_call>\n{"name": "vaultManager_createFolder", "arguments": {"context"')
    assert calls.parse(content, rescue=False).kind == "malformed"


def test_ids_in_the_system_message_are_those_of_the_call():
    [part] = rows.prompt_completion(make(1), context_source="system")
    system = part["prompt"][0]
    assert system["role"] == "system"
    assert system["content"].split("\n")[1:] == [f"{key}: {CONTEXT[key]}" for key in ("sessionId", "workspaceId")]


def test_tools_in_the_system_message():
    [agent] = rows.prompt_completion(make(1), tool_exposure="agent")
    text = agent["prompt"][0]["content"]
    assert "vaultManager_moveNote(" in text and "vaultLibrarian" not in text and "<tool_call>" in text
    [everything] = rows.prompt_completion(make(1), "text", tool_exposure="all")
    assert "vaultLibrarian_batch(" in everything["prompt"][0]["content"]
    assert "<tool_call>" not in everything["prompt"][0]["content"]
    silent = [rows.prompt_completion(make(3, "Which one?", tools=[]), tool_exposure="agent") for _ in range(2)]
    assert silent[0] == silent[1] and silent[0][0]["prompt"][0]["role"] == "system"


@pytest.mark.parametrize("context_source", ["none", "system"])
@pytest.mark.parametrize("tool_exposure", ["none", "agent", "all"])
@pytest.mark.parametrize("defect", ["wrong_tool", "foreign_ids", "text_without_call", "missing_context"])
def test_the_prompt_of_a_pair_tells_nothing_of_the_label(context_source, tool_exposure, defect):
    true, false = rows.training_rows(pair(1, defect, PRESENT[defect]), "hermes", context_source, tool_exposure)
    assert true["prompt"] == false["prompt"]
    assert (true["label"], false["label"]) == (True, False)


@pytest.mark.parametrize("choice", [{"context_source": "x"}, {"tool_exposure": "x"}, {"call_format": "x"}])
def test_unknown_choices_are_refused(choice):
    with pytest.raises(ValueError, match="expected"):
        rows.prompt_completion(make(1), **choice)


def test_coverage(tmp_path):
    unknown = make(5, answer(call("vaultManager_makeFolder")))
    path = write(tmp_path / "rows.jsonl", *pair(1), make(3, "Which one?"), unknown, "{", {})
    found = rows.coverage([path])
    assert (found.rows, found.unreadable, found.no_call) == (4, 2, 1)
    assert (found.good[FOLDER], found.bad[SEARCH], found.labels) == (1, 1, {"true": 3, "false": 1})
    assert found.defects == {"wrong_tool": 1} and found.behaviours == {"single_call": 4}
    assert found.invalid == {"vaultManager_makeFolder": [f"{path}:4"]}
    assert "vaultManager_moveNote" in found.unused and FOLDER in str(found)


# --- Command line ------------------------------------------------------------------------------------------------------


def test_validate_shows_twenty_findings(tmp_path, capsys):
    path = write(tmp_path / "rows.jsonl", *[make(number, label="yes") for number in range(30)])
    assert command.main(["validate", str(path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{path}:1: label: found 'yes' (text), expected true or false"
    assert lines[20:] == ["... and 10 more (--all shows them)", "30 rows, 30 problems: label 30"]
    assert command.main(["validate", str(path), "--all"]) == 1
    assert len(capsys.readouterr().out.splitlines()) == 31


def test_validate_in_json(tmp_path, capsys):
    path = write(tmp_path / "rows.jsonl", make(1), make(2, label=1))
    assert command.main(["validate", "--json", str(path)]) == 1
    told = json.loads(capsys.readouterr().out)
    finding = {"file": str(path), "line": 2, "field": "label", "found": "1 (a number)", "expected": "true or false"}
    assert told == {"rows": 2, "problems": 1, "kinds": {"label": 1}, "findings": [finding]}


def test_exit_codes(tmp_path, capsys):
    write(tmp_path / "a.jsonl", make(1))
    assert command.main(["validate", str(tmp_path / "*.jsonl"), str(tmp_path / "a.jsonl")]) == 0
    assert capsys.readouterr().out == "1 rows, 0 problems\n"
    assert command.main(["validate", str(tmp_path / "*.json")]) == 2
    assert "no such file" in capsys.readouterr().err
    assert command.main(["coverage", str(tmp_path / "a.jsonl")]) == 0
    with pytest.raises(SystemExit) as stop:
        command.main(["convert", str(tmp_path / "a.jsonl"), "--to", "yaml"])
    assert stop.value.code == 2


def test_convert_writes_whole_files(tmp_path, capsys):
    source, target = write(tmp_path / "a.jsonl", *GOOD), tmp_path / "b.jsonl"
    assert command.main(["convert", str(source), "--to", "openai", "-o", str(target)]) == 0
    assert command.main(["convert", str(target), "--to", "text"]) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.split("\n") if line] == GOOD
    write(source, make(1), "{", {}, make(2))
    assert command.main(["convert", str(source), "--to", "prompt-completion", "-o", str(target)]) == 1
    assert capsys.readouterr().err.count("left out") == 2
    assert len(list(rows.read(target))) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "b.jsonl"]
    assert command.main(["convert", str(source), "--to", "text", "-o", str(tmp_path / "no" / "b.jsonl")]) == 2


def test_interrupt_and_broken_pipe_are_quiet(tmp_path):
    path = write(tmp_path / "rows.jsonl", *[make(number, label="yes") for number in range(3000)])
    start = [sys.executable, "-m", "toolset_nb", "validate", "--all", str(path)]
    environment = {**os.environ, "PYTHONPATH": str(repo_root())}
    with subprocess.Popen(start, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""


def test_the_package_imports_nothing():
    script = (
        "import sys; import toolset_nb; print(sorted(name for name in sys.modules if name.startswith('toolset_nb')))"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=repo_root(), check=True)
    assert told.stdout == "['toolset_nb']\n"


def test_the_row_schema_agrees_with_the_rules():
    import jsonschema_rs

    schema = json.loads((repo_root() / "schemas" / "row.json").read_text("utf-8"))
    validator = jsonschema_rs.validator_for(schema)
    for row in [*GOOD, *pair(1)]:
        assert validator.is_valid(row)
    assert {entry["const"] for entry in schema["properties"]["meta"]["properties"]["defect"]["oneOf"]} == rules.DEFECTS
    for name in (
        "label missing",
        "label 1",
        "conversations empty",
        "unknown role",
        "no assistant",
        "content null",
        "content blank",
    ):
        row = make(2)
        next(change for key, (change, _) in PLANTED.items() if key.endswith(name))(row)
        assert not validator.is_valid(row), name


@pytest.mark.parametrize("named", ["", "sessionId", "workspaceId", "sessionId workspaceId"])
def test_ids_that_nobody_named_are_not_trained(named):
    own = {"sessionId": "session_1755555555555_zzzzzzzzz", "workspaceId": "ws_1732300800000_f5g6h7j8k"}
    made = call(FOLDER, {**CONTEXT, **own})
    ask = "Make a folder " + " ".join(own[key] for key in named.split())
    row = {"id": "row-1", "conversations": [turn("user", ask), turn("assistant", calls.render([made], "text"))]}
    [part] = rows.training_rows([row])
    [trained] = calls.parse(part["completion"][0]["content"]).calls
    expected = rows.UNNAMED | {key: own[key] for key in named.split()}
    assert trained.arguments["context"] == made.arguments["context"] | expected
    [part] = rows.training_rows([row], context_source="system")
    assert calls.parse(part["completion"][0]["content"]).calls == [made]


def test_a_malformed_id_stays_as_it_is_wrong():
    made = call(FOLDER, {**CONTEXT, "sessionId": "session_1"})
    row = {"id": "row-1", "conversations": [turn("user", "?"), turn("assistant", calls.render([made], "text"))]}
    [part] = rows.training_rows([row])
    assert '"session_1"' in part["completion"][0]["content"]


def test_a_pair_becomes_a_preference_and_back():
    true, false = pair(7)
    assert rows.convert(true, "preference") == []
    [made] = rows.convert(false, "preference", true)
    assert made["prompt"] == [turn("user", "Make folder 7")] and made["chosen"] != made["rejected"]
    again = rows.modern(made)
    assert [row["label"] for row in again] == [True, False]
    assert rows.convert(again[0], "text")[0]["conversations"] == true["conversations"]
    assert rows.convert(made, "preference") == [made]


def test_a_row_becomes_a_prompt_with_its_ground_truth_and_back():
    [made] = rows.convert(pair(7)[0], "prompts")
    assert made["prompt"] == [turn("user", "Make folder 7")] and made["ground_truth_tool"] == FOLDER
    assert made["ground_truth_args"] == call(path="Garden 7a").arguments
    assert rows.convert(made, "text")[0]["conversations"] == pair(7)[0]["conversations"]
    assert rows.convert(pair(7)[1], "prompts") == []
    [words] = rows.convert({"id": "x", "conversations": [USER, turn("assistant", "Which one?")]}, "prompts")
    assert words["ground_truth_response"] == "Which one?"


def test_a_prompt_keeps_every_call_of_its_answer():
    both = [call(path="Garden 7a"), call(path="Garden 7b")]
    row = {"id": "x", "conversations": [USER, turn("assistant", calls.render(both, "text"))]}
    [made] = rows.convert(row, "prompts")
    assert [each["arguments"] for each in made["ground_truth_calls"]] == [each.arguments for each in both]
    assert rows.convert(made, "text")[0]["conversations"] == row["conversations"]


def test_labels_that_are_words_become_booleans():
    row = {"conversations": [USER, turn("assistant", "Done.")], "label": "Undesirable"}
    assert rows.convert(row, "text")[0]["label"] is False


@pytest.mark.parametrize("there", [b"", b'{"a": 1}\n', b'{"a": 1}\n{"torn', '{"torn": "\u00e9'.encode()[:-1]])
def test_an_appended_row_stands_on_a_line_of_its_own_whatever_was_left_there(tmp_path, there):
    path = tmp_path / "new" / "rows.jsonl"
    if there:
        path.parent.mkdir()
        path.write_bytes(there)
    row = {"text": "Öffne 日本 \ud800", "loss": numpy.float32(0.5)}
    jsonl.append(path, row)
    jsonl.append(path, {"b": 2})
    kept = path.read_bytes()
    assert kept.startswith(there)
    assert [json.loads(line) for line in kept.decode("utf-8", "replace").splitlines()[-2:]] == [row, {"b": 2}]
