"""Whether the exported formats answer as the adapter does: the same prompts, the same tokens, the same calls.

The reference is the adapter in transformers, unmerged, in the bits that it is merged in. Merged weights are asked the same way,
each GGUF through llama.cpp's own server; the GGUF LoRA lies there over the 8-bit GGUF of the base, as its command has it.
Compared are the prompt as rendered (bytes) and as cut into tokens, and the greedy reply: its tools and arguments, and all of it.
The context block is left aside in the first: its ids and sentences are made up, and two ways of rounding soon make up others. With
`parity_tasks` every GGUF also works on that many tasks; shares of vaults left as they should be are given and compared.
"""

import gc
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from toolset_nb import calls, models
from toolset_nb.evaluation import evaluate, load_prompts, messages, prompt_file
from toolset_nb.evaluation.statistics import compare, rate, wilson
from toolset_nb.export import artefacts
from toolset_nb.export.formats import FORMATS
from toolset_nb.export.gguf import base_gguf
from toolset_nb.export.weights import ExportError, merge_dtype
from toolset_nb.files import replacing
from toolset_nb.runs import Run, file_hash
from toolset_nb.servers import Batches, serve
from toolset_nb.settings import EvaluateSettings, ExportSettings

FLOOR = {"merged": 1.0, "f16": 1.0, "q8_0": 0.98}  # share of equal calls; smaller formats are measured, not judged
PROMPTS = "full_coverage"
SLOTS = 8
TOKENS = 320  # of a reply


@dataclass
class Replies:
    """What one format makes of the prompts: rendered text, tokens, replies, and seconds for all.

    `bos` is the token that llama.cpp takes off a rendered prompt, since it adds it when it cuts the text into tokens.
    """

    rendered: list[str]
    tokens: list[list[int]]
    texts: list[str]
    seconds: float
    bos: str = ""


