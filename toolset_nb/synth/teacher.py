"""A larger model as a teacher, over any OpenAI-compatible address: other wordings for rows, or both sides of a conversation.

What comes back passes the funnel like any other row: readable, by the registry, executed on a sample vault, every value said, new,
far from the evaluation prompts. Results are appended to a JSON-lines file one by one; what is there is not asked for again.
"""

import json
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from toolset_nb import calls, jsonl
from toolset_nb.evaluation import open_target
from toolset_nb.paths import memory_folder
from toolset_nb.servers import Endpoint, RequestFailed
from toolset_nb.settings import DatasetSettings, EvaluateSettings
from toolset_nb.synth import worlds
from toolset_nb.synth.generate import SYMBOLS, Filter, Funnel, digest
from toolset_nb.synth.scenes import ungrounded
from toolset_nb.tools import CONTEXT_FIELDS, catalogue
from toolset_nb.vault import fixtures

MOST_STEPS = 4
MOST_RESULT = 1500  # characters of a result that the assistant is shown
REPHRASE = (
    "Rewrite the following request to a note-taking assistant in other words, as another person would type it. Keep every name, "
    "path, number, id and quoted text exactly as it is. Answer with the request alone.\n\n{request}"
)
ASK = (
    "You are this person: {about}\nYour notes are kept in these folders: {folders}. Some notes: {notes}.\n"
    "Write one message to your assistant that asks for this: {purpose} Name the exact path or name of what you mean. Answer with "
    "the message alone."
)
Progress = Callable[[int, int], None]


@contextmanager
def connect(name: str) -> Iterator[Endpoint]:
    """The server of an address such as http://127.0.0.1:1234#model, or the embedded model for "base"."""
    with open_target(name, EvaluateSettings()) as (_, endpoint):
        yield endpoint


def work(config: DatasetSettings, made: list[dict], endpoint: Endpoint, target: Path) -> Funnel:
    """What the notebook's settings ask of a teacher; prints how far it is."""

    def progress(done: int, total: int) -> None:
        if done % 10 == 0 or done == total:
            print(f"{done} of {total}", flush=True)

    sampling = {"temperature": config.temperature, "max_tokens": 400}
    if config.teacher_mode == "self-play":
        return self_play(endpoint, config.teacher_rows, target, config.seed, progress=progress, **sampling)
    chosen = [row for row in made if row["label"] is True][: config.teacher_rows]
    return paraphrase(chosen, endpoint, target, progress=progress, **sampling)


def paraphrase(
    rows: list[dict],
    endpoint: Endpoint,
    target: Path,
    funnel: Funnel | None = None,
    progress: Progress | None = None,
    **sampling: Any,
) -> Funnel:
    """Append a copy of each row with a request in the teacher's words; those in `target` are skipped. Raises RequestFailed."""
    funnel = funnel or Funnel()
    filter_, done = Filter(), _answered(target)
    for row in rows:
        filter_.requests.add(" ".join(filter_.plain(row["conversations"][0]["content"])))
    for number, row in enumerate(rows, 1):
        if row["id"] not in done:
            request, answer = (turn["content"] for turn in row["conversations"])
            funnel.seen += 1
            said = (
                endpoint.ask([{"role": "user", "content": REPHRASE.format(request=request)}], **sampling).text or ""
            ).strip()
            key = (row["meta"]["behaviour"], "paraphrase")
            fault = _wording_fault(said, answer, filter_)
            if fault:
                funnel.reject(fault[0], key, fault[1])
                jsonl.append(target, {"source": row["id"], "rejected": fault[1]})
            else:
                funnel.keep(key, row["meta"]["tools"])
                turns = [{"role": "user", "content": said}, row["conversations"][1]]
                meta = {k: v for k, v in row["meta"].items() if k not in ("run", "result")}
                entry = row | {"id": f"{row['id']}-p", "conversations": turns, "meta": meta, "source": row["id"]}
                jsonl.append(target, entry)
        if progress:
            progress(number, len(rows))
    return funnel


def self_play(
    endpoint: Endpoint,
    count: int,
    target: Path,
    seed: int = 0,
    funnel: Funnel | None = None,
    progress: Progress | None = None,
    **sampling: Any,
) -> Funnel:
    """Append up to `count` conversations in which the teacher plays the person and the assistant; each is executed."""
    funnel, filter_, done = funnel or Funnel(), Filter(), _answered(target)
    with tempfile.TemporaryDirectory(dir=memory_folder()) as folder:
        originals = {name: worlds.build(name, Path(folder) / name) for name in fixtures.names("training")}
        for number in range(count):
            source = f"play-{seed}-{number:05d}"
            if source not in done:
                pick = random.Random(source)
                name = pick.choice(sorted(originals))
                tool = pick.choice(sorted(catalogue().tools))
                funnel.seen += 1
                row = _conversation(
                    endpoint, originals[name].copy(Path(folder) / source), name, tool, pick, filter_, sampling
                )
                key = ("self_play", tool)
                if isinstance(row, tuple):
                    funnel.reject(row[0], key, row[1])
                    jsonl.append(target, {"source": source, "rejected": row[1]})
                else:
                    funnel.keep(key, row["meta"]["tools"])
                    jsonl.append(target, {"id": source, **row, "source": source})
            if progress:
                progress(number + 1, count)
    return funnel


