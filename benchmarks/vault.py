"""How fast a vault executes: mixed calls, private copies, searches, and how they grow with the number of notes.

    python benchmarks/vault.py [--plot docs/vault_speed.png]

Prints one line for each measure, best of several, on a vault of 200 notes and on 10,000 notes of 2 KB.
"""

import argparse
import random
import shutil
import tempfile
import time
from pathlib import Path

from toolset_nb.tools import CONTEXT_FIELDS
from toolset_nb.vault import FixedClock, Vault

CONTEXT = dict.fromkeys(CONTEXT_FIELDS, "benchmark") | {
    "sessionId": "session_1731571200000_abcdefghi",
    "workspaceId": "default",
}
WORDS = [
    f"{a}{b}"
    for a in ["amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "haven", "inlet", "juniper"]
    for b in ("", "s", "ing", "wood", "land")
]
SIZES = (100, 200, 1000, 3000, 10_000)


def make(folder: Path, notes: int, size: int = 2048) -> Vault:
    """A vault of `notes` notes of about `size` bytes in folders of 50."""
    pick = random.Random(notes)
    for number in range(notes):
        path = folder / f"Area {number // 500}" / f"Folder {number // 50}" / f"{pick.choice(WORDS)} {number}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        text = f"---\ntags: [{pick.choice(WORDS)}]\n---\n# Note {number}\n"
        while len(text) < size:
            text += " ".join(pick.choices(WORDS, k=12)) + ".\n"
        path.write_text(text)
    return Vault(folder, FixedClock(1_763_112_600_000), seed=0, private=True)


def mixed(vault: Vault, calls: int) -> float:
    """Calls a second, of the kinds that an evaluation makes: half reads, some writes, moves, searches and memory calls."""
    notes = sorted(vault.snapshot().files)
    pick = random.Random(0)
    kinds = [
        lambda n: ("contentManager_readContent", {"filePath": pick.choice(notes)}),
        lambda n: ("contentManager_readContent", {"filePath": pick.choice(notes), "offset": 2, "limit": 5}),
        lambda n: ("vaultManager_listDirectory", {"path": notes[n % len(notes)].rpartition("/")[0]}),
        lambda n: ("contentManager_appendContent", {"filePath": pick.choice(notes), "content": "one more line\n"}),
        lambda n: ("contentManager_createContent", {"filePath": f"New/{n}", "content": "text"}),
        lambda n: (
            "contentManager_findReplaceContent",
            {"filePath": pick.choice(notes), "findText": "amber", "replaceText": "amber"},
        ),
        lambda n: ("vaultManager_createFolder", {"path": f"Made/{n}"}),
        lambda n: ("memoryManager_listSessions", {"limit": 5}),
        lambda n: ("contentManager_readContent", {"filePath": "missing"}),
        lambda n: (
            ("vaultLibrarian_searchContent", {"query": pick.choice(WORDS)})
            if n % 50 == 9
            else ("get_tools", {"tools": []})
        ),
    ]
    prepared = [kinds[n % len(kinds)](n) for n in range(calls)]
    started = time.perf_counter()
    for name, arguments in prepared:
        vault.call(name, {"context": dict(CONTEXT), **arguments})
    return calls / (time.perf_counter() - started)


def search(vault: Vault) -> float:
    """Milliseconds of one content search after the first."""
    vault.call("vaultLibrarian_searchContent", {"context": dict(CONTEXT), "query": "amber"})
    times = []
    for word in ("cedarwood delta", "juniper", "fjords", "haven grove inlet", "nothing"):
        started = time.perf_counter()
        vault.call("vaultLibrarian_searchContent", {"context": dict(CONTEXT), "query": word})
        times.append(time.perf_counter() - started)
    return 1000 * min(times), 1000 * sorted(times)[len(times) // 2]


def copying(vault: Vault, folder: Path) -> float:
    """Milliseconds of a private copy, best of five."""
    times = []
    for number in range(5):
        started = time.perf_counter()
        vault.copy(folder / f"copy {number}")
        times.append(time.perf_counter() - started)
        shutil.rmtree(folder / f"copy {number}")
    return 1000 * min(times)


def main() -> None:
    """Measure, print and, if asked, plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    rows = []
    for notes in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            vault = make(Path(folder) / "vault", notes)
            copied = copying(vault, Path(folder))
            best, median = search(vault)
            rate = mixed(vault, 2000) if notes <= 1000 else mixed(vault, 500)
            rows.append((notes, rate, copied, median))
            print(
                f"{notes:6} notes: {rate:6.0f} mixed calls/s, copy {copied:6.1f} ms, search {best:5.1f} ms (median {median:.1f})"
            )
    if options.plot:
        _plot(rows, options.plot)


def _plot(rows: list[tuple], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
    notes = [row[0] for row in rows]
    for axis, column, title in zip(
        axes, (1, 2, 3), ("mixed calls a second", "private copy, ms", "searchContent, ms"), strict=True
    ):
        axis.plot(notes, [row[column] for row in rows], marker="o")
        axis.set(title=title, xlabel="notes of 2 KB", xscale="log", ylim=(0, None))
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
