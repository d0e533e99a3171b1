"""Asking a model every prompt of a set over HTTP, judging each reply, and reporting models side by side.

A reply is judged strictly: a call that only a lenient reader could make out is shown as rescued and counts as malformed. Passed
means schema, context and right tool; for a task with a sample vault the calls are executed, and it means schema, context and
the vault afterwards. Not yet here: several turns.
"""

import csv
import json
import re
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from toolset_nb import calls, export, models, runs, tasks
from toolset_nb.paths import repo_root
from toolset_nb.servers import Answer, Endpoint, RequestFailed, serve
from toolset_nb.settings import EvaluateSettings
from toolset_nb.tools import catalogue

# A reply may hold half a surrogate pair, which UTF-8 cannot; the escape in its place means the same in JSON.
LONE = "backslashreplace"
MEASURES = {
    "well_formed": "well-formed call",
    "known_tool": "known tool",
    "schema": "arguments fit the schema",
    "context": "well-formed, valid context and ids",
    "right_tool": "right tool",
    "arguments": "right tool and named arguments",
    "action": "a call, a question, a refusal or words, as is due",
    "state": "executed: the vault is as it should be",
    "passed": "passed",
}


class EvaluationError(ValueError):
    """The prompt set or a target cannot be used; the message says why."""


@dataclass
class Record:
    """One prompt and what came back. Latency in seconds."""

    case_id: str
    question: str
    tags: list[str]
    expected_tools: list[str]
    response_text: str | None = None
    latency_s: float = 0.0
    outcome: str = "infra"
    passed: bool = False
    error: str | None = None
    measures: dict[str, bool] = field(default_factory=dict)
    validator: dict[str, Any] = field(default_factory=dict)
    raw_response: Any = None


def prompt_sets() -> list[str]:
    """Names of the prompt sets that come with the project."""
    return sorted(path.stem for path in (repo_root() / "datasets" / "prompts").glob("*.json"))


def load_prompts(name: str, tags: str = "", limit: int = 0) -> list[dict]:
    """The prompts of a set (a name or a JSON file's path) that carry every tag; raises EvaluationError for a bad file."""
    import jsonschema_rs

    path = Path(name) if name.endswith(".json") else repo_root() / "datasets" / "prompts" / f"{name}.json"
    try:
        prompts = json.loads(path.read_text("utf-8"))
    except OSError:
        raise EvaluationError(f"prompt_set {name!r}: no file {path}; known sets: {', '.join(prompt_sets())}") from None
    except ValueError as error:
        raise EvaluationError(f"{path}: not JSON: {error}") from None
    schema = json.loads((repo_root() / "schemas" / "prompt_set.json").read_text("utf-8"))
    problems = [
        f"{path.name}: {'.'.join(map(str, e.instance_path))}: {e.message[:200]}"
        for e in _errors(jsonschema_rs, schema, prompts)
    ]
    problems = problems or [
        f"{path.name}: {number}.id: {prompt['id']!r} stands twice"
        for number, prompt in enumerate(prompts)
        if prompt["id"] in {other["id"] for other in prompts[:number]}
    ]
    if problems:
        raise EvaluationError("\n".join(problems[:20]))
    wanted = {tag.strip() for tag in tags.split(",") if tag.strip()}
    chosen = [prompt for prompt in prompts if wanted <= set(prompt["tags"])][: limit or None]
    if not chosen:
        raise EvaluationError(f"prompt_set {name}: no prompt carries the tags {', '.join(sorted(wanted))}")
    return chosen


def target_names(settings: EvaluateSettings) -> list[str]:
    """The targets one by one, each once."""
    return list(dict.fromkeys(part.strip() for part in settings.targets.split(",") if part.strip()))


@contextmanager
def open_target(name: str, settings: EvaluateSettings):
    """(label, endpoint) of a target: "base", "latest", a run's name, or an address with an optional "#model"."""
    if name.startswith(("http://", "https://")):
        url, _, model = name.partition("#")
        with Endpoint(url, model, settings.timeout, settings.retries) as endpoint:
            if not model:
                endpoint.model = (endpoint.models() or [""])[0]
            yield endpoint.model or url, endpoint
        return
    with serve(target_gguf(name), settings.slots, timeout=settings.timeout, retries=settings.retries) as endpoint:
        yield ("base" if name == "base" else runs.find(name).folder.name), endpoint


