"""agentManager: custom agents (named prompts), language models and images."""

import re
from types import SimpleNamespace
from typing import Any

from toolset_nb.vault import content_manager
from toolset_nb.vault.files import VaultError, clean
from toolset_nb.vault.providers import ASPECTS

IMAGE_COST_PIXELS = {"1K": 1, "2K": 2}  # a simulated image grows with the size asked for
WRITERS = {
    "create": content_manager.create_content,
    "append": content_manager.append_content,
    "prepend": content_manager.prepend_content,
}


def create_agent(vault: Any, given: Any) -> dict:
    """Store a named prompt under a name that is still free."""
    for name in ("name", "description", "prompt"):
        _not_blank(name, getattr(given, name))
    _free(vault, given.name)
    agent = {"id": vault.state.new_id("prompt"), "name": given.name.strip(), "description": given.description.strip()}
    return vault.state.put("agents", agent | {"prompt": given.prompt.strip(), "isEnabled": given.isEnabled}).copy()


def update_agent(vault: Any, given: Any) -> dict:
    """Change the fields that are given."""
    agent = vault.state.get("agents", given.id)
    names = ("name", "description", "prompt", "isEnabled")
    changes = {name: value for name in names if (value := getattr(given, name)) is not None}
    if not changes:
        raise VaultError("NO_CHANGE", f"No updates provided: expected {', '.join(names)}")
    for name in names[:3]:
        if name in changes:
            _not_blank(name, changes[name])
            changes[name] = changes[name].strip()
    if "name" in changes:
        _free(vault, changes["name"], besides=given.id)
    return vault.state.put("agents", agent | changes).copy()


def delete_agent(vault: Any, given: Any) -> dict:
    """Remove an agent."""
    vault.state.get("agents", given.id)
    del vault.state.data["agents"][given.id]
    vault.state.changed = True
    return {"deleted": True, "id": given.id}


def toggle_agent(vault: Any, given: Any) -> dict:
    """Enable a disabled agent, disable an enabled one."""
    agent = vault.state.get("agents", given.id)
    return vault.state.put("agents", agent | {"isEnabled": not agent["isEnabled"]}).copy()


def get_agent(vault: Any, given: Any) -> dict:
    """One agent by its id, else by its name."""
    if not given.id and not given.name:
        raise VaultError("MISSING_REQUIRED", "id or name: expected one of them")
    agent = _find(vault, given.id) if given.id else None
    agent = agent or (_find(vault, given.name, by_name=True) if given.name else None)
    if agent is None:
        raise VaultError("NOT_FOUND", f"Agent not found: {given.id or given.name!r:.80}")
    return agent | {"message": f"Take on the role of {agent['name']} until the user says otherwise."}


def list_agents(vault: Any, given: Any) -> dict:
    """All agents, or the enabled ones, by name."""
    agents = sorted(vault.state.data["agents"].values(), key=lambda agent: (agent["name"].casefold(), agent["id"]))
    enabled = [agent for agent in agents if agent["isEnabled"]]
    shown = [
        {key: a[key] for key in ("id", "name", "description", "isEnabled")}
        for a in (enabled if given.enabledOnly else agents)
    ]
    message = f"{len(shown)} agents" if shown else "There are no agents yet"
    return {"prompts": shown, "totalCount": len(agents), "enabledCount": len(enabled), "message": message}


def list_models(vault: Any, given: Any) -> dict:
    """The models that the provider has."""
    default = vault.provider.models[0]
    models = [
        {
            "provider": p,
            "model": m,
            "displayName": name,
            "isDefault": (p, m, name) == default,
            "capabilities": {},
            "pricing": {},
        }
        for p, m, name in vault.provider.models
    ]
    providers = list(dict.fromkeys(p for p, _, _ in vault.provider.models))
    counts = {"totalModels": len(models), "totalProviders": len(providers)}
    shown = [{"id": p, "name": p, "modelCount": sum(m["provider"] == p for m in models)} for p in providers]
    chosen = {"provider": default[0], "model": default[1]}
    return {"models": models, "defaultModel": chosen, "statistics": counts, "availableProviders": shown}


