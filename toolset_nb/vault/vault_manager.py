"""vaultManager: folders and whole notes: make, move, copy, delete, list, open."""

import fnmatch
from typing import Any

import regex

from toolset_nb.vault.files import VaultError, clean
from toolset_nb.vault.links import relink

MOST_LISTED = 2000
PATTERN_SECONDS = 0.5  # for all matches of one call, so that no pattern of a model can hang the vault


def create_folder(vault: Any, given: Any) -> dict:
    """Make a folder and its parents; one that is there already is fine."""
    path = clean(given.path)
    return {"path": path, "existed": not vault.tree.make_folder(path)}


def delete_folder(vault: Any, given: Any) -> dict:
    """Move a folder to the trash; one with content only when `recursive`."""
    path = clean(given.path)
    vault.tree.need(path, "folder")
    if not given.recursive and not vault.tree.is_empty(path):
        raise VaultError("NOT_EMPTY", f"Folder is not empty: {path}; set recursive to delete it with its content")
    vault.discard(path)
    return {"path": path}


def edit_folder(vault: Any, given: Any) -> dict:
    """Rename a folder; no parents are made, nothing is replaced, and unlike moveFolder links are not followed up."""
    source, target = clean(given.path), clean(given.newPath)
    vault.tree.need(source, "folder")
    vault.tree.move(source, target, parents=False)
    return {"path": source, "newPath": target}


def move_folder(vault: Any, given: Any) -> dict:
    """Move a folder, making parents, and keep links right; `overwrite` sends what is there to the trash."""
    return _move(vault, clean(given.path), clean(given.newPath), "folder", given.overwrite)


def delete_note(vault: Any, given: Any) -> dict:
    """Move one file to the trash."""
    path = clean(given.path, note=True)
    vault.tree.need(path, "file")
    vault.discard(path)
    return {"path": path}


def move_note(vault: Any, given: Any) -> dict:
    """Move a file, making parents, and keep links right; `overwrite` sends what is there to the trash."""
    return _move(vault, clean(given.path, note=True), clean(given.newPath, note=True), "file", given.overwrite)


def duplicate_note(vault: Any, given: Any) -> dict:
    """Copy a file; a taken target is counted up (`autoIncrement`), replaced (`overwrite`) or refused."""
    source, target = clean(given.sourcePath, note=True), clean(given.targetPath, note=True)
    content = vault.tree.read_bytes(source)
    taken = vault.tree.kind(target)
    stem, dot, suffix = target.rpartition(".")
    number = 1
    while taken and given.autoIncrement and vault.tree.kind(target):
        target = f"{stem} copy{f' {number}' if number > 1 else ''}{dot}{suffix}"
        number += 1
    if taken and not given.autoIncrement and given.overwrite:
        if source == target:
            raise VaultError("INVALID", f"{source} cannot be replaced by itself")
        vault.tree.need(target, "file")
        vault.discard(target)
    vault.tree.write(target, content, new=True)
    incremented = bool(taken and given.autoIncrement)
    return {
        "sourcePath": source,
        "targetPath": target,
        "wasAutoIncremented": incremented,
        "wasOverwritten": bool(taken and not incremented),
    }


def list_directory(vault: Any, given: Any) -> dict:
    """The content of a folder, files newest first, folders by name."""
    path = clean(given.path, root=True)
    vault.tree.need(path, "folder")
    matches = name_filter(given.filter) if given.filter else lambda name: True
    entries = [e for e in vault.tree.walk(path, max(0, int(given.depth))) if matches(e.path.rpartition("/")[2])]
    with_files = given.includeFiles and not given.foldersOnly
    with_folders = given.includeFolders and not given.filesOnly
    files = sorted((e for e in entries if not e.is_folder and with_files), key=lambda e: (-e.modified, e.path))
    folders = [e for e in entries if e.is_folder and with_folders]
    if len(files) + len(folders) > MOST_LISTED:
        raise VaultError("LIMIT", f"{len(files) + len(folders)} entries; at most {MOST_LISTED} are listed: use filter")
    if not path:
        vault.beside["error"] = "This is the root of the vault; name a folder in path to see less."
    return {
        "files": [
            {"name": _name(e), "path": e.path, "size": e.size, "created": e.modified, "modified": e.modified}
            for e in files
        ],
        "folders": [{"name": _name(e), "path": e.path} for e in sorted(folders)],
        "summary": {"fileCount": len(files), "folderCount": len(folders), "totalItems": len(files) + len(folders)},
    }


def open_note(vault: Any, given: Any) -> dict:
    """Remember which note the editor shows."""
    path = clean(given.path, note=True)
    vault.tree.need(path, "file")
    vault.state.data["ui"]["open"] = {"path": path, "mode": given.mode, "focus": given.focus}
    vault.state.changed = True
    return {"path": path, "opened": True, "mode": given.mode}


def name_filter(pattern: str) -> Any:
    """A test of names by a model's regular expression, or by a glob where it is none; raises VaultError INVALID."""
    try:
        compiled = regex.compile(pattern[:500], regex.IGNORECASE)
    except (regex.error, RecursionError, OverflowError):
        glob = "*" + fnmatch.translate(pattern[:500]).removeprefix("(?s:").removesuffix(")\\Z")
        try:
            compiled = regex.compile(glob.removeprefix("*"), regex.IGNORECASE)
        except (regex.error, RecursionError, OverflowError) as error:
            raise VaultError(
                "INVALID", f"{pattern!r:.80} is neither a regular expression nor a glob: {error}"
            ) from None
    left = [PATTERN_SECONDS]

    def matches(name: str) -> bool:
        import time

        started = time.perf_counter()
        try:
            return compiled.search(name, timeout=max(left[0], 0.001)) is not None
        except TimeoutError:
            raise VaultError("LIMIT", f"{pattern!r:.80} takes too long; use a simpler pattern") from None
        finally:
            left[0] -= time.perf_counter() - started

    return matches


def _move(vault: Any, source: str, target: str, kind: str, overwrite: bool) -> dict:
    vault.tree.need(source, kind)
    taken = vault.tree.kind(target)
    if taken and overwrite and source != target:
        if target.startswith(f"{source}/") or source.startswith(f"{target}/"):
            raise VaultError("INVALID", f"{source} and {target} lie inside each other")
        vault.tree.need(target, kind)
        vault.discard(target)
    vault.tree.move(source, target)
    moved = {source: target}
    if kind == "folder":
        inside = [entry.path for entry in vault.tree.walk(target) if not entry.is_folder]
        moved = {source + path.removeprefix(target): path for path in inside}
    relink(vault, {old: new for old, new in moved.items() if old.endswith(".md")})
    return {"path": source, "newPath": target}


def _name(entry: Any) -> str:
    return entry.path.rpartition("/")[2]
