"""The rules of a dataset row, checked line by line: form, calls against the catalogue, labels, pairs, copies, leaks.

A row labelled false must be a well-formed record, but its call may be wrong in the way its `meta.defect` says; it is
then checked that this defect is really there. The rows themselves are not changed here (`rows`).
"""

import re
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

from toolset_nb import calls
from toolset_nb.jsonl import parse_line, read_lines
from toolset_nb.tools import Catalogue, Problem, catalogue

SEMANTIC = (
    *("wrong_tool", "wrong_argument", "invented_path", "call_without_asking", "call_when_unable", "call_on_small_talk"),
    *("needless_question", "repeated_call", "destructive_unasked", "text_without_call", "unfinished", "unchecked"),
)
STRUCTURAL = (
    *("missing_argument", "unknown_argument", "wrong_type", "empty_session_memory", "missing_context", "foreign_ids"),
    *("malformed_call", "unknown_tool"),
)
DEFECTS = frozenset(SEMANTIC + STRUCTURAL)
ROW_KEYS = frozenset(("id", "conversations", "label", "meta"))
ROW_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
ROLES = ("system", "user", "assistant", "tool")

# A line with none of these cannot break a rule on text. The escapes are all of JSON's that stand for another character than a
# quote, a backslash, a tab or a line end.
SUSPECT = ("<", "\\u", "\\b", "\\f", "\\/", "hf_", "sk-", "/home/", "Users", "\x7f", "\ufeff")
SUSPECT += ("INST]", "TOOL_CALLS]", "TOOL_RESULTS]", "AVAILABLE_TOOLS]")
PLAIN_CALL = re.compile(r"tool_call: (\S+)\narguments: (?=\{)")
SPECIAL = (  # each begins with one literal, which makes the search fast
    re.compile(
        r"<(?:\|[a-zA-Z0-9_]+\||/?(?:tool_call|tool_response|tools|think|start_of_turn|end_of_turn|bos|eos)|/s)>"
    ),
    re.compile(r"\[/?(?:INST|TOOL_CALLS|TOOL_RESULTS|AVAILABLE_TOOLS)\]"),
)
LEAKS = (
    ("a Hugging Face token", re.compile(r"hf_[A-Za-z0-9]{30,}")),
    ("an API key", re.compile(r"sk-(?:[a-z]{2,8}-)?[A-Za-z0-9_-]{0,8}[A-Za-z0-9]{20,}")),
    ("a home path", re.compile(r"/home/[^/\s\"']+/")),
    ("a home path", re.compile(r":\\+Users\\")),
    ("a home path", re.compile(r"/Users/[^/\s\"']+/(?:Library|Documents|Desktop|Downloads)\b")),
)
UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufeff]")
RESULT_LINE = re.compile(r"^Result:", re.M)
CALL_WORDS = re.compile(r"tool_call|arguments\W{0,3}:")


class Finding(NamedTuple):
    """One broken rule at one line."""

    file: str
    line: int
    field: str
    found: str
    expected: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.field}: found {self.found}, expected {self.expected}"


def validate(paths: Iterable[str | Path]) -> Iterator[Finding]:
    """Every finding in the files, read one line at a time; ids must differ across all of them, rows within one.

    Raises `jsonl.DataError` for a file that is unreadable as a whole.
    """
    ids: dict[bytes, tuple[str, int]] = {}
    splits: dict[bytes, tuple[str, int, Any]] = {}
    for path in [paths] if isinstance(paths, str | Path) else paths:
        order, name, known = _Order(), str(path), catalogue()
        rows: dict[bytes, tuple[str, int]] = {}  # a file's own: KTO shows again what SFT has taught
        for number, line in read_lines(path):
            row = line if isinstance(line, Problem) else parse_line(line)
            if isinstance(row, Problem):
                yield Finding(name, number, *row)
                continue
            twin = order.twin(row)
            for problem in check_row(row, twin, _suspect(line), known):
                yield Finding(name, number, *problem)
            for key, seen, source in (("id", ids, row.get("id")), ("conversations", rows, _messages(row))):
                if source and (first := seen.setdefault(_digest(row, source), (name, number))) != (name, number):
                    yield Finding(
                        name, number, key, f"the same as {_place(first, name)}", "a different one in every row"
                    )
            if (prompt := _prompt(row)) and isinstance(meta := row.get("meta"), dict) and "split" in meta:
                first = splits.setdefault(_digest({}, prompt), (name, number, meta["split"]))
                if first[2] != meta["split"]:
                    found = f"{_show(meta['split'])}, but {first[2]!r} on {_place(first, name)}"
                    yield Finding(name, number, "meta.split", found, "one split for each prompt")
            for problem in order.add(row, number, twin):
                yield Finding(name, number, *problem)
        for number, problem in order.close():
            yield Finding(name, number, *problem)


