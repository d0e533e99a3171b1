"""From weights to GGUF by llama.cpp's real converters, and what they refuse in words."""

import json
import os
import shutil

import pytest
from gguf import GGUFReader

from toolset_nb.downloads import DownloadError, unpack
from toolset_nb.export import ExportError, base_gguf, gguf, llamacpp


@pytest.fixture
def made(monkeypatch):
    """Names of the models converted, in order; the converter is a stand-in."""
    made = []

    def convert(folder, target):
        made.append(folder)
        target.write_bytes(b"GGUF")
        return target

    monkeypatch.setattr(gguf, "convert", convert)
    return made


def test_the_gguf_of_a_base_folder_is_cached_until_the_folder_changes(made, monkeypatch, tmp_path):
    monkeypatch.setenv("TOOLSET_NB_CACHE", str(tmp_path / "cache"))
    base = tmp_path / "base"
    base.mkdir()
    (base / "model.safetensors").write_bytes(b"1")
    assert base_gguf(str(base)) == base_gguf(str(base))
    (base / "model.safetensors").write_bytes(b"2")
    base_gguf(str(base))
    assert made == [base, base]


def test_an_architecture_that_llamacpp_does_not_know_is_named_and_nothing_is_left(tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["OrchidForCausalLM"]}))
    with pytest.raises(ExportError, match="llama.cpp's converter refused .*OrchidForCausalLM"):
        gguf.convert(folder, tmp_path / "out.gguf")
    assert not (tmp_path / "out.gguf").exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here: a device on which no byte has room")
def test_138_a_full_disk_is_called_that(tiny_model, tmp_path):
    full = tmp_path / "full.gguf"
    full.symlink_to("/dev/full")
    with pytest.raises(ExportError, match="the disk is full: .*make room or choose fewer formats"):
        gguf.convert(tiny_model, full, "f16")


def test_a_lora_adapter_becomes_a_gguf_of_its_own(lora_run, tmp_path):
    try:
        unpack(llamacpp.SOURCE)
    except DownloadError as error:
        pytest.skip(f"llama.cpp's source cannot be had here: {error}")
    reader = GGUFReader(gguf.convert_lora(lora_run, tmp_path / "model.lora.gguf"))
    assert reader.fields["general.type"].contents() == "adapter"
    names = {tensor.name for tensor in reader.tensors}
    assert names == {
        f"blk.{layer}.{part}.weight.lora_{side}" for layer in (0, 1) for part in ("attn_q", "ffn_down") for side in "ab"
    }


def test_layers_trained_whole_cannot_be_a_gguf_lora(lora_run, tmp_path):
    config = lora_run.folder / "adapter" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"modules_to_save": ["layers.1"]}))
    with pytest.raises(ExportError, match="format lora: .* trained 1 modules whole .*lora_rank above 0"):
        gguf.convert_lora(lora_run, tmp_path / "x.gguf")


def test_an_importance_matrix_is_weighed_by_rows_as_the_model_reads_them(lora_run):
    text = "".join(gguf.calibration(lora_run, 3))
    assert text.count("<|im_start|>user\n") >= 3 and "<tool_call>\n" in text
