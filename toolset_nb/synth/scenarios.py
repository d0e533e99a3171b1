"""Right calls, made up from what a vault holds: for each tool and variant the slots of a request, the arguments, and a check.

The variants and their slots are those of datasets/voices. A builder raises LookupError where a vault has nothing that fits.
"""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple

from toolset_nb.synth.worlds import World, join, title
from toolset_nb.vault import Vault
from toolset_nb.vault.files import clean

Check = Callable[[Vault, dict], bool]


class Scenario(NamedTuple):
    """One call that is right: `slots` are the facts a request may name, `check` looks at the vault after the call."""

    tool: str
    variant: str
    slots: dict[str, str]
    arguments: dict[str, Any]
    check: Check


def is_file(path: str) -> Check:
    """A file lies there."""
    return lambda vault, _: vault.tree.kind(path) == "file"


def is_folder(path: str) -> Check:
    """A folder lies there."""
    return lambda vault, _: vault.tree.kind(path) == "folder"


def moved(source: str, target: str) -> Check:
    """Nothing lies at the source, something at the target."""
    return lambda vault, _: vault.tree.kind(source) is None and vault.tree.kind(target) is not None


def gone(path: str) -> Check:
    """Nothing lies there."""
    return lambda vault, _: vault.tree.kind(path) is None


def reads(path: str, expected: str) -> Check:
    """The file's text is exactly this."""
    return lambda vault, _: vault.tree.read(path) == expected


def found(field: str, least: int = 1) -> Check:
    """The result's list is not empty."""
    return lambda _, result: len(result.get(field) or result.get("data", {}).get(field) or []) >= least


def stored(table: str, key: str, field: str, value: Any) -> Check:
    """A record's field has the value."""
    return lambda vault, _: vault.state.data[table][key].get(field) == value


def answered(_: Vault, result: dict) -> bool:
    """The call succeeded; there is nothing else to see."""
    return result["success"]


# vaultManager ---------------------------------------------------------------------------------------------------------


def create_folder(world: World) -> tuple:
    parent = world.parent()
    path = join(parent, world.title())
    slots = {"folder": path, "name": title(path), "parent": parent or "the top level"}
    return "new", slots, {"path": path}, is_folder(path)


def delete_folder(world: World) -> tuple:
    full = world.pick.random() < 0.5
    path = world.folder(empty=not full)
    return (
        "full" if full else "empty",
        {"folder": path},
        {"path": path} | ({"recursive": True} if full else {}),
        gone(path),
    )


def edit_folder(world: World) -> tuple:
    path, name = world.folder(), world.title()
    new = join(path.rpartition("/")[0], name)
    return "rename", {"folder": path, "new_name": name}, {"path": path, "newPath": new}, moved(path, new)


def move_folder(world: World) -> tuple:
    path = world.folder()
    targets = [f for f in world.folders() if not f"{f}/".startswith(f"{path}/") and f != path.rpartition("/")[0]]
    targets = [f for f in targets if world.vault.tree.kind(join(f, title(path))) is None]
    target = world.pick.choice(targets or nothing())
    new = join(target, path.rpartition("/")[2])
    return "move", {"folder": path, "target_folder": target}, {"path": path, "newPath": new}, moved(path, new)


def delete_note(world: World) -> tuple:
    path = world.note()
    return "delete", note_slots(path), {"path": path}, gone(path)


def move_note(world: World) -> tuple:
    path = world.note()
    if world.pick.random() < 0.4:
        name = world.title()
        new = join(path.rpartition("/")[0], f"{name}.md")
        return "rename", note_slots(path) | {"new_name": name}, {"path": path, "newPath": new}, moved(path, new)
    targets = [f for f in world.folders() if f != path.rpartition("/")[0]]
    target = world.pick.choice(
        [f for f in targets if world.vault.tree.kind(join(f, path.rpartition("/")[2])) is None] or nothing()
    )
    new = join(target, path.rpartition("/")[2])
    return "move", note_slots(path) | {"target_folder": target}, {"path": path, "newPath": new}, moved(path, new)


