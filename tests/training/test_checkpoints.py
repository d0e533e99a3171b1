"""What is left of a run that was interrupted: which checkpoints count, which are removed, what its log says."""

import json
from types import SimpleNamespace

import pytest
import torch

from toolset_nb.runs import Run, RunError
from toolset_nb.settings import SFTSettings
from toolset_nb.training import checkpoints, resume_point
from toolset_nb.training.recovery import OutOfMemory, build, smaller
from toolset_nb.training.resume import MARKER, is_whole, rotate, seal


def saved(run: Run, step: int, marked: bool = True):
    folder = run.path("checkpoints", f"checkpoint-{step}", "adapter", "model.safetensors").parents[1]
    (folder / "adapter" / "model.safetensors").write_bytes(b"123")
    if marked:
        seal(folder, step)
    return folder


def test_a_checkpoint_is_whole_with_its_marker_and_every_file_in_its_size():
    folder = saved(Run.start("sft", "tiny"), 5, marked=False)
    assert not is_whole(folder)
    seal(folder, 5)
    assert is_whole(folder)
    assert json.loads((folder / MARKER).read_text())["files"] == {"adapter/model.safetensors": 3}
    (folder / "adapter" / "model.safetensors").write_bytes(b"12")
    assert not is_whole(folder)


def test_rotation_keeps_the_newest_whole_ones_and_counts_no_torn_one():
    run = Run.start("sft", "tiny")
    for step in (2, 4, 6, 8):
        saved(run, step)
    for step in (5, 9, 10):
        saved(run, step, marked=False)
    parent = run.folder / "checkpoints"
    (parent / "checkpoint-best").mkdir()  # not the trainer's
    rotate(parent, 3)
    assert sorted(path.name for path in parent.iterdir()) == [f"checkpoint-{n}" for n in (4, 6, 8)] + [
        "checkpoint-best"
    ]
    rotate(parent, None)
    assert [path.name for path in checkpoints(run)] == [f"checkpoint-{n}" for n in (4, 6, 8)]


def test_nothing_is_removed_before_the_new_checkpoint_is_whole():
    run = Run.start("sft", "tiny")
    for step in (2, 4):
        saved(run, step)
    new = saved(run, 6, marked=False)
    assert [path.name for path in checkpoints(run)] == ["checkpoint-2", "checkpoint-4"]
    seal(new, 6)
    rotate(new.parent, 2)
    assert [path.name for path in checkpoints(run)] == ["checkpoint-4", "checkpoint-6"]


def test_a_line_after_a_torn_one_is_not_lost_and_a_step_logged_again_counts_once():
    run = Run.start("sft", "tiny")
    for step in (1, 2, 3, 4):
        run.log({"step": step, "loss": 1.0})
    with (run.folder / "log.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')  # killed here
    for step in (3, 4, 5):  # on from step 2
        run.log({"step": step, "loss": 2.0})
    assert [(row["step"], row["loss"]) for row in run.history()] == [(1, 1.0), (2, 1.0), (3, 2.0), (4, 2.0), (5, 2.0)]


def test_a_run_of_another_machine_is_taken_up_by_its_name_only(capsys):
    run = Run.start("sft", "tiny", "mine")
    saved(run, 5)
    run.update(host="another")
    with pytest.raises(RunError, match="was started on another: if that machine is gone, give resume mine"):
        resume_point(SFTSettings(resume="latest"))
    assert resume_point(SFTSettings(resume="auto")) == (None, None)
    assert "mine was started on another: if that machine is gone, give resume mine" in capsys.readouterr().out
    assert resume_point(SFTSettings(resume="auto", run_name="mine"))[0].folder == run.folder
    run.update(host="another")
    assert resume_point(SFTSettings(resume="mine"))[0].folder == run.folder


def test_of_several_processes_the_first_alone_writes(monkeypatch):
    run = Run.start("sft", "tiny", "shared")
    monkeypatch.setenv("TOOLSET_NB_RUN", str(run.folder))
    monkeypatch.setenv("RANK", "1")
    other = Run.start("sft", "tiny", "unused")
    assert other.folder == run.folder
    other.fail("seen by nobody")
    other.log({"step": 1})
    assert run.record["status"] == "running" and run.history() == []


@pytest.mark.parametrize(
    ("batch", "smallest", "expected"),
    [
        (4, 1, 2),
        (2, 1, 1),
        (1, 1, None),
        (6, 1, 3),
        (5, 1, 1),
        (4, 2, 2),
        (2, 2, None),
        (6, 2, 2),
        (8, 2, 4),
        (12, 2, 6),
    ],
)
def test_the_next_batch_divides_the_one_before_and_keeps_ktos_pairs(batch, smallest, expected):
    assert smaller(batch, smallest) == expected


def test_memory_that_runs_out_in_one_of_several_processes_says_how_to_start_anew():
    def full(args):
        raise torch.OutOfMemoryError

    args = SimpleNamespace(world_size=2, per_device_train_batch_size=4, gradient_accumulation_steps=3)
    with pytest.raises(OutOfMemory, match="anew, without resume, with: -p batch_size 2 -p gradient_accumulation 6$"):
        build(full, args, None, Run.start("sft", "tiny"))
