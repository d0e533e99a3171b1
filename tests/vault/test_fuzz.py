"""Random calls, right ones and hostile ones, on one vault: nothing outside changes, a failed call changes nothing, records agree.

`make fuzz` runs the same with more examples (FUZZ_EXAMPLES, FUZZ_PATHS).
"""

import json
import os
import shutil
import tempfile
from pathlib import Path

from conftest import CONTEXT, HERE, fingerprint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from toolset_nb.tools import catalogue
from toolset_nb.vault import VaultError, fixtures
from toolset_nb.vault.files import Tree, clean

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "12"))
PATHS = int(os.environ.get("FUZZ_PATHS", "2000"))
STEPS = 50
TOOLS = catalogue().tools
SEED = fixtures.load(HERE / "base.yaml")
REAL_PATHS = [note["path"] for note in SEED["notes"]] + sorted(
    {note["path"].rpartition("/")[0] for note in SEED["notes"]} - {""}
)
REAL_IDS = [
    record["id"] for table in ("workspaces", "sessions", "states", "agents", "commands") for record in SEED[table]
]
HOSTILE = [
    "..",
    "../vault-evil/x.md",
    "../secret.md",
    "/etc/passwd",
    "~/x",
    "C:\\x",
    "a\0b",
    "x.md:y",
    "link.md",
    "in/secret.md",
    "in",
]
HOSTILE += [
    ".toolset_nb/state.json",
    ".trash",
    "%2e%2e/secret.md",
    "‥/secret.md",
    "\ud800",
    "fifo.md",
    "hard.md",
    "",
    ".",
    "NUL",
    "a/" * 300,
]
HOSTILE += ["(a+)+$", "[", "*", "$&$`", "🙂" * 90, "x" * 300, "constructor", "{0.__class__}", "<script>"]

segment = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8) | st.sampled_from(
    ["..", ".", "in", "link.md", "Notes", "a", "A"]
)
paths = st.sampled_from(REAL_PATHS) | st.sampled_from(HOSTILE) | st.lists(segment, min_size=1, max_size=4).map("/".join)
texts = st.sampled_from(["", "x", "the", "# Heading\n", *REAL_IDS]) | st.sampled_from(HOSTILE) | st.text(max_size=30)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


