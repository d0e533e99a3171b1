"""What an assistant does in a turn: one call, several, one after the other with results in between, or none.

Each function plays one variant of a behaviour in a scene: it makes up the facts, executes the calls and words the request
(datasets/voices/behaviours). The table `PLAYS` names them all; `wrong` answers for the same prompt come from `negatives`.
"""

from collections.abc import Callable

from toolset_nb import calls
from toolset_nb.synth import negatives, scenarios
from toolset_nb.synth.scenes import Scene
from toolset_nb.synth.wording import behaviours, voices
from toolset_nb.synth.worlds import join, title
from toolset_nb.tools import catalogue

Play = Callable[[Scene], None]
FEW = 3  # hits that a look for one note asks for
LONGEST_PART = 300  # characters of a request that stands inside another
CLOSED = 0.6  # share of the chains that end with words; the others end with the last call
NAMED = 0.4  # share of calls on a workspace's own records whose request names the workspace
ANSWERED = 0.15  # share of single calls whose result is shown and summed up
TRIES = 12


def single_call(tool: str) -> Play:
    """One call, as asked; now and then with its result and a closing word."""

    def play(scene: Scene) -> None:
        scenario = scene.scenario(tool)
        request, home = scene.words(scenario), scenario.arguments.get("_workspace", "default")
        if home != "default" and (scene.speaker.split == "evaluation" or scene.speaker.chance(NAMED)):
            texts = behaviours()["workspace"]["inside"]["requests"]
            request = scene.speaker.request(texts, {"workspace_id": home, "request": request})
        scene.asks(scenario.variant, request)
        _perform(scene, scenario)
        if (
            not scene.contrast
            and scene.speaker.chance(ANSWERED)
            and len(str(scene.results[-1])) < negatives.MOST_RESULT
        ):
            scene.say(scene.speaker.fill(voices()[tool]["said"], scenario.slots))

    return play


def _perform(scene: Scene, scenario: scenarios.Scenario, workspace: str = "") -> None:
    """Make a scenario's call, and before it the wrong ones, which leave no trace."""
    if workspace:
        scenario = scenario._replace(arguments=scenario.arguments | {"_workspace": workspace})
    if scene.contrast:
        scene.wrong += negatives.instead_of_call(scene, scenario)
    scene.play(scenario)
    if scene.contrast:
        scene.wrong += negatives.of_call(scene, scenario)


def several_calls(scene: Scene) -> None:
    """Two things at once, none of which needs the other's result."""
    made = []
    for _ in range(2):
        scenario = _short(scene, _TOGETHER)
        made.append((scenario, scene.words(scenario)))
    (first, one), (second, two) = made
    if {first.slots.get("path"), first.slots.get("folder")} & set(second.slots.values()) - {None, ""}:
        raise LookupError("the second call would depend on the first")
    scene.ask("several_calls", "join", {"first": one, "second": two})
    before = list(scene.memory)
    scene.play(first)
    lone, scene.memory = list(scene.blocks), before  # the second call is made without knowing how the first went
    scene.play(second)
    scene.blocks = [block for block in scene.blocks if isinstance(block, calls.Call)]
    if scene.contrast:
        scene.wrong.append(("unfinished", None, lone))


def continue_from_memory(scene: Scene) -> None:
    """The request tells what was done before; the call's memory repeats it."""
    past = [_short(scene, _TOGETHER) for _ in range(scene.speaker.pick.choice([1, 1, 2]))]
    told = [scene.speaker.fill(voices()[scenario.tool]["memory"], scenario.slots) for scenario in past]
    scenario = _short(scene)
    scene.ask("continue", "memory", {"memory": "; ".join(told), "request": scene.words(scenario)})
    scene.memory = told
    _perform(scene, scenario)


