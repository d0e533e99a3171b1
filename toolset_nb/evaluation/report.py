"""What is kept of an evaluation: summary, tables, and files (JSON, Markdown, HTML, CSV, figures, blocks for a model card)."""

import csv
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from toolset_nb.evaluation import plots
from toolset_nb.evaluation.journal import LONE, is_journal
from toolset_nb.evaluation.page import page
from toolset_nb.evaluation.prompts import EvaluationError
from toolset_nb.evaluation.statistics import compare, pass_hat, rate
from toolset_nb.evaluation.targets import file_name
from toolset_nb.evaluation.verdicts import ACTIONS, FAILURES, MEASURES, OPTIONAL, VERSION, Record, agents, called
from toolset_nb.tools import catalogue

COLUMNS = [
    "case_id",
    "trial",
    "expected_tools",
    "expected",
    "action",
    "outcome",
    "stop",
    "turns",
    "failures",
    "latency_s",
]


def report(manifest: dict[str, Any], records: list[Record], seconds: float) -> dict[str, Any]:
    """The report of one target as JSON (schemas/report.json): version, metadata, summary, records.

    `seconds` is the time that asking took, in all sessions together.
    """
    settings = manifest["settings"]
    return {
        "version": VERSION,
        "metadata": {
            **settings,
            **{key: value for key, value in manifest.items() if key != "settings"},
            "prompt_file": settings["prompt_set"],
            "prompt_selected": len({record.case_id for record in records}),
            "seconds": round(seconds, 1),
            "generated_at": datetime.now(UTC).isoformat(timespec="seconds"),
        },
        "summary": summarise(records),
        "records": [asdict(record) for record in records],
    }


def summarise(records: list[Record]) -> dict[str, Any]:
    """Totals and rates; requests that failed are counted apart and stand in no rate. `passed` and `failed` are attempts."""
    judged = [record for record in records if record.error is None]
    passed = sum(record.passed for record in judged)
    trials = max(Counter(record.case_id for record in judged).values(), default=0)
    flags = by_case(judged)
    shares = {name: rate(by_case(judged, name)) for name in MEASURES if _measured(judged, name)}
    reasons = Counter(issue["message"] for record in judged for issue in record.validator["issues"])
    recovered = {r.case_id: [] for r in judged if r.recovered is not None}
    for record in judged:
        if record.recovered is not None:
            recovered[record.case_id].append(record.recovered)
    return {
        "total": len(records),
        "passed": passed,
        "failed": len(judged) - passed,
        "request_errors": len(records) - len(judged),
        "pass_rate": rate(flags)["rate"],
        "trials": trials,
        "pass_hat": {str(k): round(pass_hat(flags, k), 4) for k in range(1, trials + 1)},
        "measures": shares,
        "outcomes": dict(Counter(record.outcome for record in records).most_common()),
        "rescued": sum(record.validator["rescued"] for record in judged),
        "collateral_changes": sum("collateral_change" in record.failures for record in judged),
        "recovery": rate(recovered),
        "actions": {
            due: dict(Counter(r.action for r in judged if r.expected == due))
            for due in ACTIONS
            if any(r.expected == due for r in judged)
        },
        "failures": dict(Counter(name for record in records for name in record.failures).most_common()),
        "confusion": _confusion(judged),
        "by_tag": _grouped(judged, lambda record: record.tags),
        "by_level": _grouped(judged, lambda record: [record.level] if record.level else []),
        "by_agent": _grouped(judged, lambda record: agents(record.expected_tools)),
        "by_tool": _grouped(judged, lambda record: set(record.expected_tools)),
        "top_failure_reasons": [list(item) for item in reasons.most_common(10)],
        "latency_s": {
            "mean": round(_mean([r.latency_s for r in judged]), 3),
            "max": max((r.latency_s for r in judged), default=0),
        },
        "mean": {
            "turns": round(_mean([r.turns for r in judged]), 2),
            "calls": round(_mean([len(r.validator["tool_calls"]) for r in judged]), 2),
            "prompt_tokens": round(_mean([r.prompt_tokens for r in judged]), 1),
            "completion_tokens": round(_mean([r.completion_tokens for r in judged]), 1),
        },
    }


def by_case(records: Iterable[Record], measure: str = "passed") -> dict[str, list[bool]]:
    """Task -> a flag for each of its judged attempts that has the measure."""
    found: dict[str, list[bool]] = defaultdict(list)
    for record in records:
        if measure in record.measures:
            found[record.case_id].append(record.measures[measure])
    return dict(found)


