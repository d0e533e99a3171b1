"""What to know about an endpoint before a long run, in plain words, with what to do about it.

Five questions: does it answer, is the model there, does a prompt with its reply fit the context, does the model see the tools
when they go by the API, and what does it reply to a first prompt. A handful of requests, no more than a few seconds each.
"""

import html
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from toolset_nb import calls
from toolset_nb.evaluation.agent import read
from toolset_nb.evaluation.prompts import messages, offered_tools, request_options
from toolset_nb.evaluation.targets import asking
from toolset_nb.servers.endpoint import RequestFailed
from toolset_nb.servers.kinds import connect, is_server
from toolset_nb.settings import EvaluateSettings

MARKS = {True: "✓", False: "✗", None: "–"}
CHARACTERS = 3.0  # of English and JSON to a token, on the safe side


@dataclass(frozen=True)
class Check:
    """One question: `ok` is None where it could not be asked or does not matter; `remedy` says what to do."""

    name: str
    ok: bool | None
    found: str
    remedy: str = ""


@dataclass(frozen=True)
class Card:
    """What was found of one endpoint."""

    target: str
    checks: list[Check]
    models: list[str]

    @property
    def ready(self) -> bool:
        """Whether a run makes sense: no question was answered with no."""
        return all(check.ok is not False for check in self.checks)

    def __str__(self) -> str:
        lines = [self.target]
        for check in self.checks:
            lines.append(f"  {MARKS[check.ok]} {check.name}: {check.found}")
            if check.remedy and check.ok is False:
                lines.append(f"      {check.remedy}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        shades = {True: "#0b6e4f", False: "#a4133c", None: "#777"}
        rows = "".join(
            f'<tr><td style="color:{shades[c.ok]}">{MARKS[c.ok]}</td><td style="text-align:left">{html.escape(c.name)}</td>'
            f'<td style="text-align:left">{html.escape(c.found)}'
            + (f"<br><i>{html.escape(c.remedy)}</i>" if c.remedy and c.ok is False else "")
            + "</td></tr>"
            for c in self.checks
        )
        return f"<b>{html.escape(self.target)}</b><table>{rows}</table>"


def preflight(target: str, settings: EvaluateSettings, prompts: list[dict]) -> Card:
    """The card of a server named as in `targets`, asked as an evaluation asks it; never raises for what a server does."""
    settings = asking(target, settings)
    try:
        options = {"timeout": min(settings.timeout, 60), "retries": 0, "context": settings.context}
        endpoint = connect(target, settings.host, settings.port, **options)
    except RequestFailed as error:
        return Card(target, [_unreachable(target, str(error))], [])
    with endpoint:
        return card(endpoint, settings, prompts)


def card(endpoint: Any, settings: EvaluateSettings, prompts: list[dict]) -> Card:
    """The card of an open endpoint."""
    title = f"{endpoint.kind.title} at {endpoint.url}"
    try:
        known = endpoint.models()
    except RequestFailed as error:
        return Card(title, [Check("answers", False, str(error), endpoint.kind.start)], [])
    there = endpoint.model in known or f"{endpoint.model}:latest" in known
    checks = [
        Check("answers", True, f"{len(known)} models"),
        Check(
            "model",
            there,
            endpoint.model or "none" if there else f"{endpoint.model!r} is not among {', '.join(known[:6]) or 'none'}",
            "name one of these after the #",
        ),
    ]
    questions: list[Callable[[], Check]] = [
        lambda: _context(endpoint, settings, prompts),
        lambda: _tools(endpoint, settings, prompts[0]),
        lambda: _canary(endpoint, settings, prompts[0]),
    ]
    for question in questions:
        try:
            checks.append(question())
        except RequestFailed as error:
            checks.append(Check("a first reply", False, str(error), endpoint.kind.start))
            break
    return Card(title, checks, known)


def _unreachable(target: str, message: str) -> Check:
    from toolset_nb.servers.kinds import kinds

    name = target.partition("#")[0].partition("+")[0]
    kind = kinds().get(name, kinds()["openai"])
    return Check("answers", False, message, kind.start if is_server(target) else "name a server")


def _context(endpoint: Any, settings: EvaluateSettings, prompts: list[dict]) -> Check:
    """Does the longest prompt with a reply fit?"""
    length = endpoint.context_length()
    longest = max(
        sum(len(message["content"]) for message in messages(prompt, settings))
        + len(calls.dumps(offered_tools(prompt, settings) or ""))
        for prompt in prompts
    )
    needed = int(longest / CHARACTERS) + settings.max_tokens
    if not length:
        return Check("context", None, f"not told by the server; about {needed} tokens are needed")
    return Check("context", length >= needed, f"{length} tokens, about {needed} needed", endpoint.kind.length)


def _tools(endpoint: Any, settings: EvaluateSettings, prompt: dict) -> Check:
    """Are the tools in the prompt that the model reads? Told by its tokens, with and without them."""
    tools = offered_tools(prompt, settings)
    if not tools:
        how = "in the system message" if settings.tool_exposure != "none" else "not shown"
        return Check("tools", None, how)
    chat = messages(prompt, settings)
    without = endpoint.ask(chat, max_tokens=1, temperature=0).prompt_tokens
    shown = endpoint.ask(chat, tools=tools, max_tokens=1, temperature=0).prompt_tokens
    least = len(calls.dumps(tools)) / 12  # a template may shorten them, not leave them out
    found = f"{shown - without} tokens of the prompt tell the {len(tools)} tools"
    if not shown:
        return Check("tools", None, "the server counts no tokens")
    return Check("tools", shown - without >= least, found, endpoint.kind.tools)


def _canary(endpoint: Any, settings: EvaluateSettings, prompt: dict) -> Check:
    """What does it reply to a first prompt?"""
    answer = endpoint.ask(messages(prompt, settings), **request_options(settings, offered_tools(prompt, settings)))
    reply = read(answer, settings.constrained)
    what = answer.error[:80] or ", ".join(call.name for call in reply.calls) or reply.kind
    readable = "readable only leniently, " if reply.rescued else ""
    speed = answer.completion_tokens / answer.latency if answer.latency else 0
    dropped = (
        f"; left out of requests: {', '.join(sorted(endpoint.dropped))}" if getattr(endpoint, "dropped", None) else ""
    )
    remedy = (
        "an untuned model often writes words or a broken call here: the evaluation counts that, it does not hide it"
    )
    good = bool(reply.calls) and not reply.rescued and not answer.error
    return Check("a first reply", good or None, f"{readable}{what}, {speed:.0f} tokens/s{dropped}", remedy)
