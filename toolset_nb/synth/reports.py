"""What a result holds, in a few words: the number of hits and the first names, or what is read, answered, restored there."""

import re
from collections.abc import Callable
from typing import Any

from toolset_nb.synth.wording import answers
from toolset_nb.synth.worlds import body

NAMED = 10  # names that closing words give
BRIEFLY = 3  # where they are long, or stand in several lists
LONG_NAMES = ("vaultLibrarian_searchMemory", "vaultLibrarian_batch")
ASKED = {
    "id": r"\bids?\b|\bidentifiers?\b",
    "description": r"\bdescri?pt?ions?\b|\bBeschreibung",
}  # field -> words of a request
WHOLE = 300  # characters of a text that is said whole
LONGEST_NAME = 70
QUOTED = 120  # characters of each of several texts
LISTS = ("results", "searches", "merged", "prompts", "models", "commands", "states", "sessions", "workspaces")
TOTALS = ("totalResults", "total")
NAMES = ("title", "name", "model", "path", "content")  # the first of them that a hit has


def hits(result: dict, request: str = "") -> list[str]:
    """The names of what a result lists, in its order, with the ids or descriptions that a request asks for."""
    data = result.get("data") or result
    if "files" in data or "folders" in data:
        return [entry["name"] for kind in ("folders", "files") for entry in data.get(kind, [])]
    if "searches" in data:
        found = [hit for search in data["searches"] for part in search["categories"].values() for hit in part]
    elif "merged" in data:
        found = [hit for part in data["merged"]["combinedCategories"].values() for hit in part]
    else:
        found = next((data[key] for key in LISTS if isinstance(data.get(key), list)), [data])
    return [_name(hit) + _more(hit, request) for hit in found]


def _more(record: dict[str, Any], request: str) -> str:
    """What a request asks for besides a record's name."""
    wanted = [
        str(record[field]) for field, words in ASKED.items() if record.get(field) and re.search(words, request, re.I)
    ]
    return f" ({'; '.join(wanted)})" if wanted else ""


def total(result: dict) -> int:
    """How many were found; a limited look-up shows fewer, and its result tells the number of all."""
    data = result.get("data") or result
    if "searches" in data:
        return sum(search["totalResults"] for search in data["searches"])
    data = data.get("merged", data)
    return next((data[key] for key in TOTALS if key in data), len(hits(result)))


def empty(tool: str, result: dict) -> bool:
    """Whether a look-up found nothing."""
    return not (text(tool, result) if tool in TEXTS else hits(result))


def text(tool: str, result: dict) -> str:
    """What closing words give of a result that is no list; "" where it holds nothing to be told."""
    return TEXTS[tool](result.get("data") or result)


