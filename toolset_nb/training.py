"""What surrounds a TRL trainer in the notebooks: rows in, log, plots, checks and answers out.

The trainer call itself stands in the notebook, since people open it to learn that. Not here: loading models (`models`), the run
folder (`runs`), or any change to TRL's loss.
"""

import contextlib
import json
import math
import os
import random
import re
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from toolset_nb import energy, rows
from toolset_nb.jsonl import DataError
from toolset_nb.paths import repo_root
from toolset_nb.runs import Run, RunError, file_hash

MARKER = "COMPLETE.json"
MOST_KL = 10.0  # nats; KTO's own runs stay below 1
IDLE_PERCENT = 30
HELD_OUT = 20  # prompts asked during training


def is_interactive(choice: str = "auto") -> bool:
    """Whether live plots and progress bars make sense: a front end is attached. papermill and nbval count as headless."""
    if choice != "auto":
        return choice == "yes"
    return any(name in os.environ for name in ("COLAB_RELEASE_TAG", "JPY_SESSION_NAME", "VSCODE_PID"))


def data_path(name: str) -> Path:
    """A dataset's path: as given, else relative to the repository (the notebook's working folder varies)."""
    for path in (Path(name).expanduser(), repo_root() / name):
        if path.is_file():
            return path
    raise DataError(f"dataset {name!r}: no such file here or under {repo_root()}")


def load_rows(settings: Any, method: str, values: dict[str, Any]) -> list[dict]:
    """The file's rows as prompt/completion (+ label) rows in file order; raises DataError when the file has problems.

    `values` (of `models.defaults`) may say how many: the size's own `max_rows` holds where the settings name no other.
    """
    path = data_path(settings.dataset)
    findings = list(rows.validate([path]))
    if findings:
        shown = "\n".join(map(str, findings[:20]))
        raise DataError(f"{path.name} has {len(findings)} problems (python -m toolset_nb validate {path}):\n{shown}")
    rendering = (settings.call_format, settings.context_source, settings.tool_exposure)
    source = [row for _, row in rows.read(path)]
    if method == "sft":
        source = [row for row in source if row.get("label") is not False]
    parts = rows.training_rows(source, *rendering)
    if method == "kto":  # the two rows of a pair part at their last answer; what stands before it is in its prompt
        parts = list({part["id"].partition("#")[0]: part for part in parts}.values())
    return parts[: settings.max_rows or values.get("max_rows") or None]


def drop_long(data: list[dict], tokenizer, max_length: int, pairs: bool = False) -> list[dict]:
    """Rows that fit `max_length` tokens whole; prints how many and why the others do not. `pairs` drops both rows of a pair."""
    lengths = [sum(_lengths(tokenizer, row)) for row in data]
    keep = [length <= max_length for length in lengths]
    if pairs:
        keep = [keep[i] and keep[i ^ 1] if (i ^ 1) < len(keep) else False for i in range(len(keep))]
    kept = [row for row, good in zip(data, keep, strict=True) if good]
    ordered = sorted(lengths) or [0]
    middle, high = ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.95)]
    print(
        f"{len(kept)} of {len(data)} rows fit max_length {max_length} (median {middle} tokens, 95% {high}, longest {ordered[-1]})"
    )
    for row, length in zip(data, lengths, strict=True):
        if length > max_length:
            print(f"  left out: {row['id']}, {length} tokens; its answer would be cut off")
    if not kept:
        raise DataError(f"no row fits max_length {max_length}: raise it above {ordered[0]}")
    return kept


def arrange(data: list[dict], batch_size: int, seed: int) -> list[dict]:
    """The rows in a random order in which those of one batch are of about one length, so that little of a batch is padding.

    Only within a batch: `group_by_length` of transformers also walks from long batches to short ones, again and again, and with
    two rows a batch the model learned less from it. For a trainer that takes rows as they come (`sequential`).
    """
    shuffle = random.Random(seed).shuffle
    order = list(data)
    shuffle(order)
    near = 50 * batch_size  # few enough that long and short rows stay mixed over the epoch
    groups = [sorted(order[start : start + near], key=_characters) for start in range(0, len(order), near)]
    batches = [group[i : i + batch_size] for group in groups for i in range(0, len(group), batch_size)]
    whole = [batch for batch in batches if len(batch) == batch_size]
    shuffle(whole)
    rest = [row for batch in batches if len(batch) < batch_size for row in batch]
    return [row for batch in whole for row in batch] + rest


