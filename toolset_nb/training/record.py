"""What a training notebook leaves in the run folder: the fields of run.json and the adapter."""

import json
import os
from pathlib import Path
from typing import Any

from toolset_nb.runs import Run, file_hash, is_main
from toolset_nb.training.data import data_path


def save_adapter(run: Run, model, tokenizer) -> Path:
    """The policy's adapter and tokenizer under adapter/, safetensors only; a frozen reference copy is left out.

    In several processes each of them calls this, since weights that are split over them are gathered; the first one writes.
    """
    from torch.distributed.tensor import DTensor

    folder = run.path("adapter", "x").parent
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    split = any(isinstance(weight, DTensor) for weight in trained.values())
    state = {name: weight.full_tensor() for name, weight in trained.items()} if split else None
    if is_main():
        model.save_pretrained(folder, selected_adapters=["default"], state_dict=state)
        tokenizer.save_pretrained(folder)
    return folder


def describe(
    settings: Any, values: dict, machine, base: str, data: list[dict], parent: str | None = None
) -> dict[str, Any]:
    """The fields of run.json that a training notebook knows at its start; a `base` with an adapter is a run that trains on."""
    path, adapter = data_path(settings.dataset), Path(base) / "adapter_config.json"
    if adapter.exists():
        parent, config = Path(base).resolve().parent.name, json.loads(adapter.read_text("utf-8"))
        base = config["base_model_name_or_path"]
        low_rank = not config["modules_to_save"]
        values = values | {
            f"lora_{name}": low_rank * config[key] for name, key in (("rank", "r"), ("alpha", "lora_alpha"))
        }
    return {
        "parameters": {**settings.model_dump(), **values},
        "base_folder": base,
        "base_model": base_name(base),
        "dataset": {"file": path.name, "sha256": file_hash(path), "rows": len(data)},
        "hardware": {**machine._asdict(), "dtype": machine.dtype},
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "parent": parent,
    }


def base_name(base: str) -> dict[str, Any]:
    """Name and, for a Hub model, the commit that is in the cache."""
    if Path(base).is_dir():
        source = Path(base) / "source.json"
        found = json.loads(source.read_text()) if source.exists() else {}
        return {"name": Path(base).name, "revision": None, **found}
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(base, "config.json")
    return {"name": base, "revision": Path(found).parent.name if isinstance(found, str) else None}