def execute_prompt(vault: Any, given: Any) -> dict:
    """Send a prompt to a language model and, with `action`, write the answer to a note."""
    agent = None
    if given.agent:
        agent = _find(vault, given.agent) or _find(vault, given.agent, by_name=True)
        if agent is None:
            raise VaultError("NOT_FOUND", f"Agent not found: {given.agent!r:.80}")
    files = [clean(path, note=True) for path in given.filepaths or []]
    parts = [agent["prompt"]] if agent else []
    parts += [f"{path}\n{vault.tree.read(path)}" for path in files]
    response = _complete(vault, "\n\n".join([*parts, given.prompt]), given.provider, given.model)
    fields = {"response": response} if given.returnContent else {}
    fields |= {"model": given.model, "provider": given.provider, "agentUsed": agent["name"] if agent else "default"}
    fields |= {"usage": _usage([*parts, given.prompt], response)}
    if files:
        fields["filesIncluded"] = files
    if given.action:
        fields["actionPerformed"] = _act(vault, given.action, response)
    return fields


def batch_execute_prompt(vault: Any, given: Any) -> dict:
    """Many prompts: in the order of `sequence`, later ones may see the answers of earlier ones; each reports for itself."""
    for number, prompt in enumerate(given.prompts):
        if prompt["type"] == "image" and prompt["provider"] != "google":
            raise VaultError("INVALID", f"prompts.{number}.provider: images need google")
    order = sorted(range(len(given.prompts)), key=lambda number: given.prompts[number].get("sequence") or 0)
    done: dict[int, dict] = {}
    answers: list[tuple[int, str, str]] = []  # sequence, id, response
    for number in order:
        prompt = given.prompts[number]
        result = {key: prompt[key] for key in ("type", "id", "prompt", "provider", "model") if key in prompt}
        mark = vault.tree.mark()
        try:
            if prompt["type"] == "image":
                result |= {"success": True, "imagePath": _draw(vault, prompt)["imagePath"]}
            else:
                result |= _answer(vault, prompt, answers)
        except VaultError as error:
            vault.tree.rollback(mark)
            result |= {"success": False, "error": str(error), "code": error.code}
        done[number] = result
        answers.append((prompt.get("sequence") or 0, prompt.get("id") or "", result.get("response", "")))
    results = [done[number] for number in range(len(given.prompts))]
    good = [result for result in results if result["success"]]
    stats = {"totalExecutionTimeMS": 0, "promptsExecuted": len(good), "promptsFailed": len(results) - len(good)}
    stats["avgExecutionTimeMS"] = 0
    if not given.mergeResponses:
        return {"results": results, "stats": stats}
    merged = {"totalPrompts": len(results), "successfulPrompts": len(good)}
    merged["combinedResponse"] = "\n\n".join(result["response"] for result in good if "response" in result)
    return {"merged": merged | {"providersUsed": list(dict.fromkeys(r["provider"] for r in good))}, "stats": stats}


def generate_image(vault: Any, given: Any) -> dict:
    """Draw an image and save it as a new file."""
    model = given.model or "imagen-4"
    if given.sampleImageSize == "2K" and model == "imagen-4-fast":
        raise VaultError("INVALID", "sampleImageSize 2K needs imagen-4 or imagen-4-ultra")
    options = {"aspectRatio": given.aspectRatio, "sampleImageSize": given.sampleImageSize}
    drawn = _draw(vault, {"prompt": given.prompt, "savePath": given.savePath, **options})
    vault.beside["error"] = "Image generated successfully"  # the plugin's own wording and place
    return drawn | {"prompt": given.prompt, "model": model, "provider": given.provider, "metadata": {"simulated": True}}


