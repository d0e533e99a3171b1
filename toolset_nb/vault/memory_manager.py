"""memoryManager: workspaces, sessions and saved states of the work."""

import json
import re
from itertools import pairwise
from typing import Any

from toolset_nb.vault.files import VaultError, clean
from toolset_nb.vault.state import GLOBAL

# The fields that updateWorkspace may set, and those below `context`.
UPDATABLE = ["name", "description", "rootFolder", "relatedFolders", "relatedFiles", "associatedNotes"]
UPDATABLE += ["keyFileInstructions", "preferences", "projectPlan", "context", "activityHistory", "checkpoints"]
UPDATABLE += ["completionStatus"]
UPDATABLE_CONTEXT = ["purpose", "currentGoal", "status", "workflows", "keyFiles", "preferences", "agents"]
# What loadWorkspace gives for the workspace that always exists and is not stored.
DEFAULT_WORKSPACE = {"id": GLOBAL, "name": "Default Workspace", "description": "", "rootFolder": ""}
DEFAULT_WORKSPACE["context"] = {"purpose": "", "workflows": [], "keyFiles": [], "preferences": ""}
STEP = re.compile(r"[A-Za-z][A-Za-z0-9_]*|\[\d+\]")
MOST_KEY_FILES, MOST_LISTED = 20, 100


def create_session(vault: Any, given: Any) -> dict:
    """Store a new session in the current workspace."""
    workspace = vault.state.workspace_id(given)
    session = _new_session(vault, workspace, given.name, given.description or "", sessionGoal=given.sessionGoal)
    session |= {"tags": given.tags or [], "previousSessionId": given.previousSessionId}
    about = {"summary": _summary(vault, session), "associatedNotes": [], "tags": session["tags"]}
    if given.contextDepth == "minimal":
        about["summary"] = session["name"]
    fields = {"sessionId": session["id"], "name": session["name"], "description": session["description"]}
    told = {"sessionInstructions": f"Use sessionId {session['id']} in the context of every further call."}
    return fields | {"workspaceId": workspace, "sessionContext": about} | told


def load_session(vault: Any, given: Any) -> dict:
    """Give back what a session was about and, unless told not to, open one that continues it."""
    workspace = vault.state.workspace_id(given)
    key = given.targetSessionId or given.sessionId
    if not key:
        raise VaultError("MISSING_REQUIRED", "targetSessionId: expected the id of the session to load")
    session = vault.state.get("sessions", key)
    if session["workspaceId"] != workspace:
        raise VaultError("NOT_FOUND", f"Session not found in workspace {workspace}: {key!r:.80}")
    fields = {"sessionId": key, "name": session["name"], "workspaceId": workspace, "startTime": session["startTime"]}
    fields |= {"endTime": session.get("endTime"), "isActive": session["isActive"]}
    if given.createContinuationSession:
        name = given.sessionName or f"Continuation of {session['name']}"
        follower = _new_session(vault, workspace, name, given.sessionDescription or session["description"])
        follower |= {"tags": session["tags"], "previousSessionId": key}
        fields["newSessionId"] = follower["id"]
    states = [state for state in vault.state.data["states"].values() if state["sessionId"] == key]
    newest = max((state["created"] for state in states), default=None)
    restored = _restored(vault, session, key, newest)
    about = {"summary": restored["summary"], "associatedNotes": restored["associatedNotes"], "tags": session["tags"]}
    return {name: value for name, value in fields.items() if value is not None} | {
        "sessionContext": about,
        "restoredContext": restored,
    }


def list_sessions(vault: Any, given: Any) -> dict:
    """The sessions of the current workspace, newest first unless `order` says otherwise."""
    workspace = vault.state.workspace_id(given)
    records = [record for record in vault.state.data["sessions"].values() if record["workspaceId"] == workspace]
    return _listed(vault, "sessions", records, "startTime", given, workspace, {})


