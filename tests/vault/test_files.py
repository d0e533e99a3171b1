"""Paths that a model writes: which are used and how, and which never reach the disk (reliability inputs 92 to 120)."""

import contextlib
import os
import shutil
import threading
import unicodedata

import pytest
from conftest import fingerprint
from hypothesis import given
from hypothesis import strategies as st

from toolset_nb.vault import VaultError
from toolset_nb.vault.files import Tree, clean

ACCEPTED = {
    "notes/x.md": "notes/x.md",
    "/notes/x.md": "notes/x.md",
    "//notes///x.md": "notes/x.md",
    "notes/x.md/": "notes/x.md",
    "a..b.md": "a..b.md",
    "..foo.md": "..foo.md",
    "a/b..": "a/b..",
    "Meeting: plan.md": "Meeting_ plan.md",
    "What? Why*.md": "What_ Why_.md",
    'a<b>c"d|e.md': "a_b_c_d_e.md",
    "v2.0: notes.md": "v2.0_ notes.md",
    "100%.md": "100%.md",
    "%41.md": "%41.md",
    "con air.md": "con air.md",
    "Console.md": "Console.md",
    "COM10.md": "COM10.md",
    ".gitignore": ".gitignore",
    "git/x.md": "git/x.md",
    "漢字/é.md": "漢字/é.md",
    unicodedata.normalize("NFD", "é.md"): "é.md",
    "🙂.md": "🙂.md",
    "$(touch x).md": "$(touch x).md",
    "-rf.md": "-rf.md",
    "a" * 252 + ".md": "a" * 252 + ".md",
}
REFUSED = {
    "empty": ["", "/", ".", "./", "//"],
    "parent": [
        "..",
        "../x.md",
        "a/../../x",
        "notes/..",
        "/..",
        "../vault-evil/x.md",
        "a/.. /b",
        "a/..",
        "../../etc/passwd",
    ],
    "dots and spaces": ["a/./b", "a/.../b", "a/  /b", "./x.md", " ", "...", "a/ ./b"],
    "home": ["~", "~alice/x", "~/x"],
    "other systems": ["C:\\x", "C:/x", "\\\\server\\share", "\\x", "a\\..\\..\\b", "C:", "c:x.md"],
    "control": ["a\0b.md", "a\nb", "a\rb", "a\tb", "\x1b[31m.md", "a\x7f"],
    "streams and addresses": ["x.md:hidden", "a/x.md:s:$DATA", "file:///etc/passwd", "http://x/y", "obsidian://open"],
    "devices": ["NUL", "con.txt", "COM1.md", "NUL. ", "a/aux/b", "LPT9", "prn.tar.gz", "com¹.md"],
    "kept out": [
        ".git/hooks/post-commit",
        ".obsidian/plugins/x/main.js",
        ".Obsidian/x",
        ".trash/x.md",
        ".toolset_nb/state.json",
    ],
    "kept out in disguise": ["a/.GIT/x", ".obsidian./x", "．obsidian/x", ".TOOLSET_NB/x"],
    "encoded": ["%2e%2e/x.md", "%2E%2E", "a/%2e%2e/b", "..%2fx.md", "%5cx"],
    "look-alikes": ["‥/x.md", "．．/x.md", "․․/x", "…/x"],
    "too long": ["a" * 256, "é" * 128, "a/" * 600 + "x.md", "x" * 4097],
    "endings": ["name.", "name. ", "x /y.md", "a./b"],
    "surrogate": ["\ud800.md", "a/\udfff"],
}


@pytest.mark.parametrize(("path", "used"), ACCEPTED.items())
def test_accepted_paths_are_normalised(path, used):
    assert clean(path) == used


@pytest.mark.parametrize("path", [path for paths in REFUSED.values() for path in paths])
def test_refused_paths(path):
    with pytest.raises(VaultError) as error:
        clean(path)
    assert error.value.code == "INVALID_PATH"


@pytest.mark.parametrize(
    ("path", "used"),
    [
        ("Note", "Note.md"),
        ("Chapter 1.5", "Chapter 1.5.md"),
        ("a.b/Note", "a.b/Note.md"),
        ("data.csv", "data.csv"),
        ("x.md", "x.md"),
        ("Song.mp3", "Song.mp3"),
        ("Version 2.0", "Version 2.0.md"),
    ],
)
def test_notes_get_their_extension(path, used):
    assert clean(path, note=True) == used


@pytest.mark.parametrize("path", ["", "/", "."])
def test_the_root_is_allowed_only_where_it_makes_sense(path):
    assert clean(path, root=True) == ""


@given(
    st.text(max_size=60)
    | st.lists(st.sampled_from(["..", ".", "a", "~", "C:", "\\", ".git", "é", " ", "%2e"])).map("/".join)
)
def test_whatever_is_accepted_stays_inside(path):
    try:
        used = clean(path)
    except VaultError as error:
        assert error.code == "INVALID_PATH"
    else:
        joined = os.path.normpath(os.path.join("/vault", used))
        assert joined.startswith("/vault/") and joined == f"/vault/{used}"
        assert clean(used) == used


