"""The committed data: clean by the validator, complete, executed, balanced, and apart from the evaluation prompts."""

import json
import re
from collections import Counter, defaultdict

import numpy
import pytest

from toolset_nb import rules
from toolset_nb.evaluation import load_prompts, prompt_sets
from toolset_nb.paths import repo_root
from toolset_nb.synth import balance, behaviours, generate, similarity
from toolset_nb.tools import catalogue
from toolset_nb.vault import fixtures

DATASETS = repo_root() / "datasets"
TRAINED = ("sft.jsonl", "kto.jsonl")
SAMPLE = 500  # rows executed again here; all of them in `make verify-data`


def load(name: str) -> list[dict]:
    return [json.loads(line) for line in (DATASETS / name).read_text("utf-8").split("\n") if line]


@pytest.fixture(scope="module")
def sft():
    return load("sft.jsonl")


@pytest.fixture(scope="module")
def kto():
    return load("kto.jsonl")


@pytest.mark.parametrize("name", TRAINED)
def test_the_validator_finds_nothing(name):
    assert [str(finding) for finding in rules.validate([DATASETS / name])] == []


def test_there_are_six_thousand_rows_of_each_kind(sft, kto):
    assert len(sft) >= 6000 and len(kto) >= 6000


def test_every_tool_has_at_least_sixty_sft_rows(sft):
    counts = Counter(tool for row in sft for tool in row["meta"]["tools"])
    assert {tool: counts[tool] for tool in catalogue().tools if counts[tool] < 60} == {}


def test_fifteen_to_twenty_percent_of_the_sft_rows_need_no_call(sft):
    silent = [row for row in sft if "tool_call:" not in row["conversations"][1]["content"]]
    assert 0.15 <= len(silent) / len(sft) <= 0.20


def test_every_behaviour_is_there(sft, kto):
    wanted = {behaviour for behaviour, _ in behaviours.PLAYS}
    assert {row["meta"]["behaviour"] for row in sft} == wanted == {row["meta"]["behaviour"] for row in kto}


@pytest.mark.parametrize("name", ["sft.jsonl", "kto.jsonl"])
def test_no_request_occurs_twice(name):
    asks = Counter(
        " ".join(similarity.words(row["conversations"][0]["content"])) for row in load(name) if row["label"] is True
    )
    assert [ask for ask, count in asks.items() if count > 1] == []


@pytest.mark.parametrize("name", ["sft.jsonl", "kto.jsonl"])
def test_a_sample_executes_again_with_the_recorded_results(name):
    runs = defaultdict(list)
    for row in load(name):
        if row["label"] is True:
            runs[row["meta"]["run"]].append(row)
    sample = []
    for run in sorted(runs, key=lambda run: (len(run), run[::-1])):
        if len(sample) < SAMPLE:
            sample += runs[run]
    assert len(sample) >= SAMPLE
    assert list(generate.verify(sample)) == []


def test_kto_rows_are_pairs_on_the_same_prompt(kto):
    for wanted, unwanted in zip(kto[::2], kto[1::2], strict=True):
        assert (wanted["label"], unwanted["label"]) == (True, False)
        assert wanted["conversations"][0] == unwanted["conversations"][0]
        assert wanted["conversations"][1] != unwanted["conversations"][1]
        assert unwanted["meta"]["defect"] in rules.DEFECTS


def test_style_alone_does_not_tell_the_label(kto):
    """Logistic regression on length, calls, words, results, their squares and products; five folds that keep pairs together."""
    seen = numpy.array([balance.style(row["conversations"][1]["content"]) for row in kto], dtype=float)
    seen = numpy.column_stack([numpy.log1p(seen), seen > 0, seen[:, 1:2] == 1, (seen[:, 1:2] > 0) & (seen[:, 2:3] > 0)])
    seen = (seen - seen.mean(axis=0)) / (seen.std(axis=0) + 1e-9)
    upper = [seen[:, [one]] * seen[:, [two]] for one in range(seen.shape[1]) for two in range(one, seen.shape[1])]
    features = numpy.column_stack([numpy.ones(len(seen)), seen, *upper])
    label = numpy.array([1.0 if row["label"] else -1.0 for row in kto])
    fold = (numpy.arange(len(kto)) // 2) % 5
    right = 0
    for held_out in range(5):
        train, test = fold != held_out, fold == held_out
        weights = _logistic(features[train], label[train])
        right += int((numpy.sign(features[test] @ weights) == label[test]).sum())
    assert right / len(kto) <= 0.55


def _logistic(features, label):
    from scipy.optimize import minimize

    def loss(weights):
        margin = label * (features @ weights)
        value = numpy.logaddexp(0, -margin).mean() + 1e-3 * (weights**2).sum()
        slope = -(features.T @ (label / (1 + numpy.exp(numpy.clip(margin, -50, 50))))) / len(label)
        return value, slope + 2e-3 * weights

    return minimize(loss, numpy.zeros(features.shape[1]), jac=True, method="L-BFGS-B").x


def test_full_coverage_has_one_prompt_for_each_tool():
    prompts = load_prompts("full_coverage")
    assert Counter(tool for prompt in prompts for tool in prompt["expected_tools"]) == Counter(list(catalogue().tools))


def test_the_evaluation_sets_are_large_enough_and_on_evaluation_vaults():
    least = {"tasks": 240, "behavior": 120, "baseline": 24, "tool_combos": 60}
    sets = {name: load_prompts(name) for name in least}
    assert {name for name in sets if len(sets[name]) < least[name]} == set()
    assert all(len(task["gold"]) > 1 for task in sets["tool_combos"])
    for tasks in sets.values():
        assert {task["fixture"] for task in tasks} == set(fixtures.names("evaluation"))
        assert len({task["question"] for task in tasks}) == len(tasks)


@pytest.mark.parametrize("name", TRAINED)
def test_nothing_of_an_evaluation_prompt_is_near_a_training_request(name):
    reserved = similarity.Reserved.published()
    near = {
        row["id"]: reason
        for row in load(name)
        if row["label"] is True and (reason := reserved.near(row["conversations"][0]["content"]))
    }
    assert near == {}


def test_the_published_hashes_are_those_of_the_prompts():
    assert "".join(similarity.hash_list()) == (DATASETS / "prompts" / "hashes.jsonl").read_text("utf-8")


def test_no_path_or_id_is_shared_by_evaluation_and_training():
    pattern = re.compile(r"\b(?:state|prompt|ws|session)_\d{13}_\w{9}\b|\b[\w ]+/[\w /]+\.md\b")
    trained = {m for name in TRAINED for row in load(name) for m in pattern.findall(row["conversations"][0]["content"])}
    asked = {m for name in prompt_sets() for prompt in load_prompts(name) for m in pattern.findall(prompt["question"])}
    assert asked & trained == set()
