"""The committed data: clean by the validator, complete in its coverage, and apart from the evaluation prompts."""

import json
import re
from collections import Counter

import pytest

from toolset_nb import rules
from toolset_nb.evaluation import load_prompts
from toolset_nb.paths import repo_root
from toolset_nb.tools import catalogue

DATASETS = repo_root() / "datasets"
NO_CALL = {"ask_missing_argument", "ask_first", "unable", "small_talk", "explain"}


def load(name: str) -> list[dict]:
    return [json.loads(line) for line in (DATASETS / name).read_text("utf-8").split("\n") if line]


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def grams(text: str, size: int = 8) -> set[tuple[str, ...]]:
    tokens = words(text)
    return {tuple(tokens[i : i + size]) for i in range(len(tokens) - size + 1)}


@pytest.mark.parametrize("name", ["sft.jsonl", "kto.jsonl"])
def test_the_validator_finds_nothing(name):
    assert [str(finding) for finding in rules.validate([DATASETS / name])] == []


def test_every_tool_has_at_least_twelve_sft_rows():
    counts = Counter(tool for row in load("sft.jsonl") for tool in row["meta"]["tools"])
    assert {tool: counts[tool] for tool in catalogue().tools if counts[tool] < 12} == {}


def test_at_least_eighty_rows_are_answered_without_a_call():
    silent = [row for row in load("sft.jsonl") if "tool_call:" not in row["conversations"][1]["content"]]
    assert len(silent) >= 80
    assert {row["meta"]["behaviour"] for row in silent} == NO_CALL


def test_no_request_occurs_twice_in_the_sft_rows():
    asks = Counter(" ".join(words(row["conversations"][0]["content"])) for row in load("sft.jsonl"))
    assert [ask for ask, count in asks.items() if count > 1] == []


def test_no_session_memory_is_used_for_two_requests():
    memory = Counter(
        re.findall(
            r'"sessionMemory": "([^"]+)"',
            json.dumps([r["conversations"][1]["content"] for r in load("sft.jsonl")]).replace('\\"', '"'),
        )
    )
    assert [text for text, count in memory.items() if count > 1] == []


def test_kto_rows_are_pairs_on_the_same_prompt():
    data = load("kto.jsonl")
    assert len(data) >= 500
    for wanted, unwanted in zip(data[::2], data[1::2], strict=True):
        assert (wanted["label"], unwanted["label"]) == (True, False)
        assert wanted["conversations"][0] == unwanted["conversations"][0]
        assert wanted["conversations"][1] != unwanted["conversations"][1]
        assert unwanted["meta"]["defect"] in rules.DEFECTS


def test_kto_answers_of_both_labels_have_about_the_same_length():
    length = {True: [], False: []}
    for row in load("kto.jsonl"):
        length[row["label"]].append(len(row["conversations"][1]["content"]))
    means = {label: sum(values) / len(values) for label, values in length.items()}
    assert 0.8 < means[True] / means[False] < 1.25


def test_full_coverage_has_one_prompt_for_each_tool():
    prompts = load_prompts("full_coverage")
    assert Counter(tool for prompt in prompts for tool in prompt["expected_tools"]) == Counter(list(catalogue().tools))


def test_no_eight_words_in_a_row_are_shared_by_evaluation_and_training():
    trained = set()
    for name in ("sft.jsonl", "kto.jsonl"):
        for row in load(name):
            for turn in row["conversations"]:
                trained |= grams(turn["content"])
    shared = {prompt["id"]: grams(prompt["question"]) & trained for prompt in load_prompts("full_coverage")}
    assert {key: value for key, value in shared.items() if value} == {}


def test_no_path_or_id_is_shared_by_evaluation_and_training():
    pattern = re.compile(r"\b(?:state|prompt|ws|session)_\d{13}_\w{9}\b|\b[\w ]+/[\w /]+\.md\b")
    trained = {
        match
        for name in ("sft.jsonl", "kto.jsonl")
        for row in load(name)
        for match in pattern.findall(row["conversations"][0]["content"])
    }
    asked = {match for prompt in load_prompts("full_coverage") for match in pattern.findall(prompt["question"])}
    assert asked & trained == set()
