"""Look before you act, and what to do when a call has failed."""

import re

from toolset_nb.synth import negatives, scenarios
from toolset_nb.synth.plays import parts
from toolset_nb.synth.scenes import Scene
from toolset_nb.synth.wording import voices
from toolset_nb.synth.worlds import join, title
from toolset_nb.tools import catalogue
from toolset_nb.vault.content_manager import LONGEST_FUZZY

MARKS = re.compile(r"^[-*] (\[[ x]\] )?|\.$")  # what stands around the words of a line
MOST_MARKS = len("- [ ] .")


def verify_empty(scene: Scene) -> None:
    """List a folder; delete it only if nothing is in it."""
    empty = scene.speaker.chance(0.5)
    folder = scene.world.folder(empty=empty)
    if len(scene.world.inside(folder)) > 12:
        raise LookupError("too long a list")
    scene.ask("verify", "empty_folder", {"folder": folder})
    if not empty:
        parts.unlooked(scene, "vaultManager_deleteFolder", {"folder": folder}, {"path": folder, "recursive": True})
    listed = scene.call("vaultManager_listDirectory", {"folder": folder}, {"path": folder})
    if empty:
        scene.narrate("before_act")
        scene.call("vaultManager_deleteFolder", {"folder": folder}, {"path": folder}, scenarios.gone(folder))
        parts.close(scene, "verify", "done", folder=folder)
    else:
        count = (listed.get("data") or listed)["summary"]["totalItems"]
        scene.reply("verify", "kept", folder=folder, count=str(count))
        parts.act_anyway(scene, "vaultManager_deleteFolder", {"folder": folder}, {"path": folder, "recursive": True})


def verify_text(scene: Scene) -> None:
    """Read a note; replace a text only if it stands there."""
    scenario, there = parts.of_variant(scene, "contentManager_replaceContent", "swap"), scene.speaker.chance(0.6)
    slots, path = dict(scenario.slots), scenario.arguments["filePath"]
    if not there:
        path = scene.world.note(least_lines=1)
        slots |= scenarios.note_slots(path)
        if slots["old"] in scene.world.text(path):
            raise LookupError("the text stands there")
    scene.ask("verify", "has_text", slots)
    arguments = {"filePath": path, "oldContent": slots["old"], "newContent": slots["new"]}
    if not there:
        parts.unlooked(scene, "contentManager_replaceContent", slots, arguments)
    parts.read(scene, path, narrate=False)
    if there:
        scene.narrate("before_write", note=title(path))
        scene.play(scenario)
        parts.close(scene, "verify", "done", note=title(path), new=slots["new"])
    else:
        scene.reply("verify", "kept", note=title(path), old=slots["old"])
        parts.act_anyway(scene, "contentManager_replaceContent", slots, arguments)


def verify_new(scene: Scene) -> None:
    """Look whether a note exists; make it if not."""
    new = scene.speaker.chance(0.6)
    content = scene.world.paragraph()
    path = join(scene.world.folder(empty=False), f"{scene.world.title()}.md") if new else scene.world.note()
    folder = path.rpartition("/")[0] or "/"
    scene.ask("verify", "exists", {"path": path, "content": content})
    act = {"path": path, "content": content}, {"filePath": path, "content": content}
    if not new:
        parts.unlooked(scene, "contentManager_createContent", *act)
    if (path in parts.look_up(scene, title(path), folder)) == new:
        raise LookupError("the search does not show it")
    if new:
        scene.narrate("before_act")
        scene.call("contentManager_createContent", *act, scenarios.reads(path, content))
        parts.close(scene, "verify", "done", path=path)
    else:
        scene.reply("verify", "kept", path=path)
        parts.act_anyway(scene, "contentManager_createContent", *act)


