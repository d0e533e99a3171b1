"""Trouble that a run's log shows, each cause with its remedy. Nothing is stopped here."""

import math

from toolset_nb.training.plots import smooth

MOST_KL = 10.0  # nats; KTO's own runs stay below 1
IDLE_PERCENT = 30


def health(history: list[dict], method: str, steps: int) -> dict[str, str]:
    """What looks wrong in the logged steps of a run of `steps` steps: cause -> remedy; empty when nothing does."""
    losses = [row["loss"] for row in history if "loss" in row]
    found = {}
    if any(not math.isfinite(loss) for loss in losses):
        found["The loss is not a number"] = (
            "Stop, and train again with a third of the learning rate; on a T4 or older see that dtype is float16 or float32."
        )
        return found
    third = len(losses) // 3
    if third >= 3 and history[-1]["step"] >= 0.2 * steps:
        early, late = sum(losses[:third]) / third, sum(losses[-third:]) / third
        if late > 1.3 * min(smooth(losses)) and late > early:
            found["The loss is rising"] = "Start anew with a third of the learning_rate: a resumed run keeps its own."
        elif late > 0.98 * early and method == "sft":
            found["The loss is not falling"] = (
                "Raise learning_rate three times; if that changes nothing, look at the rows shown above: is the answer supervised?"
            )
    if method == "kto":
        kl = [row["kl"] for row in history[-3:] if "kl" in row]
        if len(kl) == 3 and min(kl) > MOST_KL:
            found["The policy runs away from the SFT model (KL)"] = "Lower learning_rate to a fifth, or raise beta."
        margins = [row["rewards/margins"] for row in history if "rewards/margins" in row][-5:]
        if len(margins) == 5 and max(margins) < 0 and history[-1]["step"] >= 0.3 * steps:
            found["Bad answers are rewarded (margins below 0)"] = (
                "Check the labels of your rows (python -m toolset_nb validate), then lower learning_rate."
            )
    busy = [row["gpu_percent"] for row in history[-5:] if "gpu_percent" in row]
    if len(busy) == 5 and max(busy) < IDLE_PERCENT:
        found["The GPU is idle most of the time"] = (
            "Raise batch_size and lower gradient_accumulation by the same factor."
        )
    return found
