"""The chat templates of the sizes' base models: what is supervised is what the model then writes, and it is asked the same way."""

from itertools import islice
from pathlib import Path

import pytest

from toolset_nb import models, rows
from toolset_nb.training import answers, check_supervised, data_path, drop_long, join_answers, to_dataset

OPENINGS = {
    "ours": "",
    "qwen2_5": "",
    "qwen3_instruct_2507": "",
    "qwen3": "<think>\n\n</think>\n\n",
    "gptoss": "<|channel|>final<|message|>",
}
ASKED = {"qwen3": "<|im_start|>assistant\n<think>\n\n</think>\n\n", "gptoss": "<|start|>assistant"}


@pytest.fixture(params=OPENINGS)
def name(request):
    return request.param


@pytest.fixture
def tokenizer(name):
    import trl

    made = models.embedded_tokenizer()
    if name != "ours":
        made.chat_template = (Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja").read_text("utf-8")
    return models.settle_template(made)


@pytest.fixture(scope="module")
def data():
    """Rows of one and of several answers, so that some prompts hold calls and their results."""
    parts = rows.training_rows(row for _, row in islice(rows.read(data_path("datasets/sft.jsonl")), 2000))
    return parts[:2] + [part for part in parts if part["prompt"][-1]["role"] == "tool"][:2]


def trainers(method, model, tokenizer, data, folder):
    from transformers import AutoModelForCausalLM
    from trl import KTOConfig, KTOTrainer, SFTConfig, SFTTrainer

    made, config = {"sft": (SFTTrainer, SFTConfig), "kto": (KTOTrainer, KTOConfig)}[method]
    more = {"completion_only_loss": True} if method == "sft" else {}
    args = config(
        output_dir=str(folder), max_length=4096, use_cpu=True, report_to="none", per_device_train_batch_size=2, **more
    )
    labelled = [row | {"label": number % 2 == 0} for number, row in enumerate(data)] if method == "kto" else data
    model = AutoModelForCausalLM.from_pretrained(model)
    return made(model=model, args=args, train_dataset=to_dataset(labelled, method), processing_class=tokenizer)


@pytest.mark.parametrize("method", ["sft", "kto"])
def test_what_is_supervised_is_what_the_model_writes(method, name, tokenizer, data, tiny_model, tmp_path):
    data = drop_long(data, tokenizer, 4096)
    trainer = trainers(method, tiny_model, tokenizer, data, tmp_path)
    check_supervised(trainer, tokenizer, data)
    for row, entry in zip(data, trainer.train_dataset, strict=True):
        labels = entry.get("completion_ids") or [label for label in entry["labels"] if label != -100]
        asked = tokenizer.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True)
        whole = tokenizer.apply_chat_template(row["prompt"] + row["completion"], tokenize=False)
        assert tokenizer.decode(labels) == whole.removeprefix(asked)
        assert whole.removeprefix(asked).startswith(OPENINGS[name] + row["completion"][0]["content"])
        ids = entry.get("input_ids") or entry["prompt_ids"] + entry["completion_ids"]
        assert len(ids) == len(tokenizer(whole, add_special_tokens=False)["input_ids"])


def test_lengths_are_those_of_what_is_trained(tokenizer, data, capsys):
    lengths = [
        len(tokenizer.apply_chat_template(row["prompt"] + row["completion"], return_dict=True)["input_ids"])
        for row in data
    ]
    assert len(drop_long(data, tokenizer, max(lengths))) == 4
    assert f"longest {max(lengths)}" in capsys.readouterr().out


def test_in_one_pass_the_same_answers_are_learned_after_the_same_tokens(name, tokenizer, tiny_model, tmp_path):
    turns = [row for _, row in islice(rows.read(data_path("datasets/sft.jsonl")), 0, 3000, 10)]
    parts = drop_long(rows.training_rows(turns), tokenizer, 4096)
    joined = join_answers(parts)
    apart = name in ("qwen3", "gptoss")  # whose templates write an answer otherwise once another follows
    assert len(joined) == len(parts) if apart else len(joined) < len(parts) - 50

    def learned(data):
        marked = to_dataset(data)
        return sorted(
            hash(tuple(row["input_ids"][: place + 1]))
            for row in marked
            for place, one in enumerate(row["completion_mask"])
            if one
        )

    assert learned(joined) == learned(parts)
    check_supervised(trainers("sft", tiny_model, tokenizer, joined[-20:], tmp_path), tokenizer, joined[-20:], show=0)


def test_a_model_is_asked_as_it_was_trained_and_what_the_template_opens_with_is_no_part_of_its_answer(
    name, tokenizer, tiny_model, monkeypatch
):
    import torch
    from transformers import AutoModelForCausalLM

    model, seen = AutoModelForCausalLM.from_pretrained(tiny_model), []

    def generate(input_ids, **_):
        seen.extend(tokenizer.batch_decode(input_ids))
        wrote = (
            "" if name == "qwen3" else OPENINGS[name]
        )  # Qwen3's stands in the prompt of one that is asked not to think
        made = tokenizer([wrote + "Done."] * len(input_ids), return_tensors="pt", add_special_tokens=False)["input_ids"]
        return torch.cat([input_ids, made], dim=1)

    monkeypatch.setattr(model, "generate", generate)
    values = {"context_source": "system", "tool_exposure": "agent"}
    replies = answers.answer(model, tokenizer, {"Open A": "vaultManager_openNote", "Hi": ""}, values)
    assert replies == ["Done.", "Done."]
    system = rows.system_text("eval-Open A", ["vaultManager_openNote"], "hermes", "system", "agent")
    assert system in seen[0] and "vaultManager_openNote" in system
    assert seen[0].endswith(ASKED.get(name, "<|im_start|>assistant\n"))
