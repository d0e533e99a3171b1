"""One turn in the making: what the person asks, and the calls, results and words of the assistant, executed as they are written.

A behaviour (`behaviours`) plays a scene; a scene that cannot be played ends with `Rejected` or LookupError.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from toolset_nb import calls
from toolset_nb.synth import missteps, negatives, reports, scenarios
from toolset_nb.synth.scenarios import Check, Scenario, answered
from toolset_nb.synth.wording import OPENINGS, Said, Speaker, answers, behaviours, voices
from toolset_nb.synth.worlds import World
from toolset_nb.tools import catalogue
from toolset_nb.vault import VaultError

DRAWN = (1, 1, 2)  # how many of the last things done a call's memory told, when tasks were made
NARRATED = 0.35  # share of further calls that are announced
ENUMS = re.compile(r'"enum": (\[[^\]]*\])')


class Rejected(Exception):
    """A scene that breaks off at a stage of the funnel; `stage` names it."""

    def __init__(self, stage: str, reason: str):
        super().__init__(reason)
        self.stage = stage


@dataclass
class Scene:
    """A turn of one person with one assistant in a world; `memory` tells what was done before.

    It holds only what the conversation shows: a model could not know more, and would learn to make it up.
    """

    world: World
    speaker: Speaker
    session: str
    workspace: str
    named: str = "default"  # the workspace that the request names as where one works, in training that of every call
    memory: list[str] = field(default_factory=list)
    before: list[calls.Call] = field(default_factory=list)  # what was done before the request, which tells of it
    contrast: bool = False  # also collect wrong answers
    refuses: Callable[[str], str] = lambda request: ""  # why a request cannot be used
    request: str = ""
    blocks: list[calls.Block] = field(default_factory=list)
    wrong: negatives.Wrong = field(default_factory=list)
    results: list[dict] = field(default_factory=list)
    tools: list[str] = field(default_factory=list)
    variant: str = ""
    wording: str = ""  # of the request, and its language
    language: str = "en"
    about: dict[str, str] = field(default_factory=dict)  # what the session is about when a tool's call is the first
    goal: str = ""  # what the person wants in the end, the same for all calls of the turn
    opening: str = ""  # sessionMemory before anything was done
    tried: str = ""  # what the request says was tried and failed, for sessionMemory
    matched: negatives.Wrong = field(default_factory=list)  # wrong answers that a behaviour is there to avoid

    @property
    def training(self) -> bool:
        """Tasks are worded as they were first made; what came later is for training."""
        return self.speaker.split == "training"

    # the person ---------------------------------------------------------------------------------------------------

    def ask(self, behaviour: str, variant: str, slots: dict[str, str], like: str | None = None) -> None:
        """Word the request by a behaviour's own voices; `like` asks for the language of what stands inside."""
        self.aims(behaviour, variant, slots)
        self.asks(variant, self.speaker.request(behaviours()[behaviour][variant]["requests"], slots, like))

    def asks(self, variant: str, request: str) -> None:
        """Set the request, before anything is executed; raises Rejected for one that was made before or is reserved."""
        self.variant, self.request = variant, request
        if isinstance(request, Said):
            self.wording, self.language = request.wording, request.language
        if reason := self.refuses(request):
            raise Rejected("duplicate" if "before" in reason else "evaluation", reason)

    def aims(self, behaviour: str, variant: str, slots: dict[str, str]) -> None:
        """Set what the person wants in the end, in training, for a variant whose first call is not all of it."""
        if self.training and (goals := answers()["goals"].get(behaviour, {}).get(variant)):
            self.goal = self.speaker.fill(goals, slots)

    def wants(self, *scenarios: Scenario) -> None:
        """Let all of these be what the person wants in the end, in training."""
        if self.training:
            goals = [self.speaker.fill(answers()["reasons"][each.tool]["goal"], each.slots) for each in scenarios]
            self.goal = ", and ".join([goals[0], *(goal[:1].lower() + goal[1:] for goal in goals[1:])])

    def scenario(self, tool: str) -> Scenario:
        """A right call of a tool in this world."""
        return scenarios.make(self.world, tool)

    def words(self, scenario: Scenario, like: str | None = None) -> Said:
        """A request for one scenario."""
        return self.speaker.request(voices()[scenario.tool]["requests"][scenario.variant], scenario.slots, like)

    # the assistant ------------------------------------------------------------------------------------------------

    def context(self, tool: str, slots: dict[str, str], workspace: str = "") -> dict[str, str]:
        """The seven fields for this moment; in training they tell nothing that nobody told, the session by its first call."""
        voice = voices()[tool] | (answers()["reasons"][tool] if self.training else {})
        first = self.tools[0] if self.tools else tool
        if self.training and first not in self.about:
            self.about[first] = self.speaker.fill(voice["session"], slots)
        return {
            "sessionId": self.session,
            "workspaceId": self.named if self.training else workspace or self.workspace,
            "sessionDescription": self.about.get(first, self.world.theme),
            "sessionMemory": self.remembered(),
            "toolContext": self.speaker.fill(voice["why"], slots),
            "primaryGoal": self.goal or self.speaker.fill(voice["goal"], slots),
            "subgoal": self.speaker.fill(voice["step"], slots),
        }

    def remembered(self) -> str:
        """What failed before, and all that was done; else that nothing was."""
        self.speaker.pick.choice(DRAWN)  # for nothing, so that tasks are worded as they were
        if not self.memory:
            opening = self.speaker.choose(OPENINGS)
            self.opening = self.opening or opening
        return "; ".join(filter(None, [self.tried, *self.memory])) or self.opening

    def play(self, scenario: Scenario) -> dict:
        """Make the call of a scenario."""
        arguments = dict(scenario.arguments)
        return self.call(
            scenario.tool, scenario.slots, arguments, scenario.check, arguments.pop("_workspace", self.workspace)
        )

    def call(
        self,
        tool: str,
        slots: dict[str, str],
        arguments: dict,
        check: Check = answered,
        workspace: str = "",
        fails: bool = False,
    ) -> dict:
        """Make a call, execute it, and return its result; `fails` says that the vault has to refuse it. Raises Rejected."""
        made = {"context": self.context(tool, slots, workspace), **arguments}
        self._show_result()
        result = self._execute(tool, made, check, fails)
        self.blocks.append(calls.Call(tool, made))
        self.goal = made["context"]["primaryGoal"] if self.training else ""
        self.tools.append(tool)
        self.results.append(result)
        self.memory.append(self._told(tool, slots, result) if not fails else self._failed(slots))
        return result

    def did(self, scenario: Scenario) -> None:
        """Remember a call that the request tells of; in training it is made, and kept in `before`. Raises Rejected."""
        arguments = dict(scenario.arguments)
        home = arguments.pop("_workspace", "default")
        if self.training:
            made = {"context": self.context(scenario.tool, scenario.slots) | {"workspaceId": home}, **arguments}
            self._execute(scenario.tool, made, scenario.check)
            self.before.append(calls.Call(scenario.tool, made))
            self.about.clear()  # the turn is about something of its own
        self.memory.append(self.speaker.fill(voices()[scenario.tool]["memory"], scenario.slots))

    def _execute(self, tool: str, made: dict, check: Check, fails: bool = False) -> dict:
        if problems := catalogue().check(tool, made):
            raise Rejected("schema", f"{problems[0].field}: {problems[0].found}")
        result = self.world.vault.call(tool, made)
        if catalogue().tools[tool].mutates:
            self.world.changed()
        if result["success"] == fails:
            raise Rejected("execution", f"{result.get('code')} {result.get('error')}")
        try:
            if not fails and not check(self.world.vault, result):
                raise Rejected("state", "the vault does not look as it should")
        except (VaultError, LookupError, KeyError) as error:
            raise Rejected("state", str(error)) from None
        return result

    def _told(self, tool: str, slots: dict[str, str], result: dict) -> str:
        """What a later call remembers of this one; of a look-up not that its result was shown, since it was not yet."""
        if not self.training:
            return self.speaker.fill(voices()[tool]["memory"], slots)
        texts = answers()["memory"].get(tool) or voices()[tool]["memory"]
        return self.speaker.fill(texts, slots | reports.facts(tool, result))

    def _failed(self, slots: dict[str, str]) -> str:
        """What a later call remembers of one that failed: always the reading of a note that is not there.

        A speaker apart words it, so that tasks are worded as they were.
        """
        tried = behaviours()["recover"]["not_found"]["tried"]
        return self.speaker.apart(self.request).fill(tried, {"wrong": slots["path"]})

    def closing(self, scenario: Scenario) -> str:
        """Closing words after one call; in training they report what a look-up found or a prompt was answered.

        They are "" where there are none in the language of the request.
        """
        result = self.results[-1]
        if not self.training or not reports.tells(scenario.tool, result):
            return self.done(scenario.tool, scenario.slots)
        said = reports.closings(scenario.tool, result, self.language, scenario.arguments)
        if not said:
            return ""
        return self.speaker.fill(said, scenario.slots | reports.facts(scenario.tool, result, self.request))

    def done(self, tool: str, slots: dict[str, str]) -> str:
        """Words that a call was made, "" where there are none in the language of the request."""
        said = self._own.get(tool, []) if self._foreign else voices()[tool]["said"]
        return self.speaker.fill(said, slots) if said else ""

    def replies(self, behaviour: str, key: str = "replies", variant: str = "") -> list[str]:
        """The words of a behaviour's variant, none where there are none in the language of the request."""
        variant = variant or self.variant
        if not self._foreign:
            return behaviours()[behaviour][variant][key]
        return self._own.get(key, {}).get(variant) or self._own.get(self.tools[-1] if self.tools else "", [])

    @property
    def _foreign(self) -> bool:
        """Whether a request in training is not in English; then English answers it nowhere."""
        return self.training and self.language != "en"

    @property
    def _own(self) -> dict[str, Any]:
        return answers()["replies"].get(self.language, {})

    def say(self, text: str) -> None:
        """Words of the assistant, after the result of the call before them."""
        self._show_result()
        self.blocks.append(text)

    def reply(self, behaviour: str, key: str = "replies", variant: str = "", **slots: str) -> None:
        """The closing words of a behaviour's variant."""
        self.end(self.speaker.fill(self.replies(behaviour, key, variant), slots))

    def end(self, text: str) -> None:
        """Closing words; the call before them once more would be wrong."""
        if self.contrast and self.blocks and isinstance(self.blocks[-1], calls.Call):
            self.wrong += missteps.at_the_end(self, text)
        self.say(text)

    def narrate(self, kind: str, **slots: str) -> None:
        """Now and then a word before the next call, in English alone."""
        if self.speaker.chance(NARRATED) and not self._foreign:
            texts = behaviours()["after_result"][kind]["replies"]
            self.say(self.speaker.fill(answers()["narration"].get(kind, texts) if self.training else texts, slots))

    def _show_result(self) -> None:
        if self.blocks and isinstance(self.blocks[-1], calls.Call):
            self.blocks.append(calls.Result(self.results[-1]))