def update_session(vault: Any, given: Any) -> dict:
    """Change a session's name, description or goal; the plugin ignores the other fields that it names."""
    key = given.targetSessionId or given.sessionId
    if not key:
        raise VaultError("MISSING_REQUIRED", "targetSessionId: expected the id of the session to change")
    session = vault.state.get("sessions", key)
    changes = _changes(given, "name", "description", "sessionGoal")
    if not changes:
        raise VaultError("NO_CHANGE", "No updates provided: expected name, description or sessionGoal")
    vault.state.put("sessions", session | changes)
    session = vault.state.get("sessions", key)
    return {
        "sessionId": key,
        "name": session["name"],
        "description": session["description"],
        "workspaceId": session["workspaceId"],
    }


def create_state(vault: Any, given: Any) -> dict:
    """Save where the work stands, so that it can be taken up again."""
    workspace = vault.state.workspace_id(given)
    saved = {
        "conversationContext": given.conversationContext,
        "activeTask": given.activeTask,
        "reasoning": given.reasoning,
    }
    for name, text in {"name": given.name, **saved}.items():
        _not_blank(name, text)
    saved |= {"activeFiles": given.activeFiles, "nextSteps": given.nextSteps}
    session = given.targetSessionId or given.context["sessionId"]
    if session not in vault.state.data["sessions"]:
        _new_session(vault, workspace, None, given.context["sessionDescription"], session)
    now = vault.tree.now
    state = {"id": vault.state.new_id("state"), "name": given.name, "workspaceId": workspace, "sessionId": session}
    state |= {"created": now, "description": given.description or "", "tags": given.tags or [], "context": saved}
    if given.includeFileContents:
        files = given.activeFiles[: None if given.maxFiles is None else int(given.maxFiles)]
        state["files"] = {path: text for path in files if (text := _text(vault, path)) is not None}
    vault.state.put("states", state)
    summary = f"{given.activeTask} ({len(given.activeFiles)} files, {len(given.nextSteps)} next steps)"
    counts = {"totalActiveFiles": len(given.activeFiles), "nextStepsCount": len(given.nextSteps)}
    return {
        **{"stateId": state["id"], "name": state["name"], "workspaceId": workspace, "sessionId": session},
        **{"timestamp": now, "created": now, "summary": summary},
        "metadata": {"persistenceVerified": True, "workspaceName": _workspace_name(vault, workspace), **counts},
        "capturedContext": {
            "summary": summary,
            **{key: saved[key] for key in ("conversationContext", "activeFiles", "nextSteps")},
        },
        "performance": {"totalDuration": 0},
    }


def load_state(vault: Any, given: Any) -> dict:
    """Give back a saved state, in its session or in a new one."""
    workspace = vault.state.workspace_id(given)
    state = vault.state.get("states", given.stateId)
    if state["workspaceId"] != workspace:
        raise VaultError("NOT_FOUND", f"State not found in workspace {workspace}: {given.stateId!r:.80}")
    fields = {"stateId": state["id"], "name": state["name"], "workspaceId": workspace}
    fields |= {"sessionId": state["sessionId"], "created": state["created"]}
    if not given.continueExistingSession:
        name = given.sessionName or f"Continuation of {state['name']}"
        session = _new_session(vault, workspace, name, given.sessionDescription or state["description"])
        session["previousSessionId"] = state["sessionId"]
        fields["newSessionId"] = session["id"]
    saved = state["context"]
    restored = {
        "summary": saved["conversationContext"],
        "associatedNotes": saved["activeFiles"],
        "stateCreatedAt": state["created"],
    }
    restored |= {"originalSessionId": state["sessionId"], "continuationHistory": [], "tags": state["tags"]}
    restored |= {key: saved[key] for key in ("activeTask", "activeFiles", "nextSteps", "reasoning")}
    return fields | {"restoredContext": restored | {"restorationGoal": given.restorationGoal}}


def list_states(vault: Any, given: Any) -> dict:
    """The saved states of the current workspace; of one session when the call's own session has any."""
    workspace = vault.state.workspace_id(given)
    records = [record for record in vault.state.data["states"].values() if record["workspaceId"] == workspace]
    own = [record for record in records if record["sessionId"] == given.context["sessionId"]]
    wanted = set(given.tags or [])
    records = [record for record in own or records if wanted <= set(record["tags"])]
    shown = (
        records
        if given.includeContext
        else [{k: v for k, v in r.items() if k not in ("context", "files")} for r in records]
    )
    return _listed(vault, "states", shown, "created", given, workspace, {"tags": given.tags} if given.tags else {})


