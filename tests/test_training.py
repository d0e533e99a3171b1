"""What surrounds the trainer: which rows it gets, whether the right tokens are supervised, where it may resume."""

import contextlib
import itertools
import json
import math
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from toolset_nb import calls, models, runs, training
from toolset_nb.jsonl import DataError
from toolset_nb.paths import repo_root
from toolset_nb.runs import Run, RunError
from toolset_nb.settings import KTOSettings, SFTSettings
from toolset_nb.tools import catalogue
from toolset_nb.training import (
    MARKER,
    arrange,
    cadence,
    check_size,
    check_supervised,
    check_wanted,
    checkpoints,
    data_path,
    drop_long,
    health,
    held_out,
    is_interactive,
    plot,
    progress,
)


@pytest.fixture(scope="module")
def tokenizer():
    return models.embedded_tokenizer()


def row(number: int, words: int = 3, **more) -> dict:
    return {
        "id": f"r{number}",
        "prompt": [{"role": "user", "content": f"Question {number}"}],
        "completion": [{"role": "assistant", "content": "word " * words + "end"}],
        "input_ids": [0] * (2 + words),
        **more,
    }


def test_rows_that_do_not_fit_whole_are_left_out_and_named(tokenizer, capsys):
    data = [row(0), row(1, 200), row(2)]
    kept = drop_long(data, tokenizer, 60)
    assert [entry["id"] for entry in kept] == ["r0", "r2"]
    start, end = kept[0]["learned"][0]
    assert tokenizer.decode(kept[0]["input_ids"][start:end]) == "word word word end<|im_end|>\n"
    told = capsys.readouterr().out
    assert "2 of 3 rows fit max_length 60" in told and "left out: r1, 2" in told


def test_of_a_pair_both_rows_stay_or_go(tokenizer):
    data = [row(0), row(1), row(2), row(3, 200), row(4, 200), row(5), row(6), row(7)]
    kept = drop_long(data, tokenizer, 60, pairs=True)
    assert [entry["id"] for entry in kept] == ["r0", "r1", "r6", "r7"]
    assert len(drop_long(data, tokenizer, 60)) == 6


def test_rows_of_one_batch_are_of_one_length_and_batches_stand_in_no_order_of_length():
    data = [row(number, 3 + number * 7 % 100) for number in range(401)]
    arranged = arrange(data, 2, seed=1)
    assert sorted(entry["id"] for entry in arranged) == sorted(entry["id"] for entry in data)
    assert arranged == arrange(data, 2, seed=1) != arrange(data, 2, seed=2)
    sizes = [len(entry["input_ids"]) for entry in arranged[:400]]
    batches = list(zip(sizes[::2], sizes[1::2], strict=True))
    assert sum(sizes) / sum(2 * max(pair) for pair in batches) > 0.95
    growing = sum(sum(first) < sum(second) for first, second in itertools.pairwise(batches))
    assert 70 < growing < 130  # of 199: neither up nor down


def test_the_rows_of_a_pair_stay_together_and_batches_of_pairs_are_of_one_length():
    data = [row(number, 3 + number * 7 % 100 + 5 * (number % 2)) for number in range(403)]
    arranged = arrange(data, 8, seed=1, unit=2)
    assert sorted(entry["id"] for entry in arranged) == sorted(entry["id"] for entry in data)
    numbers = [int(entry["id"][1:]) for entry in arranged]
    assert all(
        first % 2 == 0 and second == first + 1 for first, second in zip(numbers[:402:2], numbers[1:402:2], strict=True)
    )
    assert numbers[402] == 402  # one without its partner comes last

    def padding(rows):
        sizes = [len(entry["input_ids"]) for entry in rows]
        batches = [sizes[start : start + 8] for start in range(0, 400, 8)]
        return sum(8 * max(batch) for batch in batches) / sum(sizes[:400])

    assert padding(arranged) < 1.3 < 1.6 < padding(data)


def test_29_no_row_that_fits_is_an_error_with_the_length_it_takes(tokenizer):
    with pytest.raises(DataError, match=r"no row fits max_length 8: raise it above \d\d"):
        drop_long([row(0)], tokenizer, 8)