def target_gguf(name: str) -> Path:
    """The GGUF of "base" (the newest run's base, else the embedded model) or of a run; made when it is not there yet."""
    if name != "base":
        return export.run_gguf(runs.find(name))
    try:
        base = runs.find("latest").record["base_folder"]
    except runs.RunError:
        base = models.base_folder("tiny")
    return export.base_gguf(base)


def evaluate(
    endpoint: Endpoint,
    prompts: list[dict],
    settings: EvaluateSettings,
    progress: Callable[[int, int], None] | None = None,
) -> list[Record]:
    """One record a prompt, in the set's order; `settings.slots` requests are under way at a time."""
    sampling = {
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "max_tokens": settings.max_tokens,
        "seed": settings.seed,
    }
    done = 0

    def one(prompt: dict) -> Record:
        nonlocal done
        try:
            record = judge(prompt, endpoint.ask(messages(prompt, settings), **sampling), fixtures)
        except RequestFailed as error:
            record = _record(prompt, error=str(error))
        done += 1
        if progress:
            progress(done, len(prompts))
        return record

    with tasks.Fixtures() as fixtures, ThreadPoolExecutor(settings.slots) as pool:
        return list(pool.map(one, prompts))


def messages(prompt: dict, settings: EvaluateSettings) -> list[dict]:
    """The chat a prompt becomes, rendered as in training."""
    from toolset_nb.rows import system_text

    system = prompt.get("system") or system_text(
        f"eval-{prompt['id']}",
        prompt["expected_tools"],
        settings.call_format,
        settings.context_source,
        settings.tool_exposure,
    )
    return ([{"role": "system", "content": system}] if system else []) + [
        {"role": "user", "content": prompt["question"]}
    ]


def judge(prompt: dict, answer: Answer, fixtures: tasks.Fixtures | None = None) -> Record:
    """The record of one reply. Outcome: call, text, text_call, malformed, truncated or empty.

    With `fixtures` the calls of a task are executed on a copy of its vault.
    """
    reply = calls.parse(answer.text, answer.tool_calls)
    problems = [(call, catalogue().check(call.name, call.arguments)) for call in reply.calls]
    flat = [problem for _, found in problems for problem in found]
    strict = bool(reply.calls) and reply.kind in ("call", "text_call") and not reply.rescued and not answer.error
    wanted = prompt["expected_tools"]
    names = [call.name for call in reply.calls]
    context = [problem for problem in flat if re.match(r"arguments\.context(\W|$)", problem.field)]
    if wanted:
        right = strict and sorted(set(names)) == sorted(set(wanted))
        measures = {
            "well_formed": strict,
            "known_tool": strict and all(name in catalogue().tools for name in names),
            "schema": strict and not [problem for problem in flat if problem not in context],
            "context": strict and not any(catalogue().check_context(call.arguments) for call in reply.calls),
            "right_tool": right,
            "arguments": right
            and all(_literal(prompt.get("expected_arguments", {}), call.arguments) for call in reply.calls),
        }
        passed = strict and not flat and right
    else:
        silent = reply.kind == "text" and not answer.error and answer.finish_reason != "length"
        measures = {name: silent for name in MEASURES if name not in ("action", "state", "passed")}
        passed = silent
    faults = []
    if fixtures and "fixture" in prompt:
        made = reply.calls if strict or not wanted else []
        done = tasks.perform(fixtures.copy(prompt["fixture"]), made, reply.text)
        faults = tasks.faults(prompt, done)
        measures["action"] = not tasks.action_faults(prompt, done)
        measures["state"] = not faults
        passed = measures["state"] and (strict and not flat if wanted else silent)
    truncated = answer.finish_reason == "length"
    outcome = "truncated" if truncated else "malformed" if answer.error or reply.rescued else reply.kind
    issues = [{"level": "ERROR", "message": f"{p.field}: found {p.found}, expected {p.expected}"} for p in flat]
    issues += [{"level": "ERROR", "message": message} for message in [*reply.problems, answer.error] if message]
    if not wanted and reply.kind == "empty" and not answer.error:
        issues.append({"level": "ERROR", "message": "an empty reply, expected text"})
    issues += [{"level": "ERROR", "message": fault} for fault in faults]
    if reply.rescued:
        issues.append({"level": "ERROR", "message": "the call is readable only leniently"})
    if sorted(set(names)) != sorted(set(wanted)):
        called = f"called {', '.join(names)}" if names else "no call"
        issues.append({"level": "ERROR", "message": f"{called}, expected {', '.join(wanted) or 'no call'}"})
    return _record(
        prompt,
        response_text=answer.text,
        latency_s=round(answer.latency, 3),
        outcome=outcome,
        passed=passed,
        measures={**measures, "passed": passed},
        validator={
            "passed": strict and not flat,
            "rescued": reply.rescued,
            "issues": issues,
            "tool_calls": [{"name": call.name, "arguments": call.arguments} for call in reply.calls],
        },
        raw_response=answer.raw,
    )


