"""All notebooks in a row: SFT, KTO from its run, evaluation of base, SFT and KTO, export of the last.

Each step is a papermill run of its notebook.

A pipeline is a folder `runs/<name>/` with `pipeline.json` (what each step was given, how it ended, which run it made) and the
executed notebooks. Started again under its name it goes on at the step that has not ended well; a training step there resumes
from its newest whole checkpoint. A step that made another run than before has those after it done again, since they are given
the run's name. No step's work is done here.
"""

import contextlib
import itertools
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from toolset_nb import models, runs
from toolset_nb.errors import ToolsetError
from toolset_nb.files import replacing
from toolset_nb.paths import find_file, repo_root
from toolset_nb.settings import NOTEBOOKS, PipelineSettings, Settings, SettingsError, check, from_yaml

STEPS = ("sft", "kto", "evaluate", "export")
TRAINING = STEPS[:2]


class PipelineError(ToolsetError, RuntimeError):
    """A step failed; the message names it, its notebook and how to go on."""

    exit_code = 2


def plan(settings: PipelineSettings, name: str, made: dict[str, str] | None = None) -> dict[str, dict[str, Any]]:
    """Step -> the parameters of its notebook; raises SettingsError for a step, or a parameter of one, that cannot be.

    `made` names the runs of the steps that are done: a second run of a name carries a number.
    """
    chosen = [part.strip() for part in settings.steps.split(",") if part.strip()]
    unknown = [step for step in chosen if step not in STEPS]
    if unknown or not chosen:
        raise SettingsError(f"parameter steps is {settings.steps!r}; expected some of {', '.join(STEPS)}, by commas")
    profile = _profile(settings.profile)
    of_sft = {"model_size", *runs.RENDERING}  # KTO's are those of its SFT run
    shared = {name: value for name, value in profile.items() if name not in of_sft}
    asked = settings.model_dump(include={"model_size", "base_model"}, exclude_defaults=True)
    names = {step: f"{name}-{step}" for step in TRAINING}
    sft, kto = (names | (made or {})).values()
    targets = ["base", *(run for step, run in (("sft", sft), ("kto", kto)) if step in chosen)]
    given = {
        "sft": {"model_size": "auto", **profile, **asked, "run_name": names["sft"], "resume": "auto"},
        "kto": {**shared, "sft_run": sft, "run_name": names["kto"], "resume": "auto"},
        "evaluate": {"targets": ",".join(targets)},
        "export": {"run": targets[-1] if len(targets) > 1 else "latest"},
    }
    every = {"interactive": "no"} | settings.model_dump(include={"seed", "interactive"}, exclude_defaults=True)
    steps = {step: every | given[step] | _extra(settings, step) for step in STEPS if step in chosen}
    for step, parameters in steps.items():
        _checked(step, parameters)
    return steps


def run(settings: PipelineSettings, say: Callable[[str], None] = print) -> Path:
    """Executes the steps that are not done yet; the pipeline's folder. Raises PipelineError at the first that fails.

    Before the first the Hub is asked, where one of them uploads, whether it may (see `export.check_hub`), and memory is held
    against what merging the trained model takes.
    """
    name = settings.run_name or datetime.now(UTC).strftime("%Y%m%dT%H%M%S-pipeline")
    folder, state = runs.runs_folder().resolve() / name, status(name)
    steps = plan(settings, name)
    todo = {step: _checked(step, steps[step]) for step in steps if state.get(step, {}).get("status") != "complete"}
    _check_hub(todo)
    _check_merge(todo)
    folder.mkdir(parents=True, exist_ok=True)
    for step in steps:
        made = {each: entry["run"] for each, entry in state.items() if "run" in entry}
        parameters = plan(settings, name, made)[step]
        before = state.get(step, {})
        if before.get("status") == "complete" and before["parameters"] == parameters:
            say(f"{step}: done before, in {before['seconds']:.0f} s")
            continue
        out, now, started = folder / f"{step}.ipynb", datetime.now(UTC), time.monotonic()
        say(f"{step}: {out}")
        state[step] = {"status": "running", "parameters": parameters, "started": now.isoformat(timespec="seconds")}
        _write(folder, state)
        fault = _execute(step, parameters, out)
        state[step] |= {"status": "failed" if fault else "complete", "seconds": round(time.monotonic() - started, 1)}
        if fault:
            state[step]["reason"] = fault
        elif step in TRAINING:
            state[step]["run"] = _newest(parameters["run_name"])
        _write(folder, state)
        if fault:
            raise PipelineError(
                f"step {step} failed after {state[step]['seconds']:.0f} s: {fault}\nIts notebook shows where: {out}\n"
                f"To go on from there, with the same parameters: python -m toolset_nb pipeline --run-name {name}"
            )
        say(f"{step}: done in {state[step]['seconds']:.0f} s")
    return folder


