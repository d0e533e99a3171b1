"""One call after the other, each in need of what the one before has found."""

from toolset_nb.synth import missteps, scenarios
from toolset_nb.synth.plays import parts
from toolset_nb.synth.plays.parts import Play
from toolset_nb.synth.scenes import Scene
from toolset_nb.synth.worlds import join, title


def find_read(scene: Scene) -> None:
    """Search, read, answer with a line of the note."""
    path, topic = parts.findable(scene)
    scene.ask("multi_step", "find_read", {"topic": topic})
    parts.search(scene, topic)
    parts.read(scene, path)
    parts.read_out(scene, "multi_step", path)


def find_append(scene: Scene) -> None:
    """Search, append."""
    path, topic = parts.findable(scene)
    text = scene.world.line(besides=scene.world.text(path))
    scene.ask("multi_step", "find_append", {"topic": topic, "text": text})
    parts.search(scene, topic)
    scene.narrate("before_write", note=title(path))
    expected = scene.world.text(path) + text
    slots = scenarios.note_slots(path) | {"text": text}
    scene.call(
        "contentManager_appendContent", slots, {"filePath": path, "content": text}, scenarios.reads(path, expected)
    )
    parts.close(scene, "multi_step", note=title(path))


def find_move(scene: Scene) -> None:
    """Search, move."""
    path, topic = parts.findable(scene)
    target = scene.world.pick.choice([f for f in scene.world.folders() if f != path.rpartition("/")[0]])
    new = join(target, path.rpartition("/")[2])
    scene.ask("multi_step", "find_move", {"topic": topic, "target_folder": target})
    parts.search(scene, topic)
    scene.narrate("before_move", note=title(path), target_folder=target)
    slots = scenarios.note_slots(path) | {"target_folder": target}
    scene.call("vaultManager_moveNote", slots, {"path": path, "newPath": new}, scenarios.moved(path, new))
    parts.close(scene, "multi_step", note=title(path), target_folder=target)


def edit_check(scene: Scene) -> None:
    """Replace, then read what is there now."""
    scenario = parts.of_variant(scene, "contentManager_replaceContent", "swap")
    path = scenario.arguments["filePath"]
    scene.ask("multi_step", "edit_check", scenario.slots)
    scene.play(scenario)
    parts.read(scene, path)
    parts.close(scene, "multi_step", note=title(path), new=scenario.slots["new"])


def list_read(scene: Scene) -> None:
    """List a folder, read its newest note."""
    world = scene.world
    folders = [folder for folder in world.folders() if any(parts.is_note_in(folder, entry) for entry in world.entries)]
    folder = world.pick.choice(folders or scenarios.nothing())
    if len(world.inside(folder)) > 12:
        raise LookupError("too long a list")
    times = sorted(entry.modified for entry in world.entries if parts.is_note_in(folder, entry))
    if times[-1] in times[:-1]:
        raise LookupError("several notes are the newest")
    scene.ask("multi_step", "list_read", {"folder": folder})
    listed = scene.call("vaultManager_listDirectory", {"folder": folder}, {"path": folder})
    path = next(entry["path"] for entry in (listed.get("data") or listed)["files"] if entry["path"].endswith(".md"))
    parts.read(scene, path)
    parts.read_out(scene, "multi_step", path)


def copy_add(scene: Scene) -> None:
    """Copy a note, add to the copy."""
    scenario = parts.of_variant(scene, "vaultManager_duplicateNote", "copy")
    copy, text = scenario.arguments["targetPath"], scene.world.line()
    expected = scene.world.text(scenario.arguments["sourcePath"]) + text
    scene.ask("multi_step", "copy_add", scenario.slots | {"text": text})
    scene.play(scenario)
    scene.narrate("before_write", note=title(copy))
    slots = scenarios.note_slots(copy) | {"text": text}
    scene.call(
        "contentManager_appendContent", slots, {"filePath": copy, "content": text}, scenarios.reads(copy, expected)
    )
    parts.close(scene, "multi_step", copy_path=copy)


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
    parts.close(scene, "multi_step", path=path, folder=folder)


