"""The attempts of one target on disk, written down as they come, so that a run that was stopped goes on with what is missing."""

import json
import os
import threading
import time
from dataclasses import asdict, fields
from itertools import count
from pathlib import Path
from typing import Any

from toolset_nb.evaluation.verdicts import Record
from toolset_nb.files import replacing

# A reply may hold half a surrogate pair, which UTF-8 cannot; the escape in its place means the same in JSON.
LONE = "backslashreplace"


class Journal:
    """The attempts of one target on disk, one JSON object a line, after a first line with their conditions.

    Each line also holds the `seconds` that went by until it was written, since the line before or the start of its session;
    `seconds` is their sum for each (prompt, trial). Lines of other conditions are put aside as `<name>.old`, `.old2`, ...; a
    torn last line is left out.
    """

    def __init__(self, path: Path, conditions: dict[str, Any], resume: bool = True):
        self.path, self.conditions, self._lock = path, conditions, threading.Lock()
        self.records: list[Record] = []
        self.seconds: dict[tuple[str, int], float] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            lines = [_line(text) for text in path.read_text("utf-8", "replace").split("\n") if text]
            if resume and lines and lines[0] == {"conditions": conditions}:
                self._take(lines[1:])
            else:
                os.replace(path, self._aside())
        self._rewrite()
        self._last = time.perf_counter()

    def _aside(self) -> Path:
        names = (self.path.with_suffix(f".jsonl.old{number if number > 1 else ''}") for number in count(1))
        return next(path for path in names if not path.exists())

    def _take(self, lines: list[dict[str, Any]]) -> None:
        known = {field.name for field in fields(Record)}
        for line in lines:
            seconds = line.pop("seconds", 0)
            if line and line.keys() <= known:
                self._keep(Record(**line), seconds)

    def _keep(self, record: Record, seconds: float) -> None:
        key = (record.case_id, record.trial)
        self.records.append(record)
        self.seconds[key] = self.seconds.get(key, 0) + seconds

    def _rewrite(self) -> None:
        """The file with whole lines only, the last attempt of each prompt and trial, in one step."""
        last = {(record.case_id, record.trial): record for record in self.records}
        rows = [asdict(record) | {"seconds": self.seconds[key]} for key, record in last.items()]
        lines = [{"conditions": self.conditions}, *rows]
        with replacing(self.path) as path:
            path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), "utf-8", LONE)

    def add(self, record: Record) -> None:
        """Appends a record and hands it to the operating system, so that a killed process loses nothing that was answered."""
        with self._lock, self.path.open("a", encoding="utf-8", errors=LONE) as file:
            now = time.perf_counter()
            seconds, self._last = round(now - self._last, 3), now
            self._keep(record, seconds)
            file.write(json.dumps(asdict(record) | {"seconds": seconds}, ensure_ascii=False) + "\n")


def is_journal(path: Path) -> bool:
    """Whether a file is a journal: it begins with the conditions of its attempts."""
    if not path.exists():
        return False
    with path.open("rb") as file:
        return file.read(15) == b'{"conditions": '


def _line(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