def check_row(
    row: dict, twin: dict | None = None, suspect: bool = True, known: Catalogue | None = None
) -> list[Problem]:
    """The faults of one row by itself.

    `twin` is the true row it is paired with, `suspect=False` says that no rule on text can be broken, `known` saves
    looking the catalogue up.
    """
    known = known or catalogue()
    if not suspect and _is_plain(row, known):
        return []
    problems = _frame(row, known)
    messages = row.get("conversations")
    if "messages" in row:
        if "conversations" in row:
            problems.append(Problem("messages", "messages beside conversations", "conversations alone"))
        else:
            problems.append(Problem("messages", "the key messages", "the key conversations (convert --to text)"))
            messages = row["messages"]
    key = "conversations" if "conversations" in row or "messages" not in row else "messages"
    if not isinstance(messages, list) or not messages:
        found = "nothing" if messages is None and key not in row else _show(messages)
        return [*problems, Problem(key, found, "a list of messages")]
    problems += _turns(messages, key)
    if suspect:
        for where, text in _texts(messages, key):
            problems += _text_rules(where, text)
    reply, faults = _answer(messages, key, known)
    if row.get("label") is False:
        return problems + _false_row(row, reply, faults, twin)
    problems += faults
    return problems + _ids_agree(reply, row.get("meta"))


def _is_plain(row: dict, known: Catalogue) -> bool:
    """Whether a true row of the commonest shape is right: the same rules, far faster. False decides nothing."""
    match row:
        case {
            "id": str(row_id),
            "conversations": [{"role": "user", "content": str(asked)}, {"role": "assistant", "content": str(answer)}],
            "label": True,
            "meta": {"behaviour": str(), "tools": [str(tool)], "scenario": str(), "split": str()},
        }:
            pass
        case _:
            return False
    if len(row) != 4 or len(row["meta"]) != 4 or any([len(message) != 2 for message in row["conversations"]]):
        return False
    if not ROW_ID.fullmatch(row_id) or tool not in known.tools or not asked.strip() or asked.startswith("Result:"):
        return False
    if not (head := PLAIN_CALL.match(answer)):
        return False
    try:
        arguments, end = calls.decode(answer, head.end())
    except ValueError:
        return False
    return end == len(answer) and answer.count("\n") == 1 and not known.check(head.group(1), arguments)


def _frame(row: dict, known: Catalogue) -> list[Problem]:
    """The keys beside the conversation."""
    problems = []
    if not row.keys() <= ROW_KEYS:
        for key in row.keys() - ROW_KEYS - {"messages"}:
            problems.append(Problem(_name(key), "an unknown key", "id, conversations, label and meta"))
    row_id, label, meta = row.get("id"), row.get("label"), row.get("meta", {})
    if not isinstance(row_id, str) or not ROW_ID.fullmatch(row_id):
        found = "nothing" if "id" not in row else _show(row_id)
        problems.append(Problem("id", found, "text of 1 to 64 letters, digits, dots, dashes"))
    if label is not True and label is not False:
        problems.append(Problem("label", "nothing" if "label" not in row else _show(label), "true or false"))
    if not isinstance(meta, dict):
        return [*problems, Problem("meta", _show(meta), "an object")]
    for key in ("behaviour", "scenario", "split"):
        if key in meta and not isinstance(meta[key], str):
            problems.append(Problem(f"meta.{key}", _show(meta[key]), "text"))
    tools = meta.get("tools", [])
    if not isinstance(tools, list):
        problems.append(Problem("meta.tools", _show(tools), "a list of tool names"))
    else:
        for name in tools:
            if not isinstance(name, str) or name not in known.tools:
                problems.append(Problem("meta.tools", _show(name), "known tool names"))
    if label is True and "defect" in meta:
        problems.append(Problem("meta.defect", _show(meta["defect"]), "none on a row labelled true"))
    return problems


