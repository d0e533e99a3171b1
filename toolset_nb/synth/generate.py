"""Making rows: scenes are played on private vaults, judged, and written down; the same seed gives the same bytes.

Stages a scene passes, in this order: scenario (the vault has something for it, and there is a wording), schema (the registry),
execution (the vault), state (the call's own check), grounding (every value of a call was said or shown before), duplicate,
evaluation (nothing shared with a prompt set). `Funnel` counts what each stage let through.

A run is one copy of a vault, with names of its own, on which scenes are played one after the other. `meta.run` names it and
`meta.result` is a hash of what the vault gave back, so that `verify` can play the rows of a run again, in the order of their
ids, and compare.
"""

import hashlib
import json
import random
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolset_nb import calls
from toolset_nb.paths import memory_folder
from toolset_nb.synth import similarity, variety, worlds
from toolset_nb.synth.balance import Balance
from toolset_nb.synth.plays import PLAYS
from toolset_nb.synth.scenes import Rejected, Scene, ungrounded
from toolset_nb.synth.wording import Said, Speaker
from toolset_nb.synth.worlds import World
from toolset_nb.tools import catalogue
from toolset_nb.vault import Vault, VaultError, fixtures

STAGES = ("scenario", "schema", "execution", "state", "grounding", "duplicate", "evaluation")
TURNS_A_SESSION = (1, 5)
SESSIONS_A_RUN = 8  # then the vault starts afresh, before it is worn out
LONGEST = 6000  # characters of a row
SAME_CALLS = 4  # rows with equal calls, in different words
EXHAUSTED = 25  # duplicates in a row after which a play has nothing new
IN_NO_WORKSPACE = 0.85  # share of sessions outside of any workspace, where the request need not name one
SHORT = 0.4  # share of a play's rows that stand first in the file; the shortest alone would lack optional arguments
LATE = {"single_call": 1, "sibling_choice": 4}  # how much later than a single call; in_order says why
FEWEST = 3  # rows of any (behaviour, variant)
STARTED = (
    1_755_000_000_000,
    1_765_000_000_000,
)  # when the sessions of the rows began, in milliseconds; each row has its own
SYMBOLS = "abcdefghijklmnopqrstuvwxyz0123456789"


@dataclass
class Funnel:
    """Scenes tried, rows kept, and why the others were not."""

    seen: int = 0
    kept: Counter = field(default_factory=Counter)
    rejected: Counter = field(default_factory=Counter)
    stages: defaultdict = field(
        default_factory=lambda: defaultdict(Counter)
    )  # behaviour or tool -> kept, and rejected by stage
    short: Counter = field(default_factory=Counter)  # rows that were wanted and could not be made without repeating
    reasons: defaultdict = field(default_factory=lambda: defaultdict(Counter))

    def keep(self, key: tuple[str, str], tools: Iterable[str] = ()) -> None:
        """Note a scene that became a row, with the tools it calls."""
        self.kept[key] += 1
        for name in (key[0], *(dict.fromkeys(tools) or ["no call"])):
            self.stages[name]["kept"] += 1

    def reject(self, stage: str, key: tuple[str, str], reason: str, tools: Iterable[str] = ()) -> None:
        """Note why a scene ended, and the tools it had called until then."""
        self.rejected[stage] += 1
        for name in (key[0], *(dict.fromkeys(tools) or ["no call"])):
            self.stages[name][stage] += 1
        self.reasons[key][f"{stage}: {reason}"[:100]] += 1

    def table(self) -> list[tuple[str, str, int, int, str]]:
        """(behaviour, variant or tool, kept, rejected, commonest reason) of each play."""
        rows = []
        for key in sorted({*self.kept, *self.reasons}):
            reasons = self.reasons[key]
            worst = ", ".join(f"{reason} ({count})" for reason, count in reasons.most_common(2))
            rows.append((*key, self.kept[key], sum(reasons.values()), worst))
        return rows

    def by_stage(self) -> list[str]:
        """Lines of a table: kept and rejected at each stage, for every behaviour and for every tool."""
        names = sorted(self.stages, key=lambda name: (name in catalogue().tools, name))
        lines = ["".join([f"{'':36}", f"{'kept':>7}", *(f"{stage:>12}" for stage in STAGES)])]
        for name in names:
            counts = self.stages[name]
            lines.append("".join([f"{name:36}", f"{counts['kept']:7}", *(f"{counts[stage]:12}" for stage in STAGES)]))
        return lines

    def __str__(self) -> str:
        """What `generate` prints."""
        left, lines = self.seen, [f"{'scenes':12} {self.seen:6}"]
        for stage in STAGES:
            left -= self.rejected[stage]
            lines.append(f"{stage:12} {left:6} passed, {self.rejected[stage]:5} rejected")
        lines.append(f"{'kept':12} {sum(self.kept.values()):6} rows of {len(self.kept)} plays")
        for (behaviour, variant), count in sorted(self.short.items()):
            lines.append(f"  {behaviour} {variant}: {count} fewer than wanted; there are no more wordings")
        for behaviour, variant, kept, rejected, worst in self.table():
            if rejected:
                lines.append(f"  {behaviour + ' ' + variant:52} {kept:4} kept, {rejected:4} rejected; {worst}")
        return "\n".join([*lines, *self.by_stage()])