LINKS = {
    "a link to a file": lambda root, out: (root / "link.md").symlink_to(out / "secret.md"),
    "an absolute link to a folder": lambda root, out: (root / "link.md").symlink_to(out),
    "a chain of links": lambda root, out: (
        (root / "two").symlink_to(out / "secret.md"),
        (root / "link.md").symlink_to("two"),
    ),
    "a dangling link": lambda root, out: (root / "link.md").symlink_to(out / "none.md"),
    "a loop": lambda root, out: (root / "link.md").symlink_to(root / "link.md"),
    "a hard link": lambda root, out: os.link(out / "secret.md", root / "link.md"),
    "a FIFO": lambda root, out: os.mkfifo(root / "link.md"),
    "a link inside the vault": lambda root, out: (root / "link.md").symlink_to(root / "Home.md"),
}
USES = {
    "contentManager_readContent": {"filePath": "link.md"},
    "contentManager_appendContent": {"filePath": "link.md", "content": "x"},
    "contentManager_createContent": {"filePath": "link.md", "content": "x"},
    "vaultManager_deleteNote": {"path": "link.md"},
    "vaultManager_moveNote": {"path": "link.md", "newPath": "b.md"},
    "vaultManager_duplicateNote": {"sourcePath": "Home.md", "targetPath": "link.md", "overwrite": True},
    "vaultManager_openNote": {"path": "link.md"},
    "vaultManager_deleteFolder": {"path": "link.md", "recursive": True},
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("link", LINKS)
def test_links_and_devices_are_refused(tmp_path, vault, call, link, use):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.md").write_text("secret")
    LINKS[link](vault.tree.root, outside)
    before = fingerprint(outside)
    result = call(use, **USES[use])
    assert result["code"] == "INVALID_PATH", result
    assert fingerprint(outside) == before


@pytest.mark.parametrize("use", USES)
def test_linked_folders_on_the_way_are_refused(tmp_path, vault, call, use):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "link.md").write_text("secret")
    (vault.tree.root / "in").symlink_to(tmp_path / "outside")
    arguments = {key: f"in/{value}" if value == "link.md" else value for key, value in USES[use].items()}
    result = call(use, **arguments)
    assert result["code"] in ("INVALID_PATH", "NOT_FOUND"), result
    assert (tmp_path / "outside" / "link.md").read_text() == "secret"


def test_searches_and_lists_do_not_follow_links(tmp_path, vault, call):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.md").write_text("zebra")
    (vault.tree.root / "in").symlink_to(tmp_path / "outside")
    (vault.tree.root / "zebra.md").symlink_to(tmp_path / "outside" / "secret.md")
    assert call("vaultLibrarian_searchContent", query="zebra")["results"] == []
    assert "zebra" not in str(call("vaultManager_listDirectory", path="", depth=5)["data"])
    assert call("vaultLibrarian_searchDirectory", query="zebra", paths=["/"])["results"] == []


def test_a_folder_exchanged_for_a_link_while_it_is_used_cannot_lead_outside(tmp_path):
    outside, inside = tmp_path / "outside", tmp_path / "vault"
    outside.mkdir()
    (inside / "real").mkdir(parents=True)
    tree, stop = Tree(inside, durable=False), threading.Event()

    def exchange():
        while not stop.is_set():
            with contextlib.suppress(OSError):  # the vault may make the folder anew at any moment
                os.rename(inside / "real", inside / "kept")
                os.symlink(outside, inside / "real")
                os.unlink(inside / "real")
                os.rename(inside / "kept", inside / "real")
            shutil.rmtree(inside / "kept", ignore_errors=True)

    attacker = threading.Thread(target=exchange)
    attacker.start()
    try:
        written = 0
        for number in range(400):
            try:
                tree.write(f"real/{number}.md", "x")
                written += 1
            except (VaultError, OSError):
                pass
            tree.commit()
    finally:
        stop.set()
        attacker.join()
    assert written and not list(outside.iterdir())


def test_names_that_differ_in_case_or_form_are_one_name(vault, call):
    assert call("contentManager_createContent", filePath="home.md", content="x")["code"] == "EXISTS"
    assert call("vaultManager_createFolder", path="DRINKS/x")["code"] == "EXISTS"
    assert call("vaultManager_moveNote", path="Home.md", newPath="home.md")["success"]
    decomposed = unicodedata.normalize("NFD", "Überblick.md")
    assert call("contentManager_readContent", filePath=decomposed)["data"]["content"].startswith("Alles")
    (vault.tree.root / unicodedata.normalize("NFD", "Café.md")).write_text("from a Mac")
    assert call("contentManager_readContent", filePath="Café.md")["data"]["content"] == "from a Mac"
    assert call("contentManager_createContent", filePath="Café.md", content="")["code"] == "EXISTS"


