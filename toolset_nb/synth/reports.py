"""What a look-up's result holds, in a few words: the number of hits, the first names, a note's text or its beginning."""

from typing import Any

from toolset_nb.synth.wording import answers

NAMED = 3  # names that closing words give
WHOLE = 300  # characters of a text that is said whole
LONGEST_NAME = 70
LISTS = ("results", "searches", "merged", "prompts", "models", "commands", "states", "sessions", "workspaces")
TOTALS = ("totalResults", "total")
NAMES = ("title", "name", "model", "path", "content")  # the first of them that a hit has


def hits(result: dict) -> list[str]:
    """The names of what a result lists, in its order."""
    data = result.get("data") or result
    if "files" in data or "folders" in data:
        return [entry["name"] for kind in ("folders", "files") for entry in data.get(kind, [])]
    if "searches" in data:
        found = [hit for search in data["searches"] for part in search["categories"].values() for hit in part]
    elif "merged" in data:
        found = [hit for part in data["merged"]["combinedCategories"].values() for hit in part]
    else:
        found = next((data[key] for key in LISTS if isinstance(data.get(key), list)), [data])
    return [_name(hit) for hit in found]


def total(result: dict) -> int:
    """How many were found; a limited look-up shows fewer, and its result tells the number of all."""
    data = result.get("data") or result
    if "searches" in data:
        return sum(search["totalResults"] for search in data["searches"])
    data = data.get("merged", data)
    return next((data[key] for key in TOTALS if key in data), len(hits(result)))


def empty(tool: str, result: dict) -> bool:
    """Whether a look-up found nothing."""
    if tool == "contentManager_readContent":
        return not text(result)
    return not hits(result)


def text(result: dict) -> str:
    """The text of a note that was read, without front matter."""
    content = result["data"]["content"]
    if content.startswith("---\n") and "\n---\n" in content:
        content = content.split("\n---\n", 1)[1]
    return content.strip()


def beginning(whole: str) -> str:
    """A text, or its first lines where it is long."""
    if len(whole) <= WHOLE:
        return whole
    cut = whole[:WHOLE]
    end = max(cut.rfind("\n"), cut.rfind(". ") + 1)
    return (cut[:end] if end > WHOLE // 4 else cut.rpartition(" ")[0]).rstrip()


def facts(tool: str, result: dict) -> dict[str, str]:
    """Slots for words about a look-up's result; none for other tools."""
    closing = answers()["closings"].get(tool)
    if closing is None:
        return {}
    if tool == "contentManager_readContent":
        return {"text": beginning(text(result))}
    found, count, (one, several) = hits(result), total(result), closing["noun"]
    made = {"count": str(count), "hits": f"{count} {one if count == 1 else several}" if count else f"no {one}"}
    if found:
        named = found[:NAMED]
        made |= {"first": found[0], "names": ", ".join(named) + (", ..." if count > len(named) else "")}
    data = result.get("data") or result
    return made | ({"text": beginning(data["prompt"])} if tool == "agentManager_getAgent" else {})


def closings(tool: str, result: dict, language: str, arguments: dict[str, Any]) -> list[str]:
    """Wordings that fit a look-up with these arguments and its result, in the language of the request where there are some."""
    own, other = answers()["closings"][tool], answers()["closings"]["languages"].get(language, {})
    kind = _kind(own, tool, result, arguments)
    return other.get(kind) or own[kind]


def _kind(own: dict, tool: str, result: dict, arguments: dict[str, Any]) -> str:
    """Which list of wordings a result asks for."""
    narrowed = any(arguments.get(name, "default") != "default" for name in own.get("narrowed_by", ()))
    if empty(tool, result):
        return "narrowed_empty" if narrowed else "empty"
    if "text" in own:
        return "begins" if "begins" in own and len(text(result)) > WHOLE else "text"
    return "narrowed" if narrowed else "found"


def _name(hit: dict[str, Any]) -> str:
    name = str(next(hit[key] for key in NAMES if hit.get(key))).removesuffix(".md")
    name = (
        " ".join(name.rpartition("/")[2].split()) if "content" not in hit or "title" in hit else " ".join(name.split())
    )
    return name if len(name) <= LONGEST_NAME else name[:LONGEST_NAME].rpartition(" ")[0] + " ..."
