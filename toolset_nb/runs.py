"""The run folder: what a training run leaves behind, written so that a crash can be told from a finished run.

    runs/<UTC time>-<method>-<size>/
        run.json      status running, complete or failed; parameters, versions, data hash, base model, hardware, parent run
        log.jsonl     one JSON object a logged step, append-only
        held_out.jsonl  with eval_steps, the share of well-formed calls on prompts asked during training
        checkpoints/  the trainer's own, for resuming
        adapter/      the trained weights and the tokenizer, safetensors only
        plots/  evaluation/  export/
        launch/       the notebook that several processes ran, and their logs

`runs/latest` names the newest run. A run that still says "running" while its process is gone reads as "crashed".
`finished/` of the repository is such a folder too: the model in the box, for those who have not trained one yet.
This module knows folders and records; it does not train.
"""

import contextlib
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from toolset_nb import jsonl
from toolset_nb.errors import ToolsetError
from toolset_nb.paths import repo_root

FINISHED = "finished"
EMBEDDED = re.compile(r"[\\/]models[\\/]SmolLM2-135M-Instruct$")  # its folder in any machine's cache
RENDERING = ("call_format", "context_source", "tool_exposure")  # of a training notebook's parameters
PACKAGES = ("torch", "transformers", "trl", "peft", "unsloth", "unsloth_zoo", "datasets", "accelerate", "bitsandbytes")


class RunError(ToolsetError, ValueError):
    """A run folder is missing, unfinished or not what was asked for."""


def runs_folder() -> Path:
    """Where runs live: $TOOLSET_NB_RUNS, else `runs/` in the repository."""
    return Path(os.environ.get("TOOLSET_NB_RUNS") or repo_root() / "runs")


def is_main() -> bool:
    """Whether this process writes: the only one, or the first of those that accelerate started."""
    return os.environ.get("RANK", "0") == "0"


def new_folder(name: str) -> Path:
    """A new folder of this name under runs/; where there is one, with a number after it."""
    base = folder = runs_folder() / name
    for number in range(2, 1000):
        try:
            folder.mkdir(parents=True)
            break
        except FileExistsError:
            folder = base.with_name(f"{base.name}-{number}")
    return folder


