"""The Results tab: filters, a list of records, and one record in full with what changed in the vault."""

import html
import json
from collections.abc import Callable
from typing import Any

from toolset_nb import evaluation
from toolset_nb.panel.parts import button, escaped, fault, row
from toolset_nb.panel.session import STATUS, Session

MOST_LISTED = 500
BOX = (
    "white-space:pre-wrap;overflow-wrap:anywhere;border:1px solid #8884;border-radius:4px;padding:4px;margin:2px 0;"
    "max-height:20em;overflow:auto;font-family:monospace;line-height:1.35"
)


def results(session: Session, changed: Callable[[], None]):
    """Filters, a list of records, and one record in full: transcript, verdict, vault difference."""
    import ipywidgets as widgets

    model, status = widgets.Dropdown(description="model"), widgets.Dropdown(description="show", options=STATUS)
    filters = {name: widgets.Dropdown(description=name) for name in ("failure", "outcome", "agent", "tool", "level")}
    text = widgets.Text(description="text", continuous_update=False)
    rows = widgets.Select(options=[], rows=12, layout=widgets.Layout(width="100%"))
    matrix, view, more, note = (
        widgets.HTML(),
        widgets.HTML(),
        widgets.Textarea(layout=widgets.Layout(width="100%", display="none")),
        widgets.HTML(),
    )
    listed: list[dict[str, Any]] = []
    marks: dict[tuple[str, int], str] = {}  # of every model, in the order of the targets
    quiet = [False]

    def draw() -> None:
        quiet[0] = True
        entries = session.comparable()
        every = [record for entry in entries for record in entry["records"]]
        values = {
            "failure": {name for record in every for name in record["failures"]},
            "outcome": {record["outcome"] for record in every},
            "agent": {name for record in every for name in evaluation.agents(record["expected_tools"])},
            "tool": {name for record in every for name in record["expected_tools"]},
            "level": {record["level"] for record in every if record["level"]},
        }
        for name, field in filters.items():
            field.options = ["", *sorted(values[name])]
        model.options = [entry["metadata"]["model"] for entry in reversed(entries)]
        model.value = model.options[0] if entries else None
        for field in filters.values():
            field.value = ""
        marks.clear()
        for record in every:
            key = (record["case_id"], record["trial"])
            marks[key] = marks.get(key, "") + ("–" if record["error"] else "✓" if record["passed"] else "✗")
        quiet[0] = False
        select()

    def select(_: Any = None) -> None:
        if quiet[0]:
            return
        wanted = {name: field.value or "" for name, field in filters.items()}
        labels = [entry["metadata"]["model"] for entry in session.comparable()]
        matrix.value = _matrix({name: session.records(name, text=text.value, **wanted) for name in labels})
        listed[:] = session.records(model.value or "", status.value, text=text.value, **wanted)[:MOST_LISTED]
        quiet[0] = True
        rows.options = [(_line(r, marks[r["case_id"], r["trial"]]), number) for number, r in enumerate(listed)]
        quiet[0] = False
        note.value = f"{len(listed)} shown"
        rows.value = 0 if listed else None
        opened()

    def opened(_: Any = None) -> None:
        if not quiet[0]:
            more.layout.display = "none"
            view.value = (
                transcript(listed[rows.value])
                if listed and rows.value is not None
                else "Nothing here yet: start a run."
            )

    def act(words: str, work: Callable[[dict[str, Any]], str]) -> None:
        if not listed or rows.value is None:
            return
        note.value = words
        try:
            note.value = escaped(work(listed[rows.value]))
        except Exception as error:  # a button tells what went wrong, whatever it was
            note.value = fault(f"{type(error).__name__}: {error}")

    def target() -> str:
        """What the chosen model was evaluated as."""
        about = next(e["metadata"] for e in session.comparable() if e["metadata"]["model"] == model.value)
        return about.get("target", about["model"])

    def again(record: dict[str, Any]) -> str:
        made = session.ask_again(record, target())
        view.value = transcript(made)
        return f"asked again: {_verdict(made)}"

    def curl(record: dict[str, Any]) -> str:
        more.value, more.layout.display = session.curl(record, target()), ""
        return "the request as a shell command, below"

    def negative(record: dict[str, Any]) -> str:
        return f"written to {session.keep_as_negative(record)}"

    for field in (model, status, text, *filters.values()):
        field.observe(select, "value")
    rows.observe(opened, "value")
    buttons = row(
        button("Ask again", lambda: act("Asking…", again), "this prompt once more; the report stays as it is"),
        button("Copy as curl", lambda: act("", curl), "the request for a terminal"),
        button("Keep as negative", lambda: act("", negative), "for KTO; prompts of your own sets only"),
        note,
    )
    parts = [matrix, row(model, status, *filters.values(), text), rows, buttons, more, view]
    return widgets.VBox(parts), draw