def beginning(whole: str) -> str:
    """A text, or its first lines where it is long."""
    if len(whole) <= WHOLE:
        return whole
    cut = whole[:WHOLE]
    end = max(cut.rfind("\n"), cut.rfind(". ") + 1)
    return (cut[:end] if end > WHOLE // 4 else cut.rpartition(" ")[0]).rstrip()


def tells(tool: str, result: dict) -> bool:
    """Whether there are closing words that report from this result."""
    own = answers()["closings"].get(tool)
    return own is not None and ("empty" in own or not empty(tool, result))


def facts(tool: str, result: dict, request: str = "") -> dict[str, str]:
    """Slots for words about what a result holds; none for tools whose results are not told of."""
    closing = answers()["closings"].get(tool)
    if closing is None:
        return {}
    if tool in TEXTS:
        whole, data = text(tool, result), result.get("data") or result
        name = data.get("name") or data.get("context", {}).get("name")
        first = {"first": name + _more(data, request)} if name else {}
        return {"text": beginning(whole) if "begins" in closing else whole} | first
    found, count, (one, several) = hits(result, request), total(result), closing["noun"]
    made = {"count": str(count), "hits": f"{count} {one if count == 1 else several}" if count else f"no {one}"}
    if found:
        made |= {"first": found[0], "names": _first(found, count, BRIEFLY if tool in LONG_NAMES else NAMED)}
    return made


def closings(tool: str, result: dict, language: str, arguments: dict[str, Any]) -> list[str]:
    """Wordings that fit a look-up with these arguments and its result, in the language of the request; none where it has none."""
    own = answers()["closings"][tool]
    kind = _kind(own, tool, result, arguments)
    if language == "en":
        return own[kind]
    other = answers()["closings"]["languages"].get(language, {})
    return (other.get(tool) if kind == "text" else None) or other.get(kind, [])


def _kind(own: dict, tool: str, result: dict, arguments: dict[str, Any]) -> str:
    """Which list of wordings a result asks for."""
    narrowed = any(arguments.get(name, "default") != "default" for name in own.get("narrowed_by", ()))
    if empty(tool, result):
        return "narrowed_empty" if narrowed else "empty"
    if tool in TEXTS:
        return "begins" if "begins" in own and len(text(tool, result)) > WHOLE else "text"
    return "narrowed" if narrowed else "found"


def _name(hit: dict[str, Any]) -> str:
    """A hit's name; of the records of searchMemory a call's tool and session, or the id: their content is a raw line of a log."""
    if "tool" in hit:
        return f"{hit['tool']} ({hit['context']['sessionId']})" if "_" in hit["tool"] else hit["id"]
    name = str(next(hit[key] for key in NAMES if hit.get(key))).removesuffix(".md")
    name = (
        " ".join(name.rpartition("/")[2].split()) if "content" not in hit or "title" in hit else " ".join(name.split())
    )
    return name if len(name) <= LONGEST_NAME else name[:LONGEST_NAME].rpartition(" ")[0] + " ..."


def _short(whole: str) -> str:
    """A text on one line, cut where it is long."""
    line = " ".join(whole.split())
    return line if len(line) <= QUOTED else line[:QUOTED].rpartition(" ")[0] + " ..."


def _replies(data: dict) -> str:
    return "\n".join(f"{number}. {_short(reply['response'])}" for number, reply in enumerate(data["results"], 1))


def _quotes(data: dict) -> str:
    """The beginnings of the notes that were read; "" where notes were written."""
    read = [entry for entry in data["results"] if entry["type"] == "read"]
    return "\n".join(f"- {_name({'path': e['filePath']})}: {_short(body(e['data']['content'])) or '-'}" for e in read)


def _tools(data: dict) -> str:
    """The tools by agent, or what those that were asked for take."""
    overview = [
        f"- {agent} ({len(modes)}): {_first(modes, len(modes), BRIEFLY)}"
        for agent, modes in data.get("overview", {}).items()
    ]
    return "\n".join([*overview, *(f"- {tool['name']}: {_parameters(tool['inputSchema'])}" for tool in data["tools"])])


def _parameters(schema: dict) -> str:
    needed = schema.get("required", [])
    optional = [name for name in schema["properties"] if name not in needed]
    return "; ".join(filter(None, [", ".join(needed), optional and f"optional: {', '.join(optional)}"])) or "-"


def _first(names: list[str], count: int, most: int) -> str:
    """The first names of so many, at most a number of them."""
    return ", ".join(names[:most]) + (", ..." if count > len(names[:most]) else "")


def _place(data: dict) -> str:
    """The task of a restored state, and below it the next steps."""
    restored = data["restoredContext"]
    return "\n".join([restored["activeTask"], *(f"- {step}" for step in restored["nextSteps"])]).strip()


TEXTS: dict[str, Callable[[dict], str]] = {  # tool -> what is told of its data
    "agentManager_batchExecutePrompt": _replies,
    "agentManager_executePrompt": lambda data: data["response"],
    "agentManager_getAgent": lambda data: data["prompt"],
    "contentManager_batchContent": _quotes,
    "contentManager_readContent": lambda data: data["content"].strip("\n"),
    "get_tools": _tools,
    "memoryManager_loadSession": lambda data: data["sessionContext"]["summary"],
    "memoryManager_loadState": _place,
    "memoryManager_loadWorkspace": lambda data: data["context"]["purpose"],
}
