"""Files replaced in one step: what a killed process left goes, what else lies there stays."""

import os
import subprocess
import sys

import pytest

from toolset_nb.files import replacing


@pytest.fixture
def gone():
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_only_the_drafts_of_the_same_file_by_dead_processes_go(tmp_path, gone):
    target = tmp_path / "rows.jsonl"
    kept = {f".rows.jsonl.{os.getppid()}", f".backup.{gone}", ".rows.jsonl.old"}
    for name in {*kept, f".rows.jsonl.{gone}"}:
        (tmp_path / name).write_text("half")
    with replacing(target) as path:
        path.write_text("whole")
    assert {path.name for path in tmp_path.iterdir()} == {*kept, "rows.jsonl"}


def test_an_error_leaves_what_was_there(tmp_path):
    target = tmp_path / "rows.jsonl"
    target.write_text("old")
    with pytest.raises(ValueError, match="half-way"), replacing(target) as path:
        path.write_text("new")
        raise ValueError("half-way")
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"] and target.read_text() == "old"


def test_a_folder_is_replaced_by_another(tmp_path):
    (tmp_path / "merged").mkdir()
    (tmp_path / "merged" / "old").touch()
    with replacing(tmp_path / "merged") as path:
        path.mkdir()
        (path / "new").touch()
    assert [path.name for path in (tmp_path / "merged").iterdir()] == ["new"]
