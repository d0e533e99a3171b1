"""What an export leaves: whole or not there, made once, and nothing of a process that is gone."""

import json
import os
import subprocess
import sys

import pytest

from toolset_nb.export import artefacts


@pytest.fixture
def target(tmp_path):
    return tmp_path / "export" / "model.gguf"


def write(text):
    return lambda path: path.write_text(text)


def test_an_artefact_is_made_once_and_again_when_what_it_is_made_from_changed(target):
    assert artefacts.finish(target, {"weights": 1}, write("one"))
    assert not artefacts.finish(target, {"weights": 1}, write("never"))
    assert target.read_text() == "one"
    assert artefacts.finish(target, {"weights": 2}, write("two"))
    assert target.read_text() == "two"


@pytest.mark.parametrize("mark", ["", '{"made_from": {"weig', "[]", "{}"])
def test_138_a_torn_mark_means_made_again(target, mark):
    artefacts.finish(target, {}, write("one"))
    target.with_name(".model.gguf.json").write_text(mark)
    assert artefacts.finish(target, {}, write("two"))
    assert not artefacts.finish(target, {}, write("three"))


def test_a_file_that_lost_its_end_is_made_again(target):
    artefacts.finish(target, {}, write("whole"))
    target.write_text("who")
    assert artefacts.finish(target, {}, write("whole"))


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_fails_leaves_the_old_one_and_nothing_else(target, error):
    artefacts.finish(target, {"weights": 1}, write("old"))
    before = sorted(path.name for path in target.parent.iterdir())

    def half(path):
        path.write_text("ha")
        raise error

    with pytest.raises(type(error)):
        artefacts.finish(target, {"weights": 2}, half)
    assert sorted(path.name for path in target.parent.iterdir()) == before
    assert target.read_text() == "old" and artefacts.up_to_date(target, {"weights": 1})


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1 kB"),
        (999_700, "1 MB"),
        (12_345_678, "12.3 MB"),
        (1.5e12, "1.5 TB"),
    ],
)
def test_a_size_is_told_in_three_digits(count, words):
    assert artefacts.size_words(count) == words


def test_a_folder_is_replaced_as_a_whole(target):
    def files(*names):
        return lambda path: [path.mkdir(), *((path / name).write_text(name) for name in names)]

    artefacts.finish(target, {"weights": 1}, files("a", "b"))
    artefacts.finish(target, {"weights": 2}, files("c"))
    assert [path.name for path in target.iterdir()] == ["c"]
    (target / "c").write_text("")
    assert not artefacts.up_to_date(target, {"weights": 2})


def test_139_what_a_dead_process_left_goes_and_what_a_living_one_writes_stays(target):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    target.parent.mkdir()
    left, work = target.with_name(f".model.gguf.{gone.pid}"), target.with_name(f".work.{gone.pid}")
    left.write_text("half")
    (work / "merged").mkdir(parents=True)
    living = target.with_name(f".other.gguf.{os.getppid()}")
    living.write_text("half")
    artefacts.finish(target, {}, write("one"))
    assert {path.name for path in target.parent.iterdir()} == {"model.gguf", ".model.gguf.json", living.name}
    assert json.loads(target.with_name(".model.gguf.json").read_text()) == {"made_from": {}, "bytes": 3}
