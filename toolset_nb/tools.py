"""The tool registry: what each tool is called, which arguments it takes, and whether a call is right.

All knowledge of particular tools is data (schemas/tools.json and schemas/context.json); another catalogue of the same
form is loaded with `catalogue(path)`. This module runs no tool: that is the vault's work.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema_rs

from toolset_nb.paths import repo_root

CONTEXT_FIELDS = (
    "sessionId",
    "workspaceId",
    "sessionDescription",
    "sessionMemory",
    "toolContext",
    "primaryGoal",
    "subgoal",
)
TYPE_NAMES = {
    "string": "text",
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}


class Problem(NamedTuple):
    """One fault of a call: where it is, what stands there, what belongs there."""

    field: str
    found: str
    expected: str


@dataclass(frozen=True)
class Tool:
    """One tool; `parameters` is its JSON Schema without `context`, `mutates` what it changes (None: nothing)."""

    name: str
    agent: str
    mode: str
    description: str
    hidden: bool
    mutates: str | None
    parameters: dict
    result: dict

    @property
    def required(self) -> list[str]:
        """The parameters that must be given, `context` aside."""
        return self.parameters.get("required", [])


@dataclass
class Catalogue:
    """The tools of one release of one plugin, with their common context schema."""

    name: str
    version: str
    agents: dict[str, str]
    tools: dict[str, Tool]
    context: dict
    _validators: dict[str, tuple[dict, Any]] = field(default_factory=dict, repr=False)

    def check(self, name: str, arguments: Any) -> list[Problem]:
        """Return every fault of a whole call, context first; an empty list means the call is right."""
        tool = self.tools.get(name) if isinstance(name, str) else None
        if tool is None:
            return [Problem("name", _show(name), _nearest(name, self.tools, "a known tool"))]
        if not isinstance(arguments, dict):
            return [Problem("arguments", _show(arguments), "an object")]
        schema, validator = self._validators.get(name) or self._compile(tool)
        try:
            errors = [] if validator.is_valid(arguments) else list(validator.iter_errors(arguments))
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            return [Problem("arguments", str(error).splitlines()[0][:80], "plain JSON values")]
        problems = _context_rules(arguments)
        for error in errors:
            problems += _problems(error, schema)
        return sorted(dict.fromkeys(problems), key=lambda p: not _in_context(p.field))

    def openai_tools(self, names: Iterable[str] | None = None) -> list[dict]:
        """Return the `tools` list of a chat request, lean enough for a small model's context window."""
        return [
            {
                "type": "function",
                "function": {"name": tool.name, "description": tool.description, "parameters": _advertise(tool)},
            }
            for tool in self._select(names)
        ]

    def text_list(self, names: Iterable[str] | None = None) -> str:
        """Return one line per tool: `agent_mode(required, optional?) what it does`; `context` is left out."""
        lines = []
        for tool in self._select(names):
            keys = sorted(tool.parameters["properties"], key=lambda key: key not in tool.required)
            signature = ", ".join(_signature(key, tool) for key in keys)
            lines.append(f"{tool.name}({signature}) {tool.description[:1].lower()}{tool.description[1:]}")
        return "\n".join(lines)

    def _select(self, names: Iterable[str] | None) -> list[Tool]:
        if names is None:
            return list(self.tools.values())
        names = list(names)
        for name in names:
            if name not in self.tools:
                raise KeyError(f"{name!r} is not in {self.name}: expected {_nearest(name, self.tools, 'a known tool')}")
        return [self.tools[name] for name in names]

    def _compile(self, tool: Tool) -> tuple[dict, Any]:
        schema = dict(tool.parameters)
        schema["properties"] = {"context": self.context, **schema.get("properties", {})}
        schema["required"] = ["context", *schema.get("required", [])]
        compiled = schema, jsonschema_rs.Draft202012Validator(schema, retriever=_refuse)
        self._validators[tool.name] = compiled
        return compiled


@lru_cache(maxsize=8)
def catalogue(path: Path | None = None) -> Catalogue:
    """Load a catalogue file (default: the repository's own), once per file.

    A `context.json` beside the file is used when there is one, else the repository's.
    """
    schemas = repo_root() / "schemas"
    path = path or schemas / "tools.json"
    beside = path.with_name("context.json")
    data = json.loads(path.read_text(encoding="utf-8"))
    context = json.loads((beside if beside.exists() else schemas / "context.json").read_text(encoding="utf-8"))
    context = {key: value for key, value in context.items() if key not in ("$schema", "$id", "title")}
    tools = {entry["name"]: Tool(**entry) for entry in data["tools"]}
    return Catalogue(data["catalogue"]["name"], data["catalogue"]["version"], data["agents"], tools, context)


def _refuse(uri: str) -> dict:
    raise ValueError(f"schemas must be self-contained; refused to fetch {uri}")


def _advertise(tool: Tool) -> dict:
    lean = _lean(tool.parameters)
    return {
        "type": "object",
        "properties": {"context": {"type": "object"}, **lean["properties"]},
        "required": ["context", *tool.required],
    }


def _signature(key: str, tool: Tool) -> str:
    """Name a parameter, `?` when optional, with the required keys of a list's entries: `workflows[{name, steps}]`."""
    entry = tool.parameters["properties"][key].get("items", {}).get("required")
    shape = f"[{{{', '.join(entry)}}}]" if entry else ""
    return f"{key}{shape}{'' if key in tool.required else '?'}"


