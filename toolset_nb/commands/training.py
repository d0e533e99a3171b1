"""Commands that train. Exit codes: 0 done, 1 configuration, 2 a step failed."""

import argparse
from pathlib import Path
from typing import Any

from toolset_nb.commands.files import read


def pipeline(options: argparse.Namespace) -> int:
    """Run the notebooks in a row; under the same name, go on at the step that failed."""
    from toolset_nb import pipeline, settings

    names = settings.PipelineSettings.model_fields
    values = {name: getattr(options, name) for name in names if getattr(options, name, None)}
    config = settings.check(settings.PipelineSettings, values)
    if options.dry_run:
        for step, parameters in pipeline.plan(config, config.run_name or "NAME").items():
            print(f"{step}: " + ", ".join(f"{key}={value}" for key, value in parameters.items()))
        return 0
    print(f"Done: {pipeline.run(config)}")
    return 0


def launch(options: argparse.Namespace) -> int:
    """Train with a notebook in several processes of this machine."""
    from toolset_nb import launch, settings

    values = settings.from_yaml(read(options.file), str(options.file)) if options.file else {}
    values |= dict(options.parameter)
    print(f"Done: {launch.launch(options.notebook, values, options.processes, options.shard)}")
    return 0


def factor(options: argparse.Namespace) -> int:
    """Make a run whose adapter is the low-rank part of what another run changed."""
    from toolset_nb import models, runs
    from toolset_nb.export import factor

    run = runs.find(options.source)
    base = models.base_folder(run.record["size"], options.base) if options.base is not None else ""
    made, kept = factor(run, options.rank, options.run_name, base)
    size = (made.folder / "adapter" / "adapter_model.safetensors").stat().st_size / 1e6
    print(
        f"{made}: rank {options.rank}, {kept:.0%} of the change, {size:.1f} MB; train on with -p base_model {made.folder.name}"
    )
    return 0


def add(commands: Any) -> None:
    """Adds these commands to the parser."""
    command = commands.add_parser("launch", help="train with a notebook in several processes of this machine")
    command.add_argument("notebook", type=Path, metavar="NOTEBOOK", help="notebooks/sft.ipynb or kto.ipynb")
    command.add_argument("--processes", type=int, default=2, metavar="N", help="one a GPU (default: 2)")
    command.add_argument(
        "--shard", action="store_true", help="split the weights over the processes (FSDP2) for a large model"
    )
    command.add_argument("-f", "--file", type=Path, metavar="YAML", help="parameters, as papermill's -f")
    command.add_argument("-p", dest="parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    command.set_defaults(run=launch)
    command = commands.add_parser(
        "factor", help="a run's change as a small LoRA adapter, to train on from or to hand out"
    )
    command.add_argument("source", metavar="RUN")
    command.add_argument("--rank", type=int, default=32, metavar="N")
    command.add_argument("--base", metavar="ID", help='measure the change from here; "" is the size\'s own base model')
    command.add_argument("--run-name", default="", metavar="NAME", help="of the run to make (default: RUN-rankN)")
    command.set_defaults(run=factor)
    command = commands.add_parser("pipeline", help="SFT, KTO, evaluation, export in a row; goes on where it failed")
    command.add_argument("--run-name", metavar="NAME", help="give it to go on with a pipeline (default: the time)")
    command.add_argument("--steps", metavar="LIST", help="some of sft,kto,evaluate,export (default: all)")
    command.add_argument("-f", "--profile", metavar="YAML", help="parameters of SFT and KTO: params/rtx3090.yaml")
    command.add_argument("--model-size", metavar="SIZE")
    command.add_argument("--base-model", metavar="ID", help="a Hub id or a local folder")
    for step in ("sft", "kto", "evaluate", "export"):
        command.add_argument(
            f"--{step}-parameters", metavar="YAML", help=f"for {step}.ipynb: 'max_rows: 200, epochs: 1'"
        )
    command.add_argument("--dry-run", action="store_true", help="show what each notebook would be given")
    command.set_defaults(run=pipeline)
