"""Prompt sets: which there are, reading and checking one, and the chat that a prompt becomes."""

import json
from pathlib import Path
from typing import Any

from toolset_nb.errors import ToolsetError
from toolset_nb.paths import find_file, repo_root
from toolset_nb.settings import EvaluateSettings


class EvaluationError(ToolsetError, ValueError):
    """The prompt set, a target or a report cannot be used; the message says why."""


def prompt_sets() -> list[str]:
    """Names of the prompt sets that come with the project."""
    return sorted(path.stem for path in (repo_root() / "datasets" / "prompts").glob("*.json"))


def prompt_file(name: str) -> Path:
    """The file of a prompt set: a name under datasets/prompts, or a JSON file's path, as given or from the repository's root."""
    if name.endswith(".json"):
        return find_file(name) or Path(name)
    return repo_root() / "datasets" / "prompts" / f"{name}.json"


def load_prompts(name: str, tags: str = "", limit: int = 0) -> list[dict]:
    """The prompts of a set that carry every tag, with `limit` so many evenly spread over them, since sets are sorted by what
    they ask; raises EvaluationError, a line a fault, for a bad file."""
    path = prompt_file(name)
    try:
        prompts = json.loads(path.read_text("utf-8"))
    except OSError:
        raise EvaluationError(f"prompt_set {name!r}: no file {path}; known sets: {', '.join(prompt_sets())}") from None
    except ValueError as error:
        raise EvaluationError(f"{path}: not JSON: {error}") from None
    if problems := _problems(path.name, prompts):
        raise EvaluationError("\n".join(problems[:20]))
    wanted = {tag.strip() for tag in tags.split(",") if tag.strip()}
    chosen = [prompt for prompt in prompts if wanted <= set(prompt["tags"])]
    if 0 < limit < len(chosen):
        chosen = [chosen[number * len(chosen) // limit] for number in range(limit)]
    if not chosen:
        raise EvaluationError(f"prompt_set {name}: no prompt carries the tags {', '.join(sorted(wanted))}")
    return chosen


def messages(prompt: dict, settings: EvaluateSettings) -> list[dict]:
    """The chat a prompt becomes, rendered as in training; tools stand in it unless they go by the API."""
    from toolset_nb.rows import system_text

    exposure = settings.tool_exposure if settings.tools_as == "text" else "none"
    system = prompt.get("system") or system_text(
        _row_id(prompt), prompt["expected_tools"], settings.call_format, settings.context_source, exposure
    )
    return ([{"role": "system", "content": system}] if system else []) + [
        {"role": "user", "content": prompt["question"]}
    ]


def offered_tools(prompt: dict, settings: EvaluateSettings) -> list[dict] | None:
    """The `tools` field of the request when they go by the API: those that the system message would show; else None."""
    from toolset_nb.rows import shown_tools
    from toolset_nb.tools import catalogue

    if settings.tools_as == "text" or settings.tool_exposure == "none":
        return None
    return catalogue().openai_tools(shown_tools(_row_id(prompt), prompt["expected_tools"], settings.tool_exposure))


def request_options(settings: EvaluateSettings, tools: list[dict] | None = None, trial: int = 0) -> dict[str, Any]:
    """What a request says beside its chat: sampling, tools, and the schema of a constrained reply. Every trial has its own seed."""
    options: dict[str, Any] = {
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "max_tokens": settings.max_tokens,
        "seed": (settings.seed + trial) % 2**32,
    }
    return options | ({"tools": tools} if tools else {}) | ({"schema": reply_schema()} if settings.constrained else {})


def reply_schema() -> dict[str, Any]:
    """The JSON Schema of a constrained reply: one call (name, parameters), or words alone (text)."""
    from toolset_nb.tools import CONTEXT_FIELDS, catalogue

    def exact(properties: dict, required: list[str]) -> dict:
        return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}

    context = exact({name: {"type": "string"} for name in CONTEXT_FIELDS}, list(CONTEXT_FIELDS))
    options = [exact({"text": {"type": "string"}}, ["text"])]
    for tool in catalogue().openai_tools():
        function = tool["function"]
        properties = {**function["parameters"]["properties"], "context": context}
        arguments = exact(
            dict(sorted(properties.items(), key=lambda item: item[0] != "context")), function["parameters"]["required"]
        )
        options.append(exact({"name": {"const": function["name"]}, "parameters": arguments}, ["name", "parameters"]))
    return {"anyOf": options}


def _row_id(prompt: dict) -> str:
    """What the ids and the tools of a prompt are drawn by."""
    return f"eval-{prompt['id']}"


def _problems(file: str, prompts: Any) -> list[str]:
    import jsonschema_rs

    from toolset_nb.tools import catalogue
    from toolset_nb.vault import fixtures

    def refuse(uri: str):
        raise ValueError(f"reference to {uri} is not followed")

    schema = json.loads((repo_root() / "schemas" / "prompt_set.json").read_text("utf-8"))
    errors = jsonschema_rs.Draft202012Validator(schema, retriever=refuse).iter_errors(prompts)
    found = [f"{file}: {'.'.join(map(str, e.instance_path))}: {e.message[:200]}" for e in errors]
    if found:
        return found
    vaults, tools, seen = set(fixtures.names()), catalogue().tools, set()
    for number, prompt in enumerate(prompts):
        if prompt["id"] in seen:
            found.append(f"{file}: {number}.id: {prompt['id']!r} stands twice")
        if prompt.get("fixture", "") not in {*vaults, ""}:
            known = ", ".join(sorted(vaults))
            found.append(f"{file}: {number}.fixture: {prompt['fixture']!r} is no sample vault; known: {known}")
        for name in prompt["expected_tools"]:
            if name not in tools:
                found.append(f"{file}: {number}.expected_tools: {name!r} is no tool")
        for field in ("must_change", "may_change", "must_not_change", "must_call"):
            if field in prompt and "fixture" not in prompt:
                found.append(f"{file}: {number}.{field}: no vault to look at; expected a fixture beside it")
        seen.add(prompt["id"])
    return found