def summarise(records: list[Record]) -> dict[str, Any]:
    """Totals, by tag and by measure; each rate with its 95% Wilson interval. Requests that failed are counted apart."""
    judged = [record for record in records if record.error is None]
    tags = sorted({tag for record in records for tag in record.tags})
    reasons = Counter(issue["message"] for record in judged for issue in record.validator["issues"])
    return {
        "total": len(records),
        "passed": sum(record.passed for record in judged),
        "failed": sum(not record.passed for record in judged),
        "request_errors": len(records) - len(judged),
        "pass_rate": _rate(sum(record.passed for record in judged), len(judged))["rate"],
        "measures": {
            name: _rate(
                sum(r.measures[name] for r in judged if name in r.measures), sum(name in r.measures for r in judged)
            )
            for name in MEASURES
            if name not in ("action", "state") or any(name in r.measures for r in judged)
        },
        "outcomes": dict(Counter(record.outcome for record in records).most_common()),
        "by_tag": {tag: _by_tag([record for record in judged if tag in record.tags]) for tag in tags},
        "top_failure_reasons": [list(item) for item in reasons.most_common(10)],
        "latency_s": {
            "mean": round(sum(r.latency_s for r in judged) / max(len(judged), 1), 3),
            "max": max((r.latency_s for r in judged), default=0),
        },
    }


def report(
    label: str, records: list[Record], settings: EvaluateSettings, endpoint: Endpoint, seconds: float
) -> dict[str, Any]:
    """The JSON report of one target: metadata, summary, records."""
    return {
        "metadata": {
            "backend": "openai-compatible HTTP",
            "model": label,
            "host": endpoint.url,
            **{key: value for key, value in settings.model_dump().items() if key not in ("interactive", "run_name")},
            "prompt_file": settings.prompt_set,
            "prompt_selected": len(records),
            "catalogue": f"{catalogue().name} {catalogue().version}",
            "seconds": round(seconds, 1),
            "generated_at": datetime.now(UTC).isoformat(timespec="seconds"),
        },
        "summary": summarise(records),
        "records": [asdict(record) for record in records],
    }


def run(settings: EvaluateSettings, say: Callable[[str], None] = print) -> list[dict[str, Any]]:
    """Evaluates every target of `settings.targets` on the same prompts; a report each, in order."""
    prompts = load_prompts(settings.prompt_set, settings.tags, settings.limit)
    targets = target_names(settings)
    if not targets:
        raise EvaluationError(f"targets {settings.targets!r} names none; expected for example base,latest")
    reports = []
    for name in targets:
        with open_target(name, settings) as (label, endpoint):
            say(f"{label}: {len(prompts)} prompts at {endpoint.url}")
            started = time.perf_counter()
            records = evaluate(
                endpoint, prompts, settings, lambda n, of: say(f"  {n} of {of}") if n % 10 == 0 or n == of else None
            )
            reports.append(report(label, records, settings, endpoint, time.perf_counter() - started))
    return reports