def measure(
    run: Run, files: dict[str, Path], settings: ExportSettings, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """The comparison of `files` (format -> path) with the adapter, written to export/parity.json and parity.md.

    Rows of an earlier comparison stay, where adapter, prompts and file are the same. {} where there is nothing to compare.
    Raises ExportError when a format falls below its floor and `settings.parity` is stop; with warn the record says so.
    """
    kinds = [name for name in files if name != "adapter"]
    if not kinds:
        say("nothing to compare with the adapter")
        return {}
    asking = _asking(run, settings)
    chats = [messages(prompt, asking) for prompt in load_prompts(PROMPTS, limit=settings.parity_prompts)]
    dtype = merge_dtype(run.record)
    reference = by_transformers(run, chats, asking, dtype)
    say(f"adapter: {len(chats)} prompts in {reference.seconds:.0f} s")
    rows: dict[str, dict[str, Any]] = {}
    for name in kinds:
        states: dict[str, list[bool]] = {}
        if name == "merged":
            made = by_transformers(str(files[name]), chats, asking, dtype)
        else:
            made, states = by_server(files[name], chats, asking, settings.parity_tasks, run if name == "lora" else None)
        file = {"bytes": artefacts.size(files[name]), "made_from": _made_from(files[name])}
        rows[name] = compared(reference, made, FLOOR.get(name)) | file
        rows[name] |= {"states": states, "state": rate(states)} if states else {}
        say(f"{name}: {_line(rows[name])}")
    about = {"prompt_set": PROMPTS, "prompts_sha256": file_hash(prompt_file(PROMPTS)), "prompts": len(chats)}
    about["adapter"] = run.weights()
    before = lasting(run)
    same = all(before.get(key) == value for key, value in about.items())
    found = _comparison(about, (before["formats"] if same else {}) | rows)
    save(run, found)
    if settings.parity == "stop" and (short := problems({"formats": rows})):
        raise ExportError("; ".join(short) + "; the files are kept, and parity warn goes on with them")
    return found


def lasting(run: Run) -> dict[str, Any]:
    """The last comparison with this adapter, of files that are what they were then; {} where there is none."""
    try:
        before = json.loads((run.folder / "export" / "parity.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    rows = {
        name: row
        for name, row in before["formats"].items()
        if row.get("made_from") and row["made_from"] == _made_from(run.folder / "export" / FORMATS[name].file)
    }
    return _comparison(before, rows) if rows and before["adapter"] == run.weights() else {}


def differences(rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """How the share of finished tasks of each format differs from that of the first: `q4_k_m against q8_0` -> comparison."""
    states = {name: row["states"] for name, row in rows.items() if row.get("states")}
    first = next(iter(states), "")
    return {
        f"{name} against {first}": _plain(compare(states[first], flags))
        for name, flags in states.items()
        if name != first and flags.keys() & states[first].keys()
    }


def compared(reference: Replies, made: Replies, floor: float | None) -> dict[str, Any]:
    """Counts of equal prompts, tokens, calls and whole replies; `share` and its 95% Wilson interval are those of the calls."""
    total, answers = len(reference.texts), list(zip(reference.texts, made.texts, strict=True))
    equal = [same_calls(one, other) for one, other in answers]
    low, high = wilson(sum(equal), total)
    return {
        "prompts_equal": sum(
            other in (one, one.removeprefix(reference.bos))
            for one, other in zip(reference.rendered, made.rendered, strict=True)
        ),
        "tokens_equal": sum(one == other for one, other in zip(reference.tokens, made.tokens, strict=True)),
        "calls_equal": sum(equal),
        "replies_equal": sum(same_reply(one, other) for one, other in answers),
        "calls": sum(bool(calls.parse(text).calls) for text in reference.texts),
        "total": total,
        "share": round(sum(equal) / total, 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "floor": floor,
        "different": [number for number, same in enumerate(equal) if not same],
        "seconds": round(made.seconds, 1),
    }


def same_calls(one: str, other: str) -> bool:
    """The same tools with the same arguments in the same order, the context aside; no call in both counts as the same."""

    def plain(text: str) -> list[tuple]:
        return [
            (call.name, {key: value for key, value in call.arguments.items() if key != "context"})
            for call in calls.parse(text).calls
        ]

    return plain(one) == plain(other)


def same_reply(one: str, other: str) -> bool:
    """The same calls with the same arguments in the same order; the same words where there is no call."""
    first, second = calls.parse(one), calls.parse(other)
    if first.calls or second.calls:
        return first.calls == second.calls
    return one.strip() == other.strip()


def problems(found: dict[str, Any]) -> list[str]:
    """A sentence for each format that is not what was trained."""
    lines = []
    for name, row in found["formats"].items():
        for what in ("prompts", "tokens"):
            if row[f"{what}_equal"] < row["total"]:
                lines.append(
                    f"{name}: {row['total'] - row[f'{what}_equal']} of {row['total']} prompts reach the model as other {what}"
                )
        if row["floor"] and row["share"] < row["floor"]:
            lines.append(
                f"{name}: {row['calls_equal']} of {row['total']} replies make the adapter's calls, expected {row['floor']:.0%}"
            )
    return lines


def markdown(found: dict[str, Any]) -> str:
    """The comparison as a table."""
    lines = [
        f"{found['prompts']} prompts of `{found['prompt_set']}`, greedy; the adapter in transformers against each format.",
        "",
        "| format | size | prompts equal | tokens equal | calls equal | 95% interval | at least | equal to the letter |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in found["formats"].items():
        equal = [f"{row[f'{what}_equal']}/{row['total']}" for what in ("prompts", "tokens", "calls", "replies")]
        interval, floor = f"{row['low']:.0%} to {row['high']:.0%}", f"{row['floor']:.0%}" if row["floor"] else ""
        cells = [name, f"{row['bytes'] / 1e6:.0f} MB", *equal[:3], interval, floor, equal[3]]
        lines.append(f"| {' | '.join(cells)} |")
    states = {name: row["state"] for name, row in found["formats"].items() if "state" in row}
    if states:
        lines += ["", "| tasks: the vault is as it should be | share | 95% interval |", "|---|---|---|"]
    for name, row in states.items():
        share = f"{row['count']}/{row['total']} = {row['rate']:.0%}"
        lines.append(f"| {name} | {share} | {row['low']:.0%} to {row['high']:.0%} |")
    if found.get("tasks"):
        lines += ["", "| tasks, the same in both | before, after | difference, 95% interval | won, lost |"]
        lines += ["|---|---|---|---|"]
    for pair, row in found.get("tasks", {}).items():
        shares = f"{row['before']:.0%}, {row['after']:.0%} of {row['tasks']}"
        difference = f"{row['difference']:+.1%} ({row['low']:+.1%} to {row['high']:+.1%})"
        lines.append(f"| {pair} | {shares} | {difference} | {row['won']}, {row['lost']} |")
    lines += ["", *(f"- **{problem}**" for problem in found.get("problems", []))]
    return "\n".join(lines).strip() + "\n"


def by_transformers(source: Run | str, chats: list[list[dict]], asking: EvaluateSettings, dtype: str) -> Replies:
    """The replies of a run's adapter, or of merged weights, in this process."""
    network, tokenizer = models.for_generation(source, dtype)
    asked = {"tokenize": False, "add_generation_prompt": True, **models.NO_THOUGHT}
    rendered = [tokenizer.apply_chat_template(chat, **asked) for chat in chats]
    tokens = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in rendered]
    started = time.perf_counter()
    with Batches(network, tokenizer, "transformers", SLOTS) as endpoint:
        texts = _replies(endpoint, chats, asking)
    del network
    gc.collect()  # the next format needs the memory
    return Replies(rendered, tokens, texts, time.perf_counter() - started, tokenizer.bos_token or "")


def by_server(
    file: Path, chats: list[list[dict]], asking: EvaluateSettings, tasks: int = 0, over_base: Run | None = None
) -> tuple[Replies, dict[str, list[bool]]]:
    """The replies of a GGUF through llama.cpp's server, and of the first `tasks` tasks whether their vault is as it should be.

    With `over_base` the file is that run's adapter, laid over the GGUF of its base.
    """
    gguf, laid = file, {}
    if over_base:
        template = (over_base.folder / "adapter" / "chat_template.jinja").read_text("utf-8")
        gguf, laid = base_gguf(over_base.record["base_folder"]), {"lora": file, "template": template}
    with serve(gguf, SLOTS, asking.context, **laid) as endpoint:
        asked = [{"messages": chat, **endpoint.kind.sent} for chat in chats]
        rendered = [_post(endpoint, "/apply-template", body)["prompt"] for body in asked]
        body = {"add_special": True, "parse_special": True}  # as the server itself reads a rendered prompt
        tokens = [_post(endpoint, "/tokenize", {"content": text, **body})["tokens"] for text in rendered]
        started = time.perf_counter()
        texts = _replies(endpoint, chats, asking)
        seconds = time.perf_counter() - started
        records = evaluate(endpoint, load_prompts("tasks", limit=tasks), asking) if tasks else []
    states = {r.case_id: [bool(r.measures["state"])] for r in records if "state" in r.measures}
    return Replies(rendered, tokens, texts, seconds), states


def save(run: Run, found: dict[str, Any]) -> None:
    """parity.json and parity.md below export/, each in one step."""
    for name, text in (("parity.json", json.dumps(found, indent=1) + "\n"), ("parity.md", found["markdown"])):
        with replacing(run.path("export", name)) as path:
            path.write_text(text, "utf-8")


def _asking(run: Run, settings: ExportSettings) -> EvaluateSettings:
    """Greedy, rendered as in training."""
    given = {"slots": SLOTS, "max_tokens": TOKENS, "context": settings.context, "seed": settings.seed}
    return EvaluateSettings(**given, **run.rendering())


def _comparison(about: dict[str, Any], rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What is compared, the rows in the order of FORMATS, and what follows from them."""
    found = {**about, "formats": {name: rows[name] for name in FORMATS if name in rows}}
    found["tasks"] = differences(found["formats"])
    found["problems"] = problems(found)
    found["markdown"] = markdown(found)
    return found


def _made_from(file: Path) -> str | None:
    """What a file was made from, as a sha256: it names a folder of this machine, and parity.json is shared."""
    key = artefacts.made_from(file)
    return sha256(json.dumps(key, sort_keys=True).encode()).hexdigest() if key else None


def _replies(endpoint: Any, chats: list[list[dict]], asking: EvaluateSettings) -> list[str]:
    """The greedy reply to each chat, calls as text."""
    with ThreadPoolExecutor(SLOTS) as pool:
        asked = pool.map(
            lambda chat: endpoint.ask(chat, temperature=0, max_tokens=asking.max_tokens, seed=asking.seed), chats
        )
        return [calls.render(calls.parse(None, a.tool_calls).blocks) if a.tool_calls else a.text or "" for a in asked]


def _post(endpoint: Any, path: str, body: dict[str, Any]) -> dict[str, Any]:
    return endpoint.client.post(path, json=body).raise_for_status().json()


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """Without the names of the tasks."""
    return {key: value for key, value in row.items() if key not in ("fixed", "broken")}


def _line(row: dict[str, Any]) -> str:
    state = f", {row['state']['count']} of {row['state']['total']} tasks" if "state" in row else ""
    return (
        f"{row['prompts_equal']} of {row['total']} prompts equal, {row['calls_equal']} with the same calls ({row['calls']} of "
        f"the adapter's replies are calls), {row['replies_equal']} equal to the letter, {row['seconds']:.0f} s{state}"
    )
