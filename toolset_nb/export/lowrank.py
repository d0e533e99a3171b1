"""Whole trained layers as LoRA matrices: a tenth of the size, and less than the whole of what was learned."""

from toolset_nb.export.gguf import calibration
from toolset_nb.export.weights import ExportError, base_files
from toolset_nb.models import PROJECTIONS
from toolset_nb.runs import Run
from toolset_nb.training.record import base_name, save_adapter

ROUNDING = 1e-2  # of a matrix's norm: a smaller change is what merging into 16 bits leaves


def factor(run: Run, rank: int, name: str = "", base: str = "", rows: int = 100) -> tuple[Run, float]:
    """(a new run, the share of the change that it keeps): LoRA of this rank for each projection that the run has changed.

    The change is measured from `base` (default: the run's own), which is what the new adapter sits on. Of each matrix that part of
    `rank` ranks is kept, in 16 bits, which changes the layer's outputs most alike over the first `rows` training rows: the largest
    singular values of change times root of the inputs' second moment (as SVD-LLM does, arXiv 2403.07378). The share is that of the
    outputs' squared norm. Changes of norms and embeddings are left out. Raises ExportError when no projection differs.
    Train on with `-p base_model NAME` to win back what was lost.
    """
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = base or run.record["base_folder"]
    started_from = AutoModelForCausalLM.from_pretrained(base_files(run.record["base_folder"]), dtype=torch.float32)
    trained = PeftModel.from_pretrained(started_from, run.folder / "adapter").merge_and_unload().eval()
    model = AutoModelForCausalLM.from_pretrained(base_files(base), dtype=torch.float32)
    weights, changes = trained.state_dict(), {}
    for key, weight in model.state_dict().items():
        change = weights[key] - weight
        if key.split(".")[-2] in PROJECTIONS and change.norm() > ROUNDING * weight.norm():
            changes[key.removesuffix(".weight")] = change
    if not changes:
        raise ExportError(f"{run}: no projection differs from {base}, so there is nothing to factor")
    tokenizer = AutoTokenizer.from_pretrained(run.folder / "adapter")
    moments = _second_moments(trained, changes, tokenizer, calibration(run, rows))
    layers = sorted({int(key.split(".layers.")[1].split(".")[0]) for key in changes})
    names = sorted({key.rpartition(".")[2] for key in changes})
    config = LoraConfig(
        r=rank, lora_alpha=rank, target_modules=names, layers_to_transform=layers, task_type="CAUSAL_LM"
    )
    model = get_peft_model(model, config)
    kept = total = 0.0
    for key, change in changes.items():
        spread, directions = torch.linalg.eigh(moments[key])
        spread = spread.clamp_min(1e-4 * spread.mean()).sqrt()  # no direction counts for nothing: rows are few
        left, values, right = torch.linalg.svd((change.double() @ directions) * spread, full_matrices=False)
        root = values[:rank].sqrt()
        module = model.get_submodule(f"base_model.model.{key}")
        module.lora_A["default"].weight.data = (root[:, None] * right[:rank] / spread) @ directions.T
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
    save_adapter(made, model.half(), tokenizer)
    made.finish(results={"kept": kept / total})
    return made, kept / total


def _second_moments(model, projections, tokenizer, texts: list[str]) -> dict:
    """Projection -> mean of x xT over its inputs x at every token of `texts`, [inputs, inputs], float64."""
    import torch

    sums = dict.fromkeys(projections, 0)

    def count(key):
        def add(module, inputs):
            x = inputs[0].flatten(0, -2)
            sums[key] = sums[key] + (x.T @ x).double()

        return add

    hooks = [model.get_submodule(key).register_forward_pre_hook(count(key)) for key in projections]
    tokens = 0
    with torch.no_grad():
        for text in texts:
            batch = tokenizer(text, add_special_tokens=False, return_tensors="pt")
            tokens += model(**batch).logits.shape[1]
    for hook in hooks:
        hook.remove()
    return {key: value / tokens for key, value in sums.items()}
