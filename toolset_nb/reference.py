"""Reference pages out of the schemas and the settings models: `python -m toolset_nb reference` writes docs/reference/*.md.

What a tool, a field or a parameter means stands in schemas/; what values it takes in the schemas and in `settings`. This module
only lays it out, so that no page has to be kept by hand; a test holds that the committed pages are current.
"""

import json
import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from textwrap import dedent
from typing import Any

from toolset_nb import models, runs, settings
from toolset_nb.paths import repo_root
from toolset_nb.tools import catalogue, describe

NOTICE = "<!-- Written by `python -m toolset_nb reference`: change the schemas, not this page. -->"


def write(folder: Path | None = None) -> list[Path]:
    """Write every page and return where; `folder` is docs/reference unless given."""
    folder = folder or repo_root() / "docs" / "reference"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, "utf-8")
    return [folder / name for name in pages()]


def pages() -> dict[str, str]:
    """File name -> Markdown."""
    made = {
        "tools.md": _tools(),
        "rows.md": _rows(),
        "kto.md": _pairs(),
        "run_folder.md": _run_folder(),
        "settings.md": _settings(),
    }
    return {name: f"{NOTICE}\n\n{text.strip()}\n" for name, text in made.items()}


def fields(schema: dict, prefix: str = "") -> Iterator[tuple[str, dict, bool]]:
    """(path, rule, whether it must be given) of every field of a JSON Schema, those of objects and list entries too."""
    for name, rule in schema.get("properties", {}).items():
        yield prefix + name, rule, name in schema.get("required", [])
        entries = rule.get("items") or {}
        yield from fields(entries or rule, f"{prefix}{name}{'[]' if entries else ''}.")


def conditions(schema: dict, prefix: str = "") -> Iterator[str]:
    """A line for each rule about several fields: at least one of them, or what goes with one field's value."""
    for part in [schema, *schema.get("allOf", [])]:
        if names := [name for option in part.get("anyOf", []) for name in option.get("required", [])]:
            yield f"At least one of {', '.join(f'`{prefix}{name}`' for name in names)}."
        if "if" in part:
            when = " and ".join(f"`{prefix}{k}` is `{v['const']}`" for k, v in part["if"]["properties"].items())
            found = [
                (name, rule, must) for name, rule, must in fields(part["then"], prefix) if "properties" not in rule
            ]
            takes = ", ".join(f"`{name}`{_only(rule)}{'' if must else ' (optional)'}" for name, rule, must in found)
            yield f"Where {when}: {takes}."
    for name, rule in schema.get("properties", {}).items():
        if "items" in rule:
            yield from conditions(rule["items"], f"{prefix}{name}[].")


def _tools() -> str:
    known = catalogue()
    text = f"""# Tools

The {len(known.tools)} tools of {known.name} {known.version}, from `schemas/tools.json`. Every call carries `context` first.

## Context

{_table(fields(known.context))}
"""
    for agent, tools in groupby(known.tools.values(), lambda tool: tool.agent):
        text += f"\n## {agent or 'All agents'}\n\n{known.agents.get(agent, 'Not of an agent.')}\n"
        for tool in tools:
            changes = f"Changes: {tool.mutates}." if tool.mutates else "Changes nothing."
            hidden = " Left out of the tools that a prompt lists unless the row calls it." if tool.hidden else ""
            rules = "".join(f"- {line}\n" for line in conditions(tool.parameters))
            result = ", ".join(f"`{name}` {kind}" for name, kind in tool.result["fields"].items())
            text += f"\n### {tool.name}\n\n{tool.description}. {changes}{hidden}\n\n{_table(fields(tool.parameters))}\n"
            text += f"\n{rules}" * bool(rules) + f"\nGives back: {result}.\n"
    return text


def _rows() -> str:
    schema = _schema("row")
    return f"""# Dataset rows

One JSON object a line, UTF-8. {schema["description"]} The form of `datasets/sft.jsonl`; pairs for KTO: [kto.md](kto.md).

{_table(row for row in fields(schema) if row[0] != "meta.defect")}

`user` and `assistant` are turns: `{{"role": ..., "content": ...}}`. {schema["$defs"]["assistant"]["description"]}

{_block(schema["examples"][:1])}

`python -m toolset_nb validate FILE` names every fault with its line; `convert` reads older and foreign forms.
"""


