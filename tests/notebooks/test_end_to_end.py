"""The product on the real embedded model: a few SFT steps, GGUF, llama.cpp's server over HTTP, report, exit code."""

import json
import subprocess
import sys

import jsonschema_rs
import pytest

from toolset_nb import runs
from toolset_nb.paths import repo_root

pytestmark = pytest.mark.notebooks


def command(*arguments: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True, **options)


def test_a_few_steps_on_the_embedded_model_end_in_a_served_model_and_a_report(tmp_path, monkeypatch):
    monkeypatch.setenv("TOOLSET_NB_RUNS", str(tmp_path / "runs"))
    notebook = repo_root() / "notebooks" / "sft.ipynb"
    parameters = [
        "-p",
        "model_size",
        "tiny",
        "-p",
        "max_steps",
        "3",
        "-p",
        "max_rows",
        "12",
        "-p",
        "logging_steps",
        "1",
        "-p",
        "save_steps",
        "3",
    ]
    trained = command("papermill", str(notebook), str(tmp_path / "out.ipynb"), *parameters, cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr[-3000:]
    run = runs.find("latest")
    assert run.status == "complete"
    losses = [row["loss"] for row in run.history()]
    assert len(losses) == 3 and losses[-1] < losses[0]

    judged = command(
        "toolset_nb", "evaluate", "--targets", "base,latest", "--limit", "4", "--max-tokens", "40", cwd=tmp_path
    )
    assert judged.returncode == 2, judged.stderr[
        -3000:
    ]  # 40 tokens are too few for a call: failures, not request errors
    assert (run.folder / "export" / "model-q8_0.gguf").stat().st_size > 100e6
    report = json.loads((run.folder / "evaluation" / "full_coverage" / f"{run.folder.name}.json").read_text())
    assert report["summary"]["total"] == 4 and report["summary"]["request_errors"] == 0
    assert all(record["latency_s"] > 0 for record in report["records"])
    assert "| right tool |" in (run.folder / "evaluation" / "full_coverage" / "report.md").read_text()


def test_the_model_in_the_box_is_small_whole_and_answers_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("TOOLSET_NB_RUNS", str(tmp_path / "runs"))
    box = repo_root() / "finished"
    assert {path.name for path in (box / "adapter").glob("*.safetensors")} == {"adapter_model.safetensors"}
    assert (box / "adapter" / "adapter_model.safetensors").stat().st_size <= 12e6
    schema = jsonschema_rs.validator_for(json.loads((repo_root() / "schemas" / "run.json").read_text("utf-8")))
    assert schema.is_valid(json.loads((box / "run.json").read_text("utf-8")))
    judged = command("toolset_nb", "evaluate", "--targets", "latest", "--tags", "vaultManager", cwd=tmp_path)
    assert "the model that comes with the repository" in judged.stdout, judged.stderr[-3000:]
    report = tmp_path / "runs" / "finished" / "evaluation" / "full_coverage" / "finished.json"
    measures = [record["measures"] for record in json.loads(report.read_text("utf-8"))["records"]]
    assert sum(each["well_formed"] for each in measures) >= 7 and sum(each["right_tool"] for each in measures) >= 5


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--prompt-set", "no_such_set"], 1, "full_coverage"),
        (["--targets", "no-such-run"], 1, "no-such-run"),
        (["--temperature", "warm"], 1, "temperature"),
        (["--targets", "http://127.0.0.1:9#model", "--limit", "1", "--retries", "0"], 3, "request errors"),
    ],
)
def test_evaluate_says_by_its_exit_code_what_went_wrong(arguments, code, words, tmp_path, monkeypatch):
    monkeypatch.setenv("TOOLSET_NB_RUNS", str(tmp_path))
    done = command("toolset_nb", "evaluate", *arguments)
    assert done.returncode == code
    assert words in done.stdout + done.stderr
