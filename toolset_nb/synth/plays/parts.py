"""What several plays are made of."""

import re
from collections.abc import Callable

from toolset_nb import calls
from toolset_nb.synth import negatives, reports, scenarios
from toolset_nb.synth.scenes import Scene
from toolset_nb.synth.wording import Said, Speaker, answers, behaviours, voices
from toolset_nb.synth.worlds import body, join, tellings, title

LONGEST_PART = 300  # characters of a request that stands inside another
CLOSED = 0.6  # share of the chains that end with words; the others end with the last call
TRIES = 12
FEW = 3  # hits that a look for one note asks for, in tasks
MOST_HITS = 5  # that it may show in training, where nothing limits it
THREE = re.compile(r"[\w'’-]+(?: [\w'’-]+){2}")  # words in a row
Play = Callable[[Scene], None]
BY_WORKSPACE = {  # tools that find and make records in the context's workspace alone
    "memoryManager_createSession",
    "memoryManager_listSessions",
    "memoryManager_loadSession",
    "memoryManager_createState",
    "memoryManager_listStates",
    "memoryManager_loadState",
}
TOGETHER = (  # tools whose calls need no long request
    "vaultManager_createFolder",
    "vaultManager_deleteNote",
    "vaultManager_moveNote",
    "vaultManager_duplicateNote",
    "vaultManager_listDirectory",
    "vaultManager_openNote",
    "contentManager_readContent",
    "contentManager_appendContent",
    "contentManager_prependContent",
    "contentManager_replaceContent",
    "contentManager_createContent",
    "vaultLibrarian_searchContent",
    "vaultLibrarian_searchDirectory",
    "memoryManager_createSession",
    "memoryManager_listStates",
    "memoryManager_listSessions",
    "memoryManager_listWorkspaces",
    "agentManager_listAgents",
    "agentManager_listModels",
    "agentManager_getAgent",
    "commandManager_listCommands",
    "commandManager_executeCommand",
)


def perform(scene: Scene, scenario: scenarios.Scenario, workspace: str = "") -> None:
    """Make a scenario's call, and before it the wrong ones, which leave no trace."""
    if workspace:
        scenario = scenario._replace(arguments=scenario.arguments | {"_workspace": workspace})
    if scene.contrast:
        scene.wrong += negatives.instead_of_call(scene, scenario)
    scene.play(scenario)
    if scene.contrast:
        scene.wrong += negatives.of_call(scene, scenario)


def avoids(scene: Scene, defect: str) -> None:
    """The behaviour is there to avoid the wrong answers with this defect."""
    scene.matched += [each for each in scene.wrong if each[0] == defect]
    scene.wrong = [each for each in scene.wrong if each[0] != defect]


def of_variant(scene: Scene, tool: str, wanted: str | set[str]) -> scenarios.Scenario:
    """A scenario of one of the wanted variants of a tool."""
    for _ in range(4 * TRIES):
        scenario = scene.scenario(tool)
        if scenario.variant in ({wanted} if isinstance(wanted, str) else wanted):
            return scenario
    raise LookupError(f"no scenario of {wanted}")


def short(scene: Scene, tools: tuple[str, ...] = ()) -> scenarios.Scenario:
    """A scenario whose facts are short enough for a longer request."""
    for _ in range(TRIES):
        tool = scene.world.pick.choice(tools or sorted(voices()))
        try:
            scenario = scene.scenario(tool)
        except LookupError:
            continue
        if sum(map(len, scenario.slots.values())) < LONGEST_PART:
            return scenario
    raise LookupError("no short scenario")


def findable(scene: Scene) -> tuple[str, str]:
    """(path, words) of a note that a search for these words shows first."""
    world = scene.world
    for _ in range(TRIES):
        path = world.note(least_lines=1)
        if len(world.text(path)) > 1500:
            continue
        try:
            topic = title(path) if scene.speaker.chance(0.4) else world.phrase(world.text(path), 2, 3)
        except LookupError:
            continue
        if _first(scene, topic) == path:
            return path, topic if scene.training else _plain(scene, path, topic)
    raise LookupError("no note is found first")


def _first(scene: Scene, topic: str) -> str:
    """The note that a search shows first, "" for none; in training it has to fit better than the second, among a few."""
    found = scene.world.vault.rehearse("vaultLibrarian_searchContent", bare(scene) | {"query": topic} | few(scene))
    hits = (found.get("data") or found)["results"] if found["success"] else []
    if scene.training and len(hits) > MOST_HITS:
        return ""
    alike = len(hits) > 1 and hits[0]["score"] == hits[1]["score"]
    return hits[0]["filePath"] if hits and not (alike and scene.training) else ""