def _pairs() -> str:
    schema = _schema("row")
    defect = schema["properties"]["meta"]["properties"]["defect"]
    defects = "\n".join(f"| `{entry['const']}` | {entry['description']} |" for entry in defect["oneOf"])
    return f"""# KTO pairs

Rows as in [rows.md](rows.md), two for each request: one with `label` true, then one with `label` false on the same user turn, with
the same id but for its last letter. The false one names what is wrong with its answer in `meta.defect`:

| `meta.defect` | meaning |
|---|---|
{defects}

{_block(schema["examples"][1:])}
"""


def _run_folder() -> str:
    schema = _schema("run")
    layout = dedent((runs.__doc__ or "").partition("\n\n")[2].partition("\n\n")[0])
    return f"""# The run folder

```
{layout}
```

## run.json

{schema["description"]}

{_table(fields(schema))}
"""


def _settings() -> str:
    text = """# Settings

What each notebook takes, in its settings cell or with `papermill ... -p NAME VALUE`. Names and values are checked before anything
is loaded; an unknown one stops the run.
"""
    for model in _leaves(settings.Settings):
        notebooks = re.findall(r"\w+\.ipynb", model.__doc__)
        rules = model.model_json_schema()["properties"]
        lines = [
            f"| `{name}` | {_cell(describe(rules[name]))} | {_shown(rule.default)} | {_cell(meaning(model, name))} |"
            for name, rule in model.model_fields.items()
        ]
        text += f"\n## {', '.join(notebooks)}\n\n| parameter | value | default | meaning |\n|---|---|---|---|\n"
        text += "\n".join(lines) + "\n"
    for method in ("sft", "kto"):
        text += f"\n## What a 0 stands for: {method}\n\n{_sizes(method)}\n"
    return text


def meaning(model: type[settings.Settings], name: str) -> str:
    """What a parameter means, from schemas/settings.json: of the most derived class that tells; raises KeyError when none does."""
    told = _schema("settings")
    for kind in model.__mro__:
        if name in told.get(kind.__name__, {}):
            return told[kind.__name__][name]
    raise KeyError(f"schemas/settings.json says nothing of {model.__name__}.{name}: add a sentence there")


def _leaves(model: type) -> list[type]:
    below = model.__subclasses__()
    return [leaf for child in below for leaf in _leaves(child)] if below else [model]


def _sizes(method: str) -> str:
    sizes = models.sizes()
    names = list(dict.fromkeys(name for entry in sizes.values() for name in entry[method]))
    lines = [f"| parameter | {' | '.join(sizes)} |", "|---|" + "---|" * len(sizes)]
    for name in names:
        values = [str(entry[method].get(name, "all" if name == "max_rows" else "")) for entry in sizes.values()]
        lines.append(f"| `{name}` | {' | '.join(values)} |")
    return "\n".join(lines)


def _table(found: Iterator[tuple[str, dict, bool]]) -> str:
    lines = [
        f"| `{name}` | {_cell(describe(rule))} | {'yes' if must else ''} | {_cell(rule.get('description', ''))}{_default(rule)} |"
        for name, rule, must in found
    ]
    return (
        "\n".join(["| field | value | required | meaning |", "|---|---|---|---|", *lines])
        if lines
        else "No parameters."
    )


def _default(rule: dict) -> str:
    return f" Default: {_shown(rule['default'])}." if "default" in rule else ""


def _shown(value: Any) -> str:
    return f"`{json.dumps(value)}`"


def _only(rule: dict) -> str:
    return f" {_shown(rule['const'])}" if "const" in rule else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def _block(rows: list[dict]) -> str:
    return "\n".join(["```json", *(json.dumps(row, ensure_ascii=False) for row in rows), "```"])


def _schema(name: str) -> dict:
    return json.loads((repo_root() / "schemas" / f"{name}.json").read_text("utf-8"))