def to_dataset(data: Iterable[dict]):
    """A Hugging Face dataset of the columns TRL reads."""
    from datasets import Dataset

    return Dataset.from_list(
        [{key: row[key] for key in ("prompt", "completion", "label") if key in row} for row in data]
    )


def check_supervised(trainer, tokenizer, data: list[dict], show: int = 3) -> None:
    """Asserts that the loss covers the assistant's own tokens and nothing else, and shows `show` rows with that part marked."""
    table = trainer.train_dataset
    if len(table) != len(data):
        raise DataError(f"the trainer kept {len(table)} of {len(data)} rows: some lost every supervised token")
    for number, (row, entry) in enumerate(zip(data, table, strict=True)):
        if "labels" in entry:
            answer = [token for token, label in zip(entry["input_ids"], entry["labels"], strict=True) if label != -100]
        else:
            answer = entry["completion_ids"]
        text = tokenizer.decode(answer)
        expected = row["completion"][0]["content"]
        if text.removesuffix("\n").removesuffix(tokenizer.eos_token).strip() != expected.strip():
            raise DataError(f"row {row['id']}: supervised is {text!r}, the assistant's turn is {expected!r}")
        if number < show:
            print(f"--- {row['id']}: {len(answer)} supervised tokens")
            print(
                "".join(f"{message['role']}: {message['content']}\n" for message in row["prompt"])
                + f">>>{text.rstrip()}<<<"
            )
    print(f"{len(data)} rows checked: only assistant tokens are supervised")


def check_reference(trainer) -> None:
    """Asserts that KTO's reference is a frozen copy of the SFT adapter, equal to the policy before the first step."""
    import torch

    parameters = dict(trainer.model.named_parameters())
    pairs = [(name, name.replace(".ref.", ".default.")) for name in parameters if ".ref." in name]
    if not pairs:
        raise DataError("the trainer made no reference adapter: KTO would compare with the untuned base")
    for reference, policy in pairs:
        if parameters[reference].requires_grad or not torch.equal(parameters[reference], parameters[policy]):
            raise DataError(f"{reference} is not a frozen copy of the SFT policy")
    print(f"reference: a frozen copy of the SFT adapter ({len(pairs)} tensors)")


def quieten(trainer) -> None:
    """Removes the trainer's own table and prints, so that each logged step is shown once."""
    from transformers.trainer_callback import PrinterCallback
    from transformers.utils.notebook import NotebookProgressCallback

    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(NotebookProgressCallback)


def resume_point(settings: Any) -> tuple[Run | None, str | None]:
    """(run, checkpoint) to go on from: `resume` is "latest", "auto" or a run's name; (None, None) for a new run.

    "latest" takes the newest unfinished run, "auto" does so where there is one and else starts anew (with `run_name`: that run).
    Only a run of the notebook's own method counts, and only a checkpoint that carries its marker and the sizes in it is
    whole. Raises RunError when there is none.
    """
    if not settings.resume:
        return None, None
    from toolset_nb.runs import find, list_runs
    from toolset_nb.settings import KTOSettings

    method = "kto" if isinstance(settings, KTOSettings) else "sft"

    if settings.resume in ("latest", "auto"):
        same = [run for run in list_runs() if run.record["method"] == method]
        unfinished = [run for run in same if run.status in ("crashed", "failed") and _checkpoints(run)]
        if settings.resume == "auto" and settings.run_name:
            named = re.compile(rf"{re.escape(settings.run_name)}(-\d+)?")  # a second run of a name carries a number
            unfinished = [run for run in unfinished if named.fullmatch(run.folder.name)]
        if not unfinished and settings.resume == "auto":
            return None, None
        if not unfinished:
            raise RunError(f"resume latest: no unfinished {method} run with a whole checkpoint")
        run = unfinished[0]
    else:
        run = find(settings.resume)
        if run.record["method"] != method:
            raise RunError(f"resume: {run} is a {run.record['method']} run, expected {method}")
    whole = _checkpoints(run)
    if not whole:
        raise RunError(f"resume: {run} has no whole checkpoint")
    run.reopen()
    return run, str(whole[-1])


