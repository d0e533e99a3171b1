"""What a vault offers to make calls from: its notes and folders, and what its owner would write next (datasets/worlds).

Every pick comes from the one random generator of the world, so that the same seed gives the same rows.
"""

import random
import re
from collections import Counter
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import yaml

from toolset_nb.paths import repo_root
from toolset_nb.synth import variety
from toolset_nb.vault import Vault, VaultError, fixtures
from toolset_nb.vault.files import Entry, clean

WORD = re.compile(r"[^\W\d_][\w'’-]{3,}")
NAME = re.compile(r"(?<![.!?:\w-] )(?<!^)\b[A-ZÀ-Þ][a-zà-ÿ]{3,}\b", re.M)
STOP = set(
    re.findall(
        r"\w+",
        "that this with from have will they were their there about after before which would could should when what then than "
        "und der die das nicht eine einen einem mit les des une pour dans avec que con para una los las",
    )
)


# milliseconds between the texts that a vault is built with, so that one note is the newest
BETWEEN_CHANGES = 3 * 60_000
PLAIN = 0.55  # share of the calls, in training, that are the plain form of their tool
VARIED = ("titles", "lines", "contents", "prompts", "queries", "images", "sessions", "states", "agents", "workspaces")


class World:
    """A prepared vault (see `build`) with a random generator; `changed` has to be called after a call that may write."""

    _vocabulary: ClassVar[
        dict[tuple, tuple[list[str], list[str]]]
    ] = {}  # (vault, training) -> words, names of its notes

    def __init__(self, vault: Vault, name: str, seed: int, run: str = ""):
        self.vault, self.name = vault, name
        vault.state.refresh()
        self.pick = random.Random(f"{name} {seed}")
        self.values = values(name)
        self.used: Counter[str] = Counter()
        self.worn = False  # a scene broke off half played
        self.changed()
        if (name, bool(run)) not in self._vocabulary:
            fit = variety.telling if run else list
            plain = [body(self.text(note)) for note in self.notes()]
            said = sorted({w for text in plain for w in WORD.findall(text) if w.casefold() not in STOP})
            found = sorted({found for text in plain for found in NAME.findall(text)})
            self._vocabulary[name, bool(run)] = fit(said), fit(found)
        self.words, self.names = self._vocabulary[name, bool(run)]
        words = [word for word in self.words if len(word) > 4]
        self.coiner = variety.Coiner(self.pick, words, run) if run else None

    def changed(self) -> None:
        """Look at the vault anew."""
        self._entries: list[Entry] | None = None
        self._texts: dict[str, str] = {}

    def value(self, kind: str) -> Any:
        """One of the owner's own texts or records of datasets/worlds; each is taken once before any is taken twice.

        In the world of a `run` titles are made up and other texts come with other numbers and words.
        """
        entries = self.values[kind]
        least = min(self.used[f"{kind} {at}"] for at in range(len(entries)))
        at = self.pick.choice([at for at in range(len(entries)) if self.used[f"{kind} {at}"] == least])
        self.used[f"{kind} {at}"] += 1
        if not self.coiner or kind not in VARIED:
            return entries[at]
        if kind == "titles":
            return self.coiner.title()
        made = self.coiner.value(entries[at])
        return self.coiner.mixed(made, entries) if kind == "contents" else made

    def begin(self) -> None:
        """Start a session: choose what it is about."""
        self.theme = self.value("themes")

    @property
    def today(self) -> datetime:
        """The vault's own day."""
        return datetime.fromtimestamp(self.vault.tree.now / 1000 or self.vault.clock() / 1000, UTC)

    @property
    def entries(self) -> list[Entry]:
        """Everything that lies in the vault now."""
        if self._entries is None:
            self._entries = list(self.vault.tree.walk())
        return self._entries

    def notes(self) -> list[str]:
        """Paths of the notes there are now."""
        return [e.path for e in self.entries if not e.is_folder and e.path.endswith(".md")]

    def folders(self) -> list[str]:
        """Paths of the folders there are now."""
        return [e.path for e in self.entries if e.is_folder]

    def text(self, path: str) -> str:
        """A note's text, empty where it cannot be read."""
        if path not in self._texts:
            try:
                self._texts[path] = self.vault.tree.read(path)
            except VaultError:
                self._texts[path] = ""
        return self._texts[path]

    def note(self, least_lines: int = 0) -> str:
        """The path of a note of so many line ends or more."""
        notes = self.notes()
        for path in self.pick.sample(notes, len(notes)):
            if self.text(path).count("\n") >= least_lines:
                return path
        raise LookupError("no note fits")

    def folder(self, empty: bool | None = None) -> str:
        """The path of a folder; `empty` asks for one without or with content."""
        folders = self.folders()
        for path in self.pick.sample(folders, len(folders)):
            if empty is None or (not self.inside(path)) == empty:
                return path
        raise LookupError("no folder fits")

    def inside(self, folder: str) -> list[Entry]:
        """Everything below a folder."""
        return [entry for entry in self.entries if entry.path.startswith(f"{folder}/")]

    def parent(self) -> str:
        """A folder in which something new can lie, now and then the root ("")."""
        return self.folder() if self.pick.random() < 0.85 else ""

    def title(self) -> str:
        """A title for something new that no note or folder has."""
        taken = {title(path).casefold() for path in self.notes()} | {title(path).casefold() for path in self.folders()}
        for _ in range(50):
            made = self.value("titles")
            made = (
                f"{made} {self.pick.choice(['2', '3', str(self.today.year), 'draft', 'old', 'new'])}"
                if self.pick.random() < 0.25
                else made
            )
            if made.casefold() not in taken and clean(made) == made:
                return made
        raise LookupError("no free title")

    def line(self, besides: str = "", longer: int = 0) -> str:
        """A line the owner would add, of more than so many characters, that does not stand in the text `besides`."""
        for _ in range(20):
            line = self.value("lines")
            if line not in besides and len(line) > longer:
                return line
        raise LookupError("no new line")

    def paragraph(self) -> str:
        """The content of a new note."""
        return self.value("contents").strip()

    def phrase(self, text: str, least: int = 2, most: int = 6) -> str:
        """A run of words that stands exactly once in a text, on one line, without markup.

        In training it has two words that somebody would look for, and is no field, of front matter or else.
        """
        lines = [
            line
            for line in (body(text) if self.training else text).split("\n")
            if len(line.split()) >= least and not line.startswith(("---", "|", "#", "```"))
        ]
        for line in self.pick.sample(lines, len(lines)):
            words = re.sub(r"^\s*[-*] (\[[ x]\] )?", "", line).split(" ")
            size = min(len(words), self.pick.randint(least, most))
            start = self.pick.randint(0, len(words) - size)
            made = " ".join(words[start : start + size]).strip(" .,;:")
            if len(made) < 6 or text.count(made) != 1 or re.search(r"[\[\]`{}*\"]", made):
                continue
            if not self.training or (len({w.casefold() for w in tellings(made)}) > 1 and not re.search("[:=]", made)):
                return made
        raise LookupError("no phrase fits")

    def query(self) -> str:
        """What the owner would look for."""
        return self.value("queries") if self.pick.random() < 0.7 else self.pick.choice(self.names or self.words)

    def form(self, *forms: str, plain: str = "") -> str:
        """One of a tool's forms; `plain`, else the first, names no option, as most requests do.

        Models add options that they saw often. In tasks each form is drawn alike.
        """
        plain = plain or forms[0]
        if self.training and self.pick.random() < PLAIN:
            return plain
        return self.pick.choice([form for form in forms if form != plain] if self.training else forms)

    @property
    def training(self) -> bool:
        """Whether this is a copy of a vault for training; tasks stay as they were made."""
        return self.coiner is not None

    def agent(self) -> dict:
        """A stored agent that can be used."""
        agents = self.vault.state.data["agents"].values()
        usable = [agent for agent in agents if agent["isEnabled"] or not self.training]
        return self.pick.choice(usable)

    def record(self, table: str) -> dict:
        """A stored workspace, session, state or agent."""
        records = list(self.vault.state.data[table].values())
        if not records:
            raise LookupError(f"no {table}")
        return self.pick.choice(records)


