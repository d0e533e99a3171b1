"""The command line: `python -m toolset_nb COMMAND`.

The commands are in toolset_nb/commands/, a module a subject, which also tells their exit codes.
"""

import argparse
import os
import sys

from toolset_nb import __version__
from toolset_nb.commands import data, evaluating, reference, training, vaults
from toolset_nb.errors import ToolsetError
from toolset_nb.paths import repo_root


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code; an error that a person can put right is printed and brings its own."""
    options = _parser().parse_args(arguments)
    from dotenv import load_dotenv

    load_dotenv(repo_root() / ".env")
    try:
        code = options.run(options)
        sys.stdout.flush()
        return code
    except ToolsetError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        return 130


def repository(options: argparse.Namespace) -> int:
    """Set the public address everywhere it stands."""
    from toolset_nb.repository import rewrite

    print("\n".join(f"rewritten: {path}" for path in rewrite(options.url)) or "nothing to change")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m toolset_nb", description="Datasets and models for tool calls in an Obsidian vault."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for subject in (data, training, evaluating, vaults, reference):
        subject.add(commands)
    command = commands.add_parser(
        "repository", help="set the project's public address in pyproject, notebooks and README"
    )
    command.add_argument("url", metavar="URL")
    command.set_defaults(run=repository)
    return parser


if __name__ == "__main__":
    sys.exit(main())