def callbacks(run: Run, interactive: bool, method: str, eval_steps: int = 0) -> list:
    """Trainer callbacks that write log.jsonl, print plain lines or a live plot, warn of trouble, and mark whole checkpoints.

    Every `eval_steps` steps (0: never) the model answers twenty prompts that are not in the data; see `held_out`.
    """
    import torch
    from transformers import TrainerCallback

    class RunLog(TrainerCallback):
        def on_train_begin(self, args, state, control, **_):
            self.started = self.last = time.perf_counter()
            self.first_step, self.tokens, self.display, self.warned = state.global_step, 0, None, {}
            self.joules = energy.joules()

        def on_train_end(self, args, state, control, **_):
            energy.add(run, self.joules)

        def on_step_end(self, args, state, control, model=None, processing_class=None, **_):
            if eval_steps and state.global_step % eval_steps == 0:
                share = held_out(model, processing_class)
                with run.path("held_out.jsonl").open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"step": state.global_step, "well_formed": share}) + "\n")
                print(
                    f"step {state.global_step}: {share:.0%} well-formed calls on {HELD_OUT} held-out prompts",
                    flush=True,
                )

        def on_log(self, args, state, control, logs=None, **_):
            if not logs or "loss" not in logs:
                return
            now = time.perf_counter()
            done, left = state.global_step - self.first_step, state.max_steps - state.global_step
            tokens = logs.get("num_tokens", 0)
            gpu = torch.cuda.is_available()
            fields = {
                "step": state.global_step,
                "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
                "interval_time": round(now - self.last, 3),
                **logs,
                "tokens_per_second": round((tokens - self.tokens) / max(now - self.last, 1e-9), 1),
                "memory_gb": round(torch.cuda.max_memory_allocated() / 1e9 if gpu else _resident_gb(), 2),
                "eta_seconds": round((now - self.started) / max(done, 1) * left),
            }
            with contextlib.suppress(Exception):  # only with NVIDIA's monitoring library; never worth a failed run
                fields |= {"gpu_percent": torch.cuda.utilization()} if gpu else {}
            self.last, self.tokens = now, tokens
            run.log(fields)
            for cause, remedy in health(run.history(), method, state.max_steps).items():
                if cause not in self.warned:
                    self.warned[cause] = remedy
                    print(f"! {cause} (step {state.global_step}). {remedy}", flush=True)
                    run.update(warnings=self.warned)
            if interactive:
                self._draw(run)
            else:
                print(_line(fields, state.max_steps), flush=True)

        def on_save(self, args, state, control, **_):
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            sizes = {str(f.relative_to(folder)): f.stat().st_size for f in sorted(folder.rglob("*")) if f.is_file()}
            (folder / MARKER).write_text(json.dumps({"step": state.global_step, "files": sizes}))

        def _draw(self, run):
            from IPython.display import display

            figure = plot(run.history(), method)
            if self.display is None:
                self.display = display(figure, display_id=True)
            else:
                self.display.update(figure)

    return [RunLog()]


