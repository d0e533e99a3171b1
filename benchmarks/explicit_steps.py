"""The README's table of tasks, out of evaluation reports: python benchmarks/explicit_steps.py REPORT.json [REPORT.json].

A column a report, with 95% intervals as in the report: Wilson's for one trial, a bootstrap over tasks for several.
"""

import json
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from toolset_nb.evaluation.statistics import rate

Test = Callable[[dict], bool]


def measure(name: str) -> Test:
    """Whether an attempt has a measure of the report."""
    return lambda record: bool(record["measures"].get(name))


def explicit_step(record: dict) -> bool:
    """One call, and the request says which."""
    return record["level"] == "explicit" and len(record["expected_tools"]) == 1


ROWS: dict[str, tuple[Test, Test]] = {  # what is counted -> (among which attempts, which of them)
    "one explicit step: well-formed call": (explicit_step, measure("well_formed")),
    "one explicit step: right tool": (explicit_step, measure("right_tool")),
    "one explicit step: the vault is as it should be, nothing else changed": (explicit_step, measure("state")),
    "words where no call is due": (
        lambda r: not r["expected_tools"],
        lambda r: r["action"] in ("ask", "refuse", "talk"),
    ),
    "a call where one is due": (lambda r: bool(r["expected_tools"]), lambda r: r["action"] == "call"),
    "passed": (lambda r: True, measure("passed")),
}


def cell(records: list[dict], among: Test, counted: Test) -> str:
    """count/total = rate (interval) over the attempts that were judged."""
    flags = defaultdict(list)
    for record in records:
        if record["error"] is None and among(record):
            flags[record["case_id"]].append(counted(record))
    found = rate(flags)
    return f"{found['count']}/{found['total']} = {found['rate']:.0%} ({found['low']:.0%} to {found['high']:.0%})"


def main() -> None:
    reports = [json.loads(Path(path).read_text("utf-8")) for path in sys.argv[1:]]
    print("| `tasks` | " + " | ".join(report["metadata"]["model"] for report in reports) + " |")
    print("|---|" + "---|" * len(reports))
    for name, (among, counted) in ROWS.items():
        print(f"| {name} | " + " | ".join(cell(report["records"], among, counted) for report in reports) + " |")


if __name__ == "__main__":
    main()
