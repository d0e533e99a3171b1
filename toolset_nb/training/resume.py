"""Checkpoints that are whole, and the run and checkpoint to go on from. Writing their files is the trainer's work."""

import contextlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from toolset_nb.runs import RENDERING, Run, RunError, find, list_runs

MARKER = "COMPLETE.json"
# Parameters that a run keeps to its end: of the model, the rows in their order, the loss, the schedule that a checkpoint restores.
KEPT = ("lora_rank", "lora_alpha", "max_length", "max_rows", "seed", "gradient_accumulation", "epochs", "max_steps")
KEPT += ("learning_rate", "beta", "desirable_weight", "undesirable_weight")


def resume_point(settings: Any, record: dict[str, Any] | None = None) -> tuple[Run | None, str | None]:
    """(run, checkpoint) to go on from, the run running again; (None, None) for a new run. Raises RunError as `interrupted` does."""
    run = interrupted(settings, record)
    if run is None:
        return None, None
    run.reopen()
    return run, str(checkpoints(run)[-1])


def interrupted(settings: Any, record: dict[str, Any] | None = None) -> Run | None:
    """The run to go on with, left as it is: `resume` is "latest", "auto" or a run's name; None for a new run.

    "latest" takes the newest unfinished run, "auto" does so where there is one and else starts anew (with `run_name`: that run).
    Only a run of the notebook's own method counts, and only a checkpoint that carries its marker and the sizes in it is
    whole. Whether a run of another machine still runs cannot be seen from here: such a run is taken up where its name is
    given, be it by `resume` or by "auto" with `run_name`. A run that was started with another model, rows, order of them, loss
    or schedule than `record` (of `describe`) says is passed over by "auto". Raises RunError when there is none, and for one that
    still runs here.
    """
    if not settings.resume:
        return None
    from toolset_nb.settings import KTOSettings

    method = "kto" if isinstance(settings, KTOSettings) else "sft"
    if settings.resume in ("latest", "auto"):
        run = _unfinished(settings, method, record)
        if run is None:
            return None
    else:
        run = find(settings.resume)
        if run.record["method"] != method:
            raise RunError(f"resume: {run} is a {run.record['method']} run, expected {method}")
    if not checkpoints(run):
        raise RunError(f"resume: {run} has no whole checkpoint")
    _refuse_running(run)
    if difference := _difference(run, record):
        raise RunError(f"resume: {difference}: give the same again, or leave resume out to start anew")
    return run


def checkpoints(run: Run) -> list[Path]:
    """Whole checkpoints, oldest first."""
    return [folder for folder in _folders(run.folder / "checkpoints") if is_whole(folder)]


def is_whole(folder: Path) -> bool:
    """Whether the folder carries its marker and every file that the marker names in the size that it names."""
    try:
        files = json.loads((folder / MARKER).read_text("utf-8"))["files"]
        return all((folder / name).stat().st_size == size for name, size in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def seal(folder: Path, step: int) -> None:
    """Writes the marker of a checkpoint, after all its files have reached the disk."""
    sizes = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file, contextlib.suppress(OSError):  # some network drives know no fsync
            os.fsync(file.fileno())
        sizes[str(path.relative_to(folder))] = path.stat().st_size
    (folder / MARKER).write_text(json.dumps({"step": step, "files": sizes}), "utf-8")


def rotate(parent: Path, keep: int | None) -> None:
    """Removes checkpoints that are not whole, then the oldest whole ones beyond `keep` (None or 0: all stay).

    transformers' own rotation goes by time, counts torn ones, and comes before the marker of the new one is written.
    """
    folders = _folders(parent)
    whole = [folder for folder in folders if is_whole(folder)]
    kept = whole[-keep:] if keep else whole
    for folder in folders:
        if folder not in kept:
            (folder / MARKER).unlink(missing_ok=True)  # first, so that a half-removed one is not taken for whole
            shutil.rmtree(folder, ignore_errors=True)


def _unfinished(settings: Any, method: str, record: dict[str, Any] | None) -> Run | None:
    """The newest run that "latest" or "auto" means; None where "auto" finds none, RunError where "latest" does."""
    auto = settings.resume == "auto"
    named = settings.run_name if auto else ""
    same = [run for run in list_runs() if run.record["method"] == method and checkpoints(run)]
    if named:  # a second run of a name carries a number
        same = [run for run in same if re.fullmatch(rf"{re.escape(named)}(-\d+)?", run.folder.name)]
    found = [run for run in same if run.status in ("crashed", "failed") or (named and run.elsewhere)]
    if auto:
        found = [run for run in found if not _told(_difference(run, record))]
    if found:
        return found[0]
    hints = [
        f"{run} was started on {run.record['host']}: if that machine is gone, give resume {run.folder.name}"
        for run in same
        if run.elsewhere and not named and not _difference(run, record)
    ]
    if not auto:
        raise RunError("; ".join([f"resume latest: no unfinished {method} run with a whole checkpoint", *hints[:1]]))
    _told("".join(hints[:1]))
    print(f"resume auto: there is no {method} run to go on with, a new one starts")
    return None


def _refuse_running(run: Run) -> None:
    """Two processes would write into one folder; those that `launch` started for it may, and this one itself."""
    pid, launched = run.record["pid"], os.environ.get("TOOLSET_NB_RUN") == str(run.folder.resolve())
    if run.status == "running" and not run.elsewhere and not launched and pid != os.getpid():
        raise RunError(f"resume: {run} is running here, in process {pid}: let it end, or end it first")


def _difference(run: Run, record: dict[str, Any] | None) -> str:
    """What makes the run another one; "" for none. A checkpoint goes with its model, its rows in their order, loss and schedule.

    The order comes from the rows that are computed together; where to go on in it, from those of a step.
    """
    before, now = _identity(run.record), _identity(record or {})
    found = [name for name in before if name in now and before[name] != now[name]]
    return f"{run} was started with {found[0]} {before[found[0]]}, now it is {now[found[0]]}" if found else ""


def _told(reason: str) -> str:
    if reason:
        print(f"! Not resumed: {reason}")
    return reason


def _identity(record: dict[str, Any]) -> dict[str, Any]:
    """What a run cannot change on its way, as far as the record tells."""
    given, data = record.get("parameters") or {}, record.get("dataset") or {}
    found = {name: given.get(name) for name in (*KEPT, *RENDERING)}
    if given.get("batch_size") and record.get("processes"):
        found["batch_size x processes"] = given["batch_size"] * record["processes"]
    found |= {"base model": (record.get("base_model") or {}).get("name"), "sft_run": record.get("parent")}
    found |= {"model_size": record.get("size")}
    found |= {"dataset": data.get("file"), "dataset's sha256": data.get("sha256"), "rows": data.get("rows")}
    return {name: value for name, value in found.items() if value is not None}


def _folders(parent: Path) -> list[Path]:
    """The checkpoint folders, by step."""
    found = [path for path in parent.glob("checkpoint-*") if path.name.rpartition("-")[2].isdigit()]
    return sorted(found, key=lambda folder: int(folder.name.rpartition("-")[2]))
