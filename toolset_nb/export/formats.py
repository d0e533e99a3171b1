"""The formats of an export: what each takes, whether there is room, and making those that are asked for.

All come from one merge: adapter into the 16-bit base, merged weights to an f16 or q8_0 GGUF by llama.cpp's converter, f16 to the
k-quants by llama.cpp's quantiser. What is there and unchanged is not made again, so an interrupted export goes on. Not here:
comparing the formats (`parity`) and what other programs need beside them (`serving`).
"""

import json
import shutil
from collections.abc import Callable
from contextlib import contextmanager
from functools import cache
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError

from toolset_nb.downloads import cache_folder
from toolset_nb.export import artefacts, gguf, llamacpp, weights
from toolset_nb.export.artefacts import size_words
from toolset_nb.export.weights import ExportError, base_shapes, merge_dtype
from toolset_nb.files import clear, draft
from toolset_nb.runs import Run, file_hash
from toolset_nb.settings import ExportSettings, SettingsError


class Format(NamedTuple):
    """Where it goes below export/, bytes a weight, and bytes a weight in rows that are no multiple of 256 long."""

    file: str
    bytes: float
    uneven: float
    what: str


# Bits of the block formats: ggml-common.h; the mixtures as measured for Llama-3-8B in llama-quantize's own table.
# Rows that no k-quant block divides fall back to q8_0, q5_1 and q5_0 (llama-quant.cpp).
FORMATS = {
    "adapter": Format("", 0, 0, "as trained: peft and transformers, beside the base"),
    "merged": Format("merged", 2, 2, "16-bit safetensors: transformers, vLLM"),
    "f16": Format("model-f16.gguf", 2, 2, "GGUF without loss"),
    "q8_0": Format("model-q8_0.gguf", 1.0625, 1.0625, "GGUF, 8 bits"),
    "q6_k": Format("model-q6_k.gguf", 0.8203, 1.0625, "GGUF, 6 bits"),
    "q5_k_m": Format("model-q5_k_m.gguf", 0.713, 0.85, "GGUF, 5 bits"),
    "q4_k_m": Format("model-q4_k_m.gguf", 0.612, 0.8, "GGUF, 4 bits"),
    "lora": Format("model.lora.gguf", 0, 0, "the adapter alone, for llama.cpp's --lora"),
}
ROOM = 1.1  # of what is counted: tokenizers, heads, block sizes of the file system


class Row(NamedTuple):
    """One line of the plan: a format, where it goes, how many bytes it takes, whether it is there."""

    name: str
    path: Path
    bytes: int
    there: bool


def chosen(text: str) -> list[str]:
    """The formats of a comma list in the order in which they are made; raises SettingsError naming those that are unknown."""
    names = [part.strip().lower() for part in text.split(",") if part.strip()]
    unknown = [name for name in names if name not in FORMATS]
    if unknown or not names:
        raise SettingsError(f"parameter formats is {text!r}; expected some of {', '.join(FORMATS)}, by commas")
    return [name for name in FORMATS if name in names]


def plan(run: Run, settings: ExportSettings) -> list[Row]:
    """What the export would make and how large each file will be, without making anything. Raises ExportError."""
    shapes, adapter = base_shapes(run.record["base_folder"]), sum(map(artefacts.size, _adapter(run)))
    names, rows = chosen(settings.formats), []
    if "lora" in names:
        _check_low_rank(run)
    for name in names:
        form = FORMATS[name]
        size = sum(_bytes(shape, form) for shape in shapes) if form.bytes else adapter
        path = run.folder / "adapter" if name == "adapter" else run.folder / "export" / form.file
        rows.append(Row(name, path, int(size), name == "adapter" or _there(run, name, settings.imatrix)))
    return rows


def table(rows: list[Row]) -> str:
    """The plan in Markdown."""
    lines = [
        f"| {row.name} | {FORMATS[row.name].what} | {size_words(row.bytes)} | {'there' if row.there else 'to be made'} |"
        for row in rows
    ]
    return "\n".join(["| format | what it is | size | |", "|---|---|---|---|", *lines])


