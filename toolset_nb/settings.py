"""The parameters of each notebook: one pydantic model a notebook, and how values reach it.

A value comes from the notebook's settings cell (the Colab form), from papermill's injected cell, or from both; papermill leaves
strings behind (`false`, `2e-4`, `7B`), which become the right type here or a clear error. A name that no model knows stops
the run with a suggestion: papermill itself only warns. This module reads parameters; it does not choose a model or a device.
"""

import ast
import builtins
import contextlib
import re
import reprlib
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from dotenv import load_dotenv
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    field_validator,
)

from toolset_nb.errors import ToolsetError
from toolset_nb.paths import repo_root


class SettingsError(ToolsetError, ValueError):
    """A parameter is unknown or its value is not usable; the message names it and says what would be."""


def _refuse_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a number, not true or false")
    return value


def _lower(value: Any) -> Any:
    return value.strip().lower() if isinstance(value, str) else value


def _plain_name(value: str) -> str:
    if value and not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,79}", value):
        raise ValueError("letters, digits, '.', '_' and '-' only, 80 at most, no folder")
    if RESERVED.fullmatch(value):
        raise ValueError("a name that is not reserved, as latest, CON and NUL are")
    return value


Whole = Annotated[int, BeforeValidator(_refuse_bool)]
# The link runs/latest, the model in the box, and what Windows keeps for devices.
RESERVED = re.compile(r"(?:latest|finished|con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.I)
SECRET = re.compile(r"(hf_|sk-|gh[pousr]_|github_pat_|AKIA|AIza)[\w-]{8,}")
Real = Annotated[float, BeforeValidator(_refuse_bool), Field(allow_inf_nan=False)]
Name = Annotated[str, AfterValidator(_plain_name)]  # of a folder under runs/


def Choice(*values: str):
    """One of the given words, in any case and with blanks around it."""
    return Annotated[Literal[values], BeforeValidator(_lower)]


class Settings(BaseModel):
    """What every notebook takes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)  # parameter -> where its value was given

    seed: Whole = Field(42, ge=0, lt=2**32)
    interactive: Choice("auto", "yes", "no") = "auto"


class TrainingSettings(Settings):
    """What SFT and KTO share. A 0 (or "auto") means: the value of params/models.yaml for the model's size."""

    dataset: str
    max_rows: Whole = Field(0, ge=0)
    max_length: Whole = Field(0, ge=0, le=131072)
    learning_rate: Real = Field(0, ge=0, lt=1)
    epochs: Real = Field(0, ge=0, le=100)
    max_steps: Whole = Field(0, ge=0, le=10_000_000)
    batch_size: Whole = Field(0, ge=0, le=1024)
    gradient_accumulation: Whole = Field(0, ge=0, le=4096)
    logging_steps: Whole = Field(0, ge=0)
    save_steps: Whole = Field(0, ge=0)
    eval_steps: Whole = Field(0, ge=0)
    resume: str = ""
    report_to: Choice("none", "trackio", "tensorboard", "wandb") = "none"
    push_to_hub: bool = False
    hub_repo: str = ""
    run_name: Name = ""

    @field_validator("report_to")
    @classmethod
    def _installed(cls, value: str) -> str:
        if value != "none" and find_spec(value) is None:
            raise ValueError(f"none, or {value} after `pip install {value}`: it is not installed here")
        return value

    @field_validator("hub_repo")
    @classmethod
    def _hub_name(cls, value: str) -> str:
        if value and not re.fullmatch(r"[\w.-]+/[\w.-]+", value):
            raise ValueError("a Hub name such as user/model")
        return value


class SFTSettings(TrainingSettings):
    """Parameters of sft.ipynb and sft_beginner.ipynb."""

    dataset: str = "datasets/sft.jsonl"
    model_size: Choice("auto", "tiny", "3b", "7b", "13b", "20b") = "auto"
    base_model: str = ""
    call_format: Choice("hermes", "text") = "hermes"
    context_source: Choice("none", "system") = "none"
    tool_exposure: Choice("none", "agent", "all") = "none"
    lora_rank: Whole = Field(0, ge=0, le=1024)
    lora_alpha: Whole = Field(0, ge=0, le=4096)

    @field_validator("base_model")
    @classmethod
    def _plain_base(cls, value: str) -> str:
        if value != value.strip() or "@" in value:
            raise ValueError("a Hub id such as unsloth/Qwen3-8B or a local folder, with no blanks and no '@'")
        return value


class KTOSettings(TrainingSettings):
    """Parameters of kto.ipynb."""

    dataset: str = "datasets/kto.jsonl"
    sft_run: str = "latest"
    model_size: Choice("auto", "tiny", "3b", "7b", "13b", "20b") = "auto"
    beta: Real = Field(0, ge=0, le=10)
    desirable_weight: Real = Field(1.0, gt=0)
    undesirable_weight: Real = Field(1.0, gt=0)

    @field_validator("batch_size")
    @classmethod
    def _pairs(cls, value: int) -> int:
        if value % 2:
            raise ValueError("an even number: KTO's rows come in pairs, and a batch holds whole ones")
        return value


class EvaluateSettings(Settings):
    """Parameters of evaluate.ipynb and of `python -m toolset_nb evaluate`."""

    targets: str = "base,latest"
    prompt_set: str = "full_coverage"
    tags: str = ""
    limit: Whole = Field(0, ge=0)
    trials: Whole = Field(1, ge=1, le=100)
    max_turns: Whole = Field(0, ge=0, le=50)
    call_format: Choice("hermes", "text") = "hermes"
    context_source: Choice("none", "system") = "none"
    tool_exposure: Choice("none", "agent", "all") = "none"
    tools_as: Choice("text", "api") = "text"
    constrained: bool = False
    temperature: Real = Field(0.0, ge=0, le=2)
    top_p: Real = Field(1.0, gt=0, le=1)
    max_tokens: Whole = Field(320, ge=1)
    engine: Choice("gguf", "transformers") = "gguf"
    context: Whole = Field(4096, ge=256, le=1_048_576)
    slots: Whole = Field(8, ge=1, le=64)
    host: str = ""
    port: Whole = Field(0, ge=0, le=65535)
    timeout: Real = Field(120, gt=0)
    retries: Whole = Field(2, ge=0, le=10)
    resume: Choice("auto", "no") = "auto"


class ExportSettings(Settings):
    """Parameters of export.ipynb."""

    run: str = "latest"
    formats: str = "q8_0"
    imatrix: str = ""
    llama_cpp: str = ""
    system: str = ""
    context: Whole = Field(4096, ge=256, le=1_048_576)
    temperature: Real = Field(0.0, ge=0, le=2)
    lm_studio: str = ""
    parity: Choice("stop", "warn", "none") = "warn"
    parity_prompts: Whole = Field(8, ge=1)
    parity_tasks: Whole = Field(0, ge=0)
    push_to_hub: bool = False
    hub_repo: str = ""

    @field_validator("imatrix")
    @classmethod
    def _matrix_file(cls, value: str) -> str:
        if value not in ("", "auto") and not Path(value).expanduser().is_file():
            raise ValueError("nothing, auto, or a file that llama-imatrix made")
        return value


class DatasetSettings(Settings):
    """Parameters of dataset.ipynb."""

    kind: Choice("sft", "kto") = "sft"
    rows: Whole = Field(600, ge=1, le=1_000_000)
    output: str = ""
    max_length: Whole = Field(1024, ge=1, le=131072)
    teacher: str = ""
    teacher_mode: Choice("paraphrase", "self-play") = "paraphrase"
    teacher_rows: Whole = Field(20, ge=1)
    temperature: Real = Field(0.8, ge=0, le=2)


class PipelineSettings(Settings):
    """Parameters of pipeline.ipynb and of `python -m toolset_nb pipeline`; what is empty is left to the step's notebook."""

    steps: str = "sft,kto,evaluate,export"
    profile: str = ""
    model_size: Choice("auto", "tiny", "3b", "7b", "13b", "20b") = "auto"
    base_model: str = ""
    sft_parameters: str = ""
    kto_parameters: str = ""
    evaluate_parameters: str = ""
    export_parameters: str = ""
    run_name: Name = ""


NOTEBOOKS: dict[str, type[Settings]] = {
    "sft_beginner": SFTSettings,
    "sft": SFTSettings,
    "kto": KTOSettings,
    "evaluate": EvaluateSettings,
    "export": ExportSettings,
    "pipeline": PipelineSettings,
    "dataset": DatasetSettings,
}


def origins(settings: Settings) -> dict[str, str]:
    """Parameter -> where its value comes from, for those that are not the default: settings cell, papermill or code.

    papermill's `-f` and `-p` reach a notebook as one cell, `-p` winning; they cannot be told apart here.
    """
    changed = settings.model_dump(exclude_defaults=True)
    return {name: settings._origins.get(name, "code") for name in changed}


def read(model: type[Settings], namespace: dict[str, Any]) -> Settings:
    """The settings found in a notebook's `globals()`; raises SettingsError naming every parameter that is wrong.

    Under IPython only names assigned in the settings cell and in papermill's injected cell count; elsewhere every simple
    global does, so that a notebook exported to a script works too. Loads `.env` first; what the environment holds wins.
    `model_fields_set` of the result names what somebody chose: what papermill gave, and what is not the default.
    """
    _refuse_overwriting()
    load_dotenv(repo_root() / ".env")
    origins = _assigned(namespace.get("In"))
    names = list(origins) or [
        name
        for name, value in namespace.items()
        if not name.startswith("_") and isinstance(value, (str, int, float, bool)) and not hasattr(builtins, name)
    ]
    made = check(model, {name: namespace[name] for name in names if name in namespace})
    made._origins.update(origins)
    chosen = {name for name, place in origins.items() if place == "papermill"}
    made.model_fields_set.intersection_update(chosen | made.model_dump(exclude_defaults=True).keys())
    return made


def check(model: type[Settings], values: dict[str, Any]) -> Settings:
    """Validated settings; raises SettingsError with one line a problem."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = [_explain(model, problem) for problem in error.errors()]
        raise SettingsError("\n".join(lines)) from None


def from_yaml(text: str, where: str) -> dict[str, Any]:
    """Parameters written as YAML, `max_rows: 200`; {} for an empty text. Raises SettingsError naming `where`."""
    why = ""
    try:
        found = yaml.load(text, _Unique) or {}
    except yaml.YAMLError as error:
        found, why = None, f" ({getattr(error, 'problem', 'no YAML')})"
    if not isinstance(found, dict) or None in found.values():
        raise SettingsError(
            f"{where} is {text.strip('{}')[:60]!r}{why}; expected for example 'max_rows: 200, epochs: 1'"
        )
    return found


class _Unique(yaml.SafeLoader):
    """YAML in which no key stands twice, where PyYAML lets the last one win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        made = super().construct_mapping(node, deep)
        if len(made) < len(node.value):
            raise yaml.constructor.ConstructorError(problem="a key stands twice", problem_mark=node.start_mark)
        return made


def choices(model: type[Settings]) -> dict[str, list[str]]:
    """Parameter name -> the words it may be, for every parameter that has a fixed list (tests hold the forms equal)."""
    schema = model.model_json_schema()["properties"]
    return {name: entry["enum"] for name, entry in schema.items() if "enum" in entry}


def _explain(model: type[Settings], problem: dict) -> str:
    name = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        from rapidfuzz import process

        best = process.extractOne(name, list(model.model_fields), score_cutoff=60)
        hint = f"did you mean {best[0]}?" if best else "known: " + ", ".join(model.model_fields)
        secret = re.search("token|key|secret|password", name, re.I)
        value = "..." if secret else _shown(problem["input"])
        return f"unknown parameter {_masked(name)[:80]} (value {value}): {hint}"
    expected = {
        "bool_parsing": "true or false",
        "bool_type": "true or false",
        "int_parsing": "a whole number",
        "int_parsing_size": "a whole number",
        "int_from_float": "a whole number",
        "float_parsing": "a number",
        "finite_number": "a finite number",
    }.get(problem["type"], problem["msg"].removeprefix("Value error, ").removeprefix("Input should be "))
    return f"parameter {name} is {_shown(problem['input'])}; expected {expected}"


def _shown(value: Any) -> str:
    """The value as it may be shown: a pasted token never reaches an output."""
    short = reprlib.Repr()  # few of many parts: aliases of YAML can make billions
    short.maxlevel, short.maxstring, short.maxother = 2, 10_000, 10_000
    try:
        return _masked(short.repr(value))[:80]
    except ValueError:  # an integer of more than 4,300 digits has no repr
        return "a number of thousands of digits"


def _masked(text: str) -> str:
    return SECRET.sub(r"\1...", text)


def _refuse_overwriting() -> None:
    """Under papermill that writes into the notebook that it reads: the notebook that people start from would be a run's."""
    import psutil

    files = []
    with contextlib.suppress(psutil.Error, AttributeError):  # a parent that may not be asked, or none
        parent = psutil.Process().parent()
        files = [Path(parent.cwd(), part).resolve() for part in parent.cmdline() if part.endswith(".ipynb")]
    if len(files) == 2 and files[0] == files[1]:
        raise SettingsError(
            f"papermill's output is its input, {files[0]}: give another name (git restores the notebook)"
        )


def _assigned(history: list[str] | None) -> dict[str, str]:
    """Name -> where it was assigned last: in the settings cell, or in the last cell that papermill injected."""
    cells = {}
    for source in history or []:
        if re.search(r"#\s*@param", source):
            cells["settings cell"] = source
        elif source.lstrip().startswith("# Parameters"):
            cells["papermill"] = source
    names = {}
    for place in ("settings cell", "papermill"):
        for node in ast.parse(cells.get(place, "")).body:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            names |= {target.id: place for target in targets if isinstance(target, ast.Name)}
    return names
