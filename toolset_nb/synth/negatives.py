"""Wrong answers to a prompt, each with the defect it shows: rehearsed on the vault, so that what is called wrong did go wrong.

A wrong call keeps the context and the style of the right one. It is kept only if the vault refuses it, or if it succeeds and the
right call's own check does not hold afterwards.
"""

import copy
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

from toolset_nb import calls, rules
from toolset_nb.synth import scenarios
from toolset_nb.synth.wording import answers
from toolset_nb.synth.worlds import join
from toolset_nb.tools import CONTEXT_FIELDS, catalogue

# (defect, the right answer where it is not the whole of the scene, the wrong answer)
Wrong = list[tuple[str, list[calls.Block] | None, list[calls.Block]]]

# What is easily taken for a tool, and how its arguments would be carried over (right name -> wrong name).
SIBLINGS: dict[str, list[tuple[str, dict[str, str]]]] = {
    "vaultManager_createFolder": [("contentManager_createContent", {"path": "filePath"})],
    "vaultManager_deleteFolder": [("vaultManager_deleteNote", {"path": "path"})],
    "vaultManager_editFolder": [("vaultManager_createFolder", {"newPath": "path"})],
    "vaultManager_moveFolder": [("vaultManager_createFolder", {"newPath": "path"})],
    "vaultManager_deleteNote": [
        ("vaultManager_deleteFolder", {"path": "path"}),
        ("vaultManager_openNote", {"path": "path"}),
    ],
    "vaultManager_moveNote": [
        ("vaultManager_duplicateNote", {"path": "sourcePath", "newPath": "targetPath"}),
        ("vaultManager_moveFolder", {"path": "path", "newPath": "newPath"}),
    ],
    "vaultManager_duplicateNote": [("vaultManager_moveNote", {"sourcePath": "path", "targetPath": "newPath"})],
    "vaultManager_listDirectory": [("contentManager_readContent", {"path": "filePath"})],
    "vaultManager_openNote": [("contentManager_readContent", {"path": "filePath"})],
    "contentManager_createContent": [("contentManager_appendContent", {"filePath": "filePath", "content": "content"})],
    "contentManager_readContent": [("vaultManager_openNote", {"filePath": "path"})],
    "contentManager_appendContent": [
        ("contentManager_createContent", {"filePath": "filePath", "content": "content"}),
        ("contentManager_prependContent", {"filePath": "filePath", "content": "content"}),
    ],
    "contentManager_prependContent": [("contentManager_appendContent", {"filePath": "filePath", "content": "content"})],
    "contentManager_replaceContent": [
        ("contentManager_deleteContent", {"filePath": "filePath", "oldContent": "content"})
    ],
    "contentManager_replaceByLine": [
        ("contentManager_appendContent", {"filePath": "filePath", "newContent": "content"})
    ],
    "contentManager_deleteContent": [("vaultManager_deleteNote", {"filePath": "path"})],
    "contentManager_findReplaceContent": [
        ("contentManager_deleteContent", {"filePath": "filePath", "findText": "content"})
    ],
    "vaultLibrarian_searchContent": [
        ("vaultLibrarian_searchMemory", {"query": "query"}),
        ("commandManager_listCommands", {"query": "filter"}),
    ],
    "vaultLibrarian_searchDirectory": [("vaultLibrarian_searchContent", {"query": "query", "paths": "paths"})],
    "vaultLibrarian_searchMemory": [("vaultLibrarian_searchContent", {"query": "query"})],
    "memoryManager_createSession": [("memoryManager_listSessions", {})],
    "memoryManager_loadSession": [("memoryManager_updateSession", {"targetSessionId": "targetSessionId"})],
    "memoryManager_listSessions": [("memoryManager_listStates", {"limit": "limit", "order": "order"})],
    "memoryManager_updateSession": [("memoryManager_createSession", {"name": "name", "description": "description"})],
    "memoryManager_createState": [("memoryManager_createSession", {"name": "name"})],
    "memoryManager_loadState": [("memoryManager_loadSession", {"stateId": "targetSessionId"})],
    "memoryManager_listStates": [("memoryManager_listSessions", {"limit": "limit"})],
    "memoryManager_updateState": [("memoryManager_loadState", {"stateId": "stateId"})],
    "memoryManager_createWorkspace": [("vaultManager_createFolder", {"rootFolder": "path"})],
    "memoryManager_listWorkspaces": [("memoryManager_listSessions", {"limit": "limit"})],
    "memoryManager_loadWorkspace": [("memoryManager_loadSession", {"id": "targetSessionId"})],
    "memoryManager_updateWorkspace": [("memoryManager_loadWorkspace", {"workspaceId": "id"})],
    "agentManager_createAgent": [("contentManager_createContent", {"name": "filePath", "prompt": "content"})],
    "agentManager_updateAgent": [("agentManager_getAgent", {"id": "id"})],
    "agentManager_deleteAgent": [("agentManager_toggleAgent", {"id": "id"})],
    "agentManager_toggleAgent": [("agentManager_getAgent", {"id": "id"}), ("agentManager_deleteAgent", {"id": "id"})],
    "agentManager_getAgent": [("agentManager_listAgents", {})],
    "agentManager_listAgents": [("agentManager_listModels", {}), ("memoryManager_listWorkspaces", {})],
    "agentManager_listModels": [("agentManager_listAgents", {})],
    "agentManager_executePrompt": [("agentManager_createAgent", {"prompt": "prompt", "model": "name"})],
    "agentManager_batchExecutePrompt": [("agentManager_listModels", {})],
    "agentManager_generateImage": [("contentManager_createContent", {"savePath": "filePath", "prompt": "content"})],
    "commandManager_listCommands": [("get_tools", {})],
    "commandManager_executeCommand": [("commandManager_listCommands", {"commandId": "filter"})],
    "get_tools": [("commandManager_listCommands", {})],
}
MOST_RESULT = 500  # characters of a result that is shown after a single call
RECORDS = {  # argument (of a tool) -> where the records lie that it names
    "targetSessionId": "sessions", "stateId": "states", "workspaceId": "workspaces", "commandId": "commands", "id": "agents",
    "memoryManager_loadWorkspace id": "workspaces", "agentManager_getAgent name": "agents",
}  # fmt: skip
PATHS = {"path", "filePath", "sourcePath", "newPath", "targetPath", "savePath"}
MISNAMED = {
    "filePath": "path", "path": "filePath", "newPath": "destination", "content": "text", "oldContent": "old", "newContent": "new",
    "query": "searchQuery", "paths": "folders", "targetSessionId": "session", "stateId": "state", "id": "identifier",
    "name": "title", "prompt": "text", "commandId": "command", "tools": "names", "limit": "max", "sourcePath": "source",
    "targetPath": "target",
    "findText": "search", "replaceText": "replacement", "savePath": "file", "operations": "steps", "searches": "queries",
    "prompts": "tasks", "rootFolder": "folder", "fieldPath": "field", "newValue": "value", "startLine": "start", "endLine": "end",
}  # fmt: skip


