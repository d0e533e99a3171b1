"""Scenarios of memoryManager."""

from toolset_nb.synth.scenarios.parts import answered, at_home, found, is_folder, nothing, stored
from toolset_nb.synth.worlds import World
from toolset_nb.vault.files import clean


def create_session(world: World) -> tuple:
    chosen = world.value("sessions")
    name, goal = chosen["name"], chosen["goal"]
    named = world.pick.random() < 0.5
    slots = {"name": name, "goal": goal} if named else {"name": name}
    return "named" if named else "plain", slots, {"name": name} | ({"sessionGoal": goal} if named else {}), answered


def load_session(world: World) -> tuple:
    session, look = world.record("sessions"), world.pick.random() < 0.4
    arguments = {"targetSessionId": session["id"]} | ({"createContinuationSession": False} if look else {})
    return "look" if look else "continue", {"session_id": session["id"]}, at_home(session, arguments), answered


def list_sessions(world: World) -> tuple:
    variant = world.form("all", "some", "oldest")
    limit = world.pick.randint(2, 12)
    arguments = {"all": {}, "some": {"limit": limit}, "oldest": {"order": "asc"}}[variant]
    return variant, {"limit": str(limit)} if variant == "some" else {}, arguments, answered


def update_session(world: World) -> tuple:
    session, variant = world.record("sessions"), world.pick.choice(["name", "description", "goal"])
    value = world.value("sessions")[variant]
    field = {"name": "name", "description": "description", "goal": "sessionGoal"}[variant]
    arguments = at_home(session, {"targetSessionId": session["id"], field: value})
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
    return "fresh" if fresh else "resume", {"state_id": state["id"]}, at_home(state, arguments), answered


def list_states(world: World) -> tuple:
    variant, limit = world.form("all", "tag", "some"), world.pick.randint(2, 12)
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
    return variant, slots, at_home(state, {"stateId": state["id"], key: value}), check


def create_workspace(world: World) -> tuple:
    slots = dict(world.value("workspaces"))
    slots["folder"] = folder = world.pick.choice([world.folder(), clean(slots["folder"])])
    name, purpose, goal, when, steps = (slots[key] for key in ("name", "purpose", "goal", "when", "steps"))
    flows = [{"name": slots["flow"], "when": when, "steps": steps}]
    arguments = {"name": name, "rootFolder": folder, "purpose": purpose, "currentGoal": goal, "workflows": flows}
    return "new", slots, arguments, is_folder(folder)


def list_workspaces(world: World) -> tuple:
    variant, limit = world.form("all", "name", "recent"), world.pick.randint(2, 6)
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