def check_room(run: Run, rows: list[Row], parity: str = "none") -> None:
    """Raises ExportError when disk or memory are too small for what is still to be made and compared, naming both figures.

    A base that is still to be fetched counts on the disk of the Hub's cache, the base's GGUF below `lora` on that of ours.
    """
    import psutil
    from huggingface_hub import constants

    base, todo = run.record["base_folder"], {row.name for row in rows if not row.there}
    between = _between(run, todo)
    wanted = todo | between
    sixteen, eight = (sum(_bytes(shape, FORMATS[name]) for shape in base_shapes(base)) for name in ("f16", "q8_0"))
    fetched = sixteen if wanted & {"merged", "lora"} and weights.to_fetch(base) else 0
    below = eight if "lora" in todo and not gguf.base_place(base).exists() else 0
    _check_disks(
        (run.folder, sum(row.bytes for row in rows if not row.there) + sixteen * len(between), "making the files"),
        (Path(constants.HF_HUB_CACHE), fetched, "fetching the base model (HF_HOME names another place)"),
        (cache_folder(), below, "the base as GGUF, below lora (TOOLSET_NB_CACHE names another place)"),
    )
    memory = sixteen * (2 if merge_dtype(run.record) == "float32" else 1) * ROOM
    available = psutil.virtual_memory().available
    compared = parity != "none" and any(row.name != "adapter" for row in rows)
    step = "merging" if "merged" in wanted else "comparing (parity)" if compared else ""
    if step and memory > available:
        raise ExportError(
            f"{step} holds the base in memory: {size_words(memory)} are needed and {size_words(available)} are free; "
            f"close other programs, {'or' if step == 'merging' else 'leave it out (parity none), or'} export on a machine with "
            "more memory"
        )


def _check_disks(*needs: tuple[Path, float, str]) -> None:
    """Each need is (folder, bytes, what for); raises ExportError for the first disk that is too small for its needs together."""
    for disk in dict.fromkeys(_disk(folder) for folder, count, _ in needs if count):
        here = [need for need in needs if need[1] and _disk(need[0]) == disk]
        needed = sum(count for _, count, _ in here) * ROOM
        if needed > disk[1]:
            parts = ", ".join(f"{size_words(count * ROOM)} for {what}" for _, count, what in here)
            raise ExportError(
                f"the disk of {here[0][0]} has {size_words(disk[1])} free and {size_words(needed)} are needed ({parts}): "
                "choose fewer formats, or make room"
            )


def _check_low_rank(run: Run) -> None:
    """Raises ExportError for an adapter with modules that were trained whole."""
    config = json.loads((run.folder / "adapter" / "adapter_config.json").read_text("utf-8"))
    if whole := config.get("modules_to_save"):
        raise ExportError(
            f"format lora: {run} trained {len(whole)} modules whole ({whole[0]} ...), and a GGUF LoRA holds low-rank "
            "matrices only; take merged or a GGUF format, or train with lora_rank above 0"
        )


def _between(run: Run, todo: set[str]) -> set[str]:
    """What is made on the way to `todo` and not kept: merged weights and f16, where they are not there already."""
    f16 = {"f16"} if todo & llamacpp.FTYPES.keys() and not _there(run, "f16") else set()
    merged = {"merged"} if (todo | f16) & {"f16", "q8_0"} and not _there(run, "merged") else set()
    return (f16 | merged) - todo


def make(run: Run, settings: ExportSettings, say: Callable[[str], None] = print) -> dict[str, Path]:
    """Format -> its file or folder. Checks room and architecture first, makes what is not there yet, in the order of FORMATS.

    Each is moved into place whole; a stop, a full disk or a kill leaves those that were done and the run as it was.
    """
    _adapter(run)
    rows = plan(run, settings)
    check_room(run, rows, settings.parity)
    todo = {row.name for row in rows if not row.there}
    if (todo | _between(run, todo)) & {"f16", "q8_0"}:
        gguf.check_architecture(run.record["base_folder"], settings.llama_cpp)
    clear(run.folder / "export")
    with draft(run.folder / "export" / "work") as work, _disk_full_in_words(run):
        work.mkdir(parents=True)
        made = _makers(run, settings, work)
        for row in rows:
            if row.name != "adapter":
                key = _key(run, row.name, settings.imatrix)
                new = artefacts.finish(row.path, key, made[row.name])
                say(f"{row.name}: {row.path} ({size_words(artefacts.size(row.path))}{'' if new else ', was there'})")
    for row in rows:
        if row.path.suffix == ".gguf" and row.name != "lora":
            check_template(run, row.path)
    return {row.name: row.path for row in rows}


