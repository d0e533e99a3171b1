"""What the panel works on, without any widget: settings, reports, a run in a thread, and the actions of its buttons."""

import shlex
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from toolset_nb import calls, evaluation, jsonl, rows, rules, runs, settings, tasks
from toolset_nb.evaluation.agent import attempt
from toolset_nb.evaluation.prompts import offered_tools, request_options
from toolset_nb.evaluation.runner import Unfinished
from toolset_nb.evaluation.targets import asking
from toolset_nb.runs import RENDERING
from toolset_nb.servers import Endpoint, connect, kinds
from toolset_nb.servers.kinds import is_server
from toolset_nb.settings import EvaluateSettings
from toolset_nb.synth.mistakes import negative
from toolset_nb.tools import catalogue

SECONDS = 1.5  # an attempt on two cores, until one has been timed
STATUS = ("all", "failed", "passed", "not answered", "differences", "regressions", "fixes")


class Session:
    """One panel's state. `reports` grows as targets are done; `said` hears of every line that a run says."""

    def __init__(self, config: EvaluateSettings):
        self.config = config
        self.reports: list[dict[str, Any]] = []
        self._shown = ""  # hash of the prompt set of the reports taken in last
        self._folders: dict[str, Path] = {}  # where the run on a prompt set keeps its answers
        self.control: evaluation.Control | None = None
        self.error = ""
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def change(self, **values: Any) -> None:
        """Other settings; raises SettingsError naming what is wrong.

        How a request is written (RENDERING) stays what the target needs until it is chosen; "" takes the choice back.
        """
        given = {
            **self.config.model_dump(),
            **{n: "" for n in RENDERING if n not in self.config.model_fields_set},
            **values,
        }
        left = [name for name in RENDERING if given[name] == ""]
        self.config = settings.check(EvaluateSettings, {n: value for n, value in given.items() if n not in left})

    def prompts(self) -> list[dict]:
        return evaluation.load_prompts(self.config.prompt_set, self.config.tags, self.config.limit)

    def estimate(self) -> str:
        """How many attempts a run is, and about how long it takes, judged by the last one."""
        count = len(self.prompts()) * self.config.trials * len(evaluation.target_names(self.config))
        timed = [e for e in self.reports if e["summary"]["total"]]
        each = SECONDS
        if timed:
            last = timed[-1]
            each = last["metadata"]["seconds"] / max(last["summary"]["total"], 1)
        return f"{count} attempts, about {time.strftime('%H:%M:%S', time.gmtime(count * each))}"

    def start(
        self, progress: Callable[[evaluation.Progress], None], said: Callable[[str], None], ended: Callable[[], None]
    ) -> None:
        """Runs the evaluation in a thread; what was answered before is not asked again. `ended` is called at the end."""
        if self.running:
            return
        self.control, self.error = evaluation.Control(), ""

        def work() -> None:
            try:
                self._evaluate(progress, said)
            except Exception as error:  # shown in the panel: a thread has nobody else to tell
                self.error = f"{type(error).__name__}: {error}"
            ended()

        self._thread = threading.Thread(target=work, daemon=True)
        self._thread.start()

    def _evaluate(self, progress: Callable[[evaluation.Progress], None], said: Callable[[str], None]) -> None:
        config = self.config  # the form may change it meanwhile
        folder = evaluation.report_folder(config)
        try:
            made = evaluation.run(config, said, folder, progress, self.control)
        except Unfinished as error:
            made, self.error = error.reports, str(error)
        if made:
            self.add(made)
            self._folders[self._shown] = folder
            self.save()

    def wait(self, seconds: float | None = None) -> None:
        """Until the run has ended."""
        if self._thread:
            self._thread.join(seconds)

    def add(self, reports: list[dict[str, Any]]) -> None:
        """Takes reports in, behind those that are there and in place of older ones of the same model and prompts; their prompts
        are what is shown then."""

        def key(entry: dict[str, Any]) -> tuple[str, str]:
            return entry["metadata"]["model"], entry["metadata"]["prompt_set_sha256"]

        new = {key(entry) for entry in reports}
        self.reports = [entry for entry in self.reports if key(entry) not in new] + reports
        self._shown = key(reports[-1])[1]

    def comparable(self) -> list[dict[str, Any]]:
        """The reports on the prompts of the last ones taken in, in the order of the targets."""
        return [entry for entry in self.reports if entry["metadata"]["prompt_set_sha256"] == self._shown]

    def load(self, path: str) -> int:
        """Takes in the reports of a file or folder; how many there were. Raises EvaluationError."""
        found = evaluation.read_reports(path)
        self.add(found)
        return len(found)

    def save(self, folder: str = "") -> Path:
        """Writes all files of the comparable reports, by default where their run or their prompt set has its folder; the path
        of the Markdown."""
        shown, place = self.comparable(), folder or self._folders.get(self._shown)
        if not place:
            named = {"prompt_set": shown[-1]["metadata"]["prompt_set"]}
            place = evaluation.report_folder(self.config.model_copy(update=named))
        return evaluation.save(shown, Path(place))

    def records(self, label: str = "", status: str = "all", **wanted: str) -> list[dict[str, Any]]:
        """The records of a target (the last one by default) that fit: status, failure, outcome, agent, tool, level, text.

        What the server did not answer neither passed nor failed; fixed is what passes in more of its trials than with the first
        target, a regression what passes in fewer.
        """
        shown = self.comparable()
        if not shown:
            return []
        entry = next((e for e in shown if e["metadata"]["model"] == label), shown[-1])
        first, here = evaluation.shares(shown[0]), evaluation.shares(entry)

        def fits(record: dict[str, Any]) -> bool:
            task, judged = record["case_id"], record["error"] is None
            gained = here[task] - first[task] if task in first and task in here else 0
            kinds = {
                "failed": judged and not record["passed"],
                "passed": judged and record["passed"],
                "not answered": not judged,
                "differences": gained != 0,
                "regressions": gained < 0,
                "fixes": gained > 0,
            }
            text = wanted.get("text", "").lower()
            return (
                kinds.get(status, True)
                and wanted.get("failure", "") in ("", *record["failures"])
                and wanted.get("outcome", "") in ("", record["outcome"])
                and wanted.get("agent", "") in ("", *evaluation.agents(record["expected_tools"]))
                and wanted.get("tool", "") in ("", *record["expected_tools"])
                and wanted.get("level", "") in ("", record["level"])
                and (not text or text in f"{record['question']}\n{record['response_text']}".lower())
            )

        return [record for record in entry["records"] if fits(record)]

    def prompt_of(self, record: dict[str, Any]) -> dict[str, Any]:
        """The prompt of a record, from the set it was asked from."""
        about = self.comparable()[-1]["metadata"]
        return next(p for p in evaluation.load_prompts(about["prompt_set"]) if p["id"] == record["case_id"])

    def ask_again(self, record: dict[str, Any], target: str) -> dict[str, Any]:
        """The prompt of a record asked once more; the new record, which is not added to the report."""
        from dataclasses import asdict

        prompt, asked = self.prompt_of(record), asking(target, self.config)
        with evaluation.open_target(target, asked) as (_, endpoint), tasks.Fixtures() as vaults:
            made = attempt(endpoint, prompt, asked, vaults, record["trial"])
        return asdict(evaluation.judge(prompt, made, record["trial"]))

    def curl(self, record: dict[str, Any], target: str) -> str:
        """The first request of a record as a shell command; for a model of our own also how to serve it."""
        prompt, asked = self.prompt_of(record), asking(target, self.config)
        options = request_options(asked, offered_tools(prompt, asked), record["trial"])
        chat = evaluation.messages(prompt, asked)
        if is_server(target):
            with connect(target, asked.host, asked.port, context=asked.context) as endpoint:
                return endpoint.curl(chat, **options)
        kind = kinds()["llamacpp"]
        served = ["llama-server", "-m", str(evaluation.target_gguf(target)), "--jinja", "-c", str(asked.context)]
        first = f"# first, in another terminal: {shlex.join([*served, '--port', str(kind.port)])}\n"
        with Endpoint(f"http://127.0.0.1:{kind.port}", target, kind=kind) as endpoint:
            return first + endpoint.curl(chat, **options)

    def keep_as_negative(self, record: dict[str, Any], target: Path | None = None) -> Path:
        """Appends a KTO pair: the prompt's gold calls with the context that the model gave, and its first reply.

        Rows from the project's own prompt sets would put evaluation prompts into training data, so only the user's own
        sets give pairs. Raises EvaluationError for the project's, for a prompt without gold calls, where the first reply is
        not what went wrong, where no row can be made of it, and for one that is in the file already.
        """
        about, prompt = self.comparable()[-1]["metadata"], self.prompt_of(record)
        own = {evaluation.prompt_file(name).resolve() for name in evaluation.prompt_sets()}
        if evaluation.prompt_file(about["prompt_set"]).resolve() in own:
            raise evaluation.EvaluationError(
                f"{about['prompt_set']} is an evaluation set: training on it would make its scores worthless. "
                "Negatives can be kept from a prompt set of your own."
            )
        if record["passed"] or record["error"]:
            what = "passed" if record["passed"] else "was not answered"
            raise evaluation.EvaluationError(f"{record['case_id']} {what}: there is no wrong answer to keep")
        first = next(message for message in record["transcript"] if message["role"] == "assistant")
        reply, check = calls.parse(first["content"], first.get("tool_calls")), catalogue().check
        gold = prompt.get("gold", [])
        context = reply.calls[0].arguments.get("context") if reply.calls else None
        right = [calls.Call(each["tool"], {"context": context, **each["arguments"]}) for each in gold]
        if not right or any(check(*call) for call in right):
            raise evaluation.EvaluationError(
                "a pair needs gold calls in the prompt and a call with a context in the reply, both valid"
            )
        agreeing = [
            made.name == due["tool"]
            and tasks.agree(made.name, due["arguments"], made.arguments, request=prompt["question"])
            and not check(*made)
            for made, due in zip(reply.calls, gold, strict=False)
        ]
        if all(agreeing) and len(reply.calls) <= len(right):
            raise evaluation.EvaluationError(
                f"the first reply to {record['case_id']} makes the right calls: a row would label them as wrong"
            )
        stem, meta = f"own-{record['case_id']}", {"behaviour": "single_call", "tools": record["expected_tools"]}
        asked = {"role": "user", "content": record["question"]}
        answer = {"role": "assistant", "content": calls.render(right, "text")}
        true = {"id": f"{stem}a", "conversations": [asked, answer], "label": True, "meta": meta}
        wrong = negative(true, reply)
        if not wrong or any(rules.check_row(true)):
            raise evaluation.EvaluationError(
                f"the first reply to {record['case_id']} makes no row to train on: what is wrong with it cannot be told, or the "
                "prompt or the reply holds what no row may"
            )
        target = target or runs.runs_folder() / "my_negatives.jsonl"
        if target.exists() and any(row["id"] == true["id"] for _, row in rows.read(target) if isinstance(row, dict)):
            raise evaluation.EvaluationError(f"{target} holds a pair of {record['case_id']} already")
        for row in (true, {**wrong, "id": f"{stem}b"}):
            jsonl.append(target, row)
        return target


def papermill_command(config: EvaluateSettings) -> str:
    """The command that repeats what was clicked: every setting that is not the default or that had to be chosen."""
    chosen = config.model_fields_set & set(RENDERING)
    changed = {
        name: value
        for name, value in config.model_dump().items()
        if (value != EvaluateSettings.model_fields[name].default or name in chosen) and name != "interactive"
    }
    parts = ["papermill", "notebooks/evaluate.ipynb", "out.ipynb"]
    for name, value in changed.items():
        parts += ["-p", name, str(value)]
    return shlex.join(parts)
