"""The model card: what run.json, its parent runs and the evaluation reports say, and nothing else.

A field that the record does not have is left out; no figure is computed here beyond rounding. The words around the figures are
in card.md. Not here: judging (`evaluation`) and uploading (`hub`).
"""

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from toolset_nb import models
from toolset_nb.export.serving import exported_with, served
from toolset_nb.export.weights import sixteen_bit
from toolset_nb.runs import Run, runs_folder

TEMPLATE = Path(__file__).with_name("card.md")
MARK = "toolset-nb"  # the tag by which a repository is known as one of ours
METHODS = {"sft": "supervised fine-tuning (SFT)", "kto": "preference refinement (KTO)"}
# What says how the run was kept, not how the model was trained.
HOUSEKEEPING = {
    "run_name", "interactive", "resume", "report_to", "push_to_hub", "hub_repo", "logging_steps", "save_steps",
    "eval_steps", "dataset", "base_model", "model_size", "sft_run",
}  # fmt: skip
WORST = 5  # failures named under the limits


def card_files(run: Run, repo: str = "", files: Iterable[str] = ()) -> dict[str, str]:
    """README.md and a .eval_results/<prompt set>.yaml for each prompt set that this run's own weights were asked.

    `files` are the other files of the repository: they decide which ways of use are shown. `repo` is its name, "" for the run's
    folder.
    """
    from toolset_nb.evaluation.report import eval_results

    reports = own_reports(run)
    results = {f".eval_results/{name}.yaml": eval_results(entries[-1]) for name, entries in reports.items()}
    return {
        "README.md": _card(run, repo, sorted(files), reports),
        **{name: text for name, text in results.items() if text},
    }


def model_card(run: Run, repo: str = "", files: Iterable[str] = ()) -> str:
    """The README.md of `card_files`."""
    return card_files(run, repo, files)["README.md"]


def _card(run: Run, repo: str, names: list[str], reports: dict[str, list[dict[str, Any]]]) -> str:
    from huggingface_hub import ModelCard, ModelCardData

    record = run.record
    title = repo.partition("/")[2] or run.folder.name
    ggufs = [name for name in names if name.endswith(".gguf") and "lora" not in name.lower()]  # whole models
    adapter = "adapter_config.json" in names
    index = _index(reports)
    data = ModelCardData(
        base_model=base_id(record) or None,
        license=_licence(record) or None,
        library_name="peft" if adapter else None,
        pipeline_tag="text-generation",
        tags=[MARK, "tool-calling", "obsidian", *filter(None, [record.get("method")]), *(["gguf"] if ggufs else [])],
        **({"model-index": [{"name": title, "results": index}]} if index else {}),
    )
    card = ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        title=title,
        repo=repo or title,
        method=METHODS.get(record.get("method"), ""),
        base=_base_words(record),
        copied=_copied(record),
        licence=_licence(record),
        facts=_facts(record),
        parameters=_parameters(record),
        asked=run.rendering(),
        lineage=[_ancestor(each) for each in lineage(run)],
        evaluations=[_evaluation(name, entries) for name, entries in reports.items()],
        parity=_parity(run),
        commands=_commands(run, ggufs, title.lower(), "Modelfile" in names),
        merged=next((name.rpartition("/")[0] for name in names if name.endswith("/config.json")), ""),
        adapter=adapter,
    )
    return re.sub(r"\n{3,}", "\n\n", str(card)).rstrip() + "\n"


