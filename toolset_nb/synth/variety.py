"""Names, ids and texts that hardly another row has, so that a model learns to copy what is asked and not to know it by heart.

Six training vaults with forty titles each are soon memorised: a small model then writes `Exercises` where the request says
`Exercices`, or `Strings` for `Strangers`. `fresh` renames notes, folders and records of a run's private vault and gives records
other ids; `Coiner` makes new titles and changes numbers, days and the like in the owner's texts. All from a random generator of
the run, so that a run can be played again. Evaluation vaults and tasks are left as they were written.
"""

import random
import re
from functools import cache
from pathlib import Path
from typing import Any

from toolset_nb.synth.wording import answers
from toolset_nb.vault import Vault, VaultError
from toolset_nb.vault.files import clean

WORD = re.compile(r"[^\W\d_][\w'’-]{4,}")
PART = re.compile(r"\d{4}-\d\d-\d\d|\b\d{1,2}\.\d{1,2}\.(?!\d)|\d{1,2}:\d\d|\d+|[^\W\d_]+")
ITEM = re.compile(r"- (?!\[)")
MIXED = 0.4  # share of a new note's list items that come from another of the owner's texts
TITLES = (
    *("{A} {b}", "{A} {b} {c}", "{A}-{b}", "{a}_{b}", "{A}", "{A} {n}", "{A} and {b}", "{A} ({b})", "{A} {year}"),
    *("{year}-{month}-{day} {A}", "{n} {a} {b}", "{A} {B}", "{a} {b}", "{A} No. {n}"),
)
JOINED = 0.15  # share of a title's words that no vault has: the first half of one and the second of another
PLAIN_RUNS = 12  # a vault's first runs have none: who trains on the first rows alone has calls to learn, not spelling
RENAMED = {"note": 0.7, "folder": 0.6, "record": 0.8}  # shares
TABLES = ("workspaces", "sessions", "states", "agents")


