"""Figures of a report, readable without colour: hatches and markers beside the petroff10 palette, cividis for shares."""

import textwrap
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

from toolset_nb.evaluation.verdicts import MEASURES

HATCHES = ("", "//", "..", "xx", "\\\\", "++")
MARKERS = "osD^vP"
MOST_LABEL = 28  # characters of a model's name


def figures(reports: list[dict[str, Any]]) -> dict[str, Any]:
    """File name -> figure, of those that say something for these reports."""
    made = {"measures": measures(reports), "tools": tools(reports)}
    if faulty := [entry for entry in reports if off_diagonal(entry)]:
        made["confusion"] = confusion(faulty[-1])
    if any(entry["summary"]["failures"] for entry in reports):
        made["failures"] = failures(reports)
    if any(entry["summary"]["trials"] > 1 for entry in reports):
        made["pass_hat"] = pass_hat(reports)
    if len(reports) > 1:
        made["slope"] = slope(reports)
    return made


@contextmanager
def _figure(width: float, height: float, rows: int = 1, columns: int = 1):
    import matplotlib.pyplot as plt

    with plt.style.context("petroff10" if "petroff10" in plt.style.available else "default"):
        figure, axes = plt.subplots(rows, columns, figsize=(width, height), squeeze=False, layout="constrained")
        yield figure, axes[0]
        plt.close(figure)


def measures(reports: list[dict[str, Any]]):
    """Each measure's share with its interval: a group of bars a measure, a colour and hatch a target."""
    names = {n: w for n, w in MEASURES.items() if all(n in e["summary"]["measures"] for e in reports)}
    with _figure(9.5, 4.2) as (figure, (axis,)):
        width = 0.8 / len(reports)
        for number, entry in enumerate(reports):
            rates = [entry["summary"]["measures"][name] for name in names]
            places = [place + (number - (len(reports) - 1) / 2) * width for place in range(len(names))]
            heights = [rate["rate"] * 100 for rate in rates]
            below = [max(0, h - r["low"] * 100) for h, r in zip(heights, rates, strict=True)]
            above = [max(0, r["high"] * 100 - h) for h, r in zip(heights, rates, strict=True)]
            axis.bar(
                places,
                heights,
                width * 0.92,
                yerr=[below, above],
                capsize=3,
                label=_label(entry),
                hatch=HATCHES[number % len(HATCHES)],
                alpha=0.85,
            )
            for place, height, upper in zip(places, heights, above, strict=True):
                axis.text(place, min(height + upper + 2, 108), f"{height:.0f}", ha="center", fontsize=8)
        axis.set_xticks(range(len(names)), [textwrap.fill(words, 15) for words in names.values()], fontsize=8)
        axis.set(ylabel="share of prompts (%), 95% interval", ylim=(0, 114))
        axis.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4)
        axis.grid(axis="y", alpha=0.3)
    return figure