def limit_reading(variant: str) -> Play:
    """Read or return little, as asked."""

    def play(scene: Scene) -> None:
        world = scene.world
        if variant == "top":
            path, count = world.note(least_lines=5), str(world.pick.choice([3, 4, 5, 6, 8, 10, 12, 15, 20, 25]))
            slots = scenarios.note_slots(path) | {"count": count, "first": "1"}
            arguments = {"filePath": path, "offset": 1, "limit": int(count)}
            scenario = scenarios.Scenario("contentManager_readContent", "lines", slots, arguments, scenarios.answered)
        else:
            scenario = _variant(scene, "vaultLibrarian_searchContent", variant)
        scene.ask("limit_reading", variant, scenario.slots)
        _perform(scene, scenario)

    return play


def sibling(variant: str, tool: str) -> Play:
    """A wording by which one of two tools that are alike is meant."""

    def play(scene: Scene) -> None:
        scenario = _variant(scene, tool, set(voices()[tool]["requests"]) - {"folder", "few", "names", "dates", "type"})
        scene.ask("sibling", variant, scenario.slots)
        _perform(scene, scenario)

    return play


# one after the other ----------------------------------------------------------------------------------------------------


def find_read(scene: Scene) -> None:
    """Search, read, answer with a line of the note."""
    path, topic = _findable(scene)
    scene.ask("multi_step", "find_read", {"topic": topic})
    _search(scene, topic)
    _read(scene, path)
    scene.reply("multi_step", note=title(path), line=_line(scene, path))


def find_append(scene: Scene) -> None:
    """Search, append."""
    path, topic = _findable(scene)
    text = scene.world.line(besides=scene.world.text(path))
    scene.ask("multi_step", "find_append", {"topic": topic, "text": text})
    _search(scene, topic)
    scene.narrate("before_write", note=title(path))
    expected = scene.world.text(path) + text
    slots = scenarios.note_slots(path) | {"text": text}
    scene.call(
        "contentManager_appendContent", slots, {"filePath": path, "content": text}, scenarios.reads(path, expected)
    )
    _close(scene, "multi_step", note=title(path))


def find_move(scene: Scene) -> None:
    """Search, move."""
    path, topic = _findable(scene)
    target = scene.world.pick.choice([f for f in scene.world.folders() if f != path.rpartition("/")[0]])
    new = join(target, path.rpartition("/")[2])
    scene.ask("multi_step", "find_move", {"topic": topic, "target_folder": target})
    _search(scene, topic)
    scene.narrate("before_move", note=title(path), target_folder=target)
    slots = scenarios.note_slots(path) | {"target_folder": target}
    scene.call("vaultManager_moveNote", slots, {"path": path, "newPath": new}, scenarios.moved(path, new))
    _close(scene, "multi_step", note=title(path), target_folder=target)


def edit_check(scene: Scene) -> None:
    """Replace, then read what is there now."""
    scenario = _variant(scene, "contentManager_replaceContent", "swap")
    path = scenario.arguments["filePath"]
    scene.ask("multi_step", "edit_check", scenario.slots)
    scene.play(scenario)
    _read(scene, path)
    _close(scene, "multi_step", note=title(path), new=scenario.slots["new"])


def list_read(scene: Scene) -> None:
    """List a folder, read its newest note."""
    world = scene.world
    folders = [folder for folder in world.folders() if any(_is_note_in(folder, entry) for entry in world.entries)]
    folder = world.pick.choice(folders or scenarios.nothing())
    if len(world.inside(folder)) > 12:
        raise LookupError("too long a list")
    scene.ask("multi_step", "list_read", {"folder": folder})
    listed = scene.call("vaultManager_listDirectory", {"folder": folder}, {"path": folder})
    path = next(entry["path"] for entry in (listed.get("data") or listed)["files"] if entry["path"].endswith(".md"))
    _read(scene, path)
    scene.reply("multi_step", note=title(path), line=_line(scene, path))


def copy_add(scene: Scene) -> None:
    """Copy a note, add to the copy."""
    scenario = _variant(scene, "vaultManager_duplicateNote", "copy")
    copy, text = scenario.arguments["targetPath"], scene.world.line()
    expected = scene.world.text(scenario.arguments["sourcePath"]) + text
    scene.ask("multi_step", "copy_add", scenario.slots | {"text": text})
    scene.play(scenario)
    scene.narrate("before_write", note=title(copy))
    slots = scenarios.note_slots(copy) | {"text": text}
    scene.call(
        "contentManager_appendContent", slots, {"filePath": copy, "content": text}, scenarios.reads(copy, expected)
    )
    _close(scene, "multi_step", copy_path=copy)


