"""Scenarios of vaultLibrarian."""

from toolset_nb.synth.scenarios.parts import answered, dates, found, name_word, nothing
from toolset_nb.synth.worlds import World, tellings

RECORDED = 0.5  # share of the searches of memory, in training, for what a workspace's session or state says


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
        slots["query"] = arguments["query"] = name_word(world, world.notes())
        arguments["includeContent"] = False
    return variant, slots, arguments, answered if variant == "folder" else found("results")


def search_directory(world: World) -> tuple:
    variant, folder = world.pick.choice(["files", "folders", "both", "dates", "type"]), world.folder(empty=False)
    inside = list(world.vault.tree.walk(folder))
    query = name_word(
        world, [e.path for e in inside if e.is_folder == (variant == "folders")] or [e.path for e in inside]
    )
    slots, arguments = {"query": query, "folder": folder}, {"query": query, "paths": [folder]}
    if variant in ("files", "folders"):
        arguments["searchType"] = variant
    if variant == "dates":
        slots |= dates(world)
        arguments["dateRange"] = {key: slots[key] for key in ("start", "end")}
    if variant == "type":
        slots["extension"] = "md"
        arguments["fileTypes"] = ["md"]
    return variant, slots, arguments, answered


def search_memory(world: World) -> tuple:
    if world.training and world.pick.random() < RECORDED:
        return _recorded(world)
    variant, query = world.pick.choice(["any", "calls", "sessions", "states", "dates"]), world.query()
    arguments = {"query": query, "workspaceId": "default"}
    kinds = {"calls": ["toolCalls"], "sessions": ["sessions"], "states": ["states"]}
    if variant in kinds:
        arguments["memoryTypes"] = kinds[variant]
    slots = {"query": query} | (dates(world) if variant == "dates" else {})
    if variant == "dates":
        arguments["dateRange"] = {key: slots[key] for key in ("start", "end")}
    return variant, slots, arguments, answered


def _recorded(world: World) -> tuple:
    """A search for the name of a stored session or state, or for a word of its text, in the workspace where it lies."""
    tables = world.vault.state.data
    records = [record for table in ("sessions", "states") for record in tables[table].values()]
    record = world.pick.choice([record for record in records if record["workspaceId"] != "default"] or nothing())
    saved = record.get("context", {})
    words = tellings(" ".join([record["description"], *(text for text in saved.values() if isinstance(text, str))]))
    query = world.pick.choice([record["name"], world.pick.choice(words)] if words else [record["name"]])
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
