"""The command that writes the reference pages. Exit code: 0."""

import argparse
from typing import Any


def reference(options: argparse.Namespace) -> int:
    """Write docs/reference from the schemas and the settings."""
    from toolset_nb.reference import write

    print("\n".join(f"written: {path}" for path in write()))
    return 0


def add(commands: Any) -> None:
    """Adds this command to the parser."""
    command = commands.add_parser("reference", help="write docs/reference from the schemas and the settings")
    command.set_defaults(run=reference)
