"""Memory and speed of every model size on this machine's GPU, by the notebooks and by plain transformers + peft + TRL.

python benchmarks/gpu.py [--sizes 3b,7b,13b] [--methods sft,kto] [--ways notebook,plain] [--rows short,long] [--steps 12]
    [--memory 15,24] [--price 3.0] [--out gpu.json]

No weights are fetched: a base of each size's real shape is filled with random numbers and kept in 4 bits (NF4, nested), which
cost as much to train as real ones, and the embedded tokenizer reads the rows. `short` rows are those of datasets/, `long` ones
are filled up to the size's max_length. Every measurement is a process of its own, so that no memory is left over; ratios are of one
run on one machine. `--memory` holds torch's allocator to so many GB, to stand for a T4 and an RTX 3090. gpt-oss (20b) keeps its
experts in a form that is not quantised here, so it is left out. Without a GPU it runs on the CPU in 32 bits (`--sizes tiny`), which
shows that it works and nothing else. Results: Markdown, and JSON in `--out`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

from toolset_nb import models, runs, settings, training
from toolset_nb.paths import repo_root

LONG_ROWS = 400
CLAIMED_MINUTES = {"rows": 2889, "epochs": 3, "size": "7b", "minutes": 45}  # the predecessor's, on an RTX 3090


def random_base(size: str, folder: Path) -> Path:
    """A base model of the size's shape, random weights, in NF4 (32 bits on a CPU or for tiny), with the embedded tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    shape, lean = models.sizes()[size]["shape"], models.lean(size, models.hardware())
    tokenizer = models.embedded_tokenizer()
    config = AutoConfig.for_model(
        "llama" if size == "tiny" else "qwen3",
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
    with torch.device("cuda" if lean else "cpu"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16 if lean else torch.float32)
    if lean:
        model = type(model).from_pretrained(
            None, config=config, state_dict=model.state_dict(), dtype=torch.bfloat16, quantization_config=nf4()
        )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def nf4():
    """4-bit weights as the published bases have them."""
    import torch
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def data_file(method: str, kind: str, length: int) -> Path:
    """The rows of datasets/, or (`long`) the first of them with a request that fills `length` tokens."""
    path = repo_root() / "datasets" / f"{method}.jsonl"
    if kind == "short":
        return path
    tokenizer, out = models.embedded_tokenizer(), runs.runs_folder() / f"{method}-{length}.jsonl"
    out.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()[:LONG_ROWS]]
    for number, row in enumerate(rows):
        said = row["conversations"]
        if method == "sft" or number % 2 == 0:  # both rows of a KTO pair keep one prompt
            short = sum(len(tokenizer(turn["content"])["input_ids"]) + 8 for turn in said)
            filler = " and so on" * ((length - 96 - short) // 3)
        said[0]["content"] += filler
    out.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return out


def by_notebook(size: str, method: str, base: str, steps: int, data: Path) -> dict[str, float]:
    """Tokens a second and peak GB of the notebook, as a user runs it; the first logged step warms up and is not counted."""
    parameters = {"max_steps": steps, "logging_steps": 1, "save_steps": 10000, "interactive": "no", "dataset": data}
    parameters |= {"model_size": size, "base_model": base} if method == "sft" else {"sft_run": "latest:sft"}
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


def by_plain_trl(size: str, method: str, base: str, steps: int, data: Path) -> dict[str, float]:
    """The same rows in the same order, lengths, batches and LoRA by transformers, peft and TRL alone."""
    import torch
    from peft import LoraConfig, prepare_model_for_kbit_training
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import KTOConfig, KTOTrainer, SFTConfig, SFTTrainer

    values, lean = dict(models.sizes()[size][method]), models.lean(size, models.hardware())
    lora, cuda = models.sizes()[size]["sft"], torch.cuda.is_available()
    dtype = torch.bfloat16 if lean else torch.float32
    model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype, device_map={"": 0} if cuda else None)
    model = prepare_model_for_kbit_training(model) if lean else model
    tokenizer = AutoTokenizer.from_pretrained(base)
    chosen = {"sft": settings.SFTSettings, "kto": settings.KTOSettings}[method](dataset=str(data))
    rows = training.load_rows(chosen, method, values)
    rows = training.drop_long(rows, tokenizer, values["max_length"], method == "kto")
    rows = rows if method == "kto" else training.join_answers(rows)
    rows = training.arrange(rows, values["batch_size"], chosen.seed, unit=2 if method == "kto" else 1)
    shared = {
        "output_dir": tempfile.mkdtemp(),
        "max_steps": steps,
        "per_device_train_batch_size": values["batch_size"],
        "gradient_accumulation_steps": values["gradient_accumulation"],
        "learning_rate": values["learning_rate"],
        "max_length": values["max_length"],
        "train_sampling_strategy": "sequential",
        "gradient_checkpointing": lean,
        "optim": "adamw_8bit" if lean else "adamw_torch_fused",
        "bf16": lean,
        "use_cpu": not cuda,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }
    shared |= {"completion_only_loss": True} if method == "sft" else {}
    trainer_class, config_class = {"sft": (SFTTrainer, SFTConfig), "kto": (KTOTrainer, KTOConfig)}[method]
    rank = lora["lora_rank"] or 32
    trainer = trainer_class(
        model=model,
        args=config_class(**shared),
        train_dataset=training.to_dataset(rows, method),
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


def measured(way: str, size: str, method: str, kind: str, base: Path, steps: int, limit: float) -> dict:
    """One measurement in a process of its own; what went wrong stands under `error`."""
    import torch

    environment = dict(os.environ)
    if limit and torch.cuda.is_available():
        whole = torch.cuda.get_device_properties(0).total_memory / 1e9
        environment["PYTORCH_ALLOC_CONF"] = f"per_process_memory_fraction:{limit / whole:.4f}"
    command = [sys.executable, __file__, "--one", way, "--sizes", size, "--methods", method, "--rows", kind]
    command += ["--base", str(base), "--steps", str(steps)]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=repo_root())
    about = {"size": size, "method": method, "rows": kind, "way": way, "limit_gb": limit or None}
    about["wall_seconds"] = round(time.perf_counter() - started)
    last = done.stdout.strip().rpartition("\n")[2]
    return about | (json.loads(last) if done.returncode == 0 else {"error": done.stderr.strip()[-3000:]})