def _line(record: dict[str, Any], marks: str) -> str:
    due = ", ".join(record["expected_tools"]) or record["expected"]
    trial = f" #{record['trial'] + 1}" if record["trial"] else ""
    return f"{marks} {due}{trial} · {' '.join(record['question'].split())[:90]}"


def _matrix(shown: dict[str, list[dict[str, Any]]]) -> str:
    """Agents by models: passed of the judged attempts that the filters show, shaded."""
    counts: dict[str, dict[str, list[bool]]] = {}
    for label, records in shown.items():
        for record in records:
            for agent in evaluation.agents(record["expected_tools"]) | {"all"}:
                flags = counts.setdefault(agent, {}).setdefault(label, [])
                flags += [record["passed"]] if record["error"] is None else []
    lines = []
    for agent in sorted(counts, key=lambda name: (name == "all", name)):
        cells = ""
        for label in shown:
            flags = counts[agent].get(label, [])
            shade = sum(flags) / len(flags) * 0.5 if flags else 0
            words = f"{sum(flags)}/{len(flags)}"
            cells += f'<td style="text-align:center;background:rgba(11,110,79,{shade:.2f})">{words}</td>'
        lines.append(f'<tr><td style="text-align:left">{escaped(agent)}</td>{cells}</tr>')
    head = "".join(f"<th>{escaped(label[-28:])}</th>" for label in shown)
    return f'<table style="border-spacing:2px"><tr><th></th>{head}</tr>{"".join(lines)}</table>' if lines else ""


def _verdict(record: dict[str, Any]) -> str:
    if record["passed"]:
        return "passed"
    return "not answered" if record["error"] else "failed: " + ", ".join(record["failures"])


def transcript(record: dict[str, Any]) -> str:
    """A record as HTML: verdict, messages, what changed in the vault. Everything is escaped: models write anything."""
    good = record["passed"]
    parts = [
        f'<div style="color:{"#0b6e4f" if good else "#a4133c"}"><b>{escaped(_verdict(record))}</b> · {record["stop"]} · '
        f"{record['latency_s']} s · {record['completion_tokens']} tokens</div>"
    ]
    for issue in record["validator"].get("issues", [])[:8]:
        parts.append(f"<div>• {escaped(issue['message'][:400])}</div>")
    if record["error"]:
        parts.append(f"<div>{escaped(record['error'])}</div>")
    for message in record["transcript"]:
        content = message.get("content") or ""
        for made in message.get("tool_calls", []):
            content += "\n" + json.dumps(made["function"], ensure_ascii=False)
        parts.append(f'<b>{escaped(message["role"])}</b><div style="{BOX}">{html.escape(content)}</div>')
        if "written" in message:
            parts.append(f'<b>as written</b><div style="{BOX}">{html.escape(message["written"])}</div>')
    shades = {"+": "#0b6e4f33", "-": "#a4133c33"}
    lines = "".join(
        f'<div style="background:{shades.get(line.lstrip()[:1], "none")}">{html.escape(line) or "&nbsp;"}</div>'
        for line in (record["changes"] or "no changes").splitlines()
    )
    return "".join(parts) + f'<b>vault</b><div style="{BOX}">{lines}</div>'
