"""Training that goes on when memory runs out: smaller batches, the same rows, from the last whole checkpoint."""

import contextlib
import copy
import gc
from collections.abc import Callable
from typing import Any

from toolset_nb.errors import ToolsetError
from toolset_nb.runs import Run, is_main
from toolset_nb.training.plots import save_plots
from toolset_nb.training.progress import quieten
from toolset_nb.training.resume import checkpoints

ADVICE = "lower max_length, take a smaller model_size, close what else uses the GPU, or use one with more memory"


class OutOfMemory(ToolsetError, RuntimeError):
    """The smallest batch does not fit, or memory ran out in one of several processes; the message says what would help."""


def build(make_trainer: Callable[[Any], Any], args: Any, model, run: Run, smallest: int = 1):
    """`make_trainer(args)`, with smaller batches where memory runs out in it: KTO may score its reference there."""
    while True:
        trainer = _attempt(make_trainer, args)
        if trainer is not None:
            quieten(trainer)
            return trainer
        _drop_reference(model)
        _free()
        args = _shrunk(args, smallest, 0, None, run)


def train(trainer, make_trainer: Callable[[Any], Any], run: Run, checkpoint: str | None, smallest: int = 1):
    """`trainer.train()`, where each time memory runs out a trainer with a smaller batch takes over; TRL's result.

    The batch shrinks to its next smaller divisor that is a multiple of `smallest` (KTO: 2, since it needs pairs), and the
    accumulation grows by the same factor, so that every optimizer step has the rows that it would have had.
    `make_trainer(args)` builds a trainer as the notebook does. run.json tells under `recovered` what happened. A run that
    fails leaves its plots too.
    """
    start = _trained(trainer.model)
    try:
        while True:
            args = copy.copy(trainer.args)  # as they are before the callbacks change them
            result = _attempt(trainer.train, resume_from_checkpoint=checkpoint)
            if result is not None:
                return _whole_loss(result, run)
            _forget(trainer)
            whole = checkpoints(run)
            checkpoint = str(whole[-1]) if whole else None
            args = _shrunk(args, smallest, trainer.state.global_step, checkpoint, run)
            _restore(trainer.model, start)
            trainer = build(make_trainer, args, trainer.model, run, smallest)
    except BaseException:
        with contextlib.suppress(Exception):  # what stopped the run is what has to be told
            if is_main():
                save_plots(run, run.record["method"])
        raise


def smaller(batch: int, smallest: int = 1) -> int | None:
    """The next smaller batch that divides `batch` and is a multiple of `smallest`; None when there is none."""
    fitting = [size for size in range(smallest, batch, smallest) if batch % size == 0]
    return fitting[-1] if fitting else None


def _attempt(work: Callable[..., Any], *given: Any, **more: Any):
    """What `work` gives, or None when memory ran out. Returning lets go of the traceback and its tensors."""
    import torch

    try:
        return work(*given, **more)
    except torch.OutOfMemoryError:
        return None


def _shrunk(args: Any, smallest: int, step: int, checkpoint: str | None, run: Run) -> Any:
    """A copy of the arguments with the next smaller batch and the same rows a step, recorded and told; or OutOfMemory."""
    args, whole = copy.copy(args), args.per_device_train_batch_size
    batch = smaller(whole, smallest)
    if args.world_size > 1 or batch is None:
        raise OutOfMemory(_sentence(args, batch, step))
    args.gradient_accumulation_steps *= whole // batch
    args.per_device_train_batch_size = batch
    since = int(checkpoint.rpartition("-")[2]) if checkpoint else 0
    told = {"at_step": step, "from_step": since, "batch_size": batch}
    told["gradient_accumulation"] = args.gradient_accumulation_steps
    run.update(recovered=[*run.record.get("recovered", []), told])
    print(
        f"! Out of memory after step {step}: on from step {since} with batch_size {batch} and "
        f"gradient_accumulation {args.gradient_accumulation_steps}, the same rows a step",
        flush=True,
    )
    return args


def _trained(model) -> dict[str, Any]:
    """A copy of the weights that training changes, in main memory."""
    return {name: p.detach().cpu().clone() for name, p in model.named_parameters() if p.requires_grad}


def _restore(model, weights: dict[str, Any]) -> None:
    """The model as it was before the first step."""
    import torch

    _drop_reference(model)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in weights.items():
            parameters[name].copy_(value)
            parameters[name].requires_grad_(True)


def _drop_reference(model) -> None:
    """Takes KTO's reference out, since its trainer makes a new one of the policy."""
    if "ref" in getattr(model, "peft_config", {}):
        model.delete_adapter("ref")
        model.set_adapter("default")  # PEFT leaves none active where whole layers are trained


def _forget(trainer) -> None:
    """Gives back what the failed trainer holds: gradients, optimizer states, cached blocks."""
    trainer.model.zero_grad(set_to_none=True)
    trainer.accelerator.free_memory()
    trainer.optimizer = trainer.lr_scheduler = None
    _free()


def _free() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _sentence(args, batch: int | None, step: int) -> str:
    if batch is None:
        return (
            f"out of memory after step {step} with batch_size {args.per_device_train_batch_size}, the smallest that "
            f"works: {ADVICE}"
        )
    accumulation = args.gradient_accumulation_steps * args.per_device_train_batch_size // batch
    return (
        f"out of memory after step {step} in one of {args.world_size} processes, which cannot change their batch alone. Start "
        f"anew, without resume, with: -p batch_size {batch} -p gradient_accumulation {accumulation}"
    )


def _whole_loss(result, run: Run):
    """The result with train_loss over all logged steps: the trainer divides the loss since its restart by all steps."""
    history = [row for row in run.history() if "loss" in row]
    if history and {"resumed", "recovered"} & run.record.keys():
        steps = [row["step"] for row in history]
        weights = [now - before for before, now in zip([0, *steps], steps, strict=False)]
        mean = sum(row["loss"] * weight for row, weight in zip(history, weights, strict=True)) / sum(weights)
        result.metrics["train_loss"] = mean
    return result
