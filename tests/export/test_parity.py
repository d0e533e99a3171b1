"""Do the formats answer as the adapter does? Real transformers against llama.cpp's real server, on a tiny random model."""

import json
import shutil

import pytest
import torch
from peft import PeftModel
from peft.utils.constants import DUMMY_TARGET_MODULES

from toolset_nb import models
from toolset_nb.export import ExportError, artefacts, make, parity, weights
from toolset_nb.export.parity import FLOOR, Replies, compared, markdown, problems, same_calls, same_reply
from toolset_nb.runs import Run, file_hash
from toolset_nb.settings import EvaluateSettings, ExportSettings

CALL = '<tool_call>\n{"name": "vaultManager_openNote", "arguments": {"path": "Garden.md"}}\n</tool_call>'
SPACED = CALL.replace('": "Garden', '":    "Garden')
OTHER = CALL.replace("Garden", "garden")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (CALL, SPACED, True), (CALL, OTHER, False), (CALL, "Which note?", False), (CALL, CALL + CALL, False),
        ("Which note?", "Which note? ", True), ("Which note?", "Which?", False), ("", "", True),
    ],
)  # fmt: skip
def test_replies_are_equal_when_their_calls_are_or_their_words(one, other, same):
    assert same_reply(one, other) is same_reply(other, one) is same


def test_calls_are_the_same_whatever_the_context_holds():
    one, other = (
        CALL.replace('{"path"', f'{{"context": {{"sessionMemory": "{words}"}}, "path"') for words in ("Two", "Three")
    )
    assert same_calls(one, other) and not same_reply(one, other)
    assert not same_calls(one, other.replace("Garden", "Shed")) and not same_calls(one, "Which?")
    assert same_calls("Which?", "Which one?")


def replies(texts, rendered="<|im_start|>"):
    return Replies([rendered] * len(texts), [[1, 2]] * len(texts), texts, 1.0)


def test_a_format_below_its_floor_or_with_another_prompt_is_a_problem():
    reference = replies([CALL] * 50)
    good = compared(reference, replies([CALL] * 49 + [OTHER]), FLOOR["q8_0"])
    assert (good["calls_equal"], good["share"], good["different"], good["calls"]) == (49, 0.98, [49], 50)
    assert good["low"] < 0.98 < good["high"]
    bad = compared(reference, replies([CALL] * 48 + [OTHER] * 2), FLOOR["q8_0"])
    torn = compared(reference, replies([CALL] * 50, "<|im_start|> "), None)
    assert problems({"formats": {"q8_0": good}}) == []
    assert problems({"formats": {"q8_0": bad, "q4_k_m": torn}}) == [
        "q8_0: 48 of 50 replies make the adapter's calls, expected 98%",
        "q4_k_m: 50 of 50 prompts reach the model as other prompts",
    ]
    text = markdown(
        {
            "prompts": 50, "prompt_set": "x", "problems": ["q8_0: bad"],
            "formats": {"q8_0": bad | {"bytes": 2e6, "state": {"count": 12, "total": 24, "rate": 0.5, "low": 0.31, "high": 0.69}}},
            "tasks": {"q4_k_m against f16": {"before": 0.5, "after": 0.4, "difference": -0.1, "low": -0.2, "high": 0.01,
                                             "won": 1, "lost": 6, "tasks": 50}},
        }
    )  # fmt: skip
    assert "| q8_0 | 2 MB | 50/50 | 50/50 | 48/50 | 87% to 99% | 98% | 48/50 |" in text
    assert "| q8_0 | 12/24 = 50% | 31% to 69% |" in text
    assert "| q4_k_m against f16 | 50%, 40% of 50 | -10.0% (-20.0% to +1.0%) | 1, 6 |" in text
    assert text.endswith("- **q8_0: bad**\n")


def test_the_real_formats_get_the_same_prompts_and_f16_answers_as_the_adapter(lora_run, monkeypatch):
    monkeypatch.setattr(parity, "TOKENS", 12)
    settings = ExportSettings(formats="merged,f16,q8_0,lora", parity_prompts=3, parity_tasks=2, context=1024)
    found = parity.measure(lora_run, make(lora_run, settings, lambda line: None), settings, lambda line: None)
    assert list(found["formats"]) == ["merged", "f16", "q8_0", "lora"]
    for row in found["formats"].values():
        assert row["prompts_equal"] == row["tokens_equal"] == row["total"] == 3
    assert found["formats"]["merged"]["replies_equal"] == found["formats"]["f16"]["replies_equal"] == 3
    for name in ("q8_0", "lora"):
        assert found["tasks"][f"{name} against f16"]["tasks"] == found["formats"][name]["state"]["total"] == 2
    export = lora_run.folder / "export"
    assert json.loads((export / "parity.json").read_text()) == found
    assert (export / "parity.md").read_text() == found["markdown"]


def silent(line):
    pass


