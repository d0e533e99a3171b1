"""Before anything is downloaded: does training fit into GPU memory, RAM and disk, are versions and access right.

Memory is estimated from the model's shape, not measured; nothing is loaded or fetched here.
"""

import contextlib
import platform
import re
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from toolset_nb import models, runs
from toolset_nb.downloads import cache_folder
from toolset_nb.models import Hardware, ModelError
from toolset_nb.paths import repo_root

GIB = 2**30
PROCESS = {
    "cuda": 1.0 * GIB,
    "cpu": 0.75 * GIB,
}  # torch, transformers and unsloth loaded; CUDA's context takes as much on the GPU
# A CPU process keeps more than lives: blocks of many sizes leave gaps. Fitted to the peaks in docs/scaling.md.
HEAP = 1.5
CHECKPOINTS = 3
# As torch names what it is built for: machine code, or code that the driver compiles.
ARCHITECTURE = re.compile(r"(sm|compute)_(\d+)(\d)[af]?$")


class Estimate(NamedTuple):
    """Memory in GiB and checkpoints on the disk; `parts` names what the larger memory, GPU or RAM, is made of."""

    gpu: float
    ram: float
    disk: float
    parts: dict[str, float]


def estimate(size: str, values: dict[str, Any], machine: Hardware, method: str = "sft") -> Estimate:
    """What training takes at most, with every row as long as max_length.

    Weights: the checkpoint's size where it is loaded in 4 bits (dynamic 4-bit files leave layers in 16 bits), else 4 bytes each.
    Trained: weight and gradient 4 bytes each, AdamW's two states 1 byte each with adamw_8bit, else 4. Activations: of one
    layer with unsloth's checkpointing, whose layer inputs wait in RAM, of each trained layer without. Logits: the head is
    computed in chunks (TRL 1.15), a row of `max_length` is counted. KTO: a frozen copy of what is trained; its KL pairs are
    scored without gradients.
    """
    entry = models.sizes()[size]
    values = {**entry["sft"], **values}
    shape, cuda, lean = entry["shape"], machine.device == "cuda", models.lean(size, machine)
    weights = entry["download_gb"] * 1e9 if lean else shape["parameters"] * 4
    trained = trained_parameters(shape, values)
    states = trained * (4 + 4 + (2 if lean else 8)) + (trained * 4 if method == "kto" else 0)
    wide = 1 if lean else 2  # 32 bits in place of 16
    tokens = values["batch_size"] * values["max_length"]
    layer = kept_values(shape) * tokens * 2 * wide * (1 if cuda else HEAP)
    kept = 1 if lean else (shape["layers"] if values.get("lora_rank") else values.get("layers", shape["layers"]))
    logits = values["max_length"] * shape["vocabulary"] * 4
    process = PROCESS["cuda" if cuda else "cpu"]
    parts = {"weights": weights, "trained": states, "activations": layer * kept, "logits": logits, "process": process}
    parts |= {"experts": entry["beyond_gb"] * 1e9} if "beyond_gb" in entry else {}
    parts = {name: round(amount / GIB, 2) for name, amount in parts.items()}
    total = sum(parts.values())
    inputs = tokens * shape["hidden"] * 2 * shape["layers"] / GIB
    disk = CHECKPOINTS * trained * (6 if lean else 12) / GIB
    ram = process * 2 / GIB + (inputs if lean else 0) if cuda else total
    return Estimate(total if cuda else 0.0, ram, disk, parts)


def kept_values(shape: dict[str, Any]) -> int:
    """Values that a layer keeps of each token for the backward pass: two norms, projections and heads, and the gated MLP."""
    return 4 * shape["ffn"] + 6 * shape["hidden"] + 4 * shape["heads"] * shape["head"]


def trained_parameters(shape: dict[str, Any], values: dict[str, Any]) -> int:
    """LoRA matrices on all seven projections, or with lora_rank 0 the upper `layers` whole."""
    hidden, ffn, heads = shape["hidden"], shape["ffn"], shape["head"]
    query, key = shape["heads"] * heads, shape["kv_heads"] * heads
    projections = [(hidden, query), (hidden, key), (hidden, key), (query, hidden)]
    projections += [(hidden, ffn), (hidden, ffn), (ffn, hidden)]
    rank = values.get("lora_rank")
    if rank:
        return shape["layers"] * rank * sum(rows + columns for rows, columns in projections)
    return values.get("layers", shape["layers"]) * sum(rows * columns for rows, columns in projections)


def check(size: str, base: str, values: dict[str, Any], machine: Hardware, method: str = "sft") -> None:
    """Prints needed against found, and raises ModelError with what to change where it cannot work.

    For KTO `values` also say what the SFT run trains, since KTO goes on with its adapter.
    """
    check_platform(method)
    check_capability(machine)
    need = estimate(size, values, machine, method)
    own = Path(models.sizes()[size]["base_model"]).name  # of another base the size is not known: shown, never stopped
    given_base = Path(base).name not in ("", own)
    source = base or ("" if size == "tiny" else models.sizes()[size]["base_model"])
    rows = {"GPU memory": (need.gpu, machine.free), "RAM": (need.ram, machine.ram), **disks(size, source, need.disk)}
    print(f"{'GiB':<12}{'needed':>8}{'found':>8}" + ("   (of the size's own base model)" if given_base else ""))
    for name, (amount, found) in rows.items():
        print(f"{name:<12}{amount:>8.1f}{found:>8.1f}")
    print("made of: " + ", ".join(f"{name} {amount:.1f}" for name, amount in need.parts.items()))
    for name in drifted(machine):
        print(f"! {name}")
    check_access(source)
    short = [name for name, (amount, found) in rows.items() if amount > found]
    if short == ["GPU memory"] and need.gpu - need.parts["activations"] - need.parts["logits"] < machine.free:
        print("! The longest rows may not fit into GPU memory; the run then goes on with a smaller batch.")
    elif short and not given_base:
        told = ", ".join("{}: {:.1f} GiB needed, {:.1f} found".format(name, *rows[name]) for name in short)
        remedy = (
            "free some, or set HF_HOME and TOOLSET_NB_RUNS to a larger disk"
            if all("disk" in name for name in short)
            else ("lower batch_size or max_length, or take a smaller model_size")
        )
        raise ModelError(f"model_size {size} does not fit here ({told}): {remedy}")


