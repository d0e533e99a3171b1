"""Running an evaluation: targets one after the other, prompts and trials side by side, every answer written down at once.

Each judged attempt is a line of `<label>.jsonl` in the report's folder; its first line says under which conditions it was made.
A run that was stopped or killed goes on with what is missing, as long as the conditions are the same. Attempts that the
server failed are asked again.
"""

import json
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from pathlib import Path
from typing import Any

from toolset_nb import export, models, runs, tasks
from toolset_nb.evaluation.agent import attempt
from toolset_nb.evaluation.prompts import EvaluationError, load_prompts, prompt_file
from toolset_nb.evaluation.statistics import wilson
from toolset_nb.evaluation.verdicts import Record, judge
from toolset_nb.servers import Batches, connect, serve
from toolset_nb.servers.kinds import is_server
from toolset_nb.settings import EvaluateSettings
from toolset_nb.tools import catalogue

# A reply may hold half a surrogate pair, which UTF-8 cannot; the escape in its place means the same in JSON.
LONE = "backslashreplace"
NOT_A_CONDITION = {
    "interactive",
    "run_name",
    "targets",
    "slots",
    "timeout",
    "retries",
    "resume",
    "limit",
    "tags",
    "trials",
    "port",
    "host",
}
PACKAGES = ("xllamacpp", "transformers", "torch")


@dataclass(frozen=True)
class Progress:
    """How far a target is: attempts done and in all, passed among the judged, and seconds since it began and to go."""

    label: str
    done: int
    total: int
    passed: int
    judged: int
    infra: int
    seconds: float
    left: float

    def __str__(self) -> str:
        low, high = wilson(self.passed, self.judged)
        share = (
            f"{self.passed / self.judged:.0%} passed ({low:.0%} to {high:.0%})" if self.judged else "none judged yet"
        )
        failed = f", {self.infra} request errors" if self.infra else ""
        left = f", {time.strftime('%M:%S', time.gmtime(self.left))} left" if self.done < self.total else ""
        return f"{self.label}: {self.done} of {self.total}, {share}{failed}{left}"


class Control:
    """Pausing and stopping a run from another thread; what is under way is finished and kept."""

    def __init__(self) -> None:
        self._go, self.stopped = threading.Event(), False
        self._go.set()

    @property
    def paused(self) -> bool:
        return not self._go.is_set()

    def pause(self) -> None:
        self._go.clear()

    def resume(self) -> None:
        self._go.set()

    def stop(self) -> None:
        self.stopped = True
        self._go.set()

    def wait(self) -> bool:
        """Waits while paused; False when the run is to end."""
        self._go.wait()
        return not self.stopped


def target_names(settings: EvaluateSettings) -> list[str]:
    """The targets one by one, each once."""
    return list(dict.fromkeys(part.strip() for part in settings.targets.split(",") if part.strip()))


@contextmanager
def open_target(name: str, settings: EvaluateSettings):
    """(label, endpoint) of a target: "base", "latest", a run's name, a kind of server or an address, with #model."""
    options = {"timeout": settings.timeout, "retries": settings.retries, "context": settings.context}
    if is_server(name):
        with connect(name, settings.host, settings.port, **options) as endpoint:
            yield endpoint.model or endpoint.url, endpoint
        return
    label = "base" if name == "base" else runs.find(name).folder.name
    if settings.engine == "transformers":
        network, tokenizer = models.for_generation(_base() if name == "base" else runs.find(name))
        with Batches(network, tokenizer, label, settings.slots) as endpoint:
            yield label, endpoint
        return
    del options["context"]
    with serve(target_gguf(name), settings.slots, settings.context, **options) as endpoint:
        yield label, endpoint


def _base() -> str:
    """The base of the newest run, else the embedded model."""
    try:
        return runs.find("latest").record["base_folder"]
    except runs.RunError:
        return models.base_folder("tiny")


def target_gguf(name: str) -> Path:
    """The GGUF of "base" or of a run; made when it is not there yet."""
    return export.base_gguf(_base()) if name == "base" else export.run_gguf(runs.find(name))


