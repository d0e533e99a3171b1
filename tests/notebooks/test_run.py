"""The notebooks run from top to bottom: by papermill in order, under nbval, with wrong parameters, in a simulated Colab.

The model is a random one of 3 million parameters, two training steps each: what it answers is noise, what is left behind is not.
"""

import json
import math
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import jsonschema_rs
import nbformat
import pytest
from papermilled import CHAIN, FAKE_TOKEN, ROOT, environment, options, papermill

from toolset_nb import runs

TRAINING = CHAIN[:3]
LOGGED = [
    "step",
    "timestamp",
    "loss",
    "learning_rate",
    "grad_norm",
    "epoch",
    "tokens_per_second",
    "memory_gb",
    "eta_seconds",
]
PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt"}

pytestmark = pytest.mark.notebooks


@pytest.fixture(scope="module")
def chain(tiny_model, tmp_path_factory):
    """A function that runs the notebooks in order up to the one named, each once, and gives (executed notebook, its run)."""
    folder = tmp_path_factory.mktemp("chain")
    done = {}

    def up_to(name):
        for step in CHAIN[: CHAIN.index(name) + 1]:
            if step not in done:
                out = folder / f"{step}.ipynb"
                result = papermill(step, out, *options(step, tiny_model))
                assert result.returncode == 0, result.stderr[-4000:]
                done[step] = out, runs.Run((folder / "runs" / "latest").resolve())
        return done[name]

    return up_to


@pytest.mark.parametrize("name", TRAINING)
def test_a_training_notebook_leaves_a_complete_record(chain, name):
    _, run = chain(name)
    record = run.record
    schema = json.loads((ROOT / "schemas" / "run.json").read_text())
    assert [error.message for error in jsonschema_rs.Draft202012Validator(schema).iter_errors(record)] == []
    method = name.partition("_")[0]
    assert (record["status"], record["method"], record["size"]) == ("complete", method, "tiny")
    assert record["parameters"].items() >= {"max_rows": 16, "max_steps": 2, "batch_size": 2, "seed": 42}.items()
    assert (
        record["parameters"]["learning_rate"] > 0 and record["parameters"]["max_length"] > 0
    )  # in force, not the 0 given
    data = ROOT / "datasets" / f"{method}.jsonl"
    assert record["dataset"] == {"file": data.name, "sha256": runs.file_hash(data), "rows": 16}
    assert record["packages"].keys() >= {"torch", "transformers", "trl", "peft", "unsloth"}
    assert record["base_model"]["name"] == "tiny-random"
    assert math.isfinite(record["results"]["train_loss"])
    assert len(record["answers"]["before"]) == len(record["answers"]["after"]) == len(record["answers"]["prompts"]) == 3


def test_kto_names_the_sft_run_that_it_came_from(chain):
    _, parent = chain("sft")
    _, run = chain("kto")
    assert run.record["parent"] == parent.folder.name
    assert parent.record["parent"] is None
    assert run.record["base_folder"] == parent.record["base_folder"]


@pytest.mark.parametrize("name", TRAINING)
def test_every_logged_step_has_the_same_fields(chain, name):
    history = chain(name)[1].history()
    assert [row["step"] for row in history] == [1, 2]
    for row in history:
        assert row.keys() >= set(LOGGED)
        assert all(math.isfinite(row[key]) for key in LOGGED if key != "timestamp")
        assert row["memory_gb"] > 0
    assert history[-1]["eta_seconds"] == 0
    if name == "kto":
        assert all("kl" in row for row in history)
        assert any("rewards/margins" in row for row in history)
    else:
        assert all(row["tokens_per_second"] > 0 for row in history)
        assert history[0]["num_tokens"] < history[1]["num_tokens"]