STEPS = (
    'tool_call: vaultManager_openNote\narguments: {"context": {"sessionId": "session_1759561200000_q7w5e3r1t", '
    '"workspaceId": "default", "sessionDescription": "Reading", "sessionMemory": "Nothing yet", '
    '"toolContext": "Asked", "primaryGoal": "Read", "subgoal": "Open"}, '
    '"path": "A.md"}\n\nResult: {"success": true}\n\n'
)


def test_a_model_sizes_own_limit_holds_unless_the_settings_name_another(tmp_path):
    file = tmp_path / "rows.jsonl"
    answer = {"role": "assistant", "content": STEPS + "It is open."}
    asked = [[{"role": "user", "content": f"Open A.md, part {n}"}, answer] for n in range(4)]
    lines = (json.dumps({"id": f"r{n}", "conversations": turns, "label": True}) for n, turns in enumerate(asked))
    file.write_text("\n".join(lines) + "\n")
    config = SFTSettings(dataset=str(file))
    assert [len(training.load_rows(config, "sft", {"max_rows": limit})) for limit in (0, 3)] == [8, 3]
    assert len(training.load_rows(SFTSettings(dataset=str(file), max_rows=5), "sft", {"max_rows": 3})) == 5


def test_of_several_answers_kto_trains_the_last_where_the_pair_parts(tmp_path):
    file = tmp_path / "pairs.jsonl"
    pair = []
    for name, label, words in (("ka", True, "It is open."), ("kb", False, "I deleted it.")):
        turns = [{"role": "user", "content": "Open A.md"}, {"role": "assistant", "content": STEPS + words}]
        meta = {} if label else {"meta": {"defect": "unfinished"}}
        pair.append(json.dumps({"id": name, "conversations": turns, "label": label} | meta) + "\n")
    file.write_text("".join(pair))
    parts = training.load_rows(KTOSettings(dataset=str(file), sft_run="x"), "kto", {})
    assert [(part["label"], part["completion"][0]["content"]) for part in parts] == [
        (True, "It is open."),
        (False, "I deleted it."),
    ]
    assert all(part["prompt"][-1]["role"] == "tool" for part in parts)
    as_text = training.load_rows(KTOSettings(dataset=str(file)), "kto", {"call_format": "text"})  # as its SFT run was
    assert [part["prompt"][1]["content"].startswith("tool_call: ") for part in (*parts, *as_text)] == [False] * 2 + [
        True
    ] * 2


def supervised(tokenizer, data: list[dict], from_prompt: int = 0) -> SimpleNamespace:
    """A stand-in for a trainer: its tokenised rows, with the last `from_prompt` prompt tokens supervised too."""
    table = []
    for entry in data:
        opened = tokenizer.apply_chat_template(entry["prompt"], tokenize=False, add_generation_prompt=True)
        whole = tokenizer.apply_chat_template(entry["prompt"] + entry["completion"], tokenize=False)
        ids = tokenizer(whole, add_special_tokens=False)["input_ids"]
        start = len(tokenizer(opened, add_special_tokens=False)["input_ids"]) - from_prompt
        table.append({"input_ids": ids, "labels": [-100] * start + ids[start:]})
    return SimpleNamespace(train_dataset=table)


def test_rows_whose_answers_alone_are_supervised_pass_and_are_shown(tokenizer, capsys):
    data = [row(0), row(1)]
    check_supervised(supervised(tokenizer, data), tokenizer, data, show=1)
    told = capsys.readouterr().out
    assert "2 rows checked: only assistant tokens are supervised" in told
    assert "user: Question 0\n>>>word word word end" in told and "Question 1" not in told


def test_the_answers_of_one_conversation_are_learned_in_one_pass_and_all_checked(tokenizer, capsys):
    turns = [{"role": role, "content": f"{role} says {n}"} for n in range(3) for role in ("user", "assistant")]
    parts = [{"id": f"c#{n}", "prompt": turns[: 2 * n + 1], "completion": [turns[2 * n + 1]]} for n in range(3)]
    data = [row(0), *parts, row(1) | {"id": "c2"}]
    joined = training.join_answers(drop_long(data, tokenizer, 500))
    assert [entry["id"] for entry in joined] == ["r0", "c#2", "c2"]
    assert "5 answers in 3 passes" in capsys.readouterr().out
    table = training.to_dataset(joined)
    labelled = [
        {"input_ids": e["input_ids"], "labels": [i if m else -100 for i, m in zip(*e.values(), strict=True)]}
        for e in table
    ]
    check_supervised(SimpleNamespace(train_dataset=labelled), tokenizer, joined)
    told = capsys.readouterr().out
    assert "user: user says 0\n>>>assistant says 0<<<\nuser: user says 1\n>>>assistant says 1<<<" in told
    first = joined[1]["learned"][0][0]
    labelled[1]["labels"][first] = -100
    with pytest.raises(DataError, match="row c#2"):
        check_supervised(SimpleNamespace(train_dataset=labelled), tokenizer, joined)


