"""Commands on dataset files. Exit codes: 0 clean, 1 problems found, 2 unreadable input."""

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from toolset_nb.commands.files import count_rows, expand, write
from toolset_nb.paths import repo_root

SHOWN = 20


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

    left_out = 0

    def made() -> Iterator[str]:
        nonlocal left_out
        before = None
        for number, row in rows.read(options.file):
            try:
                if isinstance(row, Problem):
                    raise ValueError(f"found {row.found}, expected {row.expected}")
                parts = rows.convert(row, options.to, before)
                text = "".join(json.dumps(part, ensure_ascii=False) + "\n" for part in parts)
                before = row if row.get("label") is True else None
                text.encode()
                yield text
            except (ValueError, RecursionError) as error:
                left_out += 1
                print(f"{options.file}:{number}: left out: {error}", file=sys.stderr)

    if options.output:
        write(Path(options.output), made())
    else:
        sys.stdout.writelines(made())
    return 1 if left_out else 0


def generate(options: argparse.Namespace) -> int:
    """Make rows or tasks on the sample vaults, each call executed and checked, and print the funnel."""
    from toolset_nb.synth import generate, similarity, tasks

    funnel = generate.Funnel()
    if options.kind == "hashes":
        write(Path(options.output), similarity.hash_list())
        return 0
    if options.kind in ("tasks", "behavior"):
        counts = tasks.TASKS if options.kind == "tasks" else tasks.BEHAVIOUR
        made = list(tasks.make(options.seed, funnel, counts, options.kind.removesuffix("s")))
        lines = [json.dumps(made, indent=1, ensure_ascii=False) + "\n"]
    elif options.kind in ("baseline", "tool_combos"):
        made = list(tasks.written(options.kind))
        write(Path(options.output), [json.dumps(made, indent=1, ensure_ascii=False) + "\n"])
        print(f"{len(made)} tasks, {sum(len(task['gold']) for task in made)} gold calls executed")
        return 0
    else:
        made = (generate.sft if options.kind == "sft" else generate.kto)(options.rows, options.seed, funnel=funnel)
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in generate.in_order(made))
    write(Path(options.output), lines)
    print(funnel)
    return 0


def mistakes(options: argparse.Namespace) -> int:
    """Ask a model what rows ask, and write a KTO pair for each that it gets wrong."""
    from itertools import islice

    from toolset_nb import rows
    from toolset_nb.evaluation import asking, open_target
    from toolset_nb.settings import EvaluateSettings
    from toolset_nb.synth import mistakes
    from toolset_nb.tools import Problem

    read = (row for _, row in rows.read(options.file) if not isinstance(row, Problem) and row.get("label") is True)
    source = list(islice(read, options.first, options.first + options.rows))
    settings = asking(options.target, EvaluateSettings(seed=options.seed))

    def told(done: int, total: int) -> None:
        if done % 50 == 0 or done == total:
            print(f"{done} of {total}", flush=True)

    with open_target(options.target, settings) as (label, endpoint):
        made = list(mistakes.pairs(source, endpoint, settings, told))
    write(Path(options.output), (json.dumps(row, ensure_ascii=False) + "\n" for row in made))
    kinds = Counter(row["meta"]["defect"] for row in made if not row["label"])
    shares = ", ".join(f"{name} {count}" for name, count in kinds.most_common())
    print(f"{label} got {len(made) // 2} of {len(source)} wrong" + (f": {shares}" if shares else ""))
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


def _kind(field: str) -> str:
    """A field's path without numbers, to count findings by."""
    return re.sub(r"\[\d+\]", "", field.split("].", 1)[-1] if field.startswith("calls[") else field)


def add(commands: Any) -> None:
    """Adds these commands to the parser."""
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

    command = commands.add_parser("mistakes", help="KTO pairs from what a model gets wrong on the rows of a file")
    command.add_argument("target", metavar="TARGET", help="a run, latest, finished, or a server, as evaluate takes it")
    command.add_argument("file", nargs="?", default=str(repo_root() / "datasets" / "kto.jsonl"), metavar="FILE")
    command.add_argument("--rows", type=int, default=400, metavar="N", help="how many true rows to ask (default 400)")
    command.add_argument("--first", type=int, default=0, metavar="N", help="true rows to leave out at the start")
    command.add_argument("--seed", type=int, default=42, metavar="N")
    command.add_argument("-o", "--output", required=True, metavar="OUT")
    command.set_defaults(run=mistakes)

    command = commands.add_parser("verify", help="execute the rows of generated files again and compare the results")
    command.add_argument("files", nargs="+", metavar="FILE")
    command.set_defaults(run=verify)
