"""Calls executed on a private copy of a vault, and whether they did what a task asks for."""

import fnmatch
import json
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

from toolset_nb import calls
from toolset_nb.paths import memory_folder, repo_root
from toolset_nb.tasks.arguments import agree
from toolset_nb.tasks.states import state_fault
from toolset_nb.tasks.words import word_faults
from toolset_nb.tools import catalogue
from toolset_nb.vault import Vault
from toolset_nb.vault.snapshots import Snapshot, diff


@dataclass(frozen=True)
class Outcome:
    """What a model did with a task: the calls it made, what they returned, its words, and the vault before and after."""

    made: list[calls.Call]
    results: list[dict]
    text: str
    before: Snapshot
    after: Snapshot


def path(name: str = "tasks") -> Path:
    """Where a task set lies."""
    return repo_root() / "datasets" / "prompts" / f"{name}.json"


def load(name: str = "tasks") -> list[dict]:
    """The tasks of a prompt set."""
    return json.loads(path(name).read_text(encoding="utf-8"))


class Fixtures:
    """Private copies of sample vaults by name, in a folder that ends with the `with` block; for several threads."""

    def __enter__(self) -> "Fixtures":
        self._folder, self._lock = tempfile.TemporaryDirectory(dir=memory_folder()), threading.Lock()
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
    before, after = outcome.before, outcome.after
    found += [fault for name, state in wanted.items() if (fault := state_fault(name, state, before, after))]
    may, never = task.get("may_change", []), [each for each in task.get("must_not_change", []) if each != "*"]
    for change in diff(before, after).changes:
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
