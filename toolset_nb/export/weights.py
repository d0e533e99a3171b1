"""A run's adapter merged into its 16-bit base: the one step that needs the model in memory."""

import errno
import json
from pathlib import Path
from typing import Any

from toolset_nb.errors import ToolsetError
from toolset_nb.runs import Run

# 16-bit copies of bases whose own name, 4-bit endings aside, stands for MXFP4: github.com/unslothai/unsloth/issues/3351
SIXTEEN_BIT = {
    "unsloth/gpt-oss-20b": "unsloth/gpt-oss-20b-BF16",
    "openai/gpt-oss-20b": "unsloth/gpt-oss-20b-BF16",
}
NEEDED = ["*.safetensors", "*.json", "*.model", "*.txt", "*.jinja"]  # of a base on the Hub


class ExportError(ToolsetError, RuntimeError):
    """A model could not be merged, converted, compared or uploaded; nothing half-written is left."""


def merge(run: Run, folder: Path) -> Path:
    """The run's adapter merged into its base, as 16-bit safetensors in `folder`, with the tokenizer that was trained.

    The base is held once: PEFT merges layer by layer in place, and shards are written one by one. Raises ExportError.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = base_files(run.record["base_folder"])
    trained = getattr(torch, merge_dtype(run.record))
    model = AutoModelForCausalLM.from_pretrained(base, dtype=trained)
    model = PeftModel.from_pretrained(model, run.folder / "adapter").merge_and_unload()
    if trained is torch.float32:
        model.to(torch.float16)  # what was trained in 32 bits keeps more digits in float16 than in bfloat16
    model.save_pretrained(folder, max_shard_size="4GB")
    AutoTokenizer.from_pretrained(run.folder / "adapter").save_pretrained(folder)
    return folder


def merge_dtype(record: dict[str, Any]) -> str:
    """What a run is merged in: float32 where it was trained in 32 bits (on a CPU, and `tiny` anywhere), else bfloat16."""
    return "float32" if record["hardware"]["device"] == "cpu" or record["size"] == "tiny" else "bfloat16"


def sixteen_bit(base: str) -> str:
    """A merge takes the 16-bit base, never the 4-bit one it was trained on."""
    for ending in ("-unsloth-bnb-4bit", "-bnb-4bit"):
        base = base.removesuffix(ending)
    return SIXTEEN_BIT.get(base, base)


def base_files(base: str) -> Path:
    """The folder of a 16-bit base: a local one, or the Hub's, from its cache or fetched. Raises ExportError."""
    name = sixteen_bit(base)
    folder = Path(name)
    if not folder.is_dir():
        if folder.is_absolute():
            raise ExportError(f"the base model's folder {name} is not there any more: put it back, then export again")
        from huggingface_hub import snapshot_download

        folder = Path(_from_hub(name, lambda: snapshot_download(name, allow_patterns=NEEDED)))
    config = folder / "config.json"
    values = json.loads(config.read_text("utf-8")) if config.exists() else {}
    if method := (values.get("quantization_config") or {}).get("quant_method"):
        raise ExportError(
            f"{folder} holds weights quantised by {method}: a merge takes the 16-bit model; put its folder into base_folder of "
            "run.json"
        )
    return folder


def base_shapes(base: str) -> list[tuple[int, ...]]:
    """The shape of each weight of a 16-bit base, from the heads of its safetensors files; fetches no weights."""
    name = sixteen_bit(base)
    folder = base_files(base) if _is_local(name) else _cached(name)
    if folder is None:
        from huggingface_hub import get_safetensors_metadata

        found = _from_hub(name, lambda: get_safetensors_metadata(name))
        return [tuple(entry.shape) for part in found.files_metadata.values() for entry in part.tensors.values()]
    from safetensors import safe_open

    shapes = []
    for file in _weight_files(folder):
        with safe_open(file, "numpy") as weights:
            shapes += [tuple(weights.get_slice(key).get_shape()) for key in weights.keys()]  # noqa: SIM118
    return shapes


def architectures(base: str) -> set[str]:
    """The model classes that a 16-bit base's config.json names, for itself and for its text part; fetches no weights."""
    name = sixteen_bit(base)
    if _is_local(name):
        file = base_files(base) / "config.json"
    else:
        from huggingface_hub import hf_hub_download

        file = Path(_from_hub(name, lambda: hf_hub_download(name, "config.json")))
    config = json.loads(file.read_text("utf-8"))
    return {name for part in (config, config.get("text_config") or {}) for name in part.get("architectures") or []}


def to_fetch(base: str) -> bool:
    """Whether a 16-bit base is one of the Hub's whose weights are not in its cache yet."""
    name = sixteen_bit(base)
    return not _is_local(name) and _cached(name) is None


def disk_full(error: BaseException) -> bool:
    """Whether a file could not be written for want of room; what is compiled says so in its words alone."""
    return getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)


def _is_local(name: str) -> bool:
    return Path(name).is_absolute() or Path(name).is_dir()


def _cached(name: str) -> Path | None:
    """A base's folder in the Hub's cache; None where not all of its weights are there."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, allow_patterns=NEEDED, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    return folder if all(file.exists() for file in _weight_files(folder)) else None


def _weight_files(folder: Path) -> list[Path]:
    """The files that a model's folder keeps its weights in: those that its index names, else the only one."""
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return [folder / "model.safetensors"]
    return [folder / file for file in sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))]


def _from_hub(name: str, ask):
    """What the Hub says to `ask`, its refusals as ExportError."""
    import httpx
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        NotASafetensorsRepoError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    try:
        return ask()
    except GatedRepoError:
        raise ExportError(
            f"the base model {name} needs a licence to be accepted: open https://huggingface.co/{name}, accept it, log in here "
            "with `hf auth login`, then export again"
        ) from None
    except RepositoryNotFoundError:
        raise ExportError(f"the base model {name} is not on the Hub, or not for this token: check its name") from None
    except NotASafetensorsRepoError:  # the client says so of a name that the Hub does not know, too
        raise ExportError(
            f"the Hub shows no safetensors weights for the base model {name}: check its name, and that this token may read it"
        ) from None
    except (EntryNotFoundError, HfHubHTTPError, httpx.HTTPError, OSError, RuntimeError) as error:
        if disk_full(error):
            raise ExportError(
                f"the disk of {constants.HF_HUB_CACHE} is full, where the base model {name} is fetched to: make room, or set "
                "HF_HOME to a larger disk and start Python again, then export again"
            ) from None
        if any(isinstance(each, OfflineModeIsEnabled) for each in (error, error.__cause__)):
            raise ExportError(
                f"the base model {name} is not in the cache here, and HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE) is set: unset it "
                "and start Python again, then export again"
            ) from None
        if getattr(getattr(error, "response", None), "status_code", None) == 401:
            raise ExportError(
                f"the Hub refused the token when asked for the base model {name} (401): `hf auth login` with one that is valid, "
                "and no other in HF_TOKEN, then export again"
            ) from None
        raise ExportError(
            f"the base model {name} is not in the cache here and the Hub does not give it ({type(error).__name__}): "
            "check the connection, then export again"
        ) from None
