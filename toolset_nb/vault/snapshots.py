"""What a vault holds at one moment, what has changed between two, and a hash by which equal outcomes are equal.

The hash ignores ids, times and the trace of calls: two runs that leave the same notes and the same records agree.
"""

import difflib
import hashlib
import html
import json
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from toolset_nb.vault.files import MOST_FILE_BYTES

VOLATILE = {"created", "lastAccessed", "startTime", "endTime", "timestamp", "time", "isActive"}
NOT_COMPARED = {"aliases", "trash"}
IDENTIFIER = re.compile(r"(?:ws|session|state|prompt|trace)_\d{13}_[a-z0-9]{9}|s-\d{14}")
MOST_LINES = 200  # of one note's difference


@dataclass(frozen=True)
class Snapshot:
    """Files (content as bytes), folders, and the state's tables."""

    files: dict[str, bytes]
    folders: frozenset[str]
    state: dict[str, Any]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of notes, folders and records, ids and times left out."""
        names = {key: f"<{table}:{record.get('name')}>" for table, key, record in _records(self.state)}
        lines = [f"{path}\0{hashlib.sha256(content).hexdigest()}" for path, content in self.files.items()]
        lines += [f"{path}/" for path in self.folders]
        state = sorted(_plain(table, record, names) for table, _, record in _records(self.state))
        lines = sorted(lines) + state + [json.dumps(self.state["ui"], sort_keys=True)]
        return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


class Change(NamedTuple):
    """One difference: `created`, `deleted`, `modified` or `moved` (then `path` is the old place, `to` the new one)."""

    kind: str
    path: str
    to: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Difference:
    """The changes between two snapshots, in order of their paths; records of the state come last as `state/table/name`."""

    changes: list[Change]

    def __bool__(self) -> bool:
        return bool(self.changes)

    def __str__(self) -> str:
        """One line for each change, with unified diffs of texts below: for a terminal."""
        lines = []
        for change in self.changes:
            lines.append(f"{MARKS[change.kind]} {change.path}" + (f" -> {change.to}" if change.to else ""))
            lines += [f"    {line}" for line in change.detail.splitlines()]
        return "\n".join(lines) or "no changes"

    def _repr_html_(self) -> str:
        """The same for a notebook; everything is escaped, since notes are not ours."""
        parts = []
        for change in self.changes:
            title = html.escape(f"{MARKS[change.kind]} {change.path}" + (f" → {change.to}" if change.to else ""))
            shades = {"+": "#d5f0d5", "-": "#f6d5d5"}
            detail = "".join(
                f'<div style="background:{shades.get(line[:1], "none")};color:#111">{html.escape(line) or "&nbsp;"}</div>'
                for line in change.detail.splitlines()
            )
            body = f"<details><summary>{title}</summary>{detail}</details>" if detail else f"<div>{title}</div>"
            parts.append(body)
        return f'<div style="font-family:monospace;white-space:pre-wrap">{"".join(parts) or "no changes"}</div>'


MARKS = {"created": "+", "deleted": "-", "modified": "~", "moved": ">"}


def take(tree: Any, state: dict) -> Snapshot:
    """The files and folders of a tree, hidden ones too, with a copy of the state."""
    entries = list(tree.walk(hidden=True))
    files = {entry.path: (tree.root / entry.path).read_bytes() for entry in entries if not entry.is_folder}
    return Snapshot(files, frozenset(e.path for e in entries if e.is_folder), json.loads(json.dumps(state)))


def diff(before: Snapshot, after: Snapshot) -> Difference:
    """What has changed from one snapshot to the other."""
    gone = {path: before.files[path] for path in before.files.keys() - after.files.keys()}
    come = {path: after.files[path] for path in after.files.keys() - before.files.keys()}
    changes = []
    for path in sorted(come):
        source = next((old for old in sorted(gone) if gone[old] == come[path] and come[path]), None)
        if source:
            del gone[source]
            changes.append(Change("moved", source, path))
        else:
            changes.append(Change("created", path, detail=_compare(b"", come[path])))
    changes += [Change("deleted", path) for path in gone]
    changes += [
        Change("modified", path, detail=_compare(before.files[path], after.files[path]))
        for path in before.files.keys() & after.files.keys()
        if before.files[path] != after.files[path]
    ]
    changes += [Change("created", f"{path}/") for path in after.folders - before.folders]
    changes += [Change("deleted", f"{path}/") for path in before.folders - after.folders]
    return Difference(sorted(changes, key=lambda change: change.path) + _state_changes(before.state, after.state))


def since(seen: dict[str, tuple[tuple, tuple]], source: Any, mirror: Any, before: dict, after: dict) -> Difference:
    """What has changed in a mirror (see `Tree.mirror`) since it was made, with the states before and after.

    Only what is new or edited is read; what was moved is known by its stamp.
    """
    old = {path: stamp for path, (_, stamp) in seen.items()}
    new = {entry.path: entry.stamp for entry in mirror.walk(hidden=True)}
    gone = {old[path] for path in old.keys() - new.keys()}
    files: tuple[dict, dict] = ({}, {})
    for path in old.keys() | new.keys():
        was, now = old.get(path), new.get(path)
        if was == now:
            continue
        unread = not now or not was and now in gone or max(stamp[1] for stamp in (was, now) if stamp) > MOST_FILE_BYTES
        for side, tree, stamp in zip(files, (source, mirror), (was, now), strict=True):
            if stamp:
                side[path] = _stand_in(*stamp) if unread else tree.read_bytes(path)
    folders = (frozenset(path for path, stamp in stamps.items() if not stamp) for stamps in (old, new))
    return diff(*map(Snapshot, files, folders, (before, after)))


def _stand_in(time: int, size: int, number: int) -> bytes:
    """The same for one file in two places, another for every other file; nothing for an empty one."""
    return f"{size} bytes (file {number} of {time})".encode() if size else b""


def _state_changes(before: dict, after: dict) -> list[Change]:
    old = {(table, key): record for table, key, record in _records(before)}
    new = {(table, key): record for table, key, record in _records(after)}
    changes = []
    for table, key in sorted(old.keys() | new.keys()):
        was, now = old.get((table, key)), new.get((table, key))
        if _plain(table, was, {}) != _plain(table, now, {}):
            kind = "modified" if was and now else "created" if now else "deleted"
            texts = [json.dumps(r, indent=1, ensure_ascii=False).encode() if r else b"" for r in (was, now)]
            name = (now or was or {}).get("name") or key
            changes.append(Change(kind, f"state/{table}/{name}", detail=_compare(*texts) if kind == "modified" else ""))
    if before["ui"] != after["ui"]:
        texts = [json.dumps(state["ui"], indent=1, ensure_ascii=False).encode() for state in (before, after)]
        changes.append(Change("modified", "state/ui", detail=_compare(*texts)))
    return changes


def _records(state: dict) -> list[tuple[str, str, dict]]:
    tables = [table for table in state if isinstance(state[table], dict) and table not in NOT_COMPARED | {"ui"}]
    return [(table, key, record) for table in sorted(tables) for key, record in state[table].items()]


def _plain(table: str, record: dict | None, names: dict[str, str]) -> str:
    """A record without times and its own id; ids of other records become the names of those records."""
    if record is None:
        return ""
    kept = {key: value for key, value in record.items() if key not in VOLATILE | {"id"} or table == "commands"}
    text = json.dumps([table, kept], sort_keys=True, ensure_ascii=False)
    return IDENTIFIER.sub(lambda match: names.get(match[0], "<id>"), text) if names else text


def _compare(before: bytes, after: bytes) -> str:
    try:
        old, new = before.decode().splitlines(), after.decode().splitlines()
    except UnicodeDecodeError:
        return f"{len(before)} bytes -> {len(after)} bytes"
    lines = list(difflib.unified_diff(old, new, lineterm="", n=2))[2:]
    more = [f"... {len(lines) - MOST_LINES} more lines"] if len(lines) > MOST_LINES else []
    return "\n".join(lines[:MOST_LINES] + more)