def flags_of(entry: dict[str, Any]) -> dict[str, list[bool]]:
    """Task -> whether each of its judged attempts passed, from a report."""
    return by_case(Record(**row) for row in entry["records"] if row["error"] is None)


def shares(entry: dict[str, Any]) -> dict[str, float]:
    """Task -> the share of its judged attempts that passed; tasks that the server never answered are not in it."""
    return {case_id: sum(flags) / len(flags) for case_id, flags in flags_of(entry).items()}


def compared(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """`statistics.compare` of two reports; raises EvaluationError when they are not about the same prompts."""
    if before["metadata"]["prompt_set_sha256"] != after["metadata"]["prompt_set_sha256"]:
        one, two = (e["metadata"]["prompt_set"] for e in (before, after))
        raise EvaluationError(f"{one} and {two} are not the same prompts: only runs on one prompt set can be compared")
    return compare(flags_of(before), flags_of(after))


def read_reports(path: Path | str) -> list[dict[str, Any]]:
    """The reports of a JSON file or of every JSON file in a folder; raises EvaluationError."""
    path = Path(path)
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    found = []
    for file in files:
        try:
            entry = json.loads(file.read_text("utf-8"))
        except OSError:
            raise EvaluationError(f"no report at {file}") from None
        except ValueError as error:
            raise EvaluationError(f"{file} is not JSON: {error}") from None
        if not isinstance(entry, dict) or entry.get("version") != VERSION:
            raise EvaluationError(f"{file} is no report of this version ({VERSION}): run the evaluation again")
        found.append(entry)
    if not found:
        raise EvaluationError(f"no report under {path}")
    return found


def measured(reports: list[dict[str, Any]]) -> dict[str, str]:
    """The measures that all reports have, with their words."""
    return {name: words for name, words in MEASURES.items() if all(name in e["summary"]["measures"] for e in reports)}


def table(reports: list[dict[str, Any]]) -> str:
    """A Markdown table, one column a target: share, count and 95% interval for each measure."""
    labels = [entry["metadata"]["model"] for entry in reports]
    lines = [f"| measure | {' | '.join(labels)} |", "|---|" + "---|" * len(labels)]
    for name, words in measured(reports).items():
        lines.append(f"| {words} | " + " | ".join(_cell(e["summary"]["measures"][name]) for e in reports) + " |")
    trials = min(entry["summary"]["trials"] for entry in reports)
    if trials > 1:
        cells = [f"{entry['summary']['pass_hat'][str(trials)]:.0%}" for entry in reports]
        lines.append(f"| pass^{trials}: passed every time | {' | '.join(cells)} |")
    lines.append(f"| request errors | {' | '.join(str(entry['summary']['request_errors']) for entry in reports)} |")
    return "\n".join(lines)


def comparison(reports: list[dict[str, Any]]) -> str:
    """Markdown: each target against the one before it, and the last against the first, with what was fixed and what broke; ""
    for one target."""
    out, pairs = [], list(zip(reports, reports[1:], strict=False))
    for before, after in pairs + ([(reports[0], reports[-1])] if len(reports) > 2 else []):
        found = compared(before, after)
        one, two = before["metadata"]["model"], after["metadata"]["model"]
        sure = "more than chance explains" if found["mcnemar_p"] < 0.05 else "chance alone could do this"
        out += [
            f"### {one} → {two}",
            "",
            f"{found['before']:.1%} → {found['after']:.1%} passed on {found['tasks']} tasks: "
            f"**{found['difference']:+.1%}** (95% {found['low']:+.1%} to {found['high']:+.1%}), {found['won']} won and "
            f"{found['lost']} lost, exact McNemar p = {found['mcnemar_p']:.2g}: {sure}. The smallest difference that so many "
            f"tasks would show with a power of 80% is {found['detectable']:.1%}.",
            "",
            *(
                f"- {title}: {', '.join(found[key][:40]) or 'none'}"
                for title, key in (("Fixed", "fixed"), ("Broke", "broken"))
            ),
            "",
        ]
    return "\n".join(out)


def markdown(reports: list[dict[str, Any]]) -> str:
    """The report people read."""
    first = reports[0]["metadata"]
    trials = f" × {first['trials']} trials" if first["trials"] > 1 else ""
    out = [
        f"# Evaluator run ({first['prompt_selected']} prompts{trials})",
        "",
        f"Prompt set `{first['prompt_set']}`, temperature {first['temperature']:g}, {first['generated_at']}. Intervals are 95%: "
        + ("a bootstrap over tasks." if trials else "Wilson intervals."),
        "",
        table(reports),
    ]
    if len(reports) > 1:
        out += ["", "## Compared", "", comparison(reports).rstrip()]
    for entry in reports:
        out += ["", *_about(entry)]
    out += [
        "",
        "## Every prompt",
        "",
        "| prompt | expected | " + " | ".join(e["metadata"]["model"] for e in reports) + " |",
    ]
    out += ["|---|---|" + "---|" * len(reports)]
    rows = [_by_task(entry) for entry in reports]
    for case_id, (record, *_) in rows[0].items():
        cells = [_seen(found.get(case_id, [])) for found in rows]
        question = " ".join(record["question"].replace("|", "/").split())[:90]
        wanted = ", ".join(record["expected_tools"]) or record["expected"]
        out.append(f"| {question} | {wanted} | {' | '.join(cells)} |")
    return "\n".join(out) + "\n"


def _about(entry: dict[str, Any]) -> list[str]:
    """One target's part of the Markdown report."""
    summary, about = entry["summary"], entry["metadata"]
    refused = about.get("dropped", [])
    out = [
        f"## {about['model']}",
        "",
        f"- Passed: **{summary['passed']}**",
        f"- Failed: **{summary['failed']}**",
        f"- Request errors: **{summary['request_errors']}**",
        f"- Outcomes: {', '.join(f'{name} {count}' for name, count in summary['outcomes'].items())}",
        f"- Readable only leniently: {summary['rescued']}; changed something else: {summary['collateral_changes']}",
        f"- Mean: {summary['mean']['turns']:g} turns, {summary['mean']['calls']:g} calls, "
        f"{summary['mean']['completion_tokens']:g} tokens written, {summary['latency_s']['mean']:g} s",
        f"- Time: {about['seconds']} s, {about['backend']}, context {about['context_length'] or 'unknown'}",
        f"- Asked: calls as {about['call_format']}, context from {about['context_source']}, tools shown: "
        f"{about['tool_exposure']}" + (f"; refused by the server: {', '.join(refused)}" if refused else ""),
    ]
    if summary["recovery"]["total"]:
        out.append(f"- Recovered after an error: {_cell(summary['recovery'])}")
    if len(summary["actions"]) > 1:
        seen = [*ACTIONS, "malformed"]
        out += [
            "",
            "### What was due and what was done",
            "",
            f"| due | {' | '.join(seen)} |",
            "|---|" + "---|" * len(seen),
        ]
        out += [
            f"| {due} | {' | '.join(str(row.get(name, 0)) for name in seen)} |"
            for due, row in summary["actions"].items()
        ]
    if summary["failures"]:
        out += ["", "### What went wrong", "", "| failure | attempts | |", "|---|---|---|"]
        out += [f"| `{name}` | {count} | {FAILURES.get(name, '')} |" for name, count in summary["failures"].items()]
    for title, key in (("By tag", "by_tag"), ("By agent", "by_agent"), ("By level", "by_level")):
        if summary[key]:
            out += ["", f"### {title}", ""]
            out += [
                f"- `{n}`: {row['passed']}/{row['total']} ({row['pass_rate']:.1%})" for n, row in summary[key].items()
            ]
    out += ["", "### Top failure reasons", ""]
    reasons = [f"- {count}× {' '.join(message.split())[:300]}" for message, count in summary["top_failure_reasons"]]
    return out + (reasons or ["- none"])


def save(reports: list[dict[str, Any]], folder: Path) -> Path:
    """Writes report.md, report.html, records.csv, figures, card blocks, and of each target a JSON and its transcripts, where no
    journal holds them; returns the Markdown's path."""
    folder.mkdir(parents=True, exist_ok=True)
    for entry in reports:
        name = file_name(entry["metadata"]["model"])
        text = json.dumps(entry, indent=1, ensure_ascii=False) + "\n"
        (folder / f"{name}.json").write_text(text, "utf-8", LONE)
        if not is_journal(folder / f"{name}.jsonl"):
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in entry["records"])
            (folder / f"{name}.jsonl").write_text(lines, "utf-8", LONE)
    with (folder / "records.csv").open("w", newline="", encoding="utf-8", errors=LONE) as file:
        writer = csv.writer(file)
        writer.writerow(["model", *COLUMNS, "called", *MEASURES])
        for entry in reports:
            for row in entry["records"]:
                flags = [row["measures"].get(name, "") for name in MEASURES]
                values = [" ".join(v) if isinstance(v := row[name], list) else v for name in COLUMNS]
                writer.writerow([entry["metadata"]["model"], *values, called(row), *flags])
    for name, figure in plots.figures(reports).items():
        figure.savefig(folder / f"{name}.png", dpi=120)
    (folder / "report.html").write_text(page(reports), "utf-8", LONE)
    (folder / "model-index.yaml").write_text(card_block(reports[-1]), "utf-8", LONE)
    (folder / "eval_results.yaml").write_text(eval_results(reports[-1]), "utf-8", LONE)
    path = folder / "report.md"
    path.write_text(markdown(reports), "utf-8", LONE)
    return path


