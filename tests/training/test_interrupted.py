"""Training that is killed, runs out of memory or out of disk, and goes on: real processes, the notebooks' own code.

The server that forks the processes imports torch, unsloth and TRL once; the model is a random one of 3 million parameters.
"""

import contextlib
import json
import math
import multiprocessing
import os
import resource
import signal
from pathlib import Path

import pytest

from toolset_nb import launch
from toolset_nb.paths import repo_root
from toolset_nb.runs import Run
from toolset_nb.training import checkpoints

pytestmark = pytest.mark.notebooks
SHORT = {
    "max_rows": 24,
    "max_steps": 6,
    "batch_size": 4,
    "gradient_accumulation": 1,
    "save_steps": 2,
    "logging_steps": 1,
}
SHORT |= {"interactive": "no", "run_name": "it", "model_size": "tiny", "max_length": 512}
POINTS = ("step", "checkpoint", "marker", "adapter", "record")


def train(script: str, folder: str, trouble: str = "") -> None:
    """Runs a notebook's script in this process, with runs under `folder` and one thing going wrong."""
    os.environ["TOOLSET_NB_RUNS"] = folder
    import torch
    import transformers
    import unsloth  # noqa: F401

    from toolset_nb import runs, training

    torch.set_num_threads(1)
    training.answer = lambda *_, **__: [""] * 3
    log = Path(folder) / "rows.jsonl"
    references = []

    class Trouble(transformers.TrainerCallback):
        def on_train_begin(self, args, state, control, model, **_):
            references.append({name: weight.clone() for name, weight in model.named_parameters() if ".ref." in name})

        def on_train_end(self, args, state, control, model, **_):
            weights = dict(model.named_parameters())
            kept = all(torch.equal(weights[name], weight) for name, weight in references[0].items())
            moved = any(
                not torch.equal(weights[name.replace(".ref.", ".default.")], weights[name]) for name in references[0]
            )
            (Path(folder) / "reference.json").write_text(json.dumps({"kept": kept, "moved": moved}))

        def on_step_end(self, args, state, control, **_):
            if trouble == "step" and state.global_step == 5:
                die()

        def on_step_begin(self, args, state, control, model, **_):
            batch = args.per_device_train_batch_size
            if trouble == "nan" and state.global_step == 2:
                next(weight for weight in model.parameters() if weight.requires_grad).data.fill_(math.nan)
            if trouble.startswith("memory") and state.global_step == int(trouble[-1]) and batch > 2:
                raise torch.OutOfMemoryError("CUDA out of memory (raised by the test)")
            if trouble == "always":
                raise torch.OutOfMemoryError("CUDA out of memory (raised by the test)")

    own = training.callbacks
    training.callbacks = lambda *given: [*own(*given), Trouble()]
    original = transformers.Trainer._save_optimizer_and_scheduler
    if trouble == "checkpoint":
        transformers.Trainer._save_optimizer_and_scheduler = lambda self, path: (
            die() if self.state.global_step == 4 else original(self, path)
        )
    if trouble == "scoring":
        import trl

        scored = trl.KTOTrainer.compute_ref_log_probs

        def too_much(self, model, batch):
            if self.args.per_device_train_batch_size > 2:
                raise torch.OutOfMemoryError("CUDA out of memory (raised by the test)")
            return scored(self, model, batch)

        trl.KTOTrainer.compute_ref_log_probs = too_much
    if trouble == "disk":

        def full(self, path):
            if self.state.global_step == 4:
                resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
            return original(self, path)

        transformers.Trainer._save_optimizer_and_scheduler = full
    if trouble == "marker":
        seal = training.progress.seal
        training.progress.seal = lambda path, step: die() if step == 4 else seal(path, step)
    if trouble == "adapter":

        def half(run, model, tokenizer):
            run.path("adapter", "adapter_model.safetensors").write_bytes(b"torn")
            die()

        training.save_adapter = half
    if trouble == "record":
        replace = os.replace

        def torn(source, target):
            finished = str(target).endswith("run.json") and '"complete"' in Path(source).read_text()
            return die() if finished else replace(source, target)

        runs.os.replace = torn
    source = transformers.Trainer.get_batch_samples

    def seen(self, *given, **more):
        samples, count = source(self, *given, **more)
        ids = (
            [
                [token for token, kept in zip(row.tolist(), mask.tolist(), strict=True) if kept]
                for batch in samples
                for row, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
            ]
            if samples and "input_ids" in samples[0]
            else []
        )
        with log.open("a") as file:
            file.write(json.dumps({"step": self.state.global_step + 1, "rows": ids}) + "\n")
        return samples, count

    transformers.Trainer.get_batch_samples = seen
    with open(os.path.join(folder, "output.txt"), "a") as output, contextlib.redirect_stdout(output):
        try:
            exec(compile(script, "notebook", "exec"), {"__name__": "__main__"})
        except Exception as error:  # as the notebook's own hook does, which needs IPython
            run = max(Path(folder).glob("*/run.json"), key=os.path.getmtime).parent
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            Run(run).fail(f"{type(error).__name__}: {error}")
            raise SystemExit(3) from error


