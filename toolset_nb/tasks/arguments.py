"""Whether the arguments of a call are the wanted ones, and values that stand for one another."""

import re
from typing import Any

from toolset_nb.tools import catalogue
from toolset_nb.vault import VaultError
from toolset_nb.vault.files import clean
from toolset_nb.vault.snapshots import VOLATILE

PATHS = {"path", "filePath", "sourcePath", "newPath", "targetPath", "savePath", "rootFolder"}
FILES, FOLDERS = {"activeFiles", "keyFiles", "relatedFiles"}, {"paths", "relatedFolders"}  # lists of paths
IDENTIFIER = re.compile(r"id|\w+Id")  # names of arguments
# What a call may hold unasked, whatever its value: it changes how a result looks, or the vault does not mind it.
UNASKED = {
    "contentManager_readContent": {"includeLineNumbers"},
    "vaultLibrarian_searchContent": {"snippetLength"},
    "vaultLibrarian_searchDirectory": {"includeContent", "workspaceId"},
    "vaultLibrarian_batch": {"mergeResults", "maxConcurrency"},
    "vaultManager_listDirectory": {"depth"},  # 0 is the least
    "memoryManager_listStates": {"includeContext", "sessionId"},
    "memoryManager_loadSession": {"sessionName", "sessionDescription", "createContinuationSession", "sessionId"},
    "memoryManager_loadState": {"sessionName", "sessionDescription", "restorationGoal", "continueExistingSession"},
    "agentManager_getAgent": {"name"},  # the id decides
    "agentManager_executePrompt": {"temperature", "maxTokens"},
    "agentManager_batchExecutePrompt": {"mergeResponses"},
}


def agree(tool: str, wanted: dict, given: dict, result: dict | None = None, request: str = "") -> bool:
    """Whether a call's arguments are the wanted ones: paths and ids exactly, prose but for blanks and capitals.

    Arguments that are not wanted may be given where they hold the default, or hide nothing of the `result`, or keep to what
    the `request` names.
    """
    known = catalogue().tools[tool].parameters["properties"] if tool in catalogue().tools else {}
    given = {key: value for key, value in given.items() if key not in ("context", "workspaceContext")}
    default = {key: about["default"] for key, about in known.items() if "default" in about}
    return all(same(key, value, (default | given).get(key)) for key, value in wanted.items()) and all(
        same(key, default.get(key), value)
        or key in UNASKED.get(tool, ())
        or _hides_nothing(key, value, wanted, default.get(key), result)
        or (key in ("paths", "searchType") and value and all(plain(each) in plain(request) for each in _listed(value)))
        for key, value in given.items()
        if key not in wanted
    )


def _hides_nothing(key: str, value: Any, wanted: dict, default: Any, result: dict | None) -> bool:
    """Whether an argument that was not asked for leaves a result whole, as its value or the result itself tells."""
    if value in (None, "", [], {}):
        return True
    if key == "paths":
        return any(isinstance(path, str) and not path.strip("/") for path in _listed(value))
    if key == "sortBy":
        return "limit" not in wanted
    if key == "order":  # which end of a list is cut off; by name the lists begin with A, by time with the newest
        return value == ("asc" if wanted.get("sortBy") == "name" else "desc") or not {"limit", "sortBy"} & wanted.keys()
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if key == "offset":
        return value <= 1
    if key == "limit":
        return (default is not None and value >= default) or (result is not None and max(1, _found(result)) <= value)
    return key == "depth" and value >= 10  # the deepest


def _found(result: dict) -> int:
    """How many entries, or lines, there are as a result tells, else one more than it shows, since there may be more."""
    told = result | result["data"] if isinstance(result.get("data"), dict) else result
    if "endLine" in told:
        return told["endLine"] - told["startLine"] + 2
    total = told.get("totalResults", told.get("total"))
    return total if total is not None else max([len(v) + 1 for v in told.values() if isinstance(v, list)], default=0)


def _listed(value: Any) -> list:
    return value if isinstance(value, list) else [value]


def same(key: str, wanted: Any, given: Any) -> bool:
    """Whether an argument holds what is wanted: paths by where they lead, ids exactly, prose but for blanks and capitals."""
    if IDENTIFIER.fullmatch(key) and isinstance(wanted, str):
        return isinstance(given, str) and given.strip() == wanted
    try:
        if key in PATHS and isinstance(wanted, str) and isinstance(given, str):
            return _path(wanted) == _path(given)
        if key in FOLDERS | FILES and isinstance(wanted, list) and isinstance(given, list):
            texts = all(isinstance(each, str) for each in given)
            return texts and sorted(map(_path, wanted)) == sorted(map(_path, given))
    except VaultError:
        return False
    return plain(wanted) == plain(given)


def _path(path: str) -> str:
    return clean(path, root=True).removesuffix(".md").rstrip("/")


def plain(value: Any) -> Any:
    """A value for comparing: texts without regard to capitals and blanks, lists and objects part by part."""
    if isinstance(value, str):
        return " ".join(value.casefold().split())
    if isinstance(value, list):
        return [plain(part) for part in value]
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items() if key not in VOLATILE | {"id"}}
    return value
