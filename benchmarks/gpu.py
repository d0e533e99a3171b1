"""Memory and speed of every model size on this machine's GPU, by the notebooks and by plain transformers + peft + TRL.

python benchmarks/gpu.py [--sizes 3b,7b,13b,20b] [--methods sft,kto] [--steps 12] [--memory 15,24] [--price 3.0] [--out gpu.json]

No weights are fetched: a base of each size's real shape is filled with random numbers, which cost as much to train as real
ones, and the embedded tokenizer reads the rows. Every measurement is a process of its own, so that no memory is left over; ratios
are of one run on one machine. `--memory` holds torch's allocator to so many GB, to stand for a T4 and an RTX 3090. Without a GPU it
runs on the CPU in 32 bits (`--sizes tiny`), which shows that it works and nothing else. Results: Markdown, and JSON in `--out`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from toolset_nb import models, runs, settings, training
from toolset_nb.paths import repo_root

CLAIMED_MINUTES = {"rows": 2889, "epochs": 3, "size": "7b", "minutes": 45}  # the predecessor's, on an RTX 3090


def random_base(size: str, folder: Path) -> Path:
    """A base model of the size's shape in 16 bits (32 on a CPU), random weights, with the embedded tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    shape, cuda = models.sizes()[size]["shape"], torch.cuda.is_available()
    tokenizer = models.embedded_tokenizer()
    kind = {"tiny": "llama", "20b": "gpt_oss"}.get(size, "qwen3")
    config = AutoConfig.for_model(
        kind,
        vocab_size=shape["vocabulary"],
        hidden_size=shape["hidden"],
        intermediate_size=shape["ffn"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        num_key_value_heads=shape["kv_heads"],
        head_dim=shape["head"],
        max_position_embeddings=8192,
        tie_word_embeddings=size in ("tiny", "3b"),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.set_default_device("cuda" if cuda else "cpu")
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16 if cuda else torch.float32)
    torch.set_default_device("cpu")
    model.save_pretrained(folder, max_shard_size="4GB")
    tokenizer.save_pretrained(folder)
    return folder


def by_notebook(size: str, method: str, base: str, steps: int) -> dict[str, float]:
    """Tokens a second and peak GB of the notebook, as a user runs it; the first logged step warms up and is not counted."""
    parameters = {"max_steps": steps, "logging_steps": 1, "save_steps": 10000, "interactive": "no"}
    if method == "sft":
        parameters |= {"model_size": size, "base_model": base, "dataset": "datasets/sft.jsonl", "run_name": "base"}
    else:
        parameters |= {"sft_run": "base"}
    given = [part for key, value in parameters.items() for part in ("-p", key, str(value))]
    source, out = repo_root() / "notebooks" / f"{method}.ipynb", runs.runs_folder() / f"{method}.ipynb"
    out.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", str(source), str(out), *given]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-1500:])
    history = runs.find(f"latest:{method}").history()
    tokens = history[-1]["num_tokens"] - history[0]["num_tokens"]
    seconds = sum(row["interval_time"] for row in history[1:])
    return {"tokens_per_second": tokens / seconds, "peak_gb": max(row["memory_gb"] for row in history)}


def by_plain_trl(size: str, method: str, base: str, steps: int) -> dict[str, float]:
    """The same rows, lengths, batches and LoRA by transformers, peft and TRL alone: 4-bit NF4 where there is a GPU."""
    import torch
    from peft import LoraConfig, prepare_model_for_kbit_training
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
    from trl import KTOConfig, KTOTrainer, SFTConfig, SFTTrainer

    cuda, values = torch.cuda.is_available(), dict(models.sizes()[size][method])
    lora = models.sizes()[size]["sft"]
    quantised = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
    dtype = torch.bfloat16 if cuda else torch.float32
    model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype, quantization_config=quantised if cuda else None)
    model = prepare_model_for_kbit_training(model) if cuda else model
    tokenizer = AutoTokenizer.from_pretrained(base)
    chosen = {"sft": settings.SFTSettings, "kto": settings.KTOSettings}[method]()
    rows = training.drop_long(
        training.load_rows(chosen, method, values), tokenizer, values["max_length"], method == "kto"
    )
    shared = {
        "output_dir": tempfile.mkdtemp(),
        "max_steps": steps,
        "per_device_train_batch_size": values["batch_size"],
        "gradient_accumulation_steps": values["gradient_accumulation"],
        "learning_rate": values["learning_rate"],
        "max_length": values["max_length"],
        "gradient_checkpointing": cuda,
        "optim": "adamw_8bit" if cuda else "adamw_torch_fused",
        "bf16": cuda,
        "use_cpu": not cuda,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
    trainer_class, config_class = {"sft": (SFTTrainer, SFTConfig), "kto": (KTOTrainer, KTOConfig)}[method]
    rank = lora["lora_rank"] or 32
    trainer = trainer_class(
        model=model,
        args=config_class(**shared),
        train_dataset=training.to_dataset(rows),
        processing_class=tokenizer,
        peft_config=LoraConfig(
            r=rank, lora_alpha=lora["lora_alpha"] or rank, target_modules=models.PROJECTIONS, task_type="CAUSAL_LM"
        ),
        callbacks=[clock := _clock()],
    )
    trainer.train()
    log = [row for row in trainer.state.log_history if "num_tokens" in row and "loss" in row]
    tokens = log[-1]["num_tokens"] - log[0]["num_tokens"]
    peak = torch.cuda.max_memory_allocated() / 1e9 if cuda else float("nan")
    return {"tokens_per_second": tokens / (clock.times[-1] - clock.times[0]), "peak_gb": peak}


def _clock():
    """A callback that keeps the time at the end of each step."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        times: list[float] = []

        def on_step_end(self, *_, **__):
            self.times.append(time.perf_counter())

    return Clock()


WAYS = {"notebook": by_notebook, "plain": by_plain_trl}


def measured(way: str, size: str, method: str, base: Path, steps: int, limit: float) -> dict:
    """One measurement in a process of its own; what went wrong stands under `error`."""
    import torch

    environment = dict(os.environ)
    if limit and torch.cuda.is_available():
        whole = torch.cuda.get_device_properties(0).total_memory / 1e9
        environment["PYTORCH_ALLOC_CONF"] = f"per_process_memory_fraction:{limit / whole:.4f}"
    command = [sys.executable, __file__, "--one", way, "--sizes", size, "--methods", method, "--base", str(base)]
    done = subprocess.run(
        [*command, "--steps", str(steps)], capture_output=True, text=True, env=environment, cwd=repo_root()
    )
    about = {"size": size, "method": method, "way": way, "limit_gb": limit or None}
    last = done.stdout.strip().rpartition("\n")[2]
    return about | (json.loads(last) if done.returncode == 0 else {"error": done.stderr.strip()[-600:]})


def table(results: list[dict], price: float) -> str:
    """The results as Markdown: ratios against plain TRL of the same size, method and limit."""
    plain = {(r["size"], r["method"], r["limit_gb"]): r for r in results if r["way"] == "plain" and "error" not in r}
    per_row = {method: _tokens_per_row(method) for method in {r["method"] for r in results}}
    lines = ["| size | method | way | held to | tokens/s | x plain | peak GB | minutes per 1,000 rows | cost |"]
    lines.append("|---|---|---|---|---|---|---|---|---|")
    for r in results:
        head = f"| {r['size']} | {r['method']} | {r['way']} | {r['limit_gb'] or 'whole'} | "
        if "error" in r:
            lines.append(head + f"{r['error'].splitlines()[-1][:80] if r['error'] else 'failed'} | | | | |")
            continue
        other = plain.get((r["size"], r["method"], r["limit_gb"]))
        ratio = f"{r['tokens_per_second'] / other['tokens_per_second']:.2f}" if other else ""
        minutes = 1000 * per_row[r["method"]] / r["tokens_per_second"] / 60
        lines.append(
            head
            + f"{r['tokens_per_second']:.0f} | {ratio} | {r['peak_gb']:.1f} | {minutes:.1f} | {minutes / 60 * price:.2f} |"
        )
        if (r["size"], r["method"], r["way"], r["limit_gb"]) == (CLAIMED_MINUTES["size"], "sft", "notebook", None):
            whole = minutes * CLAIMED_MINUTES["rows"] * CLAIMED_MINUTES["epochs"] / 1000
            lines.append(f"| | | {CLAIMED_MINUTES} here: {whole:.0f} minutes | | | | | | |")
    return "\n".join(lines)


def _tokens_per_row(method: str) -> float:
    chosen = {"sft": settings.SFTSettings, "kto": settings.KTOSettings}[method]()
    tokenizer = models.embedded_tokenizer()
    rows = training.load_rows(chosen, method, {"max_rows": 2889})
    whole = [tokenizer.apply_chat_template(row["prompt"] + row["completion"], tokenize=False) for row in rows]
    return sum(map(len, tokenizer(whole, add_special_tokens=False)["input_ids"])) / len(whole)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="3b,7b,13b,20b")
    parser.add_argument("--methods", default="sft,kto")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument(
        "--memory", default="", metavar="LIST", help="GB to hold the allocator to, beside the whole GPU"
    )
    parser.add_argument("--price", type=float, default=3.0, help="of the machine an hour")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--base", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(WAYS[options.one](options.sizes, options.methods, options.base, options.steps)))
        return
    results = []
    limits = [0.0, *(float(part) for part in options.memory.split(",") if part)]
    for size in options.sizes.split(","):
        with tempfile.TemporaryDirectory() as scratch:  # one size at a time: 13b takes 30 GB
            base = random_base(size, Path(scratch) / "base")
            for limit in limits:
                os.environ["TOOLSET_NB_RUNS"] = str(Path(scratch) / f"runs-{limit:g}")
                for method in options.methods.split(","):  # KTO goes on from the SFT run before it
                    for way in WAYS:
                        results.append(measured(way, size, method, base, options.steps, limit))
                        options.out.write_text(json.dumps(results, indent=2) + "\n")
                        print(json.dumps(results[-1]), flush=True)
    print(table(results, options.price))


if __name__ == "__main__":
    main()
