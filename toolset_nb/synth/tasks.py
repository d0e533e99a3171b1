"""Making evaluation tasks: scenes on the vaults and with the wordings that training never sees, and hand-written ones.

Every task starts from a fresh copy of its vault. `mutations` gives wrong solutions of it, each of which its check has to refuse.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from toolset_nb import calls, tasks
from toolset_nb.paths import memory_folder, repo_root
from toolset_nb.synth import worlds
from toolset_nb.synth.generate import Filter, Funnel
from toolset_nb.synth.plays import PLAYS
from toolset_nb.synth.scenes import Rejected, Scene, texts, ungrounded
from toolset_nb.synth.wording import Speaker
from toolset_nb.synth.worlds import World
from toolset_nb.tools import CONTEXT_FIELDS, catalogue
from toolset_nb.vault import Vault, VaultError, fixtures
from toolset_nb.vault.snapshots import Snapshot

# Tasks of each play: of the executable set, and of the set on behaviour.
TASKS = {"single_call": 3, "ask_first": 3, "unable": 10, "small_talk": 5}
BEHAVIOUR = {"single_call": 0, "unable": 8, "small_talk": 4, "ask_first": 4, "verify_before_acting": 4}
OTHERS = 2
TRIES = 40
FOUND_OUT = {"multi_step", "verify_before_acting", "recover_from_error"}  # the goal is said, not the place
EXPECTED = {"ask_first": "ask", "ask_missing_argument": "ask", "unable": "refuse", "small_talk": "talk"}
NARROWED: dict[str, dict] = {  # arguments with which a look-up shows nothing of what was asked for
    "vaultManager_listDirectory": {"filter": "zzz"},
    "contentManager_readContent": {"offset": 1, "limit": 0},
    "vaultLibrarian_searchContent": {"paths": ["Nowhere"]},
    "vaultLibrarian_searchDirectory": {"pattern": "zzz"},
    "vaultLibrarian_searchMemory": {"dateRange": {"start": "1990-01-01", "end": "1990-01-02"}},
    "memoryManager_listSessions": {"limit": 0},
    "memoryManager_listStates": {"limit": 0},
    "memoryManager_listWorkspaces": {"limit": 0},
    "agentManager_listAgents": {"enabledOnly": True},
    "commandManager_listCommands": {"filter": "zzz"},
}
CONTINUED = {
    "memoryManager_createState",
    "memoryManager_loadSession",
    "memoryManager_loadState",
    "memoryManager_loadWorkspace",
}


def make(
    seed: int = 0, funnel: Funnel | None = None, counts: dict[str, int] = TASKS, name: str = "task"
) -> Iterator[dict]:
    """The tasks of every play, `counts` of each by its behaviour, the same for the same seed; their ids begin with `name`."""
    funnel, speaker, filter_ = funnel or Funnel(), Speaker(seed, "evaluation"), Filter("evaluation")
    names, number = fixtures.names("evaluation"), 0
    with tempfile.TemporaryDirectory(dir=memory_folder()) as folder:
        originals = {name: worlds.build(name, Path(folder) / name) for name in names}
        for key in sorted(PLAYS):
            missing = counts.get(key[0], OTHERS)
            for _ in range(TRIES):
                if not missing:
                    break
                number += 1
                home = names[number % len(names)]
                world = World(originals[home].copy(Path(folder) / f"{number}"), home, seed * 10_000 + number)
                world.begin()
                session = sorted(world.vault.state.data["sessions"])[0]
                scene = Scene(world, speaker, session, "default", refuses=filter_.refuses)
                funnel.seen += 1
                try:
                    task = _play(scene, key, filter_)
                except (Rejected, LookupError, VaultError, KeyError) as error:
                    funnel.reject(error.stage if isinstance(error, Rejected) else "scenario", key, str(error))
                    continue
                missing -= 1
                funnel.keep(key, task["expected_tools"])
                yield {"id": f"{name}-{sum(funnel.kept.values()):03d}"} | task


def _play(scene: Scene, key: tuple[str, str], filter_: Filter) -> dict:
    before = scene.world.vault.snapshot()
    PLAYS[key][1](scene)
    if missing := ungrounded(scene.request, scene.blocks):
        raise Rejected("grounding", missing)
    made = [block for block in scene.blocks if isinstance(block, calls.Call)]
    steps = [
        {"tool": call.name, "arguments": {k: v for k, v in call.arguments.items() if k != "context"}} for call in made
    ]
    expected = EXPECTED.get(key[0], "talk" if not made else "call")
    task = _request(scene.request, scene.world.name, key[0], _level(key[0], scene.request, steps), expected, steps)
    home = made[0].arguments["context"]["workspaceId"] if made else "default"
    if home != "default":
        task["workspace"] = home
    task |= _checks(steps, before, scene.world.vault.snapshot())
    writes = [catalogue().tools[step["tool"]].mutates for step in steps]
    looks = [step for at, step in enumerate(steps) if not any(writes[at:])]
    if key[0] == "several_calls":
        looks = [step for step, writing in zip(steps, writes, strict=True) if not writing]
    elif key[0] in FOUND_OUT | {"workspace_awareness"} or not task["must_change"]:
        looks = steps[-1:] if not any(writes) or not writes[-1] else looks
    if looks or (made and not task["must_change"]):
        task["must_call"] = [_with_others(step) for step in looks or steps[-1:]]
    filter_.take(scene)
    return task


def written(name: str) -> Iterator[dict]:
    """The tasks of datasets/prompts/written, their gold calls executed; raises ValueError for one that the vault refuses."""
    source = repo_root() / "datasets" / "prompts" / "written" / f"{name}.yaml"
    with tasks.Fixtures() as vaults:
        for number, entry in enumerate(yaml.safe_load(source.read_text(encoding="utf-8")), 1):
            steps = [
                {"tool": tool, "arguments": given} for step in entry.get("gold", []) for tool, given in step.items()
            ]
            level = "explicit" if len(steps) == 1 else "goal-only"
            kind = entry.get("expected", "call")
            label = name.replace("_", "-")
            task = _request(entry["question"], entry["fixture"], label, level, kind, steps)
            if "workspace" in entry:
                task["workspace"] = entry["workspace"]
            outcome = tasks.perform(vaults.copy(entry["fixture"]), gold(task)[0])
            for step, result in zip(steps, outcome.results, strict=True):
                if not result["success"]:
                    raise ValueError(f"{source.name}, task {number}: {step['tool']}: {result['error']}")
            task |= _checks(steps, outcome.before, outcome.after)
            writes = bool(steps) and catalogue().tools[steps[-1]["tool"]].mutates
            last = [] if not steps or (writes and task["must_change"]) else [len(steps) - 1]
            if need := [steps[at] for at in sorted({*entry.get("need", []), *last})]:
                task["must_call"] = [_with_others(step) for step in need]
            yield {"id": f"{label}-{number:03d}"} | task


def _request(question: str, fixture: str, kind: str, level: str, expected: str, steps: list[dict]) -> dict[str, Any]:
    return {
        "question": question,
        "tags": [kind, level],
        "expected_tools": [step["tool"] for step in steps],
        "fixture": fixture,
        "level": level,
        "expected": expected,
        "gold": steps,
        "expected_response": "call" if steps else "text",
    }


def _checks(steps: list[dict], before: Snapshot, after: Snapshot) -> dict[str, Any]:
    """What has to be different afterwards, and what may be."""
    said = " ".join(map(tasks.plain, texts([step["arguments"] for step in steps])))
    changed = tasks.expectations(before, after, said)
    bound = {name: state for name, state in changed.items() if not _byproduct(name, said)}
    opens = len(bound) < len(changed) or CONTINUED & {step["tool"] for step in steps}
    may = ["state/sessions/*"] if opens else []
    may += [name for name in _linking(steps, after) if name not in bound]
    return {"must_change": bound, "may_change": may, "must_not_change": ["*"]}


def _linking(steps: list[dict], after: Snapshot) -> list[str]:
    """Notes with a link into a folder that was renamed: moveFolder renames it as well as editFolder, and keeps links right."""
    renamed = [f"{step['arguments']['path']}/".encode() for step in steps if step["tool"] == "vaultManager_editFolder"]
    return sorted(
        name for name, text in after.files.items() if name.endswith(".md") and any(old in text for old in renamed)
    )


def _with_others(step: dict) -> dict:
    """A call that has to be made, with the one that answers the same: names of notes can be searched by either search."""
    given = step["arguments"]
    if step["tool"] != "vaultLibrarian_searchContent" or given.get("includeContent", True):
        return step
    names = {"query": given["query"], "paths": given.get("paths", [""])}
    return {**step, "or": [{"tool": "vaultLibrarian_searchDirectory", "arguments": names}]}


def _byproduct(name: str, said: str) -> bool:
    """A session that the vault opened by itself."""
    return name.startswith("state/sessions/") and tasks.plain(name.rpartition("/")[2]) not in said


def _level(behaviour: str, request: str, gold: list[dict]) -> str:
    if behaviour in FOUND_OUT or not gold:
        return "goal-only"
    said = request.casefold()
    values = [value for step in gold for value in texts(step["arguments"]) if "/" in value or "." in value]
    return "explicit" if all(value.casefold() in said for value in values) else "natural"


def context(task: dict) -> dict[str, str]:
    """Context fields for a gold call."""
    ids = {"sessionId": "session_1763000000000_g0ldg0ld0", "workspaceId": task.get("workspace", "default")}
    return dict.fromkeys(CONTEXT_FIELDS, "gold solution") | ids


def gold(task: dict) -> tuple[list[calls.Call], str]:
    """(calls, words) of the right solution."""
    made = [calls.Call(step["tool"], {"context": context(task), **step["arguments"]}) for step in task["gold"]]
    refused = task.get("expected") == "refuse"
    return made, "" if made else "I cannot do that with your notes." if refused else "Which one do you mean?"


def mutations(task: dict, vault: Vault) -> Iterator[tuple[str, list[calls.Call], str]]:
    """(name, calls, words) of wrong solutions; `vault` is the task's vault, untouched."""
    made, text = gold(task)
    notes = sorted(path for path in vault.snapshot().files if path.endswith(".md") and path not in task["must_change"])
    delete = calls.Call("vaultManager_deleteNote", {"context": context(task), "path": notes[0]})
    write = calls.Call(
        "contentManager_appendContent", {"context": context(task), "filePath": notes[1], "content": "more"}
    )
    yield "another note deleted as well", [*made, delete], text
    yield "another note written to as well", [*made, write], text
    if made:
        yield "nothing done", [], "Done."
        yield "the last call left out", made[:-1], text
        yield (
            "a call that the vault refuses",
            [*made[:-1], calls.Call(made[-1].name, {**made[-1].arguments, "context": None})],
            text,
        )
        looks = [{**step["arguments"], "tool": step["tool"]} for step in task.get("must_call", [])]
        given = [{key: value for key, value in call.arguments.items() if key != "context"} for call in made]
        narrowed = [
            calls.Call(call.name, NARROWED[call.name] | call.arguments)
            if call.name in NARROWED and {**own, "tool": call.name} in looks
            else call
            for call, own in zip(made, given, strict=True)
        ]
        if narrowed != made:
            yield "a look-up that shows nothing", narrowed, text
    else:
        yield "nothing said", [], ""
        yield (
            "a search instead of words",
            [calls.Call("vaultLibrarian_searchContent", {"context": context(task), "query": "x"})],
            "Here you are.",
        )
        yield (
            "a look instead of words",
            [calls.Call("vaultManager_listDirectory", {"context": context(task), "path": ""})],
            "Here you are.",
        )
