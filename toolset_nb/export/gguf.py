"""GGUF files, as llama.cpp and all that builds on it load them.

The converters are llama.cpp's own scripts, each run in a process of its own with its own gguf package.
"""

import re
import sys
from functools import cache
from hashlib import sha256
from pathlib import Path

from toolset_nb.downloads import cache_folder
from toolset_nb.export import artefacts, llamacpp
from toolset_nb.export.weights import ExportError, architectures, base_files
from toolset_nb.runs import Run, file_hash


def convert(model_folder: Path | str, gguf: Path, kind: str = "q8_0", llama_cpp: str = "", name: str = "") -> Path:
    """A folder of safetensors as one GGUF of `kind` (f16 or q8_0); raises ExportError with the converter's last line.

    `name` is what the GGUF says it is called, else the folder's.
    """
    script = llamacpp.converter(folder=llama_cpp)
    named = ["--model-name", name] if name else []
    command = [sys.executable, str(script), str(model_folder), *named, "--outtype", kind, "--outfile", str(gguf)]
    llamacpp.execute(command, f"llama.cpp's converter refused {model_folder}", gguf, script.parent)
    return gguf


def check_architecture(base: str, llama_cpp: str = "") -> None:
    """Raises ExportError for a base of an architecture that the converter does not list."""
    found = architectures(base)
    if found and not found & _convertible(llamacpp.converter(folder=llama_cpp)):
        raise ExportError(
            f"llama.cpp's converter does not know {', '.join(sorted(found))}, the architecture of {base}: leave the GGUF formats "
            "out, or give the folder of a newer llama.cpp as llama_cpp"
        )


@cache
def _convertible(script: Path) -> set[str]:
    """The architectures that a converter lists."""
    command = [sys.executable, str(script), "--print-supported-models"]
    said = llamacpp.execute(command, "llama.cpp's converter does not say what it converts", script, script.parent)
    return set(re.findall(r"^ *- (\w+)$", said, re.M))


def convert_lora(run: Run, gguf: Path, llama_cpp: str = "") -> Path:
    """The run's LoRA adapter as a GGUF that llama.cpp adds to its base (`--lora`)."""
    script = llamacpp.converter("convert_lora_to_gguf.py", llama_cpp)
    base = base_files(run.record["base_folder"])
    command = [sys.executable, str(script), "--base", str(base), "--outtype", "f16", "--outfile", str(gguf)]
    llamacpp.execute(
        [*command, str(run.folder / "adapter")], f"llama.cpp's converter refused {run}", gguf, script.parent
    )
    return gguf


def chat_template(gguf: Path) -> str:
    """The Jinja chat template that a GGUF carries, "" when it has none."""
    from gguf import GGUFReader

    field = GGUFReader(gguf).fields.get("tokenizer.chat_template")
    return field.contents() if field else ""


def base_gguf(folder: str) -> Path:
    """The GGUF of an untuned model folder or Hub id, cached; made again when the folder changes."""
    source, gguf = Path(folder), base_place(folder)
    files = [file for file in (sorted(source.iterdir()) if source.is_dir() else []) if file.is_file()]
    key = {"folder": folder, **{file.name: file_hash(file) for file in files}}
    artefacts.finish(gguf, key, lambda path: convert(base_files(folder), path))
    return gguf


def base_place(folder: str) -> Path:
    """Where the GGUF of an untuned model lies once it is made."""
    place = sha256(folder.encode()).hexdigest()[:8]  # folders of one name stay apart
    return cache_folder() / "gguf" / place / f"{Path(folder).name}-q8_0.gguf"


def calibration(run: Run, count: int = 200) -> list[str]:
    """The first good rows of the training data as this model reads them, to weigh its weights by.

    They are those of the run's own file where it is here, else of datasets/sft.jsonl.
    """
    from itertools import islice

    from transformers import AutoTokenizer

    from toolset_nb import rows

    good = (row for _, row in rows.read(_training_file(run)) if row.get("label") is not False)
    parts = rows.training_rows(islice(good, count), **run.rendering())
    tokenizer = AutoTokenizer.from_pretrained(run.folder / "adapter")
    return [tokenizer.apply_chat_template(p["prompt"] + p["completion"], tokenize=False) for p in parts]


def _training_file(run: Run) -> Path:
    from toolset_nb.jsonl import DataError
    from toolset_nb.training.data import data_path

    try:
        return data_path(run.record["parameters"].get("dataset", ""))
    except DataError:
        return data_path("datasets/sft.jsonl")
