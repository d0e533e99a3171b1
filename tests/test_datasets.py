"""The committed data: clean by the validator, complete, executed, balanced, and apart from the evaluation prompts."""

import itertools
import json
import re
from collections import Counter, defaultdict

import pytest

from toolset_nb import calls, rows, rules
from toolset_nb.evaluation import load_prompts, prompt_sets
from toolset_nb.paths import repo_root
from toolset_nb.synth import balance, generate, plays, reports, similarity
from toolset_nb.synth.wording import OPENINGS
from toolset_nb.tools import catalogue
from toolset_nb.vault import fixtures

DATASETS = repo_root() / "datasets"
TRAINED = ("sft.jsonl", "kto.jsonl")
SESSION = re.compile(r'"sessionId": "(session_\d{13}_\w{9})"')
FIRST = 300  # rows made again here
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


def test_a_first_call_remembers_only_what_the_request_tells(sft):
    failed = []
    for row in sft:
        request, answer = (turn["content"] for turn in row["conversations"][:2])
        found = re.search(r'"sessionMemory": ("(?:[^"\\]|\\.)*")', answer)
        told = json.loads(found.group(1)) if found else ""
        if row["meta"]["behaviour"] == "recover_from_error" and row["meta"]["variant"] != "in_turn":
            failed.append(told not in OPENINGS)
        else:
            assert not told or told in OPENINGS or all(part in request for part in told.split("; ")), row["id"]
    assert 0.75 < sum(failed) / len(failed) < 1  # some requests tell of no call that failed


@pytest.mark.parametrize(("name", "make", "seed"), [("sft", generate.sft, 1), ("kto", generate.kto, 2)])
def test_the_first_rows_are_what_the_generator_gives(name, make, seed):
    """As `make data` calls it; the first that are made, which lie anywhere in the file."""
    made = {row["id"]: row for row in itertools.islice(make(6600, seed), FIRST)}
    assert {row["id"]: row for row in load(f"{name}.jsonl") if row["id"] in made} == made


def test_no_session_stands_in_many_rows(sft):
    named = Counter(found for row in sft for found in set(SESSION.findall(row["conversations"][1]["content"])))
    assert max(named.values()) <= 20


def test_who_finds_nothing_says_so(sft):
    """Look-ups by themselves: the words after an empty result do not claim hits, those after another one report them."""
    for row in sft:
        blocks = calls.parse(row["conversations"][1]["content"], rescue=False).blocks
        if (
            len(blocks) != 3
            or not isinstance(blocks[2], str)
            or not re.match("(list|search)", blocks[0].name.partition("_")[2])
        ):
            continue
        found, said = reports.hits(blocks[1].value), blocks[2]
        if row["meta"]["behaviour"] != "verify_before_acting" and found:
            assert any(name in said for name in found[: reports.NAMED]) or str(len(found)) in said, row["id"]


def test_there_are_six_thousand_rows_of_each_kind(sft, kto):
    assert len(sft) >= 6000 and len(kto) >= 6000


def test_every_tool_has_at_least_sixty_sft_rows(sft):
    counts = Counter(tool for row in sft for tool in row["meta"]["tools"])
    assert {tool: counts[tool] for tool in catalogue().tools if counts[tool] < 60} == {}


def test_fifteen_to_twenty_percent_of_the_sft_rows_need_no_call(sft):
    silent = [row for row in sft if "tool_call:" not in row["conversations"][1]["content"]]
    assert 0.15 <= len(silent) / len(sft) <= 0.20


def test_after_a_result_words_are_more_common_than_another_call(sft):
    after = [part for part in rows.training_rows(sft) if any(turn["role"] == "tool" for turn in part["prompt"])]
    calling = [part for part in after if "<tool_call>" in part["completion"][0]["content"]]
    assert 0.15 < len(calling) / len(after) < 0.3


def test_every_behaviour_is_there(sft, kto):
    wanted = {behaviour for behaviour, _ in plays.PLAYS}
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
    largest = max(len(members) for members in runs.values())
    every = max(1, len(runs) * largest // (2 * SAMPLE))
    sample = [row for run in sorted(runs)[::every] for row in runs[run]]
    assert len(sample) >= SAMPLE and len({row["meta"]["scenario"] for row in sample}) == len(fixtures.names("training"))
    assert list(generate.verify(sample)) == []


def test_kto_rows_are_pairs_on_the_same_prompt(kto):
    for wanted, unwanted in zip(kto[::2], kto[1::2], strict=True):
        assert (wanted["label"], unwanted["label"]) == (True, False)
        assert wanted["conversations"][0] == unwanted["conversations"][0]
        assert wanted["conversations"][1] != unwanted["conversations"][1]
        assert unwanted["meta"]["defect"] in rules.DEFECTS


def goes_on(row):
    content = row["conversations"][1]["content"]
    return "\nResult: " in content and content.count("tool_call: ") == 1


@pytest.mark.parametrize("first", [500, 1500, 2560, 7272])
def test_words_are_about_as_often_right_as_wrong_from_the_first_500_rows_on(kto, first):
    """Else KTO learns that words are wrong, and unlearns asking."""
    words = Counter(row["label"] for row in kto[:first] if "tool_call: " not in row["conversations"][-1]["content"])
    assert 0.8 < words[True] / words[False] < 1.25


def test_the_first_rows_are_calls_and_not_what_follows_them(sft):
    first, late = sft[: len(sft) // 10], sft[len(sft) // 2 :]
    assert sum(map(goes_on, first)) / len(first) < 0.5 * sum(map(goes_on, late)) / len(late)


def test_who_asks_for_a_list_mostly_wants_the_list(sft):
    def answered(tool):
        rows = [row for row in sft if row["meta"]["behaviour"] == "single_call" and row["meta"]["tools"] == [tool]]
        return sum(map(goes_on, rows)) / len(rows)

    assert answered("agentManager_listAgents") > 0.75 > 0.65 > answered("vaultManager_openNote")


def test_style_alone_does_not_tell_the_label(kto):
    assert balance.guess_by_style(kto) <= 0.55


def test_style_that_differs_tells_the_label(kto):
    """The classifier is no straw man: answers in words are told from calls."""
    answers = {True: 'tool_call: vaultManager_openNote\narguments: {"path": "A.md"}', False: "Which note?"}
    told = [{"label": row["label"], "conversations": [{}, {"content": answers[row["label"]]}]} for row in kto[:400]]
    assert balance.guess_by_style(told) == 1


def test_the_data_card_tells_the_sizes(sft, kto):
    card = (DATASETS / "README.md").read_text("utf-8")
    assert f"| `sft.jsonl` | {len(sft):,} |" in card and f"| `kto.jsonl` | {len(kto):,} |" in card
    for name in prompt_sets():
        assert f"| `prompts/{name}.json` | {len(load_prompts(name))} |" in card


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
