"""SFT beside a plain PyTorch loop on the same rows, KTO beside SFT, and how soon a large file trains; ratios of one run.

python benchmarks/training.py [ROWS]. The notebooks run as a user runs them, by
papermill; the plain loop is what one would write by hand: the same model, trained layers, optimizer, batch size and rows in a
random order, padded to the longest of a batch, the loss from all logits. Tokens are those of the rows, padding not counted.
"""

import os
import random
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

from toolset_nb import models, runs, settings, training
from toolset_nb.paths import repo_root


def notebook(name: str, **parameters) -> runs.Run:
    """The run that a notebook leaves."""
    given = [part for key, value in parameters.items() for part in ("-p", key, str(value))]
    out = runs.runs_folder() / f"{name}.ipynb"
    out.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", repo_root() / "notebooks" / f"{name}.ipynb", out]
    done = subprocess.run([*command, *given], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    return runs.find("latest")


def speed(run: runs.Run) -> float:
    """Tokens a second over the logged steps but the first, which warms up."""
    history = run.history()
    tokens = history[-1]["num_tokens"] - history[0]["num_tokens"]
    return tokens / sum(row["interval_time"] for row in history[1:])


def cost(run: runs.Run) -> str:
    """Peak memory, and the time of 1,000 rows over the logged steps but the first."""
    history, given = run.history(), run.record["parameters"]
    rows = (history[-1]["step"] - history[0]["step"]) * given["batch_size"] * given["gradient_accumulation"]
    seconds = 1000 / rows * sum(row["interval_time"] for row in history[1:])
    return f"peak {max(row['memory_gb'] for row in history):.1f} GB, {seconds:.0f} s per 1,000 rows"


def seconds_to_first_step(run: runs.Run, started: float) -> float:
    """From papermill's start to the moment the first step began."""
    first = run.history()[0]
    return datetime.fromisoformat(first["timestamp"]).timestamp() - first["interval_time"] - started


def plain_loop(rows: list[dict], values: dict) -> float:
    """Tokens a second of a loop by hand, the first twelfth of the steps not counted."""
    import torch
    from transformers import AutoModelForCausalLM

    base, tokenizer = models.base_folder("tiny"), models.embedded_tokenizer()
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).train().requires_grad_(False)
    model.model.layers[-values["layers"] :].requires_grad_(True)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=values["learning_rate"], fused=True)
    random.Random(0).shuffle(rows)
    batches = [rows[i : i + values["batch_size"]] for i in range(0, len(rows), values["batch_size"])]
    tokens, started = 0, 0.0
    for number, batch in enumerate(batches):
        if number == max(1, len(batches) // 12):
            tokens, started = 0, time.perf_counter()
        texts = [tokenizer.apply_chat_template(row["prompt"] + row["completion"], tokenize=False) for row in batch]
        inputs = tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="pt")
        labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
        for place, row in enumerate(batch):
            prompt = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, tokenize=False)
            labels[place, : len(tokenizer(prompt, add_special_tokens=False)["input_ids"])] = -100
        model(**inputs, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        tokens += int(inputs["attention_mask"].sum())
    return tokens / (time.perf_counter() - started)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 96
    values = {**models.sizes()["tiny"]["sft"], "max_rows": count}
    rows = training.load_rows(settings.SFTSettings(), "sft", values)
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["TOOLSET_NB_RUNS"] = scratch
        short = {"max_rows": count, "logging_steps": 4, "save_steps": 10000}
        sft_run = notebook("sft", model_size="tiny", **short)
        plain = plain_loop(rows, values)
        kto_run = notebook("kto", **short)
        sft, kto = speed(sft_run), speed(kto_run)
        started = time.time()
        start = seconds_to_first_step(
            notebook("sft", model_size="tiny", max_rows=5000, max_steps=1, logging_steps=1), started
        )
        print(f"{count} rows, {Path(models.base_folder('tiny')).name}, upper {values['layers']} layers, fp32")
        print(
            f"SFT by the notebook {sft:.0f} tokens/s, a plain loop {plain:.0f}: ratio {sft / plain:.2f}; {cost(sft_run)}"
        )
        print(f"KTO by the notebook {kto:.0f} tokens/s: {sft / kto:.2f} times SFT's time a token; {cost(kto_run)}")
        print(f"5,000 rows: the first step begins {start:.0f} s after papermill's start")


if __name__ == "__main__":
    main()
