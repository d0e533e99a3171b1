"""vaultLibrarian: search in note texts, in names, and in what was done before.

Names are matched approximately, texts by keywords; both give scores from 0 to 1. Not here: semantic search (the plugin's
embeddings), for which the answers of `searchCapabilities` say no.
"""

import re
import time
import unicodedata
from bisect import bisect_right
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import yaml
from rapidfuzz import fuzz, process

from toolset_nb.vault.files import MOST_FILE_BYTES, Tree, VaultError, clean, folded
from toolset_nb.vault.vault_manager import name_filter

NAME_CUTOFF = 0.6  # how alike a name has to be that shares a word with the query
SURE = 86  # and one that shares none, of 100
MEMORY_CUTOFF = 0.5  # more than half of the query's words
FRONT_MATTER = re.compile(r"\ufeff?---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.S)
TAG = re.compile(r"(?<![\w/&])#([\w/-]*[A-Za-z\u00c0-\uffff_][\w/-]*)")
CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.S)
WORD = re.compile(r"[\w'’]+(?:\+\+|#)?")
MOST_FRONT_MATTER = 64 << 10
CATEGORIES = (
    "files",
    "folders",
    "content",
    "workspaces",
    "sessions",
    "snapshots",
    "memory_traces",
    "tags",
    "properties",
)
CAPABILITIES = {"semantic": False, "fuzzy": True, "keyword": True}


class Note(NamedTuple):
    """A note as the index knows it; `lower` is its text for comparing."""

    path: str
    stamp: tuple
    modified: int
    text: str
    lower: str


class Hit(NamedTuple):
    """A found note: score from 0 to 1, how it was found, and where in `lower` the first word stands (-1: in the name only)."""

    note: Note
    score: float
    method: str
    offset: int


class Index:
    """The texts of a vault's notes; only notes that have changed on disk are read again."""

    def __init__(self, tree: Tree):
        self.tree = tree
        self.notes: dict[str, Note] = {}

    def refresh(self) -> dict[str, Note]:
        """Bring the index up to date and return the notes by path. Files that are no text or over 1 MB have an empty text."""
        known, self.notes = self.notes, {}
        for entry in self.tree.walk():
            if not entry.is_folder and entry.path.endswith(".md"):
                note = known.get(entry.path)
                if note is None or note.stamp != entry.stamp:
                    text = _read(self.tree, entry)
                    note = Note(entry.path, entry.stamp, entry.modified, text, folded(text))
                self.notes[entry.path] = note
        return self.notes


def search_content(vault: Any, given: Any) -> dict:
    """Notes by name and, unless told otherwise, by the words of their text; best first."""
    started = time.perf_counter()
    query = _query(given.query)
    notes = [note for note in vault.index.refresh().values() if _under(note.path, given.paths)]
    hits = find(notes, query, given.includeContent)
    length = int(given.snippetLength)
    results = [_described(hit, query, length) for hit in hits[: int(given.limit)]]
    return {
        "query": given.query,
        "results": results,
        "totalResults": len(hits),
        "executionTime": _elapsed(vault, started),
    }


def search_directory(vault: Any, given: Any) -> dict:
    """Files and folders by name under the given folders."""
    started = time.perf_counter()
    query, paths = _query(given.query), [clean(path, root=True) for path in given.paths]
    start, end = _dates(given.dateRange)
    matches = name_filter(given.pattern) if given.pattern else lambda path: True
    types = {kind.casefold().lstrip(".") for kind in given.fileTypes or []}
    entries = {}
    for path in paths:
        vault.tree.need(path, "folder")
        depth = None if given.depth is None else int(given.depth) - 1
        entries |= {entry.path: entry for entry in vault.tree.walk(path, depth)}
    kept = [
        entry
        for entry in entries.values()
        if given.searchType == "both" or (given.searchType == "folders") == entry.is_folder
        if not types or (not entry.is_folder and entry.path.rpartition(".")[2].casefold() in types)
        if entry.is_folder or start <= entry.modified < end
        if matches(entry.path)
    ]
    scores = _names([entry.path for entry in kept], query)
    found = sorted((entry for entry in kept if entry.path in scores), key=lambda e: (-scores[e.path], e.path))
    results = []
    for entry in found[: int(given.limit)]:
        result = {
            "path": entry.path,
            "name": entry.path.rpartition("/")[2],
            "type": "folder" if entry.is_folder else "file",
        }
        result |= {"score": round(scores[entry.path], 3), "searchMethod": "fuzzy"}
        if given.includeContent and not entry.is_folder and entry.path.endswith(".md"):
            result["snippet"] = _snippet(_read(vault.tree, entry), 0, 150)
        results.append(result | {"metadata": _metadata(vault.tree, entry)})
    about = {"totalResults": len(found), "executionTime": _elapsed(vault, started), "searchCapabilities": CAPABILITIES}
    return {"query": given.query, "searchedPaths": [path or "/" for path in paths], "results": results, **about}


