"""Wrong answers of more than one step, or where a behaviour is about something else than one call: what it is there to avoid.

They are made after the right calls, which stand in the scene; those where exactly one call is due are in `negatives`.
"""

import re
from typing import Any

from toolset_nb import calls
from toolset_nb.synth import scenarios, variety
from toolset_nb.synth.negatives import Wrong, again, called, with_context, wrong_argument

LIMITS = ("limit", "offset", "paths", "includeContent")
MODEL = {"provider": "simulated", "model": "sim-small"}
WORD = re.compile(r"[^\W\d_]{4,}")


def at_the_end(scene: Any, text: str) -> Wrong:
    """Wrong ends of a scene whose last call is made: the same call once more, or the closing words instead of it."""
    shown = [*scene.blocks, calls.Result(scene.results[-1])]
    before = scene.blocks[:-1]
    if before and isinstance(before[-1], str):
        before = before[:-1]
    found: Wrong = [("repeated_call", [*shown, text], [*shown, again(scene)])]
    if before:
        found.append(("text_without_call", list(scene.blocks), [*before, text]))
        found += _inside(scene, text)
    return found


def _inside(scene: Any, text: str) -> Wrong:
    """Wrong steps of a chain: the first look once more before the rest, or the last call on something else."""
    *before, last = scene.blocks
    shown, rest = [*scene.blocks, calls.Result(scene.results[-1]), text], scene.blocks[2:]
    look = scene.blocks[:2]
    found: Wrong = [
        ("repeated_call", shown, [*look, *look, *rest, *shown[-2:]]),
        ("repeated_call", list(scene.blocks), [*look, look[0]]),
    ]
    scenario = scenarios.Scenario(last.name, "", {}, last.arguments, scenarios.answered)
    for given in _other(scene, scenario, last.arguments):
        wrong = last._replace(arguments=given)
        result = calls.Result(scene.world.vault.rehearse(last.name, given))
        found.append(("wrong_argument", list(scene.blocks), [*before, wrong]))
        found.append(("wrong_argument", shown, [*before, wrong, result, text]))
    return found


def elsewhere(scene: Any) -> Wrong:
    """The call of a scene in another workspace than the one that is named, and in the default one."""
    call = next(block for block in scene.blocks if isinstance(block, calls.Call))
    here = call.arguments["context"]["workspaceId"]
    others = [key for key in [*scene.world.vault.state.data["workspaces"], "default"] if key != here]
    return [("foreign_ids", None, [with_context(call, {"workspaceId": key})]) for key in others]


def unlimited(scene: Any) -> Wrong:
    """The call of a scene without what limits it."""
    call = next(block for block in scene.blocks if isinstance(block, calls.Call))
    left = {key: value for key, value in call.arguments.items() if key not in LIMITS}
    return [("wrong_argument", None, [call._replace(arguments=left)])]


def of_two(scene: Any, first: scenarios.Scenario, second: scenarios.Scenario) -> Wrong:
    """Two calls were due: the second on something else, the first twice, or words that both are done after one."""
    one, result, two = scene.blocks
    said = [scene.done(each.tool, each.slots) for each in (first, second)]
    found: Wrong = [("repeated_call", None, [one, one])]
    if all(said):
        found.append(("text_without_call", list(scene.blocks), [one, result, " ".join(said)]))
    other = _other(scene, second, two.arguments)
    return [*found, *(("wrong_argument", None, [one, two._replace(arguments=given)]) for given in other)]


def _other(scene: Any, scenario: scenarios.Scenario, right: dict) -> list[dict]:
    """Arguments with one value that stands for something else."""
    return [given for _, given in wrong_argument(scene, scenario, right, scene.speaker.pick)]


def taken_up(scene: Any, named: dict[str, str]) -> list[calls.Block]:
    """A call made of what a request says where none was due: on the note or folder that it names, or on its words."""
    pick, request = scene.speaker.pick, scene.request
    words = [word for word in WORD.findall(request) if word in variety.telling([word])]
    start = pick.randrange(max(1, len(words) - 1))
    phrase = " ".join(words[start : start + 2]) or request[:40]
    options: list[tuple[str, dict, dict]] = [
        ("vaultLibrarian_searchContent", {"query": phrase}, {"query": phrase}),
        ("vaultLibrarian_searchMemory", {"query": phrase}, {"query": phrase, "workspaceId": "default"}),
        ("contentManager_createContent", {"path": f"{phrase}.md"}, {"filePath": f"{phrase}.md", "content": request}),
        ("memoryManager_createSession", {"name": phrase}, {"name": phrase}),
        ("agentManager_executePrompt", MODEL, MODEL | {"prompt": request}),
        ("commandManager_listCommands", {"word": phrase}, {"filter": phrase}),
    ]
    if note := named.get("note"):
        slots = scenarios.note_slots(note)
        options = [
            ("contentManager_readContent", slots, {"filePath": note}),
            ("vaultManager_openNote", slots, {"path": note}),
            ("contentManager_appendContent", slots | {"text": request}, {"filePath": note, "content": request}),
        ]
    if folder := named.get("folder"):
        options = [("vaultManager_listDirectory", {"folder": folder}, {"path": folder})]
    return called(scene, *pick.choice(options))