def instead_of_call(scene: Any, scenario: scenarios.Scenario) -> Wrong:
    """Wrong answers where exactly this call is due; to be made before the right call is."""
    pick: random.Random = scene.speaker.pick
    arguments = dict(scenario.arguments)
    context = scene.context(scenario.tool, scenario.slots, arguments.pop("_workspace", scene.workspace))
    right = {"context": context, **arguments}
    found: Wrong = []
    for defect, made in MADE.items():
        for name, given in made(scene, scenario, right, pick):
            sound = not catalogue().check(name, given)
            if sound == (defect in rules.SEMANTIC) and _goes_wrong(scene, scenario, name, given):
                found.append((defect, None, [calls.Call(name, given)]))
    found += [("malformed_call", None, [block]) for block in _malformed(scenario.tool, right, pick)]
    return found


def of_call(scene: Any, scenario: scenarios.Scenario) -> Wrong:
    """Wrong answers made of words, or of the right call itself, which stands in the scene now."""
    call = next(block for block in scene.blocks if isinstance(block, calls.Call))
    ids = {"sessionId": scene.speaker.pick.choice(made_up(call.arguments["context"]))}
    said = scene.done(scenario.tool, scenario.slots)
    found: Wrong = [
        ("foreign_ids", None, [with_context(call, ids)]),
        ("repeated_call", None, [call, call]),
        *([("text_without_call", None, [said])] if said else []),
        *(("needless_question", None, [question]) for question in _questions(scene, scenario)),
    ]
    if len(str(scene.results[-1])) < MOST_RESULT and (closing := scene.closing(scenario)):
        shown = [*scene.blocks, calls.Result(scene.results[-1])]
        found.append(("repeated_call", [*shown, closing], [*shown, again(scene)]))
    return found