def table(results: list[dict], price: float) -> str:
    """The results as Markdown: ratios against plain TRL of the same size, method and limit."""
    keys = ("size", "method", "rows", "limit_gb")
    plain = {tuple(r[key] for key in keys): r for r in results if r["way"] == "plain" and "error" not in r}
    per_row = {method: _tokens_per_row(method) for method in {r["method"] for r in results}}
    lines = ["| size | method | rows | way | held to | tokens/s | x plain | peak GB | minutes per 1,000 rows | cost |"]
    lines.append("|---|---|---|---|---|---|---|---|---|---|")
    for r in results:
        head = f"| {r['size']} | {r['method']} | {r['rows']} | {r['way']} | {r['limit_gb'] or 'whole'} | "
        if "error" in r:
            lines.append(head + f"{r['error'].splitlines()[-1][:80] if r['error'] else 'failed'} | | | | |")
            continue
        other = plain.get(tuple(r[key] for key in keys))
        ratio = f"{r['tokens_per_second'] / other['tokens_per_second']:.2f}" if other else ""
        length = models.sizes()[r["size"]][r["method"]]["max_length"] if r["rows"] == "long" else per_row[r["method"]]
        minutes = 1000 * length / r["tokens_per_second"] / 60
        lines.append(
            head
            + f"{r['tokens_per_second']:.0f} | {ratio} | {r['peak_gb']:.1f} | {minutes:.1f} | {minutes / 60 * price:.2f} |"
        )
        if tuple(r[key] for key in (*keys, "way")) == (CLAIMED_MINUTES["size"], "sft", "short", None, "notebook"):
            whole = minutes * CLAIMED_MINUTES["rows"] * CLAIMED_MINUTES["epochs"] / 1000
            lines.append(f"| | | | {CLAIMED_MINUTES} here: {whole:.0f} minutes | | | | | | | |")
    return "\n".join(lines)


def _tokens_per_row(method: str) -> float:
    chosen = {"sft": settings.SFTSettings, "kto": settings.KTOSettings}[method]()
    tokenizer = models.embedded_tokenizer()
    rows = training.load_rows(chosen, method, {"max_rows": 2889})
    whole = [tokenizer.apply_chat_template(row["prompt"] + row["completion"], tokenize=False) for row in rows]
    return sum(map(len, tokenizer(whole, add_special_tokens=False)["input_ids"])) / len(whole)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="3b,7b,13b")
    parser.add_argument("--methods", default="sft,kto")
    parser.add_argument("--ways", default="notebook,plain")
    parser.add_argument(
        "--rows", default="short", help="short (as in datasets/), long (max_length tokens each), or both"
    )
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
        length = models.sizes()[options.sizes][options.methods]["max_length"]
        data = data_file(options.methods, options.rows, length)
        print(json.dumps(WAYS[options.one](options.sizes, options.methods, options.base, options.steps, data)))
        return
    results = []
    limits = [0.0, *(float(part) for part in options.memory.split(",") if part)]
    every = product(limits, options.methods.split(","), options.rows.split(","), options.ways.split(","))
    every = list(every)  # KTO goes on from the SFT run before it
    for size in options.sizes.split(","):
        with tempfile.TemporaryDirectory() as scratch:  # one size at a time: 13b takes 10 GB
            base = random_base(size, Path(scratch) / "base")
            free_gpu()
            for limit, method, kind, way in every:
                os.environ["TOOLSET_NB_RUNS"] = str(Path(scratch) / f"runs-{limit:g}")
                results.append(measured(way, size, method, kind, base, options.steps, limit))
                options.out.write_text(json.dumps(results, indent=2) + "\n")
                print(json.dumps(results[-1]), flush=True)
    print(table(results, options.price))


def free_gpu() -> None:
    """What making the base took is given back to the processes that measure."""
    import gc

    import torch

    gc.collect()
    torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