def agent_switch(variant: str) -> Play:
    """Look an assistant's id up by its name, then switch it on or off."""

    def play(scene: Scene) -> None:
        agents = scene.world.vault.state.data["agents"].values()
        fitting = [agent for agent in agents if agent["isEnabled"] == (variant == "agent_off")]
        agent = scene.world.pick.choice(fitting or scenarios.nothing())
        scene.ask("multi_step", variant, {"agent": agent["name"]})
        parts.listed(scene, "agentManager_listAgents")
        slots, key = {"agent_id": agent["id"]}, agent["id"]
        check = scenarios.stored("agents", key, "isEnabled", not agent["isEnabled"])
        scene.call("agentManager_toggleAgent", slots, {"id": key}, check)
        parts.close(scene, "multi_step", agent=agent["name"])

    return play


def run_command(scene: Scene) -> None:
    """Look a command's id up by its name, then run it."""
    command = scene.world.record("commands")
    scene.ask("multi_step", "run_command", {"command": command["name"]})
    parts.listed(scene, "commandManager_listCommands")
    slots, key = {"command_id": command["id"]}, command["id"]
    check = lambda vault, _: vault.state.data["ui"]["lastCommand"] == key  # noqa: E731
    scene.call("commandManager_executeCommand", slots, {"commandId": key}, check)
    parts.close(scene, "multi_step", command=command["name"])


def saved(kind: str, parameter: str) -> Play:
    """Look the id of a saved state or session up by its name, then load it."""

    def play(scene: Scene) -> None:
        record = parts.own(scene, f"{kind}s")
        parts.ask_inside(scene, f"load_{kind}", {kind: record["name"]})
        parts.listed(scene, f"memoryManager_list{kind.title()}s")
        tool, slots = f"memoryManager_load{kind.title()}", {f"{kind}_id": record["id"]}
        scene.call(tool, slots, {parameter: record["id"]})
        parts.report(scene, "multi_step", tool, slots, **{kind: record["name"]})

    return play


def workspace_by_name(scene: Scene) -> None:
    """Look a workspace up by its name, then load it."""
    workspace = scene.world.record("workspaces")
    scene.ask("workspace", "by_name", {"workspace": workspace["name"]})
    parts.listed(scene, "memoryManager_listWorkspaces")
    tool, slots = "memoryManager_loadWorkspace", {"workspace_id": workspace["id"]}
    scene.call(tool, slots, {"id": workspace["id"]})
    parts.report(scene, "workspace", tool, slots, workspace=workspace["name"])


def in_workspace(variant: str) -> Play:
    """A call that belongs to the workspace named by its id, or to none."""

    def play(scene: Scene) -> None:
        scene.named = key = scene.world.record("workspaces")["id"] if variant == "inside" else "default"
        scenario = parts.short(scene, parts.TOGETHER)
        request = scene.words(scenario)
        scene.ask("workspace", variant, {"workspace_id": key, "request": request}, request.language)
        parts.perform(scene, scenario, key)
        if scene.contrast:
            scene.matched += missteps.elsewhere(scene)

    return play


def prompt_by_agent(scene: Scene) -> None:
    """Look up an assistant and the models there are, then have it answer."""
    agent, prompt = scene.world.agent(), scene.world.value("prompts")
    provider, model, _ = scene.world.vault.provider.models[0]
    scene.ask("execute_prompt", "agent", {"agent": agent["name"], "prompt": prompt})
    parts.listed(scene, "agentManager_listAgents")
    parts.listed(scene, "agentManager_listModels")
    tool = "agentManager_executePrompt"
    slots = {"prompt": prompt, "agent": agent["name"], "agent_id": agent["id"]}  # nobody named a model
    if not scene.training:
        slots = {"prompt": prompt, "provider": provider, "model": model, "agent_id": agent["id"]}
    arguments = {"prompt": prompt, "provider": provider, "model": model, "agent": agent["id"]}
    scene.call(tool, slots, arguments)
    parts.report(scene, "execute_prompt", tool, slots, agent=agent["name"])


def prompt_by_model(scene: Scene) -> None:
    """Have a named model answer."""
    scenario = parts.of_variant(scene, "agentManager_executePrompt", "plain")
    scene.ask("execute_prompt", "other", scenario.slots)
    parts.perform(scene, scenario)