def health(history: list[dict], method: str, steps: int) -> dict[str, str]:
    """What looks wrong in the logged steps of a run of `steps` steps: cause -> remedy; empty when nothing does."""
    losses = [row["loss"] for row in history if "loss" in row]
    found = {}
    if any(not math.isfinite(loss) for loss in losses):
        found["The loss is not a number"] = (
            "Stop, and train again with a third of the learning rate; on a T4 or older see that dtype is float16 or float32."
        )
        return found
    third = len(losses) // 3
    if third >= 3 and history[-1]["step"] >= 0.2 * steps:
        early, late = sum(losses[:third]) / third, sum(losses[-third:]) / third
        if late > 1.3 * min(_smooth(losses)) and late > early:
            found["The loss is rising"] = "Lower learning_rate to a third; the newest whole checkpoint is from before."
        elif late > 0.98 * early and method == "sft":
            found["The loss is not falling"] = (
                "Raise learning_rate three times; if that changes nothing, look at the rows shown above: is the answer supervised?"
            )
    if method == "kto":
        kl = [row["kl"] for row in history[-3:] if "kl" in row]
        if len(kl) == 3 and min(kl) > MOST_KL:
            found["The policy runs away from the SFT model (KL)"] = "Lower learning_rate to a fifth, or raise beta."
        margins = [row["rewards/margins"] for row in history if "rewards/margins" in row][-5:]
        if len(margins) == 5 and max(margins) < 0 and history[-1]["step"] >= 0.3 * steps:
            found["Bad answers are rewarded (margins below 0)"] = (
                "Check the labels of your rows (python -m toolset_nb validate), then lower learning_rate."
            )
    busy = [row["gpu_percent"] for row in history[-5:] if "gpu_percent" in row]
    if len(busy) == 5 and max(busy) < IDLE_PERCENT:
        found["The GPU is idle most of the time"] = (
            "Raise batch_size and lower gradient_accumulation by the same factor."
        )
    return found


def held_out(model, tokenizer) -> float:
    """The share of `HELD_OUT` evaluation prompts that the model answers with a call that can be read and fits its tool."""
    from toolset_nb import calls
    from toolset_nb.evaluation import load_prompts
    from toolset_nb.tools import catalogue

    prompts = [prompt["question"] for prompt in load_prompts("baseline") if prompt["expected_tools"]][:HELD_OUT]
    replies = [calls.parse(text) for text in answer(model, tokenizer, prompts, max_tokens=256)]
    good = [
        reply.kind in ("call", "text_call")
        and not reply.rescued
        and not any(catalogue().check(call.name, call.arguments) for call in reply.calls)
        for reply in replies
    ]
    return sum(good) / len(good)


def plot(history: list[dict], method: str):
    """A figure of the loss (and for KTO reward margin and KL) over steps, with a smoothed line."""
    import matplotlib.pyplot as plt

    names = ["loss"] + (["rewards/margins", "kl"] if method == "kto" else [])
    with plt.style.context("petroff10" if "petroff10" in plt.style.available else "default"):
        figure, axes = plt.subplots(1, len(names), figsize=(5.2 * len(names), 3.4), squeeze=False)
        for axis, name in zip(axes[0], names, strict=True):
            points = [(row["step"], row[name]) for row in history if name in row]
            if points:
                steps, values = zip(*points, strict=True)
                axis.plot(steps, values, ".", alpha=0.45, label="logged")
                axis.plot(steps, _smooth(values), "-", linewidth=2, label="smoothed")
                axis.annotate(f"{values[-1]:.3g}", (steps[-1], values[-1]), textcoords="offset points", xytext=(4, 6))
            axis.set(
                xlabel="optimizer step", ylabel={"kl": "KL (nats)", "loss": "loss (nats per token)"}.get(name, name)
            )
            axis.margins(x=0.08)
            axis.grid(alpha=0.3)
        if axes[0][0].lines:
            axes[0][0].legend(frameon=False)
        figure.tight_layout()
        plt.close(figure)  # shown or saved by the caller, never twice
    return figure


def save_plots(run: Run, method: str):
    """Writes plots/loss.png, says in one line what it shows, and returns the figure for the notebook to show."""
    history = run.history()
    path = run.path("plots", "loss.png")
    figure = plot(history, method)
    figure.savefig(path, dpi=120)
    if history:
        first, last = history[0], history[-1]
        print(f"loss {first['loss']:.3f} at step {first['step']}, {last['loss']:.3f} at step {last['step']}; {path}")
    return figure