def in_order(rows: Iterable[dict]) -> list[dict]:
    """Rows (pairs stay together) so that every beginning holds all plays by their share, the shorter and English ones first.

    Whoever trains on the first thousand rows gets all tools and behaviours at once, in the order in which they help: single calls,
    a third as early the answers in words, which are cheap, a fourth the contrasts of sibling tools, which need the tools
    known, an eighth the long rest. Of each play the short rows come before the long ones, with which stand those that go on after
    their one call, since what a call is has to be learned before when to stop; of both those whose request is in English, the
    base model's language, and then those made first.

    Pairs of all plays come by their share: with single calls first, two in three answers in words were wrong ones in the first
    2,560 rows, and a model after KTO on them asked less.
    """
    units: defaultdict[str, list[dict]] = defaultdict(list)
    for row in rows:
        units[row["id"].rstrip("ab")].append(row)
    plays: defaultdict[tuple, list[list[dict]]] = defaultdict(list)
    for unit in units.values():
        meta = unit[0]["meta"]
        tool = meta["tools"][0] if meta["behaviour"] == "single_call" else meta["variant"]
        plays[meta["behaviour"], tool].append(unit)
    placed = []
    for key, members in plays.items():
        size = sorted(map(_size, members))[int(len(members) * SHORT)]
        members.sort(key=lambda unit: (_size(unit) > size or _goes_on(unit), _foreign(unit), unit[0]["id"]))
        late = 1 if len(members[0]) == 2 else LATE.get(key[0], 8 if members[0][0]["meta"]["tools"] else 3)
        placed += [(late * (rank + 0.5) / len(members), key, unit) for rank, unit in enumerate(members)]
    return [row for _, _, unit in sorted(placed, key=lambda entry: entry[:2]) for row in unit]


def _goes_on(unit: list[dict]) -> bool:
    content = unit[0]["conversations"][1]["content"]
    return "\nResult: " in content and content.count("tool_call: ") == 1


def _foreign(unit: list[dict]) -> bool:
    return unit[0]["meta"].get("language", "en") != "en"


def _size(unit: list[dict]) -> int:
    return sum(len(turn["content"]) for turn in unit[0]["conversations"])


def sft(count: int, seed: int = 0, funnel: Funnel | None = None) -> Iterator[dict]:
    """About `count` rows of right answers, each behaviour by its share."""
    for row, _ in _rows(count, seed, funnel if funnel is not None else Funnel(), contrast=False):
        yield row


