"""Choosing wrong answers so that right and wrong look alike: nobody should be able to tell them by style alone."""

import math
import random
from collections import Counter, defaultdict
from collections.abc import Collection
from typing import NamedTuple

import numpy
from scipy.optimize import minimize

from toolset_nb import calls

COARSE, FINE = 2.0, 1.0  # what the first answer out of balance costs
LIKED = 6.0  # what an answer that the behaviour is there to avoid saves


class Style(NamedTuple):
    """What an answer looks like, whatever it says: characters, calls, words outside calls, results."""

    length: int
    calls: int
    words: int
    results: int


def style(answer: str) -> Style:
    """The style of an answer in the text form."""
    reply = calls.parse(answer, rescue=False)
    made = sum(isinstance(block, calls.Call | calls.Broken) for block in reply.blocks)
    return Style(len(answer), made, len(reply.text.split()), len(reply.results))


class Balance:
    """Counts right less wrong answers for each look, and picks what brings the counts nearest to zero."""

    def __init__(self, seed: int) -> None:
        self.pick = random.Random(f"balance {seed}")
        self.used: defaultdict[tuple, Counter[str]] = defaultdict(Counter)  # behaviour and whether liked -> defects
        self.surplus: Counter[tuple] = Counter()

    def choose(
        self, options: list[tuple[str, str, str]], behaviour: str = "", liked: Collection[str] = ()
    ) -> tuple[str, str, str]:
        """One of (defect, right answer, wrong answer); the behaviour's rarest defect where looks do not decide.

        `liked` are the wrong answers that the behaviour is there to avoid; they are compared with each other, for else
        those of one defect would soon be the common ones.
        """
        best = min(options, key=lambda option: (self._cost(option, behaviour, option[2] in liked), self.pick.random()))
        self.used[behaviour, best[2] in liked][best[0]] += 1
        for look, change in _changes(best[1], best[2]).items():
            self.surplus[look] += change
        return best

    def _cost(self, option: tuple[str, str, str], behaviour: str, liked: bool) -> float:
        used = self.used[behaviour, liked]
        cost = len(used) * used[option[0]] / (1 + used.total())  # 1 for a defect of average use
        cost -= LIKED * liked
        for look, change in _changes(option[1], option[2]).items():
            worse = abs(self.surplus[look] + change) - abs(self.surplus[look])
            cost += worse * (FINE if len(look) == 5 else COARSE) * (1 + abs(self.surplus[look]) / 4)
        return cost


def _changes(right: str, wrong: str) -> Counter[tuple]:
    """How a pair shifts the counts, by look and by look and length."""
    changes: Counter[tuple] = Counter()
    for answer, sign in ((right, 1), (wrong, -1)):
        length, *look = style(answer)
        changes[tuple(look)] += sign
        changes[*look, "length", round(5 * math.log2(length + 1))] += sign
    return Counter({look: change for look, change in changes.items() if change})


def guess_by_style(rows: list[dict]) -> float:
    """Share of the labels of KTO pairs that logistic regression guesses from style alone, 0.5 being chance.

    It sees length, calls, words, results, their squares and products; five folds that keep pairs together.
    """
    seen = numpy.array([style(row["conversations"][1]["content"]) for row in rows], dtype=float)
    seen = numpy.column_stack([numpy.log1p(seen), seen > 0, seen[:, 1:2] == 1, (seen[:, 1:2] > 0) & (seen[:, 2:3] > 0)])
    seen = (seen - seen.mean(axis=0)) / (seen.std(axis=0) + 1e-9)
    upper = [seen[:, [one]] * seen[:, [two]] for one in range(seen.shape[1]) for two in range(one, seen.shape[1])]
    features = numpy.column_stack([numpy.ones(len(seen)), seen, *upper])
    label = numpy.array([1.0 if row["label"] else -1.0 for row in rows])
    fold = (numpy.arange(len(rows)) // 2) % 5
    right = 0
    for held_out in range(5):
        weights = _logistic(features[fold != held_out], label[fold != held_out])
        right += int((numpy.sign(features[fold == held_out] @ weights) == label[fold == held_out]).sum())
    return right / len(rows)


def _logistic(features: numpy.ndarray, label: numpy.ndarray) -> numpy.ndarray:
    def loss(weights: numpy.ndarray) -> tuple[float, numpy.ndarray]:
        margin = label * (features @ weights)
        value = numpy.logaddexp(0, -margin).mean() + 1e-3 * (weights**2).sum()
        slope = -(features.T @ (label / (1 + numpy.exp(numpy.clip(margin, -50, 50))))) / len(label)
        return value, slope + 2e-3 * weights

    return minimize(loss, numpy.zeros(features.shape[1]), jac=True, method="L-BFGS-B").x