@pytest.mark.parametrize("tokens", [3, 6, -1])
def test_a_row_whose_prompt_is_supervised_or_whose_answer_is_not_stops_the_training(tokenizer, tokens):
    data = [row(0), row(1)]
    trainer = supervised(tokenizer, data)
    trainer.train_dataset[1] = supervised(tokenizer, data, tokens).train_dataset[1]
    with pytest.raises(DataError, match="row r1: supervised is"):
        check_supervised(trainer, tokenizer, data)


def test_a_row_that_the_trainer_lost_stops_the_training(tokenizer):
    data = [row(0), row(1)]
    with pytest.raises(DataError, match="kept 1 of 2 rows"):
        check_supervised(supervised(tokenizer, data[:1]), tokenizer, data)


def test_a_kto_trainers_rows_are_read_too(tokenizer):
    data = [row(0)]
    ids = tokenizer(data[0]["completion"][0]["content"] + "<|im_end|>\n", add_special_tokens=False)["input_ids"]
    check_supervised(SimpleNamespace(train_dataset=[{"completion_ids": ids}]), tokenizer, data)
    with pytest.raises(DataError, match="row r0"):
        check_supervised(SimpleNamespace(train_dataset=[{"completion_ids": ids[:2]}]), tokenizer, data)


HISTORY = [{"step": n, "loss": 3 / n, "rewards/margins": n / 10, "kl": 0.1 * n} for n in range(1, 6)]


@pytest.mark.parametrize(
    ("method", "labels"),
    [("sft", ["loss (nats per token)"]), ("kto", ["loss", "rewards/margins", "KL (nats)"])],
)
def test_the_plot_has_labelled_axes_and_every_point(method, labels):
    figure = plot(HISTORY, method)
    assert [axis.get_ylabel() for axis in figure.axes] == labels
    assert {axis.get_xlabel() for axis in figure.axes} == {"optimizer step"}
    logged, smoothed = figure.axes[0].get_lines()
    assert list(logged.get_ydata()) == [entry["loss"] for entry in HISTORY]
    assert smoothed.get_ydata()[0] == HISTORY[0]["loss"]


def logged(losses, **more) -> list[dict]:
    """A history with these losses, a step each."""
    return [
        {"step": n, "loss": loss, **{key: values[n - 1] for key, values in more.items()}}
        for n, loss in enumerate(losses, 1)
    ]


FALLING = [2.0 - 0.1 * n for n in range(12)]
MARGINS, KL, GPU = "rewards/margins", "kl", "gpu_percent"
HEALTH = {
    "well": ("sft", logged(FALLING), ""),
    "too early to tell": ("sft", logged([2.0] * 4), ""),
    "not a number": ("sft", logged([2.0, float("nan")]), "not a number"),
    "infinite": ("kto", logged([2.0, float("inf")]), "not a number"),
    "not falling": ("sft", logged([2.0, 1.99] * 6), "not falling"),
    "rising": ("sft", logged(FALLING[:6] + [1.5, 2.0, 2.5, 3.0, 3.5, 4.0]), "rising"),
    "KTO's loss need not fall": ("kto", logged([0.5] * 12), ""),
    "KL": ("kto", logged([0.5] * 12, kl=[0.1] * 9 + [20.0, 30.0, 25.0]), "runs away"),
    "KL once": ("kto", logged([0.5] * 12, kl=[0.1] * 10 + [20.0, 0.2]), ""),
    "margins": ("kto", logged([0.5] * 12, **{MARGINS: [-0.1] * 12}), "Bad answers"),
    "margins that come up": ("kto", logged([0.5] * 12, **{MARGINS: [-0.1] * 8 + [0.1] * 4}), ""),
    "idle": ("sft", logged(FALLING, **{GPU: [5] * 12}), "idle"),
    "busy": ("sft", logged(FALLING, **{GPU: [95] * 12}), ""),
}