@pytest.fixture
def other_answers(lora_run, monkeypatch):
    """A run with two GGUF files that answer otherwise than the adapter, and finish one of two tasks."""
    monkeypatch.setattr(parity, "by_transformers", lambda *_: replies([CALL]))
    monkeypatch.setattr(
        parity,
        "by_server",
        lambda file, chats, asking, tasks, over_base: (replies([OTHER]), {"a": [True], "b": [False]} if tasks else {}),
    )
    files = {name: lora_run.path("export", f"model-{name}.gguf") for name in ("f16", "q8_0")}
    for name, file in files.items():
        artefacts.finish(file, {"format": name}, lambda path: path.write_bytes(b"GGUF"))
    return files


def test_a_format_that_answers_otherwise_stops_the_export_or_is_written_down(lora_run, other_answers):
    file = {"q8_0": other_answers["q8_0"]}
    found = parity.measure(lora_run, file, ExportSettings(parity_prompts=1), silent)
    assert found["problems"] == ["q8_0: 0 of 1 replies make the adapter's calls, expected 98%"]
    with pytest.raises(ExportError, match="0 of 1 replies make .*; the files are kept, and parity warn goes on"):
        parity.measure(lora_run, file, ExportSettings(parity="stop", parity_prompts=1), silent)
    assert (lora_run.folder / "export" / "parity.json").exists()


def test_nothing_to_compare_is_said_and_no_error(lora_run, tmp_path):
    said = []
    assert parity.measure(lora_run, {"adapter": tmp_path}, ExportSettings(parity="stop"), said.append) == {}
    assert said == ["nothing to compare with the adapter"]


def test_one_gguf_alone_has_its_share_of_finished_tasks(lora_run, other_answers):
    settings = ExportSettings(parity_prompts=1, parity_tasks=2)
    found = parity.measure(lora_run, {"q8_0": other_answers["q8_0"]}, settings, silent)
    assert found["formats"]["q8_0"]["state"]["count"] == 1 and found["tasks"] == {}
    assert "| q8_0 | 1/2 = 50% | 9% to 91% |" in found["markdown"]


def test_what_was_measured_before_stays_while_adapter_prompts_and_file_are_the_same(lora_run, other_answers):
    def measured(name, prompts=1):
        settings = ExportSettings(parity_prompts=prompts, parity_tasks=2)
        return parity.measure(lora_run, {name: other_answers[name]}, settings, silent)

    measured("q8_0")
    found = measured("f16")
    assert list(found["formats"]) == ["f16", "q8_0"] and list(found["tasks"]) == ["q8_0 against f16"]
    artefacts.finish(other_answers["q8_0"], {"made": "anew"}, lambda path: path.write_bytes(b"GGUF"))
    assert list(measured("f16")["formats"]) == ["f16"]
    measured("q8_0")
    (lora_run.folder / "adapter" / "adapter_model.safetensors").write_bytes(b"trained on")
    assert list(measured("f16")["formats"]) == ["f16"]


def test_a_comparison_on_other_prompts_counts_no_more(lora_run, other_answers, monkeypatch, tmp_path):
    settings = ExportSettings(parity_prompts=1)
    parity.measure(lora_run, {"q8_0": other_answers["q8_0"]}, settings, silent)
    changed = tmp_path / "full_coverage.json"
    changed.write_text("[]")
    monkeypatch.setattr(parity, "prompt_file", lambda name: changed)
    found = parity.measure(lora_run, {"f16": other_answers["f16"]}, settings, silent)
    assert list(found["formats"]) == ["f16"] and found["prompts_sha256"] == file_hash(changed)


@pytest.mark.parametrize("free", [1, 1e-3])
def test_a_model_that_the_gpu_has_no_room_for_stays_on_the_cpu(lora_run, monkeypatch, free):
    gpu = models.Hardware("cuda", "a GPU", 16, free, (8, 0), 8, 8)
    monkeypatch.setattr(models, "hardware", lambda: gpu)
    placed = []
    monkeypatch.setattr(PeftModel, "to", lambda model, device: placed.append(device) or model)
    models.for_generation(lora_run, "float32")
    assert placed == ["cuda" if free == 1 else "cpu"]


def test_the_reference_is_the_adapter_itself_also_where_whole_layers_were_trained(tiny_model, lora_run, tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    whole = tmp_path / "whole"
    shutil.copytree(lora_run.folder, whole)
    config = LoraConfig(target_modules=DUMMY_TARGET_MODULES, modules_to_save=["layers.1"], task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32), config)
    for name, weight in model.named_parameters():
        if ".modules_to_save." in name:
            weight.data += 0.5 * torch.randn_like(weight)
    model.save_pretrained(whole / "adapter")
    chats = [
        [{"role": "user", "content": "Open it" * count}] for count in (1, 30, 7)
    ]  # padded on the left in one batch
    asking = EvaluateSettings(max_tokens=8)
    for run in (lora_run, Run(whole)):
        network, _ = models.for_generation(run, "float32")
        assert isinstance(network, PeftModel) and network.dtype is torch.float32
        merge = weights.merge(run, tmp_path / "merged")
        merged = parity.by_transformers(str(merge), chats, asking, "float32")
        reference = parity.by_transformers(run, chats, asking, "float32")
        alone = [parity.by_transformers(run, [chat], asking, "float32").texts[0] for chat in chats]
        base = parity.by_transformers(str(tiny_model), chats, asking, "float32")
        assert reference.texts == merged.texts == alone and reference.texts != base.texts