def table(reports: list[dict[str, Any]]) -> str:
    """A Markdown table, one column a target: share, count and 95% interval for each measure."""
    labels = [entry["metadata"]["model"] for entry in reports]
    lines = [f"| measure | {' | '.join(labels)} |", "|---|" + "---|" * len(labels)]
    for name, words in _measured(reports).items():
        cells = [_cell(entry["summary"]["measures"][name]) for entry in reports]
        lines.append(f"| {words} | {' | '.join(cells)} |")
    lines.append(f"| request errors | {' | '.join(str(entry['summary']['request_errors']) for entry in reports)} |")
    return "\n".join(lines)


def _measured(reports: list[dict[str, Any]]) -> dict[str, str]:
    """The measures that all reports have, with their words."""
    return {name: words for name, words in MEASURES.items() if all(name in e["summary"]["measures"] for e in reports)}


def markdown(reports: list[dict[str, Any]]) -> str:
    """The report people read."""
    first = reports[0]["metadata"]
    out = [
        f"# Evaluator run ({first['prompt_selected']} prompts)",
        "",
        f"Prompt set `{first['prompt_set']}`, temperature {first['temperature']:g}, ",
    ]
    out[-1] += f"{first['generated_at']}. Intervals are 95% Wilson intervals."
    out += ["", table(reports)]
    for entry in reports:
        summary = entry["summary"]
        out += ["", f"## {entry['metadata']['model']}", ""]
        out += [
            f"- Passed: **{summary['passed']}**",
            f"- Failed: **{summary['failed']}**",
            f"- Request errors: **{summary['request_errors']}**",
        ]
        out += [f"- Outcomes: {', '.join(f'{name} {count}' for name, count in summary['outcomes'].items())}"]
        out += [f"- Time: {entry['metadata']['seconds']} s", "", "### By tag", ""]
        out += [
            f"- `{tag}`: {row['passed']}/{row['total']} ({row['pass_rate']:.1%})"
            for tag, row in summary["by_tag"].items()
        ]
        out += ["", "### Top failure reasons", ""]
        out += [f"- {count}× {' '.join(message.split())}" for message, count in summary["top_failure_reasons"]] or [
            "- none"
        ]
    out += [
        "",
        "## Every prompt",
        "",
        "| prompt | expected | " + " | ".join(e["metadata"]["model"] for e in reports) + " |",
    ]
    out += ["|---|---|" + "---|" * len(reports)]
    for rows in zip(*(entry["records"] for entry in reports), strict=True):
        cells = [("✓ " if row["passed"] else "✗ ") + _called(row) for row in rows]
        question = " ".join(rows[0]["question"].replace("|", "/").split())[:90]
        out.append(f"| {question} | {', '.join(rows[0]['expected_tools'])} | {' | '.join(cells)} |")
    return "\n".join(out) + "\n"


def plot(reports: list[dict[str, Any]]):
    """A figure: each measure's share with its interval, one group of bars a measure, one hatch and colour a target."""
    import matplotlib.pyplot as plt

    with plt.style.context("petroff10" if "petroff10" in plt.style.available else "default"):
        figure, axis = plt.subplots(figsize=(9.5, 4.2))
        width, measured = 0.8 / len(reports), _measured(reports)
        for number, entry in enumerate(reports):
            rates = [entry["summary"]["measures"][name] for name in measured]
            places = [place + (number - (len(reports) - 1) / 2) * width for place in range(len(measured))]
            heights = [rate["rate"] * 100 for rate in rates]
            bounds = [
                [h - r["low"] * 100 for h, r in zip(heights, rates, strict=True)],
                [r["high"] * 100 - h for h, r in zip(heights, rates, strict=True)],
            ]
            bounds = [[max(0, b) for b in side] for side in bounds]
            hatch = ["", "//", "..", "xx"][number % 4]
            axis.bar(
                places,
                heights,
                width * 0.92,
                yerr=bounds,
                capsize=3,
                label=entry["metadata"]["model"],
                hatch=hatch,
                alpha=0.85,
            )
            for place, height, upper in zip(places, heights, bounds[1], strict=True):
                axis.text(place, min(height + upper + 2, 108), f"{height:.0f}", ha="center", fontsize=8)
        axis.set_xticks(
            range(len(measured)),
            [textwrap.fill(words, 15) for words in measured.values()],
            fontsize=8,
        )
        axis.set(ylabel="share of prompts (%), 95% interval", ylim=(0, 114))
        axis.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.13), ncols=4)
        axis.grid(axis="y", alpha=0.3)
        figure.tight_layout()
        plt.close(figure)
    return figure


