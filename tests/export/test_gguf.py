"""From a run to a GGUF: made once, made again when the adapter changes, nothing half-written.

The converter and the merge are stand-ins here; the real converter runs in test_models and test_servers.
"""

import subprocess
from types import SimpleNamespace

import pytest

from toolset_nb.export import ExportError, base_gguf, convert, gguf, run_gguf
from toolset_nb.runs import Run


@pytest.fixture
def converter(monkeypatch, tmp_path):
    """A stand-in for llama.cpp's script: writes its --outfile, then ends with `converter.code`."""
    script = SimpleNamespace(code=0, error=None)

    def execute(command, **_):
        with open(command[command.index("--outfile") + 1], "wb") as file:
            file.write(b"GGUF, half of it")
        if script.error:
            raise script.error
        return subprocess.CompletedProcess(command, script.code, "", "Traceback\nValueError: unknown architecture\n")

    monkeypatch.setattr(gguf, "unpack", lambda wheel: tmp_path)
    monkeypatch.setattr(gguf.subprocess, "run", execute)
    return script


def test_a_conversion_makes_the_file_and_nothing_else(converter, tmp_path):
    target = tmp_path / "out" / "m.gguf"
    assert convert(tmp_path, target) == target
    assert [path.name for path in target.parent.iterdir()] == ["m.gguf"]


def test_a_refused_conversion_leaves_nothing_and_the_old_file_as_it_was(converter, tmp_path):
    target = tmp_path / "out" / "m.gguf"
    converter.code = 1
    with pytest.raises(ExportError, match="refused .*: ValueError: unknown architecture"):
        convert(tmp_path, target)
    assert list(target.parent.iterdir()) == []
    target.write_bytes(b"old")
    converter.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        convert(tmp_path, target)
    assert [(path.name, path.read_bytes()) for path in target.parent.iterdir()] == [("m.gguf", b"old")]


@pytest.fixture
def made(monkeypatch):
    """Names of the models converted, in order; merge and convert are stand-ins."""
    made = []

    def convert(folder, target):
        made.append(target)
        target.write_bytes(b"GGUF")
        return target

    monkeypatch.setattr(gguf, "merge", lambda run, folder: folder)
    monkeypatch.setattr(gguf, "convert", convert)
    return made


def test_a_runs_gguf_is_made_once_and_again_when_the_adapter_changed(run, made):
    first = run_gguf(run)
    assert first == run.folder / "export" / "model-q8_0.gguf"
    assert run_gguf(run) == first and len(made) == 1
    (run.folder / "adapter" / "adapter_model.safetensors").write_bytes(b"other weights")
    assert run_gguf(run) == first and len(made) == 2


@pytest.mark.parametrize("mark", ["", '{"adapter_model.saf', "[]"])
def test_138_a_torn_mark_means_made_again(run, made, mark):
    run_gguf(run).with_suffix(".json").write_text(mark)
    run_gguf(run)
    run_gguf(run)
    assert len(made) == 2


def test_a_merge_that_fails_leaves_no_scratch_folder(run, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gguf, "merge", full)
    before = {path.name for path in run.folder.iterdir()}
    with pytest.raises(OSError):
        run_gguf(run)
    assert {path.name for path in run.folder.iterdir()} - before <= {"export"}
    assert list((run.folder / "export").iterdir()) == []


def test_a_run_without_an_adapter_says_its_status():
    run = Run.start("sft", "tiny")
    run.fail("stopped")
    with pytest.raises(ExportError, match="has no adapter: its status is failed"):
        run_gguf(run)


def test_the_gguf_of_a_base_folder_is_cached_until_the_folder_changes(made, monkeypatch, tmp_path):
    monkeypatch.setenv("TOOLSET_NB_CACHE", str(tmp_path / "cache"))
    base = tmp_path / "base"
    base.mkdir()
    (tmp_path / "cache" / "gguf").mkdir(parents=True)
    (base / "model.safetensors").write_bytes(b"1")
    assert base_gguf(str(base)) == base_gguf(str(base))
    (base / "model.safetensors").write_bytes(b"2")
    base_gguf(str(base))
    assert len(made) == 2
