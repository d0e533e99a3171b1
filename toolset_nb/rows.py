"""The dataset row: reading it in any older form, converting it, and rendering it for training.

One assistant turn is a list of blocks (`calls`): prose, calls, results. Reading lines is in `jsonl`, the rules are in
`rules`; `read` and `validate` are offered here too, since whoever works with rows wants them. No tokenizer is used.
"""

import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolset_nb import calls
from toolset_nb.calls import Call, Result, dumps
from toolset_nb.jsonl import DataError, read
from toolset_nb.rules import Finding, validate
from toolset_nb.tools import CONTEXT_FIELDS, Problem, catalogue

__all__ = [
    "Coverage",
    "DataError",
    "Finding",
    "convert",
    "coverage",
    "prompt_completion",
    "read",
    "shown_tools",
    "system_text",
    "training_rows",
    "validate",
]

TARGETS = ("text", "openai", "prompt-completion", "preference", "prompts")
SYMBOLS = "abcdefghijklmnopqrstuvwxyz0123456789"
ID = re.compile(r"(session|ws)_\d{13}_[a-z0-9]{9}")
UNNAMED = {"sessionId": "session_1732300800000_a1b2c3d4e", "workspaceId": "default"}  # where no message names one
LABELS = {"desirable": True, "undesirable": False}


def convert(row: dict, to: str, twin: dict | None = None) -> list[dict]:
    """The row in another form.

    `text`, `openai`: one row. `prompt-completion`: one for each completion. `preference`: prompt, chosen and rejected, for a
    false row whose true row is `twin`; nothing for others. `prompts`: the prompt alone with the calls or the words that answer
    it (ground_truth_calls, the first also as ground_truth_tool and ground_truth_args; ground_truth_response), for reinforcement
    learning; nothing for a false row.
    Reads the present form and all older ones, see `modern`. Raises ValueError for a row without messages.
    """
    if to not in TARGETS:
        raise ValueError(f"to {to!r}: expected one of {', '.join(TARGETS)}")
    parts = modern(row)
    if to == "preference":
        true, false = parts if len(parts) == 2 else (twin, parts[0])
        return _preference(true, false) if true and false.get("label") is False else []
    return [made for part in parts for made in _convert(part, to)]


def modern(row: dict) -> list[dict]:
    """Rows with conversations and a boolean label from any form that was ever used.

    Rows with `messages`, OpenAI tool_calls, a system message with the ids (left out later: it is rendered at training time)
    and user turns that are a `Result:` stay as they are; `_turns` reads them. Labels may be words. Preference rows (prompt,
    chosen, rejected) become two rows, prompts with a ground truth become one.
    """
    if isinstance(row.get("label"), str) and row["label"].lower() in LABELS:
        row = row | {"label": LABELS[row["label"].lower()]}
    if "prompt" not in row:
        return [row]
    prompt = row["prompt"] if isinstance(row["prompt"], list) else [{"role": "user", "content": row["prompt"]}]
    row_id, rest = str(row.get("id", "")), {"meta": row["meta"]} if "meta" in row else {}
    if "chosen" in row:
        answers = ((row["chosen"], True, "a"), (row.get("rejected"), False, "b"))
        return [
            {"id": row_id + letter, "conversations": [*prompt, *_answer(text)], "label": label, **rest}
            for text, label, letter in answers
        ]
    if row.get("ground_truth_calls"):
        try:
            made = [Call(call["name"], call["arguments"]) for call in row["ground_truth_calls"]]
        except (KeyError, TypeError):
            raise ValueError(
                f"row {row.get('id', '')}: ground_truth_calls: expected calls with name and arguments"
            ) from None
        text = calls.render(made, "text")
    elif row.get("ground_truth_tool"):
        text = calls.render([Call(row["ground_truth_tool"], row.get("ground_truth_args") or {})], "text")
    else:
        text = row.get("ground_truth_response") or row.get("completion")
    return [{"id": row_id, "conversations": [*prompt, *_answer(text)], "label": row.get("label", True), **rest}]


def _answer(text: Any) -> list[dict]:
    return text if isinstance(text, list) else [{"role": "assistant", "content": text}]


def _convert(row: dict, to: str) -> list[dict]:
    if to == "prompt-completion":
        return prompt_completion(row)
    rest = {key: row[key] for key in ("label", "meta") if key in row}
    made = {"id": row["id"]} if "id" in row else {}
    if to == "text":
        messages = [{"role": role, "content": _text(role, blocks)} for role, blocks in _turns(row)]
        return [{**made, "conversations": messages, **rest}]
    if to == "prompts":
        return [] if row.get("label") is False else [_ground_truth(part) for part in prompt_completion(row, "text")]
    messages = []
    pick = random.Random(_stem(row))
    for role, blocks in _turns(row):
        messages += (
            [{"role": role, "content": _text(role, blocks)}] if role != "assistant" else _openai_turn(blocks, pick)
        )
    return [{**made, "messages": messages, **rest}]


