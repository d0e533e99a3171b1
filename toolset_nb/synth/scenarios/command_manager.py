"""Scenarios of commandManager, and get_tools."""

from toolset_nb.synth.scenarios.parts import answered, found
from toolset_nb.synth.worlds import World


def list_commands(world: World) -> tuple:
    if world.pick.random() < 0.5:
        return "all", {}, {}, found("commands")
    word = world.pick.choice(world.record("commands")["name"].split()).lower()
    return "filter", {"word": word}, {"filter": word}, found("commands")


def execute_command(world: World) -> tuple:
    key = world.record("commands")["id"]
    return "run", {"command_id": key}, {"commandId": key}, lambda vault, _: vault.state.data["ui"]["lastCommand"] == key


def get_tools(world: World) -> tuple:
    variant, names = world.pick.choice(["overview", "one", "two"]), world.pick.sample(sorted(world.vault.tools), 2)
    slots = {"overview": {}, "one": {"tool": names[0]}, "two": {"tool": names[0], "tool2": names[1]}}[variant]
    return variant, slots, {"tools": list(slots.values())}, answered