def check_capability(machine: Hardware) -> None:
    """Raises ModelError when the installed torch has no code for this GPU: what is built for 8.6 runs on 8.9, not on 8.0 or 9.0."""
    import torch

    built = torch.cuda.get_arch_list()
    codes = [(kind, int(major), int(minor)) for code in built for kind, major, minor in ARCHITECTURE.findall(code)]
    if machine.capability is None or not codes:
        return
    major, minor = machine.capability
    fits = [(kind == "compute" or has == major) and (has, least) <= (major, minor) for kind, has, least in codes]
    if not any(fits):
        raise ModelError(
            f"{machine.name} has compute capability {major}.{minor}, and torch {torch.__version__} is built for {' '.join(built)}: "
            "install a torch that has it, choose another GPU, or hide this one (CUDA_VISIBLE_DEVICES=-1) and train tiny on the CPU"
        )


def disks(size: str, source: str, checkpoints: float) -> dict[str, tuple[float, float]]:
    """Disk -> GiB (needed, found): checkpoints on that of the runs, what is still to be fetched on that of the cache."""
    cache, download = base_place(size, source)
    paths = (runs.runs_folder().absolute(), cache.absolute())
    there = [next(folder for folder in (path, *path.parents) if folder.exists()) for path in paths]
    free = [shutil.disk_usage(folder).free / GIB for folder in there]
    if len(set(map(_device, there))) == 1:
        return {"disk": (checkpoints + download, free[0])}
    return {"runs' disk": (checkpoints, free[0]), "cache's disk": (download, free[1])}


def base_place(size: str, source: str) -> tuple[Path, float]:
    """(where the base model is kept, GiB of it that are still to be fetched); an empty source is the embedded model."""
    from huggingface_hub import constants

    entry = models.sizes()[size]
    local = models.local_folder(source) if source else cache_folder() / "models" / Path(entry["base_model"]).name
    if local.is_dir():
        return local, 0.0
    folder = Path(constants.HF_HUB_CACHE) / f"models--{source.replace('/', '--')}" if source else local
    there = 0
    for file in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # another process may be fetching
            there += file.lstat().st_size  # a link is small, and what it leads to is counted
    return folder, max(0.0, entry["download_gb"] * 1e9 - there) / GIB


def check_platform(method: str) -> None:
    """Raises ModelError on Apple silicon for what was never tried there: KTO, and training by unsloth's own MLX classes."""
    if (platform.system(), platform.machine()) != ("Darwin", "arm64"):
        return
    if method == "kto":
        raise ModelError(
            "KTO is not offered on Apple silicon: take it to Linux or Colab, or leave it out (pipeline: steps sft,evaluate,export)"
        )
    if find_spec("mlx"):
        raise ModelError(
            "with mlx installed unsloth trains by classes of its own, which this notebook does not know: pip uninstall mlx, "
            "and the processor's cores train the embedded model"
        )


def drifted(machine: Hardware) -> list[str]:
    """Sentences on packages that are missing or of another version than the pins ask for; bitsandbytes matters on CUDA."""
    found, installed = [], runs.versions(pins())
    for name, wanted in pins().items():
        if name == "bitsandbytes" and machine.device != "cuda":
            continue
        has = installed.get(name, "missing").partition("+")[0]
        if has != wanted:
            found.append(f"{name} is {has}, tested with {wanted}: make setup (in Colab the setup cell) installs it")
    return found


def pins() -> dict[str, str]:
    """Package -> version of those that train, by the requirements files."""
    text = "\n".join((repo_root() / f"requirements-{name}.txt").read_text("utf-8") for name in ("colab", "unsloth"))
    wanted = dict(re.findall(r"^([\w-]+)==([\w.]+)", text, re.M))
    names = ("transformers", "trl", "peft", "datasets", "accelerate", "bitsandbytes", "unsloth", "unsloth_zoo")
    return {name: wanted[name] for name in names if name in wanted}


def check_access(base: str) -> None:
    """Asks the Hub, with one HEAD request, whether this machine may fetch the base model; a local folder is not asked for."""
    from huggingface_hub import constants, get_hf_file_metadata, get_token, hf_hub_url
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    if not base or models.local_folder(base).is_dir() or constants.HF_HUB_OFFLINE:
        return
    try:
        get_hf_file_metadata(hf_hub_url(base, "config.json"), token=get_token(), timeout=10)
    except GatedRepoError:
        how = "" if get_token() else " and log in (HF_TOKEN, `hf auth login` or a Colab secret)"
        raise ModelError(
            f"{base} asks for its licence to be accepted: do so on https://huggingface.co/{base}{how}"
        ) from None
    except RepositoryNotFoundError:
        hint = "" if get_token() else ", or it is private and no token is set"
        raise ModelError(f"base_model {base}: the Hub knows no such model{hint}") from None
    except Exception as error:  # no network: what is in the cache may do
        print(f"! The Hub does not answer ({type(error).__name__}); {base} has to be in the cache.")


def _device(folder: Path) -> int:
    return folder.stat().st_dev