def _ground_truth(part: dict) -> dict:
    reply = calls.parse(part["completion"][0]["content"], rescue=False)
    made = {"id": part["id"], "prompt": part["prompt"]}
    if not reply.calls:
        return made | {"ground_truth_response": reply.text}
    first, every = reply.calls[0], [{"name": call.name, "arguments": call.arguments} for call in reply.calls]
    return made | {"ground_truth_tool": first.name, "ground_truth_args": first.arguments, "ground_truth_calls": every}


def _preference(true: dict, false: dict) -> list[dict]:
    one, two = prompt_completion(true)[-1], prompt_completion(false)[-1]
    if one["prompt"] != two["prompt"]:
        return []
    pair = {"id": _stem(true), "prompt": one["prompt"], "chosen": one["completion"], "rejected": two["completion"]}
    return [pair | ({"meta": false["meta"]} if "meta" in false else {})]


def training_rows(
    source: Iterable[dict], call_format: str = "hermes", context_source: str = "none", tool_exposure: str = "none"
) -> list[dict]:
    """`prompt_completion` of all rows as a model can learn them; the two rows of a pair get the same system message.

    A workspace that nothing before the call names becomes the default one, a session's id always the same: others would only teach
    a model to make ids up.
    """
    source = list(source)
    pairs: dict[str, list[dict]] = {}
    for row in source:
        pairs.setdefault(_stem(row), []).append(row)
    rendering = (call_format, context_source, tool_exposure)
    return [
        part
        for row in source
        for part in prompt_completion(row, *rendering, pair=pairs[_stem(row)] if row.get("id") else (), knowable=True)
    ]


def prompt_completion(
    row: dict,
    call_format: str = "hermes",
    context_source: str = "none",
    tool_exposure: str = "none",
    pair: Iterable[dict] = (),
    knowable: bool = False,
) -> list[dict]:
    """TRL prompt/completion rows of a row, one for each assistant turn: {"prompt", "completion", "label"?, "id"}.

    A turn is split at its `Result:` blocks: each becomes a tool message of the next prompt, so no completion holds a
    result. A call that cannot be read keeps its fault in either format. `pair` holds the rows on the same prompt: the
    system message is made from all of them, so that it tells nothing about the label. `knowable` puts `UNNAMED`
    in place of ids that the prompt does not name. Raises ValueError for a row without messages.
    """
    system = ""
    if (context_source, tool_exposure) != ("none", "none"):
        names, ids = _called(list(pair) or [row])
        system = system_text(_stem(row), names, call_format, context_source, tool_exposure, ids)
    prompt = [{"role": "system", "content": system}] if system else []
    done: list[dict] = []
    for role, blocks in _turns(row):
        if role != "assistant":
            content = _text(role, blocks)
            if role == "user" and content.startswith("Result:"):
                role, content = "tool", content.removeprefix("Result:").strip()
            prompt.append({"role": role, "content": content})
            continue
        for segment, result in _segments(blocks):
            if segment:
                said = [_knowable(block, prompt) for block in segment] if knowable else segment
                answer = [{"role": "assistant", "content": calls.render(said, call_format)}]
                part = {"prompt": list(prompt), "completion": answer}
                if "label" in row:
                    part["label"] = row["label"]
                done.append({**part, "id": f"{row.get('id', '')}" + (f"#{len(done) + 1}" if done else "")})
                prompt += answer
            if result is not None:
                prompt.append({"role": "tool", "content": dumps(result.value)})
    return done


def system_text(
    row_id: str,
    tools: Iterable[str],
    call_format: str = "hermes",
    context_source: str = "none",
    tool_exposure: str = "none",
    ids: dict | None = None,
) -> str:
    """The system message of a row or an evaluation prompt; "" when neither ids nor tools are to be shown.

    `tools` are the tools called, `ids` a mapping with sessionId and workspaceId; where either is missing it is drawn,
    always the same for one `row_id`. Raises ValueError for an unknown choice.
    """
    if context_source not in ("none", "system"):
        raise ValueError(f"context_source {context_source!r}: expected none or system")
    if tool_exposure not in ("none", "agent", "all"):
        raise ValueError(f"tool_exposure {tool_exposure!r}: expected none, agent or all")
    drawn, parts = _drawn(row_id)[0], []
    if context_source == "system":
        lines = [f"{key}: {(ids or {}).get(key) or value}" for key, value in drawn.items()]
        parts.append("\n".join(["Copy these ids into the context of every tool call:", *lines]))
    if tool_exposure != "none":
        example = calls.render([Call("tool_name", {"context": {key: "..." for key in CONTEXT_FIELDS}})], call_format)
        parts.append("Tools:\n" + catalogue().text_list(shown_tools(row_id, tools, tool_exposure)))
        parts.append("Call a tool like this, its own arguments after context:\n" + example)
    return "\n\n".join(parts)


