"""What the tests of the export share."""

import json
import shutil
from pathlib import Path

import pytest

from toolset_nb.runs import Run


@pytest.fixture
def run():
    run = Run.start("sft", "tiny")
    run.path("adapter", "adapter_model.safetensors").write_bytes(b"weights")
    run.finish()
    return run


@pytest.fixture(scope="session")
def trained(tiny_model, tmp_path_factory):
    """A folder as a run on the tiny random model leaves it, with LoRA matrices that change what it answers."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM"))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    folder = tmp_path_factory.mktemp("trained") / "sft-tiny"
    adapted.save_pretrained(folder / "adapter")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder / "adapter")
    record = {"status": "complete", "method": "sft", "size": "tiny", "started": "2026-11-20T10:00:00+00:00"}
    record |= {"base_folder": str(tiny_model), "hardware": {"device": "cpu"}, "parameters": {"call_format": "hermes"}}
    (folder / "run.json").write_text(json.dumps(record))
    return folder


@pytest.fixture
def lora_run(trained, tmp_path):
    """A copy of that run, for one test."""
    return Run(Path(shutil.copytree(trained, tmp_path / "runs" / trained.name)))
