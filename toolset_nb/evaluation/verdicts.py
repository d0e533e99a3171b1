"""Judging an attempt: what kind of reply it was, which measures hold, and what went wrong in a fixed vocabulary.

A reply is judged strictly: a call that only a lenient reader could make out is shown as rescued and counts as malformed, never
as an abstention. Without a sample vault passed means schema, context and right tool, or the words that were due; with one it
means that the vault looks as it should, nothing else has changed, and the kind of reply was the one that was due.
"""

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from toolset_nb import tasks
from toolset_nb.evaluation.agent import Attempt
from toolset_nb.rules import RESULT_LINE
from toolset_nb.tools import Problem, catalogue
from toolset_nb.vault.snapshots import diff

VERSION = 3  # of schemas/report.json; raised, too, where the same answer would be judged otherwise

MEASURES = {
    "well_formed": "well-formed call",
    "known_tool": "known tool",
    "schema": "arguments fit the schema",
    "context": "well-formed, valid context and ids",
    "right_tool": "right tool",
    "arguments": "right tool and named arguments",
    "action": "a call, a question, a refusal or words, as is due",
    "state": "executed: the vault is as it should be",
    "passed": "passed",
}
OPTIONAL = ("action", "state", "arguments")  # measures of prompts with a sample vault, or with named arguments, alone
ACTIONS = ("call", "ask", "refuse", "talk")
FAILURES = {
    "infra": "the server gave no usable answer",
    "malformed": "a call that cannot be read as written",
    "truncated": "cut at max_tokens",
    "no_call": "words where a call was due",
    "asked_needlessly": "a question where all was given",
    "unneeded_call": "a call where words were due",
    "should_ask": "no question where one was due",
    "hallucinated_tool": "a tool that does not exist",
    "wrong_sibling": "another tool than the right one",
    "missing_arg": "a required argument left out",
    "extra_arg": "an argument that the tool does not have",
    "bad_type": "an argument of the wrong type or form",
    "bad_value": "an argument with another value than asked for",
    "bad_context": "the context block or its ids are wrong",
    "invented_result": "a result that no vault gave",
    "invented_path": "a path that is not in the vault, and no other call after it",
    "exec_error_unrecovered": "another call that the vault refused, and no other after it",
    "loop": "the same calls twice running",
    "max_turns": "never came to an end",
    "context_full": "the conversation outgrew the context",
    "wrong_state": "the vault is not as it should be",
    "collateral_change": "something else was changed",
    "wrong_answer_text": "words that do not do what was due",
}


@dataclass
class Record:
    """One attempt at one prompt, judged. Latency in seconds, of all its requests; `changes` is the vault's difference.

    `action` is what was done (call, ask, refuse, talk, malformed or infra), `expected` what was due.
    """

    case_id: str
    question: str
    tags: list[str]
    expected_tools: list[str]
    response_text: str | None = None
    latency_s: float = 0.0
    outcome: str = "infra"
    passed: bool = False
    error: str | None = None
    measures: dict[str, bool] = field(default_factory=dict)
    validator: dict[str, Any] = field(default_factory=dict)
    raw_response: Any = None
    trial: int = 0
    expected: str = "call"
    action: str = "infra"
    stop: str = "infra"
    turns: int = 0
    level: str = ""
    failures: list[str] = field(default_factory=list)
    recovered: bool | None = None
    changes: str = ""
    transcript: list[dict] = field(default_factory=list)
    prompt_tokens: int = 0
    completion_tokens: int = 0