def own_reports(run: Run) -> dict[str, list[dict[str, Any]]]:
    """Prompt set -> reports on its prompts, this run's last: the base's and the parents' stand before it.

    A report of other weights than those in adapter/ (trained again since), of another base or of another version of the prompt
    set is left out, and so is a set without a report of this run.
    """
    from toolset_nb.evaluation.prompts import EvaluationError
    from toolset_nb.evaluation.report import read_reports

    order = [each.weights() for each in [*lineage(run)[::-1], run]]
    bases = [run.record.get("base_model"), run.record.get("base_folder")]  # reports told the folder before
    ranked: dict[str, list[tuple[int, dict]]] = {}
    for file in sorted((run.folder / "evaluation").glob("*/*.json")):
        try:
            [entry] = read_reports(file)
        except EvaluationError as error:
            print(f"left out of the card: {error}")
            continue
        about = entry["metadata"]
        weights = about.get("adapter_sha256")
        if weights and weights in order:
            ranked.setdefault(file.parent.name, []).append((order.index(weights), entry))
        elif not weights and about.get("base_model") and about["base_model"] in bases:
            ranked.setdefault(file.parent.name, []).append((-1, entry))
    found = {}
    for name, entries in ranked.items():
        entries.sort(key=lambda pair: pair[0])
        rank, last = entries[-1]
        if rank == len(order) - 1:
            same = last["metadata"]["prompt_set_sha256"]
            found[name] = [entry for _, entry in entries if entry["metadata"]["prompt_set_sha256"] == same]
    return found


def lineage(run: Run) -> list[Run]:
    """The runs that this one was trained from, nearest first; one that is not there any more ends the line."""
    found: list[Run] = []
    while parent := (found[-1] if found else run).record.get("parent"):
        earlier = next((Run(folder) for folder in (run.folder.parent / parent, runs_folder() / parent)
                        if (folder / "run.json").exists()), None)  # fmt: skip
        if earlier is None or earlier.folder in [each.folder for each in [run, *found]]:
            break
        found.append(earlier)
    return found


def base_id(record: dict[str, Any]) -> str:
    """The base model's Hub id, "" for a folder that has none. The embedded copy goes by the id of what it was made from."""
    base = record.get("base_model") or {}
    name = base.get("name") or ""
    if "/" in name:
        return name
    known = models.sizes().get(record.get("size"), {}).get("base_model", "")
    return known if base.get("source") and name and known.endswith(f"/{name}") else ""


def _licence(record: dict[str, Any]) -> str:
    """As the size table has it; "" for a base that is not in the table."""
    base = base_id(record)
    table = {sixteen_bit(entry["base_model"]): entry["licence"] for entry in models.sizes().values()}
    return table.get(sixteen_bit(base), "") if base else ""


def _base_words(record: dict[str, Any]) -> str:
    base, name = base_id(record), (record.get("base_model") or {}).get("name")
    return f"[{base}](https://huggingface.co/{base})" if base else _plain(name)


def _copied(record: dict[str, Any]) -> str:
    """Where the base's weights came from when that was not the Hub's original."""
    base, source = base_id(record), (record.get("base_model") or {}).get("source") or ""
    return _plain(source) if base and not source.startswith(base) else ""


def _commands(run: Run, ggufs: list[str], called: str, modelfile: bool) -> dict[str, str]:
    """Program -> what to type to use the largest quantised of the GGUFs, as the run's Modelfile has it; Ollama only with one."""
    if not ggufs:
        return {}
    gguf = PurePosixPath(max(ggufs, key=lambda name: ("f16" not in name, name)))
    typed = served(gguf, called, exported_with(run), windows=False)
    return {program: command for program, command in typed.items() if modelfile or program != "Ollama"}