def evaluate(
    endpoint: Any,
    prompts: list[dict],
    settings: EvaluateSettings,
    progress: Callable[[Progress], None] | None = None,
    journal: "Journal | None" = None,
    control: Control | None = None,
    label: str = "",
) -> list[Record]:
    """One record for each prompt and trial, in the set's order; `settings.slots` attempts are under way at a time.

    What `journal` holds already is not asked again. A stopped run returns what there is.
    """
    control = control or Control()
    order = list(product(prompts, range(settings.trials)))
    done = {(r.case_id, r.trial): r for r in (journal.records if journal else []) if r.error is None}
    records = {key: done[key] for key in [(p["id"], trial) for p, trial in order] if key in done}
    waiting = [(prompt, trial) for prompt, trial in order if (prompt["id"], trial) not in records]
    started, asked = time.perf_counter(), 0

    def one(prompt: dict, trial: int) -> Record:
        return judge(prompt, attempt(endpoint, prompt, settings, vaults, trial), trial)

    def tell() -> None:
        if progress:
            judged = [r for r in records.values() if r.error is None]
            seconds = time.perf_counter() - started
            left = seconds / asked * (len(order) - len(records)) if asked else 0.0
            passed = sum(r.passed for r in judged)
            infra = len(records) - len(judged)
            progress(Progress(label, len(records), len(order), passed, len(judged), infra, seconds, left))

    with tasks.Fixtures() as vaults, ThreadPoolExecutor(settings.slots) as pool:
        running: set = set()
        while waiting or running:
            while waiting and len(running) < settings.slots and control.wait():
                running.add(pool.submit(one, *waiting.pop(0)))
            if control.stopped:
                waiting.clear()
            if not running:
                break
            ended, running = wait(running, return_when=FIRST_COMPLETED)
            for future in ended:
                record = future.result()
                records[record.case_id, record.trial] = record
                asked += 1
                if journal:
                    journal.add(record)
                tell()
    if not asked:
        tell()
    return [records[key] for key in [(p["id"], trial) for p, trial in order] if key in records]


class Journal:
    """The attempts of one target on disk, one JSON object a line, after a first line with their conditions.

    Lines of other conditions are put aside as `<name>.old`; a torn last line is left out.
    """

    def __init__(self, path: Path, conditions: dict[str, Any], resume: bool = True):
        self.path, self.conditions, self._lock = path, conditions, threading.Lock()
        self.records: list[Record] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            lines = [_line(text) for text in path.read_text("utf-8", "replace").split("\n") if text]
            if resume and lines and lines[0] == {"conditions": conditions}:
                known = {field.name for field in fields(Record)}
                self.records = [Record(**line) for line in lines[1:] if line and line.keys() <= known]
            else:
                os.replace(path, path.with_suffix(".jsonl.old"))
        self._rewrite()

    def _rewrite(self) -> None:
        """The file with whole lines only, in one step."""
        draft = self.path.with_suffix(".tmp")
        lines = [{"conditions": self.conditions}, *map(asdict, self.records)]
        draft.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), "utf-8", LONE)
        os.replace(draft, self.path)

    def add(self, record: Record) -> None:
        """Appends a record and hands it to the operating system, so that a killed process loses nothing that was answered."""
        with self._lock, self.path.open("a", encoding="utf-8", errors=LONE) as file:
            file.write(json.dumps(asdict(record), ensure_ascii=False) + "\n")


def manifest(
    label: str, endpoint: Any, settings: EvaluateSettings, prompts: list[dict], name: str = ""
) -> dict[str, Any]:
    """Everything that a result depends on: model, weights, server, template, prompts, vaults, sampling, versions."""
    from toolset_nb.vault import fixtures

    kept = {key: value for key, value in settings.model_dump().items() if key not in ("interactive", "run_name")}
    vaults = sorted({prompt["fixture"] for prompt in prompts if "fixture" in prompt})
    text = prompt_file(settings.prompt_set).read_bytes()
    return {
        "model": label,
        "backend": endpoint.kind.title,
        "host": endpoint.url,
        "settings": kept,
        "prompt_set": settings.prompt_set,
        "prompt_set_sha256": sha256(text).hexdigest(),
        "vaults_sha256": sha256(json.dumps([fixtures.digest(each) for each in vaults]).encode()).hexdigest(),
        "catalogue": f"{catalogue().name} {catalogue().version}",
        "context_length": endpoint.context_length(),
        **_weights(name),
        "packages": _versions(),
    }


