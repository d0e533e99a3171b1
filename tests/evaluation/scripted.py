"""Prompts, replies and an endpoint that answers from a table; no HTTP here, see tests/servers."""

import json
from collections.abc import Callable

from written_call import ARGUMENTS, TOOL

from toolset_nb.evaluation.agent import Attempt, Turn, read
from toolset_nb.servers import Answer, kinds

PROMPT = {
    "id": "full-01",
    "question": "Make the folder Scores",
    "tags": ["vaultManager", "single"],
    "expected_tools": [TOOL],
    "expected_arguments": {"path": ["Scores", "Scores/"]},
}
QUIET = {"id": "talk-01", "question": "Thank you!", "tags": ["talk"], "expected_tools": []}
TASK = {
    "id": "task-001",
    "question": "Make the folder Scores",
    "tags": ["single_call"],
    "expected_tools": [TOOL],
    "fixture": "music",
    "level": "explicit",
    "gold": [{"tool": TOOL, "arguments": {"path": "Scores"}}],
    "must_change": {"Scores/": {"folder": True}},
}
ASK = {**QUIET, "id": "ask-01", "question": "Delete it", "fixture": "music", "expected": "ask", "gold": []}


def answer(text: str | None, finish: str = "stop", error: str = "", tool_calls: list | None = None) -> Answer:
    return Answer(text, tool_calls, finish, 0.25, 9, 7, {"id": "x"}, error)


def single(answer: Answer) -> Attempt:
    """The attempt that one answer makes, nothing executed."""
    return Attempt([Turn(answer, read(answer))], stop="truncated" if answer.finish_reason == "length" else "single")


NATIVE = [{"function": {"name": TOOL, "arguments": json.dumps(ARGUMENTS)}}]


class Script:
    """An endpoint that answers from a table: the last user's words, or what a function of the chat returns."""

    url, model, kind = "http://127.0.0.1:1", "scripted", kinds()["openai"]

    def __init__(self, replies: dict | Callable):
        self.replies, self.asked = replies, []

    def context_length(self) -> int:
        return 0

    def ask(self, messages, **sampling):
        self.asked.append((list(messages), sampling))
        question = next(m["content"] for m in reversed(messages) if m["role"] == "user")
        reply = self.replies(messages) if callable(self.replies) else self.replies[question]
        if isinstance(reply, Exception):
            raise reply
        return answer(reply) if isinstance(reply, str) else reply


def prompts(count: int) -> list[dict]:
    return [{**PROMPT, "id": f"full-{n}", "question": f"q{n}"} for n in range(count)]


def manifest(label: str = "scripted", **settings) -> dict:
    """The manifest of a scripted evaluation."""
    from toolset_nb.evaluation import manifest as made
    from toolset_nb.settings import EvaluateSettings

    return made(label, Script({}), EvaluateSettings(**settings), prompts(1))