def verify_blank(scene: Scene) -> None:
    """Read a note; delete it only if there is no text in it."""
    blank = scene.speaker.chance(0.5)
    fitting = [path for path in scene.world.notes() if (not scene.world.text(path).strip()) == blank]
    path = scene.world.pick.choice(fitting or scenarios.nothing())
    slots, arguments = scenarios.note_slots(path), {"path": path}
    scene.ask("verify", "blank", slots)
    if not blank:
        parts.unlooked(scene, "vaultManager_deleteNote", slots, arguments)
    parts.read(scene, path, narrate=False)
    if blank:
        scene.narrate("before_act")
        scene.call("vaultManager_deleteNote", slots, arguments, scenarios.gone(path))
        parts.close(scene, "verify", "done", note=title(path))
    else:
        scene.reply("verify", "kept", note=title(path))
        parts.act_anyway(scene, "vaultManager_deleteNote", slots, arguments)


def recover_not_found(scene: Scene) -> None:
    """The error of a wrong path stands in the prompt: find the note by its name, read it."""
    path, wrong = parts.misplaced(scene)
    scene.ask("recover", "not_found", {"wrong": wrong, "name": title(path)})
    parts.tried(scene, "recover", "not_found", wrong=wrong)
    parts.once_more(scene, "contentManager_readContent", scenarios.note_slots(wrong), {"filePath": wrong})
    parts.locate(scene, path)
    parts.read(scene, path)
    parts.read_out(scene, "recover", path)


def recover_in_turn(scene: Scene) -> None:
    """The person gives a wrong path; the call fails, the note is found by its name and read."""
    path, wrong = parts.misplaced(scene)
    slots = scenarios.note_slots(wrong)
    texts = voices()["contentManager_readContent"]["requests"]["whole"]
    scene.asks("in_turn", scene.speaker.request(texts, slots))
    scene.call("contentManager_readContent", slots, {"filePath": wrong}, fails=True)
    scene.narrate("after_error")
    parts.locate(scene, path)
    parts.read(scene, path)
    parts.read_out(scene, "recover", path, "not_found")


def recover_exists(scene: Scene) -> None:
    """Making a note failed since it is there: append instead."""
    scenario = parts.of_variant(scene, "contentManager_appendContent", "end")
    scene.ask("recover", "exists", scenario.slots)
    parts.tried(scene, "recover", "exists", path=scenario.slots["path"])
    again = {"path": scenario.slots["path"], "content": scenario.slots["text"]}
    parts.once_more(
        scene, "contentManager_createContent", again, {"filePath": again["path"], "content": again["content"]}
    )
    parts.perform(scene, scenario)


def recover_no_match(scene: Scene) -> None:
    """The text to replace was not there; it reads otherwise. A short one would have been replaced where it nearly stands."""
    scenario = parts.of_variant(scene, "contentManager_replaceContent", "swap")
    text = scene.world.text(scenario.arguments["filePath"])
    wrong = MARKS.sub("", scene.world.line(besides=text, longer=LONGEST_FUZZY + MOST_MARKS))
    again = scenario.arguments | {"oldContent": wrong}
    parts.failing(scene, scenario.tool, parts.bare(scene) | again)
    scene.ask("recover", "no_match", scenario.slots | {"wrong": f"'{wrong}'"})
    parts.tried(scene, "recover", "no_match", wrong=wrong, note=scenario.slots["note"])
    parts.once_more(scene, scenario.tool, scenario.slots | {"old": wrong}, again)
    parts.perform(scene, scenario)


def recover_again(scene: Scene) -> None:
    """A call failed with a message that stands in the prompt; made properly, it works."""
    scenario = parts.short(scene)
    required = [key for key in catalogue().tools[scenario.tool].parameters.get("required", []) if key != "context"]
    dropped = scene.world.pick.choice(required or scenarios.nothing())
    given = {key: value for key, value in scenario.arguments.items() if key != dropped}
    error = parts.failing(
        scene, scenario.tool, negatives.called(scene, scenario.tool, scenario.slots, given)[0].arguments
    )
    request = parts.placed(scene, scene.words(scenario), scenario)
    scene.ask("recover", "again", {"error": error, "request": request}, request.language)
    parts.tried(scene, "recover", "again", error=error)
    parts.once_more(scene, scenario.tool, scenario.slots, given, "missing_argument")
    parts.perform(scene, scenario)