def update_state(vault: Any, given: Any) -> dict:
    """Rename, describe or tag a saved state."""
    if not given.stateId:
        raise VaultError("MISSING_REQUIRED", "stateId: expected the id of the state to change")
    state = vault.state.get("states", given.stateId)
    changes = _changes(given, "name", "description")
    if given.addTags or given.removeTags:
        kept = [tag for tag in state["tags"] if tag not in (given.removeTags or [])]
        changes["tags"] = list(dict.fromkeys(kept + (given.addTags or [])))
    if not changes:
        raise VaultError("NO_CHANGE", "No updates provided: expected name, description, addTags or removeTags")
    state = vault.state.put("states", state | changes)
    fields = {"stateId": state["id"], "name": state["name"], "description": state["description"]}
    return fields | {"workspaceId": state["workspaceId"], "timestamp": state["created"], "tags": state["tags"]}


def create_workspace(vault: Any, given: Any) -> dict:
    """Store a workspace and make its root folder; notes at the folder's top become key files."""
    for name in ("name", "rootFolder", "purpose", "currentGoal"):
        _not_blank(name, getattr(given, name))
    root = clean(given.rootFolder, root=True)
    if root:
        vault.tree.make_folder(root)
    found = [entry.path for entry in vault.tree.children(root) if entry.path.endswith(".md")][:MOST_KEY_FILES]
    context = {
        "purpose": given.purpose,
        "currentGoal": given.currentGoal,
        "status": "active",
        "workflows": given.workflows,
    }
    context |= {"keyFiles": list(dict.fromkeys((given.keyFiles or []) + found)), "preferences": given.preferences or ""}
    if given.dedicatedAgentId:
        agent = vault.state.get("agents", given.dedicatedAgentId)
        context["agents"] = [{"id": agent["id"], "name": agent["name"]}]
    workspace = {
        "id": vault.state.new_id("ws"),
        "name": given.name,
        "description": given.description or "",
        "rootFolder": root,
    }
    workspace |= {"created": vault.tree.now, "lastAccessed": vault.tree.now, "isActive": True, "context": context}
    optional = {name: getattr(given, name) for name in ("relatedFolders", "relatedFiles", "keyFileInstructions")}
    workspace |= {name: value for name, value in optional.items() if value is not None}
    vault.state.put("workspaces", workspace)
    prompt = f"Check with the user that the workspace {given.name!r} is set up as they want it."
    return {"workspaceId": workspace["id"], "workspace": workspace, "validationPrompt": prompt}


def list_workspaces(vault: Any, given: Any) -> dict:
    """The stored workspaces; by last access, newest first, unless told otherwise."""
    key = given.sortBy or "lastAccessed"
    backwards = (given.order or ("asc" if key == "name" else "desc")) == "desc"
    records = sorted(vault.state.data["workspaces"].values(), key=lambda w: (w[key], w["id"]), reverse=backwards)
    records = records[: MOST_LISTED if given.limit is None else max(0, int(given.limit))]
    shown = [{key: w[key] for key in ("id", "name", "description", "rootFolder", "lastAccessed")} for w in records]
    for entry, record in zip(shown, records, strict=True):
        entry["status"] = "active" if record["isActive"] else "inactive"
    return {"workspaces": shown, "performance": {"totalDuration": 0}}