def folder_note(scene: Scene) -> None:
    """Make a folder, then a note in it."""
    folder = join(scene.world.parent(), scene.world.title())
    path, content = join(folder, f"{scene.world.title()}.md"), scene.world.paragraph()
    scene.ask("multi_step", "folder_note", {"folder": folder, "path": path, "content": content})
    slots = {"folder": folder, "name": title(folder), "parent": folder.rpartition("/")[0] or "the top level"}
    scene.call("vaultManager_createFolder", slots, {"path": folder}, scenarios.is_folder(folder))
    scene.narrate("before_act")
    slots = {"path": path, "content": content}
    scene.call(
        "contentManager_createContent", slots, {"filePath": path, "content": content}, scenarios.reads(path, content)
    )
    _close(scene, "multi_step", path=path, folder=folder)


def agent_switch(variant: str) -> Play:
    """Look an assistant's id up by its name, then switch it on or off."""

    def play(scene: Scene) -> None:
        agents = scene.world.vault.state.data["agents"].values()
        fitting = [agent for agent in agents if agent["isEnabled"] == (variant == "agent_off")]
        agent = scene.world.pick.choice(fitting or scenarios.nothing())
        scene.ask("multi_step", variant, {"agent": agent["name"]})
        _listed(scene, "agentManager_listAgents")
        slots, key = {"agent_id": agent["id"]}, agent["id"]
        check = scenarios.stored("agents", key, "isEnabled", not agent["isEnabled"])
        scene.call("agentManager_toggleAgent", slots, {"id": key}, check)
        _close(scene, "multi_step", agent=agent["name"])

    return play


def run_command(scene: Scene) -> None:
    """Look a command's id up by its name, then run it."""
    command = scene.world.record("commands")
    scene.ask("multi_step", "run_command", {"command": command["name"]})
    _listed(scene, "commandManager_listCommands")
    slots, key = {"command_id": command["id"]}, command["id"]
    check = lambda vault, _: vault.state.data["ui"]["lastCommand"] == key  # noqa: E731
    scene.call("commandManager_executeCommand", slots, {"commandId": key}, check)
    _close(scene, "multi_step", command=command["name"])


def load_state(scene: Scene) -> None:
    """Look a saved state up by its name, then load it."""
    state = _own(scene, "states")
    _ask_inside(scene, "load_state", {"state": state["name"]})
    _listed(scene, "memoryManager_listStates")
    scene.call("memoryManager_loadState", {"state_id": state["id"]}, {"stateId": state["id"]})
    _close(scene, "multi_step", state=state["name"])


def load_session(scene: Scene) -> None:
    """Look a session up by its name, then load it."""
    session = _own(scene, "sessions")
    _ask_inside(scene, "load_session", {"session": session["name"]})
    _listed(scene, "memoryManager_listSessions")
    scene.call("memoryManager_loadSession", {"session_id": session["id"]}, {"targetSessionId": session["id"]})
    _close(scene, "multi_step", session=session["name"])


def workspace_by_name(scene: Scene) -> None:
    """Look a workspace up by its name, then load it."""
    workspace = scene.world.record("workspaces")
    scene.ask("workspace", "by_name", {"workspace": workspace["name"]})
    _listed(scene, "memoryManager_listWorkspaces")
    scene.call("memoryManager_loadWorkspace", {"workspace_id": workspace["id"]}, {"id": workspace["id"]})
    _close(scene, "workspace", workspace=workspace["name"])


def in_workspace(variant: str) -> Play:
    """A call that belongs to the workspace named by its id, or to none."""

    def play(scene: Scene) -> None:
        key = scene.world.record("workspaces")["id"] if variant == "inside" else "default"
        scenario = _short(scene, _TOGETHER)
        scene.ask("workspace", variant, {"workspace_id": key, "request": scene.words(scenario)})
        _perform(scene, scenario, key)

    return play