def answer(model, tokenizer, prompts: list[str], max_tokens: int = 200, system: str = "") -> list[str]:
    """Greedy replies to single-turn prompts, in one batch."""
    import torch

    opening = [{"role": "system", "content": system}] if system else []
    chats = [[*opening, {"role": "user", "content": prompt}] for prompt in prompts]
    side, tokenizer.padding_side = tokenizer.padding_side, "left"
    inputs = tokenizer.apply_chat_template(
        chats, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt", padding=True
    ).to(model.device)
    tokenizer.padding_side = side
    training = model.training
    model.eval()
    with torch.no_grad():
        output = model.generate(
            **inputs, max_new_tokens=max_tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id
        )
    model.train(training)
    return tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def show_answers(prompts: list[str], before: list[str], after: list[str] | None = None) -> None:
    """Prints the replies one under the other, long ones cut."""
    for number, prompt in enumerate(prompts):
        print(f"\nyou:    {prompt}\nbefore: {_cut(before[number])}")
        if after:
            print(f"after:  {_cut(after[number])}")


def save_adapter(run: Run, model, tokenizer) -> Path:
    """The policy's adapter and tokenizer under adapter/, safetensors only; a frozen reference copy is left out."""
    folder = run.path("adapter", "x").parent
    model.save_pretrained(folder, selected_adapters=["default"])
    tokenizer.save_pretrained(folder)
    return folder


def describe(
    settings: Any, values: dict, machine, base: str, data: list[dict], parent: str | None = None
) -> dict[str, Any]:
    """The fields of run.json that a training notebook knows at its start."""
    path = data_path(settings.dataset)
    return {
        "parameters": {**settings.model_dump(), **values},
        "base_folder": base,
        "base_model": _base_name(base),
        "dataset": {"file": path.name, "sha256": file_hash(path), "rows": len(data)},
        "hardware": {**machine._asdict(), "dtype": machine.dtype},
        "parent": parent,
    }


def _base_name(base: str) -> dict[str, Any]:
    """Name and, for a Hub model, the commit that is in the cache."""
    if Path(base).is_dir():
        source = Path(base) / "source.json"
        found = json.loads(source.read_text()) if source.exists() else {}
        return {"name": Path(base).name, "revision": None, **found}
    from huggingface_hub import constants

    ref = Path(constants.HF_HUB_CACHE) / f"models--{base.replace('/', '--')}" / "refs" / "main"
    return {"name": base, "revision": ref.read_text().strip() if ref.exists() else None}


def _characters(row: dict) -> int:
    return sum(len(message["content"]) for message in row["prompt"] + row["completion"])


def _lengths(tokenizer, row: dict) -> tuple[int, int]:
    """(prompt tokens, completion tokens) as the trainer will see them."""
    prompt = tokenizer.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template(row["prompt"] + row["completion"], tokenize=False)
    size = len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
    return size, len(tokenizer(whole, add_special_tokens=False)["input_ids"]) - size


def _checkpoints(run: Run) -> list[Path]:
    """Whole checkpoints, oldest first."""
    whole = []
    for folder in (run.folder / "checkpoints").glob("checkpoint-*"):
        try:
            files = json.loads((folder / MARKER).read_text())["files"]
            if all((folder / name).stat().st_size == size for name, size in files.items()):
                whole.append(folder)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return sorted(whole, key=lambda folder: int(folder.name.rpartition("-")[2]))


def _line(fields: dict[str, Any], steps: int) -> str:
    margin = (
        f"  margin {fields['rewards/margins']:.3f}  KL {fields.get('kl', 0):.3f}" if "rewards/margins" in fields else ""
    )
    minutes, seconds = divmod(fields["eta_seconds"], 60)
    return (
        f"step {fields['step']:>5}/{steps}  loss {fields['loss']:.4f}  lr {fields.get('learning_rate', 0):.2e}{margin}  "
        f"{fields['tokens_per_second']:.0f} tokens/s  {fields['memory_gb']:.1f} GB  ETA {minutes:.0f}:{seconds:02.0f}"
    )


def _cut(text: str, length: int = 900) -> str:
    text = text.strip()
    return text if len(text) <= length else text[:length] + " ..."


def _smooth(values: Iterable[float], weight: float = 0.6) -> list[float]:
    """Exponential moving average, started at the first value."""
    smoothed, current = [], None
    for value in values:
        current = value if current is None else weight * current + (1 - weight) * value
        smoothed.append(current)
    return smoothed


def _resident_gb() -> float:
    """Peak resident memory of this process in GB."""
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e9 if sys.platform == "darwin" else 1e6)
