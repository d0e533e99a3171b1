"""Running an evaluation: targets one after the other, prompts and trials side by side, every answer written down at once.

Each judged attempt is a line of `<label>.jsonl` in the report's folder; its first line says under which conditions it was made.
A run that was stopped or killed goes on with what is missing, as long as the conditions are the same. Attempts that the
server failed are asked again.
"""

import json
import os
import platform
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

from toolset_nb import __version__, export, models, runs, tasks
from toolset_nb.evaluation.agent import Attempt, attempt
from toolset_nb.evaluation.prompts import EvaluationError, load_prompts, prompt_file
from toolset_nb.evaluation.statistics import wilson
from toolset_nb.evaluation.verdicts import Record, judge
from toolset_nb.paths import repo_root
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

    def wait(self) -> None:
        """Waits while paused."""
        self._go.wait()


def target_names(settings: EvaluateSettings) -> list[str]:
    """The targets one by one, each once."""
    return list(dict.fromkeys(part.strip() for part in settings.targets.split(",") if part.strip()))


def lasting(name: str) -> str:
    """A target's name that means the same later: for latest, or a path under runs/, the run's own. Raises RunError."""
    if name == "base" or is_server(name):
        return name
    folder = runs.find(name).folder
    return folder.name if folder.resolve().parent == runs.runs_folder().resolve() else name


class Unfinished(EvaluationError):
    """Some targets could not be evaluated; `reports` are those of the others, written already."""

    def __init__(self, failed: dict[str, Exception], reports: list[dict[str, Any]], folder: Path):
        lines = [f"{name}: {error}" for name, error in failed.items()]
        lines += [f"The reports of the others are in {folder}"] if reports else []
        super().__init__("\n".join(lines))
        self.reports, self.exit_code = reports, getattr(next(iter(failed.values())), "exit_code", 1)


def asking(name: str, settings: EvaluateSettings) -> EvaluateSettings:
    """The settings with which a target is asked where nobody chose otherwise: a run as it was trained, base as the newest run,
    another program's model with the tools of the agent shown."""
    if is_server(name):
        rendering = {"tool_exposure": "agent"}
    else:
        run = _newest() if name == "base" else runs.find(name)
        rendering = run.rendering() if run else {}
    return settings.model_copy(
        update={field: value for field, value in rendering.items() if field not in settings.model_fields_set}
    )


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


def _newest() -> runs.Run | None:
    try:
        return runs.find("latest")
    except runs.RunError:
        return None


