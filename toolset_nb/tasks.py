"""Executable tasks: what a vault has to look like after a model has done what was asked, and whether it does.

A task names its vault (`fixture`), the request, the calls that solve it (`gold`), what `must_change`, what `may_change`, and for
requests that only look something up what `must_call` (`or`: another call that answers as well). Everything else must stay as it
was. Where no call is due, `expected` says ask, refuse or talk. The file is datasets/prompts/tasks.json, its form
schemas/prompt_set.json.
"""

import fnmatch
import json
import re
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolset_nb import calls
from toolset_nb.paths import repo_root
from toolset_nb.tools import catalogue
from toolset_nb.vault import Vault, VaultError
from toolset_nb.vault.files import clean
from toolset_nb.vault.snapshots import VOLATILE, Snapshot, diff
from toolset_nb.vault.vault_librarian import front_matter

PATHS = {"path", "filePath", "sourcePath", "newPath", "targetPath", "savePath", "rootFolder"}
FILES, FOLDERS = {"activeFiles", "keyFiles", "relatedFiles"}, {"paths", "relatedFolders"}  # lists of paths
STATE = "state/"
# A question mark, or a sentence that tells the person to say what is missing.
ASKING = re.compile(
    r"[?？]|(?:^|[.!:;]\s+|\n)(?:please,? |kindly )?(?:(?:tell|give|send) me (?!if\b|when\b|a (?:moment|second|minute)\b)|"
    r"let me know (?:which|what|where|who|how|the)\b|(?:name|choose|pick|specify) (?:the|a|an|one|which)\b)",
    re.I,
)
# The offer that closes many replies.
COURTESY = re.compile(
    r"(?:(?:is there|do you (?:need|want)|(?:can|may|could|shall) i (?:help|assist|do)(?: you)?(?: with)?|would you like) )?"
    r"\banything else(?: (?:that )?(?:i|we|you) [^.?!\n]*| today)?\s*[?？]"
    r"|\b(?:how|what) (?:else )?(?:can|may) i (?:else )?(?:help|assist|do for)\b[^.?!\n]*[?？]"
    r"|\b(?:sonst noch (?:et)?was|algo más|autre chose)\s*[?？]",
    re.I,
)
REFUSAL = re.compile(
    r"\b(?:can(?:no|')t|can (?:not|no|neither|make no)|unable|not able|no (?:tool|way)|beyond|outside|only work|"
    r"out of (?:my )?reach|not something i|do(?: not|n't) (?:have|tell)|i have no|is not possible|"
    r"kann\b[^.?!]{0,40}\b(?:nicht|nichts|niemand\w*)|habe ich (?:nicht|kein\w*)|(?:ne|n') ?peux (?:pas|rien)|je n'ai|"
    r"no (?:puedo|tengo)|non posso|não (?:tenho|posso|consigo)|kan (?:ik )?(?:niets?|inte|ikke)|nie mogę)\b",
    re.I,
)
IDENTIFIER = re.compile(r"id|\w+Id")  # names of arguments


@dataclass(frozen=True)
class Outcome:
    """What a model did with a task: the calls it made, what they returned, its words, and the vault before and after."""

    made: list[calls.Call]
    results: list[dict]
    text: str
    before: Snapshot
    after: Snapshot


def load(name: str = "tasks") -> list[dict]:
    """The tasks of a prompt set."""
    return json.loads((repo_root() / "datasets" / "prompts" / f"{name}.json").read_text(encoding="utf-8"))


class Fixtures:
    """Private copies of sample vaults by name, in a folder that ends with the `with` block; for several threads."""

    def __enter__(self) -> "Fixtures":
        place = "/dev/shm" if Path("/dev/shm").is_dir() else None  # several times as fast as a disk
        self._folder, self._lock = tempfile.TemporaryDirectory(dir=place), threading.Lock()
        self._built: dict[str, Vault] = {}
        self._copies = 0
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def copy(self, name: str) -> Vault:
        """A fresh copy of a vault, with the texts that its owner will want to change."""
        from toolset_nb.synth import worlds

        with self._lock:
            if name not in self._built:
                self._built[name] = worlds.build(name, Path(self._folder.name) / name)
            self._copies += 1
            return self._built[name].copy(Path(self._folder.name) / f"{name} {self._copies}")


def perform(vault: Vault, made: list[calls.Call], text: str = "") -> Outcome:
    """Execute calls on a private vault."""
    before = vault.snapshot()
    results = [vault.call(call.name, call.arguments) for call in made]
    return Outcome(made, results, text, before, vault.snapshot())