def reports(folder: Path) -> dict[Path, str]:
    """report.md of the pipeline's runs -> its opening tables, those that compare the models."""
    found = sorted(folder.parent.glob(f"{folder.name}-*/evaluation/*/report.md"))
    return {path: path.read_text("utf-8").split("\n## ")[0] for path in found}


def status(name: str) -> dict[str, Any]:
    """Step -> what is known of it; {} for a pipeline that was never started."""
    try:
        return json.loads((runs.runs_folder() / name / "pipeline.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}


def _execute(step: str, parameters: dict[str, Any], out: Path) -> str:
    """Runs a step's notebook with papermill; why it failed, "" where it ended well."""
    import papermill

    notebook = repo_root() / "notebooks" / f"{step}.ipynb"
    try:
        with _environment():
            papermill.execute_notebook(notebook, out, parameters, progress_bar=False, log_output=False)
    except Exception as error:  # papermill's own, the kernel's death, a full disk: all end the pipeline the same way
        return _reason(error)
    return ""


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    """The environment of the steps, whose kernels start in this process's folder: this project, and runs where it has them."""
    before, path = dict(os.environ), [str(repo_root()), os.environ.get("PYTHONPATH")]
    os.environ["TOOLSET_NB_ROOT"] = str(repo_root())
    os.environ["TOOLSET_NB_RUNS"] = str(runs.runs_folder().resolve())
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _newest(name: str) -> str:
    """The run of this name, or of this name and a number, that was completed last."""
    named = [run for run in runs.list_runs() if re.fullmatch(rf"{re.escape(name)}(-\d+)?", run.folder.name)]
    done = [run for run in named if run.status == "complete"]
    return max(done, key=lambda run: run.record["finished"]).folder.name if done else name


def _profile(name: str) -> dict[str, Any]:
    """The parameters of a machine's file; its path is as given, else relative to the repository."""
    if not name:
        return {}
    if path := find_file(name):
        return from_yaml(path.read_text("utf-8"), str(path))
    raise SettingsError(f"parameter profile is {name!r}: no such file here or under {repo_root()}")


def _extra(settings: PipelineSettings, step: str) -> dict[str, Any]:
    """A step's own parameters, written as YAML: `max_rows: 200, epochs: 1`."""
    text = getattr(settings, f"{step}_parameters").strip()
    return from_yaml(text if text.startswith("{") or "\n" in text else "{" + text + "}", f"parameter {step}_parameters")


def _checked(step: str, parameters: dict[str, Any]) -> Settings:
    """A step's settings as its notebook will read them; raises SettingsError naming the step."""
    try:
        return check(NOTEBOOKS[step], parameters)
    except SettingsError as error:
        raise SettingsError(f"step {step}: {error}") from None


def _check_hub(steps: dict[str, Settings]) -> None:
    """Raises ExportError where a step could not upload in the end."""
    from toolset_nb.export import check_hub

    for settings in steps.values():
        if getattr(settings, "push_to_hub", False):
            check_hub(settings.hub_repo)


def _check_merge(steps: dict[str, Settings]) -> None:
    """Raises ExportError where a step would merge what SFT will train, and there is not the memory for it.

    The weights of a `base_model` are not known here: its merge is checked by the step.
    """
    import psutil

    from toolset_nb.export import ExportError
    from toolset_nb.export.artefacts import size_words
    from toolset_nb.export.formats import ROOM

    if "sft" not in steps or steps["sft"].base_model or not any(itertools.starmap(_merges, steps.items())):
        return
    size = _size(steps["sft"].model_size)
    needed, free = models.sizes()[size]["shape"]["parameters"] * 2 * ROOM, psutil.virtual_memory().available
    if needed > free:
        raise ExportError(
            f"evaluation and export merge {size} in memory after its training: {size_words(needed)} are needed and "
            f"{size_words(free)} are free; take a smaller model_size, or steps sft,kto here and the others on a larger machine"
        )


def _merges(step: str, settings: Settings) -> bool:
    """Whether the step holds the base's 16-bit weights in memory, to merge or to compare."""
    from toolset_nb.export import chosen

    if step == "export":
        without = {"adapter"} if settings.parity != "none" else {"adapter", "lora"}
        return not without.issuperset(chosen(settings.formats))
    return step == "evaluate" and settings.engine == "gguf"


def _size(asked: str) -> str:
    """The size that SFT will take; "auto" is found by a process of its own, since one that looks at a GPU takes memory of it."""
    if asked != "auto":
        return asked
    code = "from toolset_nb import models; print(models.choose('auto', models.hardware())[0])"
    with _environment():
        found = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    return found.stdout.split()[-1]


def _write(folder: Path, state: dict[str, Any]) -> None:
    with replacing(folder / "pipeline.json") as path:
        path.write_text(json.dumps(state, indent=1) + "\n", "utf-8")


def _reason(error: Exception) -> str:
    """The last line of what a notebook says: its error and message."""
    name, value = getattr(error, "ename", type(error).__name__), getattr(error, "evalue", str(error))
    return f"{name}: {value}".strip().splitlines()[0][:400]