def duplicate_note(world: World) -> tuple:
    path, variant = world.note(), world.pick.choice(["copy", "copy", "count", "replace"])
    if variant == "replace":
        copy = world.pick.choice([other for other in world.notes() if other != path])
    else:
        copy = join(world.parent(), f"{world.title()}.md")
    extra = {"copy": {}, "count": {"autoIncrement": True}, "replace": {"overwrite": True}}[variant]
    return (
        variant,
        note_slots(path) | {"copy_path": copy},
        {"sourcePath": path, "targetPath": copy} | extra,
        is_file(copy),
    )


def list_directory(world: World) -> tuple:
    variant = world.pick.choice(["folder", "folder", "root", "files", "folders", "filter", "deep"])
    path = "" if variant == "root" else world.folder(empty=False)
    slots, arguments = {"folder": path}, {"path": path}
    if variant in ("files", "folders"):
        arguments[f"{variant}Only"] = True
    if variant == "filter":
        names = [e.path.rpartition("/")[2].removesuffix(".md") for e in world.vault.tree.children(path)]
        words = [w for name in names for w in re.findall(r"[^\W_]{4,}", name)]
        slots["word"] = arguments["filter"] = world.pick.choice(words or nothing())
    if variant == "deep":
        arguments["depth"] = world.pick.randint(1, 3)
        slots["depth"] = str(arguments["depth"])
    return variant, slots, arguments, answered


def open_note(world: World) -> tuple:
    path, variant = world.note(), world.pick.choice(["open", "open", "tab", "split", "window"])
    arguments = {"path": path} | ({} if variant == "open" else {"mode": variant})
    return variant, note_slots(path), arguments, lambda vault, _: vault.state.data["ui"]["open"]["path"] == path


# contentManager -------------------------------------------------------------------------------------------------------


def create_content(world: World) -> tuple:
    path, content = join(world.parent(), f"{world.title()}.md"), world.paragraph()
    return "new", {"path": path, "content": content}, {"filePath": path, "content": content}, reads(path, content)


def read_content(world: World) -> tuple:
    variant = world.pick.choice(["whole", "whole", "lines", "numbered"])
    path = world.note(least_lines=6 if variant == "lines" else 0)
    slots, arguments = note_slots(path), {"filePath": path}
    if variant == "lines":
        first, count = world.pick.randint(1, 5), world.pick.choice([3, 5, 8, 10, 20])
        slots |= {"first": str(first), "count": str(count)}
        arguments |= {"offset": first, "limit": count}
    if variant == "numbered":
        arguments["includeLineNumbers"] = True
    return variant, slots, arguments, answered


def append_content(world: World) -> tuple:
    path, text = world.note(), world.text
    line = world.line(besides=text(path))
    return "end", note_slots(path) | {"text": line}, {"filePath": path, "content": line}, reads(path, text(path) + line)


def prepend_content(world: World) -> tuple:
    path, text = _without_front_matter(world), world.text
    line = world.line(besides=text(path))
    return "top", note_slots(path) | {"text": line}, {"filePath": path, "content": line}, reads(path, line + text(path))


def replace_content(world: World) -> tuple:
    change = world.value("changes")
    old, new = change["old"], change["new"]
    path = next((path for path in world.notes() if world.text(path).count(old) == 1), "") or nothing()
    check = reads(path, world.text(path).replace(old, new))
    return (
        "swap",
        note_slots(path) | {"old": old, "new": new},
        {"filePath": path, "oldContent": old, "newContent": new},
        check,
    )


def replace_by_line(world: World) -> tuple:
    path = world.note(least_lines=5)
    lines = world.text(path).split("\n")
    start = world.pick.randint(2, len(lines) - 1)
    end, new = min(len(lines) - 1, start + world.pick.choice([0, 0, 1, 2])), world.line()
    slots = note_slots(path) | {"start": str(start), "end": str(end), "new": new}
    arguments = {"filePath": path, "startLine": start, "endLine": end, "newContent": new}
    return "lines", slots, arguments, reads(path, "\n".join(lines[: start - 1] + [new] + lines[end:]))