def judge(prompt: dict, attempt: Attempt, trial: int = 0) -> Record:
    """The record of an attempt."""
    record = Record(
        prompt["id"],
        prompt["question"],
        prompt["tags"],
        prompt["expected_tools"],
        error=attempt.error,
        trial=trial,
        expected=expected_of(prompt),
        stop=attempt.stop,
        turns=len(attempt.turns),
        level=prompt.get("level", ""),
        transcript=_transcript(attempt),
    )
    if attempt.turns:
        record.latency_s = round(sum(turn.answer.latency for turn in attempt.turns), 3)
        record.prompt_tokens = sum(turn.answer.prompt_tokens for turn in attempt.turns)
        record.completion_tokens = sum(turn.answer.completion_tokens for turn in attempt.turns)
        record.response_text = "\n\n".join(
            turn.answer.text for turn in attempt.turns if turn.answer.text is not None
        ) or (attempt.turns[-1].answer.text)
        record.raw_response = attempt.turns[-1].answer.raw
    if attempt.error is not None:
        record.failures = ["infra"]
        return record
    _measure(record, prompt, attempt)
    return record


def _transcript(attempt: Attempt) -> list[dict]:
    """The chat as it was sent back; a reply that was written otherwise (a call made out leniently) has its words in `written`."""
    said = iter(turn.answer.text or "" for turn in attempt.turns)
    return [
        {**message, "written": words}
        if message["role"] == "assistant" and (words := next(said, "")).strip() != message["content"].strip()
        else message
        for message in attempt.chat
    ]


def _measure(record: Record, prompt: dict, attempt: Attempt) -> None:
    found = _Findings(prompt, attempt)
    record.outcome, record.action = found.outcome, found.action
    wanted, strict = prompt["expected_tools"], found.strict
    if wanted:
        measures = {
            "well_formed": strict,
            "known_tool": strict and all(name in catalogue().tools for name in found.names),
            "schema": strict and not found.schema,
            "context": strict and not found.context,
            "right_tool": strict and found.right_tools,
        }
    else:
        measures = {name: found.words_alone for name in MEASURES if name not in (*OPTIONAL, "passed")}
    if "expected_arguments" in prompt:
        named = prompt["expected_arguments"]
        measures["arguments"] = measures["right_tool"] and all(literal(named, call.arguments) for call in attempt.calls)
    if attempt.outcome:
        measures["action"] = not tasks.action_faults(prompt, attempt.outcome) and not found.broken
        measures["state"] = not found.faults
        ended = attempt.stop in ("single", "words")
        record.passed = measures["state"] and ended and (not found.unforgiven if wanted else found.words_alone)
        record.changes = str(diff(attempt.outcome.before, attempt.outcome.after)) if found.changed else ""
        failed = [not result["success"] for turn in attempt.turns for result in turn.results]
        record.recovered = record.passed if any(failed) and len(attempt.turns) > 1 else None
    else:
        called = strict and not found.problems and found.right_tools and not found.invented
        record.passed = called if wanted else found.words_alone
        if record.expected in ("ask", "refuse"):
            measures["action"] = found.words_alone and not tasks.word_faults(record.expected, found.last.reply.text)
            record.passed = record.passed and measures["action"]
    record.measures = {**measures, "passed": record.passed}
    record.failures = [] if record.passed else found.failures()
    record.validator = {
        "passed": strict and not found.problems,
        "rescued": found.rescued,
        "issues": [{"level": "ERROR", "message": message} for message in found.messages()],
        "tool_calls": [{"name": call.name, "arguments": call.arguments} for call in attempt.calls],
    }


