"""A run's adapter merged into its base: the one step that needs the model in memory."""

from pathlib import Path

from toolset_nb.runs import Run


class ExportError(RuntimeError):
    """A model could not be merged, converted or uploaded; nothing half-written is left."""


def merge(run: Run, folder: Path) -> Path:
    """The run's adapter merged into its 16- or 32-bit base, as safetensors in `folder`."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    record = run.record
    dtype = torch.float32 if record["hardware"]["device"] == "cpu" else torch.bfloat16
    model = AutoModelForCausalLM.from_pretrained(sixteen_bit(record["base_folder"]), dtype=dtype)
    model = PeftModel.from_pretrained(model, run.folder / "adapter").merge_and_unload()
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(run.folder / "adapter").save_pretrained(folder)
    return folder


def sixteen_bit(base: str) -> str:
    """A merge takes the 16-bit base, never the 4-bit one it was trained on."""
    for ending in ("-unsloth-bnb-4bit", "-bnb-4bit"):
        base = base.removesuffix(ending)
    return base
