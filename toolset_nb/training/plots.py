"""Figures of a run's log: loss, and for KTO the reward margin and the KL distance."""

from collections.abc import Iterable

from toolset_nb.runs import Run


def plot(history: list[dict], method: str, title: str = ""):
    """A figure of the loss (and for KTO reward margin and KL) over steps, with a smoothed line.

    SFT's loss is cross-entropy; KTO's is one minus a sigmoid of the reward, a number without a unit.
    """
    import matplotlib.pyplot as plt

    names = ["loss"] + (["rewards/margins", "kl"] if method == "kto" else [])
    labels = {"kl": "KL (nats)"} | ({"loss": "loss (nats per token)"} if method == "sft" else {})
    with plt.style.context("petroff10" if "petroff10" in plt.style.available else "default"):
        figure, axes = plt.subplots(1, len(names), figsize=(5.2 * len(names), 3.4), squeeze=False)
        for axis, name in zip(axes[0], names, strict=True):
            points = [(row["step"], row[name]) for row in history if name in row]
            if points:
                steps, values = zip(*points, strict=True)
                axis.plot(steps, values, ".", alpha=0.45, label="logged")
                axis.plot(steps, smooth(values), "-", linewidth=2, label="smoothed")
                axis.annotate(f"{values[-1]:.3g}", (steps[-1], values[-1]), textcoords="offset points", xytext=(4, 6))
            axis.set(xlabel="optimizer step", ylabel=labels.get(name, name))
            axis.margins(x=0.08)
            axis.grid(alpha=0.3)
        if axes[0][0].lines:
            axes[0][0].legend(frameon=False)
        figure.suptitle(title, fontsize=8)
        figure.tight_layout()
        plt.close(figure)  # shown or saved by the caller, never twice
    return figure


def save_plots(run: Run, method: str):
    """Writes plots/loss.png, says in one line what it shows, and returns the figure for the notebook to show."""
    history = run.history()
    path = run.path("plots", "loss.png")
    figure = plot(history, method)
    figure.savefig(path, dpi=120)
    if history:
        first, last = history[0], history[-1]
        print(f"loss {first['loss']:.3f} at step {first['step']}, {last['loss']:.3f} at step {last['step']}; {path}")
    return figure


def smooth(values: Iterable[float], weight: float = 0.6) -> list[float]:
    """Exponential moving average, started at the first value."""
    smoothed, current = [], None
    for value in values:
        current = value if current is None else weight * current + (1 - weight) * value
        smoothed.append(current)
    return smoothed