class _Findings:
    """What can be said about an attempt."""

    def __init__(self, prompt: dict, attempt: Attempt):
        self.prompt, self.attempt, self.last = prompt, attempt, attempt.turns[-1]
        self.names, known = [call.name for call in attempt.calls], catalogue().tools
        checked = [(call, catalogue().check(call.name, call.arguments)) for call in attempt.calls]
        self.problems = [problem for _, found in checked for problem in found] + self._foreign_ids()
        self.context = [p for p in self.problems if re.match(r"arguments\.context(\W|$)", p.field)]
        self.schema = [p for p in self.problems if p not in self.context]
        self.invented = any(t.reply.results or RESULT_LINE.search(t.reply.text) for t in attempt.turns)
        self.rescued = any(turn.reply.rescued for turn in attempt.turns)
        self.truncated = self.last.answer.finish_reason == "length"
        calling = [turn for turn in attempt.turns if turn.reply.kind != "text"]
        self.strict = bool(calling) and all(turn.strict for turn in calling)
        reply = self.last.reply
        # looking first is no act: before a question it may be the best that can be done
        self.looked = expected_of(prompt) == "ask" and all(n in known and not known[n].mutates for n in self.names)
        self.words_alone = (
            (len(attempt.turns) == 1 or self.looked)
            and reply.kind == "text"
            and not self.last.answer.error
            and not self.truncated
        )
        self.broken = (
            bool(self.last.answer.error) or self.truncated or reply.kind in ("malformed", "empty") or self.rescued
        )
        self.faults = tasks.faults(prompt, attempt.outcome) if attempt.outcome else []
        self.changed = attempt.outcome and attempt.outcome.before.digest != attempt.outcome.after.digest
        # a fault in a call that the vault refused is forgiven when the rest went well; in one that it executed it is not
        flags = [result["success"] for turn in attempt.turns for result in turn.results]
        executed = zip(checked, flags, strict=False)
        self.unforgiven = not self.strict or any(found and done for (_, found), done in executed) or not any(flags)

    @property
    def right_tools(self) -> bool:
        """The expected tools, or one that answers as well, were called; with one reply as often as expected and no other, in
        several turns others may have been used to look."""
        wanted, called = Counter(self.prompt["expected_tools"]), Counter(self.names)
        for needed in self.prompt.get("must_call", []):
            others = [other["tool"] for other in needed.get("or", []) if called[other["tool"]] > wanted[other["tool"]]]
            if others and needed["tool"] not in called:
                called = called - Counter(others[:1]) + Counter([needed["tool"]])
        return wanted == called if len(self.attempt.turns) == 1 else wanted.keys() <= called.keys()

    @property
    def outcome(self) -> str:
        """The class of the reply that decides: the first one with a call, else the last."""
        if self.truncated:
            return "truncated"
        if self.last.answer.error or self.rescued or self.last.reply.kind == "malformed":
            return "malformed"
        calling = [turn.reply.kind for turn in self.attempt.turns if turn.reply.calls]
        return calling[0] if calling else self.last.reply.kind

    @property
    def action(self) -> str:
        if self.outcome in ("malformed", "truncated", "empty"):
            return "malformed"
        acted = self.names and not (self.looked and self.last.reply.text)
        return "call" if acted else said(self.last.reply.text)

    def failures(self) -> list[str]:
        """Why it did not pass, in the words of FAILURES, the most telling first."""
        expected, stop = expected_of(self.prompt), self.attempt.stop
        made = []
        if self.truncated:
            made.append("truncated")
        elif self.outcome in ("malformed", "empty"):
            made.append("malformed")
        elif expected == "call" and not self.names:
            made.append("asked_needlessly" if self.action == "ask" else "no_call")
        elif expected == "ask" and self.action != "ask":
            made.append("should_ask")
        elif expected in ("refuse", "talk") and self.names:
            made.append("unneeded_call")
        elif expected != "call":
            made.append("wrong_answer_text")
        if expected == "call" and self.names:
            unknown = [name for name in self.names if name not in catalogue().tools]
            made += ["hallucinated_tool"] if unknown else [] if self.right_tools else ["wrong_sibling"]
            made += [_kind(problem) for problem in self.schema if problem.field != "name"]
            made += ["bad_context"] if self.context else []
            made += ["invented_result"] if self.invented and not self.attempt.outcome else []
            made += self._execution()
        made += {"loop": ["loop"], "max_turns": ["max_turns"], "context": ["context_full"]}.get(stop, [])
        if any("should have stayed" in fault for fault in self.faults):
            made.append("collateral_change")
        elif self.faults and expected == "call" and self.names:
            made += ["wrong_state"] if self.prompt.get("must_change") else ["bad_value"] if self.right_tools else []
        return list(dict.fromkeys(made)) or ["wrong_state"]

    def _execution(self) -> list[str]:
        executed = [pair for t in self.attempt.turns for pair in zip(t.reply.calls, t.results, strict=False)]
        if not executed or executed[-1][1]["success"]:
            return []
        call, result = executed[-1]
        lost = result.get("code") in ("NOT_FOUND", "INVALID_PATH") and tasks.PATHS & call.arguments.keys()
        return ["invented_path"] if lost else ["exec_error_unrecovered"]

    def _foreign_ids(self) -> list[Problem]:
        """Ids of the first calls that are not those of the system message, where it names them."""
        system = next((m["content"] for m in self.attempt.chat[:1] if m["role"] == "system"), "")
        given = dict(re.findall(r"^(sessionId|workspaceId): (\S+)$", system, re.M))
        contexts = [
            c for call in self.attempt.turns[0].reply.calls if isinstance(c := call.arguments.get("context"), dict)
        ]
        return [
            Problem(f"arguments.context.{key}", repr(context[key]), f"the session's {value}")
            for context in contexts
            for key, value in given.items()
            if key in context and context[key] != value
        ]

    def messages(self) -> list[str]:
        """Why, in sentences."""
        wanted = self.prompt["expected_tools"]
        made = [f"{p.field}: found {p.found}, expected {p.expected}" for p in self.problems]
        for turn in self.attempt.turns:
            made += [message for message in [*turn.reply.problems, turn.answer.error] if message]
            made += [f"the vault: {result['error']}" for result in turn.results if not result["success"]]
        if not wanted and self.last.reply.kind == "empty" and not self.last.answer.error:
            made.append("an empty reply, expected text")
        made += self.faults
        if self.invented and not self.attempt.outcome:
            made.append(FAILURES["invented_result"])
        if self.rescued:
            made.append("the call is readable only leniently")
        if self.attempt.stop in ("loop", "max_turns"):
            made.append(FAILURES[self.attempt.stop])
        if not (self.right_tools if wanted else not self.names):
            called = f"called {', '.join(self.names)}" if self.names else "no call"
            made.append(f"{called}, expected {', '.join(wanted) or 'no call'}")
        return made