def prompt_by_agent(scene: Scene) -> None:
    """Look up an assistant and the models there are, then have it answer."""
    agent, prompt = scene.world.record("agents"), scene.world.value("prompts")
    provider, model, _ = scene.world.vault.provider.models[0]
    scene.ask("execute_prompt", "agent", {"agent": agent["name"], "prompt": prompt})
    _listed(scene, "agentManager_listAgents")
    _listed(scene, "agentManager_listModels")
    slots = {"prompt": prompt, "provider": provider, "model": model, "agent_id": agent["id"]}
    arguments = {"prompt": prompt, "provider": provider, "model": model, "agent": agent["id"]}
    scene.call("agentManager_executePrompt", slots, arguments)
    _close(scene, "execute_prompt", agent=agent["name"])


def prompt_by_model(scene: Scene) -> None:
    """Have a named model answer."""
    scenario = _variant(scene, "agentManager_executePrompt", "plain")
    scene.ask("execute_prompt", "other", scenario.slots)
    _perform(scene, scenario)


# look before you act ----------------------------------------------------------------------------------------------------


def verify_empty(scene: Scene) -> None:
    """List a folder; delete it only if nothing is in it."""
    empty = scene.speaker.chance(0.5)
    folder = scene.world.folder(empty=empty)
    if len(scene.world.inside(folder)) > 12:
        raise LookupError("too long a list")
    scene.ask("verify", "empty_folder", {"folder": folder})
    listed = scene.call("vaultManager_listDirectory", {"folder": folder}, {"path": folder})
    if empty:
        scene.narrate("before_act")
        scene.call("vaultManager_deleteFolder", {"folder": folder}, {"path": folder}, scenarios.gone(folder))
        _close(scene, "verify", "done", folder=folder)
    else:
        count = (listed.get("data") or listed)["summary"]["totalItems"]
        scene.reply("verify", "kept", folder=folder, count=str(count))
        _act_anyway(scene, "vaultManager_deleteFolder", {"folder": folder}, {"path": folder, "recursive": True})


def verify_text(scene: Scene) -> None:
    """Read a note; replace a text only if it stands there."""
    scenario, there = _variant(scene, "contentManager_replaceContent", "swap"), scene.speaker.chance(0.6)
    slots, path = dict(scenario.slots), scenario.arguments["filePath"]
    if not there:
        path = scene.world.note(least_lines=1)
        slots |= scenarios.note_slots(path)
        if slots["old"] in scene.world.text(path):
            raise LookupError("the text stands there")
    scene.ask("verify", "has_text", slots)
    _read(scene, path, narrate=False)
    if there:
        scene.narrate("before_write", note=title(path))
        scene.play(scenario)
        _close(scene, "verify", "done", note=title(path), new=slots["new"])
    else:
        scene.reply("verify", "kept", note=title(path), old=slots["old"])
        arguments = {"filePath": path, "oldContent": slots["old"], "newContent": slots["new"]}
        _act_anyway(scene, "contentManager_replaceContent", slots, arguments)


def verify_new(scene: Scene) -> None:
    """Look whether a note exists; make it if not."""
    new = scene.speaker.chance(0.6)
    content = scene.world.paragraph()
    path = join(scene.world.folder(empty=False), f"{scene.world.title()}.md") if new else scene.world.note()
    folder, query = path.rpartition("/")[0] or "/", title(path)
    scene.ask("verify", "exists", {"path": path, "content": content})
    slots = {"query": query, "folder": folder}
    arguments = {"query": query, "paths": [folder], "searchType": "files", "limit": FEW}
    found = scene.call("vaultLibrarian_searchDirectory", slots, arguments)
    listed = [hit["path"] for hit in (found.get("data") or found)["results"]]
    if (path in listed) == new:
        raise LookupError("the search does not show it")
    slots, arguments = {"path": path, "content": content}, {"filePath": path, "content": content}
    if new:
        scene.narrate("before_act")
        scene.call("contentManager_createContent", slots, arguments, scenarios.reads(path, content))
        _close(scene, "verify", "done", path=path)
    else:
        scene.reply("verify", "kept", path=path)
        _act_anyway(scene, "contentManager_createContent", slots, arguments)