def _turns(messages: list, key: str) -> list[Problem]:
    """Roles, their order, and the type of each content."""
    problems, roles, answered = [], [], set()
    for at, message in enumerate(messages):
        where = f"{key}[{at}]"
        if not isinstance(message, dict):
            problems.append(Problem(where, _show(message), "an object with role and content"))
            roles.append(None)
            continue
        role, content = message.get("role"), message.get("content")
        roles.append(role)
        if role not in ROLES:
            problems.append(
                Problem(f"{where}.role", _show(role) if "role" in message else "nothing", "user or assistant")
            )
        elif role == "system":
            problems.append(Problem(f"{where}.role", "a system message", "none: it is rendered at training time"))
        elif role == "tool":
            problems.append(Problem(f"{where}.role", "a tool message", "a Result: block in the assistant's turn"))
            answer = str(message.get("tool_call_id"))
            if answer in answered:
                problems.append(Problem(f"{where}.tool_call_id", f"{answer!r:.40} again", "one result for each call"))
            answered.add(answer)
        if len(message) > 2 or "tool_calls" in message:
            for extra in message.keys() - {"role", "content", "tool_call_id"}:
                what = "OpenAI tool_calls" if extra == "tool_calls" else "an unknown key"
                wanted = (
                    "tool_call: and arguments: lines (convert --to text)"
                    if extra == "tool_calls"
                    else "role and content"
                )
                problems.append(Problem(f"{where}.{_name(extra)}", what, wanted))
        if not isinstance(content, str):
            if content is not None or not message.get("tool_calls"):
                problems.append(
                    Problem(f"{where}.content", _show(content) if "content" in message else "nothing", "text")
                )
        elif not content or content.isspace():
            problems.append(Problem(f"{where}.content", "blank text", "text that is not empty"))
        elif role == "user" and content.startswith("Result:"):
            problems.append(Problem(f"{where}.content", "a Result: block", "what the person says"))
    if roles != ["user", "assistant"]:
        shown = ", ".join(str(role)[:20] for role in roles[:6]) + (", ..." if len(roles) > 6 else "")
        problems.append(Problem(key, f"the turns {shown}", "one user turn and one assistant turn"))
    return problems


def _answer(messages: list, key: str, known: Catalogue | None) -> tuple[calls.Reply, list[Problem]]:
    """The assistant's turns read as one reply, and what is wrong with it."""
    reply, problems = calls.Reply(), []
    for at, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") != "assistant":
            continue
        content = message.get("content")
        content = content if isinstance(content, str) else None
        turn = calls.parse(content, message.get("tool_calls"), rescue=False)
        where = f"{key}[{at}].content"
        problems += [Problem(where, fault, "blocks that can be read") for fault in turn.problems]
        if content and turn.calls and "tool_calls" not in message:
            problems += _surface(where, content, turn)
        if content and "Result:" in content:
            problems += _results(where, turn)
        reply.blocks += turn.blocks
        reply.problems += turn.problems
    made = reply.calls
    for at, call in enumerate(made if known else []):
        prefix = f"calls[{at}]." if len(made) > 1 else ""
        for problem in known.check(call.name, call.arguments):
            problems.append(Problem(prefix + problem.field, problem.found, problem.expected))
    return reply, problems


def _surface(where: str, content: str, turn: calls.Reply) -> list[Problem]:
    """Each call on two lines in the text form."""
    if len(turn.calls) == 1 and content.startswith("tool_call: ") and content.count("\n") == 1:
        return []
    written = len(re.findall(r"^tool_call: \S+\narguments: \{.*\}[ \t\r]*$", content, re.M))
    if written >= len(turn.calls):
        return []
    return [Problem(where, "a call in another form", "the lines tool_call: NAME and arguments: {one line of JSON}")]