def search_memory(vault: Any, given: Any) -> dict:
    """Recorded calls, sessions, saved states and workspaces of one workspace."""
    started = time.perf_counter()
    query, (start, end) = _query(given.query), _dates(given.dateRange)
    workspace = "default" if given.workspaceId in ("", "default", "global-workspace") else given.workspaceId
    records = _memories(vault, workspace, set(given.memoryTypes or MEMORY))
    filters = given.toolCallFilters or {}
    records = [r for r in records if start <= r["timestamp"] < end and _passes(r, filters)]
    if given.filterBySession:
        own = vault.state.names(given.context["sessionId"])
        records = [r for r in records if r["context"].get("sessionId") in own]
    scored = [(_alike(record["content"], query, given.searchMethod), record) for record in records]
    scored = sorted(
        (pair for pair in scored if pair[0] >= MEMORY_CUTOFF), key=lambda p: (-p[0], -p[1]["timestamp"], p[1]["id"])
    )
    names = ("content", "tool", "context", "id", "timestamp")
    results = [{"score": round(score, 3)} | {n: r[n] for n in names} for score, r in scored[: int(given.limit)]]
    about = {"totalResults": len(scored), "searchCapabilities": CAPABILITIES, "executionTime": _elapsed(vault, started)}
    return {"query": given.query, "results": results, **about}


def batch(vault: Any, given: Any) -> dict:
    """Several searches over everything, apart or merged."""
    started = time.perf_counter()
    most = int(given.maxConcurrency) if "maxConcurrency" in given.given else 10
    if len(given.searches) > most:
        raise VaultError("INVALID", f"{len(given.searches)} searches: expected at most {most} (maxConcurrency)")
    searches, failed = [], 0
    for wanted in given.searches:
        if not wanted["query"].strip():
            failed += 1
            searches.append({"query": wanted["query"], "totalResults": 0, "categories": {}, "error": "query is empty"})
            continue
        found = _everywhere(vault, wanted)
        searches.append({"query": wanted["query"], "totalResults": sum(map(len, found.values())), "categories": found})
    spent = _elapsed(vault, started)
    stats = {"totalExecutionTimeMS": spent, "queriesExecuted": len(searches) - failed, "queriesFailed": failed}
    stats["avgExecutionTimeMS"] = spent // len(searches)
    if not given.mergeResults:
        return {"searches": searches, "stats": stats}
    combined: dict[str, list] = {}
    for search in searches:
        for category, items in search["categories"].items():
            seen = combined.setdefault(category, [])
            seen += [item for item in items if item not in seen]
    total = sum(map(len, combined.values()))
    return {
        "merged": {"totalQueries": len(searches), "totalResults": total, "combinedCategories": combined},
        "stats": stats,
    }


def find(notes: list[Note], query: str, with_content: bool) -> list[Hit]:
    """Notes that match, best first, ties by path.

    A text scores by the share of the query's words that it holds, more when it holds the whole query; a name by its
    likeness. Both together count as the better one and a bonus.
    """
    names = _names([note.path for note in notes], query)
    words = list(dict.fromkeys(WORD.findall(query))) or [query]
    hits = []
    for note in notes:
        by_name, by_text, offset = names.get(note.path, 0.0), 0.0, -1
        if with_content:
            present = [word for word in words if word in note.lower]
            if present:
                offset = note.lower.find(query)
                by_text = 0.9 if offset >= 0 else 0.75 * len(present) / len(words)
                offset = offset if offset >= 0 else note.lower.find(max(present, key=len))
        if by_name and by_text:
            hits.append(Hit(note, min(1.0, max(by_name, by_text) + 0.1), "combined", offset))
        elif by_name or by_text >= 0.25:
            hits.append(Hit(note, by_name or by_text, "fuzzy" if by_name else "keyword", offset))
    return sorted(hits, key=lambda hit: (-hit.score, hit.note.path))


def front_matter(text: str) -> tuple[dict, str]:
    """The properties of a note and the text after them; ({}, text) where there are none or they cannot be read."""
    match = FRONT_MATTER.match(text)
    if not match or len(match[1]) > MOST_FRONT_MATTER or "&" in match[1] and "*" in match[1]:  # no alias bombs
        return {}, text
    try:
        values = yaml.load(match[1], yaml.CBaseLoader if hasattr(yaml, "CBaseLoader") else yaml.BaseLoader)
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}, text
    return (values, text[match.end() :]) if isinstance(values, dict) else ({}, text)


