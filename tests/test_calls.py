"""Reading and writing calls: exact forms, lenient ones, hostile ones."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolset_nb import calls
from toolset_nb.calls import Broken, Call, Result, parse, render

ARGUMENTS = {"context": {"sessionId": "s"}, "path": "C:\\", "text": 'say "hi"\\'}
SOURCE = json.dumps(ARGUMENTS)
CALL = Call("vaultManager_openNote", ARGUMENTS)
ONE = {"x": 1}

EXACT = {
    "text": f"tool_call: {CALL.name}\narguments: {SOURCE}",
    "text, CRLF": f"tool_call: {CALL.name}\r\narguments: {SOURCE}\r\n",
    "hermes": f'<tool_call>\n{{"name": "{CALL.name}", "arguments": {SOURCE}}}\n</tool_call>',
    "hermes on one line": f'<tool_call>{{"name": "{CALL.name}", "arguments": {SOURCE}}}</tool_call><|im_end|>',
    "hermes after a thought": f'<think>open it</think>\n<tool_call>{{"name": "{CALL.name}", "arguments": {SOURCE}}}</tool_call>',
    "hermes after two thoughts": f"<think>a</think><thinking>{SOURCE}</thinking>"
    f'<tool_call>{{"name": "{CALL.name}", "arguments": {SOURCE}}}</tool_call>',
    "hermes after a thought that the prompt opens": f"I <tool_call>{{}} it.\n</think>\n\ntool_call: {CALL.name}\n"
    f"arguments: {SOURCE}",
    "mistral": f'[TOOL_CALLS] [{{"name": "{CALL.name}", "arguments": {SOURCE}}}]</s>',
    "mistral, newer": f"[TOOL_CALLS]{CALL.name}[ARGS]{SOURCE}",
    "llama 3": f'{{"name": "{CALL.name}", "parameters": {SOURCE}}}',
    "llama 3 with its token": f'<|python_tag|>{{"name": "{CALL.name}", "parameters": {SOURCE}}}<|eot_id|>',
    "llama 3.1 with its other token": f'<|python_tag|>{{"name": "{CALL.name}", "parameters": {SOURCE}}}<|eom_id|>',
}

RESCUED = {
    "77 code fence": '```json\n{"name": "a_b", "arguments": {"x": 1}}\n```',
    "77 fence around the text form": '```\ntool_call: a_b\narguments: {"x": 1}\n```',
    "77 fence inside the tag": '<tool_call>\n```json\n{"name": "a_b", "arguments": {"x": 1}}\n```\n</tool_call>',
    "77 tildes": '~~~\ntool_call: a_b\narguments: {"x": 1}\n~~~',
    "an example in a line": 'Write `<tool_call>{"name": "a_b", "arguments": {"x": 1}}</tool_call>` for that.',
    "a thought later on": 'Yes.\n<think>\n<tool_call>{"name": "a_b", "arguments": {"x": 1}}</tool_call></think>',
    "77 late comma": 'tool_call: a_b\narguments: {"x": 1,}',
    "77 single quotes": "tool_call: a_b\narguments: {'x': 1}",
    "77 comment": 'tool_call: a_b\narguments: {"x": 1 // one\n}',
    "77 trailing prose on the line": 'tool_call: a_b\narguments: {"x": 1} as you asked',
    "82 arguments in a string": '<tool_call>{"name": "a_b", "arguments": "{\\"x\\": 1}"}</tool_call>',
    "82 in a string twice": 'tool_call: a_b\narguments: "\\"{\\\\\\"x\\\\\\": 1}\\""',
    "79 tag not closed": '<tool_call>{"name": "a_b", "arguments": {"x": 1}}',
    "84 bare JSON with arguments": '{"name": "a_b", "arguments": {"x": 1}}',
    "84 hermes with parameters": '<tool_call>{"name": "a_b", "parameters": {"x": 1}}</tool_call>',
    "84 list in the tag": '<tool_call>[{"name": "a_b", "arguments": {"x": 1}}]</tool_call>',
    "78 in the middle of a line": 'I will tool_call: a_b arguments: {"x": 1}',
    "86 typographic quotes": "tool_call: a_b\narguments: {“x”: 1}",
    "86 bold marker": 'tool_call:** a_b\n**arguments:** {"x": 1}',
    "12 key twice": 'tool_call: a_b\narguments: {"x": 2, "x": 1}',
}

MALFORMED = {
    "79 cut off": 'tool_call: a_b\narguments: {"x": 1',
    "79 cut off in the tag": '<tool_call>{"name": "a_b", "argu',
    "79 cut off after the name": "tool_call: a_b",
    "marker alone": "<tool_call>",
    "11 NaN": 'tool_call: a_b\narguments: {"x": NaN}',
    "83 too large a number": 'tool_call: a_b\narguments: {"x": 1e400}',
    "83 5,000 digits": 'tool_call: a_b\narguments: {"x": ' + "9" * 5000 + "}",
    "83 deep nesting": 'tool_call: a_b\narguments: {"x": ' + "[" * 3000 + "]" * 3000 + "}",
    "24 a list": "tool_call: a_b\narguments: [1]",
    "24 a text that is no JSON": 'tool_call: a_b\narguments: "x"',
    "78 nested tags": '<tool_call><tool_call>{"name": "a_b", "arguments": {"x": 1}}',
    "no name": '<tool_call>{"arguments": {"x": 1}}</tool_call>',
    "[TOOL_CALLS] and prose": "[TOOL_CALLS] open the note",
    "84 Python": 'I do it: vaultManager_deleteNote(path="A.md")',
    "84 Python in tokens": '<|tool_call_start|>[vaultManager_deleteNote(path="A.md")]<|tool_call_end|>',
    "84 another key": '{"tool": "vaultManager_deleteNote", "arguments": {"path": "A.md"}}',
    "84 function tag": "<function=vaultManager_deleteNote>{}</function>",
    "84 gemma": '<start_function_call>call:vaultManager_deleteNote{path:"A.md"}',
    "84 harmony": '<|channel|>commentary to=functions.vaultManager_deleteNote <|message|>{"path": "A.md"}',
    "84 deepseek": "<｜tool▁calls▁begin｜>function<｜tool▁sep｜>vaultManager_deleteNote",
    "84 deepseek in plain bars": "<|tool▁call▁begin|>function",
    "84 invoke": '<invoke name="vaultManager_deleteNote"><parameter name="path">A.md</parameter></invoke>',
    "84 minimax": '<minimax:tool_call>\n<invoke name="a_b"></invoke>\n</minimax:tool_call>',
    "84 a tag of its own": "<vaultManager_deleteNote><path>A.md</path></vaultManager_deleteNote>",
    "84 name in a tag": "<tool>vaultManager_deleteNote</tool><path>A.md</path>",
    "84 ReAct": 'Action: vaultManager_deleteNote\nAction Input: {"path": "A.md"}',
    "84 harmony without tokens": 'assistantcommentary to=functions.vaultManager_deleteNote json{"path": "A.md"}',
    "84 capital": 'Tool_call: vaultManager_deleteNote\narguments: {"path": "A.md"}',
    "84 Markdown": '**Tool call:** `vaultManager_deleteNote`\n```json\n{"path": "A.md"}\n```',
    "84 JavaScript": 'vaultManager.deleteNote({path: "A.md"})',
    "84 the name as key": '{"vaultManager_deleteNote": {"path": "A.md"}}',
    "84 agent with mode": 'vaultManager({"mode": "deleteNote", "path": "A.md"})',
    "84 mode": '{"mode": "deleteNote", "path": "A.md"}',
    "84 the tool without agent": "get_tools(tools=[])",
    "79 a second bare call cut off": '{"name": "a_b", "parameters": {}}; {"name": "c_d", "parameters": {"x',
    "83 nested 600 deep": 'tool_call: a_b\narguments: {"x": ' + "[" * 600 + "]" * 600 + "}",
    "a result cut off": 'tool_call: a_b\narguments: {"x": 1}\n\nResult: {"success": tr',
}


@pytest.mark.parametrize("reply", EXACT.values(), ids=EXACT)
@pytest.mark.parametrize("rescue", [True, False])
def test_exact_forms(reply, rescue):
    read = parse(reply, rescue=rescue)
    assert (read.blocks, read.problems, read.rescued, read.kind) == ([CALL], [], False, "call")


@pytest.mark.parametrize("reply", RESCUED.values(), ids=RESCUED)
def test_lenient_forms_are_marked(reply):
    read = parse(reply)
    assert (read.calls, read.problems, read.rescued) == ([Call("a_b", ONE)], [], True)
    strict = parse(reply, rescue=False)
    assert not strict.rescued
    assert strict.problems or not strict.calls


@pytest.mark.parametrize("reply", MALFORMED.values(), ids=MALFORMED)
def test_malformed_replies_say_why(reply):
    read = parse(reply)
    assert read.kind == "malformed"
    assert read.problems and all(read.problems)


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        ("", "empty"),
        (None, "empty"),
        (" \n\t", "empty"),
        ("<think> and on and on", "empty"),
        ("Which note do you mean?", "text"),
        ("Result: I moved it.", "text"),
        ('{"settings": true}', "text"),
        ("Write `tool_call` and its arguments: that is all.", "text"),
        ("`vaultManager_deleteNote` (with a path) moves a note to the trash.", "text"),
        ("| vaultManager_deleteNote | deletes |\n\nvaultManager: deleteNote, moveNote {both}", "text"),
        ("There is vaultManager_deleteNote, its arguments are path and context.", "text"),
        ("See <code>vaultManager_deleteNote</code>; get_tools lists them; the mode is 'preview'.", "text"),
        ("I think </think> ends a thought, and `<think>` begins one.", "text"),
        ("I might <tool_call>{}</tool_call>; no, I ask.</think>\nWhich one?", "text"),
        ('{"name": "a_b", "parameters": {}}\n[x] done', "text_call"),
        ("<script>alert(1)</script>\x1b[31m", "text"),
        ("I cannot do that.\n\n" + EXACT["text"], "text_call"),
        (EXACT["hermes"] + "\nDone.", "text_call"),
        (7, "malformed"),
        ([{"type": "text", "text": "Hello"}, {"type": "image"}, 5], "text"),
    ],
)
def test_kinds(reply, kind):
    assert parse(reply).kind == kind


def test_blocks_keep_their_order():
    reply = (
        'First.\n\ntool_call: a_b\narguments: {}\n\nResult: {"success": true}\n\nThen.\n\ntool_call: c_d\narguments: {}'
    )
    read = parse(reply)
    assert read.blocks == ["First.", Call("a_b", {}), Result({"success": True}), "Then.", Call("c_d", {})]
    assert (read.text, read.results) == ("First.\n\nThen.", [{"success": True}])


def test_parallel_calls_of_mistral_stand_on_one_line():
    read = parse('[TOOL_CALLS]a_b[ARGS]{"x": 1}[TOOL_CALLS]c_d[ARGS]{}', rescue=False)
    assert (read.blocks, read.problems) == ([Call("a_b", ONE), Call("c_d", {})], [])


def test_a_marker_inside_an_argument_is_text():
    call = Call(
        "a_b", {"content": "tool_call: c_d\narguments: {}\n<tool_call>\nResult: {}\nno</think> yes\n</think>\n`"}
    )
    for call_format in calls.FORMATS:
        assert parse(render([call], call_format)).blocks == [call]


OPENAI = [
    ('{"x": 1}', "call", False),
    ({"x": 1}, "call", False),
    ('"{\\"x\\": 1}"', "call", True),
    ("{'x': 1}", "call", True),
    ('{"x": ', "malformed", False),
    ("[1]", "malformed", False),
    ("", "malformed", False),
    (None, "malformed", False),
]


@pytest.mark.parametrize(("arguments", "kind", "rescued"), OPENAI)
def test_openai_tool_calls(arguments, kind, rescued):
    read = parse(None, [{"id": "1", "type": "function", "function": {"name": "a_b", "arguments": arguments}}])
    assert (read.kind, read.rescued) == (kind, rescued)
    assert read.calls == ([Call("a_b", ONE)] if kind == "call" else [])


@pytest.mark.parametrize("entries", [[None], [{}], [{"function": {"name": ""}}], "x", {"a": 1}, 5, [[]]])
def test_openai_entries_without_a_name(entries):
    assert parse("", entries).kind == "malformed"


@pytest.mark.parametrize(
    "deep", [json.loads("[" * 900 + "]" * 900), json.loads('{"a":' * 900 + "1" + "}" * 900), {"x": 10**5000}]
)
def test_openai_arguments_that_are_no_plain_object(deep):
    assert parse(None, [{"function": {"name": "a_b", "arguments": [deep]}}]).kind == "malformed"
    assert parse(None, [{"function": {"name": "a_b", "arguments": {"x": deep}}}]).kind in ("malformed", "call")


def test_a_broken_call_keeps_its_fault_in_both_formats():
    broken = Broken("a_b", '{"x": 1,}')
    for call_format in calls.FORMATS:
        assert parse(render([broken], call_format), rescue=False).blocks == [broken]


def test_unknown_format():
    with pytest.raises(ValueError, match="expected one of hermes, text"):
        render([], "yaml")


@pytest.mark.parametrize(
    "part",
    [
        '<tool_call>{"a":',
        "tool_call: a\narguments: {",
        "[TOOL_CALLS]",
        'Result: {"a":\n',
        "/*",
        "'\"",
        "{'name': ",
        "“",
        "```",
        "`",
        "</think>",
        "<think></think>",
        "[TOOL_CALLS]a[ARGS]{}",
        "{};",
        "vaultManager_deleteNote",
        "<a=",
    ],
)
def test_time_stays_linear(part):
    start = time.perf_counter()
    parse(part * 40_000)
    assert time.perf_counter() - start < 10


WORD = st.text("abcdefgäß漢 .,!?\n", max_size=30)
PROSE = WORD.map(str.strip).filter(bool)
LEAF = st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUE = st.recursive(
    LEAF | TEXT, lambda v: st.lists(v, max_size=3) | st.dictionaries(TEXT, v, max_size=3), max_leaves=8
)
OBJECT = st.dictionaries(TEXT, VALUE, max_size=4)
CALLS = st.builds(Call, st.from_regex(r"[a-zA-Z]{1,9}_[a-zA-Z]{1,9}", fullmatch=True), OBJECT)


def _merge(blocks):
    """No two texts side by side: they would read back as one."""
    kept = []
    for block in blocks:
        if not (kept and isinstance(block, str) and isinstance(kept[-1], str)):
            kept.append(block)
    return kept


@given(st.lists(PROSE | CALLS | st.builds(Result, OBJECT), max_size=5).map(_merge), st.sampled_from(calls.FORMATS))
def test_what_is_rendered_reads_back(blocks, call_format):
    read = parse(render(blocks, call_format))
    assert (read.blocks, read.problems, read.rescued) == (blocks, [], False)


MARKS = [
    *(
        "tool_call:",
        "arguments:",
        "Result:",
        "<tool_call>",
        "</tool_call>",
        "[TOOL_CALLS]",
        "<|python_tag|>",
        "```",
        "```json",
    ),
    *(
        "{",
        "}",
        "[",
        "]",
        '"',
        "'",
        ",",
        ":",
        "\\",
        "\n",
        " ",
        "//",
        "/*",
        "<think>",
        '"name"',
        '"arguments"',
        "a_b",
        "NaN",
        "\x00",
    ),
    *("{}", "[]", "null", "True", "1e999", ";", "[ARGS]", "\ud800", "\ufeff", "“", '{"name": "a_b", "arguments": {}}'),
]


@given(st.lists(st.sampled_from(MARKS) | st.text(max_size=3), max_size=30).map("".join), st.booleans())
def test_parse_never_raises(text, rescue):
    read = parse(text, rescue=rescue)
    assert read.kind in ("malformed", "text_call", "call", "text", "empty")
    assert rescue or not read.rescued


@given(st.recursive(LEAF | st.text(), lambda v: st.lists(v) | st.dictionaries(st.text(), v), max_leaves=10))
def test_parse_never_raises_on_tool_calls(value):
    for entries in (value, [value], [{"function": value}], [{"function": {"name": "a_b", "arguments": value}}]):
        parse(value, entries)
