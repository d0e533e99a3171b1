"""Scenarios of vaultManager."""

import re

from toolset_nb.synth.scenarios.parts import answered, gone, is_file, is_folder, moved, note_slots, nothing
from toolset_nb.synth.worlds import World, join, title


def create_folder(world: World) -> tuple:
    parent = world.parent()
    path = join(parent, world.title())
    slots = {"folder": path, "name": title(path), "parent": parent or "the top level"}
    return "new", slots, {"path": path}, is_folder(path)


def delete_folder(world: World) -> tuple:
    full = world.pick.random() < 0.5
    path = world.folder(empty=not full)
    return (
        "full" if full else "empty",
        {"folder": path},
        {"path": path} | ({"recursive": True} if full else {}),
        gone(path),
    )


def edit_folder(world: World) -> tuple:
    path, name = world.folder(), world.title()
    new = join(path.rpartition("/")[0], name)
    return "rename", {"folder": path, "new_name": name}, {"path": path, "newPath": new}, moved(path, new)


def move_folder(world: World) -> tuple:
    path = world.folder()
    targets = [f for f in world.folders() if not f"{f}/".startswith(f"{path}/") and f != path.rpartition("/")[0]]
    targets = [f for f in targets if world.vault.tree.kind(join(f, title(path))) is None]
    target = world.pick.choice(targets or nothing())
    new = join(target, path.rpartition("/")[2])
    return "move", {"folder": path, "target_folder": target}, {"path": path, "newPath": new}, moved(path, new)


def delete_note(world: World) -> tuple:
    path = world.note()
    return "delete", note_slots(path), {"path": path}, gone(path)


def move_note(world: World) -> tuple:
    path = world.note()
    if world.pick.random() < 0.4:
        name = world.title()
        new = join(path.rpartition("/")[0], f"{name}.md")
        return "rename", note_slots(path) | {"new_name": name}, {"path": path, "newPath": new}, moved(path, new)
    targets = [f for f in world.folders() if f != path.rpartition("/")[0]]
    target = world.pick.choice(
        [f for f in targets if world.vault.tree.kind(join(f, path.rpartition("/")[2])) is None] or nothing()
    )
    new = join(target, path.rpartition("/")[2])
    return "move", note_slots(path) | {"target_folder": target}, {"path": path, "newPath": new}, moved(path, new)


def duplicate_note(world: World) -> tuple:
    path, variant = world.note(), world.form("copy", "copy", "count", "replace")
    if variant == "replace":
        copy = world.pick.choice([other for other in world.notes() if other != path])
    else:
        copy = join(world.parent(), f"{world.title()}.md")
    extra = {"copy": {}, "count": {"autoIncrement": True}, "replace": {"overwrite": True}}[variant]
    return (
        variant,
        note_slots(path) | {"copy_path": copy},
        {"sourcePath": path, "targetPath": copy} | extra,
        is_file(copy),
    )


def list_directory(world: World) -> tuple:
    variant = world.form("folder", "folder", "root", "files", "folders", "filter", "deep")
    path = "" if variant == "root" else world.folder(empty=False)
    slots, arguments = {"folder": path}, {"path": path}
    if variant in ("files", "folders"):
        arguments[f"{variant}Only"] = True
    if variant == "filter":
        names = [e.path.rpartition("/")[2].removesuffix(".md") for e in world.vault.tree.children(path)]
        words = [w for name in names for w in re.findall(r"[^\W_]{4,}", name)]
        slots["word"] = arguments["filter"] = world.pick.choice(words or nothing())
    if variant == "deep":
        arguments["depth"] = world.pick.randint(1, 3)
        slots["depth"] = str(arguments["depth"])
    return variant, slots, arguments, answered


def open_note(world: World) -> tuple:
    path, variant = world.note(), world.form("open", "open", "tab", "split", "window")
    arguments = {"path": path} | ({} if variant == "open" else {"mode": variant})
    return variant, note_slots(path), arguments, lambda vault, _: vault.state.data["ui"]["open"]["path"] == path