def tags(text: str) -> set[str]:
    """The tags of a note, from front matter and text, without #."""
    values, body = front_matter(text)
    listed = values.get("tags") or values.get("tag") or []
    listed = re.split(r"[,\s]+", listed) if isinstance(listed, str) else listed
    found = {str(tag).lstrip("#") for tag in listed if isinstance(tag, str)} if isinstance(listed, list) else set()
    return {tag for tag in found | set(TAG.findall(CODE.sub("", body))) if tag}


def _everywhere(vault: Any, wanted: dict) -> dict[str, list]:
    query, limit = folded(wanted["query"].strip()), int(wanted.get("limit") or 5)
    first = [c for c in CATEGORIES if c in (wanted.get("prioritizeCategories") or [])]
    chosen = [c for c in first + list(CATEGORIES) if c not in (wanted.get("excludeCategories") or [])]
    notes = [note for note in vault.index.refresh().values() if _under(note.path, wanted.get("paths"))]
    found: dict[str, list] = {}
    for category in dict.fromkeys(chosen):
        if category in ("files", "folders"):
            folder = category == "folders"
            paths = [e.path for e in vault.tree.walk() if e.is_folder == folder and _under(e.path, wanted.get("paths"))]
            scores = _names(paths, query)
            items = [{"path": p, "score": round(scores[p], 3)} for p in sorted(scores, key=lambda p: (-scores[p], p))]
        elif category == "content":
            hits = find(notes, query, True) if wanted.get("includeContent", True) else []
            items = [_described(hit, query, 200) for hit in hits if hit.method != "fuzzy"]
        elif category in ("tags", "properties"):
            items = _labelled(notes, query.lstrip("#"), category)
        else:
            table = {"snapshots": "states", "memory_traces": "traces"}.get(category, category)
            records = [
                r for key in ["default", *vault.state.data["workspaces"]] for r in _memories(vault, key, {table})
            ]
            records = {record["id"]: record for record in records}.values()
            items = [
                {key: record[key] for key in ("id", "content", "timestamp")}
                for record in records
                if _alike(record["content"], query, "mixed") >= MEMORY_CUTOFF
            ]
        if items:
            found[category] = items[:limit]
    return found


def _labelled(notes: list[Note], query: str, category: str) -> list[dict]:
    items = []
    for note in notes:
        if category == "tags":
            items += [{"tag": tag, "path": note.path} for tag in sorted(tags(note.text)) if query in folded(tag)]
        elif query in note.lower:
            values = front_matter(note.text)[0].items()
            items += [{"property": k, "value": v, "path": note.path} for k, v in values if query in folded(f"{k}: {v}")]
    return items


MEMORY = ("traces", "toolCalls", "sessions", "states", "workspaces")


def _memories(vault: Any, workspace: str, kinds: set[str]) -> list[dict]:
    """Everything recorded in a workspace as {id, content, tool, context, timestamp, success, milliseconds}."""
    data, records = vault.state.data, []
    if kinds & {"traces", "toolCalls"}:
        for trace in vault.state.traces():
            about = trace["context"]
            if (about.get("workspaceId") or "default").replace("global-workspace", "default") == workspace:
                words = [trace["tool"], *(about.get(key, "") for key in ("subgoal", "toolContext", "primaryGoal"))]
                content = " ".join([*words, *trace["arguments"].values()])
                records.append({"content": content, **{k: trace[k] for k in ("id", "tool", "timestamp", "success")}})
                records[-1] |= {"context": about, "milliseconds": trace["milliseconds"]}
    tables = {"sessions": "startTime", "states": "created", "workspaces": "created"}
    for table, time_key in tables.items():
        for record in data[table].values() if table in kinds else ():
            home = record["id"] if table == "workspaces" else record["workspaceId"]
            if home == workspace or (table == "workspaces" and workspace == "default"):
                saved = record.get("context", {})
                texts = [
                    record["name"],
                    record.get("description", ""),
                    *(v for v in saved.values() if isinstance(v, str)),
                ]
                texts += [text for text in record.get("tags", []) if isinstance(text, str)]
                about = {"workspaceId": home, "sessionId": record.get("sessionId", record["id"])}
                entry = {"id": record["id"], "content": " ".join(texts), "tool": table[:-1], "context": about}
                records.append(entry | {"timestamp": record[time_key], "success": True, "milliseconds": 0})
    return records


def _passes(record: dict, filters: dict) -> bool:
    agent, _, mode = record["tool"].partition("_")
    low, high = filters.get("minExecutionTime", 0), filters.get("maxExecutionTime", float("inf"))
    return (
        filters.get("agent") in (None, agent)
        and filters.get("mode") in (None, mode)
        and filters.get("success") in (None, record["success"])
        and low <= record["milliseconds"] <= high
    )