def card_block(entry: dict[str, Any]) -> str:
    """The `model-index` block of a model card, in huggingface_hub's own form."""
    import yaml
    from huggingface_hub import EvalResult
    from huggingface_hub.repocard_data import eval_results_to_model_index

    about = entry["metadata"]
    results = [
        EvalResult(
            task_type="text-generation",
            task_name="tool calling",
            dataset_type="toolset-nb",
            dataset_name=f"toolset_nb {Path(about['prompt_set']).stem}",
            dataset_revision=about["prompt_set_sha256"][:12],
            metric_type=name,
            metric_name=f"{MEASURES[name]} (95% {found['low']:.1%} to {found['high']:.1%}, n={found['total']})",
            metric_value=round(found["rate"] * 100, 1),
            verified=False,
        )
        for name, found in entry["summary"]["measures"].items()
    ]
    return yaml.safe_dump({"model-index": eval_results_to_model_index(about["model"], results)}, sort_keys=False)


def eval_results(entry: dict[str, Any]) -> str:
    """The content of a file under `.eval_results/` in a model repository (huggingface_hub's EvalResultEntry)."""
    import yaml
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    about, passed = entry["metadata"], entry["summary"]["measures"].get("passed")
    if not passed:
        return ""
    made = EvalResultEntry(
        dataset_id="toolset-nb/toolset_nb",
        task_id=Path(about["prompt_set"]).stem,
        value=round(passed["rate"] * 100, 1),
        date=about["generated_at"][:10],
        notes=f"95% {passed['low']:.1%} to {passed['high']:.1%}, {about['backend']}, temperature {about['temperature']:g}",
    )
    return yaml.safe_dump(eval_result_entries_to_yaml([made]), sort_keys=False)