def test_limits_of_size(vault, call):
    (vault.tree.root / "big.md").write_text("x" * (1 << 20))
    (vault.tree.root / "huge.md").write_text("x" * ((1 << 20) + 1))
    assert call("contentManager_readContent", filePath="big")["success"]
    assert call("contentManager_readContent", filePath="huge")["code"] == "LIMIT"
    assert call("contentManager_appendContent", filePath="big", content="y")["code"] == "LIMIT"
    assert call("contentManager_createContent", filePath="new", content="x" * ((256 << 10) + 1))["code"] == "LIMIT"
    assert call("contentManager_createContent", filePath="new", content="é" * (128 << 10))["success"]
    growing = {"findText": "x", "replaceText": "y" * 1000, "replaceAll": True}
    assert call("contentManager_findReplaceContent", filePath="big", **growing)["code"] == "LIMIT"
    assert call("contentManager_replaceContent", filePath="big", oldContent="x", newContent="$`")["code"] == "LIMIT"


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"a\0b", b"\x89PNG\r\n\x1a\n\x00"])
def test_binary_notes_are_named_and_left_alone(vault, call, content):
    (vault.tree.root / "odd.md").write_bytes(content)
    assert call("contentManager_readContent", filePath="odd.md")["code"] == "NOT_TEXT"
    assert call("contentManager_appendContent", filePath="odd.md", content="x")["code"] == "NOT_TEXT"
    assert (vault.tree.root / "odd.md").read_bytes() == content
    assert call("vaultLibrarian_searchContent", query="tea")["success"]
    assert call("vaultManager_duplicateNote", sourcePath="odd.md", targetPath="copy.md")["success"]


def test_line_endings_and_missing_final_newline_stay(vault, call):
    (vault.tree.root / "dos.md").write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\nthree")
    call("contentManager_replaceContent", filePath="dos.md", oldContent="two", newContent="2")
    assert (vault.tree.root / "dos.md").read_bytes() == b"\xef\xbb\xbfone\r\n2\r\nthree"


def test_lines_that_are_replaced_end_as_the_others(vault, call):
    (vault.tree.root / "dos.md").write_bytes(b"one\r\ntwo\r\nthree")
    call("contentManager_replaceByLine", filePath="dos.md", startLine=2, endLine=2, newContent="2\n2.5")
    call("contentManager_replaceByLine", filePath="dos.md", startLine=4, endLine=4, newContent="3")
    assert (vault.tree.root / "dos.md").read_bytes() == b"one\r\n2\r\n2.5\r\n3"


def test_a_changed_file_keeps_its_permissions(vault, call):
    (vault.tree.root / "Home.md").chmod(0o600)
    assert call("contentManager_appendContent", filePath="Home.md", content="x")["success"]
    assert (vault.tree.root / "Home.md").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("inside", [".hidden.md", "link.md", "hard.md"])
def test_a_folder_with_what_is_not_listed_is_not_empty(tmp_path, vault, call, inside):
    call("vaultManager_createFolder", path="Folder")
    (tmp_path / "note.md").write_text("x")
    make = {"link.md": os.symlink, "hard.md": os.link}.get(inside, shutil.copy)
    make(tmp_path / "note.md", vault.tree.root / "Folder" / inside)
    assert call("vaultManager_deleteFolder", path="Folder")["code"] == "NOT_EMPTY"
    assert call("vaultManager_deleteFolder", path="Folder", recursive=True)["success"]


def test_a_name_that_is_not_utf8_is_left_out(vault, call):
    try:
        open(os.path.join(os.fsencode(vault.tree.root), b"caf\xe9.md"), "w").close()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    listed = call("vaultManager_listDirectory", path="")
    assert listed["success"] and str(listed).encode() and "caf" not in str(listed)
    workspace = {"name": "n", "purpose": "p", "currentGoal": "g", "rootFolder": "/"}
    assert call("memoryManager_createWorkspace", workflows=[{"name": "a", "when": "b", "steps": "c"}], **workspace)[
        "success"
    ]


def test_the_longest_name_can_be_deleted_twice(vault, call):
    for _ in range(2):
        call("contentManager_createContent", filePath="é" * 126 + ".md", content="x")
        assert call("vaultManager_deleteNote", path="é" * 126 + ".md")["success"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
def test_unreadable_and_unwritable_are_answers(vault, call):
    (vault.tree.root / "Home.md").chmod(0)
    (vault.tree.root / "Drinks").chmod(0o500)
    assert call("contentManager_readContent", filePath="Home.md")["code"] == "IO_ERROR"
    assert call("contentManager_createContent", filePath="Drinks/x.md", content="")["code"] == "IO_ERROR"
    (vault.tree.root / "Drinks").chmod(0o700)


def test_a_state_folder_that_is_a_link_is_refused(tmp_path):
    (tmp_path / "vault").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "vault" / ".toolset_nb").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(VaultError):
        Tree(tmp_path / "vault")