def verify_blank(scene: Scene) -> None:
    """Read a note; delete it only if there is no text in it."""
    blank = scene.speaker.chance(0.5)
    fitting = [path for path in scene.world.notes() if (not scene.world.text(path).strip()) == blank]
    path = scene.world.pick.choice(fitting or scenarios.nothing())
    scene.ask("verify", "blank", scenarios.note_slots(path))
    _read(scene, path, narrate=False)
    slots, arguments = scenarios.note_slots(path), {"path": path}
    if blank:
        scene.narrate("before_act")
        scene.call("vaultManager_deleteNote", slots, arguments, scenarios.gone(path))
        _close(scene, "verify", "done", note=title(path))
    else:
        scene.reply("verify", "kept", note=title(path))
        _act_anyway(scene, "vaultManager_deleteNote", slots, arguments)


# after a failure --------------------------------------------------------------------------------------------------------


def recover_not_found(scene: Scene) -> None:
    """The error of a wrong path stands in the prompt: find the note by its name, read it."""
    path, wrong = _misplaced(scene)
    scene.ask("recover", "not_found", {"wrong": wrong, "name": title(path)})
    _locate(scene, path)
    _read(scene, path)
    scene.reply("recover", note=title(path), line=_line(scene, path))


def recover_in_turn(scene: Scene) -> None:
    """The person gives a wrong path; the call fails, the note is found by its name and read."""
    path, wrong = _misplaced(scene)
    slots = scenarios.note_slots(wrong)
    texts = voices()["contentManager_readContent"]["requests"]["whole"]
    scene.asks("in_turn", scene.speaker.request(texts, slots))
    scene.call("contentManager_readContent", slots, {"filePath": wrong}, fails=True)
    scene.narrate("after_error")
    _locate(scene, path)
    _read(scene, path)
    scene.reply("recover", variant="not_found", note=title(path), line=_line(scene, path))


def recover_exists(scene: Scene) -> None:
    """Making a note failed since it is there: append instead."""
    scenario = _variant(scene, "contentManager_appendContent", "end")
    scene.ask("recover", "exists", scenario.slots)
    _perform(scene, scenario)


def recover_no_match(scene: Scene) -> None:
    """The text to replace was not there; it reads otherwise."""
    scenario = _variant(scene, "contentManager_replaceContent", "swap")
    others = [change["old"] for change in scene.world.values["changes"] if change["old"] != scenario.slots["old"]]
    slots = scenario.slots | {"wrong": scene.world.pick.choice(others)}
    scene.ask("recover", "no_match", slots)
    _perform(scene, scenario)


def recover_again(scene: Scene) -> None:
    """A call failed with a message that stands in the prompt; made properly, it works."""
    scenario = _short(scene)
    required = [key for key in catalogue().tools[scenario.tool].parameters.get("required", []) if key != "context"]
    dropped = scene.world.pick.choice(required or scenarios.nothing())
    context = scene.context(scenario.tool, scenario.slots)
    given = {key: value for key, value in scenario.arguments.items() if key not in (dropped, "_workspace")}
    result = scene.world.vault.rehearse(scenario.tool, {"context": context, **given})
    if result["success"]:
        raise LookupError("the call works without it")
    scene.ask("recover", "again", {"error": result["error"], "request": scene.words(scenario)})
    _perform(scene, scenario)


# words alone ------------------------------------------------------------------------------------------------------------


