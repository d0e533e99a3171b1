"""Every run has names of its own: nothing is learned by heart, a run can be played again, and evaluation vaults stay as written."""

import random
import re

import pytest

from toolset_nb.synth import variety, worlds
from toolset_nb.vault import fixtures
from toolset_nb.vault.files import clean

WORDS = ["Walnut", "garden", "plates", "Hedge", "slates", "harden"]
COINER = variety.Coiner(random.Random(1), WORDS, "law-0")


@pytest.fixture
def original(tmp_path):
    return worlds.build(fixtures.names("training")[0], tmp_path / "original")


def names(vault) -> tuple[set[str], set[str]]:
    """Paths, and the ids of records that have one with a random tail."""
    ids = {key for table in variety.TABLES for key in vault.state.data[table] if key.count("_") == 2}
    return {entry.path for entry in vault.tree.walk()}, ids


def test_the_same_run_has_the_same_names_and_another_run_others(original, tmp_path):
    one, again, other = (
        variety.fresh(original, tmp_path / place, run) for place, run in (("a", "r-1"), ("b", "r-1"), ("c", "r-2"))
    )
    assert names(one) == names(again)
    for mine, theirs in zip(names(one), names(other), strict=True):
        assert len(mine & theirs) < 0.45 * len(mine)
    assert len(names(one)[0]) == len(names(original)[0])


def test_nothing_is_lost_and_records_still_point_to_what_is_there(original, tmp_path):
    vault = variety.fresh(original, tmp_path / "a", "r-1")
    texts = [sorted(v.tree.read(e.path) for e in v.tree.walk() if e.path.endswith(".md")) for v in (original, vault)]
    assert texts[0] == texts[1]
    data, paths = vault.state.data, names(vault)[0]
    for key, record in data["workspaces"].items():
        assert record["id"] == key and record["rootFolder"] in paths
        assert set(record["context"]["keyFiles"]) <= paths
    for record in [*data["sessions"].values(), *data["states"].values()]:
        assert record["workspaceId"] in {*data["workspaces"], "default", "global-workspace"}
    assert not {*data["sessions"]} & {*original.state.data["sessions"]}


def test_titles_are_names_of_files():
    made = {COINER.title() for _ in range(300)}
    assert len(made) > 150 and all(clean(title) == title for title in made)
    assert not any("," in title for title in made)  # closing words put commas between names


def test_a_text_keeps_its_marks_lines_and_single_digits():
    text = "1. [ ] plates at 10:15, 250 g of [[Walnut]]\n- harden by Friday, 2025-10-11 or 28.10. then"
    made = [COINER.text(text) for _ in range(50)]
    assert all(variety.PART.sub("", each) == variety.PART.sub("", text) for each in made)
    assert all(each.startswith("1. [ ]") and each.count("\n") == 1 for each in made) and len(set(made)) > 40
    assert {each.split()[3] for each in made} == {"plates"}  # only words of a list by hand have others in their place
    assert all(int(month) <= 12 for each in made for month in re.findall(r"\d\.(\d+)\. then", each))
    days = {re.search(r"by (\w+)", each).group(1) for each in made}
    assert "Friday" in days and 1 < len(days) <= len(variety.alike()["Friday"])
    assert all(int(clock.split(":")[0]) < 24 for each in made for clock in re.findall(r"\d\d:\d\d", each))


def test_a_new_note_may_have_items_of_others_and_keeps_its_front_matter():
    others = ["# Old\n- milk", "---\ntags:\n- people\n---\n- bread"]
    made = {COINER.mixed("# New\n- eggs\nas said", others) for _ in range(30)}
    assert made == {"# New\n- eggs\nas said", "# New\n- milk\nas said"}
    assert COINER.mixed(others[1], others) == others[1]


def test_words_that_nobody_looks_for_are_left_out():
    assert variety.telling(["There", "Walnut", "oder"]) == ["Walnut"]


def test_a_record_gets_a_title_and_keeps_its_folder():
    made = COINER.value({"name": "Old", "folder": "Walnut/2025", "steps": ["harden 35 plates"]})
    assert made["name"] != "Old" and made["folder"] == "Walnut/2025" and made["steps"] != ["harden 35 plates"]


def test_later_runs_have_titles_of_words_that_nobody_has_seen():
    known = {word.lower() for word in WORDS} | {"and", "no"}

    def unseen(run):
        coiner = variety.Coiner(random.Random(2), WORDS, run)
        said = [word for _ in range(40) for word in re.findall(r"[a-z]+", coiner.title().lower())]
        return [word for word in said if word not in known]

    assert unseen(f"law-{variety.PLAIN_RUNS - 1}") == []
    assert unseen(f"law-{variety.PLAIN_RUNS}")