def _draw(vault: Any, wanted: dict) -> dict:
    width, height = (
        side * IMAGE_COST_PIXELS[wanted.get("sampleImageSize") or "1K"]
        for side in ASPECTS[wanted.get("aspectRatio") or "1:1"]
    )
    path = clean(wanted["savePath"])
    picture = vault.provider.draw(wanted["prompt"], (width, height))
    vault.tree.write(path, picture, new=True)
    size = {"dimensions": {"width": width, "height": height}, "fileSize": len(picture)}
    return {"imagePath": path, **size, "format": "png"}


def _answer(vault: Any, prompt: dict, answers: list) -> dict:
    sequence, wanted = prompt.get("sequence") or 0, prompt.get("contextFromSteps") or []
    before = [text for at, _, text in answers if at < sequence and prompt.get("includePreviousResults")]
    before += [text for _, key, text in answers if key and key in wanted]
    question = "\n\n".join([*filter(None, before), prompt["prompt"]])
    options = {"agent": prompt.get("agent"), "filepaths": prompt.get("contextFiles"), "action": prompt.get("action")}
    models = {"provider": prompt["provider"], "model": prompt["model"], "returnContent": True}
    fields = execute_prompt(vault, SimpleNamespace(prompt=question, **options, **models))
    return {"success": True} | {
        key: fields[key] for key in ("response", "agentUsed", "actionPerformed") if key in fields
    }


def _act(vault: Any, action: dict, response: str) -> dict:
    """Write an answer as `action` says; a failure is reported, the answer is not lost."""
    try:
        path = action["targetPath"]
        if action["type"] in WRITERS:
            WRITERS[action["type"]](vault, SimpleNamespace(filePath=path, content=response))
        elif action["type"] == "findReplace":
            options = {"replaceAll": False, "caseSensitive": True, "wholeWord": False} | action
            options |= {"filePath": path, "findText": action.get("findText") or "", "replaceText": response}
            if not content_manager.find_replace_content(vault, SimpleNamespace(**options))["replacements"]:
                raise VaultError("NO_MATCH", f"Text not found: {options['findText']!r:.80}")
        elif action.get("position") is not None:
            line = {"startLine": action["position"], "endLine": action["position"]}
            content_manager.replace_by_line(vault, SimpleNamespace(filePath=path, newContent=response, **line))
        else:
            path = clean(path, note=True)
            vault.tree.need(path, "file")
            vault.tree.write(path, response)
    except VaultError as error:
        return {"type": action["type"], "targetPath": action["targetPath"], "success": False, "error": str(error)}
    return {"type": action["type"], "targetPath": clean(action["targetPath"], note=True), "success": True}


def _complete(vault: Any, prompt: str, provider: str, model: str) -> str:
    if (provider, model) not in [(p, m) for p, m, _ in vault.provider.models]:
        known = ", ".join(f"{p}/{m}" for p, m, _ in vault.provider.models)
        raise VaultError("UNAVAILABLE", f"{provider}/{model} is not set up; expected one of {known}"[:400])
    return vault.provider.complete(prompt, provider, model)


def _usage(parts: list[str], response: str) -> dict:
    words = sum(len(re.findall(r"\S+", part)) for part in parts)
    answered = len(re.findall(r"\S+", response))
    return {"promptTokens": words, "completionTokens": answered, "totalTokens": words + answered}


def _find(vault: Any, key: str, by_name: bool = False) -> dict | None:
    if not by_name:
        found = vault.state.data["agents"].get(key)
        return found.copy() if found else None
    matches = [a for a in vault.state.data["agents"].values() if a["name"].casefold() == key.casefold()]
    return matches[0].copy() if matches else None


def _free(vault: Any, name: str, besides: str = "") -> None:
    found = _find(vault, name.strip(), by_name=True)
    if found and found["id"] != besides:
        raise VaultError("EXISTS", f"There is already an agent named {name!r:.80}")


def _not_blank(name: str, text: str) -> None:
    if not text.strip():
        raise VaultError("INVALID", f"{name} is empty: expected a text")
