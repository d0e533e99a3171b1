"""Many attempts: order, trials, request errors counted apart, an evaluation that goes on where it was killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
from scripted import PROMPT, TASK, Script, answer, manifest, prompts
from written_call import RIGHT

from toolset_nb import evaluation, runs, settings
from toolset_nb.evaluation import Control, EvaluationError, Journal, Progress, evaluate, exit_code, report, targets
from toolset_nb.evaluation.targets import conditions, report_folder
from toolset_nb.paths import repo_root
from toolset_nb.servers import RequestFailed
from toolset_nb.settings import EvaluateSettings

SETTINGS = EvaluateSettings(slots=2)


def keys(records):
    return [(record.case_id, record.trial) for record in records]


def test_records_keep_the_sets_order_and_the_sampling_reaches_the_server():
    endpoint, seen = Script({f"q{n}": answer(RIGHT) for n in range(9)}), []
    records = evaluate(endpoint, prompts(9), EvaluateSettings(slots=3, max_tokens=50, seed=7), seen.append)
    assert [record.case_id for record in records] == [f"full-{n}" for n in range(9)]
    assert endpoint.asked[0][1] == {"temperature": 0.0, "top_p": 1.0, "max_tokens": 50, "seed": 7}
    assert [(p.done, p.total, p.passed, p.judged) for p in seen] == [(n, 9, n, n) for n in range(1, 10)]
    assert seen[-1].left == 0 and "100% passed (70% to 100%)" in str(seen[-1])


def test_more_than_an_hour_left_is_told_as_such():
    assert str(Progress("m", 1, 9, 1, 1, 0, 10, 3725.4)).endswith(", 1:02:05 left")


def test_a_trial_is_asked_after_the_other_with_a_seed_of_its_own_and_records_stand_by_prompt():
    endpoint = Script({"q0": RIGHT, "q1": RIGHT})
    records = evaluate(endpoint, prompts(2), EvaluateSettings(trials=3, slots=1))
    assert keys(records) == [(f"full-{n}", trial) for n in (0, 1) for trial in (0, 1, 2)]
    assert [options["seed"] for _, options in endpoint.asked] == [42, 42, 43, 43, 44, 44]  # equal ones share a batch


def test_as_many_attempts_run_at_a_time_as_there_are_slots():
    here, most, lock = [0], [0], threading.Lock()

    def reply(chat):
        with lock:
            here[0] += 1
            most[0] = max(most[0], here[0])
        time.sleep(0.02)
        with lock:
            here[0] -= 1
        return RIGHT

    evaluate(Script(reply), prompts(12), EvaluateSettings(slots=3))
    assert most[0] == 3


def test_a_request_error_is_counted_apart_and_never_dropped():
    replies = {"q0": RIGHT, "q1": RequestFailed("refused"), "q2": "Shall I?", "q3": RIGHT}
    seen = []
    records = evaluate(Script(replies), prompts(4), SETTINGS, seen.append)
    assert (records[1].outcome, records[1].error, records[1].passed) == ("infra", "refused", False)
    assert (seen[-1].judged, seen[-1].infra) == (3, 1) and "1 request errors" in str(seen[-1])


def test_whatever_goes_wrong_in_an_attempt_ends_that_attempt_alone():
    def reply(chat):
        if chat[-1]["content"] == "q1":
            raise RecursionError("too deep")
        return RIGHT

    records = evaluate(Script(reply), prompts(3), SETTINGS)
    assert [record.outcome for record in records] == ["call", "infra", "call"]
    assert records[1].error == "RecursionError: too deep" and records[1].failures == ["infra"]


def journal(folder, **settings):
    return Journal(folder / "m.jsonl", conditions(manifest(**settings)))


def test_what_was_answered_is_not_asked_again_and_request_errors_are(tmp_path):
    replies = {"q0": RIGHT, "q1": RequestFailed("refused"), "q2": "Shall I?"}
    first = evaluate(Script(replies), prompts(3), SETTINGS, journal=journal(tmp_path))
    endpoint = Script({"q1": RIGHT})
    again = evaluate(endpoint, prompts(3), SETTINGS, journal=journal(tmp_path))
    assert len(endpoint.asked) == 1 and keys(again) == keys(first)
    assert [record.passed for record in again] == [True, True, False]
    assert again[0] == first[0]


def test_more_prompts_or_trials_add_to_what_is_there(tmp_path):
    evaluate(Script({"q0": RIGHT}), prompts(1), SETTINGS, journal=journal(tmp_path))
    endpoint = Script({"q0": RIGHT, "q1": RIGHT})
    more = EvaluateSettings(trials=2, slots=1)
    assert len(evaluate(endpoint, prompts(2), more, journal=journal(tmp_path, trials=2))) == 4
    assert len(endpoint.asked) == 3


def test_other_conditions_begin_anew_and_the_old_answers_are_kept_aside(tmp_path):
    evaluate(Script({"q0": RIGHT}), prompts(1), SETTINGS, journal=journal(tmp_path))
    endpoint = Script({"q0": RIGHT})
    evaluate(endpoint, prompts(1), SETTINGS, journal=journal(tmp_path, temperature=0.7))
    assert len(endpoint.asked) == 1
    assert len((tmp_path / "m.jsonl.old").read_text().splitlines()) == 2
    evaluate(Script({"q0": RIGHT}), prompts(1), SETTINGS, journal=journal(tmp_path))
    conditions = [json.loads((tmp_path / f"m.jsonl{end}").read_text().splitlines()[0]) for end in (".old", ".old2", "")]
    assert conditions[0] == conditions[2] != conditions[1]


def test_the_time_of_all_sessions_is_kept(tmp_path):
    def slow(chat):
        time.sleep(0.05)
        return RIGHT

    evaluate(Script(slow), prompts(2), EvaluateSettings(slots=1), journal=journal(tmp_path))
    again = journal(tmp_path)
    evaluate(Script(slow), prompts(3), EvaluateSettings(slots=1), journal=again)
    assert list(again.seconds) == [("full-0", 0), ("full-1", 0), ("full-2", 0)]
    assert all(seconds >= 0.05 for seconds in again.seconds.values())
    assert journal(tmp_path).seconds == again.seconds


def test_a_torn_line_is_asked_again(tmp_path):
    evaluate(Script({"q0": RIGHT, "q1": RIGHT}), prompts(2), EvaluateSettings(slots=1), journal=journal(tmp_path))
    path = tmp_path / "m.jsonl"
    path.write_bytes(path.read_bytes()[:-30])
    endpoint = Script({"q1": RIGHT})
    evaluate(endpoint, prompts(2), SETTINGS, journal=journal(tmp_path))
    assert len(endpoint.asked) == 1
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_a_run_can_be_paused_and_stopped_and_gone_on_with(tmp_path):
    control, reached = Control(), threading.Event()

    def reply(chat):
        if chat[-1]["content"] == "q2":
            control.pause()
            reached.set()
        return RIGHT

    found = []
    thread = threading.Thread(
        target=lambda: found.extend(
            evaluate(Script(reply), prompts(9), EvaluateSettings(slots=1), journal=journal(tmp_path), control=control)
        )
    )
    thread.start()
    assert reached.wait(5)
    thread.join(0.2)
    assert thread.is_alive() and control.paused
    control.stop()
    thread.join(5)
    assert [record.case_id for record in found] == ["full-0", "full-1", "full-2"]
    endpoint = Script(lambda chat: RIGHT)
    assert len(evaluate(endpoint, prompts(9), SETTINGS, journal=journal(tmp_path))) == 9
    assert len(endpoint.asked) == 6


def test_what_is_answered_while_a_run_is_paused_is_written_down(tmp_path):
    control, both, first, second = Control(), threading.Barrier(2), threading.Event(), threading.Event()

    def reply(chat):
        both.wait(5)  # two are under way
        if chat[-1]["content"] == "q0":
            control.pause()
        else:
            first.wait(5)  # and the second comes when the first is written
        return RIGHT

    def told(progress):
        (first if progress.done == 1 else second).set()

    options = (Script(reply), prompts(9), SETTINGS, told, journal(tmp_path), control)
    thread = threading.Thread(target=evaluate, args=options, daemon=True)
    thread.start()
    assert second.wait(5) and control.paused
    assert len(journal(tmp_path).records) == 2
    control.stop()
    thread.join(5)


KILLED = """
import sys, time
sys.path[:0] = ["tests", "tests/evaluation"]
from pathlib import Path
from scripted import Script, manifest, prompts
from written_call import RIGHT
from toolset_nb.evaluation import Journal, evaluate
from toolset_nb.evaluation.targets import conditions
from toolset_nb.settings import EvaluateSettings

