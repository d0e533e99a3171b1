"""What dataset.ipynb shows: coverage, lengths, near copies, a browser for rows with thumbs, a form that validates a file."""

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


def judge(row: dict, good: bool, target: Path, defect: str = "wrong_tool") -> None:
    """Append a row to a file of your own judgements, labelled; a bad one names its defect."""
    meta = {key: value for key, value in row["meta"].items() if key not in ("run", "result", "defect")}
    jsonl.append(target, row | {"label": good, "meta": meta if good else meta | {"defect": defect}})


def browser(rows: list[dict], target: Path):
    """A widget to read and filter rows; thumbs write them to `target` with a KTO label."""
    import ipywidgets as widgets

    chosen, place = list(rows), [0]
    options = lambda values: ["", *sorted({value for value in values if value})]  # noqa: E731
    behaviour = widgets.Dropdown(options=options(row["meta"].get("behaviour") for row in rows), description="behaviour")
    tool = widgets.Dropdown(
        options=options(name for row in rows for name in row["meta"].get("tools", [])), description="tool"
    )
    label = widgets.Dropdown(options=["", "true", "false"], description="label")
    words = widgets.Text(description="words", continuous_update=False)
    defect = widgets.Dropdown(options=sorted(rules.DEFECTS), value="wrong_tool", description="defect")
    back, forth = widgets.Button(description="back"), widgets.Button(description="next")
    up, down = widgets.Button(description="👍 good"), widgets.Button(description="👎 bad")
    status, text = widgets.HTML(), widgets.Textarea(disabled=True, layout=widgets.Layout(width="100%", height="24em"))

    def draw(message: str = "") -> None:
        text.value = show(chosen[place[0]]) if chosen else "no row fits"
        status.value = f"row {place[0] + 1 if chosen else 0} of {len(chosen)} {message}"

    def filter_(_: Any) -> None:
        chosen[:], place[0] = select(rows, behaviour.value, tool.value, label.value, words.value), 0
        draw()

    def step(by: int) -> None:
        place[0] = (place[0] + by) % max(1, len(chosen))
        draw()

    def thumb(good: bool) -> None:
        if chosen:
            judge(chosen[place[0]], good, target, defect.value)
            draw(f"written to {target.name} as {'good' if good else 'bad: ' + defect.value}")

    for widget in (behaviour, tool, label, words):
        widget.observe(filter_, "value")
    for button, act in (
        (back, lambda _: step(-1)),
        (forth, lambda _: step(1)),
        (up, lambda _: thumb(True)),
        (down, lambda _: thumb(False)),
    ):
        button.on_click(act)
    draw()
    rows_of = [[behaviour, tool, label, words], [back, forth, up, down, defect, status]]
    return widgets.VBox([*(widgets.HBox(row, layout=widgets.Layout(flex_flow="row wrap")) for row in rows_of), text])


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
