"""Requests, answers and context in the voices of datasets/voices: written by hand, filled with the facts of a scenario.

A wording is taken again only when every other of its variant has been taken as often. One wording in six is kept for
evaluation: no training row is worded by it, and no evaluation task by any other. Those of datasets/voices/training came later
and are for training alone, so that tasks stay as they are.
"""

import random
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from toolset_nb.paths import repo_root
from toolset_nb.synth.languages import language

SLOT = re.compile(r"\{(\w+)\}")
OPENINGS = [  # sessionMemory where the conversation shows nothing that was done
    "Nothing has been done in this session yet",
    "No calls have been made so far",
    "No call in this session before this one",
    "Nothing done yet",
    "This is the first call of the session",
    "Nothing was looked up or changed in this session so far",
    "No earlier calls in this session",
]
EVERY_SIXTH = 6


class Wordings(list):
    """The wordings of a variant; `training` holds more of them, which evaluation never takes."""

    training: tuple = ()


class Said(str):
    """Words made from a wording, with its language; `whole` is the wording with those of the words that stand inside."""

    wording: str = ""
    whole: str = ""
    language: str = "en"

    @classmethod
    def of(cls, wording: str, slots: dict[str, str]) -> "Said":
        """A wording filled."""
        said = cls(wording.format_map(slots))
        said.wording, said.language = wording, language(wording)
        said.whole = wording.format_map({name: getattr(value, "whole", f"{{{name}}}") for name, value in slots.items()})
        return said


@cache
def voices() -> dict[str, dict]:
    """Tool -> {requests: {variant: Wordings}, why, step, goal, memory, said}."""
    found, more = _load("*.yaml"), _load("training/*.yaml")
    for tool, voice in found.items():
        for variant in voice["requests"]:
            _extend(voice["requests"], variant, more.get(tool, {}).get(variant))
    return found


@cache
def behaviours() -> dict[str, dict]:
    """Behaviour -> variant -> {requests or pairs: Wordings, replies, ..} of datasets/voices/behaviours."""
    folder = repo_root() / "datasets" / "voices" / "behaviours"
    found = {path.stem: _load(f"behaviours/{path.name}") for path in sorted(folder.glob("*.yaml"))}
    for behaviour, variants in found.items():
        more = _load(f"training/behaviours/{behaviour}.yaml")
        for variant, parts in variants.items():
            for key in parts.keys() & {"requests", "pairs"}:
                _extend(parts, key, more.get(variant))
    return found


@cache
def answers() -> dict[str, dict]:
    """The files of datasets/voices/answers by name: what is said, remembered and given as a reason in training alone."""
    folder = repo_root() / "datasets" / "voices" / "answers"
    return {path.stem: _read(path) for path in sorted(folder.glob("*.yaml"))}


def _extend(parts: dict, key: str, more: list | None) -> None:
    parts[key] = Wordings(parts[key])
    parts[key].training = tuple(more or ())


def _load(pattern: str) -> dict[str, dict]:
    found: dict[str, dict] = {}
    for path in sorted((repo_root() / "datasets" / "voices").glob(pattern)):
        found |= _read(path)
    return found


def _read(path: Path) -> Any:
    return yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))


@cache
def names(wording: str) -> frozenset[str]:
    """The slots of a wording."""
    return frozenset(SLOT.findall(wording))


class Speaker:
    """Picks wordings evenly, with its own random generator; `split` is training or evaluation."""

    def __init__(self, seed: int | str, split: str = "training"):
        self.pick = random.Random(f"speaker {split} {seed}")
        self.split = split
        self.used: Counter[str] = Counter()

    def request(self, texts: Wordings, slots: dict[str, str], like: str | None = None) -> Said:
        """What a person says, by a wording of this split; raises LookupError where none has the slots.

        In training `like` asks for wordings that go with one of that language.
        """
        mine = self.mine(texts)
        if like is not None and self.split == "training":
            mine = [text for text in mine if language(text) == like]
        return Said.of(self.fitting(mine, slots), slots)

    def mine(self, texts: Wordings) -> list:
        """The wordings (or pairs) of this split."""
        held_out = [text for at, text in enumerate(texts) if at % EVERY_SIXTH == EVERY_SIXTH - 1]
        if self.split == "evaluation":
            return held_out
        return [text for text in texts if text not in held_out] + list(texts.training)

    def fill(self, texts: list[str], slots: dict[str, str]) -> str:
        """One of the texts whose slots are all known and not empty, filled; the least used first."""
        return self.fitting(texts, slots).format_map(slots)

    def fitting(self, texts: list[str], slots: dict[str, str]) -> str:
        """One of the texts whose slots are all known and not empty; the least used first."""
        known = {name for name, value in slots.items() if value != ""}
        return self.choose([text for text in texts if names(text) <= known])

    def choose(self, entries: list) -> Any:
        """The entry that was taken least often; raises LookupError for an empty list."""
        if not entries:
            raise LookupError("no wording has these slots")
        least = min(self.used[str(entry)] for entry in entries)
        entry = self.pick.choice([entry for entry in entries if self.used[str(entry)] == least])
        self.used[str(entry)] += 1
        return entry

    def apart(self, key: str) -> "Speaker":
        """A speaker of this split whose picks leave those of this one as they are."""
        return Speaker(key, self.split)

    def chance(self, share: float) -> bool:
        """True in that share of cases."""
        return self.pick.random() < share