class Coiner:
    """New titles and changed texts from the words of one vault, for a run of it (`name-number`)."""

    def __init__(self, pick: random.Random, words: list[str], run: str):
        self.pick, self.words = pick, words
        self.joined = JOINED if int(run.rpartition("-")[2]) >= PLAIN_RUNS else 0.0

    def title(self) -> str:
        """A title of one to three words, numbers and dates; it can be a file's name."""
        first, second, third = (self._word() for _ in range(3))
        return self.pick.choice(TITLES).format(
            A=first[0].upper() + first[1:],
            B=second[0].upper() + second[1:],
            a=first.lower(),
            b=second.lower(),
            c=third.lower(),
            n=self.pick.randint(2, 60),
            year=self.pick.randint(2019, 2027),
            month=f"{self.pick.randint(1, 12):02d}",
            day=f"{self.pick.randint(1, 28):02d}",
        )

    def _word(self) -> str:
        """A word of the vault, or one that nobody has seen and that can be copied letter by letter only."""
        one, two = self.pick.choice(self.words), self.pick.choice(self.words)
        if self.pick.random() >= self.joined:
            return one
        return one[: max(3, len(one) // 2)] + two[len(two) // 2 :].lower()

    def text(self, text: str) -> str:
        """A text with other numbers, days, months and the like; it says as much sense as before."""
        return PART.sub(self._other, text)

    def instead(self, found: str) -> str:
        """What somebody would put in a word's place, or in a date's or time's; "" where that is not known."""
        if found[0].isdigit():
            return self.text(found)
        others = [other for other in _instead().get(found.lower(), []) if other.lower() != found.lower()]
        if not others or found[1:] != found[1:].lower():
            return ""
        other = self.pick.choice(others)
        return other[0].upper() + other[1:] if found[0].isupper() else other

    def mixed(self, text: str, others: list[str]) -> str:
        """A text some of whose list items are those of others of the same owner; front matter is no such list."""
        plain = [other for other in others if not other.startswith("---")]
        items = [line for other in plain for line in other.split("\n") if ITEM.match(line)]
        if text.startswith("---") or not items:
            return text
        lines = text.split("\n")
        return "\n".join(
            self.text(self.pick.choice(items)) if ITEM.match(line) and self.pick.random() < MIXED else line
            for line in lines
        )

    def value(self, value: Any) -> Any:
        """A text, list or record of texts changed so; names become titles."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self.value(part) for part in value]
        if isinstance(value, dict):
            return {key: self._field(key, part) for key, part in value.items()}
        return value

    def _field(self, key: str, value: Any) -> Any:
        return self.title() if key == "name" else value if key == "folder" else self.value(value)

    def _other(self, found: re.Match) -> str:
        part = found.group()
        if part.isdigit():
            return self._number(part)
        if part[0].isdigit() and "-" in part:
            return self._date()
        if part[0].isdigit() and "." in part:
            return f"{self.pick.randint(1, 28)}.{self.pick.randint(1, 12)}."
        if part[0].isdigit():
            return f"{self.pick.randint(7, 21):02d}:{self.pick.choice([0, 15, 20, 30, 45]):02d}"
        return self.pick.choice(alike().get(part, [part]))

    def _date(self) -> str:
        return f"{self.pick.randint(2019, 2027)}-{self.pick.randint(1, 12):02d}-{self.pick.randint(1, 28):02d}"

    def _number(self, digits: str) -> str:
        """Two digits stay a day, an hour or a minute, four that are a year a year; single ones count steps and stay."""
        if len(digits) == 2:
            return str(self.pick.randint(10, 28))
        if len(digits) == 4 and digits[:2] in ("19", "20"):
            return str(self.pick.randint(2019, 2027))
        return (
            str(self.pick.randint(10 ** (len(digits) - 1), 10 ** len(digits) - 1)) if len(digits) in (3, 4) else digits
        )


@cache
def alike() -> dict[str, list[str]]:
    """Word -> words that may stand in its place (datasets/voices/answers/alike.yaml)."""
    return {word: kind for kind in answers()["alike"] for word in kind}


@cache
def _instead() -> dict[str, list[str]]:
    """Word in small letters -> words of its kind (datasets/voices/answers/instead.yaml and alike.yaml)."""
    return {word.lower(): kind for kind in [*answers()["alike"], *answers()["instead"]] for word in kind}


def telling(words: list[str]) -> list[str]:
    """The words that somebody would look for or name a note by."""
    return [word for word in words if word.casefold() not in _empty()]


@cache
def _empty() -> frozenset[str]:
    return frozenset(answers()["empty"].split())


def fresh(original: Vault, place: Path, run: str) -> Vault:
    """A private copy of a vault for one run, its notes, folders and records renamed; the same for the same run."""
    vault = original.copy(place)
    vault.state.refresh()
    coiner = Coiner(random.Random(f"variety {run}"), words(original), run)
    moved = _rename_files(vault, coiner)
    table = _records(vault, coiner)
    vault.state.data = _replaced(vault.state.data, moved, table)
    vault.tree.commit()
    vault.state.changed = True
    vault.state.save()
    return vault


@cache
def words(vault: Vault) -> list[str]:
    """The different words of a vault's notes, sorted; looked up once, so for a vault that nobody changes."""
    found: set[str] = set()
    for entry in vault.tree.walk():
        if not entry.is_folder and entry.path.endswith(".md"):
            try:
                found |= set(WORD.findall(vault.tree.read(entry.path)))
            except VaultError:
                continue
    return sorted(word for word in telling(list(found)) if clean(word) == word)


def _rename_files(vault: Vault, coiner: Coiner) -> list[tuple[str, str]]:
    """(old, new) of each rename, deepest first, so that a path of before is found by one replacement after the other."""
    entries = sorted(vault.tree.walk(), key=lambda entry: (-entry.path.count("/"), entry.path))
    moved = []
    for entry in entries:
        note = not entry.is_folder and entry.path.endswith(".md")
        if not (note or entry.is_folder) or coiner.pick.random() > RENAMED["note" if note else "folder"]:
            continue
        parent = entry.path.rpartition("/")[0]
        name = coiner.title() + (".md" if note else "")
        target = f"{parent}/{name}" if parent else name
        try:
            if clean(target, note=note) == target and not vault.tree.kind(target):
                vault.tree.move(entry.path, target)
                moved.append((entry.path, target))
        except VaultError:
            continue  # a name that only differs in its capitals, or one that the vault refuses
    return moved


def _records(vault: Vault, coiner: Coiner) -> dict[str, str]:
    """Renames records in place; old id -> new id."""
    table: dict[str, str] = {}
    for kind in TABLES:
        for key, record in sorted(vault.state.data[kind].items()):
            if coiner.pick.random() < RENAMED["record"] and "name" in record:
                record["name"] = coiner.title()
                for field in ("description", "prompt"):
                    if record.get(field):
                        record[field] = coiner.text(record[field])
            prefix, _, rest = key.partition("_")
            time, _, tail = rest.partition("_")
            if tail and time.isdigit():
                later = int(time) + coiner.pick.randrange(10**9)
                table[key] = f"{prefix}_{later}_" + "".join(
                    coiner.pick.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=len(tail))
                )
    return table


def _replaced(value: Any, moved: list[tuple[str, str]], table: dict[str, str]) -> Any:
    """The state with new paths and ids wherever the old ones stood, as values and as keys."""
    if isinstance(value, str):
        if value in table:
            return table[value]
        for old, new in moved:
            if value == old or value.startswith(f"{old}/"):
                value = new + value[len(old) :]
        return value
    if isinstance(value, list):
        return [_replaced(part, moved, table) for part in value]
    if isinstance(value, dict):
        return {table.get(key, key): _replaced(part, moved, table) for key, part in value.items()}
    return value
