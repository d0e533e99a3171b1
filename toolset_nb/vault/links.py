"""Links between notes: which note a link means, and keeping links right when notes move.

Wiki links (`[[Note#Heading|shown]]`) and Markdown links to `.md` files are known, as Obsidian treats them: outside code, a
bare name means the note of that name nearest to the root. Not here: links to headings or blocks that change inside a note.
"""

import re
from typing import Any
from urllib.parse import quote, unquote

from toolset_nb.vault.files import folded

CODE = r"```.*?(?:```|\Z)|`[^`\n]*`"
LINK = re.compile(rf"{CODE}|\[\[(?P<wiki>[^\[\]|#^\n]+)|\]\(<?(?P<path>[^()<>\n]+?\.md)(?=[#)>\s])", re.S)


def relink(vault: Any, moved: dict[str, str]) -> list[str]:
    """Rewrite the links to notes that have moved (old path -> new path); returns the notes that were changed."""
    notes = vault.index.refresh()
    paths = (notes.keys() - set(moved.values())) | moved.keys()
    target = _resolver(paths)
    named = {folded(path.rpartition("/")[2].removesuffix(".md")) for path in moved}
    changed = []
    for path, note in notes.items():
        if "%" not in note.text and not any(name in note.lower for name in named):
            continue

        def rewrite(match: re.Match) -> str:
            written = match["wiki"] or match["path"]
            found = target(written) if written else None
            if found not in moved:
                return match[0]
            new = moved[found]
            if match["path"]:
                return match[0].replace(written, quote(new) if "%" in written or "<" not in match[0] else new)
            short = new.rpartition("/")[2]
            shown = new if "/" in written or _taken(paths, short, found) else short
            return f"[[{shown if written.endswith('.md') else shown.removesuffix('.md')}"

        text = LINK.sub(rewrite, note.text)
        if text != note.text:
            vault.tree.write(path, text)
            changed.append(path)
    return changed


def _resolver(paths: Any) -> Any:
    """A function from a link's text to the path it means, or None."""
    by_path = {folded(path): path for path in paths}
    by_name: dict[str, str] = {}
    for path in sorted(paths, key=lambda path: (path.count("/"), path)):
        by_name.setdefault(folded(path.rpartition("/")[2]), path)

    def resolve(written: str) -> str | None:
        wanted = folded(unquote(written).strip().strip("/"))
        wanted = wanted if wanted.endswith(".md") else f"{wanted}.md"
        return by_path.get(wanted) or (None if "/" in wanted else by_name.get(wanted))

    return resolve


def _taken(paths: Any, name: str, besides: str) -> bool:
    return any(path != besides and folded(path.rpartition("/")[2]) == folded(name) for path in paths)
