"""Vaults of different people for data and evaluation, built from readable seed files (datasets/vaults/*.yaml).

A seed holds notes, series (one note for each row), and the plugin's records; the same seed gives the same bytes and times.
Those whose `split` is evaluation never serve as training material.
"""

import random
from datetime import UTC, datetime
from pathlib import Path

import yaml

from toolset_nb.paths import repo_root
from toolset_nb.vault.executor import Vault
from toolset_nb.vault.files import VaultError, clean
from toolset_nb.vault.state import GLOBAL, FixedClock

DAY = 86_400_000
SPREAD_DAYS = 120  # notes without a date were last changed in these days before `now`


def names(split: str | None = None) -> list[str]:
    """The seed files there are, of one split (`training` or `evaluation`) or all."""
    found = sorted((repo_root() / "datasets" / "vaults").glob("*.yaml"))
    return [path.stem for path in found if split is None or load(path)["split"] == split]


def load(name: str | Path) -> dict:
    """A seed by its name or file."""
    path = Path(name) if str(name).endswith(".yaml") else repo_root() / "datasets" / "vaults" / f"{name}.yaml"
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(path.read_text(encoding="utf-8"), loader)


def build(name: str | Path, folder: Path | str) -> Vault:
    """Write the vault of a seed into a new folder and open it with the seed's own clock and ids."""
    seed = load(name)
    now = _milliseconds(seed["now"])
    Path(folder).mkdir(parents=True)
    vault = Vault(folder, FixedClock(now), seed=0, private=True)
    dates = random.Random(seed["vault"])
    for note in _notes(seed):
        age = dates.random() * SPREAD_DAYS * DAY
        vault.tree.now = _milliseconds(note["modified"]) if "modified" in note else now - int(age)
        if clean(note["path"], note=True) != note["path"]:
            raise VaultError("INVALID_PATH", f"{name}: {note['path']!r} is not written as the vault would write it")
        vault.tree.write(note["path"], _text(note), new=True)
    for path in seed.get("folders", []):
        vault.tree.make_folder(path)
    vault.tree.now = now
    vault.state.refresh()
    for record in _records(seed, now):
        vault.state.put(*record)
    vault.tree.commit()
    vault.state.changed = True
    vault.state.save()
    return vault


def _notes(seed: dict) -> list[dict]:
    notes = list(seed.get("notes", []))
    for series in seed.get("series", []):
        template = {key: series[key] for key in series if key != "rows"}
        notes += [_filled(template, row) for row in series["rows"]]
    return notes + [{"path": path, "text": text} for path, text in seed.get("files", {}).items()]


def _filled(value: object, row: dict) -> object:
    """A template with {field} replaced from the row, in every text it holds."""
    if isinstance(value, str):
        return value.format_map(row)
    if isinstance(value, list):
        return [_filled(part, row) for part in value]
    return {key: _filled(part, row) for key, part in value.items()} if isinstance(value, dict) else value


def _text(note: dict) -> str:
    properties = note.get("frontmatter")
    head = f"---\n{yaml.safe_dump(properties, allow_unicode=True, sort_keys=False)}---\n" if properties else ""
    return head + (note.get("text") or "")


def _records(seed: dict, now: int) -> list[tuple[str, dict]]:
    records = []
    for age, entry in enumerate(seed.get("workspaces", [])):
        about = {
            "purpose": "",
            "currentGoal": "",
            "status": "active",
            "workflows": [],
            "keyFiles": [],
            "preferences": "",
        }
        about |= {key: entry[key] for key in about if key in entry}
        record = {"id": entry["id"], "name": entry["name"], "description": entry.get("description", "")}
        record |= {
            "rootFolder": entry["rootFolder"],
            "created": now - (40 + age) * DAY,
            "lastAccessed": now - (age + 1) * DAY,
        }
        records.append(("workspaces", record | {"isActive": True, "context": about}))
    for age, entry in enumerate(seed.get("sessions", [])):
        base = {"workspaceId": GLOBAL, "description": "", "isActive": True, "tags": []}
        records.append(("sessions", base | {"startTime": now - (age + 1) * DAY} | entry))
    for age, entry in enumerate(seed.get("states", [])):
        saved = {
            key: entry[key] for key in ("conversationContext", "activeTask", "reasoning", "activeFiles", "nextSteps")
        }
        base = {"workspaceId": GLOBAL, "description": "", "tags": [], "created": now - (age + 1) * DAY}
        kept = {key: value for key, value in entry.items() if key not in saved}
        records.append(("states", base | kept | {"context": saved}))
    records += [("agents", {"isEnabled": True} | entry) for entry in seed.get("agents", [])]
    return records + [("commands", entry) for entry in seed.get("commands", [])]


def _milliseconds(moment: datetime | str | object) -> int:
    """A date or time of a seed, UTC, as milliseconds since 1970."""
    moment = datetime.fromisoformat(str(moment).replace("Z", "+00:00"))
    return int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() * 1000)