def delete_content(world: World) -> tuple:
    path = world.note(least_lines=2)
    text = world.text(path)
    old = world.phrase(text, 3, 12)
    return (
        "cut",
        note_slots(path) | {"text": old},
        {"filePath": path, "content": old},
        reads(path, text.replace(old, "")),
    )


def find_replace_content(world: World) -> tuple:
    variant = world.pick.choice(["first", "all", "word", "case"])
    path = world.note(least_lines=2)
    text = world.text(path)
    words = [
        w
        for w in sorted(set(re.findall(r"\b[^\W\d_]{4,}\b", text)))
        if variant == "first" or len(re.findall(rf"\b{w}\b", text)) > 1
    ]
    find = world.pick.choice(words or nothing())
    replace = world.pick.choice(
        [w for w in world.words if w.casefold() != find.casefold() and w[0].isupper() == find[0].isupper()] or nothing()
    )
    arguments = {"filePath": path, "findText": find, "replaceText": replace}
    arguments |= {} if variant == "first" else {"replaceAll": True}
    arguments |= {"word": {"wholeWord": True}, "case": {"caseSensitive": False}}.get(variant, {})
    return (
        variant,
        note_slots(path) | {"find": find, "replace": replace},
        arguments,
        lambda _, result: result["data"]["replacements"] > 0,
    )


def batch_content(world: World) -> tuple:
    variant = world.pick.choice(["append_two", "read_three", "create_append"])
    if variant == "read_three":
        paths = world.pick.sample(world.notes(), 3)
        slots = dict(zip(("path", "path2", "path3"), paths, strict=True))
        operations = [("read", {"filePath": path}) for path in paths]
    else:
        first, second = world.pick.sample(world.notes(), 2)
        slots = {"path": first, "text": world.line(), "path2": second, "text2": world.line()}
        operations = [
            ("append", {"filePath": first, "content": slots["text"]}),
            ("append", {"filePath": second, "content": slots["text2"]}),
        ]
        if variant == "create_append":
            slots |= {"path": join(world.parent(), f"{world.title()}.md"), "content": world.paragraph()}
            operations[0] = ("create", {"filePath": slots["path"], "content": slots["content"]})
    arguments = {"operations": [{"type": kind, "params": params} for kind, params in operations]}
    return variant, slots, arguments, lambda _, result: all(item["success"] for item in result["data"]["results"])


# vaultLibrarian -------------------------------------------------------------------------------------------------------


def search_content(world: World) -> tuple:
    variant, query = world.pick.choice(["words", "words", "folder", "few", "names"]), world.query()
    slots, arguments = {"query": query}, {"query": query}
    if variant == "folder":
        slots["folder"] = world.folder(empty=False)
        arguments["paths"] = [slots["folder"]]
    if variant == "few":
        arguments["limit"] = world.pick.choice([2, 3, 5, 8, 15])
        slots["limit"] = str(arguments["limit"])
    if variant == "names":
        slots["query"] = arguments["query"] = _name_word(world, world.notes())
        arguments["includeContent"] = False
    return variant, slots, arguments, answered if variant == "folder" else found("results")


def search_directory(world: World) -> tuple:
    variant, folder = world.pick.choice(["files", "folders", "both", "dates", "type"]), world.folder(empty=False)
    inside = list(world.vault.tree.walk(folder))
    query = _name_word(
        world, [e.path for e in inside if e.is_folder == (variant == "folders")] or [e.path for e in inside]
    )
    slots, arguments = {"query": query, "folder": folder}, {"query": query, "paths": [folder]}
    if variant in ("files", "folders"):
        arguments["searchType"] = variant
    if variant == "dates":
        slots |= _dates(world)
        arguments["dateRange"] = {key: slots[key] for key in ("start", "end")}
    if variant == "type":
        slots["extension"] = "md"
        arguments["fileTypes"] = ["md"]
    return variant, slots, arguments, answered


