"""contentManager: the text inside notes: create, read, add, replace, remove."""

import re
from types import SimpleNamespace
from typing import Any

from diff_match_patch import diff_match_patch

from toolset_nb.vault.files import HALF_CHARACTER, MOST_FILE_BYTES, MOST_WRITE_BYTES, VaultError, clean

LONGEST_FUZZY = 32  # diff-match-patch's Match_MaxBits: the plugin's search throws above it


def create_content(vault: Any, given: Any) -> dict:
    """Write a new file; parents are made."""
    path = clean(given.filePath, note=True)
    vault.tree.write(path, _limited(given.content), new=True)
    return {"filePath": path, "created": vault.tree.now}


def read_content(vault: Any, given: Any) -> dict:
    """The text of a file, or `limit` lines from line `offset` when both are given."""
    path = clean(given.filePath, note=True)
    text = vault.tree.read(path)
    lines = text.split("\n")
    first, last = 1, len(lines)
    windowed = given.limit is not None and given.offset is not None
    if windowed:
        first = max(1, int(given.offset))
        if first > len(lines):
            raise VaultError("OUT_OF_RANGE", f"Line {first} is past the end: {path} has {len(lines)} lines")
        last = max(first - 1, min(len(lines), first - 1 + int(given.limit)))
        text = "\n".join(lines[first - 1 : last])
    if given.includeLineNumbers:
        text = "\n".join(f"{number}: {line}" for number, line in enumerate(lines[first - 1 : last], first))
    fields = {"content": text, "filePath": path, "lineNumbersIncluded": given.includeLineNumbers}
    return fields | ({"startLine": first, "endLine": last} if windowed else {})


def append_content(vault: Any, given: Any) -> dict:
    """Add text at the very end, exactly as given."""
    path, text = _open(vault, given)
    _write(vault, path, text + _limited(given.content))
    return {"filePath": path, "appendedLength": len(given.content), "totalLength": len(text) + len(given.content)}


def prepend_content(vault: Any, given: Any) -> dict:
    """Add text at the very start, exactly as given, before any front matter."""
    path, text = _open(vault, given)
    _write(vault, path, _limited(given.content) + text)
    return {"filePath": path, "prependedLength": len(given.content), "totalLength": len(text) + len(given.content)}


def replace_content(vault: Any, given: Any) -> dict:
    """Replace every exact occurrence, else one near match."""
    path, text = _open(vault, given)
    _limited(given.newContent)
    text, count = _replace(text, given.oldContent, given.newContent, given.similarityThreshold)
    _write(vault, path, text)
    return {"filePath": path, "replacements": count}


def delete_content(vault: Any, given: Any) -> dict:
    """Remove every exact occurrence, else one near match."""
    path, text = _open(vault, given)
    text, count = _replace(text, given.content, "", given.similarityThreshold)
    _write(vault, path, text)
    return {"filePath": path, "deletions": count}


def replace_by_line(vault: Any, given: Any) -> dict:
    """Replace lines `startLine` to `endLine`, both included, clamped to the file."""
    path, text = _open(vault, given)
    lines = text.split("\n")
    start, end = max(1, int(given.startLine)), min(len(lines), int(given.endLine))
    if start > end:
        raise VaultError("OUT_OF_RANGE", f"Lines {start} to {end} do not exist: {path} has {len(lines)} lines")
    written = _limited(given.newContent)
    if "\r\n" in text:
        written = re.sub(r"\r?\n", "\r\n", written) + ("\r" if lines[end - 1].endswith("\r") else "")
    lines[start - 1 : end] = [written]
    _write(vault, path, "\n".join(lines))
    return {"filePath": path, "linesReplaced": end - start + 1}


def find_replace_content(vault: Any, given: Any) -> dict:
    """Replace the first or every literal match; none is no error."""
    path, text = _open(vault, given)
    if not given.findText:
        raise VaultError("INVALID", "findText is empty: expected the text to look for")
    pattern = re.escape(given.findText)
    pattern = rf"\b{pattern}\b" if given.wholeWord else pattern
    flags = 0 if given.caseSensitive else re.IGNORECASE
    _limited(given.replaceText)
    count = len(re.findall(pattern, text, flags)) if given.replaceAll else 1
    if count * len(given.replaceText) > MOST_FILE_BYTES:
        raise VaultError("LIMIT", f"{path} would grow too large")
    text, count = re.subn(pattern, lambda _: given.replaceText, text, count=0 if given.replaceAll else 1, flags=flags)
    if count:
        _write(vault, path, text)
    return {"filePath": path, "replacements": count, "findText": given.findText, "replaceText": given.replaceText}


def batch_content(vault: Any, given: Any) -> dict:
    """Operations in order; one that fails is reported in its place and takes back only itself."""
    results = []
    for operation in given.operations:
        function, defaults = OPERATIONS[operation["type"]]
        item = {"type": operation["type"], "filePath": operation["params"]["filePath"]}
        mark = vault.tree.mark()
        try:
            fields = function(vault, SimpleNamespace(**(defaults | operation["params"])))
            results.append({"success": True, **item, "data": fields})
        except VaultError as error:
            vault.tree.rollback(mark)
            results.append({"success": False, "error": str(error), "code": error.code, **item})
    return {"results": results}


OPERATIONS = {
    "read": (read_content, {"limit": None, "offset": None, "includeLineNumbers": False}),
    "create": (create_content, {}),
    "append": (append_content, {}),
    "prepend": (prepend_content, {}),
    "replace": (replace_content, {"similarityThreshold": 0.95}),
    "replaceByLine": (replace_by_line, {}),
    "delete": (delete_content, {"similarityThreshold": 0.95}),
    "findReplace": (find_replace_content, {"replaceAll": False, "caseSensitive": True, "wholeWord": False}),
}


def _open(vault: Any, given: Any) -> tuple[str, str]:
    path = clean(given.filePath, note=True)
    return path, vault.tree.read(path)


def _write(vault: Any, path: str, text: str) -> None:
    vault.tree.write(path, text)


def _limited(text: str) -> str:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise VaultError("INVALID", HALF_CHARACTER) from None
    if size > MOST_WRITE_BYTES:
        raise VaultError("LIMIT", f"more than {MOST_WRITE_BYTES >> 10} KB of text in one call")
    return text


def _replace(text: str, old: str, new: str, threshold: float) -> tuple[str, int]:
    """Exact occurrences as JavaScript's String.replace does it, else diff-match-patch's best match near the start."""
    if not old:
        raise VaultError("INVALID", "the text to look for is empty")
    if count := text.count(old):
        parts, position, size = [], 0, 0
        for _ in range(count):
            found = text.index(old, position)
            parts += [text[position:found], _expand(new, text, found, found + len(old))]
            position, size = found + len(old), size + len(parts[-1])
            if size > MOST_FILE_BYTES:
                raise VaultError("LIMIT", "the note would grow too large")
        return "".join(parts) + text[position:], count
    matcher = diff_match_patch()
    matcher.Match_Threshold = threshold
    found = matcher.match_main(text, old, 0) if len(old) <= LONGEST_FUZZY else -1
    if found == -1:
        raise VaultError("NO_MATCH", f"Content not found: {old!r:.80}")
    return text[:found] + new + text[found + len(old) :], 1


def _expand(new: str, text: str, start: int, end: int) -> str:
    """A JavaScript replacement string: $$, $& (the match), $` (before it), $' (after it)."""
    if "$" not in new:
        return new
    values = {"$$": "$", "$&": text[start:end], "$`": text[:start], "$'": text[end:]}
    return re.sub(r"\$[$&`']", lambda match: values[match[0]], new)