def save(reports: list[dict[str, Any]], folder: Path) -> Path:
    """Writes a JSON a target, report.md, records.csv and measures.png; returns the Markdown file's path."""
    folder.mkdir(parents=True, exist_ok=True)
    for entry in reports:
        name = "".join(c if c.isalnum() or c in "-_." else "-" for c in entry["metadata"]["model"])
        text = json.dumps(entry, indent=1, ensure_ascii=False) + "\n"
        (folder / f"{name}.json").write_text(text, "utf-8", LONE)
    with (folder / "records.csv").open("w", newline="", encoding="utf-8", errors=LONE) as file:
        writer = csv.writer(file)
        writer.writerow(["model", "case_id", "expected", "called", "outcome", *MEASURES, "latency_s"])
        for entry in reports:
            for row in entry["records"]:
                flags = [row["measures"].get(name, "") for name in MEASURES]
                writer.writerow(
                    [
                        entry["metadata"]["model"],
                        row["case_id"],
                        " ".join(row["expected_tools"]),
                        _called(row),
                        row["outcome"],
                        *flags,
                        row["latency_s"],
                    ]
                )
    plot(reports).savefig(folder / "measures.png", dpi=120)
    path = folder / "report.md"
    path.write_text(markdown(reports), "utf-8", LONE)
    return path


def report_folder(settings: EvaluateSettings) -> Path:
    """Where reports go: evaluation/ of the last target that is a run, else runs/evaluations/<UTC time>."""
    for name in reversed(target_names(settings)):
        if name != "base" and not name.startswith("http"):
            return runs.find(name).folder / "evaluation" / settings.prompt_set.removesuffix(".json").rpartition("/")[2]
    return runs.runs_folder() / "evaluations" / datetime.now(UTC).strftime("%Y%m%dT%H%M%S")


def exit_code(reports: Iterable[dict[str, Any]]) -> int:
    """0 all passed, 2 failures, 3 request errors, as judged on the last target."""
    summary = list(reports)[-1]["summary"]
    return 3 if summary["request_errors"] else 2 if summary["failed"] else 0


def _record(prompt: dict, **fields: Any) -> Record:
    return Record(prompt["id"], prompt["question"], prompt["tags"], prompt["expected_tools"], **fields)


def _literal(expected: dict[str, list], arguments: dict) -> bool:
    """Every named argument holds one of its allowed values; "" in the list allows it to be absent."""
    for name, allowed in expected.items():
        if name in arguments:
            if not any(_same(arguments[name], value) for value in allowed):
                return False
        elif "" not in allowed:
            return False
    return True


def _same(found: Any, value: Any) -> bool:
    if isinstance(found, str) and isinstance(value, str):
        return found.strip() == value.strip()
    return type(found) is type(value) and found == value or (isinstance(found, (int, float)) and found == value)


def _rate(count: int, total: int) -> dict[str, float]:
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(count, total, method="wilson") if total else (0.0, 1.0)
    return {
        "count": count,
        "total": total,
        "rate": round(count / total, 4) if total else 0.0,
        "low": round(float(low), 4),
        "high": round(float(high), 4),
    }


def _by_tag(records: list[Record]) -> dict[str, Any]:
    passed = sum(record.passed for record in records)
    return {"total": len(records), "passed": passed, "pass_rate": round(passed / len(records), 4) if records else 0.0}


def _cell(rate: dict[str, float]) -> str:
    return f"{rate['count']}/{rate['total']} = {rate['rate']:.0%} ({rate['low']:.0%} to {rate['high']:.0%})"


def _called(row: dict[str, Any]) -> str:
    names = [call["name"] for call in row["validator"].get("tool_calls", [])]
    return ", ".join(names) or row["outcome"]


def _errors(jsonschema_rs, schema: dict, instance: Any):
    def refuse(uri: str):
        raise ValueError(f"reference to {uri} is not followed")

    return jsonschema_rs.Draft202012Validator(schema, retriever=refuse).iter_errors(instance)
