"""Links follow notes that move, as in Obsidian; code and links to other notes stay as they are."""

import unicodedata

import pytest


def linked(vault, call, text, moves):
    """The text of a note after moves."""
    call("contentManager_createContent", filePath="Index", content=text)
    for name, arguments in moves:
        result = call(name, **arguments)
        assert result["success"], result
    return vault.tree.read("Index.md")


RENAME = [("vaultManager_moveNote", {"path": "Drinks/Tea", "newPath": "Drinks/Chai"})]
MOVE = [("vaultManager_moveNote", {"path": "Drinks/Tea", "newPath": "Pantry/Tea"})]
FOLDER = [("vaultManager_moveFolder", {"path": "Drinks", "newPath": "Food/Drinks"})]


@pytest.mark.parametrize(
    ("text", "moves", "expected"),
    [
        ("[[Tea]]", RENAME, "[[Chai]]"),
        ("[[TEA]] [x](drinks/tea.md)", RENAME, "[[Chai]] [x](Drinks/Chai.md)"),
        (
            f"[[{unicodedata.normalize('NFD', 'Überblick')}]] [x](%C3%BCberblick.md)",
            [("vaultManager_moveNote", {"path": "Überblick", "newPath": "Ende"})],
            "[[Ende]] [x](Ende.md)",
        ),
        ("[[tea|a cup]] ![[Tea#Black]] [[Tea^x]]", RENAME, "[[Chai|a cup]] ![[Chai#Black]] [[Chai^x]]"),
        ("[[Drinks/Tea]] [[Drinks/Tea.md]]", RENAME, "[[Drinks/Chai]] [[Drinks/Chai.md]]"),
        ("[x](Drinks/Tea.md) [x](Drinks/Tea.md#Black)", RENAME, "[x](Drinks/Chai.md) [x](Drinks/Chai.md#Black)"),
        ("`[[Tea]]` and\n```\n[[Tea]]\n```\n[[Tea]]", RENAME, "`[[Tea]]` and\n```\n[[Tea]]\n```\n[[Chai]]"),
        ("[[Teapot]] [[Other/Tea]] Tea", RENAME, "[[Teapot]] [[Other/Tea]] Tea"),
        ("[[Tea]] [[Drinks/Tea]]", MOVE, "[[Tea]] [[Pantry/Tea]]"),
        ("[[Drinks/Hot/Cocoa]] [[Cocoa]]", FOLDER, "[[Food/Drinks/Hot/Cocoa]] [[Cocoa]]"),
        (
            "[x](Drinks/Tea%20time.md)",
            [("vaultManager_moveNote", {"path": "Drinks/Tea time", "newPath": "A b"})],
            "[x](A%20b.md)",
        ),
    ],
)
def test_links_follow(vault, call, text, moves, expected):
    call("contentManager_createContent", filePath="Drinks/Tea time", content="")
    assert linked(vault, call, text, moves) == expected


def test_a_bare_name_means_the_note_nearest_to_the_root(vault, call):
    call("contentManager_createContent", filePath="Tea", content="the nearer one")
    assert linked(vault, call, "[[Tea]] [[Drinks/Tea]]", RENAME) == "[[Tea]] [[Drinks/Chai]]"
    call("vaultManager_moveNote", path="Tea", newPath="Brew")
    assert vault.tree.read("Index.md") == "[[Brew]] [[Drinks/Chai]]"


def test_a_name_that_would_be_ambiguous_is_written_with_its_folder(vault, call):
    call("contentManager_createContent", filePath="Other/Chai", content="")
    assert linked(vault, call, "[[Tea]]", RENAME) == "[[Drinks/Chai]]"


def test_edit_folder_leaves_links_as_the_plugin_does(vault, call):
    assert (
        linked(vault, call, "[[Drinks/Tea]]", [("vaultManager_editFolder", {"path": "Drinks", "newPath": "Cups"})])
        == "[[Drinks/Tea]]"
    )