def ask_first(variant: str) -> Play:
    """Destructive or unclear: ask before anything is done."""

    def play(scene: Scene) -> None:
        world = scene.world
        slots, call = {}, None
        if variant == "many":
            path, topic = _findable(scene)
            slots, call = {"query": topic}, ("vaultManager_deleteNote", scenarios.note_slots(path), {"path": path})
        elif variant in ("full_folder", "vague"):
            folder = world.folder(empty=False)
            slots, call = (
                {"folder": folder},
                ("vaultManager_deleteFolder", {"folder": folder}, {"path": folder, "recursive": True}),
            )
        elif variant == "unsure":
            one, two = world.pick.sample(world.notes(), 2)
            slots = {"note": title(one), "note2": title(two)}
            call = ("vaultManager_deleteNote", scenarios.note_slots(one), {"path": one})
        else:
            scenario = _variant(scene, "contentManager_findReplaceContent", "all")
            slots, call = scenario.slots, (scenario.tool, scenario.slots, scenario.arguments)
        scene.ask("ask_first", variant, slots)
        scene.reply("ask_first", **slots)
        if scene.contrast:
            tool, facts, arguments = call
            wrong = negatives.called(scene, tool, facts, arguments)
            destructive = tool in ("vaultManager_deleteNote", "vaultManager_deleteFolder")
            scene.wrong.append(("destructive_unasked" if destructive else "call_without_asking", None, wrong))

    return play


def ask_missing(variant: str, tool: str, filled: Callable[[Scene], tuple[dict, dict, dict]]) -> Play:
    """Something that the call needs is not said: ask for that alone. `filled` gives slots, a call's slots, its arguments."""

    def play(scene: Scene) -> None:
        slots, facts, arguments = filled(scene)
        scene.ask("ask_missing", variant, slots)
        scene.reply("ask_missing", **slots)
        if scene.contrast:
            scene.wrong.append(("call_without_asking", None, negatives.called(scene, tool, facts, arguments)))

    return play


def talk(behaviour: str, variant: str, defect: str) -> Play:
    """Something that no call is needed or fit for."""

    def play(scene: Scene) -> None:
        pair = scene.speaker.choose(scene.speaker.mine(behaviours()[behaviour][variant]["pairs"]))
        path, folder = scene.world.note(), scene.world.folder()
        slots = {"note": scenarios.note_slots(path)["note"], "folder": folder}
        scene.asks(variant, pair["say"].format_map(slots))
        scene.say(pair["reply"].format_map(slots))
        if scene.contrast:
            scenario = _short(scene)
            wrong = negatives.called(scene, scenario.tool, scenario.slots, scenario.arguments)
            scene.wrong.append((defect, None, wrong))

    return play


# parts of plays ---------------------------------------------------------------------------------------------------------


def _variant(scene: Scene, tool: str, wanted: str | set[str]) -> scenarios.Scenario:
    """A scenario of one of the wanted variants of a tool."""
    for _ in range(4 * TRIES):
        scenario = scene.scenario(tool)
        if scenario.variant in ({wanted} if isinstance(wanted, str) else wanted):
            return scenario
    raise LookupError(f"no scenario of {wanted}")


def _short(scene: Scene, tools: tuple[str, ...] = ()) -> scenarios.Scenario:
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


def _findable(scene: Scene) -> tuple[str, str]:
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
        found = world.vault.rehearse("vaultLibrarian_searchContent", _bare(scene) | {"query": topic, "limit": FEW})
        if found["success"] and [hit["filePath"] for hit in (found.get("data") or found)["results"][:1]] == [path]:
            return path, topic
    raise LookupError("no note is found first")


def _bare(scene: Scene) -> dict:
    fields = ("sessionDescription", "sessionMemory", "toolContext", "primaryGoal", "subgoal")
    return {"context": {"sessionId": scene.session, "workspaceId": "default", **dict.fromkeys(fields, "rehearsal")}}


def _search(scene: Scene, topic: str) -> None:
    arguments = {"query": topic, "limit": FEW}
    scene.call(
        "vaultLibrarian_searchContent", {"query": topic, "limit": str(FEW)}, arguments, scenarios.found("results")
    )


def _read(scene: Scene, path: str, narrate: bool = True) -> None:
    if len(scene.world.text(path)) > 1500:
        raise LookupError("too long a note")
    if narrate:
        scene.narrate("before_read", note=title(path))
    scene.call("contentManager_readContent", scenarios.note_slots(path), {"filePath": path})