def values(schema, name=""):
    """Values that fit a parameter's schema, more or less."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema.get("type"):
        case "string":
            return (
                paths if "path" in name.lower() or "folder" in name.lower() or "file" in name.lower() else texts | paths
            )
        case "number" | "integer":
            return st.integers(schema.get("minimum", -2), min(schema.get("maximum", 60), 60))
        case "boolean":
            return st.booleans()
        case "array":
            return st.lists(values(schema.get("items", {}), name), min_size=schema.get("minItems", 0), max_size=3)
        case "object" if schema.get("properties"):
            return arguments(schema)
        case _:
            return anything


@st.composite
def arguments(draw, schema):
    """An object for a schema, now and then with a wrong or missing part."""
    made = {}
    for name, rule_ in schema["properties"].items():
        if name in schema.get("required", []) or draw(st.integers(0, 3)) == 0:
            made[name] = draw(values(rule_, name))
    if "params" in made:  # an operation of batchContent: its shape depends on `type`
        parameters = TOOLS[OPERATIONS[made["type"]]].parameters
        made["params"] = draw(arguments({key: value for key, value in parameters.items() if key != "context"}))
    if made and draw(st.integers(0, 9)) == 0:
        made[draw(st.sampled_from(sorted(made)))] = draw(anything)
    return made


OPERATIONS = {
    kind: f"contentManager_{kind}Content"
    for kind in ("read", "create", "append", "prepend", "replace", "delete", "findReplace")
}
OPERATIONS["replaceByLine"] = "contentManager_replaceByLine"


@st.composite
def calls(draw):
    """A tool and arguments for it."""
    tool = TOOLS[draw(st.sampled_from(sorted(TOOLS)))]
    context = dict(CONTEXT)
    if draw(st.integers(0, 4)) == 0:
        context[draw(st.sampled_from(sorted(context)))] = draw(texts)
    return tool.name, {"context": context, **draw(arguments(tool.parameters))}


class RandomCalls(RuleBasedStateMachine):
    """One vault in a folder with things that must never change."""

    @initialize()
    def start(self):
        self.around = Path(tempfile.mkdtemp(prefix="fuzz-"))
        (self.around / "vault-evil").mkdir()
        (self.around / "vault-evil" / "x.md").write_text("outside")
        (self.around / "secret.md").write_text("outside")
        self.vault = fixtures.build(HERE / "base.yaml", self.around / "vault")
        root = self.vault.tree.root
        (root / "link.md").symlink_to(self.around / "secret.md")
        (root / "in").symlink_to(self.around)
        os.mkfifo(root / "fifo.md")
        self.outside = self._outside()

    def _outside(self):
        return (
            fingerprint(self.around / "vault-evil"),
            (self.around / "secret.md").read_text(),
            sorted(os.listdir(self.around)),
        )

    @rule(call=calls())
    def call(self, call):
        before = self.vault.snapshot()
        result = self.vault.call(*call)
        assert result["success"] in (True, False)
        json.dumps(result)
        if not result["success"]:
            assert result["code"] != "INTERNAL", (call, result)
            assert result["error"] and result["code"]
            after = self.vault.snapshot()
            assert after.files == before.files and after.folders == before.folders, (call, result)
            assert {k: v for k, v in after.state.items() if k != "aliases"} == {
                k: v for k, v in before.state.items() if k != "aliases"
            }

    @rule(call=calls(), wrong=anything)
    def hostile(self, call, wrong):
        result = self.vault.call(call[0], wrong)
        assert not result["success"] and result["code"] != "INTERNAL", (call, wrong, result)

    @rule()
    def undelete(self):
        try:
            self.vault.undelete()
        except VaultError as error:
            assert error.code in ("NOT_FOUND", "EXISTS", "NOT_FOLDER")

    @invariant()
    def nothing_outside_has_changed(self):
        if hasattr(self, "vault"):
            assert self._outside() == self.outside

    @invariant()
    def records_agree(self):
        if hasattr(self, "vault"):
            state = self.vault.snapshot().state
            homes = {"default", *state["workspaces"]}
            assert all(session["workspaceId"] in homes for session in state["sessions"].values())
            assert all(saved["sessionId"] in state["sessions"] for saved in state["states"].values())
            for entry in state["trash"]:
                assert os.path.lexists(self.vault.tree.root / entry["entry"])
            assert not list((self.vault.tree.own / "tmp").iterdir())

    def teardown(self):
        if hasattr(self, "around"):
            shutil.rmtree(self.around, ignore_errors=True)


TestRandomCalls = RandomCalls.TestCase
TestRandomCalls.settings = settings(
    max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None, suppress_health_check=list(HealthCheck)
)


@settings(max_examples=PATHS, deadline=None, suppress_health_check=list(HealthCheck))
@given(path=paths)
def test_no_generated_path_leads_outside(path):
    tree, outside = _tree()
    try:
        used = clean(path)
        tree.write(used, "x")
        tree.rollback()
    except (VaultError, UnicodeEncodeError) as error:
        assert isinstance(error, VaultError)
    except OSError as error:
        assert error.errno in (36,), (path, error)  # a name that this file system finds too long
    assert (outside / "secret.md").read_text() == "outside" and sorted(os.listdir(outside)) == [
        "secret.md",
        "vault",
        "vault-evil",
    ]


_made = []


def _tree():
    if not _made:
        outside = Path(tempfile.mkdtemp(prefix="fuzz-"))
        (outside / "vault").mkdir()
        (outside / "vault-evil").mkdir()
        (outside / "secret.md").write_text("outside")
        (outside / "vault" / "in").symlink_to(outside)
        (outside / "vault" / "link.md").symlink_to(outside / "secret.md")
        _made.extend([Tree(outside / "vault", durable=False), outside])
    return _made
