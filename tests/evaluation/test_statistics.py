"""Intervals, pass^k and paired comparisons against values worked out by hand or by other libraries."""

import random
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolset_nb.evaluation.statistics import compare, mcnemar, pass_hat, rate, wilson


def tasks(*shares: tuple[int, int]) -> dict[str, list[bool]]:
    """Tasks with so many passed of so many trials."""
    return {f"t{n}": [True] * passed + [False] * (total - passed) for n, (passed, total) in enumerate(shares)}


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    [(8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (0, 0, 0.0, 1.0)],
)
def test_intervals_of_single_trials_are_wilsons(count, total, low, high):
    # by hand: (p + z²/2n ± z·sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n), z = 1.95996
    found = rate(tasks(*[(1, 1)] * count, *[(0, 1)] * (total - count)))
    assert (found["count"], found["total"], found["low"], found["high"]) == (count, total, low, high)


def test_intervals_of_several_trials_are_clustered_by_task():
    """Four equal trials of a task tell no more than one: the interval is that of 20 tasks, not of 80 trials."""
    found = rate(tasks(*[(4, 4)] * 10, *[(0, 4)] * 10))
    wide, narrow = wilson(10, 20), wilson(40, 80)
    assert found["rate"] == 0.5 and found["count"] == 40
    assert found["high"] - found["low"] == pytest.approx(wide[1] - wide[0], abs=0.05)
    assert found["high"] - found["low"] > 1.5 * (narrow[1] - narrow[0])


def test_all_or_none_is_not_certainty():
    assert rate(tasks(*[(4, 4)] * 10))["low"] == round(wilson(10, 10)[0], 4) < 1


def test_a_task_with_fewer_trials_counts_as_much_as_any():
    assert rate(tasks((1, 1), (0, 4)))["rate"] == 0.5


@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=6), min_size=1, max_size=6))
def test_pass_hat_is_the_share_of_draws_that_all_pass(groups):
    for k in (1, 2, 3):
        drawn = [[all(pick) for pick in combinations(group, k)] for group in groups]
        by_hand = sum(sum(picks) / len(picks) for picks in drawn) / len(groups)
        assert pass_hat({str(n): group for n, group in enumerate(groups)}, k) == pytest.approx(by_hand)


def test_pass_hat_falls_with_k_and_needs_enough_trials():
    found = tasks((4, 4), (2, 4))
    assert [round(pass_hat(found, k), 4) for k in (1, 2, 3, 4, 5)] == [0.75, round((1 + 1 / 6) / 2, 4), 0.5, 0.5, 0]


@pytest.mark.parametrize(
    ("won", "lost", "p"), [(6, 0, 0.03125), (5, 0, 0.0625), (10, 2, 0.038574), (0, 0, 1.0), (3, 3, 1.0)]
)
def test_mcnemar_is_the_exact_binomial(won, lost, p):
    assert mcnemar(won, lost) == pytest.approx(p, abs=1e-6) == mcnemar(lost, won)


def test_a_comparison_names_what_was_fixed_and_what_broke():
    before = {"a": [True], "b": [False], "c": [False], "d": [True], "only before": [True]}
    after = {"a": [True], "b": [True], "c": [True], "d": [False], "only after": [True]}
    found = compare(before, after)
    assert (found["tasks"], found["won"], found["lost"]) == (4, 2, 1)
    assert (found["fixed"], found["broken"]) == (["b", "c"], ["d"])
    assert (found["before"], found["after"], found["difference"]) == (0.5, 0.75, 0.25)
    assert found["low"] < 0.25 < found["high"]


def test_equal_models_do_not_differ():
    same = tasks((1, 1), (0, 1), (1, 1))
    found = compare(same, same)
    assert (found["difference"], found["low"], found["high"], found["mcnemar_p"]) == (0, 0, 0, 1)


def test_nothing_in_common_is_no_difference():
    assert compare({"a": [True]}, {"b": [True]})["tasks"] == 0


def test_the_interval_holds_the_truth_as_often_as_it_says():
    """200 draws of 60 paired tasks whose true difference is 10 points: about 95 of 100 intervals hold it."""
    pick, held = random.Random(1), 0
    for _ in range(200):
        before, after = {}, {}
        for task in range(60):
            before[str(task)] = [pick.random() < 0.5]
            after[str(task)] = [pick.random() < 0.6]
        found = compare(before, after)
        held += found["low"] <= 0.1 <= found["high"]
    assert 0.9 <= held / 200 <= 0.99