def faults(task: dict, outcome: Outcome) -> list[str]:
    """Why an outcome does not solve a task; empty when it does."""
    found = action_faults(task, outcome)
    wanted: dict[str, dict] = task.get("must_change", {})
    found += [fault for name, state in wanted.items() if (fault := _state_fault(name, state, outcome))]
    may, never = task.get("may_change", []), [each for each in task.get("must_not_change", []) if each != "*"]
    for change in diff(outcome.before, outcome.after).changes:
        for name in filter(None, (change.path, change.to)):
            if name not in wanted and (not _matches(name, may) or _matches(name, never)):
                found.append(f"{name} was {change.kind} and should have stayed as it was")
    left = [pair for pair in zip(outcome.made, outcome.results, strict=True) if pair[1]["success"]]
    for needed in task.get("must_call", []):
        fits = (pair for pair in left if _answers(needed, *pair, task.get("question", "")))
        if pair := next(fits, None):
            left.remove(pair)  # asked for twice, it has to be called twice
        else:
            found.append(f"{needed['tool']} was not called as needed")
    return found


def _answers(needed: dict, call: calls.Call, result: dict, request: str) -> bool:
    return any(
        call.name == each["tool"] and agree(call.name, each["arguments"], call.arguments, result, request)
        for each in [needed, *needed.get("or", [])]
    )


def _matches(name: str, patterns: list[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, each) for each in patterns)


def refuses(text: str) -> bool:
    """Whether words say that something cannot be done, as told by the usual phrases."""
    return REFUSAL.search(text.replace("’", "'")) is not None


def asks(text: str) -> bool:
    """Whether words ask for something that is needed; an offer of more help is no question."""
    return ASKING.search(COURTESY.sub("", text)) is not None


def action_faults(task: dict, outcome: Outcome) -> list[str]:
    """Why the kind of reply is not the one that is due: a call, a question (looking first is allowed), or words."""
    expected, said = task.get("expected", "call"), outcome.text.strip()
    if expected == "call":
        return [] if outcome.made else ["no call was made"]
    found = [] if said else ["nothing was said"]
    tools = catalogue().tools
    acted = [
        call.name for call in outcome.made if expected != "ask" or call.name not in tools or tools[call.name].mutates
    ]
    if acted:
        found.append(
            f"{acted[0]} was called, expected words alone" + (", or looking first" if expected == "ask" else "")
        )
    return found + word_faults(expected, said)


def word_faults(expected: str, said: str) -> list[str]:
    """Why words do not ask, or refuse, where that is due."""
    if expected == "ask" and not asks(said):
        return ["no question was asked"]
    if expected == "refuse" and said and not refuses(said):
        return ["it was not said that this cannot be done"]
    return []


def _state_fault(name: str, wanted: dict, outcome: Outcome) -> str:
    before, after = outcome.before.files, outcome.after
    if name.startswith(STATE):
        return _record_fault(name, wanted, after)
    if wanted.get("folder"):
        return "" if name.rstrip("/") in after.folders else f"there is no folder {name}"
    there = name.rstrip("/") in after.folders if name.endswith("/") else name in after.files
    if wanted.get("absent"):
        return f"{name} is still there" if there else ""
    if not there:
        return f"{name} is missing"
    text = after.files[name].decode("utf-8", "replace")
    if "text" not in wanted:
        return ""
    olds = [before[name]] if name in before else [b"", *before.values()]  # of another note where it was moved or copied
    equal = any(_alike(text, wanted["text"], old.decode("utf-8", "replace")) for old in olds)
    return "" if equal else f"{name} does not read as it should"


def _alike(text: str, wanted: str, old: str) -> bool:
    """Whether two texts hold the same front matter and the same lines, without regard to capitals, blanks and empty lines.

    Whether what was added to the `old` text begins a new line where it meets its last or first one is not asked for.
    """
    (values, body), (due, rest) = front_matter(text), front_matter(wanted)
    if [(key, plain(values[key])) for key in sorted(values)] != [(key, plain(due[key])) for key in sorted(due)]:
        return False
    lines, others = _lines(body), _lines(rest)
    if lines == others:
        return True
    own = _lines(front_matter(old)[1] if due else old)
    return _apart(lines, own) == _apart(others, own)


