"""One call, or several that do not need each other's results."""

from toolset_nb import calls
from toolset_nb.synth import missteps, negatives, scenarios
from toolset_nb.synth.plays import parts
from toolset_nb.synth.plays.parts import Play
from toolset_nb.synth.scenes import Scene
from toolset_nb.synth.wording import behaviours

ANSWERED = {"training": 0.5, "evaluation": 0.15}  # share of single calls whose result is shown and summed up
LOOKS = 0.9  # the same in training for tools that other behaviours begin with: most who ask for a list want the list
LONGEST_RESULT = {"training": 1200, "evaluation": negatives.MOST_RESULT}  # characters of a result that is shown so


def single_call(tool: str) -> Play:
    """One call, as asked; now and then with its result and a closing word."""

    def play(scene: Scene) -> None:
        scenario = scene.scenario(tool)
        scene.asks(scenario.variant, parts.placed(scene, scene.words(scenario), scenario, apart=False))
        parts.perform(scene, scenario)
        answer(scene, scenario)

    return play


def answer(scene: Scene, scenario: scenarios.Scenario, splits: tuple[str, ...] = ("training", "evaluation")) -> None:
    """Often the result and a closing word: one call does most requests, and a model that hardly sees that goes on calling.

    Tasks stay as they were made, where no such word was drawn for.
    """
    split = scene.speaker.split
    looks = split == "training" and scenario.tool.partition("_")[2].startswith(("list", "search", "read"))
    if (
        not scene.contrast
        and split in splits
        and scene.speaker.chance(LOOKS if looks else ANSWERED[split])
        and len(str(scene.results[-1])) < LONGEST_RESULT[split]
        and (said := scene.closing(scenario))
    ):
        scene.say(said)


def several_calls(scene: Scene) -> None:
    """Two things at once, none of which needs the other's result."""
    first = parts.short(scene, parts.TOGETHER)
    one = scene.words(first)
    second = parts.short(scene, parts.TOGETHER)
    two = scene.words(second, one.language)
    if {first.slots.get("path"), first.slots.get("folder")} & set(second.slots.values()) - {None, ""}:
        raise LookupError("the second call would depend on the first")
    texts = behaviours()["several_calls"]["join"]["requests"]
    request = scene.speaker.request(texts, {"first": one, "second": two}, one.language)
    scene.asks("join", parts.placed(scene, request, first, second))
    scene.wants(first, second)
    scene.play(first)
    scene.memory = []  # the second call is made without knowing how the first went
    scene.play(second)
    if scene.contrast:
        scene.matched += missteps.of_two(scene, first, second)
    scene.blocks = [block for block in scene.blocks if isinstance(block, calls.Call)]


def continue_from_memory(scene: Scene) -> None:
    """The request tells what was done before, in English; the call's memory repeats it."""
    for _ in range(scene.speaker.pick.choice([1, 1, 2])):
        scene.did(parts.short(scene, parts.TOGETHER))
    scenario = parts.short(scene)
    slots = {"memory": "; ".join(scene.memory), "request": parts.placed(scene, scene.words(scenario, "en"), scenario)}
    scene.ask("continue", "memory", slots, "en")
    parts.perform(scene, scenario)
    parts.avoids(scene, "empty_session_memory")
    answer(scene, scenario, ("training",))


def limit_reading(variant: str) -> Play:
    """Read or return little, as asked."""

    def play(scene: Scene) -> None:
        world = scene.world
        if variant == "top":
            path, count = world.note(least_lines=5), str(world.pick.choice([3, 4, 5, 6, 8, 10, 12, 15, 20, 25]))
            slots = scenarios.note_slots(path) | {"count": count, "first": "1"}
            arguments = {"filePath": path, "offset": 1, "limit": int(count)}
            scenario = scenarios.Scenario("contentManager_readContent", "lines", slots, arguments, scenarios.answered)
        else:
            scenario = parts.of_variant(scene, "vaultLibrarian_searchContent", variant)
        scene.ask("limit_reading", variant, scenario.slots)
        parts.perform(scene, scenario)
        if scene.contrast:
            scene.matched += missteps.unlimited(scene)
        answer(scene, scenario, ("training",))

    return play


def sibling(variant: str, tool: str, forms: set[str]) -> Play:
    """A wording by which one of two tools that are alike is meant; `forms` are the variants of the tool that fit it."""

    def play(scene: Scene) -> None:
        scenario = parts.of_variant(scene, tool, forms)
        request = scene.speaker.request(behaviours()["sibling"][variant]["requests"], scenario.slots)
        scene.asks(variant, parts.placed(scene, request, scenario))
        parts.perform(scene, scenario)
        parts.avoids(scene, "wrong_tool")
        answer(scene, scenario, ("training",))

    return play