def _locate(scene: Scene, path: str) -> None:
    slots = {"query": title(path), "folder": "/"}
    arguments = {"query": title(path), "paths": ["/"], "searchType": "files", "limit": FEW}
    found = scene.call("vaultLibrarian_searchDirectory", slots, arguments)
    if path not in [hit["path"] for hit in (found.get("data") or found)["results"]]:
        raise LookupError("the search does not show it")


def _misplaced(scene: Scene) -> tuple[str, str]:
    """(path, wrong path) of a note that is looked for in another folder."""
    path = scene.world.note(least_lines=1)
    wrong = join(scene.world.folder(), path.rpartition("/")[2])
    if scene.world.vault.tree.kind(wrong) or len(scene.world.text(path)) > 1500:
        raise LookupError("a note lies there")
    return path, wrong


def _line(scene: Scene, path: str) -> str:
    """A sentence that stands in a note."""
    lines = [line.strip("-*> \t") for line in scene.world.text(path).split("\n---\n")[-1].split("\n")]
    fitting = [line for line in lines if 15 < len(line) < 140 and not line.startswith(("#", "|", "`", "!"))]
    return scene.speaker.pick.choice(fitting or scenarios.nothing())


def _listed(scene: Scene, tool: str) -> None:
    """A plain list of records."""
    result = scene.call(tool, {}, {})
    if len(str(result)) > 2500:
        raise LookupError("too long a list")
    scene.narrate("before_act")


def _own(scene: Scene, table: str) -> dict:
    """A record of a workspace, which becomes the scene's."""
    record = scene.world.record(table)
    scene.workspace = record["workspaceId"]
    return record


def _ask_inside(scene: Scene, variant: str, slots: dict[str, str]) -> None:
    """A request of a chain in words that name the scene's workspace."""
    request = scene.speaker.request(behaviours()["multi_step"][variant]["requests"], slots)
    if scene.workspace != "default":
        texts = behaviours()["workspace"]["inside"]["requests"]
        request = scene.speaker.request(texts, {"workspace_id": scene.workspace, "request": request})
    scene.asks(variant, request)


def _is_note_in(folder: str, entry) -> bool:
    return entry.path.endswith(".md") and entry.path.rpartition("/")[0] == folder


def _close(scene: Scene, behaviour: str, key: str = "replies", **slots: str) -> None:
    """Closing words in most cases; the rest ends with the call."""
    if scene.contrast or scene.speaker.chance(CLOSED):
        scene.reply(behaviour, key, **slots)


def _act_anyway(scene: Scene, tool: str, slots: dict, arguments: dict) -> None:
    """The wrong answer to a condition that did not hold."""
    if scene.contrast:
        wrong = scene.blocks[:-1] + negatives.called(scene, tool, slots, arguments)
        scene.wrong.append(("destructive_unasked" if "delete" in tool else "call_without_asking", None, wrong))


def _without(tool: str, variant: str, *hidden: str) -> Callable[[Scene], tuple[dict, dict, dict]]:
    """A scenario some of whose facts are not said."""

    def filled(scene: Scene) -> tuple[dict, dict, dict]:
        scenario = _variant(scene, tool, variant)
        said = {key: value for key, value in scenario.slots.items() if key not in hidden}
        return said, scenario.slots, scenario.arguments

    return filled