def ungrounded(request: str, blocks: list[calls.Block]) -> str:
    """A value of a call that nobody has said and no result has shown before it; "" when there is none."""
    known = request.casefold()
    for block in blocks:
        if isinstance(block, calls.Result):
            known += json.dumps(block.value, ensure_ascii=False).casefold()
        elif isinstance(block, calls.Call):
            for value in texts({key: value for key, value in block.arguments.items() if key != "context"}):
                if value not in implied() and not _said(value, known):
                    return f"{block.name}: {value!r:.50} is not said"
    return ""


@cache
def implied() -> frozenset[str]:
    """Values that follow from what is wanted and are not said: those that the registry lists, and a few fixed ones."""
    schemas = json.dumps([tool.parameters for tool in catalogue().tools.values()])
    listed = {value for found in ENUMS.findall(schemas) for value in json.loads(found) if isinstance(value, str)}
    fields = {"context.currentGoal", "context.purpose", "description"}
    return frozenset(listed | fields | {"", "/", "default", "global-workspace", "google", "md"})


def texts(value: Any) -> Iterator[str]:
    """Every text in a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from texts(part)


def _said(value: str, known: str) -> bool:
    value = value.casefold().strip()
    if value in known or json.dumps(value, ensure_ascii=False)[1:-1] in known:
        return True
    parts = value.removesuffix(".md").split("/")
    return all(part in known for part in parts)