class Run:
    """One run folder. `Run.start` makes it and `run.json` with it; `Run(path)` opens one."""

    def __init__(self, folder: Path | str):
        self.folder = Path(folder)

    @classmethod
    def start(cls, method: str, size: str, name: str = "", **record: Any) -> "Run":
        """A new folder whose run.json says running. `record` holds parameters, data, base model and so on."""
        shared = os.environ.get("TOOLSET_NB_RUN")  # made by `launch` for all its processes
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        folder = Path(shared) if shared else new_folder(name or f"{stamp}-{method}-{size}")
        run = cls(folder)
        run.write(
            {
                "status": "running",
                "method": method,
                "size": size,
                "started": _now(),
                **_process(),
                "python": platform.python_version(),
                "packages": versions(PACKAGES),
                "commit": _commit(),
                **record,
            }
        )
        if is_main():
            _point_latest(folder)
        return run

    def __str__(self) -> str:
        return str(self.folder)

    def path(self, *parts: str) -> Path:
        """A path inside the run folder; parent folders are made."""
        path = self.folder.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def weights(self) -> dict[str, str]:
        """File -> sha256 of the adapter's weights."""
        return {file.name: file_hash(file) for file in sorted((self.folder / "adapter").glob("*.safetensors"))}

    @property
    def record(self) -> dict[str, Any]:
        """run.json; raises RunError when it is absent or unreadable."""
        path = self.folder / "run.json"
        try:
            return json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            raise RunError(f"{self.folder} is no run folder: it has no run.json") from None
        except ValueError as error:
            raise RunError(f"{path} is not readable: {error}") from None

    @property
    def status(self) -> str:
        """running, complete, failed, or crashed: running by its record while its process is gone."""
        record = self.record
        if record["status"] == "running" and record["host"] == socket.gethostname():
            alive = _process_started(record["pid"])
            if alive is None or alive != record["process_started"]:
                return "crashed"
        return record["status"]

    @property
    def elsewhere(self) -> bool:
        """Whether it says running on another machine: from here nobody can tell if it does."""
        record = self.record
        return record["status"] == "running" and record["host"] != socket.gethostname()

    def rendering(self) -> dict[str, str]:
        """How its rows were rendered in training, and so how it has to be asked: what the record holds of RENDERING."""
        return rendering(self.record.get("parameters") or {})

    def write(self, record: dict[str, Any]) -> None:
        """Replaces run.json in one step; of several processes the first alone does."""
        if not is_main():
            return
        path = self.path("run.json")
        temporary = path.with_suffix(".tmp")
        with temporary.open("w", encoding="utf-8") as file:
            file.write(json.dumps(record, indent=2, ensure_ascii=False, default=str) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)

    def update(self, **fields: Any) -> None:
        self.write({**self.record, **fields})

    def finish(self, **results: Any) -> None:
        """Marks the run complete; call it last."""
        record = self.record
        self.write({**record, **results, "status": "complete", "finished": _now()})

    def reopen(self) -> None:
        """Running again, in this process: a resumed run, which forgets why it had ended."""
        kept = {name: value for name, value in self.record.items() if name not in ("reason", "finished")}
        self.write({**kept, "status": "running", "resumed": _now(), **_process()})

    def fail(self, reason: str) -> None:
        self.update(status="failed", reason=reason, finished=_now())

    def log(self, fields: dict[str, Any]) -> None:
        """Appends one line to log.jsonl; of several processes the first alone does."""
        if is_main():
            jsonl.append(self.folder / "log.jsonl", fields)

    def history(self) -> list[dict[str, Any]]:
        """Every whole line of log.jsonl; torn lines are left out, of a step logged again after a restart the last counts."""
        rows: list[dict[str, Any]] = []
        path = self.folder / "log.jsonl"
        with contextlib.suppress(FileNotFoundError), path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                with contextlib.suppress(ValueError):
                    row = json.loads(line)
                    while rows and rows[-1].get("step", -1) >= row.get("step", 0):
                        rows.pop()
                    rows.append(row)
        return rows


def find(name: str, method: str | None = None) -> Run:
    """The run called so: "latest", "latest:sft", "finished", a folder's name under runs/, or a path.

    Where nothing was trained yet, "latest" is the finished model of the repository. Raises RunError naming what exists.
    """
    wanted, _, of_method = name.partition(":")
    method = of_method or method
    if wanted == "latest":
        there = list_runs()
        for run in there:
            if run.status == "complete" and method in (None, run.record["method"]):
                return here(run)
        if not there and method is None:
            print(f"Nothing trained here yet: {FINISHED}, the model that comes with the repository, is taken.")
            return finished()
        raise RunError(f"no complete {method or 'training'} run under {runs_folder()}: train one first (sft.ipynb)")
    if name == FINISHED:
        return finished()
    for folder in (runs_folder() / name, Path(name)):
        if (folder / "run.json").exists():
            return here(Run(folder))
    known = ", ".join(run.folder.name for run in list_runs()[:5]) or "none"
    raise RunError(f"no run {name!r} under {runs_folder()}; newest: {known}")


def here(run: Run) -> Run:
    """The run; where it was trained on the embedded model of another machine, or of a cache that is gone, put on this one's."""
    record = run.record
    base = record.get("base_folder") or ""
    if record["status"] == "complete" and EMBEDDED.search(base) and not Path(base).is_dir():
        from toolset_nb import models

        _put_on(str(models.embedded()), run, record)
    return run


def rendering(values: dict[str, Any]) -> dict[str, str]:
    """What of a training's values says how rows are rendered (RENDERING)."""
    return {name: values[name] for name in RENDERING if name in values}


