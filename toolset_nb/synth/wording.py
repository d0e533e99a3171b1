"""Requests, answers and context in the voices of datasets/voices: written by hand, filled with the facts of a scenario.

A wording is taken again only when every other of its variant has been taken as often. One wording in six is kept for
evaluation: no training row is worded by it, and no evaluation task by any other. Those of datasets/voices/training came later
and are for training alone, so that tasks stay as they are.
"""

import random
import re
from collections import Counter
from functools import cache
from typing import Any

import yaml

from toolset_nb.paths import repo_root

SLOT = re.compile(r"\{(\w+)\}")
OPENINGS = [
    "Nothing has been done in this session yet",
    "The session has just begun",
    "No calls so far; the person has only said hello",
    "First request of the day",
    "Fresh start, nothing open from before",
    "The person came back after a break; no calls since then",
    "Only small talk until now",
]
EVERY_SIXTH = 6


class Wordings(list):
    """The wordings of a variant, with `training`: more of them that no evaluation may take."""

    training: tuple = ()


@cache
def voices() -> dict[str, dict]:
    """Tool -> {requests: {variant: [..]}, why, step, goal, memory, said}."""
    found = _load("*.yaml")
    for tool, variants in _load("training/*.yaml").items():
        for variant, texts in variants.items():
            _extend(found[tool]["requests"], variant, texts)
    return found


@cache
def behaviours() -> dict[str, dict]:
    """Behaviour -> variant -> {requests, replies, ..} of datasets/voices/behaviours."""
    folder = repo_root() / "datasets" / "voices" / "behaviours"
    found = {path.stem: _load(f"behaviours/{path.name}") for path in sorted(folder.glob("*.yaml"))}
    for behaviour, variants in found.items():
        for variant, texts in _load(f"training/behaviours/{behaviour}.yaml").items():
            _extend(variants[variant], "pairs" if "pairs" in variants[variant] else "requests", texts)
    return found


def _extend(parts: dict, key: str, texts: list) -> None:
    parts[key] = Wordings(parts[key])
    parts[key].training = tuple(texts)


def _load(pattern: str) -> dict[str, dict]:
    found: dict[str, dict] = {}
    for path in sorted((repo_root() / "datasets" / "voices").glob(pattern)):
        found |= yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return found


class Speaker:
    """Picks wordings evenly, with its own random generator; `split` is training or evaluation."""

    def __init__(self, seed: int, split: str = "training"):
        self.pick = random.Random(f"speaker {split} {seed}")
        self.split = split
        self.used: Counter[str] = Counter()

    def request(self, texts: list, slots: dict[str, str]) -> str:
        """What a person says, by a wording of this split; raises LookupError where none has the slots."""
        return self.fill(self.mine(texts), slots)

    def mine(self, texts: list) -> list:
        """The wordings (or pairs) of this split."""
        held_out = [text for at, text in enumerate(texts) if at % EVERY_SIXTH == EVERY_SIXTH - 1]
        if self.split == "evaluation":
            return held_out
        later = list(getattr(texts, "training", ()))
        for text in later:
            self.used.setdefault(
                str(text), 1
            )  # their turn comes when the others had theirs: a short training begins with those
        return [text for text in texts if text not in held_out] + later

    def fill(self, texts: list[str], slots: dict[str, str]) -> str:
        """One of the texts whose slots are all known and not empty, filled; the least used first."""
        known = {name: value for name, value in slots.items() if value != ""}
        return self.choose([text for text in texts if set(SLOT.findall(text)) <= known.keys()]).format_map(known)

    def choose(self, entries: list) -> Any:
        """The entry that was taken least often; raises LookupError for an empty list."""
        if not entries:
            raise LookupError("no wording has these slots")
        least = min(self.used[str(entry)] for entry in entries)
        entry = self.pick.choice([entry for entry in entries if self.used[str(entry)] == least])
        self.used[str(entry)] += 1
        return entry

    def chance(self, share: float) -> bool:
        """True in that share of cases."""
        return self.pick.random() < share
