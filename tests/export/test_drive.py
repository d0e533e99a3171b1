"""A run copied to Google Drive: whole files, once, and a clear word when Drive is not there."""

import os
import shutil

import pytest

from toolset_nb import runs
from toolset_nb.export import ExportError, artefacts, copy_to_drive, drive


@pytest.fixture
def mounted(tmp_path):
    folder = tmp_path / "MyDrive"
    folder.mkdir()
    return folder


def test_a_copy_is_a_run_folder_without_checkpoints_and_unfinished_files(run, mounted):
    for name in ("checkpoints/checkpoint-1/optimizer.pt", "export/.model.gguf.12", "evaluation/tasks/run.tmp"):
        run.path(*name.split("/")).write_text("not this")
    run.path("export", "merged", "model.safetensors").write_text("merged")
    copy = copy_to_drive(run, mounted)
    names = {path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()}
    assert names == {"run.json", "adapter/adapter_model.safetensors", "export/merged/model.safetensors"}
    assert runs.find(str(copy)).record == run.record


def test_what_was_exported_counts_as_made_in_the_copy(run, mounted, monkeypatch):
    file, copied = run.path("export", "model-q8_0.gguf"), []
    artefacts.finish(file, {"adapter": 1}, lambda path: path.write_bytes(b"GGUF"))
    copy = drive._copy
    monkeypatch.setattr(drive, "_copy", lambda source, target: copied.append(source.name) or copy(source, target))
    there = copy_to_drive(run, mounted) / "export" / file.name
    assert artefacts.up_to_date(there, {"adapter": 1})
    assert copied[-1] == ".model-q8_0.gguf.json"  # of a copy that breaks off no mark says that it is whole


def test_only_what_changed_is_copied_again(run, mounted, monkeypatch):
    copied = []
    monkeypatch.setattr(
        drive.shutil, "copy2", lambda file, part: copied.append(file.name) or shutil.copyfile(file, part)
    )
    copy_to_drive(run, mounted)
    copy_to_drive(run, mounted)
    assert sorted(copied) == ["adapter_model.safetensors", "run.json"]
    weights = run.folder / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(b"changed")
    os.utime(weights, (2e9, 2e9))
    copied.clear()
    assert (copy_to_drive(run, mounted) / "adapter" / weights.name).read_bytes() == b"changed"
    assert copied == [weights.name]


def test_a_full_drive_leaves_whole_files_alone(run, mounted, monkeypatch):
    def full(file, part):
        part.write_bytes(b"ha")
        raise OSError(28, "No space left on device")

    copy = copy_to_drive(run, mounted)
    weights = run.folder / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(b"longer weights")
    monkeypatch.setattr(drive.shutil, "copy2", full)
    with pytest.raises(ExportError, match=r"could not be written \(No space left on device\)"):
        copy_to_drive(run, mounted)
    assert (copy / "adapter" / weights.name).read_bytes() == b"weights"
    assert not list(copy.rglob("*.part"))


def test_drive_that_is_not_mounted(run, tmp_path):
    with pytest.raises(ExportError, match="Google Drive is not mounted at .*drive.mount"):
        copy_to_drive(run, tmp_path / "MyDrive")
    assert not (tmp_path / "MyDrive").exists()