def shown_tools(row_id: str, tools: Iterable[str], tool_exposure: str) -> list[str]:
    """The tools that a prompt shows: none, all, or those of the agents whose tools are called.

    Where none is called they are those of an agent that is drawn, always the same for one `row_id`. A hidden tool is shown only
    where it is called.
    """
    if tool_exposure == "none":
        return []
    known = catalogue().tools
    called = [name for name in tools if name in known]
    shown = [tool for tool in known.values() if not tool.hidden or tool.name in called]
    if tool_exposure == "agent":
        every = sorted({tool.agent for tool in shown if tool.agent})
        agents = {known[name].agent for name in called} or {_drawn(row_id)[1].choice(every)}
        shown = [tool for tool in shown if tool.agent in agents]
    return [tool.name for tool in shown]


@dataclass
class Coverage:
    """What a set of files holds; printing it gives the tables."""

    rows: int = 0
    unreadable: int = 0
    no_call: int = 0
    labels: Counter = field(default_factory=Counter)
    good: Counter = field(default_factory=Counter)
    bad: Counter = field(default_factory=Counter)
    behaviours: Counter = field(default_factory=Counter)
    defects: Counter = field(default_factory=Counter)
    invalid: dict[str, list[str]] = field(default_factory=dict)  # unknown name -> its first places

    @property
    def unused(self) -> list[str]:
        """Tools of the catalogue that no row calls."""
        return [name for name in catalogue().tools if not self.good[name] and not self.bad[name]]

    def __str__(self) -> str:
        labels = ", ".join(f"{label} {count}" for label, count in self.labels.most_common())
        lines = [f"{self.rows} rows ({labels}), {self.no_call} without a call, {self.unreadable} unreadable"]
        agents: dict[str, list[str]] = {}
        for tool in catalogue().tools.values():
            agents.setdefault(tool.agent or "no agent", []).append(tool.name)
        for agent, names in agents.items():
            lines += ["", f"{agent:<44} {'count':>6} {'good':>6} {'bad':>6}"]
            for name in names:
                lines.append(
                    f"  {name:<42} {self.good[name] + self.bad[name]:>6} {self.good[name]:>6} {self.bad[name]:>6}"
                )
        for title, counted in (("behaviours", self.behaviours), ("defects", self.defects)):
            if counted:
                lines += ["", title, *(f"  {name:<42} {count:>6}" for name, count in counted.most_common())]
        if self.unused:
            lines += ["", "never called: " + ", ".join(self.unused)]
        if self.invalid:
            lines += ["", "names outside the catalogue"]
            lines += [f"  {name!r:.60}: {', '.join(places[:5])}" for name, places in self.invalid.items()]
        return "\n".join(lines)


def coverage(paths: Iterable[str | Path]) -> Coverage:
    """Counts of tools, labels, behaviours and unknown names over files; raises DataError for an unreadable file."""
    counted, known = Coverage(), catalogue().tools
    for path in paths:
        for number, row in read(path):
            turns = [] if isinstance(row, Problem) else list(_turns(row, strict=False))
            if not turns:
                counted.unreadable += 1
                continue
            _count(counted, row, turns, known, f"{path}:{number}")
    return counted


def _count(counted: Coverage, row: dict, turns: list, known: dict, place: str) -> None:
    meta = row["meta"] if isinstance(row.get("meta"), dict) else {}
    made = [block for _, blocks in turns for block in blocks if isinstance(block, Call | calls.Broken)]
    counted.rows += 1
    counted.no_call += not made
    counted.labels[str(row.get("label", "none")).lower()] += 1
    for table, key in ((counted.behaviours, "behaviour"), (counted.defects, "defect")):
        if isinstance(meta.get(key), str):
            table[meta[key]] += 1
    for call in made:
        if call.name in known:
            (counted.bad if row.get("label") is False else counted.good)[call.name] += 1
        else:
            places = counted.invalid.setdefault(call.name, [])
            if len(places) < 20:
                places.append(place)