@pytest.mark.parametrize(("method", "history", "words"), HEALTH.values(), ids=HEALTH)
def test_trouble_is_told_with_a_remedy(method, history, words):
    found = health(history, method, 12)
    assert [words in cause for cause in found] == ([True] if words else [])
    assert all(remedy.endswith(".") or remedy.endswith("?") for remedy in found.values())


def test_held_out_prompts_are_answered_and_judged(tiny_model, tokenizer, monkeypatch):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    monkeypatch.setattr(training.answers, "HELD_OUT", 3)
    assert held_out(model, models.embedded_tokenizer(), {}) == 0.0  # a random model
    context = dict.fromkeys(catalogue().context["required"], "x")
    context |= {"sessionId": "session_1732300800000_a1b2c3d4e", "workspaceId": "default"}
    good = calls.render([calls.Call("vaultManager_createFolder", {"context": context, "path": "A"})])
    monkeypatch.setattr(training.answers, "_replies", lambda *_, **__: [good, good[:-40], "Which one?"])
    assert held_out(model, None, {}) == pytest.approx(1 / 3)


@pytest.mark.filterwarnings("error")
def test_tokens_are_counted_by_the_rows_where_the_trainer_does_not():
    from datasets import Dataset

    rows = Dataset.from_dict({"input_ids": [[1] * length for length in (3, 5, 2, 4)]})
    lengths = progress._running_lengths(SimpleNamespace(dataset=rows))
    assert [progress._tokens_seen(lengths, epoch) for epoch in (0, 0.25, 0.5, 1, 1.5, 2)] == [0, 3, 8, 14, 22, 28]
    pairs = Dataset.from_dict({"prompt_ids": [[1], [2]]})  # KTO's rows: TRL counts them itself
    for without in (None, SimpleNamespace(dataset=pairs)):
        assert progress._tokens_seen(progress._running_lengths(without), 1.5) == 0


def logs_of(run: Run, first_step: int, counts: list[dict], interactive: bool = False) -> list[dict]:
    """The run's log after a trainer of 4 rows that starts at a step and logs so many steps, one row a step."""
    from datasets import Dataset

    [callback] = training.callbacks(run, interactive, "sft", SFTSettings())
    args = SimpleNamespace(output_dir=run.folder / "checkpoints", save_total_limit=3)
    state = SimpleNamespace(global_step=first_step, max_steps=8, epoch=first_step / 4, is_world_process_zero=True)
    loader = SimpleNamespace(dataset=Dataset.from_dict({"input_ids": [[1] * 100] * 4}))
    callback.on_train_begin(args, state, None, train_dataloader=loader)
    callback.last -= 10  # the first step took ten seconds
    for count in counts:
        state.global_step += 1
        state.epoch = state.global_step / 4
        callback.on_log(args, state, None, logs={"loss": 1.0, **count})
    return run.history()


@pytest.mark.parametrize(("method", "settings"), [("sft", SFTSettings()), ("kto", KTOSettings())], ids=["sft", "kto"])
@pytest.mark.parametrize("size", models.sizes())
def test_a_run_by_the_defaults_logs_enough_for_the_warnings_and_saves_before_its_end(size, method, settings):
    values = models.sizes()[size][method]
    batches = math.ceil(values["max_rows"] / values["batch_size"])
    steps = math.ceil(values["epochs"] * math.ceil(batches / values["gradient_accumulation"]))  # the trainer's own sum
    logging, saving = cadence(settings, values, values["max_rows"])
    assert steps // logging >= 9 and (steps - 1) // saving >= 2


@pytest.mark.parametrize(
    ("given", "rows", "processes", "expected"),
    [
        ({}, 800, 1, (10, 25)),
        ({}, 800, 2, (5, 12)),
        ({}, 100_000, 1, (20, 100)),
        ({}, 3, 1, (1, 1)),
        ({"max_steps": 40}, 800, 1, (2, 5)),
        ({"logging_steps": 7}, 800, 1, (7, 25)),
        ({"save_steps": 300}, 800, 1, (10, 300)),
    ],
)
def test_how_often_a_run_logs_and_saves_comes_from_its_length_unless_it_is_given(
    given, rows, processes, expected, monkeypatch
):
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    values = {"batch_size": 2, "gradient_accumulation": 4, "epochs": 2}
    assert cadence(SFTSettings(**given), values, rows) == expected