def _by_task(entry: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in entry["records"]:
        found[record["case_id"]].append(record)
    return found


def _seen(trials: list[dict[str, Any]]) -> str:
    """How many of the judged trials of a prompt passed, and what the first of them called."""
    judged = [row for row in trials if row["error"] is None]
    if not judged:
        return "– not answered" if trials else ""
    share = sum(row["passed"] for row in judged) / len(judged)
    return f"{ {1: '✓', 0: '✗'}.get(share, f'{share:.0%}') } {called(judged[0])}"


def _confusion(records: list[Record]) -> dict[str, dict[str, int]]:
    """Expected tool (or what else was due) -> first tool called (or what else was done) -> attempts; prompts of one tool."""
    found: dict[str, Counter] = defaultdict(Counter)
    for record in records:
        if len(set(record.expected_tools)) > 1:
            continue
        due = record.expected_tools[0] if record.expected_tools else record.expected
        made = record.validator["tool_calls"]
        name = made[0]["name"] if made and record.action == "call" else record.action
        found[due][name if name in catalogue().tools or not made else "unknown tool"] += 1
    return {due: dict(row) for due, row in sorted(found.items())}


def _grouped(records: list[Record], keys: Callable[[Record], Iterable[str]]) -> dict[str, Any]:
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        for key in keys(record):
            groups[key].append(record)
    return {
        key: {
            "total": len(group),
            "passed": (passed := sum(r.passed for r in group)),
            "pass_rate": round(passed / len(group), 4),
        }
        for key, group in sorted(groups.items())
    }


def _measured(records: list[Record], name: str) -> bool:
    return name not in OPTIONAL or any(name in record.measures for record in records)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _cell(found: dict[str, float]) -> str:
    return f"{found['count']}/{found['total']} = {found['rate']:.0%} ({found['low']:.0%} to {found['high']:.0%})"
