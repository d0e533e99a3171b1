"""Rates with intervals, pass@1 and pass^k, and what a difference between two models is worth.

Conventions. A trial is one attempt at one task; c of its n trials pass. pass@1 is the mean of c/n over tasks. pass^k is the mean
of C(c, k)/C(n, k): the chance that k attempts drawn without replacement all pass (the estimator of tau-bench; with n = k it is the
share of tasks passed every time). Trials that the server failed are left out of both and counted beside them. Intervals are 95%:
Wilson's where each task has one trial, else a bootstrap over tasks, since trials of one task are not independent.
"""

from collections.abc import Mapping, Sequence
from math import comb, sqrt
from typing import Any

RESAMPLES = 2000
POWER_Z = 1.959964 + 0.841621  # two-sided 5%, power 80%


def rate(flags: Mapping[str, Sequence[bool]]) -> dict[str, float]:
    """count, total, rate, low, high of the flags of each task; equal weight for every task."""
    groups = [list(group) for group in flags.values() if len(group)]
    count, total = sum(map(sum, groups)), sum(map(len, groups))
    if not total:
        return {"count": 0, "total": 0, "rate": 0.0, "low": 0.0, "high": 1.0}
    share = sum(sum(group) / len(group) for group in groups) / len(groups)
    low, high = wilson(count, total) if all(len(group) == 1 for group in groups) else _clustered(groups)
    return {"count": count, "total": total, "rate": round(share, 4), "low": round(low, 4), "high": round(high, 4)}


def wilson(count: int, total: int) -> tuple[float, float]:
    """The 95% Wilson interval of count/total; (0, 1) for nothing."""
    from statsmodels.stats.proportion import proportion_confint

    if not total:
        return 0.0, 1.0
    low, high = proportion_confint(count, total, method="wilson")
    return float(low), float(high)


def pass_hat(flags: Mapping[str, Sequence[bool]], k: int) -> float:
    """pass^k over the tasks with k trials or more; 0 when there is none."""
    values = [comb(sum(group), k) / comb(len(group), k) for group in flags.values() if len(group) >= k]
    return sum(values) / len(values) if values else 0.0


def compare(before: Mapping[str, Sequence[bool]], after: Mapping[str, Sequence[bool]]) -> dict[str, Any]:
    """Two models on the same tasks: the difference of their rates with a paired interval, and exact McNemar.

    `fixed` and `broken` are the tasks whose share of passed trials rose or fell. McNemar takes a task as passed when more
    than half of its trials are; the interval is a bootstrap of the paired differences over tasks. `detectable` is the
    smallest difference that so many tasks with so many disagreements would show with a power of 80%.
    """
    shared = [task for task in before if task in after and len(before[task]) and len(after[task])]
    shares = [(sum(before[t]) / len(before[t]), sum(after[t]) / len(after[t])) for t in shared]
    differences = [new - old for old, new in shares]
    lost = sum(old > 0.5 >= new for old, new in shares)
    won = sum(new > 0.5 >= old for old, new in shares)
    low, high = _mean_interval(differences)
    spread = sum(d * d for d in differences) / len(differences) if differences else 0.0
    return {
        "tasks": len(shared),
        "before": round(sum(old for old, _ in shares) / len(shares), 4) if shares else 0.0,
        "after": round(sum(new for _, new in shares) / len(shares), 4) if shares else 0.0,
        "difference": round(sum(differences) / len(differences), 4) if differences else 0.0,
        "low": round(low, 4),
        "high": round(high, 4),
        "won": won,
        "lost": lost,
        "mcnemar_p": mcnemar(won, lost),
        "detectable": round(POWER_Z * sqrt(spread / len(shared)), 4) if shared else 1.0,
        "fixed": [task for task, (old, new) in zip(shared, shares, strict=True) if new > old],
        "broken": [task for task, (old, new) in zip(shared, shares, strict=True) if new < old],
    }


def mcnemar(won: int, lost: int) -> float:
    """The exact two-sided p-value of `won` against `lost` discordant pairs; 1 without any."""
    from statsmodels.stats.contingency_tables import mcnemar as test

    return round(float(test([[0, lost], [won, 0]], exact=True).pvalue), 6) if won + lost else 1.0


def _clustered(groups: list[list[bool]]) -> tuple[float, float]:
    shares = [sum(group) / len(group) for group in groups]
    if len(set(shares)) == 1 and shares[0] in (0, 1):  # a bootstrap cannot tell how sure "all" or "none" is
        return wilson(len(groups) * int(shares[0]), len(groups))
    return _mean_interval(shares)


def _mean_interval(values: list[float]) -> tuple[float, float]:
    """The 95% percentile bootstrap of a mean, the same for the same values; the value itself where all agree."""
    import numpy
    from scipy.stats import bootstrap

    if len(set(values)) < 2:
        only = values[0] if values else 0.0
        return only, only
    rng = numpy.random.default_rng(0)
    found = bootstrap((values,), numpy.mean, n_resamples=RESAMPLES, method="percentile", rng=rng, vectorized=True)
    return float(found.confidence_interval.low), float(found.confidence_interval.high)