def run_gguf(run: Run) -> Path:
    """The run's GGUF of 8 bits, made on first use; made again when the adapter has changed since."""
    _adapter(run)
    if _there(run, "q8_0"):
        return run.folder / "export" / FORMATS["q8_0"].file
    return make(run, ExportSettings(formats="q8_0", parity="none"), lambda line: None)["q8_0"]


def check_template(run: Run, file: Path) -> None:
    """Raises ExportError when a GGUF's chat template is not, byte for byte, the one that was trained."""
    trained = run.folder / "adapter" / "chat_template.jinja"
    if trained.exists() and gguf.chat_template(file) != trained.read_text("utf-8"):
        raise ExportError(f"{file} carries another chat template than {trained}: delete it, then export again")


def _makers(run: Run, settings: ExportSettings, work: Path) -> dict[str, Callable[[Path], Any]]:
    """Format -> what writes it to a path. Merged weights and f16 are made once, in `work` where they are not asked for."""
    export, tools = run.folder / "export", settings.llama_cpp

    @cache
    def merged() -> Path:
        return export / "merged" if _there(run, "merged") else weights.merge(run, work / "merged")

    def converted(path: Path, kind: str) -> Path:
        return gguf.convert(merged(), path, kind, tools, run.folder.name)

    @cache
    def sixteen() -> Path:
        kept = export / FORMATS["f16"].file
        return kept if _there(run, "f16") else converted(work / "f16.gguf", "f16")

    @cache
    def matrix() -> Path | None:
        if settings.imatrix != "auto":
            return Path(settings.imatrix).expanduser() if settings.imatrix else None
        (work / "rows.txt").write_text("\n".join(gguf.calibration(run)), "utf-8")
        llamacpp.importance(sixteen(), work / "rows.txt", work / "imatrix.gguf", tools)
        return work / "imatrix.gguf"

    def quantiser(kind: str) -> Callable[[Path], None]:
        return lambda path: llamacpp.quantise(sixteen(), path, kind, matrix(), tools)

    return {
        "merged": lambda path: weights.merge(run, path),
        "f16": lambda path: converted(path, "f16"),
        "q8_0": lambda path: converted(path, "q8_0"),
        "lora": lambda path: gguf.convert_lora(run, path, tools),
        **{kind: quantiser(kind) for kind in llamacpp.FTYPES},
    }


@contextmanager
def _disk_full_in_words(run: Run):
    """A disk that fills in spite of the check: other programs write too."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        if weights.disk_full(error):
            raise ExportError(
                f"the disk of {run.folder} is full: make room or choose fewer formats, then export again"
            ) from None
        raise


def _disk(folder: Path) -> tuple[int, int]:
    """Which disk a folder is on, or will be once it is made, and how many bytes are free there."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return there.stat().st_dev, shutil.disk_usage(there).free


def _adapter(run: Run) -> list[Path]:
    """What was trained: weights, their configuration, tokenizer and template. Raises ExportError when there is none."""
    files = sorted((run.folder / "adapter").glob("*.safetensors"))
    if not files:
        raise ExportError(f"{run} has no adapter: its status is {run.status}")
    names = ("adapter_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
    return files + [run.folder / "adapter" / name for name in names if (run.folder / "adapter" / name).exists()]


def _there(run: Run, name: str, imatrix: str = "") -> bool:
    """Whether a format below export/ is whole and made from what the run is now."""
    return artefacts.up_to_date(run.folder / "export" / FORMATS[name].file, _key(run, name, imatrix))


def _key(run: Run, name: str, imatrix: str = "") -> dict[str, Any]:
    """What a format is made from: another key, and it is made again."""
    key: dict[str, Any] = {"format": name, "base": run.record["base_folder"], "merged_in": merge_dtype(run.record)}
    if name in llamacpp.FTYPES and imatrix:
        key["imatrix"] = imatrix if imatrix == "auto" else file_hash(Path(imatrix).expanduser())
    return key | {file.name: file_hash(file) for file in _adapter(run)}


def _bytes(shape: tuple[int, ...], form: Format) -> float:
    """Norms and biases stay in 32 bits."""
    if len(shape) < 2:
        return prod(shape) * 4
    return prod(shape) * (form.uneven if shape[-1] % 256 else form.bytes)