def search_memory(world: World) -> tuple:
    variant, query = world.pick.choice(["any", "calls", "sessions", "states", "dates"]), world.query()
    arguments = {"query": query, "workspaceId": "default"}
    kinds = {"calls": ["toolCalls"], "sessions": ["sessions"], "states": ["states"]}
    if variant in kinds:
        arguments["memoryTypes"] = kinds[variant]
    slots = {"query": query} | (_dates(world) if variant == "dates" else {})
    if variant == "dates":
        arguments["dateRange"] = {key: slots[key] for key in ("start", "end")}
    return variant, slots, arguments, answered


def batch(world: World) -> tuple:
    variant = world.pick.choice(["two", "three", "merged"])
    queries = list(dict.fromkeys(world.query() for _ in range(9)))[: 3 if variant == "three" else 2]
    slots = dict(zip(("query", "query2", "query3"), queries, strict=False))
    arguments = {"searches": [{"query": query} for query in queries]} | (
        {"mergeResults": True} if variant == "merged" else {}
    )
    return variant, slots, arguments, answered


# memoryManager --------------------------------------------------------------------------------------------------------


def create_session(world: World) -> tuple:
    chosen = world.value("sessions")
    name, goal = chosen["name"], chosen["goal"]
    named = world.pick.random() < 0.5
    slots = {"name": name, "goal": goal} if named else {"name": name}
    return "named" if named else "plain", slots, {"name": name} | ({"sessionGoal": goal} if named else {}), answered


def load_session(world: World) -> tuple:
    session, look = world.record("sessions"), world.pick.random() < 0.4
    arguments = {"targetSessionId": session["id"]} | ({"createContinuationSession": False} if look else {})
    return "look" if look else "continue", {"session_id": session["id"]}, _at(session, arguments), answered


def list_sessions(world: World) -> tuple:
    variant = world.pick.choice(["all", "some", "oldest"])
    limit = world.pick.randint(2, 12)
    arguments = {"all": {}, "some": {"limit": limit}, "oldest": {"order": "asc"}}[variant]
    return variant, {"limit": str(limit)} if variant == "some" else {}, arguments, answered


def update_session(world: World) -> tuple:
    session, variant = world.record("sessions"), world.pick.choice(["name", "description", "goal"])
    value = world.value("sessions")[variant]
    field = {"name": "name", "description": "description", "goal": "sessionGoal"}[variant]
    arguments = _at(session, {"targetSessionId": session["id"], field: value})
    return (
        variant,
        {"session_id": session["id"], f"new_{variant}": value},
        arguments,
        stored("sessions", session["id"], field, value),
    )


def create_state(world: World) -> tuple:
    path, chosen = world.note(), world.value("states")
    name, task, following, reason, story = (chosen[key] for key in ("name", "task", "next", "reason", "story"))
    slots = {"name": name, "task": task, "path": path, "next": following, "reason": reason, "story": story}
    arguments = {
        "name": name,
        "conversationContext": story,
        "activeTask": task,
        "activeFiles": [path],
        "nextSteps": [following],
        "reasoning": reason,
    }
    return "save", slots, arguments, lambda vault, result: result["data"]["stateId"] in vault.state.data["states"]


def load_state(world: World) -> tuple:
    state, fresh = world.record("states"), world.pick.random() < 0.4
    arguments = {"stateId": state["id"]} | ({"continueExistingSession": False} if fresh else {})
    return "fresh" if fresh else "resume", {"state_id": state["id"]}, _at(state, arguments), answered


def list_states(world: World) -> tuple:
    variant, limit = world.pick.choice(["all", "tag", "some"]), world.pick.randint(2, 12)
    tag = world.pick.choice(
        sorted({tag for state in world.vault.state.data["states"].values() for tag in state["tags"]}) or ["draft"]
    )
    arguments = {"all": {}, "tag": {"tags": [tag]}, "some": {"limit": limit}}[variant]
    return variant, {"all": {}, "tag": {"tag": tag}, "some": {"limit": str(limit)}}[variant], arguments, answered