def _plain(scene: Scene, path: str, topic: str) -> str:
    """A task's topic, but no field of front matter: then the note's name, or words of its text, whichever finds it.

    Nothing is drawn for that, so that the other tasks stay as they were made.
    """
    text = body(scene.world.text(path))
    if ": " not in topic or topic == title(path) or topic in text:
        return topic
    others = [title(path), *(words for words in THREE.findall(text) if len(tellings(words)) > 1)]
    return next((other for other in others if _first(scene, other) == path), "") or scenarios.nothing()


def bare(scene: Scene) -> dict:
    fields = ("sessionDescription", "sessionMemory", "toolContext", "primaryGoal", "subgoal")
    return {"context": {"sessionId": scene.session, "workspaceId": "default", **dict.fromkeys(fields, "rehearsal")}}


def few(scene: Scene) -> dict[str, int]:
    """The limit of a look for one note: none in training, since nobody asks for one."""
    return {} if scene.training else {"limit": FEW}


def search(scene: Scene, topic: str) -> None:
    arguments: dict = {"query": topic} | few(scene)
    slots = {name: str(value) for name, value in arguments.items()}
    scene.call("vaultLibrarian_searchContent", slots, arguments, scenarios.found("results"))


def look_up(scene: Scene, name: str, folder: str) -> list[str]:
    """The paths that a search of a folder for a file's name shows; raises LookupError for many."""
    slots = {"query": name, "folder": folder}
    arguments = {"query": name, "paths": [folder], "searchType": "files"} | few(scene)
    found = scene.call("vaultLibrarian_searchDirectory", slots, arguments)
    listed = [hit["path"] for hit in (found.get("data") or found)["results"]]
    if len(listed) > MOST_HITS:
        raise LookupError("too long a list")
    return listed


def read(scene: Scene, path: str, narrate: bool = True) -> None:
    if len(scene.world.text(path)) > 1500:
        raise LookupError("too long a note")
    if narrate:
        scene.narrate("before_read", note=title(path))
    scene.call("contentManager_readContent", scenarios.note_slots(path), {"filePath": path})


def locate(scene: Scene, path: str) -> None:
    if path not in look_up(scene, title(path), "/"):
        raise LookupError("the search does not show it")


def misplaced(scene: Scene) -> tuple[str, str]:
    """(path, wrong path) of a note that is looked for in another folder."""
    path = scene.world.note(least_lines=1)
    wrong = join(scene.world.folder(), path.rpartition("/")[2])
    if scene.world.vault.tree.kind(wrong) or len(scene.world.text(path)) > 1500:
        raise LookupError("a note lies there")
    return path, wrong


def line_of(scene: Scene, path: str) -> str:
    """A sentence that stands in a note."""
    lines = [line.strip("-*> \t") for line in scene.world.text(path).split("\n---\n")[-1].split("\n")]
    fitting = [line for line in lines if 15 < len(line) < 140 and not line.startswith(("#", "|", "`", "!"))]
    return scene.speaker.pick.choice(fitting or scenarios.nothing())


def read_out(scene: Scene, behaviour: str, path: str, variant: str = "") -> None:
    """The text of the note that was just read, in training, its beginning where it is long; of one found elsewhere its path."""
    if not scene.training:
        return scene.reply(behaviour, variant=variant, note=title(path), line=line_of(scene, path))
    result = scene.results[-1]
    if reports.empty("contentManager_readContent", result):
        raise LookupError("nothing is written there")
    said = reports.closings("contentManager_readContent", result, scene.language, {})
    texts = [text for text in said if "{note}" in text]
    slots = reports.facts("contentManager_readContent", result) | scenarios.note_slots(path) | {"note": title(path)}
    if behaviour == "recover":
        closings = answers()["closings"]
        own = closings["contentManager_readContent"]
        where = scene.speaker.fill((closings["languages"].get(scene.language) or own)["elsewhere"], slots)
        return scene.end(f"{where}\n\n{scene.speaker.fill(said, slots)}")
    return scene.end(scene.speaker.fill(texts, slots))


def tried(scene: Scene, behaviour: str, variant: str, **slots: str) -> None:
    """In training sessionMemory tells what the request says has failed, where it does."""
    if scene.training and scene.wording not in answers()["untold"]:
        scene.tried = scene.speaker.fill(behaviours()[behaviour][variant]["tried"], slots)