def expected_of(prompt: dict) -> str:
    """What is due: call, ask, refuse or talk."""
    return prompt.get("expected") or ("call" if prompt["expected_tools"] else "talk")


def agents(tools: list[str]) -> set[str]:
    """The agents that these tools belong to; a tool without one stands for itself."""
    known = catalogue().tools
    return {known[name].agent or name for name in tools if name in known}


def called(row: dict[str, Any]) -> str:
    """The tools that a record of a report called, or its kind of reply where it called none."""
    names = [call["name"] for call in row["validator"].get("tool_calls", [])]
    return ", ".join(names) or (row["action"] if row["outcome"] == "text" else row["outcome"])


def said(text: str) -> str:
    """What words do: ask, refuse or talk. A question or a request to say what is missing asks, most surely as the last sentence;
    refusals are told by their usual phrases."""
    last = re.split(r"(?<=[.!?:])\s+", text.strip().rstrip("\"'”’)*_"))[-1]
    if tasks.asks(last):
        return "ask"
    return "refuse" if tasks.refuses(text) else "ask" if tasks.asks(text) else "talk"


def literal(expected: dict[str, list], arguments: dict) -> bool:
    """Every named argument holds one of its allowed values; "" in the list allows it to be absent (BFCL's notation).

    Paths count by where they lead and ids exactly; prose without regard to blanks and capitals; numbers by their value.
    """
    for name, allowed in expected.items():
        if name in arguments:
            if not any(_same(name, value, arguments[name]) for value in allowed):
                return False
        elif "" not in allowed:
            return False
    return True


def _same(name: str, wanted: Any, given: Any) -> bool:
    if isinstance(wanted, bool) or isinstance(given, bool):
        return wanted is given
    return tasks.same(name, wanted, given)


def _kind(problem: Problem) -> str:
    if problem.found == "nothing" or problem.found == "none of these":
        return "missing_arg"
    return "extra_arg" if problem.found == "an unknown parameter" else "bad_type"
