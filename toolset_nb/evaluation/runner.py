"""Running an evaluation: targets one after the other, prompts and trials side by side, every answer written down at once.

Each judged attempt is a line of `<label>.jsonl` in the report's folder; its first line says under which conditions it was made.
A run that was stopped or killed goes on with what is missing, as long as the conditions are the same. Attempts that the
server failed are asked again.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import timedelta
from itertools import product
from pathlib import Path
from typing import Any

from toolset_nb import tasks
from toolset_nb.evaluation.agent import Attempt, attempt
from toolset_nb.evaluation.journal import Journal
from toolset_nb.evaluation.prompts import EvaluationError, load_prompts
from toolset_nb.evaluation.statistics import wilson
from toolset_nb.evaluation.targets import (
    asking,
    conditions,
    file_name,
    lasting,
    manifest,
    open_target,
    report_folder,
    target_names,
)
from toolset_nb.evaluation.verdicts import Record, judge
from toolset_nb.settings import EvaluateSettings


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
        left = f", {timedelta(seconds=round(self.left))} left" if self.done < self.total else ""
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


class Unfinished(EvaluationError):
    """Some targets could not be evaluated; `reports` are those of the others, written already."""

    def __init__(self, failed: dict[str, Exception], reports: list[dict[str, Any]], folder: Path):
        lines = [f"{name}: {error}" for name, error in failed.items()]
        lines += [f"The reports of the others are in {folder}"] if reports else []
        super().__init__("\n".join(lines))
        self.reports, self.exit_code = reports, getattr(next(iter(failed.values())), "exit_code", 1)


def evaluate(
    endpoint: Any,
    prompts: list[dict],
    settings: EvaluateSettings,
    progress: Callable[[Progress], None] | None = None,
    journal: Journal | None = None,
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


def exit_code(reports: list[dict[str, Any]]) -> int:
    """0 all passed, 2 failures, 3 request errors, as judged on the last target."""
    summary = list(reports)[-1]["summary"]
    return 3 if summary["request_errors"] else 2 if summary["failed"] else 0