def rows(target: Path) -> Iterator[dict]:
    """The rows that were kept in a teacher's file, as dataset rows."""
    for entry in _entries(target):
        if "conversations" in entry:
            yield {key: value for key, value in entry.items() if key != "source"}


def _conversation(
    endpoint: Endpoint, vault: Any, name: str, tool: str, pick: random.Random, filter_: Filter, sampling: dict
) -> dict | tuple[str, str]:
    """A row, or (stage, reason)."""
    notes, folders = sorted(vault.snapshot().files), sorted(vault.snapshot().folders)
    about = ASK.format(
        about=fixtures.load(name)["about"],
        folders=", ".join(folders[:20]),
        notes=", ".join(pick.sample(notes, min(8, len(notes)))),
        purpose=catalogue().tools[tool].description,
    )
    request = (endpoint.ask([{"role": "user", "content": about}], **sampling).text or "").strip()
    if not request or len(request) > 1000:
        return "scenario", "no usable request"
    if reason := filter_.refuses(request):
        return "duplicate" if "before" in reason else "evaluation", reason
    ids = {
        "sessionId": f"session_{pick.randrange(10**12, 2 * 10**12)}_{''.join(pick.choices(SYMBOLS, k=9))}",
        "workspaceId": "default",
    }
    blocks, results = [], []
    messages = [{"role": "system", "content": _rules(tool, ids)}, {"role": "user", "content": request}]
    for _ in range(MOST_STEPS):
        answer = endpoint.ask(messages, **sampling)
        reply = calls.parse(answer.text, answer.tool_calls)
        if reply.kind in ("malformed", "empty"):
            return "schema", "; ".join(reply.problems)[:80] or "an empty reply"
        blocks += [block for block in reply.blocks if isinstance(block, str | calls.Call)]
        if not reply.calls:
            break
        for call in reply.calls:
            if problems := catalogue().check(call.name, call.arguments):
                return "schema", f"{problems[0].field}: {problems[0].found}"
            results.append(vault.call(call.name, call.arguments))
            if not results[-1]["success"]:
                return "execution", f"{results[-1]['code']} {results[-1]['error']}"
            blocks.append(calls.Result(results[-1]))
        shown = calls.dumps(results[-1])[:MOST_RESULT]
        messages += [
            {"role": "assistant", "content": calls.render(reply.blocks, "text")},
            {"role": "user", "content": f"Result: {shown}"},
        ]
    if isinstance(blocks[-1], calls.Result):
        blocks.pop()
    if missing := ungrounded(request, blocks):
        return "grounding", missing
    filter_.requests.add(" ".join(filter_.plain(request)))
    turns = [{"role": "user", "content": request}, {"role": "assistant", "content": calls.render(blocks, "text")}]
    made = list(dict.fromkeys(block.name for block in blocks if isinstance(block, calls.Call)))
    meta = {"behaviour": "self_play", "tools": made, "scenario": name, "split": "train"} | (
        {"result": digest(results)} if results else {}
    )
    return {"conversations": turns, "label": True, "meta": meta}


def _rules(tool: str, ids: dict) -> str:
    agent = catalogue().tools[tool].agent
    names = [each.name for each in catalogue().tools.values() if each.agent == agent] or [tool]
    example = calls.Call(
        "tool_name", {"context": {key: ids.get(key, "...") for key in CONTEXT_FIELDS}, "parameter": "value"}
    )
    return (
        "You operate a vault of notes by calling tools. Call one like this, its own arguments after context, no other words on "
        "these lines:\n"
        f"{calls.render([example], 'text')}\nAfter its Result you may call again or answer the person.\n\n"
        f"{catalogue().text_list(names)}"
    )


def _wording_fault(said: str, answer: str, filter_: Filter) -> tuple[str, str] | None:
    if not said or len(said) > 1500:
        return "scenario", "no usable request"
    if missing := ungrounded(said, calls.parse(answer, rescue=False).blocks):
        return "grounding", missing
    if reason := filter_.refuses(said):
        return ("duplicate" if "before" in reason else "evaluation"), reason
    filter_.requests.add(" ".join(filter_.plain(said)))
    return None


def _answered(target: Path) -> set[str]:
    return {entry["source"] for entry in _entries(target)}


def _entries(target: Path) -> Iterator[dict]:
    """The lines of a teacher's file; one that a kill has torn is dropped."""
    if target.exists():
        for line in target.read_text(encoding="utf-8").split("\n"):
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and "source" in entry:
                yield entry


__all__ = ["RequestFailed", "paraphrase", "rows", "self_play"]