_TOGETHER = (
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
_MISSING = {
    "append_what": ("contentManager_appendContent", "end", ("text",)),
    "move_where": ("vaultManager_moveNote", "move", ("target_folder",)),
    "rename_note": ("vaultManager_moveNote", "rename", ("new_name",)),
    "rename_folder": ("vaultManager_editFolder", "rename", ("new_name",)),
    "replace_by": ("contentManager_replaceContent", "swap", ("new",)),
    "create_where": ("contentManager_createContent", "new", ("path",)),
    "find_what": ("vaultLibrarian_searchContent", "words", ("query",)),
    "read_which": ("contentManager_readContent", "whole", ("note", "path")),
    "delete_which": ("vaultManager_deleteNote", "delete", ("note", "path")),
    "copy_where": ("vaultManager_duplicateNote", "copy", ("copy_path",)),
    "agent_prompt": ("agentManager_createAgent", "new", ("prompt", "description")),
    "image_where": ("agentManager_generateImage", "plain", ("image_path",)),
    "command_which": ("commandManager_executeCommand", "run", ("command_id",)),
    "workspace_folder": ("memoryManager_createWorkspace", "new", ("folder", "purpose")),
    "tag_state": ("memoryManager_updateState", "tag", ("tag",)),
}
_SIBLINGS = {
    "append": "contentManager_appendContent",
    "create": "contentManager_createContent",
    "move": "vaultManager_moveFolder",
    "rename": "vaultManager_editFolder",
    "content": "vaultLibrarian_searchContent",
    "directory": "vaultLibrarian_searchDirectory",
    "memory": "vaultLibrarian_searchMemory",
}

PLAYS: dict[tuple[str, str], tuple[float, Play]] = {}  # (behaviour, variant) -> (share of all rows, play)


def _table() -> None:
    for tool in voices():
        PLAYS["single_call", tool] = (0.5 / 47, single_call(tool))
    several = {
        ("several_calls", "join"): (0.03, several_calls),
        ("continue_from_memory", "memory"): (0.03, continue_from_memory),
        ("workspace_awareness", "by_name"): (0.01, workspace_by_name),
        ("workspace_awareness", "inside"): (0.012, in_workspace("inside")),
        ("workspace_awareness", "none"): (0.008, in_workspace("none")),
        ("execute_prompt", "agent"): (0.008, prompt_by_agent),
        ("execute_prompt", "other"): (0.012, prompt_by_model),
        ("verify_before_acting", "empty_folder"): (0.01, verify_empty),
        ("verify_before_acting", "has_text"): (0.01, verify_text),
        ("verify_before_acting", "exists"): (0.01, verify_new),
        ("verify_before_acting", "blank"): (0.01, verify_blank),
        ("recover_from_error", "not_found"): (0.008, recover_not_found),
        ("recover_from_error", "in_turn"): (0.006, recover_in_turn),
        ("recover_from_error", "exists"): (0.008, recover_exists),
        ("recover_from_error", "no_match"): (0.008, recover_no_match),
        ("recover_from_error", "again"): (0.01, recover_again),
        ("small_talk", "talk"): (0.02, talk("small_talk", "talk", "call_on_small_talk")),
        ("small_talk", "explain"): (0.02, talk("small_talk", "explain", "call_on_small_talk")),
        ("unable", "cannot"): (0.035, talk("unable", "cannot", "call_when_unable")),
        ("execute_prompt", "own"): (0.01, talk("execute_prompt", "own", "call_on_small_talk")),
    }
    PLAYS.update(several)
    for variant in ("top", "few", "folder", "names"):
        PLAYS["limit_reading", variant] = (0.008, limit_reading(variant))
    for variant, tool in _SIBLINGS.items():
        PLAYS["sibling_choice", variant] = (0.008, sibling(variant, tool))
    chains = {
        "find_read": find_read,
        "find_append": find_append,
        "find_move": find_move,
        "edit_check": edit_check,
        "list_read": list_read,
        "copy_add": copy_add,
        "folder_note": folder_note,
        "agent_on": agent_switch("agent_on"),
        "agent_off": agent_switch("agent_off"),
        "run_command": run_command,
        "load_state": load_state,
        "load_session": load_session,
    }
    for variant, play in chains.items():
        PLAYS["multi_step", variant] = (0.005, play)
    for variant in ("many", "full_folder", "vague", "unsure", "everywhere"):
        PLAYS["ask_first", variant] = (0.013, ask_first(variant))
    for variant, (tool, form, hidden) in _MISSING.items():
        PLAYS["ask_missing_argument", variant] = (0.006, ask_missing(variant, tool, _without(tool, form, *hidden)))


_table()
