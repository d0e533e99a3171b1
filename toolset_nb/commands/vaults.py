"""Commands on vaults: writing a sample, serving one, executing a log, putting back what was deleted."""

import argparse
from pathlib import Path
from typing import Any

from toolset_nb.errors import UsageError


def vault(options: argparse.Namespace) -> int:
    """Write one of the sample vaults into a new folder, or list them."""
    from toolset_nb.vault import fixtures

    if not options.name:
        for name in fixtures.names():
            seed = fixtures.load(name)
            print(f"{name:12} {seed['split']:10} {seed['about']}")
        return 0
    if options.name not in fixtures.names():
        raise UsageError(f"{options.name}: no such vault; expected one of {', '.join(fixtures.names())}")
    if not options.folder or Path(options.folder).exists():
        raise UsageError("FOLDER: expected the path of a folder that does not exist yet")
    notes = len(fixtures.build(options.name, options.folder).snapshot().files)
    print(f"{options.folder}: {notes} files. Next: python -m toolset_nb serve {options.folder} --http")
    return 0


def serve(options: argparse.Namespace) -> int:
    """Serve a vault to MCP clients."""
    opened = _open_vault(options.vault, options.read_only)
    from toolset_nb.vault import server

    built = server.build(opened, options.shape, options.log)
    if options.http:
        server.serve_http(built, options.port)
    else:
        server.serve_stdio(built)
    return 0


def replay(options: argparse.Namespace) -> int:
    """Execute the calls of a log again and show what they change; exit code 1 when a call fails."""
    opened = _open_vault(options.vault, False)
    from toolset_nb.vault import server, snapshots

    before = opened.snapshot()
    try:
        calls = list(server.read_calls(options.calls))
    except OSError as error:
        raise UsageError(f"{options.calls}: {error.strerror}") from None
    results = opened.replay(calls)
    for (name, _), result in zip(calls, results, strict=True):
        print(
            f"{'ok  ' if result['success'] else 'FAIL'} {name}" + ("" if result["success"] else f": {result['error']}")
        )
    print(snapshots.diff(before, opened.snapshot()))
    return 0 if all(result["success"] for result in results) else 1


def undelete(options: argparse.Namespace) -> int:
    """Put back what was deleted last in a vault."""
    print(f"back: {_open_vault(options.vault, False).undelete()}")
    return 0


def chat(options: argparse.Namespace) -> int:
    """Talk to a model in the terminal: its calls are shown, and each write waits for a yes with what it would change."""
    from toolset_nb import calls, settings
    from toolset_nb.chat import Asking, Chat

    opened = _open_vault(options.vault, False)
    given = {name: getattr(options, name) for name in ("context", "tool_exposure") if getattr(options, name)}
    config = settings.check(settings.EvaluateSettings, {"slots": 1, **given})

    def approve(call, difference) -> bool:
        print(f"  {_shown(call)}", difference, sep="\n")
        try:
            return input(f"{call.name}: do it? [y/N] ").strip().lower() in ("y", "yes")
        except EOFError:
            return False

    def told(turn) -> None:
        if not turn.executed:
            print(calls.render(turn.reply.blocks))
            return
        for made, result in zip(turn.reply.calls, turn.results, strict=True):
            print(f"  {_shown(made)} -> {'done' if result['success'] else result['error']}")
        if turn.reply.text:
            print(turn.reply.text)

    with Chat(options.target, Asking(opened, approve), config) as talk:
        print(f"{talk.label} works in {options.vault}. An empty line ends.")
        while words := _line("you: "):
            made = talk.say(words, told)
            if talk.forgotten:
                print(f"  (more than --context {config.context} holds: oldest requests left out, {talk.forgotten})")
            if made.stop == "context":
                print(f"  (this alone is more than --context {config.context} holds: the conversation starts anew)")
            elif made.stop not in ("words", "single"):
                print(f"  (ended: {made.error or made.stop})")
    return 0


def _shown(call: Any) -> str:
    """A call without its context."""
    return f"{call.name} " + str({key: value for key, value in call.arguments.items() if key != "context"})


def _line(prompt: str) -> str:
    """What is typed, "" at the end of the input."""
    try:
        return input(prompt).strip()
    except EOFError:
        return ""


def _open_vault(folder: str, read_only: bool):
    """The vault of a folder; raises UsageError where there is none."""
    from toolset_nb.vault import Vault, VaultError

    try:
        return Vault(folder, read_only=read_only)
    except (OSError, VaultError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{folder}: {reason}; expected a folder of notes") from None


def add(commands: Any) -> None:
    """Adds these commands to the parser."""
    command = commands.add_parser("vault", help="write a sample vault to try things on; without a name, list them")
    command.add_argument("name", nargs="?", metavar="NAME")
    command.add_argument("folder", nargs="?", metavar="FOLDER")
    command.set_defaults(run=vault)

    command = commands.add_parser("serve", help="serve a vault to MCP clients (stdio, or HTTP on this machine)")
    command.add_argument("vault", metavar="VAULT", help="a folder of notes")
    command.add_argument("--http", action="store_true", help="http://127.0.0.1:PORT/mcp instead of stdio")
    command.add_argument("--port", type=int, default=8765, metavar="N")
    command.add_argument(
        "--shape", choices=("tools", "agents"), default="tools", help="one tool a name, or one an agent"
    )
    command.add_argument("--read-only", action="store_true", help="offer only the tools that change nothing")
    command.add_argument("--log", metavar="FILE", help="write every call as a JSON line, for replay")
    command.set_defaults(run=serve)

    command = commands.add_parser("replay", help="execute the calls of a log on a vault and show the changes")
    command.add_argument("vault", metavar="VAULT")
    command.add_argument("calls", metavar="FILE")
    command.set_defaults(run=replay)

    command = commands.add_parser("chat", help="talk to a model that works in a vault; every write waits for your yes")
    command.add_argument(
        "target", metavar="RUN", help="a run, latest, finished, base, or a server such as ollama#model"
    )
    command.add_argument("--vault", required=True, metavar="FOLDER", help="a folder of notes")
    command.add_argument("--context", metavar="N", help="tokens that the conversation may have (default: 4096)")
    command.add_argument(
        "--tool-exposure",
        choices=("none", "all"),
        help="which tools it is shown (default: as in training; all for a server)",
    )
    command.set_defaults(run=chat)

    command = commands.add_parser("undelete", help="put back what was deleted last in a vault")
    command.add_argument("vault", metavar="VAULT")
    command.set_defaults(run=undelete)
