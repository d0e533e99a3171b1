"""What a scenario is, the checks that look at a vault after its call, and facts that several tools need."""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple

from toolset_nb.synth.worlds import World, title
from toolset_nb.vault import Vault

Check = Callable[[Vault, dict], bool]


class Scenario(NamedTuple):
    """One call that is right: `slots` are the facts a request may name, `check` looks at the vault after the call."""

    tool: str
    variant: str
    slots: dict[str, str]
    arguments: dict[str, Any]
    check: Check


def is_file(path: str) -> Check:
    """A file lies there."""
    return lambda vault, _: vault.tree.kind(path) == "file"


def is_folder(path: str) -> Check:
    """A folder lies there."""
    return lambda vault, _: vault.tree.kind(path) == "folder"


def moved(source: str, target: str) -> Check:
    """Nothing lies at the source, something at the target."""
    return lambda vault, _: vault.tree.kind(source) is None and vault.tree.kind(target) is not None


def gone(path: str) -> Check:
    """Nothing lies there."""
    return lambda vault, _: vault.tree.kind(path) is None


def reads(path: str, expected: str) -> Check:
    """The file's text is exactly this."""
    return lambda vault, _: vault.tree.read(path) == expected


def found(field: str) -> Check:
    """The result's list is not empty."""
    return lambda _, result: bool(result.get(field) or result.get("data", {}).get(field))


def stored(table: str, key: str, field: str, value: Any) -> Check:
    """A record's field has the value."""
    return lambda vault, _: vault.state.data[table][key].get(field) == value


def answered(_: Vault, result: dict) -> bool:
    """The call succeeded; there is nothing else to see."""
    return result["success"]


def note_slots(path: str) -> dict[str, str]:
    return {"note": path.removesuffix(".md"), "path": path}


def at_home(record: dict, arguments: dict) -> dict:
    """The arguments of a call that belongs into a record's workspace (see generate: it becomes the context's)."""
    return arguments | {"_workspace": record["workspaceId"]}


def dates(world: World) -> dict[str, str]:
    end = world.today.date() - timedelta(days=world.pick.randint(0, 30))
    return {"start": (end - timedelta(days=world.pick.choice([6, 13, 30, 60]))).isoformat(), "end": end.isoformat()}


def name_word(world: World, paths: list[str]) -> str:
    words = [word for path in paths for word in re.findall(r"[^\W\d_]{4,}", title(path))]
    return world.pick.choice(words or nothing()).lower()


def without_front_matter(world: World) -> str:
    for _ in range(20):
        if not world.text(path := world.note()).startswith("---"):
            return path
    raise LookupError("every note has front matter")


def nothing() -> list:
    raise LookupError("nothing fits")
