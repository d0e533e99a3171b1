"""Scenarios of agentManager."""

from toolset_nb.synth.scenarios.parts import answered, found, is_file, stored
from toolset_nb.synth.worlds import World, join


def create_agent(world: World) -> tuple:
    off = world.pick.random() < 0.3
    slots = dict(world.value("agents"))
    return "off" if off else "new", slots, slots | ({"isEnabled": False} if off else {}), answered


def update_agent(world: World) -> tuple:
    agent, variant = world.record("agents"), world.pick.choice(["name", "description", "prompt"])
    value = world.value("agents")[variant]
    return (
        variant,
        {"agent_id": agent["id"], "value": value},
        {"id": agent["id"], variant: value},
        stored("agents", agent["id"], variant, value),
    )


def delete_agent(world: World) -> tuple:
    key = world.record("agents")["id"]
    return "delete", {"agent_id": key}, {"id": key}, lambda vault, _: key not in vault.state.data["agents"]


def toggle_agent(world: World) -> tuple:
    agent = world.record("agents")
    on = not agent["isEnabled"]
    return (
        "on" if on else "off",
        {"agent_id": agent["id"]},
        {"id": agent["id"]},
        stored("agents", agent["id"], "isEnabled", on),
    )


def get_agent(world: World) -> tuple:
    agent, by_name = world.record("agents"), world.pick.random() < 0.6
    if by_name:
        return "name", {"name": agent["name"]}, {"name": agent["name"]}, answered
    return "id", {"agent_id": agent["id"]}, {"id": agent["id"]}, answered


def list_agents(world: World) -> tuple:
    enabled = world.pick.random() < 0.5
    return "enabled" if enabled else "all", {}, {"enabledOnly": True} if enabled else {}, answered


def list_models(world: World) -> tuple:
    return "list", {}, {}, found("models")


def execute_prompt(world: World) -> tuple:
    variant = world.form("plain", "file", "write", "agent")
    provider, model, _ = world.pick.choice(world.vault.provider.models)
    slots = {"prompt": world.value("prompts"), "provider": provider, "model": model}
    arguments = dict(slots)
    if variant == "file":
        slots["path"] = world.note()
        arguments["filepaths"] = [slots["path"]]
    if variant == "write":
        slots["new_path"] = join(world.parent(), f"{world.title()}.md")
        arguments["action"] = {"type": "create", "targetPath": slots["new_path"]}
    if variant == "agent":
        slots["agent_id"] = arguments["agent"] = world.agent()["id"]
    return variant, slots, arguments, is_file(slots["new_path"]) if variant == "write" else answered


def batch_execute_prompt(world: World) -> tuple:
    provider, model, _ = world.pick.choice(world.vault.provider.models)
    slots = {"prompt": world.value("prompts"), "prompt2": world.value("prompts"), "provider": provider, "model": model}
    prompts = [
        {"type": "text", "prompt": slots[key], "provider": provider, "model": model} for key in ("prompt", "prompt2")
    ]
    return "two", slots, {"prompts": prompts}, lambda _, result: result["data"]["stats"]["promptsFailed"] == 0


def generate_image(world: World) -> tuple:
    path, shape = join(world.parent(), f"{world.title()}.png"), world.pick.random() < 0.5
    slots = {"prompt": world.value("images"), "image_path": path}
    arguments = {"prompt": slots["prompt"], "provider": "google", "savePath": path}
    if shape:
        slots["aspect"] = arguments["aspectRatio"] = world.pick.choice(["3:4", "4:3", "9:16", "16:9"])
    return "shape" if shape else "plain", slots, arguments, is_file(path)