def kto(count: int, seed: int = 1, funnel: Funnel | None = None) -> Iterator[dict]:
    """About `count` rows, true and false in turn on the same prompt; `Balance` keeps their styles alike."""
    balance = Balance(seed)
    for row, scene in _rows(count // 2, seed, funnel if funnel is not None else Funnel(), contrast=True):
        request, answer = row["conversations"]
        options = [
            (defect, _text(right) if right else answer["content"], _text(false))
            for defect, right, false in scene.wrong + scene.matched
        ]
        options = [option for option in options if option[1] != option[2]]
        liked = {_text(false) for _, _, false in scene.matched}
        defect, right, false = balance.choose(options, row["meta"]["behaviour"], liked)
        true = row | {"id": row["id"] + "a", "conversations": [request, answer | {"content": right}]}
        shared = {key: value for key, value in row["meta"].items() if key not in ("before", "result")}
        yield true
        yield {
            "id": row["id"] + "b",
            "conversations": [request, answer | {"content": false}],
            "label": False,
            "meta": shared | {"defect": defect},
        }


def _text(blocks: list[calls.Block]) -> str:
    return calls.render(blocks, "text")


def _rows(count: int, seed: int, funnel: Funnel, contrast: bool) -> Iterator[tuple[dict, Scene]]:
    spent: Counter[tuple[str, str]] = Counter()
    wanted = Counter({key: max(FEWEST, round(share * count)) for key, (share, _) in PLAYS.items()})
    filter_, speaker = Filter(), Speaker(seed, "training")
    pick = random.Random(f"generate training {seed}")
    names, lap, number, idle = fixtures.names("training"), 0, 0, 0
    with tempfile.TemporaryDirectory(dir=memory_folder()) as folder:
        originals = {name: worlds.build(name, Path(folder) / name) for name in names}
        while +wanted and idle < 40 * len(names):
            name, run = names[lap % len(names)], f"{names[lap % len(names)]}-{lap // len(names)}"
            place = Path(folder) / run
            world = World(variety.fresh(originals[name], place, run), name, seed * 10_000 + lap, run)
            lap, before = lap + 1, number
            for _ in range(SESSIONS_A_RUN):
                for row, scene in _session(world, speaker, pick, wanted, spent, filter_, funnel, contrast):
                    number += 1
                    row["meta"]["run"] = run
                    yield {"id": f"{'kto' if contrast else 'sft'}-{number:05d}"} | row, scene
                if world.worn:
                    break
            idle = idle + 1 if number == before else 0
            shutil.rmtree(place)


def _session(
    world: World,
    speaker: Speaker,
    pick: random.Random,
    wanted: Counter,
    spent: Counter,
    filter_: "Filter",
    funnel: Funnel,
    contrast: bool,
) -> Iterator[tuple[dict, Scene]]:
    """A run of turns of one person."""
    workspace = "default" if pick.random() < IN_NO_WORKSPACE else world.record("workspaces")["id"]
    world.begin()
    for _ in range(pick.randint(*TURNS_A_SESSION)):
        open_ = sorted(key for key in wanted if wanted[key] > 0)
        if not open_:
            return
        key = pick.choices(open_, [wanted[key] for key in open_])[0]
        funnel.seen += 1
        session = f"session_{pick.randrange(*STARTED)}_{''.join(pick.choices(SYMBOLS, k=9))}"
        scene = Scene(world, speaker, session, workspace, contrast=contrast, refuses=filter_.refuses)
        clock = world.vault.tree.now
        try:
            PLAYS[key][1](scene)
            row = _judge(scene, key, filter_)
        except (Rejected, LookupError, VaultError, KeyError) as error:
            stage = error.stage if isinstance(error, Rejected) else "scenario"
            tool = [key[1]] if key[0] == "single_call" else scene.tools
            funnel.reject(stage, key, str(error), tool)
            spent[key] += stage == "duplicate"
            if spent[key] >= EXHAUSTED:
                funnel.short[key] = wanted.pop(key)
            if world.vault.tree.now != clock:  # something was executed that no row tells of
                world.worn = True
                return
            continue
        spent[key] = 0
        wanted[key] -= 1
        funnel.keep(key, scene.tools)
        yield row, scene


def _judge(scene: Scene, key: tuple[str, str], filter_: "Filter") -> dict:
    """The row of a scene that was played to its end; raises Rejected."""
    if scene.contrast and not scene.wrong + scene.matched:
        raise Rejected("scenario", "no wrong answer")
    if missing := ungrounded(scene.request, scene.blocks):
        raise Rejected("grounding", missing)
    content = _text(scene.blocks)
    if len(scene.request) + len(content) > LONGEST:
        raise Rejected("scenario", "too long")
    filter_.take(scene)
    turns = [{"role": "user", "content": scene.request}, {"role": "assistant", "content": content}]
    meta: dict[str, Any] = {"behaviour": key[0], "variant": scene.variant, "tools": list(dict.fromkeys(scene.tools))}
    meta |= {"language": scene.language, "scenario": scene.world.name, "split": "train"}
    if isinstance(scene.request, Said):
        meta["wording"] = hashlib.sha256(scene.request.whole.encode()).hexdigest()[:8]
    if scene.before:
        meta["before"] = _text(scene.before)
    if scene.results:
        meta["result"] = digest(scene.results)
    return {"conversations": turns, "label": True, "meta": meta}


def digest(results: Iterable[dict]) -> str:
    """12 hex digits that stand for what a vault gave back."""
    return hashlib.sha256(json.dumps(list(results), sort_keys=True).encode()).hexdigest()[:12]


class Filter:
    """Refuses what was there before and what an evaluation prompt shares words with."""

    def __init__(self, split: str = "training") -> None:
        self.requests: set[str] = set()
        self.signatures: Counter[str] = Counter()
        self.reserved = similarity.Reserved.published() if split == "training" else similarity.Reserved([])

    def refuses(self, request: str) -> str:
        """Why a request cannot be used, or ""."""
        known = " ".join(self.plain(request)) in self.requests
        return "the request was there before" if known else self.reserved.near(request)

    @staticmethod
    def plain(request: str) -> list[str]:
        """The words by which two requests are the same."""
        return similarity.words(request)

    def take(self, scene: Scene) -> None:
        """Remember a scene; raises Rejected for one whose calls were made too often."""
        made = [(block.name, block.arguments) for block in scene.blocks if isinstance(block, calls.Call)]
        plain = [(name, {key: value for key, value in given.items() if key != "context"}) for name, given in made]
        signature = json.dumps([scene.world.name, plain], sort_keys=True)
        if any(given for _, given in plain) and self.signatures[signature] >= SAME_CALLS:
            raise Rejected("duplicate", "the same calls were made before")
        self.requests.add(" ".join(self.plain(scene.request)))
        self.signatures[signature] += 1


def verify(rows: Iterable[dict]) -> Iterator[str]:
    """Play the true rows of generated files again, run by run, and tell every call whose result is not the recorded one."""
    runs: defaultdict[str, list[dict]] = defaultdict(list)
    for row in rows:
        if row.get("label") is True and "run" in row.get("meta", {}):
            runs[row["meta"]["run"]].append(row)
    with tempfile.TemporaryDirectory(dir=memory_folder()) as folder:
        originals: dict[str, Vault] = {}
        for run, members in sorted(runs.items()):
            name, place = members[0]["meta"]["scenario"], Path(folder) / "runs" / run
            place.parent.mkdir(exist_ok=True)
            if name not in originals:
                originals[name] = worlds.build(name, Path(folder) / name)
            vault = variety.fresh(originals[name], place, run)
            for row in sorted(members, key=lambda row: row["id"]):
                yield from _replay(vault, row)
            shutil.rmtree(place)


def _replay(vault: Vault, row: dict) -> Iterator[str]:
    for call in calls.parse(row["meta"].get("before", ""), rescue=False).calls:
        vault.call(call.name, call.arguments)
    reply = calls.parse(row["conversations"][1]["content"], rescue=False)
    results = []
    for block in reply.blocks:
        if isinstance(block, calls.Call):
            results.append(vault.call(block.name, block.arguments))
        elif isinstance(block, calls.Result) and block.value != json.loads(json.dumps(results[-1])):
            yield f"{row['id']}: the vault now gives {str(results[-1])[:100]}, the row says {str(block.value)[:100]}"
    if results and row["meta"].get("result") != digest(results):
        yield f"{row['id']}: the results' hash is {digest(results)}, the row says {row['meta'].get('result')}"
