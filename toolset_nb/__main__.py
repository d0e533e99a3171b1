"""The command line: `python -m toolset_nb COMMAND`.

Exit codes of the dataset commands: 0 clean, 1 problems found, 2 unreadable input. Of `evaluate`: 0 all passed, 1 configuration,
2 failures, 3 request errors.
"""

import argparse
import glob
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from toolset_nb import __version__
from toolset_nb.paths import repo_root

SHOWN = 20


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = _parser().parse_args(arguments)
    from toolset_nb.jsonl import DataError

    try:
        code = options.run(options)
        sys.stdout.flush()
        return code
    except DataError as error:
        print(error, file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        return 130


def validate(options: argparse.Namespace) -> int:
    """Print what breaks the rules of a dataset row."""
    from toolset_nb import rows

    files = expand(options.files)
    kinds: Counter[str] = Counter()
    shown = []
    for finding in rows.validate(files):
        kinds[_kind(finding.field)] += 1
        if options.all or len(shown) < SHOWN:
            shown.append(finding)
            if not options.json:
                print(finding)
    total, count = sum(kinds.values()), count_rows(files)
    if options.json:
        findings = [finding._asdict() for finding in shown]
        print(json.dumps({"rows": count, "problems": total, "kinds": dict(kinds.most_common()), "findings": findings}))
        return 1 if total else 0
    if total > len(shown):
        print(f"... and {total - len(shown)} more (--all shows them)")
    by_kind = ", ".join(f"{kind} {number}" for kind, number in kinds.most_common())
    print(f"{count} rows, {total} problems" + (f": {by_kind}" if by_kind else ""))
    return 1 if total else 0


def coverage(options: argparse.Namespace) -> int:
    """Print which tools, labels and behaviours the rows cover."""
    from toolset_nb import rows

    print(rows.coverage(expand(options.files)))
    return 0


def convert(options: argparse.Namespace) -> int:
    """Write a file's rows in another form; lines that cannot be read are named and left out."""
    from toolset_nb import rows
    from toolset_nb.tools import Problem

    target = Path(options.output) if options.output else None
    draft = target.with_name(f".{target.name}.{os.getpid()}") if target else None
    left_out, before = 0, None
    try:
        out = draft.open("w", encoding="utf-8", newline="\n") if draft else sys.stdout
    except OSError as error:
        raise rows.DataError(f"{target} cannot be written: {error.strerror}") from None
    try:
        for number, row in rows.read(options.file):
            try:
                if isinstance(row, Problem):
                    raise ValueError(f"found {row.found}, expected {row.expected}")
                made = "".join(
                    json.dumps(part, ensure_ascii=False) + "\n" for part in rows.convert(row, options.to, before)
                )
                before = row if row.get("label") is True else None
                made.encode()
                out.write(made)
            except (ValueError, RecursionError) as error:
                left_out += 1
                print(f"{options.file}:{number}: left out: {error}", file=sys.stderr)
        if draft:
            out.close()
            draft.replace(target)
    finally:
        if draft:
            out.close()
            draft.unlink(missing_ok=True)
    return 1 if left_out else 0


def generate(options: argparse.Namespace) -> int:
    """Make rows or tasks on the sample vaults, each call executed and checked, and print the funnel."""
    from toolset_nb.synth import generate, similarity, tasks

    funnel = generate.Funnel()
    if options.kind == "hashes":
        _write(Path(options.output), similarity.hash_list())
        return 0
    if options.kind in ("tasks", "behavior"):
        counts = tasks.TASKS if options.kind == "tasks" else tasks.BEHAVIOUR
        made = list(tasks.make(options.seed, funnel, counts, options.kind.removesuffix("s")))
        lines = [json.dumps(made, indent=1, ensure_ascii=False) + "\n"]
    elif options.kind in ("baseline", "tool_combos"):
        made = list(tasks.written(options.kind))
        _write(Path(options.output), [json.dumps(made, indent=1, ensure_ascii=False) + "\n"])
        print(f"{len(made)} tasks, {sum(len(task['gold']) for task in made)} gold calls executed")
        return 0
    else:
        made = (generate.sft if options.kind == "sft" else generate.kto)(options.rows, options.seed, funnel=funnel)
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in generate.in_order(made))
    _write(Path(options.output), lines)
    print(funnel)
    return 0


def verify(options: argparse.Namespace) -> int:
    """Execute the true rows of generated files again and name every call whose result is not the recorded one."""
    from toolset_nb import rows
    from toolset_nb.synth import generate
    from toolset_nb.tools import Problem

    faults = 0
    for file in expand(options.files):
        read = [row for _, row in rows.read(file) if not isinstance(row, Problem)]
        found = list(generate.verify(read))
        made = sum(
            len(row["meta"].get("tools", [])) > 0 for row in read if row.get("label") and "run" in row.get("meta", {})
        )
        faults += len(found)
        print("\n".join([*found[:SHOWN], f"{file}: {made} rows with calls executed again, {len(found)} differ"]))
    return 1 if faults else 0