def _lean(schema: dict, entry: bool = False) -> dict:
    """Keep what a model needs to write a call; limits and the finer rules stay with `check`.

    Entries of a list show their required parameters only: the optional ones of the two batch tools alone would cost
    hundreds of tokens.
    """
    lean = {key: schema[key] for key in ("type", "enum") if key in schema}
    if "items" in schema:
        lean["items"] = _lean(schema["items"], entry=True)
    if "properties" in schema:
        required = schema.get("required", [])
        shown = required if entry and required else schema["properties"]
        lean["properties"] = {name: _lean(schema["properties"][name]) for name in shown}
        if required:
            lean["required"] = required
    return lean


def _context_rules(arguments: dict) -> list[Problem]:
    """The two rules about the context that JSON Schema cannot say."""
    problems = []
    keys = list(arguments)
    if "context" in arguments and keys[0] != "context":
        place = f"key {keys.index('context') + 1} of {len(keys)}"
        problems.append(Problem("arguments.context", place, "the first key of arguments"))
    context = arguments.get("context")
    memory = context.get("sessionMemory") if isinstance(context, dict) else None
    if isinstance(memory, str) and memory and not memory.strip():
        problems.append(Problem("arguments.context.sessionMemory", "blank text", "text that is not empty"))
    return problems


def _in_context(where: str) -> bool:
    return where == "arguments.context" or where.startswith("arguments.context.")


def _problems(error: Any, schema: dict) -> list[Problem]:
    """Turn one validation error into problems: one for each unknown parameter, else exactly one."""
    where = "arguments" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.instance_path)
    rule = _descend(schema, error.schema_path[:-1])
    match error.kind.name:
        case "required":
            missing = error.kind.property
            wanted = rule.get("properties", {}).get(missing, {})
            return [Problem(f"{where}.{missing}", "nothing", describe(wanted))]
        case "additionalProperties":
            known = list(rule.get("properties", {}))
            return [
                Problem(f"{where}.{name}", "an unknown parameter", _nearest(name, known, "a known parameter"))
                for name in error.kind.unexpected
            ]
        case "anyOf" if all("required" in option for option in rule.get("anyOf", [{}])):
            names = [name for option in rule["anyOf"] for name in option["required"]]
            return [Problem(where, "none of these", "at least one of " + ", ".join(names))]
        case _:
            return [Problem(where, _show(error.instance), describe(rule) if rule else error.message[:120])]


def _descend(schema: Any, steps: Iterable) -> dict:
    """Follow a schema path; {} where a reference makes it leave the document's own structure."""
    for step in steps:
        try:
            schema = schema[step]
        except (KeyError, IndexError, TypeError):
            return {}
    return schema if isinstance(schema, dict) else {}


def describe(rule: dict) -> str:
    """Say in a few words which value a schema wants: `a number from 1 to 50`, `one of tab, split`."""
    if "const" in rule:
        return _show(rule["const"]).rsplit(" (", 1)[0]
    if "enum" in rule:
        return "one of " + ", ".join(str(value) for value in rule["enum"])
    kind = rule.get("type")
    words = " or ".join(TYPE_NAMES.get(one, "a value") for one in (kind if isinstance(kind, list) else [kind]))
    if kind == "string" and rule.get("examples"):
        return f"{words} such as {rule['examples'][0]!r}"
    if "pattern" in rule:
        return f"{words} matching {rule['pattern']}"
    if kind == "string":
        low, high = rule.get("minLength"), rule.get("maxLength")
        return f"{words}{_span(low, high)} characters" if high else words + (" that is not empty" if low else "")
    if kind == "array":
        of = {"string": " of texts", "object": " of objects"}.get((rule.get("items") or {}).get("type"), "")
        low, high = rule.get("minItems"), rule.get("maxItems")
        return f"{words}{of}{_span(low, high)} entries" if high else f"{words}{of}" + (", not empty" if low else "")
    if kind == "object" and rule.get("required"):
        return f"{words} with {', '.join(rule['required'])}"
    beyond = "".join(
        f" {word} {rule[key]}"
        for key, word in (("exclusiveMinimum", "above"), ("exclusiveMaximum", "below"))
        if key in rule
    )
    return words + _span(rule.get("minimum"), rule.get("maximum")) + beyond


def _span(low: float | None, high: float | None) -> str:
    if low is not None and high is not None:
        return f" from {low} to {high}"
    return f" of at least {low}" if low is not None else f" of at most {high}" if high is not None else ""


def _show(value: Any) -> str:
    """Show a value and its JSON type, cut to a readable length."""
    match value:
        case None:
            return "null"
        case bool():
            return f"{str(value).lower()} (boolean)"
        case int() | float():
            return f"{str(value)[:60]} (number)"
        case str():
            return f"{value if len(value) <= 60 else value[:57] + '...'!r} (string)"
        case list():
            return f"a list of {len(value)}"
        case dict():
            return f"an object with {', '.join(map(str, value))[:60]}" if value else "an empty object"
        case _:
            return f"a {type(value).__name__}"


def _nearest(name: Any, known: Iterable[str], otherwise: str) -> str:
    """Suggest the most alike known name, or say that none is near."""
    from rapidfuzz import process, utils

    known = list(known)
    best = process.extractOne(str(name), known, processor=utils.default_process, score_cutoff=60)
    if best:
        return f"{otherwise}; did you mean {best[0]}?"
    return f"{otherwise}: {', '.join(known)}" if 0 < len(known) <= 12 else otherwise
