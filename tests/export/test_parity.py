"""Do the formats answer as the adapter does? Real transformers against llama.cpp's real server, on a tiny random model."""

import json

import pytest

from toolset_nb.export import ExportError, make, parity
from toolset_nb.export.parity import FLOOR, Replies, compared, markdown, problems, same_calls, same_reply
from toolset_nb.settings import ExportSettings

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
            "formats": {"q8_0": bad | {"bytes": 2e6}},
            "tasks": {"q4_k_m against f16": {"before": 0.5, "after": 0.4, "difference": -0.1, "low": -0.2, "high": 0.01,
                                             "won": 1, "lost": 6, "tasks": 50}},
        }
    )  # fmt: skip
    assert "| q8_0 | 2 MB | 50/50 | 50/50 | 48/50 | 87% to 99% | 98% | 48/50 |" in text
    assert "| q4_k_m against f16 | 50%, 40% of 50 | -10.0% (-20.0% to +1.0%) | 1, 6 |" in text
    assert text.endswith("- **q8_0: bad**\n")


def test_the_real_formats_get_the_same_prompts_and_f16_answers_as_the_adapter(lora_run, monkeypatch):
    monkeypatch.setattr(parity, "TOKENS", 12)
    settings = ExportSettings(formats="merged,f16,q8_0", parity_prompts=3, parity_tasks=2, context=1024)
    found = parity.measure(lora_run, make(lora_run, settings, lambda line: None), settings, lambda line: None)
    assert list(found["formats"]) == ["merged", "f16", "q8_0"]
    for row in found["formats"].values():
        assert row["prompts_equal"] == row["tokens_equal"] == row["total"] == 3
    assert found["formats"]["merged"]["replies_equal"] == found["formats"]["f16"]["replies_equal"] == 3
    assert found["tasks"]["q8_0 against f16"]["tasks"] == 2
    export = lora_run.folder / "export"
    assert json.loads((export / "parity.json").read_text()) == found
    assert (export / "parity.md").read_text() == found["markdown"]


def test_a_format_that_answers_otherwise_stops_the_export_or_is_written_down(lora_run, monkeypatch, tmp_path):
    monkeypatch.setattr(parity, "by_transformers", lambda *_: replies([CALL]))
    monkeypatch.setattr(parity, "by_server", lambda *_: (replies([OTHER]), {}))
    file = tmp_path / "model-q8_0.gguf"
    file.write_bytes(b"GGUF")
    found = parity.measure(lora_run, {"q8_0": file}, ExportSettings(parity_prompts=1), lambda line: None)
    assert found["problems"] == ["q8_0: 0 of 1 replies make the adapter's calls, expected 98%"]
    with pytest.raises(ExportError, match="0 of 1 replies make .*; parity warn keeps the files"):
        parity.measure(lora_run, {"q8_0": file}, ExportSettings(parity="stop", parity_prompts=1), lambda line: None)
    assert (lora_run.folder / "export" / "parity.json").exists()
    with pytest.raises(ExportError, match="formats adapter: nothing to compare"):
        parity.measure(lora_run, {"adapter": tmp_path}, ExportSettings(), lambda line: None)