def update_state(world: World) -> tuple:
    state, variant = world.record("states"), world.pick.choice(["name", "tag", "untag", "description"])
    slots = {"state_id": state["id"]}
    if variant in ("tag", "untag"):
        slots["tag"] = (
            world.pick.choice(world.words).lower()
            if variant == "tag"
            else world.pick.choice(state["tags"] or nothing())
        )
        key, value = ("addTags", [slots["tag"]]) if variant == "tag" else ("removeTags", [slots["tag"]])

        def check(vault, _):
            return (slots["tag"] in vault.state.data["states"][state["id"]]["tags"]) == (variant == "tag")  # noqa: E731
    else:
        key, value = variant, world.value("states")[{"name": "name", "description": "task"}[variant]]
        slots[f"new_{variant}"], check = value, stored("states", state["id"], key, value)
    return variant, slots, _at(state, {"stateId": state["id"], key: value}), check


def create_workspace(world: World) -> tuple:
    slots = dict(world.value("workspaces"))
    slots["folder"] = folder = world.pick.choice([world.folder(), clean(slots["folder"])])
    name, purpose, goal, when, steps = (slots[key] for key in ("name", "purpose", "goal", "when", "steps"))
    flows = [{"name": slots["flow"], "when": when, "steps": steps}]
    arguments = {"name": name, "rootFolder": folder, "purpose": purpose, "currentGoal": goal, "workflows": flows}
    return "new", slots, arguments, is_folder(folder)


def list_workspaces(world: World) -> tuple:
    variant, limit = world.pick.choice(["all", "name", "recent"]), world.pick.randint(2, 6)
    arguments = {"all": {}, "name": {"sortBy": "name"}, "recent": {"sortBy": "lastAccessed", "limit": limit}}[variant]
    return variant, {"limit": str(limit)} if variant == "recent" else {}, arguments, found("workspaces")


def load_workspace(world: World) -> tuple:
    key = world.record("workspaces")["id"]
    return "open", {"workspace_id": key}, {"id": key}, answered


def update_workspace(world: World) -> tuple:
    workspace, variant = world.record("workspaces"), world.pick.choice(["name", "goal", "purpose", "description"])
    field = {"goal": "context.currentGoal", "purpose": "context.purpose"}.get(variant, variant)
    value = world.value("workspaces")[variant]
    arguments = {"workspaceId": workspace["id"], "fieldPath": field, "newValue": value}
    return (
        variant,
        {"workspace_id": workspace["id"], "value": value},
        arguments,
        lambda _, result: result["data"]["updated"],
    )


# agentManager, commandManager, get_tools ------------------------------------------------------------------------------


def create_agent(world: World) -> tuple:
    off = world.pick.random() < 0.3
    slots = dict(world.value("agents"))
    return "off" if off else "new", slots, slots | ({"isEnabled": False} if off else {}), answered


def update_agent(world: World) -> tuple:
    agent, variant = world.record("agents"), world.pick.choice(["name", "description", "prompt"])
    value = world.value("agents")[variant]
    return (
        variant,
        {"agent_id": agent["id"], "value": value},
        {"id": agent["id"], variant: value},
        stored("agents", agent["id"], variant, value),
    )


def delete_agent(world: World) -> tuple:
    key = world.record("agents")["id"]
    return "delete", {"agent_id": key}, {"id": key}, lambda vault, _: key not in vault.state.data["agents"]


def toggle_agent(world: World) -> tuple:
    agent = world.record("agents")
    on = not agent["isEnabled"]
    return (
        "on" if on else "off",
        {"agent_id": agent["id"]},
        {"id": agent["id"]},
        stored("agents", agent["id"], "isEnabled", on),
    )


def get_agent(world: World) -> tuple:
    agent, by_name = world.record("agents"), world.pick.random() < 0.6
    if by_name:
        return "name", {"name": agent["name"]}, {"name": agent["name"]}, answered
    return "id", {"agent_id": agent["id"]}, {"id": agent["id"]}, answered


def list_agents(world: World) -> tuple:
    enabled = world.pick.random() < 0.5
    return "enabled" if enabled else "all", {}, {"enabledOnly": True} if enabled else {}, answered


def list_models(world: World) -> tuple:
    return "list", {}, {}, found("models")


