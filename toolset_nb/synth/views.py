"""What dataset.ipynb shows: coverage, lengths, near copies, a list of rows to read, with thumbs, a form that validates a file."""

import html
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from toolset_nb import calls, jsonl, rules
from toolset_nb.synth import similarity
from toolset_nb.tools import catalogue

MOST_FINDINGS = 20


def heat_map(rows: list[dict]):
    """A figure: tools down, behaviours across, rows as colour and number."""
    from matplotlib import pyplot

    behaviours = sorted({row["meta"].get("behaviour", "none") for row in rows})
    tools = [*catalogue().tools, "no call"]
    counts = Counter(
        (tool, row["meta"].get("behaviour", "none")) for row in rows for tool in row["meta"].get("tools") or ["no call"]
    )
    grid = [[counts[tool, behaviour] for behaviour in behaviours] for tool in tools]
    figure, axis = pyplot.subplots(figsize=(3 + 0.55 * len(behaviours), 0.24 * len(tools) + 2), layout="constrained")
    axis.imshow(grid, cmap="cividis", aspect="auto", vmin=0, vmax=100)
    axis.set_xticks(range(len(behaviours)), behaviours, rotation=60, ha="right", fontsize=8)
    axis.set_yticks(range(len(tools)), tools, fontsize=7)
    for y, line in enumerate(grid):
        for x, value in enumerate(line):
            if value:
                axis.text(x, y, value, ha="center", va="center", fontsize=6, color="white" if value < 60 else "black")
    axis.set_title(f"{len(rows)} rows: tool by behaviour (colour ends at 100)", fontsize=10)
    return figure


def lengths(rows: list[dict], tokenizer: Any, max_length: int):
    """A figure: tokens of each row as trained, against `max_length`; says how many are longer."""
    from matplotlib import pyplot

    texts = ["\n".join(turn["content"] for turn in row["conversations"]) for row in rows]
    counted = [len(ids) for ids in tokenizer(texts)["input_ids"]] if texts else []
    longer = sum(count > max_length for count in counted)
    figure, axis = pyplot.subplots(figsize=(8, 2.6), layout="constrained")
    axis.hist(counted, bins=60, color="#33658a")
    axis.axvline(max_length, color="#d1495b", linestyle="--")
    axis.set(xlabel="tokens", ylabel="rows", title=f"{longer} of {len(rows)} rows are longer than {max_length} tokens")
    return figure


def nearest(rows: list[dict], most: int = 10) -> list[tuple[float, str, str]]:
    """(similarity, request, request) of the pairs of requests that are most alike, false rows left out."""
    import numpy

    asked = [row["conversations"][0]["content"] for row in rows if row.get("label") is not False]
    signatures = numpy.array([similarity.minhash(text) for text in asked], dtype=numpy.uint32)
    found = []
    for at, signature in enumerate(signatures[:-1]):
        alike = (signatures[at + 1 :] == signature).mean(axis=1)
        other = int(alike.argmax())
        found.append((float(alike[other]), asked[at], asked[at + 1 + other]))
    return sorted(found, reverse=True)[:most]


def select(rows: Iterable[dict], behaviour: str = "", tool: str = "", label: str = "", words: str = "") -> list[dict]:
    """The rows that fit every filter that is not empty; `words` must occur in a row's text."""
    return [
        row
        for row in rows
        if behaviour in ("", row["meta"].get("behaviour"))
        and (not tool or tool in row["meta"].get("tools", []))
        and label in ("", str(row.get("label")).lower())
        and words.casefold() in json.dumps(row, ensure_ascii=False).casefold()
    ]


def show(row: dict) -> str:
    """One row as text for reading, calls on lines of their own."""
    lines = [
        f"{row['id']}  label {str(row.get('label')).lower()}  {row['meta'].get('behaviour')}  {row['meta'].get('defect', '')}"
    ]
    lines += ["", f"person: {row['conversations'][0]['content']}", ""]
    for block in calls.parse(row["conversations"][1]["content"], rescue=False).blocks:
        if isinstance(block, calls.Call):
            lines.append(f"call: {block.name}\n{json.dumps(block.arguments, ensure_ascii=False, indent=1)}")
        elif isinstance(block, calls.Result):
            lines.append(f"result: {calls.dumps(block.value)[:600]}")
        else:
            lines.append(f"says: {block if isinstance(block, str) else block.source}")
    return "\n".join(lines)