def _results(where: str, turn: calls.Reply) -> list[Problem]:
    """Result blocks parse to objects, and each follows a call."""
    problems, open_calls = [], 0
    for block in turn.blocks:
        if isinstance(block, calls.Call):
            open_calls += 1
        elif isinstance(block, calls.Result):
            if not isinstance(block.value, dict):
                problems.append(Problem(where, f"a Result: that is {_show(block.value)}", "Result: {object}"))
            if not open_calls:
                problems.append(Problem(where, "a Result: without a call before it", "a call, then its Result:"))
            open_calls = max(0, open_calls - 1)
        elif isinstance(block, str) and RESULT_LINE.search(block):
            problems.append(Problem(where, "a Result: line that is not JSON", "Result: {one line of JSON}"))
    return problems


def _ids_agree(reply: calls.Reply, meta: Any) -> list[Problem]:
    """All calls of a row carry the same ids, and those of its meta where it names them."""
    problems, first = [], dict(meta) if isinstance(meta, dict) else {}
    made = reply.calls
    if len(made) < 2 and not {"sessionId", "workspaceId"} & first.keys():
        return []
    for at, call in enumerate(made):
        context = call.arguments.get("context")
        for key in ("sessionId", "workspaceId") if isinstance(context, dict) else ():
            wanted = first.setdefault(key, context.get(key))
            if context.get(key) != wanted:
                prefix = f"calls[{at}]." if len(made) > 1 else ""
                problems.append(
                    Problem(
                        f"{prefix}arguments.context.{key}",
                        _show(context.get(key)),
                        f"{wanted!r:.60} as elsewhere in the row",
                    )
                )
    return problems


def _false_row(row: dict, reply: calls.Reply, faults: list[Problem], twin: dict | None) -> list[Problem]:
    """A false row names a listed defect and has it; a semantic defect stands in an otherwise valid call."""
    meta = row.get("meta")
    defect = meta.get("defect") if isinstance(meta, dict) else None
    if defect not in DEFECTS if isinstance(defect, str) else True:
        found = "nothing" if defect is None else _show(defect)
        return [Problem("meta.defect", found, "one of " + ", ".join(sorted(DEFECTS)))]
    if twin and _messages(twin)[-1:] == _messages(row)[-1:]:
        return [Problem("meta.defect", f"{defect}, but the answer equals the true row's", "a different answer")]
    if defect in SEMANTIC:
        return faults
    if _has_defect(defect, row, reply, faults, twin):
        return []
    return [Problem("meta.defect", f"{defect}, but the row has no defect of that kind", "the defect it names")]


def _has_defect(defect: str, row: dict, reply: calls.Reply, faults: list[Problem], twin: dict | None) -> bool:
    for problem in faults:
        name = re.sub(r"^calls\[\d+\]\.", "", problem.field)
        in_context = name.startswith("arguments.context")
        missing, unknown = problem.found in ("nothing", "none of these"), problem.found == "an unknown parameter"
        found = {
            "missing_argument": missing and name.startswith("arguments") and not in_context,
            "unknown_argument": unknown,
            "wrong_type": name.startswith("arguments") and not missing and not unknown,
            "empty_session_memory": name == "arguments.context.sessionMemory" and not missing,
            "missing_context": in_context and missing,
            "foreign_ids": name.endswith(("context.sessionId", "context.workspaceId")) and not missing,
            "unknown_tool": name == "name",
        }
        if found.get(defect):
            return True
    if defect == "malformed_call":
        return bool(reply.problems) or bool(CALL_WORDS.search(reply.text))
    if defect == "foreign_ids":
        meta = row.get("meta", {})
        own = {key: meta[key] for key in ("sessionId", "workspaceId") if key in meta}
        if not own and twin:
            answer, _ = _answer(_messages(twin), "", None)
            contexts = [call.arguments.get("context") for call in answer.calls]
            own = next((context for context in contexts if isinstance(context, dict)), {})
        return bool(_ids_agree(reply, {key: own[key] for key in ("sessionId", "workspaceId") if key in own}))
    return False