def execute_prompt(world: World) -> tuple:
    variant, (provider, model, _) = (
        world.pick.choice(["plain", "file", "write", "agent"]),
        world.pick.choice(world.vault.provider.models),
    )
    slots = {"prompt": world.value("prompts"), "provider": provider, "model": model}
    arguments = dict(slots)
    if variant == "file":
        slots["path"] = world.note()
        arguments["filepaths"] = [slots["path"]]
    if variant == "write":
        slots["new_path"] = join(world.parent(), f"{world.title()}.md")
        arguments["action"] = {"type": "create", "targetPath": slots["new_path"]}
    if variant == "agent":
        slots["agent_id"] = arguments["agent"] = world.record("agents")["id"]
    return variant, slots, arguments, is_file(slots["new_path"]) if variant == "write" else answered


def batch_execute_prompt(world: World) -> tuple:
    provider, model, _ = world.pick.choice(world.vault.provider.models)
    slots = {"prompt": world.value("prompts"), "prompt2": world.value("prompts"), "provider": provider, "model": model}
    prompts = [
        {"type": "text", "prompt": slots[key], "provider": provider, "model": model} for key in ("prompt", "prompt2")
    ]
    return "two", slots, {"prompts": prompts}, lambda _, result: result["data"]["stats"]["promptsFailed"] == 0


def generate_image(world: World) -> tuple:
    path, shape = join(world.parent(), f"{world.title()}.png"), world.pick.random() < 0.5
    slots = {"prompt": world.value("images"), "image_path": path}
    arguments = {"prompt": slots["prompt"], "provider": "google", "savePath": path}
    if shape:
        slots["aspect"] = arguments["aspectRatio"] = world.pick.choice(["3:4", "4:3", "9:16", "16:9"])
    return "shape" if shape else "plain", slots, arguments, is_file(path)


def list_commands(world: World) -> tuple:
    if world.pick.random() < 0.5:
        return "all", {}, {}, found("commands")
    word = world.pick.choice(world.record("commands")["name"].split()).lower()
    return "filter", {"word": word}, {"filter": word}, found("commands")


def execute_command(world: World) -> tuple:
    key = world.record("commands")["id"]
    return "run", {"command_id": key}, {"commandId": key}, lambda vault, _: vault.state.data["ui"]["lastCommand"] == key


def get_tools(world: World) -> tuple:
    variant, names = world.pick.choice(["overview", "one", "two"]), world.pick.sample(sorted(world.vault.tools), 2)
    slots = {"overview": {}, "one": {"tool": names[0]}, "two": {"tool": names[0], "tool2": names[1]}}[variant]
    return variant, slots, {"tools": list(slots.values())}, answered


def make(world: World, tool: str) -> Scenario:
    """A right call of one tool in a world; raises LookupError where the world has nothing for it."""
    name = re.sub(
        r"(?<!^)(?=[A-Z])", "_", tool.rpartition("_")[2] if "Manager" in tool or "Librarian" in tool else tool
    ).lower()
    return Scenario(tool, *globals()[name](world))


def note_slots(path: str) -> dict[str, str]:
    return {"note": path.removesuffix(".md"), "path": path}


def _at(record: dict, arguments: dict) -> dict:
    """The arguments of a call that belongs into a record's workspace (see generate: it becomes the context's)."""
    return arguments | {"_workspace": record["workspaceId"]}


def _dates(world: World) -> dict[str, str]:
    end = world.today.date() - timedelta(days=world.pick.randint(0, 30))
    return {"start": (end - timedelta(days=world.pick.choice([6, 13, 30, 60]))).isoformat(), "end": end.isoformat()}


def _name_word(world: World, paths: list[str]) -> str:
    words = [word for path in paths for word in re.findall(r"[^\W\d_]{4,}", title(path))]
    return world.pick.choice(words or nothing()).lower()


def _without_front_matter(world: World) -> str:
    for _ in range(20):
        if not world.text(path := world.note()).startswith("---"):
            return path
    raise LookupError("every note has front matter")


def nothing() -> list:
    raise LookupError("nothing fits")
