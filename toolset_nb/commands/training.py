"""Commands that train. Exit codes: 0 done, 1 configuration, 2 a step failed."""

import argparse
import sys
from typing import Any

from toolset_nb.paths import repo_root


def pipeline(options: argparse.Namespace) -> int:
    """Run the notebooks in a row; under the same name, go on at the step that failed."""
    from dotenv import load_dotenv

    from toolset_nb import pipeline, settings

    load_dotenv(repo_root() / ".env")
    names = settings.PipelineSettings.model_fields
    values = {name: getattr(options, name) for name in names if getattr(options, name, None)}
    try:
        config = settings.check(settings.PipelineSettings, values)
        if options.dry_run:
            for step, parameters in pipeline.plan(config, config.run_name or "NAME").items():
                print(f"{step}: " + ", ".join(f"{key}={value}" for key, value in parameters.items()))
            return 0
        print(f"Done: {pipeline.run(config)}")
    except settings.SettingsError as error:
        print(error, file=sys.stderr)
        return 1
    except pipeline.PipelineError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def add(commands: Any) -> None:
    """Adds these commands to the parser."""
    command = commands.add_parser("pipeline", help="SFT, KTO, evaluation, export in a row; goes on where it failed")
    command.add_argument("--run-name", metavar="NAME", help="give it to go on with a pipeline (default: the time)")
    command.add_argument("--steps", metavar="LIST", help="some of sft,kto,evaluate,export (default: all)")
    command.add_argument("--model-size", metavar="SIZE")
    command.add_argument("--base-model", metavar="ID", help="a Hub id or a local folder")
    for step in ("sft", "kto", "evaluate", "export"):
        command.add_argument(
            f"--{step}-parameters", metavar="YAML", help=f"for {step}.ipynb: 'max_rows: 200, epochs: 1'"
        )
    command.add_argument("--dry-run", action="store_true", help="show what each notebook would be given")
    command.set_defaults(run=pipeline)
