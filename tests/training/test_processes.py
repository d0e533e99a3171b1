"""Two real processes on a CPU (gloo) train as one does with the same rows a step: same rows together, same losses, one record."""

import functools
import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec

import nbformat
import pytest
from safetensors.torch import load_file

from toolset_nb.paths import repo_root
from toolset_nb.runs import Run

pytestmark = pytest.mark.notebooks
WATCH = """
import json as _json, os as _os, transformers as _transformers
training.answer = lambda *_, **__: ["", "", ""]
_source = _transformers.Trainer.get_batch_samples

def _seen(self, *given, **more):
    samples, count = _source(self, *given, **more)
    rows = [[t for t, m in zip(*map(list, pair)) if m] for batch in samples
            for pair in zip(batch["input_ids"].tolist(), batch["attention_mask"].tolist())]
    with open(run.folder / f"rows-{_os.environ.get('RANK', '0')}.jsonl", "a") as file:
        file.write(_json.dumps(rows) + "\\n")
    return samples, count

_transformers.Trainer.get_batch_samples = _seen
"""


@pytest.fixture(scope="module")
def trained(tiny_model, tmp_path_factory):
    """trained(processes, batch_size, *options): the run that the command line leaves; `sft_run` is refined by KTO in its place."""
    folder = tmp_path_factory.mktemp("processes")
    notebook = nbformat.read(repo_root() / "notebooks" / "sft.ipynb", 4)
    place = next(n for n, cell in enumerate(notebook.cells) if "training.train(" in cell.source)
    notebook.cells.insert(place, nbformat.v4.new_code_cell(WATCH))
    nbformat.write(notebook, folder / "sft.ipynb")
    values = {"model_size": "tiny", "base_model": str(tiny_model), "max_rows": 24, "max_steps": 6, "save_steps": 3}
    values |= {"logging_steps": 1, "gradient_accumulation": 1, "max_length": 512, "interactive": "no", "eval_steps": 6}
    (folder / "sft.yaml").write_text(json.dumps(values))
    (folder / "kto.yaml").write_text(
        json.dumps({k: v for k, v in values.items() if k not in ("model_size", "base_model")})
    )
    shutil.copy(repo_root() / "notebooks" / "kto.ipynb", folder)

    @functools.cache
    def run(processes, batch_size, *options, sft_run=""):
        name = "-".join(["kto" if sft_run else "of", str(processes), *options])
        notebook = folder / ("kto.ipynb" if sft_run else "sft.ipynb")
        command = [sys.executable, "-m", "toolset_nb", "launch", notebook, "--processes", str(processes)]
        command += ["-f", notebook.with_suffix(".yaml"), "-p", "batch_size", str(batch_size), "-p", "run_name", name]
        command += [*options, *(["-p", "sft_run", sft_run] if sft_run else [])]
        environment = {**os.environ, "TOOLSET_NB_RUNS": str(folder / "runs"), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, cwd=repo_root(), capture_output=True, text=True, timeout=900)
        log = folder / "runs" / name / "launch" / "log.txt"
        assert done.returncode == 0, done.stderr[-2000:] + (log.read_text()[-4000:] if log.exists() else "")
        return Run(folder / "runs" / name)

    return run


def rows(run, rank):
    return [json.loads(line) for line in (run.folder / f"rows-{rank}.jsonl").open()]


def test_two_processes_train_as_one(trained):
    one, two = trained(1, 4), trained(2, 2)
    together = [first + second for first, second in zip(rows(two, 0), rows(two, 1), strict=True)]
    assert together == rows(one, 0)
    assert [len(step) for step in rows(two, 1)] == [2] * 6
    history = two.history()
    assert [row["step"] for row in history] == [1, 2, 3, 4, 5, 6]
    assert len((two.folder / "log.jsonl").read_text().splitlines()) == 6
    for ours, theirs in zip(history, one.history(), strict=True):
        assert abs(ours["loss"] - theirs["loss"]) < 1e-3
    assert len((two.folder / "held_out.jsonl").read_text().splitlines()) == 1  # asked by both, written by the first
    assert two.status == "complete" and (two.folder / "adapter" / "adapter_model.safetensors").is_file()
    assert (two.folder / "checkpoints" / "checkpoint-6" / "rng_state_1.pth").is_file()
    assert sorted(path.name for path in two.folder.parent.glob("of-*")) == ["of-1", "of-2"]


def test_two_processes_refine_an_sft_run_by_kto(trained):
    parent = trained(1, 4)
    kto = trained(2, 2, "-p", "epochs", "2", sft_run=parent.folder.name)  # one epoch takes the same way
    assert kto.status == "complete" and kto.record["parent"] == parent.folder.name
    assert "a frozen copy of the SFT adapter" in (kto.folder / "launch" / "log.txt").read_text()
    assert [row["step"] for row in kto.history()] == [1, 2, 3, 4, 5, 6]
    assert len((kto.folder / "log.jsonl").read_text().splitlines()) == 6  # by the first process alone
    before, after = (load_file(run / "adapter" / "adapter_model.safetensors") for run in (parent.folder, kto.folder))
    assert before.keys() == after.keys() and any((before[name] != after[name]).any() for name in before)


@pytest.mark.skipif(find_spec("triton") is None, reason="unsloth splits weights only where triton is installed")
def test_sharded_weights_train_as_whole_ones(trained):
    whole, sharded = trained(2, 2), trained(2, 2, "--shard")
    assert (
        sharded.status == "complete" and "native FSDP2 sharded" in (sharded.folder / "launch" / "log.txt").read_text()
    )
    for ours, theirs in zip(sharded.history(), whole.history(), strict=True):
        assert abs(ours["loss"] - theirs["loss"]) < 1e-3
    ours, theirs = (load_file(run.folder / "adapter" / "adapter_model.safetensors") for run in (sharded, whole))
    assert ours.keys() == theirs.keys()
    assert all((ours[name] - theirs[name]).abs().max() < 1e-3 for name in ours)