def _base() -> str:
    """The base of the newest run, else the embedded model."""
    run = _newest()
    return run.record["base_folder"] if run else models.base_folder("tiny")


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

    What `journal` holds already is not asked again. A stopped run returns what there is. All prompts of one trial are asked
    before the next trial, since only requests with the same seed can share a batch.
    """
    control = control or Control()
    order = [(prompt, trial) for trial, prompt in product(range(settings.trials), prompts)]
    done = {(r.case_id, r.trial): r for r in (journal.records if journal else []) if r.error is None}
    records = {key: done[key] for key in [(p["id"], trial) for p, trial in order] if key in done}
    waiting = [(prompt, trial) for prompt, trial in order if (prompt["id"], trial) not in records]
    started, asked = time.perf_counter(), 0

    def one(prompt: dict, trial: int) -> Record:
        try:
            return judge(prompt, attempt(endpoint, prompt, settings, vaults, trial), trial)
        except Exception as error:  # no attempt ends a run, whatever went wrong in it
            return judge(prompt, Attempt(stop="infra", error=f"{type(error).__name__}: {error}"), trial)

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
            while waiting and len(running) < settings.slots and not (control.paused or control.stopped):
                running.add(pool.submit(one, *waiting.pop(0)))
            if control.stopped:
                waiting.clear()
            if not running:  # paused or stopped; answers that come meanwhile are written down first
                control.wait()
                continue
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
    return [records[key] for key in [(p["id"], n) for p in prompts for n in range(settings.trials)] if key in records]


class Journal:
    """The attempts of one target on disk, one JSON object a line, after a first line with their conditions.

    Each line also holds the `seconds` that went by until it was written, since the line before or the start of its session;
    `seconds` is their sum for each (prompt, trial). Lines of other conditions are put aside as `<name>.old`; a torn last line
    is left out.
    """

    def __init__(self, path: Path, conditions: dict[str, Any], resume: bool = True):
        self.path, self.conditions, self._lock = path, conditions, threading.Lock()
        self.records: list[Record] = []
        self.seconds: dict[tuple[str, int], float] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            lines = [_line(text) for text in path.read_text("utf-8", "replace").split("\n") if text]
            if resume and lines and lines[0] == {"conditions": conditions}:
                self._take(lines[1:])
            else:
                os.replace(path, path.with_suffix(".jsonl.old"))
        self._rewrite()
        self._last = time.perf_counter()

    def _take(self, lines: list[dict[str, Any]]) -> None:
        known = {field.name for field in fields(Record)}
        for line in lines:
            seconds = line.pop("seconds", 0)
            if line and line.keys() <= known:
                self._keep(Record(**line), seconds)

    def _keep(self, record: Record, seconds: float) -> None:
        key = (record.case_id, record.trial)
        self.records.append(record)
        self.seconds[key] = self.seconds.get(key, 0) + seconds

    def _rewrite(self) -> None:
        """The file with whole lines only, the last attempt of each prompt and trial, in one step."""
        draft = self.path.with_suffix(".tmp")
        last = {(record.case_id, record.trial): record for record in self.records}
        rows = [asdict(record) | {"seconds": self.seconds[key]} for key, record in last.items()]
        lines = [{"conditions": self.conditions}, *rows]
        draft.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), "utf-8", LONE)
        os.replace(draft, self.path)

    def add(self, record: Record) -> None:
        """Appends a record and hands it to the operating system, so that a killed process loses nothing that was answered."""
        with self._lock, self.path.open("a", encoding="utf-8", errors=LONE) as file:
            now = time.perf_counter()
            seconds, self._last = round(now - self._last, 3), now
            self._keep(record, seconds)
            file.write(json.dumps(asdict(record) | {"seconds": seconds}, ensure_ascii=False) + "\n")


def manifest(
    label: str, endpoint: Any, settings: EvaluateSettings, prompts: list[dict], name: str = ""
) -> dict[str, Any]:
    """Everything that a result depends on: model, weights, server, template, prompts, vaults, sampling, versions.

    `name` is that of the target.
    """
    kept = {key: value for key, value in settings.model_dump().items() if key not in ("interactive", "run_name")}
    vaults = sorted({prompt["fixture"] for prompt in prompts if "fixture" in prompt})
    text = prompt_file(settings.prompt_set).read_bytes()
    return {
        "model": label,
        "target": name,
        "backend": endpoint.kind.title,
        "host": endpoint.url,
        "settings": kept,
        "prompt_set": settings.prompt_set,
        "prompt_set_sha256": sha256(text).hexdigest(),
        "vaults_sha256": _vaults_hash(vaults),
        "catalogue": f"{catalogue().name} {catalogue().version}",
        "context_length": endpoint.context_length(),
        **(_weights(name, endpoint.gguf) if name and not is_server(name) else {}),
        "packages": _versions(),
    }


def _vaults_hash(names: list[str]) -> str:
    """SHA-256 of what vaults are built from: their seeds, and the texts that their owners will want to change."""
    files = [repo_root() / "datasets" / kind / f"{name}.yaml" for name in names for kind in ("vaults", "worlds")]
    return sha256(json.dumps([runs.file_hash(file) for file in files]).encode()).hexdigest()


def _weights(name: str, gguf: Path | None) -> dict[str, Any]:
    """What is known of a target of our own: the GGUF that is served, its base, adapter, template and parent run."""
    served = {}
    if gguf:
        served = {"gguf_sha256": runs.file_hash(gguf), "quantisation": gguf.stem.rpartition("-")[2]}
    if name == "base":
        return {"base_model": _base(), **served}
    run = runs.find(name)
    adapter = {file.name: runs.file_hash(file) for file in sorted((run.folder / "adapter").glob("*.safetensors"))}
    template = run.folder / "adapter" / "chat_template.jinja"
    return {
        "base_model": run.record.get("base_model", ""),
        "method": run.record.get("method", ""),
        "parent": run.record.get("parent", ""),
        "adapter_sha256": adapter,
        "template_sha256": runs.file_hash(template) if template.exists() else "",
        **served,
    }


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "toolset_nb": __version__}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def conditions(made: dict[str, Any]) -> dict[str, Any]:
    """The part of a manifest that has to be equal for a run to go on; of a server its address too."""
    kept = {key: value for key, value in made["settings"].items() if key not in NOT_A_CONDITION}
    aside = {"settings", "target", "packages", "context_length"} | (set() if is_server(made["target"]) else {"host"})
    return {**{key: value for key, value in made.items() if key not in aside}, "settings": kept}


def is_journal(path: Path) -> bool:
    """Whether a file is a journal: it begins with the conditions of its attempts."""
    if not path.exists():
        return False
    with path.open("rb") as file:
        return file.read(15) == b'{"conditions": '


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
    it again. `progress` is told of every attempt, else `say` of every tenth. A target that fails does not stop the others:
    Unfinished, raised at the end, holds their reports; one that fails alone raises its own error.
    """
    from toolset_nb.evaluation.report import report, save

    prompts = load_prompts(settings.prompt_set, settings.tags, settings.limit)
    targets = list(dict.fromkeys(map(lasting, target_names(settings))))
    if not targets:
        raise EvaluationError(f"targets {settings.targets!r} names none; expected for example base,latest")
    folder = folder or report_folder(settings)
    labels: set[str] = set()

    def every_tenth(now: Progress) -> None:
        if now.done % 10 == 0 or now.done == now.total:
            say(f"  {now}")

    def one(name: str) -> dict[str, Any]:
        asked = asking(name, settings)
        with open_target(name, asked) as (label, endpoint):
            if asked.constrained and not endpoint.kind.schema:
                raise EvaluationError(
                    f"constrained: {endpoint.kind.title} cannot hold a reply to a schema; leave it out"
                )
            twins = [each for each in targets if each.rpartition("#")[2] == label]
            label += ", constrained" if asked.constrained else ""  # in effect another model
            label += f" ({name})" if len(twins) > 1 or file_name(label) in labels else ""
            labels.add(file_name(label))
            made = manifest(label, endpoint, asked, prompts, name)
            journal = Journal(folder / f"{file_name(label)}.jsonl", conditions(made), asked.resume == "auto")
            there = len([r for r in journal.records if r.error is None])
            say(
                f"{label}: {len(prompts)} prompts"
                + (f" × {asked.trials}" if asked.trials > 1 else "")
                + f" at {endpoint.url}, tools shown: {asked.tool_exposure}"
                + (f", {there} answered before" if there else "")
            )
            records = evaluate(endpoint, prompts, asked, progress or every_tenth, journal, control, label)
            seconds = sum(journal.seconds[record.case_id, record.trial] for record in records)
            return report({**made, "dropped": sorted(endpoint.dropped)}, records, seconds)

    reports, failed = [], {}
    for name in targets:
        try:
            reports.append(one(name))
        except Exception as error:  # whatever it is, the answers of the others are not lost to it
            failed[name] = error
        if control and control.stopped:
            break
    if failed and len(targets) == 1:
        raise failed[targets[0]]
    if failed:
        if reports:
            save(reports, folder)
        raise Unfinished(failed, reports, folder) from next(iter(failed.values()))
    return reports


def set_name(prompt_set: str) -> str:
    """How a prompt set is called in the names of folders."""
    return Path(prompt_set).name.removesuffix(".json")


def saved_report(name: str, prompt_set: str) -> Path:
    """The newest report of a run on a prompt set: in its own folder, or in that of the run it was evaluated beside."""
    folder = runs.find(name).folder
    place = Path("evaluation") / set_name(prompt_set) / f"{file_name(folder.name)}.json"
    found = [folder / place, *(run.folder / place for run in runs.list_runs())]
    return max((path for path in found if path.exists()), key=lambda path: path.stat().st_mtime, default=found[0])


def report_folder(settings: EvaluateSettings) -> Path:
    """Where reports go: evaluation/<prompt set> of the last target that is a run, else runs/evaluations/<prompt set>-<targets>."""
    name = set_name(settings.prompt_set)
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
