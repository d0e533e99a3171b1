"""What the plugin remembers beside the notes: workspaces, sessions, saved states, agents, commands and the trace of calls.

One JSON file, replaced as a whole, and one JSON Lines file that only grows. Another process may change both between two
calls: `refresh` reads them again. Not here: locking (the executor's) and what the records mean (the agents').
"""

import json
import os
import random
import re
import string
from typing import Any

from toolset_nb.vault.files import Tree, VaultError

GLOBAL = "default"  # the workspace that always exists; the plugin also calls it global-workspace
EMPTY = {
    "workspaces": {},
    "sessions": {},
    "states": {},
    "agents": {},
    "commands": {},
    "aliases": {},
    "trash": [],
    "ui": {},
}
SESSION_ID = re.compile(r"(s-\d{14}|session_\d{13}_[a-z0-9]{9})\Z")
LONGEST_TRACES = 8 << 20  # bytes, after which the older half is let go


class FixedClock:
    """A clock for repeatable runs: each reading is `step` milliseconds after the one before."""

    def __init__(self, start: int, step: int = 1000):
        self.time, self.step = start, step

    def __call__(self) -> int:
        self.time += self.step
        return self.time


class State:
    """The records of one vault; `data` is what state.json holds."""

    def __init__(self, tree: Tree, seed: int | None = None):
        self.tree = tree
        self.random = random.Random(seed)
        self.data: dict[str, Any] = {}
        self.changed = False
        self._stamp: tuple | None = ()
        self._saved = ""
        self._traces: tuple[tuple | None, list[dict]] = ((), [])

    def refresh(self) -> None:
        """Read state.json again if it is not the one we know; raises VaultError IO_ERROR when it is no state."""
        stamp = _stamp(self.tree.own / "state.json")
        if stamp != self._stamp:
            try:
                self._saved = (self.tree.own / "state.json").read_text(encoding="utf-8") if stamp else "{}"
                self._load()
            except (ValueError, AttributeError, TypeError) as error:
                raise VaultError("IO_ERROR", f"state.json cannot be read ({error}); restore or delete it") from None
            self._stamp = stamp

    def save(self) -> None:
        """Write the records if a call has changed them."""
        if self.changed:
            text = json.dumps(self.data, ensure_ascii=False)
            self.tree.own_file("state.json", text.encode())
            self._saved, self._stamp, self.changed = text, _stamp(self.tree.own / "state.json"), False

    def rollback(self) -> None:
        """Forget changes that were not saved."""
        if self.changed:
            self._load()
            self.changed = False

    def new_id(self, kind: str) -> str:
        """An id in the plugin's form: kind, 13 digits of milliseconds, 9 characters of base 36."""
        tail = "".join(self.random.choices(string.ascii_lowercase + string.digits, k=9))
        return f"{kind}_{self.tree.now:013d}_{tail}"

    def put(self, table: str, record: dict) -> dict:
        """Add or replace a record by its id."""
        self.data[table][record["id"]] = record
        self.changed = True
        return record

    def get(self, table: str, key: str) -> dict:
        """A record by its id; raises VaultError NOT_FOUND."""
        if key not in self.data[table]:
            raise VaultError("NOT_FOUND", f"{table[:-1].capitalize()} not found: {key!r:.80}")
        return self.data[table][key]

    def workspace_id(self, arguments: Any) -> str:
        """The workspace a memory call is about; raises VaultError NOT_FOUND for one that was never made."""
        given = arguments.workspaceContext
        if isinstance(given, str):
            try:
                given = json.loads(given)
            except (ValueError, RecursionError):
                given = None
        key = given.get("workspaceId") if isinstance(given, dict) else None
        if key and not isinstance(key, str):
            raise VaultError("TYPE_ERROR", f"workspaceContext.workspaceId: expected text, found {type(key).__name__}")
        key = key or arguments.context["workspaceId"]
        key = GLOBAL if key in ("", GLOBAL, "global-workspace") else key
        if key != GLOBAL:
            self.get("workspaces", key)
        return key

    def session(self, foreign: str) -> str:
        """The session id to use: the given one, or for an id that is not in our form a fresh one, always the same."""
        if SESSION_ID.match(foreign):
            return foreign
        if foreign not in self.data["aliases"]:
            self.data["aliases"][foreign] = self.new_id("session")
            self.changed = True
        return self.data["aliases"][foreign]

    def names(self, session: str) -> set[str]:
        """A session's id with the foreign ones that stand for it: a call that failed early is recorded under those."""
        return {session, *(foreign for foreign, known in self.data["aliases"].items() if known == session)}

    def trace(self, record: dict) -> None:
        """Add one executed call to the trace."""
        path = self.tree.own / "traces.jsonl"
        line = json.dumps(record, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        with open(os.open(path, flags, 0o644), "r+b", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if size:
                file.seek(size - 1)
                if file.read(1) != b"\n":  # a kill tore the last line
                    line = b"\n" + line
            file.write(line)
        if size > LONGEST_TRACES:
            content = path.read_bytes()
            self.tree.own_file("traces.jsonl", content[content.index(b"\n", len(content) // 2) + 1 :])

    def traces(self) -> list[dict]:
        """Every recorded call, oldest first; lines that are no record are skipped."""
        path = self.tree.own / "traces.jsonl"
        stamp = _stamp(path)
        if stamp != self._traces[0]:
            self._traces = (
                stamp,
                [record for line in (path.read_bytes().split(b"\n") if stamp else []) if (record := _record(line))],
            )
        return self._traces[1]

    def _load(self) -> None:
        self.data = {table: default.copy() for table, default in EMPTY.items()} | json.loads(self._saved)
        if any(type(self.data[table]) is not type(default) for table, default in EMPTY.items()):
            raise ValueError("a table has the wrong type")


def _record(line: bytes) -> dict | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and "tool" in record else None


def _stamp(path: Any) -> tuple | None:
    try:
        status = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
