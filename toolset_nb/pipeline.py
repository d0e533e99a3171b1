"""All notebooks in a row: SFT, KTO from its run, evaluation of base, SFT and KTO, export of the last.

Each step is a papermill run of its notebook.

A pipeline is a folder `runs/<name>/` with `pipeline.json` (what each step was given and how it ended) and the executed notebooks.
Started again under its name it goes on at the step that has not ended well; a training step there resumes from its
newest whole checkpoint. No step's work is done here.
"""

import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from toolset_nb import runs
from toolset_nb.errors import ToolsetError
from toolset_nb.paths import repo_root
from toolset_nb.settings import PipelineSettings, SettingsError, from_yaml

STEPS = ("sft", "kto", "evaluate", "export")


class PipelineError(ToolsetError, RuntimeError):
    """A step failed; the message names it, its notebook and how to go on."""

    exit_code = 2


def plan(settings: PipelineSettings, name: str) -> dict[str, dict[str, Any]]:
    """Step -> the parameters of its notebook; raises SettingsError for a step or a parameter text that cannot be."""
    chosen = [part.strip() for part in settings.steps.split(",") if part.strip()]
    unknown = [step for step in chosen if step not in STEPS]
    if unknown or not chosen:
        raise SettingsError(f"parameter steps is {settings.steps!r}; expected some of {', '.join(STEPS)}, by commas")
    shared = {
        key: value for key, value in (("model_size", settings.model_size), ("base_model", settings.base_model)) if value
    }
    sft, kto = f"{name}-sft", f"{name}-kto"
    targets = ["base", *(run for step, run in (("sft", sft), ("kto", kto)) if step in chosen)]
    given = {
        "sft": {**shared, "run_name": sft, "resume": "auto"},
        "kto": {"sft_run": sft, "run_name": kto, "resume": "auto"},
        "evaluate": {"targets": ",".join(targets)},
        "export": {"run": targets[-1] if len(targets) > 1 else "latest"},
    }
    return {step: given[step] | _extra(settings, step) for step in STEPS if step in chosen}


def run(settings: PipelineSettings, say: Callable[[str], None] = print) -> Path:
    """Executes the steps that are not done yet; the pipeline's folder. Raises PipelineError at the first that fails."""
    import papermill

    name = settings.run_name or datetime.now(UTC).strftime("%Y%m%dT%H%M%S-pipeline")
    folder = runs.runs_folder() / name
    folder.mkdir(parents=True, exist_ok=True)
    state = status(name)
    for step, parameters in plan(settings, name).items():
        if state.get(step, {}).get("status") == "complete" and state[step]["parameters"] == parameters:
            say(f"{step}: done before, in {state[step]['seconds']:.0f} s")
            continue
        out = folder / f"{step}.ipynb"
        say(f"{step}: {out}")
        started = time.monotonic()
        state[step] = {
            "status": "running",
            "parameters": parameters,
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        _write(folder, state)
        try:
            papermill.execute_notebook(
                repo_root() / "notebooks" / f"{step}.ipynb",
                out,
                parameters,
                progress_bar=False,
                log_output=False,
                cwd=str(folder),
            )
        except (
            Exception
        ) as error:  # papermill's own, the kernel's death, a full disk: all end the pipeline the same way
            seconds = time.monotonic() - started
            state[step] |= {"status": "failed", "reason": _reason(error), "seconds": round(seconds, 1)}
            _write(folder, state)
            raise PipelineError(
                f"step {step} failed after {seconds:.0f} s: {_reason(error)}\nIts notebook shows where: {out}\n"
                f"To go on from there: python -m toolset_nb pipeline --run-name {name}"
            ) from None
        state[step] |= {"status": "complete", "seconds": round(time.monotonic() - started, 1)}
        _write(folder, state)
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


def _extra(settings: PipelineSettings, step: str) -> dict[str, Any]:
    """A step's own parameters, written as YAML: `max_rows: 200, epochs: 1`."""
    text = getattr(settings, f"{step}_parameters").strip()
    return from_yaml(text if text.startswith("{") or "\n" in text else "{" + text + "}", f"parameter {step}_parameters")


def _write(folder: Path, state: dict[str, Any]) -> None:
    draft = folder / "pipeline.tmp"
    draft.write_text(json.dumps(state, indent=1) + "\n", "utf-8")
    os.replace(draft, folder / "pipeline.json")


def _reason(error: Exception) -> str:
    """The last line of what a notebook says: its error and message."""
    name, value = getattr(error, "ename", type(error).__name__), getattr(error, "evalue", str(error))
    return f"{name}: {value}".strip().splitlines()[0][:400]