def tools(reports: list[dict[str, Any]]):
    """The share that passed for each expected tool and target, as a heat map with its numbers."""
    names = sorted({name for entry in reports for name in entry["summary"]["by_tool"]})
    columns = max(1, -(-len(names) // 24))
    rows = -(-len(names) // columns) or 1
    with _figure(4.2 * columns + 0.9 * len(reports) * columns, 0.26 * rows + 1.3, 1, columns) as (figure, axes):
        for number, axis in enumerate(axes):
            shown = names[number * rows : (number + 1) * rows]
            values = [[_share(entry, name) for entry in reports] for name in shown] or [[float("nan")] * len(reports)]
            image = axis.imshow(values, cmap="cividis", vmin=0, vmax=100, aspect="auto")
            axis.set_yticks(range(len(shown)), shown, fontsize=7)
            axis.set_xticks(range(len(reports)), [textwrap.fill(_label(entry), 14) for entry in reports], fontsize=7)
            axis.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False)
            _write_numbers(axis, values, lambda value: value < 55)
        figure.colorbar(image, ax=list(axes), label="passed (%)", shrink=0.6)
    return figure


def off_diagonal(entry: dict[str, Any]) -> list[tuple[str, str, int]]:
    """(due, done instead, attempts), the most frequent first."""
    found = [
        (due, done, n) for due, row in entry["summary"]["confusion"].items() for done, n in row.items() if done != due
    ]
    return sorted(found, key=lambda item: (-item[2], item[0], item[1]))


def confusion(entry: dict[str, Any]):
    """What was called in place of what was due, for the 24 tools where that happened most."""
    wrong = off_diagonal(entry)
    lost = Counter()
    for due, _, count in wrong:
        lost[due] += count
    due = [name for name, _ in lost.most_common(24)]
    done = list(dict.fromkeys([*due, *(other for name, other, _ in wrong if name in due)]))
    nothing = float("nan")  # stays white
    grid = [[entry["summary"]["confusion"].get(name, {}).get(other, nothing) for other in done] for name in due]
    with _figure(2.8 + 0.3 * len(done), 2.6 + 0.26 * len(due)) as (figure, (axis,)):
        axis.imshow(grid, cmap="cividis_r", aspect="auto", vmin=0)
        largest = max(value for line in grid for value in line if value == value)
        _write_numbers(axis, grid, lambda value: value > largest / 2)
        axis.set_yticks(range(len(due)), [_short(name) for name in due], fontsize=7)
        axis.set_xticks(
            range(len(done)),
            [_short(name) for name in done],
            fontsize=7,
            rotation=60,
            ha="right",
            rotation_mode="anchor",
        )
        axis.set(xlabel="done", ylabel="due", title=f"{_label(entry)}: attempts, tools with mistakes only")
        axis.title.set_fontsize(9)
    return figure


def failures(reports: list[dict[str, Any]]):
    """How often each failure occurred, a bar a target."""
    names = list(dict.fromkeys(name for entry in reports for name in entry["summary"]["failures"]))
    names.sort(key=lambda name: sum(e["summary"]["failures"].get(name, 0) for e in reports))
    height = 0.8 / len(reports)
    with _figure(8, 1.2 + 0.24 * len(names) * max(1, len(reports) * 0.6)) as (figure, (axis,)):
        for number, entry in enumerate(reports):
            shares = [100 * entry["summary"]["failures"].get(n, 0) / max(entry["summary"]["total"], 1) for n in names]
            places = [place + (number - (len(reports) - 1) / 2) * height for place in range(len(names))]
            axis.barh(
                places, shares, height * 0.9, label=_label(entry), hatch=HATCHES[number % len(HATCHES)], alpha=0.85
            )
        axis.set_yticks(range(len(names)), names, fontsize=8)
        axis.set(xlabel="share of attempts (%); an attempt may have several")
        axis.legend(frameon=False, fontsize=8)
        axis.grid(axis="x", alpha=0.3)
    return figure


def pass_hat(reports: list[dict[str, Any]]):
    """pass^k over k: how much of what works once works every time."""
    with _figure(5.5, 3.6) as (figure, (axis,)):
        for number, entry in enumerate(reports):
            values = {int(k): value * 100 for k, value in entry["summary"]["pass_hat"].items()}
            axis.plot(list(values), list(values.values()), marker=MARKERS[number % len(MARKERS)], label=_label(entry))
        axis.set(xlabel="k, attempts that all have to pass", ylabel="pass^k (%)", ylim=(0, 100))
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.legend(frameon=False, fontsize=8)
        axis.grid(alpha=0.3)
    return figure


def slope(reports: list[dict[str, Any]]):
    """From target to target: the share that passed for each agent, and over all with its interval."""
    agents = sorted({name for entry in reports for name in entry["summary"]["by_agent"]})
    places = range(len(reports))
    with _figure(1.8 + 2.2 * len(reports), 4.2) as (figure, (axis,)):
        for number, name in enumerate(agents):
            values = [
                entry["summary"]["by_agent"].get(name, {}).get("pass_rate", float("nan")) * 100 for entry in reports
            ]
            axis.plot(places, values, marker=MARKERS[number % len(MARKERS)], alpha=0.7, label=name, linewidth=1.2)
        rates = [entry["summary"]["measures"]["passed"] for entry in reports]
        shares = [rate["rate"] * 100 for rate in rates]
        bars = [
            [s - r["low"] * 100 for s, r in zip(shares, rates, strict=True)],
            [r["high"] * 100 - s for s, r in zip(shares, rates, strict=True)],
        ]
        bars = [[max(0, value) for value in side] for side in bars]
        axis.errorbar(
            places, shares, yerr=bars, color="black", linewidth=2.5, marker="o", capsize=4, label="all, 95% interval"
        )
        axis.set_xticks(list(places), [textwrap.fill(_label(entry), 16) for entry in reports], fontsize=8)
        axis.set(ylabel="passed (%)", ylim=(-2, 102), xlim=(-0.3, len(reports) - 0.7))
        axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
        axis.grid(axis="y", alpha=0.3)
    return figure


def _share(entry: dict[str, Any], name: str) -> float:
    row = entry["summary"]["by_tool"].get(name)
    return row["pass_rate"] * 100 if row else float("nan")


def _label(entry: dict[str, Any]) -> str:
    name = entry["metadata"]["model"]
    return name if len(name) <= MOST_LABEL else "…" + name[-MOST_LABEL + 1 :]


def _short(name: str) -> str:
    """A tool without its agent."""
    return name.partition("_")[2] or name


def _write_numbers(axis, grid: list[list[float]], on_dark: Callable[[float], bool]) -> None:
    """Each cell's value into a heat map, whole and readable on its colour; a cell that is not a number stays empty."""
    for row, line in enumerate(grid):
        for column, value in enumerate(line):
            if value == value:
                colour = "white" if on_dark(value) else "black"
                axis.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=7, color=colour)
