"""The run folder: what a finished, a failed and a killed run leave behind, and how a run is found again."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import jsonschema_rs
import pytest

from toolset_nb import models, runs
from toolset_nb.paths import repo_root
from toolset_nb.runs import Run, RunError, find, list_runs, runs_folder


def complete(method: str = "sft", name: str = "") -> Run:
    run = Run.start(method, "tiny", name)
    run.finish()
    return run


def test_a_started_run_records_where_and_with_what_it_runs():
    run = Run.start("sft", "tiny", dataset={"rows": 3})
    record = json.loads((run.folder / "run.json").read_text("utf-8"))
    assert run.status == record["status"] == "running"
    assert (record["method"], record["size"], record["pid"]) == ("sft", "tiny", os.getpid())
    assert record["dataset"] == {"rows": 3}
    assert record.keys() >= {"started", "host", "python", "packages", "commit", "process_started"}
    assert run.folder.name.endswith("-sft-tiny")


def test_finish_adds_results_and_fail_a_reason():
    good, bad = Run.start("sft", "tiny"), Run.start("kto", "tiny")
    good.finish(results={"loss": 0.5})
    bad.fail("out of memory")
    assert (good.status, good.record["results"]) == ("complete", {"loss": 0.5})
    assert (bad.status, bad.record["reason"]) == ("failed", "out of memory")
    assert good.record["finished"] >= good.record["started"]


def test_a_record_fits_its_schema_and_a_field_that_no_schema_names_does_not():
    schema = jsonschema_rs.validator_for(json.loads((repo_root() / "schemas" / "run.json").read_text("utf-8")))
    data = {"file": "sft.jsonl", "sha256": "0" * 64, "rows": 3}
    run = Run.start("sft", "tiny", dataset=data, base_model={"name": "x", "revision": None}, parent=None)
    run.update(warnings={"The loss is rising": "Halve learning_rate."})
    run.fail("out of memory")
    run.reopen()
    run.finish(results={"train_loss": 0.5}, answers={"prompts": ["a"], "before": ["b"], "after": ["c"]})
    assert [error.message for error in schema.iter_errors(run.record)] == []
    run.update(mood="good")
    assert not schema.is_valid(run.record)


def test_a_run_that_goes_on_forgets_why_it_had_ended():
    run = Run.start("sft", "tiny")
    run.fail("out of memory")
    run.reopen()
    assert not run.record.keys() & {"reason", "finished"}
    run.finish()
    assert run.status == "complete" and "reason" not in run.record


@pytest.mark.parametrize("line", ["1 / 0", "raise KeyboardInterrupt"], ids=["an error", "140 the stop button"])
def test_in_a_notebook_whatever_ends_a_later_cell_marks_the_run_failed(line):
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance()
    try:
        run = Run.start("sft", "tiny")
        runs.mark_failed_on_error(run)
        shell.run_cell("fine = 1")
        assert run.status == "running"
        shell.run_cell(line)
    finally:
        InteractiveShell.clear_instance()
    assert run.status == "failed" and run.record["reason"].startswith(("ZeroDivisionError", "KeyboardInterrupt"))


@pytest.mark.parametrize("name", ["", "garden"])
def test_runs_of_one_name_get_folders_of_their_own(name):
    folders = [Run.start("sft", "tiny", name).folder for _ in range(3)]
    assert len(set(folders)) == 3
    if name:
        assert [folder.name for folder in folders] == ["garden", "garden-2", "garden-3"]


def test_latest_is_a_link_to_the_newest_run_and_no_run_itself():
    Run.start("sft", "tiny", "one")
    Run.start("sft", "tiny", "two")
    assert (runs_folder() / "latest").resolve() == (runs_folder() / "two").resolve()
    assert [run.folder.name for run in list_runs()] == ["two", "one"]


def test_latest_is_a_text_file_where_links_are_not_allowed(monkeypatch):
    def refuse(*_):
        raise OSError("no links here")

    monkeypatch.setattr("pathlib.Path.symlink_to", refuse)
    complete(name="one")
    assert (runs_folder() / "latest").read_text() == "one\n"
    assert find("latest").folder.name == "one"


def test_find_takes_latest_latest_of_a_method_a_name_and_a_path(tmp_path):
    complete("sft", "a")
    complete("kto", "b")
    Run.start("sft", "tiny", "unfinished")
    found = [find(name).folder.name for name in ("latest", "latest:sft", "latest:kto", "a", str(runs_folder() / "b"))]
    assert found == ["b", "a", "b", "a", "b"]
    assert find("latest", "sft").folder.name == "a"


def test_find_says_what_exists():
    with pytest.raises(RunError, match="newest: none"):
        find("garden")
    complete("sft", "meadow")
    with pytest.raises(RunError, match="no run 'garden' under .* newest: meadow"):
        find("garden")
    with pytest.raises(RunError, match="no complete kto run under"):
        find("latest:kto")


@pytest.fixture
def shipped(monkeypatch, tmp_path):
    """A stand-in for the repository's finished/, with another machine's paths in it."""
    monkeypatch.setattr(runs, "repo_root", lambda: tmp_path / "repository")
    adapter = tmp_path / "repository" / "finished" / "adapter"
    adapter.mkdir(parents=True)
    record = {"status": "complete", "method": "sft", "started": "2026-11-23", "base_folder": "/elsewhere/SmolLM2"}
    (adapter.parent / "run.json").write_text(json.dumps(record))
    (adapter / "adapter_config.json").write_text(json.dumps({"r": 39, "base_model_name_or_path": "/elsewhere/SmolLM2"}))
    (adapter / "adapter_model.safetensors").write_bytes(b"weights")
    return adapter


def test_the_finished_model_becomes_a_run_on_this_machines_base(shipped):
    run = find("finished")
    config = json.loads((run.folder / "adapter" / "adapter_config.json").read_text())
    assert run.folder == runs_folder() / "finished" and run.status == "complete"
    assert config == {"r": 39, "base_model_name_or_path": run.record["base_folder"]}
    assert run.record["base_folder"] == str(models.embedded())
    run.path("evaluation", "report.md").touch()
    assert find("finished").folder.joinpath("evaluation", "report.md").exists()  # not copied again
    (shipped / "adapter_model.safetensors").write_bytes(b"better weights")
    assert not find("finished").folder.joinpath("evaluation").exists()  # a report of other weights
    assert [path.name for path in runs_folder().iterdir()] == ["finished"]


HOME = "/elsewhere/.cache/toolset_nb/models/SmolLM2-135M-Instruct"


@pytest.fixture
def carried():
    """A complete run of tiny that another machine trained, as Drive keeps it."""
    run = Run.start("sft", "tiny", "carried", base_folder=HOME)
    run.path("adapter", "adapter_config.json").write_text(json.dumps({"r": 8, "base_model_name_or_path": HOME}))
    run.finish()
    return run


@pytest.mark.parametrize(
    "take",
    [lambda: find("latest"), lambda: find("carried"), lambda: models.local_folder("carried")],
    ids=["latest", "its name", "a base to train on from"],
)
def test_a_run_on_the_embedded_model_of_another_machine_is_put_on_this_ones(carried, take):
    take()
    config = json.loads((carried.folder / "adapter" / "adapter_config.json").read_text())
    assert carried.record["base_folder"] == str(models.embedded()) and carried.status == "complete"
    assert config == {"r": 8, "base_model_name_or_path": carried.record["base_folder"]}


@pytest.mark.parametrize("base", ["/gone/my-own-model", "HuggingFaceTB/SmolLM2-135M-Instruct", None])
def test_a_run_on_any_other_base_keeps_it(carried, base):
    carried.update(base_folder=base)
    assert find("carried").record["base_folder"] == base


def test_where_the_embedded_model_lies_is_known_on_every_system():
    for home in (str(models.embedded()), HOME, r"C:\Users\ada\.cache\toolset_nb\models\SmolLM2-135M-Instruct"):
        assert runs.EMBEDDED.search(home)


def test_latest_is_the_finished_model_until_something_was_trained(shipped, capsys):
    with pytest.raises(RunError, match="no complete sft run"):
        find("latest", "sft")
    assert runs.complete_names() == ["finished"]
    assert find("latest").folder.name == "finished" and "comes with the repository" in capsys.readouterr().out
    complete("sft", "mine")
    assert find("latest").folder.name == "mine"
    assert runs.complete_names() == ["mine", "finished"]


@pytest.mark.parametrize("content", ["", '{"status": "run', "[]", "{}"])
def test_a_run_json_that_cannot_be_read_hides_no_other_run(content):
    complete(name="good")
    broken = runs_folder() / "broken"
    broken.mkdir()
    (broken / "run.json").write_text(content)
    assert find("latest").folder.name == "good"


def test_a_folder_that_is_no_run_says_so(tmp_path):
    with pytest.raises(RunError, match="no run folder"):
        _ = Run(tmp_path).record


def test_139_the_run_of_a_killed_process_reads_as_crashed():
    code = "from toolset_nb.runs import Run; print(Run.start('sft', 'tiny').folder, flush=True); input()"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    run = Run(process.stdout.readline().strip())
    assert run.status == "running"
    process.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, but a zombie until somebody asks
    assert run.status == "crashed"
    process.communicate()
    assert run.status == "crashed"
    assert run.record["status"] == "running"  # a dead process cannot write


def test_a_process_id_that_another_process_has_now_reads_as_crashed():
    run = Run.start("sft", "tiny")
    run.update(process_started=run.record["process_started"] - 1)
    assert run.status == "crashed"


def test_where_there_is_no_proc_a_process_is_known_by_the_time_it_began(monkeypatch, tmp_path):
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    monkeypatch.setattr(runs, "Path", lambda path: tmp_path / "no proc")
    began = runs._process_started(process.pid)
    assert time.time() - 60 < began < time.time() + 1 and runs._process_started(process.pid) == began
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, but a zombie until somebody asks
    assert runs._process_started(process.pid) is None
    process.communicate()
    assert runs._process_started(process.pid) is None


def test_a_run_of_another_machine_is_taken_at_its_word():
    run = Run.start("sft", "tiny")
    run.update(host="elsewhere", pid=0)
    assert run.status == "running"


@pytest.mark.parametrize("torn", [b'{"step": 3, "lo', b'{"step": 3, "note": "\xc3', b""])
def test_a_torn_last_log_line_is_left_out(torn):
    run = Run.start("sft", "tiny")
    assert run.history() == []
    run.log({"step": 1, "loss": 2.5})
    run.log({"step": 2, "loss": 2.25})
    with (run.folder / "log.jsonl").open("ab") as file:
        file.write(torn)
    assert run.history() == [{"step": 1, "loss": 2.5}, {"step": 2, "loss": 2.25}]


def test_138_the_old_run_json_stays_when_the_new_one_cannot_be_written(monkeypatch):
    run = Run.start("sft", "tiny")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runs.os, "replace", full)
    with pytest.raises(OSError):
        run.finish()
    assert run.status == "running"


def test_151_in_a_locale_without_utf8_records_and_logs_are_utf8_all_the_same(tmp_path):
    code = tmp_path / "code.py"
    code.write_text(
        "from toolset_nb.runs import Run\n"
        "run = Run.start('sft', 'tiny', 'mine', answers={'prompts': ['Öffne 日本']})\n"
        "run.log({'step': 1, 'note': 'é'})\n"
        "assert run.history()[0]['note'] == 'é' and run.record['answers']['prompts'] == ['Öffne 日本']\n",
        "utf-8",
    )
    env = os.environ | {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONPATH": str(repo_root())}
    subprocess.run([sys.executable, str(code)], env=env, check=True)
    assert find("mine").history() == [{"step": 1, "note": "é"}]


def test_file_hash_is_sha256_of_the_bytes(tmp_path):
    path = tmp_path / "x.bin"
    path.write_bytes(b"toolset" * 300_000)
    assert runs.file_hash(path) == hashlib.sha256(b"toolset" * 300_000).hexdigest()
