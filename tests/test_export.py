"""From a run to files: made once, made again when the adapter changes, nothing half-written, and no token in an error.

The converter, the merge and the Hub are stand-ins here; the real converter runs in test_models and test_servers.
"""

import subprocess
from types import SimpleNamespace

import httpx
import huggingface_hub
import pytest
from huggingface_hub.errors import HFValidationError

from toolset_nb import export
from toolset_nb.export import ExportError, check_hub, convert, run_gguf, upload
from toolset_nb.runs import Run

TOKEN = "hf_" + "aB3" * 12


@pytest.fixture
def run():
    run = Run.start("sft", "tiny")
    run.path("adapter", "adapter_model.safetensors").write_bytes(b"weights")
    run.finish()
    return run


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

    monkeypatch.setattr(export, "unpack", lambda wheel: tmp_path)
    monkeypatch.setattr(export.subprocess, "run", execute)
    return script


def test_a_conversion_makes_the_file_and_nothing_else(converter, tmp_path):
    gguf = tmp_path / "out" / "m.gguf"
    assert convert(tmp_path, gguf) == gguf
    assert [path.name for path in gguf.parent.iterdir()] == ["m.gguf"]


def test_a_refused_conversion_leaves_nothing_and_the_old_file_as_it_was(converter, tmp_path):
    gguf = tmp_path / "out" / "m.gguf"
    converter.code = 1
    with pytest.raises(ExportError, match="refused .*: ValueError: unknown architecture"):
        convert(tmp_path, gguf)
    assert list(gguf.parent.iterdir()) == []
    gguf.write_bytes(b"old")
    converter.error = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        convert(tmp_path, gguf)
    assert [(path.name, path.read_bytes()) for path in gguf.parent.iterdir()] == [("m.gguf", b"old")]


@pytest.fixture
def made(monkeypatch):
    """Names of the models converted, in order; merge and convert are stand-ins."""
    made = []

    def convert(folder, gguf):
        made.append(gguf)
        gguf.write_bytes(b"GGUF")
        return gguf

    monkeypatch.setattr(export, "merge", lambda run, folder: folder)
    monkeypatch.setattr(export, "convert", convert)
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

    monkeypatch.setattr(export, "merge", full)
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
    assert export.base_gguf(str(base)) == export.base_gguf(str(base))
    (base / "model.safetensors").write_bytes(b"2")
    export.base_gguf(str(base))
    assert len(made) == 2


class Hub:
    """A stand-in for huggingface_hub.HfApi: records what it is asked, or raises `refusal`."""

    refusal: Exception | None = None
    asked: list = []

    def create_repo(self, repo, **options):
        self.asked.append((repo, options))
        if self.refusal:
            raise self.refusal

    def upload_folder(self, **options):
        self.asked.append(options)


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: TOKEN)
    monkeypatch.setattr(Hub, "asked", [])
    return Hub


def test_uploading_needs_a_repository_and_a_token(hub, monkeypatch):
    with pytest.raises(ExportError, match="needs hub_repo, for example your-name"):
        check_hub("")
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(ExportError, match="needs a token: `hf auth login`, HF_TOKEN"):
        check_hub("ada/tiny")
    assert hub.asked == []


REFUSALS = {
    "403": httpx.HTTPStatusError(
        f"403 for {TOKEN}", request=httpx.Request("POST", "https://x"), response=httpx.Response(403)
    ),
    "149 no network": httpx.ConnectError(f"no route {TOKEN}"),
    "offline mode": ConnectionError(TOKEN),
    "a name the Hub does not allow": HFValidationError(f"a--b {TOKEN}"),
}


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
def test_what_the_hub_refuses_is_said_without_the_token(hub, monkeypatch, refusal):
    monkeypatch.setattr(hub, "refusal", refusal)
    with pytest.raises(ExportError, match="the Hub refuses ada/tiny") as caught:
        check_hub("ada/tiny")
    assert TOKEN not in str(caught.value) and caught.value.__suppress_context__


def test_the_adapter_goes_to_a_private_repository(hub, run, capsys):
    check_hub("ada/tiny")
    assert upload(run, "ada/tiny") == "https://huggingface.co/ada/tiny"
    created, uploaded = hub.asked
    assert created == ("ada/tiny", {"private": True, "exist_ok": True})
    assert (uploaded["folder_path"], uploaded["repo_id"]) == (run.folder / "adapter", "ada/tiny")
    assert TOKEN not in capsys.readouterr().out