def _lines(text: str) -> list[str]:
    return [plain(line) for line in text.splitlines() if line.strip()]


def _apart(lines: list[str], own: list[str]) -> list[str]:
    """The lines with added text apart from the last or first own line that it was joined to."""
    if own and lines.count(own[-1]) < own.count(own[-1]):
        at = max((at for at, line in enumerate(lines) if line.startswith(own[-1])), default=None)
        if at is not None:
            lines = [*lines[:at], own[-1], lines[at].removeprefix(own[-1]).strip(), *lines[at + 1 :]]
    if own and lines.count(own[0]) < own.count(own[0]):
        at = next((at for at, line in enumerate(lines) if line.endswith(own[0])), None)
        if at is not None:
            lines = [*lines[:at], lines[at].removesuffix(own[0]).strip(), own[0], *lines[at + 1 :]]
    return lines


def _record_fault(name: str, wanted: dict, after: Snapshot) -> str:
    _, table, title = name.split("/", 2) if name.count("/") > 1 else (STATE, "ui", "")
    if table == "ui":
        records = [after.state["ui"]]
    else:
        records = [record for record in after.state.get(table, {}).values() if record.get("name") == title]
    if wanted.get("absent"):
        return f"{name} is still there" if records else ""
    if not records:
        return f"{name} is missing"
    fields = wanted.get("fields", {})
    if any(_holds("", fields, record) for record in records):
        return ""
    return f"{name} does not hold what it should"


def _holds(key: str, wanted: Any, given: Any) -> bool:
    """Whether a part of a record holds what is wanted, whatever else; with or without the full stop of a dictated sentence."""
    if isinstance(wanted, dict):
        kept = wanted.keys() - VOLATILE - {"id"}
        return isinstance(given, dict) and all(_holds(each, wanted[each], given.get(each)) for each in kept)
    if isinstance(wanted, list) and key not in FOLDERS | FILES:
        alike = isinstance(given, list) and len(given) == len(wanted)
        return alike and all(_holds(key, *pair) for pair in zip(wanted, given, strict=True))
    if isinstance(wanted, str) and isinstance(given, str) and key not in PATHS:
        wanted, given = wanted.strip().removesuffix("."), given.strip().removesuffix(".")
    return same(key, wanted, given)


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


def expectations(before: Snapshot, after: Snapshot, said: str) -> dict[str, dict]:
    """`must_change` from a vault before and after the right calls; of new records only what was `said` (plain text)."""
    wanted: dict[str, dict] = {}
    for change in diff(before, after).changes:
        if change.path.startswith(STATE):
            wanted[change.path] = _record(change.path, change.kind, before, after, said)
            continue
        for name in filter(None, (change.path, change.to)):
            wanted[name] = _entry(name, after)
    return wanted


def _entry(name: str, after: Snapshot) -> dict:
    if name.endswith("/"):
        return {"folder": True} if name.rstrip("/") in after.folders else {"absent": True}
    if name not in after.files:
        return {"absent": True}
    try:
        return {"text": after.files[name].decode("utf-8")} if not name.endswith(".png") else {}
    except UnicodeDecodeError:
        return {}


def _record(name: str, kind: str, before: Snapshot, after: Snapshot, said: str) -> dict:
    if kind == "deleted":
        return {"absent": True}
    _, table, title = name.split("/", 2) if name.count("/") > 1 else (STATE, "ui", "")
    if table == "ui":
        return {
            "fields": {key: value for key, value in after.state["ui"].items() if value != before.state["ui"].get(key)}
        }
    key, now = next((key, r) for key, r in after.state[table].items() if r.get("name") == title)
    was = before.state[table].get(key)
    fields = {field: value for field, value in now.items() if field not in VOLATILE | {"id"}}
    if was is None:
        return {"fields": {field: told for field, value in fields.items() if (told := _told(value, said))}}
    return {"fields": {field: value for field, value in fields.items() if value != was.get(field)}}


def _told(value: Any, said: str) -> Any:
    """What was `said` of a value: of an object the parts, of a list all or nothing; empty where nothing was."""
    if isinstance(value, dict):
        return {key: told for key, part in value.items() if (told := _told(part, said))}
    if isinstance(value, list):
        return value if all(_told(part, said) == part for part in value) else []
    return value if isinstance(value, str) and value and plain(value) in said else ""


def path(name: str = "tasks") -> Path:
    """Where a task set lies."""
    return repo_root() / "datasets" / "prompts" / f"{name}.json"
