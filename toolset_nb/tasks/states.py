"""What a vault has to hold after the right calls, and whether it does."""

from typing import Any

from toolset_nb.tasks.arguments import FILES, FOLDERS, PATHS, plain, same
from toolset_nb.vault.snapshots import VOLATILE, Snapshot, diff
from toolset_nb.vault.vault_librarian import front_matter

STATE = "state/"


def state_fault(name: str, wanted: dict, before: Snapshot, after: Snapshot) -> str:
    """Why a note, folder or record is not as a task of `must_change` wants it, "" where it is."""
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
    of_another = [b"", *before.files.values()]  # where it was moved or copied
    olds = [before.files[name]] if name in before.files else of_another
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