def reply(chat):
    time.sleep(0.01)
    return RIGHT

journal = Journal(Path(sys.argv[1]) / "m.jsonl", conditions(manifest()))
evaluate(Script(reply), prompts(2000), EvaluateSettings(slots=2), lambda p: print(p.done, flush=True), journal)
"""


def test_139_a_killed_run_loses_at_most_what_was_under_way(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], cwd=repo_root(), stdout=subprocess.PIPE, text=True
    )
    done = 0
    while done < 20:
        done = int(process.stdout.readline())
    os.kill(process.pid, signal.SIGKILL)
    done = max([done, *(int(line) for line in process.stdout.read().split())])
    process.wait()
    kept = journal(tmp_path).records
    assert len(kept) >= done
    endpoint = Script(lambda chat: RIGHT)
    assert len(evaluate(endpoint, prompts(done + 10), SETTINGS, journal=journal(tmp_path))) == done + 10
    assert len(endpoint.asked) <= 10


def test_a_reply_with_half_a_surrogate_pair_is_kept(tmp_path):
    evaluate(Script({"q0": "\ud83d"}), prompts(1), SETTINGS, journal=journal(tmp_path))
    endpoint = Script({})
    (record,) = evaluate(endpoint, prompts(1), SETTINGS, journal=journal(tmp_path))
    assert record.response_text == "\ud83d" and endpoint.asked == []


@pytest.mark.parametrize(
    ("last", "code"), [([RIGHT, RIGHT], 0), ([RIGHT, "Shall I?"], 2), ([RIGHT, None], 3)], ids=["0", "2", "3"]
)
def test_the_exit_code_tells_failures_from_request_errors_on_the_last_target(last, code):
    def made(replies):
        replies = {f"q{n}": text or RequestFailed("x") for n, text in enumerate(replies)}
        return report(manifest(), evaluate(Script(replies), prompts(2), SETTINGS), 1.0)

    assert exit_code([made(["Shall I?", "no"]), made(last)]) == code


def test_no_target_is_an_error_before_anything_is_asked():
    with pytest.raises(EvaluationError, match="targets ' , ' names none"):
        evaluation.run(EvaluateSettings(targets=" , "))


def test_a_server_has_the_same_report_folder_each_time():
    config = EvaluateSettings(targets="ollama#qwen3:4b", prompt_set="tasks")
    assert report_folder(config) == report_folder(config)
    assert report_folder(config).name == "tasks-ollama-qwen3-4b"


def test_the_manifest_names_everything_that_a_result_depends_on():
    made = manifest(prompt_set="tasks", temperature=0.3)
    keys = "model backend host settings prompt_set prompt_set_sha256 vaults_sha256 catalogue context_length packages"
    assert made.keys() >= set(keys.split())
    assert made["settings"]["temperature"] == 0.3
    other = manifest(prompt_set="behavior", temperature=0.3)
    assert made["prompt_set_sha256"] != other["prompt_set_sha256"]
    assert (
        conditions(made) != conditions(other) == conditions(manifest(prompt_set="behavior", temperature=0.3, slots=3))
    )


def test_answers_that_other_verdicts_judged_are_asked_for_again(monkeypatch):
    before = conditions(manifest(prompt_set="tasks"))
    monkeypatch.setattr(targets, "VERSION", targets.VERSION + 1)
    assert conditions(manifest(prompt_set="tasks")) != before


def test_the_vaults_hash_covers_seeds_and_what_their_owners_change(tmp_path, monkeypatch):
    copy = tmp_path / "datasets"
    for kind in ("vaults", "worlds"):
        (copy / kind).mkdir(parents=True)
        shutil.copy(repo_root() / "datasets" / kind / "music.yaml", copy / kind)
    monkeypatch.setattr(targets, "repo_root", lambda: tmp_path)
    found = {targets._vaults_hash(["music"])}
    for kind in ("vaults", "worlds"):
        with (copy / kind / "music.yaml").open("a") as file:
            file.write("# one more line\n")
        found.add(targets._vaults_hash(["music"]))
    assert len(found) == 3


def test_of_a_server_the_address_is_a_condition_and_of_a_run_it_is_not():
    def made(name, url):
        endpoint = Script({})
        endpoint.url, endpoint.gguf, endpoint.identity = url, None, lambda: ""
        return conditions(evaluation.manifest("m", endpoint, EvaluateSettings(), prompts(1), name))

    assert made("openai+http://a#m", "http://a") != made("openai+http://b#m", "http://b")
    assert made("", "http://127.0.0.1:4001") == made("", "http://127.0.0.1:4002")


def test_of_a_server_what_it_tells_of_the_weights_behind_a_name_is_a_condition():
    def made(told):
        endpoint = Script({})
        endpoint.identity = lambda: told
        return conditions(evaluation.manifest("m", endpoint, EvaluateSettings(), prompts(1), "ollama#m"))

    assert made("one") == made("one") != made("two")


def test_the_manifest_holds_the_file_that_is_served_and_the_versions(tmp_path, monkeypatch):
    endpoint = Script({})
    endpoint.gguf = tmp_path / "model-q4_k_m.gguf"
    endpoint.gguf.write_bytes(b"weights")
    monkeypatch.setattr(targets, "_base", lambda: "owner/model")
    made = evaluation.manifest("base", endpoint, EvaluateSettings(), prompts(1), "base")
    assert (made["target"], made["quantisation"]) == ("base", "q4_k_m")
    assert made["base_model"] == {"name": "owner/model", "revision": None}  # as in a run's record
    assert made["gguf_sha256"] == runs.file_hash(endpoint.gguf)
    assert made["packages"].keys() >= {"python", "toolset_nb", "transformers"}


@pytest.fixture
def trained():
    """Two complete runs, the newer one trained with tools shown and calls as text."""
    older = runs.Run.start("sft", "tiny", "older", parameters={})
    newer = runs.Run.start("sft", "tiny", "newer", parameters={"call_format": "text", "tool_exposure": "all"})
    for run in (older, newer):
        run.finish()
    return newer


def test_a_run_is_asked_as_it_was_trained_and_a_server_with_tools_unless_somebody_chose_otherwise(trained):
    def asked(name, **given):
        found = targets.asking(name, EvaluateSettings(**given))
        return found.call_format, found.context_source, found.tool_exposure

    assert asked("newer") == asked("base") == ("text", "none", "all")
    assert asked("older") == ("hermes", "none", "none")
    assert asked("newer", call_format="hermes", tool_exposure="none") == ("hermes", "none", "none")
    assert asked("ollama#m") == ("hermes", "none", "agent") and asked("ollama#m", tool_exposure="none")[2] == "none"


def test_what_the_form_shows_is_no_choice_and_what_papermill_gives_is():
    form = 'call_format: str = "hermes"  # @param ["hermes", "text"]\ntool_exposure: str = "none"  # @param ["none"]'
    given = {"call_format": "hermes", "tool_exposure": "none"}
    config = settings.read(EvaluateSettings, {"In": [form, '# Parameters\ntool_exposure = "none"'], **given})
    assert config.model_fields_set == {"tool_exposure"}


def test_latest_is_kept_as_the_run_that_it_is_now(trained):
    assert targets.lasting("latest") == targets.lasting("latest:sft") == targets.lasting(str(trained)) == "newer"
    assert targets.lasting("base") == "base" and targets.lasting("ollama#m") == "ollama#m"


def test_the_report_of_a_run_is_found_beside_that_of_another(trained):
    path = trained.path("evaluation", "mine", "older.json")
    path.write_text("{}")
    assert targets.saved_report("older", "sets/mine.json") == path
    own = runs.find("older").path("evaluation", "mine", "older.json")
    own.write_text("{}")
    os.utime(path, (1, 1))
    assert targets.saved_report("older", "mine") == own  # the newest counts


def test_tasks_and_prompts_go_side_by_side():
    records = evaluate(Script(lambda chat: "Done." if len(chat) > 1 else RIGHT), [PROMPT, TASK], SETTINGS)
    assert [record.passed for record in records] == [True, True]
    assert "state" in records[1].measures and "state" not in records[0].measures