def unlooked(scene: Scene, tool: str, slots: dict, arguments: dict) -> None:
    """The wrong answer that acts without looking first, alone and with words that it was done.

    Only for a condition that does not hold: elsewhere it ends as the right answer does.
    """
    if scene.contrast:
        act = negatives.called(scene, tool, slots, arguments)
        result = calls.Result(scene.world.vault.rehearse(tool, act[0].arguments))
        scene.matched.append(("unchecked", None, act))
        if said := scene.done(tool, slots):
            scene.matched.append(("unchecked", None, [*act, result, said]))


def failing(scene: Scene, tool: str, given: dict) -> str:
    """The error with which the vault refuses a call; raises LookupError where it makes it."""
    result = scene.world.vault.rehearse(tool, given)
    if result["success"]:
        raise LookupError("the call does not fail")
    return result["error"]


def once_more(scene: Scene, tool: str, slots: dict, arguments: dict, defect: str = "repeated_call") -> None:
    """The wrong answer that makes the call again that has failed."""
    if scene.contrast:
        scene.matched.append((defect, None, negatives.called(scene, tool, slots, arguments)))


def listed(scene: Scene, tool: str) -> None:
    """A plain list of records."""
    result = scene.call(tool, {}, {})
    if len(str(result)) > 2500:
        raise LookupError("too long a list")
    scene.narrate("before_act")


def own(scene: Scene, table: str) -> dict:
    """A record of a workspace, which becomes the scene's."""
    record = scene.world.record(table)
    scene.workspace = record["workspaceId"]
    return record


def ask_inside(scene: Scene, variant: str, slots: dict[str, str]) -> None:
    """A request of a chain in words that name the scene's workspace."""
    request = scene.speaker.request(behaviours()["multi_step"][variant]["requests"], slots)
    scene.named = scene.workspace
    scene.aims("multi_step", variant, slots)
    scene.asks(variant, _naming(scene.workspace, request, scene.speaker))


def placed(scene: Scene, request: Said, *made: scenarios.Scenario, apart: bool = True) -> Said:
    """The request in words that name the workspace where a call of these finds or makes its record in that one alone.

    Most plays came to name it later: a speaker apart words that, so that no other task is worded anew.
    """
    homes = [
        each.arguments.get("_workspace", scene.workspace if each.tool in BY_WORKSPACE else "default") for each in made
    ]
    scene.named = home = next((home for home in homes if home != "default"), "default")
    return _naming(home, request, scene.speaker.apart(request) if apart else scene.speaker)


def _naming(workspace: str, request: Said, speaker: Speaker) -> Said:
    if workspace == "default":
        return request
    texts = behaviours()["workspace"]["inside"]["requests"]
    return speaker.request(texts, {"workspace_id": workspace, "request": request}, request.language)


def is_note_in(folder: str, entry) -> bool:
    return entry.path.endswith(".md") and entry.path.rpartition("/")[0] == folder


def close(scene: Scene, behaviour: str, key: str = "replies", **slots: str) -> None:
    """Closing words in most cases; the rest, and what has none in the language of the request, ends with the call."""
    if scene.replies(behaviour, key) and (scene.contrast or scene.speaker.chance(CLOSED)):
        scene.reply(behaviour, key, **slots)


def report(scene: Scene, behaviour: str, tool: str, slots: dict[str, str], **said: str) -> None:
    """Closing words as often; in training they tell what the last call, of this tool, gave back."""
    if not scene.training:
        return close(scene, behaviour, **said)
    said = scene.closing(scenarios.Scenario(tool, "", slots, {}, scenarios.answered))
    if said and (scene.contrast or scene.speaker.chance(CLOSED)):
        scene.end(said)


def act_anyway(scene: Scene, tool: str, slots: dict, arguments: dict) -> None:
    """The wrong answer to a condition that did not hold."""
    if scene.contrast:
        wrong = scene.blocks[:-1] + negatives.called(scene, tool, slots, arguments)
        scene.wrong.append(("destructive_unasked" if "delete" in tool else "call_without_asking", None, wrong))


def without(tool: str, variant: str, *hidden: str) -> Callable[[Scene], tuple[dict, dict, dict]]:
    """A scenario some of whose facts are not said."""

    def filled(scene: Scene) -> tuple[dict, dict, dict]:
        scenario = of_variant(scene, tool, variant)
        said = {key: value for key, value in scenario.slots.items() if key not in hidden}
        return said, scenario.slots, scenario.arguments

    return filled