def _texts(messages: list, key: str) -> Iterator[tuple[str, str]]:
    """(field, text) of all text of a row, calls decoded, so that escapes hide nothing."""
    for at, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(content := message.get("content"), str):
            continue
        yield f"{key}[{at}].content", content
        if message.get("role") == "assistant" and "\\" in content:
            for call in calls.parse(content, rescue=False).calls:
                for where, text in _leaves("arguments", call.arguments):
                    if text not in content:
                        yield where, text


def _leaves(where: str, value: Any) -> Iterator[tuple[str, str]]:
    stack = [(where, value)]
    while stack:
        where, value = stack.pop()
        if isinstance(value, str):
            yield where, value
        elif isinstance(value, dict):
            stack += [(f"{where}.{_name(key)}", part) for key, part in value.items()]
        elif isinstance(value, list):
            stack += [(f"{where}[{at}]", part) for at, part in enumerate(value)]


def _text_rules(where: str, text: str) -> Iterator[Problem]:
    """Template tokens, secrets, home paths and characters that no text should hold."""
    for pattern in SPECIAL:
        if found := pattern.search(text):
            yield Problem(where, f"the chat-template token {found.group()}", "plain text")
    for what, pattern in LEAKS:
        if pattern.search(text):
            yield Problem(where, what, "none in a dataset")
    if found := UNPRINTABLE.search(text):
        yield Problem(where, f"the character U+{ord(found.group()):04X}", "printable text")


class _Order:
    """What a file's rows must be to one another: strict True, False pairs on the same prompt once any row is false.

    Repeats of a label are kept (one number each) until a false row shows that the file holds pairs.
    """

    def __init__(self) -> None:
        self.before: dict | None = None
        self.number = 0
        self.repeats: list[int] = []
        self.labels: set[bool] = set()

    def twin(self, row: dict) -> dict | None:
        """The true row right before a false one."""
        paired = row.get("label") is False and self.before is not None and self.before.get("label") is True
        return self.before if paired else None

    def add(self, row: dict, number: int, twin: dict | None) -> Iterator[Problem]:
        label = row.get("label")
        if label is not True and label is not False:
            return
        if twin is not None and _prompt(twin) != _prompt(row):
            yield Problem(
                "conversations[0].content", f"another prompt than line {self.number}", "the prompt of its true row"
            )
        if label is (self.before.get("label") if self.before else False):
            self.repeats.append(number)
        self.labels.add(label)
        self.before, self.number = row, number

    def close(self) -> Iterator[tuple[int, Problem]]:
        if False not in self.labels:
            return
        if True not in self.labels:
            yield 1, Problem("label", "false on every row", "pairs of a true and a false row")
            return
        for number in self.repeats:
            yield (
                number,
                Problem("label", "the same label as the row before", "true and false rows in turn, true first"),
            )
        if self.before and self.before["label"] is True:
            yield self.number, Problem("label", "a true row without its false row", "a false row right after it")


def _suspect(line: bytes) -> bool:
    text = line.decode("utf-8", "replace")
    return any([mark in text for mark in SUSPECT])  # a list: faster than a generator here


def _messages(row: dict) -> list:
    messages = row.get("conversations", row.get("messages"))
    return messages if isinstance(messages, list) else []


def _prompt(row: dict) -> list:
    return [
        message for message in _messages(row) if not isinstance(message, dict) or message.get("role") != "assistant"
    ]


def _digest(row: dict, source: Any) -> bytes:
    """16 bytes that stand for an id, or for messages with the row's label."""
    if not isinstance(source, str):
        source = f"{row.get('label')}{_joined(source)}"
    return blake2b(source.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _joined(messages: list) -> str:
    try:
        return "\0".join([message["role"] + "\0" + message["content"] for message in messages])
    except (KeyError, TypeError):
        return str(messages)


def _place(first: tuple, name: str) -> str:
    return f"line {first[1]}" if first[0] == name else f"{first[0]}:{first[1]}"


def _name(key: str) -> str:
    """A key fit to stand in a field's path."""
    return key if key.isidentifier() and len(key) < 60 else f"{key!r:.60}"


def _show(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, dict | list):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)} entries"
    return f"{value!r:.60} ({'text' if isinstance(value, str) else 'a number'})"