def diversity(options: argparse.Namespace) -> int:
    """Print how varied the requests and arguments of files are."""
    from toolset_nb import rows
    from toolset_nb.synth import similarity
    from toolset_nb.tools import Problem

    for file in expand(options.files):
        measured = similarity.diversity([row for _, row in rows.read(file) if not isinstance(row, Problem)])
        entropy = measured.pop("entropy")
        print(
            file,
            *(
                f"  {name} {value:.3f}" if isinstance(value, float) else f"  {name} {value}"
                for name, value in measured.items()
            ),
            sep="\n",
        )
        print(
            f"  entropy of arguments, mean of {len(entropy)} tools {sum(entropy.values()) / max(1, len(entropy)):.3f}"
        )
        for tool, value in entropy.items() if options.all else ():
            print(f"    {tool:44} {value:.3f}")
    return 0


def _write(target: Path, lines: Iterable[str]) -> None:
    """Write a file in one step; raises DataError."""
    from toolset_nb.jsonl import DataError

    draft = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with draft.open("w", encoding="utf-8", newline="\n") as out:
            out.writelines(lines)
        draft.replace(target)
    except OSError as error:
        raise DataError(f"{target} cannot be written: {error.strerror}") from None
    finally:
        draft.unlink(missing_ok=True)


def evaluate(options: argparse.Namespace) -> int:
    """Evaluate targets on a prompt set and write the report."""
    from dotenv import load_dotenv

    from toolset_nb import evaluation, settings
    from toolset_nb.models import ModelError
    from toolset_nb.runs import RunError
    from toolset_nb.servers import RequestFailed

    values = {
        name: getattr(options, name) for name in settings.EvaluateSettings.model_fields if getattr(options, name, None)
    }
    load_dotenv(repo_root() / ".env")
    try:
        config = settings.check(settings.EvaluateSettings, values)
        prompts = evaluation.load_prompts(config.prompt_set, config.tags, config.limit)
        folder = Path(options.output) if options.output else evaluation.report_folder(config)
        if options.dry_run:
            print(f"{len(prompts)} prompts for {config.targets}; the report would go to {folder}")
            return 0
        reports = evaluation.run(config)
    except (settings.SettingsError, evaluation.EvaluationError, RunError, ModelError) as error:
        print(error, file=sys.stderr)
        return 1
    except RequestFailed as error:
        print(error, file=sys.stderr)
        return 3
    path = evaluation.save(reports, folder)
    print(evaluation.table(reports), f"Report: {path}", sep="\n")
    return evaluation.exit_code(reports)


def list_models(options: argparse.Namespace) -> int:
    """Print the models that a server names."""
    from toolset_nb.servers import Endpoint, RequestFailed

    try:
        with Endpoint(options.url, timeout=10, retries=0) as endpoint:
            print("\n".join(endpoint.models()))
    except RequestFailed as error:
        print(error, file=sys.stderr)
        return 3
    return 0


def vault(options: argparse.Namespace) -> int:
    """Write one of the sample vaults into a new folder, or list them."""
    from toolset_nb.vault import fixtures

    if not options.name:
        for name in fixtures.names():
            seed = fixtures.load(name)
            print(f"{name:12} {seed['split']:10} {seed['about']}")
        return 0
    if options.name not in fixtures.names():
        print(f"{options.name}: no such vault; expected one of {', '.join(fixtures.names())}", file=sys.stderr)
        return 2
    if not options.folder or Path(options.folder).exists():
        print("FOLDER: expected the path of a folder that does not exist yet", file=sys.stderr)
        return 2
    notes = len(fixtures.build(options.name, options.folder).snapshot().files)
    print(f"{options.folder}: {notes} files. Next: python -m toolset_nb serve {options.folder} --http")
    return 0


def serve(options: argparse.Namespace) -> int:
    """Serve a vault to MCP clients."""
    opened = _open_vault(options.vault, options.read_only)
    if opened is None:
        return 2
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
    if opened is None:
        return 2
    from toolset_nb.vault import server, snapshots

    before = opened.snapshot()
    try:
        calls = list(server.read_calls(options.calls))
    except OSError as error:
        print(f"{options.calls}: {error.strerror}", file=sys.stderr)
        return 2
    results = opened.replay(calls)
    for (name, _), result in zip(calls, results, strict=True):
        print(
            f"{'ok  ' if result['success'] else 'FAIL'} {name}" + ("" if result["success"] else f": {result['error']}")
        )
    print(snapshots.diff(before, opened.snapshot()))
    return 0 if all(result["success"] for result in results) else 1