@pytest.mark.parametrize("name", TRAINING)
def test_adapter_plot_and_checkpoint_are_there_and_no_weights_are_pickled(chain, name):
    _, run = chain(name)
    adapter = run.folder / "adapter"
    assert [path.name for path in adapter.rglob("*.safetensors")] == ["adapter_model.safetensors"]
    assert not [path for path in adapter.rglob("*") if path.suffix in PICKLES]
    assert (adapter / "tokenizer.json").is_file()
    assert (run.folder / "plots" / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert (run.folder / "checkpoints" / "checkpoint-2" / "COMPLETE.json").is_file()


def test_a_tracker_gets_the_same_losses_as_the_log(chain):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    _, run = chain("sft")
    [events] = run.folder.rglob("events.out.tfevents.*")
    written = EventAccumulator(str(events)).Reload()
    losses = [(scalar.step, pytest.approx(scalar.value)) for scalar in written.Scalars("train/loss")]
    assert losses == [(row["step"], row["loss"]) for row in run.history()] and losses


def test_latest_is_the_newest_run(chain):
    _, run = chain("kto")
    newest = max(run.folder.parent.glob("2*/run.json"), key=lambda path: json.loads(path.read_text())["started"])
    assert newest.parent == run.folder
    assert run.record["method"] == "kto"


def test_evaluate_reports_base_and_tuned_model_side_by_side(chain):
    _, run = chain("evaluate")
    folder = run.folder / "evaluation" / "full_coverage"
    reports = {path.stem: json.loads(path.read_text("utf-8")) for path in folder.glob("*.json")}
    assert len(reports) == 2 and run.folder.name in reports
    for report in reports.values():
        summary = report["summary"]
        assert (summary["total"], summary["request_errors"]) == (3, 0)
        assert summary["passed"] + summary["failed"] == 3
        assert all(measure["low"] <= measure["rate"] <= measure["high"] for measure in summary["measures"].values())
        assert [len(report["records"]), report["metadata"]["max_tokens"]] == [3, 32]
        assert all(record["outcome"] != "infra" for record in report["records"])
    text = (folder / "report.md").read_text("utf-8")
    assert all(f"## {label}" in text for label in reports) and "request errors" in text
    assert len((folder / "records.csv").read_text("utf-8").splitlines()) == 1 + 2 * 3
    assert (folder / "measures.png").read_bytes().startswith(b"\x89PNG")


def test_export_leaves_models_that_get_the_trained_prompts_and_what_other_programs_need(chain):
    out, run = chain("export")
    folder = run.folder / "export"
    made = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    assert {"model-f16.gguf", "model-q8_0.gguf", "Modelfile", "parity.json", "parity.md"} <= made
    for row in json.loads((folder / "parity.json").read_text())["formats"].values():
        assert row["prompts_equal"] == row["tokens_equal"] == row["total"] == 2
    printed = out.read_text("utf-8")
    assert all(words in printed for words in ("lms import", "ollama create", "llama-server -m"))


@pytest.mark.parametrize("name", CHAIN)
def test_the_executed_notebook_and_the_run_folder_hold_no_token(chain, name):
    out, run = chain(name)
    texts = {
        path: path.read_text("utf-8") for path in run.folder.rglob("*") if path.suffix in (".json", ".jsonl", ".md")
    }
    texts[out] = out.read_text("utf-8")
    for path, text in texts.items():
        assert FAKE_TOKEN not in text, path
    assert not re.search(r"(hf_|ghp_|sk-)[A-Za-z0-9]{16,}|Bearer \w{8,}", texts[out])
    cells = [cell for cell in nbformat.read(out, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("modle_size", "7b", "unknown parameter modle_size (value '7b'): did you mean model_size?"),
        ("push_to_hub", "flase", "parameter push_to_hub is 'flase'; expected true or false"),
        ("model_size", "7b", "model_size 7b needs a CUDA GPU with 10.2 GB"),
    ],
)
def test_a_parameter_that_cannot_be_stops_the_notebook_at_once(tmp_path, key, value, message):
    if key == "model_size":
        import torch

        if torch.cuda.is_available():
            pytest.skip("a CUDA GPU is here: 7b may fit")
    started = time.monotonic()
    done = papermill("sft", tmp_path / "out.ipynb", "-p", key, value)
    assert done.returncode == 1
    assert message in done.stderr
    assert time.monotonic() - started < 30  # a few seconds of the kernel's; the rest is papermill's own start
    assert not (tmp_path / "runs").exists()


def test_63_a_notebook_is_not_written_over_by_its_own_run(tmp_path):
    copy = tmp_path / "sft.ipynb"
    shutil.copy(ROOT / "notebooks" / "sft.ipynb", copy)
    command = [sys.executable, "-m", "papermill", copy.name, copy, "--no-progress-bar"]
    env = environment(tmp_path / "runs")
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and "papermill's output is its input" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_64_an_output_folder_that_is_not_there_stops_before_the_first_cell(tmp_path):
    command = [sys.executable, "-m", "papermill", ROOT / "notebooks" / "sft.ipynb", tmp_path / "none" / "out.ipynb"]
    done = subprocess.run(command, env=environment(tmp_path / "runs"), capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and f"{tmp_path / 'none'} doesn't exist" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_killed_kernel_reads_as_crashed(tmp_path):
    script = (
        "import time; from toolset_nb import runs; print(runs.Run.start('sft', 'tiny'), flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, env=environment(tmp_path / "runs"), stdout=subprocess.PIPE, text=True) as process:
        run = runs.Run(process.stdout.readline().strip())
        assert run.status == "running"
        process.kill()
    assert run.record["status"] == "running"  # nobody was left to write otherwise
    assert run.status == "crashed"
    with pytest.raises(runs.RunError, match="no complete"):
        runs.find("latest")


COLAB = """
import hashlib, json, sys
from pathlib import Path
from IPython.core.interactiveshell import InteractiveShell

cells = json.loads(Path(sys.argv[1]).read_text())
shell = InteractiveShell.instance()

def tree():
    files = [path for path in Path.cwd().rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

found = {"before": tree()}
for when in ("first", "second"):
    for cell in cells:
        shell.run_cell(cell, store_history=True).raise_error()
    import toolset_nb
    found[when] = tree()
    found["package " + when] = toolset_nb.__file__
found["max_rows"] = shell.user_ns["config"].max_rows
print("FOUND", json.dumps(found))
"""


@pytest.fixture
def colab(repository_copy, tmp_path):
    """A function that runs the setup and settings cells of sft twice in /content; installing is only recorded.

    `source` is where the project comes from: "clone", "zip" (as GitHub makes it), "flat zip", "here" (the folder is the
    project), "pipeline" (a step of one), or None outside Colab. `platform` is the variable by which it is known.
    """
    version = tomllib.loads((repository_copy / "pyproject.toml").read_text())["project"]["version"]
    log, content = tmp_path / "installed.txt", tmp_path / "content"
    content.mkdir()
    stub = f"import sys\nwith open({str(log)!r}, 'a') as file:\n    print(*sys.argv[1:], file=file)\n"
    (repository_copy / "toolset_nb" / "install.py").write_text(stub)
    notebook = nbformat.read(repository_copy / "notebooks" / "sft.ipynb", as_version=4)
    setup, form = [cell.source for cell in notebook.cells if cell.cell_type == "code"][:2]
    edited = form.replace("max_rows: int = 0", "max_rows: int = 7")  # what a person changes in the form
    assert edited != form
    reading = "from toolset_nb import settings\nconfig = settings.read(settings.SFTSettings, globals())"
    (tmp_path / "cells.json").write_text(json.dumps([setup, edited, reading]))

    def run(source, platform="COLAB_RELEASE_TAG"):
        env = environment(tmp_path / "runs", IPYTHONDIR=str(tmp_path / "ipython"), **{platform: "release"})
        env["PYTHONPATH"] = os.environ.get("PYTHONPATH", "")
        if source == "clone":
            env["TOOLSET_NB_SOURCE"] = clone(repository_copy, tmp_path / "bare.git", f"v{version}").as_uri()
        elif source == "zip":
            top = repository_copy.rename(tmp_path / f"toolset_nb-{version}")
            shutil.make_archive(content / top.name, "zip", tmp_path, top.name)
        elif source == "flat zip":
            shutil.make_archive(content / "toolset_nb", "zip", repository_copy)
        elif source == "here":
            shutil.copytree(repository_copy, content, dirs_exist_ok=True)
        elif source == "pipeline":
            env |= {"TOOLSET_NB_ROOT": str(ROOT), "PYTHONPATH": str(ROOT)}
        else:
            del env[platform]
            env["PYTHONPATH"] = str(ROOT)
        command = [sys.executable, "-c", COLAB, tmp_path / "cells.json"]
        done = subprocess.run(command, cwd=content, env=env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        found = json.loads(done.stdout.rpartition("FOUND ")[2])
        return found, content, log.read_text().splitlines() if log.exists() else []

    return run


def clone(folder, bare, tag):
    """A bare repository with the files of `folder` that git does not ignore, in one tagged commit."""
    git = ["git", "-C", str(folder), "-c", "user.name=test", "-c", "user.email=test@example.org"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "All"], ["tag", tag]):
        subprocess.run([*git, *command], check=True)
    subprocess.run(["git", "clone", "-q", "--bare", str(folder), str(bare)], check=True)
    return bare


KAGGLE = ("clone", "KAGGLE_KERNEL_RUN_TYPE")


@pytest.mark.parametrize("given", [("clone",), ("zip",), ("flat zip",), KAGGLE], ids="-".join)
def test_the_setup_cell_brings_the_project_to_colab_and_kaggle_and_can_be_run_again(colab, given):
    found, content, installed = colab(*given)
    assert installed == ["colab", "colab"]
    assert Path(found["package first"]).is_relative_to(content / "toolset_nb")
    assert found["package second"] == found["package first"]
    assert len(found["first"]) > len(found["before"])
    assert found["second"] == found["first"]
    assert found["max_rows"] == 7


def test_the_setup_cell_takes_the_project_that_it_is_started_in(colab):
    found, content, installed = colab("here")
    assert installed == ["colab", "colab"]
    assert Path(found["package first"]).parent == content / "toolset_nb"
    assert found["before"] == found["first"] == found["second"]


@pytest.mark.parametrize("source", ["pipeline", None])
def test_outside_colab_and_in_a_pipelines_step_the_setup_cell_does_nothing(colab, source):
    found, _, installed = colab(source)
    assert installed == []
    assert found["before"] == found["first"] == found["second"] == {}
    assert Path(found["package first"]).is_relative_to(ROOT)
    assert found["max_rows"] == 7


def test_pip_can_resolve_the_pins_for_colab():
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", "--disable-pip-version-check", "-q"]
    done = subprocess.run([*command, "-r", ROOT / "requirements-colab.txt"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_pipeline_notebook_runs_the_others_and_leaves_their_notebooks(tiny_model, tmp_path):
    short = "max_rows: 16, max_steps: 2, batch_size: 2, logging_steps: 1"
    given = {
        "run_name": "all",
        "model_size": "tiny",
        "base_model": str(tiny_model),
        "sft_parameters": f"{short}, call_format: text",
        "kto_parameters": short,
        "evaluate_parameters": "limit: 2, max_tokens: 24, slots: 2",
        "export_parameters": "parity: none",
    }
    done = papermill("pipeline", tmp_path / "out.ipynb", *(part for item in given.items() for part in ("-p", *item)))
    assert done.returncode == 0, done.stderr[-3000:]
    folder = tmp_path / "runs" / "all"
    state = json.loads((folder / "pipeline.json").read_text())
    assert [entry["status"] for entry in state.values()] == ["complete"] * 4
    assert {path.name for path in folder.glob("*.ipynb")} == {
        "sft.ipynb",
        "kto.ipynb",
        "evaluate.ipynb",
        "export.ipynb",
    }
    made = runs.Run(tmp_path / "runs" / "all-kto")
    assert made.rendering()["call_format"] == "text"  # as its SFT run
    shown = json.dumps(nbformat.read(folder / "kto.ipynb", 4).cells)
    assert ">>>tool_call: " in shown and "<tool_call>" not in shown
    report = tmp_path / "runs" / "all-kto" / "evaluation" / "full_coverage"
    assert {"base.json", "all-sft.json", "all-kto.json", "report.html"} <= {path.name for path in report.iterdir()}


def test_the_dataset_notebook_makes_rows_and_asks_a_real_server(chain, tmp_path):
    """The teacher is the tiny random model behind llama.cpp's server: noise, which the funnel has to refuse."""
    folder = chain("sft")[0].parent
    target, settings = tmp_path / "rows.jsonl", ["-p", "rows", "120", "-p", "output", tmp_path / "rows.jsonl"]
    settings += ["-p", "teacher", "base", "-p", "teacher_rows", "3", "-p", "interactive", "no"]
    for _ in range(2):  # the second time nothing is asked again
        result = papermill("dataset", folder / "dataset.ipynb", *settings)
        assert result.returncode == 0, result.stderr[-4000:]
    rows = [json.loads(line) for line in target.read_text("utf-8").splitlines()]
    assert len(rows) > 100
    answers = [json.loads(line) for line in (folder / "runs" / "teacher.jsonl").read_text("utf-8").splitlines()]
    assert len(answers) == len({answer["source"] for answer in answers}) == 3
    images = [
        output
        for cell in nbformat.read(folder / "dataset.ipynb", 4).cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert len(images) == 2
