"""Scenarios of contentManager."""

import re
from collections import Counter

from toolset_nb.synth.scenarios.parts import answered, note_slots, nothing, reads, without_front_matter
from toolset_nb.synth.worlds import World, body, join

REPLACED = re.compile(r"\b(?:\d{4}-\d\d-\d\d|\d{1,2}:\d\d|[^\W\d_]{3,})\b")


def create_content(world: World) -> tuple:
    path, content = join(world.parent(), f"{world.title()}.md"), world.paragraph()
    return "new", {"path": path, "content": content}, {"filePath": path, "content": content}, reads(path, content)


def read_content(world: World) -> tuple:
    variant = world.form("whole", "whole", "lines", "numbered")
    path = world.note(least_lines=6 if variant == "lines" else 0)
    slots, arguments = note_slots(path), {"filePath": path}
    if variant == "lines":
        first, count = world.pick.randint(1, 5), world.pick.choice([3, 5, 8, 10, 20])
        slots |= {"first": str(first), "count": str(count)}
        arguments |= {"offset": first, "limit": count}
    if variant == "numbered":
        arguments["includeLineNumbers"] = True
    return variant, slots, arguments, answered


def append_content(world: World) -> tuple:
    path, text = world.note(), world.text
    line = world.line(besides=text(path))
    return "end", note_slots(path) | {"text": line}, {"filePath": path, "content": line}, reads(path, text(path) + line)


def prepend_content(world: World) -> tuple:
    path, text = without_front_matter(world), world.text
    line = world.line(besides=text(path))
    content = f"{line}\n" if world.training else line  # the tool puts no line break between the two
    return (
        "top",
        note_slots(path) | {"text": line},
        {"filePath": path, "content": content},
        reads(path, content + text(path)),
    )


def replace_content(world: World) -> tuple:
    change = world.value("changes")
    old, new = change["old"], change["new"]
    path = next((path for path in world.notes() if world.text(path).count(old) == 1), "") or nothing()
    check = reads(path, world.text(path).replace(old, new))
    return (
        "swap",
        note_slots(path) | {"old": old, "new": new},
        {"filePath": path, "oldContent": old, "newContent": new},
        check,
    )


def replace_by_line(world: World) -> tuple:
    path = world.note(least_lines=5)
    lines = world.text(path).split("\n")
    start = world.pick.randint(2, len(lines) - 1)
    end, new = min(len(lines) - 1, start + world.pick.choice([0, 0, 1, 2])), world.line()
    single = start == end and world.training
    slots = (
        note_slots(path) | ({"line": str(start)} if single else {"start": str(start), "end": str(end)}) | {"new": new}
    )
    arguments = {"filePath": path, "startLine": start, "endLine": end, "newContent": new}
    return (
        "line" if single else "lines",
        slots,
        arguments,
        reads(path, "\n".join(lines[: start - 1] + [new] + lines[end:])),
    )


def delete_content(world: World) -> tuple:
    path = world.note(least_lines=2)
    text = world.text(path)
    old = world.phrase(text, 3, 12)
    return (
        "cut",
        note_slots(path) | {"text": old},
        {"filePath": path, "content": old},
        reads(path, text.replace(old, "")),
    )


def find_replace_content(world: World) -> tuple:
    variant = world.pick.choice(["first", "all", "word", "case"])
    path, find, replace = (_other_word if world.training else _any_word)(world, variant)
    arguments = {"filePath": path, "findText": find, "replaceText": replace}
    arguments |= {} if variant == "first" else {"replaceAll": True}
    arguments |= {"word": {"wholeWord": True}, "case": {"caseSensitive": False}}.get(variant, {})
    return (
        variant,
        note_slots(path) | {"find": find, "replace": replace},
        arguments,
        lambda _, result: result["data"]["replacements"] > 0,
    )


def _other_word(world: World, variant: str) -> tuple[str, str, str]:
    """A note, a word, date or time that stands in it, and another of its kind: once suffices for the first alone."""
    words_alone = variant in ("word", "case")
    for path in world.pick.sample(notes := world.notes(), len(notes)):
        counts = Counter(REPLACED.findall(body(world.text(path))))
        words = sorted(word for word in counts if not (word[0].isdigit() and words_alone))
        for find in world.pick.sample(words, len(words)):
            replace = world.coiner.instead(find) if variant == "first" or counts[find] > 1 else ""
            if replace not in ("", find):
                return path, find, replace
    raise LookupError("no word has another of its kind")


def _any_word(world: World, variant: str) -> tuple[str, str, str]:
    """A note, a word of it, and any word of the vault, for tasks, which stay as they were made."""
    path = world.note(least_lines=2)
    text = world.text(path)
    words = [
        w
        for w in sorted(set(re.findall(r"\b[^\W\d_]{4,}\b", text)))
        if variant == "first" or len(re.findall(rf"\b{w}\b", text)) > 1
    ]
    find = world.pick.choice(words or nothing())
    fitting = [w for w in world.words if w.casefold() != find.casefold() and w[0].isupper() == find[0].isupper()]
    return path, find, world.pick.choice(fitting or nothing())


def batch_content(world: World) -> tuple:
    variant = world.pick.choice(["append_two", "read_three", "create_append"])
    if variant == "read_three":
        paths = world.pick.sample(world.notes(), 3)
        slots = dict(zip(("path", "path2", "path3"), paths, strict=True))
        operations = [("read", {"filePath": path}) for path in paths]
    else:
        first, second = world.pick.sample(world.notes(), 2)
        slots = {"path": first, "text": world.line(), "path2": second, "text2": world.line()}
        operations = [
            ("append", {"filePath": first, "content": slots["text"]}),
            ("append", {"filePath": second, "content": slots["text2"]}),
        ]
        if variant == "create_append":
            slots |= {"path": join(world.parent(), f"{world.title()}.md"), "content": world.paragraph()}
            operations[0] = ("create", {"filePath": slots["path"], "content": slots["content"]})
    arguments = {"operations": [{"type": kind, "params": params} for kind, params in operations]}
    return variant, slots, arguments, lambda _, result: all(item["success"] for item in result["data"]["results"])
