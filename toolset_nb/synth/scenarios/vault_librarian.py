"""Scenarios of vaultLibrarian."""

import re
from datetime import UTC, datetime, timedelta

from toolset_nb.synth.scenarios.parts import answered, dates, found, name_word, nothing
from toolset_nb.synth.worlds import World, body, tellings

RECORDED = 0.5  # share of the searches of memory, in training, for what a workspace's session or state says
HELD = 0.7  # share of the narrowed searches, in training, for what is there


def search_content(world: World) -> tuple:
    variant, query = world.form("words", "words", "folder", "few", "names"), world.query()
    slots, arguments, check = {"query": query}, {"query": query}, found("results")
    if variant == "folder":
        slots["folder"], check = world.folder(empty=False), answered
        arguments["paths"] = [slots["folder"]]
        if _held(world):
            slots["query"] = arguments["query"] = _written(world, slots["folder"])
            check = found("results")
    if variant == "few":
        arguments["limit"] = world.pick.choice([2, 3, 5, 8, 15])
        slots["limit"] = str(arguments["limit"])
    if variant == "names":
        slots["query"] = arguments["query"] = name_word(world, world.notes())
        arguments["includeContent"] = False
    return variant, slots, arguments, check


def _held(world: World) -> bool:
    """Whether a narrowed search is for something that is there; nothing is drawn for tasks."""
    return world.training and world.pick.random() < HELD


def _written(world: World, folder: str) -> str:
    """Words that a note below a folder says."""
    notes = [entry.path for entry in world.inside(folder) if not entry.is_folder and entry.path.endswith(".md")]
    text = world.text(world.pick.choice(notes or nothing()))
    return world.pick.choice(_words(body(text))) if world.pick.random() < 0.5 else world.phrase(text, 2, 3)


def _words(text: str) -> list[str]:
    """The words of a text to look for, no ids; raises LookupError where there are none."""
    return [word for word in tellings(text) if not re.search(r"\d", word)] or nothing()


def _around(milliseconds: int, world: World) -> dict[str, str]:
    """A period of some days in which a moment falls."""
    day = datetime.fromtimestamp(milliseconds / 1000, UTC).date()
    start, end = day - timedelta(days=world.pick.randint(1, 30)), day + timedelta(days=world.pick.randint(0, 14))
    return {"start": start.isoformat(), "end": max(day, min(end, world.today.date())).isoformat()}


def search_directory(world: World) -> tuple:
    variant, folder = world.form("files", "folders", "both", "dates", "type", plain="both"), world.folder(empty=False)
    inside, check = list(world.vault.tree.walk(folder)), answered
    query = name_word(
        world, [e.path for e in inside if e.is_folder == (variant == "folders")] or [e.path for e in inside]
    )
    slots, arguments = {"query": query, "folder": folder}, {"query": query, "paths": [folder]}
    if variant in ("files", "folders"):
        arguments["searchType"] = variant
    if variant == "dates":
        entry = world.pick.choice([e for e in inside if not e.is_folder] or nothing()) if _held(world) else None
        if entry:
            slots["query"] = arguments["query"] = name_word(world, [entry.path])
            check = found("results")
        slots |= _around(entry.modified, world) if entry else dates(world)
        arguments["dateRange"] = {key: slots[key] for key in ("start", "end")}
    if variant == "type":
        slots["extension"] = "md"
        arguments["fileTypes"] = ["md"]
    return variant, slots, arguments, check


def search_memory(world: World) -> tuple:
    if world.training and world.pick.random() < RECORDED:
        return _recorded(world)
    variant, query, home = world.form("any", "calls", "sessions", "states", "dates"), world.query(), "default"
    period, check = dates(world) if variant == "dates" else {}, answered
    if _held(world):
        query, moment, home = _remembered(world, variant)
        period, check = _around(moment, world) if period else {}, found("results")
    arguments: dict = {"query": query, "workspaceId": home} | ({"_workspace": home} if home != "default" else {})
    kinds = {"calls": ["toolCalls"], "sessions": ["sessions"], "states": ["states"]}
    if variant in kinds:
        arguments["memoryTypes"] = kinds[variant]
    if period:
        arguments["dateRange"] = period
    return variant, {"query": query} | period, arguments, check


def _remembered(world: World, variant: str) -> tuple[str, int, str]:
    """Words of a record of the wanted kind, when it was made, and its workspace: none where such a record is in none."""
    tables = world.vault.state.data
    if variant in ("any", "calls", "dates") and (traces := list(world.vault.state.traces())):
        trace = world.pick.choice([trace for trace in traces if _home(trace["context"]) == "default"] or nothing())
        return world.pick.choice(_words(" ".join(trace["arguments"].values()))), trace["timestamp"], "default"
    kinds = {"sessions": ["sessions"], "states": ["states"]}.get(variant, ["sessions", "states"])
    records = [record for kind in kinds for record in tables[kind].values() if variant != "calls"]
    record = world.pick.choice([each for each in records if _home(each) == "default"] or records or nothing())
    return _saying(world, record), record.get("startTime") or record["created"], _home(record)


def _home(record: dict) -> str:
    """The workspace in which something was done or stored."""
    return (record.get("workspaceId") or "default").replace("global-workspace", "default")


def _saying(world: World, record: dict) -> str:
    """The name of a session or state, or a word of its text."""
    saved = record.get("context", {})
    words = tellings(" ".join([record["description"], *(text for text in saved.values() if isinstance(text, str))]))
    return world.pick.choice([record["name"], world.pick.choice(words)] if words else [record["name"]])


def _recorded(world: World) -> tuple:
    """A search for the name of a stored session or state, or for a word of its text, in the workspace where it lies."""
    tables = world.vault.state.data
    records = [record for table in ("sessions", "states") for record in tables[table].values()]
    record = world.pick.choice([record for record in records if record["workspaceId"] != "default"] or nothing())
    query = _saying(world, record)
    slots = {"query": query, "workspace_id": record["workspaceId"]}
    return "inside", slots, {"query": query, "workspaceId": record["workspaceId"]}, found("results")


def batch(world: World) -> tuple:
    variant = world.pick.choice(["two", "three", "merged"])
    queries = list(dict.fromkeys(world.query() for _ in range(9)))[: 3 if variant == "three" else 2]
    slots = dict(zip(("query", "query2", "query3"), queries, strict=False))
    arguments = {"searches": [{"query": query} for query in queries]} | (
        {"mergeResults": True} if variant == "merged" else {}
    )
    return variant, slots, arguments, answered
