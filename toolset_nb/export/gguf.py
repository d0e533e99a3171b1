"""GGUF files, as llama.cpp and all that builds on it load them.

The converter is llama.cpp's own script, pinned and checked, run in a process of its own with its own gguf package.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from toolset_nb.downloads import CONVERTER, cache_folder, unpack
from toolset_nb.export.weights import ExportError, merge, sixteen_bit
from toolset_nb.runs import Run, file_hash


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

            folder = snapshot_download(sixteen_bit(folder))
        convert(folder, gguf)
        mark.write_text(json.dumps(key))
    return gguf
