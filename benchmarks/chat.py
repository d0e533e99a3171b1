"""What trying a write costs in a large vault (2,000 notes, 300 MB of attachments, 50 MB in .git): python benchmarks/chat.py."""

import random
import resource
import tempfile
import time
from pathlib import Path

from toolset_nb.chat import Asking
from toolset_nb.tools import CONTEXT_FIELDS
from toolset_nb.vault import Vault

MEBIBYTE = 1 << 20
WRITES = 4


def fill(root: Path) -> None:
    """The notes and the attachments."""
    pick = random.Random(1)
    for number in range(2000):
        note = root / f"Folder {number % 40}" / f"Note {number}.md"
        note.parent.mkdir(exist_ok=True)
        note.write_text(f"# {number}\n[[Note {number * 7 % 2000}]]\n" + "word " * 300)
    for folder, megabytes in (("Attachments", [5] * 60), (".git", [50])):
        (root / folder).mkdir()
        for number, size in enumerate(megabytes):
            with (root / folder / f"{number}.png").open("wb") as file:
                for _ in range(size):
                    file.write(pick.randbytes(MEBIBYTE))


def main() -> None:
    """One line a write that is declined: seconds, and how much the peak of the memory has risen since before the first."""
    context = {name: "x" for name in CONTEXT_FIELDS} | {"sessionId": "session_1731571200000_base00000"}
    given = {"context": context, "filePath": "Folder 1/Note 1.md", "content": "more"}
    with tempfile.TemporaryDirectory() as folder:
        fill(Path(folder))
        asking = Asking(Vault(folder), lambda call, difference: False)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for number in range(1, WRITES + 1):
            started = time.perf_counter()
            assert asking.call("contentManager_appendContent", given)["code"] == "DECLINED"
            seconds, peak = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            print(f"write {number}: {seconds:.2f} s, peak memory +{(peak - before) / 1024:.0f} MB")


if __name__ == "__main__":
    main()