def _facts(record: dict[str, Any]) -> list[tuple[str, str]]:
    """(what, value) of what the record has, in reading order."""
    base, data, results, machine = (record.get(key) or {} for key in ("base_model", "dataset", "results", "hardware"))
    memory = machine.get("memory") and f"{machine['memory']:.0f} GB"
    ram = machine.get("ram") and f"{machine['ram']:.0f} GB RAM"
    seconds = results.get("train_runtime")
    packages = ", ".join(f"{name} {version}" for name, version in (record.get("packages") or {}).items())
    rows = [
        ("Base model", _base_words(record)),
        ("Base revision", base.get("revision") and f"`{base['revision']}`"),
        ("Base weights from", base.get("source")),
        ("Licence of the base", (base or None) and (_licence(record) or "see the base model's card")),
        ("Data", data.get("file") and f"`{data['file']}`"),
        ("Data, sha256", data.get("sha256") and f"`{data['sha256']}`"),
        ("Rows in the data", data.get("rows")),
        ("Epochs", results.get("epoch") and f"{results['epoch']:.3g}"),
        ("Tokens seen", results.get("num_tokens") and f"{results['num_tokens']:.0f}"),
        ("Mean training loss", results.get("train_loss") and f"{results['train_loss']:.3f}"),
        ("Hardware", ", ".join(filter(None, [machine.get("name"), memory, ram, machine.get("dtype")]))),
        ("Training time" + (", since it was resumed" if "resumed" in record else ""), seconds and f"{seconds:.0f} s"),
        ("Energy of the GPU", machine.get("energy_wh") and f"{machine['energy_wh']:.0f} Wh"),
        ("Finished", (record.get("finished") or "")[:10]),
        ("Software", ", ".join(filter(None, [record.get("python") and f"Python {record['python']}", packages]))),
        ("Code, commit", record.get("commit") and f"`{record['commit']}`"),
    ]  # fmt: skip
    return [(what, _plain(value)) for what, value in rows if value]


def _parameters(record: dict[str, Any]) -> list[tuple[str, Any]]:
    """(name, value) of the training parameters in force; a LoRA is on all layers, whatever `layers` says."""
    given = record.get("parameters") or {}
    left_out = HOUSEKEEPING | ({"layers"} if given.get("lora_rank") else set())
    return [(name, _plain(value)) for name, value in given.items() if name not in left_out and value is not None]


def _ancestor(run: Run) -> dict[str, Any]:
    record = run.record
    return {
        "name": run.folder.name,
        "method": METHODS.get(record.get("method"), ""),
        "facts": [
            (what, value) for what, value in _facts(record) if what.startswith(("Data", "Rows", "Training time"))
        ],
    }


def _evaluation(name: str, entries: list[dict[str, Any]]) -> dict[str, Any]:
    """A prompt set: the table, the conditions and what went wrong most often."""
    from toolset_nb.evaluation.report import table
    from toolset_nb.evaluation.verdicts import FAILURES

    about, summary = entries[-1]["metadata"], entries[-1]["summary"]
    worst = list(summary["failures"].items())[:WORST]
    return {
        "name": name,
        "table": table(entries),
        "conditions": _conditions(about),
        "attempts": summary["total"],
        "worst": [(what, count, FAILURES.get(what, "")) for what, count in worst],
        "never": sorted(tool for tool, row in summary["by_tool"].items() if not row["passed"]),
    }


def _conditions(about: dict[str, Any]) -> str:
    """Under which conditions a report was made, of those that it names."""
    words = {
        "prompt_selected": "{} prompts", "trials": "trials {}", "temperature": "temperature {:g}", "top_p": "top_p {:g}",
        "max_tokens": "at most {} tokens a reply", "max_turns": "max_turns {}", "context_length": "context {}",
        "seed": "seed {}", "backend": "{}", "call_format": "calls as {}", "context_source": "context from {}",
        "tool_exposure": "tools shown: {}", "catalogue": "{}", "generated_at": "{}",
    }  # fmt: skip
    said = [text.format(about[key]) for key, text in words.items() if about.get(key) not in (None, "")]
    return ", ".join(said) + f"; prompts sha256 `{about['prompt_set_sha256']}`"


def _index(reports: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The results of the `model-index`, in the reports' own form."""
    import yaml

    from toolset_nb.evaluation.report import card_block

    blocks = [yaml.safe_load(card_block(entries[-1])) for entries in reports.values()]
    return [result for block in blocks for result in block["model-index"][0]["results"]]


def _parity(run: Run) -> str:
    """The comparison of the formats that were measured as they are now; "" without one."""
    from toolset_nb.export import parity

    return parity.lasting(run).get("markdown", "").strip()


def _plain(value: Any) -> str:
    """A value of the record in a table's cell."""
    return " ".join(str("" if value is None else value).split()).replace("|", "\\|").replace("<", "&lt;")
