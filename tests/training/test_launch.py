"""Several processes: the script that a notebook becomes, and what starts it."""

import ast
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest

from toolset_nb import launch
from toolset_nb.__main__ import main
from toolset_nb.models import sizes
from toolset_nb.paths import repo_root
from toolset_nb.runs import Run, file_hash
from toolset_nb.settings import SettingsError, SFTSettings
from toolset_nb.training import arrange
from toolset_nb.training.resume import seal

SFT = repo_root() / "notebooks" / "sft.ipynb"


@pytest.mark.parametrize("name", launch.TRAINING)
def test_a_notebook_becomes_a_script_whose_single_cells_are_for_the_first_process(name, tmp_path):
    notebook = repo_root() / "notebooks" / f"{name}.ipynb"
    tree = ast.parse(launch.script(notebook, {"max_rows": 16}, tmp_path / "out.ipynb"))
    guarded = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "_main_process"]
    inside = "\n".join(map(ast.unparse, guarded))
    outside = "\n".join(ast.unparse(node) for node in tree.body if node not in guarded)
    for call in ("training.save_plots(", "run.finish("):
        assert call in inside and call not in outside, call
    for call in ("training.train(", "Trainer(", "Run.start(", "training.drop_long(", "training.save_adapter("):
        assert call in outside and call not in inside, call
    assert "max_rows = 16" in outside


def test_the_command_starts_so_many_processes_of_the_runs_own_script():
    command, run = launch.prepare(SFT, {"model_size": "tiny", "run_name": "two"}, 2)
    assert run.folder.name == "two"
    assert command[-1] == str(run.folder / "launch" / "sft.py")
    assert command[command.index("--num_processes") + 1] == "2" and "--multi_gpu" in command
    assert "--multi_gpu" not in launch.prepare(SFT, {"model_size": "tiny"}, 1)[0]


def test_the_commands_for_several_machines_in_the_docs_are_what_launch_and_accelerate_take(monkeypatch, tmp_path):
    from accelerate.commands.launch import launch_command_parser

    monkeypatch.setenv("TOOLSET_NB_RUNS", str(tmp_path))
    page = (repo_root() / "docs" / "scaling.md").read_text("utf-8")
    prepare, start = [
        line.strip() for line in page.partition("### Several machines")[2].splitlines() if line[:4] == "    "
    ]
    monkeypatch.chdir(repo_root())
    exec(shlex.split(prepare)[2], {})
    words = shlex.split(start.replace("$TOOLSET_NB_RUNS", str(tmp_path)))
    given = launch_command_parser().parse_args(words[words.index("accelerate.commands.launch") + 1 :])
    assert (given.num_machines, given.num_processes, Path(given.training_script).is_file()) == (2, 4, True)
    environment = dict(word.split("=", 1) for word in words[: words.index("python")])
    assert Path(environment["TOOLSET_NB_RUN"]) == Path(given.training_script).parents[1]


def test_a_run_that_is_resumed_keeps_its_folder_and_every_process_is_told_its_name():
    run = Run.start("sft", "tiny", "broken")
    folder = run.path("checkpoints", "checkpoint-5", "x").parent
    seal(folder, 5)
    run.fail("stopped")
    command, again = launch.prepare(SFT, {"resume": "latest"}, 2)
    assert again.folder == run.folder
    assert "resume = 'broken'" in (again.folder / "launch" / "sft.py").read_text().replace('"', "'")


GIVEN = {"model_size": "tiny", "run_name": "garden", "resume": "auto"}


@pytest.fixture
def broken() -> Run:
    """An SFT run of two processes that stopped after a checkpoint, as the notebook records it."""
    sha256 = file_hash(repo_root() / "datasets" / "sft.jsonl")
    record = {"parameters": {**SFTSettings(**GIVEN).model_dump(), **sizes()["tiny"]["sft"]}, "processes": 2}
    record["dataset"] = {"file": "sft.jsonl", "sha256": sha256, "rows": 760}
    run = Run.start("sft", "tiny", "garden", **record)
    seal(run.path("checkpoints", "checkpoint-5", "x").parent, 5)
    run.fail("stopped")
    return run


def test_auto_goes_on_with_a_run_that_was_started_with_the_same(broken):
    before = broken.record
    assert launch.prepare(SFT, GIVEN, 2)[1].folder == broken.folder
    assert broken.record == before  # its processes take it up


@pytest.mark.parametrize(
    ("other", "processes"),
    [
        ({"max_rows": 100}, 2),
        ({"learning_rate": 1e-4}, 2),
        ({"seed": 1}, 2),
        ({"model_size": "3b"}, 2),
        ({"call_format": "text"}, 2),
        ({}, 1),
    ],
)
def test_auto_starts_anew_where_something_else_is_asked_for_and_leaves_the_old_run_alone(
    broken, other, processes, capsys
):
    before = broken.record
    _, run = launch.prepare(SFT, GIVEN | other, processes)
    assert run.folder.name == "garden-2" and broken.record == before
    assert 'resume = ""' in (run.folder / "launch" / "sft.py").read_text()
    assert "garden was started with" in capsys.readouterr().out


@pytest.mark.parametrize("state", [{"host": "another"}, {"process_started": -1}], ids=["of another machine", "crashed"])
def test_a_run_that_the_processes_refuse_stays_as_it_was(broken, state, monkeypatch):
    broken.update(**state, status="running")
    before = broken.record
    monkeypatch.setattr(launch.subprocess, "run", lambda *_, **__: SimpleNamespace(returncode=1))
    with pytest.raises(launch.LaunchError, match="training in 2 processes failed"):
        launch.launch(SFT, GIVEN, 2)
    assert broken.record == before


def test_a_run_that_its_processes_took_up_says_that_it_failed(broken, monkeypatch):
    def start(*_, **__):
        broken.reopen()
        return SimpleNamespace(returncode=1)

    monkeypatch.setattr(launch.subprocess, "run", start)
    with pytest.raises(launch.LaunchError):
        launch.launch(SFT, GIVEN, 2)
    assert (broken.status, broken.record["reason"]) == ("failed", "a process ended with exit code 1")


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [("", 2, "expected one that trains"), ("- 3", 1, "expected for example"), (None, 2, "cannot be read")],
)
def test_the_command_reads_parameters_from_a_file_that_may_be_empty(text, code, words, tmp_path, capsys):
    file = tmp_path / "parameters.yaml"
    if text is not None:
        file.write_text(text)
    assert main(["launch", "notebooks/evaluate.ipynb", "-f", str(file)]) == code
    assert words in capsys.readouterr().err


def test_what_cannot_be_launched_is_refused(monkeypatch):
    monkeypatch.setattr(launch, "find_spec", lambda name: None)
    with pytest.raises(launch.LaunchError, match="--shard needs triton"):
        launch.launch(SFT, {}, 2, shard=True)
    with pytest.raises(launch.LaunchError, match="expected one that trains"):
        launch.prepare(repo_root() / "notebooks" / "evaluate.ipynb", {}, 2)
    with pytest.raises(launch.LaunchError, match="processes is 0"):
        launch.prepare(SFT, {}, 0)
    with pytest.raises(SettingsError, match="did you mean"):
        launch.prepare(SFT, {"max_row": 3}, 2)


def test_batches_that_are_computed_together_are_those_of_one_process_with_the_same_rows_a_step(monkeypatch):
    data = [{"id": number, "input_ids": [0] * (3 + number * 7 % 100)} for number in range(64)]
    one = arrange(data, 4, seed=1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert arrange(data, 2, seed=1) == one
