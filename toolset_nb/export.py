"""From a run folder to files that other programs load: merged safetensors, a q8_0 GGUF, and the Hub.

The converter is llama.cpp's own script, pinned and checked, run in a process of its own with its own gguf package.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from toolset_nb.downloads import CONVERTER, cache_folder, unpack
from toolset_nb.runs import Run, file_hash


class ExportError(RuntimeError):
    """A model could not be merged, converted or uploaded; nothing half-written is left."""


def merge(run: Run, folder: Path) -> Path:
    """The run's adapter merged into its 16- or 32-bit base, as safetensors in `folder`."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    record = run.record
    dtype = torch.float32 if record["hardware"]["device"] == "cpu" else torch.bfloat16
    model = AutoModelForCausalLM.from_pretrained(_sixteen_bit(record["base_folder"]), dtype=dtype)
    model = PeftModel.from_pretrained(model, run.folder / "adapter").merge_and_unload()
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(run.folder / "adapter").save_pretrained(folder)
    return folder


def convert(model_folder: Path | str, gguf: Path) -> Path:
    """A folder of safetensors as one q8_0 GGUF; raises ExportError with the converter's last line."""
    tools = unpack(CONVERTER)
    gguf.parent.mkdir(parents=True, exist_ok=True)
    temporary = gguf.with_name(f".{gguf.name}.{os.getpid()}")
    command = [sys.executable, str(tools / "convert_hf_to_gguf.py"), str(model_folder), "--outtype", "q8_0"]
    environment = {**os.environ, "PYTHONPATH": str(tools), "HF_HUB_OFFLINE": "1"}
    try:
        done = subprocess.run([*command, "--outfile", str(temporary)], capture_output=True, text=True, env=environment)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise ExportError(f"llama.cpp's converter refused {model_folder}: {last}")
        os.replace(temporary, gguf)
    finally:
        temporary.unlink(missing_ok=True)
    return gguf


def run_gguf(run: Run) -> Path:
    """The run's GGUF, made on first use; made again when the adapter has changed since."""
    gguf = run.path("export", "model-q8_0.gguf")
    mark = gguf.with_suffix(".json")
    weights = {file.name: file_hash(file) for file in sorted((run.folder / "adapter").glob("*.safetensors"))}
    if not weights:
        raise ExportError(f"{run} has no adapter: its status is {run.status}")
    if gguf.exists() and mark.exists() and mark.read_text() == json.dumps(weights):
        return gguf
    with tempfile.TemporaryDirectory(dir=run.folder) as scratch:
        convert(merge(run, Path(scratch)), gguf)
    mark.write_text(json.dumps(weights))
    return gguf


def base_gguf(folder: str) -> Path:
    """The GGUF of an untuned model folder or Hub id, cached."""
    source = Path(folder)
    gguf = cache_folder() / "gguf" / f"{source.name}-q8_0.gguf"
    mark = gguf.with_suffix(".json")
    key = {
        "folder": folder,
        **{f.name: file_hash(f) for f in (sorted(source.iterdir()) if source.is_dir() else []) if f.is_file()},
    }
    if not (gguf.exists() and mark.exists() and mark.read_text() == json.dumps(key)):
        if not source.is_dir():
            from huggingface_hub import snapshot_download

            folder = snapshot_download(_sixteen_bit(folder))
        convert(folder, gguf)
        mark.write_text(json.dumps(key))
    return gguf


def check_hub(repo: str) -> None:
    """Before hours of work: is there a token, and may it write? Raises ExportError; the token is never shown."""
    import httpx
    from huggingface_hub import HfApi, get_token

    if not repo:
        raise ExportError("push_to_hub needs hub_repo, for example your-name/toolset-tiny")
    if not get_token():
        raise ExportError(
            "push_to_hub needs a token: `hf auth login`, HF_TOKEN in the environment, or a Colab secret HF_TOKEN"
        )
    try:
        HfApi().create_repo(repo, private=True, exist_ok=True)
    except (httpx.HTTPError, OSError, ValueError) as error:  # refused, no connection, not a name the Hub allows
        raise ExportError(f"the Hub refuses {repo}: {type(error).__name__}") from None


def upload(run: Run, repo: str) -> str:
    """Uploads the adapter to a private repository and returns its address."""
    from huggingface_hub import HfApi

    HfApi().upload_folder(
        folder_path=run.folder / "adapter", repo_id=repo, commit_message=f"Adapter of {run.folder.name}"
    )
    return f"https://huggingface.co/{repo}"


def free_space(folder: Path) -> float:
    """Free disk in GB where `folder` is or will be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free / 1e9


def _sixteen_bit(base: str) -> str:
    """A merge takes the 16-bit base, never the 4-bit one it was trained on."""
    for ending in ("-unsloth-bnb-4bit", "-bnb-4bit"):
        base = base.removesuffix(ending)
    return base
