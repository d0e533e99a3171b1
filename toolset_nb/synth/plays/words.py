"""No call: ask first, ask for what is missing, talk, or say that it cannot be done."""

from collections.abc import Callable

from toolset_nb.synth import missteps, negatives, scenarios
from toolset_nb.synth.plays import parts
from toolset_nb.synth.plays.parts import Play
from toolset_nb.synth.scenes import Scene
from toolset_nb.synth.wording import Said, behaviours
from toolset_nb.synth.worlds import title


def ask_first(variant: str) -> Play:
    """Destructive or unclear: ask before anything is done."""

    def play(scene: Scene) -> None:
        world = scene.world
        slots, call = {}, None
        if variant == "many":
            path, topic = parts.findable(scene)
            slots, call = {"query": topic}, ("vaultManager_deleteNote", scenarios.note_slots(path), {"path": path})
        elif variant in ("full_folder", "vague"):
            folder = world.folder(empty=False)
            slots, call = (
                {"folder": folder},
                ("vaultManager_deleteFolder", {"folder": folder}, {"path": folder, "recursive": True}),
            )
        elif variant == "unsure":
            one, two = world.pick.sample(world.notes(), 2)
            slots = {"note": title(one), "note2": title(two)}
            call = ("vaultManager_deleteNote", scenarios.note_slots(one), {"path": one})
        else:
            scenario = parts.of_variant(scene, "contentManager_findReplaceContent", "all")
            slots, call = scenario.slots, (scenario.tool, scenario.slots, scenario.arguments)
        scene.ask("ask_first", variant, slots)
        scene.reply("ask_first", "asks" if scene.training else "replies", **slots)
        if scene.contrast:
            tool, facts, arguments = call
            wrong = negatives.called(scene, tool, facts, arguments)
            destructive = tool in ("vaultManager_deleteNote", "vaultManager_deleteFolder")
            scene.wrong.append(("destructive_unasked" if destructive else "call_without_asking", None, wrong))

    return play


def ask_missing(variant: str, tool: str, filled: Callable[[Scene], tuple[dict, dict, dict]]) -> Play:
    """Something that the call needs is not said: ask for that alone. `filled` gives slots, a call's slots, its arguments."""

    def play(scene: Scene) -> None:
        slots, facts, arguments = filled(scene)
        scene.ask("ask_missing", variant, slots)
        scene.reply("ask_missing", **slots)
        if scene.contrast:
            scene.wrong.append(("call_without_asking", None, negatives.called(scene, tool, facts, arguments)))

    return play


def talk(behaviour: str, variant: str, defect: str) -> Play:
    """Something that no call is needed or fit for."""

    def play(scene: Scene) -> None:
        pair = scene.speaker.choose(scene.speaker.mine(behaviours()[behaviour][variant]["pairs"]))
        path, folder = scene.world.note(), scene.world.folder()
        slots = {"note": scenarios.note_slots(path)["note"], "folder": folder}
        scene.asks(variant, Said.of(pair["say"], slots))
        scene.say(pair["reply"].format_map(slots))
        if scene.contrast:
            named = {name: path for name, path in (("note", path), ("folder", folder)) if f"{{{name}}}" in pair["say"]}
            scene.wrong.append((defect, None, missteps.taken_up(scene, named)))

    return play