def made_up(context: dict[str, str]) -> list[str]:
    """Session ids in a form that no session has."""
    theme, workspace = context["sessionDescription"], context["workspaceId"]
    plain = ["session_1", "current", "abc123", "s1", "session", "default", "my-session", "<sessionId>", "none", "0"]
    return [
        *plain,
        theme,
        theme.split()[0].lower(),
        workspace,
        f"session_{theme.split()[-1]}",
        context["sessionId"][:12],
    ]


def with_context(call: calls.Call, fields: dict[str, str]) -> calls.Call:
    """A call with other context fields."""
    return call._replace(arguments=call.arguments | {"context": call.arguments["context"] | fields})


def again(scene: Any) -> calls.Call:
    """The last call once more, remembering that it was made."""
    last = next(block for block in reversed(scene.blocks) if isinstance(block, calls.Call))
    memory = {"sessionMemory": "; ".join(scene.memory[-2:])}
    return last._replace(arguments=last.arguments | {"context": last.arguments["context"] | memory})


def called(scene: Any, tool: str, slots: dict, arguments: dict) -> list[calls.Block]:
    """A call that is well formed and ought not to be made."""
    given = {key: value for key, value in arguments.items() if key != "_workspace"}
    return [calls.Call(tool, {"context": scene.context(tool, slots, arguments.get("_workspace", "")), **given})]


def _goes_wrong(scene: Any, scenario: scenarios.Scenario, name: str, given: dict) -> bool:
    """Whether the vault refuses the call, or does what was not wanted."""
    if catalogue().check(name, given):
        return True
    result = scene.world.vault.rehearse(name, given)
    if not result["success"] or name != scenario.tool:
        return True
    plain = {key: value for key, value in scenario.arguments.items() if key != "_workspace"}
    return {key: value for key, value in given.items() if key != "context"} != plain


def _wrong_tool(
    scene: Any, scenario: scenarios.Scenario, right: dict, pick: random.Random
) -> Iterator[tuple[str, dict]]:
    for tool, names in SIBLINGS.get(scenario.tool, []):
        given = {"context": right["context"]} | {new: right[old] for old, new in names.items() if old in right}
        if tool == "get_tools":
            given["tools"] = []
        if not catalogue().check(tool, given):
            yield tool, given


def _missing_argument(
    scene: Any, scenario: scenarios.Scenario, right: dict, pick: random.Random
) -> Iterator[tuple[str, dict]]:
    required = [key for key in catalogue().tools[scenario.tool].parameters.get("required", []) if key in right]
    if required:
        dropped = pick.choice(required)
        yield scenario.tool, {key: value for key, value in right.items() if key != dropped}


def _unknown_argument(
    scene: Any, scenario: scenarios.Scenario, right: dict, pick: random.Random
) -> Iterator[tuple[str, dict]]:
    known = catalogue().tools[scenario.tool].parameters["properties"]
    fitting = [key for key in right if MISNAMED.get(key, key) not in known and key in MISNAMED]
    if fitting:
        renamed = pick.choice(fitting)
        yield scenario.tool, {MISNAMED[key] if key == renamed else key: value for key, value in right.items()}


def _wrong_type(
    scene: Any, scenario: scenarios.Scenario, right: dict, pick: random.Random
) -> Iterator[tuple[str, dict]]:
    keys = [key for key in right if key != "context"]
    if keys:
        key = pick.choice(keys)
        value = right[key]
        if isinstance(value, bool | int | float):
            yield scenario.tool, right | {key: str(value).lower()}
        elif isinstance(value, list):
            yield scenario.tool, right | {key: json.dumps(value, ensure_ascii=False)}
        elif isinstance(value, str):
            yield scenario.tool, right | {key: [value]}