def _turns(row: dict, strict: bool = True) -> list[tuple[str, list]]:
    """(role, blocks) of the row's turns, system messages left out, results joined to the assistant turn before them."""
    messages = row.get("conversations", row.get("messages"))
    turns: list[tuple[str, list]] = []
    for message in messages if isinstance(messages, list) else []:
        if not isinstance(message, dict) or message.get("role") in (None, "system"):
            continue
        role, content = message["role"], message.get("content")
        after_call = bool(turns) and turns[-1][0] == "assistant" and any(isinstance(b, Call) for b in turns[-1][1])
        if role == "assistant":
            blocks = calls.parse(content, message.get("tool_calls"), rescue=False).blocks
        elif role == "tool" and after_call:
            role, blocks = "assistant", [Result(_result(content))]
        elif role == "user" and after_call and isinstance(content, str) and content.startswith("Result:"):
            role, blocks = "assistant", [Result(_result(content.removeprefix("Result:")))]
        else:
            blocks = [content if isinstance(content, str) else ("" if content is None else dumps(content))]
        if role == "assistant" and turns and turns[-1][0] == "assistant":
            turns[-1][1].extend(blocks)
        else:
            turns.append((role, blocks))
    if not turns and strict:
        raise ValueError(f"row {row.get('id', '')}: no messages under conversations or messages")
    return turns


def _text(role: str, blocks: list) -> str:
    return calls.render(blocks, "text") if role == "assistant" else blocks[0]


def _result(content: Any) -> Any:
    """A tool's answer as an object, the form that `Result:` blocks hold."""
    try:
        value = calls.loads(content) if isinstance(content, str) else content
    except ValueError:
        value = content.strip()
    return value if isinstance(value, dict) else {"result": value}


def _called(pair: list[dict]) -> tuple[list[str], dict]:
    """(tool names, ids) that rows on one prompt name or use; ids of the true row before those of the false one."""
    names: list[str] = []
    ids: dict = {}
    for row in sorted(pair, key=lambda row: row.get("label") is False):
        meta = row["meta"] if isinstance(row.get("meta"), dict) else {}
        made = [block for _, blocks in _turns(row) for block in blocks if isinstance(block, Call)]
        names += [name for name in meta.get("tools") or [] if isinstance(name, str)] + [call.name for call in made]
        contexts = [] if meta.get("defect") == "foreign_ids" else [call.arguments.get("context") for call in made]
        for found in (meta, *contexts):
            for key in ("sessionId", "workspaceId") if isinstance(found, dict) else ():
                if isinstance(found.get(key), str):
                    ids.setdefault(key, found[key])
    return names, ids


def _segments(blocks: list) -> Iterator[tuple[list, Result | None]]:
    """(blocks up to a result, the result); the last pair's result is None."""
    segment: list = []
    for block in blocks:
        if isinstance(block, Result):
            yield segment, block
            segment = []
        else:
            segment.append(block)
    yield segment, None


def _openai_turn(blocks: list, pick: random.Random) -> list[dict]:
    """Assistant and tool messages of one turn; a new assistant message begins where prose follows a call."""
    messages: list[dict] = []
    waiting: list[str] = []
    for block in blocks:
        if isinstance(block, Result):
            call_id = waiting.pop(0) if waiting else "".join(pick.choices(SYMBOLS, k=9))
            messages.append({"role": "tool", "tool_call_id": call_id, "content": dumps(block.value)})
            continue
        if isinstance(block, str):
            messages.append({"role": "assistant", "content": block})
            continue
        if not messages or messages[-1]["role"] != "assistant":
            messages.append({"role": "assistant", "content": None})
        call_id = "".join(pick.choices(SYMBOLS, k=9))
        waiting.append(call_id)
        source = dumps(block.arguments) if isinstance(block, Call) else block.source
        function = {"name": block.name, "arguments": source}
        messages[-1].setdefault("tool_calls", []).append({"id": call_id, "type": "function", "function": function})
    return messages


def _stem(row: dict) -> str:
    """What the two rows of a pair have in common: the id without its a or b."""
    row_id = str(row.get("id", ""))
    return row_id[:-1] if row_id[-1:] in ("a", "b") and row_id[-2:-1].isdigit() else row_id


def _knowable(block: calls.Block, prompt: list[dict]) -> calls.Block:
    """The block, a call with the ids that a model takes where the prompt names none in place of its own."""
    context = block.arguments.get("context") if isinstance(block, Call) else None
    if not isinstance(context, dict):
        return block
    told = "\n".join(message["content"] for message in prompt)
    ids = {
        key: plain
        for key, plain in UNNAMED.items()
        if isinstance(own := context.get(key), str) and ID.fullmatch(own) and own not in told
    }
    return block._replace(arguments=block.arguments | {"context": context | ids}) if ids else block


def _drawn(row_id: str) -> tuple[dict[str, str], random.Random]:
    """The ids of a row, and what its other choices are drawn from."""
    pick = random.Random(row_id)
    return {"sessionId": _draw_id(pick, "session"), "workspaceId": _draw_id(pick, "ws")}, pick


def _draw_id(pick: random.Random, kind: str) -> str:
    return f"{kind}_{pick.randrange(1_700_000_000_000, 1_760_000_000_000)}_{''.join(pick.choices(SYMBOLS, k=9))}"