def undelete(options: argparse.Namespace) -> int:
    """Put back what was deleted last in a vault."""
    from toolset_nb.vault import VaultError

    opened = _open_vault(options.vault, False)
    if opened is None:
        return 2
    try:
        print(f"back: {opened.undelete()}")
    except VaultError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def repository(options: argparse.Namespace) -> int:
    """Set the public address everywhere it stands."""
    from toolset_nb.repository import rewrite

    try:
        print("\n".join(f"rewritten: {path}" for path in rewrite(options.url)) or "nothing to change")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _open_vault(folder: str, read_only: bool):
    """The vault of a folder; None, with a message, where there is none."""
    from toolset_nb.vault import Vault, VaultError

    try:
        return Vault(folder, read_only=read_only)
    except (OSError, VaultError) as error:
        print(f"{folder}: {getattr(error, 'strerror', None) or error}; expected a folder of notes", file=sys.stderr)
        return None


def expand(patterns: list[str]) -> list[str]:
    """Files of names and globs, each once; raises DataError for a glob that matches nothing."""
    from toolset_nb.jsonl import DataError

    files: dict[Path, str] = {}
    for pattern in patterns:
        found = [pattern] if os.path.lexists(pattern) else sorted(glob.glob(pattern, recursive=True))
        if not found:
            raise DataError(f"{pattern}: no such file")
        for name in found:
            files.setdefault(Path(name).resolve(), name)
    return list(files.values())


def count_rows(files: list[str]) -> int:
    """Lines that are not blank."""
    from toolset_nb.jsonl import read_lines

    return sum(isinstance(line, bytes) for file in files for _, line in read_lines(file))


def _kind(field: str) -> str:
    """A field's path without numbers, to count findings by."""
    return re.sub(r"\[\d+\]", "", field.split("].", 1)[-1] if field.startswith("calls[") else field)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m toolset_nb", description="Datasets and models for tool calls in an Obsidian vault."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("validate", help="check dataset files against the rules of a row")
    command.add_argument("files", nargs="+", metavar="FILE")
    command.add_argument("--all", action="store_true", help=f"show every finding, not the first {SHOWN}")
    command.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    command.set_defaults(run=validate)

    command = commands.add_parser("coverage", help="count tools, labels and behaviours")
    command.add_argument("files", nargs="+", metavar="FILE")
    command.set_defaults(run=coverage)

    command = commands.add_parser("convert", help="write rows in another form")
    command.add_argument("file", metavar="FILE")
    command.add_argument(
        "--to", required=True, choices=("text", "openai", "prompt-completion", "preference", "prompts")
    )
    command.add_argument("-o", "--output", metavar="OUT", help="file to write (default: standard output)")
    command.set_defaults(run=convert)

    command = commands.add_parser("generate", help="make rows or tasks on the sample vaults, each call executed")
    command.add_argument("kind", choices=("sft", "kto", "tasks", "behavior", "baseline", "tool_combos", "hashes"))
    command.add_argument("--rows", type=int, default=6600, metavar="N", help="about how many (default 6600)")
    command.add_argument("--seed", type=int, default=0, metavar="N")
    command.add_argument("-o", "--output", required=True, metavar="FILE")
    command.set_defaults(run=generate)

    command = commands.add_parser("diversity", help="measure how varied requests and arguments are")
    command.add_argument("files", nargs="+", metavar="FILE")
    command.add_argument("--all", action="store_true", help="the entropy of each tool's arguments, too")
    command.set_defaults(run=diversity)

    command = commands.add_parser("verify", help="execute the rows of generated files again and compare the results")
    command.add_argument("files", nargs="+", metavar="FILE")
    command.set_defaults(run=verify)

    command = commands.add_parser("evaluate", help="ask models a prompt set and compare them")
    command.add_argument(
        "--targets", help='comma list: "base", "latest", a run, or http://host:port#model (default base,latest)'
    )
    command.add_argument("--prompt-set", help="a name under datasets/prompts or a JSON file (default full_coverage)")
    command.add_argument("--tags", help="only prompts that carry all of these, comma list")
    for name in ("limit", "temperature", "top-p", "max-tokens", "seed", "slots", "timeout", "retries"):
        command.add_argument(f"--{name}", metavar="N")
    for name in ("call-format", "context-source", "tool-exposure"):
        command.add_argument(f"--{name}", metavar="CHOICE")
    command.add_argument("--output", metavar="FOLDER", help="where the report goes (default: the last run's folder)")
    command.add_argument("--dry-run", action="store_true", help="check the settings and the prompt set only")
    command.set_defaults(run=evaluate)

    command = commands.add_parser("list-models", help="the models a server names")
    command.add_argument("url", metavar="URL")
    command.set_defaults(run=list_models)

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

    command = commands.add_parser("undelete", help="put back what was deleted last in a vault")
    command.add_argument("vault", metavar="VAULT")
    command.set_defaults(run=undelete)

    command = commands.add_parser(
        "repository", help="set the project's public address in pyproject, notebooks and README"
    )
    command.add_argument("url", metavar="URL")
    command.set_defaults(run=repository)
    return parser


if __name__ == "__main__":
    sys.exit(main())