def _weights(name: str) -> dict[str, Any]:
    """What is known of a target of our own: its base, adapter, quantisation, template and parent run."""
    if not name or is_server(name):
        return {}
    if name == "base":
        return {"base_model": _base()}
    run = runs.find(name)
    adapter = {file.name: runs.file_hash(file) for file in sorted((run.folder / "adapter").glob("*.safetensors"))}
    template = run.folder / "adapter" / "chat_template.jinja"
    return {
        "base_model": run.record.get("base_model", ""),
        "method": run.record.get("method", ""),
        "parent": run.record.get("parent", ""),
        "adapter_sha256": adapter,
        "template_sha256": runs.file_hash(template) if template.exists() else "",
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def conditions(made: dict[str, Any]) -> dict[str, Any]:
    """The part of a manifest that has to be equal for a run to go on."""
    kept = {key: value for key, value in made["settings"].items() if key not in NOT_A_CONDITION}
    return {
        **{k: v for k, v in made.items() if k not in ("settings", "host", "packages", "context_length")},
        "settings": kept,
    }


def file_name(label: str) -> str:
    """A label as a file name."""
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in label)


def run(
    settings: EvaluateSettings,
    say: Callable[[str], None] = print,
    folder: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
    control: Control | None = None,
) -> list[dict[str, Any]]:
    """Evaluates every target of `settings.targets` on the same prompts; a report each, in order.

    Answers are kept in `folder` as they come (default: where the report goes); a stopped run is gone on with by calling
    it again. `progress` is told of every attempt, else `say` of every tenth.
    """
    from toolset_nb.evaluation.report import report

    prompts = load_prompts(settings.prompt_set, settings.tags, settings.limit)
    targets = target_names(settings)
    if not targets:
        raise EvaluationError(f"targets {settings.targets!r} names none; expected for example base,latest")
    folder = folder or report_folder(settings)

    def every_tenth(now: Progress) -> None:
        if now.done % 10 == 0 or now.done == now.total:
            say(f"  {now}")

    reports = []
    for name in targets:
        with open_target(name, settings) as (label, endpoint):
            label += ", constrained" if settings.constrained else ""  # in effect another model
            made = manifest(label, endpoint, settings, prompts, name)
            journal = Journal(folder / f"{file_name(label)}.jsonl", conditions(made), settings.resume == "auto")
            there = len([r for r in journal.records if r.error is None])
            say(
                f"{label}: {len(prompts)} prompts"
                + (f" × {settings.trials}" if settings.trials > 1 else "")
                + f" at {endpoint.url}"
                + (f", {there} answered before" if there else "")
            )
            started = time.perf_counter()
            records = evaluate(endpoint, prompts, settings, progress or every_tenth, journal, control, label)
            reports.append(report(made, records, time.perf_counter() - started))
        if control and control.stopped:
            break
    return reports


def report_folder(settings: EvaluateSettings) -> Path:
    """Where reports go: evaluation/<prompt set> of the last target that is a run, else runs/evaluations/<prompt set>-<targets>."""
    name = Path(settings.prompt_set).name.removesuffix(".json")
    for target in reversed(target_names(settings)):
        if target != "base" and not is_server(target):
            return runs.find(target).folder / "evaluation" / name
    return runs.runs_folder() / "evaluations" / f"{name}-{file_name('-'.join(target_names(settings)))[-80:]}"


def exit_code(reports: list[dict[str, Any]]) -> int:
    """0 all passed, 2 failures, 3 request errors, as judged on the last target."""
    summary = list(reports)[-1]["summary"]
    return 3 if summary["request_errors"] else 2 if summary["failed"] else 0


def now() -> str:
    """The time in UTC to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _line(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