def load_workspace(vault: Any, given: Any) -> dict:
    """Make a workspace current: its briefing, files, sessions and states."""
    if given.id in (GLOBAL, "global-workspace"):
        workspace = DEFAULT_WORKSPACE
    else:
        workspace = vault.state.get("workspaces", given.id)
        vault.state.put("workspaces", workspace | {"lastAccessed": vault.tree.now})
    about, root, limit = workspace["context"], workspace["rootFolder"], int(given.limit)
    files = (
        [entry for entry in vault.tree.walk(root) if not entry.is_folder] if vault.tree.kind(root) == "folder" else []
    )
    newest = sorted(files, key=lambda e: (-e.modified, e.path))[:limit]
    traces = [t for t in vault.state.traces() if t["context"].get("workspaceId") == workspace["id"]][-limit:]
    context = {"name": workspace["name"], "description": workspace["description"], "purpose": about["purpose"]}
    context |= {
        "rootFolder": root,
        "recentActivity": [f"{t['tool']}: {t['context'].get('subgoal', '')}" for t in traces],
    }
    key_files = {path.rpartition("/")[2].removesuffix(".md"): path for path in about["keyFiles"]}
    fields = {"context": context, "workflows": [f"{w['name']} ({w['when']}): {w['steps']}" for w in about["workflows"]]}
    fields |= {"workspaceStructure": [entry.path for entry in files][:MOST_LISTED], "keyFiles": key_files}
    fields |= {
        "recentFiles": [{"path": e.path, "modified": e.modified} for e in newest],
        "preferences": about.get("preferences", ""),
    }
    for table, names in {"sessions": "id name description", "states": "id name description sessionId tags"}.items():
        key = "startTime" if table == "sessions" else "created"
        records = [r for r in vault.state.data[table].values() if r["workspaceId"] == workspace["id"]]
        records = sorted(records, key=lambda r, k=key: (-r[k], r["id"]))[:limit]
        fields[table] = [{n: r[n] for n in names.split()} | {"created": r[key]} for r in records]
    if about.get("agents"):
        agent = vault.state.data["agents"].get(about["agents"][0].get("id"))
        fields |= (
            {"agent": {"id": agent["id"], "name": agent["name"], "systemPrompt": agent["prompt"]}} if agent else {}
        )
    vault.beside["workspaceContext"] = {"workspaceId": workspace["id"], "workspacePath": [root]}
    return fields


def update_workspace(vault: Any, given: Any) -> dict:
    """Set one field of a workspace by its dotted path; the unchanged value is a success without change."""
    workspace = json.loads(json.dumps(vault.state.get("workspaces", given.workspaceId)))
    # An index of more than nine digits is past every list's end as well as its first nine.
    steps = [int(step[1:-1][:9]) if step[0] == "[" else step for step in STEP.findall(given.fieldPath)]
    allowed = steps[0] in UPDATABLE and (steps[0] != "context" or len(steps) > 1 and steps[1] in UPDATABLE_CONTEXT)
    if not allowed:
        expected = ", ".join(name for name in UPDATABLE if name != "context")
        raise VaultError(
            "INVALID", f"{given.fieldPath!r:.80}: expected {expected} or context.{{{', '.join(UPDATABLE_CONTEXT)}}}"
        )
    place: Any = workspace
    try:
        for step, below in pairwise(steps):
            _fits(place, step)
            place = (
                place[step] if isinstance(place, list) else place.setdefault(step, [] if isinstance(below, int) else {})
            )
        _fits(place, steps[-1])
        if place == [] and steps[-1] == 0:
            place.append(None)
        old = place[steps[-1]] if isinstance(place, list) else place.get(steps[-1])
        place[steps[-1]] = given.newValue
    except (LookupError, TypeError, AttributeError):
        raise VaultError("INVALID", f"{given.fieldPath!r:.80} does not exist in this workspace") from None
    _check_workspace(workspace)
    if steps[0] == "rootFolder" and old != given.newValue:
        workspace["rootFolder"] = clean(given.newValue, root=True)
        if workspace["rootFolder"]:
            vault.tree.make_folder(workspace["rootFolder"])
    updated = old != given.newValue
    if updated:
        vault.state.put("workspaces", workspace)
    fields = {"workspaceId": given.workspaceId, "updated": updated, "fieldPath": given.fieldPath}
    return fields | {"oldValue": old, "newValue": given.newValue, "workspace": workspace}