def die():
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(scope="module")
def start(tiny_model, tmp_path_factory):
    """start(folder, trouble, **parameters): trains in a process of its own; its exit code."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["unsloth", "trl"])
    scratch = tmp_path_factory.mktemp("scripts")

    def run(folder, trouble="", notebook="sft", **parameters):
        folder.mkdir(exist_ok=True)
        given = SHORT | ({"base_model": str(tiny_model)} if notebook == "sft" else {}) | parameters
        if notebook == "kto":
            given.pop("model_size")
        path = repo_root() / "notebooks" / f"{notebook}.ipynb"
        script = launch.script(path, given, scratch / "out.ipynb").replace(launch.HEADER, "_main_process = True\n")
        process = server.Process(target=train, args=(script, str(folder), trouble))
        process.start()
        process.join(600)
        return process.exitcode

    return run


@pytest.fixture(scope="module")
def whole(start, tmp_path_factory):
    """A folder with a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole")
    assert start(folder) == 0, (folder / "output.txt").read_text()
    return folder


def rows_of(folder):
    """Step -> its rows' tokens; of a step done twice, what the last time saw."""
    return {entry["step"]: entry["rows"] for entry in map(json.loads, (folder / "rows.jsonl").open())}


def weights(folder):
    return (folder / "it" / "adapter" / "adapter_model.safetensors").read_bytes()


def losses(folder):
    return [(row["step"], row["loss"]) for row in Run(folder / "it").history()]


@pytest.mark.parametrize("point", POINTS)
def test_a_run_killed_anywhere_goes_on_and_ends_as_if_nothing_had_happened(point, start, whole, tmp_path):
    assert start(tmp_path / "a", point) == -signal.SIGKILL
    run = Run(tmp_path / "a" / "it")
    assert run.status == "crashed"
    newest = {"step": 4, "checkpoint": 2, "marker": 2, "adapter": 6, "record": 6}[point]
    assert checkpoints(run)[-1].name == f"checkpoint-{newest}"
    assert start(tmp_path / "a", resume="auto") == 0
    assert run.status == "complete"
    assert [path.name for path in checkpoints(run)] == [f"checkpoint-{step}" for step in (2, 4, 6)]
    assert losses(tmp_path / "a") == losses(whole)
    assert weights(tmp_path / "a") == weights(whole)
    mean = Run(whole / "it").record["results"]["train_loss"]
    assert math.isclose(run.record["results"]["train_loss"], mean, rel_tol=1e-3)


def test_a_full_disk_fails_the_run_and_a_resume_completes_it(start, whole, tmp_path):
    assert start(tmp_path / "a", "disk") == 3
    run = Run(tmp_path / "a" / "it")
    assert run.status == "failed" and checkpoints(run)[-1].name == "checkpoint-2"
    assert start(tmp_path / "a", resume="latest") == 0
    assert run.status == "complete" and weights(tmp_path / "a") == weights(whole)


@pytest.mark.parametrize(("at", "since"), [(1, 0), (5, 4)])
def test_when_memory_runs_out_smaller_batches_take_over_with_the_same_rows(at, since, start, whole, tmp_path):
    assert start(tmp_path / "a", f"memory{at}") == 0, (tmp_path / "a" / "output.txt").read_text()
    run = Run(tmp_path / "a" / "it")
    expected = {"at_step": at, "from_step": since, "batch_size": 2, "gradient_accumulation": 2}
    assert run.status == "complete" and run.record["recovered"] == [expected]
    assert rows_of(tmp_path / "a") == rows_of(whole)
    for (_, loss), (_, before) in zip(losses(tmp_path / "a"), losses(whole), strict=True):
        assert math.isclose(loss, before, rel_tol=1e-3)


def test_the_smallest_batch_that_does_not_fit_ends_with_what_would_help(start, tmp_path):
    assert start(tmp_path / "a", "always") == 3
    run = Run(tmp_path / "a" / "it")
    assert [entry["batch_size"] for entry in run.record["recovered"]] == [2, 1]
    assert "lower max_length" in run.record["reason"]
    assert (run.folder / "plots" / "loss.png").is_file()  # of a run that failed, too


def test_ktos_batches_stay_even_and_its_reference_stays_the_sft_model(start, whole):
    assert start(whole, "memory3", notebook="kto", sft_run="it", run_name="k") == 0, (whole / "output.txt").read_text()
    run = Run(whole / "k")
    expected = {"at_step": 3, "from_step": 2, "batch_size": 2, "gradient_accumulation": 2}
    assert run.status == "complete" and run.record["recovered"] == [expected]
    assert [row["step"] for row in run.history()] == [1, 2, 3, 4, 5, 6]
    assert json.loads((whole / "reference.json").read_text()) == {"kept": True, "moved": True}


def test_memory_that_runs_out_while_ktos_reference_is_scored_halves_the_batch_too(start, whole):
    given = {"notebook": "kto", "sft_run": "it", "run_name": "scored", "epochs": 2}
    assert start(whole, "scoring", **given) == 0, (whole / "output.txt").read_text()
    run = Run(whole / "scored")
    expected = {"at_step": 0, "from_step": 0, "batch_size": 2, "gradient_accumulation": 2}
    assert run.status == "complete" and run.record["recovered"] == [expected]
    assert json.loads((whole / "reference.json").read_text()) == {"kept": True, "moved": True}


def test_148_a_loss_that_is_no_number_is_told(start, tmp_path):
    assert start(tmp_path / "a", "nan") == 0, (tmp_path / "a" / "output.txt").read_text()
    assert "The loss is not a number" in Run(tmp_path / "a" / "it").record["warnings"]
