"""Commands that evaluate. Exit codes: 0 all passed, 1 configuration, 2 failures, 3 request errors, 130 stopped with Ctrl-C."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from toolset_nb.commands.files import write


def evaluate(options: argparse.Namespace) -> int:
    """Evaluate targets on a prompt set and write the report; in a terminal, without arguments, ask what to evaluate."""
    from toolset_nb import evaluation, settings
    from toolset_nb.evaluation.runner import Unfinished

    values = {
        name: getattr(options, name) for name in settings.EvaluateSettings.model_fields if getattr(options, name, None)
    }
    if options.target:
        values["targets"] = ",".join(options.target)
    if not values and not options.dry_run and sys.stdin.isatty():
        values = _asked()
    config = settings.check(settings.EvaluateSettings, values)
    prompts = evaluation.load_prompts(config.prompt_set, config.tags, config.limit)
    folder = evaluation.report_folder(config)
    if options.output:
        folder = Path(options.output).with_suffix("") if options.output.endswith(".json") else Path(options.output)
    if options.dry_run:
        print(f"{len(prompts)} prompts for {config.targets}; the report would go to {folder}")
        return 0
    try:
        reports = evaluation.run(config, folder=folder)
    except KeyboardInterrupt:
        print(f"stopped; what was answered is in {folder}: the same command goes on with it", file=sys.stderr)
        return 130
    except Unfinished as error:
        if error.reports:
            print(evaluation.table(error.reports))
        raise
    path = evaluation.save(reports, folder)
    if options.output and options.output.endswith(".json"):
        write(Path(options.output), [json.dumps(reports[-1], ensure_ascii=False)])
    if options.markdown:
        write(Path(options.markdown), [evaluation.markdown(reports)])
    print(evaluation.table(reports), f"Report: {path}", f"Page: {path.with_suffix('.html')}", sep="\n")
    return evaluation.exit_code(reports)


def _asked() -> dict[str, str]:
    """Server, model and prompt set as a person chooses them from lists; raises KeyboardInterrupt when the input ends."""
    from toolset_nb import evaluation, runs
    from toolset_nb.servers import RequestFailed, kinds
    from toolset_nb.servers.kinds import connect, is_server

    *own, shipped = runs.complete_names()
    places = ["base", *own[:5], shipped, *(name for name in kinds() if name != "openai"), "another address"]
    place = _choice("What shall be evaluated?", places)
    if place == "another address":
        place = input("Address, such as http://127.0.0.1:8080: ").strip()
    if is_server(place):
        try:
            with connect(place, timeout=10, retries=0) as endpoint:
                names = endpoint.models()
            if not names:
                raise evaluation.EvaluationError(f"{endpoint.url} has no model: load one there first")
            place = f"{place}#{_choice('Which model?', names)}"
        except RequestFailed as error:
            raise evaluation.EvaluationError(f"{error}\n{kinds()[place].start if place in kinds() else ''}") from None
    return {"targets": place, "prompt_set": _choice("Which prompts?", evaluation.prompt_sets())}


def _choice(question: str, options: list[str]) -> str:
    """One of a numbered list; an empty answer takes the first."""
    print(question)
    for number, option in enumerate(options, 1):
        print(f"  {number} {option}")
    while True:
        try:
            answer = input("Number (1): ").strip() or "1"
        except EOFError:
            raise KeyboardInterrupt from None
        if answer.isdigit() and 1 <= int(answer) <= len(options):
            return options[int(answer) - 1]
        print(f"{answer!r} is none of 1 to {len(options)}")


def compare(options: argparse.Namespace) -> int:
    """Compare two or more evaluations on the same prompts: paired difference, interval, McNemar, fixed and broken."""
    from toolset_nb import evaluation
    from toolset_nb.evaluation.targets import report_place

    places = [report_place(name, options.prompt_set, alone=True) for name in options.runs]
    reports = [report for place in places for report in evaluation.read_reports(place)]
    print(evaluation.table(reports), "", evaluation.comparison(reports), sep="\n")
    return 0


def list_models(options: argparse.Namespace) -> int:
    """Print the models that a server names; without one, the runs here and the models of every server that answers."""
    from toolset_nb import runs
    from toolset_nb.servers import RequestFailed, connect, kinds

    if options.target:
        with connect(f"{options.target}#-", options.host, options.port, timeout=10, retries=0) as endpoint:
            print("\n".join(endpoint.models()) or "no models")
        return 0
    print("here", *(f"  {name}" for name in ("base", *runs.complete_names())), sep="\n")
    places: dict[str, list[Any]] = {}  # an address -> the kinds of server that listen there
    for kind in kinds().values():
        places.setdefault(kind.address(options.host, options.port), []).append(kind)
    found = 0
    for url, there in places.items():
        name = f"{there[0].name}#-" if len(there) == 1 else f"{url}#-"  # several: it is recognised by what it answers
        try:
            with connect(name, options.host, options.port, timeout=3, retries=0) as endpoint:
                models, found = endpoint.models(), found + 1
            said = endpoint.kind.name if url == endpoint.kind.address(options.host, options.port) else url
            print(f"{endpoint.kind.title} at {url}", *(f"  {said}#{model}" for model in models), sep="\n")
        except RequestFailed:
            print(f"{', '.join(kind.title for kind in there)} at {url}: nothing answers")
    return 0 if found else 3


def check_endpoint(options: argparse.Namespace) -> int:
    """Print an endpoint's preflight card."""
    from toolset_nb import evaluation, settings
    from toolset_nb.servers.preflight import preflight

    values = {
        name: getattr(options, name)
        for name in ("tool_exposure", "tools_as", "context", "host", "port")
        if getattr(options, name)
    }
    config = settings.check(settings.EvaluateSettings, values)
    card = preflight(options.target, config, evaluation.load_prompts("full_coverage"))
    print(card)
    return 0 if card.ready else 3