def _fits(place: Any, step: str | int) -> None:
    """Raise LookupError for an index into what is no list, or a name in one."""
    if isinstance(step, int) != isinstance(place, list):
        raise LookupError


def _check_workspace(workspace: dict) -> None:
    """Refuse a value that would leave a record no other tool can read."""
    about = workspace["context"]
    texts = [
        workspace["name"],
        workspace["description"],
        workspace["rootFolder"],
        about["purpose"],
        about["currentGoal"],
    ]
    flows, files = about["workflows"], about["keyFiles"]
    good_flows = isinstance(flows, list) and all(
        isinstance(flow, dict) and all(isinstance(flow.get(key), str) for key in ("name", "when", "steps"))
        for flow in flows
    )
    agents = about.get("agents", [])
    if not (
        all(isinstance(text, str) for text in texts)
        and good_flows
        and isinstance(files, list)
        and all(isinstance(path, str) for path in files)
        and isinstance(agents, list)
        and all(isinstance(agent, dict) and isinstance(agent.get("id"), str) for agent in agents)
    ):
        raise VaultError("INVALID", "newValue has not the type that this field needs")
    _not_blank("name", workspace["name"])


def _new_session(vault: Any, workspace: str, name: str | None, description: str, key: str = "", **more: Any) -> dict:
    session = {"id": key or vault.state.new_id("session"), "workspaceId": workspace, "description": description}
    session |= {"name": name or f"Session {len(vault.state.data['sessions']) + 1}", "startTime": vault.tree.now}
    session |= {"isActive": True, "tags": [], **{name: value for name, value in more.items() if value}}
    return vault.state.put("sessions", session)


def _restored(vault: Any, session: dict, key: str, state_created: int | None) -> dict:
    own = vault.state.names(key)
    traces = [trace for trace in vault.state.traces() if trace["context"].get("sessionId") in own]
    notes = list(
        dict.fromkeys(t["arguments"].get("filePath") or t["arguments"].get("path") or "" for t in traces[-50:])
    )
    history, seen = [], {key}
    while (previous := session.get("previousSessionId")) and previous not in seen:
        seen.add(previous)
        history.append(previous)
        session = vault.state.data["sessions"].get(previous, {})
    summary = _summary(vault, vault.state.data["sessions"][key])
    restored = {
        "summary": summary,
        "associatedNotes": [note for note in notes if note],
        "stateCreatedAt": state_created,
    }
    tags = vault.state.data["sessions"][key]["tags"]
    return restored | {"originalSessionId": key, "continuationHistory": history, "tags": tags}


def _summary(vault: Any, session: dict) -> str:
    goal = f" Goal: {session['sessionGoal']}." if session.get("sessionGoal") else ""
    return (
        f"{session['name']} in {_workspace_name(vault, session['workspaceId'])}. {session['description']}{goal}".strip()
    )


def _listed(vault: Any, table: str, records: list[dict], key: str, given: Any, workspace: str, filters: dict) -> dict:
    backwards = given.order == "desc"
    records = sorted(records, key=lambda record: (record[key], record["id"]), reverse=backwards)
    total, name = len(records), _workspace_name(vault, workspace)
    records = records[: MOST_LISTED if given.limit is None else max(0, int(given.limit))]
    shown = [record | {"workspaceName": name} for record in records]
    about = {"total": total, "filtered": len(shown), "workspaceId": workspace}
    return {table: shown, **about, "filters": {"order": given.order, "limit": given.limit, **filters}}


def _workspace_name(vault: Any, key: str) -> str:
    return "Default Workspace" if key == GLOBAL else vault.state.data["workspaces"].get(key, {}).get("name", key)


def _changes(given: Any, *names: str) -> dict:
    changes = {name: getattr(given, name) for name in names if getattr(given, name) is not None}
    if "name" in changes:
        _not_blank("name", changes["name"])
    return changes


def _not_blank(name: str, text: str) -> None:
    if not text.strip():
        raise VaultError("INVALID", f"{name} is empty: expected a text")


def _text(vault: Any, path: str) -> str | None:
    try:
        return vault.tree.read(clean(path, note=True))
    except VaultError:
        return None