@pytest.mark.parametrize("by_trl", [True, False], ids=["counted by TRL", "counted by rows"])
def test_a_resumed_run_goes_on_counting_tokens_and_its_first_line_tells_the_speed_since_then(by_trl):
    counts = [{"num_tokens": number * 100} if by_trl else {} for number in range(1, 5)]
    run = Run.start("sft", "tiny")
    logs_of(run, 0, counts)
    history = logs_of(run, 3, counts[:2])  # killed after step 4, on from the checkpoint of step 3
    assert [row["num_tokens"] for row in history] == [100, 200, 300, 400, 500]
    assert 9 < history[3]["tokens_per_second"] < 11


def test_a_live_plot_tells_speed_memory_and_remaining_time(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda figure, **_: shown.append(figure))
    logs_of(Run.start("sft", "tiny"), 0, [{"num_tokens": 100}], interactive=True)
    assert all(words in shown[0].get_suptitle() for words in ("step     1/8", "tokens/s", "GB", "ETA"))


def test_a_loss_that_is_no_number_is_told_in_the_record(capsys):
    run = Run.start("sft", "tiny")
    logs_of(run, 0, [{"loss": float("nan")}])
    assert (
        "The loss is not a number" in run.record["warnings"] and "! The loss is not a number" in capsys.readouterr().out
    )


def test_memory_is_read_where_python_has_no_resource_module(monkeypatch):
    import psutil

    info = SimpleNamespace(memory_info=lambda: SimpleNamespace(peak_wset=3e9))
    monkeypatch.setattr(psutil, "Process", lambda: info)
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setitem(sys.modules, "resource", None)
    assert progress._resident_gb() == 3.0


def test_a_plot_before_the_first_step_is_empty():
    assert len(plot([], "kto").axes) == 3


def checkpoint(run: Run, step: int, size: int = 3):
    folder = run.path("checkpoints", f"checkpoint-{step}", "model.safetensors").parent
    (folder / "model.safetensors").write_bytes(b"123")
    (folder / MARKER).write_text(json.dumps({"step": step, "files": {"model.safetensors": size}}))
    return folder


def test_142_only_wholecheckpoints_count_in_the_order_of_their_steps():
    run = Run.start("sft", "tiny")
    whole = [checkpoint(run, step) for step in (9, 10, 100)]
    checkpoint(run, 200, size=4)  # cut off
    (checkpoint(run, 201) / MARKER).unlink()
    (checkpoint(run, 202) / "model.safetensors").unlink()
    for step, text in enumerate(["", "{", "[]", "{}", '{"files": [1]}', "null"], start=300):
        (checkpoint(run, step) / MARKER).write_text(text)
    assert checkpoints(run) == whole


def test_resume_takes_the_newest_unfinished_run_of_the_same_method():
    sft, kto = Run.start("sft", "tiny", "s"), Run.start("kto", "tiny", "k")
    for run in (sft, kto):
        checkpoint(run, 5)
        run.fail("stopped")
    done = Run.start("sft", "tiny", "done")
    checkpoint(done, 9)
    done.finish()
    run, path = training.resume_point(SFTSettings(resume="latest"))
    assert (run.folder.name, os.path.basename(path)) == ("s", "checkpoint-5")
    assert training.resume_point(KTOSettings(resume="latest"))[0].folder.name == "k"
    assert training.resume_point(SFTSettings()) == (None, None)


def test_resume_auto_goes_on_where_there_is_something_to_go_on_from(capsys):
    assert training.resume_point(SFTSettings(resume="auto", run_name="quality")) == (None, None)
    assert capsys.readouterr().out == "resume auto: there is no sft run to go on with, a new one starts\n"
    for name in ("quality", "quality", "other"):
        run = Run.start("sft", "tiny", name)
        checkpoint(run, 5)
        run.fail("stopped")
    assert training.resume_point(SFTSettings(resume="auto", run_name="quality"))[0].folder.name == "quality-2"
    assert training.resume_point(SFTSettings(resume="auto", run_name="qual")) == (None, None)
    assert training.resume_point(SFTSettings(resume="auto"))[0].folder.name == "other"


