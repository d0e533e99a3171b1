"""A training notebook in several processes of one machine: papermill's parameters, a script of its cells, accelerate's launcher.

The notebook stays the only place where training is written down. Cells with the tag `main-process` run in the first process
alone, and only that one prints and writes. Every process holds all weights (DDP) or, sharded, its part of them (FSDP2, by unsloth).
"""

import os
import subprocess
import sys
import textwrap
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from toolset_nb import models, runs, settings
from toolset_nb.errors import ToolsetError
from toolset_nb.paths import repo_root
from toolset_nb.training.data import data_path
from toolset_nb.training.resume import interrupted

TAG = "main-process"
TRAINING = {name: kind for name, kind in settings.NOTEBOOKS.items() if issubclass(kind, settings.TrainingSettings)}
HEADER = """import os
import sys

_main_process = os.environ.get("RANK", "0") == "0"
if not _main_process:
    sys.stdout = open(os.devnull, "w")
"""


class LaunchError(ToolsetError, ValueError):
    """The notebook cannot be launched so, or one of its processes failed; the message says which and where to look."""

    exit_code = 2


def launch(notebook: Path, parameters: dict[str, Any], processes: int, shard: bool = False) -> runs.Run:
    """Trains with the notebook in so many processes and returns the complete run; raises LaunchError, SettingsError, RunError.

    A step's rows are batch_size x gradient_accumulation x processes. Logs of all processes: launch/log.txt in the run.
    """
    if shard and not find_spec("triton"):
        raise LaunchError(
            "--shard needs triton, which comes with PyTorch for CUDA; without --shard each process holds all weights"
        )
    command, run = prepare(notebook, parameters, processes)
    log = run.path("launch", "log.txt")
    print(f"{processes} processes; run {run}; their output: {log}", flush=True)
    python_path = os.pathsep.join(filter(None, [str(repo_root()), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "TOOLSET_NB_RUN": str(run.folder.resolve()), "PYTHONPATH": python_path}
    there = run.folder / "run.json"
    before = there.exists() and run.record
    environment["UNSLOTH_FSDP2"] = "native" if shard else "0"
    with log.open("a") as file:
        code = subprocess.run(command, env=environment, stdout=file, stderr=subprocess.STDOUT).returncode
    if code:
        if there.exists() and run.record != before and run.record["status"] == "running":  # its processes took it up
            run.fail(f"a process ended with exit code {code}")
        raise LaunchError(f"training in {processes} processes failed (exit code {code}); its output: {log}")
    return run


def prepare(notebook: Path, parameters: dict[str, Any], processes: int) -> tuple[list[str], runs.Run]:
    """(command, run): the run's folder with the notebook as it will run and its script, and what starts it."""
    if notebook.stem not in TRAINING:
        raise LaunchError(f"notebook {notebook}: expected one that trains: {', '.join(TRAINING)}")
    if processes < 1:
        raise LaunchError(f"processes is {processes}; expected 1 or more")
    config = settings.check(TRAINING[notebook.stem], parameters)
    run = interrupted(config, _known(config, processes))
    if run is None:
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        run = runs.Run(runs.new_folder(config.run_name or f"{stamp}-{notebook.stem}-{processes}-processes"))
    given = parameters | {"resume": run.folder.name if (run.folder / "run.json").exists() else ""}
    path = run.path("launch", f"{notebook.stem}.py")
    path.write_text(script(notebook, given, path.with_suffix(".ipynb")), "utf-8")
    # accelerate's --cpu starts a single process; --multi_gpu is torchrun, and the trainer's use_cpu keeps it on the CPU.
    options = ["--num_processes", str(processes), "--num_machines", "1", "--mixed_precision", "no"]
    options += ["--dynamo_backend", "no", "--main_process_port", "0"] + ["--multi_gpu"] * (processes > 1)
    return [sys.executable, "-m", "accelerate.commands.launch", *options, str(path)], run


def _known(config: settings.TrainingSettings, processes: int) -> dict[str, Any]:
    """What a new run's record will say, as far as it is known before the processes start: no rows, no size that "auto" takes."""
    parent = runs.find(config.sft_run, "sft") if isinstance(config, settings.KTOSettings) else None
    size = parent.record["size"] if parent else config.model_size
    own = models.sizes().get(size, {}).get("kto" if parent else "sft", {})
    if getattr(config, "base_model", ""):
        own = {}  # the base may hold an adapter with a rank of its own
    path = data_path(config.dataset)
    return {
        "size": None if size == "auto" else size,
        "parameters": own | {name: value for name, value in config.model_dump().items() if value},
        "dataset": {"file": path.name, "sha256": runs.file_hash(path)},
        "parent": parent and parent.folder.name,
        "processes": processes,
    }


def script(notebook: Path, parameters: dict[str, Any], prepared: Path) -> str:
    """The notebook's code with these parameters, which papermill writes into `prepared`; tagged cells are for one process."""
    import papermill
    from nbconvert import PythonExporter

    ready = papermill.execute_notebook(notebook, prepared, parameters, prepare_only=True, progress_bar=False)
    for cell in ready.cells:
        if cell.cell_type == "code" and TAG in cell.metadata.get("tags", []):
            cell.source = "if _main_process:\n" + textwrap.indent(cell.source, "    ")
    ready.cells = [cell for cell in ready.cells if cell.cell_type == "code"]
    code, _ = PythonExporter(exclude_input_prompt=True).from_notebook_node(ready)
    return HEADER + code
