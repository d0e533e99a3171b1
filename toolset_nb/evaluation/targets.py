"""What is evaluated: naming and opening targets, how each is asked, where its report lies, what its result depends on."""

import json
import platform
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from toolset_nb import __version__, export, models, runs
from toolset_nb.evaluation.prompts import prompt_file
from toolset_nb.evaluation.verdicts import VERSION
from toolset_nb.paths import repo_root
from toolset_nb.servers import Batches, connect, serve
from toolset_nb.servers.kinds import is_server
from toolset_nb.settings import EvaluateSettings
from toolset_nb.tools import catalogue
from toolset_nb.training.record import base_name

NOT_A_CONDITION = {
    "interactive",
    "targets",
    "slots",
    "timeout",
    "retries",
    "resume",
    "limit",
    "tags",
    "trials",
    "port",
    "host",
}
PACKAGES = ("xllamacpp", "transformers", "torch")


def target_names(settings: EvaluateSettings) -> list[str]:
    """The targets one by one, each once."""
    return list(dict.fromkeys(part.strip() for part in settings.targets.split(",") if part.strip()))


def lasting(name: str) -> str:
    """A target's name that means the same later: for latest, or a path under runs/, the run's own. Raises RunError."""
    if name == "base" or is_server(name):
        return name
    folder = runs.find(name).folder
    return folder.name if folder.resolve().parent == runs.runs_folder().resolve() else name


def asking(name: str, settings: EvaluateSettings) -> EvaluateSettings:
    """The settings with which a target is asked where nobody chose otherwise: a run as it was trained, base as the newest run,
    another program's model with the tools of the agent shown."""
    if is_server(name):
        rendering = {"tool_exposure": "agent"}
    else:
        run = _newest() if name == "base" else runs.find(name)
        rendering = run.rendering() if run else {}
    return settings.model_copy(
        update={field: value for field, value in rendering.items() if field not in settings.model_fields_set}
    )


@contextmanager
def open_target(name: str, settings: EvaluateSettings):
    """(label, endpoint) of a target: "base", "latest", a run's name, a kind of server or an address, with #model."""
    options = {"timeout": settings.timeout, "retries": settings.retries, "context": settings.context}
    if is_server(name):
        with connect(name, settings.host, settings.port, **options) as endpoint:
            yield endpoint.model or endpoint.url, endpoint
        return
    label = "base" if name == "base" else runs.find(name).folder.name
    if settings.engine == "transformers":
        network, tokenizer = models.for_generation(_base() if name == "base" else runs.find(name))
        with Batches(network, tokenizer, label, settings.slots) as endpoint:
            yield label, endpoint
        return
    del options["context"]
    with serve(target_gguf(name), settings.slots, settings.context, **options) as endpoint:
        yield label, endpoint


def _newest() -> runs.Run | None:
    try:
        return runs.find("latest")
    except runs.RunError:
        return None


def _base() -> str:
    """The base of the newest run, else the embedded model."""
    run = _newest()
    return run.record["base_folder"] if run else models.base_folder("tiny")


def target_gguf(name: str) -> Path:
    """The GGUF of "base" or of a run; made when it is not there yet."""
    return export.base_gguf(_base()) if name == "base" else export.run_gguf(runs.find(name))


def set_name(prompt_set: str) -> str:
    """How a prompt set is called in the names of folders."""
    return Path(prompt_set).name.removesuffix(".json")


def saved_report(name: str, prompt_set: str) -> Path:
    """The newest report of a run on a prompt set: in its own folder, or in that of the run it was evaluated beside."""
    folder = runs.find(name).folder
    place = Path("evaluation") / set_name(prompt_set) / f"{file_name(folder.name)}.json"
    found = [folder / place, *(run.folder / place for run in runs.list_runs())]
    return max((path for path in found if path.exists()), key=lambda path: path.stat().st_mtime, default=found[0])


def report_place(name: str, prompt_set: str, alone: bool = False) -> Path:
    """Where the reports lie that a run's name, a JSON file or a folder stands for: the folder with those of all models that the run
    was evaluated beside, or with `alone` its own file."""
    try:
        path = saved_report(name, prompt_set)
    except runs.RunError:
        return Path(name).expanduser()
    return path if alone else path.parent


def report_folder(settings: EvaluateSettings) -> Path:
    """Where reports go: evaluation/<prompt set> of the last target that is a run, else runs/evaluations/<prompt set>-<targets>."""
    name = set_name(settings.prompt_set)
    for target in reversed(target_names(settings)):
        if target != "base" and not is_server(target):
            return runs.find(target).folder / "evaluation" / name
    return runs.runs_folder() / "evaluations" / f"{name}-{file_name('-'.join(target_names(settings)))[-80:]}"


def manifest(
    label: str, endpoint: Any, settings: EvaluateSettings, prompts: list[dict], name: str = ""
) -> dict[str, Any]:
    """Everything that a result depends on: model, weights, server, template, prompts, vaults, sampling, versions.

    `name` is that of the target.
    """
    kept = {key: value for key, value in settings.model_dump().items() if key != "interactive"}
    vaults = sorted({prompt["fixture"] for prompt in prompts if "fixture" in prompt})
    text = prompt_file(settings.prompt_set).read_bytes()
    return {
        "model": label,
        "target": name,
        "backend": endpoint.kind.title,
        "host": endpoint.url,
        "settings": kept,
        "prompt_set": settings.prompt_set,
        "prompt_set_sha256": sha256(text).hexdigest(),
        "vaults_sha256": _vaults_hash(vaults),
        "catalogue": f"{catalogue().name} {catalogue().version}",
        "context_length": endpoint.context_length(),
        **(_served(name, endpoint) if name else {}),
        "packages": {"python": platform.python_version(), "toolset_nb": __version__, **runs.versions(PACKAGES)},
    }


def _vaults_hash(names: list[str]) -> str:
    """SHA-256 of what vaults are built from: their seeds, and the texts that their owners will want to change."""
    files = [repo_root() / "datasets" / kind / f"{name}.yaml" for name in names for kind in ("vaults", "worlds")]
    return sha256(json.dumps([runs.file_hash(file) for file in files]).encode()).hexdigest()


def _served(name: str, endpoint: Any) -> dict[str, Any]:
    """What is known of a target: of a server what it tells, of our own the GGUF that is served, its base, adapter, template and
    parent run."""
    if is_server(name):
        return {"served_sha256": endpoint.identity()}
    served, gguf = {}, endpoint.gguf
    if gguf:
        served = {"gguf_sha256": runs.file_hash(gguf), "quantisation": gguf.stem.rpartition("-")[2]}
    if name == "base":
        return {"base_model": base_name(_base()), **served}
    run = runs.find(name)
    template = run.folder / "adapter" / "chat_template.jinja"
    return {
        "base_model": run.record.get("base_model", ""),
        "method": run.record.get("method", ""),
        "parent": run.record.get("parent", ""),
        "adapter_sha256": run.weights(),
        "template_sha256": runs.file_hash(template) if template.exists() else "",
        **served,
    }


def conditions(made: dict[str, Any]) -> dict[str, Any]:
    """The part of a manifest that has to be equal for a run to go on; of a server its address, and the version of the verdicts."""
    kept = {key: value for key, value in made["settings"].items() if key not in NOT_A_CONDITION}
    aside = {"settings", "target", "packages", "context_length"} | (set() if is_server(made["target"]) else {"host"})
    return {**{key: value for key, value in made.items() if key not in aside}, "settings": kept, "version": VERSION}


def file_name(label: str) -> str:
    """A label as a file name."""
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in label)