def write(rows: Iterable[dict], target: Path) -> Path:
    """Write rows as JSON lines in one step; the folder is made."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.draft")
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    draft.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
    return draft.replace(target)


def judge(row: dict, good: bool, other: str, folder: Path, defect: str = "wrong_tool") -> Path:
    """Append what a thumb says of a row's answer to a file of your own; returns the file.

    `other` is another answer to the same request, wrong where this one is good and right where it is bad: both go into
    my_pairs.jsonl, for KTO. A good answer without another goes into my_rows.jsonl, for SFT. Raises DataError where there is no
    right answer, where a rule is broken, and for a row that was judged before.
    """
    request, answer = row["conversations"]
    paired = other.strip() not in ("", answer["content"].strip())
    if not good and not paired:
        raise jsonl.DataError("write the right answer into the field below first: it takes two to make a pair")
    meta = {key: value for key, value in row["meta"].items() if key not in ("run", "result", "before", "defect")}
    right, wrong = (answer["content"], other) if good else (other, answer["content"])
    made = [
        {"id": f"own-{row['id']}", "conversations": [request, answer | {"content": right}], "label": True, "meta": meta}
    ]
    if paired:
        made += [
            {
                **made[0],
                "conversations": [request, answer | {"content": wrong}],
                "label": False,
                "meta": meta | {"defect": defect},
            }
        ]
        made = [each | {"id": f"{each['id']}{end}"} for each, end in zip(made, "ab", strict=True)]
    if problems := [*rules.check_row(made[0]), *(rules.check_row(made[1], made[0]) if paired else [])]:
        raise jsonl.DataError(f"not written: {problems[0]}")
    target = folder / ("my_pairs.jsonl" if paired else "my_rows.jsonl")
    if target.exists() and made[0]["conversations"] in _answers(target):
        raise jsonl.DataError(f"{target.name} holds this answer already")
    for each in made:
        jsonl.append(target, each)
    return target


def _answers(file: Path) -> list[Any]:
    return [row.get("conversations") for _, row in jsonl.read(file) if isinstance(row, dict)]


def browser(rows: list[dict], folder: Path):
    """A widget to filter, list and read rows; thumbs write them to files in `folder`, as `judge` says."""
    import ipywidgets as widgets

    wide = {"width": "100%"}
    pairs = [pair for pair in zip(rows, rows[1:], strict=False) if pair[1].get("label") is False]
    twins = {one["id"]: two for one, two in pairs + [pair[::-1] for pair in pairs]}
    options = lambda values: ["", *sorted({value for value in values if value})]  # noqa: E731
    filters = {
        "behaviour": widgets.Dropdown(
            options=options(row["meta"].get("behaviour") for row in rows), description="behaviour"
        ),
        "tool": widgets.Dropdown(
            options=options(name for row in rows for name in row["meta"].get("tools", [])), description="tool"
        ),
        "label": widgets.Dropdown(options=["", "true", "false"], description="label"),
        "words": widgets.Text(description="words", continuous_update=False),
    }
    table = widgets.Select(rows=10, layout=widgets.Layout(**wide))
    text = widgets.Textarea(disabled=True, layout=widgets.Layout(height="20em", **wide))
    other = widgets.Textarea(layout=widgets.Layout(height="8em", **wide))
    defect = widgets.Dropdown(options=sorted(rules.DEFECTS), value="wrong_tool", description="defect")
    up, down = widgets.Button(description="👍 good"), widgets.Button(description="👎 bad")
    status = widgets.HTML()
    chosen: list[dict] = []

    def filter_(_: Any = None) -> None:
        chosen[:] = select(rows, **{name: field.value for name, field in filters.items()})
        table.options = [(_line(row), at) for at, row in enumerate(chosen)]
        table.index = 0 if chosen else None
        open_()

    def open_(_: Any = None) -> None:
        status.value = f"{len(chosen)} rows"
        if table.index is None:
            text.value, other.value = "no row fits", ""
            return
        row = chosen[table.index]
        twin = twins.get(row["id"], row)
        text.value, other.value = show(row), twin["conversations"][1]["content"]
        defect.value = {**twin["meta"], **row["meta"]}.get("defect", "wrong_tool")

    def thumb(good: bool) -> None:
        if table.index is None:
            return
        try:
            target = judge(chosen[table.index], good, other.value, folder, defect.value)
            status.value = f"written to {target}"
        except jsonl.DataError as error:
            status.value = html.escape(str(error))

    for field in filters.values():
        field.observe(filter_, "value")
    table.observe(open_, "index")
    up.on_click(lambda _: thumb(True))
    down.on_click(lambda _: thumb(False))
    filter_()
    flow = widgets.Layout(flex_flow="row wrap")
    asked = widgets.HTML("The other answer: for a bad row the right one; for a good row a wrong one, or nothing new")
    return widgets.VBox(
        [
            widgets.HBox([*filters.values()], layout=flow),
            table,
            text,
            asked,
            other,
            widgets.HBox([up, down, defect, status], layout=flow),
        ]
    )


def _line(row: dict) -> str:
    """A row in a list."""
    told = ", ".join(row["meta"].get("tools", [])) or "no call"
    mark = {True: "✓", False: "✗"}.get(row.get("label"), " ")
    return f"{mark} {row['id']} · {told} · {' '.join(row['conversations'][0]['content'].split())[:90]}"


def findings(path: str) -> str:
    """What the validator says of a file, as text."""
    try:
        found = list(rules.validate([path]))
    except jsonl.DataError as error:
        return str(error)
    more = [f"... and {len(found) - MOST_FINDINGS} more"] if len(found) > MOST_FINDINGS else []
    return "\n".join([f"{len(found)} problems", *map(str, found[:MOST_FINDINGS]), *more])


def validator():
    """A widget: the path of a file, a button, and what the validator finds."""
    import ipywidgets as widgets

    path = widgets.Text(value="datasets/sft.jsonl", description="file", layout=widgets.Layout(width="60%"))
    button, text = (
        widgets.Button(description="validate"),
        widgets.Textarea(disabled=True, layout=widgets.Layout(width="100%", height="10em")),
    )
    button.on_click(lambda _: setattr(text, "value", findings(path.value)))
    return widgets.VBox([widgets.HBox([path, button]), text])