def build(name: str, folder: Path) -> Vault:
    """The vault of a seed, with the texts in its notes that its owner will want to change, written one after the other."""
    vault = fixtures.build(name, folder)
    now, changes = vault.tree.now, values(name)["changes"]
    pick = random.Random(name)
    notes = [e.path for e in vault.tree.walk() if not e.is_folder and e.path.endswith(".md") and 0 < e.size < 4000]
    for left, change in zip(range(len(changes), 0, -1), changes, strict=True):
        path = pick.choice(notes)
        vault.tree.now = now - left * BETWEEN_CHANGES
        vault.tree.write(path, f"{vault.tree.read(path).rstrip()}\n{change['old']}\n")
    vault.tree.now = now
    vault.tree.commit()
    return vault


@cache
def values(name: str) -> dict:
    """The owner's texts and records of one vault."""
    text = (repo_root() / "datasets" / "worlds" / f"{name}.yaml").read_text(encoding="utf-8")
    return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def body(text: str) -> str:
    """A note's text without front matter."""
    return text.split("\n---\n", 1)[1] if text.startswith("---\n") and "\n---\n" in text else text


def tellings(text: str) -> list[str]:
    """The words of a text that somebody would look for."""
    return variety.telling([word for word in WORD.findall(text) if word.casefold() not in STOP])


def title(path: str) -> str:
    """A note's name as a person says it."""
    return path.rpartition("/")[2].removesuffix(".md")


def join(folder: str, name: str) -> str:
    """A path from a folder ("" is the root) and a name."""
    return f"{folder}/{name}" if folder else name