def wrong_argument(
    scene: Any, scenario: scenarios.Scenario, right: dict, pick: random.Random
) -> Iterator[tuple[str, dict]]:
    """The right call with one value that stands for something else; none where no value has another of its kind."""
    world = scene.world
    for key, value in right.items():
        if key in PATHS and isinstance(value, str) and value:
            others = world.notes() if value.endswith(".md") else world.folders()
            yield scenario.tool, right | {key: pick.choice(others)}
            return
        if key in ("limit", "offset", "startLine", "depth") and isinstance(value, int):
            yield scenario.tool, right | {key: value + pick.choice([1, 2, 5])}
            return
        if key == "query":
            yield scenario.tool, right | {key: world.query()}
            return
        if table := RECORDS.get(f"{scenario.tool} {key}", RECORDS.get(key)):
            records, field = world.vault.state.data[table].values(), "name" if key == "name" else "id"
            if others := [record[field] for record in records if record[field] != value]:
                yield scenario.tool, right | {key: pick.choice(others)}
            return


def _invented_path(
    scene: Any, scenario: scenarios.Scenario, right: dict, pick: random.Random
) -> Iterator[tuple[str, dict]]:
    for key in ("filePath", "path", "sourcePath"):
        value = right.get(key)
        if isinstance(value, str) and value and scene.world.vault.tree.kind(value):
            name = value.rpartition("/")[2]
            wrong = join(pick.choice(scene.world.folders()), name) if pick.random() < 0.5 or "/" not in value else name
            if scene.world.vault.tree.kind(wrong) is None:
                yield scenario.tool, right | {key: wrong}
            return


def _context(change: Callable[[dict, random.Random], dict]) -> Callable:
    def made(scene: Any, scenario: scenarios.Scenario, right: dict, pick: random.Random) -> Iterator[tuple[str, dict]]:
        yield scenario.tool, right | {"context": change(right["context"], pick)}

    return made


def _drop_field(context: dict, pick: random.Random) -> dict:
    dropped = pick.sample(CONTEXT_FIELDS[2:], pick.choice([1, 2]))
    return {key: value for key, value in context.items() if key not in dropped}


def _unknown_tool(
    scene: Any, scenario: scenarios.Scenario, right: dict, pick: random.Random
) -> Iterator[tuple[str, dict]]:
    agent, _, mode = scenario.tool.partition("_")
    others = [name for name in catalogue().agents if name != agent]
    made = [f"{agent}.{mode}", mode, f"{pick.choice(others)}_{mode}", f"{agent}_{mode}Tool"]
    name = pick.choice([name for name in made if name and name not in catalogue().tools])
    yield name, right


def _unfinished(
    scene: Any, scenario: scenarios.Scenario, right: dict, pick: random.Random
) -> Iterator[tuple[str, dict]]:
    for key in ("operations", "searches", "prompts"):
        if key in right:
            yield scenario.tool, right | {key: right[key][:1]}


MADE: dict[str, Callable] = {
    "wrong_tool": _wrong_tool,
    "missing_argument": _missing_argument,
    "unknown_argument": _unknown_argument,
    "wrong_type": _wrong_type,
    "wrong_argument": wrong_argument,
    "invented_path": _invented_path,
    "empty_session_memory": _context(lambda context, pick: context | {"sessionMemory": ""}),
    "missing_context": _context(_drop_field),
    "unknown_tool": _unknown_tool,
    "unfinished": _unfinished,
}


def _malformed(tool: str, right: dict, pick: random.Random) -> list[calls.Broken]:
    """The right call with one thing wrong in its JSON."""
    text = calls.dumps(copy.deepcopy(right))
    kind = pick.choice(["cut", "brace", "quotes", "comma"])
    if kind == "cut":
        return [calls.Broken(tool, text[: pick.randint(len(text) * 3 // 4, len(text) - 3)])]
    if kind == "brace":
        return [calls.Broken(tool, text[:-1])]
    if kind == "comma":
        return [calls.Broken(tool, text.replace('", "', '" "', 1))]
    return [calls.Broken(tool, text.replace('"', "'", 2))]


def _questions(scene: Any, scenario: scenarios.Scenario) -> list[str]:
    """A question where all was given, about what this call needs; bare, and in more words."""
    question = scene.speaker.fill(answers()["questions"][scenario.tool], scenario.slots)
    return [question, scene.speaker.fill(answers()["questions"]["longer"], {"question": question})]