def _strict(command: argparse.ArgumentParser) -> None:
    """What argparse refuses is a fault of the configuration here: its own exit code 2 would mean failed prompts."""

    def refuse(message: str) -> None:
        command.print_usage(sys.stderr)
        command.exit(1, f"{command.prog}: error: {message}\n")

    def parse(arguments=None, namespace=None):
        found, unknown = known(arguments, namespace)
        if unknown:
            refuse(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    known = command.parse_known_args
    command.error, command.parse_known_args = refuse, parse


def add(commands: Any) -> None:
    """Adds these commands to the parser."""
    command = commands.add_parser("evaluate", help="ask models a prompt set and compare them")
    command.add_argument("--target", action="append", help="one target, see --targets; may be given several times")
    command.add_argument(
        "--targets",
        help='comma list of "base", "latest", "finished", a run, a kind of server with its model (ollama#qwen3:4b), or an address '
        "(http://host:port#model); default base,latest",
    )
    command.add_argument("--prompt-set", help="a name under datasets/prompts or a JSON file (default full_coverage)")
    command.add_argument("--tags", help="only prompts that carry all of these, comma list")
    numbers = "limit trials max-turns temperature top-p max-tokens seed context slots port timeout retries"
    for name in numbers.split():
        command.add_argument(f"--{name}", metavar="N")
    for name in ("call-format", "context-source", "tool-exposure", "tools-as", "engine", "resume"):
        command.add_argument(f"--{name}", metavar="CHOICE")
    command.add_argument("--host", metavar="HOST", help="of a kind of server (default: <KIND>_HOST or this machine)")
    command.add_argument(
        "--constrained", action="store_true", help="let the server force replies into the tools' schema"
    )
    command.add_argument("--output", metavar="PATH", help="folder of the report, or a .json file for the last target's")
    command.add_argument("--markdown", metavar="FILE", help="write the Markdown report here, too")
    command.add_argument("--dry-run", action="store_true", help="check the settings and the prompt set only")
    command.set_defaults(run=evaluate)
    _strict(command)

    command = commands.add_parser("compare", help="two evaluations on the same prompts, with paired statistics")
    command.add_argument("runs", nargs="+", metavar="RUN", help="a run, a report's JSON file or a folder of reports")
    command.add_argument(
        "--prompt-set", default="full_coverage", help="which evaluation of a run (default full_coverage)"
    )
    command.set_defaults(run=compare)
    _strict(command)

    for name, action, words in (
        ("list-models", list_models, "the models a server names; without a server, runs here and all that answer"),
        ("check-endpoint", check_endpoint, "does a server answer, see the tools, have enough context: and what to do"),
    ):
        command = commands.add_parser(name, help=words)
        command.add_argument("target", nargs="?" if name == "list-models" else None, metavar="SERVER")
        command.add_argument("--host", default="", metavar="HOST")
        command.add_argument("--port", type=int, default=0, metavar="N")
        if name == "check-endpoint":
            command.add_argument("--tool-exposure", metavar="CHOICE")
            command.add_argument("--tools-as", metavar="CHOICE")
            command.add_argument("--context", metavar="N", help="length to ask for, where the server takes it (Ollama)")
        command.set_defaults(run=action)
        _strict(command)
