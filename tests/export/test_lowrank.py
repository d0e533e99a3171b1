"""A run whose adapter is the low-rank part of another's change, and training that goes on with a run's adapter."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from toolset_nb import models
from toolset_nb.__main__ import main
from toolset_nb.export import ExportError, factor
from toolset_nb.runs import Run, runs_folder


def weights(run):
    model = AutoModelForCausalLM.from_pretrained(run.record["base_folder"], dtype=torch.float32)
    return PeftModel.from_pretrained(model, run.folder / "adapter").merge_and_unload().state_dict()


def test_all_ranks_keep_the_whole_change(lora_run):
    made, kept = factor(lora_run, 4, rows=2)  # the run is LoRA of rank 4 itself
    assert kept == pytest.approx(1, abs=1e-4)
    theirs = weights(lora_run)
    assert all(torch.allclose(value, theirs[name], atol=5e-3) for name, value in weights(made).items())
    record = made.record
    assert record["status"] == "complete" and record["parent"] == lora_run.folder.name
    saved = load_file(made.folder / "adapter" / "adapter_model.safetensors")
    assert {value.dtype for value in saved.values()} == {torch.float16}
    assert record["parameters"]["lora_rank"] == 4 and record["base_folder"] == lora_run.record["base_folder"]


def test_fewer_ranks_keep_less(lora_run):
    shares = [factor(lora_run, rank, rows=2)[1] for rank in (1, 2, 3)]
    assert 0 < shares[0] < shares[1] < shares[2] < 1


def test_what_rounding_to_sixteen_bits_leaves_is_no_change(lora_run, tmp_path):
    merged = tmp_path / "merged"
    model = AutoModelForCausalLM.from_pretrained(lora_run.record["base_folder"], dtype=torch.float32)
    model.half().save_pretrained(merged)
    made, _ = factor(lora_run, 4, base=str(merged), rows=2)
    changed = {name.split(".")[-3] for name in load_file(made.folder / "adapter" / "adapter_model.safetensors")}
    assert changed == {"q_proj", "down_proj"}


def test_a_run_that_changed_nothing_is_refused(lora_run):
    path = lora_run.folder / "adapter" / "adapter_model.safetensors"
    save_file({name: torch.zeros_like(value) for name, value in load_file(path).items()}, path, {"format": "pt"})
    with pytest.raises(ExportError, match="nothing to factor"):
        factor(lora_run, 4)


def test_the_command_names_what_it_made(lora_run, capsys):
    assert main(["factor", str(lora_run.folder), "--rank", "2", "--run-name", "small"]) == 0
    assert "rank 2" in capsys.readouterr().out
    assert Run(runs_folder() / "small").status == "complete"


def test_a_run_as_base_model_trains_on_with_its_adapter(lora_run):
    folder = models.base_folder("tiny", str(lora_run.folder))
    assert folder == str(lora_run.folder / "adapter")
    named = Run.start("sft", "tiny", "earlier")
    with pytest.raises(models.ModelError, match="earlier is running: only a complete run can be trained on"):
        models.local_folder("earlier")
    named.finish()
    assert models.local_folder("earlier") == named.folder / "adapter"
    model = AutoModelForCausalLM.from_pretrained(lora_run.record["base_folder"])
    model = PeftModel.from_pretrained(model, folder)  # as unsloth loads it, which would patch trl for all other tests
    before = dict(model.named_parameters())
    model = models.add_adapter(model, {"lora_rank": 8})
    trained = [name for name, weight in model.named_parameters() if weight.requires_grad]
    assert trained and all("lora_" in name for name in trained)
    assert dict(model.named_parameters()).keys() == before.keys()


def test_the_model_in_the_box_can_be_trained_on_before_it_was_ever_asked(tmp_path, monkeypatch):
    monkeypatch.setenv("TOOLSET_NB_RUNS", str(tmp_path))
    folder = models.local_folder("finished")
    assert folder == tmp_path / "finished" / "adapter"
    base = json.loads((folder / "adapter_config.json").read_text("utf-8"))["base_model_name_or_path"]
    assert Path(base).is_dir()  # this machine's copy, nothing to fetch
