"""Whole trained layers as LoRA matrices: a tenth of the size, and less than the whole of what was learned."""

from toolset_nb.export.weights import ExportError, base_files
from toolset_nb.models import PROJECTIONS
from toolset_nb.runs import Run
from toolset_nb.training.record import base_name, save_adapter


def factor(run: Run, rank: int, name: str = "", base: str = "") -> tuple[Run, float]:
    """(a new run, the share of the change that it keeps): LoRA of this rank for each projection that the run has changed.

    The change is measured from `base` (default: the run's own), which is what the new adapter sits on; of each matrix the `rank`
    largest singular values are kept, the share is that of the squared norm. Changes of norms and embeddings are left out.
    Raises ExportError when no projection differs. Train on with `-p base_model NAME` to win back what was lost.
    """
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = base or run.record["base_folder"]
    started_from = AutoModelForCausalLM.from_pretrained(base_files(run.record["base_folder"]), dtype=torch.float32)
    trained = PeftModel.from_pretrained(started_from, run.folder / "adapter").merge_and_unload().state_dict()
    model = AutoModelForCausalLM.from_pretrained(base_files(base), dtype=torch.float32)
    changes = {
        key.removesuffix(".weight"): trained[key] - weight
        for key, weight in model.state_dict().items()
        if key.split(".")[-2] in PROJECTIONS and not torch.equal(trained[key], weight)
    }
    if not changes:
        raise ExportError(f"{run}: no projection differs from {base}, so there is nothing to factor")
    layers = sorted({int(key.split(".layers.")[1].split(".")[0]) for key in changes})
    config = LoraConfig(
        r=rank, lora_alpha=rank, target_modules=PROJECTIONS, layers_to_transform=layers, task_type="CAUSAL_LM"
    )
    model = get_peft_model(model, config)
    kept = total = 0.0
    for key, change in changes.items():
        left, values, right = torch.linalg.svd(change, full_matrices=False)
        root = values[:rank].sqrt()
        module = model.get_submodule(f"base_model.model.{key}")
        module.lora_A["default"].weight.data = root[:, None] * right[:rank]
        module.lora_B["default"].weight.data = left[:, :rank] * root
        kept, total = kept + float((values[:rank] ** 2).sum()), total + float((values**2).sum())
    same = {field: run.record[field] for field in ("dataset", "hardware") if field in run.record}
    made = Run.start(
        run.record["method"],
        run.record["size"],
        name or f"{run.folder.name}-rank{rank}",
        parameters={**run.record["parameters"], "lora_rank": rank, "lora_alpha": rank},
        base_folder=base,
        base_model=base_name(base),
        parent=run.folder.name,
        **same,
    )
    save_adapter(made, model, AutoTokenizer.from_pretrained(run.folder / "adapter"))
    made.finish(results={"kept": kept / total})
    return made, kept / total