def finished() -> Run:
    """The repository's finished model as a run under runs/, on this machine's copy of the embedded model.

    Copied when it is first asked for, and anew, without old reports and exports, when the repository has another one. The
    embedded model is unpacked again where its folder is gone.
    """
    from toolset_nb import models

    source, folder = repo_root() / FINISHED, runs_folder() / FINISHED
    weights = Path("adapter") / "adapter_model.safetensors"
    same = (folder / weights).exists() and file_hash(folder / weights) == file_hash(source / weights)
    if same and Path(Run(folder).record["base_folder"]).is_dir():
        return Run(folder)
    base = str(models.embedded())
    if same:
        _put_on(base, Run(folder), Run(folder).record)
        return Run(folder)
    copy = folder.with_name(f".{FINISHED}-{os.getpid()}")
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("run.json"))
    _put_on(base, Run(copy), Run(source).record)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(copy, folder)
    return Run(folder)


def _put_on(base: str, run: Run, record: dict[str, Any]) -> None:
    """Writes the base's folder on this machine into the run's adapter and, with all else of `record`, into its run.json."""
    config = run.folder / "adapter" / "adapter_config.json"
    config.write_text(
        json.dumps(json.loads(config.read_text("utf-8")) | {"base_model_name_or_path": base}, indent=2) + "\n"
    )
    run.write({**record, "base_folder": base})


def complete_names() -> list[str]:
    """The runs that can be asked something, newest first, the finished model last."""
    return [run.folder.name for run in list_runs() if run.status == "complete" and run.folder.name != FINISHED] + [
        FINISHED
    ]


def list_runs() -> list[Run]:
    """Every run folder with a readable run.json, newest first."""
    found = []
    for path in runs_folder().glob("*/run.json"):
        run = Run(path.parent)
        with contextlib.suppress(RunError, KeyError, TypeError):
            if path.parent.name != "latest":
                found.append((str(run.record["started"]), run))
    return [run for _, run in sorted(found, key=lambda pair: pair[0], reverse=True)]


def mark_failed_on_error(run: Run) -> None:
    """In a notebook: run.json says failed, with the reason, when any later cell raises."""
    with contextlib.suppress(ImportError, NameError):
        from IPython import get_ipython

        shell = get_ipython()
        if shell is None:
            return

        def after_cell(result):
            error = result.error_before_exec or result.error_in_exec
            if error is not None and run.record["status"] == "running":
                run.fail(f"{type(error).__name__}: {error}")

        shell.events.register("post_run_cell", after_cell)


def file_hash(path: Path | str) -> str:
    """sha256 of a file's bytes, in hex; a file that has not changed is read once a process."""
    status = Path(path).stat()
    return _hash(Path(path).resolve(), status.st_mtime_ns, status.st_size)


@cache
def _hash(path: Path, _changed: int, _size: int) -> str:
    digest = sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Package -> version of those that are installed."""
    found = {}
    for name in packages:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _commit() -> str | None:
    command = ["git", "-C", str(repo_root()), "rev-parse", "HEAD"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    return None


def _process() -> dict[str, Any]:
    """What tells later whether this process still runs."""
    return {"pid": os.getpid(), "process_started": _process_started(os.getpid()), "host": socket.gethostname()}


def _process_started(pid: int) -> float | None:
    """When the process began, in clock ticks since boot (in seconds since 1970 where there is no /proc); None when it is gone.

    A process id alone may have been given to another process since; a zombie is gone although it still has one.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else float(fields[19])
    except (OSError, IndexError, ValueError):
        if Path("/proc").exists():  # where the system's clock is set anew, the ticks stay
            return None
    import psutil

    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    return None


def _point_latest(folder: Path) -> None:
    """`runs/latest` as a symbolic link, or a text file with the name where links are not allowed."""
    link = folder.parent / "latest"
    temporary = folder.parent / f".latest-{os.getpid()}-{time.monotonic_ns()}"
    try:
        temporary.symlink_to(folder.name)
    except OSError:
        temporary.write_text(folder.name + "\n")
    os.replace(temporary, link)