def test_74_another_methods_run_or_one_without_a_checkpoint_is_refused():
    Run.start("kto", "tiny", "k").fail("stopped")
    Run.start("sft", "tiny", "s").fail("stopped")
    with pytest.raises(RunError, match="is a kto run, expected sft"):
        training.resume_point(SFTSettings(resume="k"))
    with pytest.raises(RunError, match="has no whole checkpoint"):
        training.resume_point(SFTSettings(resume="s"))
    with pytest.raises(RunError, match="no unfinished sft run with a whole checkpoint"):
        training.resume_point(SFTSettings(resume="latest"))


STARTED = {
    "parameters": {
        "lora_rank": 16,
        "lora_alpha": 32,
        "max_length": 512,
        "seed": 1,
        "epochs": 1,
        "learning_rate": 3e-4,
        "beta": 0.1,
        "desirable_weight": 1.0,
        "undesirable_weight": 1.0,
        "batch_size": 4,
        "gradient_accumulation": 2,
        "call_format": "hermes",
        "context_source": "none",
        "tool_exposure": "none",
    },
    "processes": 1,
    "base_model": {"name": "A", "revision": None},
    "dataset": {"file": "sft.jsonl", "sha256": "0" * 64, "rows": 30},
    "parent": "first",
}
OTHERS = {
    "74 another SFT run": {"parent": "second"},
    "142 another model": {"base_model": {"name": "B", "revision": None}},
    "142 another rank": {"parameters": {**STARTED["parameters"], "lora_rank": 8}},
    "another weight of the adapter": {"parameters": {**STARTED["parameters"], "lora_alpha": 16}},
    "a lower rate": {"parameters": {**STARTED["parameters"], "learning_rate": 1e-4}},
    "more epochs": {"parameters": {**STARTED["parameters"], "epochs": 2}},
    "another beta": {"parameters": {**STARTED["parameters"], "beta": 0.2}},
    "another weight of wanted answers": {"parameters": {**STARTED["parameters"], "desirable_weight": 2.0}},
    "another weight of unwanted answers": {"parameters": {**STARTED["parameters"], "undesirable_weight": 2.0}},
    "another length": {"parameters": {**STARTED["parameters"], "max_length": 1024}},
    "another seed": {"parameters": {**STARTED["parameters"], "seed": 2}},
    "another file": {"dataset": {**STARTED["dataset"], "sha256": "1" * 64}},
    "fewer rows": {"dataset": {**STARTED["dataset"], "rows": 20}},
    "smaller batches": {"parameters": {**STARTED["parameters"], "batch_size": 2, "gradient_accumulation": 4}},
    "fewer rows a step": {"parameters": {**STARTED["parameters"], "gradient_accumulation": 1}},
    "more processes": {"processes": 2},
    "another form of call": {"parameters": {**STARTED["parameters"], "call_format": "text"}},
    "ids in the prompt": {"parameters": {**STARTED["parameters"], "context_source": "system"}},
    "tools in the prompt": {"parameters": {**STARTED["parameters"], "tool_exposure": "all"}},
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_a_run_that_was_started_with_something_else_is_not_resumed(other, capsys):
    run = Run.start("sft", "tiny", "a", **STARTED)
    checkpoint(run, 5)
    run.fail("stopped")
    with pytest.raises(RunError, match="resume: .*a was started with .*, now it is .*: give the same again"):
        training.resume_point(SFTSettings(resume="a"), STARTED | other)
    assert training.resume_point(SFTSettings(resume="auto"), STARTED | other) == (None, None)
    assert "! Not resumed" in capsys.readouterr().out and run.status == "failed"
    halved = {"parameters": STARTED["parameters"] | {"batch_size": 2}, "processes": 2}  # the same rows together
    assert training.resume_point(SFTSettings(resume="auto"), STARTED | halved)[0].folder == run.folder
    run.fail("stopped")
    assert training.resume_point(SFTSettings(resume="auto"), STARTED)[0].folder == run.folder


def test_the_record_names_the_processes_whose_batches_are_computed_together(tiny_model, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    record = training.describe(SFTSettings(), {"batch_size": 3}, models.hardware(), str(tiny_model), [])
    assert (record["processes"], record["parameters"]["batch_size"]) == (2, 3)


def test_143_a_run_that_another_process_trains_is_left_alone_but_by_those_that_were_launched_for_it(monkeypatch):
    run = Run.start("sft", "tiny", "a")
    checkpoint(run, 5)
    run.update(pid=os.getppid(), process_started=runs._process_started(os.getppid()))
    with pytest.raises(RunError, match=f"a is running here, in process {os.getppid()}"):
        training.resume_point(SFTSettings(resume="a"))
    monkeypatch.setenv("TOOLSET_NB_RUN", str(run.folder.resolve()))
    assert training.resume_point(SFTSettings(resume="a"))[0].folder == run.folder


def test_a_dataset_is_found_from_any_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert data_path("datasets/sft.jsonl") == repo_root() / "datasets" / "sft.jsonl"
    (tmp_path / "mine ü.jsonl").write_text("{}\n")
    assert data_path("mine ü.jsonl").resolve() == (tmp_path / "mine ü.jsonl").resolve()
    assert data_path(str(tmp_path / "mine ü.jsonl")).is_file()
    for name in ("none.jsonl", "datasets", ""):
        with pytest.raises(DataError, match="no such file here or under"):
            data_path(name)


@pytest.mark.parametrize(
    ("choice", "environment", "expected"),
    [
        ("yes", None, True),
        ("no", "JPY_SESSION_NAME", False),
        ("auto", None, False),
        ("auto", "JPY_SESSION_NAME", True),
        ("auto", "COLAB_RELEASE_TAG", True),
        ("auto", "VSCODE_PID", True),
    ],
)
def test_live_plots_need_a_front_end(monkeypatch, choice, environment, expected):
    for name in ("COLAB_RELEASE_TAG", "JPY_SESSION_NAME", "VSCODE_PID"):
        monkeypatch.delenv(name, raising=False)
    if environment:
        monkeypatch.setenv(environment, "x")
    assert is_interactive(choice) is expected


def test_kto_is_refused_with_another_size_than_its_sft_run_has():
    parent = SimpleNamespace(folder=Path("mine"), record={"size": "3b"})
    for size in ("auto", "3b"):
        check_size(KTOSettings(model_size=size), parent)
    with pytest.raises(DataError, match="model_size is '7b', and mine was trained with '3b': give -p model_size 3b"):
        check_size(KTOSettings(model_size="7b"), parent)


def test_kto_warns_when_its_wanted_answers_are_strange_to_the_sft_run(tokenizer, tiny_model, capsys):
    import torch
    from transformers import AutoModelForCausalLM

    prompt, answer = (tokenizer(text)["input_ids"] for text in ("Open A.md", "It is open."))
    wanted = {"prompt_ids": prompt, "completion_ids": answer, "label": True}
    unwanted = wanted | {"completion_ids": answer[:1], "label": False}
    model = AutoModelForCausalLM.from_pretrained(tiny_model).train()
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
    nats = torch.nn.functional.cross_entropy(logits, torch.tensor(answer))
    told = {}
    for name, results in {"unknown": {}, "same": {"train_loss": 8.0}, "other": {"train_loss": 3.0}}.items():
        parent = SimpleNamespace(folder=Path(name), record={"results": results})
        accelerator = SimpleNamespace(autocast=contextlib.nullcontext)
        trainer = SimpleNamespace(model=model, train_dataset=[unwanted, wanted], accelerator=accelerator)
        check_wanted(trainer, parent)
        told[name] = capsys.readouterr().out
    assert told["unknown"] == f"wanted answers: {nats:.2f} nats a token\n"
    assert told["same"] == f"wanted answers: {nats:.2f} nats a token, against 8.00 in the training of same\n"
    assert "Warning: the wanted answers of these rows are strange to other" in told["other"]
    assert model.training


def test_the_record_names_the_commit_of_a_hub_model_that_is_in_the_cache(tmp_path, monkeypatch):
    from toolset_nb.training.record import base_name

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert base_name("some/model") == {"name": "some/model", "revision": None}
    folder, commit = tmp_path / "models--some--model", "0" * 39 + "1"
    for name, text in {"refs/main": commit, f"snapshots/{commit}/config.json": "{}"}.items():
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(text)
    assert base_name("some/model") == {"name": "some/model", "revision": commit}