def _alike(text: str, query: str, method: str) -> float:
    text = folded(text)
    if query in text:
        return 1.0
    words = WORD.findall(query)
    if method == "exact" or not words:
        return 0.0
    return 0.9 * sum(word in text or fuzz.partial_ratio(word, text, score_cutoff=85) > 0 for word in words) / len(words)


def _names(paths: list[str], query: str) -> dict[str, float]:
    """Paths whose last name is like the query, with the likeness."""
    names = [folded(path.rpartition("/")[2].removesuffix(".md")) for path in paths]
    words = set(WORD.findall(query))
    found = process.extract(query, names, scorer=fuzz.WRatio, limit=None, score_cutoff=100 * NAME_CUTOFF)
    alike = {}
    for name, score, at in found:
        shared = words & set(WORD.findall(name))
        if shared or (score >= SURE and len(query) > 2):  # one or two letters are part of nearly every name
            alike[paths[at]] = score / 100
    return alike


def _described(hit: Hit, query: str, length: int) -> dict:
    values, _ = front_matter(hit.note.text)
    folder, _, name = hit.note.path.rpartition("/")
    result = {"filePath": hit.note.path, "title": name.removesuffix(".md"), "score": round(hit.score, 3)}
    offset = _unfolded(hit.note.text, hit.offset)
    result |= {"content": _snippet(hit.note.text, offset, length), "searchMethod": hit.method}
    if values:
        result["frontmatter"] = values
    if hit.offset >= 0:
        result["position"] = {"line": hit.note.text.count("\n", 0, offset) + 1, "offset": offset}
    modified = datetime.fromtimestamp(hit.note.modified / 1000, UTC).isoformat().replace("+00:00", "Z")
    return result | {"metadata": {"fileExtension": "md", "parentFolder": folder, "modifiedTime": modified}}


def _unfolded(text: str, offset: int) -> int:
    """Where in a text stands what stands at an offset of its `folded` form, where ß are two letters."""
    if offset < 0 or text.isascii():
        return offset
    return bisect_right(range(len(text)), offset, key=lambda at: len(folded(text[: at + 1])))


def _snippet(text: str, offset: int, length: int) -> str:
    """`length` characters around a place, cut ends marked."""
    start = max(0, min(max(offset, 0) - length // 3, len(text) - length))
    end = min(len(text), start + length)
    return ("..." if start else "") + text[start:end].strip() + ("..." if end < len(text) else "")


def _metadata(tree: Tree, entry: Any) -> dict:
    about = {"depth": entry.path.count("/"), "created": entry.modified, "modified": entry.modified, "size": entry.size}
    if not entry.is_folder:
        return about | {"fileType": entry.path.rpartition(".")[2] if "." in entry.path else ""}
    inside = tree.children(entry.path)
    folders = sum(child.is_folder for child in inside)
    return {"depth": about["depth"], "fileCount": len(inside) - folders, "folderCount": folders}


def _read(tree: Tree, entry: Any) -> str:
    try:
        return tree.read(entry.path) if entry.size <= MOST_FILE_BYTES else ""
    except VaultError:
        return ""


def _query(text: str) -> str:
    if not text.strip():
        raise VaultError("INVALID", "query is empty: expected the words to search for")
    return " ".join(folded(text[:1000]).split())


def _under(path: str, prefixes: list[str] | None) -> bool:
    path = unicodedata.normalize("NFC", path)
    wanted = [unicodedata.normalize("NFC", prefix).strip("/") for prefix in prefixes or [] if isinstance(prefix, str)]
    return not wanted or any(not p or path == p or path.startswith(f"{p}/") for p in wanted)


def _dates(wanted: dict | None) -> tuple[int, int]:
    """A date range as milliseconds, the end day included; raises VaultError INVALID."""
    try:
        days = {
            key: datetime.fromisoformat(value[:10]).replace(tzinfo=UTC)
            for key, value in (wanted or {}).items()
            if key in ("start", "end") and value
        }
        end = days["end"] + timedelta(days=1) if "end" in days else None
    except (ValueError, OverflowError):
        raise VaultError("INVALID", "dateRange: expected dates such as 2025-11-30") from None
    start = int(days["start"].timestamp() * 1000) if "start" in days else -(1 << 60)
    return start, int(end.timestamp() * 1000) if end else 1 << 60


def _elapsed(vault: Any, started: float) -> int:
    """Milliseconds of a search; 0 under an injected clock, so that two runs give the same bytes."""
    return round((time.perf_counter() - started) * 1000) if vault.real_time else 0
