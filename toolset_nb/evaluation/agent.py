"""One attempt at a prompt: asking, executing the calls on a private vault, giving the results back, until it is over.

Without a sample vault, or with `max_turns` 1, there is one reply. Every other attempt goes on until the model answers in words
alone. Judging is in `verdicts`.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from toolset_nb import calls, tasks
from toolset_nb.evaluation.prompts import messages, offered_tools, request_options
from toolset_nb.servers import Answer, RequestFailed
from toolset_nb.settings import EvaluateSettings

TURNS = 6  # of a prompt with a vault, when max_turns is 0
MOST_RESULT = 3000  # characters of one result that the model is shown


@dataclass
class Turn:
    """One reply and what its calls returned; `executed` is false for a reply that nobody could act on."""

    answer: Answer
    reply: calls.Reply
    results: list[dict] = field(default_factory=list)
    executed: bool = False

    @property
    def strict(self) -> bool:
        """Whether its calls can be read exactly as written."""
        return (
            bool(self.reply.calls)
            and self.reply.kind in ("call", "text_call")
            and not (self.reply.rescued or self.answer.error)
        )


@dataclass
class Attempt:
    """What happened at one prompt.

    `stop`: `single` (one reply was asked for), `words`, `malformed`, `truncated`, `loop` (the same calls twice running),
    `max_turns`, `context` (the conversation outgrew the model's context) or `infra` (then `error` says what failed).
    """

    turns: list[Turn] = field(default_factory=list)
    chat: list[dict] = field(default_factory=list)
    stop: str = "single"
    outcome: tasks.Outcome | None = field(default=None, repr=False)  # whole vaults
    error: str | None = None

    @property
    def calls(self) -> list[calls.Call]:
        return [call for turn in self.turns for call in turn.reply.calls]


def attempt(endpoint: Any, prompt: dict, settings: EvaluateSettings, vaults: tasks.Fixtures, trial: int = 0) -> Attempt:
    """Ask `endpoint` one prompt; never raises for what a model or a server does."""
    vault = vaults.copy(prompt["fixture"]) if "fixture" in prompt else None
    made = Attempt(chat=messages(prompt, settings))
    try:
        before = vault.snapshot() if vault else None
        _converse(made, endpoint, prompt, settings, vault, trial)
        if vault and made.turns:
            results = [result for turn in made.turns for result in turn.results]
            executed = [call for turn in made.turns if turn.executed for call in turn.reply.calls]
            made.outcome = tasks.Outcome(executed, results, made.turns[-1].reply.text, before, vault.snapshot())
        return made
    finally:
        if vault:
            shutil.rmtree(vault.tree.root, ignore_errors=True)


def _converse(made: Attempt, endpoint: Any, prompt: dict, settings: EvaluateSettings, vault: Any, trial: int) -> None:
    tools = offered_tools(prompt, settings)
    due = prompt.get("expected", "call") == "call"
    limit = settings.max_turns or (TURNS if vault else 1)
    converse(made, endpoint, settings, vault, limit, tools, trial, lenient=not due)


def converse(
    made: Attempt,
    endpoint: Any,
    settings: EvaluateSettings,
    vault: Any = None,
    limit: int = TURNS,
    tools: list[dict] | None = None,
    trial: int = 0,
    lenient: bool = False,
    told: Callable[[Turn], None] = lambda turn: None,
) -> None:
    """Goes on with the chat of `made` until the model answers in words, or for `limit` replies.

    `lenient` executes calls that can only be made out: where no call is due, so that its damage shows. `told` hears of
    every turn before the next.
    """
    options = request_options(settings, tools, trial)
    for number in range(limit):
        try:
            answer = endpoint.ask(made.chat, **options)
        except RequestFailed as error:
            outgrown = any(words in str(error) for words in endpoint.kind.overflow)
            made.stop = "context" if outgrown else "infra"
            # a request that never fits is no fault of the model
            made.error = None if outgrown and number else str(error)
            return
        turn = Turn(answer, read(answer, settings.constrained))
        made.turns.append(turn)
        turn.executed = bool(vault and turn.reply.calls) and (turn.strict or lenient)
        if turn.executed:
            turn.results = [vault.call(call.name, call.arguments) for call in turn.reply.calls]
        made.chat += replay(turn, settings.call_format, len(made.chat))
        told(turn)
        made.stop = _ending(made.turns, limit if vault else 1)
        if made.stop != "max_turns":
            return


def _ending(turns: list[Turn], limit: int) -> str:
    """Why a conversation ends with this reply; `max_turns` when it would go on."""
    turn = turns[-1]
    if turn.answer.finish_reason == "length":
        return "truncated"
    if turn.answer.error or turn.reply.rescued or turn.reply.kind in ("malformed", "empty"):
        return "malformed"
    if limit == 1:
        return "single"
    if not turn.reply.calls:
        return "words"
    return "loop" if len(turns) > 1 and _repeats(turn, turns[-2]) else "max_turns"


def _repeats(turn: Turn, last: Turn) -> bool:
    """Whether it makes the last turn's calls again; after a refusal another context is another try."""
    worked = all(result["success"] for result in last.results)
    return _asked(turn) == _asked(last) and (worked or turn.reply.calls == last.reply.calls)


def _asked(turn: Turn) -> list[tuple[str, dict]]:
    """Its calls without the context, whose sentences change from call to call."""
    return [(call.name, {k: v for k, v in call.arguments.items() if k != "context"}) for call in turn.reply.calls]


def read(answer: Answer, constrained: bool = False) -> calls.Reply:
    """The reply of an answer; a constrained one may hold its words as {"text": ..}."""
    if constrained and answer.text and not answer.tool_calls:
        try:
            value = json.loads(answer.text)
            if isinstance(value, dict) and isinstance(value.get("text"), str):
                return calls.parse(value["text"])
        except (ValueError, RecursionError):
            pass
    return calls.parse(answer.text, answer.tool_calls)


def replay(turn: Turn, call_format: str, number: int) -> list[dict]:
    """A turn as history that every server accepts: calls as they were understood, broken ones as text, results cut.

    The ids of native calls begin with `number`, the place in the chat.
    """
    results = [_shown(result) for result in turn.results]
    if not (turn.answer.tool_calls and turn.executed):  # servers refuse a native call without its result
        text = calls.render(turn.reply.blocks, call_format)
        return [{"role": "assistant", "content": text}, *({"role": "tool", "content": result} for result in results)]
    made = [
        {
            "id": f"call{number}{at:05d}"[-9:],
            "type": "function",
            "function": {"name": call.name, "arguments": calls.dumps(call.arguments)},
        }
        for at, call in enumerate(turn.reply.calls)
    ]
    message = {"role": "assistant", "content": turn.reply.text, "tool_calls": made}
    told = [
        {"role": "tool", "tool_call_id": call["id"], "name": call["function"]["name"], "content": result}
        for call, result in zip(made, results, strict=False)
    ]
    return [message, *told]


def _shown(result: dict) -> str:
    text = calls.dumps(result)
    return text if len(text) <= MOST_RESULT else text[:MOST_RESULT] + f"... ({len(text) - MOST_RESULT} characters cut)"
