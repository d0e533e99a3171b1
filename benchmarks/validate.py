"""Rows per second of `rows.validate`, against the same argument checks with plain jsonschema, on one generated file.

python benchmarks/validate.py [ROWS]
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import jsonschema

from toolset_nb import calls, rows
from toolset_nb.tools import catalogue

ARGUMENTS = [
    ("vaultManager_createFolder", {"path": "Garden/Beds {0}"}),
    ("contentManager_appendContent", {"filePath": "Garden/Jobs.md", "content": "- [ ] Order seed potatoes, batch {0}"}),
    ("vaultLibrarian_searchContent", {"query": "compost turned in week {0}", "limit": 5}),
    ("vaultManager_moveNote", {"path": "Inbox/Note {0}.md", "newPath": "Garden/Note {0}.md"}),
    ("contentManager_replaceContent", {"filePath": "Plan.md", "oldContent": "Draft {0}", "newContent": "Final {0}"}),
]


def make_row(number: int) -> dict:
    """A valid row of the usual length, unlike any other."""
    name, template = ARGUMENTS[number % len(ARGUMENTS)]
    own = {
        key: value.replace("{0}", str(number)) if isinstance(value, str) else value for key, value in template.items()
    }
    context = {
        "sessionId": f"session_{1_732_300_000_000 + number}_a1b2c3d4e",
        "workspaceId": "ws_1732300800000_f5g6h7j8k",
        "sessionDescription": "Planning the spring garden and its jobs",
        "sessionMemory": f"Sorted the seed list, talked about potatoes and wrote down {number} jobs for April",
        "toolContext": "The person asked for exactly this, and the target is known from the request",
        "primaryGoal": "Keep the garden notes complete and in order",
        "subgoal": "Do the one step that was asked for",
    }
    answer = calls.render([calls.Call(name, {"context": context, **own})], "text")
    asked = f"Please do job {number} in my garden notes, and do it the way we talked about last week"
    turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    meta = {"behaviour": "single_call", "tools": [name], "scenario": "garden", "split": "train"}
    return {"id": f"bench-{number}", "conversations": turns, "label": True, "meta": meta}


def check_plainly(path: Path) -> int:
    """Read the file and check each call's arguments, and nothing else, with jsonschema; return the errors."""
    validators, errors = {}, 0
    for tool in catalogue().tools.values():
        properties = {"context": catalogue().context, **tool.parameters["properties"]}
        schema = {**tool.parameters, "properties": properties, "required": ["context", *tool.required]}
        validators[tool.name] = jsonschema.Draft202012Validator(schema)
    with path.open("rb") as file:
        for line in file:
            content = json.loads(line)["conversations"][1]["content"]
            head, arguments = content.split("\narguments: ", 1)
            errors += sum(1 for _ in validators[head.removeprefix("tool_call: ")].iter_errors(json.loads(arguments)))
    return errors


def measure(count: int) -> None:
    """Print the rates of both, and their ratio."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        with path.open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(make_row(number), ensure_ascii=False) + "\n" for number in range(count))
        list(rows.validate([path]))  # compile the schemas before the clock runs
        start = time.perf_counter()
        findings = list(rows.validate([path]))
        ours = count / (time.perf_counter() - start)
        start = time.perf_counter()
        errors = check_plainly(path)
        plain = count / (time.perf_counter() - start)
    if findings or errors:
        raise SystemExit(f"the rows should be valid: {findings[:3]}, {errors} errors")
    print(
        f"rows.validate     {ours:>8,.0f} rows/s (every rule)\njsonschema        {plain:>8,.0f} rows/s (arguments only)"
    )
    print(f"ratio             {ours / plain:>8.1f}")


if __name__ == "__main__":
    measure(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)
