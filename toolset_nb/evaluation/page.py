"""One HTML page that holds a whole report: no server, no network, opens from a folder or an e-mail.

Data go in as JSON, and the page's script writes them with textContent only, so that nothing a model wrote is ever markup.
"""

import html
import json
from pathlib import Path
from string import Template
from typing import Any

from toolset_nb.evaluation.verdicts import FAILURES, MEASURES, agents, called

TEMPLATE = Path(__file__).with_name("page.html")
KEPT = [
    "case_id",
    "trial",
    "question",
    "expected_tools",
    "expected",
    "action",
    "outcome",
    "passed",
    "error",
    "stop",
    "failures",
    "level",
    "tags",
    "changes",
    "transcript",
    "latency_s",
    "turns",
    "measures",
]


def page(reports: list[dict[str, Any]]) -> str:
    """The page of some reports on the same prompts."""
    labels = [entry["metadata"]["model"] for entry in reports]
    data = {
        "reports": [
            {
                "metadata": {"model": entry["metadata"]["model"]},
                "records": [_kept(record) for record in entry["records"]],
            }
            for entry in reports
        ],
        "trials": reports[0]["metadata"]["trials"],
        "words": FAILURES,
    }
    about = reports[0]["metadata"]
    trials = f" × {about['trials']} trials" if about["trials"] > 1 else ""
    told = f"{about['prompt_set']}, {about['prompt_selected']} prompts{trials}, temperature {about['temperature']:g}, "
    filters = "".join(
        f'<label>{name}<select id="{name}"><option value="">any</option></select></label>\n'
        for name in ("agent", "tool", "due", "level", "outcome", "failure")
    )
    conditions = json.dumps([_conditions(entry) for entry in reports], indent=1, ensure_ascii=False)
    return Template(TEMPLATE.read_text("utf-8")).substitute(
        title=html.escape(f"{' / '.join(labels)} on {about['prompt_set']}"),
        heading=html.escape(" → ".join(labels)),
        about=html.escape(f"{told}{about['generated_at']}. Intervals are 95%."),
        measures=_measures(reports),
        filters=filters,
        columns="".join(f"<th>{html.escape(label)}</th>" for label in labels),
        conditions=html.escape(conditions),
        data=_embedded(data),
    )


def _measures(reports: list[dict[str, Any]]) -> str:
    rows = []
    for name, words in MEASURES.items():
        if all(name in entry["summary"]["measures"] for entry in reports):
            found = [entry["summary"]["measures"][name] for entry in reports]
            cells = "".join(
                f"<td>{r['rate']:.0%} <span class=soft>({r['low']:.0%} to {r['high']:.0%})</span></td>" for r in found
            )
            rows.append(f"<tr><td>{html.escape(words)}</td>{cells}</tr>")
    errors = "".join(f"<td>{entry['summary']['request_errors']}</td>" for entry in reports)
    head = "".join(f"<th>{html.escape(entry['metadata']['model'])}</th>" for entry in reports)
    rows.append(f"<tr><td>request errors</td>{errors}</tr>")
    return f"<table><thead><tr><th>measure</th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _kept(record: dict[str, Any]) -> dict[str, Any]:
    why = [issue["message"][:300] for issue in record["validator"].get("issues", [])][:8]
    made = {"agents": sorted(agents(record["expected_tools"])), "called": called(record), "why": why}
    return {key: record[key] for key in KEPT} | made


def _conditions(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry["metadata"].items() if value not in ("", {}, None)}


def _embedded(data: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(data, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
